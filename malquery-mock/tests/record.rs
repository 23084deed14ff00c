//! What is recorded, and that it plays the same.

mod recorder;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex};

use http::Response;
use malquery_mock::{Cassette, Fault, Mode, Session, VirtualClock, reply, script};
use malquery_proto::client::Error;
use malquery_proto::flow::{Auth, SendFailure};
use malquery_proto::operations::Hunt;
use malquery_proto::types::RequestId;
use malquery_proto::{Client, Cloud, Credentials, Transport};
use proptest::prelude::*;
use recorder::{
    Answers, Down, Got, Sent, Service, answer, begin, folder, get, json_answer, nothing, record,
    request, take,
};
use serde_json::{Value, json};
use url::form_urlencoded;

const TRACE: &str = "6b1e2cd4-a6c1-4df0-98b3-7e0d4ad3c8f1";
const JOB: &str = "0e1f6ea1-7c1d-6ea1-5f4f-a1b2c3d4e5f6";

/// What the service answers in a job from search to archive, with everything that is to be redacted.
fn job_service(polls: Arc<Mutex<u32>>) -> impl Fn(&Sent) -> Result<Got, Down> {
    let volatile = [
        ("content-type", "application/json"),
        ("date", "Thu, 01 Jan 2026 00:00:00 GMT"),
        ("x-cs-traceid", TRACE),
        ("x-ratelimit-limit", "6000"),
        ("x-ratelimit-remaining", "5999"),
        ("set-cookie", "session=c00kie-of-the-gateway; path=/"),
    ];
    move |request| {
        let meta = |more: Value| {
            let mut meta =
                json!({"query_time": 1.27e-7, "powered_by": "malquery-api", "trace_id": TRACE});
            meta.as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            json!({"meta": meta, "resources": []})
        };
        let body = match request.uri().path() {
            "/oauth2/token" => {
                let token = json!({"access_token": "eyJhbGciOi.t0ken", "expires_in": 1799, "token_type": "bearer"});
                return Ok(answer(201, &volatile, token.to_string()));
            }
            "/malquery/queries/hunt/v1" => meta(json!({"reqid": JOB, "status": "done"})),
            "/malquery/entities/requests/v1" => {
                let mut polls = polls.lock().unwrap();
                *polls += 1;
                let word = if *polls < 4 { "inprogress" } else { "done" };
                let mut reply =
                    meta(json!({"reqid": JOB, "status": word, "userid": "jane.doe@example.com"}));
                reply["meta"]["query_time"] = json!(*polls);
                // Each reply has a trace id of its own.
                reply["meta"]["trace_id"] =
                    json!(format!("6b1e2cd4-a6c1-4df0-98b3-7e0d4ad3c8f{}", *polls));
                reply
            }
            path => panic!("{path}"),
        };
        Ok(answer(200, &volatile, body.to_string()))
    }
}

fn hunt(client: &Client) -> Result<RequestId, Error> {
    let job = client.hunt(&Hunt::new(
        "rule gnu { strings: $a = \"GNU\" condition: $a }",
    ))?;
    let id = job.id().clone();
    while client
        .request(&id)?
        .meta
        .status
        .as_ref()
        .map(ToString::to_string)
        .as_deref()
        != Some("done")
    {}
    Ok(id)
}

fn auth() -> Auth {
    let cid = "fedcba9876543210fedcba9876543210-4F".parse().unwrap();
    Auth::new(
        Cloud::Eu1,
        Credentials::new("c1ient-id", "p4ss+w/o=r&d%\"'").member_cid(cid),
    )
}

#[test]
fn a_session_is_recorded_and_replayed() {
    let (_folder, path) = folder();
    let polls = Arc::new(Mutex::new(0));
    let (client, guard) = Session::new(&path)
        .mode(Mode::Record)
        .client(|| {
            (
                Service(job_service(polls.clone())),
                VirtualClock::new(),
                auth(),
            )
        })
        .unwrap();
    assert_eq!(hunt(&client).unwrap().as_str(), JOB);
    guard.finish();
    let text = fs::read_to_string(&path).unwrap();
    insta::assert_snapshot!(text);

    let live = || -> (malquery_mock::Mock, VirtualClock, Auth) { panic!("it is not to be called") };
    let (client, guard) = Session::new(&path).mode(Mode::Replay).client(live).unwrap();
    assert_eq!(
        hunt(&client).unwrap().as_str(),
        "00000000-0000-4000-8000-000000000002"
    );
    assert_eq!(client.base().as_str(), "https://api.eu-1.crowdstrike.com");
    guard.finish();
}

#[test]
fn an_id_that_the_program_brings_along_is_recognised() {
    let (_folder, path) = folder();
    let uri = format!("/malquery/entities/requests/v1?ids={JOB}");
    let service = Service(|_: &Sent| {
        Ok(json_answer(
            200,
            &json!({"meta": {"reqid": JOB, "status": "done"}}),
        ))
    });
    let (transport, guard) = begin(&path, Mode::Record, service);
    take(&transport, get(&uri)).unwrap();
    guard.finish();
    let text = fs::read_to_string(&path).unwrap();
    assert!(!text.contains(JOB), "{text}");

    let (transport, guard) = begin(&path, Mode::Replay, nothing());
    let (_, body, _) = take(&transport, get(&uri)).unwrap();
    let reply: Value = serde_json::from_slice(&body).unwrap();
    let stands_for_it = reply["meta"]["reqid"].as_str().unwrap();
    assert!(text.contains(&format!("?ids={stands_for_it}")), "{text}");
    guard.finish();
}

/// A job from its submission to its samples, for a program that writes the id it is given in a notation of its own.
fn job_of(
    path: &Path,
    mode: Mode,
    id: &str,
    notation: &dyn Fn(&str) -> String,
) -> Result<(), String> {
    let service = Service(|request: &Sent| {
        Ok(match request.uri().path() {
            "/malquery/queries/hunt/v1" => json_answer(200, &json!({"meta": {"reqid": id}})),
            "/malquery/entities/requests/v1" => json_answer(
                200,
                &json!({"meta": {"reqid": id, "status": "done"}, "errors": [{"message": format!("of {id}")}]}),
            ),
            _ => answer(200, &[("content-type", "text/plain")], "harmless"),
        })
    });
    let (transport, guard) = begin(path, mode, service);
    let (_, reply, _) = take(&transport, submission("a")).unwrap();
    let ids = form_urlencoded::Serializer::new(String::new())
        .append_pair("ids", &notation(&reqid(&reply)))
        .finish();
    for path in [
        "/malquery/entities/requests/v1",
        "/malquery/entities/samples-fetch/v1",
    ] {
        // What has no match is told again at the end.
        let _ = take(&transport, get(&format!("{path}?{ids}")));
    }
    guard.close().map_err(|error| error.to_string())
}

fn submission(rule: &str) -> Sent {
    let headers = [("content-type", "application/json")];
    request(
        "POST",
        "/malquery/queries/hunt/v1",
        &headers,
        json!({"yara_rule": rule}).to_string(),
    )
}

fn reqid(reply: &[u8]) -> String {
    let reply: Value = serde_json::from_slice(reply).unwrap();
    reply["meta"]["reqid"].as_str().unwrap().to_owned()
}

#[test]
fn a_job_of_any_id_plays_again_and_has_not_drifted() {
    let same = |id: &str| id.to_owned();
    let (upper, lower) = (|id: &str| id.to_uppercase(), |id: &str| id.to_lowercase());
    let undashed = |id: &str| id.replace('-', "");
    let capitals = JOB.to_uppercase();
    for (id, notation) in [
        (JOB, &same as &dyn Fn(&str) -> String),
        (JOB, &upper),
        (JOB, &undashed),
        (&capitals, &lower),
        (&capitals, &undashed),
        ("abcdef12,abcdef34", &same),
        ("job,6b1e2cd4a6c14df098b37e0d4ad3c8f1", &same),
        ("a", &same),
        ("12345678", &same),
        ("00000000-0000-4000-8000-000000000001", &same),
        ("AbCdEfGh+/=%&?#", &same),
        ("\"quoted-12345678\\", &same),
        ("日本語日本語日本語日本語1", &same),
        ("[client_id_1]", &same),
        ("https://host/path/12345678", &same),
    ] {
        let (_folder, path) = folder();
        for mode in [Mode::Record, Mode::Replay, Mode::Verify] {
            job_of(&path, mode, id, notation).unwrap_or_else(|error| panic!("{id}: {error}"));
        }
        let other = id.replace('1', "3");
        job_of(&path, Mode::Verify, &other, notation)
            .unwrap_or_else(|error| panic!("{id}: {error}"));
    }
}

#[test]
fn a_service_that_writes_its_ids_in_another_way_has_not_drifted() {
    let (_folder, path) = folder();
    let same = |id: &str| id.to_owned();
    job_of(&path, Mode::Record, JOB, &same).unwrap();
    job_of(&path, Mode::Verify, &JOB.replace('-', ""), &same).unwrap();
}

