//! What goes wrong, and what is said of it.

use std::error::Error;
use std::io::{self, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use malquery_proto::client::TimeLeft;
use malquery_proto::flow::SendFailure;
use malquery_proto::{Transport, TransportError};
use malquery_ureq::{UreqError, UreqTransport};

use crate::server::{Server, get, hang, read_request};

/// Far beyond the timeouts of the tests, however slow the machine.
const NO_HANG: Duration = Duration::from_secs(40);

pub(crate) fn impatient() -> UreqTransport {
    UreqTransport::builder()
        .no_proxy()
        .reply_timeout(Duration::from_secs(3))
        .build()
        .unwrap()
}

/// What this transport said.
pub(crate) fn cause(error: &TransportError) -> &UreqError {
    error.source().unwrap().downcast_ref().unwrap()
}

/// Whatever the error, its display is one line and does not repeat its source.
pub(crate) fn check(error: &TransportError, failure: SendFailure, says: &str, source: &str) {
    assert_eq!(error.failure(), failure, "{error:?}");
    let error = cause(error);
    let shown = error.to_string();
    assert!(shown.contains(says), "{shown}");
    assert!(!shown.contains('\n'), "{shown}");
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    assert!(cause.contains(source), "{cause}");
    assert!(
        cause.is_empty() || !shown.contains(&cause),
        "{shown}: {cause}"
    );
}

/// A server that reads a request and then does as told.
fn after_request(script: impl Fn(TcpStream) + Send + Sync + 'static) -> Server {
    Server::raw(move |stream| {
        let mut reader = BufReader::new(stream);
        read_request(&mut reader);
        script(reader.into_inner());
    })
}

/// Closes a connection with bytes unread, which the system makes a reset of.
fn reset(mut stream: TcpStream) {
    stream.read_exact(&mut [0]).unwrap();
}

fn body_of(server: &Server) -> (Vec<u8>, io::Error) {
    let start = Instant::now();
    let mut body = impatient().send(get(&server.url("/"))).unwrap().into_body();
    let mut bytes = Vec::new();
    let error = body.read_to_end(&mut bytes).unwrap_err();
    assert!(start.elapsed() < NO_HANG);
    // Who reads on does not take the body for whole.
    for _ in 0..2 {
        assert_eq!(body.read(&mut [0; 8]).unwrap_err().kind(), error.kind());
    }
    (bytes, error)
}

#[test]
fn a_refused_connection() {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let error = impatient()
        .send(get(&format!("http://127.0.0.1:{port}/")))
        .unwrap_err();
    check(
        &error,
        SendFailure::NotSent,
        "no connection to 127.0.0.1; check the network",
        "refused",
    );
    let cause = cause(&error)
        .source()
        .unwrap()
        .downcast_ref::<io::Error>()
        .unwrap();
    assert_eq!(cause.kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_name_that_does_not_exist() {
    let transport = UreqTransport::builder()
        .no_proxy()
        .connect_timeout(Duration::from_secs(20))
        .build()
        .unwrap();
    let error = transport
        .send(get("https://no-such-host.invalid/"))
        .unwrap_err();
    // Without a network the lookup may take its time.
    check(
        &error,
        SendFailure::NotSent,
        "the name no-such-host.invalid",
        "",
    );
    assert!(cause(&error).source().is_some());
}

#[test]
fn a_port_where_nobody_speaks_tls_or_at_all() {
    let silent = Server::raw(|_stream| hang());
    let transport = UreqTransport::builder()
        .no_proxy()
        .connect_timeout(Duration::from_millis(500))
        .build()
        .unwrap();
    let error = transport
        .send(get(&format!("https://127.0.0.1:{}/", silent.port)))
        .unwrap_err();
    check(
        &error,
        SendFailure::NotSent,
        "no connection to 127.0.0.1 in time",
        "timed out",
    );

    let plain = Server::raw(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
        hang();
    });
    let error = impatient()
        .send(get(&format!("https://127.0.0.1:{}/", plain.port)))
        .unwrap_err();
    check(
        &error,
        SendFailure::NotSent,
        "no TLS connection to 127.0.0.1",
        "",
    );

    let closing = Server::raw(reset);
    let error = impatient()
        .send(get(&format!("https://127.0.0.1:{}/", closing.port)))
        .unwrap_err();
    check(
        &error,
        SendFailure::NotSent,
        "no connection to 127.0.0.1",
        "",
    );
}

#[test]
fn a_reset_and_an_end_before_the_head() {
    let server = Server::raw(reset);
    let error = impatient().send(get(&server.url("/"))).unwrap_err();
    check(
        &error,
        SendFailure::Unknown,
        "the connection to 127.0.0.1 broke before the reply",
        "",
    );

    for sent in ["", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n"] {
        let server = after_request(move |mut stream| stream.write_all(sent.as_bytes()).unwrap());
        let error = impatient().send(get(&server.url("/"))).unwrap_err();
        check(&error, SendFailure::Unknown, "broke before the reply", "");
        let cause = cause(&error)
            .source()
            .unwrap()
            .downcast_ref::<io::Error>()
            .unwrap();
        assert_eq!(cause.kind(), io::ErrorKind::UnexpectedEof);
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
        check(
            &error,
            SendFailure::Unknown,
            "no reply from 127.0.0.1 in time",
            "timed out",
        );
    }
}

#[test]
fn a_head_that_trickles() {
    let server = after_request(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx: ");
        while stream.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(100));
        }
    });
    let start = Instant::now();
    let error = impatient().send(get(&server.url("/"))).unwrap_err();
    assert!(start.elapsed() < NO_HANG);
    check(
        &error,
        SendFailure::Unknown,
        "no reply from 127.0.0.1 in time",
        "timed out",
    );
}

