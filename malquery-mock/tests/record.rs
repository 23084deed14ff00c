//! Tests what a session records, and that the recording replays the same exchanges.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Instant;

use crate::recorder::{
    Down, FORM, Got, JSON, Sent, Service, answer, begin, check, folder, get, json_answer, login,
    nothing, record, recorded, request, says, take,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Response;
use malquery_mock::{Cassette, Fault, Mock, Mode, Session, VirtualClock, reply, script};
use malquery_proto::client::Error;
use malquery_proto::flow::SendFailure;
use malquery_proto::operations::Hunt;
use malquery_proto::types::{JobStatus, RequestId};
use malquery_proto::{Auth, Body, Client, Cloud, Credentials, Transport, TransportError};
use proptest::prelude::*;
use serde_json::{Value, json};
use url::form_urlencoded;

const TRACE: &str = "6b1e2cd4-a6c1-4df0-98b3-7e0d4ad3c8f1";
const JOB: &str = "0e1f6ea1-7c1d-6ea1-5f4f-a1b2c3d4e5f6";
/// The pseudonym of the first job.
const FIRST: &str = "00000000-0000-4000-8000-000000000001";
const POLL: &str = "/malquery/entities/requests/v1";

/// A service that runs a hunt. Its replies contain everything that must not be recorded.
fn job_service() -> Service<impl Fn(&Sent) -> Result<Got, Down> + Send + Sync> {
    let polls = Mutex::new(0);
    Service(move |request: &Sent| {
        let headers = [
            ("content-type", "application/json"),
            ("date", "Thu, 01 Jan 2026 00:00:00 GMT"),
            ("x-cs-traceid", TRACE),
            ("x-ratelimit-limit", "6000"),
            ("set-cookie", "session=c00kie-of-the-gateway; path=/"),
        ];
        let body = match request.uri().path() {
            "/oauth2/token" => {
                json!({"access_token": "eyJhbGciOi.t0ken", "expires_in": 1799, "token_type": "bearer"})
            }
            "/malquery/queries/hunt/v1" => {
                json!({"meta": {"query_time": 1.27e-7, "powered_by": "malquery-api", "trace_id": TRACE,
                    "reqid": JOB, "status": "done"}, "resources": []})
            }
            POLL => {
                let mut polls = polls.lock().unwrap();
                *polls += 1;
                let status = if *polls < 4 { "inprogress" } else { "done" };
                // Each reply has its own trace id.
                let trace = format!("6b1e2cd4-a6c1-4df0-98b3-7e0d4ad3c8f{polls}");
                json!({"meta": {"reqid": JOB, "status": status, "query_time": *polls, "trace_id": trace,
                    "userid": "jane.doe@example.com"}, "resources": []})
            }
            path => panic!("{path}"),
        };
        Ok(answer(200, &headers, body.to_string()))
    })
}

fn hunt(client: &Client) -> Result<RequestId, Error> {
    let rule = "rule gnu { strings: $a = \"GNU\" condition: $a }";
    let id = client.hunt(&Hunt::new(rule))?.id().clone();
    while client.request(&id)?.meta.status != Some(JobStatus::Done) {}
    Ok(id)
}

fn auth() -> Auth {
    let cid = "fedcba9876543210fedcba9876543210-4F".parse().unwrap();
    let credentials = Credentials::new("c1ient-id", "p4ss+w/o=r&d%\"'").member_cid(cid);
    Auth::new(Cloud::Eu1, credentials)
}

fn submission(rule: &str) -> Sent {
    let body = json!({"yara_rule": rule}).to_string();
    request("POST", "/malquery/queries/hunt/v1", &JSON, body)
}

fn reqid(reply: &[u8]) -> String {
    let reply: Value = serde_json::from_slice(reply).unwrap();
    reply["meta"]["reqid"].as_str().unwrap().to_owned()
}

fn poll(ids: &str) -> Sent {
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("ids", ids)
        .finish();
    get(&format!("{POLL}?{query}"))
}

/// A service that gives the same reply to every request.
fn same(got: Got) -> Service<impl Fn(&Sent) -> Result<Got, Down> + Send + Sync> {
    Service(move |_: &Sent| Ok(got.clone()))
}

// Jobs and their ids.

#[test]
fn a_session_is_recorded_and_replayed() {
    let (_folder, path) = folder();
    let live = || (job_service(), VirtualClock::new(), auth());
    let (client, guard) = Session::new(&path).mode(Mode::Record).client(live).unwrap();
    assert_eq!(hunt(&client).unwrap().as_str(), JOB);
    guard.finish();
    insta::assert_snapshot!(fs::read_to_string(&path).unwrap());

    let live = || -> (Mock, VirtualClock, Auth) { panic!("a replay must not call this") };
    let (client, guard) = Session::new(&path).mode(Mode::Replay).client(live).unwrap();
    let id = hunt(&client).unwrap();
    assert_eq!(id.as_str(), FIRST);
    assert_eq!(client.base().as_str(), "https://api.eu-1.crowdstrike.com");
    client.revoke().unwrap();
    guard.finish();
}

#[test]
fn an_id_that_the_program_brings_is_recognised() {
    for id in [JOB, "abcdef12,abcdef34", "job,abcdef34"] {
        let (_folder, path) = folder();
        for mode in [Mode::Record, Mode::Replay] {
            let service = Service(move |request: &Sent| {
                let is_poll = request.uri().path() == POLL;
                let id = if is_poll { id } else { "a-job-of-the-service" };
                Ok(json_answer(
                    200,
                    &json!({"meta": {"reqid": id, "status": "done"}}),
                ))
            });
            let (transport, guard) = begin(&path, mode, service);
            let (_, reply, _) = take(&transport, submission("a")).unwrap();
            for ids in [&format!("{},{id}", reqid(&reply)), id] {
                let (_, reply, _) = take(&transport, poll(ids)).unwrap();
                assert_eq!(reqid(&reply), id);
            }
            guard.finish();
        }
        let text = fs::read_to_string(&path).unwrap();
        check(&text, &[], &[id, "abcdef34", "a-job"]);
    }
}

#[test]
fn a_job_of_any_id_plays_again() {
    let ids = [
        JOB,
        "a",
        "12345678",
        "abcdef12,abcdef34",
        FIRST,
        "AbCdEfGh+/=%&?#",
        "\"quoted-12345678\\",
        "日本語日本語日本語日本語1",
        "https://host/path/12345678",
    ];
    for id in ids {
        let (_folder, path) = folder();
        let other = id.replace('1', "3");
        let modes = [Mode::Record, Mode::Replay, Mode::Verify];
        for (mode, id) in modes.into_iter().zip([id, id, &other]) {
            let meta = json!({"reqid": id, "status": "done"});
            let reply = json!({"meta": meta, "errors": [{"message": format!("of {id}")}]});
            let (transport, guard) = begin(&path, mode, same(json_answer(200, &reply)));
            let (_, reply, _) = take(&transport, submission("a")).unwrap();
            let _ = take(&transport, poll(&reqid(&reply)));
            assert!(guard.close().is_ok(), "{id}");
        }
    }
}

#[test]
fn users_stay_apart_from_each_other_and_secrets() {
    // The client id of the stand-in looks like a pseudonym.
    let id = format!("{:032}", 1);
    let token = (login(&id, "a-s3cret"), answer(201, &JSON, "{}"));
    let mut names: Vec<_> = ('a'..='z').map(String::from).collect();
    names.extend(["f0e1d2c3b4a59687f0e1d2c3b4a59687", "1", "12"].map(String::from));
    let user = |name: &String| json!({"userid": name, "counter": 1});
    let users: Vec<_> = names.iter().map(user).collect();
    let quotas = json!({"meta": {"hunt_counts": users, "download_counts": users}});
    let text = record(&[token, (get("/x"), json_answer(200, &quotas))]).unwrap();
    let cassette: Value = serde_json::from_str(&text).unwrap();
    let meta = &cassette["interactions"][0]["response"]["body"]["json"]["meta"];
    let found = meta["hunt_counts"].as_array().unwrap().iter();
    let found: BTreeSet<_> = found.map(|user| user["userid"].to_string()).collect();
    assert_eq!(found.len(), users.len(), "{text}");
    assert_eq!(meta["hunt_counts"], meta["download_counts"]);
}

#[test]
fn a_job_that_is_appended_stays_apart() {
    // A stand-in numbers its jobs, and starts at the same number in each process.
    for id in [FIRST, "12345678", "00000000,00000001", "7"] {
        let (_folder, path) = folder();
        let job = |mode, rule: &str, found: &'static str| {
            let service = Service(move |request: &Sent| {
                let meta = json!({"reqid": id, "status": "done"});
                let family = if request.uri().path() == POLL {
                    found
                } else {
                    ""
                };
                let reply = json!({"meta": meta, "resources": [{"family": family}]});
                Ok(json_answer(200, &reply))
            });
            let (transport, guard) = begin(&path, mode, service);
            let (_, reply, _) = take(&transport, submission(rule)).unwrap();
            let (_, reply, _) = take(&transport, poll(&reqid(&reply))).unwrap();
            assert!(String::from_utf8_lossy(&reply).contains(found), "{id}");
            guard
        };
        job(Mode::Record, "a", "old").finish();
        job(Mode::Append, "b", "fresh").finish();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.matches("\"fresh\"").count(), 1, "{text}");
        // The recorded job still replays, and the new job has its own pseudonym.
        job(Mode::Replay, "b", "fresh").close().unwrap_err();
        job(Mode::Append, "a", "old").finish();
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}