#[test]
fn pseudonyms_in_lists_and_texts_are_not_given_again() {
    let (_folder, path) = folder();
    let uri = "/malquery/entities/requests/v1?ids=abc%2C00000001";
    let one = json!({"id": "a", "request": {"method": "GET", "uri": uri},
        "response": {"status": 200, "body": {"text": "of\n00000002"}}});
    fs::write(
        &path,
        json!({"version": 1, "interactions": [one]}).to_string(),
    )
    .unwrap();
    let service = Service(|_: &Sent| Ok(json_answer(200, &json!({"meta": {"reqid": "abcdef12"}}))));
    let (transport, guard) = begin(&path, Mode::Append, service);
    take(&transport, submission("a")).unwrap();
    guard.finish();
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(r#""reqid": "00000003""#), "{text}");
}

#[test]
fn an_id_in_two_notations_has_the_same_pseudonym_in_each_recording() {
    let capitals = TRACE.to_uppercase();
    let flat = TRACE.replace('-', "");
    let reply =
        json!({"meta": {"reqid": TRACE}, "note": format!("{TRACE} or {capitals} or {flat}")});
    let uri = format!("/malquery/entities/requests/v1?ids={capitals}");
    let recorded = || record(&[(get(&uri), json_answer(200, &reply))]).unwrap();
    let first = recorded();
    for _ in 0..20 {
        assert_eq!(recorded(), first);
    }
    let known = "00000000-0000-4000-8000-000000000001";
    let poll = get(&format!(
        "/malquery/entities/requests/v1?ids={}",
        known.replace('-', "")
    ));
    let known = json_answer(200, &json!({"meta": {"reqid": known}}));
    let text = record(&[(get("/x"), known.clone()), (poll, known)]).unwrap();
    assert!(
        text.contains("?ids=00000000000040008000000000000001"),
        "{text}"
    );
    let text = record(&[(get("/x"), json_answer(200, &reply))]).unwrap();
    let note = "00000000-0000-4000-8000-000000000001 or 00000000-0000-4000-8000-000000000001 or 00000000000040008000000000000001";
    assert!(text.contains(note), "{text}");
}

#[test]
fn an_id_of_the_program_with_a_comma_is_recognised() {
    for id in ["abcdef12,abcdef34", "job,abcdef34"] {
        let uri = format!("/malquery/entities/requests/v1?ids={id}");
        let (_folder, path) = folder();
        for mode in [Mode::Record, Mode::Replay] {
            let service = Service(|_: &Sent| Ok(json_answer(200, &json!({"meta": {"reqid": id}}))));
            let (transport, guard) = begin(&path, mode, service);
            take(&transport, get(&uri)).unwrap();
            guard.close().unwrap();
        }
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            !text.contains("abcdef12") && !text.contains("abcdef34"),
            "{text}"
        );
    }
}

#[test]
fn users_with_short_names_stay_apart() {
    let users: Vec<_> = ('a'..='z')
        .map(|name| json!({"userid": name.to_string()}))
        .collect();
    let users = [
        users,
        vec![json!({"user_id": "1"}), json!({"user_id": "12"})],
    ]
    .concat();
    let text = record(&[(get("/x"), json_answer(200, &json!({"resources": users})))]).unwrap();
    let cassette: Value = serde_json::from_str(&text).unwrap();
    let found = cassette
        .pointer("/interactions/0/response/body/json/resources")
        .unwrap()
        .as_array()
        .unwrap();
    let pseudonyms: BTreeSet<_> = found
        .iter()
        .map(|user| {
            user.as_object()
                .unwrap()
                .values()
                .next()
                .unwrap()
                .to_string()
        })
        .collect();
    assert_eq!(pseudonyms.len(), users.len(), "{text}");
}

#[test]
fn a_job_that_is_appended_is_none_of_the_cassette() {
    // A stand-in numbers its jobs, and begins anew in each process.
    for id in [
        "00000000-0000-4000-8000-000000000001",
        "12345678",
        "00000000,00000001",
        "7",
    ] {
        let (_folder, path) = folder();
        let job = |mode, rule: &str, found: &str| {
            let service = Service(|request: &Sent| {
                Ok(match request.uri().path() {
                    "/malquery/queries/hunt/v1" => {
                        json_answer(200, &json!({"meta": {"reqid": id}}))
                    }
                    _ => json_answer(
                        200,
                        &json!({"meta": {"status": "done"}, "resources": [found]}),
                    ),
                })
            });
            let (transport, guard) = begin(&path, mode, service);
            let (_, reply, _) = take(&transport, submission(rule)).unwrap();
            let ids = form_urlencoded::Serializer::new(String::new())
                .append_pair("ids", &reqid(&reply))
                .finish();
            let (_, reply, _) = take(
                &transport,
                get(&format!("/malquery/entities/requests/v1?{ids}")),
            )
            .unwrap();
            assert!(String::from_utf8_lossy(&reply).contains(found), "{id}");
            guard
        };
        job(Mode::Record, "a", "old").finish();
        job(Mode::Append, "b", "fresh").finish();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.matches("\"fresh\"").count(), 1, "{text}");
        // What was recorded is still known as itself, and one that is long enough has a pseudonym of its own.
        let is_long = id.len() >= 8;
        if is_long {
            job(Mode::Replay, "b", "fresh").close().unwrap_err();
        }
        job(Mode::Append, "a", "old").finish();
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}

// Secrets.

#[test]
fn a_secret_leaves_no_file_or_a_clean_one() {
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

    for secret in [
        "p4ss+w/o=r&d%\"'x",
        "S3cretS3cretS3cretS3cretS3cretS3cretS3cr",
        "ge heim\\n\u{fc}\u{1f600}",
    ] {
        let form: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
        let lower = [
            "%2B", "%2F", "%3D", "%26", "%25", "%C3", "%BC", "%F0", "%9F",
        ]
        .iter()
        .fold(form.replace('+', "%20"), |text, escape| {
            text.replace(escape, &escape.to_lowercase())
        });
        let basic = STANDARD.encode(format!("an-id-of-8:{secret}"));
        let login = request(
            "POST",
            "/oauth2/token",
            &[("content-type", "application/x-www-form-urlencoded")],
            format!("client_id=an-id-of-8&client_secret={form}"),
        );
        let revoke = request(
            "POST",
            "/oauth2/revoke",
            &[
                ("content-type", "application/x-www-form-urlencoded"),
                ("authorization", &format!("Basic {basic}")),
            ],
            "token=the-t0ken",
        );
        let ok = json_answer(200, &json!({}));
        let post =
            |body: String| request("POST", "/x", &[("content-type", "application/json")], body);
        let hidden: Vec<(&str, Sent, Got)> = vec![
            ("form", login.clone(), ok.clone()),
            ("basic", revoke.clone(), ok.clone()),
            ("query", get(&format!("/x?token={form}")), ok.clone()),
            ("url", get(&format!("/x?ids={form}")), ok.clone()),
            ("path", get(&format!("/{}", form.replace('+', "%20"))), ok.clone()),
            ("lower case", get(&format!("/{lower}")), ok.clone()),
            (
                "header",
                request("GET", "/x", &[("x-extra", &form), ("cookie", &format!("a={form}"))], ""),
                ok.clone(),
            ),
            (
                "reply header",
                get("/x"),
                answer(200, &[("location", &format!("/{form}")), ("x-extra", &form)], ""),
            ),
            ("field", post(json!({"a": [{"client_secret": secret}]}).to_string()), ok.clone()),
            ("json", post(json!({"note": secret}).to_string()), ok.clone()),
            (
                "json reply",
                get("/x"),
                json_answer(200, &json!({"note": format!("for {secret}!"), "access_token": secret})),
            ),
            ("key", get("/x"), json_answer(200, &json!({ secret: 1 }))),
            ("base64", post(json!({"note": STANDARD.encode(secret)}).to_string()), ok.clone()),
            (
                "base64 reply",
                get("/x"),
                json_answer(200, &json!({"n": URL_SAFE_NO_PAD.encode(format!("a{secret}"))})),
            ),
            (
                "rule",
                post(
                    json!({"yara_rule": format!("rule a {{ strings: $a = \"{secret}\" condition: $a }}")})
                        .to_string(),
                ),
                ok.clone(),
            ),
            ("text", get("/x"), answer(200, &[("content-type", "text/html")], format!("<p>{secret}</p>"))),
            ("bytes", get("/x"), answer(200, &[], [[0; 50].as_slice(), secret.as_bytes()].concat())),
            ("large bytes", get("/x"), answer(200, &[], [vec![0; 100_000], secret.into()].concat())),
            ("large reply", get("/x"), json_answer(200, &json!({"a": "x".repeat(100_000), "token": secret}))),
            (
                "json in json",
                get("/x"),
                json_answer(200, &json!({"message": json!({"access_token": secret}).to_string()})),
            ),
            (
                "json in bytes",
                get("/x"),
                answer(
                    200,
                    &[("content-type", "application/json")],
                    b"\0{\"access_token\": \"unknown-t0ken\"}".as_slice(),
                ),
            ),
            ("compressed", get("/x"), answer(200, &[("content-encoding", "gzip")], b"\x1f\x8b".as_slice())),
            (
                "broken json",
                get("/x"),
                answer(200, &[("content-type", "application/json")], "{\"access_token\": \"unknown-t0ken"),
            ),
        ];
        for (place, request, response) in hidden {
            let (folder, path) = folder();
            let service = Service(|sent: &Sent| {
                Ok(if sent.uri() == request.uri() {
                    response.clone()
                } else {
                    json_answer(200, &json!({}))
                })
            });
            let (transport, guard) = begin(&path, Mode::Record, service);
            for request in [login.clone(), request.clone()] {
                take(&transport, request).unwrap();
            }
            let result = guard.close();
            let mut files = Vec::new();
            let mut folders = vec![folder.path().to_owned()];
            while let Some(next) = folders.pop() {
                for entry in fs::read_dir(next)
                    .unwrap()
                    .map(|entry| entry.unwrap().path())
                {
                    if entry.is_dir() {
                        folders.push(entry)
                    } else {
                        files.push(entry)
                    }
                }
            }
            let fails = !matches!(
                place,
                "form"
                    | "basic"
                    | "query"
                    | "header"
                    | "field"
                    | "json reply"
                    | "text"
                    | "json in json"
                    | "large reply"
                    | "reply header"
            );
            if fails {
                let error = result.expect_err(place).to_string();
                assert!(files.is_empty(), "{place}: {files:?}");
                assert!(
                    !error.contains(secret) && !error.contains(&form),
                    "{place}: {error}"
                );
                assert!(error.contains("Nothing was written"), "{place}: {error}");
                continue;
            }
            result.unwrap_or_else(|error| panic!("{place}: {error}"));
            for file in &files {
                let bytes = fs::read(file).unwrap();
                let text = String::from_utf8_lossy(&bytes);
                let quoted = serde_json::Value::from(secret).to_string();
                for leak in [
                    secret,
                    &form,
                    &basic,
                    &STANDARD.encode(secret),
                    quoted.trim_matches('"'),
                    "an-id-of-8",
                ] {
                    assert!(!text.contains(leak), "{place}: {leak} in {text}");
                }
            }
            let (transport, guard) = begin(&path, Mode::Replay, nothing());
            for request in [login.clone(), request] {
                take(&transport, request).unwrap_or_else(|_| panic!("{place} does not play"));
            }
            guard.close().unwrap();
        }
    }
}

