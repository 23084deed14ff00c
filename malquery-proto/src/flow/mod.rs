//! Sans-I/O state machines for the token, a call with its retries, and a job.
//!
//! A [`Flow`] returns the next step, and its driver reports the outcome. A flow does no I/O and
//! starts no threads. It does not read the clock, sleep or draw random numbers: the caller passes
//! in the time and a seed. The blocking [`Client`](crate::client::Client) has a loop that drives
//! flows. An asynchronous program needs its own loop.

mod attempts;
mod auth;
mod call;
mod job;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde::{Deserialize, Serialize};

pub use auth::Auth;
pub use call::{CallFlow, DownloadFlow};
#[cfg(feature = "samples")]
pub(crate) use job::MIN_INTERVAL;
pub(crate) use job::for_operation;
pub use job::{JobFlow, JobReply, Submission};

use crate::debug::debug_with_sources;
use crate::error::{ApiError, IdNote, ResponseError, excerpt};
use crate::operation::JsonReply;
use crate::operations::GetRequest;
use crate::reply::ResponseHead;
use crate::request::BuildError;
use crate::time::Timestamp;
use crate::types::{JobStatus, RequestId};

mod sealed {
    /// Seals [`Flow`](super::Flow), so that only this crate can implement it.
    pub trait Sealed {
        #[doc(hidden)]
        #[allow(private_interfaces)]
        fn attempts(&mut self) -> &mut super::attempts::Attempts;

        /// Stores the request id from the reply to a failed submission, so that the job is not
        /// lost.
        #[doc(hidden)]
        fn salvage(&mut self, _: &crate::types::RequestId) {}

        /// Returns the job, if this flow is one.
        #[doc(hidden)]
        fn job(&self) -> Option<&super::JobFlow> {
            None
        }
    }
}

/// A state machine that a driver runs to completion: a [call](CallFlow), a
/// [download](DownloadFlow) or a [job](JobFlow).
///
/// The driver repeats two steps until it gets the output or an error:
///
/// 1. Call [`poll`](Self::poll). If it returns a time, wait until then and poll again.
/// 2. If `poll` returns a request, send the request. Then call [`on_response`](Self::on_response)
///    with the reply, or [`on_failure`](Self::on_failure) if no complete reply arrived.
///
/// `on_response` borrows the [`Auth`] while it parses the reply. If threads share an `Auth` behind
/// a lock, they can parse without holding it: call [`read`](Self::read), and then
/// [`take`](Self::take). For the reply to a [token request](Ticket::is_token), call
/// [`on_token`](Self::on_token) instead.
pub trait Flow: sealed::Sealed {
    /// A parsed reply, before [`take`](Self::take) processes it.
    type Reply;
    /// The result of the flow.
    type Output;

    /// Returns the next step. `now` is the current time.
    ///
    /// # Errors
    /// Returns the error that stops the flow. After some errors, the flow can be polled again.
    fn poll(&mut self, now: Timestamp, auth: &mut Auth) -> Result<Step, FlowError>;

