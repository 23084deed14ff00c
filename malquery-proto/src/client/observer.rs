use std::ops::ControlFlow;
use std::time::Duration;

#[cfg(feature = "samples")]
use super::Collect;
use crate::flow::JobFlow;
use crate::time::Timestamp;
use crate::types::JobStatus;

/// Watches a job, a download or a [`Collect`], and may stop it.
///
/// `()` watches nothing. So does a closure that takes a [`&Progress`](Progress) and returns nothing
/// or a [`ControlFlow`]: `Break` stops the run with [`Error::Stopped`](super::Error::Stopped).
///
/// ```
/// use std::ops::ControlFlow;
///
/// use malquery_proto::client::{Job, Progress};
///
/// # fn example(job: Job) -> Result<(), malquery_proto::client::Error> {
/// let done = job.wait_with(|progress: &Progress<'_>| {
///     eprintln!("{:?} after {:?}", progress.status(), progress.elapsed);
///     if progress.polls() < 100 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
/// })?;
/// # Ok(())
/// # }
/// ```
pub trait Observer {
    /// Takes a step. `Break` stops the run.
    fn observe(&mut self, progress: &Progress<'_>) -> ControlFlow<()>;
}

impl Observer for () {
    fn observe(&mut self, _: &Progress<'_>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

impl<F, R> Observer for F
where
    F: FnMut(&Progress<'_>) -> R,
    R: Decision,
{
    fn observe(&mut self, progress: &Progress<'_>) -> ControlFlow<()> {
        self(progress).flow()
    }
}

mod sealed {
    use std::ops::ControlFlow;

    /// The values that a closure may return.
    pub trait Decision {
        fn flow(self) -> ControlFlow<()>;
    }

    impl Decision for () {
        fn flow(self) -> ControlFlow<()> {
            ControlFlow::Continue(())
        }
    }

    impl Decision for ControlFlow<()> {
        fn flow(self) -> ControlFlow<()> {
            self
        }
    }
}

use sealed::Decision;

/// The progress of a job, a download or a [`Collect`].
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// What happens now.
    pub step: Step,
    /// The time since the run began.
    pub elapsed: Duration,
    /// The job under way. Store it to continue in another process; see [`JobFlow`].
    pub job: Option<&'a JobFlow>,
    /// The collect under way. Store it to continue in another process.
    #[cfg(feature = "samples")]
    pub collect: Option<&'a Collect>,
}

impl<'a> Progress<'a> {
    pub(super) fn new(step: Step, elapsed: Duration, job: Option<&'a JobFlow>) -> Self {
        Self {
            step,
            elapsed,
            job,
            #[cfg(feature = "samples")]
            collect: None,
        }
    }

    /// Returns the status that the last poll reported.
    pub fn status(&self) -> Option<&'a JobStatus> {
        self.job?.status()
    }

    /// Returns the number of polls that the service answered.
    pub fn polls(&self) -> u32 {
        self.job.map_or(0, JobFlow::polls)
    }
}

/// A step of a job, a download or a [`Collect`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// A request is about to be sent. The state already says that it is under way. A `Break` takes
    /// it back.
    Send,
    /// The outcome of a request is in the state.
    Reported,
    /// Nothing is sent until this time.
    Wait(Timestamp),
    /// Bytes of a download were written.
    #[allow(missing_docs)]
    Fetch { bytes: u64, total: Option<u64> },
    /// Bytes of an archive were verified, and extracted if a folder is set. The first step has 0
    /// bytes, when the archive has its final name.
    #[allow(missing_docs)]
    Verify { bytes: u64, total: u64 },
}
