//! One function for each command.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io::{BufReader, ErrorKind, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use malquery_proto::client::{Error, Job, JobStep};
use malquery_proto::flow::{FlowError, JobFlow, Submission};
use malquery_proto::operation::{JsonReply, StreamOperation};
use malquery_proto::operations::{
    ExactSearch, FuzzySearch, GetDownload, GetRequest, GetSamples, Hunt, SamplesMultidownload,
};
use malquery_proto::types::{RequestId, Sample, SearchOptions, Sha256};
use malquery_proto::{Archive, Client, Clock, OutputFile, Transport};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::args::{Command, Patterns, Results, Session, Wait};
use crate::interrupt::{self, Scratch};
use crate::output::{Failure, bar, harmless, note, print, print_reply, spinner};

pub(crate) fn run<T: Transport, C: Clock>(
    client: &Client<T, C>,
    session: &Session,
    command: Command,
) -> Result<(), Failure> {
    let commands = Commands { client, session };
    match command {
        Command::Quotas => print_reply(&client.quotas()?.output),
        Command::FuzzySearch { patterns, results } => commands.fuzzy_search(patterns, results),
        Command::ExactSearch { patterns, options, wait } => {
            let search = ExactSearch::new(patterns.patterns).options(options.into());
            if wait.is_set() {
                commands.start(search, &wait)
            } else {
                submitted(|| client.exact_search(&search))
            }
        }
        Command::Hunt { rule, options, wait } => {
            let hunt = Hunt::new(read(&rule)?).options(options.into());
            if wait.is_set() { commands.start(hunt, &wait) } else { submitted(|| client.hunt(&hunt)) }
        }
        Command::Request { id, wait } if wait.is_set() => {
            commands.wait_and_print(client.attach(id).flow().clone(), &wait)
        }
        Command::Request { id, .. } => print_reply(&client.request(&id)?.output),
        Command::Resume { state } => commands.resume(state),
        Command::Metadata { samples } => commands.metadata(samples),
        Command::Multidownload { samples, wait } => {
            if wait.is_set() {
                commands.start(SamplesMultidownload::new(samples), &wait)
            } else {
                submitted(|| client.samples_multidownload(samples))
            }
        }
        Command::Download { sample, output } => commands.download(sample, output),
        Command::Samples { id, output, extract } => commands.samples(&id, output, extract),
        Command::Collect { patterns, limit, output_dir } => commands.collect(patterns, limit, &output_dir),
    }
}

/// A file to be written whole or not at all, also when Ctrl-C comes in between.
type Output = (OutputFile, Scratch);

struct Commands<'a, T, C> {
    client: &'a Client<T, C>,
    session: &'a Session,
}

