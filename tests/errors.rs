//! Error replies: every operation with every status, and every kind of body.

use http::{HeaderMap, StatusCode};
use malquery_mock::{VirtualClock, reply, script};
use malquery_proto::client::Error;
use malquery_proto::error::{ApiError, ApiErrorKind};
use malquery_proto::flow::{Auth, FlowError, RetryPolicy};
use malquery_proto::operation::Operation;
use malquery_proto::operations::{
    ExactSearch, FuzzySearch, GetDownload, GetMetadata, GetQuotas, GetRequest, GetSamples, Hunt,
    SamplesMultidownload,
};
use malquery_proto::reply::ResponseHead;
use malquery_proto::types::{Pattern, Sha256};
use malquery_proto::{Client, Cloud, Credentials, Timestamp};
use serde_json::json;

const STATUSES: [u16; 14] = [
    301, 308, 400, 401, 403, 404, 408, 409, 418, 429, 500, 502, 503, 504,
];

fn pattern() -> [Pattern; 1] {
    [Pattern::ascii("a").unwrap()]
}

fn sample() -> Sha256 {
    Sha256::from_bytes([0; 32])
}

/// Calls every operation once, without retries, with a service that always returns this reply.
fn call_each(answer: &reply::Reply) -> Vec<(&'static str, Error)> {
    let mock = script([answer.clone().repeat_last()])
        .with_tokens()
        .transport();
    let auth = Auth::new(Cloud::Us1, Credentials::new("id", "secret"));
    let client = Client::new(mock, VirtualClock::new(), auth).retry(RetryPolicy::never());
    vec![
        ("quotas", client.quotas().map(drop).unwrap_err()),
        (
            "fuzzy_search",
            client
                .fuzzy_search(&FuzzySearch::new(pattern()))
                .map(drop)
                .unwrap_err(),
        ),
        ("download", client.download(sample()).map(drop).unwrap_err()),
        (
            "metadata",
            client.metadata([sample()]).map(drop).unwrap_err(),
        ),
        (
            "request",
            client.request(&"r".parse().unwrap()).map(drop).unwrap_err(),
        ),
        (
            "samples",
            client.samples(&"r".parse().unwrap()).map(drop).unwrap_err(),
        ),
        (
            "samples_multidownload",
            client
                .samples_multidownload([sample()])
                .map(drop)
                .unwrap_err(),
        ),
        (
            "exact_search",
            client
                .exact_search(&ExactSearch::new(pattern()))
                .map(drop)
                .unwrap_err(),
        ),
        (
            "hunt",
            client.hunt(&Hunt::new("rule a {}")).map(drop).unwrap_err(),
        ),
    ]
}

fn outcome(error: &Error) -> String {
    match error {
        Error::Flow {
            error: FlowError::OutcomeUnknown { .. },
            ..
        } => "unsure".into(),
        _ => match error.api() {
            Some(api) => format!(
                "{:?}{}",
                api.kind(),
                if error.is_retryable() {
                    ", retryable"
                } else {
                    ""
                }
            ),
            None => format!("{error}"),
        },
    }
}

#[test]
fn the_table_of_statuses_and_operations() {
    let mut table = String::new();
    for status in STATUSES {
        let body = json!({"meta": {"trace_id": "t-1"}, "errors": [{"code": status, "message": "said so"}]});
        for (operation, error) in call_each(&reply::json(status, body)) {
            table.push_str(&format!("{status} {operation:<22}{}\n", outcome(&error)));
            assert_eq!(error.status().unwrap().as_u16(), status);
            assert_eq!(error.trace_id(), Some("t-1"));
            let api = error.api().unwrap();
            assert_eq!(api.errors()[0].message.as_deref(), Some("said so"));
            assert_eq!(api.body(), None);
        }
    }
    insta::assert_snapshot!("statuses", table);
}

