//! Certificates, and proxies, which are for https.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use malquery_proto::flow::{Auth, RetryPolicy, SendFailure};
use malquery_proto::{BaseUrl, Client, Credentials, Transport};
use malquery_ureq::{Builder, SystemClock, UreqTransport};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::faults::{cause, check};
use crate::server::{Server, Stream, Then, get, hang, json, read_request, token};

struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    fn server(&self, name: &str, change: impl Fn(&mut CertificateParams)) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        Arc::new(config)
    }
}

fn wrap(config: &Arc<ServerConfig>, stream: TcpStream) -> io::Result<Box<dyn Stream>> {
    let connection = ServerConnection::new(Arc::clone(config)).unwrap();
    Ok(Box::new(StreamOwned::new(connection, stream)))
}

fn serve(config: Arc<ServerConfig>) -> Server {
    Server::wrapped(
        move |stream| wrap(&config, stream),
        |request, out| match token(request, out) {
            true => Then::Go,
            false => json(out, r#"{"meta":{"hunt_count":5}}"#),
        },
    )
}

fn builder() -> Builder {
    UreqTransport::builder().no_proxy()
}

fn quotas(url: &str, transport: UreqTransport) -> Option<i64> {
    let auth = Auth::new(
        url.parse::<BaseUrl>().unwrap(),
        Credentials::new("an-id", "p4ssw0rd"),
    );
    let client = Client::new(transport, SystemClock, auth).retry(RetryPolicy::never());
    client
        .quotas()
        .unwrap()
        .meta
        .hunt_count
        .and_then(|count| i64::try_from(count).ok())
}

#[test]
fn a_certificate_is_trusted_when_its_root_is_given() {
    let ca = Ca::new();
    let server = serve(ca.server("127.0.0.1", |_| {}));
    let url = format!("https://127.0.0.1:{}", server.port);

    let error = builder().build().unwrap().send(get(&url)).unwrap_err();
    check(
        &error,
        SendFailure::CannotSend,
        "add its root certificate",
        "invalid peer certificate",
    );
    let other = builder().root_certificates(Ca::new().pem).build().unwrap();
    let error = other.send(get(&url)).unwrap_err();
    check(
        &error,
        SendFailure::CannotSend,
        "is not trusted",
        "invalid peer certificate",
    );
    assert!(server.seen().is_empty());

    // Several certificates, given in one text or one after the other.
    for transport in [
        builder().root_certificates(&ca.pem),
        builder().root_certificates(Ca::new().pem + &ca.pem),
        builder()
            .root_certificates(&ca.pem)
            .root_certificates(Ca::new().pem.trim_end()),
    ] {
        assert_eq!(quotas(&url, transport.build().unwrap()), Some(5));
    }
    assert_eq!(server.seen().len(), 6);
}

#[test]
fn a_certificate_for_another_name_or_time_is_not_trusted() {
    let ca = Ca::new();
    let transport = || builder().root_certificates(&ca.pem).build().unwrap();
    let server = serve(ca.server("other.example", |_| {}));
    let error = transport()
        .send(get(&format!("https://127.0.0.1:{}", server.port)))
        .unwrap_err();
    check(
        &error,
        SendFailure::CannotSend,
        "is for another name than 127.0.0.1",
        "not valid for name",
    );
    assert!(server.seen().is_empty());

    let server = serve(ca.server("127.0.0.1", |params| {
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    }));
    let error = transport()
        .send(get(&format!("https://127.0.0.1:{}", server.port)))
        .unwrap_err();
    check(
        &error,
        SendFailure::CannotSend,
        "check the clock",
        "expired",
    );
    assert!(server.seen().is_empty());
}

#[test]
fn connections_with_tls_are_used_again() {
    let ca = Ca::new();
    let server = serve(ca.server("localhost", |_| {}));
    let transport = builder().root_certificates(&ca.pem).build().unwrap();
    let url = format!("https://localhost:{}", server.port);
    assert_eq!(quotas(&url, transport.clone()), Some(5));
    assert_eq!(quotas(&url, transport), Some(5));
    assert_eq!(server.connections(), 1);
}

/// Answers with these bytes, and then ends TLS with or without notice, or stays silent.
fn answer(config: &Arc<ServerConfig>, bytes: &'static str, end: Option<bool>) -> String {
    let config = Arc::clone(config);
    let server = Server::raw(move |stream| {
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = BufReader::new(StreamOwned::new(connection, stream));
        read_request(&mut stream).unwrap();
        let mut stream = stream.into_inner();
        stream.write_all(bytes.as_bytes()).unwrap();
        match end {
            Some(true) => stream.conn.send_close_notify(),
            Some(false) => {}
            None => hang(),
        }
        stream.flush().unwrap();
    });
    format!("https://127.0.0.1:{}/", server.port)
}

#[test]
fn a_connection_with_tls_that_ends_or_stalls() {
    let ca = Ca::new();
    let config = ca.server("127.0.0.1", |_| {});
    let transport = builder()
        .root_certificates(&ca.pem)
        .reply_timeout(Duration::from_secs(3))
        .build()
        .unwrap();
    let no_reply = |bytes, end| {
        transport
            .send(get(&answer(&config, bytes, end)))
            .unwrap_err()
    };
    let body = |bytes, end| {
        let response = transport.send(get(&answer(&config, bytes, end))).unwrap();
        let mut text = String::new();
        let result = response.into_body().read_to_string(&mut text);
        result.map(|_| text).map_err(|error| error.kind())
    };

    for end in [true, false] {
        let error = no_reply("", Some(end));
        check(&error, SendFailure::Unknown, "broke before the reply", "");
        let error = no_reply("HTTP/1.1 200 OK\r\n", Some(end));
        check(&error, SendFailure::Unknown, "broke before the reply", "");
    }
    let error = no_reply("", None);
    check(
        &error,
        SendFailure::Unknown,
        "no reply from 127.0.0.1 in time",
        "timed out",
    );

    let cut = Err(io::ErrorKind::UnexpectedEof);
    let with_length = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello";
    assert_eq!(body(with_length, Some(true)), cut);
    assert_eq!(body(with_length, Some(false)), cut);
    assert_eq!(body(with_length, None), Err(io::ErrorKind::TimedOut));
    // Here the end of TLS is the end of the body, and only an announced one is.
    let without_length = "HTTP/1.1 200 OK\r\n\r\nhello";
    assert_eq!(body(without_length, Some(true)), Ok("hello".to_owned()));
    assert_eq!(body(without_length, Some(false)), cut);
    // A body that is whole needs no notice.
    assert_eq!(
        body(
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
            Some(false)
        ),
        Ok("hello".to_owned())
    );
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    assert_eq!(body(chunked, Some(false)), Ok("hello".to_owned()));
}

/// A proxy that answers as told, and goes on as the host asked for when it lets through.
fn proxy(answer: &'static str, config: Arc<ServerConfig>) -> (Server, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    let server = Server::raw(move |stream| {
        let mut reader = BufReader::with_capacity(1, stream);
        let Some((head, _)) = read_request(&mut reader) else {
            return;
        };
        log.lock().unwrap().push(head);
        let mut stream = reader.into_inner();
        stream.write_all(answer.as_bytes()).unwrap();
        if answer.is_empty() {
            hang();
        }
        let mut stream = BufReader::new(wrap(&config, stream).unwrap());
        while stream.fill_buf().is_ok_and(|bytes| !bytes.is_empty()) {
            let Some((head, _)) = read_request(&mut stream) else {
                return;
            };
            log.lock().unwrap().push(head);
            json(stream.get_mut(), "{}");
        }
    });
    (server, asked)
}

