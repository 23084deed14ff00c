//! What is read from the environment, in a process of its own.

use std::process::Command;

use malquery_proto::flow::RetryPolicy;

use crate::server::{Server, Then, json, reply, token};

/// Set in the process that the test starts, which is the test itself again.
const CHILD: &str = "MALQUERY_TEST_CHILD";

/// What that process does.
fn child() {
    match malquery_ureq::from_env() {
        Ok(client) => match client.retry(RetryPolicy::never()).quotas() {
            Ok(quotas) => println!("hunts: {:?}", quotas.meta.hunt_count),
            Err(error) => {
                println!(
                    "error: {error}; {:?}",
                    std::error::Error::source(&error).map(|e| e.to_string())
                )
            }
        },
        Err(error) => println!("environment: {error}"),
    }
}

fn run(variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            "--exact",
            "process::a_client_of_the_environment",
            "--nocapture",
        ])
        .env(CHILD, "1");
    for name in ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    for name in [
        "CLIENT_ID",
        "CLIENT_SECRET",
        "CLOUD",
        "BASE_URL",
        "MEMBER_CID",
    ] {
        command.env_remove(format!("FALCON_{name}"));
    }
    let output = command.envs(variables.iter().copied()).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_client_of_the_environment() {
    if std::env::var_os(CHILD).is_some() {
        return child();
    }
    let server = Server::start(|request, out| match token(request, out) {
        true => Then::Go,
        false => json(out, r#"{"meta":{"hunt_count":9}}"#),
    });
    let url = server.url("");
    // A proxy is not asked for loopback.
    let proxy = Server::start(|_, out| json(out, "{}"));
    let proxy_url = proxy.url("");
    let said = run(&[
        ("FALCON_CLIENT_ID", "an-id"),
        ("FALCON_CLIENT_SECRET", "p4ssw0rd"),
        ("FALCON_MEMBER_CID", "0123456789abcdef0123456789abcdef-4F"),
        ("FALCON_CLOUD", "us-2"),
        ("FALCON_BASE_URL", &url),
        ("HTTP_PROXY", &proxy_url),
    ]);
    assert!(said.contains("hunts: Some(9)"), "{said}");
    let form = "client_id=an-id&client_secret=p4ssw0rd&member_cid=0123456789abcdef0123456789abcdef";
    assert_eq!(server.seen()[0].body, form);
    assert_eq!(proxy.connections(), 0);
    let said = run(&[("FALCON_CLIENT_ID", "an-id")]);
    assert!(
        said.contains("environment: FALCON_CLIENT_SECRET is not set"),
        "{said}"
    );
}

#[test]
fn a_proxy_of_the_environment() {
    let proxy = Server::start(|_, out| reply(out, "403 Forbidden", "", b""));
    let url = proxy.url("");
    let who = [
        ("FALCON_CLIENT_ID", "an-id"),
        ("FALCON_CLIENT_SECRET", "p4ssw0rd"),
        ("FALCON_CLOUD", "eu-1"),
        ("HTTPS_PROXY", url.as_str()),
    ];
    let said = run(&who);
    assert!(
        said.contains("the proxy gave no connection to api.eu-1.crowdstrike.com"),
        "{said}"
    );
    assert_eq!(
        proxy.seen()[0].line(),
        "CONNECT api.eu-1.crowdstrike.com:443 HTTP/1.1"
    );
    assert!(!said.contains("p4ssw0rd"), "{said}");
}
