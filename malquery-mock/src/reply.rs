//! Replies and faults for a [`script`](crate::script) or an [`Overlay`](crate::Overlay).

use std::fmt;
use std::io;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use malquery_proto::flow::SendFailure;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const TRACE_ID: &str = "00000000-0000-4000-8000-000000000000";

/// A reply, or a fault in its place.
#[derive(Clone)]
#[must_use]
pub struct Reply {
    pub(crate) answer: Result<Response, Fault>,
    pub(crate) times: u32,
    pub(crate) repeat_last: bool,
}

#[derive(Clone, Default)]
pub(crate) struct Response {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Arc<[u8]>,
    /// The number of body bytes before the connection breaks, if it does.
    pub(crate) truncate_after: Option<u64>,
}

/// A failure in place of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Fault {
    /// The connection is refused (`connect_refused` in a cassette).
    ConnectRefused,
    /// The host name cannot be resolved (`dns`).
    Dns,
    /// The TLS handshake fails, for example because the server does not speak TLS (`tls`).
    Tls,
    /// No reply arrives in time (`timeout`).
    Timeout,
    /// The connection is reset after the request is sent (`reset`).
    Reset,
    /// The connection is closed after the request is sent and before a reply arrives (`eof`).
    Eof,
}

impl Fault {
    /// Returns whether the request may have reached the service: [`SendFailure::NotSent`] for
    /// `ConnectRefused`, `Dns` and `Tls`, and [`SendFailure::Unknown`] for the others.
    pub fn failure(self) -> SendFailure {
        match self {
            Self::ConnectRefused | Self::Dns | Self::Tls => SendFailure::NotSent,
            Self::Timeout | Self::Reset | Self::Eof => SendFailure::Unknown,
        }
    }

    /// Returns the message that malquery-ureq uses for this failure. The test `fault_parity`
    /// compares the two crates.
    pub(crate) fn message(self, host: &str) -> String {
        let message = match self {
            Self::ConnectRefused => {
                "could not connect to HOST (check the network, the firewall, and whether a proxy is needed)"
            }
            Self::Dns => {
                "could not resolve HOST (check the cloud or the base URL, the network, \
                 and whether a proxy is needed)"
            }
            Self::Tls => {
                "the TLS handshake with HOST failed (check that the server supports https)"
            }
            Self::Timeout => "HOST did not reply in time",
            Self::Reset | Self::Eof => "the connection to HOST broke before the reply arrived",
        };
        message.replace("HOST", host)
    }

