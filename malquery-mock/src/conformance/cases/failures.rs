//! Cases that check failures and time limits.

use std::io::{self, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

use http::{Response, header};
use malquery_proto::flow::SendFailure;
use malquery_proto::{Body, Transport, TransportError};

use super::{
    Case, MOST, Outcome, Prepared, SHORT, Server, Step, base, exchange, get, in_time, json, post,
    prepared, send, served, unknown, within, without_limit,
};
use crate::conformance::servers::Seen;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "refused-connection",
        consequence: "the outcome of a hunt is reported as unknown, although the hunt was never sent",
        prepare: refused_connection,
    },
    Case {
        name: "failed-lookup",
        consequence: "the outcome of a hunt is reported as unknown, although the hunt was never sent",
        prepare: failed_lookup,
    },
    Case {
        name: "reset-before-the-reply",
        consequence: "a hunt is billed twice",
        prepare: || no_reply(|| vec![Step::Reset]),
    },
    Case {
        name: "closed-before-the-reply",
        consequence: "a hunt is billed twice",
        prepare: || no_reply(|| vec![Step::Close]),
    },
    Case {
        name: "closed-in-the-head",
        consequence: "a hunt is billed twice, or an incomplete reply looks complete",
        prepare: || no_reply(|| vec![half_a_head(), Step::Close]),
    },
    Case {
        name: "reset-in-the-head",
        consequence: "a hunt is billed twice, or an incomplete reply looks complete",
        prepare: || no_reply(|| vec![half_a_head(), Step::Reset]),
    },
    Case {
        name: "silent-service",
        consequence: "a program hangs, or a hunt is billed twice",
        prepare: || slow_head(|| vec![Step::Silence]),
    },
    Case {
        name: "service-that-does-not-read",
        consequence: "a program hangs, or a hunt is billed twice",
        prepare: service_that_does_not_read,
    },
    Case {
        name: "endless-head",
        consequence: "a program hangs, or a hunt is billed twice",
        prepare: || slow_head(|| vec![Step::Send(OK.into()), Step::Drip(b"x-a: b\r\n")]),
    },
    Case {
        name: "stalled-body",
        consequence: "a call takes longer than its time limit",
        prepare: || slow_body(|| vec![half_a_body(), Step::Silence]),
    },
    Case {
        name: "dripping-body",
        consequence: "a call takes longer than its time limit",
        prepare: || {
            slow_body(|| {
                vec![
                    Step::Send(format!("{OK}content-length: 100000\r\n\r\n").into()),
                    Step::Drip(b"x"),
                ]
            })
        },
    },
    Case {
        name: "no-time-left",
        consequence: "a call takes longer than its time limit, or the program panics",
        prepare: || served(|_| vec![Step::Silence], no_time_left),
    },
    Case {
        name: "endless-time-left",
        consequence: "a call with a very long time limit fails or panics",
        prepare: || {
            served(
                |_| json(),
                |server, transport| {
                    let forever = Duration::from_millis(u64::MAX);
                    exchange(transport, within(get(&server.base(), ""), forever), 200)?;
                    Ok("a very long `TimeLeft` was accepted".into())
                },
            )
        },
    },
    Case {
        name: "cut-body-with-a-length",
        consequence: "a truncated sample looks complete",
        prepare: || {
            served(
                |_| vec![half_a_body(), Step::Close],
                |server, transport| a_cut(transport.send(get(&server.base(), ""))),
            )
        },
    },
    Case {
        name: "cut-chunked-body",
        consequence: "a truncated sample looks complete",
        prepare: || {
            bad_chunks(&[
                "5\r\nhello\r\n",
                "5\r\nhello",
                "5\r\nhel",
                "5\r\nhello\r\n5",
                "",
            ])
        },
    },
    Case {
        name: "malformed-chunks",
        consequence: "a faulty gateway crashes the program, or a truncated sample looks complete",
        prepare: || {
            bad_chunks(&[
                "5\r\nhello\r\nffffffffffffffff\r\nx",
                "5\r\nhello\r\nfffffffffffffffff\r\nx",
                "5\r\nhello\r\n-1\r\nx",
                "5\r\nhello\r\nzz\r\n\r\n",
                "5\r\nhello\r\n\u{e9}\r\n\r\n",
                "5\r\nhello\r\n\r\n\r\n",
                "5\r\nhelloXX\r\n0\r\n\r\n",
            ])
        },
    },
    #[cfg(any(target_os = "linux", target_os = "android", windows))]
    Case {
        name: "reset-in-a-body",
        consequence: "a truncated sample looks complete",
        prepare: || {
            let until_close = || Step::Send(format!("{OK}\r\nhello").into());
            served(
                move |_| vec![until_close(), Step::Gate, Step::Reset],
                reset_in_a_body,
            )
        },
    },
    Case {
        name: "hostile-heads",
        consequence: "a faulty gateway crashes the program, or a hunt is billed twice",
        prepare: || {
            let script = |seen: &Seen| {
                let head = hostile_heads().into_iter().nth(seen.number());
                head.map_or(vec![], |(_, bytes)| vec![Step::Send(bytes), Step::Close])
            };
            served(script, hostile_heads_do_not_panic)
        },
    },
];

