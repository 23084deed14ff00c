//! The loop that runs flows and sends their requests.

use std::fmt;
use std::io::{self, Read};

use zeroize::Zeroize;

use super::observer::{Observer, Progress, Step};
use super::transport::{Body, Clock, TimeLeft, TransportError};
use super::{Client, Error};
use crate::endpoint::{Endpoint, Resend};
use crate::error::{DecodeError, Fault, NEAR, ResponseError, excerpt, find_id};
use crate::flow::{self, Attempt, Flow, FlowError, JobFlow, SendFailure};
use crate::operation::{MAX_ERROR_BODY, MAX_TOKEN_BODY, has_file};
use crate::reply::ResponseHead;
use crate::stream::StreamError;
use crate::time::Timestamp;
use crate::types::RequestId;
use crate::types::read::until;

/// The body of a reply: read into memory, or a stream for the caller.
pub(super) enum Payload {
    Bytes(Vec<u8>),
    Stream(Body),
}

impl Payload {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Stream(_) => &[],
        }
    }
}

impl Client {
    /// Runs a flow to completion. Returns its output and the body of the last reply.
    pub(super) fn drive<F: Flow>(
        &self,
        flow: &mut F,
        observer: &mut dyn Observer,
    ) -> Result<(F::Output, Payload), Error> {
        let clock = self.clock();
        let begun = clock.now();
        let mut observe = |flow: &F, step, now: Timestamp| {
            observer.observe(&Progress::new(step, now.since(begun), flow.job()))
        };
        let id = |flow: &F| flow.job().and_then(JobFlow::id).cloned();
        let (mut cause, mut attempts) = (None, 0);
        loop {
            let now = clock.now();
            let step = flow.poll(now, &mut self.auth());
            let attempt = match step {
                Ok(flow::Step::Send(attempt)) => attempt,
                Ok(flow::Step::Wait(time)) => {
                    if observe(flow, Step::Wait(time), now).is_break() {
                        return Err(Error::Stopped);
                    }
                    clock.sleep_until(time);
                    continue;
                }
                Err(error) => return Err(Error::new(error, cause, id(flow))),
            };
            attempts += 1;
            let Attempt {
                mut request,
                ticket,
                max_body,
                deadline,
            } = *attempt;
            let name = Name::of(&request);
            let _held = Held {
                client: self,
                serial: ticket.token_serial(),
            };
            if observe(flow, Step::Send, now).is_break() {
                // Report to the flow that nothing was sent.
                flow.cancel(&mut self.auth(), ticket)?;
                let _ = observe(flow, Step::Reported, now);
                return Err(Error::Stopped);
            }
            if let Some(deadline) = deadline {
                request
                    .extensions_mut()
                    .insert(TimeLeft(deadline.since(now)));
            }
            let result = self.send(request, max_body, deadline);
            let sent = now;
            let mut now = clock.now();
            let took = now.since(sent).as_millis();
            let outcome = match result {
                Ok(mut response) => {
                    cause = None;
                    let head = ResponseHead::from(&response);
                    let body = response.body().bytes();
                    self.log_reply(&name, attempts, took, head);
                    let is_token = ticket.is_token();
                    let outcome = if is_token {
                        flow.on_token(now, &mut self.auth(), ticket, head, body)
                            .map(|()| None)
                    } else {
                        let watch = self.shared.clock.clone();
                        let is_over = move || deadline.is_some_and(|end| end <= watch.now());
                        let reply = until(is_over, || flow.read(head, body));
                        now = clock.now();
                        flow.take(now, &mut self.auth(), ticket, reply)
                    };
                    if let (true, Payload::Bytes(bytes)) = (is_token, response.body_mut()) {
                        bytes.zeroize();
                    }
                    outcome.map(|output| output.map(|output| (output, response.into_body())))
                }
                Err(error) => {
                    let why = error.failure();
                    log::debug!("{name}, request {attempts}: no complete reply after {took} ms");
                    if why != SendFailure::CannotSend {
                        // Without a warning, the service would just seem slow during retries.
                        let reason = error.reason().to_string();
                        log::warn!(
                            "no complete reply to {}: {}",
                            name.operation,
                            self.mask(&reason)
                        );
                    }
                    let body: Option<&BodyError> = error.reason().downcast_ref();
                    let found = body.and_then(|body| body.id.clone()?.ok());
                    let refused = body.and_then(|body| body.refused.clone());
                    cause = Some(error);
                    let mut result = match refused {
                        Some(refused) => {
                            let refused = Err::<(), _>(ResponseError::Decode(refused));
                            let auth = &mut self.auth();
                            let taken = flow.attempts().on_reply(now, auth, ticket, refused);
                            if let Some(id) = taken.as_ref().err().and_then(FlowError::request_id) {
                                flow.salvage(id);
                            }
                            taken.map(drop)
                        }
                        None => flow.on_failure(now, &mut self.auth(), ticket, why),
                    };
                    if let (Some(found), Err(FlowError::OutcomeUnknown { id, .. })) =
                        (found, &mut result)
                    {
                        flow.salvage(&found);
                        *id = Some(found);
                    }
                    result.map(|()| None)
                }
            };
            // Call the observer even if the flow has ended, so that it can store the final state.
            let stopped = observe(flow, Step::Reported, now).is_break();
            match outcome {
                Ok(Some(result)) => return Ok(result),
                Err(error) => return Err(Error::new(error, cause, id(flow))),
                Ok(None) if stopped => return Err(Error::Stopped),
                Ok(None) => {}
            }
        }
    }

