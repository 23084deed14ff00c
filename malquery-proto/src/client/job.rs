use std::ops::ControlFlow;
use std::time::Duration;

use super::{Client, Clock, Error, JobStep, Transport};
use crate::flow::JobFlow;
use crate::operation::JsonReply;
use crate::operations::{GetRequest, Hunt};
use crate::time::Timestamp;
use crate::types::RequestId;

/// A job that was submitted: a hunt, an exact search or a multi-download.
///
/// Dropping it does not end the job, which runs at the service. Keep its [`id`](Job::id), and
/// [`Client::attach`] goes on with it.
#[derive(Debug)]
#[must_use = "a job is of use only when it is waited for, or its id kept"]
pub struct Job<'a, T, C> {
    client: &'a Client<T, C>,
    flow: JobFlow,
    id: RequestId,
    submitted: Option<JsonReply<Hunt>>,
}

impl<'a, T: Transport, C: Clock> Job<'a, T, C> {
    pub(super) fn new(
        client: &'a Client<T, C>,
        id: RequestId,
        flow: JobFlow,
        submitted: Option<JsonReply<Hunt>>,
    ) -> Self {
        Self {
            client,
            flow,
            id,
            submitted,
        }
    }

    /// The id by which the job can be found again, also by another process.
    pub fn id(&self) -> &RequestId {
        &self.id
    }

    /// The reply to its submission; `None` for a job that was submitted before.
    pub fn submitted(&self) -> Option<&JsonReply<Hunt>> {
        self.submitted.as_ref()
    }

    /// Where the job is. Costs nothing.
    ///
    /// # Errors
    /// See [`Client::call`].
    pub fn status(&self) -> Result<JsonReply<GetRequest>, Error> {
        self.client.request(&self.id)
    }

    /// How often [`Job::wait`] asks: every 5 seconds unless set.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.flow.set_interval(interval);
        self
    }

    /// Waits no longer than until this time: [`Job::wait`] then ends with
    /// [`FlowError::Deadline`](crate::flow::FlowError::Deadline), and the job goes on.
    pub fn deadline(mut self, deadline: Timestamp) -> Self {
        self.flow.set_deadline(Some(deadline));
        self
    }

    /// Waits until the job is done, and gives its results. After an error the handle is still there: its id finds the
    /// job again, and it may be waited for once more. A status word that is not known means to wait on, so give it a
    /// [deadline](Job::deadline) if you do not want to wait for ever.
    ///
    /// # Errors
    /// [`FlowError::JobFailed`](crate::flow::FlowError::JobFailed) when it failed; otherwise see [`Client::call`].
    pub fn wait(&mut self) -> Result<JsonReply<GetRequest>, Error> {
        self.observe(|_, _| ControlFlow::Continue(()))
    }

    /// Waits as [`Job::wait`] does, and shows `observe` every step. See [`Client::run_job`].
    ///
    /// # Errors
    /// See [`Client::run_job`].
    pub fn observe(
        &mut self,
        observe: impl FnMut(&JobFlow, JobStep) -> ControlFlow<()>,
    ) -> Result<JsonReply<GetRequest>, Error> {
        self.client.run_job(&mut self.flow, observe)
    }

    /// The state of the job, to be stored and taken up again by [`Client::run_job`].
    pub fn flow(&self) -> &JobFlow {
        &self.flow
    }
}