impl<T: Transport, C: Clock> Commands<'_, T, C> {
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

    fn metadata(&self, samples: Vec<Sha256>) -> Result<(), Failure> {
        let reply = self.client.metadata(samples)?;
        for sample in &reply.missing {
            note(format_args!("nothing is known of {sample}"));
        }
        print_reply(&reply.output)
    }

    /// Submits a job and waits for its end.
    fn start(&self, job: impl Into<Submission>, wait: &Wait) -> Result<(), Failure> {
        self.wait_and_print(self.client.job(job), wait)
    }

    fn wait_and_print(&self, flow: JobFlow, wait: &Wait) -> Result<(), Failure> {
        let _lock = match &wait.state {
            Some(state) => {
                let lock = StateLock::take(state)?;
                // What is there may be the state of a job that is paid for. The file itself is made in every step.
                drop(self.create(state.clone())?);
                Some(lock)
            }
            None => None,
        };
        print_reply(&self.wait(flow, wait.state.as_deref(), false)?.output)
    }

    fn resume(&self, state: PathBuf) -> Result<(), Failure> {
        // Before the state is read: two that go on with one job would both submit it.
        let _lock = StateLock::take(&state)?;
        let flow = serde_json::from_str(&read(&state)?).map_err(|error| {
            Failure::Invalid(format!("{} is no state of a job: {error}", state.display()))
        })?;
        print_reply(&self.wait(flow, Some(&state), true)?.output)
    }

    /// Waits for the end of a job, keeps its state, and says how to go on should it be interrupted.
    fn wait(
        &self,
        mut flow: JobFlow,
        state: Option<&Path>,
        resumed: bool,
    ) -> Result<JsonReply<GetRequest>, Failure> {
        flow.set_interval(self.session.poll_interval);
        let mut told = flow.id().cloned();
        let mut lost = None;
        // What another process put there meanwhile may be the state of a job that is paid for.
        let mut is_new = flow.to_submit().is_some() && !self.session.force && !resumed;
        let waiting = spinner("submitting");
        let result = self.client.run_job(&mut flow, |flow, step| {
            if told.is_none()
                && let Some(id) = flow.id()
            {
                waiting.suspend(|| note(format_args!("submitted; the request id is {id}")));
                told = Some(id.clone());
            }
            interrupt::hint(match (state, flow.id()) {
                (Some(state), Some(_)) => Some(format!("go on with: malquery resume {}", state.display())),
                (None, Some(id)) => Some(format!("the job may go on; look at it with: malquery request {id} --wait")),
                (Some(state), None) if flow.to_submit().is_some() => {
                    Some(format!("nothing was submitted; go on with: malquery resume {}", state.display()))
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
                (JobStep::Wait(_), Some(id)) => waiting.set_message(harmless(&format!("waiting for {id}"))),
                (JobStep::Send, Some(id)) => waiting.set_message(harmless(&format!("asking for {id}"))),
                _ => {}
            }
            // Before the request goes out, so that what is on disk knows of it.
            let kept = state.map_or(Ok(()), |path| keep(flow, path, std::mem::take(&mut is_new)));
            if !submitting {
                interrupt::submitting(false);
            }
            match kept {
                Err(error) => {
                    lost = Some(error);
                    ControlFlow::Break(())
                }
                Ok(()) if interrupt::stopped() && !submitting => ControlFlow::Break(()),
                Ok(()) => ControlFlow::Continue(()),
            }
        });
        waiting.finish_and_clear();
        match (result, lost) {
            (Ok(reply), _) => {
                interrupt::hint(None);
                Ok(reply)
            }
            (Err(_), Some(error)) => Err(error),
            (Err(error), None) => {
                // A job that failed has ended, and one that was refused has not begun.
                if !error.is_final() {
                    interrupt::show_hint();
                }
                Err(self.explain(error))
            }
        }
    }

    fn download(&self, sample: Sha256, output: PathBuf) -> Result<(), Failure> {
        let output = self.create(output)?;
        note(format_args!("warning: {} will be raw, unencrypted malware", output.0.path().display()));
        print(&self.save(&GetDownload::new(sample), output)?)
    }

    fn samples(&self, id: &RequestId, output: PathBuf, extract: Option<PathBuf>) -> Result<(), Failure> {
        if let Some(folder) = extract.as_ref().filter(|folder| !folder.is_dir()) {
            return Err(Failure::Invalid(format!("{} is no folder to extract to", folder.display())));
        }
        let mut report = self.fetch(id, self.create(output.clone())?)?;
        if let Some(folder) = extract {
            report["extracted"] = self.extract(&output, &folder)?;
        }
        print(&report)
    }

    fn fetch(&self, id: &RequestId, output: Output) -> Result<Value, Failure> {
        let path = output.0.path().display();
        note(format_args!("{path} will be a zip of malware; its password is `infected`"));
        // The archive was paid for.
        interrupt::hint(Some(format!("fetch it again with: malquery samples {id} --output {path}")));
        let saved = self.save(&GetSamples::new(id.clone()), output);
        match saved {
            Ok(_) => interrupt::hint(None),
            Err(_) => interrupt::show_hint(),
        }
        saved
    }

    /// Writes each sample of an archive into a file that is named by its SHA-256.
    fn extract(&self, archive: &Path, folder: &Path) -> Result<Value, Failure> {
        note(format_args!("warning: the files in {} will be raw, unencrypted malware", folder.display()));
        let failed = |error: &dyn std::error::Error| Failure::failed(error);
        let file = BufReader::new(File::open(archive).map_err(|error| failed(&error))?);
        let mut archive = Archive::open(file).map_err(|error| failed(&error))?;
        let report = archive.extract(folder, self.session.force).map_err(|error| failed(&error))?;
        let files = report.found.iter().map(|found| {
            let path = found.file.as_deref().map(|path| path.to_string_lossy());
            json!({"path": path, "bytes": found.bytes, "sha256": found.sha256})
        });
        let damaged = report
            .damaged
            .iter()
            .map(|damaged| json!({"name": damaged.name.to_string(), "error": damaged.error.to_string()}));
        for damaged in &report.damaged {
            note(format_args!("warning: {} of the archive is damaged: {}", damaged.name, damaged.error));
        }
        Ok(json!({"files": files.collect::<Vec<_>>(), "damaged": damaged.collect::<Vec<_>>()}))
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

    fn collect(&self, patterns: Patterns, limit: Option<u32>, folder: &Path) -> Result<(), Failure> {
        let is_new = !folder.exists();
        std::fs::create_dir_all(folder).map_err(|error| {
            Failure::Invalid(format!("{} cannot be made a folder: {error}", folder.display()))
        })?;
        let result = self
            .create(folder.join("samples.zip"))
            .and_then(|archive| self.collect_into(patterns, limit, archive));
        if is_new {
            // Only an empty one can be removed, so this is for a run that left nothing.
            let _ = std::fs::remove_dir(folder);
        }
        result
    }

    fn collect_into(&self, patterns: Patterns, limit: Option<u32>, archive: Output) -> Result<(), Failure> {
        let options = limit.map_or_else(SearchOptions::new, |limit| SearchOptions::new().limit(limit));
        let search =
            self.wait(self.client.job(ExactSearch::new(patterns.patterns).options(options)), None, false)?;
        let found = samples(&search.resources, limit);
        if found.is_empty() {
            if !search.resources.is_empty() {
                let count = search.resources.len();
                return Err(Failure::Failed(format!(
                    "none of the {count} results has a SHA-256 to download it by"
                )));
            }
            note(format_args!("nothing was found"));
            return print(&json!({
                "search": search.meta.reqid, "download": null, "samples": [], "path": null, "bytes": 0, "sha256": null,
            }));
        }

        note(format_args!("downloading {} samples, each of which costs a download", found.len()));
        interrupt::submitting(true);
        let job = self.client.samples_multidownload(found.iter().copied())?;
        let id = job.id();
        note(format_args!(
            "submitted; the request id is {id}; fetch it later with: malquery samples {id} --output FILE"
        ));
        interrupt::submitting(false);
        self.wait(job.flow().clone(), None, false)?;
        let mut report = self.fetch(id, archive)?;
        report["search"] = json!(search.meta.reqid);
        report["download"] = json!(id);
        report["samples"] = json!(found);
        print(&report)
    }
}

/// The SHA-256 of every sample of the results, each once, and no more than were asked for.
fn samples(results: &[Sample], limit: Option<u32>) -> Vec<Sha256> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for result in results {
        let nested = result.samples();
        let named = std::iter::once(result).chain(&nested).filter_map(|sample| sample.sha256);
        found.extend(named.filter(|sha256| seen.insert(*sha256)));
    }
    found.truncate(limit.map_or(usize::MAX, |limit| limit as usize));
    found
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
fn keep(flow: &JobFlow, path: &Path, is_new: bool) -> Result<(), Failure> {
    let failed = |error: &dyn std::error::Error| {
        Failure::Failed(format!("{} could not be written: {error}", path.display()))
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let make = || tempfile::Builder::new().prefix(".malquery-").suffix(".part").tempfile_in(folder);
    let (mut file, _scratch) = Scratch::make(make, NamedTempFile::path).map_err(|error| failed(&error))?;
    serde_json::to_writer_pretty(&mut file, flow).map_err(|error| failed(&error))?;
    file.as_file().sync_all().map_err(|error| failed(&error))?;
    if is_new { file.persist_noclobber(path) } else { file.persist(path) }
        .map_err(|error| failed(&error.error))?;
    // What is on disk must know of a request before it goes out, also after a power cut. Not every system can do this.
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
    Ok(())
}
