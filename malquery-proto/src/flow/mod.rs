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
    /// What the flows of this crate have in common, and no other type has.
    pub trait Sealed {
        #[doc(hidden)]
        #[allow(private_interfaces)]
        fn attempts(&mut self) -> &mut super::attempts::Attempts;

        /// Takes the id of a job that a failed submission left, so that the job is not lost.
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
    /// What the flow gives in the end.
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

/// What to do next. There will be no third: a driver that does both does all.
#[derive(Debug)]
#[must_use]
pub enum Step {
    /// Send this request and report what came of it, with its ticket.
    Send(Box<Attempt>),
    /// Ask again at this time, which is later than now.
    Wait(Timestamp),
}

/// A request to send.
#[non_exhaustive]
pub struct Attempt {
    /// The request.
    pub request: http::Request<Vec<u8>>,
    /// What to report with.
    pub ticket: Ticket,
    /// How many bytes of the body to read before reporting, one more to tell that there are more; `None` leaves the body of a successful reply to
    /// the caller (of any other, read [`MAX_ERROR_BODY`](crate::operation::MAX_ERROR_BODY)).
    pub max_body: Option<u64>,
    /// When the reply has to be there, its body included. The time limit of a policy does not hold for a body that
    /// is left to the caller: a large download may take longer.
    pub deadline: Option<Timestamp>,
}

impl std::fmt::Debug for Attempt {
    /// Leaves out the body of the request, which may hold a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Attempt({} {})",
            self.request.method(),
            self.request.uri()
        )
    }
}

/// Ties a report to the request it is about. It is used up by the report, so nothing is reported twice.
///
/// One that is dropped, say with a future that is cancelled, leaves its flow in the dark: a submission is
/// [`OutcomeUnknown`](FlowError::OutcomeUnknown) from then on, and for a token the other flows wait up to 90 seconds. Give it to `cancel`
/// if the request was surely not sent.
#[derive(Debug)]
#[must_use]
pub struct Ticket(Kind);

#[derive(Debug)]
enum Kind {
    /// `of` tells one [`Auth`] from another: no token is to come from the account of somebody else.
    Token { of: Arc<()>, serial: u64 },
    Call {
        flow: u64,
        serial: u64,
        call: auth::Call,
    },
}

impl Ticket {
    /// Whether it belongs to a request for a token.
    pub fn is_token(&self) -> bool {
        matches!(self.0, Kind::Token { .. })
    }
}

/// How much later than now it may be already for another thread.
const OVERTAKEN: Duration = Duration::from_secs(1);

/// A time before which nothing is to be sent, and since when. Should the clock be set back, it ends at once: better
/// a request too early than a day of silence. (By a second or less it was not set back: another thread may have read
/// it, and come here later.)
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Pause {
    since: Timestamp,
    until: Timestamp,
}

impl Pause {
    fn new(since: Timestamp, until: Timestamp) -> Self {
        Self { since, until }
    }

    /// When it ends, if it has not.
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

/// Why there is no reply: may the service have seen the request?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SendFailure {
    /// The request surely did not arrive, and may the next time: the name was not found, the connection was
    /// refused.
    NotSent,
    /// The request surely did not arrive, and would not the next time either: the certificate is not trusted.
    CannotSend,
    /// It may have arrived: the connection broke or the time ran out after the request was on its way.
    Unknown,
}

/// How often and how long a call is tried.
///
/// A request that is [`Safe`](crate::endpoint::Resend::Safe) is sent again after a failure and a 5xx. One that
/// is [`Billed`](crate::endpoint::Resend::Billed) is sent again only when it surely did not arrive. Both are
/// sent again once after a 401, with a new token, and after a 429 of the gateway.
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
    /// How many times a request is sent at the most; the polls of a [`JobFlow`] five times that, if it is more than 1.
    pub max_attempts: u32,
    /// The pause before the second attempt; it doubles from one to the next, and a part of it is left to chance.
    pub first_delay: Duration,
    /// The longest pause, unless the service asks for a longer one.
    pub max_delay: Duration,
    /// The longest pause the service may ask for; beyond it the call ends with an error that says until when.
    pub max_rate_limit_wait: Duration,
    /// How long a call may take with all its attempts.
    pub time_limit: Duration,
}

impl Default for RetryPolicy {
    /// 4 attempts, 0.5 s to 30 s between them, at most 2 minutes for a rate limit and 10 minutes in all.
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
    /// Sends every request once. A 401 is still answered with a new token.
    pub fn never() -> Self {
        Self {
            max_attempts: 1,
            ..Self::default()
        }
    }

