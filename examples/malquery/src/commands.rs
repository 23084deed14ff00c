//! One function for each command.

use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use malquery_proto::client::{Collect, Error, Job, Progress, Step};
use malquery_proto::flow::{FlowError, JobFlow, Submission};
use malquery_proto::operation::{JsonReply, StreamOperation};
use malquery_proto::operations::{
    ExactSearch, FuzzySearch, GetDownload, GetRequest, GetSamples, Hunt, SamplesMultidownload,
};
use malquery_proto::types::{RequestId, RequestType, Sample, Sha256};
use malquery_proto::yara::{Rule, RuleError};
use malquery_proto::{Client, OutputFile};
use serde_json::{Value, json};

use crate::args::{Call, Patterns, Results, Session, Wait};
use crate::collect::{Collecting, Folder, fetch_again, warn_of_zip};
use crate::interrupt::{self, Scratch};
use crate::output::{
    Failure, bar, no_folder, note, print, print_reply, print_table, quoted, spinner, warn_of,
};
use crate::state::State;
use crate::watch::{Watch, is_unknown};

/// What a job gives.
enum Kind {
    Search,
    Archive,
    /// It was submitted before.
    Unknown,
}

pub(crate) const NOTHING: &str = "nothing was found";

pub(crate) fn run(client: &Client, session: &Session, command: Call) -> Result<(), Failure> {
    let commands = Commands { client, session };
    match command {
        Call::Quotas => {
            let reply = client.quotas()?;
            warn_of(&reply.errors, &reply.extra);
            print_reply(&reply.output)
        }
        Call::FuzzySearch { patterns, results } => commands.fuzzy_search(patterns, results),
        Call::ExactSearch {
            patterns,
            options,
            wait,
        } => {
            let search = ExactSearch::new(patterns.patterns).options(options.into());
            if wait.is_set() {
                commands.start(search, &wait, Kind::Search)
            } else {
                submitted(session, || client.exact_search(&search))
            }
        }
        Call::Hunt {
            rule,
            options,
            wait,
        } => {
            let hunt = commands.rule(&rule)?.options(options.into());
            if wait.is_set() {
                commands.start(hunt, &wait, Kind::Search)
            } else {
                submitted(session, || client.hunt(&hunt))
            }
        }
        Call::Request { id, wait } if wait.is_set() => {
            commands.wait_and_print(client.attach(id).flow().clone(), &wait, Kind::Unknown)
        }
        Call::Request { id, .. } => {
            let reply = client.request(&id)?;
            warn_of(&reply.errors, &reply.extra);
            print_reply(&reply.output)
        }
        Call::Resume { state } => commands.resume(&state),
        Call::Lookup { samples } => commands.metadata(samples, io::stdout().is_terminal()),
        Call::Metadata { samples } => commands.metadata(samples, false),
        Call::Multidownload { samples, wait } => {
            if wait.is_set() {
                commands.start(SamplesMultidownload::new(samples), &wait, Kind::Archive)
            } else {
                submitted(session, || client.samples_multidownload(samples))
            }
        }
        Call::Download { sample, output } => commands.download(sample, output),
        Call::Samples {
            id,
            output,
            extract,
        } => commands.samples(id, output, extract),
        Call::Collect {
            job,
            options,
            output_dir,
            no_extract,
            state,
        } => {
            let limit = options.limit();
            let collect = match (job.rule, job.request) {
                (Some(rule), _) => Collect::new(commands.rule(&rule)?.options(options.into())),
                (None, Some(id)) => limit.map_or_else(
                    || Collect::attach(id.clone()),
                    |limit| Collect::attach(id.clone()).limit(limit),
                ),
                (None, None) => {
                    Collect::new(ExactSearch::new(job.patterns).options(options.into()))
                }
            };
            commands.collect(collect, &output_dir, !no_extract, state.as_deref())
        }
    }
}

