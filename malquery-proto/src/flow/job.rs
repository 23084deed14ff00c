use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::attempts::Attempts;
use super::sealed::Sealed;
use super::{Auth, Flow, FlowError, Pause, RetryPolicy, Step, Ticket, Version, unknown_status};
use crate::endpoint::Cost;
use crate::error::{ApiErrorKind, DecodeError, ResponseError, mask_items};
use crate::operation::{JsonOperation, JsonReply, Operation};
use crate::operations::{ExactSearch, GetRequest, Hunt, SamplesMultidownload};
use crate::reply::ResponseHead;
use crate::time::Timestamp;
use crate::types::{ErrorItem, JobStatus, RequestId};

/// A job from its submission to its result: a hunt, an exact search or a multi-download.
///
/// A submitted job was paid for, so its polls are patient: unless the [`RetryPolicy`] allows only
/// one attempt, a poll is tried five times as often as other calls, and waits for a rate limit up
/// to the time limit of a call.
///
/// It serialises, so that a pending job survives a restart or moves to another machine. The stored
/// state holds no secret and no token and, once the job is submitted, no YARA rule or pattern.
///
/// | phase | input | next |
/// |---|---|---|
/// | submit | poll | the request goes out |
/// | submit | 2xx | poll; the state drops the rule and the patterns |
/// | submit | may have arrived, 5xx or 408 | [`FlowError::OutcomeUnknown`], also on every later poll: it may have been billed |
/// | submit | 2xx that cannot be read | error, and [`FlowError::OutcomeUnknown`] on every later poll |
/// | submit | provably not sent | again after a pause |
/// | submit, poll | 401 | new token, once |
/// | submit, poll | 429 of the gateway | again when it says, else after a pause; 429 of MalQuery: error |
/// | submit, poll | other 4xx, 3xx | error |
/// | poll | failure, 5xx, 408 | again after a pause |
/// | poll | 2xx that cannot be read, or an end that does not name the job | the same, three times |
/// | poll | `done` | done |
/// | poll | `failed` | [`FlowError::JobFailed`] |
/// | poll | `inprogress`, or an unknown word | again after the interval |
/// | poll | no status, ten times in a row | [`FlowError::NoStatus`] |
/// | restored while the submission was under way | poll | [`FlowError::OutcomeUnknown`] |
/// | any | attempts or time used up | error |
///
/// ```
/// use malquery_proto::flow::{JobFlow, RetryPolicy};
/// use malquery_proto::operations::Hunt;
///
/// let mut job = JobFlow::new(Hunt::new("rule a { condition: true }"), RetryPolicy::default(), 1);
/// job.set_interval(std::time::Duration::from_secs(30));
/// let stored = serde_json::to_string(&job)?;
/// // … perhaps tomorrow, in another process:
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
    /// Replies in a row without a status.
    #[serde(default)]
    silent: u32,
    /// Polls that the service answered, and the last status it reported.
    #[serde(default)]
    polls: u32,
    #[serde(default)]
    status: Option<JobStatus>,
    /// How many more polls may report that the job, which was just submitted, is unknown.
    #[serde(default)]
    unknown_left: u32,
    /// The errors in the reply to the submission. They are not stored, since they may repeat what
    /// was sent.
    #[serde(skip)]
    errors: Vec<ErrorItem>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
    /// The cost in monthly quotas.
    pub fn cost(&self) -> Cost {
        match self {
            Self::Hunt(hunt) => hunt.cost(),
            Self::ExactSearch(search) => search.cost(),
            Self::SamplesMultidownload(download) => download.cost(),
        }
    }
}

impl From<Hunt> for Submission {
    fn from(hunt: Hunt) -> Self {
        Self::Hunt(hunt)
    }
}

impl From<ExactSearch> for Submission {
    fn from(search: ExactSearch) -> Self {
        Self::ExactSearch(search)
    }
}

impl From<SamplesMultidownload> for Submission {
    fn from(download: SamplesMultidownload) -> Self {
        Self::SamplesMultidownload(download)
    }
}

/// How many polls in a row may report an unknown job right after its submission, less one.
const MOST_UNKNOWN: u32 = 6;
/// The time from the submission to the first poll.
const FIRST_POLL: Duration = Duration::from_secs(2);

/// How many replies in a row may lack a status. An unknown word is a status, and means to poll
/// again.
const MOST_SILENT: u32 = 10;

/// Polls are tried this many times as often as other calls: a job may run for an hour and was paid
/// for, and a poll costs nothing.
const POLL_PATIENCE: u32 = 5;

/// The reply to an attempt, read and not yet taken.
#[derive(Debug)]
pub struct JobReply(Read);

#[derive(Debug)]
enum Read {
    Submit(Box<Result<JsonReply<Hunt>, ResponseError>>),
    Poll(Box<Result<JsonReply<GetRequest>, ResponseError>>),
}

impl JobFlow {
    /// Creates the flow of a job to submit.
    pub fn new(job: impl Into<Submission>, policy: RetryPolicy, seed: u64) -> Self {
        Self::from(Phase::Submit(job.into()), policy, seed)
    }

    /// Creates the flow of a job that was submitted before.
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

    /// Sets how often the job is polled: every 5 seconds unless set, and at most every millisecond.
    pub fn set_interval(&mut self, interval: Duration) {
        self.interval = interval;
    }

