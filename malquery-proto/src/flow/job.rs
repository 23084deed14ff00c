use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::attempts::Attempts;
use super::sealed::Sealed;
use super::{Auth, Flow, FlowError, Pause, RetryPolicy, Step, Ticket, Version, unknown_status};
use crate::endpoint::Cost;
use crate::error::{ApiErrorKind, ResponseError, mask_items};
use crate::operation::{JsonOperation, JsonReply, Operation};
use crate::operations::{ExactSearch, GetRequest, Hunt, SamplesMultidownload};
use crate::reply::ResponseHead;
use crate::time::Timestamp;
use crate::types::{ErrorItem, JobStatus, RequestId};

/// A job (a hunt, an exact search or a multi-download), from its submission to its results.
///
/// A submitted job may have been billed, so its polls are retried more often than other calls:
/// unless the [`RetryPolicy`] allows only one attempt, each poll may make five times as many
/// attempts as any other call, and may wait out a rate limit for as long as the poll's time limit
/// allows.
///
/// A job can be serialized, so that it can survive a restart or move to another machine. The stored
/// state contains no credentials and no token. Once the request id is known, it contains no YARA
/// rule and no patterns either.
///
/// | phase | event | consequence |
/// |---|---|---|
/// | submit | 2xx that can be parsed | polling begins; the state drops the rule and the patterns |
/// | submit | any other reply with a valid request id | error; the next `poll` continues the job |
/// | submit | 2xx that cannot be parsed or has only errors | error, then [`FlowError::OutcomeUnknown`] on every later `poll` |
/// | submit | 304, 408, 5xx, an error with an invalid request id, or a failure after sending | [`FlowError::OutcomeUnknown`], now and on every later `poll`: the job may have been billed |
/// | submit | the state was stored during the submission, and restored | [`FlowError::OutcomeUnknown`] on every `poll` |
/// | submit or poll | first 401 | retried with a new token, if one can be requested |
/// | submit or poll | 429 (rate limit) | retried at the time in the reply, or after a pause |
/// | submit or poll | 429 (quota) | error |
/// | submit or poll | provably not sent | retried after a pause |
/// | submit or poll | the call runs out of attempts or time, the retry time is later than the policy allows, or the request cannot be sent | error |
/// | poll | 4xx except 401, 403, 408 and 429, or 2xx with only errors, in the first polls after the submission | polled again, up to five times |
/// | submit or poll | other 3xx or 4xx | error |
/// | poll | other 2xx with only errors | error |
/// | poll | 5xx, 408, or a failure after sending | retried after a pause |
/// | poll | 2xx that cannot be parsed, or may be about another job | retried up to three times, unless the reply is too large |
/// | poll | `done` | done |
/// | poll | `failed` | [`FlowError::JobFailed`] |
/// | poll | any other status | polled again after the interval |
/// | poll | no status | polled again after the interval; the tenth time in a row, [`FlowError::NoStatus`] |
///
/// ```
/// use malquery_proto::flow::{JobFlow, RetryPolicy};
/// use malquery_proto::operations::Hunt;
///
/// let mut job = JobFlow::new(Hunt::new("rule a { condition: true }"), RetryPolicy::default(), 1);
/// job.set_interval(std::time::Duration::from_secs(30));
/// let stored = serde_json::to_string(&job)?;
/// // ... later, in another process:
/// let job: JobFlow = serde_json::from_str(&stored)?;
/// assert!(job.to_submit().is_some() && job.id().is_none());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobFlow {
    version: Version,
    call: Attempts,
    policy: RetryPolicy,
    interval: Duration,
    phase: Phase,
    next_poll: Option<Pause>,
    /// The number of consecutive replies without a status.
    #[serde(default)]
    silent: u32,
    /// The number of successful polls.
    #[serde(default)]
    polls: u32,
    /// The job status that the last successful poll reported.
    #[serde(default)]
    status: Option<JobStatus>,
    /// A poll that reports the job as unknown is not an error while this is greater than 1.
    #[serde(default)]
    unknown_left: u32,
    /// The errors in the reply to the submission. They are not stored, because they may quote the
    /// request.
    #[serde(skip)]
    errors: Vec<ErrorItem>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
