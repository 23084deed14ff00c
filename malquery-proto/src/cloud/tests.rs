use proptest::prelude::*;

use super::*;

#[test]
fn every_name_and_alias_leads_to_its_cloud() {
    let table = [
        (
            Cloud::Us1,
            "https://api.crowdstrike.com",
            ["us-1", "us1", "US-1", "US1"].as_slice(),
        ),
        (
            Cloud::Us2,
            "https://api.us-2.crowdstrike.com",
            &["us-2", "us2", "Us-2"],
        ),
        (
            Cloud::Us3,
            "https://api.us-3.crowdstrike.com",
            &["us-3", "us3", "US3"],
        ),
        (
            Cloud::Eu1,
            "https://api.eu-1.crowdstrike.com",
            &["eu-1", "eu1", "EU-1"],
        ),
        (
            Cloud::UsGov1,
            "https://api.laggar.gcw.crowdstrike.com",
            &["us-gov-1", "usgov1", "gov1", "gov-1", "USGOV1"],
        ),
        (
            Cloud::UsGov2,
            "https://api.us-gov-2.crowdstrike.mil",
            &["us-gov-2", "usgov2", "gov2", "GOV-2"],
        ),
    ];
    for (cloud, url, names) in table {
        let base = BaseUrl::from(cloud);
        assert_eq!(base.as_str(), url);
        assert_eq!(base.cloud(), Some(cloud));
        assert_eq!(url.parse::<BaseUrl>().unwrap(), base);
        for name in names {
            assert_eq!(name.parse::<Cloud>().unwrap(), cloud, "{name}");
        }
    }
    assert_eq!(
        "us-9".parse::<Cloud>().unwrap_err().to_string(),
        "not a cloud: \"us-9\" is unknown; use us-1, us-2, us-3, eu-1, us-gov-1 or us-gov-2"
    );
    assert!("".parse::<Cloud>().is_err());
}

#[test]
fn base_urls_keep_a_prefix_and_nothing_else() {
    let kept = |text: &str| text.parse::<BaseUrl>().unwrap().to_string();
    assert_eq!(
        kept("https://proxy.example/falcon/v2/"),
        "https://proxy.example/falcon/v2"
    );
    assert_eq!(kept("https://PROXY.example:443"), "https://proxy.example");
    assert_eq!(kept("http://localhost:1"), "http://localhost:1");
    assert_eq!(kept("http://127.9.9.9:1//"), "http://127.9.9.9:1");
    assert_eq!(kept("http://[::1]:1"), "http://[::1]:1");
    let refused = |text: &str| text.parse::<BaseUrl>().unwrap_err().to_string();
    for text in [
        "http://10.0.0.1",
        "http://localhost.evil.example",
        "http://[::2]",
        "http://127.0.0.1.example",
    ] {
        assert_eq!(
            refused(text),
            "not a base URL: it must use https; plain http would expose the credentials to the network",
            "{text}"
        );
    }
    assert_eq!(
        refused("https://a:b@host"),
        "not a base URL: it must not contain a user name or password"
    );
    assert_eq!(
        refused("https://host/?x=1"),
        "not a base URL: it must not contain a query or fragment"
    );
    assert_eq!(
        refused("https://host/#x"),
        "not a base URL: it must not contain a query or fragment"
    );
    assert_eq!(
        refused("ftp://host"),
        "not a base URL: it must start with https:// and a host, or with http:// and a loopback address"
    );
    assert_eq!(
        refused("api.crowdstrike.com"),
        "not a base URL: relative URL without a base; use a URL such as https://api.crowdstrike.com"
    );
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in ".{0,40}|https?://.{0,20}") {
        if let Ok(cloud) = text.parse::<Cloud>() {
            prop_assert_eq!(cloud.to_string().parse::<Cloud>().unwrap(), cloud);
            let json = serde_json::to_string(&cloud).unwrap();
            prop_assert_eq!(serde_json::from_str::<Cloud>(&json).unwrap(), cloud);
        }
        if let Ok(base) = text.parse::<BaseUrl>() {
            prop_assert_eq!(BaseUrl::try_from(base.as_str()).unwrap(), base.clone());
            let json = serde_json::to_string(&base).unwrap();
            prop_assert_eq!(serde_json::from_str::<BaseUrl>(&json).unwrap(), base.clone());
            let token = http::Uri::try_from(format!("{base}/oauth2/token"));
            prop_assert!(token.is_ok());
        }
    }
}
