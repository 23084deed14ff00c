//! Plain transports, each with one mistake.

use std::error::Error;
use std::io::{self, Cursor, ErrorKind, Read};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HeaderValue, LOCATION, TRANSFER_ENCODING,
};
use http::{Method, Request, Response, Uri};
use malquery_proto::client::TimeLeft;
use malquery_proto::flow::SendFailure;
use malquery_proto::{Body, Transport, TransportError};

use super::plain::{Plain, closing, connect, talk, talk_until};

type Sent = Result<Response<Body>, TransportError>;
pub(crate) type Mistake = fn(&Wrong, Request<Vec<u8>>) -> Sent;

pub(crate) struct Wrong {
    mistake: Mistake,
    idle: Mutex<Option<TcpStream>>,
    remembered: Mutex<Option<Vec<u8>>>,
    busy: Arc<AtomicBool>,
}

impl Wrong {
    pub(crate) fn new(mistake: Mistake) -> Self {
        Self {
            mistake,
            idle: Mutex::default(),
            remembered: Mutex::default(),
            busy: Arc::default(),
        }
    }
}

impl Transport for Wrong {
    fn send(&self, request: Request<Vec<u8>>) -> Sent {
        (self.mistake)(self, request)
    }
}

/// Each transport with its mistake and the cases that it fails.
pub(crate) const MISTAKES: &[(&str, Mistake, &[&str])] = &[
    (
        "announces an empty body",
        |_, mut request| {
            if request.method() == Method::GET {
                request
                    .headers_mut()
                    .insert(CONTENT_LENGTH, HeaderValue::from(0));
            }
            Plain.send(request)
        },
        &["get-without-a-body"],
    ),
    (
        "sends text alone",
        |_, request| {
            Plain.send(request.map(|body| String::from_utf8_lossy(&body).into_owned().into_bytes()))
        },
        &["post-with-its-exact-body"],
    ),
    (
        "sends a body in chunks",
        |_, mut request| {
            if !request.body().is_empty() {
                request
                    .headers_mut()
                    .insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
            Plain.send(request.map(|body| match body.len() {
                0 => body,
                size => {
                    let size = format!("{size:x}\r\n");
                    [size.as_bytes(), &body, b"\r\n0\r\n\r\n"].concat()
                }
            }))
        },
        &["post-with-its-exact-body"],
    ),
    (
        "limits the time for the reply alone",
        |_, mut request| {
            // Without a limit this test would be slow.
            if request.body().len() > 1 << 20 {
                request
                    .extensions_mut()
                    .insert(TimeLeft(Duration::from_secs(5)));
            }
            Plain.send(request)
        },
        &["service-that-does-not-read"],
    ),
    (
        "decodes the URI",
        |_, mut request| {
            change_uri(&mut request, "%2F", "/");
            Plain.send(request)
        },
        &["uri-unchanged"],
    ),
    (
        "sends the last of repeated headers",
        |_, mut request| {
            for (name, value) in request.headers().clone() {
                if let Some(name) = name {
                    request.headers_mut().insert(name, value);
                }
            }
            Plain.send(request)
        },
        &["request-headers-unchanged"],
    ),
    (
        "has no TLS and does not care",
        |_, mut request| {
            change_uri(&mut request, "https:", "http:");
            Plain.send(request)
        },
        &["https-is-encrypted"],
    ),
    (
        "sends everything a second time",
        |_, request| Plain.send(request.clone()).or_else(|_| Plain.send(request)),
        &[
            "closed-before-the-reply",
            "closed-in-the-head",
            "endless-head",
            "post-sent-once",
            "reset-before-the-reply",
            "reset-in-the-head",
            "silent-service",
        ],
    ),
    (
        "does not check idle connections",
        reuse,
        &["stale-connection"],
    ),
    (
        "waits for a body that never comes",
        |_, request| {
            if request.uri().query() == Some("status=204") {
                let address = request.uri().authority().unwrap().as_str();
                return talk(TcpStream::connect(address).unwrap(), request)
                    .map_err(TransportError::unknown);
            }
            Plain.send(request)
        },
        &["reply-without-a-body"],
    ),
    (
        "remembers replies",
        |this, request| {
            let is_post = request.method() == Method::POST;
            let mut remembered = this.remembered.lock().unwrap();
            if let Some(body) = remembered.clone().filter(|_| is_post) {
                return Ok(Response::new(body.into()));
            }
            let (head, body) = Plain.send(request)?.into_parts();
            if !is_post || head.status != 200 {
                return Ok(Response::from_parts(head, body));
            }
            let bytes = io::read_to_string(body).unwrap().into_bytes();
            *remembered = Some(bytes.clone());
            Ok(Response::from_parts(head, bytes.into()))
        },
        &["concurrent-requests"],
    ),
    (
        "makes an error of a 4xx",
        |_, request| refuse(Plain.send(request), 400),
        &["client-errors-are-replies"],
    ),
    (
        "makes an error of a 5xx",
        |_, request| refuse(Plain.send(request), 500),
        &["server-errors-are-replies"],
    ),
    (
        "returns an interim reply",
        |_, request| {
            let stream = connect(&request)?;
            talk_until(stream, closing(request), |_| true).map_err(TransportError::unknown)
        },
        &["interim-replies"],
    ),
    (
        "follows a relative redirect",
        |_, request| follow(request, |location| location.starts_with('/')),
        &["redirect-to-the-same-host"],
    ),
    (
        "follows an absolute redirect",
        |_, request| follow(request, |location| !location.starts_with('/')),
        &["redirect-to-another-host"],
    ),
    (
        "passes on the last of repeated headers",
        |_, request| {
            let mut reply = Plain.send(request)?;
            if reply.headers().len() > 100 {
                return Ok(reply);
            }
            for (name, value) in reply.headers().clone() {
                if let Some(name) = name {
                    reply.headers_mut().insert(name, value);
                }
            }
            Ok(reply)
        },
        &["reply-headers-unchanged"],
    ),
    (
        "cuts a long body with a length",
        |_, request| {
            change_body(request, Framing::Length, |body| {
                Body::new(body.take(1 << 18))
            })
        },
        &["body-with-a-length"],
    ),
    (
        "cuts a long chunked body",
        |_, request| {
            change_body(request, Framing::Chunks, |body| {
                Body::new(body.take(1 << 18))
            })
        },
        &["chunked-body"],
    ),
    (
        "expects a length",
        |_, request| change_body(request, Framing::Close, |_| Body::from(Vec::new())),
        &["body-until-close", "reset-in-a-body"],
    ),
    (
        "reads on after the end of a body",
        |_, request| {
            let reply = Plain.send(request)?;
            let five = reply
                .headers()
                .get(CONTENT_LENGTH)
                .is_some_and(|length| length == "5");
            let rest: &[u8] = if five { b"HTTP/1.1 200 OK" } else { b"" };
            Ok(reply.map(|body| Body::new(body.chain(rest))))
        },
        &["body-longer-than-its-length"],
    ),
    (
        "reads a body with a length at once",
        |_, request| at_once(request, Framing::Length),
        &["streams-a-body-with-a-length", "two-replies-at-a-time"],
    ),
    (
        "reads a chunked body at once",
        |_, request| at_once(request, Framing::Chunks),
        &["streams-a-chunked-body"],
    ),
    (
        "has one connection",
        one_at_a_time,
        &["two-replies-at-a-time"],
    ),
    (
        "decodes what asked for identity",
        |_, request| {
            let asked = request.headers().contains_key(ACCEPT_ENCODING);
            decode(Plain.send(request), asked, true)
        },
        &["identity-is-left-alone"],
    ),
    (
        "decodes and keeps the old length",
        |_, request| {
            let asked = request.headers().contains_key(ACCEPT_ENCODING);
            decode(Plain.send(request), !asked, false)
        },
        &["decoded-body-without-its-old-length"],
    ),
    (
        "is not sure about a refused connection",
        |_, request| {
            let is_refused = |kind| kind == ErrorKind::ConnectionRefused;
            classify(request, is_refused, TransportError::unknown)
        },
        &["refused-connection"],
    ),
    (
        "is not sure about a lookup",
        |_, request| {
            Plain.send(request).map_err(|error| match error.failure() {
                SendFailure::NotSent if kind(&error) != ErrorKind::ConnectionRefused => {
                    TransportError::unknown(error)
                }
                _ => error,
            })
        },
        &["failed-lookup"],
    ),
    (
        "takes a reset for a refusal",
        |_, request| {
            classify(
                request,
                |kind| kind == ErrorKind::ConnectionReset,
                TransportError::not_sent,
            )
        },
        &["reset-before-the-reply", "reset-in-the-head"],
    ),
    (
        "takes an early end for a refusal",
        |_, request| {
            classify(
                request,
                |kind| kind == ErrorKind::UnexpectedEof,
                TransportError::not_sent,
            )
        },
        &[
            "closed-before-the-reply",
            "closed-in-the-head",
            "hostile-heads",
            "post-sent-once",
        ],
    ),
    (
        "takes half a head for a whole one",
        |_, request| {
            Plain.send(request).or_else(|error| match kind(&error) {
                ErrorKind::UnexpectedEof => Ok(Response::new(Vec::new().into())),
                _ => Err(error),
            })
        },
        &[
            "closed-before-the-reply",
            "closed-in-the-head",
            "post-sent-once",
        ],
    ),
    (
        "takes a timeout for a refusal",
        |_, request| classify(request, is_timeout, TransportError::not_sent),
        &[
            "endless-head",
            "service-that-does-not-read",
            "silent-service",
        ],
    ),
    (
        "ignores the time left",
        |_, mut request| {
            if request
                .extensions()
                .get()
                .is_some_and(|TimeLeft(left)| *left < Duration::from_secs(2))
            {
                request
                    .extensions_mut()
                    .insert(TimeLeft(Duration::from_secs(6)));
            }
            Plain.send(request)
        },
        &[
            "dripping-body",
            "endless-head",
            "no-time-left",
            "service-that-does-not-read",
            "silent-service",
            "stalled-body",
        ],
    ),
    (
        "panics without time",
        |_, request| {
            assert_ne!(request.extensions().get(), Some(&TimeLeft(Duration::ZERO)));
            Plain.send(request)
        },
        &["no-time-left"],
    ),
    (
        "panics with much time",
        |_, request| {
            let left = request
                .extensions()
                .get()
                .map(|TimeLeft(left)| left.as_secs());
            assert!(i32::try_from(left.unwrap_or(0)).is_ok());
            Plain.send(request)
        },
        &["endless-time-left"],
    ),
    (
        "loses the length",
        |_, request| {
            let mut reply = Plain.send(request)?;
            reply.headers_mut().remove(CONTENT_LENGTH);
            Ok(reply)
        },
        &["cut-body-with-a-length"],
    ),
    (
        "takes an early end for the end",
        |_, request| ends_well(request, |kind| kind == ErrorKind::UnexpectedEof),
        &["cut-chunked-body", "malformed-chunks"],
    ),
    (
        "takes a bad size for the end",
        |_, request| ends_well(request, |kind| kind == ErrorKind::Other),
        &["malformed-chunks"],
    ),
    (
        "takes a reset for the end",
        |_, request| ends_well(request, |kind| kind == ErrorKind::ConnectionReset),
        &["reset-in-a-body"],
    ),
    (
        "panics when a head is not one",
        |_, request| {
            Plain.send(request).inspect_err(|error| {
                assert!(kind(error) != ErrorKind::Other || error.failure() != SendFailure::Unknown);
            })
        },
        &["hostile-heads"],
    ),
];

fn change_uri(request: &mut Request<Vec<u8>>, from: &str, to: &str) {
    *request.uri_mut() = request.uri().to_string().replace(from, to).parse().unwrap();
}

/// Returns the kind of the I/O error.
fn kind(error: &TransportError) -> ErrorKind {
    let cause = error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>());
    cause.map_or(ErrorKind::Unsupported, io::Error::kind)
}

