//! Cases that check how the transport returns replies.

use std::io::{self, Read};
use std::time::Duration;

use http::{HeaderValue, header};
use malquery_proto::operations::Hunt;

use super::{
    Case, MOST, Outcome, Prepared, Server, Step, Transport, exchange, get, json, pattern, post,
    prepared, reply, request, same, send, served, shown, unknown, whole, within, without_limit,
};
use crate::conformance::servers::{Seen, contains};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "client-errors-are-replies",
        consequence: "an expired token is not renewed, and the reason for an error is lost",
        prepare: || statuses(&[400, 401, 403, 404, 429]),
    },
    Case {
        name: "server-errors-are-replies",
        consequence: "the trace id and the request id in the reply are lost",
        prepare: || statuses(&[500, 502, 503, 504]),
    },
    Case {
        name: "interim-replies",
        consequence: "a hunt is billed twice, or an interim reply is mistaken for the result",
        prepare: || {
            let interim =
                b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
            let script = |_: &Seen| {
                [Step::Send(interim.to_vec())]
                    .into_iter()
                    .chain(json())
                    .collect()
            };
            served(script, interim_replies)
        },
    },
    Case {
        name: "redirect-to-the-same-host",
        consequence: "a hunt is billed twice, or an unrelated page is mistaken for the reply",
        prepare: || {
            let script = |seen: &Seen| match seen.target.starts_with("/elsewhere") {
                true => vec![reply("200 OK", "", b"elsewhere")],
                false => vec![redirect(seen, "/elsewhere")],
            };
            served(script, |server, transport| {
                follows_nothing(server, None, transport)
            })
        },
    },
    Case {
        name: "redirect-to-another-host",
        consequence: "the token is sent to another host",
        prepare: || {
            let other = Server::start(|_| vec![reply("200 OK", "", b"elsewhere")])?;
            let location = format!("http://localhost:{}/elsewhere", other.address().port());
            served(
                move |seen| vec![redirect(seen, &location)],
                move |server, transport| follows_nothing(server, Some(&other), transport),
            )
        },
    },
    Case {
        name: "reply-headers-unchanged",
        consequence: "the rate limit is exceeded, and the trace id that support asks for is lost",
        prepare: || {
            let headers: String = REPLY_HEADERS
                .iter()
                .map(|(name, value)| format!("{name}: {value}\r\n"))
                .collect();
            served(
                move |_| vec![reply("200 OK", &headers, b"{}")],
                reply_headers_unchanged,
            )
        },
    },
    Case {
        name: "body-with-a-length",
        consequence: "a download hangs, or a sample contains bytes that do not belong to it",
        prepare: || served(|_| vec![reply("200 OK", "", &pattern(300_000))], a_body),
    },
    Case {
        name: "chunked-body",
        consequence: "a sample contains chunk sizes",
        prepare: || served(|_| vec![Step::Send(chunked())], a_body),
    },
    Case {
        name: "body-until-close",
        consequence: "a reply that ends when the connection closes is lost",
        prepare: || {
            let reply = [b"HTTP/1.0 200 OK\r\n\r\n".to_vec(), pattern(300_000)].concat();
            served(
                move |_| vec![Step::Send(reply.clone()), Step::Close],
                a_body,
            )
        },
    },
    Case {
        name: "reply-without-a-body",
        consequence: "a call waits for a body that never comes",
        prepare: || {
            let script = |seen: &Seen| {
                let head = format!("HTTP/1.1 {} Empty\r\nx-a: b\r\n\r\n", seen.number());
                vec![Step::Send(head.into())]
            };
            served(script, reply_without_a_body)
        },
    },
    Case {
        name: "body-longer-than-its-length",
        consequence: "a sample contains bytes that do not belong to it",
        prepare: || {
            let reply = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n\r\n";
            served(
                |_| vec![Step::Send(reply.to_vec()), Step::Close],
                body_longer_than_its_length,
            )
        },
    },
    Case {
        name: "streams-a-body-with-a-length",
        consequence: "a large sample exhausts memory, and a download shows no progress",
        prepare: || {
            let head = "HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n";
            streams(head.into(), pattern(60_000), 1000)
        },
    },
    Case {
        name: "streams-a-chunked-body",
        consequence: "a large sample exhausts memory, and a download shows no progress",
        prepare: || {
            let body = pattern(60_000);
            let (first, last) = (chunk(&body[..1000]), chunk(&body[1000..]));
            let split = first.len();
            streams(CHUNKED.into(), [first, last, chunk(b"")].concat(), split)
        },
    },
    Case {
        name: "two-replies-at-a-time",
        consequence: "no call is possible during a download, or the bytes of two replies are mixed up",
        prepare: || {
            let script = |seen: &Seen| match seen.method.as_str() {
                "GET" => {
                    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n";
                    let (first, last) = (pattern(1000), pattern(60_000).split_off(1000));
                    vec![
                        Step::Send(head.to_vec()),
                        Step::Send(first),
                        Step::Gate,
                        Step::Send(last),
                    ]
                }
                _ => vec![reply("200 OK", "", &seen.body)],
            };
            served(script, two_replies_at_a_time)
        },
    },
    Case {
        name: "identity-is-left-alone",
        consequence: "the bytes of a sample are changed, and its SHA-256 does not match",
        prepare: || served(gzipped, identity_is_left_alone),
    },
    Case {
        name: "decoded-body-without-its-old-length",
        consequence: "compressed replies cannot be parsed, or short ones are rejected as truncated",
        prepare: || served(gzipped, decoded_body),
    },
];

