use super::attempts::Attempts;
use super::sealed::Sealed;
use super::{Auth, Flow, FlowError, RetryPolicy, Step, Ticket};
use crate::error::ResponseError;
use crate::operation::{JsonOperation, JsonReply, StreamOperation};
use crate::reply::{Reply, ResponseHead};
use crate::stream::StreamCheck;
use crate::time::Timestamp;

/// One call of an operation that answers with JSON, with its retries.
///
/// | outcome | [`Safe`] | [`Billed`] |
/// |---|---|---|
/// | 2xx | done | done |
/// | 401, once | retried with a new token | the same |
/// | 429 of the gateway | retried at the time it names, else after a pause | the same |
/// | 429 of MalQuery (quota) | error | error |
/// | other 4xx, 3xx | error | error |
/// | 5xx, 408, or a failure after sending | retried after a pause | [`OutcomeUnknown`] |
/// | unreadable 2xx | error; a poll is retried three times | error, and [`OutcomeUnknown`] on every later poll |
/// | provably not sent | retried after a pause | the same |
/// | cannot be sent | error | error |
/// | attempts or time used up | error | error |
///
/// [`Safe`]: crate::endpoint::Resend::Safe
/// [`Billed`]: crate::endpoint::Resend::Billed
/// [`OutcomeUnknown`]: FlowError::OutcomeUnknown
#[derive(Debug)]
pub struct CallFlow<'a, O> {
    attempts: Attempts,
    operation: &'a O,
}

impl<'a, O: JsonOperation> CallFlow<'a, O> {
    /// Creates a call under this policy. Give flows that run at the same time different seeds.
    pub fn new(operation: &'a O, policy: RetryPolicy, seed: u64) -> Self {
        let attempts = Attempts::new(policy, seed);
        Self {
            attempts,
            operation,
        }
    }

    /// Ends the call at this time, if the policy does not end it sooner.
    pub fn set_deadline(&mut self, deadline: Option<Timestamp>) {
        self.attempts.set_deadline(deadline);
    }
}

impl<O> Sealed for CallFlow<'_, O> {
    fn attempts(&mut self) -> &mut Attempts {
        &mut self.attempts
    }
}

impl<O: JsonOperation> Flow for CallFlow<'_, O> {
    type Reply = Result<JsonReply<O>, ResponseError>;
    type Output = JsonReply<O>;

    fn poll(&mut self, now: Timestamp, auth: &mut Auth) -> Result<Step, FlowError> {
        self.attempts.poll(now, auth, self.operation)
    }

    fn read(&self, head: ResponseHead<'_>, body: &[u8]) -> Self::Reply {
        self.operation.response(head, body)
    }

    fn take(
        &mut self,
        now: Timestamp,
        auth: &mut Auth,
        ticket: Ticket,
        reply: Self::Reply,
    ) -> Result<Option<Self::Output>, FlowError> {
        self.attempts.on_reply(now, auth, ticket, reply)
    }
}

/// One call of an operation that answers with bytes. It ends with the head of a successful reply
/// and returns the check for the body, which the caller reads.
///
/// Retries follow the table of [`CallFlow`].
#[derive(Debug)]
pub struct DownloadFlow<'a, O> {
    attempts: Attempts,
    operation: &'a O,
}

impl<'a, O: StreamOperation> DownloadFlow<'a, O> {
    /// Creates a download under this policy. Give flows that run at the same time different seeds.
    pub fn new(operation: &'a O, policy: RetryPolicy, seed: u64) -> Self {
        let attempts = Attempts::new(policy, seed);
        Self {
            attempts,
            operation,
        }
    }

    /// Ends the call at this time, if the policy does not end it sooner.
    pub fn set_deadline(&mut self, deadline: Option<Timestamp>) {
        self.attempts.set_deadline(deadline);
    }

    /// Reports that the body of the reply broke off. Returns whether the next poll requests it
    /// again. The time limit starts over.
    pub fn broke_off(&mut self, now: Timestamp) -> bool {
        self.attempts.broke_off(now)
    }
}

impl<O> Sealed for DownloadFlow<'_, O> {
    fn attempts(&mut self) -> &mut Attempts {
        &mut self.attempts
    }
}

impl<O: StreamOperation> Flow for DownloadFlow<'_, O> {
    type Reply = Result<Reply<StreamCheck>, ResponseError>;
    type Output = Reply<StreamCheck>;

    fn poll(&mut self, now: Timestamp, auth: &mut Auth) -> Result<Step, FlowError> {
        self.attempts.poll_stream(now, auth, self.operation)
    }

    fn read(&self, head: ResponseHead<'_>, body: &[u8]) -> Self::Reply {
        let error = || ResponseError::Api(self.operation.error(head, body).into());
        self.operation.response(head).ok_or_else(error)
    }

    fn take(
        &mut self,
        now: Timestamp,
        auth: &mut Auth,
        ticket: Ticket,
        reply: Self::Reply,
    ) -> Result<Option<Self::Output>, FlowError> {
        self.attempts.on_reply(now, auth, ticket, reply)
    }
}
