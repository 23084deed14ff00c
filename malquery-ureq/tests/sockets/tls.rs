//! Certificates, and how TLS ends.

use std::io::{self, BufReader, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use malquery_proto::Transport;
use malquery_proto::flow::SendFailure;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::server::{Ca, Server, builder, check, get, hang, quotas, read_request, serve};

#[test]
fn a_certificate_is_trusted_with_its_root() {
    let ca = Ca::new();
    let server = serve(ca.server("127.0.0.1"));
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

    // Several certificates, in one text, in several texts or in a file. An unusable certificate is
    // ignored.
    let file = std::env::temp_dir().join(format!("malquery-roots-{}.pem", std::process::id()));
    let odd = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    std::fs::write(&file, format!("# The root\n{odd}{}", ca.pem)).unwrap();
    for transport in [
        builder().root_certificate_file(&file),
        builder().root_certificates(&ca.pem),
        builder().root_certificates(Ca::new().pem + &ca.pem),
        builder()
            .root_certificates(&ca.pem)
            .root_certificates(Ca::new().pem.trim_end()),
    ] {
        quotas(&url, transport.build().unwrap());
    }
    assert_eq!(server.seen().len(), 8);
}

#[test]
fn a_wrong_name_or_time_is_not_trusted() {
    let ca = Ca::new();
    let transport = || builder().root_certificates(&ca.pem).build().unwrap();
    let server = serve(ca.server("other.example"));
    let error = transport()
        .send(get(&format!("https://127.0.0.1:{}", server.port)))
        .unwrap_err();
    check(
        &error,
        SendFailure::CannotSend,
        "the certificate from 127.0.0.1:",
        "not valid for name",
    );
    let proxy = format!("https://127.0.0.1:{}", server.port);
    let builder = builder().root_certificates(&ca.pem).proxy(proxy);
    let error = builder
        .build()
        .unwrap()
        .send(get("https://api.example.test/"))
        .unwrap_err();
    let says = format!(
        "the certificate from the proxy 127.0.0.1:{} is for another name (check the proxy URL)",
        server.port
    );
    check(&error, SendFailure::CannotSend, &says, "not valid for name");
    assert!(server.seen().is_empty());

    let server = serve(ca.server_with("127.0.0.1", |params| {
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

/// Sends these bytes, and then ends TLS with or without notice, or stays silent.
fn answer(config: &Arc<ServerConfig>, bytes: &'static str, end: Option<bool>) -> Server {
    let config = Arc::clone(config);
    Server::raw(move |stream| {
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
    })
}

#[test]
fn a_connection_with_tls_that_ends_or_stalls() {
    let ca = Ca::new();
    let config = ca.server("127.0.0.1");
    let send = |bytes, end: Option<bool>| {
        let server = answer(&config, bytes, end);
        // Only a server that stays silent reaches the limit.
        let limit = Duration::from_secs(if end.is_none() { 1 } else { 60 });
        let builder = builder().root_certificates(&ca.pem).reply_timeout(limit);
        let url = format!("https://127.0.0.1:{}/", server.port);
        builder.build().unwrap().send(get(&url))
    };
    let no_reply = |bytes, end| send(bytes, end).unwrap_err();
    let body = |bytes, end| {
        let response = send(bytes, end).unwrap();
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
        "did not reply in time",
        "timed out",
    );

    let cut = Err(io::ErrorKind::UnexpectedEof);
    let with_length = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello";
    assert_eq!(body(with_length, Some(true)), cut);
    assert_eq!(body(with_length, Some(false)), cut);
    assert_eq!(body(with_length, None), Err(io::ErrorKind::TimedOut));
    // Here the body ends with TLS, but only if the end of TLS is announced.
    let without_length = "HTTP/1.1 200 OK\r\n\r\nhello";
    assert_eq!(body(without_length, Some(true)), Ok("hello".to_owned()));
    assert_eq!(body(without_length, Some(false)), cut);
    // A complete body needs no announced end of TLS.
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