fn statuses(list: &'static [u16]) -> io::Result<Prepared> {
    let script = |seen: &Seen| {
        vec![reply(
            &format!("{} Reason", seen.number()),
            "retry-after: 1\r\n",
            b"{\"errors\": []}",
        )]
    };
    served(script, move |server, transport| {
        for status in list {
            let request = get(&server.base(), &format!("?status={status}"));
            let (_, body) = exchange(transport, request, *status)
                .map_err(|error| format!("status {status}: {error}"))?;
            same("the body of an error", &body, b"{\"errors\": []}")?;
        }
        Ok(format!(
            "the {list:?} replies were returned with their bodies"
        ))
    })
}

/// Some HTTP libraries return the first interim reply and lose the final one. A transport that uses
/// such a library must report the failure as `unknown`, so that no hunt is billed twice.
fn interim_replies(server: &Server, transport: &dyn Transport) -> Outcome {
    for request in [get(&server.base(), ""), post(&server.base(), "{}")] {
        let reply = match transport.send(request) {
            Ok(reply) => reply,
            error => return unknown(error),
        };
        let (head, body) = reply.into_parts();
        if head.status != 200 {
            let status = head.status.as_u16();
            return Err(format!(
                "the final status was 200, but `send` returned {status}"
            ));
        }
        let body = whole(body)?;
        if head.headers.contains_key(header::LINK) {
            return Err("the final reply contains a header from an interim reply".into());
        }
        same("the body", &body, b"{}")?;
    }
    Ok("the interim replies 100 and 103 were skipped".into())
}

const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];

fn redirect(seen: &Seen, location: &str) -> Step {
    let status = format!("{} Redirect", seen.number());
    reply(&status, &format!("location: {location}\r\n"), b"redirected")
}

fn follows_nothing(server: &Server, other: Option<&Server>, transport: &dyn Transport) -> Outcome {
    let base = server.base();
    for status in REDIRECTS {
        let query = format!("?status={status}");
        let search = request::<Hunt>(&base, &query, b"{}".to_vec());
        for request in [get(&base, &query), search] {
            let (method, before) = (request.method().clone(), server.seen().len());
            let result = exchange(transport, request, status);
            let followed = server.seen().len() > before + 1
                || other.is_some_and(|other| !other.raw().is_empty());
            if followed {
                return Err(format!(
                    "the transport followed a redirect with status {status} after a {method}"
                ));
            }
            let (head, body) = result.map_err(|error| format!("{method}, {status}: {error}"))?;
            if !head.headers.contains_key(header::LOCATION) {
                return Err(format!(
                    "the {status} was returned without its `location` header"
                ));
            }
            same("the body of a redirect", &body, b"redirected")?;
        }
    }
    Ok(format!(
        "the statuses {REDIRECTS:?} were returned, and no redirect was followed"
    ))
}