#[test]
fn a_leak_is_told_with_its_place_and_not_its_value() {
    let login = request(
        "POST",
        "/oauth2/token",
        &[("content-type", "application/x-www-form-urlencoded")],
        "client_secret=p4ssw0rd",
    );
    let hunt = request(
        "POST",
        "/malquery/queries/hunt/v1",
        &[("content-type", "application/json")],
        r#"{"yara_rule": "p4ssw0rd"}"#,
    );
    let ok = json_answer(200, &json!({}));
    let error = record(&[(login, ok.clone()), (hunt, ok)]).unwrap_err();
    assert_eq!(
        error.split(" (the session").next().unwrap(),
        "test.json was not written: in \"hunt\" there would be a secret in a place where it cannot be replaced: the \
         client_secret of this recording. Nothing was written. If it is a dummy that is a part of other texts, take \
         an unusual one"
    );
}

#[test]
fn a_secret_that_only_its_name_tells_is_refused_in_texts() {
    let new = "NEWunkn0wnT0kenVALUE";
    let inner = json!({"access_token": new}).to_string();
    let text = |text: String| answer(200, &[("content-type", "text/plain")], text);
    let message = |text: String| json_answer(200, &json!({"errors": [{"message": text}]}));
    for reply in [
        message(format!("upstream said: {inner}")),
        message(format!("POST /oauth2/token?client_secret={new} failed")),
        message(format!("Authorization: Bearer {new}")),
        message(format!("[1, {}", json!(inner))),
        text(format!("access_token: {new}\n")),
        text(format!("{{'access_token': '{new}'}}")),
        text(format!("<access_token>{new}</access_token>")),
        text(format!("log {}", json!(inner))),
        text(format!("Authorization: Bearer {new}\n")),
        // Too short to be replaced in a text.
        message(json!({"token": "abc"}).to_string()),
    ] {
        let error = record(&[(get("/x"), reply)]).unwrap_err();
        assert!(
            error.contains("Nothing was written") && !error.contains(new),
            "{error}"
        );
    }
    let body = json!({"note": format!("client_secret={new}")}).to_string();
    let sent = request("POST", "/x", &[("content-type", "application/json")], body);
    record(&[(sent, answer(200, &[], "x"))]).unwrap_err();
    // What can be read is replaced.
    for reply in [
        message(format!(" {inner} ")),
        json_answer(200, &json!(inner)),
        json_answer(200, &json!({"m": json!(inner).to_string()})),
        json_answer(
            200,
            &json!({"headers": {"Authorization": format!("Bearer {new}")}, "again": new}),
        ),
    ] {
        let text = record(&[(get("/x"), reply)]).unwrap();
        assert!(!text.contains(new) && text.contains('['), "{text}");
    }
}

#[test]
fn a_secret_is_known_by_a_name_like_those_of_secrets() {
    let value = "unkn0wn/f0r/the/day";
    let exchanges = |name: &str| {
        let ok = json_answer(200, &json!({}));
        let form = [("content-type", "application/x-www-form-urlencoded")];
        [
            (get(&format!("/x?{name}={value}")), ok.clone()),
            (
                request("POST", "/x", &form, format!("{name}={value}")),
                ok.clone(),
            ),
            (
                get("/x"),
                json_answer(200, &json!({"a": [{name: [value]}]})),
            ),
            (
                get("/x"),
                answer(302, &[("location", &format!("/y?{name}={value}"))], ""),
            ),
        ]
    };
    for name in [
        "clientSecret",
        "accessToken",
        "x-api-key",
        "X-Amz-Signature",
        "X-Amz-Credential",
        "X-Amz-Security-Token",
        "password",
        "client_assertion",
        "PRIVATE_KEY",
        "userName",
        "sig",
    ] {
        for exchange in exchanges(name) {
            let text = record(&[exchange]).unwrap();
            assert!(!text.contains("unkn0wn"), "{name}: {text}");
        }
    }
    for name in ["token_type", "expires_in", "sha256", "yara_rule", "design"] {
        for exchange in exchanges(name) {
            assert!(record(&[exchange]).unwrap().contains("unkn0wn"), "{name}");
        }
    }
}

#[test]
fn the_parts_of_a_jwt_are_secrets() {
    let token = "eyJhbGciOiJSUzI1NiJ9.eyJjaWQiOiJ0aGUtY3VzdG9tZXIifQ.c2lnbmF0dXJlLW9mLWl0";
    let login = (get("/x"), json_answer(200, &json!({"access_token": token})));
    for part in token.split('.').skip(1) {
        for note in [part.to_owned(), format!("it was {part}.")] {
            let text = record(&[
                login.clone(),
                (get("/y"), json_answer(200, &json!({"note": note}))),
            ])
            .unwrap();
            assert!(!text.contains(part), "{text}");
        }
        assert!(
            record(&[
                login.clone(),
                (get(&format!("/y?a={part}")), json_answer(200, &json!({})))
            ])
            .is_err()
        );
    }
}

#[test]
fn a_jwt_that_nothing_names_is_refused_wherever_it_stands() {
    let token = "eyJhbGciOiJSUzI1NiJ9.eyJjaWQiOiJ0aGUtY3VzdG9tZXIifQ.c2lnbmF0dXJl";
    let text = [("content-type", "text/plain")];
    for (sent, got) in [
        (
            get("/x"),
            json_answer(200, &json!({"note": format!("see {token}.")})),
        ),
        (get("/x"), answer(200, &text, format!("<{token}>"))),
        (get(&format!("/x?a={token}")), json_answer(200, &json!({}))),
        (get(&format!("/x/{token}")), json_answer(200, &json!({}))),
        (request("POST", "/x", &text, token), answer(200, &[], "")),
        (
            get("/x"),
            answer(302, &[("location", &format!("/y/{token}"))], ""),
        ),
    ] {
        let error = record(&[(sent, got)]).unwrap_err();
        assert!(
            error.contains("Nothing was written") && !error.contains(token),
            "{error}"
        );
    }
    let rule =
        "rule a { strings: $a = \"eyJhbGciOi\" $b = /eyJ[a-zA-Z]+\\.eyJ[a-z]+\\./ condition: $a }";
    record(&[(get("/x"), json_answer(200, &json!({"yara_rule": rule})))]).unwrap();
}

#[test]
fn what_a_token_reply_says_is_secret_unless_it_is_known_to_be_harmless() {
    let reply = json!({
        "access_token": "NEWunkn0wn-1", "expires_in": 1799, "token_type": "bearer", "issued": "NEWunkn0wn-2",
        "session": {"key": ["NEWunkn0wn-3", 12_345_678]}, "scope": "malquery:read",
        "meta": {"query_time": 0.2, "powered_by": "csam", "trace_id": "6b1e2cd4-a6c1-4df0-98b3-7e0d4ad3c8f1"},
        "errors": [{"code": 200, "message": "NEWunkn0wn-2 again"}]
    });
    let text = record(&[(
        request("POST", "/oauth2/token", &[], ""),
        json_answer(201, &reply),
    )])
    .unwrap();
    assert!(
        !text.contains("NEWunkn0wn") && !text.contains("12345678"),
        "{text}"
    );
    for harmless in [
        "1799",
        "\"bearer\"",
        "malquery:read",
        "csam",
        "[token] again",
        "\"code\": 200",
    ] {
        assert!(text.contains(harmless), "{harmless}: {text}");
    }
    // a token alone
    let alone = (
        request("POST", "/oauth2/token", &[], ""),
        json_answer(201, &json!("NEWunkn0wn-1")),
    );
    assert!(!record(&[alone]).unwrap().contains("NEWunkn0wn"));
    // a page of a gateway is an error as any other, and a token that cannot be read is refused
    let token = |status, body: &'static str| {
        (
            request("POST", "/oauth2/token", &[], ""),
            answer(status, &[], body),
        )
    };
    record(&[token(502, "<html>no</html>"), token(200, "")]).unwrap();
    for body in [
        "NEWunkn0wn-1",
        "expires_in=1799&key=NEWunkn0wn-1",
        "{\"key\": \"NEWunkn0wn-1\"",
    ] {
        let error = record(&[token(201, body)]).unwrap_err();
        assert!(
            error.contains("Nothing was written") && !error.contains("NEWunkn0wn"),
            "{error}"
        );
    }
    // elsewhere unknown fields are what a test is about
    let reply = (
        get("/malquery/x"),
        json_answer(200, &json!({"issued": "unkn0wn-2"})),
    );
    assert!(record(&[reply]).unwrap().contains("unkn0wn-2"));
}

