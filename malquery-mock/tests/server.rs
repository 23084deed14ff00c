//! The stand-in over sockets: normal clients, unusual but valid HTTP, and hostile peers.

use std::io::{Cursor, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::schema::{self, Checked};
use malquery_mock::{Corpus, Server, Service, VirtualClock};
use malquery_proto::flow::Auth;
use malquery_proto::operations::{ExactSearch, FuzzySearch, Hunt};
use malquery_proto::types::{Pattern, Sha256};
use malquery_proto::{Archive, BaseUrl, Client, Credentials};
use malquery_ureq::UreqTransport;
use proptest::prelude::*;

const HELLO: &str = "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9";
/// A request without a rate limit.
const ANY: &str = "GET /any HTTP/1.1\r\nHost: localhost\r\n\r\n";
/// Far longer than anything in these tests takes.
const NO_HANG: Duration = Duration::from_secs(60);

fn start() -> Server {
    let service = Service::new(Corpus::from_bytes([b"hello world".to_vec()]));
    Server::start(service, (Ipv4Addr::LOCALHOST, 0).into()).unwrap()
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(NO_HANG)).unwrap();
    stream
}

/// Reads a reply: its head, and the number of bytes that it declares.
fn reply(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .unwrap_or("0");
    let mut body = vec![0; length.parse().unwrap()];
    if !head.starts_with("HTTP/1.1 100 ") {
        stream.read_exact(&mut body).unwrap();
    }
    if head.contains("content-type: application/json\r\n") {
        let status = head[9..12].parse().unwrap();
        assert!(schema::fits_any(status, &body), "{head}");
    }
    (head, body)
}

/// Returns the status and the message of the reply, and whether the server then closes.
fn ask(server: &Server, bytes: &[u8]) -> (String, String, bool) {
    let mut stream = connect(server);
    // A server that has refused a request may stop reading it.
    let _ = stream.write_all(bytes);
    let (head, body) = reply(&mut stream);
    stream
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let closed = matches!(stream.read(&mut [0]), Ok(0));
    assert_eq!(closed, head.contains("connection: close"), "{head}");
    (
        head[9..12].to_owned(),
        String::from_utf8(body).unwrap(),
        closed,
    )
}

/// Checks that the server still works.
fn goes_on(server: &Server) {
    let mut stream = connect(server);
    stream.write_all(ANY.as_bytes()).unwrap();
    let (head, body) = reply(&mut stream);
    assert!(head.starts_with("HTTP/1.1 404 Not Found\r\n"), "{head}");
    assert!(
        String::from_utf8(body)
            .unwrap()
            .contains("404: Page Not Found")
    );
}

fn token(stream: &mut TcpStream) -> String {
    let form = format!(
        "client_id={}&client_secret={}",
        Service::CLIENT_ID,
        Service::CLIENT_SECRET
    );
    let length = form.len();
    write!(
        stream,
        "POST /oauth2/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{form}"
    )
    .unwrap();
    let (head, body) = reply(stream);
    assert!(head.starts_with("HTTP/1.1 201 Created\r\n"), "{head}");
    let reply: serde_json::Value = serde_json::from_slice(&body).unwrap();
    reply["access_token"].as_str().unwrap().into()
}

