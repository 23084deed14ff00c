//! The blocking client: it drives the flows over a [`Transport`] and a [`Clock`].

use std::error::Error as StdError;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;

use crate::cloud::BaseUrl;
use crate::error::{ApiError, BuildError, ResponseError};
use crate::flow::{
    Attempt, Auth, CallFlow, FlowError, JobFlow, JobProgress, RetryPolicy, SendFailure, Step, Submission,
    Ticket,
};
use crate::oauth2::Revoke;
use crate::operation::{JsonOperation, JsonReply, MAX_ERROR_BODY, Reply, ResponseHead, StreamOperation};
use crate::operations::{
    ExactSearch, FuzzySearch, GetDownload, GetMetadata, GetQuotas, GetRequest, GetSamples, Hunt,
    SamplesMultidownload,
};
use crate::stream::{Received, StreamCheck, StreamError};
use crate::time::Timestamp;
use crate::types::{RequestId, Sha256};

/// Sends a request and gives the reply, whatever its status. Implement it for the HTTP client of your choice.
///
/// Send the request as it is, follow no redirect, and check certificates. A request carries what is known of
/// its operation ([`Meta`](crate::operation::Meta)) and the time that is left ([`TimeLeft`]) as extensions.
pub trait Transport {
    /// The body of a reply, read as it arrives.
    type Body: Read;
    /// Why there is no reply.
    type Error: TransportError;

    /// Sends the request and waits for the head of the reply.
    ///
    /// # Errors
    /// Only when there is no reply: any status is `Ok`.
    fn execute(&self, request: http::Request<Vec<u8>>) -> Result<http::Response<Self::Body>, Self::Error>;
}

impl<T: Transport + ?Sized> Transport for &T {
    type Body = T::Body;
    type Error = T::Error;

    fn execute(&self, request: http::Request<Vec<u8>>) -> Result<http::Response<T::Body>, T::Error> {
        (**self).execute(request)
    }
}

/// Why there is no reply. What it says of the failure decides whether a request may be sent again.
pub trait TransportError: StdError + Send + Sync + 'static {
    /// Whether the service may have seen the request. When in doubt, [`SendFailure::Unknown`].
    fn failure(&self) -> SendFailure;
}

/// Tells the time and waits.
pub trait Clock {
    /// The time now.
    fn now(&self) -> Timestamp;
    /// Returns at `time` or later.
    fn sleep_until(&self, time: Timestamp);
}

impl<C: Clock + ?Sized> Clock for &C {
    fn now(&self) -> Timestamp {
        (**self).now()
    }

    fn sleep_until(&self, time: Timestamp) {
        (**self).sleep_until(time);
    }
}

/// What the observer of a job is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum JobStep {
    /// A request is about to be sent. The flow knows that it is under way.
    Send,
    /// The outcome of a request was taken.
    Reported,
    /// Nothing is sent until this time.
    Wait(Timestamp),
}

/// The time that is left for a request, its whole body included. A transport should give up by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLeft(pub Duration);

/// A client for MalQuery.
///
/// It can be shared by threads when its transport and clock can: they use one token and one rate limit.
#[derive(Debug)]
pub struct Client<T, C> {
    transport: T,
    clock: C,
    auth: Mutex<Auth>,
    retry: RetryPolicy,
    deadline: Option<Timestamp>,
    calls: AtomicU64,
}

impl<T: Transport, C: Clock> Client<T, C> {
    /// A client that sends over `transport` with the tokens of `auth`.
    pub fn new(transport: T, clock: C, auth: Auth) -> Self {
        Self {
            transport,
            clock,
            auth: Mutex::new(auth),
            retry: RetryPolicy::default(),
            deadline: None,
            calls: AtomicU64::new(0),
        }
    }

    /// How often and how long calls are tried.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Ends every call at this time.
    pub fn deadline(mut self, deadline: Timestamp) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// The clock.
    pub fn clock(&self) -> &C {
        &self.clock
    }

    /// Where requests go.
    pub fn base(&self) -> BaseUrl {
        self.auth().base().clone()
    }

    /// The monthly quotas and how much of them is used. Costs nothing. See [`GetQuotas`].
    ///
    /// # Errors
    /// See [`Client::call`].
    pub fn quotas(&self) -> Result<JsonReply<GetQuotas>, Error> {
        self.call(&GetQuotas)
    }

    /// Finds samples fast, with false positives. See [`FuzzySearch`].
    ///
    /// # Errors
    /// See [`Client::call`].
    pub fn fuzzy_search(&self, search: &FuzzySearch) -> Result<JsonReply<FuzzySearch>, Error> {
        self.call(search)
    }