#[test]
fn a_poll_reads_no_submission_again() {
    let (_folder, path) = folder();
    let found = json!({"meta": {"reqid": JOB}, "resources": vec!["a-result"; 20_000]});
    let service = Service(move |request: &Sent| match request.uri().path() {
        POLL => Ok(answer(200, &[], "")),
        _ => Ok(json_answer(200, &found)),
    });
    recorded(&path, &[(get("/x"), answer(200, &[], ""))]).finish();
    let (transport, guard) = begin(&path, Mode::Append, service);
    take(&transport, submission("a")).unwrap();
    let polls = |count| {
        let start = Instant::now();
        let poll = |_| transport.send(poll(JOB)).map(drop).unwrap();
        (0..count).for_each(poll);
        start.elapsed()
    };
    let first = polls(1);
    let next = polls(100);
    assert!(next < first * 10, "{first:?}, then {next:?}");
    guard.finish();
}

// Kept values.

/// Any document with known and unknown names.
fn any_document(depth: u32) -> BoxedStrategy<Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[ -~]{1,40}|[a-zA-Z0-9+/=_-]{1,60}|\\PC{1,20}".prop_map(Value::from),
    ];
    let name = prop_oneof![
        8 => prop::sample::select(vec![
            "meta", "errors", "resources", "samples", "hunt_counts", "stats", "options", "patterns", "tags", "reqid", "trace_id",
            "userid", "message", "status", "sha256", "family", "yara_rule", "session_key", "signed_link", "access_token",
        ])
        .prop_map(String::from),
        1 => "[a-z_]{1,12}|[a-zA-Z0-9_-]{20}",
        1 => "\\PC{1,30}",
    ];
    leaf.prop_recursive(depth, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name.clone(), inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
    .boxed()
}

/// Collects the texts of a document with their places. The places of its keys end with `#`.
fn texts(json: &Value, place: &str, out: &mut Vec<(String, String)>) {
    match json {
        Value::String(text) => out.push((place.to_owned(), text.clone())),
        Value::Array(items) => items
            .iter()
            .for_each(|item| texts(item, &format!("{place}/*"), out)),
        Value::Object(members) => members.iter().for_each(|(key, value)| {
            out.push((format!("{place}#"), key.clone()));
            texts(value, &format!("{place}/{key}"), out);
        }),
        _ => {}
    }
}

/// Returns the places that the documentation lists, and whether their text is kept unchanged.
fn listed() -> BTreeMap<String, bool> {
    let sample = "sha256 sha1 md5 filetype first_seen label family filesize";
    [
        ("", "expires_in token_type"),
        ("/errors/*", "code type message"),
        (
            "/meta",
            "powered_by status reqtype sample yara_rule days_left refresh_time",
        ),
        ("/meta/hunt_counts/*", "counter"),
        (
            "/meta/stats",
            "total_count unknown_count clean_count malware_count pua_count",
        ),
        (
            "/meta/options",
            "limit min_date max_date min_size max_size app submitted_by_customer",
        ),
        ("/meta/patterns/*", "type value"),
        ("/resources/*", sample),
        (
            "/resources/*",
            "ignore_reason label_confidence pattern pattern_type yara_rule",
        ),
        ("/resources/*/tags", "*"),
        ("/resources/*/samples/*", sample),
    ]
    .into_iter()
    .flat_map(|(parent, names)| names.split(' ').map(move |name| format!("{parent}/{name}")))
    .map(|place| (place.clone(), !place.ends_with("/message")))
    .collect()
}

/// The other keys that are recorded.
const KEYS: &str = "access_token id userid reqid trace_id query_time writes resources_affected \
    download_counts pagination offset total hunt_count hunt_limit download_count download_limit \
    monitor_count monitor_limit filter_filetypes filter_meta yara_rules";

/// Returns whether a text is a placeholder or a numbered pseudonym.
fn stands_for_another(text: &str) -> bool {
    let is_zeros = text
        .chars()
        .filter(|c| c.is_alphanumeric())
        .all(|c| c.is_ascii_digit());
    text.is_empty() || text == "[text]" || is_zeros
}

/// The documents of one session.
const DOCUMENTS: u32 = 10;