    /// Logs a reply on one line. Secrets are masked, because the reply may contain some.
    fn log_reply(&self, name: &Name, attempt: u32, took: u128, head: ResponseHead<'_>) {
        if !log::log_enabled!(log::Level::Debug) {
            return;
        }
        let rate_limit = head.rate_limit();
        let trace_id = excerpt(head.trace_id().unwrap_or("-").as_bytes(), 100);
        let number = |number: Option<u64>| number.map_or("-".into(), |number| number.to_string());
        let line = format!(
            "{name}, request {attempt}: {} in {took} ms, trace id {trace_id}, \
             rate limit {} of {} left",
            head.status.as_u16(),
            number(rate_limit.remaining),
            number(rate_limit.limit),
        );
        log::debug!("{}", self.mask(&line));
    }

    /// Sends a request, and reads the body of the reply unless it is a file.
    pub(super) fn send(
        &self,
        request: http::Request<Vec<u8>>,
        max_body: Option<u64>,
        deadline: Option<Timestamp>,
    ) -> Result<http::Response<Payload>, TransportError> {
        let endpoint = request.extensions().get::<Endpoint>().cloned();
        let is_billed = endpoint
            .as_ref()
            .is_some_and(|endpoint| endpoint.resend == Resend::Billed);
        let response = self.transport().send(request)?;
        let status = response.status();
        let (most, whole) = match max_body {
            None if has_file(status) => return Ok(response.map(Payload::Stream)),
            Some(most) if status.is_success() => (most, true),
            // The beginning of an error body is enough.
            _ => (MAX_ERROR_BODY, false),
        };
        let (head, body) = response.into_parts();
        let head = http::Response::from_parts(head, ());
        let body = Timed {
            body,
            clock: self.clock(),
            deadline,
            begun: false,
            single: if is_billed { NEAR } else { 0 },
        };
        let bytes = read_body(endpoint.as_ref(), (&head).into(), body, most, whole)?;
        Ok(head.map(|()| Payload::Bytes(bytes)))
    }
}