/// Compiles a rule.
pub(crate) fn check_rule(path: &Path) -> Result<(), Failure> {
    let rule = Rule::compile(&read(path)?).map_err(|error| refused(path, &error))?;
    print(&json!({"path": path.to_string_lossy(), "rule": rule.name()}))
}

fn refused(path: &Path, error: &RuleError) -> Failure {
    let mut message = format!(
        "{}:{}:{}: {}",
        path.display(),
        error.line(),
        error.column(),
        error.message()
    );
    if error.message().starts_with("unknown import") {
        message.push_str("; if the service knows it: --no-check-rule");
    }
    // The line and the place in it.
    for line in error.to_string().lines().skip(1) {
        message.push('\n');
        message.push_str(line.strip_prefix("  ").unwrap_or(line));
    }
    Failure::Invalid(message)
}

/// A file to be written whole or not at all, also when Ctrl-C comes in between.
pub(crate) type Output = (OutputFile, Scratch);

pub(crate) struct Commands<'a> {
    pub(crate) client: &'a Client,
    pub(crate) session: &'a Session,
}

impl Commands<'_> {
    /// A hunt with the rule of a file.
    fn rule(&self, path: &Path) -> Result<Hunt, Failure> {
        let hunt = Hunt::new(read(path)?);
        if !self.session.no_check_rule {
            hunt.check().map_err(|error| refused(path, &error))?;
        }
        Ok(hunt)
    }

    fn fuzzy_search(&self, patterns: Patterns, results: Results) -> Result<(), Failure> {
        let mut search = FuzzySearch::new(patterns.patterns).filter_meta(results.meta);
        if let Some(limit) = results.limit {
            search = search.limit(limit);
        }
        let searching = spinner("searching");
        let reply = self.client.fuzzy_search(&search)?;
        searching.finish_and_clear();
        let is_odd = warn_of(&reply.errors, &reply.extra);
        check_results(&reply.resources, is_odd)?;
        if reply.resources.is_empty() {
            note(format_args!("{NOTHING}"));
        }
        print_reply(&reply.output)
    }

    fn metadata(&self, samples: Vec<Sha256>, as_table: bool) -> Result<(), Failure> {
        let reply = self.client.metadata(samples)?;
        let is_odd = warn_of(&reply.errors, &reply.extra);
        check_results(&reply.resources, is_odd)?;
        for sample in &reply.missing {
            note(format_args!("nothing is known of {sample}"));
        }
        if as_table {
            print_table(&reply.resources)
        } else {
            print_reply(&reply.output)
        }
    }

    /// Submits a job and waits for its end.
    fn start(&self, job: impl Into<Submission>, wait: &Wait, what: Kind) -> Result<(), Failure> {
        self.wait_and_print(self.client.job_flow(job), wait, what)
    }

    fn wait_and_print(&self, mut flow: JobFlow, wait: &Wait, what: Kind) -> Result<(), Failure> {
        let state = wait
            .state
            .as_deref()
            .map(|path| self.new_state(path))
            .transpose()?;
        let reply = self.wait(&mut flow, state)?;
        self.show_job(&flow, &reply, what)
    }

    /// Prints what came of a job.
    fn show_job(
        &self,
        flow: &JobFlow,
        reply: &JsonReply<GetRequest>,
        what: Kind,
    ) -> Result<(), Failure> {
        let has_errors = warn_of(&reply.errors, &reply.extra);
        let what = match (what, &reply.meta.reqtype) {
            (Kind::Unknown, Some(RequestType::Hunt | RequestType::Search)) => Kind::Search,
            (what, _) => what,
        };
        match (what, flow.id()) {
            (Kind::Search, _) => {
                check_results(&reply.resources, has_errors)?;
                if reply.resources.is_empty() {
                    note(format_args!("{NOTHING}"));
                }
            }
            (Kind::Archive, _) if self.session.jobs_end => note(format_args!(
                "offline the archive ended with this command: use `malquery collect`, or start `malquery serve`"
            )),
            (Kind::Archive, Some(id)) => {
                let id = quoted(id.as_str().as_ref());
                note(format_args!(
                    "fetch it with: {} samples {id} --output FILE",
                    self.session.program()
                ));
            }
            _ => {}
        }
        print_reply(&reply.output)
    }

    pub(crate) fn new_state(&self, path: &Path) -> Result<State, Failure> {
        let mut state = State::take(path)?;
        // What is there may be the state of a job that is paid for. The file itself is made in every step.
        drop(
            self.create(path.to_owned())
                .map_err(|failure| match failure {
                    Failure::Invalid(why) => Failure::Invalid(format!(
                        "{why}; if it is the state of a job, go on with: {} resume {}",
                        self.session.program(),
                        quoted(path)
                    )),
                    failure => failure,
                })?,
        );
        // And so may what another process puts there meanwhile.
        state.is_new = !self.session.force;
        state.is_own = true;
        Ok(state)
    }

    fn resume(&self, path: &Path) -> Result<(), Failure> {
        // Before the state is read: two that go on with one job would both submit it.
        let state = State::take(path)?;
        let refuse = |error: serde_json::Error| {
            Failure::Invalid(format!("{} is no state of a job: {error}", path.display()))
        };
        let stored: Value = serde_json::from_str(&read(path)?).map_err(refuse)?;
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
        self.show_job(&flow, &reply, what)
    }

    /// Waits for the end of a job, keeps its state, and says how to go on should it be interrupted.
    fn wait(
        &self,
        flow: &mut JobFlow,
        state: Option<State>,
    ) -> Result<JsonReply<GetRequest>, Failure> {
        flow.set_interval(self.session.poll_interval);
        let program = self.session.program();
        let mut watch = Watch::new(program.clone(), state, flow.id().cloned());
        let result = self.client.run_job(flow, |now: &Progress<'_>| {
            let Some(flow) = now.job else {
                return ControlFlow::Continue(());
            };
            let step = now.step;

            let look = |id: &RequestId| {
                let id = quoted(id.as_str().as_ref());
                format!("the job may go on; look at it with: {program} request {id} --wait")
            };
            watch.step(
                flow,
                step,
                flow,
                flow.id().filter(|_| !self.session.jobs_end).map(look),
            )
        });
        watch.end(result, false, |error| self.explain(error))
    }

    fn download(&self, sample: Sha256, output: PathBuf) -> Result<(), Failure> {
        let output = self.create(output)?;
        note(format_args!(
            "warning: {} will be raw, unencrypted malware",
            output.0.path().display()
        ));
        let saved = self.save(&GetDownload::new(sample), output);
        print(&saved.map_err(|error| self.explain(error))?)
    }

    fn samples(
        &self,
        id: RequestId,
        output: PathBuf,
        extract: Option<PathBuf>,
    ) -> Result<(), Failure> {
        let _folder = extract.as_deref().map(Folder::make).transpose()?;
        let output = self.create(output)?;
        if let Some(folder) = &extract {
            return self.run_collect(
                Collect::fetch(id)
                    .limits(self.session.limits())
                    .extract(folder),
                output,
                None,
            );
        }
        warn_of_zip(output.0.path());
        // The archive was paid for.
        interrupt::hint(Some(fetch_again(self.session, &id, output.0.path())));
        let saved = self.save(&GetSamples::new(id), output);
        match &saved {
            Err(error) if !is_unknown(error) => interrupt::show_hint(),
            _ => interrupt::hint(None),
        }
        print(&saved.map_err(|error| self.explain(error))?)
    }

    /// Says which option ended the command.
    pub(crate) fn explain(&self, error: Error) -> Failure {
        if matches!(error, Error::Stopped) {
            return Failure::Failed("interrupted".into());
        }
        let time_is_up = matches!(
            error.flow(),
            Some(FlowError::TimeUp { .. } | FlowError::Deadline { .. })
        );
        match (Failure::from(error), time_is_up) {
            (Failure::Failed(message), true) => Failure::Failed(format!(
                "{message} (--timeout is {} s)",
                self.session.timeout.as_secs_f64()
            )),
            (failure, _) => failure,
        }
    }

    fn save<O: StreamOperation>(
        &self,
        operation: &O,
        (output, _scratch): Output,
    ) -> Result<Value, Error> {
        let path = output.path().to_owned();
        let mut shown = None;
        let result = self.client.save(operation, output, |now: &Progress<'_>| {
            let Step::Fetch { bytes, total } = now.step else {
                return;
            };

            shown.get_or_insert_with(|| bar(total)).set_position(bytes);
        });
        if let Some(bar) = shown {
            bar.finish_and_clear();
        }
        let received = result?;
        // JSON has no way to write a path that is not Unicode.
        Ok(
            json!({"path": path.to_string_lossy(), "bytes": received.bytes, "sha256": received.sha256}),
        )
    }

    /// Makes an output file before anything is sent, since what is sent may cost quota.
    pub(crate) fn create(&self, path: PathBuf) -> Result<Output, Failure> {
        let made = Scratch::make(
            || {
                if self.session.force {
                    OutputFile::replace(path)
                } else {
                    OutputFile::create_new(path)
                }
            },
            OutputFile::temporary,
        );
        made.map_err(|error| match error {
            Error::File { path, error }
                if error.kind() == ErrorKind::AlreadyExists && !self.session.force =>
            {
                Failure::Invalid(format!(
                    "{} exists; give --force to replace it",
                    path.display()
                ))
            }
            Error::File { path, error } if error.kind() == ErrorKind::NotFound => no_folder(&path),
            error => Failure::invalid(&error),
        })
    }
}