/// A configuration for this number of cases, unless the environment sets another number.
fn cases(few: u32, at_once: u32) -> ProptestConfig {
    let many = std::env::var("MALQUERY_RECORD_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok());
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(many.unwrap_or(few) / at_once)
    }
}

proptest! {
    // For a long run, set MALQUERY_RECORD_CASES=100000.
    #![proptest_config(cases(100, DOCUMENTS))]

    #[test]
    fn every_text_comes_from_a_listed_place(
        // One session records several documents, because syncing a file takes longer.
        documents in prop::collection::vec(any_document(5), DOCUMENTS as usize),
        secret in r#"[-a-zA-Z0-9+/=&%"' \\.ü]{8,40}"#,
        hides in 0..6usize,
    ) {
        let hidden = match hides {
            0 => secret.clone(),
            1 => form_urlencoded::byte_serialize(secret.as_bytes()).collect(),
            2 => STANDARD.encode(format!("user:{secret}")),
            3 => secret.bytes().map(|byte| format!("{byte:02X}")).collect(),
            4 => serde_json::to_string(&secret).unwrap(),
            _ => secret.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect(),
        };
        let bodies: Vec<_> = documents
            .iter()
            .map(|document| json!({"meta": {"yara_rule": hidden, "status": document},
                "resources": [{"family": format!("x{hidden}y")}, document], "other": [document, hidden]}))
            .collect();
        let token = json_answer(201, &json!({"access_token": "t0ken-of-the-session"}));
        let exchanges: Vec<_> = [(login("an-id-of-this", &secret), token)]
            .into_iter()
            .chain(bodies.iter().enumerate().map(|(number, body)| {
                (get(&format!("/malquery/x/v1?{number}")), json_answer(200, body))
            }))
            .collect();
        let text = record(&exchanges).unwrap();
        let cassette: Value = serde_json::from_str(&text).unwrap();
        let listed = listed();
        let names: BTreeSet<_> = listed.keys().flat_map(|place| place.split('/')).chain(KEYS.split(' ')).collect();
        for (number, body) in bodies.iter().enumerate() {
            let written = &cassette["interactions"][number]["response"]["body"]["json"];
            let (mut before, mut after) = (Vec::new(), Vec::new());
            texts(body, "", &mut before);
            texts(written, "", &mut after);
            for (place, text) in &after {
                let is_kept = before.iter().any(|(of, known)| of == place && known == text);
                let good = match listed.get(place) {
                    _ if place.ends_with('#') => names.contains(&**text) || text.starts_with("[key "),
                    Some(true) => is_kept || text.contains("[redacted]"),
                    Some(false) => true,
                    None => stands_for_another(text),
                };
                prop_assert!(good, "{place}: {text:?} in {written}");
            }
        }
        for secret in [&secret, "an-id-of-this", "t0ken-of-the-session"] {
            let needles = malquery_proto::needles::Needles::new([secret]);
            prop_assert!(needles.find(&text).is_none(), "{secret:?} in {text}");
        }
    }
}

#[test]
fn unknown_fields_and_pages_are_recorded_without_values() {
    let page = r#"<form><input name="csrf-token" value="a1b2c3d4e5f6"></form>"#;
    let running = json!({"meta": {"reqid": JOB, "status": "inprogress"}, "resources": []});
    let done = json!({
        "meta": {"reqid": JOB, "status": "done", "session_key": "8Zk7pQ2wX5", "deep": {"er": [["9Zk7pQ2wX5"], true, 17]}},
        "resources": [{"sha256": "0f".repeat(32), "family": "Examplefam", "entropy": 7.25, "note": ""}],
        "signed_link": "https://bucket.example/x?s=9f86d081884c7d65",
        "8Zk7pQ2wX5-as-a-key": {"x": null},
        "QhTzKpWxYbNmLcVdRsGf": 1,
        "errors": [{"code": 1, "message": "key 0123456789abcdef0123 of <3Zk7pQ2wX5-3Zk7pQ2wX5> refused"}],
    });
    let replies = [
        json_answer(200, &running),
        answer(503, &[("content-type", "text/html; charset=utf-8")], page),
        json_answer(200, &running),
        json_answer(200, &done),
    ];
    let exchanges: Vec<_> = replies.into_iter().map(|got| (poll(JOB), got)).collect();
    let text = record(&exchanges).unwrap();
    let values = "8Zk7 QhTz 9Zk7 3Zk7 9f86d0 bucket a1b2c3 csrf 7.25 17 0123456789abcdef0123";
    check(&text, &[], &values.split(' ').collect::<Vec<_>>());
    insta::assert_snapshot!(text);
    let mock = Cassette::parse("test.json", &text).unwrap().transport();
    let played = [(); 4].map(|()| take(&mock, poll(JOB)).unwrap().0);
    assert_eq!(played, [200, 503, 200, 200]);
    mock.check().unwrap();
}

#[test]
fn a_place_of_your_own_is_kept() {
    let (_folder, path) = folder();
    let reply = json!({"resources": [{"entropy": 7.25, "note": "mine", "list": ["a"]}]});
    let session = Session::new(&path).mode(Mode::Record).secrets(["short"]);
    let error = session.transport(nothing).unwrap_err().to_string();
    says(&error, "must be at least 6 bytes long");
    let session = Session::new(&path).secrets(["the-proxy-password", ""]);
    let session = session.also(["resources/*/entropy", "/resources/*/list/*"]);
    let service = || same(json_answer(200, &reply));
    let (transport, guard) = session.mode(Mode::Record).transport(service).unwrap();
    take(&transport, get("/malquery/own/v1")).unwrap();
    take(&transport, get("/the-proxy-password")).unwrap();
    let error = guard.close().unwrap_err().to_string();
    says(&error, "contains one of this session's secrets in its path");
    guard.save_rest(&path).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    check(&text, &["7.25", "\"a\""], &["mine\"", "proxy"]);
}

#[test]
fn a_damaged_reply_costs_one_character() {
    let body = b"\xef\xbb\xbf{\"meta\": {\"status\": \"do\\ud800ne\"}, \"resources\": [{\"family\": \"a\tb\xff\\ud83d\\ude00\"}]}";
    let text = record(&[(get("/x"), answer(200, &JSON, body.to_vec()))]).unwrap();
    check(&text, &["do\u{fffd}ne", "a\\tb\u{fffd}😀"], &[]);
}

#[test]
fn headers_are_kept_by_name() {
    let sent = [
        ("accept", "application/json"),
        ("authorization", "Token a-t0ken-from-elsewhere"),
        ("cookie", "sid=the-c00kie"),
        ("x-api-key", "the-k3y"),
    ];
    let got = [
        ("content-type", "text/html; charset=utf-8"),
        ("location", "https://user:p4ss@host/x?signature=abc"),
        ("set-cookie", "sid=the-c00kie"),
        ("x-cs-region", "us-1"),
        ("x-cs-traceid", TRACE),
        ("x-other", "value"),
    ];
    let exchange = (
        request("GET", "https://user:p4ssw0rd@host/x", &sent, ""),
        answer(302, &got, "gone"),
    );
    let text = record(&[exchange]).unwrap();
    insta::assert_snapshot!(text);
}

