//! Notes what goes over a transport, for sessions and transcripts.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use malquery_proto::flow::SendFailure;
use malquery_proto::{Body, TransportError};
use sha2::{Digest, Sha256};
use tempfile::SpooledTempFile;

use super::policy::{job_ids, read_json};
use crate::cassette::matching::is_for_tokens;
use crate::cassette::play::MockError;
use crate::digest;
use crate::reply::Fault;

/// Longer bodies are kept in a file without a name, which vanishes with the process.
const MAX_MEMORY: usize = 1024 * 1024;

/// Said of a request for which quota would be spent and nothing recorded, as after `let (client, _)
/// = ...`.
const ENDED: &str = "the session has ended, so the request was not sent: keep its guard, as in `let (client, guard)`, and \
    finish it after the last request";

/// The exchanges in the order of their requests. Clones share them, also among threads.
#[derive(Clone)]
pub(crate) struct Log(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Where long bodies are kept; without it they are cut.
    folder: Option<Box<Path>>,
    most: u64,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) exchanges: Vec<Exchange>,
    ended: bool,
}

pub(crate) struct Exchange {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) outcome: Outcome,
    /// It goes into the cassette. An exchange that does not is noted for its secrets.
    pub(crate) is_written: bool,
}

pub(crate) enum Outcome {
    /// The transport has not come back yet.
    Pending,
    Failed {
        failure: SendFailure,
        /// The fault that plays the same, if there is one.
        fault: Option<Fault>,
        message: String,
    },
    Reply {
        status: StatusCode,
        headers: HeaderMap,
        body: Box<Content>,
        end: End,
        /// Milliseconds since the Unix epoch.
        at: u64,
    },
}

/// How far a body was read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum End {
    Open,
    /// It was dropped before its end.
    Left,
    Whole,
    Broken(String),
}

/// A body, as far as it was read.
pub(crate) struct Content {
    kept: SpooledTempFile,
    most: u64,
    pub(crate) length: u64,
    hasher: Sha256,
    /// Why not all of it is kept.
    error: Option<io::Error>,
}

impl Content {
    fn add(&mut self, bytes: &[u8]) {
        let room = self
            .most
            .saturating_sub(self.length)
            .min(bytes.len() as u64);
        // The program gets its bytes, whether or not they can be kept.
        let result = self
            .kept
            .write_all(&bytes[..usize::try_from(room).unwrap_or(0)]);
        self.error = self.error.take().or(result.err());
        self.length += bytes.len() as u64;
        self.hasher.update(bytes);
    }

    /// Whether all of it is kept.
    pub(crate) fn is_kept(&self) -> bool {
        self.error.is_none() && self.length <= self.most
    }

    pub(crate) fn sha256(&self) -> String {
        digest::hex(self.hasher.clone().finalize())
    }

    /// Reads what is kept from its beginning.
    pub(crate) fn read<T>(
        &mut self,
        read: impl FnOnce(&mut dyn Read) -> io::Result<T>,
    ) -> io::Result<T> {
        self.kept.seek(SeekFrom::Start(0))?;
        let result = read(&mut self.kept);
        self.kept.seek(SeekFrom::End(0))?;
        result
    }

    pub(crate) fn starts_with(&mut self, bytes: &[u8]) -> io::Result<bool> {
        let mut first = Vec::new();
        self.read(|kept| kept.take(bytes.len() as u64).read_to_end(&mut first))?;
        Ok(first == bytes)
    }

    /// What is kept, in memory.
    pub(crate) fn bytes(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.read(|kept| kept.read_to_end(&mut bytes))?;
        Ok(bytes)
    }
}

impl Exchange {
    /// Whether nothing more comes of it.
    pub(crate) fn is_over(&self) -> bool {
        match &self.outcome {
            Outcome::Pending => false,
            Outcome::Failed { .. } => true,
            Outcome::Reply { end, .. } => *end != End::Open,
        }
    }
}