const REPLY_HEADERS: [(&str, &str); 7] = [
    ("Content-Type", "application/json; charset=utf-8"),
    ("X-Cs-Traceid", "f1a3e2d0-0000-4000-8000-000000000001"),
    ("x-ratelimit-limit", "6000"),
    ("X-RateLimit-Remaining", "5999"),
    ("x-repeated", "one"),
    ("x-repeated", "two, three"),
    ("x-empty", ""),
];

fn reply_headers_unchanged(server: &Server, transport: &dyn Transport) -> Outcome {
    let (head, _) = exchange(transport, get(&server.base(), ""), 200)?;
    for (name, _) in REPLY_HEADERS {
        let named = REPLY_HEADERS.iter().filter(|(other, _)| *other == name);
        let sent: Vec<_> = named.map(|(_, value)| value.as_bytes()).collect();
        let passed: Vec<_> = head
            .headers
            .get_all(name)
            .iter()
            .map(HeaderValue::as_bytes)
            .collect();
        if passed != sent {
            return Err(format!(
                "the header {name} changed from {} to {}",
                shown(&sent),
                shown(&passed)
            ));
        }
    }
    Ok(format!(
        "{} headers were returned unchanged",
        REPLY_HEADERS.len()
    ))
}

const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

/// Returns a reply in chunks of various sizes.
fn chunked() -> Vec<u8> {
    let body = pattern(300_000);
    let mut out = CHUNKED.to_vec();
    let mut rest = body.as_slice();
    for size in [1, 0xABC, 17, 64 * 1024, 3, usize::MAX, 0] {
        let (part, others) = rest.split_at(size.min(rest.len()));
        rest = others;
        out.extend(chunk(part));
    }
    out
}

/// Returns a chunk, with its size in upper-case hex. The last chunk of a body is empty.
fn chunk(part: &[u8]) -> Vec<u8> {
    let size = format!("{:X}\r\n", part.len());
    [size.as_bytes(), part, b"\r\n"].concat()
}

/// Checks the bodies of two replies, which may use the same connection.
fn a_body(server: &Server, transport: &dyn Transport) -> Outcome {
    for request in [
        get(&server.base(), ""),
        without_limit(get(&server.base(), "")),
    ] {
        let (_, body) = exchange(transport, request, 200)?;
        same("the body", &body, &pattern(300_000))?;
    }
    Ok("all bytes of both replies were returned".into())
}

fn reply_without_a_body(server: &Server, transport: &dyn Transport) -> Outcome {
    for status in [204, 304] {
        let request = get(&server.base(), &format!("?status={status}"));
        let request = within(request, Duration::from_secs(3));
        let (_, body) = exchange(transport, request, status)
            .map_err(|error| format!("status {status}: {error}"))?;
        same("the body", &body, b"")?;
    }
    Ok("the 204 and 304 replies ended after their heads".into())
}

fn body_longer_than_its_length(server: &Server, transport: &dyn Transport) -> Outcome {
    let (_, body) = send(transport, get(&server.base(), ""))?;
    let mut bytes = Vec::new();
    let result = body.take(MOST).read_to_end(&mut bytes);
    if bytes.len() > 5 {
        return Err(format!(
            "the declared length was 5, but the body had {} bytes",
            bytes.len()
        ));
    }
    same("the body", &bytes, &b"hello"[..bytes.len()])?;
    Ok(match result {
        Ok(_) => "no bytes beyond the declared length were returned".into(),
        Err(error) => format!("reading the body failed: {error}"),
    })
}

