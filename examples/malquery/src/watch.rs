//! Watches a job: saves its state, shows its id, and shows how to continue after an interruption.

use std::fmt;
use std::ops::ControlFlow;
use std::time::Duration;

use indicatif::ProgressBar;
use malquery_proto::client::{Error, Progress, Step};
use malquery_proto::flow::{FlowError, JobFlow, Submission};
use malquery_proto::types::RequestId;
use serde::Serialize;

use crate::interrupt;
use crate::output::{Failure, harmless, is_log, masked, note, quoted, spinner};
use crate::state::State;
use crate::values::written;

/// The minimum time between two progress lines if standard error is not a terminal.
const PULSE: Duration = Duration::from_secs(60);

/// Returns the word for a job in messages.
pub(crate) fn name(job: &Submission) -> &'static str {
    match job {
        Submission::Hunt(_) => "hunt",
        Submission::ExactSearch(_) => "search",
        Submission::SamplesMultidownload(_) => MULTIDOWNLOAD,
        _ => "job",
    }
}

const MULTIDOWNLOAD: &str = "multi-download";

pub(crate) struct Watch {
    /// The beginning of the commands that hints suggest, from `Session::program`.
    program: String,
    state: Option<State>,
    shown: Option<RequestId>,
    /// The word for the job in messages.
    job: &'static str,
    /// The elapsed time at the last progress line.
    pulse: Duration,
    /// Whether this command submits the job.
    is_new: bool,
    /// The hint on how to continue without the state file.
    resume_hint: Option<String>,
    /// The error that occurred when saving the state.
    lost: Option<Failure>,
    pub(crate) waiting: ProgressBar,
}

impl Watch {
    pub(crate) fn new(
        program: String,
        state: Option<State>,
        shown: Option<RequestId>,
        job: &'static str,
    ) -> Self {
        Self {
            program,
            state,
            shown,
            job,
            pulse: Duration::ZERO,
            is_new: false,
            resume_hint: None,
            lost: None,
            waiting: spinner("submitting"),
        }
    }

    pub(crate) fn note(&self, message: fmt::Arguments<'_>) {
        self.waiting.suspend(|| note(message));
    }

    /// Handles a step of a job. `stored` is the state to save. `resume_hint` is the hint on how to
    /// continue without the state file. Returns `Break` if the state cannot be saved, or if a signal
    /// arrived and nothing is being submitted.
    pub(crate) fn step(
        &mut self,
        progress: &Progress<'_>,
        flow: &JobFlow,
        stored: &impl Serialize,
        resume_hint: Option<String>,
    ) -> ControlFlow<()> {
        // Once the samples are known, the next job is the multi-download.
        if (progress.collect).is_some_and(|collect| !collect.found().is_empty()) {
            self.job = MULTIDOWNLOAD;
        }
        if let Some(id) = flow.id().filter(|id| self.shown.as_ref() != Some(*id)) {
            let job = self.job;
            if self.is_new {
                self.note(format_args!(
                    "the {job} was submitted; the request id is {id}"
                ));
            } else {
                self.note(format_args!(
                    "continuing with an earlier job; the request id is {id}"
                ));
            }
            self.shown = Some(id.clone());
        }
        self.is_new |= flow.id().is_none();
        let under_way = flow.id().is_none() && flow.to_submit().is_none();
        let submitting = progress.step == Step::Send && under_way;
        if submitting {
            interrupt::submitting(true);
        }
        self.show(progress, flow.id());
        // The state on disk must record a submission before it is sent.
        let kept = self.keep(stored);
        self.hint(resume_hint, flow.id().is_some(), under_way);
        if !submitting {
            interrupt::submitting(false);
        }
        if interrupt::stopped() && !submitting {
            ControlFlow::Break(())
        } else {
            kept
        }
    }