#[test]
fn a_proxy_is_asked_to_connect_and_sees_nothing_else() {
    let ca = Ca::new();
    let (server, asked) = proxy(
        "HTTP/1.1 200 Connection established\r\n\r\n",
        ca.server("api.example.test", |_| {}),
    );
    let transport = UreqTransport::builder()
        .proxy(format!("http://user:p4ss%40word@127.0.0.1:{}", server.port))
        .root_certificates(&ca.pem)
        .build()
        .unwrap();
    let mut request = get("https://api.example.test/path");
    request
        .headers_mut()
        .insert("authorization", "Bearer t0ken".parse().unwrap());
    let mut body = String::new();
    // The name is not looked up here: it does not exist.
    transport
        .send(request)
        .unwrap()
        .into_body()
        .read_to_string(&mut body)
        .unwrap();
    assert_eq!(body, "{}");
    let asked = asked.lock().unwrap();
    assert!(
        asked[0].starts_with("CONNECT api.example.test:443 HTTP/1.1\r\n"),
        "{}",
        asked[0]
    );
    assert!(
        asked[0].contains("\r\nProxy-Authorization: Basic dXNlcjpwNHNzQHdvcmQ="),
        "{}",
        asked[0]
    );
    assert!(!asked[0].contains("t0ken"));
    assert!(asked[1].starts_with("GET /path HTTP/1.1\r\n") && asked[1].contains("Bearer t0ken"));
    assert!(!asked[1].to_lowercase().contains("proxy"), "{}", asked[1]);
}

