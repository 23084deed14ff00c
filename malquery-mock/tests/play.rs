//! Tests which interaction answers a request, and the messages if none does.

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};

use http::{Method, Request};
use malquery_mock::{Cassette, Fault, Mock, MockError, reply, script};
use malquery_proto::flow::SendFailure;
use malquery_proto::{Transport, TransportError};

fn cassette(interactions: &str) -> Cassette {
    let text = format!("{{\n\"version\": 1,\n\"interactions\": [{interactions}]}}");
    Cassette::parse("test.json", &text).unwrap()
}

/// A cassette with one interaction for this request.
fn expecting(request: &str) -> Mock {
    cassette(&format!(
        r#"{{"id": "one", "request": {request}, "response": {{"status": 200}}, "repeat_last": true}}"#
    ))
    .transport()
}

fn request(method: &str, uri: &str, body: &str) -> Request<Vec<u8>> {
    Request::builder()
        .method(method)
        .uri(uri)
        .body(body.as_bytes().to_vec())
        .unwrap()
}

fn with_authorization(mut request: Request<Vec<u8>>, value: &str) -> Request<Vec<u8>> {
    request
        .headers_mut()
        .insert("authorization", value.parse().unwrap());
    request
}

/// Returns the error of the mock.
fn cause(error: &TransportError) -> &MockError {
    error.source().unwrap().downcast_ref().unwrap()
}

fn refusal(mock: &Mock, request: Request<Vec<u8>>) -> String {
    let error = mock.send(request).unwrap_err();
    match cause(&error) {
        unmatched @ MockError::Unmatched(_) => {
            assert_eq!(error.failure(), SendFailure::CannotSend);
            unmatched.to_string()
        }
        other => panic!("{other:?}"),
    }
}

fn panic_of(f: impl FnOnce()) -> Option<String> {
    let payload = catch_unwind(AssertUnwindSafe(f)).err()?;
    Some(payload.downcast_ref::<String>().unwrap().clone())
}

const HUNT: &str = r#"{
    "method": "POST",
    "uri": "https://api.crowdstrike.com/malquery/queries/hunt/v1",
    "headers": [["authorization", "Bearer [access_token]"]],
    "body": { "json": {
        "options": { "limit": 100, "filter_filetypes": ["pe32", "pe64"] },
        "yara_rule": "rule gnu\n{\n  meta:\n    author = \"me\"\n  strings:\n    $a = \"GNU\"\n    $b = \"gnu\"\n  condition:\n    any of them\n}"
    } }
}"#;

#[test]
fn requests_match_by_meaning() {
    let mock = expecting(
        r#"{"method": "POST", "uri": "https://a/malquery/x?ids=1&ids=2&a=%20b",
            "body": {"json": {"a": 1, "b": [1.50, "x"]}}}"#,
    );
    for (uri, body) in [
        (
            "https://a/malquery/x?ids=1&ids=2&a=%20b",
            r#"{"a": 1, "b": [1.50, "x"]}"#,
        ),
        (
            "http://other:1/base/malquery/x?a=+b&ids=1&ids=2",
            r#"{"b":[15e-1,"\u0078"],"a":1.0}"#,
        ),
        ("/malquery/x?ids=1&a=%20b&ids=2", r#"{"b":[1.5,"x"],"a":1}"#),
    ] {
        mock.send(with_authorization(request("POST", uri, body), "Basic x"))
            .unwrap();
    }
    let good = r#"{"a":1,"b":[1.5,"x"]}"#;
    for (method, uri, body) in [
        ("PUT", "/malquery/x?ids=1&ids=2&a=%20b", good),
        ("POST", "/malquery/y?ids=1&ids=2&a=%20b", good),
        ("POST", "/malquery/x?ids=2&ids=1&a=%20b", good),
        ("POST", "/malquery/x?ids=1&ids=1&ids=2&a=%20b", good),
        ("POST", "/malquery/x?ids=1%2C2&a=%20b", good),
        ("POST", "/malquery/x?ids=1&ids=2&a=%20b", ""),
        (
            "POST",
            "/malquery/x?ids=1&ids=2&a=%20b",
            r#"{"a":1,"b":["x",1.5]}"#,
        ),
        (
            "POST",
            "/malquery/x?ids=1&ids=2&a=%20b",
            r#"{"a":1,"b":[1.5,"x"],"c":null}"#,
        ),
    ] {
        refusal(&mock, request(method, uri, body));
    }
}