/// More bytes than the operating system buffers for a service that does not read.
const UNREAD: usize = 20_000_000;

/// The time to wait for a request that should not have been sent.
const ARRIVAL: Duration = Duration::from_millis(500);

const OK: &str = "HTTP/1.1 200 OK\r\n";

fn half_a_head() -> Step {
    Step::Send(format!("{OK}content-type: application/json\r\ncontent-le").into())
}

/// Returns a head and 5 of the 10 bytes of its body.
fn half_a_body() -> Step {
    Step::Send(format!("{OK}content-length: 10\r\n\r\nhello").into())
}

/// Uses the client port of an open connection, because nothing listens on that port.
fn refused_connection() -> io::Result<Prepared> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let reserved = TcpStream::connect(listener.local_addr()?)?;
    let base = base(&format!("http://{}", reserved.local_addr()?));
    prepared(base.clone(), move |transport| {
        let outcome = not_sent(transport.send(post(&base, "{}")));
        drop((reserved, listener));
        outcome
    })
}

/// Uses a host name with a label of 64 characters. DNS allows at most 63, so the lookup fails
/// with or without a network.
fn failed_lookup() -> io::Result<Prepared> {
    let host = format!("{}.invalid", "a".repeat(64));
    let secure = base(&format!("https://{host}"));
    prepared(secure.clone(), move |transport| {
        let mut request = post(&secure, "{}");
        let result = transport.send(request.clone());
        if !matches!(&result, Err(error) if error.failure() == SendFailure::CannotSend) {
            return not_sent(result);
        }
        // A transport may refuse https, or http to hosts other than loopback. Try both.
        let plain = request.uri().to_string().replacen("https", "http", 1);
        *request.uri_mut() = plain.parse().map_err(|error| format!("{error}"))?;
        match transport.send(request) {
            Err(error) if error.failure() == SendFailure::CannotSend => Ok(format!(
                "the transport reported the failure as `cannot_send` for both https and http: {error:?}"
            )),
            result => not_sent(result),
        }
    })
}

fn not_sent(result: Result<Response<Body>, TransportError>) -> Outcome {
    let error = match result {
        Ok(reply) => {
            return Err(format!(
                "no reply was sent, but `send` returned one with status {}",
                reply.status()
            ));
        }
        Err(error) => error,
    };
    match error.failure() {
        SendFailure::NotSent => Ok(format!(
            "the transport reported the failure as `not_sent`: {error:?}"
        )),
        SendFailure::CannotSend => Err(format!(
            "the transport reported the failure as `cannot_send`, which prevents a retry: {error:?}"
        )),
        SendFailure::Unknown => Err(format!(
            "nothing was sent, but the transport reported the failure as `unknown`: {error:?}"
        )),
    }
}

