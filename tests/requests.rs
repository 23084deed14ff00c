//! Requests as sent over the wire: each as text, and compared with CrowdStrike's own Python client.

use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use malquery_mock::{Transcript, VirtualClock, reply, script};
use malquery_proto::credentials::BearerToken;
use malquery_proto::flow::Auth;
use malquery_proto::oauth2::{GetToken, Revoke};
use malquery_proto::operation::Operation;
use malquery_proto::operations::{
    ExactSearch, FuzzySearch, GetDownload, GetMetadata, GetQuotas, GetRequest, GetSamples, Hunt,
    SamplesMultidownload,
};
use malquery_proto::types::{
    FileSize, FileType, MetaField, Pattern, RequestId, SearchOptions, Sha256,
};
use malquery_proto::{BaseUrl, Client, Cloud, Credentials};
use serde_json::{Value, json};

fn a() -> Sha256 {
    Sha256::from_bytes([0xaa; 32])
}

fn b() -> Sha256 {
    Sha256::from_bytes([0xbb; 32])
}

fn id() -> RequestId {
    "3c9d5b1e-4a2f-6ea1-5f4f-0123456789ab".parse().unwrap()
}

fn patterns() -> [Pattern; 3] {
    [
        Pattern::hex("8948208b48").unwrap(),
        Pattern::ascii("GNU \"quoted\" ").unwrap(),
        Pattern::wide("powershell").unwrap(),
    ]
}

fn options() -> SearchOptions {
    SearchOptions::new()
        .filter_filetypes([FileType::PE32, FileType::PDF])
        .filter_meta([MetaField::Sha256, MetaField::Label])
        .limit(3)
        .min_date("2024/01/01".parse().unwrap())
        .max_date("2024/12/31".parse().unwrap())
        .min_size(FileSize::bytes(128_000))
        .max_size("8mb".parse().unwrap())
}

fn credentials() -> Credentials {
    Credentials::new("the id", "s+/=&%")
        .member_cid("0123456789abcdef0123456789abcdef-4F".parse().unwrap())
}

fn fuzzy_search() -> FuzzySearch {
    FuzzySearch::new(patterns())
        .filter_meta([MetaField::Sha256, MetaField::Label])
        .limit(3)
}

fn exact_search() -> ExactSearch {
    ExactSearch::new(patterns()).options(options())
}

fn hunt() -> Hunt {
    Hunt::new("rule a { strings: $a = \"GNU\" condition: $a }").options(options())
}

fn bare_pattern() -> [Pattern; 1] {
    [Pattern::hex("8948208b48").unwrap()]
}

/// Returns the exchanges of a client as text.
fn transcript(use_client: impl FnOnce(&Client)) -> String {
    let answer = json!({"meta": {"reqid": "3c9d5b1e-4a2f-6ea1-5f4f-0123456789ab", "trace_id": "t"}, "resources": []});
    transcript_with(answer, use_client)
}

fn transcript_with(answer: Value, use_client: impl FnOnce(&Client)) -> String {
    let transport = Transcript::new(
        script([reply::json(200, answer).repeat_last()])
            .with_tokens()
            .transport(),
    );
    let auth = Auth::new(Cloud::Us1, credentials());
    let client = Client::new(transport.clone(), VirtualClock::new(), auth);
    use_client(&client);
    transport.to_string()
}

#[test]
fn every_request_as_text() {
    insta::assert_snapshot!(
        "quotas",
        transcript_with(json!({"meta": {"days_left": 3}}), |client| drop(
            client.quotas().unwrap()
        ))
    );
    insta::assert_snapshot!(
        "fuzzy_search",
        transcript(|client| drop(client.fuzzy_search(&fuzzy_search()).unwrap()))
    );
    insta::assert_snapshot!(
        "download",
        transcript(|client| drop(client.download(a()).unwrap()))
    );
    insta::assert_snapshot!(
        "metadata",
        transcript(|client| drop(client.metadata([a(), b()]).unwrap()))
    );
    insta::assert_snapshot!(
        "request",
        transcript(|client| drop(client.request(&id()).unwrap()))
    );
    insta::assert_snapshot!(
        "samples_fetch",
        transcript(|client| drop(client.samples(&id()).unwrap()))
    );
    insta::assert_snapshot!(
        "samples_multidownload",
        // A duplicate could be billed again.
        transcript(|client| drop(client.samples_multidownload([a(), b(), a()]).unwrap()))
    );
    insta::assert_snapshot!(
        "exact_search",
        transcript(|client| drop(client.exact_search(&exact_search()).unwrap()))
    );
    insta::assert_snapshot!(
        "hunt",
        transcript(|client| drop(client.hunt(&hunt()).unwrap()))
    );
    insta::assert_snapshot!(
        "all_options",
        transcript(|client| {
            let options = options().app("an app").submitted_by_customer(false);
            drop(
                client
                    .hunt(&Hunt::new("rule b {\n  condition:\n    true\n}\n").options(options))
                    .unwrap(),
            );
        })
    );
    insta::assert_snapshot!(
        "revoke",
        transcript_with(json!({"meta": {"days_left": 3}}), |client| {
            client.quotas().unwrap();
            client.revoke().unwrap();
        })
    );
}

