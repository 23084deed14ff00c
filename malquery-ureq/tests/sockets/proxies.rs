//! Proxies, which carry only https.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use malquery_proto::flow::{Auth, SendFailure};
use malquery_proto::{Cloud, Credentials, Transport};
use malquery_ureq::{Client, SystemClock, UreqTransport};
use rcgen::SanType;
use rustls::ServerConfig;

use crate::server::{
    Ca, Server, Stream, builder, check, get, hang, json, read_request, reply, unused_port, wrap,
};

/// Starts a proxy that gives this answer and then acts as the host. Also returns its requests.
fn proxy(
    answer: &'static str,
    config: Arc<ServerConfig>,
    tls: bool,
) -> (Server, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    let server = Server::raw(move |stream| {
        let stream: Box<dyn Stream> = match tls {
            true => wrap(&config, stream).unwrap(),
            false => Box::new(stream),
        };
        let mut reader = BufReader::with_capacity(1, stream);
        let Some((head, _)) = read_request(&mut reader) else {
            return;
        };
        log.lock().unwrap().push(head);
        let mut stream = reader.into_inner();
        stream.write_all(answer.as_bytes()).unwrap();
        stream.flush().unwrap();
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
fn a_proxy_sees_only_the_request_to_connect() {
    let ca = Ca::new();
    let config = ca.server_with("api.example.test", |params| {
        let address = Ipv4Addr::LOCALHOST.into();
        params.subject_alt_names.push(SanType::IpAddress(address));
    });
    for (scheme, tls) in [("http", false), ("https", true)] {
        let answer = "HTTP/1.1 200 Connection established\r\nvia: proxy\r\n\r\n";
        let (server, asked) = proxy(answer, Arc::clone(&config), tls);
        let transport = builder()
            .proxy(format!(
                "{scheme}://user:p4ss%40word@127.0.0.1:{}",
                server.port
            ))
            .root_certificates(&ca.pem)
            .build()
            .unwrap();
        // The connection is used twice. The client does not look up the name, which does not exist.
        for _ in 0..2 {
            let mut request = get("https://api.example.test/path");
            request
                .headers_mut()
                .insert("authorization", "Bearer t0ken".parse().unwrap());
            let mut body = String::new();
            let reply = transport.send(request).unwrap();
            reply.into_body().read_to_string(&mut body).unwrap();
            assert_eq!(body, "{}");
        }
        let asked = asked.lock().unwrap();
        let agent = env!("CARGO_PKG_VERSION");
        assert_eq!(
            asked[0],
            format!(
                "CONNECT api.example.test:443 HTTP/1.1\r\nHost: api.example.test:443\r\n\
                 Proxy-Connection: Keep-Alive\r\nUser-Agent: malquery-ureq/{agent}\r\n\
                 Proxy-Authorization: Basic dXNlcjpwNHNzQHdvcmQ="
            )
        );
        assert_eq!(asked.len(), 3);
        for asked in &asked[1..] {
            assert!(asked.starts_with("GET /path HTTP/1.1\r\n"), "{asked}");
            assert!(asked.contains("Bearer t0ken"), "{asked}");
            assert!(!asked.to_lowercase().contains("proxy"), "{asked}");
        }
    }
}

#[test]
fn a_proxy_that_does_not_connect() {
    let ca = Ca::new();
    for (answer, failure, says, source) in [
        (
            "HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n",
            SendFailure::CannotSend,
            "requires a valid user name and password (set them in the proxy URL)",
            "status 407",
        ),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 Forbidden\r\n\r\n",
            SendFailure::CannotSend,
            "which does not allow the connection (ask its administrator",
            "status 403",
        ),
        (
            "HTTP/1.1 403 Forbidden\r\n\r\n",
            SendFailure::CannotSend,
            "which does not allow the connection (ask its administrator",
            "status 403",
        ),
        (
            "HTTP/1.1 502 Bad Gateway\r\n\r\n",
            SendFailure::NotSent,
            " (check the proxy)",
            "status 502",
        ),
        (
            "HTTP/1.1 429 Too Many Requests\r\n\r\n",
            SendFailure::NotSent,
            " (check the proxy)",
            "status 429",
        ),
        (
            "220 mail.example ESMTP\r\n\r\n",
            SendFailure::NotSent,
            " (check the proxy)",
            "invalid HTTP reply",
        ),
    ] {
        let (server, _) = proxy(answer, ca.server("api.example.test"), false);
        let transport = builder()
            .proxy(format!("http://user:p4ssw0rd@127.0.0.1:{}", server.port))
            .build()
            .unwrap();
        let error = transport
            .send(get("https://api.example.test/"))
            .unwrap_err();
        let to = format!(
            "could not connect to api.example.test:443 through the proxy 127.0.0.1:{}",
            server.port
        );
        check(&error, failure, &to, source);
        check(&error, failure, says, source);
        let shown = format!("{error:?}");
        assert!(
            !shown.contains("p4ssw0rd") && !shown.contains("ESMTP"),
            "{shown}"
        );
    }
    // The error names a proxy that cannot be reached.
    let port = unused_port();
    let transport = builder()
        .proxy(format!("http://127.0.0.1:{port}"))
        .build()
        .unwrap();
    let error = transport
        .send(get("https://api.example.test/"))
        .unwrap_err();
    let says = format!("could not connect to the proxy 127.0.0.1:{port}");
    check(&error, SendFailure::NotSent, &says, "refused");
    // A silent proxy fails at the connect timeout.
    let (server, _) = proxy("", ca.server("api.example.test"), false);
    let transport = builder()
        .proxy(format!("http://127.0.0.1:{}", server.port))
        .connect_timeout(Duration::from_millis(500))
        .build()
        .unwrap();
    let error = transport
        .send(get("https://api.example.test/"))
        .unwrap_err();
    check(&error, SendFailure::NotSent, "in time", "timed out");
}

/// Retrying a wrong password could lock the account.
#[test]
fn a_proxy_gets_a_wrong_password_once() {
    let http = Server::start(|_, out| reply(out, "407 Proxy Authentication Required", "", b""));
    let socks = Server::raw(|mut stream| {
        // The proxy requires a user name and a password, and rejects them.
        stream.read_exact(&mut [0; 4]).unwrap();
        stream.write_all(&[5, 2]).unwrap();
        stream.read_exact(&mut [0; 15]).unwrap();
        stream.write_all(&[1, 1]).unwrap();
    });
    for (scheme, server) in [("http", &http), ("socks5h", &socks)] {
        let transport = builder()
            .proxy(format!(
                "{scheme}://user:p4ssw0rd@127.0.0.1:{}",
                server.port
            ))
            .build()
            .unwrap();
        let auth = Auth::new(Cloud::Us1, Credentials::new("an-id", "a-secret"));
        let error = Client::new(transport, SystemClock, auth)
            .quotas()
            .unwrap_err();
        let shown = format!("{error:?}");
        assert!(shown.contains("set them in the proxy URL"), "{shown}");
        assert!(!shown.contains("p4ssw0rd"), "{shown}");
        assert_eq!(server.connections(), 1);
    }
}

#[test]
fn a_socks_proxy_that_refuses() {
    let (login, forbidden) = ("set them in the proxy URL", "does not allow the connection");
    for (url, answer, failure, says, source) in [
        (
            "socks5h://",
            &[5, 255][..],
            SendFailure::CannotSend,
            login,
            "auth methods",
        ),
        (
            "socks5h://",
            &[5, 2],
            SendFailure::CannotSend,
            login,
            "auth method",
        ),
        (
            "socks5h://user@",
            &[5, 2],
            SendFailure::CannotSend,
            login,
            "password",
        ),
        (
            "socks5h://",
            &[5, 0, 5, 2],
            SendFailure::CannotSend,
            forbidden,
            "ruleset",
        ),
        (
            "socks5h://",
            &[5, 0, 5, 1],
            SendFailure::NotSent,
            " (check the proxy)",
            "general",
        ),
        (
            "socks4a://",
            &[0, 92, 0, 0, 0, 0, 0, 0],
            SendFailure::CannotSend,
            forbidden,
            "identd",
        ),
        (
            "socks4a://",
            &[0, 93, 0, 0, 0, 0, 0, 0],
            SendFailure::CannotSend,
            forbidden,
            "identd",
        ),
    ] {
        let server = Server::raw(move |mut stream| {
            stream.write_all(answer).unwrap();
            hang();
        });
        let transport = builder()
            .proxy(format!("{url}127.0.0.1:{}", server.port))
            .build()
            .unwrap();
        let error = transport
            .send(get("https://api.example.test/"))
            .unwrap_err();
        check(&error, failure, says, source);
    }
}

#[test]
fn a_socks_proxy_is_used() {
    let ca = Ca::new();
    let config = ca.server("api.example.test");
    let server = Server::raw(move |mut stream| {
        // No authentication, then a name and a port, then success.
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