    /// Ends the flow at this time with [`FlowError::Deadline`]. The job itself continues, and so
    /// can the flow with a later deadline.
    pub fn set_deadline(&mut self, deadline: Option<Timestamp>) {
        self.call.set_deadline(deadline);
    }

    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        self.call.deadline()
    }

    /// Returns the status that the last poll reported.
    pub fn status(&self) -> Option<&JobStatus> {
        self.status.as_ref()
    }

    /// Returns the number of polls that the service answered.
    pub fn polls(&self) -> u32 {
        self.polls
    }

    /// Returns what will be submitted, until the submission is under way.
    pub fn to_submit(&self) -> Option<&Submission> {
        match &self.phase {
            Phase::Submit(submission) if !self.call.is_in_flight() => Some(submission),
            _ => None,
        }
    }

    /// Returns the id of the job, once it is submitted.
    pub fn id(&self) -> Option<&RequestId> {
        match &self.phase {
            Phase::Submit(_) => None,
            Phase::Poll(id) => Some(id),
        }
    }

    /// Notes that this process has just submitted the job. The service may need a moment.
    pub(crate) fn set_submitted(&mut self, now: Timestamp) {
        self.unknown_left = MOST_UNKNOWN;
        self.wait(now, FIRST_POLL.min(self.interval));
    }

    /// The next poll comes after this time.
    fn wait(&mut self, now: Timestamp, time: Duration) {
        // A stored time may be in the past, and a wait must end later than now.
        let time = time.max(Duration::from_millis(1));
        self.next_poll = Some(Pause::new(now, now.after(time)));
    }

    /// Whether the service does not know yet the job that it accepted a moment ago.
    fn is_unknown_yet(&mut self, reply: &Result<JsonReply<GetRequest>, ResponseError>) -> bool {
        use ApiErrorKind::{BadRequest, NotFound, Partial};

        let unknown = match reply {
            Err(ResponseError::Api(error)) => {
                matches!(error.kind(), BadRequest | NotFound | Partial) && !error.is_retryable()
            }
            _ => false,
        };
        self.unknown_left = match (unknown, reply) {
            (true, _) => self.unknown_left.saturating_sub(1),
            (false, Ok(_)) => 0,
            (false, Err(_)) => self.unknown_left,
        };
        unknown && self.unknown_left > 0
    }

    fn on_status(
        &mut self,
        now: Timestamp,
        auth: &Auth,
        mut reply: JsonReply<GetRequest>,
    ) -> Result<Option<JsonReply<GetRequest>>, FlowError> {
        self.next_call();
        self.polls = self.polls.saturating_add(1);
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
                if self.silent >= MOST_SILENT {
                    self.silent = 0;
                    return Err(FlowError::NoStatus);
                }
                self.wait(now, self.interval);
                Ok(None)
            }
        }
    }

    /// Each poll is a call with its own attempts.
    fn next_call(&mut self) {
        let patient = match self.policy.max_attempts {
            // A policy without a second attempt has none here either.
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
        self.unknown_left = MOST_UNKNOWN;
    }

    fn job(&self) -> Option<&JobFlow> {
        Some(self)
    }
}

/// The output is the reply with the results of the job. Its errors begin with the errors of the
/// reply to the submission, if this process took that reply.
impl Flow for JobFlow {
    type Reply = JobReply;
    type Output = JsonReply<GetRequest>;

    fn poll(&mut self, now: Timestamp, auth: &mut Auth) -> Result<Step, FlowError> {
        let step = match &self.phase {
            Phase::Submit(Submission::Hunt(hunt)) => self.call.poll(now, auth, hunt),
            Phase::Submit(Submission::ExactSearch(search)) => self.call.poll(now, auth, search),
            Phase::Submit(Submission::SamplesMultidownload(download)) => {
                self.call.poll(now, auth, download)
            }
            Phase::Poll(id) => match self.next_poll.and_then(|pause| pause.end(now)) {
                Some(time) => self.call.wait(now, time, &GetRequest::ENDPOINT),
                None => self.call.poll(now, auth, &GetRequest::new(id.clone())),
            },
        };
        step.map_err(|error| match error {
            FlowError::Deadline { operation, .. } => FlowError::Deadline {
                operation,
                status: self.status.clone(),
            },
            error => error,
        })
    }

    fn read(&self, head: ResponseHead<'_>, body: &[u8]) -> JobReply {
        JobReply(match &self.phase {
            Phase::Submit(Submission::Hunt(hunt)) => Read::Submit(hunt.response(head, body).into()),
            Phase::Submit(Submission::ExactSearch(search)) => {
                Read::Submit(search.response(head, body).into())
            }
            Phase::Submit(Submission::SamplesMultidownload(download)) => {
                Read::Submit(download.response(head, body).into())
            }
            Phase::Poll(id) => {
                let request = GetRequest::new(id.clone());
                let reply = request.response(head, body).and_then(|reply| {
                    // It may be about another job, whose samples would be paid for.
                    if reply.meta.reqid.is_none()
                        && let Some(status @ (JobStatus::Done | JobStatus::Failed)) =
                            &reply.meta.status
                    {
                        let why = format!(
                            "its status is `{status}`, but it does not name the job (`meta.reqid`); the job {id} is \
                             not lost: poll it again"
                        );
                        let error = DecodeError::new(&GetRequest::ENDPOINT, head, body, why);
                        return Err(ResponseError::Decode(error.into()));
                    }
                    // Errors instead of a status: for example, the service does not know the job.
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
                    // `done` is the status of this request; the job has only begun.
                    self.phase = Phase::Poll(reply.output.meta.reqid);
                    self.errors = reply.output.errors;
                    self.next_call();
                    self.set_submitted(now);
                }
                Ok(None)
            }
            Read::Poll(reply) if self.is_unknown_yet(&reply) => {
                self.call.on_reply(now, auth, ticket, Ok(()))?;
                self.next_call();
                self.wait(now, self.interval);
                Ok(None)
            }
            Read::Poll(reply) => match self.call.on_reply(now, auth, ticket, *reply)? {
                Some(reply) => self.on_status(now, auth, reply),
                None => Ok(None),
            },
        }
    }
}