#[test]
fn a_secret_that_only_its_name_tells_is_refused_in_base64() {
    use base64::Engine;
    let text = [("content-type", "text/plain")];
    let inner = json!({"access_token": "NEWunkn0wnT0kenVALUE", "expires_in": 1799}).to_string();
    let encoded = base64::engine::general_purpose::STANDARD.encode(&inner);
    let lines: Vec<_> = encoded
        .as_bytes()
        .chunks(20)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    for encoded in [encoded.clone(), lines.join("\r\n"), lines.join("\n")] {
        for got in [
            json_answer(200, &json!({"note": format!("cached: {encoded}")})),
            json_answer(
                200,
                &json!({"note": format!("{encoded}{}", " filler".repeat(30_000))}),
            ),
            answer(200, &text, encoded),
        ] {
            let error = record(&[(get("/x"), got)]).unwrap_err();
            assert!(error.contains("Nothing was written"), "{error}");
        }
    }
    let harmless = json!({"note": base64::engine::general_purpose::STANDARD.encode("what is an access_token?")});
    record(&[(get("/x"), json_answer(200, &harmless))]).unwrap();
    // A known one is found in the lines of a large document.
    let known = (
        request("POST", "/oauth2/token", &[], ""),
        json_answer(201, &json!({"access_token": "kn0wn-t0ken/value"})),
    );
    let lines: Vec<String> = base64::engine::general_purpose::STANDARD
        .encode("and then kn0wn-t0ken/value was sent")
        .as_bytes()
        .chunks(8)
        .map(|line| String::from_utf8_lossy(line).into_owned())
        .collect();
    let large = json!({"a": "x".repeat(200_000), "note": lines.join("\r\n")});
    record(&[known, (get("/x"), json_answer(200, &large))]).unwrap_err();
}

#[test]
fn the_words_of_an_authorization_without_a_scheme_are_decoded() {
    use base64::Engine;

    let value = base64::engine::general_purpose::STANDARD.encode("the-id-0f-8:s3cret-of-8");
    for value in [value.clone(), format!("Custom {value}")] {
        let sent = request("GET", "/x", &[("authorization", &value)], "");
        let reply = json_answer(200, &json!({"note": "it was s3cret-of-8, of the-id-0f-8"}));
        let text = record(&[(sent, reply)]).unwrap();
        assert!(
            !text.contains("s3cret") && !text.contains("the-id"),
            "{text}"
        );
    }
}

#[test]
fn a_rule_against_thieves_of_tokens_is_recorded() {
    for rule in [
        r#"rule a { strings: $token = "access_token=" $b = "Authorization: Bearer " $c = "client_secret" condition: any of them }"#,
        r#"rule a { meta: cid = "malpedia" reference = "https://example.com/?token=" condition: true }"#,
        r#"rule a { strings: $a = "\"access_token\":\"" $b = "Bearer %s" $c = "token=%s&id=%s" condition: 2 of them }"#,
        r#"rule a { strings: $a = "TVqQAAMAAAAEAAAA//8AALgAAAAAAAAAQAAAAAAAAAAAAAAAAAA" $b = "password=" condition: $a }"#,
    ] {
        let pattern = json!({"patterns": [{"type": "ascii", "value": "access_token=abcdefgh"}], "yara_rule": rule});
        let sent = request(
            "POST",
            "/x",
            &[("content-type", "application/json")],
            pattern.to_string(),
        );
        let text = record(&[(
            sent,
            json_answer(200, &json!({"meta": {"yara_rule": rule}})),
        )])
        .unwrap();
        assert_eq!(text.matches("rule a {").count(), 2, "{text}");
        // Elsewhere such a text may be a token.
        record(&[(
            get("/x"),
            json_answer(200, &json!({"note": "access_token=abcdefgh"})),
        )])
        .unwrap_err();
    }
}

#[test]
fn a_secret_is_found_however_deep_it_lies_in_what_is_large() {
    let secret = "p4ss\"w\\rd of it";
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let pairs = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("client_secret", secret)
        .finish();
    let login = (
        request("POST", "/x", &form, pairs),
        json_answer(200, &json!({})),
    );
    let mut text = serde_json::to_string(&serde_json::to_string(secret).unwrap()).unwrap();
    for _ in 0..4 {
        text = serde_json::to_string(&text).unwrap();
        let large = json!({"a": "x".repeat(200_000), "b": text});
        let error = record(&[login.clone(), (get("/x"), json_answer(200, &large))]).unwrap_err();
        assert!(
            error.contains("the client_secret of this recording"),
            "{error}"
        );
    }
    let hex: String = secret.bytes().map(|byte| format!("{byte:02X}+")).collect();
    record(&[
        login,
        (get(&format!("/x?q={hex}")), json_answer(200, &json!({}))),
    ])
    .unwrap_err();
}

#[test]
fn what_is_compressed_is_refused_whether_it_says_so_or_not() {
    for magic in [b"\x1f\x8b\x08\0".as_slice(), b"\x28\xb5\x2f\xfd"] {
        for path in ["/x", "/malquery/entities/download-files/v1"] {
            let got = record(&[(get(path), answer(200, &[], magic))]);
            match path {
                "/x" => assert!(got.unwrap_err().contains("is compressed")),
                // A sample is whatever it is.
                _ => assert!(got.is_ok()),
            }
        }
        assert!(
            record(&[(
                request("POST", "/x", &[], magic),
                json_answer(200, &json!({}))
            )])
            .is_err()
        );
    }
}

#[test]
fn a_secret_of_several_parts_plays_again() {
    let (_folder, path) = folder();
    let sent = |secret: &str| {
        let body = json!({"access_token": [secret, {"a": secret, "b": null}], "c": 1});
        request(
            "POST",
            "/x",
            &[("content-type", "application/json")],
            body.to_string(),
        )
    };
    let (transport, guard) = begin(
        &path,
        Mode::Record,
        Service(|_: &Sent| Ok(json_answer(200, &json!({})))),
    );
    take(&transport, sent("s3cret-of-8")).unwrap();
    guard.finish();
    let (transport, guard) = begin(&path, Mode::Replay, nothing());
    take(&transport, sent("another-one")).unwrap();
    guard.finish();
    // Another shape is another request.
    let (transport, guard) = begin(&path, Mode::Replay, nothing());
    let other = r#"{"access_token": ["s", {"a": "s"}], "c": 1}"#;
    assert!(
        take(
            &transport,
            request("POST", "/x", &[("content-type", "application/json")], other)
        )
        .is_err()
    );
    assert!(guard.close().is_err());
}

#[test]
fn values_are_known_in_capitals_and_without_dashes() {
    let cid = "fedcba9876543210fedcba9876543210";
    let login = request(
        "POST",
        "/oauth2/token",
        &[("content-type", "application/x-www-form-urlencoded")],
        format!("member_cid={cid}-4F&client_secret=p4ss[token]w0rd"),
    );
    let upper = cid.to_uppercase();
    let flat = TRACE.replace('-', "");
    let message = format!(
        "Failed for customer ID={upper} ({cid}), trace {} or {flat}",
        TRACE.to_uppercase()
    );
    let headers = [
        ("content-type", "application/json"),
        ("x-cs-traceid", TRACE),
    ];
    let body =
        json!({"message": message, "cid": "abcd1234", "customer_id": "abcd1234", "by": "abcd1234"});
    let text = record(&[(login.clone(), answer(200, &headers, body.to_string()))]).unwrap();
    for leak in [cid, &upper, &flat, &TRACE.to_uppercase(), "abcd1234"] {
        assert!(!text.contains(leak), "{leak} in {text}");
    }
    // What is sent is not changed.
    for rule in [upper, "p4ss[token]w0rd".into()] {
        let body = json!({"yara_rule": rule}).to_string();
        let hunt = request("POST", "/x", &[("content-type", "application/json")], body);
        let ok = json_answer(200, &json!({}));
        record(&[(login.clone(), ok.clone()), (hunt, ok)]).unwrap_err();
    }
}

#[test]
fn a_location_is_cleaned_as_a_uri() {
    let new = "NEWunkn0wnT0kenVALUE";
    for (location, written) in [
        (
            format!("https://h/y?access_token={new}&b=1"),
            "https://h/y?access_token=[access_token]&b=1",
        ),
        (format!("https://user:{new}@h/y"), "https://h/y"),
        (format!("//{new}@h/y@z"), "//h/y@z"),
        (
            format!("y?a=b#access_token={new}"),
            "y?a=b#access_token=[access_token]",
        ),
        ("/y?a=%20+b#c".into(), "/y?a=%20+b#c"),
    ] {
        let headers = [
            ("location", location.as_str()),
            ("content-type", "text/plain"),
        ];
        let text = record(&[(get("/x"), answer(302, &headers, format!("see {new}")))]).unwrap();
        assert!(
            text.contains(&format!("[\"location\", \"{written}\"]")),
            "{text}"
        );
        assert!(!location.contains(new) || !text.contains(new), "{text}");
    }
}

