//! What attacks on the recorder found: each was a secret in a file, a recording lost or a replay that failed.

mod recorder;

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use malquery_mock::{Mode, Session, Transcript};
use malquery_proto::flow::Auth;
use malquery_proto::{Body, Clock, Cloud, Credentials, Timestamp, Transport, TransportError};
use serde_json::json;

use recorder::{
    Got, Sent, Service, answer, begin, folder, get, json_answer, nothing, record, request, take,
};

/// A secret that the recorder has not met.
const NEW: &str = "NEWunkn0wnT0kenVALUE";
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

fn js(text: impl Into<Vec<u8>>) -> Got {
    answer(200, &[("content-type", "application/json")], text)
}

fn text(text: impl Into<Vec<u8>>) -> Got {
    answer(200, &[("content-type", "text/plain")], text)
}

fn login(secret: &str) -> (Sent, Got) {
    let form = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("client_secret", secret)
        .finish();
    (
        request("POST", "/oauth2/token", &[FORM], form),
        json_answer(200, &json!({})),
    )
}

fn b64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// Nothing was written, or nothing of the secret.
fn assert_clean(sent: Sent, got: Got) {
    let what = format!("{sent:?} {got:?}");
    if let Ok(text) = record(&[(sent, got)]) {
        assert!(!text.contains(NEW), "{what}: {text}");
    }
}

#[test]
fn a_body_that_cannot_be_read_and_names_a_secret_is_refused_whatever_the_name() {
    let names = [
        "clientSecret",
        "x-api-key",
        "X-Amz-Signature",
        "password",
        "apikey",
        "accessToken",
        "private_key",
        "refreshToken",
    ];
    for name in names {
        let json = format!("{{\"{name}\":\"{NEW}\"}}");
        for got in [
            js(format!("{{\"{name}\":\"{NEW}\",\"a\":1,\"a\":2}}")),
            js(format!("{{\"{name}\":\"{NEW}\"")),
            js(format!("{{\"password\": \"{NEW}\", \"clientSec")),
            js(format!("\u{feff}{json}")),
            js(format!("{{\"{name}\":\"{NEW}\",\"n\":\"\\ud800\"}}")),
            js(format!("{}{json}{}", "[".repeat(101), "]".repeat(101))),
            answer(
                200,
                &[("content-type", "application/octet-stream")],
                json.as_str(),
            ),
            answer(
                200,
                &[("content-type", "application/x-ndjson")],
                format!("{{}}\n{json}\n"),
            ),
            text(format!("{name}: {NEW}\n")),
            json_answer(
                200,
                &json!({"message": format!("GET /y?{name}={NEW} failed")}),
            ),
            json_answer(
                200,
                &json!({"message": format!("https://user:{NEW}@host/y")}),
            ),
        ] {
            assert_clean(get("/x"), got);
        }
        let part = format!(
            "--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{NEW}\r\n--b--\r\n"
        );
        for (media, body) in [
            ("text/plain", format!("{name}={NEW}")),
            ("multipart/form-data; boundary=b", part),
        ] {
            assert_clean(
                request("POST", "/x", &[("content-type", media)], body),
                text("x"),
            );
        }
    }
}

#[test]
fn words_of_sentences_are_no_secrets() {
    for message in [
        "the password: expired",
        "digital signature: none",
        "a secret; a token",
        "see http://host/a@b",
    ] {
        let text = record(&[(get("/x"), json_answer(400, &json!({"message": message})))]).unwrap();
        assert!(text.contains(message), "{text}");
    }
}

#[test]
fn what_a_uri_and_headers_carry_is_looked_at_by_name_too() {
    let inner: String =
        url::form_urlencoded::byte_serialize(format!("https://h/cb?access_token={NEW}").as_bytes())
            .collect();
    for uri in [
        format!("/x?next={inner}"),
        format!("/x;access_token={NEW}/y"),
        format!("/x?a=1;access_token={NEW}"),
        format!("/x?q=%7B%22client_secret%22%3A%22{NEW}%22%7D"),
    ] {
        assert_clean(get(&uri), text("x"));
    }
    for (name, value) in [
        ("location", format!("/login?next={inner}")),
        ("location", format!("/login;access_token={NEW}")),
        (
            "content-disposition",
            format!("attachment; access_token={NEW}"),
        ),
    ] {
        assert_clean(get("/x"), answer(302, &[(name, &value)], ""));
    }
    // Nor is it shown where a request has no match.
    for uri in [
        format!("/x?next={inner}"),
        format!("/x;access_token={NEW}/y"),
    ] {
        let mock = nothing();
        mock.send(get(&uri)).unwrap_err();
        assert!(
            !mock.check().unwrap_err().to_string().contains(NEW),
            "{uri}"
        );
    }
}

#[test]
fn secrets_of_headers_are_known_when_they_come_again() {
    let echo = || json_answer(200, &json!({"message": format!("got {NEW} of you")}));
    let basic = base64_url(&format!("\u{fe}\u{ff}id:{NEW}"));
    for (name, value) in [
        ("x-api-key", NEW.to_owned()),
        ("authorization", format!("Basic {basic}")),
        ("cookie", format!("a=\"{NEW}\"")),
    ] {
        assert_clean(request("GET", "/x", &[(name, &value)], ""), echo());
    }
    for (name, value) in [
        ("x-auth-token", NEW.to_owned()),
        ("authorization", format!("Bearer {NEW}")),
    ] {
        let mut got = echo();
        got.headers_mut()
            .insert(http::HeaderName::from_static(name), value.parse().unwrap());
        assert_clean(get("/x"), got);
    }
}

fn base64_url(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE.encode(text)
}

#[test]
fn a_jwt_is_found_in_bodies_that_lie_beside_the_cassette() {
    let jwt = "eyJhbGciOiJSUzI1NiJ9.eyJjaWQiOiJ0aGUtY3VzdG9tZXIifQ.c2lnbmF0dXJl";
    let pad = "x".repeat(70_000);
    for body in [
        json!({"a": pad, jwt: 1}),
        json!({"yara_rule": format!("{pad} {jwt}")}),
        json!({"patterns": [{"value": format!("{pad} {jwt}")}]}),
    ] {
        record(&[(get("/x"), json_answer(200, &body))]).unwrap_err();
    }
}

#[test]
fn encodings_of_encodings_do_not_keep_the_search_busy() {
    let secret = "S3cretValue/of+the=user";
    // Enough that it took minutes, and all of the memory.
    for body in [
        format!("%{}", "25".repeat(4000)),
        format!("&{}", "amp;".repeat(4000)),
        format!("{}%{}", "\\\\".repeat(3000), "25".repeat(3000)),
        format!("&{}%{}", "amp;".repeat(15), "25".repeat(15)),
    ] {
        // What is too much is refused.
        let _ = record(&[login(secret), (get("/x"), text(body))]);
    }
    let often = (0..12).fold(secret.to_owned(), |text, _| {
        text.replace('%', "%25")
            .replace('/', "%2F")
            .replace('+', "%2B")
    });
    record(&[login(secret), (get("/x"), text(often))]).unwrap_err();
    let message = record(&[
        login(secret),
        (get("/x"), text(format!("%{}", "25".repeat(100)))),
    ])
    .unwrap_err();
    assert!(
        message.contains("escaped too often to be searched"),
        "{message}"
    );
}

#[test]
fn a_secret_is_found_in_more_notations() {
    let secret = "p4ss/w+rd=x";
    let hex = |between: &str| {
        secret
            .bytes()
            .map(|byte| format!("{byte:02x}"))
            .collect::<Vec<_>>()
            .join(between)
    };
    for body in [
        hex(":"),
        hex("-"),
        "p4ss&sol;w&plus;rd&equals;x".into(),
        secret.replace('/', "&#0000000047;"),
    ] {
        record(&[login(secret), (get("/x"), text(format!("it is {body}.")))]).expect_err(&body);
    }
}

/// Time that passes only when it is said.
#[derive(Clone)]
struct Slow(Arc<Mutex<Timestamp>>);

impl Clock for Slow {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }

    fn sleep_until(&self, time: Timestamp) {
        let mut now = self.0.lock().unwrap();
        *now = time.max(*now);
    }
}

