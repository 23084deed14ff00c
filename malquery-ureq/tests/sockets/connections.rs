//! Which requests share a connection, and which connections are not reused.

use std::io::{BufReader, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use malquery_proto::Transport;
use malquery_proto::flow::RetryPolicy;
use malquery_proto::operations::Hunt;
use malquery_proto::types::Sha256;
use malquery_ureq::UreqTransport;
use rustls::{ServerConnection, StreamOwned};

use crate::requests::client;
use crate::server::{
    Ca, QUOTAS, Server, Then, builder, get, json, quotas, read_request, serve, token,
};

const HUNT: &str = r#"{"meta":{"reqid":"an-id"},"resources":[]}"#;

#[test]
fn connections_are_reused_unless_a_request_is_billed() {
    let server = Server::start(|request, out| match token(request, out) {
        true => Then::Go,
        false if request.line().contains("hunt") => json(out, HUNT),
        false => json(out, QUOTAS),
    });
    let client = client(&server);
    client.quotas().unwrap();
    client.quotas().unwrap();
    let hunt = Hunt::new("rule r { condition: true }");
    let _ = client.hunt(&hunt).unwrap();
    client.quotas().unwrap();
    let _ = client.hunt(&hunt).unwrap();
    let seen = server.seen();
    let used: Vec<_> = seen.iter().map(|request| request.connection).collect();
    // Connections: the token | two quotas | a hunt | quotas | a hunt.
    assert_eq!(used, [1, 2, 2, 3, 4, 5]);
    assert_eq!(seen[3].header("connection"), Some("close"));
    assert_eq!(seen[0].header("connection"), Some("close"));
    assert_eq!(seen[1].header("connection"), None);
}

#[test]
fn a_hunt_avoids_connections_that_were_idle() {
    // The server promises to keep the connection open, but closes it.
    let server = Server::start(|request, out| {
        if !token(request, out) {
            json(out, HUNT);
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
fn connections_with_tls_are_used_again() {
    let ca = Ca::new();
    let server = serve(ca.server("localhost"));
    let transport = builder().root_certificates(&ca.pem).build().unwrap();
    let url = format!("https://localhost:{}", server.port);
    quotas(&url, transport.clone());
    quotas(&url, transport);
    let used: Vec<_> = server.seen().iter().map(|seen| seen.connection).collect();
    // The connection of the second client's token request is closed.
    assert_eq!(used, [1, 2, 2, 3]);
}

/// The token reply and its copy arrive together, or the copy arrives a little later.
#[test]
fn a_token_sent_twice_answers_no_call() {
    let transport = builder().build().unwrap();
    for round in 0..200 {
        let server = Server::start(move |request, out| {
            if !token(request, out) {
                return json(out, QUOTAS);
            }
            out.flush().unwrap();
            std::thread::sleep(Duration::from_micros(round % 8 * 20));
            token(request, out);
            Then::Go
        });
        assert_eq!(quotas(&server.url(""), transport.clone()), Some(9));
    }
}

/// The reply to the first request arrives again, just when the next request is sent.
#[test]
fn late_metadata_answers_no_other_request() {
    let server = Server::start(|request, out| {
        if token(request, out) {
            return Then::Go;
        }
        let line = request.line();
        let ids = line.split(['=', '&', ' ']).filter(|part| part.len() == 64);
        let results: Vec<_> = ids.map(|id| format!(r#"{{"sha256":"{id}"}}"#)).collect();
        let reply = format!(r#"{{"meta":{{}},"resources":[{}]}}"#, results.join(","));
        json(out, &reply);
        out.flush().unwrap();
        std::thread::sleep(Duration::from_millis(4));
        json(out, &reply);
        Then::Go
    });
    let samples: Vec<_> = (0..500u16)
        .map(|number| Sha256::from_bytes(std::array::from_fn(|at| number.to_be_bytes()[at % 2])))
        .collect();
    let client = client(&server).retry(RetryPolicy::default());
    let reply = client.metadata(&samples).unwrap();
    assert_eq!((reply.resources.len(), reply.missing.len()), (500, 0));
}

/// Sends two requests. Each gets its own reply, although an unrequested one follows the first.
fn ask_twice(server: &Server, transport: &UreqTransport, scheme: &str) {
    for expected in ["first", "second"] {
        let url = format!("{scheme}://localhost:{}/{expected}", server.port);
        let mut body = transport.send(get(&url)).unwrap().into_body();
        let mut text = String::new();
        body.read_to_string(&mut text).unwrap();
        assert!(text.starts_with(expected), "{text}");
    }
    assert_eq!(server.connections(), 2);
}

/// Returns the reply with the word in the path, and an unrequested reply.
fn replies(line: &str, length: usize) -> [Vec<u8>; 2] {
    let word = line.split(['/', ' ']).nth(2).unwrap();
    [word, "unasked"].map(|word| {
        let body = format!("{word:-<length$}");
        format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
    })
}

#[test]
fn unrequested_bytes_close_a_connection() {
    for length in [10, 3_000, 60_000] {
        let server = Server::start(move |request, out| {
            out.write_all(&replies(request.line(), length).concat())
                .unwrap();
            Then::Go
        });
        ask_twice(&server, &builder().build().unwrap(), "http");
    }
}

/// TLS reads two records from the socket and buffers a part of the second one.
#[test]
fn unrequested_bytes_below_tls_close_a_connection() {
    let ca = Ca::new();
    let config = ca.server("localhost");
    let transport = builder().root_certificates(&ca.pem).build().unwrap();
    for length in (10..9_000).step_by(700) {
        let config = Arc::clone(&config);
        let server = Server::raw(move |stream| {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = BufReader::new(StreamOwned::new(connection, stream));
            while let Some((head, _)) = read_request(&mut stream) {
                let stream = stream.get_mut();
                for reply in replies(&head, length) {
                    stream.conn.writer().write_all(&reply).unwrap();
                }
                // Send both records at once.
                let _ = stream.flush();
            }
        });
        ask_twice(&server, &transport, "https");
    }
}