// Secrets of the session.

#[test]
fn a_secret_never_reaches_a_file() {
    let long = "k3y/+=".repeat(33);
    let secrets = [
        "8-bytes+",
        "p4ss w/o=r&d%\"'\\",
        "a=b&c=d+e/f",
        "''quoted''",
        "tab\tand space",
        "%41%42%43%44",
        "ünïcödé-1",
        &long[..198],
        "0123456789abcdef0123456789abcdef",
    ];
    for secret in secrets {
        let needles = malquery_proto::needles::Needles::new([secret]);
        let form: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
        let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
        let json = serde_json::to_string(secret).unwrap();
        let mut encodings = vec![secret.into(), form.clone(), hex.to_uppercase(), hex, json];
        let at_offset = |before| STANDARD.encode(format!("{before}{secret}after"));
        encodings.extend(["", "1", "12"].map(at_offset));
        let wrapped = |text: &String| format!("{}\r\n  {}", &text[..3], &text[3..]);
        encodings.extend([0, 3, 5].map(|form| wrapped(&encodings[form])));
        let token = json_answer(201, &json!({"access_token": "t0ken-of-the-session"}));
        let ok = || answer(200, &[], "");
        let in_form = request("POST", "/x", &FORM, format!("a={form}"));
        let in_query = get(&format!("/x?a={form}"));
        let mut exchanges = vec![
            (login("an-id-of-this", secret), token),
            (in_form, ok()),
            (in_query, ok()),
        ];
        for (number, hidden) in encodings.iter().enumerate() {
            let rule = format!("rule a {{ strings: $a = \"{hidden}\" condition: $a }}");
            let body = json!({
                "meta": {"yara_rule": rule, "status": hidden},
                "errors": [{"message": format!("for {hidden}!")}],
                "resources": [{"label": hidden, hidden: 1}],
                "link": hidden,
            });
            let location = format!("https://{form}@host/{form}?x={form}");
            let reply = answer(200, &[JSON[0], ("location", &location)], body.to_string());
            exchanges.push((get(&format!("/reply-{number}")), reply));
            exchanges.push((submission(&rule), ok()));
        }
        let (_folder, path) = folder();
        let guard = recorded(&path, &exchanges);
        // Requests are not redacted, so their exchanges are refused.
        let error = guard.close().unwrap_err().to_string();
        let count = |place| {
            let why = format!("contains one of this session's secrets in its {place}");
            error.matches(&why).count()
        };
        let counts = ["body", "query"].map(count);
        assert_eq!(counts, [encodings.len() + 1, 1], "{error}");
        let places = error.matches("in its body at /yara_rule,").count();
        assert_eq!(places, encodings.len(), "{error}");
        assert!(!path.exists());
        // The other exchanges can still be saved.
        guard.save_rest(&path).unwrap();
        let rest = fs::read_to_string(&path).unwrap();
        assert_eq!(rest.matches("\"id\"").count(), encodings.len(), "{rest}");
        for text in [error, rest] {
            assert!(needles.find(&text).is_none(), "{secret} in {text}");
        }
    }
}

#[test]
fn tokens_and_their_requests_are_never_written() {
    let token = json!({"access_token": "t0ken-of-the-session", "id_token": "an-id-t0ken"});
    let bearer = [("authorization", "Bearer a-t0ken-from-elsewhere")];
    let basic = format!("Basic {}", STANDARD.encode("user-name:p4ss-word"));
    let echo = "a-t0ken-from-elsewhere t0ken-of-the-session an-id-t0ken user-name p4ss-word the-k3y-of-the-proxy";
    let mut sensitive = request("GET", "/x", &[("x-api-key", "the-k3y-of-the-proxy")], "");
    let key = sensitive.headers_mut().get_mut("x-api-key");
    key.unwrap().set_sensitive(true);
    let revocation = request("POST", "/oauth2/revoke", &[("authorization", &basic)], "");
    let echoed = json_answer(200, &json!({"meta": {"status": echo}}));
    let login = login("an-id-of-this", "a-s3cret-of-this");
    let exchanges = [
        (login.clone(), json_answer(201, &token)),
        (revocation, answer(200, &[], "{}")),
        (request("GET", "/x", &bearer, ""), echoed),
        (sensitive, answer(200, &[], "")),
    ];
    let text = record(&exchanges).unwrap();
    assert_eq!(text.matches("\"id\"").count(), 2, "{text}");
    let masked = ["[redacted]"; 6].join(" ");
    check(&text, &["Bearer [redacted]", &masked], &["oauth2"]);
    // A session that only requests a token writes no file.
    let (_folder, path) = folder();
    recorded(&path, &[(login, answer(201, &JSON, "{}"))]).finish();
    assert!(!path.exists());
}