    /// Starts an exact search. See [`ExactSearch`].
    ///
    /// # Errors
    /// See [`Client::call`].
    pub fn exact_search(&self, search: &ExactSearch) -> Result<JsonReply<ExactSearch>, Error> {
        self.call(search)
    }

    /// Starts a hunt, which costs one. See [`Hunt`].
    ///
    /// # Errors
    /// See [`Client::call`].
    pub fn hunt(&self, hunt: &Hunt) -> Result<JsonReply<Hunt>, Error> {
        self.call(hunt)
    }

    /// Asks where a job is, and for its results. Costs nothing. See [`GetRequest`].
    ///
    /// # Errors
    /// See [`Client::call`].
    pub fn request(&self, id: &RequestId) -> Result<JsonReply<GetRequest>, Error> {
        self.call(&GetRequest::new(id.clone()))
    }

    /// Asks what is known of samples, at most 115 or so. Costs nothing. See [`GetMetadata`].
    ///
    /// # Errors
    /// See [`Client::call`].
    pub fn metadata(
        &self,
        samples: impl IntoIterator<Item = Sha256>,
    ) -> Result<JsonReply<GetMetadata>, Error> {
        self.call(&GetMetadata::new(samples))
    }

    /// Starts a job that makes an archive of samples, which costs one download for each.
    /// See [`SamplesMultidownload`].
    ///
    /// # Errors
    /// See [`Client::call`].
    pub fn samples_multidownload(
        &self,
        samples: impl IntoIterator<Item = Sha256>,
    ) -> Result<JsonReply<SamplesMultidownload>, Error> {
        self.call(&SamplesMultidownload::new(samples))
    }

    /// Downloads a sample, the raw malware, which costs one download. See [`GetDownload`].
    ///
    /// # Errors
    /// See [`Client::call`].
    pub fn download(&self, sample: Sha256) -> Result<Reply<Download<T::Body>>, Error> {
        self.open(&GetDownload::new(sample))
    }

    /// Fetches the archive of a multi-download that is done. See [`GetSamples`].
    ///
    /// # Errors
    /// See [`Client::call`].
    pub fn samples(&self, id: &RequestId) -> Result<Reply<Download<T::Body>>, Error> {
        self.open(&GetSamples::new(id.clone()))
    }

    /// Calls an operation that answers with JSON.
    ///
    /// # Errors
    /// [`Error::Flow`], after the attempts its operation and the [`RetryPolicy`] allow.
    pub fn call<O: JsonOperation>(&self, operation: &O) -> Result<JsonReply<O>, Error> {
        let mut flow = self.call_flow();
        self.drive(
            &mut flow,
            |flow, now, auth| flow.poll(now, auth, operation),
            |flow, now, auth, ticket, response| {
                let body = response.body().bytes();
                flow.on_response(now, auth, operation, ticket, ResponseHead::from(&response), body)
            },
            CallFlow::on_failure,
            |_, _| ControlFlow::Continue(()),
        )
    }

    /// Calls an operation that answers with bytes. The body is checked as it is read.
    ///
    /// # Errors
    /// As [`Client::call`]. Errors in the bytes come from reading the [`Download`].
    pub fn open<O: StreamOperation>(&self, operation: &O) -> Result<Reply<Download<T::Body>>, Error> {
        let mut flow = self.call_flow();
        self.drive(
            &mut flow,
            |flow, now, auth| flow.poll_stream(now, auth, operation),
            |flow, now, auth, ticket, response| {
                let head = ResponseHead::from(&response);
                let reply = flow.on_stream(now, auth, operation, ticket, head, response.body().bytes())?;
                Ok(reply
                    .map(|reply| reply.map(|check| Download::new(response.into_body().into_stream(), check))))
            },
            CallFlow::on_failure,
            |_, _| ControlFlow::Continue(()),
        )
    }

    /// A job to be submitted by [`Client::run_job`].
    pub fn job(&self, job: impl Into<Submission>) -> JobFlow {
        JobFlow::new(job, self.retry, self.seed())
    }

    /// A job that was submitted before, to be waited for by [`Client::run_job`].
    pub fn attach(&self, id: RequestId) -> JobFlow {
        JobFlow::attach(id, self.retry, self.seed())
    }

