//! One function for each command.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind, IsTerminal, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use malquery_proto::archive::Report;
use malquery_proto::client::{Collect, CollectStep, Collected, Error, Job, JobStep};
use malquery_proto::flow::{FlowError, JobFlow, Submission};
use malquery_proto::operation::{JsonReply, StreamOperation};
use malquery_proto::operations::{
    ExactSearch, FuzzySearch, GetDownload, GetRequest, GetSamples, Hunt, SamplesMultidownload,
};
use malquery_proto::types::{RequestId, Sha256};
use malquery_proto::yara::Rule;
use malquery_proto::{Client, Clock, OutputFile, Transport};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::args::{Call, Patterns, Results, Session, Wait};
use crate::interrupt::{self, Scratch};
use crate::output::{Failure, bar, harmless, note, print, print_reply, print_table, spinner};

pub(crate) fn run<T: Transport, C: Clock>(
    client: &Client<T, C>,
    session: &Session,
    command: Call,
) -> Result<(), Failure> {
    let commands = Commands { client, session };
    match command {
        Call::Quotas => print_reply(&client.quotas()?.output),
        Call::FuzzySearch { patterns, results } => commands.fuzzy_search(patterns, results),
        Call::ExactSearch { patterns, options, wait } => {
            let search = ExactSearch::new(patterns.patterns).options(options.into());
            if wait.is_set() {
                commands.start(search, &wait)
            } else {
                submitted(|| client.exact_search(&search))
            }
        }
        Call::Hunt { rule, options, wait } => {
            let hunt = commands.rule(&rule)?.options(options.into());
            if wait.is_set() { commands.start(hunt, &wait) } else { submitted(|| client.hunt(&hunt)) }
        }
        Call::Request { id, wait } if wait.is_set() => {
            commands.wait_and_print(client.attach(id).flow().clone(), &wait)
        }
        Call::Request { id, .. } => print_reply(&client.request(&id)?.output),
        Call::Resume { state } => commands.resume(&state),
        Call::Lookup { samples } => commands.metadata(samples, io::stdout().is_terminal()),
        Call::Metadata { samples } => commands.metadata(samples, false),
        Call::Multidownload { samples, wait } => {
            if wait.is_set() {
                commands.start(SamplesMultidownload::new(samples), &wait)
            } else {
                submitted(|| client.samples_multidownload(samples))
            }
        }
        Call::Download { sample, output } => commands.download(sample, output),
        Call::Samples { id, output, extract } => commands.samples(id, output, extract),
        Call::Collect { job, options, output_dir, no_extract, state } => {
            let job = match job.rule {
                Some(rule) => Submission::from(commands.rule(&rule)?.options(options.into())),
                None => ExactSearch::new(job.patterns).options(options.into()).into(),
            };
            commands.collect(job, &output_dir, !no_extract, state.as_deref())
        }
    }
}

/// Compiles a rule.
pub(crate) fn check_rule(path: &Path) -> Result<(), Failure> {
    let rule = compile(path, &read(path)?)?;
    print(&json!({"path": path.to_string_lossy(), "rule": rule.name()}))
}

fn compile(path: &Path, text: &str) -> Result<Rule, Failure> {
    Rule::compile(text).map_err(|error| {
        let place = format!("{}:{}:{}", path.display(), error.line(), error.column());
        Failure::Invalid(format!("{place}: {}", error.message()))
    })
}

/// A file to be written whole or not at all, also when Ctrl-C comes in between.
type Output = (OutputFile, Scratch);

struct Commands<'a, T, C> {
    client: &'a Client<T, C>,
    session: &'a Session,
}

