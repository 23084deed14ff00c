//! Requests as sent over the wire, and their replies.

use std::io::Read;

use http::{Method, StatusCode};
use malquery_proto::credentials::BearerToken;
use malquery_proto::flow::{Auth, RetryPolicy, SendFailure};
use malquery_proto::operations::{ExactSearch, FuzzySearch, Hunt};
use malquery_proto::types::{Pattern, RequestId, Sha256};
use malquery_proto::{BaseUrl, Credentials, Transport};
use malquery_ureq::{Client, SystemClock, UreqTransport};
use sha2::Digest;

use crate::server::{
    QUOTAS, Server, Then, builder, check, get, json, quotas, reply, request, token,
};

pub(crate) const ID: &str = "0a1b2c3d-1111-2222-6ea1-444455556666";
/// An empty zip archive.
const ARCHIVE: &[u8] = b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
pub(crate) const SAMPLE: &[u8] = b"MZ\x90\0\xff\r\n\r\n a sample";

pub(crate) fn sample() -> Sha256 {
    Sha256::from_bytes(sha2::Sha256::digest(SAMPLE).into())
}

pub(crate) fn client(server: &Server) -> Client {
    let base: BaseUrl = server.url("").parse().unwrap();
    malquery_ureq::client(base, Credentials::new("an-id", "p4ss&word")).retry(RetryPolicy::never())
}

/// Returns the expected head of a request.
fn head(server: &Server, line: &str, headers: &[&str]) -> String {
    let mut head = format!("{line} HTTP/1.1\r\nhost: 127.0.0.1:{}", server.port);
    for header in headers {
        head += "\r\n";
        head += header;
    }
    head
}