    /// Parses the reply to an attempt that is not a token request. This can be slow for a large
    /// reply.
    fn read(&self, head: ResponseHead<'_>, body: &[u8]) -> Self::Reply;

    /// Processes a parsed reply. Returns the result of the flow, or `None` if the flow must be
    /// polled again.
    ///
    /// # Errors
    /// Returns [`FlowError::WrongTicket`], and changes nothing, if the ticket belongs to another
    /// request. Any other error stops the flow.
    fn take(
        &mut self,
        now: Timestamp,
        auth: &mut Auth,
        ticket: Ticket,
        reply: Self::Reply,
    ) -> Result<Option<Self::Output>, FlowError>;

    /// Parses and processes the reply to an attempt, in one call. Returns the result of the flow,
    /// or `None` if the flow must be polled again.
    ///
    /// # Errors
    /// See [`take`](Self::take) and [`on_token`](Self::on_token).
    fn on_response(
        &mut self,
        now: Timestamp,
        auth: &mut Auth,
        ticket: Ticket,
        head: ResponseHead<'_>,
        body: &[u8],
    ) -> Result<Option<Self::Output>, FlowError> {
        if ticket.is_token() {
            return self.on_token(now, auth, ticket, head, body).map(|()| None);
        }
        let reply = self.read(head, body);
        self.take(now, auth, ticket, reply)
    }

    /// Processes the reply to a token request. Poll the flow again afterwards.
    ///
    /// # Errors
    /// Returns [`FlowError::WrongTicket`], and changes nothing, if the ticket is not for a token
    /// request of this [`Auth`]. Any other error stops the flow.
    fn on_token(
        &mut self,
        now: Timestamp,
        auth: &mut Auth,
        ticket: Ticket,
        head: ResponseHead<'_>,
        body: &[u8],
    ) -> Result<(), FlowError> {
        self.attempts().on_token(now, auth, ticket, head, body)
    }

    /// Reports that an attempt did not receive a complete reply. Poll the flow again afterwards.
    ///
    /// # Errors
    /// Returns [`FlowError::WrongTicket`], and changes nothing, if the ticket is for another call,
    /// an earlier attempt, or a token request of another [`Auth`]. Any other error stops the flow.
    fn on_failure(
        &mut self,
        now: Timestamp,
        auth: &mut Auth,
        ticket: Ticket,
        why: SendFailure,
    ) -> Result<(), FlowError> {
        self.attempts().on_failure(now, auth, ticket, why)
    }

    /// Reports that a request was not sent, for example because the user stopped the program. The
    /// flow can be polled again later.
    ///
    /// # Errors
    /// Returns [`FlowError::WrongTicket`], and changes nothing, if the ticket is for another call,
    /// an earlier attempt, or a token request of another [`Auth`].
    fn cancel(&mut self, auth: &mut Auth, ticket: Ticket) -> Result<(), FlowError> {
        self.attempts().cancel(auth, ticket)
    }
}

/// The next step of a flow. This enum is exhaustive: no variants will be added.
#[derive(Debug)]
#[must_use]
pub enum Step {
    /// Send this request, and report the outcome with the ticket of the attempt.
    Send(Box<Attempt>),
    /// Poll again at this time, which is in the future.
    Wait(Timestamp),
}

/// A request to send, with its limits.
#[non_exhaustive]
pub struct Attempt {
    /// The request.
    pub request: http::Request<Vec<u8>>,
    /// The ticket with which to report the outcome.
    pub ticket: Ticket,
    /// The maximum body size of a successful reply, in bytes. Read up to one byte more, so that the
    /// flow detects a larger body. `None` for a download: the caller reads the file.
    ///
    /// From the body of an error reply, read at most
    /// [`MAX_ERROR_BODY`](crate::operation::MAX_ERROR_BODY) bytes.
    pub max_body: Option<u64>,
    /// The time by which the whole reply, including its body, must have arrived. For a download,
    /// this is the deadline of the flow, if it has one: the time limit of the policy does not apply
    /// to the body.
    pub deadline: Option<Timestamp>,
}

impl std::fmt::Debug for Attempt {
    /// Hides the headers and the body, which may contain secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Attempt({} {})",
            self.request.method(),
            self.request.uri()
        )
    }
}

/// Identifies the request whose outcome is reported. Reporting consumes the ticket, so an outcome
/// cannot be reported twice.
///
/// If you do not send the request, pass the ticket to [`Flow::cancel`]. If a ticket is dropped, for
/// example with a canceled future, the outcome stays unknown. If the request was a submission, its
/// flow then fails with [`OutcomeUnknown`](FlowError::OutcomeUnknown) whenever it is polled. If the
/// request was for a token, the flows that need it wait for up to 90 seconds before one of them
/// requests another.
#[derive(Debug)]
#[must_use]
pub struct Ticket(Kind);

