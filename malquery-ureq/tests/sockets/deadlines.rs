//! Every phase ends in time, even if the other side sends a byte now and then.

use std::io::{self, BufReader, Read, Write};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use http::Method;
use malquery_proto::Transport;
use malquery_proto::client::TimeLeft;
use malquery_proto::flow::SendFailure;
use malquery_proto::operation::Operation;
use malquery_proto::operations::{FuzzySearch, Hunt};
use malquery_ureq::{Builder, UreqTransport};
use rustls::{ServerConnection, StreamOwned};

use crate::server::{
    Ca, QUOTAS, Server, after_request, builder, check, drip, get, hang, json, read_request, request,
};

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_secs(1);
/// The pause between two bytes.
const PAUSE: Duration = Duration::from_millis(100);

#[test]
fn the_time_left_bounds_the_body() {
    let length = b"content-length: 100000\r\n\r\n".as_slice();
    let chunks = |begin: &str| format!("transfer-encoding: chunked\r\n\r\n{begin}").into_bytes();
    let gzip = |begin: &[u8]| [b"content-encoding: gzip\r\n\r\n", begin].concat();
    // The header announces a name.
    let member = [31, 139, 8, 8, 0, 0, 0, 0, 0, 3];
    let empty_block = [0, 0, 0, 255, 255];
    let bodies = [
        (length.to_vec(), "x".into(), Some(PAUSE)),
        (length.to_vec(), "x".into(), Some(LONG)),
        (chunks("10000\r\n"), "x".into(), Some(PAUSE)),
        (chunks("1;"), "x".into(), Some(PAUSE)),
        (chunks(""), "1\r\nx\r\n".into(), None),
        (chunks("0\r\nx: "), "x".into(), Some(PAUSE)),
        (chunks("0\r\n"), "x: y\r\n".into(), None),
        (gzip(&member), b"x".to_vec(), Some(PAUSE)),
        (
            gzip(&[31, 139, 8, 0, 0, 0, 0, 0, 0, 3]),
            empty_block.to_vec(),
            None,
        ),
    ];
    // The smaller of the two limits applies.
    let limits = [(SHORT, LONG), (LONG, SHORT)];
    thread::scope(|scope| {
        for (begin, unit, pause) in bodies {
            let name = String::from_utf8_lossy(&begin).into_owned();
            let server = after_request(move |mut stream| {
                let mut send = |bytes: &[u8]| stream.write_all(bytes);
                let _ = send(b"HTTP/1.1 200 OK\r\n").and_then(|()| send(&begin));
                // Without a pause, the server sends many units at once.
                let times = if pause.is_some() { 1 } else { 10_000 };
                while send(&unit.repeat(times)).is_ok() {
                    thread::sleep(pause.unwrap_or_default());
                }
            });
            scope.spawn(move || {
                for (left, total) in limits {
                    let transport = builder()
                        .reply_timeout(LONG)
                        .total_timeout(total)
                        .build()
                        .unwrap();
                    let start = Instant::now();
                    let mut request = get(&server.url("/"));
                    request.extensions_mut().insert(TimeLeft(left));
                    let mut body = transport.send(request).unwrap().into_body();
                    let error = io::copy(&mut body, &mut io::sink()).unwrap_err();
                    assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{name}: {error}");
                    let text = error.to_string();
                    assert!(text.contains("the time limit expired"), "{name}: {text}");
                    assert!(start.elapsed() < 8 * SHORT, "{name}");
                }
            });
        }
    });
}

#[test]
fn the_longest_duration_is_no_limit() {
    let server = Server::start(|_, out| json(out, QUOTAS));
    let forever = Duration::MAX;
    let transport = builder()
        .connect_timeout(forever)
        .reply_timeout(forever)
        .search_timeout(forever)
        .total_timeout(forever)
        .build()
        .unwrap();
    let mut request = get(&server.url("/"));
    request.extensions_mut().insert(TimeLeft(forever));
    transport.send(request).unwrap();
}

#[test]
fn no_time_left_sends_nothing() {
    let server = Server::raw(|_stream| hang());
    let mut request = get(&server.url("/"));
    request.extensions_mut().insert(TimeLeft(Duration::ZERO));
    let error = UreqTransport::new().send(request).unwrap_err();
    check(
        &error,
        SendFailure::NotSent,
        "the time limit of the call expired",
        "",
    );
    assert_eq!(server.connections(), 0);
}