    fn show(&mut self, progress: &Progress<'_>, id: Option<&RequestId>) {
        let Some(id) = id else {
            self.waiting.set_message("submitting");
            return;
        };
        let status = progress
            .status()
            .map_or("submitted", |status| status.as_str());
        let polls = progress.polls();
        self.waiting.set_message(harmless(&masked(&format!(
            "waiting for {id}: {status}, polls: {polls}"
        ))));
        if is_log() && progress.elapsed >= self.pulse + PULSE {
            self.pulse = progress.elapsed;
            let elapsed = written(Duration::from_secs(progress.elapsed.as_secs()));
            note(format_args!(
                "waiting for {id}: {status}, elapsed: {elapsed}, polls: {polls}"
            ));
        }
    }

    /// Saves the state, if there is a state file. Returns `Break` if that fails.
    pub(crate) fn keep(&mut self, stored: &impl Serialize) -> ControlFlow<()> {
        match self
            .state
            .as_mut()
            .map_or(Ok(()), |state| state.keep(stored))
        {
            Ok(()) => ControlFlow::Continue(()),
            Err(failure) => {
                self.lost = Some(failure);
                ControlFlow::Break(())
            }
        }
    }

    /// Sets the hint to show after an interruption or an error.
    pub(crate) fn hint(&mut self, resume_hint: Option<String>, submitted: bool, under_way: bool) {
        let saved = self.state.as_ref().filter(|state| state.is_saved());
        let resume = saved.map(|state| {
            let nothing = if submitted || under_way || resume_hint.is_some() {
                ""
            } else {
                "nothing was submitted; "
            };
            format!(
                "{nothing}continue with: {} resume {}",
                self.program,
                quoted(&state.path)
            )
        });
        let unknown = under_way.then(|| {
            let what = "the job may have been submitted; before you submit it again, run";
            format!(
                "{what} `{} quotas` to check whether it was billed",
                self.program
            )
        });
        // For a submission without a reply, `resume` would only give the same advice.
        let advice = match (unknown, resume) {
            (None, Some(resume)) => Some(resume),
            (unknown, _) => {
                let parts: Vec<_> = unknown.into_iter().chain(resume_hint.clone()).collect();
                (!parts.is_empty()).then(|| parts.join("; then "))
            }
        };
        self.resume_hint = resume_hint;
        interrupt::hint(advice);
    }

    /// Ends the watch. After an error, shows the hint on how to continue, unless the error is
    /// [final](is_final) and `worth` is `false`. In that case, removes the state file if the request
    /// id is unknown.
    pub(crate) fn end<R>(
        self,
        result: Result<R, Error>,
        worth: bool,
        explain: impl FnOnce(Error) -> Failure,
    ) -> Result<R, Failure> {
        self.waiting.finish_and_clear();
        match (result, self.lost) {
            (Ok(reply), _) => {
                interrupt::hint(None);
                Ok(reply)
            }
            (Err(_), Some(failure)) => {
                // The state on disk may not include the job.
                interrupt::hint(self.resume_hint);
                interrupt::show_hint();
                Err(failure)
            }
            (Err(error), None) => {
                if worth || !is_final(&error) {
                    interrupt::show_hint();
                } else if self.shown.is_none() {
                    // The same job would be refused again, and a corrected job is a new one.
                    self.state.into_iter().for_each(State::forget);
                }
                Err(explain(error))
            }
        }
    }
}

/// Returns whether the job failed, was rejected before it was sent, or got a 400 or 404.
fn is_final(error: &Error) -> bool {
    let ended = matches!(
        error.flow(),
        Some(
            FlowError::JobFailed(_)
                | FlowError::Build(_)
                | FlowError::QuotaShort { .. }
                | FlowError::QuotaUnknown { .. }
        )
    );
    ended || is_unknown(error)
}

/// Returns whether the status of the reply is 400 or 404, which makes a retry useless.
pub(crate) fn is_unknown(error: &Error) -> bool {
    error
        .status()
        .is_some_and(|status| [400, 404].contains(&status.as_u16()))
}
