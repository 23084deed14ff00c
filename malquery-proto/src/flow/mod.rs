//! State that outlives one exchange, without I/O: the token, a call with its retries, a job.
//!
//! A [`Flow`] says what to do next and takes what came of it. It has no clock, no sleep, no thread
//! and no random number: the time comes in as an argument. The blocking
//! [`Client`](crate::client::Client) has one loop over it; an asynchronous program has another,
//! with two `.await`s.

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
    /// Seals [`Flow`](super::Flow): only the flows of this crate implement it.
    pub trait Sealed {
        #[doc(hidden)]
        #[allow(private_interfaces)]
        fn attempts(&mut self) -> &mut super::attempts::Attempts;

        /// Takes the id of a job from the reply to a failed submission, so that the job is not
        /// lost.
        #[doc(hidden)]
        fn salvage(&mut self, _: &crate::types::RequestId) {}

        /// The job, if this is one.
        #[doc(hidden)]
        fn job(&self) -> Option<&super::JobFlow> {
            None
        }
    }
}

/// A state machine that a driver runs to its end: a [call](CallFlow), a [download](DownloadFlow) or
/// a [job](JobFlow).
///
/// The driver repeats: [`poll`](Self::poll), then wait, or send and report. A report is
/// [`on_failure`](Self::on_failure) when no reply came, else [`on_response`](Self::on_response).
/// Threads that share an [`Auth`] need not hold its lock while they read a large reply: they call
/// [`on_token`](Self::on_token) for the reply to a [token request](Ticket::is_token), else
/// [`read`](Self::read) and [`take`](Self::take).
pub trait Flow: sealed::Sealed {
    /// A reply that was read and not yet taken.
    type Reply;
    /// The result.
    type Output;

    /// Says what to do next.
    ///
    /// # Errors
    /// The flow stops. Whether it can continue later depends on the error.
    fn poll(&mut self, now: Timestamp, auth: &mut Auth) -> Result<Step, FlowError>;

    /// Reads the reply to an attempt. For 100,000 results this takes a while.
    fn read(&self, head: ResponseHead<'_>, body: &[u8]) -> Self::Reply;

    /// Takes the reply to an attempt. `Some` is the result; `None` means to poll again.
    ///
    /// # Errors
    /// The flow stops.
    fn take(
        &mut self,
        now: Timestamp,
        auth: &mut Auth,
        ticket: Ticket,
        reply: Self::Reply,
    ) -> Result<Option<Self::Output>, FlowError>;

    /// Takes the reply to an attempt in one step, for a driver that does not share its [`Auth`].
    ///
    /// # Errors
    /// The flow stops.
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

    /// Takes the reply to a request for a token.
    ///
    /// # Errors
    /// The flow stops.
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

    /// Reports that an attempt got no reply.
    ///
    /// # Errors
    /// The flow stops.
    fn on_failure(
        &mut self,
        now: Timestamp,
        auth: &mut Auth,
        ticket: Ticket,
        why: SendFailure,
    ) -> Result<(), FlowError> {
        self.attempts().on_failure(now, auth, ticket, why)
    }

    /// Takes back an attempt that was not sent after all.
    ///
    /// # Errors
    /// Refuses a ticket of another flow.
    fn cancel(&mut self, auth: &mut Auth, ticket: Ticket) -> Result<(), FlowError> {
        self.attempts().cancel(auth, ticket)
    }
}

/// What to do next. No other step will be added.
#[derive(Debug)]
#[must_use]
pub enum Step {
    /// Send this request and report the outcome, with its ticket.
    Send(Box<Attempt>),
    /// Poll again at this time, which is later than now.
    Wait(Timestamp),
}

/// A request to send.
#[non_exhaustive]
pub struct Attempt {
    /// The request.
    pub request: http::Request<Vec<u8>>,
    /// The ticket for the report.
    pub ticket: Ticket,
    /// The largest body, in bytes. Read one byte more, so that a longer body is noticed. `None`
    /// leaves the body of a successful reply to the caller; read at most
    /// [`MAX_ERROR_BODY`](crate::operation::MAX_ERROR_BODY) of any other.
    pub max_body: Option<u64>,
    /// The time by which the reply must be complete, with its body. The time limit of the policy
    /// does not cover a body that is left to the caller, since a large download takes longer.
    pub deadline: Option<Timestamp>,
}

impl std::fmt::Debug for Attempt {
    /// Hides the body of the request, which may hold a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Attempt({} {})",
            self.request.method(),
            self.request.uri()
        )
    }
}