#[derive(Debug)]
enum Kind {
    /// `of` identifies the [`Auth`], so that a session does not accept the token of another
    /// account.
    Token { of: Arc<()>, serial: u64 },
    Call {
        flow: u64,
        serial: u64,
        call: auth::Call,
    },
}

impl Ticket {
    /// Returns whether the ticket is for a token request.
    pub fn is_token(&self) -> bool {
        self.token_serial().is_some()
    }

    /// Returns the number of the token request, if the ticket is for one.
    pub(crate) fn token_serial(&self) -> Option<u64> {
        match self.0 {
            Kind::Token { serial, .. } => Some(serial),
            Kind::Call { .. } => None,
        }
    }
}

/// How far in the future a pause may begin: another thread may have set the pause after this thread
/// read the clock.
const CLOCK_SKEW: Duration = Duration::from_secs(1);

/// A pause before a request.
///
/// If the clock is set back to more than [`CLOCK_SKEW`] before the beginning of the pause, the
/// pause ends immediately: sending a request too early is better than waiting for hours.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Pause {
    since: Timestamp,
    until: Timestamp,
}

impl Pause {
    fn new(since: Timestamp, until: Timestamp) -> Self {
        Self { since, until }
    }

    /// Returns the end of the pause, unless the pause is over.
    fn end(self, now: Timestamp) -> Option<Timestamp> {
        (self.since.since(now) <= CLOCK_SKEW && now < self.until).then_some(self.until)
    }
}

/// The format version of a stored state.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Version(u32);

impl Default for Version {
    fn default() -> Self {
        Self(1)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let known = Self::default();
        match u32::deserialize(deserializer)? {
            version if version == known.0 => Ok(known),
            other => Err(serde::de::Error::custom(format!(
                "the stored state has version {other}, but this release supports only version {}",
                known.0
            ))),
        }
    }
}

/// States whether a failed request may have reached the service, and whether a retry may succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SendFailure {
    /// The request provably never reached the service, and a retry may succeed. For example, the
    /// host name was not found, or the connection was refused.
    NotSent,
    /// The request provably never reached the service, and a retry would fail again. For example,
    /// the certificate is not trusted.
    CannotSend,
    /// The service may have received the request. For example, the connection broke or timed out
    /// after sending had begun.
    Unknown,
}

/// How often, and for how long, calls are retried.
///
/// The table in [`CallFlow`] shows which outcomes lead to a retry. A
/// [`Billed`](crate::endpoint::Resend::Billed) request is retried only if it provably never reached
/// the service, or if the reply is a 401 or a rate-limit error (429).
///
/// ```
/// use std::time::Duration;
///
/// use malquery_proto::flow::RetryPolicy;
///
/// // For an interactive program, whose user is waiting for the result.
/// let policy = RetryPolicy { max_attempts: 2, time_limit: Duration::from_secs(30), ..RetryPolicy::default() };
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// The maximum number of attempts for a call, not counting a retry after a 401. 0 has the same
    /// effect as 1. If this is more than 1, a [`JobFlow`] allows five times as many for each poll.
    pub max_attempts: u32,
    /// The pause before the second attempt, unless the service asks for a different one. It doubles
    /// for each further attempt. Each of these pauses is shortened by a random amount, up to half.
    pub first_delay: Duration,
    /// The maximum pause, unless the service asks for a longer one.
    pub max_delay: Duration,
    /// The longest pause that the reply to a call may request. If the service asks for a longer
    /// one, the call fails with the error reply, which contains the retry time. A [`JobFlow`] may
    /// accept longer pauses for its polls. A rate limit in the reply to one call also delays other
    /// calls by up to 2 minutes, regardless of this value.
    pub max_rate_limit_wait: Duration,
    /// The time limit for a call, including its attempts and pauses. Each poll of a job is a
    /// separate call. For a download, each attempt must start within this limit, but the reply may
    /// take longer. After an interruption, the limit starts over.
    pub time_limit: Duration,
}