#[test]
fn the_whole_way_over_sockets() {
    let service = Service::new(Corpus::from_bytes([
        b"hello world".to_vec(),
        b"hello night".to_vec(),
    ]));
    let server = Server::start(service.clone(), (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let base: BaseUrl = server.url().parse().unwrap();
    let credentials = Credentials::new(Service::CLIENT_ID, Service::CLIENT_SECRET);
    let transport = Checked(UreqTransport::new());
    // The clock makes the pauses between polls short.
    let client = Client::new(transport, VirtualClock::new(), Auth::new(base, credentials));
    let hello = || [Pattern::ascii("hello").unwrap()];

    assert_eq!(
        client
            .fuzzy_search(&FuzzySearch::new(hello()).limit(1))
            .unwrap()
            .resources
            .len(),
        1
    );
    let found = client
        .exact_search(&ExactSearch::new(hello()))
        .unwrap()
        .wait()
        .unwrap();
    let samples: Vec<Sha256> = found
        .resources
        .iter()
        .map(|found| found.sha256.unwrap())
        .collect();
    assert_eq!(samples.len(), 2);
    let rule = "rule night { strings: $a = \"night\" condition: $a }";
    if cfg!(feature = "yara") {
        let job = client.hunt(&Hunt::new(rule)).unwrap();
        assert_eq!(job.wait().unwrap().resources.len(), 1);
    }
    assert!(client.metadata(samples.clone()).unwrap().missing.is_empty());

    let job = client.samples_multidownload(samples.clone()).unwrap();
    job.wait().unwrap();
    let mut archive = Vec::new();
    client
        .samples(job.id())
        .unwrap()
        .output
        .read_to_end(&mut archive)
        .unwrap();
    let mut archive = Archive::open(Cursor::new(archive))
        .unwrap()
        .expect_samples(samples.clone());
    assert!(archive.check().unwrap().is_complete());
    for sample in &samples {
        let mut bytes = Vec::new();
        client
            .download(*sample)
            .unwrap()
            .output
            .read_to_end(&mut bytes)
            .unwrap();
        assert!(bytes.starts_with(b"hello "));
    }
    let quotas = client.quotas().unwrap();
    assert_eq!(
        (quotas.meta.hunt_count, quotas.meta.download_count),
        (Some(cfg!(feature = "yara").into()), Some(4))
    );
    client.revoke().unwrap();
    assert_eq!(service.counts().tokens, 1);
}

#[test]
fn one_connection_serves_requests_of_every_form() {
    let server = start();
    let mut stream = connect(&server);
    let token = token(&mut stream);
    let auth = format!("Host: localhost\r\nAuthorization: Bearer {token}\r\n");

    // Two requests at once are answered in order.
    let download =
        format!("GET /malquery/entities/download-files/v1?ids={HELLO} HTTP/1.1\r\n{auth}\r\n");
    let quotas = format!("GET /malquery/aggregates/quotas/v1 HTTP/1.1\r\n{auth}\r\n");
    write!(stream, "{download}{quotas}").unwrap();
    let (head, body) = reply(&mut stream);
    assert!(
        head.contains("content-type: application/octet-stream\r\n"),
        "{head}"
    );
    assert_eq!(body, b"hello world");
    let (head, body) = reply(&mut stream);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(
        String::from_utf8(body)
            .unwrap()
            .contains("\"download_count\":1")
    );

    // A chunked body.
    let body = r#"{"patterns":[{"type":"ascii","value":"hello"}]}"#;
    let (first, second) = body.split_at(20);
    let post = format!("POST /malquery/combined/fuzzy-search/v1 HTTP/1.1\r\n{auth}");
    write!(stream, "{post}Transfer-Encoding: chunked\r\n\r\n").unwrap();
    for part in [first, second, ""] {
        thread::sleep(Duration::from_millis(20));
        write!(stream, "{:x}\r\n{part}\r\n", part.len()).unwrap();
    }
    let (_, found) = reply(&mut stream);
    assert!(String::from_utf8(found).unwrap().contains(HELLO));

    // A body that is sent only after `100 Continue`.
    write!(
        stream,
        "{post}Content-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        body.len()
    )
    .unwrap();
    assert_eq!(reply(&mut stream).0, "HTTP/1.1 100 Continue\r\n\r\n");
    write!(stream, "{body}").unwrap();
    let (_, found) = reply(&mut stream);
    assert!(String::from_utf8(found).unwrap().contains(HELLO));

    // A reply to HEAD has no body, and the next reply can be read.
    write!(stream, "{}{quotas}", quotas.replace("GET", "HEAD")).unwrap();
    let mut bytes = [0; 12];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"HTTP/1.1 405");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut bytes[..1]).unwrap();
        head.push(bytes[0]);
    }
    assert!(reply(&mut stream).0.starts_with("HTTP/1.1 200 OK\r\n"));

    // `closed` is not `close`.
    let closed = quotas.replace("\r\n\r\n", "\r\nConnection: te, closed\r\n\r\n");
    write!(stream, "{closed}{quotas}").unwrap();
    for _ in 0..2 {
        assert!(reply(&mut stream).0.starts_with("HTTP/1.1 200 OK\r\n"));
    }

    // `Connection: Close`, and HTTP/1.0.
    for request in [
        quotas.replace("\r\n\r\n", "\r\nConnection: te, Close\r\n\r\n"),
        quotas.replace("HTTP/1.1", "HTTP/1.0"),
    ] {
        let mut stream = connect(&server);
        write!(stream, "{request}").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(
            text.starts_with("HTTP/1.1 200 OK\r\n") && text.contains("connection: close"),
            "{text}"
        );
    }
}

