//! The faults of the mock match the errors of malquery-ureq for real faults on a socket.
//!
//! The tests compare the text, whether the service may have received the request, and the kind of
//! the I/O error in the sources. The texts of the sources come from the system and may differ. For
//! `dns` and `tls`, the standard library has no error kind, so the tests only check that there is a
//! source.

use std::error::Error;
use std::io::{self, Read, Write};
use std::time::Duration;

use http::Request;
use malquery_mock::{Fault, MockError, Mode, Session, reply, script};
use malquery_proto::{Transport, TransportError};
use malquery_test_support::{Server, after_request, hang, reset as reset_connection, unused_port};
use malquery_ureq::UreqTransport;

fn get(uri: &str) -> Request<Vec<u8>> {
    Request::get(uri).body(Vec::new()).unwrap()
}

fn real() -> UreqTransport {
    let timeout = Duration::from_secs(20);
    UreqTransport::builder()
        .no_proxy()
        .connect_timeout(timeout)
        .reply_timeout(timeout)
        .build()
        .unwrap()
}

/// Returns the source of the error.
fn cause(error: &TransportError) -> &(dyn Error + 'static) {
    error.source().expect("a source")
}

fn io_kind(error: &dyn Error) -> Option<io::ErrorKind> {
    error
        .source()
        .expect("a source")
        .downcast_ref::<io::Error>()
        .map(io::Error::kind)
}

/// Compares the fault with the real error at `uri`.
fn compare(fault: Fault, transport: &UreqTransport, uri: &str) {
    let real = transport.send(get(uri)).expect_err("a fault");
    let (mock, guard) = script([reply::fault(fault)]).play();
    let mocked = mock.send(get(uri)).expect_err("a fault");
    assert_eq!(mocked.failure(), real.failure(), "{fault:?}");
    let (mocked, real) = (cause(&mocked), cause(&real));
    assert_eq!(mocked.to_string(), real.to_string());
    match fault {
        Fault::Dns | Fault::Tls => assert!(mocked.source().is_some() && real.source().is_some()),
        _ => assert_eq!(io_kind(mocked), io_kind(real), "{fault:?}: {real:?}"),
    }
    guard.finish();

    // The recorder also records the real error as this fault.
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("fault.json");
    let (recorder, guard) = Session::new(&path)
        .mode(Mode::Record)
        .transport(|| transport.clone())
        .unwrap();
    recorder.send(get(uri)).expect_err("a fault");
    guard.finish();
    let (replay, guard) = Session::new(&path)
        .mode(Mode::Replay)
        .transport(|| transport.clone())
        .unwrap();
    let error = replay.send(get(uri)).expect_err("a fault");
    match cause(&error).downcast_ref() {
        Some(MockError::Fault {
            fault: recorded, ..
        }) => assert_eq!(*recorded, fault),
        other => panic!("{other:?}"),
    }
    guard.finish();
}

#[test]
fn connect_refused() {
    let port = unused_port();
    compare(
        Fault::ConnectRefused,
        &real(),
        &format!("http://127.0.0.1:{port}/x"),
    );
}

#[test]
fn dns() {
    compare(Fault::Dns, &real(), "https://no-such-host.invalid/x");
}

#[test]
fn tls() {
    let server = Server::raw(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
        // Wait until the client closes, so that it reads the reply and not a reset.
        let _ = io::copy(&mut stream, &mut io::sink());
    });
    let uri = format!("https://127.0.0.1:{}/x", server.port);
    compare(Fault::Tls, &real(), &uri);
}

#[test]
fn timeout() {
    let server = after_request(|_stream| hang());
    let transport = UreqTransport::builder()
        .no_proxy()
        .reply_timeout(Duration::from_millis(300))
        .build()
        .unwrap();
    compare(Fault::Timeout, &transport, &server.url("/x"));
}

#[test]
fn reset() {
    let server = Server::raw(reset_connection);
    compare(Fault::Reset, &real(), &server.url("/x"));
}

#[test]
fn eof() {
    let server = after_request(drop);
    compare(Fault::Eof, &real(), &server.url("/x"));
}

#[test]
fn truncate_after() {
    let server = after_request(|mut stream| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 128\r\n\r\nhello")
            .unwrap();
    });
    let cut = |result: &mut dyn Read| {
        let mut bytes = Vec::new();
        let error = result.read_to_end(&mut bytes).expect_err("a fault");
        assert_eq!(bytes, b"hello");
        (error.kind(), error.to_string())
    };
    let mut real = real().send(get(&server.url("/x"))).unwrap().into_body();
    let whole = [b"hello".as_slice(), &[0; 123]].concat();
    let (mock, guard) =
        script([reply::bytes(200, "application/zip", whole).truncate_after(5)]).play();
    let mut mocked = mock.send(get("/x")).unwrap().into_body();
    assert_eq!(cut(&mut mocked), cut(&mut real));
    // A later read does not report the end.
    assert!(mocked.read(&mut [0; 8]).is_err() && real.read(&mut [0; 8]).is_err());
    guard.finish();
}