impl Log {
    /// A log that keeps bodies of any length, the long ones in this folder.
    pub(crate) fn keeping(folder: &Path) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::default(),
            folder: Some(folder.into()),
            most: u64::MAX,
        }))
    }

    /// A log that keeps the beginnings of bodies.
    pub(crate) fn of_beginnings(most: u64) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::default(),
            folder: None,
            most,
        }))
    }

    /// Ends the recording: from now on nothing is sent.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a request that was answered without being sent, for the secrets in it.
    pub(crate) fn see(&self, request: &Request<Vec<u8>>) {
        self.note(request, false);
    }

    fn note(&self, request: &Request<Vec<u8>>, is_written: bool) -> Option<usize> {
        let mut state = self.lock();
        if state.ended {
            return None;
        }
        state.exchanges.push(Exchange {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
            body: request.body().clone(),
            outcome: Outcome::Pending,
            is_written: is_written && !is_for_tokens(request.uri().path()),
        });
        Some(state.exchanges.len() - 1)
    }

    /// Notes a request, sends it, and notes what comes of it. Sends nothing when the recording has
    /// ended.
    pub(crate) fn pass(
        &self,
        request: Request<Vec<u8>>,
        send: impl FnOnce(Request<Vec<u8>>) -> Result<Response<Body>, TransportError>,
    ) -> Result<Response<Body>, TransportError> {
        let Some(index) = self.note(&request, true) else {
            return Err(MockError::Unmatched(ENDED.into()).into());
        };
        let result = send(request);
        let outcome = match &result {
            Ok(response) => self.begin(response),
            Err(error) => Outcome::Failed {
                failure: error.failure(),
                fault: fault_of(error),
                message: std::error::Error::source(error)
                    .map_or_else(|| error.to_string(), ToString::to_string),
            },
        };
        self.lock().exchanges[index].outcome = outcome;
        result.map(|response| {
            response.map(|inner| {
                Body::new(Noted {
                    inner,
                    log: self.clone(),
                    index,
                })
            })
        })
    }

    fn begin(&self, response: &Response<Body>) -> Outcome {
        let kept = match &self.0.folder {
            Some(folder) => SpooledTempFile::new_in(MAX_MEMORY, folder),
            None => SpooledTempFile::new(usize::MAX),
        };
        let (most, hasher) = (self.0.most, Sha256::new());
        let is_empty = declared(response.headers()) == Some(0);
        Outcome::Reply {
            status: response.status(),
            headers: response.headers().clone(),
            body: Box::new(Content {
                kept,
                most,
                length: 0,
                hasher,
                error: None,
            }),
            end: if is_empty { End::Whole } else { End::Open },
            at: now(),
        }
    }

    /// Whether a request is for a job that a reply in it began.
    pub(crate) fn began(&self, uri: &Uri) -> bool {
        let ids: Vec<_> = job_ids(uri).collect();
        let mut state = self.lock();
        // All that begins a job is sent so.
        let mut submitted = state
            .exchanges
            .iter_mut()
            .filter(|exchange| exchange.method == Method::POST);
        !ids.is_empty()
            && submitted.any(|exchange| {
                let Outcome::Reply { body, .. } = &mut exchange.outcome else {
                    return false;
                };
                let json = body.bytes().ok().and_then(|bytes| read_json(&bytes));
                let id = json
                    .as_ref()
                    .and_then(|json| json.get("meta")?.get("reqid")?.as_str());
                id.is_some_and(|id| {
                    ids.iter()
                        .any(|ids| ids == id || ids.split(',').any(|part| part == id))
                })
            })
    }
}

/// A body that is noted while it is read.
struct Noted {
    inner: Body,
    log: Log,
    index: usize,
}

impl Read for Noted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = self.inner.read(buffer);
        let mut state = self.log.lock();
        let outcome = &mut state.exchanges[self.index].outcome;
        if let Outcome::Reply {
            headers, body, end, ..
        } = outcome
        {
            match &result {
                // A body that broke is not whole because nothing more comes.
                Ok(0) if matches!(end, End::Broken(_)) => {}
                Ok(0) if !buffer.is_empty() => *end = End::Whole,
                Ok(count) => {
                    body.add(&buffer[..(*count).min(buffer.len())]);
                    // Some stop there, and do not ask for the end.
                    if declared(headers) == Some(body.length) {
                        *end = End::Whole;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => *end = End::Broken(error.to_string()),
            }
        }
        result
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        if let Outcome::Reply {
            end: end @ End::Open,
            ..
        } = &mut self.log.lock().exchanges[self.index].outcome
        {
            *end = End::Left;
        }
    }
}

fn declared(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// Milliseconds since the Unix epoch.
fn now() -> u64 {
    let time = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The fault that plays an error of a transport: by the I/O error at its bottom, and never one that
/// says something else about whether the request was sent.
fn fault_of(error: &TransportError) -> Option<Fault> {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, TimedOut,
    };
    let (mut kinds, mut words) = (Vec::new(), String::new());
    let mut next = std::error::Error::source(error);
    while let Some(error) = next {
        if let Some(MockError::Fault { fault, .. }) = error.downcast_ref() {
            return Some(*fault);
        }
        kinds.extend(error.downcast_ref::<io::Error>().map(io::Error::kind));
        words.push_str(&error.to_string().to_ascii_lowercase());
        next = error.source();
    }
    let says = |any: &[&str]| any.iter().any(|word| words.contains(word));
    let is = |any: &[io::ErrorKind]| any.iter().any(|kind| kinds.contains(kind));
    match error.failure() {
        SendFailure::NotSent if is(&[ConnectionRefused]) => Some(Fault::ConnectRefused),
        SendFailure::NotSent if says(&["tls", "certificate", "handshake"]) => Some(Fault::Tls),
        SendFailure::NotSent if says(&["lookup", "looking up", "resolve", "dns", "not found"]) => {
            Some(Fault::Dns)
        }
        SendFailure::NotSent => Some(Fault::ConnectRefused),
        SendFailure::Unknown if is(&[TimedOut]) || says(&["timed out", "timeout"]) => {
            Some(Fault::Timeout)
        }
        SendFailure::Unknown if is(&[ConnectionReset, ConnectionAborted, BrokenPipe]) => {
            Some(Fault::Reset)
        }
        SendFailure::Unknown => Some(Fault::Eof),
        // A second try would be refused again, and no fault is like that.
        SendFailure::CannotSend => None,
    }
}