// A flow has only one phase, so the size of the enum does not matter.
#[allow(clippy::large_enum_variant)]
enum Phase {
    Submit(Submission),
    Poll(RequestId),
}

/// The request that starts a job.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Submission {
    /// A hunt.
    Hunt(Hunt),
    /// An exact search.
    ExactSearch(ExactSearch),
    /// A multi-download.
    SamplesMultidownload(SamplesMultidownload),
}

impl Submission {
    /// Returns the documented cost, counted against the monthly quotas.
    pub fn cost(&self) -> Cost {
        for_operation!(self, job => job.cost())
    }
}

/// Evaluates an expression for the operation of a [`Submission`].
macro_rules! for_operation {
    ($submission:expr, $job:ident => $do:expr) => {
        match $submission {
            $crate::flow::Submission::Hunt($job) => $do,
            $crate::flow::Submission::ExactSearch($job) => $do,
            $crate::flow::Submission::SamplesMultidownload($job) => $do,
        }
    };
}

pub(crate) use for_operation;

macro_rules! submissions {
    ($($job:ident),+) => {$(
        impl From<$job> for Submission {
            fn from(job: $job) -> Self {
                Self::$job(job)
            }
        }
    )+};
}

submissions!(Hunt, ExactSearch, SamplesMultidownload);

/// The number of polls after which the flow of a new job fails if all of them report the job as
/// unknown.
const MAX_UNKNOWN: u32 = 6;
/// The time from the submission to the first poll, unless the interval is shorter.
const FIRST_POLL: Duration = Duration::from_secs(2);
/// The minimum interval between two polls. Polling at this rate uses a tenth of an account's rate
/// limit.
pub(crate) const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// The number of consecutive replies without a status after which the flow fails.
const MAX_SILENT: u32 = 10;

/// The multiple of `max_attempts` that a poll may use: the job may have been billed, and polling
/// costs no quota.
const POLL_PATIENCE: u32 = 5;

/// A parsed reply to a submission or a poll, before [`Flow::take`] processes it.
#[derive(Debug)]
pub struct JobReply(Read);

#[derive(Debug)]
enum Read {
    Submit(Box<Result<JsonReply<Hunt>, ResponseError>>),
    Poll(Box<Result<JsonReply<GetRequest>, ResponseError>>),
}

impl JobFlow {
    /// Creates a flow that submits a job and polls it. The seed randomizes the pauses; flows that
    /// run at the same time need different seeds.
    pub fn new(job: impl Into<Submission>, policy: RetryPolicy, seed: u64) -> Self {
        Self::from(Phase::Submit(job.into()), policy, seed)
    }

    /// Creates a flow that polls a job that has already been submitted.
    pub fn attach(id: RequestId, policy: RetryPolicy, seed: u64) -> Self {
        let mut flow = Self::from(Phase::Poll(id), policy, seed);
        flow.next_call();
        flow
    }

    fn from(phase: Phase, policy: RetryPolicy, seed: u64) -> Self {
        Self {
            version: Version::default(),
            call: Attempts::new(policy, seed),
            policy,
            interval: Duration::from_secs(5),
            phase,
            next_poll: None,
            silent: 0,
            polls: 0,
            status: None,
            unknown_left: 0,
            errors: Vec::new(),
        }
    }

    /// Sets the interval between polls. The default is 5 seconds. The minimum is 100 milliseconds,
    /// because all clients of an account share its rate limit.
    pub fn set_interval(&mut self, interval: Duration) {
        self.interval = interval;
    }

