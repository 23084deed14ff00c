//! The bodies of replies: compressed, large, truncated, stalled.

use std::io::{self, Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use malquery_proto::Transport;
use malquery_proto::flow::RetryPolicy;
use malquery_proto::operations::Hunt;
use malquery_proto::stream::StreamError;
use malquery_ureq::UreqTransport;

use crate::requests::{ID, SAMPLE, client, sample};
use crate::server::{
    NO_HANG, Server, Then, after_request, get, hang, impatient, patient, reply, token,
};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
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
        // The body was read to its end, so the connection was reused.
        assert_eq!(client.quotas().unwrap().meta.hunt_count, Some(7));
        // The token used another connection.
        assert_eq!(server.connections(), 2);
        let response = UreqTransport::new().send(get(&server.url("/"))).unwrap();
        assert!(!response.headers().contains_key("content-encoding"));
        assert!(!response.headers().contains_key("content-length"));
    }
}

#[test]
fn a_compressed_sample_is_not_decoded() {
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
fn a_sample_comes_unchanged_with_its_length() {
    // A sample that is itself compressed.
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
fn the_error_of_a_download_is_decoded() {
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
        // Give the server time to send more.
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(total, SIZE);
    assert!(largest <= 512 * 1024);
    println!("the largest read: {largest}");
}

fn body_of(server: &Server, transport: &UreqTransport) -> (Vec<u8>, io::Error) {
    let start = Instant::now();
    let mut body = transport.send(get(&server.url("/"))).unwrap().into_body();
    let mut bytes = Vec::new();
    let error = body.read_to_end(&mut bytes).unwrap_err();
    assert!(start.elapsed() < NO_HANG);
    // A later read reports the error again, not the end.
    for _ in 0..2 {
        assert_eq!(body.read(&mut [0; 8]).unwrap_err().kind(), error.kind());
    }
    (bytes, error)
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
        let (bytes, error) = body_of(&server, &patient());
        assert_eq!(bytes, b"hello", "{sent}");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{sent}");
    }
}

#[test]
fn the_id_before_damaged_data_is_kept() {
    for status in ["200 OK", "500 Internal Server Error"] {
        let server = Server::start(move |request, out| {
            if token(request, out) {
                return Then::Go;
            }
            let body = r#"{"resources":[],"meta":{"reqid":"job-1"}}"#;
            let chunk = format!("{:x}\r\n{body}\r\nno length\r\n", body.len());
            let head = format!("HTTP/1.1 {status}\r\ntransfer-encoding: chunked\r\n\r\n");
            out.write_all((head + &chunk).as_bytes()).unwrap();
            Then::Close
        });
        let hunt = Hunt::new("rule a { condition: true }");
        let error = client(&server).hunt(&hunt).map(drop).unwrap_err();
        let id = error.request_id().map(ToString::to_string);
        assert_eq!(id.as_deref(), Some("job-1"), "{error:?}");
    }
}

#[test]
fn a_gzip_bomb_is_requested_once() {
    let bomb = gzip(&vec![b' '; 17 << 20]);
    let server = Server::start(move |request, out| match token(request, out) {
        true => Then::Go,
        false => reply(out, "200 OK", "content-encoding: gzip\r\n", &bomb),
    });
    let client = client(&server).retry(RetryPolicy::default());
    let id = "job-1".parse().unwrap();
    for error in [client.quotas().map(drop), client.request(&id).map(drop)] {
        let error = error.unwrap_err();
        assert!(error.to_string().contains("gzip bomb"), "{error}");
    }
    // One request for the token, and one for each call.
    assert_eq!(server.seen().len(), 3);
}

#[test]
fn a_body_that_is_reset() {
    let server = Server::raw(|mut stream| {
        stream.read_exact(&mut [0]).unwrap();
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello")
            .unwrap();
        // Let the client read the head first, because a reset discards unread bytes.
        thread::sleep(Duration::from_secs(1));
    });
    let (_, error) = body_of(&server, &patient());
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
    let (bytes, error) = body_of(&server, &impatient());
    assert_eq!(bytes, b"hello");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(error.to_string().contains("stalled"), "{error}");
}

#[test]
fn a_slow_body_is_read_to_its_end() {
    // The whole body takes longer than the reply timeout.
    let server = after_request(|mut stream| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n")
            .unwrap();
        for _ in 0..15 {
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
    assert_eq!(bytes.len(), 15);
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
        let (bytes, error) = body_of(&server, &patient());
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