/// Ties a report to its request. A report consumes it, so nothing is reported twice.
///
/// If a ticket is dropped, for example with a cancelled future, the outcome stays unknown: a
/// submission is [`OutcomeUnknown`](FlowError::OutcomeUnknown) from then on, and after a token
/// request the other flows wait up to 90 seconds. If the request was not sent, give the ticket to
/// [`Flow::cancel`].
#[derive(Debug)]
#[must_use]
pub struct Ticket(Kind);

#[derive(Debug)]
enum Kind {
    /// `of` identifies the [`Auth`], so that a session accepts no token of another account.
    Token { of: Arc<()>, serial: u64 },
    Call {
        flow: u64,
        serial: u64,
        call: auth::Call,
    },
}

impl Ticket {
    /// Returns whether the ticket belongs to a token request.
    pub fn is_token(&self) -> bool {
        matches!(self.0, Kind::Token { .. })
    }
}

/// How far the clock of another thread may be ahead, since it read the time later.
const OVERTAKEN: Duration = Duration::from_secs(1);

/// A time before which nothing is sent, and when the pause began. If the clock is set back, the
/// pause ends at once: a request too early is better than a day of silence. A difference of a
/// second or less is no set-back: another thread may have read the clock earlier.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Pause {
    since: Timestamp,
    until: Timestamp,
}

impl Pause {
    fn new(since: Timestamp, until: Timestamp) -> Self {
        Self { since, until }
    }

    /// The end of the pause, unless it is over.
    fn end(self, now: Timestamp) -> Option<Timestamp> {
        (self.since.since(now) <= OVERTAKEN && now < self.until).then_some(self.until)
    }
}

/// The version of a stored flow.
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
                "the stored state has version {other}, and only {} is known; another release wrote it",
                known.0
            ))),
        }
    }
}

/// Why there is no reply, and whether the service may have received the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SendFailure {
    /// The request provably never reached the service, and a retry may succeed: the name was not
    /// found, or the connection was refused.
    NotSent,
    /// The request provably never reached the service, and a retry would fail as well: the
    /// certificate is not trusted.
    CannotSend,
    /// The service may have received the request: the connection broke, or the time ran out, after
    /// sending began.
    Unknown,
}

/// How often and how long a call is retried.
///
/// A [`Safe`](crate::endpoint::Resend::Safe) request is retried after a failure and a 5xx. A
/// [`Billed`](crate::endpoint::Resend::Billed) request is retried only if it provably never reached
/// the service. Both are retried once after a 401, with a new token, and after a 429 of the
/// gateway.
///
/// ```
/// use std::time::Duration;
///
/// use malquery_proto::flow::RetryPolicy;
///
/// // For a person who waits at a terminal.
/// let policy = RetryPolicy { max_attempts: 2, time_limit: Duration::from_secs(30), ..RetryPolicy::default() };
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// The number of times a request is sent at most. Above 1, a [`JobFlow`] polls up to five times
    /// as often.
    pub max_attempts: u32,
    /// The pause before the second attempt. It doubles with each attempt, and part of it is random.
    pub first_delay: Duration,
    /// The longest pause, unless the service asks for a longer one.
    pub max_delay: Duration,
    /// The longest pause that the service may ask for. If it asks for more, the call ends with an
    /// error that holds the time.
    pub max_rate_limit_wait: Duration,
    /// The time limit of a call with all its attempts.
    pub time_limit: Duration,
}

impl Default for RetryPolicy {
    /// 4 attempts with pauses from 0.5 s to 30 s, at most 2 minutes for a rate limit, and 10
    /// minutes in all.
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
    /// Sends every request once, except that a 401 still leads to a new token and one retry.
    pub fn never() -> Self {
        Self {
            max_attempts: 1,
            ..Self::default()
        }
    }

    /// The pause after this many attempts: between half of the doubled delay and all of it.
    pub(crate) fn delay(&self, attempts: u32, seed: u64) -> Duration {
        let doubled = self
            .first_delay
            .saturating_mul(1u32 << attempts.saturating_sub(1).min(20))
            .min(self.max_delay);
        let half = doubled / 2;
        let spread = u64::try_from(half.as_millis())
            .unwrap_or(u64::MAX)
            .saturating_add(1);
        // A Wait must be later than now, so it is at least a millisecond.
        (half + Duration::from_millis(mix(seed, attempts) % spread)).max(Duration::from_millis(1))
    }
}

/// Whether a status is known: the job runs, or it ended.
fn is_expected(status: &JobStatus) -> bool {
    use JobStatus::{Done, Failed, InProgress};

    matches!(status, InProgress | Done | Failed) || status.as_str() == "pending"
}

/// Names an unknown status of a job that did not end in time.
fn unknown_status(status: Option<&JobStatus>) -> String {
    match status.filter(|status| !is_expected(status)) {
        Some(word) => format!(
            "; the service reports the job as {:?}, which is not a known status",
            excerpt(word.as_str().as_bytes(), 50)
        ),
        None => String::new(),
    }
}