impl<T: Transport, C: Clock> Commands<'_, T, C> {
    /// A hunt with the rule of a file.
    fn rule(&self, path: &Path) -> Result<Hunt, Failure> {
        let text = read(path)?;
        if !self.session.no_check_rule {
            compile(path, &text)?;
        }
        Ok(Hunt::new(text))
    }

    fn fuzzy_search(&self, patterns: Patterns, results: Results) -> Result<(), Failure> {
        let mut search = FuzzySearch::new(patterns.patterns).filter_meta(results.meta);
        if let Some(limit) = results.limit {
            search = search.limit(limit);
        }
        let searching = spinner("searching");
        let reply = self.client.fuzzy_search(&search)?;
        searching.finish_and_clear();
        print_reply(&reply.output)
    }

    fn metadata(&self, samples: Vec<Sha256>, as_table: bool) -> Result<(), Failure> {
        let reply = self.client.metadata(samples)?;
        for sample in &reply.missing {
            note(format_args!("nothing is known of {sample}"));
        }
        if as_table { print_table(&reply.resources) } else { print_reply(&reply.output) }
    }

    /// Submits a job and waits for its end.
    fn start(&self, job: impl Into<Submission>, wait: &Wait) -> Result<(), Failure> {
        self.wait_and_print(self.client.job(job), wait)
    }

    fn wait_and_print(&self, flow: JobFlow, wait: &Wait) -> Result<(), Failure> {
        let state = wait.state.as_deref().map(|path| self.new_state(path)).transpose()?;
        print_reply(&self.wait(flow, state)?.output)
    }

    fn new_state(&self, path: &Path) -> Result<State, Failure> {
        let state = State::take(path)?;
        // What is there may be the state of a job that is paid for. The file itself is made in every step.
        drop(self.create(path.to_owned())?);
        // And so may what another process puts there meanwhile.
        Ok(State { is_new: !self.session.force, ..state })
    }

    fn resume(&self, path: &Path) -> Result<(), Failure> {
        // Before the state is read: two that go on with one job would both submit it.
        let state = State::take(path)?;
        let refuse = |error: serde_json::Error| {
            Failure::Invalid(format!("{} is no state of a job: {error}", path.display()))
        };
        let stored: Value = serde_json::from_str(&read(path)?).map_err(refuse)?;
        if stored.get("collect").is_some() {
            let Collecting { collect, archive } = serde_json::from_value(stored).map_err(refuse)?;
            let archive = self.create(archive)?;
            return self.run_collect(collect, archive, Some(state)).and_then(|report| report.show());
        }
        let flow = serde_json::from_value(stored).map_err(refuse)?;
        print_reply(&self.wait(flow, Some(state))?.output)
    }

    /// Waits for the end of a job, keeps its state, and says how to go on should it be interrupted.
    fn wait(&self, mut flow: JobFlow, state: Option<State>) -> Result<JsonReply<GetRequest>, Failure> {
        flow.set_interval(self.session.poll_interval);
        let mut watch = Watch::new(state, flow.id().cloned());
        let go_on = |id: &RequestId| request_command(id);
        let result = self.client.run_job(&mut flow, |flow, step| watch.step(flow, step, flow, go_on));
        watch.end(result, |error| self.explain(error))
    }

    fn download(&self, sample: Sha256, output: PathBuf) -> Result<(), Failure> {
        let output = self.create(output)?;
        note(format_args!("warning: {} will be raw, unencrypted malware", output.0.path().display()));
        print(&self.save(&GetDownload::new(sample), output)?)
    }

    fn samples(&self, id: RequestId, output: PathBuf, extract: Option<PathBuf>) -> Result<(), Failure> {
        if let Some(folder) = extract.as_ref().filter(|folder| !folder.is_dir()) {
            return Err(Failure::Invalid(format!("{} is no folder to extract to", folder.display())));
        }
        let output = self.create(output)?;
        if let Some(folder) = extract {
            return self.run_collect(Collect::fetch(id).extract(folder), output, None)?.show();
        }
        warn_of_zip(output.0.path());
        // The archive was paid for.
        interrupt::hint(Some(fetch_command(&id, output.0.path())));
        let saved = self.save(&GetSamples::new(id), output);
        match saved {
            Ok(_) => interrupt::hint(None),
            Err(_) => interrupt::show_hint(),
        }
        print(&saved?)
    }

    /// Says which option ended the command.
    fn explain(&self, error: Error) -> Failure {
        let time_is_up = matches!(&error, Error::Flow { error: FlowError::TimeUp { .. }, .. });
        match (Failure::from(error), time_is_up) {
            (Failure::Failed(message), true) => {
                Failure::Failed(format!("{message} (--timeout is {} s)", self.session.timeout.as_secs_f64()))
            }
            (failure, _) => failure,
        }
    }

    fn save<O: StreamOperation>(&self, operation: &O, (output, _scratch): Output) -> Result<Value, Failure> {
        let path = output.path().to_owned();
        let mut shown = None;
        let result = self.client.save(operation, output, |bytes, total| {
            shown.get_or_insert_with(|| bar(total)).set_position(bytes);
            ControlFlow::Continue(())
        });
        if let Some(bar) = shown {
            bar.finish_and_clear();
        }
        let received = result.map_err(|error| self.explain(error))?;
        // JSON has no way to write a path that is not Unicode.
        Ok(json!({"path": path.to_string_lossy(), "bytes": received.bytes, "sha256": received.sha256}))
    }

    /// Makes an output file before anything is sent, since what is sent may cost quota.
    fn create(&self, path: PathBuf) -> Result<Output, Failure> {
        let made = Scratch::make(|| OutputFile::create(path, self.session.force), OutputFile::temporary);
        made.map_err(|error| match error {
            Error::File { path, error }
                if error.kind() == ErrorKind::AlreadyExists && !self.session.force =>
            {
                Failure::Invalid(format!("{} exists; give --force to replace it", path.display()))
            }
            error => Failure::invalid(&error),
        })
    }

    fn collect(
        &self,
        job: Submission,
        folder: &Path,
        extract: bool,
        state: Option<&Path>,
    ) -> Result<(), Failure> {
        let is_new = !folder.exists();
        std::fs::create_dir_all(folder).map_err(|error| {
            Failure::Invalid(format!("{} cannot be made a folder: {error}", folder.display()))
        })?;
        let mut collect = Collect::new(job);
        if extract {
            collect = collect.extract(folder);
        }
        let result = self.create(folder.join("samples.zip")).and_then(|archive| {
            let state = state.map(|path| self.new_state(path)).transpose()?;
            self.run_collect(collect, archive, state)
        });
        if is_new {
            // Only an empty one can be removed, so this is for a run that left nothing.
            let _ = std::fs::remove_dir(folder);
        }
        result?.show()
    }

    fn run_collect(
        &self,
        collect: Collect,
        (archive, _scratch): Output,
        state: Option<State>,
    ) -> Result<Contents, Failure> {
        let path = archive.path().to_owned();
        let mut collect = collect.interval(self.session.poll_interval);
        let id = collect.flow().and_then(JobFlow::id).or(collect.download()).cloned();
        let later = |id: &RequestId| fetch_command(id, &path);
        interrupt::hint(collect.download().map(later));
        let mut watch = Watch::new(state, id);
        let mut shown: Option<(&str, ProgressBar)> = None;
        let mut announced = collect.search().is_none() && !collect.found().is_empty();
        let result = self.client.collect(&mut collect, archive, |collect, step| {
            if !announced && !collect.found().is_empty() {
                let count = collect.found().len();
                watch.note(format_args!("downloading {count} samples, each of which costs a download"));
                announced = true;
            }
            let (what, bytes, total) = match step {
                CollectStep::Job(step) => {
                    let Some(flow) = collect.flow() else { return ControlFlow::Continue(()) };
                    let is_search = collect.search().is_none() && collect.found().is_empty();
                    let stored = Collecting { collect, archive: &path };
                    let go_on = |id: &RequestId| if is_search { request_command(id) } else { later(id) };
                    return watch.step(flow, step, &stored, go_on);
                }
                CollectStep::Fetch { bytes, total } => ("fetch", bytes, total),
                CollectStep::Verify { bytes, total } => ("verify", bytes, Some(total)),
                _ => return ControlFlow::Continue(()),
            };
            if shown.as_ref().is_none_or(|shown| shown.0 != what) {
                watch.waiting.finish_and_clear();
                if let Some((_, bar)) = shown.take() {
                    bar.finish_and_clear();
                }
                match (what, collect.extracts_to()) {
                    ("fetch", _) => warn_of_zip(&path),
                    (_, Some(folder)) => {
                        warn_of_files(folder);
                        interrupt::extracting(true);
                    }
                    _ => {}
                }
                shown = Some((what, bar(total)));
            }
            if let Some((_, bar)) = &shown {
                bar.set_position(bytes);
            }
            // While it is fetched Ctrl-C ends it by itself.
            if what == "verify" && interrupt::stopped() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        if let Some((_, bar)) = shown {
            bar.finish_and_clear();
        }
        interrupt::extracting(false);
        let collected = watch.end(result, |error| self.explain(error))?;
        Ok(Contents { path, collected })
    }
}

/// The state of a collect, as it is kept.
#[derive(Debug, Serialize, Deserialize)]
struct Collecting<C = Collect, P = PathBuf> {
    collect: C,
    archive: P,
}

/// What was collected.
struct Contents {
    path: PathBuf,
    collected: Collected,
}

impl Contents {
    /// Prints what was collected. Samples that are missing or damaged are an error.
    fn show(self) -> Result<(), Failure> {
        let Collected { search, results, found, download, archive, samples, .. } = self.collected;
        if archive.is_none() {
            if !results.is_empty() {
                let count = results.len();
                return Err(Failure::Failed(format!(
                    "none of the {count} results has a SHA-256 to download it by"
                )));
            }
            note(format_args!("nothing was found"));
        }
        print(&json!({
            "search": search,
            "download": download,
            "samples": found,
            // JSON has no way to write a path that is not Unicode.
            "path": archive.map(|_| self.path.to_string_lossy()),
            "bytes": archive.map_or(0, |archive| archive.bytes),
            "sha256": archive.map(|archive| archive.sha256),
            "contents": contents(&samples),
        }))?;
        samples.complete().map(drop).map_err(|error| Failure::failed(&error))
    }
}

/// What is in an archive, and what is not.
fn contents(report: &Report) -> Value {
    let list = |found: &[malquery_proto::archive::Found]| -> Value {
        let one = |found: &malquery_proto::archive::Found| {
            let path = found.file.as_deref().map(|path| path.to_string_lossy());
            json!({"path": path, "bytes": found.bytes, "sha256": found.sha256, "name": found.name.to_string()})
        };
        found.iter().map(one).collect()
    };
    let damaged = report.damaged.iter().map(|damaged| {
        note(format_args!("warning: {} of the archive is damaged: {}", damaged.name, damaged.error));
        json!({"name": damaged.name.to_string(), "error": damaged.error.to_string()})
    });
    let odd = report.odd.iter().map(|odd| {
        note(format_args!("warning: {} of the archive is odd: {}", odd.name, odd.why));
        json!({"name": odd.name.to_string(), "why": odd.why.to_string()})
    });
    let (damaged, odd): (Value, Value) = (damaged.collect(), odd.collect());
    for sample in &report.missing {
        note(format_args!("warning: {sample} is not in the archive"));
    }
    json!({
        "files": list(&report.found), "missing": report.missing, "unexpected": list(&report.unexpected),
        "damaged": damaged, "odd": odd,
    })
}

fn warn_of_zip(path: &Path) {
    note(format_args!("warning: {} will be a zip of malware; its password is `infected`", path.display()));
}

fn warn_of_files(folder: &Path) {
    note(format_args!("warning: the files in {} will be raw, unencrypted malware", folder.display()));
}

/// How to go on with a search or a hunt.
fn request_command(id: &RequestId) -> String {
    format!("the job may go on; look at it with: malquery request {id} --wait")
}

/// How to go on with a multi-download.
fn fetch_command(id: &RequestId, output: &Path) -> String {
    format!("the archive can be fetched with: malquery samples {id} --output {}", output.display())
}

/// Watches a job: it keeps its state, tells its id, and says how to go on should it be interrupted.
struct Watch {
    state: Option<State>,
    told: Option<RequestId>,
    /// Why the state could not be kept.
    lost: Option<Failure>,
    waiting: ProgressBar,
}

impl Watch {
    fn new(state: Option<State>, told: Option<RequestId>) -> Self {
        Self { state, told, lost: None, waiting: spinner("submitting") }
    }

    fn note(&self, message: std::fmt::Arguments<'_>) {
        self.waiting.suspend(|| note(message));
    }

    /// Takes a step of a job. `stored` is what is kept, and `go_on` says what to do with its id.
    fn step(
        &mut self,
        flow: &JobFlow,
        step: JobStep,
        stored: &impl Serialize,
        go_on: impl FnOnce(&RequestId) -> String,
    ) -> ControlFlow<()> {
        if let Some(id) = flow.id().filter(|id| self.told.as_ref() != Some(*id)) {
            self.note(format_args!("submitted; the request id is {id}"));
            self.told = Some(id.clone());
        }
        let state = self.state.as_ref().map(|state| state.path.display());
        interrupt::hint(match (state, flow.id()) {
            (Some(state), Some(_)) => Some(format!("go on with: malquery resume {state}")),
            (None, Some(id)) => Some(go_on(id)),
            (Some(state), None) if flow.to_submit().is_some() => {
                Some(format!("nothing was submitted; go on with: malquery resume {state}"))
            }
            (None, None) if flow.to_submit().is_some() => None,
            // The request is under way, or its outcome is not known.
            (_, None) => {
                let advice = "it is not known whether the job was submitted; compare `malquery quotas` before you start it anew";
                Some(advice.into())
            }
        });
        let submitting = step == JobStep::Send && flow.id().is_none() && flow.to_submit().is_none();
        if submitting {
            interrupt::submitting(true);
        }
        match (step, flow.id()) {
            (JobStep::Wait(_), Some(id)) => self.waiting.set_message(harmless(&format!("waiting for {id}"))),
            (JobStep::Send, Some(id)) => self.waiting.set_message(harmless(&format!("asking for {id}"))),
            (JobStep::Send, None) => self.waiting.set_message("submitting"),
            _ => {}
        }
        // Before the request goes out, so that what is on disk knows of it.
        let kept = self.state.as_mut().map_or(Ok(()), |state| state.keep(stored));
        if !submitting {
            interrupt::submitting(false);
        }
        match kept {
            Err(error) => {
                self.lost = Some(error);
                ControlFlow::Break(())
            }
            Ok(()) if interrupt::stopped() && !submitting => ControlFlow::Break(()),
            Ok(()) => ControlFlow::Continue(()),
        }
    }

    fn end<R>(self, result: Result<R, Error>, explain: impl FnOnce(Error) -> Failure) -> Result<R, Failure> {
        self.waiting.finish_and_clear();
        match (result, self.lost) {
            (Ok(reply), _) => {
                interrupt::hint(None);
                Ok(reply)
            }
            (Err(_), Some(failure)) => Err(failure),
            (Err(error), None) => {
                // A job that failed has ended, and one that was refused has not begun.
                if !error.is_final() {
                    interrupt::show_hint();
                }
                Err(explain(error))
            }
        }
    }
}

/// Reads a small text file.
fn read(path: &Path) -> Result<String, Failure> {
    const MOST: u64 = 16 * 1024 * 1024;
    let refuse = |why: &dyn std::fmt::Display| Failure::Invalid(format!("{}: {why}", path.display()));
    let mut text = String::new();
    let file = File::open(path).map_err(|error| refuse(&error))?;
    file.take(MOST + 1).read_to_string(&mut text).map_err(|error| refuse(&error))?;
    if text.len() as u64 > MOST { Err(refuse(&"it is larger than 16 MiB")) } else { Ok(text) }
}

/// Prints the reply to a submission.
fn submitted<'a, T: Transport + 'a, C: Clock + 'a>(
    submit: impl FnOnce() -> Result<Job<'a, T, C>, Error>,
) -> Result<(), Failure> {
    interrupt::submitting(true);
    let job = submit()?;
    // Also here, should standard output be full: it was paid for.
    note(format_args!("submitted; the request id is {}", job.id()));
    interrupt::submitting(false);
    job.submitted().map_or(Ok(()), |reply| print_reply(&reply.output))
}