#[test]
fn a_proxy_that_does_not_connect() {
    let ca = Ca::new();
    for answer in [
        "HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 502 Bad Gateway\r\n\r\n",
        "220 mail.example ESMTP\r\n\r\n",
    ] {
        let (server, _) = proxy(answer, ca.server("api.example.test", |_| {}));
        let transport = UreqTransport::builder()
            .proxy(format!("http://user:p4ssw0rd@127.0.0.1:{}", server.port))
            .build()
            .unwrap();
        let error = transport
            .send(get("https://api.example.test/"))
            .unwrap_err();
        check(
            &error,
            SendFailure::NotSent,
            "the proxy gave no connection to api.example.test",
            "",
        );
        let source = std::error::Error::source(cause(&error)).unwrap();
        let shown = format!("{error:?} {source}");
        assert!(
            !shown.contains("p4ssw0rd") && !shown.contains("ESMTP"),
            "{shown}"
        );
    }
    // One that is not there is named itself.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let transport = UreqTransport::builder()
        .proxy(format!("http://127.0.0.1:{port}"))
        .build()
        .unwrap();
    let error = transport
        .send(get("https://api.example.test/"))
        .unwrap_err();
    check(
        &error,
        SendFailure::NotSent,
        "no connection to 127.0.0.1",
        "refused",
    );
    // One that is silent takes as long as a connection may.
    let (server, _) = proxy("", ca.server("api.example.test", |_| {}));
    let transport = UreqTransport::builder()
        .proxy(format!("http://127.0.0.1:{}", server.port))
        .connect_timeout(Duration::from_millis(500))
        .build()
        .unwrap();
    let error = transport
        .send(get("https://api.example.test/"))
        .unwrap_err();
    check(&error, SendFailure::NotSent, "in time", "timed out");
}

#[test]
fn a_socks_proxy_is_used() {
    let ca = Ca::new();
    let config = ca.server("api.example.test", |_| {});
    let server = Server::raw(move |mut stream| {
        // No authentication; then a name and a port, and success.
        let mut hello = [0; 2];
        stream.read_exact(&mut hello).unwrap();
        stream.read_exact(&mut vec![0; hello[1].into()]).unwrap();
        stream.write_all(&[5, 0]).unwrap();
        let mut ask = [0; 5];
        stream.read_exact(&mut ask).unwrap();
        assert_eq!(ask[..4], [5, 1, 0, 3]);
        let mut name = vec![0; usize::from(ask[4]) + 2];
        stream.read_exact(&mut name).unwrap();
        assert_eq!(name, b"api.example.test\x01\xbb");
        stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
        let mut stream = BufReader::new(wrap(&config, stream).unwrap());
        read_request(&mut stream).unwrap();
        json(stream.get_mut(), "{}");
        hang();
    });
    let transport = UreqTransport::builder()
        .proxy(format!("socks5h://127.0.0.1:{}", server.port))
        .root_certificates(&ca.pem)
        .build()
        .unwrap();
    let mut body = String::new();
    let response = transport.send(get("https://api.example.test/")).unwrap();
    response.into_body().read_to_string(&mut body).unwrap();
    assert_eq!(body, "{}");
}
