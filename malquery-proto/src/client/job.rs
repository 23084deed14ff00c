use std::time::Duration;

use super::{Client, Error, Observer};
use crate::flow::JobFlow;
use crate::operation::JsonReply;
use crate::operations::{GetRequest, Hunt};
use crate::time::Timestamp;
use crate::types::RequestId;

/// A job that was submitted: a hunt, an exact search or a multi-download.
///
/// Dropping it does not end the job, which runs at the service. Keep its [`id`](Job::id):
/// [`Client::attach`] finds the job again.
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

    /// Returns the id, with which this or another process finds the job again.
    pub fn id(&self) -> &RequestId {
        &self.id
    }

    /// Returns the reply to the submission. `None` for a job that was submitted before.
    pub fn submitted(&self) -> Option<&JsonReply<Hunt>> {
        self.submitted.as_deref()
    }

    /// Asks once for the status of the job. Costs no quota.
    ///
    /// # Errors
    /// See [`Client::call`].
    pub fn status(&self) -> Result<JsonReply<GetRequest>, Error> {
        self.client.request(&self.id)
    }

    /// Sets how often [`Job::wait`] polls: every 5 seconds unless set.
    pub fn poll_every(mut self, interval: Duration) -> Self {
        self.flow.set_interval(interval);
        self
    }

    /// Ends each [`Job::wait`] after this long, with
    /// [`FlowError::Deadline`](crate::flow::FlowError::Deadline). The job itself continues. Unless
    /// set, the [timeout of the client](Client::timeout) counts.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Ends each [`Job::wait`] at this time, with
    /// [`FlowError::Deadline`](crate::flow::FlowError::Deadline). The job itself continues.
    pub fn deadline(mut self, deadline: Timestamp) -> Self {
        self.flow.set_deadline(Some(deadline));
        self
    }

    /// Waits until the job is done, and returns its results. Costs no quota. After an error it can
    /// be called again.
    ///
    /// The wait has no limit unless the job or its client has a [timeout](Job::timeout).
    ///
    /// # Errors
    /// [`FlowError::JobFailed`](crate::flow::FlowError::JobFailed) when the job failed; otherwise
    /// see [`Client::call`].
    pub fn wait(&self) -> Result<JsonReply<GetRequest>, Error> {
        self.wait_with(())
    }

    /// Waits as [`Job::wait`] does, and shows every step to `observer`, which can stop the wait.
    ///
    /// # Errors
    /// As [`Job::wait`]; [`Error::Stopped`] when the observer stopped it.
    pub fn wait_with(&self, mut observer: impl Observer) -> Result<JsonReply<GetRequest>, Error> {
        self.client
            .run_within(&mut self.flow.clone(), self.timeout, &mut observer)
    }

    /// Returns the state of the job, to store it. [`Client::run_job`] continues from it.
    pub fn flow(&self) -> &JobFlow {
        &self.flow
    }
}