/// A limit of zero, which the system refuses, also counts as a timeout.
fn is_timeout(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::InvalidInput
    )
}

fn classify(
    request: Request<Vec<u8>>,
    wrong: impl Fn(ErrorKind) -> bool,
    class: fn(TransportError) -> TransportError,
) -> Sent {
    Plain
        .send(request)
        .map_err(|error| match wrong(kind(&error)) {
            true => class(error),
            false => error,
        })
}

fn refuse(sent: Sent, from: u16) -> Sent {
    match sent? {
        reply if (from..from + 100).contains(&reply.status().as_u16()) => {
            Err(TransportError::unknown("the status is an error"))
        }
        reply => Ok(reply),
    }
}

fn follow(request: Request<Vec<u8>>, follows: fn(&str) -> bool) -> Sent {
    let mut next = request.clone();
    let reply = Plain.send(request)?;
    let Some(location) = reply
        .headers()
        .get(LOCATION)
        .and_then(|value| value.to_str().ok())
    else {
        return Ok(reply);
    };
    if !follows(location) {
        return Ok(reply);
    }
    *next.uri_mut() = match location.starts_with('/') {
        true => format!("http://{}{location}", next.uri().authority().unwrap()).parse(),
        false => location.parse::<Uri>(),
    }
    .unwrap();
    Plain.send(next)
}

