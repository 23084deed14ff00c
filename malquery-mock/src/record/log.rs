//! Logs the exchanges of a transport, for sessions and transcripts.

use std::collections::HashSet;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use malquery_proto::flow::SendFailure;
use malquery_proto::{Body, TransportError};
use sha2::{Digest, Sha256};
use tempfile::SpooledTempFile;

use crate::cassette::matching::is_for_tokens;
use crate::cassette::play::MockError;
use crate::digest;
use crate::json::Json;
use crate::reply::Fault;

/// The maximum length of a body in memory, in bytes. Longer bodies go to temporary files.
const MAX_MEMORY: usize = 1024 * 1024;
/// The maximum size of a body that is parsed as JSON, in bytes.
const MAX_JSON: u64 = 256 * 1024 * 1024;

/// The error for a request after the end of its session.
const ENDED: &str = "the session has ended, so the request was not sent; keep the guard until \
    after the last request, as in `let (client, guard)`";

/// The exchanges, in the order of their requests. Clones share them, even across threads.
#[derive(Clone)]
pub(crate) struct Log(Arc<Mutex<State>>);

pub(crate) struct State {
    pub(crate) exchanges: Vec<Exchange>,
    /// The indices of POST requests whose replies have not been searched for a job id yet.
    submitted: Vec<usize>,
    /// The ids of the jobs found in the replies to POST requests.
    jobs: HashSet<String>,
    /// The folder for the temporary files of long bodies.
    folder: PathBuf,
    /// The maximum length of a body that is kept, in bytes.
    most: u64,
    ended: bool,
}

pub(crate) struct Exchange {
    pub(crate) request: Request<Vec<u8>>,
    pub(crate) outcome: Outcome,
    /// Whether the exchange belongs in the cassette of a session.
    pub(crate) is_written: bool,
}

pub(crate) enum Outcome {
    /// The transport has not returned yet, or the cassette answered the request.
    Pending,
    Failed {
        failure: SendFailure,
        /// The fault that replays the error, if one exists.
        fault: Option<Fault>,
        message: String,
    },
    Reply(Box<Reply>),
}

pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// The time of arrival, in milliseconds since the Unix epoch.
    pub(crate) at: u64,
    /// The number of body bytes that were read.
    pub(crate) length: u64,
    pub(crate) end: End,
    body: SpooledTempFile,
    /// Whether all bytes that were read are kept.
    pub(crate) is_kept: bool,
    hasher: Sha256,
}

/// How far a body was read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum End {
    Open,
    /// The body was dropped before the end of the stream was read.
    Left,
    Whole,
    Broken(String),
}

impl Reply {
    fn new(response: &Response<Body>, state: &State) -> Self {
        let time = SystemTime::now().duration_since(UNIX_EPOCH);
        let is_empty = declared(response.headers()) == Some(0);
        Self {
            status: response.status(),
            headers: response.headers().clone(),
            at: u64::try_from(time.unwrap_or_default().as_millis()).unwrap_or(u64::MAX),
            length: 0,
            end: if is_empty { End::Whole } else { End::Open },
            body: SpooledTempFile::new_in(MAX_MEMORY, &state.folder),
            is_kept: true,
            hasher: Sha256::new(),
        }
    }

    fn add(&mut self, bytes: &[u8], most: u64) {
        self.length += bytes.len() as u64;
        self.hasher.update(bytes);
        // The program gets the bytes even if they cannot be kept.
        self.is_kept = self.is_kept && self.length <= most && self.body.write_all(bytes).is_ok();
        // Some readers stop here and never see the end of the stream.
        if declared(&self.headers) == Some(self.length) {
            self.end = End::Whole;
        }
    }

    pub(crate) fn sha256(&self) -> String {
        digest::hex(self.hasher.clone().finalize())
    }

    /// Reads the kept part of the body from its beginning.
    pub(crate) fn read<T>(
        &mut self,
        read: impl FnOnce(&mut dyn Read) -> io::Result<T>,
    ) -> io::Result<T> {
        self.body.seek(SeekFrom::Start(0))?;
        let result = read(&mut self.body);
        self.body.seek(SeekFrom::End(0))?;
        result
    }

    pub(crate) fn first(&mut self, most: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.read(|body| body.take(most).read_to_end(&mut bytes))?;
        Ok(bytes)
    }

    pub(crate) fn is_zip(&mut self) -> bool {
        self.first(2).is_ok_and(|start| start == b"PK")
    }
}

impl Exchange {
    pub(crate) fn is_over(&self) -> bool {
        match &self.outcome {
            Outcome::Pending => false,
            Outcome::Failed { .. } => true,
            Outcome::Reply(reply) => reply.end != End::Open,
        }
    }

    /// Parses the reply body as a JSON object or array, if it was kept and is not too long.
    pub(crate) fn json(&mut self) -> Option<Json> {
        let Outcome::Reply(reply) = &mut self.outcome else {
            return None;
        };
        // A sample may be too large to read into memory.
        let start = reply.first(64).ok()?;
        let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&start);
        let is_text = matches!(start.trim_ascii_start(), [] | [b'{' | b'[', ..]);
        let is_read = is_text && reply.is_kept && reply.length <= MAX_JSON;
        let bytes = is_read.then(|| reply.first(MAX_JSON))?;
        Json::of_reply(&bytes.ok()?)
    }
}

/// Returns the id of the job that a reply belongs to.
pub(crate) fn job(json: Option<&Json>) -> Option<&str> {
    json?.get("meta")?.get("reqid")?.as_str()
}