/// Reads up to `most` bytes of a body. If `whole` is set, an incomplete body is an error, and one
/// extra byte of a longer body is kept, so that the flow rejects it.
fn read_body(
    endpoint: Option<&Endpoint>,
    head: ResponseHead<'_>,
    body: impl Read,
    most: u64,
    whole: bool,
) -> Result<Vec<u8>, TransportError> {
    // RFC 9112, section 6.3: ignore the declared length of a chunked body. This is safe, because
    // truncated JSON cannot be parsed. A download still checks the length.
    let is_chunked = head.headers.contains_key(http::header::TRANSFER_ENCODING);
    let declared = head.content_length().filter(|_| !is_chunked);
    let most_read = most.saturating_add(1);
    let capacity = match most {
        // Allocate the buffer once: a growing buffer would leave copies of the token in memory.
        ..=MAX_TOKEN_BODY => most_read,
        _ => declared.unwrap_or(0).min(most).min(1 << 20),
    };
    let mut bytes = Vec::with_capacity(usize::try_from(capacity).unwrap_or(0));
    let result = body.take(most_read).read_to_end(&mut bytes);
    if !whole {
        // The status of an error is enough, even if its body is truncated.
        bytes.truncate(usize::try_from(most).unwrap_or(usize::MAX));
        return Ok(bytes);
    }
    let is_too_large = matches!(&result, Err(error) if error.kind() == io::ErrorKind::FileTooLarge);
    if is_too_large && most <= MAX_TOKEN_BODY {
        // The flow rejects a token reply of this length without a retry.
        bytes.resize(usize::try_from(most_read).unwrap_or(usize::MAX), 0);
        return Ok(bytes);
    }
    let received = bytes.len() as u64;
    let short = declared.filter(|declared| received < *declared);
    let mut failed = |error| {
        let id = find_id(&bytes);
        // If the body is too large, a retry cannot help.
        let refused = endpoint.filter(|_| is_too_large).map(|endpoint| {
            DecodeError::new(Fault::TooLarge, endpoint, head, &bytes, &error).into()
        });
        if most <= MAX_TOKEN_BODY {
            bytes.zeroize();
        }
        TransportError::unknown(BodyError { error, id, refused })
    };
    match result {
        // For a closed connection, report how many bytes arrived instead.
        Err(error) if short.is_none() || error.kind() != io::ErrorKind::UnexpectedEof => {
            return Err(failed(error));
        }
        _ => {}
    }
    // A transport that decodes a body must remove the declared length.
    match short.filter(|_| received <= most) {
        Some(declared) => Err(failed(io::Error::other(StreamError::Short {
            received,
            declared,
        }))),
        None => Ok(bytes),
    }
}

/// A body that checks the deadline while it is read, in case the transport does not.
struct Timed<'a> {
    body: Body,
    clock: &'a dyn Clock,
    deadline: Option<Timestamp>,
    begun: bool,
    /// The number of bytes still to be read one at a time. A longer read that fails on damaged data
    /// would lose the bytes before the damage, such as the request id of a billed job.
    single: usize,
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = match self.single {
            0 => buffer.len(),
            _ => buffer.len().min(1),
        };
        let count = self.body.read(&mut buffer[..most])?;
        self.single = self.single.saturating_sub(count);
        // A small body usually arrives in one read, so do not read the clock for it.
        let is_more = count > 0 && std::mem::replace(&mut self.begun, true);
        if is_more && self.deadline.is_some_and(|end| end <= self.clock.now()) {
            let error = "the call timed out before the body was complete";
            return Err(io::Error::new(io::ErrorKind::TimedOut, error));
        }
        Ok(count)
    }
}

/// Ends a token request on drop, so that other flows do not keep waiting for its token if the
/// observer, the transport or the clock panics.
struct Held<'a> {
    client: &'a Client,
    serial: Option<u64>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(serial) = self.serial {
            self.client.auth().end_fetching(serial);
        }
    }
}

/// The name of a request in the log: its operation, host and port.
struct Name {
    operation: &'static str,
    authority: String,
}

impl Name {
    fn of(request: &http::Request<Vec<u8>>) -> Self {
        let operation = request
            .extensions()
            .get::<Endpoint>()
            .map_or("a request", |e| e.id);
        let uri = request.uri();
        let port = uri
            .port_u16()
            .unwrap_or(if uri.scheme_str() == Some("http") {
                80
            } else {
                443
            });
        let authority = format!("{}:{port}", uri.host().unwrap_or_default());
        Self {
            operation,
            authority,
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.operation, self.authority)
    }
}

#[derive(Debug)]
struct BodyError {
    error: io::Error,
    /// The request id that arrived, if any, or the beginning of an incomplete or invalid one.
    id: Option<Result<RequestId, String>>,
    /// The error for the flow, if the body is too large.
    refused: Option<Box<DecodeError>>,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the body of the reply could not be read: {}", self.error)?;
        match &self.id {
            Some(Err(begins)) => {
                write!(
                    f,
                    "; the part that arrived contains an incomplete or invalid request id, which begins with {begins:?}"
                )
            }
            _ => Ok(()),
        }
    }
}

impl std::error::Error for BodyError {}
