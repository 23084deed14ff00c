//! Replies and faults in code, for [`script`](crate::script).

use std::fmt;
use std::io;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use malquery_proto::flow::SendFailure;
use serde::Serialize;

/// A reply, or a fault in its place.
#[derive(Clone)]
#[must_use]
pub struct Reply {
    pub(crate) answer: Answer,
    pub(crate) times: u32,
    pub(crate) repeat_last: bool,
}

#[derive(Clone)]
pub(crate) enum Answer {
    Response {
        status: StatusCode,
        headers: HeaderMap,
        body: Arc<[u8]>,
        truncate_after: Option<usize>,
    },
    Fault(Fault),
}

/// What can go wrong instead of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// The connection is refused (`connect_refused` in a cassette).
    ConnectRefused,
    /// The name of the host is not found (`dns`).
    Dns,
    /// The TLS handshake fails, since it is not TLS that is spoken there (`tls`).
    Tls,
    /// No reply comes in time (`timeout`).
    Timeout,
    /// The connection is reset after the request was sent (`reset`).
    Reset,
    /// The connection is closed after the request was sent, before a reply came (`eof`).
    Eof,
}

impl Fault {
    pub(crate) const NAMES: [(&str, Self); 6] = [
        ("connect_refused", Self::ConnectRefused),
        ("dns", Self::Dns),
        ("tls", Self::Tls),
        ("timeout", Self::Timeout),
        ("reset", Self::Reset),
        ("eof", Self::Eof),
    ];

    /// Whether the service may have seen the request: surely not for the first three.
    pub fn failure(self) -> SendFailure {
        match self {
            Self::ConnectRefused | Self::Dns | Self::Tls => SendFailure::NotSent,
            Self::Timeout | Self::Reset | Self::Eof => SendFailure::Unknown,
        }
    }
}

impl Fault {
    /// What malquery-ureq says of the real thing; a test on sockets compares the two.
    pub(crate) fn explain(self, host: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConnectRefused => write!(
                f,
                "no connection to {host}; check the network, a firewall, and whether a proxy is needed"
            ),
            Self::Dns => write!(
                f,
                "the name of {host} was not found; check the cloud or base URL, the network, and whether a proxy is \
                 needed"
            ),
            Self::Tls => write!(f, "no TLS connection to {host}; check that it speaks https"),
            Self::Timeout => write!(f, "no reply from {host} in time"),
            Self::Reset | Self::Eof => write!(f, "the connection to {host} broke before the reply"),
        }
    }

    /// What the system or rustls says of it.
    pub(crate) fn source(self) -> io::Error {
        match self {
            Self::ConnectRefused => io::ErrorKind::ConnectionRefused.into(),
            Self::Dns => io::Error::other("failed to lookup address information"),
            Self::Tls => io::Error::new(io::ErrorKind::InvalidData, "received corrupt message"),
            Self::Timeout => io::ErrorKind::TimedOut.into(),
            Self::Reset => io::ErrorKind::ConnectionReset.into(),
            Self::Eof => io::Error::new(io::ErrorKind::UnexpectedEof, "Peer disconnected"),
        }
    }
}

/// A reply without a body.
///
/// # Panics
/// When the status is not from 200 to 999. So do the other functions here.
#[track_caller]
pub fn status(status: u16) -> Reply {
    let Some(status) = StatusCode::from_u16(status)
        .ok()
        .filter(|status| !status.is_informational())
    else {
        panic!("{status} is not the status of a reply");
    };
    Reply::new(Answer::Response {
        status,
        headers: HeaderMap::new(),
        body: Arc::default(),
        truncate_after: None,
    })
}

/// A reply with a JSON body: `serde_json::json!({..})` or any other value that can be written as JSON.
///
/// # Panics
/// When the value cannot be written as JSON.
#[track_caller]
pub fn json(status: u16, value: impl Serialize) -> Reply {
    match serde_json::to_vec(&value) {
        Ok(body) => bytes(status, "application/json", body),
        Err(error) => panic!("the value cannot be written as JSON: {error}"),
    }
}

/// A reply with any body, say a sample or a text such as `"<html>"`.
///
/// ```
/// use malquery_mock::{reply, script};
///
/// // A download that breaks off after two bytes, and then one that does not.
/// let sample = || reply::bytes(200, "application/octet-stream", "hello");
/// let (mock, guard) = script([sample().truncate_after(2), sample()]).with_tokens().play();
/// # drop(mock);
/// # std::mem::forget(guard);
/// ```
#[track_caller]
pub fn bytes(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Reply {
    let mut reply = self::status(status).header(header::CONTENT_TYPE.as_str(), content_type);
    if let Answer::Response { body: bytes, .. } = &mut reply.answer {
        *bytes = body.into().into();
    }
    reply
}

/// No reply but a fault.
pub fn fault(fault: Fault) -> Reply {
    Reply::new(Answer::Fault(fault))
}

impl Reply {
    fn new(answer: Answer) -> Self {
        Self {
            answer,
            times: 1,
            repeat_last: false,
        }
    }

    /// Adds a header. None is added by itself but the content type, not even a length.
    ///
    /// # Panics
    /// When it is no valid header, or this is a fault.
    #[track_caller]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let (Ok(name), Ok(value)) = (
            HeaderName::try_from(name),
            HeaderValue::from_bytes(value.as_bytes()),
        ) else {
            panic!("{name:?}: {value:?} is not a valid header");
        };
        match &mut self.answer {
            Answer::Response { headers, .. } => {
                headers.append(name, value);
            }
            Answer::Fault(fault) => panic!("there is no reply to add a header to: {fault:?}"),
        }
        self
    }

    /// Breaks the connection after this many bytes of the body.
    ///
    /// # Panics
    /// When the body is shorter, or this is a fault.
    #[track_caller]
    pub fn truncate_after(mut self, bytes: usize) -> Self {
        match &mut self.answer {
            Answer::Response {
                body,
                truncate_after,
                ..
            } if bytes <= body.len() => *truncate_after = Some(bytes),
            _ => panic!("there are no {bytes} bytes to break off after"),
        }
        self
    }

    /// Gives it to this many requests.
    ///
    /// # Panics
    /// When it is 0.
    #[track_caller]
    pub fn times(mut self, times: u32) -> Self {
        assert!(times > 0, "a reply is given at least once");
        self.times = times;
        self
    }

    /// Gives it to every request after it, too, when it is the last.
    pub fn repeat_last(mut self) -> Self {
        self.repeat_last = true;
        self
    }
}

impl fmt::Debug for Reply {
    /// Leaves out the body.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.answer {
            Answer::Response { status, body, .. } => {
                write!(f, "Reply({status}, {} bytes)", body.len())
            }
            Answer::Fault(fault) => write!(f, "Reply({fault:?})"),
        }
    }
}