fn no_reply(steps: fn() -> Vec<Step>) -> io::Result<Prepared> {
    served(
        move |_| steps(),
        |server, transport| {
            let base = server.base();
            unknown(transport.send(get(&base, "")))?;
            let what = unknown(transport.send(post(&base, "{}")))?;
            posted_once(server)?;
            Ok(what)
        },
    )
}

fn slow_head(steps: fn() -> Vec<Step>) -> io::Result<Prepared> {
    served(
        move |_| steps(),
        |server, transport| {
            let begun = Instant::now();
            let what = unknown(transport.send(within(post(&server.base(), "{}"), SHORT)))?;
            in_time(begun)?;
            posted_once(server)?;
            Ok(what)
        },
    )
}

/// Uses a listener that never accepts connections. The operating system still completes the
/// connection and buffers the first bytes.
fn service_that_does_not_read() -> io::Result<Prepared> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let base = base(&format!("http://{}", listener.local_addr()?));
    prepared(base.clone(), move |transport| {
        let begun = Instant::now();
        let what = unknown(transport.send(within(post(&base, vec![b' '; UNREAD]), SHORT)));
        drop(listener);
        in_time(begun)?;
        what
    })
}

fn posted_once(server: &Server) -> Result<(), String> {
    thread::sleep(ARRIVAL);
    let posts = server
        .seen()
        .iter()
        .filter(|seen| seen.method == "POST")
        .count();
    match posts {
        0 | 1 => Ok(()),
        _ => Err(format!("the service received the POST {posts} times")),
    }
}

fn slow_body(steps: fn() -> Vec<Step>) -> io::Result<Prepared> {
    served(
        move |_| steps(),
        |server, transport| {
            let begun = Instant::now();
            let what = a_cut(transport.send(within(get(&server.base(), ""), SHORT)))?;
            in_time(begun)?;
            Ok(what)
        },
    )
}

fn no_time_left(server: &Server, transport: &dyn Transport) -> Outcome {
    let begun = Instant::now();
    let result = transport.send(within(post(&server.base(), "{}"), Duration::ZERO));
    in_time(begun)?;
    if !matches!(&result, Err(error) if error.failure() != SendFailure::Unknown) {
        return unknown(result);
    }
    thread::sleep(ARRIVAL);
    match result {
        Err(error) if server.seen().is_empty() => Ok(format!("nothing was sent: {error:?}")),
        result => unknown(result),
    }
}

/// Checks that an incomplete body does not look complete. If the head still declares the length,
/// the client itself detects the missing bytes.
fn a_cut(result: Result<Response<Body>, TransportError>) -> Outcome {
    let (head, body) = match result {
        Ok(reply) => reply.into_parts(),
        // A transport that reads the body together with the head may fail here.
        error => return unknown(error),
    };
    let mut bytes = Vec::new();
    match body.take(MOST).read_to_end(&mut bytes) {
        Err(error) => Ok(format!("reading the body failed: {error}")),
        Ok(_) => {
            let declared = head.headers.get(header::CONTENT_LENGTH);
            let declared = declared.and_then(|value| value.to_str().ok()?.parse().ok());
            match declared {
                Some(declared) if bytes.len() < declared => Ok(format!(
                    "the body ended after {} of {declared} bytes",
                    bytes.len()
                )),
                _ => Err(format!(
                    "the body was incomplete or malformed, but it ended without an error after {} bytes",
                    bytes.len()
                )),
            }
        }
    }
}

fn bad_chunks(bodies: &'static [&'static str]) -> io::Result<Prepared> {
    let script = move |seen: &Seen| {
        let body = bodies.get(seen.number()).unwrap_or(&"");
        let reply = format!("{OK}transfer-encoding: chunked\r\n\r\n{body}");
        vec![Step::Send(reply.into()), Step::Close]
    };
    served(script, move |server, transport| {
        for (index, body) in bodies.iter().enumerate() {
            let request = get(&server.base(), &format!("?n={index}"));
            let tried = catch_unwind(AssertUnwindSafe(|| a_cut(transport.send(request))));
            tried
                .unwrap_or_else(|_| Err("the transport panicked".into()))
                .map_err(|error| format!("chunks {body:?}: {error}"))?;
        }
        Ok(format!("all {} invalid bodies were rejected", bodies.len()))
    })
}

