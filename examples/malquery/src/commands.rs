//! Runs the commands that call MalQuery.

use std::path::{Path, PathBuf};

use malquery_proto::client::{Client, Collect, Error, Job, Progress, Step};
use malquery_proto::flow::{JobFlow, Submission};
use malquery_proto::operation::{JsonReply, StreamOperation};
use malquery_proto::operations::{
    ExactSearch, FuzzySearch, GetDownload, GetRequest, GetSamples, SamplesMultidownload,
};
use malquery_proto::types::{JobMeta, JobStatus, RequestId, RequestType, Sha256, Stats};
use serde_json::{Value, json};

use crate::args::{Call, Patterns, Results, Session, Wait};
use crate::collect::{Collecting, Folder, fetch_again, warn_of_zip};
use crate::common::{
    Commands, JOB_FAILED, Lookup, NO_RESULT, NOTHING, Output, check_results, running,
};
use crate::format::{Format, print_fields, print_quotas, print_results};
use crate::interrupt;
use crate::list::Samples;
use crate::output::{Document, Failure, ServiceErrors, bar, code, note, quoted, spinner};
use crate::state::{Lock, State};
use crate::watch::{self, Watch, is_unknown};
use crate::{input, rule};

/// The kind of output that a job produces.
enum Kind {
    Search,
    Archive,
    /// Not known until the reply to a poll arrives.
    Unknown,
}

/// The parts of a search request that are needed to interpret its results.
#[derive(Default)]
struct Asked {
    limit: Option<u32>,
    /// Whether the results have no label.
    no_label: bool,
}

impl Asked {
    fn new(results: &Results) -> Self {
        Self {
            limit: results.limit,
            no_label: results.lacks_label(),
        }
    }

    /// Reads the requested fields from the options that the service repeats in its reply.
    fn of(meta: &JobMeta) -> Self {
        let options = serde_json::to_value(&meta.options).unwrap_or_default();
        let fields = options["filter_meta"].as_array();
        Self {
            limit: None,
            no_label: fields.is_some_and(|fields| {
                !fields.is_empty() && !fields.iter().any(|field| field == "label")
            }),
        }
    }

    /// Warns about results that may be missing or misleading. `is_cut` is set if the reply may be
    /// truncated.
    fn warn(&self, count: usize, is_cut: bool, stats: Option<&Stats>) {
        if count == 0 {
            note(format_args!("{NOTHING}"));
        }
        match self.limit.filter(|limit| count >= *limit as usize) {
            Some(limit) => note(format_args!(
                "warning: the results may be truncated, because --limit {limit} was reached"
            )),
            None if is_cut => note(format_args!(
                "warning: the results may be truncated; more samples may match"
            )),
            None => {}
        }
        if self.no_label && stats.is_some() {
            note(format_args!(
                "warning: the counts by label are meaningless, because the label was not requested"
            ));
        }
    }
}

pub(crate) fn run(
    client: &Client,
    session: &Session,
    format: Format,
    call: Call,
) -> Result<(), Failure> {
    let commands = Commands {
        client,
        session,
        format,
    };
    match call {
        Call::Quotas => commands.quotas(),
        Call::FuzzySearch { patterns, results } => commands.fuzzy_search(&patterns, &results),
        Call::ExactSearch {
            patterns,
            options,
            wait,
        } => {
            let search = ExactSearch::new(patterns.some()?).options(options.search());
            if wait.is_set() {
                commands.start(search, &wait, Kind::Search, Asked::new(&options.results))
            } else {
                commands.submit("search", || client.exact_search(&search))
            }
        }
        Call::Hunt {
            rule,
            options,
            wait,
        } => {
            let hunt = rule::hunt(rule.path(), &rule.options)?.options(options.search());
            if wait.is_set() {
                commands.start(hunt, &wait, Kind::Search, Asked::new(&options.results))
            } else {
                commands.submit("hunt", || client.hunt(&hunt))
            }
        }
        Call::Request { id, wait } if wait.is_set() => {
            commands.wait_and_print(client.attach(id).flow().clone(), &wait, Kind::Unknown, None)
        }
        Call::Request { id, .. } => commands.request(&id),
        Call::Resume { state } => commands.resume(&state),
        Call::Metadata { samples } => commands.metadata(&samples),
        Call::Multidownload { samples, wait } => commands.multidownload(&samples, &wait),
        Call::Download { sample, output } => commands.download(sample, output),
        Call::Samples {
            id,
            output,
            extract,
        } => commands.samples(id, output, extract),
        Call::Collect(args) => commands.collect(&args),
    }
}