#[test]
fn a_fuzzy_search_may_take_longer() {
    let server = Server::start(|_, out| {
        thread::sleep(Duration::from_millis(1500));
        json(out, QUOTAS)
    });
    let transport = builder()
        .reply_timeout(Duration::from_millis(200))
        .search_timeout(LONG)
        .build()
        .unwrap();
    let mut search = request(Method::POST, &server.url("/"));
    search.extensions_mut().insert(FuzzySearch::ENDPOINT);
    transport.send(search).unwrap();
    let mut hunt = request(Method::POST, &server.url("/"));
    hunt.extensions_mut().insert(Hunt::ENDPOINT);
    let error = transport.send(hunt).unwrap_err();
    check(
        &error,
        SendFailure::Unknown,
        "did not reply in time",
        "timed out",
    );
}

/// Any limit ends a phase that would take hours.
fn ends_in_time(builder: &Builder, url: &str, failure: SendFailure) {
    let try_limits = |connect, left| {
        let builder = builder.clone().connect_timeout(connect).reply_timeout(LONG);
        let mut request = request(Method::POST, url);
        *request.body_mut() = vec![b'x'; 16 << 20];
        request.extensions_mut().insert(TimeLeft(left));
        let start = Instant::now();
        let error = builder.build().unwrap().send(request).unwrap_err();
        let elapsed = start.elapsed();
        check(&error, failure, "in time", "timed out");
        assert!(elapsed >= SHORT && elapsed < 8 * SHORT, "{elapsed:?}");
    };
    thread::scope(|scope| {
        scope.spawn(|| try_limits(LONG, SHORT));
        // Once connected, only the remaining time is a limit here.
        if failure != SendFailure::Unknown {
            scope.spawn(|| try_limits(SHORT, LONG));
        }
    });
}

#[test]
fn a_proxy_that_drips_its_reply() {
    let http = after_request(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx: ");
        drip(stream);
    });
    // The proxy requires no password, and then announces an address of 255 bytes.
    let socks = Server::raw(|mut stream| {
        let _ = stream.write_all(&[5, 0, 5, 0, 0, 3, 255]);
        drip(stream);
    });
    for (scheme, server) in [("http", http), ("socks5h", socks)] {
        let builder = builder().proxy(format!("{scheme}://127.0.0.1:{}", server.port));
        ends_in_time(&builder, "https://api.example.test/", SendFailure::NotSent);
    }
}

/// The heads of TLS records of 16 KiB: one for the handshake and one for data.
const RECORDS: [[u8; 5]; 2] = [[22, 3, 3, 64, 0], [23, 3, 3, 64, 0]];

#[test]
fn a_tls_handshake_that_drips() {
    let server = Server::raw(|mut stream| {
        let _ = stream.write_all(&RECORDS[0]);
        drip(stream);
    });
    let url = format!("https://127.0.0.1:{}/", server.port);
    ends_in_time(&builder(), &url, SendFailure::NotSent);
}

#[test]
fn a_tls_record_that_drips() {
    let ca = Ca::new();
    let config = ca.server("127.0.0.1");
    let server = Server::raw(move |stream| {
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = BufReader::new(StreamOwned::new(connection, stream));
        read_request(&mut stream);
        let mut socket = &stream.get_ref().sock;
        let _ = socket.write_all(&RECORDS[1]);
        drip(socket);
    });
    let url = format!("https://127.0.0.1:{}/", server.port);
    let builder = builder().root_certificates(&ca.pem);
    ends_in_time(&builder, &url, SendFailure::Unknown);
}

#[test]
fn a_head_that_drips() {
    for interim in [&b""[..], b"HTTP/1.1 103 Early Hints\r\n\r\n"] {
        let server = after_request(move |mut stream| {
            while !interim.is_empty() && stream.write_all(interim).is_ok() {
                thread::sleep(PAUSE);
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx: ");
            drip(stream);
        });
        ends_in_time(&builder(), &server.url("/"), SendFailure::Unknown);
    }
}

#[test]
fn a_server_that_hardly_reads() {
    let server = Server::raw(|mut stream| {
        let mut bytes = vec![0; 4 << 10];
        while stream.read(&mut bytes).is_ok_and(|count| count > 0) {
            thread::sleep(Duration::from_millis(20));
        }
    });
    ends_in_time(&builder(), &server.url("/"), SendFailure::Unknown);
}
