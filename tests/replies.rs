//! Every shape that a reply can have, read with its operation.

use http::{HeaderMap, StatusCode};
use malquery_proto::credentials::Credentials;
use malquery_proto::error::ResponseError;
use malquery_proto::oauth2::GetToken;
use malquery_proto::operation::{JsonOperation, JsonReply};
use malquery_proto::operations::{
    ExactSearch, FuzzySearch, GetMetadata, GetQuotas, GetRequest, Hunt, SamplesMultidownload,
};
use malquery_proto::reply::ResponseHead;
use malquery_proto::types::{JobStatus, Label, Pattern, Sha256};
use serde_json::{Value, json};

fn read<O: JsonOperation>(operation: &O, body: &Value) -> JsonReply<O> {
    let reply = try_read(operation, 200, &[], &body.to_string()).unwrap();
    // No received field is lost.
    let written = serde_json::to_value(&reply.output).unwrap();
    assert_eq!(&written, body);
    reply
}

fn try_read<O: JsonOperation>(
    operation: &O,
    status: u16,
    headers: &[(&'static str, &str)],
    body: &str,
) -> Result<JsonReply<O>, ResponseError> {
    let headers: HeaderMap = headers
        .iter()
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .collect();
    let head = ResponseHead {
        status: StatusCode::from_u16(status).unwrap(),
        headers: &headers,
    };
    operation.response(head, body.as_bytes())
}

fn request() -> GetRequest {
    GetRequest::new("r".parse().unwrap())
}

fn search() -> FuzzySearch {
    FuzzySearch::new([Pattern::ascii("a").unwrap()])
}

#[test]
fn quotas_have_everything_in_their_meta() {
    let reply = read(
        &GetQuotas,
        &json!({
            "meta": {
                "hunt_count": 3, "hunt_limit": 100, "download_count": 49, "download_limit": 50,
                "monitor_count": 0, "monitor_limit": 10, "days_left": 12, "refresh_time": "2026-12-01T00:00:00Z",
                "hunt_counts": [{"userid": "", "counter": 2}, {"userid": "an-id", "counter": 1}],
                "download_counts": [{"userid": "an-id", "counter": 49}],
            },
            "errors": [],
        }),
    );
    assert_eq!(
        (reply.meta.hunts_left(), reply.meta.downloads_left()),
        (Some(97), Some(1))
    );
    assert_eq!(reply.meta.hunt_counts[0].userid.as_deref(), Some(""));
    assert_eq!(reply.meta.hunt_counts[1].counter, Some(1));
    assert_eq!(reply.trace_id, None);
    let reply = read(
        &GetQuotas,
        &json!({"meta": {"hunt_limit": 1, "hunt_count": 2}}),
    );
    assert_eq!(
        (reply.meta.hunts_left(), reply.meta.downloads_left()),
        (Some(0), None)
    );
}

#[test]
fn a_fuzzy_search_has_stats_and_no_id() {
    let reply = read(
        &search(),
        &json!({
            "meta": {
                "query_time": 1.27e-7, "powered_by": "malquery-api", "trace_id": "t-1", "status": "done",
                "stats": {"total_count": 12345, "clean_count": 1, "malware_count": 2, "pua_count": 3, "unknown_count": 4},
            },
            "resources": [
                {"sha256": "aa".repeat(32), "label": "malware", "family": "Emotet", "filesize": 5_000_000_000_u64},
                {"label": "unknown"}, {},
            ],
        }),
    );
    assert_eq!(reply.trace_id.as_deref(), Some("t-1"));
    assert_eq!(reply.meta.stats.as_ref().unwrap().total_count, Some(12_345));
    assert_eq!(reply.resources.len(), 3);
    assert_eq!(reply.resources[0].filesize, Some(5_000_000_000));
    assert_eq!(reply.resources[1].label, Some(Label::Unknown));
}

#[test]
fn submissions_give_an_id_and_no_status() {
    let body = json!({
        "meta": {"query_time": 0.01, "powered_by": "malquery-api", "trace_id": "t",
            "reqid": "3c9d5b1e-4a2f-6ea1-5f4f-0123456789ab", "status": "done"},
        "resources": [],
    });
    let ids = [
        read(&Hunt::new("rule a {}"), &body).output.meta.reqid,
        read(&ExactSearch::new([Pattern::ascii("a").unwrap()]), &body)
            .output
            .meta
            .reqid,
        read(
            &SamplesMultidownload::new([Sha256::from_bytes([0; 32])]),
            &body,
        )
        .output
        .meta
        .reqid,
    ];
    assert!(
        ids.iter()
            .all(|id| id.as_str() == "3c9d5b1e-4a2f-6ea1-5f4f-0123456789ab")
    );
}

#[test]
fn a_job_in_each_state() {
    for (word, status) in [
        ("inprogress", JobStatus::InProgress),
        ("done", JobStatus::Done),
        ("failed", JobStatus::Failed),
    ] {
        let reply = read(
            &request(),
            &json!({"meta": {"reqid": "r", "reqtype": "hunt", "status": word, "query_time": 8_123_456_789_u64},
                "resources": [], "errors": null}),
        );
        assert_eq!(reply.meta.status, Some(status));
    }
    let reply = read(
        &request(),
        &json!({"meta": {"status": "paused", "reqtype": "retrohunt"}}),
    );
    assert_eq!(reply.meta.status.as_ref().unwrap().as_str(), "paused");
    assert_eq!(reply.meta.reqtype.as_ref().unwrap().as_str(), "retrohunt");
}

#[test]
fn metadata_leaves_out_what_is_not_known() {
    let reply = read(
        &GetMetadata::new([Sha256::from_bytes([1; 32])]),
        &json!({"meta": {"trace_id": "t"}, "resources": null}),
    );
    assert!(reply.resources.is_empty() && reply.errors.is_empty());
}

#[test]
fn lists_may_be_missing_null_or_empty() {
    for body in [
        json!({"meta": {"status": "inprogress"}}),
        json!({"meta": {}, "resources": null, "errors": null}),
        json!({"meta": {}, "resources": [], "errors": []}),
        json!({"meta": null, "resources": [{"samples": null}], "errors": null}),
        json!({"meta": {"a": 1}, "resources": [{"samples": [], "tags": null}], "more": {"b": [2.5, null]}}),
    ] {
        read(&search(), &body);
        read(&request(), &body);
    }
    // A reply without `meta`.
    assert!(
        try_read(&search(), 200, &[], r#"{"resources": []}"#)
            .unwrap()
            .resources
            .is_empty()
    );
}

#[test]
fn the_headers_trace_id_comes_first() {
    let body = r#"{"meta": {"trace_id": "of the body"}, "resources": []}"#;
    let reply = try_read(&search(), 200, &[("X-Cs-Traceid", "of the head")], body).unwrap();
    assert_eq!(reply.trace_id.as_deref(), Some("of the head"));
    assert_eq!(
        try_read(&search(), 200, &[], body)
            .unwrap()
            .trace_id
            .as_deref(),
        Some("of the body")
    );
}

#[test]
fn the_rate_limit_is_read_from_the_head() {
    let reply = try_read(
        &search(),
        200,
        &[
            ("X-RateLimit-Limit", "6000"),
            ("x-ratelimit-remaining", "5998"),
        ],
        r#"{"resources": []}"#,
    )
    .unwrap();
    assert_eq!(
        (reply.rate_limit.limit, reply.rate_limit.remaining),
        (Some(6000), Some(5998))
    );
    assert_eq!(reply.rate_limit.retry, None);
}

#[test]
fn any_2xx_is_a_success() {
    for status in [200, 201, 202, 204, 206] {
        assert_eq!(
            try_read(&search(), status, &[], r#"{"resources": []}"#)
                .unwrap()
                .status
                .as_u16(),
            status
        );
    }
}

#[test]
fn a_part_of_a_reply_is_refused() {
    let range = [("content-range", "bytes 0-80/200")];
    let body = r#"{"meta": {"reqid": "r"}, "resources": [{"label": "malware"}]}"#;
    let error = |result: Result<(), ResponseError>| result.unwrap_err().to_string();
    for error in [
        error(try_read(&search(), 206, &range, body).map(drop)),
        error(try_read(&request(), 206, &range, body).map(drop)),
    ] {
        assert!(error.contains("incomplete (206"), "{error}");
    }
    let error = error(try_read(&Hunt::new("rule a {}"), 206, &range, body).map(drop));
    assert!(error.ends_with("to continue, poll job r"), "{error}");
}

#[test]
fn a_malformed_success_shows_its_beginning() {
    let error = try_read(
        &request(),
        200,
        &[("x-cs-traceid", "t")],
        "<html>\n<b>sorry</b>",
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the reply to GetMalQueryRequestV1 (200 OK) cannot be used: expected value at line 1 column 1; the body begins with \
         \"<html> <b>sorry</b>\""
    );
    assert_eq!(error.trace_id(), Some("t"));
    for body in ["", "[]", "null", "{\"meta\": {", "\u{0}"] {
        assert!(
            matches!(
                try_read(&request(), 200, &[], body).unwrap_err(),
                ResponseError::Decode(_)
            ),
            "{body}"
        );
    }
}

#[test]
fn an_accepted_submission_reports_its_errors() {
    let body =
        r#"{"meta": {"trace_id": "t"}, "errors": [{"code": 500, "message": "the queue is full"}]}"#;
    let error = try_read(&Hunt::new("rule a {}"), 200, &[], body).unwrap_err();
    assert_eq!(
        error.to_string(),
        "PostMalQueryHuntV1 returned 200 OK: the queue is full (trace id t)"
    );
}

#[test]
fn an_odd_byte_loses_no_results() {
    let mut body = br#"{"meta": {}, "resources": [{"family": "M"#.to_vec();
    body.extend([0xfc]);
    body.extend(br#"ller", "filesize": 7}]}"#);
    let headers = HeaderMap::new();
    let reply = request()
        .response(
            ResponseHead {
                status: StatusCode::OK,
                headers: &headers,
            },
            &body,
        )
        .unwrap();
    assert_eq!(reply.resources[0].filesize, Some(7));
    assert_eq!(reply.resources[0].family.as_deref(), Some("M\u{fffd}ller"));
}

#[test]
fn a_token_reply_needs_only_the_token() {
    let credentials = Credentials::new("id", "secret");
    let headers = HeaderMap::new();
    let read = |status: u16, body: &str| {
        let head = ResponseHead {
            status: StatusCode::from_u16(status).unwrap(),
            headers: &headers,
        };
        GetToken::new(&credentials)
            .response(head, body.as_bytes())
            .map(|reply| reply.output.expires_in.as_millis())
    };
    assert_eq!(
        read(
            201,
            r#"{"access_token": "t", "expires_in": 1799, "token_type": "bearer"}"#
        )
        .unwrap(),
        1_799_000
    );
    assert_eq!(
        read(200, r#"{"access_token": "t", "new": [1], "scope": null}"#).unwrap(),
        1_799_000
    );
    assert_eq!(
        read(201, r#"{"access_token": "t", "expires_in": "60"}"#).unwrap(),
        60_000
    );
    assert_eq!(
        read(201, r#"{"access_token": "t", "expires_in": 0.05}"#).unwrap(),
        50
    );
    assert_eq!(
        read(201, r#"{"access_token": "t", "expires_in": null}"#).unwrap(),
        1_799_000
    );
    assert_eq!(
        read(201, r#"{"access_token": "t", "expires_in": -1}"#).unwrap(),
        1_799_000
    );
    for (body, why) in [
        ("{}", "it has no `access_token`"),
        (r#"{"access_token": null}"#, "it has no `access_token`"),
        (r#"{"access_token": ""}"#, "not a bearer token: it is empty"),
        (
            "{\"access_token\": \"t0p-secret\\n\"}",
            "not a bearer token: it must contain only visible ASCII characters",
        ),
        (
            r#"{"access_token": "t0p-secret""#,
            "it is not a valid token reply",
        ),
        ("", "it is not a valid token reply"),
        (&" ".repeat(65_537), "it is larger than 64 KiB"),
    ] {
        let error = read(201, body).unwrap_err().to_string();
        assert_eq!(
            error,
            format!(
                "the reply to oauth2AccessToken (201 Created) cannot be used: {why}; the body is not shown, because it may contain a token"
            )
        );
    }
}