#[derive(PartialEq)]
enum Framing {
    Length,
    Chunks,
    Close,
}

fn framing(reply: &Response<Body>) -> Framing {
    if reply.headers().contains_key(TRANSFER_ENCODING) {
        Framing::Chunks
    } else if reply.headers().contains_key(CONTENT_LENGTH) {
        Framing::Length
    } else {
        Framing::Close
    }
}

fn change_body(request: Request<Vec<u8>>, of: Framing, change: fn(Body) -> Body) -> Sent {
    let reply = Plain.send(request)?;
    match framing(&reply) == of {
        true => Ok(reply.map(change)),
        false => Ok(reply),
    }
}

fn at_once(request: Request<Vec<u8>>, of: Framing) -> Sent {
    let reply = Plain.send(request)?;
    if framing(&reply) != of {
        return Ok(reply);
    }
    let (head, mut body) = reply.into_parts();
    let mut bytes = Vec::new();
    body.read_to_end(&mut bytes)
        .map_err(TransportError::unknown)?;
    Ok(Response::from_parts(head, bytes.into()))
}

/// Sends a POST on the connection of a GET.
fn reuse(this: &Wrong, request: Request<Vec<u8>>) -> Sent {
    if request.method() == Method::POST {
        return match this.idle.lock().unwrap().take() {
            Some(stream) => talk(stream, request).map_err(TransportError::unknown),
            None => Plain.send(request),
        };
    }
    if request.uri().query().is_some() || request.uri().scheme_str() != Some("http") {
        return Plain.send(request);
    }
    let address = request.uri().authority().unwrap().as_str();
    let stream = TcpStream::connect(address).map_err(TransportError::not_sent)?;
    let again = stream.try_clone().unwrap();
    let reply = talk(stream, request).map_err(TransportError::unknown)?;
    if reply
        .headers()
        .get(CONTENT_LENGTH)
        .is_none_or(|length| length != "2")
    {
        return Ok(reply);
    }
    let reply = reply.map(|body| Body::from(io::read_to_string(body).unwrap().into_bytes()));
    *this.idle.lock().unwrap() = Some(again);
    Ok(reply)
}