impl Log {
    /// Creates a log that keeps bodies of up to `most` bytes. Temporary files go to `folder`.
    pub(crate) fn new(folder: &Path, most: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            exchanges: Vec::new(),
            submitted: Vec::new(),
            jobs: HashSet::new(),
            folder: folder.into(),
            most,
            ended: false,
        })))
    }

    /// Ends the log, so that later requests are not sent. Returns whether it had already ended.
    pub(crate) fn end(&self) -> bool {
        std::mem::replace(&mut self.lock().ended, true)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs a request and returns its index, or `None` if the log has ended. A request that is not
    /// sent is logged only for its secrets and ids.
    pub(crate) fn note(&self, request: &Request<Vec<u8>>, is_sent: bool) -> Option<usize> {
        let mut state = self.lock();
        if state.ended {
            return None;
        }
        let index = state.exchanges.len();
        // Every request that starts a job is a POST.
        if is_sent && request.method() == Method::POST {
            state.submitted.push(index);
        }
        state.exchanges.push(Exchange {
            request: request.clone(),
            outcome: Outcome::Pending,
            is_written: is_sent && !is_for_tokens(request.uri().path()),
        });
        Some(index)
    }

    /// Sends a request, and logs it and its outcome. Fails and sends nothing if the log has ended.
    pub(crate) fn pass(
        &self,
        request: Request<Vec<u8>>,
        send: impl FnOnce(Request<Vec<u8>>) -> Result<Response<Body>, TransportError>,
    ) -> Result<Response<Body>, TransportError> {
        let Some(index) = self.note(&request, true) else {
            return Err(MockError::Unmatched(ENDED.into()).into());
        };
        let result = send(request);
        let mut state = self.lock();
        state.exchanges[index].outcome = match &result {
            Ok(response) => Outcome::Reply(Box::new(Reply::new(response, &state))),
            Err(error) => Outcome::Failed {
                failure: error.failure(),
                fault: fault_of(error),
                message: std::error::Error::source(error)
                    .map_or_else(|| error.to_string(), ToString::to_string),
            },
        };
        drop(state);
        let log = self.clone();
        Ok(result?.map(|inner| Body::new(Noted { inner, log, index })))
    }

    /// Returns whether a logged submission started one of these jobs. Each item of `ids` may be a
    /// comma-separated list.
    pub(crate) fn began(&self, mut ids: impl Iterator<Item = String>) -> bool {
        let state = &mut *self.lock();
        // Parses each reply only once, after its exchange is over.
        state.submitted.retain(|index| {
            let exchange = &mut state.exchanges[*index];
            let is_over = exchange.is_over();
            let json = is_over.then(|| exchange.json()).flatten();
            state.jobs.extend(job(json.as_ref()).map(str::to_owned));
            !is_over
        });
        let began = |id: &str| state.jobs.contains(id);
        ids.any(|ids| began(&ids) || ids.split(',').any(began))
    }
}

struct Noted {
    inner: Body,
    log: Log,
    index: usize,
}

impl Noted {
    fn note(&self, note: impl FnOnce(&mut Reply, u64)) {
        let state = &mut *self.log.lock();
        if let Outcome::Reply(reply) = &mut state.exchanges[self.index].outcome {
            note(reply, state.most);
        }
    }
}

impl Read for Noted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = self.inner.read(buffer);
        self.note(|reply, most| match &result {
            // After a failure, the end of the stream does not make the body complete.
            Ok(0) if matches!(reply.end, End::Broken(_)) => {}
            Ok(0) if !buffer.is_empty() => reply.end = End::Whole,
            Ok(count) => reply.add(&buffer[..(*count).min(buffer.len())], most),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => reply.end = End::Broken(error.to_string()),
        });
        result
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.note(|reply, _| {
            if reply.end == End::Open {
                reply.end = End::Left;
            }
        });
    }
}

fn declared(headers: &HeaderMap) -> Option<u64> {
    let length = headers.get(header::CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

/// Returns the fault that best replays a transport error, if one exists.
fn fault_of(error: &TransportError) -> Option<Fault> {
    // The messages of the sources, and the kinds of I/O errors, such as `ConnectionReset`.
    let (failure, mut words) = (error.failure(), String::new());
    let mut next = std::error::Error::source(error);
    while let Some(error) = next {
        if let Some(MockError::Fault { fault, .. }) = error.downcast_ref()
            && fault.failure() == failure
        {
            return Some(*fault);
        }
        let kind = error.downcast_ref().map(io::Error::kind);
        words += &format!("{error} {kind:?} ").to_ascii_lowercase();
        next = error.source();
    }
    let says = |any: &[&str]| any.iter().any(|word| words.contains(word));
    Some(match failure {
        // A retry would fail again, which no fault can express.
        SendFailure::CannotSend => return None,
        SendFailure::NotSent if says(&["connectionrefused"]) => Fault::ConnectRefused,
        SendFailure::NotSent if says(&["tls", "certificate", "handshake"]) => Fault::Tls,
        SendFailure::NotSent if says(&["lookup", "looking up", "resolve", "dns", "not found"]) => {
            Fault::Dns
        }
        SendFailure::NotSent => Fault::ConnectRefused,
        SendFailure::Unknown if says(&["timedout", "timed out", "timeout"]) => Fault::Timeout,
        SendFailure::Unknown if says(&["connectionreset", "connectionaborted", "brokenpipe"]) => {
            Fault::Reset
        }
        SendFailure::Unknown => Fault::Eof,
    })
}
