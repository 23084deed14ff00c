//! Code that several commands share.

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use malquery_proto::OutputFile;
use malquery_proto::client::{self, Client, Error, MetadataReply};
use malquery_proto::flow::{FlowError, JobFlow};
use malquery_proto::types::{Sample, Sha256};

use crate::args::Session;
use crate::format::Format;
use crate::input;
use crate::interrupt::Scratch;
use crate::output::{Failure, ServiceErrors, already_exists, code, no_folder, note, quoted};
use crate::state::State;
use crate::values::written;

/// The longest pause between two attempts, unless the service asks for a longer one.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The word for a job status that the service has not reported.
const UNKNOWN: &str = "unknown";

pub(crate) const NO_RESULT: &str = "the service returned no results, only errors";
pub(crate) const NOTHING: &str = "nothing was found";
pub(crate) const JOB_FAILED: &str = "check the rule, the patterns or the samples, then submit the job again; resubmitting a hunt or a multi-download uses quota again";

/// An output file that is written completely or not at all, even if a signal arrives.
pub(crate) type Output = (OutputFile, Scratch);

pub(crate) struct Commands<'a> {
    pub(crate) client: &'a Client,
    pub(crate) session: &'a Session,
    pub(crate) format: Format,
}

impl Commands<'_> {
    /// Removes the samples that are not in MalQuery, because their download may be billed. If the
    /// lookup is incomplete, keeps all samples. The lookup is free.
    pub(crate) fn keep_known(&self, samples: &mut Vec<Sha256>) -> Result<Lookup, Failure> {
        let reply = self.client.metadata(samples.iter().copied())?;
        let errors = ServiceErrors::new(&reply.errors, &reply.extra);
        check_results(&reply.resources, &errors)?;
        let lookup = Lookup::new(samples.len(), &reply, &errors);
        if lookup.is_complete {
            let missing: HashSet<_> = lookup.missing.iter().collect();
            samples.retain(|sample| !missing.contains(sample));
        }
        Ok(lookup)
    }

    pub(crate) fn new_state(&self, path: Option<&Path>) -> Result<Option<State>, Failure> {
        let Some(path) = path else {
            return Ok(None);
        };
        let mut state = State::take(path)?;
        // An existing file may be the state of a job that has been paid for. This only checks that
        // the file can be created. `State::keep` writes it.
        drop(
            self.create(state.path.clone())
                .map_err(|failure| match path.is_file() {
                    true => failure.hint(format!(
                        "if the file contains the state of a job, resume the job with: {} resume {}",
                        self.session.program(),
                        quoted(path)
                    )),
                    false => failure,
                })?,
        );
        // Another process may create the file in the meantime.
        state.is_new = !self.session.force;
        state.is_own = true;
        Ok(Some(state))
    }

    /// Converts an error into a failure, and adds hints about the job and --timeout if they apply.
    /// `running` is the status of the job, if one was submitted.
    pub(crate) fn explain(&self, error: Error, running: Option<&str>) -> Failure {
        let time_is_up = matches!(error.flow(), Some(FlowError::Deadline { .. }));
        // The next attempt could come after --timeout expires.
        let is_late = running.is_some_and(|status| status != UNKNOWN)
            && error.kind() == client::ErrorKind::Unavailable
            && input::time_left() <= LONGEST_PAUSE;
        let has_failed = matches!(error.flow(), Some(FlowError::JobFailed(_)));
        // The reply to a failed submission can contain a request id.
        let id = error.flow().and_then(FlowError::request_id).cloned();
        let mut failure = Failure::from(error);
        if let Some(id) = id {
            failure = failure.hint(format!(
                "the job may be running and may be billed; wait for it with: {} --wait",
                self.session.request(&id)
            ));
        }
        if has_failed {
            failure = failure.hint(JOB_FAILED);
        }
        if time_is_up || is_late {
            let timeout = written(self.session.timeout);
            let message = &failure.message;
            failure.message = match running {
                Some(status) if is_late => format!(
                    "{message}; --timeout ({timeout}) may leave no time for another attempt; \
                     the last status of the job is {status}"
                ),
                Some(status) => format!(
                    "timed out after {timeout} (--timeout); the last status of the job is {status}"
                ),
                None => format!("{message} (--timeout is {timeout})"),
            };
            if running.is_some() {
                failure.code = code::RUNNING;
            }
        }
        failure
    }

    /// Creates an output file. Call this before sending anything, because a request may use quota.
    pub(crate) fn create(&self, path: PathBuf) -> Result<Output, Failure> {
        let create = || match self.session.force {
            true => OutputFile::replace(path),
            false => OutputFile::create_new(path),
        };
        Scratch::make(create, OutputFile::temporary).map_err(|error| match error {
            Error::File { path, error } if is_replaceable(&path, &error) => already_exists(&path),
            Error::File { path, error } if error.kind() == ErrorKind::NotFound => no_folder(&path),
            error => Failure::invalid(&error),
        })
    }
}

/// The outcome of a metadata lookup.
pub(crate) struct Lookup {
    asked: usize,
    missing: Vec<Sha256>,
    /// Whether the reply has no errors.
    is_complete: bool,
}

impl Lookup {
    pub(crate) fn new(asked: usize, reply: &MetadataReply, errors: &ServiceErrors) -> Self {
        Self {
            asked,
            missing: reply.missing.clone(),
            is_complete: errors.is_empty(),
        }
    }

    pub(crate) fn show(&self) {
        let (none, least, rest) = match self.is_complete {
            true => ("not in MalQuery", "", ""),
            false => (
                "not found",
                "at least ",
                "; the lookup is incomplete, because the service returned errors",
            ),
        };
        for sample in &self.missing {
            note(format_args!("{none}: {sample}"));
        }
        let found = self.asked - self.missing.len().min(self.asked);
        note(format_args!(
            "in MalQuery: {least}{found} of {}{rest}",
            self.asked
        ));
    }
}

/// Returns whether an error reports an existing file that --force would replace.
pub(crate) fn is_replaceable(path: &Path, error: &io::Error) -> bool {
    error.kind() == ErrorKind::AlreadyExists
        && path.metadata().map_or(true, |found| found.is_file())
}

/// Returns the status of a job for messages, or `None` if its request id is not known.
pub(crate) fn running(flow: Option<&JobFlow>) -> Option<String> {
    let flow = flow.filter(|flow| flow.id().is_some())?;
    Some(
        flow.status()
            .map_or_else(|| UNKNOWN.into(), |status| format!("{:?}", status.as_str())),
    )
}

/// Fails if a reply has errors and no results. Otherwise shows the errors as warnings.
pub(crate) fn check_results(results: &[Sample], errors: &ServiceErrors) -> Result<(), Failure> {
    if results.is_empty() && !errors.is_empty() {
        return Err(errors.failure(NO_RESULT));
    }
    errors.warn();
    Ok(())
}