/// Sends nothing while a long download is in progress.
fn one_at_a_time(this: &Wrong, request: Request<Vec<u8>>) -> Sent {
    struct Download(Body, Arc<AtomicBool>);

    impl Read for Download {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }

    impl Drop for Download {
        fn drop(&mut self) {
            self.1.store(false, Ordering::SeqCst);
        }
    }

    if this.busy.load(Ordering::SeqCst) {
        return Err(TransportError::unknown("the connection is in use"));
    }
    let reply = Plain.send(request)?;
    if reply
        .headers()
        .get(CONTENT_LENGTH)
        .is_none_or(|length| length != "60000")
    {
        return Ok(reply);
    }
    this.busy.store(true, Ordering::SeqCst);
    let busy = Arc::clone(&this.busy);
    Ok(reply.map(|body| Body::new(Download(body, busy))))
}

/// Replaces a body with its decoded form. `tidies` also removes the headers about the encoded one.
fn decode(sent: Sent, decodes: bool, tidies: bool) -> Sent {
    let mut reply = sent?;
    if !decodes
        || reply
            .headers()
            .get(CONTENT_LENGTH)
            .is_none_or(|length| length != "28")
    {
        return Ok(reply);
    }
    if tidies {
        reply.headers_mut().remove(CONTENT_LENGTH);
        reply.headers_mut().remove(CONTENT_ENCODING);
    }
    Ok(reply.map(|_| Body::new(Cursor::new(b"{\"a\": 1}"))))
}

/// Treats an error as the end of a body.
fn ends_well(request: Request<Vec<u8>>, wrong: fn(ErrorKind) -> bool) -> Sent {
    struct EndsWell(Body, fn(ErrorKind) -> bool);

    impl Read for EndsWell {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0
                .read(buffer)
                .or_else(|error| match self.1(error.kind()) {
                    true => Ok(0),
                    false => Err(error),
                })
        }
    }

    Ok(Plain
        .send(request)?
        .map(|body| Body::new(EndsWell(body, wrong))))
}