    /// Returns the source of the error: an I/O error like the one that the system, rustls or ureq
    /// would return.
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

/// Returns a reply without a body.
///
/// # Panics
/// Panics if the status is not in the range 200 to 999.
#[track_caller]
pub fn status(status: u16) -> Reply {
    Reply::new(Ok(Response {
        status: status_code(status).unwrap_or_else(|why| panic!("{why}")),
        ..Response::default()
    }))
}

/// Returns a reply whose JSON body is this value, such as `serde_json::json!({..})`.
///
/// # Panics
/// Panics if the status is not in the range 200 to 999, or if the value cannot be serialized as
/// JSON.
#[track_caller]
pub fn json(status: u16, value: impl Serialize) -> Reply {
    match serde_json::to_vec(&value) {
        Ok(body) => bytes(status, "application/json", body),
        Err(error) => panic!("the value cannot be serialized as JSON: {error}"),
    }
}

/// Returns a reply with these bytes as its body, such as a sample or the text `"<html>"`.
///
/// # Panics
/// Panics if the status is not in the range 200 to 999, or if the content type is not a valid
/// header value.
///
/// ```
/// use malquery_mock::{reply, script};
///
/// // A download that is interrupted after two bytes, then a complete one.
/// let sample = || reply::bytes(200, "application/octet-stream", "hello");
/// let (mock, guard) = script([sample().truncate_after(2), sample()]).with_tokens().play();
/// # drop(mock);
/// # std::mem::forget(guard);
/// ```
#[track_caller]
pub fn bytes(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Reply {
    let mut reply = self::status(status).header(header::CONTENT_TYPE.as_str(), content_type);
    reply.response().body = body.into().into();
    reply
}

/// Returns this fault, to be used in place of a reply.
pub fn fault(fault: Fault) -> Reply {
    Reply::new(Err(fault))
}

/// Returns a `GetMalQueryQuotasV1` reply with unused quotas: 100 hunts and 50 downloads a month.
pub fn quotas() -> Reply {
    let meta = json!({
        "hunt_count": 0, "hunt_limit": 100, "download_count": 0, "download_limit": 50,
        "monitor_count": 0, "monitor_limit": 0, "days_left": 12,
        "refresh_time": "2026-02-01T00:00:00Z",
    });
    json(200, json!({"meta": meta, "errors": []}))
}

/// Returns the reply to a submitted hunt, exact search or multi-download. The reply contains this
/// request id. As in MalQuery, its `status` is `done`, which is not the status of the job.
pub fn submitted(id: impl fmt::Display) -> Reply {
    job(id, "done")
}

/// Returns the reply to a poll of a job in progress.
pub fn running(id: impl fmt::Display) -> Reply {
    job(id, "inprogress")
}

/// Returns the reply to a poll of a finished hunt, with one result for each SHA-256.
pub fn done<S: fmt::Display>(id: impl fmt::Display, samples: impl IntoIterator<Item = S>) -> Reply {
    let result = |sha256: S| {
        json!({"sha256": sha256.to_string(), "filesize": 6, "filetype": "text",
            "first_seen": "2020/06/09", "label": "unknown", "family": "", "samples": []})
    };
    let results: Vec<_> = samples.into_iter().map(result).collect();
    let count = results.len();
    let stats = json!({"clean_count": 0, "malware_count": 0, "pua_count": 0,
        "unknown_count": count, "total_count": count});
    let done = job(id, "done").set("resources", results);
    done.set("meta/reqtype", "hunt").set("meta/stats", stats)
}

/// Returns the reply to a poll of a failed job.
pub fn failed(id: impl fmt::Display) -> Reply {
    job(id, "failed")
}

/// Returns a reply with the bytes of a sample.
pub fn sample(body: impl Into<Vec<u8>>) -> Reply {
    bytes(200, "application/octet-stream", body)
}

/// Returns a reply whose body is a zip archive of samples.
pub fn archive(zip: impl Into<Vec<u8>>) -> Reply {
    bytes(200, "application/zip", zip)
}

/// Returns an error reply from the API gateway, such as 403 `access denied, authorization failed`.
///
/// # Panics
/// Panics if the status is not in the range 200 to 999.
#[track_caller]
pub fn api_error(status: u16, message: &str) -> Reply {
    let errors = json!([{"code": status, "message": message}]);
    let reply = envelope(status, "crowdstrike-api-gateway").set("errors", errors);
    reply.header("x-cs-traceid", TRACE_ID)
}

/// Returns MalQuery's reply to a request that exceeds a monthly quota.
pub fn quota_exhausted() -> Reply {
    envelope(429, "malquery-api").set("resources", json!([]))
}

/// Returns the gateway's reply to a request that exceeds the rate limit. Its `retry-after` header
/// contains this number of seconds.
pub fn rate_limited(seconds: u64) -> Reply {
    api_error(429, "API rate limit exceeded.").header("retry-after", &seconds.to_string())
}

fn job(id: impl fmt::Display, status: &str) -> Reply {
    envelope(200, "malquery-api")
        .set("meta/reqid", id.to_string())
        .set("meta/status", status)
        .set("resources", json!([]))
}

/// Returns a reply with the fields that replies from the gateway and from MalQuery have in common.
#[track_caller]
fn envelope(status: u16, powered_by: &str) -> Reply {
    let meta = json!({"query_time": 0.01, "powered_by": powered_by, "trace_id": TRACE_ID});
    json(status, json!({"meta": meta, "errors": []}))
}

/// Converts the status of a reply. Refuses 100 to 199, because such a reply is only interim.
pub(crate) fn status_code(status: u16) -> Result<StatusCode, String> {
    match StatusCode::from_u16(status) {
        Ok(known) if !known.is_informational() => Ok(known),
        _ => Err(format!("{status} is not a valid status; use 200 to 999")),
    }
}

pub(crate) fn parse_header(name: &str, value: &str) -> http::Result<(HeaderName, HeaderValue)> {
    Ok((name.try_into()?, HeaderValue::from_bytes(value.as_bytes())?))
}

impl Reply {
    pub(crate) fn new(answer: Result<Response, Fault>) -> Self {
        Self {
            answer,
            times: 1,
            repeat_last: false,
        }
    }

    #[track_caller]
    fn response(&mut self) -> &mut Response {
        let response = self.answer.as_mut();
        response.unwrap_or_else(|fault| panic!("the fault {fault:?} has no headers and no body"))
    }

    /// Sets a value in the JSON body, at a path such as `meta/hunt_count` or `resources/0/label`.
    /// Creates missing members of objects.
    ///
    /// # Panics
    /// Panics if this is a fault, if the body is not JSON or has no such path, or if the value
    /// cannot be serialized as JSON.
    #[track_caller]
    pub fn set(mut self, place: &str, value: impl Serialize) -> Self {
        let body = &mut self.response().body;
        let mut document: Value = serde_json::from_slice(body)
            .unwrap_or_else(|error| panic!("the body is not JSON: {error}"));
        let mut at = &mut document;
        for name in place.trim_start_matches('/').split('/') {
            at = match at {
                Value::Array(items) => name.parse().ok().and_then(|at: usize| items.get_mut(at)),
                Value::Object(members) => Some(members.entry(name).or_insert_with(|| json!({}))),
                _ => None,
            }
            .unwrap_or_else(|| panic!("the body has no {place}"));
        }
        *at = serde_json::to_value(value)
            .unwrap_or_else(|error| panic!("the value cannot be serialized as JSON: {error}"));
        *body = document.to_string().into_bytes().into();
        self
    }

    /// Adds a header. No `content-length` is added automatically.
    ///
    /// # Panics
    /// Panics if this is a fault, or if the header is not valid.
    #[track_caller]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let Ok(parsed) = parse_header(name, value) else {
            panic!("the header {name:?} with the value {value:?} is not valid");
        };
        self.response().headers.append(parsed.0, parsed.1);
        self
    }

    /// Breaks the connection after this many bytes of the body.
    ///
    /// # Panics
    /// Panics if this is a fault, or if `bytes` is greater than the length of the body.
    #[track_caller]
    pub fn truncate_after(mut self, bytes: usize) -> Self {
        let response = self.response();
        if bytes > response.body.len() {
            panic!("cannot truncate the body: offset {bytes} is past its end");
        }
        response.truncate_after = Some(bytes as u64);
        self
    }

    /// Answers this many requests with this reply. The default is 1.
    ///
    /// # Panics
    /// Panics if the number is 0.
    #[track_caller]
    pub fn times(mut self, times: u32) -> Self {
        assert!(times > 0, "times must be at least 1");
        self.times = times;
        self
    }

    /// Also answers later requests, if this is the last reply in the script.
    pub fn repeat_last(mut self) -> Self {
        self.repeat_last = true;
        self
    }
}

impl fmt::Debug for Reply {
    /// Omits the headers and the bytes of the body.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.answer {
            Ok(reply) => write!(f, "Reply({}, {} bytes)", reply.status, reply.body.len()),
            Err(fault) => write!(f, "Reply({fault:?})"),
        }
    }
}