/// The reasons that the reply gives for a failed job.
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

/// Spreads the bits of a seed (the finaliser of splitmix64).
fn mix(seed: u64, round: u32) -> u64 {
    let mut z = seed.wrapping_add(u64::from(round).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Why a flow ended without a result.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum FlowError {
    /// The request was refused before anything was sent.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The service answered with an error, or the reply could not be read.
    #[error(transparent)]
    Response(#[from] ResponseError),
    /// No reply came in any attempt that the policy allows.
    #[error("{operation} got no reply in {attempts} attempt{}", if *attempts == 1 { "" } else { "s" })]
    #[allow(missing_docs)]
    NoReply {
        operation: &'static str,
        attempts: u32,
    },
    /// The request cannot be sent, and a retry would fail as well. The transport gives the reason.
    #[error("{operation} cannot be sent")]
    #[allow(missing_docs)]
    CannotSend { operation: &'static str },
    /// The service may have received a request that may be billed. It was not sent again.
    #[error(
        "it is not known whether {operation} arrived, and it was not sent again since it may cost quota twice; \
         compare `quotas` with the count you remember before you send it again{}", IdNote(id.as_ref())
    )]
    #[allow(missing_docs)]
    OutcomeUnknown {
        operation: &'static str,
        /// The reply of the service or a gateway, if one came.
        #[source]
        reply: Option<Box<ApiError>>,
        /// The id of the job, if it was found in the part of the reply that arrived.
        id: Option<RequestId>,
    },
    /// The time limit of the policy is up.
    #[error("the time for {operation} is up")]
    #[allow(missing_docs)]
    TimeUp { operation: &'static str },
    /// The deadline has passed. To continue, set a later one.
    #[error("the time for {operation} is up: its deadline has passed{}", unknown_status(status.as_ref()))]
    #[allow(missing_docs)]
    Deadline {
        operation: &'static str,
        /// The last status of the job, if the call waited for one.
        status: Option<JobStatus>,
    },
    /// The remaining quota does not cover the job, which was not sent.
    #[error("{what} needed: {needed}, left this month: {left}; the job was not submitted")]
    #[allow(missing_docs)]
    QuotaShort {
        what: &'static str,
        needed: u64,
        left: u64,
    },
    /// The remaining quota is not known. The job was not sent.
    #[error(
        "it is not known how many {what} are left this month ({why}); the job was not submitted"
    )]
    #[allow(missing_docs)]
    QuotaUnknown { what: &'static str, why: Box<str> },
    /// The service answers without the status of the job.
    #[error("the service does not report the status of the job; check its request id")]
    NoStatus,
    /// The service reports that the job failed.
    #[error("the job failed{}", reasons(.0))]
    JobFailed(Box<JsonReply<GetRequest>>),
    /// The ticket of a report belongs to another request.
    #[error("a reply was reported with the ticket of another request")]
    WrongTicket,
}

debug_with_sources!(FlowError);

impl FlowError {
    /// Returns the error reply, if the service sent one.
    pub fn api(&self) -> Option<&ApiError> {
        match self {
            Self::Response(ResponseError::Api(error)) => Some(error),
            Self::OutcomeUnknown { reply, .. } => reply.as_deref(),
            _ => None,
        }
    }

    /// Returns the HTTP status, if a reply came.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Response(error) => Some(error.status()),
            Self::JobFailed(reply) => Some(reply.status),
            _ => self.api().map(ApiError::status),
        }
    }

    /// Returns the trace id, which CrowdStrike's support asks for.
    pub fn trace_id(&self) -> Option<&str> {
        match self {
            Self::Response(error) => error.trace_id(),
            Self::JobFailed(reply) => reply.trace_id.as_deref(),
            _ => self.api().and_then(ApiError::trace_id),
        }
    }

    /// Returns the id of the job whose submission ended with this error, if the reply names one.
    /// The job may have been billed: poll it.
    pub fn request_id(&self) -> Option<&RequestId> {
        match self {
            Self::OutcomeUnknown { id, .. } => id.as_ref(),
            Self::Response(ResponseError::Decode(error)) => error.request_id(),
            _ => None,
        }
    }

    /// Returns whether the same call or [`JobFlow`] may succeed later. The operation documents what
    /// a retry costs.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Response(ResponseError::Api(error)) => error.is_retryable(),
            Self::NoReply { .. } | Self::TimeUp { .. } => true,
            _ => false,
        }
    }

    /// Returns the time at which the service asks for a retry, if it names one. `now` is the time
    /// of the reply.
    pub fn retry_at(&self, now: Timestamp) -> Option<Timestamp> {
        self.api().and_then(|error| error.retry_at(now))
    }
}