#[test]
fn appending_knows_the_secrets_of_tokens() {
    let (_folder, path) = folder();
    let reply =
        json!({"access_token": "a-l1ve-t0ken", "meta": {"status": "an-id-of-8 a-l1ve-t0ken"}});
    let run = |mode, requests: &[Sent]| {
        let (transport, guard) = begin(&path, mode, same(json_answer(201, &reply)));
        for request in requests {
            take(&transport, request.clone()).unwrap();
        }
        let saved = guard.close().or_else(|_| guard.save_rest(&path));
        saved.map_err(|error| error.to_string())
    };
    let login = login("an-id-of-8", "an-unusual-s3cret");
    run(Mode::Record, &[login.clone(), get("/a")]).unwrap();
    run(Mode::Append, &[get("/a"), login.clone(), get("/b")]).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let masked = text.matches("\"[redacted] [redacted]\"");
    assert_eq!(masked.count(), 2, "{text}");
    // Someone added the secret to the cassette by hand.
    let text = text.replacen("\"/a\"", "\"/an-unusual-s3cret\"", 1);
    fs::write(&path, &text).unwrap();
    let error = run(Mode::Append, &[login, get("/c")]).unwrap_err();
    let why = "the existing cassette contains one of this session's secrets";
    says(&error, why);
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

// Samples.

#[test]
fn samples_are_kept_to_the_byte() {
    let (folder, path) = folder();
    let fetch = "/malquery/entities/samples-fetch/v1?ids=a-job";
    let run = |fill: u8, size: usize| {
        let body = [b"PK".to_vec(), vec![fill; size]].concat();
        let (transport, guard) = begin(&path, Mode::Record, same(answer(200, &[], body.clone())));
        take(&transport, get(fetch)).unwrap();
        guard.finish();
        let (transport, guard) = begin(&path, Mode::Replay, nothing());
        assert_eq!(take(&transport, get(fetch)).unwrap().1, body);
        guard.finish();
        let (transport, guard) = begin(&path, Mode::Append, same(answer(200, &[], "")));
        take(&transport, get("/x")).unwrap();
        guard.finish();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    };
    run(0, 65_534);
    assert_eq!(names(folder.path()), ["test.json"]);
    run(0, 3_000_000);
    let beside = folder.path().join("test.json.bodies");
    let first = names(&beside);
    assert_eq!(names(folder.path()), ["test.json", "test.json.bodies"]);
    assert!(first[0].starts_with("samples-fetch-"), "{first:?}");
    run(1, 70_000);
    let second = names(&beside);
    assert_eq!((first.len(), second.len()), (1, 1));
    assert!(second != first && second[0].ends_with(".zip"), "{second:?}");
    // A file with other bytes is not played.
    let body = fs::read(beside.join(&second[0])).unwrap();
    fs::write(beside.join(&second[0]), vec![b'x'; body.len()]).unwrap();
    let error = Cassette::load(&path).unwrap_err().to_string();
    assert!(error.contains("sha256"), "{error}");
    fs::write(beside.join("of-the-user"), "").unwrap();
    run(1, 1);
    assert_eq!(names(&beside), ["of-the-user"]);
}

#[test]
fn a_damaged_file_of_a_sample_is_replaced() {
    let (folder, path) = folder();
    let body = [b"PK".to_vec(), vec![0; 70_000]].concat();
    let fetch = get("/malquery/entities/samples-fetch/v1?ids=a-job");
    let exchange = [(fetch, answer(200, &[], body))];
    recorded(&path, &exchange).finish();
    let beside = folder.path().join("test.json.bodies");
    fs::write(beside.join(&names(&beside)[0]), "damaged").unwrap();
    Cassette::load(&path).unwrap_err();
    recorded(&path, &exchange).finish();
    Cassette::load(&path).unwrap();
}

#[test]
fn what_only_looks_like_a_sample_is_not() {
    let sha256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let path = "/malquery/entities/download-files/v1";
    let download = get(&format!("{path}?ids={sha256}"));
    let of = |body: &[u8]| record(&[(download.clone(), answer(200, &[], body))]).unwrap();
    assert!(of(b"hello").contains("\"text\": \"hello\""));
    assert!(of(b"<html>csrf").contains("\"text\": \"[10 bytes]\""));
    let token = (login("an-id-of-8", "the-s3cret"), answer(201, &JSON, "{}"));
    let fetch = get("/malquery/entities/samples-fetch/v1?ids=x");
    let text = record(&[token, (fetch, answer(200, &[], "PK the-s3cret"))]).unwrap();
    assert!(text.contains("\"[13 bytes]\""), "{text}");
}

// Bodies and faults.

#[test]
fn bodies_and_faults_play_the_same() {
    let (_folder, path) = folder();
    let zip = || reply::bytes(200, "application/zip", "0123456789");
    let replies = [
        zip().header("content-length", "10"),
        zip(),
        reply::bytes(200, "text/plain", "0123456789").truncate_after(4),
        reply::status(204).header("content-length", "0"),
        reply::bytes(200, "application/json", "{\"a\":1}"),
        reply::fault(Fault::Dns),
        reply::fault(Fault::Reset),
        reply::bytes(200, "application/json", "{ \"a\": 1}  and more").truncate_after(11),
    ];
    let outcomes = |transport: &dyn Transport| -> Vec<String> {
        let outcome = |(index, most): (usize, Option<usize>)| {
            let mut body = match transport.send(get(&format!("/{index}"))) {
                Ok(response) => response.into_body(),
                Err(error) => return format!("{:?}", error.failure()),
            };
            match most {
                Some(most) => format!("{}", body.read_exact(&mut vec![0; most]).is_ok()),
                None => {
                    let read = io::read_to_string(body).map(drop);
                    format!("{:?}", read.map_err(|error| error.kind()))
                }
            }
        };
        let most = [Some(10), Some(4), None, Some(0), Some(7), None, None, None];
        most.into_iter().enumerate().map(outcome).collect()
    };
    let (transport, guard) = begin(&path, Mode::Record, script(replies).transport());
    let recorded = outcomes(&transport);
    guard.finish();
    let (transport, guard) = begin(&path, Mode::Replay, nothing());
    assert_eq!(outcomes(&transport), recorded);
    guard.finish();
    let text = fs::read_to_string(&path).unwrap();
    let count = |what: &str| text.matches(what).count();
    let counts = ["truncate_after", "\"dns\"", "\"reset\"", "[10 bytes of"].map(count);
    assert_eq!(counts, [3, 1, 1, 1], "{text}");
}

#[test]
fn what_no_cassette_can_play_is_refused() {
    let (_folder, path) = folder();
    let service = Service(|request: &Sent| match request.uri().path() {
        "/down" => Err(Down(SendFailure::CannotSend)),
        _ => Ok(answer(200, &[], "")),
    });
    let (transport, guard) = begin(&path, Mode::Record, service);
    take(&transport, get("/up")).unwrap();
    take(&transport, get("/down")).unwrap_err();
    take(&transport, request("get", "/small", &[], "")).unwrap_err();
    let error = guard.close().unwrap_err().to_string();
    let why = "GET /down failed with an error that a cassette cannot replay: the service is down";
    let unfit = "must be in upper case; the request was not sent";
    check(&error, &[why, unfit], &[]);
    assert!(!path.exists());
    guard.save_rest(&path).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.matches("\"id\"").count(), 1);
    for (failure, kind) in [
        (SendFailure::NotSent, r#""connect_refused""#),
        (SendFailure::Unknown, r#""eof""#),
    ] {
        let service = Service(move |_: &Sent| Err(Down(failure)));
        let (transport, guard) = begin(&path, Mode::Record, service);
        take(&transport, get("/x")).unwrap_err();
        guard.finish();
        check(&fs::read_to_string(&path).unwrap(), &[kind], &[]);
        let (transport, guard) = begin(&path, Mode::Replay, nothing());
        assert_eq!(take(&transport, get("/x")), Err(failure));
        guard.finish();
    }
}

/// Reports each failure of another transport as unknown.
struct Unsure(Mock);

impl Transport for Unsure {
    fn send(&self, request: Sent) -> Result<Response<Body>, TransportError> {
        self.0.send(request).map_err(TransportError::unknown)
    }
}

#[test]
fn a_wrapped_fault_keeps_its_outer_failure() {
    let (_folder, path) = folder();
    let live = Unsure(script([reply::fault(Fault::Dns)]).transport());
    for (mode, live) in [(Mode::Record, live), (Mode::Replay, Unsure(nothing()))] {
        let (transport, guard) = begin(&path, mode, live);
        assert_eq!(take(&transport, get("/x")), Err(SendFailure::Unknown));
        guard.finish();
    }
}

#[test]
fn a_retry_time_is_kept_as_a_duration() {
    let headers = [
        ("x-ratelimit-retryafter", "1767225610"),
        ("date", "Thu, 01 Jan 2026 00:00:00 GMT"),
    ];
    let text = record(&[(get("/x"), answer(429, &headers, ""))]).unwrap();
    check(&text, &[r#"["retry-after", "10"]"#], &["1767225610"]);
    let text = record(&[(get("/x"), answer(429, &[("retry-after", "7")], ""))]).unwrap();
    assert!(text.contains(r#"["retry-after", "7"]"#), "{text}");
}

// Files.

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn sixteen_threads_lose_nothing() {
    let (_folder, path) = folder();
    let service = Service(|request: &Sent| {
        let body = json!({"meta": {"status": request.uri().path(), "trace_id": TRACE}});
        Ok(json_answer(200, &body))
    });
    let run = |transport: &dyn Transport| {
        thread::scope(|scope| {
            for number in 0..16 {
                scope.spawn(move || {
                    for call in 0..25 {
                        let uri = format!("/thread-{number}/call-{}", call / 5);
                        let (_, body, _) = take(&transport, get(&uri)).unwrap();
                        let body: Value = serde_json::from_slice(&body).unwrap();
                        assert_eq!(body["meta"]["status"], uri);
                    }
                });
            }
        });
    };
    let (transport, guard) = begin(&path, Mode::Record, service);
    run(&transport);
    guard.finish();
    let text: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let times = |interaction: &Value| interaction["times"].as_u64().unwrap_or(1);
    let all = text["interactions"].as_array().unwrap().iter();
    assert_eq!(all.map(times).sum::<u64>(), 400);
    let (transport, guard) = begin(&path, Mode::Replay, nothing());
    run(&transport);
    guard.finish();
}

#[test]
fn a_recording_can_be_saved_at_any_time() {
    let (_folder, path) = folder();
    let (transport, guard) = begin(&path, Mode::Record, same(answer(200, &[], "0123456789")));
    take(&transport, get("/one")).unwrap();
    let mut open = transport.send(get("/open")).unwrap().into_body();
    open.read_exact(&mut [0; 4]).unwrap();
    // Save in another thread, like a Ctrl-C handler.
    thread::scope(|scope| scope.spawn(|| guard.save().unwrap()).join().unwrap());
    let text = fs::read_to_string(&path).unwrap();
    check(&text, &["\"/one\""], &["\"/open\""]);
    drop(open);
    take(&transport, get("/two")).unwrap();
    guard.save().unwrap();
    guard.finish();
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.matches("\"id\"").count(), 3, "{text}");
    assert_eq!(text.matches("truncate_after").count(), 1, "{text}");
}

#[test]
fn nothing_is_sent_after_the_end() {
    let (_folder, path) = folder();
    let sent = Arc::new(Mutex::new(0));
    let service = || {
        let sent = Arc::clone(&sent);
        Service(move |_: &Sent| {
            *sent.lock().unwrap() += 1;
            Ok(answer(200, &[], "x"))
        })
    };
    for mode in [Mode::Record, Mode::Append] {
        // The guard is dropped immediately.
        let (transport, _) = begin(&path, mode, service());
        let error = transport.send(get("/x")).unwrap_err();
        assert_eq!(error.failure(), SendFailure::CannotSend);
        let why = "the session has ended, so the request was not sent";
        says(&format!("{error:?}"), why);
    }
    assert_eq!((*sent.lock().unwrap(), path.exists()), (0, false));
    // A failed test ends the session too.
    recorded(&path, &[(get("/y"), answer(200, &[], ""))]).finish();
    for mode in [Mode::Record, Mode::Append, Mode::Verify] {
        let (transport, guard) = begin(&path, mode, service());
        let fails = || {
            let _guard = guard;
            panic!("like a failed test");
        };
        catch_unwind(AssertUnwindSafe(fails)).unwrap_err();
        assert!(transport.send(get("/x")).is_err());
    }
    assert_eq!(*sent.lock().unwrap(), 0);
    // Reading a body after the end does no harm.
    let (transport, guard) = begin(&path, Mode::Record, service());
    let body = transport.clone().send(get("/x")).unwrap().into_body();
    guard.finish();
    assert_eq!(io::read_to_string(body).unwrap(), "x");
    let text = fs::read_to_string(&path).unwrap();
    says(&text, "truncate_after");
}

#[test]
fn nothing_is_written_without_need() {
    let (folder, path) = folder();
    let service = || same(json_answer(200, &json!({"a": 1})));
    let run = |path: &Path| {
        let (transport, guard) = begin(path, Mode::Record, service());
        take(&transport, get("/x")).unwrap();
        guard.finish();
    };
    run(&path);
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(old).unwrap();
    run(&path);
    // A session without requests records nothing.
    begin(&path, Mode::Record, service()).1.finish();
    let fails = |mode, reply: Result<u16, SendFailure>, sent: Sent| {
        let service = Service(move |_: &Sent| Ok(answer(reply.map_err(Down)?, &[], "")));
        let fail = || {
            let (transport, _guard) = begin(&path, mode, service);
            let _ = take(&transport, get("/new"));
            let _ = take(&transport, sent);
            panic!("like a failed test");
        };
        catch_unwind(AssertUnwindSafe(fail)).unwrap_err();
    };
    fails(Mode::Record, Ok(200), get("/another"));
    fails(Mode::Record, Err(SendFailure::NotSent), submission("a"));
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), old);
    assert_eq!(names(folder.path()), ["test.json"]);
    // The billed exchanges are not lost.
    fails(Mode::Record, Ok(200), submission("a"));
    assert_eq!(names(folder.path()), ["test.json", "test.rest.json"]);
    Cassette::load(folder.path().join("test.rest.json")).unwrap();
    // The next failure does not replace them.
    fails(Mode::Record, Err(SendFailure::Unknown), submission("b"));
    let kept = ["test.json", "test.rest-2.json", "test.rest.json"];
    assert_eq!(names(folder.path()), kept);
    // The cassette answers this submission.
    fs::rename(folder.path().join("test.rest.json"), &path).unwrap();
    fails(Mode::Append, Ok(200), submission("a"));
    assert_eq!(names(folder.path()), ["test.json", "test.rest-2.json"]);

    // A missing folder is created. If a path cannot be written, nothing is sent.
    let deep = folder.path().join("a/b/test.json");
    run(&deep);
    assert!(deep.exists());
    for unwritable in [path.join("test.json"), folder.path().join("a")] {
        let session = Session::new(unwritable).mode(Mode::Record);
        let error = session.transport(nothing).unwrap_err();
        assert!(error.to_string().ends_with(" cannot be written"), "{error}");
    }
}

#[test]
fn a_refusal_of_a_test_saves_the_rest() {
    let (folder, path) = folder();
    let token = json_answer(201, &json!({"access_token": "t0ken-of-the-session"}));
    let exchanges = [
        (login("an-id-of-8", "an-unusual-s3cret"), token),
        (submission("rule"), answer(200, &[], "")),
        (submission("an-unusual-s3cret"), answer(200, &[], "")),
    ];
    let guard = recorded(&path, &exchanges);
    let error = catch_unwind(AssertUnwindSafe(|| guard.finish())).unwrap_err();
    let error = error.downcast_ref::<String>().unwrap();
    check(error, &["exchanges were saved to "], &["unusual-s3cret"]);
    assert_eq!(names(folder.path()), ["test.rest.json"]);
}

#[test]
fn saving_again_and_appending_change_no_line() {
    let (_folder, path) = folder();
    let run = |mode| {
        let live = || (job_service(), VirtualClock::new(), auth());
        let (client, guard) = Session::new(&path).mode(mode).client(live).unwrap();
        hunt(&client).unwrap();
        guard.finish();
        fs::read_to_string(&path).unwrap()
    };
    let mut text = run(Mode::Record);
    assert_eq!(run(Mode::Record), text);
    // The cassette answers every request except the token request.
    assert_eq!(run(Mode::Append), text);
    for uri in ["/a", "/b", "/c"] {
        let (transport, guard) = begin(&path, Mode::Append, same(answer(200, &[], "")));
        take(&transport, get(uri)).unwrap();
        guard.finish();
        let longer = fs::read_to_string(&path).unwrap();
        let former = text.trim_end_matches("\n  ]\n}\n");
        assert!(longer.starts_with(former), "{text}\n{longer}");
        says(&longer, uri);
        text = longer;
    }
}

#[test]
fn sessions_that_append_take_turns() {
    let (folder, path) = folder();
    fs::write(folder.path().join(".cassette-of-a-killed-run"), "part").unwrap();
    let barrier = Arc::new(Barrier::new(8));
    let append = |number: usize| {
        let (transport, guard) = begin(&path, Mode::Append, same(answer(200, &[], "x")));
        take(&transport, get(&format!("/number-{number}"))).unwrap();
        barrier.wait();
        guard.finish();
    };
    thread::scope(|scope| {
        for number in 0..8 {
            scope.spawn(move || append(number));
        }
    });
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(names(folder.path()), ["test.json"]);
    (0..8).for_each(|number| check(&text, &[&format!("/number-{number}")], &[]));
    Cassette::load(&path).unwrap();
}

#[test]
fn sessions_start_while_another_one_cleans_up() {
    let (folder, path) = folder();
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        // Remove the temporary files of others, like a session that writes to the same folder.
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                for name in names(folder.path()) {
                    let _ = fs::remove_file(folder.path().join(name));
                }
            }
        });
        let start = || Session::new(&path).mode(Mode::Record).transport(nothing);
        let failed = (0..1000).find_map(|_| start().err());
        ended.store(true, Ordering::Relaxed);
        assert!(failed.is_none(), "{failed:?}");
    });
}