    /// Submits a job, if that is not done yet, and waits for its end. Polling costs nothing.
    ///
    /// Before every request and after every reply `observe` is shown the flow and what comes next. It may store
    /// the flow, so that another process can go on with it, or end the run with [`ControlFlow::Break`].
    ///
    /// # Errors
    /// [`Error::Flow`]; [`Error::Stopped`] when the observer ended the run.
    pub fn run_job(
        &self,
        flow: &mut JobFlow,
        observe: impl FnMut(&JobFlow, JobStep) -> ControlFlow<()>,
    ) -> Result<JsonReply<GetRequest>, Error> {
        if self.deadline.is_some() {
            flow.set_deadline(self.deadline);
        }
        self.drive(
            flow,
            JobFlow::poll,
            |flow, now, auth, ticket, response| {
                let body = response.body().bytes();
                match flow.on_response(now, auth, ticket, ResponseHead::from(&response), body)? {
                    JobProgress::Pending => Ok(None),
                    JobProgress::Done(reply) => Ok(Some(*reply)),
                }
            },
            JobFlow::on_failure,
            observe,
        )
    }

    /// Ends the life of the token, if there is one that this client asked for. Afterwards it asks for a new one.
    ///
    /// # Errors
    /// When the token could not be revoked. It is not used any more, and expires by itself.
    pub fn revoke(&self) -> Result<(), Error> {
        let (taken, base) = {
            let mut auth = self.auth();
            (auth.take_token(), auth.base().clone())
        };
        let Some((credentials, token)) = taken else { return Ok(()) };
        let revoke = Revoke::new(&credentials, &token);
        let request = revoke.request(&base).map_err(FlowError::from)?;
        match self.send(request, Some(MAX_ERROR_BODY)) {
            Ok(response) => {
                let body = response.body().bytes();
                revoke.response(ResponseHead::from(&response), body).map_err(FlowError::from)?;
                Ok(())
            }
            Err(cause) => Err(Error::new(
                FlowError::NoReply { operation: "oauth2RevokeToken", attempts: 1 },
                Some(cause),
            )),
        }
    }

    fn call_flow(&self) -> CallFlow {
        let mut flow = CallFlow::new(self.retry, self.seed());
        flow.set_deadline(self.deadline);
        flow
    }

    /// A seed need not be secret, only different from call to call and from process to process.
    fn seed(&self) -> u64 {
        self.clock.now().as_millis() ^ self.calls.fetch_add(1, Ordering::Relaxed).rotate_left(32)
    }

    /// Runs a flow to its end: the one loop in which something is sent.
    fn drive<F, R>(
        &self,
        flow: &mut F,
        mut poll: impl FnMut(&mut F, Timestamp, &mut Auth) -> Result<Step, FlowError>,
        mut take: impl FnMut(
            &mut F,
            Timestamp,
            &mut Auth,
            Ticket,
            http::Response<Payload<T::Body>>,
        ) -> Result<Option<R>, FlowError>,
        mut fail: impl FnMut(&mut F, Timestamp, &mut Auth, Ticket, SendFailure) -> Result<(), FlowError>,
        mut observe: impl FnMut(&F, JobStep) -> ControlFlow<()>,
    ) -> Result<R, Error> {
        let mut cause = None;
        loop {
            let now = self.clock.now();
            let step = poll(flow, now, &mut self.auth());
            let attempt = match step {
                Ok(Step::Send(attempt)) => attempt,
                Ok(Step::Wait(time)) => {
                    if observe(flow, JobStep::Wait(time)).is_break() {
                        return Err(Error::Stopped);
                    }
                    self.clock.sleep_until(time);
                    continue;
                }
                Err(error) => return Err(Error::new(error, cause)),
            };
            let Attempt { mut request, ticket, max_body, deadline } = *attempt;
            if observe(flow, JobStep::Send).is_break() {
                // Nothing was sent, and the flow is to know that.
                let _ = fail(flow, now, &mut self.auth(), ticket, SendFailure::NotSent);
                let _ = observe(flow, JobStep::Reported);
                return Err(Error::Stopped);
            }
            if let Some(deadline) = deadline {
                request.extensions_mut().insert(TimeLeft(deadline.since(now)));
            }
            let result = self.send(request, max_body);
            let now = self.clock.now();
            let outcome = match result {
                Ok(response) => take(flow, now, &mut self.auth(), ticket, response),
                Err(error) => {
                    log::debug!("no reply: {error}");
                    let why = error.failure();
                    cause = Some(error);
                    fail(flow, now, &mut self.auth(), ticket, why).map(|()| None)
                }
            };
            // Also told when the flow has ended, so that what is stored is its last state.
            let stopped = observe(flow, JobStep::Reported).is_break();
            match outcome {
                Ok(Some(result)) => return Ok(result),
                Err(error) => return Err(Error::new(error, cause)),
                Ok(None) if stopped => return Err(Error::Stopped),
                Ok(None) => {}
            }
        }
    }