/// Where the state of a job is kept.
struct State {
    path: PathBuf,
    is_new: bool,
    _lock: StateLock,
}

impl State {
    fn take(path: &Path) -> Result<Self, Failure> {
        Ok(Self { path: path.to_owned(), is_new: false, _lock: StateLock::take(path)? })
    }

    fn keep(&mut self, stored: &impl Serialize) -> Result<(), Failure> {
        keep(stored, &self.path, std::mem::take(&mut self.is_new))
    }
}

/// Keeps other processes from the state of a job, by a lock on a file beside it: the state itself is replaced in every
/// step. The system lets the lock go when the process ends, however it does.
struct StateLock {
    path: PathBuf,
    _file: File,
    _scratch: Scratch,
}

impl StateLock {
    fn take(state: &Path) -> Result<Self, Failure> {
        let refuse = |why: &dyn std::fmt::Display| Failure::Invalid(format!("{}: {why}", state.display()));
        let Some(name) = state.file_name() else { return Err(refuse(&"it names no file")) };
        let mut lock = OsString::from(".");
        lock.push(name);
        lock.push(".lock");
        let path = state.with_file_name(lock);
        let take = || loop {
            let file = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
                .map_err(|error| refuse(&error))?;
            match file.try_lock() {
                Ok(()) if is_same(&file, &path) => return Ok(file),
                // Its holder has just removed it.
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(refuse(&"another malquery is busy with this job"));
                }
                // A file system without locks is no reason to keep anyone from a hunt.
                Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => return Ok(file),
                Err(TryLockError::Error(error)) => return Err(refuse(&error)),
            }
        };
        let ((file, path), scratch) =
            Scratch::make(|| take().map(|file| (file, path.clone())), |made| &made.1)?;
        Ok(Self { path, _file: file, _scratch: scratch })
    }
}