    /// Sets the time by which the flow must end. A flow that takes longer fails with
    /// [`FlowError::Deadline`] or with the error of its last request. A submitted job keeps
    /// running. To continue the flow, set a later deadline. The deadline is not serialized.
    pub fn set_deadline(&mut self, deadline: Option<Timestamp>) {
        self.call.set_deadline(deadline);
    }

    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        self.call.deadline()
    }

    /// Returns the job status that the last successful poll reported, if any.
    pub fn status(&self) -> Option<&JobStatus> {
        self.status.as_ref()
    }

    /// Returns the number of successful polls.
    pub fn polls(&self) -> u32 {
        self.polls
    }

    /// Returns the request that will be submitted, or `None` if the job may already have been
    /// submitted. A request that the service refused is returned again.
    pub fn to_submit(&self) -> Option<&Submission> {
        match &self.phase {
            Phase::Submit(submission) if !self.call.is_in_flight() => Some(submission),
            _ => None,
        }
    }

    /// Returns the request id of the job, or `None` if it is not known yet.
    pub fn id(&self) -> Option<&RequestId> {
        match &self.phase {
            Phase::Submit(_) => None,
            Phase::Poll(id) => Some(id),
        }
    }

    /// Records that the job has just been submitted. The service may not know it yet.
    pub(crate) fn set_submitted(&mut self, now: Timestamp) {
        self.unknown_left = MAX_UNKNOWN;
        self.wait(now, FIRST_POLL.min(self.interval));
    }

    /// Sets the pause before the next poll.
    fn wait(&mut self, now: Timestamp, time: Duration) {
        let time = time.max(MIN_INTERVAL);
        self.next_poll = Some(Pause::new(now, now.after(time)));
    }

    /// Returns whether the reply may mean that the service does not know the new job yet.
    fn is_unknown_yet(&self, reply: &Result<JsonReply<GetRequest>, ResponseError>) -> bool {
        use ApiErrorKind::{BadRequest, NotFound, Partial};

        matches!(reply, Err(ResponseError::Api(error)) if self.unknown_left > 1
            && matches!(error.kind(), BadRequest | NotFound | Partial)
            && !error.is_retryable())
    }

    fn on_status(
        &mut self,
        now: Timestamp,
        auth: &Auth,
        mut reply: JsonReply<GetRequest>,
    ) -> Result<Option<JsonReply<GetRequest>>, FlowError> {
        self.next_call();
        self.polls = self.polls.saturating_add(1);
        self.unknown_left = 0;
        let word = reply.meta.status.as_ref();
        let masked = word.map(|word| auth.needles().mask(word.as_str()).parse());
        let status = masked.and_then(Result::ok);
        let status = status.as_ref();
        if status != self.status.as_ref() && !unknown_status(status).is_empty() {
            log::warn!("polling continues{}", unknown_status(status));
        }
        self.status = status.cloned();
        if let Some(JobStatus::Done | JobStatus::Failed) = reply.meta.status {
            reply
                .output
                .errors
                .splice(..0, std::mem::take(&mut self.errors));
        }
        match &reply.meta.status {
            Some(JobStatus::Done) => Ok(Some(reply)),
            Some(JobStatus::Failed) => {
                mask_items(&mut reply.output.errors, auth.needles());
                let masked = reply
                    .trace_id
                    .map(|id| auth.needles().mask(&id).into_owned());
                reply.trace_id = masked;
                Err(FlowError::JobFailed(reply.into()))
            }
            status => {
                self.silent = if status.is_none() {
                    self.silent.saturating_add(1)
                } else {
                    0
                };
                if self.silent >= MAX_SILENT {
                    self.silent = 0;
                    return Err(FlowError::NoStatus);
                }
                self.wait(now, self.interval);
                Ok(None)
            }
        }
    }

    /// Adds the last status of the job to a deadline error.
    fn with_status(&self, error: FlowError) -> FlowError {
        match error {
            FlowError::Deadline { operation, .. } => FlowError::Deadline {
                operation,
                status: self.status.clone(),
            },
            error => error,
        }
    }

    /// Resets the attempts for the next poll, which is a separate call.
    fn next_call(&mut self) {
        let patient = match self.policy.max_attempts {
            // A policy without retries does not retry polls either.
            ..=1 => self.policy,
            attempts => RetryPolicy {
                max_attempts: attempts.saturating_mul(POLL_PATIENCE),
                max_rate_limit_wait: self.policy.time_limit.max(self.policy.max_rate_limit_wait),
                ..self.policy
            },
        };
        self.call = self.call.next(patient);
        self.next_poll = None;
    }
}