#[test]
fn the_authorization_scheme_counts_when_headers_are_recorded() {
    let bearer = expecting(
        r#"{"method": "GET", "uri": "/x", "headers": [["Authorization", "Bearer [access_token]"]]}"#,
    );
    bearer
        .send(with_authorization(request("GET", "/x", ""), "bearer abc"))
        .unwrap();
    refusal(&bearer, request("GET", "/x", ""));
    refusal(
        &bearer,
        with_authorization(request("GET", "/x", ""), "Basic abc"),
    );
    let none = expecting(r#"{"method": "GET", "uri": "/x", "headers": []}"#);
    none.send(request("GET", "/x", "")).unwrap();
    refusal(
        &none,
        with_authorization(request("GET", "/x", ""), "Bearer abc"),
    );
}

#[test]
fn other_bodies_match_as_they_should() {
    let form = expecting(
        r#"{"method": "POST", "uri": "/x", "body": {"form": [["a", "[secret]"], ["b", "1 2"]]}}"#,
    );
    form.send(request("POST", "/x", "a=anything&b=1+2"))
        .unwrap();
    form.send(request("POST", "/x", "b=1%202&a=")).unwrap();
    for body in ["a=1", "a=1&b=2", "a=1&a=1&b=1+2", "a=1&b=1+2&c=", ""] {
        refusal(&form, request("POST", "/x", body));
    }
    let text = expecting(r#"{"method": "POST", "uri": "/x", "body": {"text": "{\"a\": 1}"}}"#);
    text.send(request("POST", "/x", r#"{"a": 1}"#)).unwrap();
    refusal(&text, request("POST", "/x", r#"{"a":1}"#));
    let absent = expecting(r#"{"method": "POST", "uri": "/x"}"#);
    absent.send(request("POST", "/x", "")).unwrap();
    refusal(&absent, request("POST", "/x", "x"));
}

#[test]
fn a_request_without_match_is_explained() {
    let mock = expecting(HUNT);
    let body = serde_json::json!({
        "options": { "limit": 10, "filter_filetypes": ["pe32"], "app": "x" },
        "yara_rule": "rule gnu\n{\n  meta:\n    author = \"me\"\n  strings:\n    $a = \"GNU\" wide\n    $b = \"gnu\"\n  condition:\n    all of them\n}",
    });
    let other = request("POST", "/malquery/queries/hunt/v1?dry=1", &body.to_string());
    insta::assert_snapshot!(refusal(
        &mock,
        with_authorization(other, "Basic aWQ6c2VjcmV0")
    ));
}

#[test]
fn every_kind_of_refusal_can_be_read() {
    let bytes = |len: usize| "x".repeat(len);
    let mock = cassette(
        r#"
{"id": "token", "request": {"method": "POST", "uri": "/oauth2/token",
    "body": {"form": [["client_id", "[client_id]"], ["client_secret", "recorded-by-mistake"]]}}, "response": {"status": 201}},
{"id": "poll", "request": {"method": "GET", "uri": "/malquery/entities/requests/v1?ids=a-job"}, "response": {"status": 200}, "times": 2},
{"id": "text", "request": {"method": "POST", "uri": "/text", "body": {"text": "a\nb\nc"}}, "response": {"status": 200}},
{"id": "bytes", "request": {"method": "POST", "uri": "/bytes", "body":
    {"base64": ["/w=="], "len": 1, "sha256": "a8100ae6aa1940d0b663bb31cd466142ebbdbd5187131b92d93818987832eb89"}}, "response": {"status": 200}}"#,
    )
    .transport();
    let poll = || request("GET", "/malquery/entities/requests/v1?ids=a-job", "");
    mock.send(poll()).unwrap();
    mock.send(poll()).unwrap();
    let messages = [
        poll(),
        request("GET", "/malquery/entities/requests/v1?ids=another-job", ""),
        request(
            "POST",
            "/oauth2/token",
            "client_id=an-id&client_secret=do-not-show&member_cid=nor-this",
        ),
        request("POST", "/text", "a\nB\nc"),
        request("POST", "/bytes", &bytes(20)),
        request("GET", "/text", ""),
        Request::builder()
            .method(Method::OPTIONS)
            .uri("*")
            .body(vec![0xff])
            .unwrap(),
    ]
    .map(|request| refusal(&mock, request));
    insta::assert_snapshot!(messages.join("\n\n---\n\n"));
    assert!(
        !messages.concat().contains("do-not-show")
            && !messages.concat().contains("recorded-by-mistake")
    );
}

#[test]
fn equal_requests_play_in_order() {
    let interaction = |status: u16, more: &str| {
        format!(
            r#"{{"id": "s{status}", "request": {{"method": "GET", "uri": "/x"}}, "response": {{"status": {status}}}{more}}}"#
        )
    };
    let statuses = |mock: &Mock, count: usize| -> Vec<u16> {
        (0..count)
            .map(|_| {
                mock.send(request("GET", "/x", ""))
                    .map_or(0, |reply| reply.status().as_u16())
            })
            .collect()
    };
    let two = [
        interaction(200, r#", "times": 2, "repeat_last": true"#),
        interaction(404, ""),
    ]
    .join(",");
    let mock = cassette(&two).transport();
    assert_eq!(statuses(&mock, 5), [200, 200, 404, 0, 0]);
    assert!(mock.check().is_err());
    let two = [
        interaction(404, ""),
        interaction(200, r#", "repeat_last": true"#),
    ]
    .join(",");
    let mock = cassette(&two).transport();
    assert_eq!(statuses(&mock, 4), [404, 200, 200, 200]);
    mock.check().unwrap();

    let (mock, guard) = script([reply::status(500), reply::status(204).times(2)]).play();
    assert_eq!(statuses(&mock, 3), [500, 204, 204]);
    guard.finish();
    let (mock, guard) = script([reply::status(500), reply::status(204).repeat_last()]).play();
    assert_eq!(statuses(&mock, 4), [500, 204, 204, 204]);
    guard.finish();
}

#[test]
fn the_guard_reports_all_that_is_wrong() {
    let two = r#"
{"id": "poll", "request": {"method": "GET", "uri": "/x"}, "response": {"status": 200}, "times": 2},
{"id": "fetch", "request": {"method": "GET", "uri": "/y"}, "response": {"status": 200}}"#;
    let line = std::cell::Cell::new(0);
    let message = panic_of(|| {
        line.set(line!() + 1);
        let (mock, guard) = cassette(two).play();
        mock.send(request("GET", "/x", "")).unwrap();
        for _ in 0..3 {
            mock.send(request("GET", "/z", "")).unwrap_err();
        }
        guard.finish();
    })
    .unwrap();
    insta::assert_snapshot!(message.replace(&format!("{}:{}:", file!(), line.get()), "FILE:LINE:"));

    // Dropping the guard does the same, but not while the test is already failing.
    let message = panic_of(|| drop(cassette(two).play())).unwrap();
    assert!(
        message.contains("2 of 2 replies were not played enough times"),
        "{message}"
    );
    let message = panic_of(|| {
        let (_mock, _guard) = cassette(two).play();
        panic!("{}", "of the test".to_owned());
    });
    assert_eq!(message.as_deref(), Some("of the test"));
}

#[test]
fn an_unwrapped_error_is_readable() {
    let (mock, _guard) = script([]).play();
    let message = panic_of(|| drop(mock.send(request("GET", "/x", "")).unwrap())).unwrap();
    insta::assert_snapshot!(message, @r#"
    called `Result::unwrap()` on an `Err` value: the request cannot be sent: no reply in the script answers the request
      GET /x
    there are no replies
    to fix this, add a reply
    "#);
    std::mem::forget(_guard);
}

/// The recorder leaves out token requests, so a recording answers them. A file that contains one
/// plays only that.
#[test]
fn a_recording_answers_token_requests() {
    let recorded = r#"{"id": "a", "request": {"method": "POST", "uri": "/oauth2/token"}, "response": {"status": 201}}"#;
    for (redaction, interactions, status) in [
        ("falcon-2", "", Some(201)),
        ("falcon-1", "", None),
        ("falcon-2", recorded, Some(201)),
    ] {
        let text = format!(
            r#"{{"version": 1, "redaction": "{redaction}", "interactions": [{interactions}]}}"#
        );
        let mock = Cassette::parse("test.json", &text).unwrap().transport();
        let send = || mock.send(request("POST", "/oauth2/token", ""));
        assert_eq!(send().ok().map(|reply| reply.status().as_u16()), status);
        // A recorded reply is used up.
        let again = status.filter(|_| interactions.is_empty());
        assert_eq!(send().ok().map(|reply| reply.status().as_u16()), again);
    }
}

#[test]
fn a_token_without_reply_names_the_remedy() {
    let token = || request("POST", "/oauth2/token", "");
    let message = refusal(&script([]).transport(), token());
    assert!(
        message.ends_with(
            "add a reply; if the cassette contains no token requests, call `with_tokens`"
        ),
        "{message}"
    );
    let recorded = r#"{"id": "a", "request": {"method": "POST", "uri": "/oauth2/token", "body": {"text": "x"}}, "response": {"status": 201}}"#;
    let mock = cassette(recorded).with_tokens().transport();
    let message = refusal(&mock, token());
    assert!(!message.contains("with_tokens"), "{message}");
}

#[test]
fn faults_say_whether_a_request_may_have_arrived() {
    let kinds = [
        (Fault::ConnectRefused, SendFailure::NotSent),
        (Fault::Dns, SendFailure::NotSent),
        (Fault::Tls, SendFailure::NotSent),
        (Fault::Timeout, SendFailure::Unknown),
        (Fault::Reset, SendFailure::Unknown),
        (Fault::Eof, SendFailure::Unknown),
    ];
    let (mock, guard) = script(kinds.map(|(fault, _)| reply::fault(fault))).play();
    for (fault, failure) in kinds {
        let error = mock.send(request("GET", "/x", "")).unwrap_err();
        assert!(matches!(cause(&error), MockError::Fault { fault: kind, .. } if *kind == fault));
        assert!(cause(&error).source().is_some());
        assert_eq!(error.failure(), failure);
    }
    guard.finish();
}

#[test]
fn bodies_come_in_pieces() {
    use std::io::Read;
    let long: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    let (mock, guard) = script([
        reply::bytes(200, "application/octet-stream", long.clone()),
        reply::bytes(200, "text/plain", "hello").truncate_after(4),
    ])
    .play();
    let mut body = mock.send(request("GET", "/x", "")).unwrap().into_body();
    let mut buffer = vec![0; 1 << 20];
    assert_eq!(body.read(&mut buffer).unwrap(), 3);
    let mut rest = Vec::new();
    body.read_to_end(&mut rest).unwrap();
    assert_eq!([&buffer[..3], &rest].concat(), long);

    let reply = mock.send(request("GET", "/x", "")).unwrap();
    assert_eq!(reply.headers().len(), 1);
    let mut body = reply.into_body();
    let mut text = String::new();
    let error = body.read_to_string(&mut text).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    assert_eq!(body.read(&mut []).unwrap(), 0);
    guard.finish();
}

#[test]
fn replies_and_faults_are_laid_over_a_cassette() {
    let polls = cassette(
        r#"{"id": "poll", "request": {"method": "GET", "uri": "/x"}, "response": {"status": 201}, "times": 3},
           {"id": "other", "request": {"method": "GET", "uri": "/y"}, "response": {"status": 204}},
           {"id": "poll", "request": {"method": "GET", "uri": "/x"}, "response": {"status": 202}, "repeat_last": true}"#,
    );
    let statuses = |cassette: Cassette, uris: &str| -> String {
        let (mock, guard) = cassette.play();
        let status = |uri: char| match mock.send(request("GET", &format!("/{uri}"), "")) {
            Ok(reply) => reply.status().as_str().to_owned(),
            Err(error) => match cause(&error) {
                MockError::Fault { fault, .. } => format!("{fault:?}"),
                error => panic!("{error}"),
            },
        };
        let all: Vec<_> = uris.chars().map(status).collect();
        guard.finish();
        all.join(" ")
    };
    let on = || polls.on("poll");
    let two = on()
        .nth(0)
        .fault(Fault::Eof)
        .on("other")
        .extra()
        .reply(reply::status(503));
    for (cassette, sent, expected) in [
        (polls.clone(), "xxxxyx", "201 201 201 202 204 202"),
        (
            on().nth(0).fault(Fault::Eof),
            "xxxxyx",
            "Eof 201 201 202 204 202",
        ),
        (
            on().nth(1).reply(reply::status(500)),
            "xxxxyx",
            "201 500 201 202 204 202",
        ),
        (
            on().nth(2).extra().fault(Fault::Dns),
            "xxxxxyx",
            "201 201 Dns 201 202 204 202",
        ),
        (
            on().nth(3).fault(Fault::Tls),
            "xxxxyx",
            "201 201 201 Tls 204 202",
        ),
        // This also works for a request beyond `times`, because the interaction repeats.
        (
            on().nth(5).fault(Fault::Tls),
            "xxxxxxyx",
            "201 201 201 202 202 Tls 204 202",
        ),
        (
            on().nth(3).extra().fault(Fault::Tls),
            "xxxxyx",
            "201 201 201 Tls 204 202",
        ),
        (
            on().fault(Fault::Timeout),
            "xxxxyx",
            "Timeout Timeout Timeout Timeout 204 Timeout",
        ),
        (two, "xxxxyyx", "Eof 201 201 202 503 204 202"),
    ] {
        assert_eq!(statuses(cassette, sent), expected);
    }
    let message = panic_of(|| drop(polls.on("fetch"))).unwrap();
    assert_eq!(
        message,
        "test.json has no interaction \"fetch\"; use one of: other, poll"
    );
    let message = panic_of(|| drop(script([reply::quotas()]).on("fetch"))).unwrap();
    assert_eq!(message, "the script has no interaction \"fetch\"");
    let message = panic_of(|| drop(polls.on("other").nth(1).fault(Fault::Eof))).unwrap();
    assert_eq!(
        message,
        "nth(1) is too high: the `times` of \"other\" in test.json add up to 1, and nth counts from 0"
    );
}

#[test]
fn the_closest_interaction_agrees_in_most() {
    // Of two equal interactions, the one that is not used up is closest.
    let one = |id: &str| {
        let request = r#"{"method": "GET", "uri": "/x"}"#;
        format!(r#"{{"id": "{id}", "request": {request}, "response": {{"status": 200}}}}"#)
    };
    let mock = cassette(&[one("a"), one("b")].join(",")).transport();
    mock.send(request("GET", "/x", "")).unwrap();
    let message = refusal(&mock, request("GET", "/y", ""));
    assert!(message.contains("interaction is \"b\""), "{message}");

    for ([a, b], (method, sent), expected) in [
        // The path has more weight than the method and the query together.
        ([("POST", "/y?a=1"), ("GET", "/x")], ("POST", "/x?a=1"), "b"),
        ([("GET", "/y?a=1"), ("POST", "/y")], ("POST", "/x?a=1"), "b"),
        // If two interactions match equally well, the one with fewer differences is closest.
        (
            [("GET", "/x?a=1&b=2"), ("GET", "/x?a=1&b=3")],
            ("GET", "/x?a=1&b=4&c=5"),
            "a",
        ),
        (
            [("GET", "/x?a=1&b=2"), ("GET", "/x?a=3&b=3")],
            ("GET", "/x?a=3&b=4"),
            "b",
        ),
    ] {
        let one = |id: &str, (method, uri): (&str, &str)| {
            format!(
                r#"{{"id": "{id}", "request": {{"method": "{method}", "uri": "{uri}"}}, "response": {{"status": 200}}}}"#
            )
        };
        let mock = cassette(&[one("a", a), one("b", b)].join(",")).transport();
        let message = refusal(&mock, request(method, sent, ""));
        assert!(
            message.contains(&format!("the closest interaction is \"{expected}\"")),
            "{message}"
        );
    }
}

#[test]
fn what_is_laid_over_repeats_and_is_named() {
    let one = cassette(
        r#"{"id": "one", "request": {"method": "GET", "uri": "/x"}, "response": {"status": 200}, "repeat_last": true}"#,
    );
    let statuses = |cassette: Cassette| {
        let mock = cassette.transport();
        let status = |_| {
            mock.send(request("GET", "/x", ""))
                .map_or(0, |reply| reply.status().as_u16())
        };
        [0; 4].map(status)
    };
    assert_eq!(statuses(one.on("one").fault(Fault::Eof)), [0; 4]);
    assert_eq!(
        statuses(one.on("one").extra().fault(Fault::Eof)),
        [0, 200, 200, 200]
    );
    let message = panic_of(|| drop(one.on("one").fault(Fault::Eof).play())).unwrap();
    assert!(message.contains("the overlay for \"one\""), "{message}");
}

#[test]
fn a_reply_breaks_off_within_its_body() {
    drop(reply::bytes(200, "text/plain", "hello").truncate_after(5));
    let message =
        panic_of(|| drop(reply::bytes(200, "text/plain", "hello").truncate_after(6))).unwrap();
    assert_eq!(
        message,
        "cannot truncate the body: offset 6 is past its end"
    );
    assert!(panic_of(|| drop(reply::fault(Fault::Eof).truncate_after(0))).is_some());
}