#[test]
fn a_head_that_is_none() {
    let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "x".repeat(1 << 20));
    for sent in [
        "SSH-2.0-OpenSSH_9.6\r\n\r\n",
        "HTTP/1.1 two hundred\r\n\r\n",
        &endless,
    ] {
        let sent = sent.to_owned();
        let server = after_request(move |mut stream| {
            let _ = stream.write_all(sent.as_bytes());
            hang();
        });
        let error = impatient().send(get(&server.url("/"))).unwrap_err();
        check(
            &error,
            SendFailure::Unknown,
            "the reply of 127.0.0.1 is not HTTP",
            "",
        );
        let error = cause(&error);
        let whole = format!("{error} {error:?} {}", error.source().unwrap());
        assert!(
            !whole.contains("OpenSSH") && !whole.contains("xxx"),
            "{whole}"
        );
    }
}

#[test]
fn a_body_that_is_cut() {
    for sent in [
        "content-length: 10\r\n\r\nhello",
        "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n20\r\n",
    ] {
        let server = after_request(move |mut stream| {
            stream
                .write_all(format!("HTTP/1.1 200 OK\r\n{sent}").as_bytes())
                .unwrap();
        });
        let (bytes, error) = body_of(&server);
        assert_eq!(bytes, b"hello", "{sent}");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{sent}");
    }
}

#[test]
fn a_body_that_is_reset() {
    let server = Server::raw(|mut stream| {
        stream.read_exact(&mut [0]).unwrap();
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello")
            .unwrap();
        // Lets the client see the head first: a reset takes away what it has not read.
        thread::sleep(Duration::from_secs(1));
    });
    let (_, error) = body_of(&server);
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn a_body_that_stalls() {
    let server = after_request(|mut stream| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello")
            .unwrap();
        hang();
    });
    let (bytes, error) = body_of(&server);
    assert_eq!(bytes, b"hello");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(error.to_string().contains("stalled"), "{error}");
}

#[test]
fn a_slow_body_that_does_not_stall_is_read_to_its_end() {
    // In all it takes longer than the service may be silent.
    let server = after_request(|mut stream| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 40\r\n\r\n")
            .unwrap();
        for _ in 0..40 {
            thread::sleep(Duration::from_millis(100));
            stream.write_all(b"x").unwrap();
        }
    });
    let mut bytes = Vec::new();
    impatient()
        .send(get(&server.url("/")))
        .unwrap()
        .into_body()
        .read_to_end(&mut bytes)
        .unwrap();
    assert_eq!(bytes.len(), 40);
}

#[test]
fn garbage_in_a_body() {
    for sent in [
        "transfer-encoding: chunked\r\n\r\nno length\r\n",
        "content-encoding: gzip\r\ncontent-length: 12\r\n\r\nno gzip here",
    ] {
        let server = after_request(move |mut stream| {
            stream
                .write_all(format!("HTTP/1.1 200 OK\r\n{sent}").as_bytes())
                .unwrap();
            hang();
        });
        let (bytes, error) = body_of(&server);
        assert_eq!(bytes, b"");
        assert!(
            matches!(
                error.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput
            ),
            "{error:?}"
        );
    }
}

#[test]
fn the_time_left_bounds_head_and_body() {
    let trickle = after_request(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n");
        while stream.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(100));
        }
    });
    // The smaller of the two holds.
    let long = Duration::from_secs(3600);
    for (left, total) in [
        (Duration::from_secs(2), long),
        (long, Duration::from_secs(2)),
    ] {
        let transport = UreqTransport::builder()
            .reply_timeout(long)
            .total_timeout(total)
            .build()
            .unwrap();
        let start = Instant::now();
        let mut request = get(&trickle.url("/"));
        request.extensions_mut().insert(TimeLeft(left));
        let mut body = transport.send(request).unwrap().into_body();
        let error = body.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(
            error.to_string().contains("the time for the call was up"),
            "{error}"
        );
        assert!(start.elapsed() < NO_HANG);
    }

    let silent = after_request(|_stream| hang());
    let mut request = get(&silent.url("/"));
    request
        .extensions_mut()
        .insert(TimeLeft(Duration::from_millis(300)));
    let error = UreqTransport::new().send(request).unwrap_err();
    check(
        &error,
        SendFailure::Unknown,
        "no reply from 127.0.0.1 in time",
        "timed out",
    );

    let unasked = Server::raw(|_stream| hang());
    let mut request = get(&unasked.url("/"));
    request.extensions_mut().insert(TimeLeft(Duration::ZERO));
    let error = UreqTransport::new().send(request).unwrap_err();
    check(
        &error,
        SendFailure::NotSent,
        "the time for the call was up",
        "",
    );
    assert_eq!(unasked.connections(), 0);
}