/// Prepares a case that must read the first byte of a body before the server sends the last part.
fn streams(head: Vec<u8>, body: Vec<u8>, split: usize) -> io::Result<Prepared> {
    let server = Server::start(move |_| {
        let (first, last) = body.split_at(split);
        let first = [&head, first].concat();
        vec![Step::Send(first), Step::Gate, Step::Send(last.to_vec())]
    })?;
    prepared(server.base(), move |transport| {
        let (_, mut body) = send(transport, without_limit(get(&server.base(), "")))?;
        let mut bytes = vec![0];
        body.read_exact(&mut bytes)
            .map_err(|error| format!("cannot read the first byte: {error}"))?;
        if !server.open_gate() {
            return Err("the first byte arrived only after the whole body was sent".into());
        }
        bytes.extend(whole(body)?);
        same("the body", &bytes, &pattern(60_000))?;
        Ok("the first byte arrived before the last byte was sent".into())
    })
}

fn two_replies_at_a_time(server: &Server, transport: &dyn Transport) -> Outcome {
    let (_, mut body) = send(transport, without_limit(get(&server.base(), "")))?;
    let mut bytes = vec![0; 100];
    body.read_exact(&mut bytes)
        .map_err(|error| format!("cannot read the first bytes: {error}"))?;
    let between = b"a call during a download".to_vec();
    let (_, other) = exchange(transport, post(&server.base(), between.clone()), 200)
        .map_err(|error| format!("a call during a download failed: {error}"))?;
    same("the reply to a call during a download", &other, &between)?;
    if !server.open_gate() {
        return Err("a call was possible only after the download had ended".into());
    }
    bytes.extend(whole(body)?);
    same("the body of the download", &bytes, &pattern(60_000))?;
    Ok("a call during a download received its own reply".into())
}

const TEXT: &[u8] = b"{\"a\": 1}";
/// [`TEXT`], compressed with gzip.
const GZIP: &[u8] = &[
    0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x03, 0xab, 0x56, 0x4a, 0x54, 0xb2, 0x52,
    0x30, 0xac, 0x05, 0x00, 0x97, 0x8e, 0xa1, 0xfb, 0x08, 0x00, 0x00, 0x00,
];

fn gzipped(_: &Seen) -> Vec<Step> {
    vec![reply("200 OK", "content-encoding: gzip\r\n", GZIP)]
}

fn identity_is_left_alone(server: &Server, transport: &dyn Transport) -> Outcome {
    let mut request = get(&server.base(), "");
    let identity = HeaderValue::from_static("identity");
    request
        .headers_mut()
        .insert(header::ACCEPT_ENCODING, identity);
    let (head, body) = exchange(transport, request, 200)?;
    if server
        .seen()
        .iter()
        .any(|seen| seen.values("accept-encoding") != [b"identity"])
    {
        return Err("the request's accept-encoding header was changed".into());
    }
    same("a compressed body", &body, GZIP)?;
    match head.headers.get(header::CONTENT_ENCODING) {
        Some(value) if value == "gzip" => Ok("the compressed body was returned unchanged".into()),
        _ => Err("the compressed body was returned without its content-encoding".into()),
    }
}

fn decoded_body(server: &Server, transport: &dyn Transport) -> Outcome {
    let (head, body) = exchange(transport, get(&server.base(), ""), 200)?;
    let asked = server.seen().iter().any(|seen| {
        let values = seen.values("accept-encoding").concat();
        contains(&values.to_ascii_lowercase(), b"gzip")
    });
    let encoding = head.headers.get(header::CONTENT_ENCODING);
    if body == GZIP {
        return match encoding {
            _ if asked => Err("the transport requested gzip but did not decode it".into()),
            Some(_) => Ok("the body was not decoded, and its content-encoding was kept".into()),
            None => Err("the compressed body was returned without its content-encoding".into()),
        };
    }
    same("a decoded body", &body, TEXT)?;
    if encoding.is_some() || head.headers.contains_key(header::CONTENT_LENGTH) {
        return Err("the body was decoded, but content-encoding or content-length was kept".into());
    }
    Ok("the body was decoded, and content-encoding and content-length were removed".into())
}