    /// Sends a request and reads the body, unless it is a stream that is to be handed on.
    fn send(
        &self,
        request: http::Request<Vec<u8>>,
        max_body: Option<u64>,
    ) -> Result<http::Response<Payload<T::Body>>, Box<dyn TransportError>> {
        let response =
            self.transport.execute(request).map_err(|error| Box::new(error) as Box<dyn TransportError>)?;
        let (head, body) = response.into_parts();
        let (most, whole) = match max_body {
            None if head.status.is_success() => {
                return Ok(http::Response::from_parts(head, Payload::Stream(body)));
            }
            Some(most) if head.status.is_success() => (most, true),
            // The beginning of an error is enough.
            _ => (MAX_ERROR_BODY, false),
        };
        let bytes = read_body(&head, body, most, whole)?;
        Ok(http::Response::from_parts(head, Payload::Bytes(bytes)))
    }

    fn auth(&self) -> MutexGuard<'_, Auth> {
        // Nothing that panics runs under the lock; were it to, the state is still that of the last step.
        self.auth.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a body of at most `most` bytes. Where `whole` is set, a longer or a cut one is an error.
fn read_body(
    head: &http::response::Parts,
    body: impl Read,
    most: u64,
    whole: bool,
) -> Result<Vec<u8>, Box<dyn TransportError>> {
    let declared = ResponseHead { status: head.status, headers: &head.headers }.content_length();
    let capacity = declared.unwrap_or(0).min(most).min(1 << 20);
    let mut bytes = Vec::with_capacity(usize::try_from(capacity).unwrap_or(0));
    let result = body.take(most.saturating_add(1)).read_to_end(&mut bytes);
    if !whole {
        // A status that tells of an error does so without its body, too.
        bytes.truncate(usize::try_from(most).unwrap_or(usize::MAX));
        return Ok(bytes);
    }
    result.map_err(|error| Box::new(BodyError(error)) as Box<dyn TransportError>)?;
    let received = bytes.len() as u64;
    if received > most {
        return Err(Box::new(BodyError(io::Error::other(StreamError::TooLarge { cap: most }))));
    }
    // A transport that decodes a body has to take the length out of the head.
    match declared {
        Some(declared) if received < declared => {
            Err(Box::new(BodyError(io::Error::other(StreamError::Short { received, declared }))))
        }
        _ => Ok(bytes),
    }
}

/// The body of a reply could not be read to its end.
#[derive(Debug, thiserror::Error)]
#[error("the body of the reply could not be read: {0}")]
struct BodyError(io::Error);

impl TransportError for BodyError {
    fn failure(&self) -> SendFailure {
        SendFailure::Unknown
    }
}

enum Payload<B> {
    Bytes(Vec<u8>),
    Stream(B),
}

impl<B> Payload<B> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Stream(_) => &[],
        }
    }

    fn into_stream(self) -> Option<B> {
        match self {
            Self::Bytes(_) => None,
            Self::Stream(body) => Some(body),
        }
    }
}

/// The bytes of a download, checked as they are read. Reading fails at the end of a body that is short, long or
/// has the wrong hash, so a copy of it cannot succeed.
///
/// Take care: what it gives before its end may be a broken sample, and what it gives is malware.
pub struct Download<B> {
    body: Option<B>,
    state: State,
    progress: Option<Box<dyn FnMut(u64) + Send>>,
}

impl<B> std::fmt::Debug for Download<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Download").field("state", &self.state).finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum State {
    Reading(Box<StreamCheck>),
    Whole(Received),
    Failed(StreamError),
}

impl<B: Read> Download<B> {
    fn new(body: Option<B>, check: StreamCheck) -> Self {
        Self { body, state: State::Reading(Box::new(check)), progress: None }
    }

    /// The declared length in bytes, if there is one.
    pub fn length(&self) -> Option<u64> {
        match &self.state {
            State::Reading(check) => check.length(),
            State::Whole(received) => Some(received.bytes),
            State::Failed(_) => None,
        }
    }

    /// Tells `progress` how many bytes have been read, after every read.
    pub fn on_progress(mut self, progress: impl FnMut(u64) + Send + 'static) -> Self {
        self.progress = Some(Box::new(progress));
        self
    }

