use std::fmt::{self, Write as _};
use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{HeaderMap, HeaderName, StatusCode, Uri, header};
use malquery_proto::flow::SendFailure;
use malquery_proto::{Body, Transport, TransportError};
use sha2::{Digest, Sha256};
use url::form_urlencoded;

use crate::diff;
use crate::digest;
use crate::json::Json;
use crate::matching::{self, Pairs};
use crate::redact::{self, Content, Redaction, Side};
use crate::secret;

/// The longest body that is shown. A longer one is told by its length and hash, as binary ones are.
const MAX_SHOWN: usize = 256 * 1024;

/// Writes down what goes over a transport, as text for snapshots.
///
/// It goes around any transport and passes everything on as it is, also bodies while they are read. `Display`
/// gives the exchanges until now, in the order of their requests: pretty JSON, texts of several lines such as a
/// YARA rule as a block, binary bodies as length and hash, equal exchanges that follow each other once with
/// their number. Hosts and `date` headers are left out, and so is what [`format`](crate::format#what-is-recorded) calls a
/// secret, also where it comes again as a text of 8 bytes or more. (It is not searched for in other encodings, as a recording
/// is.)
///
/// ```
/// use malquery_mock::{Transcript, VirtualClock, reply, script};
/// use malquery_proto::flow::Auth;
/// use malquery_proto::{Client, Cloud, Credentials};
///
/// let quotas = serde_json::json!({"meta": {"hunt_limit": 100}});
/// let (mock, guard) = script([reply::json(200, quotas).times(2)]).with_tokens().play();
/// let transcript = Transcript::new(mock);
/// let auth = Auth::new(Cloud::Us1, Credentials::new("an-id", "a-secret"));
/// let client = Client::new(transcript.clone(), VirtualClock::new(), auth);
/// client.quotas()?;
/// client.quotas()?;
/// guard.finish();
///
/// // With insta: malquery_mock::assert_transcript!(transcript);
/// assert_eq!(transcript.to_string(), r#"
/// > POST /oauth2/token
/// > accept: application/json
/// > content-type: application/x-www-form-urlencoded
///   client_id=[redacted]
///   client_secret=[redacted]
/// < 201 Created
/// < content-type: application/json
///   {
///     "access_token": "[redacted]",
///     "expires_in": 1799,
///     "token_type": "bearer"
///   }
///
/// > GET /malquery/aggregates/quotas/v1 x2
/// > accept: application/json
/// > authorization: Bearer [redacted]
/// < 200 OK
/// < content-type: application/json
///   {
///     "meta": {
///       "hunt_limit": 100
///     }
///   }
/// "#.trim_start());
/// # Ok::<(), malquery_proto::client::Error>(())
/// ```
#[derive(Clone)]
pub struct Transcript<T> {
    transport: T,
    log: Arc<Mutex<Log>>,
}

type Log = Vec<Exchange>;

struct Exchange {
    line: String,
    uri: Uri,
    headers: HeaderMap,
    body: Text,
    outcome: Outcome,
}

enum Outcome {
    Pending,
    Failed(String),
    Reply {
        status: StatusCode,
        headers: HeaderMap,
        body: Box<Text>,
    },
}

/// A body, as far as it was read.
struct Text {
    media_type: String,
    /// The beginning, up to [`MAX_SHOWN`].
    kept: Vec<u8>,
    length: usize,
    hasher: Sha256,
    end: End,
}

enum End {
    Open,
    Whole,
    Broken(String),
}

impl<T> Transcript<T> {
    /// Writes down what goes over this transport. Clones write into the same transcript.
    pub fn new(transport: T) -> Self {
        Self {
            transport,
            log: Arc::default(),
        }
    }
}

impl<T> fmt::Debug for Transcript<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transcript({} exchanges)", lock(&self.log).len())
    }
}

impl<T> fmt::Display for Transcript<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let log = lock(&self.log);
        let redaction = secrets(&log);
        let mut folded: Vec<(&str, String, u32)> = Vec::new();
        for exchange in log.iter() {
            let rest = exchange.rest(&redaction);
            match folded.last_mut() {
                Some((line, last, count)) if *line == exchange.line && *last == rest => *count += 1,
                _ => folded.push((&exchange.line, rest, 1)),
            }
        }
        let mut text = String::new();
        for (index, (line, rest, count)) in folded.iter().enumerate() {
            let gap = if index == 0 { "" } else { "\n" };
            let times = if *count == 1 {
                String::new()
            } else {
                format!(" x{count}")
            };
            let _ = write!(text, "{gap}> {line}{times}\n{rest}");
        }
        f.write_str(&redaction.hide(&text))
    }
}

