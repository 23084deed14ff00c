//! What goes over a transport, as it goes.

use std::error::Error as StdError;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderMap, Method, StatusCode, Uri, header};
use malquery_proto::flow::SendFailure;
use malquery_proto::{Body, TransportError};

use crate::json::Json;
use crate::play::MockError;
use crate::redact::{self, Content, Redaction, Side};
use crate::reply::Fault;

/// The exchanges in the order of their requests. Clones share it, also among threads.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    exchanges: Vec<Exchange>,
    ended: bool,
}

pub(crate) struct Exchange {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) outcome: Outcome,
    /// It goes into the cassette. What does not is seen all the same, since its secrets may stand elsewhere.
    pub(crate) written: bool,
}

pub(crate) enum Outcome {
    /// The transport has not come back yet.
    Pending,
    /// The fault that plays the same, if there is one.
    Failed {
        fault: Option<Fault>,
        message: String,
    },
    Reply {
        status: StatusCode,
        headers: HeaderMap,
        body: Vec<u8>,
        end: End,
        at: u64,
    },
}

/// How far a body was read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum End {
    Open,
    Whole,
    Broken(io::ErrorKind),
}

impl Log {
    /// Ends the recording, and gives what is in it.
    pub(crate) fn end(&self) -> Vec<Exchange> {
        let mut state = self.lock();
        state.ended = true;
        std::mem::take(&mut state.exchanges)
    }

    /// Notes a request that was answered without being sent, for the secrets in it.
    pub(crate) fn see(&self, request: http::Request<Vec<u8>>) {
        let (parts, body) = request.into_parts();
        let http::request::Parts {
            method,
            uri,
            headers,
            ..
        } = parts;
        let state = &mut *self.lock();
        if !state.ended {
            let outcome = Outcome::Pending;
            state.exchanges.push(Exchange {
                method,
                uri,
                headers,
                body,
                outcome,
                written: false,
            });
        }
    }

    /// Notes a request, and then what comes of it. `None` when the recording has ended: then nothing is sent.
    pub(crate) fn pass(
        &self,
        request: http::Request<Vec<u8>>,
        written: bool,
        execute: impl FnOnce(http::Request<Vec<u8>>) -> Result<http::Response<Body>, TransportError>,
    ) -> Option<Result<http::Response<Body>, TransportError>> {
        let index = {
            let state = &mut *self.lock();
            if state.ended {
                return None;
            }
            let exchanges = &mut state.exchanges;
            exchanges.push(Exchange {
                method: request.method().clone(),
                uri: request.uri().clone(),
                headers: request.headers().clone(),
                body: request.body().clone(),
                outcome: Outcome::Pending,
                written,
            });
            exchanges.len() - 1
        };
        let result = execute(request);
        let outcome = match &result {
            Ok(response) => Outcome::Reply {
                status: response.status(),
                headers: response.headers().clone(),
                body: Vec::new(),
                end: if declared(response.headers()) == Some(0) {
                    End::Whole
                } else {
                    End::Open
                },
                at: now(),
            },
            Err(error) => Outcome::Failed {
                fault: fault_of(error),
                message: error
                    .source()
                    .map_or_else(|| error.to_string(), ToString::to_string),
            },
        };
        // The recording may have ended meanwhile.
        if let Some(exchange) = self.lock().exchanges.get_mut(index) {
            exchange.outcome = outcome;
        }
        Some(result.map(|response| {
            response.map(|inner| {
                Body::new(Recorded {
                    inner,
                    log: self.clone(),
                    index,
                })
            })
        }))
    }