impl Sealed for JobFlow {
    fn attempts(&mut self) -> &mut Attempts {
        &mut self.call
    }

    fn salvage(&mut self, id: &RequestId) {
        self.phase = Phase::Poll(id.clone());
        self.next_call();
        self.unknown_left = MAX_UNKNOWN;
    }

    fn job(&self) -> Option<&JobFlow> {
        Some(self)
    }
}

/// The output is the reply with the results of the job. Its errors begin with the errors in the
/// reply to the submission, unless the flow was restored after that reply.
impl Flow for JobFlow {
    type Reply = JobReply;
    type Output = JsonReply<GetRequest>;

    fn poll(&mut self, now: Timestamp, auth: &mut Auth) -> Result<Step, FlowError> {
        let step = match &self.phase {
            Phase::Submit(submission) => {
                for_operation!(submission, job => self.call.poll(now, auth, job))
            }
            Phase::Poll(id) => match self.next_poll.and_then(|pause| pause.end(now)) {
                Some(time) => self.call.wait(now, time, &GetRequest::ENDPOINT),
                None => self.call.poll(now, auth, &GetRequest::new(id.clone())),
            },
        };
        step.map_err(|error| self.with_status(error))
    }

    fn read(&self, head: ResponseHead<'_>, body: &[u8]) -> JobReply {
        JobReply(match &self.phase {
            Phase::Submit(submission) => {
                Read::Submit(for_operation!(submission, job => job.response(head, body)).into())
            }
            Phase::Poll(id) => {
                let request = GetRequest::new(id.clone());
                let reply = request.response(head, body).and_then(|reply| {
                    // A reply may have errors instead of a status, for example if the service does
                    // not know the job.
                    if reply.meta.status.is_none() && !reply.errors.is_empty() {
                        return Err(ResponseError::Api(request.error(head, body).into()));
                    }
                    Ok(reply)
                });
                Read::Poll(reply.into())
            }
        })
    }

    fn take(
        &mut self,
        now: Timestamp,
        auth: &mut Auth,
        ticket: Ticket,
        reply: JobReply,
    ) -> Result<Option<Self::Output>, FlowError> {
        match reply.0 {
            Read::Submit(reply) => {
                let taken = self.call.on_reply(now, auth, ticket, *reply);
                if let Some(id) = taken.as_ref().err().and_then(FlowError::request_id) {
                    self.salvage(id);
                }
                if let Some(reply) = taken? {
                    // The `done` in this reply is about the submission; the job has just started.
                    self.phase = Phase::Poll(reply.output.meta.reqid);
                    self.errors = reply.output.errors;
                    self.next_call();
                    self.set_submitted(now);
                }
                Ok(None)
            }
            Read::Poll(reply) if self.is_unknown_yet(&reply) => {
                self.call.on_reply(now, auth, ticket, Ok(()))?;
                self.unknown_left -= 1;
                self.next_call();
                self.wait(now, self.interval);
                Ok(None)
            }
            Read::Poll(reply) => {
                let taken = self.call.on_reply(now, auth, ticket, *reply);
                match taken.map_err(|error| self.with_status(error))? {
                    Some(reply) => self.on_status(now, auth, reply),
                    None => Ok(None),
                }
            }
        }
    }
}