#[test]
fn an_authorization_of_no_known_scheme_is_not_shown() {
    for (value, scheme) in [
        ("S3cretBareApiKey", "other [credentials]"),
        ("S3cretBareApiKey rest", "other [credentials]"),
        ("Bearer\tS3cretBareApiKey", "Bearer [access_token]"),
        ("Basic dXM6UzNjcmV0QmFyZUFwaUtleQ", "Basic [credentials]"),
    ] {
        let (_folder, path) = folder();
        let service = |_: &Sent| {
            Ok(answer(
                200,
                &[("content-type", "text/plain")],
                "for s3cretbareapikey, S3cretBareApiKey",
            ))
        };
        let sent = request("GET", "/x", &[("authorization", value)], "");
        let (transport, guard) = begin(&path, Mode::Record, Service(service));
        take(&transport, sent.clone()).unwrap();
        guard.finish();
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            !text.to_lowercase().contains("s3cret") && text.contains(scheme),
            "{text}"
        );
        let (transport, guard) = begin(&path, Mode::Replay, nothing());
        let error = transport
            .send(request("GET", "/y", &[("authorization", value)], ""))
            .unwrap_err();
        assert!(!error.to_string().contains("S3cret"), "{error}");
        assert!(guard.close().is_err());
        let (transport, guard) = begin(&path, Mode::Replay, nothing());
        take(&transport, sent).unwrap();
        guard.finish();
    }
}

#[test]
fn a_secret_in_a_pattern_is_found() {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    let secret = "p4ss+w/o=r&d%<\"'x";
    let form: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let login = request(
        "POST",
        "/oauth2/token",
        &[("content-type", "application/x-www-form-urlencoded")],
        format!("client_secret={form}"),
    );
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let spaced: String = secret.bytes().map(|byte| format!("{byte:02X} ")).collect();
    let escaped: String = secret
        .bytes()
        .map(|byte| format!("\\x{byte:02x}"))
        .collect();
    let wide: Vec<u8> = secret.bytes().flat_map(|byte| [byte, 0]).collect();
    for body in [
        json!({"options": {}, "patterns": [{"type": "hex", "value": hex}]}),
        json!({"yara_rule": format!("rule a {{\n strings:\n $a = {{ {spaced}}}\n condition: $a }}")}),
        json!({"yara_rule": format!("rule a {{ strings: $a = \"{escaped}\" condition: $a }}")}),
        json!({"patterns": [{"type": "wide", "value": STANDARD.encode(&wide)}]}),
        json!({"note": "<p>p4ss+w/o=r&amp;d%&lt;&quot;&#39;x</p>"}),
    ] {
        let hunt = request(
            "POST",
            "/x",
            &[("content-type", "application/json")],
            body.to_string(),
        );
        let ok = json_answer(200, &json!({}));
        let error =
            record(&[(login.clone(), ok.clone()), (hunt, ok)]).expect_err(&body.to_string());
        assert!(error.contains("client_secret"), "{error}");
    }
}

#[test]
fn what_headers_and_urls_carry_is_a_secret_elsewhere_too() {
    let text = |text: &str| answer(200, &[("content-type", "text/plain")], text);
    let mut sensitive = get("/x");
    sensitive
        .headers_mut()
        .insert("x-api-key", "the-k3y-of-the-proxy".parse().unwrap());
    sensitive
        .headers_mut()
        .get_mut("x-api-key")
        .unwrap()
        .set_sensitive(true);
    let with = |name, value| request("GET", "/x", &[(name, value)], "");
    let set_cookie = answer(
        200,
        &[("set-cookie", "sid=the-c00kie; path=/")],
        "the-c00kie",
    );
    for (request, response, secret) in [
        (
            sensitive,
            text("for the-k3y-of-the-proxy"),
            "the-k3y-of-the-proxy",
        ),
        (
            with("cookie", "a=b; sid=the-c00kie"),
            text("for the-c00kie"),
            "the-c00kie",
        ),
        (
            with("authorization", "Bearer a-t0ken-from-elsewhere"),
            text("for a-t0ken-from-elsewhere"),
            "a-t0ken-from-elsewhere",
        ),
        (
            with("authorization", "Token a-t0ken-from-elsewhere"),
            text("for a-t0ken-from-elsewhere"),
            "a-t0ken-from-elsewhere",
        ),
        (
            with("authorization", "Basic dXNlcjpwNHNzdzByZA=="),
            text("for p4ssw0rd"),
            "p4ssw0rd",
        ),
        (
            get("http://user:p4ssw0rd@host/x"),
            text("for p4ssw0rd"),
            "p4ssw0rd",
        ),
        (get("/x"), set_cookie, "the-c00kie"),
    ] {
        let text = record(&[(request.clone(), response.clone())]).unwrap();
        assert!(!text.contains(secret), "{text}");
        assert!(!text.contains("user"), "{text}");
        // What is sent is not changed, so there it is refused.
        let mut again = request;
        *again.body_mut() = secret.as_bytes().to_vec();
        record(&[(again, response)]).unwrap_err();
    }
}

#[test]
fn what_is_appended_to_is_searched_and_its_pseudonyms_are_not_given_again() {
    let job = |path: &'static str, id: &'static str| {
        let reply = json!({"meta": {"reqid": id}});
        (request("POST", path, &[], ""), json_answer(200, &reply))
    };
    let (folder, path) = folder();
    let run = |mode, (request, response): (Sent, Got)| {
        let (transport, guard) = begin(&path, mode, Service(|_: &Sent| Ok(response.clone())));
        take(&transport, request).unwrap();
        guard.close().map_err(|error| error.to_string())
    };
    run(
        Mode::Record,
        job("/a", "11112222-3333-6ea1-8b4e-5d1f0c7a9e33"),
    )
    .unwrap();
    run(
        Mode::Append,
        job("/b", "44445555-6666-6ea1-8b4e-5d1f0c7a9e33"),
    )
    .unwrap();
    let text = fs::read_to_string(&path).unwrap();
    for number in ["000000000001", "000000000002"] {
        assert_eq!(text.matches(number).count(), 1, "{text}");
    }

    let login = |secret: &str| {
        let form = [("content-type", "application/x-www-form-urlencoded")];
        (
            request("POST", "/login", &form, format!("client_secret={secret}")),
            answer(200, &[], ""),
        )
    };
    // It came by hand into the cassette, or into a file beside it.
    fs::write(
        &path,
        text.replacen("\"uri\": \"/a\"", "\"uri\": \"/s3cret-by-hand\"", 1),
    )
    .unwrap();
    let error = run(Mode::Append, login("s3cret-by-hand")).unwrap_err();
    assert!(
        error.contains("in \"a\" there would be a secret"),
        "{error}"
    );
    let large = answer(
        200,
        &[],
        [vec![0; 100_000], b"s3cret-in-a-file".into()].concat(),
    );
    run(Mode::Record, (get("/x"), large)).unwrap();
    let error = run(Mode::Append, login("s3cret-in-a-file")).unwrap_err();
    assert!(error.contains("in \"test.json.bodies/x-"), "{error}");
    assert_eq!(names(folder.path()), ["test.json", "test.json.bodies"]);
}

#[test]
fn sixteen_threads_lose_nothing() {
    let (_folder, path) = folder();
    let service = Service(|request: &Sent| {
        let body = json!({"path": request.uri().path(), "meta": {"trace_id": TRACE}});
        Ok(json_answer(200, &body))
    });
    let (transport, guard) = begin(&path, Mode::Record, &service);
    let run = |transport: &(dyn Fn(Sent) -> Vec<u8> + Sync)| {
        std::thread::scope(|scope| {
            for thread in 0..16 {
                scope.spawn(move || {
                    for call in 0..25 {
                        let uri = format!("/thread-{thread}/call-{}", call / 5);
                        let body: Value = serde_json::from_slice(&transport(get(&uri))).unwrap();
                        assert_eq!(body["path"], uri);
                    }
                });
            }
        });
    };
    run(&|request| take(&transport, request).unwrap().1);
    guard.finish();
    let text: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let times = |interaction: &Value| interaction["times"].as_u64().unwrap_or(1);
    assert_eq!(
        text["interactions"]
            .as_array()
            .unwrap()
            .iter()
            .map(times)
            .sum::<u64>(),
        400
    );
    let (transport, guard) = begin(&path, Mode::Replay, &service);
    run(&|request| take(&transport, request).unwrap().1);
    guard.finish();
}

// Bodies and faults.