impl Commands<'_> {
    fn quotas(&self) -> Result<(), Failure> {
        let reply = self.client.quotas()?;
        let errors = ServiceErrors::new(&reply.errors, &reply.extra);
        let is_empty = reply.meta.hunts_left().is_none() && reply.meta.downloads_left().is_none();
        if is_empty && !errors.is_empty() {
            return Err(errors.failure(NO_RESULT));
        }
        errors.warn();
        print_quotas(self.format, &reply.meta, &Document(&reply.output))
    }

    fn fuzzy_search(&self, patterns: &Patterns, results: &Results) -> Result<(), Failure> {
        let mut search = FuzzySearch::new(patterns.some()?).filter_meta(results.meta.clone());
        if let Some(limit) = results.limit {
            search = search.limit(limit);
        }
        let searching = spinner("searching");
        let reply = self.client.fuzzy_search(&search)?;
        searching.finish_and_clear();
        let errors = ServiceErrors::new(&reply.errors, &reply.extra);
        check_results(&reply.resources, &errors)?;
        Asked::new(results).warn(
            reply.resources.len(),
            reply.may_be_truncated(),
            reply.meta.stats.as_ref(),
        );
        print_results(self.format, &reply.resources, &Document(&reply.output))
    }

    fn metadata(&self, samples: &Samples) -> Result<(), Failure> {
        let samples = samples.read()?;
        let asked = samples.len();
        let reply = self.client.metadata(samples)?;
        let errors = ServiceErrors::new(&reply.errors, &reply.extra);
        check_results(&reply.resources, &errors)?;
        print_results(self.format, &reply.resources, &Document(&reply.output))?;
        Lookup::new(asked, &reply, &errors).show();
        Ok(())
    }

    fn multidownload(&self, list: &Samples, wait: &Wait) -> Result<(), Failure> {
        let mut samples = list.read()?;
        let lookup = match list.is_from_file() {
            true => Some(self.keep_known(&mut samples)?),
            false => None,
        };
        if samples.is_empty() {
            if let Some(lookup) = &lookup {
                lookup.show();
            }
            return Err(Failure::new(
                code::FAILED,
                "none of the samples are in MalQuery; nothing was submitted",
            ));
        }
        let result = if wait.is_set() {
            let job = SamplesMultidownload::new(samples);
            self.start(job, wait, Kind::Archive, Asked::default())
        } else {
            self.submit("multi-download", || {
                self.client.samples_multidownload(samples)
            })
        };
        if let Some(lookup) = &lookup {
            lookup.show();
        }
        result
    }

    /// Polls a job once, and prints its results or its status.
    fn request(&self, id: &RequestId) -> Result<(), Failure> {
        let reply = self.client.request(id)?;
        let errors = ServiceErrors::new(&reply.errors, &reply.extra);
        let status = reply.meta.status.as_ref();
        match status {
            Some(JobStatus::Failed) => errors.warn(),
            _ => check_results(&reply.resources, &errors)?,
        }
        let document = Document(&reply.output);
        if status == Some(&JobStatus::Done) {
            if !matches!(
                reply.meta.reqtype,
                Some(RequestType::Hunt | RequestType::Search)
            ) && reply.resources.is_empty()
            {
                return self.print_job(id, &reply.meta, &document);
            }
            Asked::of(&reply.meta).warn(
                reply.resources.len(),
                reply.may_be_truncated(),
                reply.meta.stats.as_ref(),
            );
            return print_results(self.format, &reply.resources, &document);
        }
        match self.format {
            Format::Table => self.print_job(id, &reply.meta, &document)?,
            _ => print_results(self.format, &reply.resources, &document)?,
        }
        match status {
            Some(JobStatus::Failed) => {
                Err(Failure::new(code::INCOMPLETE, "the job failed").hint(JOB_FAILED))
            }
            _ => Ok(()),
        }
    }

    fn print_job(
        &self,
        id: &RequestId,
        meta: &JobMeta,
        document: &impl serde::Serialize,
    ) -> Result<(), Failure> {
        let kind = meta.reqtype.as_ref().map_or("-", RequestType::as_str);
        let status = meta.status.as_ref().map_or("-", JobStatus::as_str);
        let fields = [
            ("request id", id.as_str()),
            ("kind", kind),
            ("status", status),
        ]
        .map(|(name, value)| (name, value.to_owned()));
        print_fields(self.format, &fields, document)
    }

    /// Submits a job, waits until it ends, and prints the outcome.
    fn start(
        &self,
        job: impl Into<Submission>,
        wait: &Wait,
        what: Kind,
        asked: Asked,
    ) -> Result<(), Failure> {
        self.wait_and_print(self.client.job_flow(job), wait, what, Some(asked))
    }

    fn wait_and_print(
        &self,
        mut flow: JobFlow,
        wait: &Wait,
        what: Kind,
        asked: Option<Asked>,
    ) -> Result<(), Failure> {
        let state = self.new_state(wait.state.as_deref())?;
        let reply = self.wait(&mut flow, state)?;
        self.show_job(&flow, &reply, what, asked)
    }

    fn show_job(
        &self,
        flow: &JobFlow,
        reply: &JsonReply<GetRequest>,
        what: Kind,
        asked: Option<Asked>,
    ) -> Result<(), Failure> {
        let errors = ServiceErrors::new(&reply.errors, &reply.extra);
        let what = match (what, &reply.meta.reqtype) {
            (Kind::Unknown, Some(RequestType::Hunt | RequestType::Search)) => Kind::Search,
            (what, _) => what,
        };
        let is_search = matches!(what, Kind::Search);
        let document = Document(&reply.output);
        match (what, flow.id()) {
            (Kind::Search, _) => {
                check_results(&reply.resources, &errors)?;
                let asked = asked.unwrap_or_else(|| Asked::of(&reply.meta));
                asked.warn(
                    reply.resources.len(),
                    reply.may_be_truncated(),
                    reply.meta.stats.as_ref(),
                );
            }
            (Kind::Archive, _) if self.session.jobs_end => note(format_args!(
                "with --demo or --corpus, the archive is lost when this command ends; use `malquery collect` or `malquery serve`"
            )),
            (Kind::Archive, Some(id)) => {
                let id = quoted(id.as_str());
                note(format_args!(
                    "hint: fetch the archive with: {} samples {id} --output FILE",
                    self.session.program()
                ));
            }
            _ => {}
        }
        let printed = match flow.id() {
            Some(id) if reply.resources.is_empty() && self.format == Format::Table => {
                self.print_job(id, &reply.meta, &document)
            }
            _ => print_results(self.format, &reply.resources, &document),
        };
        // A new job could use quota again.
        let again = flow.id().filter(|_| !self.session.jobs_end);
        printed.map_err(|failure| match again {
            Some(id) => failure.hint(format!(
                "print the results of the job again with: {}",
                self.session.request(id)
            )),
            None => failure,
        })?;
        // A search was checked above. For other jobs, errors come after the request id.
        match is_search {
            true => Ok(()),
            false => check_results(&reply.resources, &errors),
        }
    }

    fn resume(&self, path: &Path) -> Result<(), Failure> {
        input::check_regular(path)?;
        // Lock before reading, so that two processes do not submit the same job.
        let state = State::take(path)?;
        let refuse = |error: serde_json::Error| {
            Failure::refused(format!(
                "{} is not a valid state file: {error}",
                path.display()
            ))
        };
        let stored: Value = serde_json::from_slice(&input::read(path)?).map_err(refuse)?;
        if stored.get("collect").is_some() {
            let stored: Collecting = serde_json::from_value(stored).map_err(refuse)?;
            return self.resume_collect(stored, state);
        }
        let mut flow: JobFlow = serde_json::from_value(stored).map_err(refuse)?;
        let what = match flow.to_submit() {
            Some(Submission::SamplesMultidownload(_)) => Kind::Archive,
            _ => Kind::Unknown,
        };
        let reply = self.wait(&mut flow, Some(state))?;
        self.show_job(&flow, &reply, what, None)
    }

    /// Submits a job if necessary, and waits until it ends. If there is a state file, saves the
    /// state at each step. Shows how to continue after an interruption or an error.
    fn wait(
        &self,
        flow: &mut JobFlow,
        state: Option<State>,
    ) -> Result<JsonReply<GetRequest>, Failure> {
        flow.set_interval(self.session.poll_interval);
        let shown = flow.id().cloned();
        let job = flow.to_submit().map_or("job", watch::name);
        let mut watch = Watch::new(self.session.program(), state, shown, job);
        let result = self.client.run_job(flow, |progress: &Progress<'_>| {
            let Some(flow) = progress.job else {
                return std::ops::ControlFlow::Continue(());
            };
            let look = |id: &RequestId| {
                format!(
                    "the job may still be running; wait for it with: {} --wait",
                    self.session.request(id)
                )
            };
            let resume_hint = flow.id().filter(|_| !self.session.jobs_end).map(look);
            watch.step(progress, flow, flow, resume_hint)
        });
        let running = running(Some(flow));
        watch.end(result, false, |error| {
            self.explain(error, running.as_deref())
        })
    }

    fn download(&self, sample: Sha256, output: PathBuf) -> Result<(), Failure> {
        // Without the lock, two commands with the same output file could both pay for the download.
        let _lock = Lock::take(&output)?;
        let output = self.create(output)?;
        if !self.session.demo {
            note(format_args!(
                "warning: {} will be a raw, unencrypted sample, which may be malware",
                output.0.path().display()
            ));
        }
        let saved = self.save(&GetDownload::new(sample), output);
        self.print_saved(saved)
    }

    fn samples(
        &self,
        id: RequestId,
        output: PathBuf,
        extract: Option<PathBuf>,
    ) -> Result<(), Failure> {
        let _folder = extract.as_deref().map(Folder::make).transpose()?;
        let _lock = Lock::take(&output)?;
        let output = self.create(output)?;
        if let Some(folder) = &extract {
            let collect = Collect::fetch(id)
                .limits(self.session.limits())
                .extract(folder);
            return self.run_collect(collect, output, None, "job");
        }
        if !self.session.demo {
            warn_of_zip(output.0.path());
        }
        // The archive is paid for, so show how to fetch it again after a failure or a signal.
        interrupt::hint(Some(fetch_again(self.session, &id, output.0.path())));
        let path = output.0.path().to_owned();
        let saved = self.save(&GetSamples::new(id), output);
        match &saved {
            Err(error) if !is_unknown(error) => interrupt::show_hint(),
            _ => interrupt::hint(None),
        }
        self.print_saved(saved)?;
        // The exit code must show that samples are damaged or may be missing.
        let checked = Collect::unpack(path)
            .limits(self.session.limits())
            .verify(false, ());
        match checked.map(|collected| collected.samples.complete()) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Failure::failed(&error).code(code::INCOMPLETE)),
            Err(error) => Err(Failure::from(error).code(code::INCOMPLETE)),
        }
    }

    fn print_saved(&self, saved: Result<Value, Error>) -> Result<(), Failure> {
        let saved = saved.map_err(|error| self.explain(error, None))?;
        let text = |value: &Value| {
            value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned)
        };
        let fields = ["path", "bytes", "sha256"].map(|name| (name, text(&saved[name])));
        print_fields(self.format, &fields, &saved)
    }

    fn save<O: StreamOperation>(
        &self,
        operation: &O,
        (output, _scratch): Output,
    ) -> Result<Value, Error> {
        let path = output.path().to_owned();
        let mut shown = None;
        let result = self
            .client
            .save(operation, output, |progress: &Progress<'_>| {
                if let Step::Fetch { bytes, total } = progress.step {
                    shown.get_or_insert_with(|| bar(total)).set_position(bytes);
                }
            });
        if let Some(bar) = shown {
            bar.finish_and_clear();
        }
        let received = result?;
        // JSON cannot represent a path that is not valid Unicode.
        Ok(
            json!({"path": path.to_string_lossy(), "bytes": received.bytes, "sha256": received.sha256}),
        )
    }

    /// Submits a job without waiting for its results.
    fn submit(
        &self,
        what: &str,
        submit: impl FnOnce() -> Result<Job, Error>,
    ) -> Result<(), Failure> {
        interrupt::hint(Some(interrupt::NOT_SUBMITTED.into()));
        // Once the request is sent, a signal takes effect only after the reply.
        let job = submit().map_err(|error| self.explain(error, None))?;
        // Show the id here too, so that it is not lost if writing to standard output fails.
        let id = job.id();
        note(format_args!(
            "the {what} was submitted; the request id is {id}"
        ));
        let wait = match self.session.jobs_end {
            true => {
                "with --demo or --corpus, the job is lost when this command ends; use --wait, or start `malquery serve`"
                    .into()
            }
            // The status `done` in the reply belongs to the submission, not to the job.
            false => format!(
                "the job has just started; wait for its results with: {} --wait",
                self.session.request(id)
            ),
        };
        note(format_args!("hint: {wait}"));
        interrupt::hint(None);
        interrupt::submitting(false);
        let Some(reply) = job.submitted() else {
            return Ok(());
        };
        let errors = ServiceErrors::new(&reply.errors, &reply.extra);
        let fields = [
            ("request id", id.to_string()),
            ("status", "submitted".into()),
        ];
        print_fields(self.format, &fields, &Document(&reply.output))
            .map_err(|failure| failure.hint(format!("the request id is {id}; {wait}")))?;
        // The job is running, but the exit code must show that it may be incomplete.
        match errors.is_empty() {
            true => Ok(()),
            false => Err(errors.failure(&format!(
                "the {what} was submitted, but the reply has errors"
            ))),
        }
    }
}