#[test]
fn malformed_requests_get_an_error() {
    let server = start();
    let host = "Host: localhost\r\n";
    let long = format!("GET /{} HTTP/1.1\r\n{host}\r\n", "x".repeat(40_000));
    let headers = format!("GET / HTTP/1.1\r\n{host}{}\r\n", "a: b\r\n".repeat(1000));
    let huge = format!("POST /oauth2/token HTTP/1.1\r\n{host}Content-Length: 1048577\r\n\r\n");
    let expecting = huge.replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n");
    let chunks = format!("POST /oauth2/token HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n");
    let large = [
        chunks.as_bytes(),
        b"1000001\r\n",
        &vec![b'x'; 0x100_0001],
        b"\r\n0\r\n\r\n",
    ]
    .concat();
    let post = |headers: &str| format!("POST /oauth2/token HTTP/1.1\r\n{host}{headers}\r\n");
    let old = |headers: &str| post(headers).replace("HTTP/1.1", "HTTP/1.0");
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("400", b"\0\0\0\0\r\n\r\n".to_vec()),
        ("400", b"GET\r\n\r\n".to_vec()),
        ("400", b"GET / HTTP/3.0\r\n\r\n".to_vec()),
        (
            "400",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        ),
        ("404", format!("GET /x HTTP/1.1\r\n{host}\r\n").into_bytes()),
        ("404", b"OPTIONS * HTTP/1.1\r\n\r\n".to_vec()),
        ("431", long.into_bytes()),
        ("400", headers.into_bytes()),
        ("413", huge.into_bytes()),
        ("413", expecting.into_bytes()),
        ("413", large),
        ("411", post("").into_bytes()),
        ("411", old("").into_bytes()),
        ("501", old("Transfer-Encoding: chunked\r\n").into_bytes()),
        ("400", post("Content-Length: -1\r\n").into_bytes()),
        (
            "400",
            post("Content-Length: 1\r\nContent-Length: 2\r\n").into_bytes(),
        ),
        (
            "400",
            post("Transfer-Encoding: chunked\r\n\r\nno number\r\n").into_bytes(),
        ),
        (
            "400",
            post("Content-Length: 7\r\n\r\n{\"a\": [").into_bytes(),
        ),
        ("501", post("Transfer-Encoding: gzip\r\n").into_bytes()),
        (
            "501",
            post("Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n").into_bytes(),
        ),
        (
            "501",
            post("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n").into_bytes(),
        ),
        (
            "501",
            format!("GET /any HTTP/1.1\r\n{host}Transfer-Encoding: xchunked\r\n\r\n").into_bytes(),
        ),
        (
            "421",
            b"GET /malquery/aggregates/quotas/v1 HTTP/1.1\r\nHost: attacker.example:80\r\n\r\n"
                .to_vec(),
        ),
        (
            "421",
            b"GET /malquery/aggregates/quotas/v1 HTTP/1.1\r\nHost: \xff\r\n\r\n".to_vec(),
        ),
        (
            "401",
            b"GET /malquery/aggregates/quotas/v1 HTTP/1.1\r\nHost: [::1]:80\r\n\r\n".to_vec(),
        ),
    ];
    for (expected, bytes) in cases {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]);
        let (status, body, _) = ask(&server, &bytes);
        assert_eq!(
            (&*status, body.contains("\"errors\"")),
            (expected, true),
            "{shown}: {body}"
        );
        goes_on(&server);
    }
}