#[test]
fn a_replay_asks_for_as_many_tokens_as_it_needs() {
    let (_folder, path) = folder();
    let service = || {
        Service(|request: &Sent| {
            Ok(match request.uri().path() {
                "/oauth2/token" => json_answer(
                    201,
                    &json!({"access_token": "t0ken-of-a-day", "expires_in": 1799}),
                ),
                _ => json_answer(200, &json!({"meta": {"hunt_limit": 3}})),
            })
        })
    };
    // A program that works for half an hour between two calls, and one that does not, each recorded and replayed as the other.
    for (recorded, replayed) in [(1790, 0), (0, 1790)] {
        for (mode, pause) in [(Mode::Record, recorded), (Mode::Replay, replayed)] {
            let clock = Slow(Arc::new(Mutex::new(Timestamp::from_millis(
                1_767_225_600_000,
            ))));
            let (transport, guard) = Session::new(&path).mode(mode).transport(service).unwrap();
            let auth = Auth::new(
                Cloud::Us1,
                Credentials::new("the-id-1234", "the-secret-1234"),
            );
            let client = malquery_proto::Client::new(transport, clock.clone(), auth);
            client.quotas().unwrap();
            clock.sleep_until(clock.now().after(Duration::from_secs(pause)));
            client.quotas().unwrap();
            guard.close().unwrap();
        }
    }
}

#[test]
fn of_two_recordings_of_one_cassette_the_second_is_told() {
    let (_folder, path) = folder();
    let (first, first_guard) = begin(&path, Mode::Record, Service(|_: &Sent| Ok(text("1"))));
    let (second, second_guard) = begin(&path, Mode::Record, Service(|_: &Sent| Ok(text("2"))));
    take(&first, get("/one")).unwrap();
    take(&second, get("/two")).unwrap();
    first_guard.close().unwrap();
    let message = second_guard.close().unwrap_err().to_string();
    assert!(
        message.contains("another session has written it"),
        "{message}"
    );
    assert!(fs::read_to_string(&path).unwrap().contains("/one"));
}

#[test]
fn documents_that_nest_as_deep_as_a_cassette_may_are_kept() {
    for depth in [90, 95, 96, 97, 100, 101, 126] {
        let body = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let text = record(&[(get("/x"), js(body.as_str()))]).unwrap();
        assert!(
            text.contains(&"[".repeat(50)) || text.contains("\"json\""),
            "{depth}"
        );
        record(&[(
            request("POST", "/x", &[("content-type", "application/json")], body),
            text_of("x"),
        )])
        .unwrap();
    }
}

fn text_of(body: &str) -> Got {
    text(body)
}

#[test]
fn a_form_that_is_a_reply_plays_as_it_came() {
    let (_folder, path) = folder();
    let form = [
        ("content-type", "application/x-www-form-urlencoded"),
        ("content-length", "9"),
    ];
    let service = Service(|_: &Sent| Ok(answer(200, &form, "a=b%20c&d")));
    let (transport, guard) = begin(&path, Mode::Record, service);
    take(&transport, get("/x")).unwrap();
    guard.close().unwrap();
    let (transport, guard) = begin(&path, Mode::Replay, nothing());
    assert_eq!(take(&transport, get("/x")).unwrap().1, b"a=b%20c&d");
    guard.close().unwrap();
}

#[test]
fn what_cannot_be_written_is_found_out_before_anything_is_sent() {
    let (folder, path) = folder();
    fs::write(folder.path().join("test.json.bodies"), "a file").unwrap();
    let long = folder.path().join(format!("{}.json", "n".repeat(245)));
    for path in [path, folder.path().join("new/.."), "".into(), long] {
        let begun = Session::new(&path).mode(Mode::Record).transport(nothing);
        assert!(begun.is_err(), "{}", path.display());
    }
}

#[cfg(unix)]
#[test]
fn bodies_do_not_lie_where_they_would_not_be_read() {
    use std::os::unix::fs::symlink;
    let (folder, path) = folder();
    let bodies = folder.path().join("test.json.bodies");
    let elsewhere = tempfile::TempDir::new().unwrap();
    for target in [elsewhere.path(), Path::new("nowhere")] {
        symlink(target, &bodies).unwrap();
        assert!(
            Session::new(&path)
                .mode(Mode::Record)
                .transport(nothing)
                .is_err(),
            "{}",
            target.display()
        );
        fs::remove_file(&bodies).unwrap();
    }
    fs::create_dir(folder.path().join("other")).unwrap();
    symlink("other", &bodies).unwrap();
    for mode in [Mode::Record, Mode::Replay] {
        let service = Service(|_: &Sent| Ok(answer(200, &[], vec![1; 70_000])));
        let (transport, guard) = begin(&path, mode, service);
        assert_eq!(take(&transport, get("/x")).unwrap().1.len(), 70_000);
        guard.close().unwrap();
    }
}

#[test]
fn nothing_is_left_of_a_recording_that_cannot_be_written() {
    let (folder, path) = folder();
    let service = Service(|_: &Sent| {
        fs::create_dir(&path).unwrap();
        Ok(answer(200, &[], vec![1; 70_000]))
    });
    let (transport, guard) = begin(&path, Mode::Record, service);
    take(&transport, get("/x")).unwrap();
    guard.close().unwrap_err();
    let left: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["test.json"]);
}

#[test]
fn a_request_that_no_cassette_can_hold_is_not_sent_and_told_at_the_end() {
    for sent in [
        request("get", "/x", &[], ""),
        request("OPTIONS", "*", &[], ""),
    ] {
        let (_folder, path) = folder();
        let service = Service(|sent: &Sent| {
            assert_eq!(sent.uri().path(), "/a");
            Ok(text("x"))
        });
        let (transport, guard) = begin(&path, Mode::Record, service);
        take(&transport, get("/a")).unwrap();
        transport.send(sent).unwrap_err();
        let error = guard.close().unwrap_err().to_string();
        assert!(error.contains("so it was not sent"), "{error}");
        assert!(!path.exists());
    }
    for method in ["GET", "HEAD", "OPTIONS", "PATCH", "M-SEARCH"] {
        let (_folder, path) = folder();
        for mode in [Mode::Record, Mode::Replay] {
            let (transport, guard) = begin(&path, mode, Service(|_: &Sent| Ok(text(""))));
            take(&transport, request(method, "/x", &[], "")).unwrap();
            guard.close().unwrap();
        }
    }
}

#[test]
fn a_panic_in_the_transport_does_not_end_the_recording() {
    let (_folder, path) = folder();
    let service = Service(|sent: &Sent| {
        assert!(sent.uri().path() != "/panic");
        Ok(text("x"))
    });
    let (transport, guard) = begin(&path, Mode::Record, service);
    take(&transport, get("/a")).unwrap();
    let panicking = std::panic::AssertUnwindSafe(|| take(&transport, get("/panic")));
    assert!(std::panic::catch_unwind(panicking).is_err());
    take(&transport, get("/b")).unwrap();
    guard.close().unwrap();
    let (transport, guard) = begin(&path, Mode::Replay, nothing());
    take(&transport, get("/a")).unwrap();
    take(&transport, get("/b")).unwrap();
    guard.close().unwrap();
}

#[test]
fn numbers_without_end_and_times_out_of_mind_play() {
    let date = "Thu, 01 Jan 2026 00:00:00 GMT";
    for headers in [
        [("retry-after", "99999999999999999999999"), ("date", "x")],
        [("retry-after", "18446744073709551615"), ("date", "x")],
        [
            ("retry-after", "Fri, 31 Dec 9999 23:59:59 GMT"),
            ("date", date),
        ],
        [
            ("x-ratelimit-retryafter", "18446744073709551615"),
            ("date", date),
        ],
        [
            ("x-ratelimit-retryafter", "-1"),
            ("date", "Thu, 01 Jan 1000 00:00:00 GMT"),
        ],
        [("content-length", "18446744073709551615"), ("date", "x")],
    ] {
        let (_folder, path) = folder();
        let body = r#"{"n":1e999999999999,"m":-0.0,"o":123456789012345678901234567890}"#;
        for mode in [Mode::Record, Mode::Replay] {
            let (transport, guard) = begin(
                &path,
                mode,
                Service(|_: &Sent| Ok(answer(429, &headers, body))),
            );
            assert_eq!(
                take(&transport, get("/x")).unwrap(),
                (429, body.into(), false),
                "{headers:?}"
            );
            guard.close().unwrap();
        }
    }
}

#[test]
fn a_location_with_an_at_sign_plays_as_it_came() {
    for location in [
        "/redirect//user@host/x",
        "/a?next=//user@host/x",
        "https://host/x//y@z",
        "/a/b@c",
        "//host/x@y",
        "https://h/x?a=b;c=d&e",
        "/x?a=%41&b=+",
        "?x",
        "#y",
        "../z",
    ] {
        let (_folder, path) = folder();
        for mode in [Mode::Record, Mode::Replay] {
            let service = Service(|_: &Sent| Ok(answer(302, &[("location", location)], "")));
            let (transport, guard) = begin(&path, mode, service);
            let reply = transport.send(get("/x")).unwrap();
            assert_eq!(reply.headers()["location"], location);
            guard.close().unwrap();
        }
    }
    for location in [
        "//user@host/x",
        "https://user@host/x",
        "/redirect/https://user@host/x",
    ] {
        let got = answer(302, &[("location", location)], "");
        let text = record(&[(get("/x"), got)]).unwrap();
        assert!(!text.contains("user"), "{text}");
    }
    record(&[(
        get("/x"),
        answer(302, &[("location", "/redirect//user:abc@host/x")], ""),
    )])
    .unwrap_err();
}