    /// What was received; `None` until the end was read and the body found to be whole.
    pub fn received(&self) -> Option<Received> {
        match &self.state {
            State::Whole(received) => Some(*received),
            _ => None,
        }
    }

    fn end(&mut self, result: Result<Received, StreamError>) -> io::Result<usize> {
        self.body = None;
        match result {
            Ok(received) => {
                self.state = State::Whole(received);
                Ok(0)
            }
            Err(error) => {
                self.state = State::Failed(error.clone());
                Err(io::Error::new(io::ErrorKind::InvalidData, error))
            }
        }
    }
}

impl<B: Read> Read for Download<B> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (State::Reading(check), Some(body)) = (&mut self.state, &mut self.body) else {
            return match &self.state {
                State::Failed(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error.clone())),
                _ => Ok(0),
            };
        };
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = body.read(buffer)?;
        if count > 0 {
            if let Err(error) = check.update(&buffer[..count]) {
                return self.end(Err(error));
            }
            if let Some(progress) = &mut self.progress {
                progress(check.bytes());
            }
            return Ok(count);
        }
        let result = std::mem::take(&mut **check).finish();
        self.end(result)
    }
}

/// Why a call gave no result.
///
/// Its `Display` is one line and tells what to do where that is known; `source` is what the transport said.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The call ended without a result.
    #[allow(missing_docs)]
    Flow {
        error: FlowError,
        /// What the transport said of the last attempt, when that is why.
        cause: Option<Box<dyn TransportError>>,
    },
    /// The observer of a job ended the run.
    Stopped,
    /// The body of a download broke off or is not what was asked for.
    Body(io::Error),
    /// A file could not be written.
    #[cfg(feature = "fs")]
    #[allow(missing_docs)]
    File { path: std::path::PathBuf, error: io::Error },
}

impl Error {
    fn new(error: FlowError, cause: Option<Box<dyn TransportError>>) -> Self {
        let explains = match &error {
            FlowError::NoReply { .. } | FlowError::TimeUp { .. } => true,
            FlowError::Unsure { reply, .. } => reply.is_none(),
            _ => false,
        };
        Self::Flow { error, cause: cause.filter(|_| explains) }
    }

    /// The request was refused before anything was sent.
    pub fn invalid(&self) -> Option<&BuildError> {
        match self {
            Self::Flow { error: FlowError::Build(error), .. } => Some(error),
            _ => None,
        }
    }

    /// The error reply, when the service answered with one.
    pub fn api(&self) -> Option<&ApiError> {
        match self {
            Self::Flow { error: FlowError::Response(ResponseError::Api(error)), .. } => Some(error),
            Self::Flow { error: FlowError::Unsure { reply, .. }, .. } => reply.as_deref(),
            _ => None,
        }
    }

    /// The HTTP status, when there was a reply.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Flow { error: FlowError::Response(error), .. } => Some(error.status()),
            _ => self.api().map(ApiError::status),
        }
    }

    /// The id to give to CrowdStrike's support.
    pub fn trace_id(&self) -> Option<&str> {
        match self {
            Self::Flow { error: FlowError::Response(error), .. } => error.trace_id(),
            _ => self.api().and_then(ApiError::trace_id),
        }
    }

    /// Whether the same call may succeed later without a change of anything, and without being billed twice.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Flow { error: FlowError::Response(ResponseError::Api(error)), .. } => error.is_retryable(),
            Self::Flow { error: FlowError::NoReply { .. } | FlowError::TimeUp { .. }, .. }
            | Self::Body(_) => true,
            _ => false,
        }
    }

    /// When the service asks to try again, if it says so; `now` is when the reply came.
    pub fn retry_at(&self, now: Timestamp) -> Option<Timestamp> {
        self.api().and_then(|error| error.retry_at(now))
    }
}

impl From<FlowError> for Error {
    fn from(error: FlowError) -> Self {
        Self::new(error, None)
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flow { error, .. } => error.fmt(f),
            Self::Stopped => f.write_str("the run was stopped; the job itself goes on"),
            Self::Body(_) => f.write_str("the download failed"),
            #[cfg(feature = "fs")]
            Self::File { path, .. } => write!(f, "{} could not be written", path.display()),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Flow { error: FlowError::Unsure { reply: Some(reply), .. }, .. } => Some(reply),
            Self::Flow { cause, .. } => cause.as_deref().map(|cause| cause as _),
            Self::Stopped => None,
            Self::Body(error) => Some(error),
            #[cfg(feature = "fs")]
            Self::File { error, .. } => Some(error),
        }
    }
}
