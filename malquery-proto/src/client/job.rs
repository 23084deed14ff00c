use std::time::Duration;

use super::{Client, Error, Observer};
use crate::flow::JobFlow;
use crate::operation::JsonReply;
use crate::operations::{GetRequest, Hunt};
use crate::time::Timestamp;
use crate::types::RequestId;

/// A handle to a submitted job: a hunt, an exact search or a multi-download.
///
/// Dropping the handle does not cancel the job, which runs in the service. To continue later, keep
/// the [`id`](Job::id) and pass it to [`Client::attach`].
#[derive(Debug, Clone)]
#[must_use = "wait for the job, or keep its id"]
pub struct Job {
    client: Client,
    flow: JobFlow,
    id: RequestId,
    submitted: Option<Box<JsonReply<Hunt>>>,
    timeout: Option<Duration>,
}

impl Job {
    pub(super) fn new(
        client: Client,
        id: RequestId,
        flow: JobFlow,
        submitted: Option<JsonReply<Hunt>>,
    ) -> Self {
        let timeout = client.timeout;
        Self {
            client,
            flow,
            id,
            submitted: submitted.map(Box::new),
            timeout,
        }
    }

    /// Returns the request id, which any process can pass to [`Client::attach`].
    pub fn id(&self) -> &RequestId {
        &self.id
    }

    /// Returns the reply to the submission, or `None` for a job from [`Client::attach`].
    pub fn submitted(&self) -> Option<&JsonReply<Hunt>> {
        self.submitted.as_deref()
    }

    /// Returns the status of the job, and its results once it is done. Costs no quota.
    ///
    /// # Errors
    /// See [`Client::call`].
    pub fn status(&self) -> Result<JsonReply<GetRequest>, Error> {
        self.client.request(&self.id)
    }

    /// Sets the interval at which [`Job::wait`] polls. The default is 5 seconds, and the minimum is
    /// 100 milliseconds.
    pub fn poll_every(mut self, interval: Duration) -> Self {
        self.flow.set_interval(interval);
        self
    }

    /// Sets the maximum duration of each [`Job::wait`]. The default is the client's timeout. A
    /// longer wait fails as described in [`Client::timeout`]. The job itself keeps running.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets the time by which [`Job::wait`] must end. After that, the wait fails as described in
    /// [`Client::timeout`]. The job itself keeps running.
    pub fn deadline(mut self, deadline: Timestamp) -> Self {
        self.flow.set_deadline(Some(deadline));
        self
    }

    /// Waits until the job is done, and returns the reply with its results. Costs no quota. You can
    /// call this again after an error.
    ///
    /// The whole wait has no time limit unless the job or its client has a timeout or a deadline.
    ///
    /// # Errors
    /// Fails with [`FlowError::JobFailed`](crate::flow::FlowError::JobFailed) if the job failed.
    /// For other errors, see [`Client::call`].
    pub fn wait(&self) -> Result<JsonReply<GetRequest>, Error> {
        self.wait_with(())
    }

    /// Like [`Job::wait`], but calls `observer` at every step. The observer can stop the wait.
    ///
    /// # Errors
    /// See [`Job::wait`]. Returns [`Error::Stopped`] if the observer stops the wait.
    pub fn wait_with(&self, mut observer: impl Observer) -> Result<JsonReply<GetRequest>, Error> {
        self.client
            .run_within(&mut self.flow.clone(), self.timeout, &mut observer)
    }

    /// Returns the state with which each [`Job::wait`] begins. You can store it, and pass it to
    /// [`Client::run_job`] later.
    pub fn flow(&self) -> &JobFlow {
        &self.flow
    }
}
