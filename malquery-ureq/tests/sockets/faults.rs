//! Failures before the body, and how errors describe them.

use std::error::Error;
use std::io::Write;
use std::time::{Duration, Instant};

use malquery_proto::Transport;
use malquery_proto::flow::SendFailure;

use crate::server::{
    NO_HANG, Server, after_request, builder, check, drip, get, hang, impatient, patient, reset,
    unused_port,
};

#[test]
fn a_refused_connection() {
    let port = unused_port();
    let error = patient()
        .send(get(&format!("http://127.0.0.1:{port}/")))
        .unwrap_err();
    let says = format!("could not connect to 127.0.0.1:{port} (check the network");
    check(&error, SendFailure::NotSent, &says, "refused");
}

#[test]
fn a_name_that_does_not_exist() {
    // Without a network, the lookup may take a long time.
    let builder = builder().connect_timeout(Duration::from_secs(20));
    let proxy = builder.clone().proxy("http://no-such-proxy.invalid:3128");
    for (builder, says) in [
        (
            builder,
            "could not resolve no-such-host.invalid:443 (check the cloud or the base URL",
        ),
        (
            proxy,
            "could not resolve the proxy no-such-proxy.invalid:3128 (check the proxy URL",
        ),
    ] {
        let request = get("https://no-such-host.invalid/");
        let error = builder.build().unwrap().send(request).unwrap_err();
        check(&error, SendFailure::NotSent, says, "");
    }
}

#[test]
fn a_port_that_does_not_speak_tls() {
    let silent = Server::raw(|_stream| hang());
    let transport = builder()
        .connect_timeout(Duration::from_millis(500))
        .build()
        .unwrap();
    let error = transport
        .send(get(&format!("https://127.0.0.1:{}/", silent.port)))
        .unwrap_err();
    let says = format!("could not connect to 127.0.0.1:{} in time", silent.port);
    check(&error, SendFailure::NotSent, &says, "timed out");

    let plain = Server::raw(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
        hang();
    });
    let error = patient()
        .send(get(&format!("https://127.0.0.1:{}/", plain.port)))
        .unwrap_err();
    check(
        &error,
        SendFailure::NotSent,
        "the TLS handshake with 127.0.0.1:",
        "",
    );

    let closing = Server::raw(reset);
    let error = patient()
        .send(get(&format!("https://127.0.0.1:{}/", closing.port)))
        .unwrap_err();
    check(
        &error,
        SendFailure::NotSent,
        "could not connect to 127.0.0.1:",
        "",
    );
}

#[test]
fn a_reset_and_an_end_before_the_head() {
    let server = Server::raw(reset);
    let error = patient().send(get(&server.url("/"))).unwrap_err();
    let says = format!("the connection to 127.0.0.1:{} broke before", server.port);
    check(&error, SendFailure::Unknown, &says, "");

    for sent in ["", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n"] {
        let server = after_request(move |mut stream| stream.write_all(sent.as_bytes()).unwrap());
        let error = patient().send(get(&server.url("/"))).unwrap_err();
        check(
            &error,
            SendFailure::Unknown,
            "broke before the reply",
            "Peer disconnected",
        );
    }
}

#[test]
fn a_head_that_stalls() {
    for sent in ["", "HTTP/1.1 200 OK\r\ncontent-le"] {
        let server = after_request(move |mut stream| {
            stream.write_all(sent.as_bytes()).unwrap();
            hang();
        });
        let start = Instant::now();
        let error = impatient().send(get(&server.url("/"))).unwrap_err();
        assert!(start.elapsed() < NO_HANG);
        let says = format!("127.0.0.1:{} did not reply in time", server.port);
        check(&error, SendFailure::Unknown, &says, "timed out");
    }
}

#[test]
fn a_head_that_trickles() {
    let server = after_request(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx: ");
        drip(stream);
    });
    let start = Instant::now();
    let error = impatient().send(get(&server.url("/"))).unwrap_err();
    assert!(start.elapsed() < NO_HANG);
    let says = format!("127.0.0.1:{} did not reply in time", server.port);
    check(&error, SendFailure::Unknown, &says, "timed out");
}

#[test]
fn a_head_that_is_not_http() {
    let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "x".repeat(1 << 20));
    for (sent, says) in [
        (
            "SSH-2.0-OpenSSH_9.6\r\n\r\n",
            "invalid HTTP reply from HOST",
        ),
        (
            "HTTP/1.1 two hundred\r\n\r\n",
            "invalid HTTP reply from HOST",
        ),
        (&endless, "the head of the reply from HOST is too large"),
    ] {
        let sent = sent.to_owned();
        let server = after_request(move |mut stream| {
            let _ = stream.write_all(sent.as_bytes());
            hang();
        });
        let error = patient().send(get(&server.url("/"))).unwrap_err();
        let says = says.replace("HOST", &format!("127.0.0.1:{}", server.port));
        check(&error, SendFailure::Unknown, &says, "");
        let whole = format!("{error} {error:?} {}", error.source().unwrap());
        assert!(
            !whole.contains("OpenSSH") && !whole.contains("xxx"),
            "{whole}"
        );
    }
}