/// Nothing was found because something failed: that is no result.
pub(crate) fn check_results(results: &[Sample], has_errors: bool) -> Result<(), Failure> {
    if has_errors && results.is_empty() {
        return Err(Failure::Failed(
            "the service reports errors, and no results".into(),
        ));
    }
    Ok(())
}

/// Reads a small text file.
fn read(path: &Path) -> Result<String, Failure> {
    const MOST: u64 = 16 * 1024 * 1024;
    let refuse =
        |why: &dyn std::fmt::Display| Failure::Invalid(format!("{}: {why}", path.display()));
    let mut text = String::new();
    let file = File::open(path).map_err(|error| refuse(&error))?;
    file.take(MOST + 1)
        .read_to_string(&mut text)
        .map_err(|error| refuse(&error))?;
    if text.len() as u64 > MOST {
        return Err(refuse(&"it is larger than 16 MiB"));
    }
    // A byte order mark is of the editor, and no part of a rule.
    Ok(text
        .strip_prefix('\u{feff}')
        .map(str::to_owned)
        .unwrap_or(text))
}

/// Prints the reply to a submission.
fn submitted(
    session: &Session,
    submit: impl FnOnce() -> Result<Job, Error>,
) -> Result<(), Failure> {
    interrupt::hint(Some(interrupt::NOT_SUBMITTED.into()));
    // From when it goes out, Ctrl-C waits for the reply.
    let job = submit()?;
    // Also here, should standard output be full: it was paid for.
    let id = job.id();
    note(format_args!("submitted; the request id is {id}"));
    // The reply says `done` of itself.
    if session.jobs_end {
        note(format_args!(
            "offline the job ended with this command: give --wait, or start `malquery serve`"
        ));
    } else {
        note(format_args!(
            "the job has only begun; wait for its results with: {} request {} --wait",
            session.program(),
            quoted(id.as_str().as_ref())
        ));
    }
    interrupt::hint(None);
    interrupt::submitting(false);
    let Some(reply) = job.submitted() else {
        return Ok(());
    };
    warn_of(&reply.errors, &reply.extra);
    print_reply(&reply.output)
}
