use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use super::{Auth, CallFlow, FlowError, RetryPolicy, SendFailure, Step, Ticket};
use crate::operation::{JsonReply, Operation, ResponseHead};
use crate::operations::{ExactSearch, GetRequest, Hunt, SamplesMultidownload};
use crate::time::Timestamp;
use crate::types::{JobStatus, RequestId};

/// A job from its submission to its result: a hunt, an exact search or a multi-download.
///
/// It serialises, so that a pending job survives a restart or moves to another machine. The stored state holds
/// no secret and no token, and once the job is submitted no YARA rule or pattern.
///
/// | phase | input | next |
/// |---|---|---|
/// | submit | poll | the request goes out |
/// | submit | 2xx | poll; what was asked for leaves the state |
/// | submit | may have arrived, or 5xx | [`FlowError::Unsure`], now and ever after: it may have been billed |
/// | submit | surely not sent | again after a pause |
/// | submit, poll | 401 | new token, once |
/// | submit, poll | 429 of the gateway | again when it says, else after a pause; 429 of MalQuery: error |
/// | poll | failure, 5xx | again after a pause |
/// | poll | `done` | done |
/// | poll | `failed` | [`FlowError::JobFailed`] |
/// | poll | `inprogress`, or a word that is not known | again after the interval |
/// | restored while the submission was under way | poll | [`FlowError::Unsure`] |
/// | any | attempts or time used up | error |
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobFlow {
    version: Version,
    call: CallFlow,
    policy: RetryPolicy,
    interval: Duration,
    phase: Phase,
    /// No poll before this time.
    next_poll: Option<Timestamp>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    Submit(Submission),
    Poll(RequestId),
}

/// What starts a job.
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

/// The version of the stored state.
#[derive(Debug, Clone, Serialize)]
struct Version(u32);

impl Version {
    const CURRENT: u32 = 1;
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u32::deserialize(deserializer)? {
            Self::CURRENT => Ok(Self(Self::CURRENT)),
            other => Err(serde::de::Error::custom(format!(
                "the state of a job has version {other}, and only {} is known; it was written by another release",
                Self::CURRENT
            ))),
        }
    }
}

/// What came of a step of a job.
#[derive(Debug)]
#[non_exhaustive]
pub enum JobProgress {
    /// Go on.
    Pending,
    /// The job is done. This is the reply with its results.
    Done(Box<JsonReply<GetRequest>>),
}

/// Polls may fail this many times as often as other calls before a job is given up: it may run for an hour,
/// and was paid for.
const PATIENCE: u32 = 5;

impl JobFlow {
    /// A job to be submitted.
    pub fn new(job: impl Into<Submission>, policy: RetryPolicy, seed: u64) -> Self {
        Self::from(Phase::Submit(job.into()), policy, seed)
    }

    /// A job that was submitted elsewhere.
    pub fn attach(id: RequestId, policy: RetryPolicy, seed: u64) -> Self {
        let mut flow = Self::from(Phase::Poll(id), policy, seed);
        flow.next_call();
        flow
    }

    fn from(phase: Phase, policy: RetryPolicy, seed: u64) -> Self {
        Self {
            version: Version(Version::CURRENT),
            call: CallFlow::new(policy, seed),
            policy,
            interval: Duration::from_secs(5),
            phase,
            next_poll: None,
        }
    }

    /// Asks this often whether the job is done: every 5 seconds unless set, at least every millisecond.
    pub fn set_interval(&mut self, interval: Duration) {
        self.interval = interval.max(Duration::from_millis(1));
    }

    /// Ends at this time with [`FlowError::TimeUp`]. The job itself goes on; the flow can be taken up again
    /// with a later deadline.
    pub fn set_deadline(&mut self, deadline: Option<Timestamp>) {
        self.call.set_deadline(deadline);
    }

    /// The id of the job, once it is submitted.
    pub fn id(&self) -> Option<&RequestId> {
        match &self.phase {
            Phase::Submit(_) => None,
            Phase::Poll(id) => Some(id),
        }
    }

    /// What to do next.
    ///
    /// # Errors
    /// The flow stops. Whether it may be taken up again depends on the error.
    pub fn poll(&mut self, now: Timestamp, auth: &mut Auth) -> Result<Step, FlowError> {
        match &self.phase {
            Phase::Submit(Submission::Hunt(hunt)) => self.call.poll(now, auth, hunt),
            Phase::Submit(Submission::ExactSearch(search)) => self.call.poll(now, auth, search),
            Phase::Submit(Submission::SamplesMultidownload(download)) => self.call.poll(now, auth, download),
            Phase::Poll(id) => match self.next_poll.filter(|time| *time > now) {
                Some(time) => self.call.wait(now, time, &GetRequest::META),
                None => self.call.poll(now, auth, &GetRequest::new(id.clone())),
            },
        }
    }

    /// Takes the reply to an attempt.
    ///
    /// # Errors
    /// The flow stops.
    pub fn on_response(
        &mut self,
        now: Timestamp,
        auth: &mut Auth,
        ticket: Ticket,
        head: ResponseHead<'_>,
        body: &[u8],
    ) -> Result<JobProgress, FlowError> {
        let call = &mut self.call;
        let submitted = match &self.phase {
            Phase::Submit(Submission::Hunt(hunt)) => call.on_response(now, auth, hunt, ticket, head, body)?,
            Phase::Submit(Submission::ExactSearch(search)) => {
                call.on_response(now, auth, search, ticket, head, body)?
            }
            Phase::Submit(Submission::SamplesMultidownload(download)) => {
                call.on_response(now, auth, download, ticket, head, body)?
            }
            Phase::Poll(id) => {
                let request = GetRequest::new(id.clone());
                return match call.on_response(now, auth, &request, ticket, head, body)? {
                    Some(reply) => self.on_status(now, reply),
                    None => Ok(JobProgress::Pending),
                };
            }
        };
        if let Some(reply) = submitted {
            // The reply says `done` of itself; the job has only begun.
            self.phase = Phase::Poll(reply.output.meta.reqid);
            self.next_call();
        }
        Ok(JobProgress::Pending)
    }

    fn on_status(&mut self, now: Timestamp, reply: JsonReply<GetRequest>) -> Result<JobProgress, FlowError> {
        self.next_call();
        match &reply.meta.status {
            Some(JobStatus::Done) => Ok(JobProgress::Done(reply.into())),
            Some(JobStatus::Failed) => Err(FlowError::JobFailed(reply.into())),
            _ => {
                self.next_poll = Some(now.after(self.interval));
                Ok(JobProgress::Pending)
            }
        }
    }

    /// Every poll is a call of its own, with attempts of its own.
    fn next_call(&mut self) {
        let policy =
            RetryPolicy { max_attempts: self.policy.max_attempts.saturating_mul(PATIENCE), ..self.policy };
        self.call = self.call.next(policy);
    }

    /// Takes note that an attempt got no reply.
    ///
    /// # Errors
    /// The flow stops.
    pub fn on_failure(
        &mut self,
        now: Timestamp,
        auth: &mut Auth,
        ticket: Ticket,
        why: SendFailure,
    ) -> Result<(), FlowError> {
        self.call.on_failure(now, auth, ticket, why)
    }
}