impl Default for RetryPolicy {
    /// Returns a policy with 4 attempts, a first delay of 0.5 seconds, a maximum delay of 30
    /// seconds, a maximum rate-limit wait of 2 minutes, and a time limit of 10 minutes.
    fn default() -> Self {
        Self {
            max_attempts: 4,
            first_delay: Duration::from_millis(500),
            max_delay: Duration::from_secs(30),
            max_rate_limit_wait: Duration::from_secs(120),
            time_limit: Duration::from_secs(600),
        }
    }
}

impl RetryPolicy {
    /// Returns a policy without retries. After a 401, a call may still request a new token and
    /// retry once.
    pub fn never() -> Self {
        Self {
            max_attempts: 1,
            ..Self::default()
        }
    }

    /// Returns the pause after this many failed attempts.
    pub(crate) fn delay(&self, attempts: u32, seed: u64) -> Duration {
        let doubled = self
            .first_delay
            .saturating_mul(1u32 << attempts.saturating_sub(1).min(20))
            .min(self.max_delay);
        let half = doubled / 2;
        let spread = u64::try_from(half.as_millis())
            .unwrap_or(u64::MAX)
            .saturating_add(1);
        // `Step::Wait` must be in the future, so the pause is at least a millisecond.
        (half + Duration::from_millis(mix(seed, attempts) % spread)).max(Duration::from_millis(1))
    }
}

/// Returns whether the meaning of a job status is known.
fn is_expected(status: &JobStatus) -> bool {
    use JobStatus::{Done, Failed, InProgress};

    matches!(status, InProgress | Done | Failed) || status.as_str() == "pending"
}

/// Describes an unknown job status. Returns an empty string for a known status or `None`.
fn unknown_status(status: Option<&JobStatus>) -> String {
    match status.filter(|status| !is_expected(status)) {
        Some(word) => format!(
            "; the service reports the unknown job status {:?}",
            excerpt(word.as_str().as_bytes(), 50)
        ),
        None => String::new(),
    }
}

/// Describes the errors and the trace id in the reply about a failed job, for the end of a message.
fn reasons(reply: &JsonReply<GetRequest>) -> String {
    let mut text = String::new();
    for message in reply
        .errors
        .iter()
        .filter_map(|error| error.message.as_deref())
    {
        text.push_str(if text.is_empty() { ": " } else { "; " });
        text.push_str(&excerpt(message.as_bytes(), 500));
    }
    if let Some(id) = &reply.trace_id {
        text.push_str(&format!(" (trace id {})", excerpt(id.as_bytes(), 100)));
    }
    text
}

