use super::attempts::Attempts;
use super::sealed::Sealed;
use super::{Auth, Flow, FlowError, RetryPolicy, Step, Ticket};
use crate::error::ResponseError;
use crate::operation::{JsonOperation, JsonReply, StreamOperation};
use crate::reply::{Reply, ResponseHead};
use crate::stream::StreamCheck;
use crate::time::Timestamp;

/// A call to an operation that returns JSON, and its retries.
///
/// | outcome | [`Safe`] | [`Billed`] |
/// |---|---|---|
/// | 2xx that can be parsed | done | done |
/// | 2xx that cannot be parsed, or seems to belong to another request | retried up to three times if the reply seems to belong to another request, or if it answers a [`GetRequest`], has no errors and is not too large; otherwise, error | error, then [`OutcomeUnknown`] on every later `poll` |
/// | first 401 | retried with a new token | the same |
/// | 429 (rate limit) | retried at the time in the reply, or after a pause | the same |
/// | 429 (quota) | error | error |
/// | 5xx, 408, or a failure after sending | retried after a pause | [`OutcomeUnknown`] |
/// | 304, or an error with a request id | see the other rows | [`OutcomeUnknown`] |
/// | other 3xx or 4xx | error | error |
/// | provably not sent | retried after a pause | the same |
/// | cannot be sent | error | error |
/// | the call runs out of attempts or time, or the retry time is later than the policy allows | error | error |
///
/// A token that was obtained elsewhere cannot be renewed, so the first 401 is an error.
///
/// [`Safe`]: crate::endpoint::Resend::Safe
/// [`Billed`]: crate::endpoint::Resend::Billed
/// [`OutcomeUnknown`]: FlowError::OutcomeUnknown
/// [`GetRequest`]: crate::operations::GetRequest
#[derive(Debug)]
pub struct CallFlow<'a, O> {
    attempts: Attempts,
    operation: &'a O,
}

macro_rules! constructors {
    ($flow:ident, $operation:ident) => {
        impl<'a, O: $operation> $flow<'a, O> {
            /// Creates a flow with this policy. The seed randomizes the pauses; flows that run at
            /// the same time need different seeds.
            pub fn new(operation: &'a O, policy: RetryPolicy, seed: u64) -> Self {
                let attempts = Attempts::new(policy, seed);
                Self {
                    attempts,
                    operation,
                }
            }

            /// Sets the time by which the call must end. A call that takes longer fails with
            /// [`FlowError::Deadline`] or with the error of its last request. The time limit of the
            /// policy may end the call earlier.
            pub fn set_deadline(&mut self, deadline: Option<Timestamp>) {
                self.attempts.set_deadline(deadline);
            }
        }

        impl<O> Sealed for $flow<'_, O> {
            fn attempts(&mut self) -> &mut Attempts {
                &mut self.attempts
            }
        }
    };
}

constructors!(CallFlow, JsonOperation);
constructors!(DownloadFlow, StreamOperation);

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

/// A call to an operation whose reply is a file. The flow ends when the head of a successful reply
/// arrives. It returns the check for the body; the caller reads the body.
///
/// Retries follow the table in [`CallFlow`]. A 202 or 204 means that the file is not ready: the
/// request is retried after a pause.
#[derive(Debug)]
pub struct DownloadFlow<'a, O> {
    attempts: Attempts,
    operation: &'a O,
}

impl<O: StreamOperation> DownloadFlow<'_, O> {
    /// Reports that the download was interrupted. Returns whether it may be retried: if so, poll
    /// the flow again. The time limit starts over.
    pub fn broke_off(&mut self, now: Timestamp) -> bool {
        self.attempts.broke_off(now)
    }
}

impl<O: StreamOperation> Flow for DownloadFlow<'_, O> {
    type Reply = Result<Reply<StreamCheck>, ResponseError>;
    type Output = Reply<StreamCheck>;

    fn poll(&mut self, now: Timestamp, auth: &mut Auth) -> Result<Step, FlowError> {
        self.attempts.step(now, auth, self.operation, None)
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