#[test]
fn what_says_where_the_service_is_and_what_it_allows_is_no_secret() {
    let headers = [
        ("set-cookie", "region=us-gov-1; Path=/"),
        ("access-control-allow-credentials", "for-some-1"),
        ("content-type", "text/plain"),
        ("x-cs-region", "us-gov-1"),
    ];
    let text = record(&[(get("/x"), answer(200, &headers, "for-some-1 in us-gov-1"))]).unwrap();
    assert!(text.contains(r#"["x-cs-region", "us-gov-1"]"#), "{text}");
    assert!(
        text.contains(r#""text": "for-some-1 in us-gov-1""#),
        "{text}"
    );
}

#[test]
fn a_sample_is_not_changed_and_is_for_its_owner_alone() {
    let id = "6b1e2cd4-a6c1-4df0-98b3-7e0d4ad3c8f1";
    let uri = "/malquery/entities/download-files/v1?ids=2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let sample = |body: &str| answer(200, &[("x-cs-traceid", id)], body);
    let (_folder, path) = folder();
    let private = || {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(
                fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                0o600
            );
        }
    };
    // The id is replaced in the header, and stays in the sample, which would be another without it.
    let body = format!("# {id}");
    let (transport, guard) = begin(&path, Mode::Record, Service(|_: &Sent| Ok(sample(&body))));
    take(&transport, get(uri)).unwrap();
    guard.close().unwrap();
    private();
    let recorded = fs::read_to_string(&path).unwrap();
    assert_eq!(recorded.matches(id).count(), 1, "{recorded}");
    assert!(
        recorded.contains(&format!("\"text\": \"{body}\"")),
        "{recorded}"
    );

    let (transport, guard) = begin(&path, Mode::Append, Service(|_: &Sent| Ok(text("x"))));
    take(&transport, get("/malquery/aggregates/quotas/v1")).unwrap();
    guard.close().unwrap();
    private();
    // The id is still looked for where it can be replaced, and a secret everywhere.
    let about = |note: String| js(json!({"meta": {"reqid": id}, "note": note}).to_string());
    let secret = "S3cretOfTheUser0123456789";
    let base64 = b64(id);
    record(&[
        (get(uri), sample(id)),
        (get(&format!("/x/{id}")), text("x")),
    ])
    .unwrap_err();
    record(&[(get(uri), sample(id)), (get("/x"), about(base64.clone()))]).unwrap_err();
    record(&[(get(&format!("{uri},{base64}")), sample(id))]).unwrap_err();
    let headers = [("x-cs-traceid", id), ("location", &format!("/x?{base64}"))];
    record(&[(get(uri), answer(200, &headers, "harmless"))]).unwrap_err();
    record(&[login(secret), (get(uri), sample(&format!("{id} {secret}")))]).unwrap_err();
}

#[test]
fn a_reply_of_json_in_the_place_of_an_archive_is_kept_to_the_byte() {
    let id = "6b1e2cd4-a6c1-4df0-98b3-7e0d4ad3c8f1";
    let trace = "5a1e2cd4-a6c1-4df0-98b3-7e0d4ad3c8f2";
    let body = format!(r#"{{ "meta": {{"trace_id": "{trace}", "reqid": "{id}"}} }}"#);
    let uri = format!("/malquery/entities/samples-fetch/v1?ids={id}");
    let (_folder, path) = folder();
    for mode in [Mode::Record, Mode::Replay] {
        let headers = [
            ("content-type", "application/json"),
            ("x-cs-traceid", trace),
        ];
        let (transport, guard) = begin(
            &path,
            mode,
            Service(|_: &Sent| Ok(answer(202, &headers, body.as_str()))),
        );
        assert_eq!(
            take(&transport, get(&uri)).unwrap(),
            (202, body.clone().into_bytes(), false)
        );
        guard.close().unwrap();
    }
}

#[test]
fn what_holds_a_hostile_sample_can_be_appended_to() {
    let uri = "/malquery/entities/download-files/v1?ids=2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let escaped = |count| format!("%{}", "25".repeat(count));
    for body in [
        escaped(1000),
        format!("{}\0", escaped(1000)),
        escaped(50_000),
    ] {
        let (_folder, path) = folder();
        for (mode, uri) in [(Mode::Record, uri), (Mode::Append, "/y")] {
            let service = Service(|request: &Sent| {
                Ok(match request.uri().path() {
                    "/oauth2/token" => json_answer(200, &json!({})),
                    "/y" => text("x"),
                    _ => text(body.as_str()),
                })
            });
            let (transport, guard) = begin(&path, mode, service);
            take(&transport, login("a-secret-0123456").0).unwrap();
            take(&transport, get(uri)).unwrap();
            guard.close().unwrap();
        }
    }
}

#[test]
fn headers_that_come_twice_keep_their_order() {
    let (_folder, path) = folder();
    let twice = [
        ("content-type", "text/plain"),
        ("content-type", "application/json"),
    ];
    let (transport, guard) = begin(
        &path,
        Mode::Record,
        Service(|_: &Sent| Ok(answer(200, &twice, "{}"))),
    );
    take(&transport, get("/x")).unwrap();
    guard.close().unwrap();
    let (transport, guard) = begin(&path, Mode::Replay, nothing());
    let reply = transport.send(get("/x")).unwrap();
    assert_eq!(reply.headers().get("content-type").unwrap(), "text/plain");
    guard.close().unwrap();
}

/// A body that breaks, and then says that it is over.
struct Breaks(u32);

impl Read for Breaks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0 += 1;
        match self.0 {
            1 => {
                buffer[..4].copy_from_slice(b"abcd");
                Ok(4)
            }
            2 => Err(io::ErrorKind::ConnectionReset.into()),
            _ => Ok(0),
        }
    }
}

struct Broken;

impl Transport for Broken {
    fn send(&self, _: Sent) -> Result<http::Response<Body>, TransportError> {
        Ok(http::Response::new(Body::new(Breaks(0))))
    }
}

#[test]
fn what_broke_is_not_whole_because_nothing_more_came() {
    let (_folder, path) = folder();
    let (transport, guard) = begin(&path, Mode::Record, Broken);
    let mut body = transport.send(get("/x")).unwrap().into_body();
    let mut buffer = [0; 8];
    let results = [
        body.read(&mut buffer).ok(),
        body.read(&mut buffer).ok(),
        body.read(&mut buffer).ok(),
    ];
    assert_eq!(results, [Some(4), None, Some(0)]);
    guard.close().unwrap();
    assert!(
        fs::read_to_string(&path)
            .unwrap()
            .contains("truncate_after")
    );
}

#[test]
fn the_very_same_service_has_not_drifted_and_what_drifted_shows_no_secret() {
    let (_folder, path) = folder();
    let service = || {
        Service(|_: &Sent| {
            Ok(json_answer(
                200,
                &json!({"cid": 12345678, "next_token": 5, "secret": "abcdefgh"}),
            ))
        })
    };
    for mode in [Mode::Record, Mode::Verify] {
        let (transport, guard) = begin(&path, mode, service());
        take(&transport, get("/x")).unwrap();
        guard.close().unwrap();
    }
    let (folder, path) = (_folder, path);
    let (transport, guard) = begin(
        &path,
        Mode::Verify,
        Service(|_: &Sent| Ok(json_answer(200, &json!(null)))),
    );
    take(&transport, get("/x")).unwrap();
    assert!(
        guard
            .close()
            .unwrap_err()
            .to_string()
            .contains("the whole document")
    );
    // A token alone is nothing that was compared.
    let (transport, guard) = begin(&path, Mode::Verify, service());
    take(&transport, login("a-secret-1").0).unwrap();
    assert!(
        guard
            .close()
            .unwrap_err()
            .to_string()
            .contains("nothing was sent")
    );
    drop(folder);
}

#[test]
fn what_drifted_is_told_of_each_interaction_in_turn() {
    let (_folder, path) = folder();
    let one = |id: &str| json!({"id": id, "request": {"method": "GET", "uri": "/x"}, "response": {"status": 200, "body": {"json": {"a": 1}}}});
    fs::write(
        &path,
        json!({"version": 1, "interactions": [one("first"), one("second")]}).to_string(),
    )
    .unwrap();
    let (transport, guard) = begin(
        &path,
        Mode::Verify,
        Service(|_: &Sent| Ok(json_answer(200, &json!({"a": "text"})))),
    );
    take(&transport, get("/x")).unwrap();
    take(&transport, get("/x")).unwrap();
    let message = guard.close().unwrap_err().to_string();
    assert!(
        message.contains("\"first\"") && message.contains("\"second\""),
        "{message}"
    );
}

#[test]
fn a_body_that_is_not_there_to_its_end_has_not_drifted() {
    let (_folder, path) = folder();
    let body = |body: serde_json::Value, fault: serde_json::Value| {
        let mut response = json!({"status": 200, "body": body});
        if fault.is_object() {
            response["fault"] = fault;
        }
        let request = json!({"method": "GET", "uri": "/x"});
        json!({"version": 1, "interactions": [{"id": "x", "request": request, "response": response}]})
            .to_string()
    };
    let live = || Service(|_: &Sent| Ok(json_answer(200, &json!({"a": 1}))));
    // Live it was not read to its end.
    fs::write(&path, body(json!({"json": {"a": 1}}), json!(null))).unwrap();
    let (transport, guard) = begin(&path, Mode::Verify, live());
    let mut reply = transport.send(get("/x")).unwrap().into_body();
    assert_eq!(reply.read(&mut [0; 3]).unwrap(), 3);
    guard.close().unwrap();
    // It broke off when it was recorded.
    fs::write(
        &path,
        body(json!({"text": "{\"a\""}), json!({"truncate_after": 4})),
    )
    .unwrap();
    let (transport, guard) = begin(&path, Mode::Verify, live());
    take(&transport, get("/x")).unwrap();
    guard.close().unwrap();
    // Whole, and no JSON any more.
    fs::write(&path, body(json!({"json": {"a": 1}}), json!(null))).unwrap();
    let (transport, guard) = begin(&path, Mode::Verify, Service(|_: &Sent| Ok(text("gone"))));
    take(&transport, get("/x")).unwrap();
    assert!(
        guard
            .close()
            .unwrap_err()
            .to_string()
            .contains("JSON in the cassette, none live")
    );
}

#[test]
fn what_is_harmless_is_recorded() {
    let login = || {
        let form = "client_id=0123456789abcdef0123456789abcdef&client_secret=s3cretOfTheUser-0123";
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let body = json!({"access_token": "eyJhbGciOi-t0ken", "expires_in": 1799, "ext_expires_in": 1799,
            "token_type": "bearer", "issued_token_type": "bearer", "status": "done"});
        (
            request("POST", "/oauth2/token", &headers, form),
            json_answer(201, &body),
        )
    };
    let submit = || {
        json_answer(
            200,
            &json!({"meta": {"reqid": "0e1f6ea1-7c1d-6ea1-5f4f-a1b2c3d4e5f6", "status": "done"}}),
        )
    };
    let hunt = |rule: &str| {
        let body = json!({"yara_rule": rule}).to_string();
        request(
            "POST",
            "/malquery/queries/hunt/v1",
            &[("content-type", "application/json")],
            body,
        )
    };
    // Headers of gateways, whose values are words.
    let mut cors = submit();
    let headers = [
        ("access-control-allow-credentials", "true"),
        ("set-cookie", "consent=true"),
        ("set-cookie", "r=us-1"),
    ];
    for (name, value) in headers {
        cors.headers_mut()
            .append(http::HeaderName::from_static(name), value.parse().unwrap());
    }
    record(&[
        login(),
        (
            hunt("rule a { strings: $a = \"GNU\" condition: true }"),
            cors,
        ),
    ])
    .unwrap();
    // What was searched for comes back with what was found.
    for pattern in [
        "password=hunter2xyz",
        "https://user:pass@evil/",
        "Authorization: Basic dXNlcjpwdzEyMw==",
        "POST /gate.php?pwd=1",
    ] {
        let body = json!({"patterns": [{"type": "ascii", "value": pattern}]}).to_string();
        let search = request(
            "POST",
            "/malquery/queries/exact-search/v1",
            &[("content-type", "application/json")],
            body,
        );
        let found = json!({"meta": {"status": "done"}, "resources": [{"pattern": pattern, "yara_rules": [pattern]}]});
        record(&[
            login(),
            (search, submit()),
            (
                get("/malquery/entities/requests/v1?ids=x"),
                json_answer(200, &found),
            ),
        ])
        .expect(pattern);
    }
    // Errors of the token endpoint, in the words of others.
    for (status, body) in [
        (
            403,
            json!({"timestamp": 1, "status": 403, "error": "Forbidden", "path": "/oauth2/token"}),
        ),
        (403, json!({"status": "error", "message": "no"})),
        (429, json!({"resources": ["malquery"]})),
    ] {
        let refused = (
            request("POST", "/oauth2/token", &[], ""),
            json_answer(status, &body),
        );
        record(&[
            refused,
            login(),
            (hunt("rule a { condition: true }"), submit()),
        ])
        .unwrap();
    }
    record(&[(request("POST", "/oauth2/revoke", &[], ""), text("OK"))]).unwrap();
    // Sentences, and the names of malware.
    for message in [
        "Invalid client_id: client not found",
        "authorization: scope malquery:write required",
        "Authorization: header missing",
        "member_cid: not a child of this CID",
        "customer_id: invalid format",
        "unexpected token: STRING_IDENTIFIER",
        "token: invalid_grant",
        "failed to parse token: SignatureExpired",
        "rule \"CredentialStealer\": undefined identifier",
        "Bearer Token-based authentication",
        "Basic HTTP-Authentication",
        "token=***",
        "Password-Stealer:Win32/Vidar.B",
        "CredentialStealer:MSIL/RedLine.A",
        "Stealer:Win32/Token=abc12345",
        "Microsoft Visual Basic v5.0/v6.0",
        "Basic x86-assembly",
        "basic 2026-01-01",
        "access_token: expired",
        "client_secret: must not be empty",
        "secret: 0",
        "see https://falcon.crowdstrike.com/documentation?token=...",
        "mailto://12345678@example.com",
        "see https://host:8080/a@b",
        "rule \"thief\" at line 3: invalid regexp /password=[a-z]+/",
    ] {
        let text = record(&[(
            hunt("rule a { condition: true }"),
            json_answer(400, &json!({"errors": [{"message": message}]})),
        )]);
        assert!(
            text.as_ref()
                .is_ok_and(|text| text.contains(&json!(message).to_string())),
            "{message}: {text:?}"
        );
    }
    let found = json!({"resources": [{"signature": "Zbot", "digital_signature": "valid", "password": "infected", "family": "Zbot"}]});
    let text = record(&[
        (get("/x"), json_answer(200, &found)),
        (hunt("rule infected_zbot { condition: true }"), submit()),
    ])
    .unwrap();
    assert!(text.contains("\"family\": \"Zbot\""), "{text}");
}

#[test]
fn short_ids_are_told_apart() {
    let (_folder, path) = folder();
    let service = Service(|request: &Sent| Ok(text(request.uri().query().unwrap().to_owned())));
    let uri = |id: &str| format!("/malquery/entities/requests/v1?ids={id}");
    let ids: Vec<_> = (1..99)
        .map(|id| id.to_string())
        .chain(["abcdef0123456789,short".into()])
        .collect();
    let (transport, guard) = begin(&path, Mode::Record, service);
    for id in &ids {
        take(&transport, get(&uri(id))).unwrap();
    }
    guard.close().unwrap();
    let (transport, guard) = begin(&path, Mode::Replay, nothing());
    for id in ids.iter().rev().filter(|id| id.len() < 8) {
        assert_eq!(
            take(&transport, get(&uri(id))).unwrap().1,
            format!("ids={id}").into_bytes()
        );
    }
    take(&transport, get(&uri("abcdef0123456789,short"))).unwrap();
    guard.close().unwrap();
}

#[test]
fn what_differs_is_shown_without_secrets() {
    let jwt = "eyJhbGciOiJSUzI1NiJ9.eyJjaWQiOiJ0aGUtY3VzdG9tZXIifQ.c2lnbmF0dXJl";
    let cassette =
        |body: &serde_json::Value| json!({"method": "POST", "uri": "/x", "body": {"json": body}});
    let sent_json = |body: &serde_json::Value| request("POST", "/x", &[], body.to_string());
    for (recorded, sent) in [
        (
            json!({"note": "x"}),
            json!({"note": "x", "o": {"client_secret": NEW}}),
        ),
        (
            json!({"note": "x"}),
            json!({"note": {"client_secret": NEW}}),
        ),
        (
            json!({"note": ["x"]}),
            json!({"note": ["x", {"password": NEW}]}),
        ),
        (
            json!({"note": "x"}),
            json!({"note": format!("access_token: {NEW}")}),
        ),
        (
            json!({"note": "x\ny"}),
            json!({"note": format!("x\naccess_token: {NEW}\n")}),
        ),
        (
            json!({"note": "x"}),
            json!({"note": format!("access_token%3D{NEW}")}),
        ),
        (
            json!({"note": "x"}),
            json!({"note": format!("access_token&#61;{NEW}")}),
        ),
        (json!({"note": "x"}), json!({"note": jwt})),
        (
            json!({"note": "x\ny"}),
            json!({"note": format!("x\naccess_token%3D{NEW}\n")}),
        ),
        (
            json!({"note": "x\ny"}),
            json!({"note": format!("x\n{jwt}\n")}),
        ),
        (
            json!({"a": "x"}),
            json!({"a": "x", format!("access_token={NEW}"): 1}),
        ),
        (
            json!({"a": 1}),
            json!({"a": {format!("access_token={NEW}"): 1}}),
        ),
        (
            json!({"a": {}}),
            json!({"a": {format!("{{\"secret\":\"{NEW}\"}}"): 1}}),
        ),
        (
            json!({"a": 1}),
            json!({"a": json!({"access_token": NEW}).to_string()}),
        ),
        (
            json!({"a": 1}),
            json!({"a": json!(json!({"access_token": NEW}).to_string()).to_string()}),
        ),
        (
            json!({"a": 1}),
            json!({"a": 1, "patterns": {"x": [{"client_secret": NEW}]}}),
        ),
        (
            json!({"patterns": 1}),
            json!({"patterns": [{"client_secret": NEW}]}),
        ),
    ] {
        let message = mismatch(cassette(&recorded), sent_json(&sent));
        assert!(
            !message.contains(NEW) && !message.contains(jwt),
            "{message}"
        );
        let shown = transcript(sent_json(&sent), text("x"));
        assert!(!shown.contains(NEW) && !shown.contains(jwt), "{shown}");
    }
    // What is searched for is shown, whatever words are in it.
    let rule = "rule a {\n  strings: $a = \"access_token=abc12345\"\n}";
    for (recorded, sent) in [
        (
            json!({"yara_rule": "rule a {\n}"}),
            json!({"yara_rule": rule}),
        ),
        (
            json!({"a": 1}),
            json!({"patterns": [{"value": "access_token=abc12345"}]}),
        ),
    ] {
        let message = mismatch(cassette(&recorded), sent_json(&sent));
        assert!(message.contains("access_token=abc12345"), "{message}");
        let shown = transcript(sent_json(&sent), text("x"));
        assert!(shown.contains("access_token=abc12345"), "{shown}");
    }
}

#[test]
fn samples_are_recorded_whatever_is_in_them() {
    let uri = "/malquery/entities/download-files/v1?ids=2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let jwt = "eyJhbGciOiJSUzI1NiJ9.eyJjaWQiOiJ0aGUtY3VzdG9tZXIifQ.c2lnbmF0dXJl";
    for body in [
        format!("var t = '{jwt}';"),
        "\\".repeat(100_000),
        format!("%{}\0", "25".repeat(1000)),
        "Username: joe\nPassword: hunter2\n".repeat(3000),
        "eyJ".repeat(20_000),
    ] {
        record(&[
            login("a-secret-0123456"),
            (get(uri), answer(200, &[], body)),
        ])
        .unwrap();
    }
}

#[test]
fn secrets_are_known_in_the_notations_of_pages_and_forms() {
    for body in [
        format!("&quot;access_token&quot;:&quot;{NEW}&quot;"),
        format!("access_token&#61;{NEW}"),
        format!("\\u0022access_token\\u0022:\\u0022{NEW}\\u0022"),
        format!("user[password]={NEW}"),
        format!("access_token[0]={NEW}"),
        format!("access_token%253D{NEW}"),
        format!("Bearer \"{NEW}\""),
        format!("bearer:{NEW}"),
        format!("https://{NEW}@host/"),
        format!("/cb#password={NEW}"),
    ] {
        assert_clean(get("/x"), json_answer(200, &json!({"message": body})));
        assert_clean(get("/x"), text(body));
    }
    // Nor does a refusal, a transcript or a failure show one.
    let message = record(&[(
        get(&format!("/x;access_token={NEW}/v1")),
        text("password: abc1"),
    )])
    .unwrap_err();
    assert!(!message.contains(NEW), "{message}");
    let transcript = Transcript::new(Proxy);
    transcript.send(get("/x")).unwrap_err();
    assert!(!transcript.to_string().contains(NEW), "{transcript}");
}

/// A transport whose error names what it was told.
struct Proxy;

#[derive(Debug)]
struct NoProxy;

impl std::fmt::Display for NoProxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "cannot connect to the proxy http://user:{NEW}@proxy:3128/"
        )
    }
}