#[test]
fn appending_keeps_the_redaction_as_it_is() {
    let old =
        r#"{"id": "a", "request": {"method": "GET", "uri": "/a"}, "response": {"status": 200}}"#;
    for redaction in [
        "",
        r#""redaction": "falcon-1","#,
        r#""redaction": "\"mine\"","#,
    ] {
        let (_folder, path) = folder();
        let text = format!(r#"{{"version": 1, {redaction} "interactions": [{old}]}}"#);
        fs::write(&path, text).unwrap();
        let (transport, guard) = begin(&path, Mode::Append, same(answer(200, &[], "x")));
        take(&transport, get("/b")).unwrap();
        guard.finish();
        let text = fs::read_to_string(&path).unwrap();
        check(&text, &["\"/b\"", redaction], &["falcon-2"]);
        assert_eq!(text.contains("redaction"), !redaction.is_empty());
    }
}

#[test]
fn what_another_session_wrote_is_not_lost() {
    let (folder, path) = folder();
    let begin = || begin(&path, Mode::Record, same(answer(200, &[], "x")));
    let ((one, first), (two, second)) = (begin(), begin());
    take(&one, get("/one")).unwrap();
    take(&two, get("/two")).unwrap();
    first.finish();
    let error = second.close().unwrap_err().to_string();
    says(&error, "it was changed after this session started");
    assert!(fs::read_to_string(&path).unwrap().contains("\"/one\""));
    let other = folder.path().join("other.json");
    second.save_rest(&other).unwrap();
    assert!(fs::read_to_string(&other).unwrap().contains("\"/two\""));

    let (transport, guard) = self::begin(&path, Mode::Append, same(answer(200, &[], "x")));
    take(&transport, get("/three")).unwrap();
    fs::write(&path, "<<<<<<< a conflict").unwrap();
    let error = guard.close().unwrap_err().to_string();
    says(
        &error,
        "the existing cassette cannot be read: the cassette contains a merge",
    );
    says(&fs::read_to_string(&path).unwrap(), "a conflict");
}

// Modes.

#[test]
fn a_mode_that_does_not_exist_is_named() {
    let error = "rec".parse::<Mode>().unwrap_err().to_string();
    assert!(error.starts_with("\"rec\" is not a valid mode; use one of: replay, "));
}

#[test]
fn a_missing_cassette_says_how_to_record_it() {
    let (_folder, path) = folder();
    for mode in [Mode::Replay, Mode::Verify] {
        let session = Session::new(&path).mode(mode);
        let error = session.transport(nothing).unwrap_err();
        let text = error.to_string();
        let how =
            "to record a cassette, use the mode `record`, for example with MALQUERY_MOCK=record";
        check(&text, &["test.json: the file could not be read", how], &[]);
        assert!(format!("{error:?}").starts_with(&format!("{text}: ")));
    }
    fs::write(&path, "{").unwrap();
    let session = Session::new(&path).mode(Mode::Append);
    let error = session.transport(nothing).unwrap_err();
    says(&error.to_string(), "test.json:1:");
}

#[test]
fn a_replay_is_strict_and_names_the_test() {
    let (_folder, path) = folder();
    recorded(&path, &[(get("/x"), answer(200, &[], "x"))]).finish();
    let session = Session::new(&path).mode(Mode::Replay);
    let (transport, guard) = session.transport(nothing).unwrap();
    let here = line!() - 1;
    take(&transport, get("/y")).unwrap_err();
    let error = guard.close().unwrap_err().to_string();
    let here = format!("record.rs:{here}:");
    let unplayed = "\"x\" (line 6): not played yet";
    check(&error, &[&here, "GET /y", unplayed], &[]);
}

#[test]
fn a_service_that_drifts_is_reported() {
    let (_folder, path) = folder();
    let answers = |is_live: bool| {
        Service(move |request: &Sent| {
            let (status, reply) = match (request.uri().path(), is_live) {
                ("/oauth2/token", _) => (201, json!({"access_token": "t0ken-t0ken"})),
                ("/malquery/queries/hunt/v1", false) => {
                    (200, json!({"meta": {"reqid": JOB}, "resources": []}))
                }
                ("/malquery/queries/hunt/v1", true) => {
                    let meta = json!({"reqid": "another-job-1"});
                    (200, json!({"meta": meta, "resources": [], "errors": []}))
                }
                (POLL, false) => {
                    let meta = json!({"status": "done", "options": null});
                    let sample = json!({"sha256": "a", "md5": "b", "filesize": 1});
                    let other = json!({"sha256": "b", "md5": "c"});
                    (200, json!({"meta": meta, "resources": [sample, other]}))
                }
                (POLL, true) => {
                    assert_eq!(request.uri().query(), Some("ids=another-job-1"));
                    let samples = json!([{"sha256": 1, "sha1": "c"}]);
                    (200, json!({"meta": {"options": {}}, "resources": samples}))
                }
                ("/other", true) => return Ok(answer(410, &[], "gone")),
                _ => return Ok(answer(404, &[], "none")),
            };
            Ok(json_answer(status, &reply))
        })
    };
    let run = |mode, is_live: bool| {
        let (transport, guard) = begin(&path, mode, answers(is_live));
        take(&transport, login("1234567", "a-s3cret")).unwrap();
        let id = reqid(&take(&transport, submission("")).unwrap().1);
        take(&transport, poll(&id)).unwrap();
        take(&transport, get("/other")).unwrap();
        if is_live {
            take(&transport, get("/unheard-of?x=1")).unwrap();
        }
        guard.close().map_err(|error| {
            let path = path.display().to_string();
            error.to_string().replace(&path, "test.json")
        })
    };
    run(Mode::Record, false).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    run(Mode::Verify, false).unwrap();
    run(Mode::Passthrough, true).unwrap();
    let error = run(Mode::Verify, true).unwrap_err();
    insta::assert_snapshot!(error);
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn a_comparison_that_compares_nothing_fails() {
    let (_folder, path) = folder();
    let words = || answer(200, &[("content-type", "text/plain")], "words");
    let document = || json_answer(200, &json!({"a": 1}));
    let run = |mode, got: Got, sent: Option<Sent>| {
        let (transport, guard) = begin(&path, mode, same(got));
        let sent = sent.map(|sent| take(&transport, sent));
        assert!(sent.is_none_or(|got| got.is_ok()));
        guard.close().map_err(|error| error.to_string())
    };
    for (recorded, live, drift) in [
        (
            words(),
            document(),
            "the live reply is JSON, but the recorded reply is not",
        ),
        (
            document(),
            words(),
            "the recorded reply is JSON, but the live reply is not",
        ),
    ] {
        run(Mode::Record, recorded.clone(), Some(get("/x"))).unwrap();
        // Earlier versions kept the names of all fields.
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("[key 1]", "a")).unwrap();
        run(Mode::Verify, recorded.clone(), Some(get("/x"))).unwrap();
        let error = run(Mode::Verify, live, Some(get("/x"))).unwrap_err();
        check(&error, &[&format!("\"x\" (line 6): {drift}")], &[]);
        for sent in [None, Some(login("an-id-of-8", "a-s3cret"))] {
            let error = run(Mode::Verify, recorded.clone(), sent).unwrap_err();
            says(&error, "no request to MalQuery was sent");
        }
    }
}

#[test]
fn a_request_for_several_jobs_is_compared() {
    for ids in ["ids={a}&ids={b}", "ids={a},{b}", "ids={a}%2C{b}"] {
        let (_folder, path) = folder();
        let modes = [(Mode::Record, 1), (Mode::Replay, 1), (Mode::Verify, 3)];
        for (mode, first) in modes {
            let jobs = Mutex::new(0);
            let service = Service(move |request: &Sent| {
                let mut jobs = jobs.lock().unwrap();
                *jobs += u32::from(request.uri().path() != POLL);
                let id = format!("{first}1111111-2222-6ea1-5f4f-a0000000000{jobs}");
                let reply = json!({"meta": {"reqid": id, "status": "done"}});
                Ok(json_answer(200, &reply))
            });
            let (transport, guard) = begin(&path, mode, service);
            let [a, b] =
                ["a", "b"].map(|rule| reqid(&take(&transport, submission(rule)).unwrap().1));
            let ids = ids.replace("{a}", &a).replace("{b}", &b);
            take(&transport, get(&format!("{POLL}?{ids}"))).unwrap();
            assert!(guard.close().is_ok(), "{ids}");
        }
    }
}

// Any exchange.

fn any_body() -> impl Strategy<Value = (Option<&'static str>, Vec<u8>)> {
    let form = |pairs: Vec<(String, String)>| {
        let mut form = form_urlencoded::Serializer::new(String::new());
        (Some(FORM[0].1), form.extend_pairs(pairs).finish().into())
    };
    let pairs = prop::collection::vec((any::<String>(), any::<String>()), 1..4);
    prop_oneof![
        Just((None, Vec::new())),
        any_document(3).prop_map(|json| (Some(JSON[0].1), json.to_string().into())),
        pairs.prop_map(form),
        any::<String>().prop_map(|text| (Some("text/plain; charset=utf-8"), text.into())),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(|bytes| (None, bytes)),
        (65_000..66_000usize, any::<u8>())
            .prop_map(|(size, byte)| (Some("application/zip"), vec![byte; size])),
    ]
}

fn any_exchange() -> impl Strategy<Value = (Sent, Got)> {
    let query = prop::collection::vec(("[a-z]{1,4}", any::<String>()), 0..3);
    let path = prop_oneof!["/malquery/[a-z]{1,5}/v1", "/[a-z0-9/._-]{0,10}"];
    let method = prop_oneof![Just("GET"), Just("POST")];
    (method, path, query, any_body(), 200..600u16, any_body()).prop_map(
        |(method, path, query, (sent_kind, sent), status, (got_kind, got))| {
            let mut pairs = form_urlencoded::Serializer::new(String::new());
            let query = pairs.extend_pairs(&query).finish();
            let gap = if query.is_empty() { "" } else { "?" };
            let header = |kind: &'static str| ("content-type", kind);
            let [a, b] = [sent_kind, got_kind].map(|kind| Vec::from_iter(kind.map(header)));
            let sent = request(method, &format!("{path}{gap}{query}"), &a, sent);
            (sent, answer(status, &b, got))
        },
    )
}

proptest! {
    #![proptest_config(cases(20, 1))]

    #[test]
    fn any_exchange_plays_the_same(exchanges in prop::collection::vec(any_exchange(), 1..6)) {
        let (_folder, path) = folder();
        recorded(&path, &exchanges).close().unwrap();
        let (transport, guard) = begin(&path, Mode::Replay, nothing());
        for (sent, got) in &exchanges {
            let (status, body, is_broken) = take(&transport, sent.clone()).unwrap();
            prop_assert_eq!((status, is_broken), (got.status().as_u16(), false));
            prop_assert_eq!(body.is_empty(), got.body().is_empty());
        }
        guard.close().unwrap();
    }
}