/// The secrets of all exchanges, since any of them may repeat one of another.
fn secrets(log: &Log) -> Redaction {
    let mut redaction = Redaction::default();
    for exchange in log {
        let Exchange {
            uri, headers, body, ..
        } = exchange;
        redaction.see_request(
            uri,
            headers,
            &Content::read(headers, &body.kept, Side::Request, false),
        );
        if let Outcome::Reply { headers, body, .. } = &exchange.outcome {
            let side = exchange.side();
            redaction.see_reply(
                side,
                headers,
                &Content::read(headers, &body.kept, side, false),
            );
        }
    }
    redaction
}

impl<T: Transport> Transport for Transcript<T> {
    fn send(
        &self,
        request: http::Request<Vec<u8>>,
    ) -> Result<http::Response<Body>, TransportError> {
        let line = matching::Seen::new(&request).line();
        let mut body = Text::new(request.headers());
        body.add(request.body());
        body.end = End::Whole;
        let index = {
            let mut log = lock(&self.log);
            let (uri, headers) = (request.uri().clone(), request.headers().clone());
            log.push(Exchange {
                line,
                uri,
                headers,
                body,
                outcome: Outcome::Pending,
            });
            log.len() - 1
        };
        match self.transport.send(request) {
            Ok(response) => {
                let (parts, inner) = response.into_parts();
                let body = Text::new(&parts.headers).into();
                lock(&self.log)[index].outcome = Outcome::Reply {
                    status: parts.status,
                    headers: parts.headers.clone(),
                    body,
                };
                let body = TranscriptBody {
                    inner,
                    log: self.log.clone(),
                    index,
                };
                Ok(http::Response::from_parts(parts, Body::new(body)))
            }
            Err(error) => {
                let sent = match error.failure() {
                    SendFailure::NotSent | SendFailure::CannotSend => "surely not sent",
                    SendFailure::Unknown => "perhaps sent",
                };
                let message = std::error::Error::source(&error)
                    .map_or_else(|| error.to_string(), ToString::to_string)
                    .replace('\n', "\n    ");
                lock(&self.log)[index].outcome =
                    Outcome::Failed(format!("< no reply, {sent}: {message}\n"));
                Err(error)
            }
        }
    }
}

/// Compares a [`Transcript`] with its snapshot, by [insta](https://docs.rs/insta): `assert_transcript!(transcript)`,
/// `assert_transcript!("name", transcript)` or `assert_transcript!(transcript, @"...")`.
///
/// Your package needs `insta` among its dev-dependencies. It is yours and not one of this crate, so that the
/// snapshots are written by the version you have and review.
#[macro_export]
macro_rules! assert_transcript {
    ($transcript:expr $(,)?) => {
        ::insta::assert_snapshot!($transcript)
    };
    ($transcript:expr, @$snapshot:literal $(,)?) => {
        ::insta::assert_snapshot!($transcript, @$snapshot)
    };
    ($name:expr, $transcript:expr $(,)?) => {
        ::insta::assert_snapshot!($name, $transcript)
    };
}

/// A body that is written down while it is read.
struct TranscriptBody {
    inner: Body,
    log: Arc<Mutex<Log>>,
    index: usize,
}

impl Read for TranscriptBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = self.inner.read(buffer);
        let mut log = lock(&self.log);
        if let Outcome::Reply { body, .. } = &mut log[self.index].outcome {
            match &result {
                Ok(0) if !buffer.is_empty() => body.end = End::Whole,
                Ok(count) => body.add(&buffer[..(*count).min(buffer.len())]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => body.end = End::Broken(error.to_string()),
            }
        }
        result
    }
}

impl Exchange {
    fn side(&self) -> Side {
        match self.outcome {
            Outcome::Reply { status, .. } => Side::of_reply(self.uri.path(), status),
            _ => Side::Reply,
        }
    }

    fn rest(&self, redaction: &Redaction) -> String {
        let mut text = String::new();
        headers(&self.headers, "> ", redaction, &mut text);
        self.body.show(Side::Request, redaction, &mut text);
        match &self.outcome {
            Outcome::Pending => text.push_str("< no reply yet\n"),
            Outcome::Failed(line) if redact::names_secret(line) => {
                text.push_str("< no reply: [redacted]\n")
            }
            Outcome::Failed(line) => text.push_str(line),
            Outcome::Reply {
                status,
                headers: found,
                body,
            } => {
                let _ = writeln!(text, "< {status}");
                headers(found, "< ", redaction, &mut text);
                body.show(self.side(), redaction, &mut text);
            }
        }
        text
    }
}

const FORM: &str = "application/x-www-form-urlencoded";