    /// The pause after this many attempts, between a half and the whole of the doubled delay.
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

/// Whether a status is one of a job that runs or ended.
fn is_expected(status: &JobStatus) -> bool {
    use JobStatus::{Done, Failed, InProgress};

    matches!(status, InProgress | Done | Failed) || status.as_str() == "pending"
}

/// Names a status that is not known, for a job that did not end in time.
fn unknown_status(status: Option<&JobStatus>) -> String {
    match status.filter(|status| !is_expected(status)) {
        Some(word) => format!(
            "; the service reports the job as {:?}, which is not a known status",
            excerpt(word.as_str().as_bytes(), 50)
        ),
        None => String::new(),
    }
}

/// What the reply about a failed job says of it.
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
    /// The reply is not the one hoped for.
    #[error(transparent)]
    Response(#[from] ResponseError),
    /// No reply came, in as many attempts as the policy allows.
    #[error("{operation} got no reply in {attempts} attempt{}", if *attempts == 1 { "" } else { "s" })]
    #[allow(missing_docs)]
    NoReply {
        operation: &'static str,
        attempts: u32,
    },
    /// The request cannot be sent, and could not the next time either: what the transport says has to be mended first.
    #[error("{operation} cannot be sent")]
    #[allow(missing_docs)]
    CannotSend { operation: &'static str },
    /// A request that may be billed may have arrived. It was not sent again.
    #[error(
        "it is not known whether {operation} arrived, and it was not sent again since it may cost quota twice; \
         compare `quotas` with the count you remember before you send it again{}", IdNote(id.as_ref())
    )]
    #[allow(missing_docs)]
    OutcomeUnknown {
        operation: &'static str,
        /// What the service or a gateway answered, if it did.
        #[source]
        reply: Option<Box<ApiError>>,
        /// The id of the job, if it could be found in what arrived of the reply.
        id: Option<RequestId>,
    },
    /// The time that the policy gives a call is up.
    #[error("the time for {operation} is up")]
    #[allow(missing_docs)]
    TimeUp { operation: &'static str },
    /// The deadline that was set has passed. What goes on has to have a later one.
    #[error("the time for {operation} is up: its deadline has passed{}", unknown_status(status.as_ref()))]
    #[allow(missing_docs)]
    Deadline {
        operation: &'static str,
        /// The last status of the job, if that is what was waited for.
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
    /// The remaining quota could not be found out, and the job was not sent.
    #[error(
        "it is not known how many {what} are left this month ({why}); the job was not submitted"
    )]
    #[allow(missing_docs)]
    QuotaUnknown { what: &'static str, why: Box<str> },
    /// The service answers, but does not tell where the job is.
    #[error("the service does not tell the status of the job; check its request id")]
    NoStatus,
    /// The service says that the job failed.
    #[error("the job failed{}", reasons(.0))]
    JobFailed(Box<JsonReply<GetRequest>>),
    /// A report with a ticket of another request.
    #[error("a reply was reported with the ticket of another request")]
    WrongTicket,
}

debug_with_sources!(FlowError);

impl FlowError {
    /// The error reply, when the service answered with one.
    pub fn api(&self) -> Option<&ApiError> {
        match self {
            Self::Response(ResponseError::Api(error)) => Some(error),
            Self::OutcomeUnknown { reply, .. } => reply.as_deref(),
            _ => None,
        }
    }

    /// The HTTP status, when there was a reply.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Response(error) => Some(error.status()),
            Self::JobFailed(reply) => Some(reply.status),
            _ => self.api().map(ApiError::status),
        }
    }

    /// The id to give to CrowdStrike's support.
    pub fn trace_id(&self) -> Option<&str> {
        match self {
            Self::Response(error) => error.trace_id(),
            Self::JobFailed(reply) => reply.trace_id.as_deref(),
            _ => self.api().and_then(ApiError::trace_id),
        }
    }

    /// The id of a job whose submission ended with this error, if the reply names one. The job may
    /// have been billed: poll it.
    pub fn request_id(&self) -> Option<&RequestId> {
        match self {
            Self::OutcomeUnknown { id, .. } => id.as_ref(),
            Self::Response(ResponseError::Decode(error)) => error.request_id(),
            _ => None,
        }
    }

    /// Whether the same call, or the same [`JobFlow`], may succeed later without a change of anything. What another
    /// try costs, its operation says.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Response(ResponseError::Api(error)) => error.is_retryable(),
            Self::NoReply { .. } | Self::TimeUp { .. } => true,
            _ => false,
        }
    }

    /// When the service asks to try again, if it says so; `now` is when the reply came.
    pub fn retry_at(&self, now: Timestamp) -> Option<Timestamp> {
        self.api().and_then(|error| error.retry_at(now))
    }
}