impl std::error::Error for NoProxy {}

impl Transport for Proxy {
    fn send(&self, _: Sent) -> Result<http::Response<Body>, TransportError> {
        Err(TransportError::not_sent(NoProxy))
    }
}

#[test]
fn a_recording_of_nothing_but_what_is_under_way_leaves_the_cassette() {
    let (_folder, path) = folder();
    fs::write(&path, "{}").unwrap();
    let ((asked, wait), (go_on, rest)) = (std::sync::mpsc::channel(), std::sync::mpsc::channel());
    let (asked, rest) = (Mutex::new(asked), Mutex::new(rest));
    let service = Service(|_: &Sent| {
        asked.lock().unwrap().send(()).unwrap();
        rest.lock().unwrap().recv().unwrap();
        Ok(text("late"))
    });
    let (transport, guard) = begin(&path, Mode::Record, service);
    std::thread::scope(|scope| {
        let late = scope.spawn(|| take(&transport, get("/x")));
        wait.recv().unwrap();
        guard.close().unwrap();
        go_on.send(()).unwrap();
        late.join().unwrap().unwrap();
    });
    assert_eq!(fs::read_to_string(&path).unwrap(), "{}");
}

#[test]
fn a_transcript_leaves_secrets_out_wherever_they_stand() {
    let secret = "p4ss\"word\\1+2/3";
    let (sent, _) = login(secret);
    let form: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    for (got, hidden) in [
        (
            json_answer(400, &json!({"message": format!("bad {secret}")})),
            "p4ss",
        ),
        (text(format!("bad {form}")), "p4ss"),
        (
            json_answer(400, &json!({"message": format!("access_token: {NEW}")})),
            NEW,
        ),
        (
            json_answer(201, &json!({"access_token": "abcdefgh-1234", "other": NEW})),
            NEW,
        ),
        (
            json_answer(
                400,
                &json!({"message": format!("{{\"password\": \"{NEW}\"}}")}),
            ),
            NEW,
        ),
        (
            answer(302, &[("location", &format!("/y?access_token={NEW}"))], ""),
            NEW,
        ),
        (
            answer(302, &[("location", &format!("https://u:{NEW}@h/y"))], ""),
            NEW,
        ),
        (answer(200, &[("x-api-key", NEW)], ""), NEW),
        (js(format!("{{\"password\": \"{NEW}\", \"")), NEW),
        (
            text("eyJhbGciOiJSUzI1NiJ9.eyJjaWQiOiJ0aGUtY3VzdG9tZXIifQ.c2lnbmF0dXJl"),
            "eyJ",
        ),
    ] {
        let transcript = Transcript::new(Service(|_: &Sent| Ok(got.clone())));
        take(&transcript, sent.clone()).unwrap();
        let shown = transcript.to_string();
        assert!(!shown.contains(hidden), "{shown}");
    }
}