#[test]
fn a_head_in_parts_is_not_too_large() {
    let server = start();
    for (length, status) in [(32 * 1024, "404"), (32 * 1024 + 1, "431")] {
        let fill = "x".repeat(length - ANY.len());
        let (first, rest) = ANY.split_at(8);
        let mut stream = connect(&server);
        write!(stream, "{first}").unwrap();
        // The server reads the parts separately, so that the end of a read is not the limit.
        thread::sleep(Duration::from_millis(100));
        write!(stream, "{fill}{rest}").unwrap();
        let (head, _) = reply(&mut stream);
        assert_eq!(&head[9..12], status);
    }
}

#[test]
fn a_length_that_is_in_doubt_is_refused() {
    let server = start();
    let unreadable = "the content-length must be one whole number";
    let both = "the request has both content-length and transfer-encoding";
    for (method, headers, expected) in [
        ("POST", "Content-Length: 47, 47\r\n", unreadable),
        (
            "POST",
            "Content-Length: 47\r\nContent-Length: 47\r\n",
            unreadable,
        ),
        (
            "POST",
            "Content-Length: 1\r\nContent-Length: 2\r\n",
            unreadable,
        ),
        ("POST", "Content-Length: +1\r\n", unreadable),
        ("POST", "Content-Length: 1 1\r\n", unreadable),
        ("POST", "Content-Length:\r\n", unreadable),
        (
            "POST",
            "Content-Length: 18446744073709551616\r\n",
            unreadable,
        ),
        // The body is not read.
        ("CONNECT", "Content-Length: +1\r\n", unreadable),
        (
            "POST",
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            both,
        ),
        (
            "POST",
            "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
            both,
        ),
        (
            "GET",
            "Transfer-Encoding: gzip\r\nContent-Length: 1\r\n",
            both,
        ),
    ] {
        // The bytes after it are not read as a second request.
        let request = format!("{method} /any HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n{ANY}");
        let mut stream = connect(&server);
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(
            text.starts_with("HTTP/1.1 400 Bad Request\r\n"),
            "{request}{text}"
        );
        assert!(
            text.contains("connection: close\r\n") && text.contains(expected),
            "{request}{text}"
        );
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{request}{text}");
    }
}

#[test]
fn an_unread_body_is_not_the_next_request() {
    let server = start();
    let last = ANY.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    let length = format!("Content-Length: {}\r\n", last.len());
    for (header, replies) in [
        (&*length, 1),
        ("Transfer-Encoding: chunked\r\n", 1),
        ("Content-Length: 0\r\n", 2),
        ("", 2),
    ] {
        let mut stream = connect(&server);
        write!(
            stream,
            "HEAD /any HTTP/1.1\r\nHost: localhost\r\n{header}\r\n{last}"
        )
        .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(
            text.matches("HTTP/1.1 404 ").count(),
            replies,
            "{header}{text}"
        );
        assert_eq!(
            text.matches("connection: close\r\n").count(),
            1,
            "{header}{text}"
        );

        let mut stream = connect(&server);
        write!(
            stream,
            "CONNECT /any HTTP/1.1\r\nHost: localhost\r\n{header}\r\n{last}"
        )
        .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text.matches("HTTP/1.1 ").count(), replies, "{header}{text}");
        assert_eq!(
            text.matches("connection: close\r\n").count(),
            1,
            "{header}{text}"
        );
    }
}