#[test]
fn each_operation_byte_by_byte() {
    let server = Server::start(|request, out| {
        if token(request, out) {
            return Then::Go;
        }
        let path = request.line().split([' ', '?']).nth(1).unwrap();
        match path.strip_prefix("/malquery/").unwrap() {
            "aggregates/quotas/v1" => json(out, r#"{"meta":{"hunt_count":3},"errors":[]}"#),
            "entities/download-files/v1" => reply(out, "200 OK", "", SAMPLE),
            "entities/samples-fetch/v1" => reply(out, "200 OK", "", ARCHIVE),
            "entities/requests/v1" => {
                json(out, r#"{"meta":{"status":"inprogress"},"resources":[]}"#)
            }
            path if path.starts_with("queries/") || path.contains("multidownload") => json(
                out,
                &format!(r#"{{"meta":{{"reqid":"{ID}","status":"done"}},"resources":[]}}"#),
            ),
            _ => json(out, r#"{"meta":{},"resources":[{"label":"malware"}]}"#),
        }
    });
    let client = client(&server);
    let pattern = || Pattern::hex("8948208b48").unwrap();
    let id: RequestId = ID.parse().unwrap();

    assert_eq!(client.quotas().unwrap().meta.hunt_count, Some(3));
    assert_eq!(
        client
            .fuzzy_search(&FuzzySearch::new([pattern()]))
            .unwrap()
            .resources
            .len(),
        1
    );
    let mut body = Vec::new();
    client
        .download(sample())
        .unwrap()
        .output
        .read_to_end(&mut body)
        .unwrap();
    assert_eq!(body, SAMPLE);
    assert_eq!(
        client
            .metadata([sample(), sample()])
            .unwrap()
            .resources
            .len(),
        1
    );
    assert!(client.request(&id).unwrap().resources.is_empty());
    body.clear();
    client
        .samples(&id)
        .unwrap()
        .output
        .read_to_end(&mut body)
        .unwrap();
    assert_eq!(body, ARCHIVE);
    assert_eq!(client.samples_multidownload([sample()]).unwrap().id(), &id);
    assert_eq!(
        client
            .exact_search(&ExactSearch::new([pattern()]))
            .unwrap()
            .id(),
        &id
    );
    assert_eq!(
        client
            .hunt(&Hunt::new("rule r { condition: true }"))
            .unwrap()
            .id(),
        &id
    );

    let agent = concat!("user-agent: malquery-ureq/", env!("CARGO_PKG_VERSION"));
    let accept = "accept: application/json";
    let bearer = "authorization: Bearer t0ken";
    let hash = sample();
    let any = "accept-encoding: gzip";
    let raw = "accept-encoding: identity";
    let read = |path: &str| {
        head(
            &server,
            &format!("GET {path}"),
            &[agent, accept, bearer, any],
        )
    };
    let bytes = |path: &str, accept: &str| {
        head(
            &server,
            &format!("GET {path}"),
            &[agent, accept, raw, bearer],
        )
    };
    let write = |path: &str, body: &str| {
        let length = format!("content-length: {}", body.len());
        let kind = "content-type: application/json";
        let mut lines = vec![&*length, agent, accept, kind, bearer, any];
        // The connection of a submission is not used again.
        if !path.contains("fuzzy") {
            lines.push("connection: close");
        }
        head(&server, &format!("POST {path}"), &lines)
    };
    let patterns = r#"{"patterns":[{"type":"hex","value":"8948208b48"}]}"#;
    let samples = format!(r#"{{"samples":["{hash}"]}}"#);
    let rule = r#"{"yara_rule":"rule r { condition: true }"}"#;
    let form = "client_id=an-id&client_secret=p4ss%26word";
    let length = format!("content-length: {}", form.len());
    let kind = "content-type: application/x-www-form-urlencoded";
    let expected = [
        (
            head(
                &server,
                "POST /oauth2/token",
                &[&length, agent, accept, kind, any, "connection: close"],
            ),
            form,
        ),
        (read("/malquery/aggregates/quotas/v1"), ""),
        (
            write("/malquery/combined/fuzzy-search/v1", patterns),
            patterns,
        ),
        (
            bytes(
                &format!("/malquery/entities/download-files/v1?ids={hash}"),
                "accept: application/octet-stream",
            ),
            "",
        ),
        (
            read(&format!(
                "/malquery/entities/metadata/v1?ids={hash}&ids={hash}"
            )),
            "",
        ),
        (
            read(&format!("/malquery/entities/requests/v1?ids={ID}")),
            "",
        ),
        (
            bytes(
                &format!("/malquery/entities/samples-fetch/v1?ids={ID}"),
                "accept: application/zip",
            ),
            "",
        ),
        (
            write("/malquery/entities/samples-multidownload/v1", &samples),
            &samples,
        ),
        (
            write("/malquery/queries/exact-search/v1", patterns),
            patterns,
        ),
        (write("/malquery/queries/hunt/v1", rule), rule),
    ];
    let seen = server.seen();
    assert_eq!(seen.len(), expected.len());
    // ureq decides the order of the headers.
    let sorted = |head: &str| {
        let mut lines: Vec<_> = head.split("\r\n").map(str::to_owned).collect();
        lines[1..].sort();
        lines
    };
    for (seen, (head, body)) in seen.iter().zip(&expected) {
        assert_eq!(sorted(&seen.head), sorted(head));
        assert_eq!(seen.body, *body);
    }
}

#[test]
fn an_empty_body_is_sent_as_none() {
    let server = Server::start(|_, out| json(out, "{}"));
    let transport = UreqTransport::new();
    for method in [Method::GET, Method::POST] {
        transport.send(request(method, &server.url("/"))).unwrap();
    }
    let seen = server.seen();
    for name in [
        "content-length",
        "content-type",
        "transfer-encoding",
        "expect",
    ] {
        assert_eq!(seen[0].header(name), None, "{name}");
    }
    assert_eq!(seen[1].header("content-length"), Some("0"));
    assert_eq!(seen[1].header("transfer-encoding"), None);
}

#[test]
fn any_status_is_a_reply_with_its_body() {
    let server = Server::start(|request, out| {
        let status = request.line().split(['/', ' ']).nth(2).unwrap().to_owned();
        reply(
            out,
            &format!("{status} Word"),
            "x-cs-traceid: a-trace\r\n",
            b"why",
        )
    });
    let transport = UreqTransport::new();
    for status in [200, 201, 304, 400, 401, 403, 404, 429, 500, 503] {
        let response = transport
            .send(get(&server.url(&format!("/{status}"))))
            .unwrap();
        assert_eq!(response.status(), StatusCode::from_u16(status).unwrap());
        assert_eq!(response.headers()["x-cs-traceid"], "a-trace");
        if status != 304 {
            let mut body = String::new();
            response.into_body().read_to_string(&mut body).unwrap();
            assert_eq!(body, "why");
        }
    }
}

#[test]
fn a_redirect_is_not_followed() {
    for (status, method) in [
        ("308 Permanent Redirect", Method::POST),
        ("308 Permanent Redirect", Method::GET),
        ("302 Found", Method::GET),
        ("303 See Other", Method::POST),
    ] {
        for body in ["", "moved"] {
            let server = Server::start(move |_, out| {
                reply(
                    out,
                    status,
                    "location: /there\r\nx-cs-region: us-2\r\n",
                    body.as_bytes(),
                )
            });
            let response = UreqTransport::new()
                .send(request(method.clone(), &server.url("/here")))
                .unwrap();
            assert_eq!(response.status().as_str(), &status[..3]);
            assert_eq!(response.headers()["location"], "/there");
            assert_eq!(response.headers()["x-cs-region"], "us-2");
            let mut text = String::new();
            response.into_body().read_to_string(&mut text).unwrap();
            assert_eq!(text, body);
            assert_eq!(server.seen().len(), 1);
        }
    }
}

#[test]
fn the_token_endpoint_leads_to_no_foreign_host() {
    let other = Server::start(|_, out| json(out, "{}"));
    let location = format!("location: {}\r\n", other.url("/oauth2/token"));
    let server = Server::start(move |_, out| reply(out, "308 Permanent Redirect", &location, b""));
    let error = client(&server).quotas().unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::PERMANENT_REDIRECT));
    assert_eq!((server.seen().len(), other.connections()), (1, 0));
}

#[test]
fn the_user_agent_and_headers_are_added() {
    let server = Server::start(|request, out| match token(request, out) {
        true => Then::Go,
        false => json(out, QUOTAS),
    });
    let transport = builder()
        .user_agent("my-tool/1.0")
        .header("X-Gateway-Key", "the first")
        .header("x-gateway-key", "g4teway")
        .build()
        .unwrap();
    quotas(&server.url(""), transport.clone());
    let mut own = get(&server.url("/"));
    let key = "x-gateway-key";
    own.headers_mut().insert(key, "mine".parse().unwrap());
    transport.send(own).unwrap();
    let seen = server.seen();
    assert_eq!(seen.len(), 3);
    for request in &seen {
        assert_eq!(request.header("user-agent"), Some("my-tool/1.0"));
    }
    let keys: Vec<_> = seen.iter().map(|request| request.header(key)).collect();
    // The last value applies, and it replaces no header of the request.
    assert_eq!(keys, [Some("g4teway"), Some("g4teway"), Some("mine")]);
    assert!(!format!("{transport:?}").contains("g4teway"));
}

#[test]
fn plain_http_goes_to_loopback_alone() {
    let proxy = Server::start(|_, out| json(out, "{}"));
    let server = Server::start(|_, out| json(out, "{}"));
    let transport = UreqTransport::builder()
        .proxy(format!("http://127.0.0.1:{}", proxy.port))
        .build()
        .unwrap();
    transport.send(get(&server.url("/"))).unwrap();
    for url in [
        "http://api.crowdstrike.com/",
        "http://192.0.2.1/",
        "http://[2001:db8::1]/",
        &format!("http://127.0.0.1:{}@elsewhere.example/", server.port),
    ] {
        let error = transport.send(get(url)).unwrap_err();
        check(&error, SendFailure::CannotSend, "; use https", "");
    }
    for url in ["ftp://api.crowdstrike.com/", "/path"] {
        let error = transport.send(get(url)).unwrap_err();
        let says = "the URL of the request must begin with https://";
        check(&error, SendFailure::CannotSend, says, "");
    }
    assert_eq!((proxy.connections(), server.connections()), (0, 1));
}

#[test]
fn a_token_from_elsewhere_is_sent() {
    let server = Server::start(|_, out| json(out, QUOTAS));
    let bearer = BearerToken::new("an0ther").unwrap();
    let base: BaseUrl = server.url("").parse().unwrap();
    let client = Client::new(
        UreqTransport::new(),
        SystemClock,
        Auth::with_token(base, bearer),
    );
    client.quotas().unwrap();
    assert_eq!(
        server.seen()[0].header("authorization"),
        Some("Bearer an0ther")
    );
}