#[test]
fn bodies_that_are_not_read_to_their_end_play_the_same() {
    let (_folder, path) = folder();
    let replies = [
        reply::bytes(200, "application/zip", "0123456789").header("content-length", "10"),
        reply::bytes(200, "application/zip", "0123456789"),
        reply::bytes(200, "text/plain", "0123456789").truncate_after(4),
        reply::status(204).header("content-length", "0"),
        reply::bytes(200, "application/json", "{\"a\":1}"),
        reply::fault(Fault::Dns),
        reply::fault(Fault::Reset),
    ];
    let read = |transport: &dyn Fn(&str) -> Option<Box<dyn Read>>| -> Vec<String> {
        let most = |uri: &str, most: usize| {
            let mut body = transport(uri)?;
            let mut bytes = vec![0; most];
            body.read_exact(&mut bytes).ok()?;
            String::from_utf8(bytes).ok()
        };
        let whole = |uri: &str| {
            let mut text = String::new();
            let end = transport(uri)?
                .read_to_string(&mut text)
                .map_err(|error| error.kind());
            Some(format!("{text} {end:?}"))
        };
        [
            most("/a", 10),
            most("/b", 4),
            whole("/c"),
            most("/d", 0),
            most("/e", 7),
            whole("/f"),
            whole("/g"),
        ]
        .map(Option::unwrap_or_default)
        .into()
    };
    let (transport, guard) = begin(&path, Mode::Record, script(replies).transport());
    let boxed = |response: Response<_>| Box::new(response.into_body()) as Box<dyn Read>;
    let recorded = read(&|uri| transport.send(get(uri)).ok().map(boxed));
    guard.finish();
    let (transport, guard) = begin(&path, Mode::Replay, nothing());
    let boxed = |response: Response<_>| Box::new(response.into_body()) as Box<dyn Read>;
    let played = read(&|uri| transport.send(get(uri)).ok().map(boxed));
    guard.finish();
    assert_eq!(recorded, played);
    assert_eq!(played[2], "0123 Err(UnexpectedEof)");
    let text = fs::read_to_string(&path).unwrap();
    let count = |what: &str| text.matches(what).count();
    assert_eq!(
        (
            count("truncate_after"),
            count("\"dns\""),
            count("\"reset\"")
        ),
        (2, 1, 1),
        "{text}"
    );
}

#[test]
fn what_no_cassette_can_play_is_not_left_out_in_silence() {
    let (folder, path) = folder();
    let service = Service(|_: &Sent| Err(Down(SendFailure::CannotSend)));
    let (transport, guard) = begin(&path, Mode::Record, service);
    take(&transport, get("/x")).unwrap_err();
    let error = guard.close().unwrap_err().to_string();
    assert!(
        error.contains("\"x\" failed in a way that a cassette cannot play: the service is down"),
        "{error}"
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    for failure in [SendFailure::NotSent, SendFailure::Unknown] {
        let (transport, guard) = begin(
            &path,
            Mode::Record,
            Service(move |_: &Sent| Err(Down(failure))),
        );
        take(&transport, get("/x")).unwrap_err();
        guard.finish();
        let (transport, guard) = begin(&path, Mode::Replay, nothing());
        assert_eq!(take(&transport, get("/x")), Err(failure));
        guard.finish();
    }
}

#[test]
fn what_broke_behind_whole_json_breaks_again() {
    let (_folder, path) = folder();
    let reply = reply::bytes(200, "application/json", "{ \"a\": 1}  and more").truncate_after(11);
    let (transport, guard) = begin(&path, Mode::Record, script([reply]).transport());
    assert!(take(&transport, get("/x")).unwrap().2);
    guard.finish();
    let (transport, guard) = begin(&path, Mode::Replay, nothing());
    let (_, body, broken) = take(&transport, get("/x")).unwrap();
    assert_eq!((body.as_slice(), broken), (b"{\"a\":1}".as_slice(), true));
    guard.finish();
}

#[test]
fn a_time_to_retry_is_kept_as_a_duration() {
    let headers = [
        ("x-ratelimit-retryafter", "1767225610"),
        ("date", "Thu, 01 Jan 2026 00:00:00 GMT"),
    ];
    let text = record(&[(get("/x"), answer(429, &headers, ""))]).unwrap();
    assert!(
        text.contains(r#"["retry-after", "10"]"#) && !text.contains("1767225610"),
        "{text}"
    );
    let text = record(&[(get("/x"), answer(429, &[("retry-after", "7")], ""))]).unwrap();
    assert!(text.contains(r#"["retry-after", "7"]"#), "{text}");
}

#[test]
fn appending_knows_the_credentials_of_tokens_it_does_not_write() {
    let secret = "S3cretS3cretS3cretS3cretS3cretS3cretS3cr";
    let login = request(
        "POST",
        "/oauth2/token",
        &[("content-type", "application/x-www-form-urlencoded")],
        format!("client_id=an-id-of-8&client_secret={secret}"),
    );
    let service = |_: &Sent| {
        let message = format!("an-id-of-8 with {secret} and a-l1ve-t0ken");
        Ok(json_answer(
            201,
            &json!({"access_token": "a-l1ve-t0ken", "message": message}),
        ))
    };
    for with_token in [true, false] {
        let (_folder, path) = folder();
        let run = |mode, requests: &[Sent]| {
            let (transport, guard) = begin(&path, mode, Service(service));
            for request in requests {
                take(&transport, request.clone()).unwrap();
            }
            guard.close().map_err(|error| error.to_string())
        };
        let first = if with_token {
            vec![login.clone(), get("/a")]
        } else {
            vec![get("/a")]
        };
        // Without a login it is not known what the first reply names.
        let hidden = |_: &Sent| Ok(answer(200, &[], "x"));
        if with_token {
            run(Mode::Record, &first).unwrap();
        } else {
            let (transport, guard) = begin(&path, Mode::Record, Service(hidden));
            take(&transport, get("/a")).unwrap();
            guard.finish();
        }
        run(Mode::Append, &[login.clone(), get("/b")]).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(
            text.matches("/oauth2/token").count(),
            usize::from(with_token),
            "{text}"
        );
        assert!(text.contains("\"/b\""), "{text}");
        for leak in [secret, "an-id-of-8", "a-l1ve-t0ken"] {
            assert!(!text.contains(leak), "{leak} in {text}");
        }
        let rule = request("POST", "/c", &[], secret);
        assert!(
            run(Mode::Append, &[login.clone(), rule])
                .unwrap_err()
                .contains("client_secret")
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}

// Files.

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn large_bodies_lie_beside_and_old_ones_go() {
    let (folder, path) = folder();
    let run = |fill: u8, size: usize| {
        let body = vec![fill; size];
        let service = Service(|_: &Sent| Ok(answer(200, &[], body.clone())));
        let (transport, guard) = begin(&path, Mode::Record, service);
        take(
            &transport,
            get("/malquery/entities/samples-fetch/v1?ids=a-job"),
        )
        .unwrap();
        guard.finish();
        let (transport, guard) = begin(&path, Mode::Replay, nothing());
        assert_eq!(
            take(
                &transport,
                get("/malquery/entities/samples-fetch/v1?ids=a-job")
            )
            .unwrap()
            .1,
            body
        );
        guard.finish();
    };
    run(0, 65_536);
    assert_eq!(names(folder.path()), ["test.json"]);
    run(0, 65_537);
    let beside = folder.path().join("test.json.bodies");
    let first = names(&beside);
    let both = vec!["test.json".to_owned(), "test.json.bodies".into()];
    assert_eq!((names(folder.path()), first.len()), (both, 1));
    assert!(
        first[0].starts_with("samples-fetch-") && first[0].ends_with(".bin"),
        "{first:?}"
    );
    fs::write(beside.join("of-the-user"), "").unwrap();
    run(1, 70_000);
    let second = names(&beside);
    assert!(
        second.len() == 2 && second[0] == "of-the-user" && second[1] != first[0],
        "{second:?}"
    );
    fs::remove_file(beside.join("of-the-user")).unwrap();
    run(1, 1);
    assert_eq!(names(folder.path()), ["test.json"]);
}

#[test]
fn cassettes_that_differ_in_their_extension_keep_their_own_bodies() {
    let (folder, path) = folder();
    let other = folder.path().join("test.cassette");
    let run = |path: &Path, mode, fill: u8| {
        let service = Service(|_: &Sent| Ok(answer(200, &[], vec![fill; 70_000])));
        let (transport, guard) = begin(path, mode, service);
        assert_eq!(take(&transport, get("/x")).unwrap().1, vec![fill; 70_000]);
        guard.finish();
    };
    run(&path, Mode::Record, 1);
    run(&other, Mode::Record, 2);
    run(&other, Mode::Record, 3);
    run(&path, Mode::Replay, 1);
    run(&other, Mode::Replay, 3);
}

#[test]
fn what_is_sent_when_the_guard_has_ended_is_refused_and_not_lost_in_silence() {
    let (_folder, path) = folder();
    let sent = Mutex::new(0);
    let service = |_: &Sent| {
        *sent.lock().unwrap() += 1;
        Ok(answer(200, &[], "x"))
    };
    for mode in [Mode::Record, Mode::Append] {
        // The guard ends at once.
        let (transport, _) = begin(&path, mode, Service(service));
        let error = transport.send(get("/x")).map(drop).unwrap_err();
        assert_eq!(error.failure(), SendFailure::CannotSend);
        let error = std::error::Error::source(&error).unwrap();
        assert!(
            error
                .to_string()
                .starts_with("the session has ended, so the request was not sent"),
            "{error}"
        );
    }
    assert_eq!((*sent.lock().unwrap(), path.exists()), (0, false));
    // A body that is read later is not missed, and does no harm.
    let (transport, guard) = begin(&path, Mode::Record, Service(service));
    let body = transport.clone().send(get("/x")).unwrap().into_body();
    guard.finish();
    assert_eq!(io::read_to_string(body).unwrap(), "x");
    assert!(
        fs::read_to_string(&path)
            .unwrap()
            .contains("truncate_after")
    );
}

#[test]
fn nothing_is_written_without_need_or_while_panicking() {
    let (folder, path) = folder();
    let service = |_: &Sent| Ok(json_answer(200, &json!({"a": 1})));
    let run = || {
        let (transport, guard) = begin(&path, Mode::Record, Service(service));
        take(&transport, get("/x")).unwrap();
        guard.finish();
    };
    run();
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(old)
        .unwrap();
    run();
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), old);
    // A session in which nothing is sent records nothing.
    begin(&path, Mode::Record, Service(service)).1.finish();
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), old);
    catch_unwind(AssertUnwindSafe(|| {
        let (transport, _guard) = begin(&path, Mode::Record, Service(service));
        take(&transport, get("/another")).unwrap();
        panic!("as a failed test does");
    }))
    .unwrap_err();
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), old);
    assert_eq!(names(folder.path()), ["test.json"]);

    // What cannot be written is told, and the folder is made where there is none.
    let deep = folder.path().join("a/b/test.json");
    let (transport, guard) = begin(&deep, Mode::Record, Service(service));
    take(&transport, get("/x")).unwrap();
    guard.finish();
    assert!(deep.exists());
    for unwritable in [path.join("test.json"), folder.path().join("a")] {
        let error = Session::new(unwritable)
            .mode(Mode::Record)
            .transport(nothing)
            .unwrap_err();
        assert!(
            error.to_string().contains(" cannot be written: "),
            "{error}"
        );
    }
}