impl Drop for StateLock {
    fn drop(&mut self) {
        // While the lock is held. It is no matter if it stays.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Whether a file still has this name.
#[cfg(unix)]
fn is_same(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |found: std::fs::Metadata| (found.dev(), found.ino());
    matches!((file.metadata().map(id), path.symlink_metadata().map(id)), (Ok(a), Ok(b)) if a == b)
}

/// Elsewhere a file that is open keeps its name.
#[cfg(not(unix))]
fn is_same(_: &File, path: &Path) -> bool {
    path.exists()
}

/// Writes the state of a job, whole or not at all. It may hold a YARA rule, so it is for its owner alone.
fn keep(stored: &impl Serialize, path: &Path, is_new: bool) -> Result<(), Failure> {
    let failed = |error: &dyn std::error::Error| {
        Failure::Failed(format!("{} could not be written: {error}", path.display()))
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let make = || tempfile::Builder::new().prefix(".malquery-").suffix(".part").tempfile_in(folder);
    let (mut file, _scratch) = Scratch::make(make, NamedTempFile::path).map_err(|error| failed(&error))?;
    serde_json::to_writer_pretty(&mut file, stored).map_err(|error| failed(&error))?;
    file.as_file().sync_all().map_err(|error| failed(&error))?;
    if is_new { file.persist_noclobber(path) } else { file.persist(path) }
        .map_err(|error| failed(&error.error))?;
    // What is on disk must know of a request before it goes out, also after a power cut. Not every system can do this.
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
    Ok(())
}
