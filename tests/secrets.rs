//! Runs whole sessions, and searches their logs, output and errors for secrets.

use std::fmt::Write;

use malquery_mock::{Fault, Transcript, VirtualClock, reply, script};
use malquery_proto::flow::{Auth, RetryPolicy};
use malquery_proto::operations::{FuzzySearch, Hunt};
use malquery_proto::types::Pattern;
use malquery_proto::{BaseUrl, Client, Cloud, Credentials, TransportError};
use malquery_test_support::{Server, json};

use crate::fake::fake;
use crate::log::{listen, logged};

const SECRET: &str = "s3cret+/=&%\"value";
const TOKEN: &str = "eyJ-t0ken.value";

fn assert_clean(what: &str, text: &str) {
    let form: String = url::form_urlencoded::byte_serialize(SECRET.as_bytes()).collect();
    let in_json = serde_json::to_string(SECRET).unwrap();
    for secret in [
        SECRET,
        TOKEN,
        &form,
        in_json.trim_matches('"'),
        "s3cret",
        "t0ken",
    ] {
        assert!(!text.contains(secret), "{what} shows {secret}:\n{text}");
    }
}

#[test]
fn nothing_that_is_shown_holds_a_secret() {
    listen();
    let token = || {
        reply::json(
            201,
            serde_json::json!({"access_token": TOKEN, "expires_in": 1799}),
        )
    };
    let sessions = [
        vec![
            token(),
            reply::json(200, serde_json::json!({"meta": {"reqid": "r"}})),
        ],
        vec![token(), reply::status(401), token(), reply::status(401)],
        vec![token(), reply::fault(Fault::Reset)],
        vec![
            token(),
            reply::json(200, serde_json::json!({"meta": {"days_left": 3}})),
        ],
        vec![reply::fault(Fault::Tls).times(4)],
        vec![reply::json(
            403,
            serde_json::json!({"errors": [{"code": 403, "message": "access denied, authorization failed"}]}),
        )],
        // A reply with a token that is not valid JSON.
        vec![reply::bytes(
            201,
            "application/json",
            format!("{{\"access_token\": \"{TOKEN}\", }}"),
        )],
        vec![reply::bytes(
            201,
            "application/json",
            format!("{{\"access_token\": \"{TOKEN}\\n\"}}"),
        )],
        vec![reply::bytes(
            201,
            "application/json",
            format!("[\"{TOKEN}\"]"),
        )],
    ];
    let mut shown = String::new();
    for replies in sessions {
        let transport = Transcript::new(script(replies).transport());
        let auth = Auth::new(Cloud::Us1, Credentials::new("an-id", SECRET));
        writeln!(shown, "{auth:?} {auth:#?}").unwrap();
        let client =
            Client::new(transport.clone(), VirtualClock::new(), auth).retry(RetryPolicy::default());
        match client.hunt(&Hunt::new("rule a {}")) {
            Ok(reply) => writeln!(shown, "{reply:?}").unwrap(),
            Err(error) => {
                writeln!(shown, "{error} {error:?} {error:#?}").unwrap();
                let mut source = std::error::Error::source(&error);
                while let Some(error) = source {
                    writeln!(shown, "{error} {error:?}").unwrap();
                    source = error.source();
                }
            }
        }
        writeln!(shown, "{client:?} {transport}").unwrap();
    }
    assert!(shown.contains("an-id"), "the sessions were shown");
    assert_clean("output", &shown);
    assert_clean("the log", &logged());
}

#[test]
fn the_reason_in_the_log_is_masked() {
    listen();
    let auth = Auth::new(Cloud::Us1, Credentials::new("an-id", SECRET));
    let echo = fake(|_| Err(TransportError::not_sent(format!("no route for {SECRET}"))));
    Client::new(echo, VirtualClock::new(), auth)
        .quotas()
        .unwrap_err();
    let line = "no complete reply to oauth2AccessToken: no route for [redacted]\n";
    assert_eq!(logged().matches(line).count(), 4, "{}", logged());
    assert_clean("the log", &logged());
}

#[test]
fn the_log_of_ureq_holds_no_secret_either() {
    listen();
    let server = Server::start(|request, out| match request.path() {
        "/oauth2/token" => json(out, &format!(r#"{{"access_token": "{TOKEN}"}}"#)),
        _ => json(out, r#"{"resources": []}"#),
    });
    let base: BaseUrl = server.url("").parse().unwrap();
    let client = malquery_ureq::client(base, Credentials::new("an-id", SECRET));
    client
        .fuzzy_search(&FuzzySearch::new([Pattern::ascii("a").unwrap()]))
        .unwrap();
    let logged = logged();
    assert!(logged.contains("ureq"), "ureq logs: {logged}");
    assert_clean("the log of ureq", &logged);
}