#[test]
fn saving_a_cassette_again_changes_nothing() {
    let (_folder, path) = folder();
    let polls = Arc::new(Mutex::new(0));
    let record = |mode| {
        let (client, guard) = Session::new(&path)
            .mode(mode)
            .client(|| {
                (
                    Service(job_service(polls.clone())),
                    VirtualClock::new(),
                    auth(),
                )
            })
            .unwrap();
        hunt(&client).unwrap();
        guard.finish();
    };
    record(Mode::Record);
    let text = fs::read_to_string(&path).unwrap();
    *polls.lock().unwrap() = 0;
    record(Mode::Record);
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    // All is answered, but for the token.
    record(Mode::Append);
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    // Something new comes behind; the rest stays to the letter.
    let (transport, guard) = begin(
        &path,
        Mode::Append,
        Service(|_: &Sent| Ok(answer(200, &[], "new"))),
    );
    take(&transport, get("/new")).unwrap();
    guard.finish();
    let longer = fs::read_to_string(&path).unwrap();
    assert!(
        longer.starts_with(text.trim_end_matches("\n  ]\n}\n")) && longer.contains("/new"),
        "{longer}"
    );
}

#[test]
fn what_is_appended_changes_no_line_of_what_is_there() {
    // Found by random exchanges: one that is short stood on one line with all the rest.
    let (_folder, path) = folder();
    let mut before = String::new();
    for uri in ["/a", "/b", "/c"] {
        let (transport, guard) = begin(
            &path,
            Mode::Append,
            Service(|_: &Sent| Ok(answer(200, &[], ""))),
        );
        take(&transport, get(uri)).unwrap();
        guard.finish();
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with(before.trim_end_matches("\n  ]\n}\n")),
            "{before}\n{text}"
        );
        before = text;
    }
}

#[test]
fn what_another_session_appended_is_not_lost() {
    for exists in [true, false] {
        let (_folder, path) = folder();
        let begin = |mode| begin(&path, mode, Service(|_: &Sent| Ok(answer(200, &[], "x"))));
        if exists {
            let (transport, guard) = begin(Mode::Record);
            take(&transport, get("/zero")).unwrap();
            guard.finish();
        }
        let ((one, first), (two, second)) = (begin(Mode::Append), begin(Mode::Append));
        take(&one, get("/one")).unwrap();
        take(&two, get("/two")).unwrap();
        first.finish();
        let error = second.close().unwrap_err().to_string();
        assert!(
            error.contains("another session has written it since"),
            "{error}"
        );
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.contains("\"/one\"") && !text.contains("\"/two\""),
            "{text}"
        );
    }
}

#[test]
fn of_many_that_append_in_the_same_instant_one_does_and_the_others_are_told() {
    let (_folder, path) = folder();
    let barrier = std::sync::Barrier::new(8);
    let append = &|number: usize| {
        let (transport, guard) = begin(
            &path,
            Mode::Append,
            Service(|_: &Sent| Ok(answer(200, &[], "x"))),
        );
        take(&transport, get(&format!("/number-{number}"))).unwrap();
        barrier.wait();
        guard
            .close()
            .map(|()| number)
            .map_err(|error| error.to_string())
    };
    let results = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|number| scope.spawn(move || append(number)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect::<Vec<_>>()
    });
    let (done, told): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!((done.len(), told.len()), (1, 7), "{told:?}");
    assert!(told.iter().all(|error| {
        error
            .as_ref()
            .unwrap_err()
            .contains("another session has written it since")
    }));
    let text = fs::read_to_string(&path).unwrap();
    assert!(
        text.contains(&format!("/number-{}", done[0].as_ref().unwrap())),
        "{text}"
    );
}

// Modes.

#[test]
fn a_session_without_its_cassette_says_how_to_get_one() {
    let (_folder, path) = folder();
    for mode in [Mode::Replay, Mode::Verify] {
        let error = Session::new(&path)
            .mode(mode)
            .transport(nothing)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("test.json: the file could not be read"),
            "{error}"
        );
        assert!(
            error.ends_with("to record it, run this with MALQUERY_MOCK=record"),
            "{error}"
        );
    }
    let (transport, guard) = begin(
        &path,
        Mode::Append,
        Service(|_: &Sent| Ok(answer(200, &[], "x"))),
    );
    take(&transport, get("/x")).unwrap();
    guard.finish();
    assert!(Cassette::load(&path).is_ok());
    fs::write(&path, "{").unwrap();
    let error = Session::new(&path)
        .mode(Mode::Append)
        .transport(nothing)
        .unwrap_err()
        .to_string();
    assert!(error.contains("test.json:1:"), "{error}");
}

#[test]
fn a_replay_is_strict_and_names_the_line_of_the_test() {
    let (_folder, path) = folder();
    let (transport, guard) = begin(
        &path,
        Mode::Record,
        Service(|_: &Sent| Ok(answer(200, &[], "x"))),
    );
    take(&transport, get("/x")).unwrap();
    guard.finish();
    let session = Session::new(&path).mode(Mode::Replay);
    let here = line!() + 1;
    let (transport, guard) = session.transport(nothing).unwrap();
    take(&transport, get("/y")).unwrap_err();
    let error = guard.close().unwrap_err().to_string();
    assert!(error.contains(&format!("record.rs:{here}:")), "{error}");
    assert!(
        error.contains("GET /y") && error.contains("\"x\" (line 6): not played yet"),
        "{error}"
    );

    // A guard that is finished panics there, and one that is dropped where that is.
    let (transport, guard) = begin(&path, Mode::Replay, nothing());
    assert_eq!(
        format!("{:?}", transport.send(get("/x")).unwrap().into_body()),
        "Body"
    );
    guard.finish();
    let (_, guard) = begin(&path, Mode::Replay, nothing());
    let former: Arc<dyn Fn(&PanicHookInfo<'_>) + Send + Sync> = std::panic::take_hook().into();
    let (place, this) = (Arc::new(Mutex::new(None)), std::thread::current().id());
    let (noted, passed) = (place.clone(), former.clone());
    // Other tests panic meanwhile, in threads of their own.
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().id() == this {
            *noted.lock().unwrap() = info.location().map(|place| place.line());
        } else {
            passed(info);
        }
    }));
    let line = line!() + 1;
    catch_unwind(AssertUnwindSafe(|| guard.finish())).unwrap_err();
    std::panic::set_hook(Box::new(move |info| former(info)));
    assert_eq!(*place.lock().unwrap(), Some(line));
}