/// Compares a request with the request that FalconPy 1.6.6 sent for the same arguments, recorded in
/// `falconpy-1.6.6.json`: method, path, query, meaning of the JSON, form, kind of authorization,
/// media type.
fn assert_as_falconpy(name: &str, request: &http::Request<Vec<u8>>) {
    let recorded: Value = serde_json::from_str(include_str!("falconpy-1.6.6.json")).unwrap();
    let expected = &recorded[name];
    let pairs = |text: &[u8]| -> Value {
        url::form_urlencoded::parse(text)
            .map(|(k, v)| json!([k, v]))
            .collect()
    };
    let header = |name| {
        request
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let mut sent = json!({
        "method": request.method().as_str(),
        "path": request.uri().path(),
        "query": pairs(request.uri().query().unwrap_or_default().as_bytes()),
    });
    if let Some(media_type) = header(CONTENT_TYPE) {
        sent["content_type"] = media_type.into();
        match media_type {
            "application/json" => sent["json"] = serde_json::from_slice(request.body()).unwrap(),
            _ => sent["form"] = pairs(request.body()),
        }
    } else {
        assert!(
            request.body().is_empty(),
            "{name}: a body without a media type"
        );
    }
    if let Some(authorization) = header(AUTHORIZATION) {
        // FalconPy writes `basic`. The case of the scheme has no meaning.
        sent["authorization"] = authorization.replacen("Basic ", "basic ", 1).into();
    }
    assert!(
        header(CONTENT_LENGTH).is_none(),
        "the transport knows the length"
    );
    assert_eq!(&sent, expected, "{name}");
}

#[test]
fn every_request_equals_falconpys() {
    let base = BaseUrl::from(Cloud::Us1);
    let bearer = BearerToken::new("t").unwrap();
    fn check(name: &str, operation: &impl Operation, base: &BaseUrl, bearer: &BearerToken) {
        assert_as_falconpy(name, &operation.request(base, bearer).unwrap());
    }
    check("quotas", &GetQuotas, &base, &bearer);
    check("fuzzy_search", &fuzzy_search(), &base, &bearer);
    check(
        "fuzzy_search_bare",
        &FuzzySearch::new(bare_pattern()),
        &base,
        &bearer,
    );
    check("download", &GetDownload::new(a()), &base, &bearer);
    check("metadata", &GetMetadata::new([a(), b()]), &base, &bearer);
    check("request", &GetRequest::new(id()), &base, &bearer);
    check("samples_fetch", &GetSamples::new(id()), &base, &bearer);
    check(
        "samples_multidownload",
        &SamplesMultidownload::new([a(), b()]),
        &base,
        &bearer,
    );
    check("exact_search", &exact_search(), &base, &bearer);
    check(
        "exact_search_bare",
        &ExactSearch::new(bare_pattern()),
        &base,
        &bearer,
    );
    check("hunt", &hunt(), &base, &bearer);
    check(
        "hunt_bare",
        &Hunt::new("rule a { condition: true }"),
        &base,
        &bearer,
    );
    assert_as_falconpy(
        "token",
        &GetToken::new(&credentials()).request(&base).unwrap(),
    );
    let token = BearerToken::new("t0ken").unwrap();
    assert_as_falconpy(
        "revoke",
        &Revoke::new(&credentials(), &token).request(&base).unwrap(),
    );
}

#[test]
fn a_prefix_of_the_base_url_is_kept() {
    let base: BaseUrl = "https://proxy.example/falcon/".parse().unwrap();
    let request = GetRequest::new(id())
        .request(&base, &BearerToken::new("t").unwrap())
        .unwrap();
    assert_eq!(
        request.uri(),
        "https://proxy.example/falcon/malquery/entities/requests/v1?ids=3c9d5b1e-4a2f-6ea1-5f4f-0123456789ab"
    );
}

#[test]
fn an_id_of_any_text_is_encoded() {
    let id: RequestId = "a/b?c=d&e#f%ü".parse().unwrap();
    let request = GetRequest::new(id)
        .request(&Cloud::Us1.into(), &BearerToken::new("t").unwrap())
        .unwrap();
    assert_eq!(
        request.uri().query(),
        Some("ids=a%2Fb%3Fc%3Dd%26e%23f%25%C3%BC")
    );
}

#[test]
fn a_url_stays_below_8000_bytes() {
    let bearer = BearerToken::new("t").unwrap();
    let metadata = |count| {
        GetMetadata::new(std::iter::repeat_n(a(), count)).request(&Cloud::Us1.into(), &bearer)
    };
    assert!(metadata(115).unwrap().uri().to_string().len() < 8000);
    assert_eq!(
        metadata(116).unwrap_err().to_string(),
        "the URL would be 8061 bytes long, but must be shorter than 8000 bytes; request fewer ids at a time"
    );
}

#[test]
fn what_cannot_find_anything_is_refused() {
    let bearer = BearerToken::new("t").unwrap();
    let base = BaseUrl::from(Cloud::Us1);
    fn refused(operation: &impl Operation, base: &BaseUrl, bearer: &BearerToken) -> String {
        operation.request(base, bearer).unwrap_err().to_string()
    }
    assert_eq!(
        refused(&FuzzySearch::new([]), &base, &bearer),
        "a search needs at least one pattern"
    );
    assert_eq!(
        refused(&ExactSearch::new([]), &base, &bearer),
        "a search needs at least one pattern"
    );
    assert_eq!(
        refused(&FuzzySearch::new(bare_pattern()).limit(0), &base, &bearer),
        "the limit is 0; set it to at least 1"
    );
    assert_eq!(
        refused(&Hunt::new(" \n"), &base, &bearer),
        "the YARA rule is empty"
    );
    assert_eq!(
        refused(&GetMetadata::new([] as [Sha256; 0]), &base, &bearer),
        "at least one SHA-256 is required"
    );
    assert_eq!(
        refused(
            &SamplesMultidownload::new([] as [Sha256; 0]),
            &base,
            &bearer
        ),
        "at least one SHA-256 is required"
    );
    let backwards = SearchOptions::new()
        .min_size(FileSize::bytes(2))
        .max_size(FileSize::bytes(1));
    assert_eq!(
        refused(&hunt().options(backwards), &base, &bearer),
        "the minimum size 2 is greater than the maximum 1, so nothing can match"
    );
}
