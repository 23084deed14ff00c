use std::ops::ControlFlow;
use std::time::Duration;

#[cfg(feature = "samples")]
use super::Collect;
use crate::flow::JobFlow;
use crate::time::Timestamp;
use crate::types::JobStatus;

/// Receives the progress of a job, a download or a [`Collect`], and can stop the run.
///
/// `()` is an observer that does nothing. A closure that takes a [`&Progress`](Progress) is an
/// observer if it returns `()` or a [`ControlFlow`]. If an observer returns `Break` before the run
/// has ended, the run fails with [`Error::Stopped`](super::Error::Stopped).
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
    /// Called at every step. Return `Break` to stop the run.
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

    /// A value that an observer closure may return.
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
    /// The current step.
    pub step: Step,
    /// The time since the run began. Always zero in `Collect::verify`, which has no clock.
    pub elapsed: Duration,
    /// The state of the current job, if any. If you store it, another process can continue the job.
    pub job: Option<&'a JobFlow>,
    /// The current [`Collect`], if any. If you store it, another process can continue the run.
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

    /// Returns the status reported by the last successful poll of the current job, if any.
    pub fn status(&self) -> Option<&'a JobStatus> {
        self.job?.status()
    }

    /// Returns the number of successful polls of the current job.
    pub fn polls(&self) -> u32 {
        self.job.map_or(0, JobFlow::polls)
    }
}

/// A step of a job, a download or a [`Collect`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// A request is about to be sent. If it submits a job, the state of the job already records it
    /// as sent. `Break` cancels the request.
    Send,
    /// A request ended or was canceled. If it belongs to a job, the state of the job already
    /// records this.
    Reported,
    /// The run is about to wait until this time.
    Wait(Timestamp),
    /// Bytes of a download were written. `bytes` is the number so far, and `total` is the declared
    /// length, if any. After an interruption, `bytes` starts over.
    #[allow(missing_docs)]
    Fetch { bytes: u64, total: Option<u64> },
    /// Bytes of an archive were read, to verify or extract samples. `bytes` is the number so far,
    /// and `total` is the size of the archive. In the first `Verify` step, `bytes` is 0, and a
    /// downloaded archive already has its final name.
    #[allow(missing_docs)]
    Verify { bytes: u64, total: u64 },
}
