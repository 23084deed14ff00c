//! What goes over the wire when all is well.

use std::io::{Read, Write};
use std::sync::Mutex;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::{Method, StatusCode};
use malquery_proto::client::Error;
use malquery_proto::flow::{Auth, RetryPolicy, SendFailure};
use malquery_proto::operation::Operation;
use malquery_proto::operations::{ExactSearch, FuzzySearch, Hunt};
use malquery_proto::stream::StreamError;
use malquery_proto::types::{Pattern, RequestId, Sha256};
use malquery_proto::{Client, Credentials, Transport};
use malquery_ureq::{SystemClock, UreqTransport};
use sha2::Digest;

use crate::faults::cause;
use crate::server::{Seen, Server, Then, get, hang, json, reply, request, token};

const ID: &str = "0a1b2c3d-1111-2222-6ea1-444455556666";
/// The smallest zip archive: an empty one.
const ARCHIVE: &[u8] = b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
const SAMPLE: &[u8] = b"MZ\x90\0\xff\r\n\r\n a sample";

fn sample() -> Sha256 {
    Sha256::from_bytes(sha2::Sha256::digest(SAMPLE).into())
}

fn client(server: &Server) -> Client {
    malquery_ureq::client(
        server.url("").parse::<malquery_proto::BaseUrl>().unwrap(),
        Credentials::new("an-id", "p4ss&word"),
    )
    .retry(RetryPolicy::never())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// What a request looks like on the wire.
fn head(server: &Server, line: &str, headers: &[&str]) -> String {
    let mut head = format!("{line} HTTP/1.1\r\nhost: 127.0.0.1:{}", server.port);
    for header in headers {
        head += "\r\n";
        head += header;
    }
    head
}

#[test]
fn the_nine_operations_and_the_token_byte_by_byte() {
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
        head(
            &server,
            &format!("POST {path}"),
            &[&length, agent, accept, kind, bearer, any],
        )
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
                &[&length, agent, accept, kind, any],
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
    // The order of the headers is ureq's affair.
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
fn a_request_without_a_body_has_nothing_of_one_and_a_post_a_length_of_zero() {
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
fn a_redirect_is_a_reply_and_is_not_followed() {
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
fn connections_are_used_again_but_not_for_what_is_billed() {
    let server = Server::start(|request, out| match token(request, out) {
        true => Then::Go,
        false => json(out, r#"{"meta":{"reqid":"an-id"},"resources":[]}"#),
    });
    let client = client(&server);
    client.quotas().unwrap();
    client.quotas().unwrap();
    let hunt = Hunt::new("rule r { condition: true }");
    let _ = client.hunt(&hunt).unwrap();
    client.quotas().unwrap();
    let _ = client.hunt(&hunt).unwrap();
    let used: Vec<_> = server
        .seen()
        .iter()
        .map(|request| request.connection)
        .collect();
    // The token, two quotas | a hunt, quotas | a hunt.
    assert_eq!(used, [1, 1, 1, 2, 2, 3]);
}

#[test]
fn a_hunt_does_not_meet_a_connection_that_was_closed_while_idle() {
    // The server promises to keep the connection, and closes it.
    let server = Server::start(|request, out| {
        if !token(request, out) {
            json(out, r#"{"meta":{"reqid":"an-id"},"resources":[]}"#);
        }
        Then::Close
    });
    let client = client(&server);
    let hunt = Hunt::new("rule r { condition: true }");
    for _ in 0..20 {
        let _ = client.hunt(&hunt).unwrap();
    }
}

#[test]
fn a_compressed_document_is_decoded() {
    for coding in ["gzip", "GZIP", "x-gzip"] {
        let server = Server::start(move |request, out| {
            if token(request, out) {
                return Then::Go;
            }
            let body = gzip(br#"{"meta":{"hunt_count":7}}"#);
            reply(
                out,
                "200 OK",
                &format!("content-encoding: {coding}\r\n"),
                &body,
            )
        });
        let client = client(&server);
        assert_eq!(client.quotas().unwrap().meta.hunt_count, Some(7));
        // The end of the body was read, so the connection was kept.
        assert_eq!(client.quotas().unwrap().meta.hunt_count, Some(7));
        assert_eq!(server.connections(), 1);
        let response = UreqTransport::new().send(get(&server.url("/"))).unwrap();
        assert!(!response.headers().contains_key("content-encoding"));
        assert!(!response.headers().contains_key("content-length"));
    }
}

#[test]
fn a_sample_is_not_decoded_even_when_it_comes_compressed() {
    let server = Server::start(|request, out| {
        if token(request, out) {
            return Then::Go;
        }
        assert_eq!(request.header("accept-encoding"), Some("identity"));
        reply(out, "200 OK", "content-encoding: gzip\r\n", &gzip(SAMPLE))
    });
    let client = client(&server);
    for mut download in [
        client.download(sample()).unwrap().output,
        client.samples(&ID.parse().unwrap()).unwrap().output,
    ] {
        let mut body = Vec::new();
        let error = download.read_to_end(&mut body).unwrap_err();
        let error = error
            .get_ref()
            .unwrap()
            .downcast_ref::<StreamError>()
            .unwrap();
        assert_eq!(*error, StreamError::Encoded("gzip".into()));
        assert_eq!(body, b"");
        assert!(download.received().is_none());
    }
}

#[test]
fn a_sample_comes_as_it_is_with_its_length() {
    // One that is itself compressed.
    let sample = gzip(b"within");
    let expected = sample.clone();
    let server = Server::start(move |_, out| reply(out, "200 OK", "", &sample));
    let mut request = get(&server.url("/"));
    request
        .headers_mut()
        .insert("accept-encoding", "identity".parse().unwrap());
    let response = UreqTransport::new().send(request).unwrap();
    assert_eq!(
        response.headers()["content-length"],
        expected.len().to_string().as_str()
    );
    let mut body = Vec::new();
    response.into_body().read_to_end(&mut body).unwrap();
    assert_eq!(body, expected);
}

#[test]
fn the_error_of_a_download_is_decoded_since_it_is_a_document() {
    let server = Server::start(|request, out| {
        if token(request, out) {
            return Then::Go;
        }
        let body = gzip(br#"{"errors":[{"code":404,"message":"no such sample"}]}"#);
        reply(out, "404 Not Found", "content-encoding: gzip\r\n", &body)
    });
    let error = client(&server).download(sample()).unwrap_err();
    assert!(error.to_string().contains("no such sample"), "{error}");
}

#[test]
fn a_fuzzy_search_may_take_longer() {
    let server = Server::start(|_, out| {
        std::thread::sleep(Duration::from_millis(1500));
        json(out, "{}")
    });
    let transport = UreqTransport::builder()
        .reply_timeout(Duration::from_millis(200))
        .search_timeout(Duration::from_secs(60))
        .build()
        .unwrap();
    let mut search = request(Method::POST, &server.url("/"));
    search.extensions_mut().insert(FuzzySearch::ENDPOINT);
    transport.send(search).unwrap();
    let mut hunt = request(Method::POST, &server.url("/"));
    hunt.extensions_mut().insert(Hunt::ENDPOINT);
    assert_eq!(
        transport.send(hunt).unwrap_err().failure(),
        SendFailure::Unknown
    );
}

#[test]
fn a_large_body_streams_in_large_reads() {
    const SIZE: usize = 32 << 20;
    let server = Server::start(|_, out| {
        let _ = write!(out, "HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n");
        let chunk = vec![7; 1 << 20];
        for _ in 0..SIZE / chunk.len() {
            let _ = out.write_all(&chunk);
        }
        Then::Go
    });
    let mut body = UreqTransport::new()
        .send(get(&server.url("/")))
        .unwrap()
        .into_body();
    let (mut total, mut largest) = (0, 0);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = body.read(&mut buffer).unwrap();
        if count == 0 {
            break;
        }
        total += count;
        largest = largest.max(count);
        // Lets the server get ahead.
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(total, SIZE);
    assert!(largest <= 512 * 1024);
    println!("the largest read: {largest}");
}

#[test]
fn the_user_agent_is_the_one_set() {
    let server = Server::start(|_, out| json(out, "{}"));
    let transport = UreqTransport::builder()
        .user_agent("my-tool/1.0")
        .build()
        .unwrap();
    transport.send(get(&server.url("/"))).unwrap();
    assert_eq!(server.seen()[0].header("user-agent"), Some("my-tool/1.0"));
}

#[test]
fn plain_http_goes_to_loopback_alone_and_never_through_a_proxy() {
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
        assert_eq!(error.failure(), SendFailure::CannotSend, "{url}");
        let error = cause(&error);
        assert!(error.to_string().ends_with("; use https"), "{error}");
    }
    assert_eq!((proxy.connections(), server.connections()), (0, 1));
}

#[test]
fn a_token_from_elsewhere_will_do() {
    let server = Server::start(|_, out| json(out, "{}"));
    let bearer = malquery_proto::credentials::BearerToken::new("an0ther").unwrap();
    let base: malquery_proto::BaseUrl = server.url("").parse().unwrap();
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
    assert_eq!(client.base().to_string(), server.url(""));
}

static LOG: Mutex<String> = Mutex::new(String::new());

struct Log;

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        // ureq dumps what it sends and receives, at this level alone; the crate docs say so.
        if record.target().starts_with("ureq_proto") && record.level() == log::Level::Trace {
            return;
        }
        *LOG.lock().unwrap() += &format!("{} {}\n", record.target(), record.args());
    }

    fn flush(&self) {}
}

#[test]
fn logs_errors_and_debug_show_no_secret() {
    log::set_logger(&Log).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let server = Server::start(|request: &Seen, out| {
        if request.line().starts_with("POST /oauth2/token") {
            return reply(
                out,
                "201 Created",
                "",
                br#"{"access_token":"l0gged-token","expires_in":1799}"#,
            );
        }
        match request.line().contains("quotas") {
            true => json(out, "{}"),
            false => hang(),
        }
    });
    let transport = UreqTransport::builder()
        .reply_timeout(Duration::from_secs(3))
        .build()
        .unwrap();
    let base: malquery_proto::BaseUrl = server.url("").parse().unwrap();
    let auth = Auth::new(base, Credentials::new("an-id", "l0gged-secret"));
    let client = Client::new(transport, SystemClock, auth).retry(RetryPolicy::never());
    client.quotas().unwrap();
    let error = client
        .hunt(&Hunt::new("rule l0gged_rule { condition: true }"))
        .unwrap_err();
    assert!(matches!(&error, Error::Flow { .. }));
    let shown = format!("{error} {error:?} {client:?} {}", LOG.lock().unwrap());
    assert!(shown.contains("ureq"), "the logs are there");
    assert!(
        !shown.contains("l0gged"),
        "{}",
        shown.lines().find(|line| line.contains("l0gged")).unwrap()
    );
}