/// Returns a pseudorandom number (splitmix64) for this seed and round.
fn mix(seed: u64, round: u32) -> u64 {
    let mut z = seed.wrapping_add(u64::from(round).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The error type for calls, downloads and jobs.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum FlowError {
    /// The request was rejected before it was sent.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The service or a gateway returned an error or an unusable reply.
    #[error(transparent)]
    Response(#[from] ResponseError),
    /// The last attempt did not receive a complete reply, and no further attempt is allowed.
    #[error("{operation} failed after {attempts} attempt{}; the last attempt did not receive a complete reply", if *attempts == 1 { "" } else { "s" })]
    #[allow(missing_docs)]
    NoReply {
        operation: &'static str,
        attempts: u32,
    },
    /// The request cannot be sent, and a retry would fail again. The transport's error states the
    /// reason.
    #[error("the request for {operation} cannot be sent")]
    #[allow(missing_docs)]
    CannotSend { operation: &'static str },
    /// The outcome of a request that may have been billed is unknown. The request was not retried.
    #[error(
        "the outcome of {operation} is unknown; it was not retried, because it could be billed twice; \
         before you submit it again, use `quotas` to check whether it was billed{}", IdNote(id.as_ref())
    )]
    #[allow(missing_docs)]
    OutcomeUnknown {
        operation: &'static str,
        /// The error reply that caused this error, if any.
        #[source]
        reply: Option<Box<ApiError>>,
        /// The request id of the job, if it was received.
        id: Option<RequestId>,
    },
    /// The time limit of the policy has been reached.
    #[error("{operation} timed out")]
    #[allow(missing_docs)]
    TimeUp { operation: &'static str },
    /// The deadline has passed. To continue, set a later one.
    #[error("{operation} timed out: its deadline has passed{}", unknown_status(status.as_ref()))]
    #[allow(missing_docs)]
    Deadline {
        operation: &'static str,
        /// The job status that the last successful poll reported, if any.
        status: Option<JobStatus>,
    },
    /// The remaining quota does not cover the job. The job was not submitted.
    #[error(
        "the number of {what} left this month is {left}, but the job needs {needed}; the job was not submitted"
    )]
    #[allow(missing_docs)]
    QuotaShort {
        what: &'static str,
        needed: u64,
        left: u64,
    },
    /// The remaining quota is unknown. The job was not submitted.
    #[error(
        "the number of {what} left this month is unknown ({why}); the job was not submitted; to submit it anyway, turn off the quota check"
    )]
    #[allow(missing_docs)]
    QuotaUnknown { what: &'static str, why: Box<str> },
    /// Ten successful polls in a row did not report the status of the job.
    #[error("the service does not report the status of the job; check the request id")]
    NoStatus,
    /// The service reports that the job failed.
    #[error("the job failed{}", reasons(.0))]
    JobFailed(Box<JsonReply<GetRequest>>),
    /// An outcome was reported with the ticket of another request.
    #[error("the outcome was reported with the ticket of another request")]
    WrongTicket,
}

debug_with_sources!(FlowError);

impl FlowError {
    /// Creates the error for the unknown outcome of a request that may have been billed.
    fn unsure(operation: &'static str, reply: Option<Box<ApiError>>) -> Self {
        let id = reply.as_ref().and_then(|reply| reply.request_id().cloned());
        Self::OutcomeUnknown {
            operation,
            reply,
            id,
        }
    }

    /// Creates the error for a deadline that has passed.
    pub(crate) fn late(operation: &'static str) -> Self {
        Self::Deadline {
            operation,
            status: None,
        }
    }

    /// Returns the error reply, if the error contains one.
    pub fn api(&self) -> Option<&ApiError> {
        match self {
            Self::Response(ResponseError::Api(error)) => Some(error),
            Self::OutcomeUnknown { reply, .. } => reply.as_deref(),
            _ => None,
        }
    }

    /// Returns the HTTP status of the reply, if the error contains one.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Response(error) => Some(error.status()),
            Self::JobFailed(reply) => Some(reply.status),
            _ => self.api().map(ApiError::status),
        }
    }

    /// Returns the trace id, if there is one. CrowdStrike support asks for it.
    pub fn trace_id(&self) -> Option<&str> {
        match self {
            Self::Response(error) => error.trace_id(),
            Self::JobFailed(reply) => reply.trace_id.as_deref(),
            _ => self.api().and_then(ApiError::trace_id),
        }
    }

    /// Returns the request id of the job, if a failed submission got a reply that contains one. The
    /// job may have been billed, so poll this id instead of submitting again. If a poll failed, see
    /// [`JobFlow::id`].
    pub fn request_id(&self) -> Option<&RequestId> {
        match self {
            Self::OutcomeUnknown { id, .. } => id.as_ref(),
            Self::Response(ResponseError::Decode(error)) => error.request_id(),
            _ => None,
        }
    }

    /// Returns whether it is worth retrying the same call or [`JobFlow`] soon. For the cost of a
    /// retry, see the operation.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Response(ResponseError::Api(error)) => error.is_retryable(),
            Self::NoReply { .. } | Self::TimeUp { .. } => true,
            _ => false,
        }
    }

    /// Returns the time at which the service allows a retry, if the error contains it. `now` is
    /// the time at which the reply arrived.
    pub fn retry_at(&self, now: Timestamp) -> Option<Timestamp> {
        self.api().and_then(|error| error.retry_at(now))
    }
}