#[test]
fn ids_of_users_get_pseudonyms_wherever_they_come_again() {
    let reply = json!({"meta": {"hunt_counts": [{"userid": "user-12345678", "counter": 1}, {"userid": "", "counter": 2}]},
        "resources": [{"user_uuid": "user-12345678"}], "errors": [{"message": "by user-12345678"}]});
    let text = record(&[(get("/x"), json_answer(200, &reply))]).unwrap();
    assert!(
        !text.contains("user-12345678") && text.contains("\"userid\": \"\""),
        "{text}"
    );
}

#[test]
fn an_id_that_may_be_a_word_is_replaced_only_where_it_is_an_id() {
    let job = js(json!({"meta": {"reqid": "inprogress", "status": "inprogress"}}).to_string());
    let body = json!({"reqid": "inprogress"}).to_string();
    let asked = request(
        "POST",
        "/x?ids=inprogress",
        &[("content-type", "application/json")],
        body.as_str(),
    );
    let poll = get("/malquery/entities/requests/v1?ids=inprogress");
    let text = record(&[
        (get("/a"), job.clone()),
        (poll, job),
        (asked, text("inprogress")),
    ])
    .unwrap();
    // In the body of a request, in a query that is not of a job, as a status, twice, and in a text.
    assert_eq!(text.matches("inprogress").count(), 5, "{text}");
    assert_eq!(
        text.matches(r#""status": "inprogress""#).count(),
        2,
        "{text}"
    );
    assert_eq!(text.matches("0000000001").count(), 3, "{text}");
}

#[test]
fn an_id_of_zeros_is_that_of_nobody() {
    let nobody = "00000000-0000-0000-0000-000000000000";
    let reply = json!({"trace_id": "abcdef12", "errors": [{"trace_id": nobody}]});
    let text = record(&[(get("/x"), js(reply.to_string()))]).unwrap();
    assert!(
        !text.contains("abcdef12") && text.contains(nobody),
        "{text}"
    );
}

#[test]
fn a_body_is_json_if_it_says_so_or_looks_like_it_and_says_nothing_else() {
    let kind = |headers: &[(&str, &str)], body: &str| {
        let text = record(&[(get("/x"), answer(200, headers, body))]).unwrap();
        let cassette: serde_json::Value = serde_json::from_str(&text).unwrap();
        let body = cassette
            .pointer("/interactions/0/response/body")
            .unwrap()
            .as_object()
            .unwrap();
        body.keys().next().unwrap().clone()
    };
    let media = |media| [("content-type", media)];
    assert_eq!(kind(&[], r#"{"a": 1}"#), "json");
    assert_eq!(kind(&media("text/plain"), " [1]"), "json");
    assert_eq!(kind(&media("application/problem+json"), "12"), "json");
    assert_eq!(kind(&media("text/plain"), "12"), "text");
    assert_eq!(
        kind(&media("application/octet-stream"), r#"{"a": 1}"#),
        "text"
    );
}

#[test]
fn what_has_the_name_of_a_secret_is_known_even_if_it_may_be_a_word() {
    let reply = js(json!({"client_secret": "opensesame"}).to_string());
    let recorded = record(&[(get("/x"), reply), (get("/y"), text("say opensesame"))]).unwrap();
    assert!(recorded.contains("say [client_secret]"), "{recorded}");
    // Of a token nothing is known, so what may be a word is left.
    let reply = json!({"access_token": "abcdefgh-1234", "state": "pending!", "note": "opensesameopensesame"});
    let token = (
        request("POST", "/oauth2/token", &[], ""),
        js(reply.to_string()),
    );
    let recorded = record(&[token, (get("/y"), text("pending! opensesameopensesame"))]).unwrap();
    assert!(recorded.contains("pending! [token]"), "{recorded}");
    // A placeholder is no value, whatever the name.
    let recorded = record(&[login("[my_secret]"), (get("/y"), text("say [my_secret]"))]).unwrap();
    assert!(recorded.contains("say [my_secret]"), "{recorded}");
    // A secret is replaced as it stands in JSON, whatever comes behind it.
    let recorded = record(&[
        login(r#"open"sesame\1"#),
        (get("/y"), text(r#"{"say open\"sesame\\1 now"#)),
    ])
    .unwrap();
    assert!(recorded.contains("say [client_secret] now"), "{recorded}");
}

#[test]
fn a_location_is_searched_as_a_link() {
    let jwt = "eyJhbGciOiJSUzI1NiJ9%2EeyJjaWQiOiJ0aGUtY3VzdG9tZXIifQ%2Ec2lnbmF0dXJl";
    let error = record(&[(
        get("/x"),
        answer(302, &[("location", &format!("/y?state={jwt}"))], ""),
    )])
    .unwrap_err();
    assert!(error.contains("the header location"), "{error}");
}

#[test]
fn polls_are_equal_whatever_the_traces_of_their_errors() {
    let poll = |trace: &str| {
        (
            get("/x"),
            js(json!({"errors": [{"trace_id": trace, "code": 1}, {"code": 2}]}).to_string()),
        )
    };
    let text = record(&[poll("6b1e2cd4-a6c1-4df0"), poll("7c1e2cd4-a6c1-4df0")]).unwrap();
    assert!(text.contains("\"times\": 2"), "{text}");
    let other = (
        get("/x"),
        js(json!({"errors": [{"code": 1}, {"code": 3}]}).to_string()),
    );
    let text = record(&[poll("6b1e2cd4-a6c1-4df0"), other]).unwrap();
    assert!(!text.contains("times"), "{text}");
}

#[test]
fn a_transcript_shows_a_rule_whatever_words_are_in_it() {
    let rule = "rule thief { strings: $a = \"access_token=abc12345\" condition: $a }";
    let body = json!({"yara_rule": rule}).to_string();
    let transcript = Transcript::new(Service(|_: &Sent| {
        Ok(json_answer(200, &json!({"meta": {}})))
    }));
    take(
        &transcript,
        request("POST", "/x", &[("content-type", "application/json")], body),
    )
    .unwrap();
    assert!(
        transcript.to_string().contains("access_token=abc12345"),
        "{transcript}"
    );
}

/// Bodies with a secret that are no forms, whatever they say.
fn no_forms() -> Vec<String> {
    vec![
        format!("{{\"client_secret\":\"{NEW}\"}}"),
        format!("{{\"client_id\":\"x\",\"access_token\":\"{NEW}==\"}}"),
        format!(" {{\"client_secret\": \"{NEW}\", \"a\": 1, \"a\": 2}}"),
        format!("client_secret: {NEW}"),
        format!("client_secret+:+{NEW}"),
        format!("<access_token>{NEW}</access_token>"),
        format!("<access_token type=\"bearer\">{NEW}</access_token>"),
        format!("Authorization: Bearer {NEW}"),
        format!("https://user:{NEW}@host/"),
        format!("client_secret={NEW}")
            .chars()
            .flat_map(|c| [c, '\0'])
            .collect(),
        // Protobuf.
        format!("\n\u{c}access-token\u{12}\u{14}{NEW}"),
    ]
}

#[test]
fn what_says_it_is_a_form_and_is_none_is_refused() {
    for body in no_forms() {
        record(&[(request("POST", "/x", &[FORM], body.as_str()), text("x"))]).expect_err(&body);
    }
}

#[test]
fn a_name_with_an_index_is_that_of_a_secret() {
    for (sent, got) in [
        (get(&format!("/x?access_token%5B0%5D={NEW}")), text("x")),
        (
            request("POST", "/x", &[FORM], format!("access_token%5B%5D={NEW}")),
            text("x"),
        ),
        (
            get("/x"),
            json_answer(200, &json!({"access_token[0][12]": NEW})),
        ),
        (
            get("/x"),
            answer(
                302,
                &[("location", &format!("/y?access_token[0]={NEW}"))],
                "",
            ),
        ),
    ] {
        let text = record(&[(sent, got)]).unwrap();
        assert!(
            !text.contains(NEW) && text.contains("access_token"),
            "{text}"
        );
    }
    record(&[(
        get("/x"),
        json_answer(200, &json!({"m": format!("access_token[0][1]={NEW}")})),
    )])
    .unwrap_err();
}

#[test]
fn bodies_that_name_a_secret_and_are_no_text_are_refused() {
    let json = format!("{{\"access_token\":\"{NEW}\"}}");
    let wide = |turn: fn(u16) -> [u8; 2]| json.encode_utf16().flat_map(turn).collect::<Vec<_>>();
    for body in [
        wide(u16::to_le_bytes),
        wide(u16::to_be_bytes),
        // MessagePack, CBOR and Protobuf.
        [b"\x81\xacaccess_token\xb4", NEW.as_bytes()].concat(),
        [b"\xa1\x6caccess_token\x74", NEW.as_bytes()].concat(),
        [b"\x0a\x0caccess-token\x12\x14", NEW.as_bytes()].concat(),
    ] {
        for media in ["application/json", "application/x-protobuf"] {
            let media = [("content-type", media)];
            record(&[(get("/x"), answer(200, &media, body.as_slice()))]).unwrap_err();
            record(&[(request("POST", "/x", &media, body.as_slice()), text("x"))]).unwrap_err();
        }
    }
    // Samples may name what they like, and other bytes name nothing.
    let bytes = b"\xff\0t\0o\0k\0e\0n\0".as_slice();
    record(&[(
        get("/malquery/entities/download-files/v1?ids=x"),
        answer(200, &[], bytes),
    )])
    .unwrap();
    record(&[(
        get("/x"),
        answer(200, &[], b"\xffsig\0cid\xffpwd".as_slice()),
    )])
    .unwrap();
}

#[test]
fn tags_with_attributes_and_other_notations_give_a_secret() {
    for message in [
        format!("<access_token type=\"bearer\">{NEW}</access_token>"),
        format!("<a:access_token\n x='1'>{NEW}</a:access_token>"),
        format!("<access_token><![CDATA[{NEW}]]></access_token>"),
        format!("s:12:\"access_token\";s:20:\"{NEW}\";"),
        format!("access_token={NEW}")
            .chars()
            .flat_map(|c| [c, '\0'])
            .collect(),
    ] {
        record(&[(get("/x"), json_answer(200, &json!({"message": message})))]).expect_err(&message);
        record(&[(get("/x"), text(message.as_str()))]).expect_err(&message);
    }
    for key in [
        format!("access_token%3D{NEW}"),
        base64_url(&format!("access_token: {NEW}")),
    ] {
        record(&[(get("/x"), json_answer(200, &json!({key.as_str(): 1})))]).expect_err(&key);
    }
    for message in [
        "<password/> is missing",
        "set <password of it> here",
        "<password a='1'/> is missing",
        "<token a=\"1\"></token>",
        "<token>[token]</token>",
    ] {
        record(&[(get("/x"), json_answer(200, &json!({"message": message})))]).expect(message);
    }
}

#[test]
fn a_secret_with_white_space_around_it_is_known_without() {
    let secret = "S3cretOfTheUser0123456789";
    let basic = format!("Basic {}", base64_url(&format!("an-id-0123:{secret}\n")));
    for sent in [
        login(&format!("{secret}\n")).0,
        login(&format!(" {secret} ")).0,
        request("POST", "/oauth2/token", &[("authorization", &basic)], ""),
    ] {
        let message = format!("no client has {secret}");
        let text = record(&[(
            sent,
            json_answer(403, &json!({"errors": [{"message": message}]})),
        )])
        .unwrap();
        assert!(!text.contains(secret), "{text}");
    }
}

#[test]
fn the_secrets_of_what_was_played_are_known_in_append_mode() {
    let (_folder, path) = folder();
    let key = "S3cretKeyOfTheUser0123456789";
    // The id is one of a cassette that a person wrote, and no secret of this session.
    let uri = "/malquery/entities/requests/v1?ids=abcdef0123456789";
    let login = || request("POST", uri, &[FORM], format!("client_secret={key}"));
    let (sent, form) = (
        json!({"method": "POST", "uri": uri}),
        json!([["client_secret", "[client_secret]"]]),
    );
    let mut one = json!({"id": "a", "request": sent, "response": {"status": 200}});
    one["request"]["body"] = json!({"form": form});
    fs::write(
        &path,
        json!({"version": 1, "interactions": [one]}).to_string(),
    )
    .unwrap();
    let echo = json_answer(400, &json!({"message": format!("no such user: {key}")}));
    let (transport, guard) = begin(&path, Mode::Append, Service(|_: &Sent| Ok(echo.clone())));
    take(&transport, login()).unwrap();
    take(&transport, get("/y")).unwrap();
    guard.close().unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert!(
        !text.contains(key) && text.contains("no such user: [client_secret]"),
        "{text}"
    );
}

#[test]
fn headers_of_a_request_that_give_a_secret_are_refused() {
    for (name, value) in [
        ("accept", "application/json; access_token="),
        ("content-type", "a/b; password="),
    ] {
        let sent = request("GET", "/x", &[(name, &format!("{value}{NEW}"))], "");
        let message = record(&[(sent, text("x"))]).unwrap_err();
        assert!(
            message.contains(name) && !message.contains(NEW),
            "{message}"
        );
    }
}

#[test]
fn ids_get_pseudonyms_whatever_they_are_made_of() {
    let id = "4711081512345";
    for reply in [
        json!({"user_id": id, "errors": [{"message": format!("by {id}")}]}),
        json!({"trace_id": id}),
        json!({"user_uuid": "4711"}),
        json!({"user_uuid": "04711081512345"}),
        json!({"user_id": 4_711_081_512_345_u64, "errors": [{"message": format!("by {id}")}]}),
        json!({"user_id": "jane.4711@corp.example", "errors": [{"message": "by jane.4711@corp.example"}]}),
        json!({"user_id": "jane.doe4711@corp.example"}),
    ] {
        let text = record(&[(get("/x"), json_answer(200, &reply))]).unwrap();
        assert!(!text.contains("4711"), "{text}");
    }
    let mail = "jane.doe@corp.example";
    let reply = json!({"userid": mail, "errors": [{"message": format!("by {mail}")}]});
    let text = record(&[(get("/x"), json_answer(200, &reply))]).unwrap();
    assert!(!text.contains("jane"), "{text}");
    // What is played is a number again, and another for another.
    let reply =
        json!({"users": [{"user_id": 4711}, {"user_id": 4712}, {"user_id": 4711}, {"user_id": 0}]});
    let text = record(&[(get("/x"), json_answer(200, &reply))]).unwrap();
    let ids: Vec<_> = text
        .split("\"user_id\": ")
        .skip(1)
        .map(|rest| &rest[..1])
        .collect();
    assert_eq!(ids, ["1", "2", "1", "0"], "{text}");
}

#[test]
fn an_id_that_may_be_a_word_stays_where_it_is_one() {
    let reply = json!({"userid": "operator", "label": "operator", "note": "the operator of it"});
    let text = record(&[(get("/x"), json_answer(200, &reply))]).unwrap();
    assert!(
        text.contains("\"label\": \"operator\"") && text.contains("the operator of it"),
        "{text}"
    );
    assert!(!text.contains("\"userid\": \"operator\""), "{text}");
}

#[test]
fn a_refusal_shows_no_part_of_a_secret_in_a_path() {
    let long = "abcd1234EFGH5678".repeat(6);
    for (secret, path, part) in [
        (
            "S3cret+Value/of=user",
            "/x/S3cret%2BValue%2Fof%3Duser",
            "S3cret-2BValue-2Fof-3Duser",
        ),
        (&long, &*format!("/x/{long}"), &long[..60]),
        (
            "prefix00/S3cretValueOfTheUser",
            "/x/prefix00/S3cretValueOfTheUser",
            "S3cretValueOfTheUser",
        ),
        (
            "S3cret+Value,of~the~user",
            "/x/S3cret+Value,of~the~user",
            "Value-of-the-user",
        ),
    ] {
        let message = record(&[login(secret), (get(path), text("x"))]).unwrap_err();
        assert!(!message.contains(part), "{message}");
        // Nor does what asks for the job that it began.
        let began = (
            get(path),
            json_answer(200, &json!({"meta": {"reqid": "abcdef0123456789"}})),
        );
        let poll = get("/malquery/entities/requests/v1?ids=abcdef0123456789");
        let message = record(&[login(secret), began, (poll, text("password: abc1"))]).unwrap_err();
        assert!(!message.contains(part), "{message}");
    }
}

fn one(request: serde_json::Value) -> malquery_mock::Mock {
    let one = json!({"id": "a", "request": request, "response": {"status": 200}});
    let file = json!({"version": 1, "interactions": [one]});
    malquery_mock::Cassette::parse("x", &file.to_string())
        .unwrap()
        .transport()
}

/// What is said of a request that nothing answers.
fn mismatch(recorded: serde_json::Value, sent: Sent) -> String {
    let mock = one(recorded);
    mock.send(sent).unwrap_err();
    mock.check().unwrap_err().to_string()
}

fn transcript(sent: Sent, got: Got) -> String {
    let transcript = Transcript::new(Service(|_: &Sent| Ok(got.clone())));
    take(&transcript, sent).unwrap();
    transcript.to_string()
}

#[test]
fn what_says_it_is_a_form_and_is_none_is_not_shown() {
    let form =
        json!({"form": [["client_id", "[client_id]"], ["client_secret", "[client_secret]"]]});
    for body in no_forms() {
        let sent = || request("POST", "/x", &[FORM], body.as_str());
        for shown in [
            mismatch(json!({"method": "POST", "uri": "/x", "body": form}), sent()),
            mismatch(
                json!({"method": "POST", "uri": "/x", "body": {"text": "x"}}),
                sent(),
            ),
            transcript(sent(), text("x")),
        ] {
            assert!(
                !shown.contains(NEW) && !shown.contains(&NEW[..12]),
                "{shown}"
            );
        }
    }
}

#[test]
fn paths_and_names_of_a_query_that_give_a_secret_are_not_shown() {
    for uri in [
        format!("/x;access_token={NEW}/y"),
        format!("/x?access_token%3D{NEW}"),
        format!("/x?%7B%22client_secret%22:%22{NEW}%22%7D"),
        format!("/x?%7B%22client_secret%22:%22{NEW}%22%7D=1"),
        format!("/x?%3Caccess_token+type=%22b%22%3E{NEW}"),
    ] {
        let message = mismatch(json!({"method": "GET", "uri": "/x?a=1"}), get(&uri));
        assert!(!message.contains(NEW), "{message}");
        let shown = transcript(get(&uri), text("x"));
        assert!(!shown.contains(NEW), "{shown}");
    }
    // What is no secret is told.
    let message = mismatch(json!({"method": "GET", "uri": "/x?a=1"}), get("/y?a=2"));
    assert!(
        message.contains("/x in the cassette, /y in the request"),
        "{message}"
    );
    assert!(
        message.contains("a: 1 in the cassette, 2 in the request"),
        "{message}"
    );
}

#[test]
fn a_token_that_is_no_json_is_not_shown() {
    for (media, body) in [
        ("text/plain", NEW.to_owned()),
        ("application/json", format!("\"{NEW}\"")),
        ("text/plain", format!("id {NEW}")),
        (FORM.1, format!("id={NEW}")),
    ] {
        let got = answer(201, &[("content-type", media)], body);
        let shown = transcript(
            request("POST", "/oauth2/token", &[FORM], "grant_type=x"),
            got,
        );
        assert!(!shown.contains(NEW), "{shown}");
    }
    // Nor where it comes again.
    let transcript = Transcript::new(Service(|request: &Sent| {
        Ok(if request.method() == "POST" {
            answer(201, &[], NEW)
        } else {
            text(format!("bad {NEW}"))
        })
    }));
    take(&transcript, request("POST", "/oauth2/token", &[], "")).unwrap();
    take(&transcript, get("/x")).unwrap();
    assert!(!transcript.to_string().contains(NEW), "{transcript}");
}

#[test]
fn a_secret_that_the_end_of_a_body_cuts_off_is_found() {
    let secret = "S3cretOfTheUser0123456789";
    let encoded = base64_url(&format!("it is {secret}"));
    for (body, read, is_refused) in [
        (format!("you sent {secret}"), 33, true),
        (format!("you sent {secret}"), 9, false),
        (encoded.clone(), encoded.len() - 6, true),
        (format!("\0 {secret}"), 26, true),
        // All of it can be replaced.
        (format!("you sent {secret} and more"), 36, false),
    ] {
        let service = |body: String| {
            Service(move |request: &Sent| {
                Ok(if request.uri().path() == "/x" {
                    text(body.as_str())
                } else {
                    json_answer(200, &json!({}))
                })
            })
        };
        let (_folder, path) = folder();
        let (transport, guard) = begin(&path, Mode::Record, service(body.clone()));
        let transcript = Transcript::new(transport);
        take(&transcript, login(secret).0).unwrap();
        let mut reply = transcript.send(get("/x")).unwrap().into_body();
        reply.read_exact(&mut vec![0; read]).unwrap();
        drop(reply);
        let shown = transcript.to_string();
        assert!(
            !shown.contains("S3cretOf") && !shown.contains(&encoded[..20]),
            "{shown}"
        );
        let result = guard.close().map_err(|error| error.to_string());
        assert_eq!(result.is_err(), is_refused, "{body}: {result:?}");
        assert!(
            !fs::read_to_string(&path)
                .unwrap_or_default()
                .contains("S3cretOf"),
            "{body}"
        );
    }
}

#[test]
fn what_looks_like_words_and_is_none_is_refused() {
    for message in [
        "access_token: expired1x".to_owned(),
        "access_token: abc:DEF".into(),
        format!("access_token: it is \"{NEW}\""),
        ":Win32/access_token=N".into(),
        "client_secret: abcdefghijklm".into(),
        "client_secret: abcdef-ghi".into(),
        "client_secret: 0123".into(),
        "access_token=expired".into(),
        "\"access_token\": \"expired\"".into(),
        format!("Basic {}", base64_url("id:\u{fe}\u{ff}\u{fe}")),
        "Basic c2VjcmV0X2tleTEy".into(),
        "token=...abcdef12".into(),
        "\"access_token\":[\"N\"]".into(),
        "x Win32/token=abc12345".into(),
    ] {
        record(&[(get("/x"), json_answer(200, &json!({"message": message})))]).expect_err(&message);
    }
    // A text that is no sentence of the service, such as a file of settings, may have a word for a secret.
    record(&[(get("/x"), text("client_secret: hunter"))]).unwrap_err();
}

#[test]
fn short_values_are_secrets_by_their_name_alone() {
    let echo = |word: &str| {
        (
            get("/x"),
            json_answer(200, &json!({"label": word, "note": format!("a {word}!")})),
        )
    };
    let reply = |key: &str, word: &str| (get("/y"), json_answer(200, &json!({key: word})));
    let token = |key: &str, word: &str| {
        (
            request("POST", "/oauth2/token", &[], ""),
            json_answer(201, &json!({key: word, "expires_in": 1})),
        )
    };
    for (word, first) in [
        ("abcdefgh", reply("client_secret", "abcdefgh")),
        // The same where nothing is known of the name, if it is too long for a word.
        ("abcdefghijklmnop", token("opaque", "abcdefghijklmnop")),
        ("abcdefg1", token("opaque", "abcdefg1")),
    ] {
        let text = record(&[first, echo(word)]).unwrap();
        assert!(!text.contains(word), "{text}");
    }
    let text = record(&[token("opaque", "malware-family"), echo("malware-family")]).unwrap();
    assert!(
        text.contains("\"label\": \"malware-family\"") && text.contains("\"opaque\": \"[token]\""),
        "{text}"
    );
}

#[test]
fn what_stands_for_a_secret_is_none() {
    for secret in ["[client_secret]", "", "null"] {
        record(&[login(secret), (get("/x"), text("null [client_secret]"))]).expect(secret);
    }
    // Short words between dots are no parts of a JWT.
    let text = record(&[
        login("first.user.name"),
        (get("/x"), text("the user and the name")),
    ])
    .unwrap();
    assert!(text.contains("the user and the name"), "{text}");
}

#[test]
fn an_id_without_zeros_and_dashes_gets_a_pseudonym_too() {
    for (id, stays) in [
        ("abcdef12", false),
        ("00000000-0000-0000-0000-000000000000", true),
    ] {
        let text =
            record(&[(get("/x"), json_answer(200, &json!({"meta": {"reqid": id}})))]).unwrap();
        assert_eq!(text.contains(id), stays, "{text}");
    }
}

#[test]
fn what_is_called_text_is_json_if_it_is_an_object_or_a_list() {
    for headers in [&[("content-type", "text/plain")][..], &[]] {
        let body = format!("{{\"client_secret\":\"{NEW}\"}}");
        let text = record(&[(get("/x"), answer(200, headers, body))]).unwrap();
        assert!(
            text.contains("\"client_secret\": \"[client_secret]\""),
            "{text}"
        );
        let text = record(&[(get("/x"), answer(200, headers, "12.50"))]).unwrap();
        assert!(text.contains("\"text\": \"12.50\""), "{text}");
    }
}

#[test]
fn a_location_is_recorded_without_its_secrets() {
    for (secret, other) in [(NEW, "[access_token]"), ("N1", "%5Baccess_token%5D")] {
        let location = format!("/y?access_token={secret}&a=b");
        let text = record(&[(get("/x"), answer(302, &[("location", &location)], ""))]).unwrap();
        assert!(
            text.contains(&format!("access_token={other}&a=b")),
            "{text}"
        );
    }
}

/// A body that breaks, and says what it was told.
struct Tells;

impl Read for Tells {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other(format!(
            "no route to http://user:{NEW}@proxy:3128/"
        )))
    }
}

impl Transport for Tells {
    fn send(&self, _: Sent) -> Result<http::Response<Body>, TransportError> {
        Ok(http::Response::new(Body::new(Self)))
    }
}

#[test]
fn a_transcript_shows_no_secret_of_what_broke_or_of_what_is_marked() {
    let transcript = Transcript::new(Tells);
    let mut sent = get("/x");
    let mut value = http::HeaderValue::from_static("m4rked");
    value.set_sensitive(true);
    sent.headers_mut().insert("x-marked", value);
    let mut reply = transcript.send(sent).unwrap().into_body();
    reply.read(&mut [0; 8]).unwrap_err();
    let shown = transcript.to_string();
    assert!(!shown.contains(NEW) && !shown.contains("m4rked"), "{shown}");
    assert!(
        shown.contains("< broken off after 0 bytes: [redacted]"),
        "{shown}"
    );
}