#[test]
fn a_request_that_is_cut_gets_a_400() {
    let server = start();
    let request =
        "POST /oauth2/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nclient_id=";
    let chunked = "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab";
    for cut in ["", &request[..1], &request[..20], request, chunked] {
        let mut stream = connect(&server);
        stream.write_all(cut.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        if cut.is_empty() {
            assert_eq!(text, "");
            continue;
        }
        assert!(
            text.starts_with("HTTP/1.1 400 Bad Request\r\n"),
            "{cut}: {text}"
        );
        assert!(text.contains("connection: close\r\n"), "{cut}: {text}");
        assert!(text.contains("the request ended early"), "{cut}: {text}");
    }
    // Clients that leave before the reply.
    for _ in 0..50 {
        let mut stream = connect(&server);
        stream.write_all(ANY.as_bytes()).unwrap();
    }
    goes_on(&server);
}

/// This needs more open files than many systems allow, so it runs in a process with a higher limit.
#[cfg(unix)]
#[test]
fn connections_beyond_a_thousand_are_refused() {
    const INNER: &str = "MALQUERY_TEST_INNER";
    if std::env::var_os(INNER).is_none() {
        let inner = std::process::Command::new("sh")
            .args(["-c", "ulimit -n 4096 && exec \"$0\" --exact \"$1\""])
            .arg(std::env::current_exe().unwrap())
            .arg("server::connections_beyond_a_thousand_are_refused")
            .env(INNER, "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&inner.stdout);
        assert!(
            inner.status.success() && text.contains("1 passed"),
            "{text}"
        );
        return;
    }
    let server = start();
    let open = |number: usize| {
        let mut stream = connect(&server);
        // Connections are accepted in order. The system drops some if many wait.
        if number < 1024 && number.is_multiple_of(64) {
            stream.write_all(ANY.as_bytes()).unwrap();
            reply(&mut stream);
        }
        stream
    };
    let mut held: Vec<TcpStream> = (0..1100).map(open).collect();
    // Send no request: the reply may arrive before it, and the system may then discard the reply.
    for mut refused in held.drain(1024..) {
        let mut text = String::new();
        refused.read_to_string(&mut text).unwrap();
        assert!(
            text.starts_with("HTTP/1.1 503 Service Unavailable\r\n"),
            "{text}"
        );
        assert!(text.contains("too many connections"), "{text}");
    }
    for stream in held.iter_mut().rev().step_by(93) {
        stream.write_all(ANY.as_bytes()).unwrap();
        assert!(reply(stream).0.starts_with("HTTP/1.1 404 "));
    }
    drop(held);
    // The server notices after a while that the clients have left.
    let end = Instant::now() + NO_HANG;
    let served = || {
        let mut stream = connect(&server);
        let mut status = [0; 12];
        stream.write_all(ANY.as_bytes()).is_ok()
            && stream.read_exact(&mut status).is_ok()
            && &status == b"HTTP/1.1 404"
    };
    while !served() {
        assert!(Instant::now() < end);
    }
}

#[test]
fn it_listens_only_at_loopback_by_default() {
    let service = Service::new(Corpus::from_bytes([b"hello".to_vec()]));
    let any: SocketAddr = (Ipv4Addr::UNSPECIFIED, 0).into();
    let error = Server::start(service.clone(), any).unwrap_err();
    assert_eq!(
        error.to_string(),
        "0.0.0.0 is not a loopback address, so other machines could fetch samples; use 127.0.0.1 or ::1"
    );
    let server = Server::start_anywhere(service, any).unwrap();
    let url = format!("http://127.0.0.1:{}", server.address().port());
    assert_eq!(server.url(), url);
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, server.address().port())).unwrap();
    write!(stream, "{}", ANY.replace("localhost", "samples.example")).unwrap();
    assert!(reply(&mut stream).0.starts_with("HTTP/1.1 404 "));
}

#[test]
fn it_stops_when_it_is_dropped() {
    let server = start();
    let address = server.address();
    assert_eq!(server.url(), format!("http://{address}"));
    let mut idle = connect(&server);
    let mut busy = connect(&server);
    busy.write_all(b"POST / HTTP/1.1\r\n").unwrap();
    goes_on(&server);
    drop(server);
    for stream in [&mut idle, &mut busy] {
        assert!(!matches!(stream.read(&mut [0]), Ok(count) if count > 0));
    }
    // The address is free again.
    TcpListener::bind(address).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn any_bytes_get_a_reply(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            "(GET|POST) [/a-z?=]{0,20} HTTP/1.[01]\r\n([A-Za-z-]{1,20}: [ -~]{0,20}\r\n){0,4}\r\n.{0,40}"
                .prop_map(String::into_bytes),
        ],
    ) {
        thread_local!(static SERVER: Server = start());
        SERVER.with(|server| {
            let mut stream = connect(server);
            let _ = stream.write_all(&bytes);
            let _ = stream.shutdown(Shutdown::Write);
            let mut text = Vec::new();
            let _ = stream.read_to_end(&mut text);
            prop_assert_eq!(text.is_empty(), bytes.is_empty());
            prop_assert!(text.is_empty() || text.starts_with(b"HTTP/1.1 "));
            goes_on(server);
            Ok(())
        })?;
    }
}