#[cfg(any(target_os = "linux", target_os = "android", windows))]
fn reset_in_a_body(server: &Server, transport: &dyn Transport) -> Outcome {
    let (head, mut body) = send(transport, without_limit(get(&server.base(), "")))?;
    body.read_exact(&mut [0])
        .map_err(|error| format!("cannot read the first byte: {error}"))?;
    server.open_gate();
    a_cut(Ok(Response::from_parts(head, body)))
}

fn hostile_heads() -> Vec<(&'static str, Vec<u8>)> {
    let text = |text: &str| text.as_bytes().to_vec();
    let with = |headers: &str| format!("{OK}{headers}\r\n\r\nhello").into_bytes();
    vec![
        ("nothing but empty lines", text("\r\n\r\n")),
        (
            "bytes that are not text",
            (0..=255).cycle().take(5000).collect(),
        ),
        (
            "a page without a head",
            text("<html><body>hello</body></html>\r\n\r\n"),
        ),
        ("a head without a status", text("HTTP/1.1\r\n\r\n")),
        (
            "a status that is not a number",
            text("HTTP/1.1 OK OK\r\n\r\n"),
        ),
        ("a 7-digit status", text("HTTP/1.1 2000000 OK\r\n\r\n")),
        (
            "a status below 100",
            text("HTTP/1.1 007 OK\r\ncontent-length: 0\r\n\r\n"),
        ),
        (
            "an unknown HTTP version",
            text("HTTP/9.9 200 OK\r\ncontent-length: 0\r\n\r\n"),
        ),
        ("a header without a colon", with("no colon here")),
        ("a header without a name", with(": value")),
        ("a header with an invalid name", with("a b\u{e9}(): value")),
        (
            "a header value that is not text",
            [OK.as_bytes(), b"x-a: \xff\xfe\x01\0\r\n\r\n"].concat(),
        ),
        ("a folded header value", with("x-a: one\r\n two")),
        (
            "lines without a carriage return",
            text("HTTP/1.1 200 OK\ncontent-length: 2\n\n{}"),
        ),
        (
            "a header of 1 MiB",
            with(&format!("x-a: {}", "b".repeat(1 << 20))),
        ),
        ("1 MiB without a line break", vec![b'a'; 1 << 20]),
        ("20,000 headers", with(&"x-a: b\r\n".repeat(20_000))),
        ("a negative length", with("content-length: -1")),
        (
            "a length that is not a number",
            with("content-length: five"),
        ),
        (
            "a 20-digit length",
            with("content-length: 99999999999999999999"),
        ),
        (
            "the largest 64-bit length",
            with("content-length: 18446744073709551615"),
        ),
        (
            "two different lengths",
            with("content-length: 5\r\ncontent-length: 6"),
        ),
        (
            "an unknown transfer encoding",
            with("transfer-encoding: x-unknown"),
        ),
        (
            "a wrong content encoding",
            with("content-encoding: gzip\r\ncontent-length: 5"),
        ),
    ]
}

/// The transport may accept a head or fail with `unknown`, but must not panic.
fn hostile_heads_do_not_panic(server: &Server, transport: &dyn Transport) -> Outcome {
    let heads = hostile_heads();
    for (index, (name, _)) in heads.iter().enumerate() {
        let request = get(&server.base(), &format!("?n={index}"));
        let request = within(request, Duration::from_secs(5));
        let tried = catch_unwind(AssertUnwindSafe(|| match transport.send(request) {
            Ok(reply) => {
                let _ = reply.into_body().take(MOST).read_to_end(&mut Vec::new());
                Ok(String::new())
            }
            error => unknown(error),
        }));
        tried
            .unwrap_or_else(|_| Err("the transport panicked".into()))
            .map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(format!(
        "none of the {} malformed heads caused a panic",
        heads.len()
    ))
}
