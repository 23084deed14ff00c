//! Records the exchanges of a transport as text.

use std::fmt;
use std::path::Path;

use http::{Request, Response};
use malquery_proto::flow::SendFailure;
use malquery_proto::{Body, Transport, TransportError};

use crate::cassette::file::{self, Pairs};
use crate::cassette::matching::is_for_tokens;
use crate::json::{Json, Style};
use crate::record::log::{End, Exchange, Log, Outcome};
use crate::record::policy::Policy;
use crate::record::write;
use crate::{diff, digest};

/// The maximum length of a reply body that is shown, in bytes.
const MAX_SHOWN: u64 = 256 * 1024;

/// A transport that records its exchanges as text, for snapshot tests.
///
/// It passes requests and replies through unchanged. `Display` writes the exchanges so far, in the
/// order of their requests. Secrets of at least 6 bytes are masked, and replies are redacted as in
/// [a recording](crate::format#what-is-recorded). JSON is indented, and a multi-line string such as
/// a YARA rule becomes a block. A reply body that is larger than 256 KiB or is not JSON is replaced
/// by its size and type. Equal consecutive exchanges appear once, with a count. Requests are shown
/// without a host.
///
/// ```
/// use malquery_mock::{Transcript, VirtualClock, reply, script};
/// use malquery_proto::{Auth, Client, Cloud, Credentials};
///
/// let limit = serde_json::json!({"meta": {"hunt_limit": 100}});
/// let (mock, guard) = script([reply::json(200, limit).times(2)]).with_tokens().play();
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
///     "access_token": "[text]",
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
    log: Log,
}

impl<T> Transcript<T> {
    /// Wraps a transport. Clones share one transcript.
    pub fn new(transport: T) -> Self {
        Self {
            transport,
            log: Log::new(Path::new(""), MAX_SHOWN),
        }
    }

    /// Returns only the requests as text, in the format of `Display`.
    pub fn requests(&self) -> String {
        self.show(false)
    }

    fn show(&self, with_replies: bool) -> String {
        let mut state = self.log.lock();
        let exchanges = &mut state.exchanges;
        let mut policy = Policy::new();
        exchanges.iter_mut().for_each(|one| policy.see(one));
        let shown = exchanges.iter_mut().map(|exchange| {
            let (line, mut rest) = request(&policy, exchange);
            if with_replies {
                rest += &reply(&policy, exchange);
            }
            (line, rest)
        });
        let shown: Vec<_> = shown.collect();
        let folded = shown.chunk_by(PartialEq::eq).map(|same| {
            let (line, rest) = &same[0];
            match same.len() {
                1 => format!("> {line}\n{rest}"),
                count => format!("> {line} x{count}\n{rest}"),
            }
        });
        let text = folded.collect::<Vec<_>>().join("\n");
        policy.mask(&text).into_owned()
    }
}

impl<T> fmt::Debug for Transcript<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.log.lock().exchanges.len();
        write!(f, "Transcript({count} exchanges)")
    }
}

impl<T> fmt::Display for Transcript<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.show(true))
    }
}

impl<T: Transport> Transport for Transcript<T> {
    fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Body>, TransportError> {
        self.log
            .pass(request, |request| self.transport.send(request))
    }
}

/// Compares a [`Transcript`] with its snapshot, using [insta](https://docs.rs/insta). Call it as
/// `assert_transcript!(transcript)`, `assert_transcript!("name", transcript)` or
/// `assert_transcript!(transcript, @"...")`.
///
/// Your package needs `insta` as a dev-dependency.
#[macro_export]
macro_rules! assert_transcript {
    ($($arguments:tt)*) => {
        ::insta::assert_snapshot!($($arguments)*)
    };
}

/// Returns the first line of a request, and the other lines.
fn request(policy: &Policy, exchange: &Exchange) -> (String, String) {
    let written = write::request(policy, &exchange.request);
    let uri = written.uri;
    let path = match uri.parse::<http::Uri>() {
        Ok(uri) if is_for_tokens(uri.path()) => uri.path().to_owned(),
        Ok(parsed) => parsed.path_and_query().map_or(uri, ToString::to_string),
        Err(_) => uri,
    };
    let length = exchange.request.body().len() as u64;
    let body = written.body.map(|body| shown(body, length));
    let line = format!("{} {path}", written.method);
    (line, lines(written.headers, ">", body))
}

fn reply(policy: &Policy, exchange: &mut Exchange) -> String {
    let json = exchange.json();
    match &exchange.outcome {
        Outcome::Pending => "< no reply yet\n".into(),
        Outcome::Failed {
            failure, message, ..
        } => {
            let sent = match failure {
                SendFailure::NotSent | SendFailure::CannotSend => "provably not sent",
                SendFailure::Unknown => "possibly sent",
            };
            format!("< no reply, {sent}: {}\n", message.replace('\n', "\n    "))
        }
        Outcome::Reply(reply) => {
            let length = reply.length;
            let written = write::response(policy, reply, json.as_ref());
            let body = written.body.map(|body| shown(body, length));
            let text = lines(written.headers, "<", body);
            let end = match &reply.end {
                End::Whole => String::new(),
                End::Open | End::Left => "< not read to the end\n".into(),
                End::Broken(error) => {
                    format!("< interrupted after {}: {error}\n", digest::bytes(length))
                }
            };
            format!("< {}\n{text}{end}", reply.status)
        }
    }
}

fn shown(body: file::Body, length: u64) -> String {
    let json = body.json.and_then(|json| Json::parse(json.get()).ok());
    match (json, body.text, body.form.unwrap_or_default()) {
        (Some(json), ..) => json.text(Style::Pretty, 0),
        (None, Some(text), _) => text,
        (None, None, form) if form.is_empty() => format!("[{}]", digest::bytes(length)),
        (None, None, form) => {
            let line = |(name, value)| format!("{name}={value}\n");
            form.into_iter().map(line).collect()
        }
    }
}

fn lines(headers: Option<Pairs>, mark: &str, body: Option<String>) -> String {
    let headers = headers.into_iter().flatten();
    let headers = headers.map(|(name, value)| format!("{mark} {name}: {value}\n"));
    let body = body.unwrap_or_default();
    let lines = body.split_terminator('\n').map(diff::visible);
    let lines = lines.map(|line| match line.is_empty() {
        true => "\n".into(),
        false => format!("  {line}\n"),
    });
    headers.chain(lines).collect()
}