impl Text {
    fn new(headers: &HeaderMap) -> Self {
        let media_type = media_type(headers);
        Self {
            media_type,
            kept: Vec::new(),
            length: 0,
            hasher: Sha256::new(),
            end: End::Open,
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        let room = MAX_SHOWN.saturating_sub(self.kept.len()).min(bytes.len());
        self.kept.extend_from_slice(&bytes[..room]);
        self.length += bytes.len();
        self.hasher.update(bytes);
    }

    /// The whole body, if it is short enough and text.
    fn text(&self) -> Option<&str> {
        let binary = ["application/octet-stream", "application/zip"].contains(&&*self.media_type);
        let text = std::str::from_utf8(&self.kept)
            .ok()
            .filter(|_| self.length == self.kept.len() && !binary)?;
        redact::is_plain(text).then_some(text)
    }

    fn json(&self) -> Option<Json> {
        let text = self.text()?;
        let may_be = self.media_type.contains("json") || text.starts_with(['{', '[']);
        if may_be { Json::parse(text).ok() } else { None }
    }

    /// The pairs of a form, if it is one: else all of it would stand in a name.
    fn form(&self) -> Option<Pairs> {
        let text = self.text().filter(|_| self.media_type == FORM)?;
        let pairs: Pairs = form_urlencoded::parse(text.as_bytes())
            .into_owned()
            .collect();
        if pairs.iter().any(|(name, _)| redact::names_secret(name)) {
            None
        } else {
            Some(pairs)
        }
    }

    /// Whether a text has no secret that has no place of its own in it.
    fn is_shown(&self, text: &str, side: Side, redaction: &Redaction) -> bool {
        let is_whole = matches!(self.end, End::Whole);
        self.media_type != FORM
            && side != Side::TokenReply
            && !redact::names_secret(text)
            && (is_whole || redaction.scan_cut(redaction.hide(text).as_bytes()).is_ok())
    }

    fn show(&self, side: Side, redaction: &Redaction, out: &mut String) {
        let mut shown = String::new();
        if self.length == 0 {
            // Nothing to show, and nothing to say of it.
        } else if let Some(json) = self.json() {
            redaction.hidden(&json, side, false).pretty(0, &mut shown);
        } else if let Some(pairs) = self.form().filter(|_| side != Side::TokenReply) {
            for (name, value) in pairs {
                let hidden =
                    secret::is_secret_field(&name) || redact::pair_gives_secret(&name, &value);
                let value = if hidden { "[redacted]" } else { &value };
                let _ = writeln!(shown, "{name}={value}");
            }
        } else if let Some(text) = self
            .text()
            .filter(|text| self.is_shown(text, side, redaction))
        {
            shown.push_str(text);
        } else {
            let kind = if self.media_type.is_empty() {
                String::new()
            } else {
                format!(" {}", self.media_type)
            };
            let hash = digest::hex(self.hasher.clone().finalize());
            let _ = write!(
                shown,
                "<{} bytes{kind} sha256={}...>",
                self.length,
                &hash[..8]
            );
        }
        let lines = shown.strip_suffix('\n').unwrap_or(&shown).split('\n');
        for line in lines.filter(|_| !shown.is_empty()) {
            let gap = if line.is_empty() { "" } else { "  " };
            let _ = writeln!(out, "{gap}{}", diff::visible(line));
        }
        let _ = match &self.end {
            End::Whole => Ok(()),
            End::Open => writeln!(out, "< not read to the end"),
            End::Broken(error) if redact::names_secret(error) => {
                writeln!(out, "< broken off after {} bytes: [redacted]", self.length)
            }
            End::Broken(error) => {
                writeln!(out, "< broken off after {} bytes: {error}", self.length)
            }
        };
    }
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

fn media_type(headers: &HeaderMap) -> String {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    value
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
}

/// The headers in the order of their names.
fn headers(headers: &HeaderMap, mark: &str, redaction: &Redaction, out: &mut String) {
    let mut names: Vec<&HeaderName> = headers
        .keys()
        .filter(|name| **name != header::DATE)
        .collect();
    names.sort_by_key(|name| name.as_str());
    for name in names {
        for value in headers.get_all(name) {
            let hidden = value.is_sensitive()
                || secret::is_secret_field(name.as_str())
                || [
                    header::COOKIE,
                    header::SET_COOKIE,
                    header::PROXY_AUTHORIZATION,
                ]
                .contains(name);
            let shown = if *name == header::AUTHORIZATION {
                format!("{} [redacted]", matching::scheme(value.as_bytes()))
            } else if hidden {
                "[redacted]".into()
            } else {
                let value = String::from_utf8_lossy(value.as_bytes());
                let (value, gives) = match *name {
                    header::LOCATION => {
                        let link = redaction.location(&value);
                        let gives = redact::link_gives_secret(&link);
                        (link, gives)
                    }
                    _ => (
                        value.clone().into_owned(),
                        redact::value_gives_secret(&value),
                    ),
                };
                if gives { "[redacted]".into() } else { value }
            };
            let _ = writeln!(out, "{mark}{name}: {shown}");
        }
    }
}