#[test]
fn a_service_that_drifts_is_told() {
    let (_folder, path) = folder();
    let recorded = |request: &Sent| {
        Ok(match request.uri().path() {
            "/oauth2/token" => json_answer(201, &json!({"access_token": "t0ken-t0ken"})),
            "/malquery/queries/hunt/v1" => {
                json_answer(200, &json!({"meta": {"reqid": JOB}, "resources": []}))
            }
            "/malquery/entities/requests/v1" => json_answer(
                200,
                &json!({"meta": {"status": "done", "options": null}, "resources": [{"sha256": "a", "md5": "b", "filesize": 1}, {"sha256": "b", "md5": "c"}]}),
            ),
            _ => answer(404, &[], "none"),
        })
    };
    let run = |mode, service: Answers<'_>, more: bool| {
        let (transport, guard) = begin(&path, mode, Service(service));
        let token = request(
            "POST",
            "/oauth2/token",
            &[("content-type", "application/x-www-form-urlencoded")],
            "client_id=1234567",
        );
        take(&transport, token).unwrap();
        let rule = request(
            "POST",
            "/malquery/queries/hunt/v1",
            &[("content-type", "application/json")],
            "{\"yara_rule\":\"\"}",
        );
        let body: Value = serde_json::from_slice(&take(&transport, rule).unwrap().1).unwrap();
        let id = body["meta"]["reqid"].as_str().unwrap();
        take(
            &transport,
            get(&format!("/malquery/entities/requests/v1?ids={id}")),
        )
        .unwrap();
        take(&transport, get("/other")).unwrap();
        if more {
            take(&transport, get("/unheard-of?token=abcdefgh")).unwrap();
        }
        guard.close().map_err(|error| {
            error
                .to_string()
                .replace(&path.display().to_string(), "test.json")
        })
    };
    run(Mode::Record, &recorded, false).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    run(Mode::Verify, &recorded, false).unwrap();
    run(Mode::Passthrough, &recorded, true).unwrap();
    let drifted = |request: &Sent| {
        Ok(match request.uri().path() {
            "/malquery/queries/hunt/v1" => json_answer(
                200,
                &json!({"meta": {"reqid": "another-job-1"}, "resources": [], "errors": []}),
            ),
            "/malquery/entities/requests/v1" => {
                assert_eq!(request.uri().query(), Some("ids=another-job-1"));
                json_answer(
                    200,
                    &json!({"meta": {"options": {}}, "resources": [{"sha256": 1, "sha1": "c"}]}),
                )
            }
            "/other" => answer(410, &[], "gone"),
            _ => return recorded(request),
        })
    };
    let error = run(Mode::Verify, &drifted, true).unwrap_err();
    let begin = error.find(" (the session").unwrap();
    let end = error.find("):\n").unwrap();
    insta::assert_snapshot!(format!("{}{}", &error[..begin], &error[end + 1..]));
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn a_comparison_that_compares_nothing_is_told() {
    let (_folder, path) = folder();
    let text = |_: &Sent| Ok(answer(200, &[("content-type", "text/plain")], "words"));
    let document = |_: &Sent| Ok(json_answer(200, &json!({"a": 1})));
    let run = |mode, service: Answers<'_>, send: bool| {
        let (transport, guard) = begin(&path, mode, Service(service));
        if send {
            take(&transport, get("/x")).unwrap();
        }
        guard.close().map_err(|error| error.to_string())
    };
    for (recorded, live, drift) in [
        (
            &text as Answers<'_>,
            &document as Answers<'_>,
            "\"x\" (line 6): no JSON in the cassette, JSON live",
        ),
        (
            &document,
            &text,
            "\"x\" (line 6): JSON in the cassette, none live",
        ),
    ] {
        run(Mode::Record, recorded, true).unwrap();
        run(Mode::Verify, recorded, true).unwrap();
        let error = run(Mode::Verify, live, true).unwrap_err();
        assert!(error.contains(drift), "{error}");
        let error = run(Mode::Verify, recorded, false).unwrap_err();
        assert!(
            error.contains("nothing was sent, so nothing could be compared"),
            "{error}"
        );
    }
}

#[test]
fn a_comparison_knows_the_jobs_of_a_request_for_several() {
    for ids in ["ids={a}&ids={b}", "ids={a},{b}", "ids={a}%2C{b}"] {
        let (_folder, path) = folder();
        for (mode, first) in [
            (Mode::Record, '1'),
            (Mode::Replay, '1'),
            (Mode::Verify, '3'),
        ] {
            let jobs = Mutex::new(0);
            let service = Service(|request: &Sent| {
                Ok(match request.uri().path() {
                    "/malquery/queries/hunt/v1" => {
                        *jobs.lock().unwrap() += 1;
                        let id = format!(
                            "{first}1111111-2222-6ea1-5f4f-a0000000000{}",
                            jobs.lock().unwrap()
                        );
                        json_answer(200, &json!({"meta": {"reqid": id}}))
                    }
                    _ => json_answer(200, &json!({"meta": {"status": "done"}})),
                })
            });
            let (transport, guard) = begin(&path, mode, service);
            let [a, b] =
                ["a", "b"].map(|rule| reqid(&take(&transport, submission(rule)).unwrap().1));
            let ids = ids.replace("{a}", &a).replace("{b}", &b);
            take(
                &transport,
                get(&format!("/malquery/entities/requests/v1?{ids}")),
            )
            .unwrap();
            guard
                .close()
                .unwrap_or_else(|error| panic!("{ids}: {error}"));
        }
    }
}

#[test]
fn a_comparison_of_what_only_gets_a_token_and_gives_it_back_is_one() {
    let (_folder, path) = folder();
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let token = || {
        request(
            "POST",
            "/oauth2/token",
            &form,
            "client_secret=a-secret-0123456",
        )
    };
    let revoke = || request("POST", "/oauth2/revoke", &form, "token=abcdefgh-1234");
    let run = |mode, requests: &[Sent]| {
        let (transport, guard) = begin(
            &path,
            mode,
            Service(|_: &Sent| Ok(json_answer(200, &json!({})))),
        );
        for request in requests {
            take(&transport, request.clone()).unwrap();
        }
        guard.close().map_err(|error| error.to_string())
    };
    for mode in [Mode::Record, Mode::Replay, Mode::Verify] {
        run(mode, &[token(), revoke()]).unwrap();
    }
    // Of what does more it compares nothing.
    run(Mode::Record, &[token(), get("/x"), revoke()]).unwrap();
    let error = run(Mode::Verify, &[token(), revoke()]).unwrap_err();
    assert!(error.contains("nothing was sent"), "{error}");
}

// Any exchange.

#[derive(Debug, Clone)]
struct Case {
    request: (String, String, Option<String>, Vec<u8>),
    reply: (u16, Option<String>, Vec<u8>),
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{1,6}|[^a-z]{0,3}", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn any_body() -> impl Strategy<Value = (Option<String>, Vec<u8>)> {
    prop_oneof![
        Just((None, Vec::new())),
        any_json().prop_map(|json| (
            Some("application/json".into()),
            json.to_string().into_bytes()
        )),
        prop::collection::vec((any::<String>(), any::<String>()), 1..4).prop_map(|pairs| {
            let form = url::form_urlencoded::Serializer::new(String::new())
                .extend_pairs(pairs)
                .finish();
            (
                Some("application/x-www-form-urlencoded".into()),
                form.into_bytes(),
            )
        }),
        any::<String>()
            .prop_map(|text| (Some("text/plain; charset=utf-8".into()), text.into_bytes())),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(|bytes| (None, bytes)),
        (65_000..66_000usize, any::<u8>())
            .prop_map(|(size, byte)| (Some("application/zip".into()), vec![byte; size])),
    ]
}

fn any_case() -> impl Strategy<Value = Case> {
    let query = prop::collection::vec(("[a-z]{1,4}", any::<String>()), 0..3);
    let path = prop_oneof![
        "/malquery/[a-z]{1,5}/v1",
        "/[a-z0-9/._%-]{0,10}".prop_filter("escapes", |p| !p.contains('%'))
    ];
    (
        prop_oneof![Just("GET"), Just("POST")],
        path,
        query,
        any_body(),
        200..600u16,
        any_body(),
    )
        .prop_map(|(method, path, query, sent, status, got)| {
            let query = url::form_urlencoded::Serializer::new(String::new())
                .extend_pairs(query)
                .finish();
            let uri = if query.is_empty() {
                path
            } else {
                format!("{path}?{query}")
            };
            Case {
                request: (method.into(), uri, sent.0, sent.1),
                reply: (status, got.0, got.1),
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(50) })]

    #[test]
    fn what_is_recorded_plays_the_same(cases in prop::collection::vec(any_case(), 1..6)) {
        let (_folder, path) = folder();
        let requests: Vec<_> = cases
            .iter()
            .map(|Case { request: (method, uri, media, body), .. }| {
                let headers: Vec<_> = media.iter().map(|media| ("content-type", media.as_str())).collect();
                request(method, uri, &headers, body.clone())
            })
            .collect();
        let count = Mutex::new(0);
        let service = Service(|_: &Sent| {
            let mut index = count.lock().unwrap();
            let (status, media, body) = &cases[*index].reply;
            *index += 1;
            let headers: Vec<_> = media.iter().map(|media| ("content-type", media.as_str())).collect();
            Ok(answer(*status, &headers, body.clone()))
        });
        let (transport, guard) = begin(&path, Mode::Record, service);
        let recorded: Vec<_> = requests.iter().map(|request| take(&transport, request.clone()).unwrap()).collect();
        guard.close().unwrap();
        let text = fs::read_to_string(&path).unwrap();

        let (transport, guard) = begin(&path, Mode::Replay, nothing());
        for (request, (status, body, _)) in requests.iter().zip(&recorded) {
            let (played, bytes, broken) = take(&transport, request.clone()).unwrap();
            prop_assert_eq!((played, broken), (*status, false));
            if bytes != *body {
                // Only JSON may be written in another way.
                let parse = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
                prop_assert_eq!(parse(&bytes), parse(body));
            }
        }
        guard.close().unwrap();

        // The layout depends on nothing but what is in it.
        let service = Service(|_: &Sent| Ok(answer(200, &[], "new")));
        let (transport, guard) = begin(&path, Mode::Append, service);
        take(&transport, get("/quite/another/one")).unwrap();
        guard.close().unwrap();
        let longer = fs::read_to_string(&path).unwrap();
        prop_assert!(longer.starts_with(text.trim_end_matches("\n  ]\n}\n")), "{}\n{}", text, longer);
    }
}