    /// Whether a request is for a job that a reply in it began.
    pub(crate) fn began(&self, uri: &Uri) -> bool {
        let ids: Vec<_> = redact::job_ids(uri)
            .map(|id| redact::plain_id(&id))
            .collect();
        let state = self.lock();
        // All that begins a job is sent so.
        let mut submitted = state
            .exchanges
            .iter()
            .filter(|exchange| exchange.method == Method::POST);
        !ids.is_empty()
            && submitted.any(|exchange| {
                let Outcome::Reply { body, .. } = &exchange.outcome else {
                    return false;
                };
                let reply = std::str::from_utf8(body)
                    .ok()
                    .and_then(|text| Json::parse(text).ok());
                let id = reply
                    .as_ref()
                    .and_then(|reply| reply.get("meta")?.get("reqid")?.as_str());
                id.is_some_and(|id| {
                    let mut parts = [id].into_iter().chain(id.split(','));
                    parts.any(|part| ids.contains(&redact::plain_id(part)))
                })
            })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Redaction {
    /// Notes what is in an exchange whose bodies are not needed.
    pub(crate) fn see_exchange(&mut self, exchange: &Exchange) {
        let Exchange {
            uri, headers, body, ..
        } = exchange;
        self.see_request(
            uri,
            headers,
            &Content::read(headers, body, Side::Request, false),
        );
        if let Outcome::Reply {
            status,
            headers,
            body,
            ..
        } = &exchange.outcome
        {
            let side = Side::of_reply(uri.path(), *status);
            self.see_reply(side, headers, &Content::read(headers, body, side, false));
        }
    }
}

/// A body that is noted while it is read.
struct Recorded {
    inner: Body,
    log: Log,
    index: usize,
}

impl Read for Recorded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = self.inner.read(buffer);
        let mut log = self.log.lock();
        let outcome = log
            .exchanges
            .get_mut(self.index)
            .map(|exchange| &mut exchange.outcome);
        if let Some(Outcome::Reply {
            headers, body, end, ..
        }) = outcome
        {
            match &result {
                // What broke is not whole because nothing more comes.
                Ok(0) if matches!(end, End::Broken(_)) => {}
                Ok(0) if !buffer.is_empty() => *end = End::Whole,
                Ok(count) => {
                    body.extend_from_slice(&buffer[..(*count).min(buffer.len())]);
                    // Some stop there, and do not ask for the end.
                    if declared(headers) == Some(body.len()) {
                        *end = End::Whole;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => *end = End::Broken(error.kind()),
            }
        }
        result
    }
}

fn declared(headers: &HeaderMap) -> Option<usize> {
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

/// The fault that plays an error of a transport: by the I/O error at its bottom, and never one that says something
/// else of whether the request was sent.
fn fault_of(error: &TransportError) -> Option<Fault> {
    let failure = error.failure();
    if let Some(MockError::Fault { fault, .. }) = error.source().and_then(|e| e.downcast_ref()) {
        return Some(*fault);
    }
    let mut kinds = Vec::new();
    let mut words = String::new();
    let mut next = error.source();
    while let Some(error) = next {
        kinds.extend(error.downcast_ref::<io::Error>().map(io::Error::kind));
        words.push_str(&error.to_string().to_ascii_lowercase());
        next = error.source();
    }
    let says = |any: &[&str]| any.iter().any(|word| words.contains(word));
    match failure {
        SendFailure::NotSent if kinds.contains(&io::ErrorKind::ConnectionRefused) => {
            Some(Fault::ConnectRefused)
        }
        SendFailure::NotSent if says(&["tls", "certificate", "handshake"]) => Some(Fault::Tls),
        SendFailure::NotSent
            if says(&["lookup", "looking up", "resolve", "dns", "was not found"]) =>
        {
            Some(Fault::Dns)
        }
        SendFailure::NotSent => Some(Fault::ConnectRefused),
        SendFailure::Unknown
            if kinds.contains(&io::ErrorKind::TimedOut) || says(&["timed out", "timeout"]) =>
        {
            Some(Fault::Timeout)
        }
        SendFailure::Unknown
            if kinds.iter().any(|kind| {
                use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
                matches!(kind, ConnectionReset | ConnectionAborted | BrokenPipe)
            }) =>
        {
            Some(Fault::Reset)
        }
        SendFailure::Unknown => Some(Fault::Eof),
        // What was refused here would be refused again, and no fault is like that.
        SendFailure::CannotSend => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a transport says, above an I/O error.
    #[derive(Debug)]
    struct Failed {
        failure: SendFailure,
        said: &'static str,
        source: io::Error,
    }

    impl std::fmt::Display for Failed {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.said)
        }
    }

    impl StdError for Failed {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&self.source)
        }
    }

    impl From<Failed> for TransportError {
        fn from(error: Failed) -> Self {
            match error.failure {
                SendFailure::NotSent => Self::not_sent(error),
                SendFailure::CannotSend => Self::cannot_send(error),
                SendFailure::Unknown => Self::unknown(error),
            }
        }
    }

    #[test]
    fn a_failure_is_played_as_what_it_was() {
        use SendFailure::{CannotSend, NotSent, Unknown};
        use io::ErrorKind::{
            BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, Other, TimedOut,
        };
        for (failure, said, kind, fault) in [
            (
                NotSent,
                "no connection",
                ConnectionRefused,
                Some(Fault::ConnectRefused),
            ),
            (
                NotSent,
                "TLS failed",
                ConnectionRefused,
                Some(Fault::ConnectRefused),
            ),
            (
                NotSent,
                "the certificate is not one",
                Other,
                Some(Fault::Tls),
            ),
            (NotSent, "looking up the host", Other, Some(Fault::Dns)),
            (NotSent, "no connection", Other, Some(Fault::ConnectRefused)),
            (Unknown, "no reply", TimedOut, Some(Fault::Timeout)),
            (
                Unknown,
                "it timed out",
                ConnectionReset,
                Some(Fault::Timeout),
            ),
            (Unknown, "no reply", ConnectionReset, Some(Fault::Reset)),
            (Unknown, "no reply", ConnectionAborted, Some(Fault::Reset)),
            (Unknown, "no reply", BrokenPipe, Some(Fault::Reset)),
            // Whatever it says, it may have been sent.
            (
                Unknown,
                "the certificate is not one",
                ConnectionRefused,
                Some(Fault::Eof),
            ),
            (CannotSend, "the certificate is not one", TimedOut, None),
        ] {
            let error = Failed {
                failure,
                said,
                source: io::Error::new(kind, "no more to say"),
            };
            assert_eq!(
                fault_of(&error.into()),
                fault,
                "{failure:?} {said} {kind:?}"
            );
        }
    }
}