fn api_error<O: Operation>(
    operation: &O,
    status: u16,
    headers: &[(&str, &str)],
    body: &[u8],
) -> ApiError {
    let headers: HeaderMap = headers
        .iter()
        .map(|(name, value)| {
            (
                name.parse::<http::HeaderName>().unwrap(),
                value.parse::<http::HeaderValue>().unwrap(),
            )
        })
        .collect();
    operation.error(
        ResponseHead {
            status: StatusCode::from_u16(status).unwrap(),
            headers: &headers,
        },
        body,
    )
}

#[test]
fn a_body_is_typed_then_json_then_text() {
    let shown = |status, body: &[u8]| {
        api_error(&GetQuotas, status, &[("x-cs-traceid", "t-2")], body).to_string()
    };
    insta::assert_snapshot!(
        "bodies",
        [
            shown(400, br#"{"meta": {"trace_id": "t-1"}, "errors": [{"code": 400, "message": "Invalid user input"}]}"#),
            shown(400, br#"{"errors": [{"code": 400, "message": "one"}, {"code": 17}, {"id": "x", "message": "two"}]}"#),
            shown(400, br#"{"errors": [{"message": null}], "resources": null}"#),
            shown(500, br#"{"message": "of another shape"}"#),
            shown(502, b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n</html>\r\n"),
            shown(503, b""),
            shown(504, &[0xff, 0x1b, b'[', b'2', b'J', 0, b'x']),
            shown(599, "ä".repeat(5000).as_bytes()),
        ]
        .join("\n"),
    );
}

#[test]
fn hints_say_what_to_do() {
    let hint = |status, headers: &[(&str, &str)], body: &str| {
        let read = api_error(
            &GetRequest::new("r".parse().unwrap()),
            status,
            headers,
            body.as_bytes(),
        );
        let write = api_error(&Hunt::new("rule a {}"), status, headers, body.as_bytes());
        format!(
            "{status} read:  {:?}\n{status} write: {:?}",
            read.hint(),
            write.hint()
        )
    };
    insta::assert_snapshot!(
        "hints",
        [
            hint(401, &[], ""),
            hint(403, &[], ""),
            hint(
                404,
                &[],
                r#"{"errors": [{"code": 404, "message": "Could not find sample archive"}]}"#
            ),
            hint(308, &[], ""),
            hint(429, &[], r#"{"meta": {"powered_by": "malquery-api"}}"#),
            hint(500, &[], ""),
        ]
        .join("\n"),
    );
}

#[test]
fn an_exhausted_quota_is_no_rate_limit() {
    let kind = |headers: &[(&str, &str)], body: &str| {
        api_error(&Hunt::new("rule a {}"), 429, headers, body.as_bytes()).kind()
    };
    let quota = r#"{"meta": {"powered_by": "malquery-api", "reqid": ""}, "resources": []}"#;
    let gateway = r#"{"meta": {"powered_by": "crowdstrike-api-gateway"}, "errors": [{"code": 429, "message": "API rate limit exceeded."}]}"#;
    assert_eq!(kind(&[], quota), ApiErrorKind::QuotaExhausted);
    assert_eq!(
        kind(&[("retry-after", "3")], quota),
        ApiErrorKind::RateLimited
    );
    assert_eq!(kind(&[], gateway), ApiErrorKind::RateLimited);
    assert_eq!(kind(&[], ""), ApiErrorKind::RateLimited);
}

#[test]
fn a_retry_time_is_read_in_any_form() {
    let now = Timestamp::from_millis(1_700_000_000_000);
    let at = |headers: &[(&str, &str)]| {
        api_error(&GetQuotas, 429, headers, b"")
            .retry_at(now)
            .map(|time| time.as_millis())
    };
    assert_eq!(
        at(&[("x-ratelimit-retryafter", "1700000060")]),
        Some(1_700_000_060_000)
    );
    assert_eq!(
        at(&[("X-RateLimit-RetryAfter", "1700000060000")]),
        Some(1_700_000_060_000)
    );
    assert_eq!(at(&[("retry-after", "60")]), Some(1_700_000_060_000));
    assert_eq!(
        at(&[("retry-after", "Tue, 14 Nov 2023 22:14:20 GMT")]),
        Some(1_700_000_060_000)
    );
    assert_eq!(
        at(&[("x-ratelimit-retryafter", "soon"), ("retry-after", "60")]),
        Some(1_700_000_060_000)
    );
    assert_eq!(at(&[("retry-after", "-5")]), None);
    assert_eq!(at(&[("retry-after", "99999999999999999999")]), None);
    assert_eq!(at(&[]), None);
    assert_eq!(
        at(&[("x-ratelimit-retryafter", "18446744073709551615")]),
        Some(u64::MAX)
    );
}

#[test]
fn operations_are_all_there() {
    let ids = [
        GetQuotas::ENDPOINT.id,
        FuzzySearch::ENDPOINT.id,
        GetDownload::ENDPOINT.id,
        GetMetadata::ENDPOINT.id,
        GetRequest::ENDPOINT.id,
        GetSamples::ENDPOINT.id,
        SamplesMultidownload::ENDPOINT.id,
        ExactSearch::ENDPOINT.id,
        Hunt::ENDPOINT.id,
    ];
    assert_eq!(
        ids,
        [
            "GetMalQueryQuotasV1",
            "PostMalQueryFuzzySearchV1",
            "GetMalQueryDownloadV1",
            "GetMalQueryMetadataV1",
            "GetMalQueryRequestV1",
            "GetMalQueryEntitiesSamplesFetchV1",
            "PostMalQueryEntitiesSamplesMultidownloadV1",
            "PostMalQueryExactSearchV1",
            "PostMalQueryHuntV1",
        ]
    );
}

/// `main` and `unwrap` print `Debug`, so it shows the same text as `Display` and the sources.
#[test]
fn debug_of_every_error_reads_like_display() {
    use std::error::Error;

    use malquery_proto::stream::StreamCheck;
    use malquery_proto::types::{Date, Sha256};
    use malquery_proto::{Archive, Client, Cloud, Credentials, MemberCid, OutputFile};
    use malquery_proto::{Transport, TransportError, client, flow, request};

    fn check(error: impl Error + 'static) {
        let mut expected = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            expected.push_str(&format!(": {error}"));
            source = error.source();
        }
        assert_eq!(format!("{error:?}"), expected);
        assert!(!expected.is_empty());
    }

    let broken = || std::io::Error::other("broken pipe");
    check("x".parse::<Sha256>().unwrap_err());
    check("2024-13-01".parse::<Date>().unwrap_err());
    check(TransportError::not_sent(broken()));
    check(TransportError::unknown(broken()));
    check(TransportError::cannot_send("no route"));
    check(request::BuildError::NoPatterns);
    check(flow::FlowError::NoStatus);
    check(flow::FlowError::NoReply {
        operation: "x",
        attempts: 2,
    });
    check(client::Error::Stopped);
    check(client::Error::Body(broken()));
    check(client::Error::from(flow::FlowError::from(
        request::BuildError::EmptyRule,
    )));
    check(client::Settings::from_lookup(|_| None).unwrap_err());
    check(client::Settings::from_lookup(|_| Some("?".into())).unwrap_err());
    check(OutputFile::create_new("/").unwrap_err());
    check(StreamCheck::new().expect_length(1).finish().unwrap_err());
    check(Archive::open(std::io::Cursor::new(b"no archive".to_vec())).unwrap_err());
    let reply = malquery_mock::reply::status(403);
    let (mock, guard) = malquery_mock::script([reply]).play();
    let auth = malquery_proto::Auth::new(Cloud::Us1, Credentials::new("id", "secret"));
    let client = Client::new(mock, malquery_mock::VirtualClock::new(), auth);
    check(
        client
            .child("cid".parse::<MemberCid>().unwrap())
            .quotas()
            .unwrap_err(),
    );
    drop(guard);
    let request = http::Request::get("http://example.com/")
        .body(Vec::new())
        .unwrap();
    check(
        malquery_ureq::UreqTransport::new()
            .send(request)
            .unwrap_err(),
    );
    check(
        malquery_ureq::UreqTransport::builder()
            .proxy("x:y:z")
            .build()
            .unwrap_err(),
    );
    check(malquery_mock::Cassette::parse("a.json", "{}").unwrap_err());
}
