//! Tests what a transcript shows and hides.

use std::io::Read;

use http::Request;
use malquery_mock::{Fault, Transcript, VirtualClock, reply, script};
use malquery_proto::flow::Auth;
use malquery_proto::operations::Hunt;
use malquery_proto::{Client, Cloud, Credentials, Transport};
use serde_json::json;

const ID: &str = "0123456789abcdef0123456789abcdef";
const SECRET: &str = "s3cr3t-of-the-client";
const TOKEN: &str = "t0k3n-that-is-long";

#[test]
fn secrets_are_gone_wherever_they_stand() {
    let (mock, guard) = script([
        reply::json(
            400,
            json!({"errors": [{"code": 400, "message": format!("Failed to generate access token for clientID={ID}")}]}),
        ),
        reply::json(201, json!({"access_token": TOKEN, "expires_in": 1799})).header("set-cookie", "a=b"),
        reply::json(200, json!({"meta": {"days_left": 3}, "echo": [TOKEN, {"client_secret": [SECRET, "short"]}]})),
        reply::bytes(200, "text/plain", format!("revoked {TOKEN}")),
        reply::json(201, json!({"access_token": "never-used", "expires_in": 1799})).truncate_after(30).times(4),
    ])
    .play();
    let transcript = Transcript::new(mock);
    let client = || {
        Client::new(
            transcript.clone(),
            VirtualClock::new(),
            Auth::new(Cloud::Us1, Credentials::new(ID, SECRET)),
        )
    };
    client().quotas().unwrap_err();
    let client = client();
    client.quotas().unwrap();
    client.revoke().unwrap();
    client.quotas().unwrap_err();
    guard.finish();
    let text = transcript.to_string();
    for secret in [ID, SECRET, TOKEN, "short", "a=b", "never-used"] {
        assert!(!text.contains(secret), "{secret}\n{text}");
    }
    insta::assert_snapshot!(text);
}

#[test]
fn authorizations_are_hidden_where_they_come_again() {
    let echo = json!({"meta": {"status": "Bearer of S3cretBareApiKey"}, "other": 7});
    let (mock, guard) = script([reply::json(200, echo).times(3)]).play();
    let transcript = Transcript::new(mock);
    for authorization in ["S3cretBareApiKey", "Bearer\tS3cretBareApiKey", "Bearer "] {
        let request = Request::get("/x?a=b").header("authorization", authorization);
        let response = transcript.send(request.body(Vec::new()).unwrap()).unwrap();
        response.into_body().read_to_end(&mut Vec::new()).unwrap();
    }
    guard.finish();
    malquery_mock::assert_transcript!(transcript, @r#"
    > GET /x?a=b
    > authorization: other [redacted]
    < 200 OK
    < content-type: application/json
      {
        "meta": {
          "status": "Bearer of [redacted]"
        },
        "[key 1]": 0
      }

    > GET /x?a=b x2
    > authorization: Bearer [redacted]
    < 200 OK
    < content-type: application/json
      {
        "meta": {
          "status": "Bearer of [redacted]"
        },
        "[key 1]": 0
      }
    "#);
    malquery_mock::assert_transcript!(transcript.requests(), @r"
    > GET /x?a=b
    > authorization: other [redacted]

    > GET /x?a=b x2
    > authorization: Bearer [redacted]
    ");
}

#[test]
fn every_kind_of_body_is_shown() {
    let (mock, guard) = script([
        reply::bytes(502, "text/html; charset=utf-8", "<html>\r\n\n<body>\n")
            .header("date", "now")
            .header("a", "2"),
        reply::bytes(200, "application/octet-stream", "hello"),
        reply::bytes(200, "text/plain", vec![b'x'; 300_000]),
        reply::bytes(200, "application/json", r#"{"broken": "#).truncate_after(5),
        reply::json(
            200,
            json!({"a": "1\n2\n", "b": "1\n\n2", "c": "1\n\u{0}", "d": {}, "e": [], "f": 1.50}),
        ),
        reply::status(204),
        reply::fault(Fault::Dns),
        reply::json(200, json!([])),
    ])
    .play();
    let transcript = Transcript::new(mock);
    let send = |body: &str| {
        let request = Request::post("https://host/x?y=%20z").header("content-type", "text/plain");
        transcript.clone().send(request.body(body.into()).unwrap())
    };
    for _ in 0..6 {
        let _ = send("a\nb")
            .unwrap()
            .into_body()
            .read_to_end(&mut Vec::new());
    }
    send("\u{1}").unwrap_err();
    drop(send("").unwrap());
    let (client, _) = (transcript.clone(), send("one too many").unwrap_err());
    guard_fails(guard);
    insta::assert_snapshot!(client);
}

fn guard_fails(guard: malquery_mock::MockGuard) {
    std::panic::catch_unwind(|| guard.finish()).unwrap_err();
}

#[test]
fn a_retry_is_seen_with_its_rule() {
    let (mock, guard) = script([
        reply::fault(Fault::ConnectRefused).times(2),
        reply::json(200, json!({"meta": {"reqid": "a-hunt"}})),
    ])
    .with_tokens()
    .play();
    let transcript = Transcript::new(mock);
    let clock = VirtualClock::new();
    let auth = Auth::new(Cloud::Us1, Credentials::new(ID, SECRET));
    let client = Client::new(transcript.clone(), clock.clone(), auth);
    let _ = client
        .hunt(&Hunt::new("rule gnu {\n  condition: true\n}\n"))
        .unwrap();
    guard.finish();
    assert_eq!(clock.waits().len(), 2);
    malquery_mock::assert_transcript!("a_retry_is_seen_with_its_rule", transcript);
}
