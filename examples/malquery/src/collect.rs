//! The whole job, and unpacking: what ends with samples in a folder.

use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use malquery_proto::archive::{ArchiveError, Limit, Limits, Report};
use malquery_proto::client::{self, Collect, Collected, Error, Step};
use malquery_proto::flow::{FlowError, JobFlow};
use malquery_proto::types::RequestId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::args::Session;
use crate::commands::{Commands, NOTHING, Output, check_results};
use crate::interrupt::{self, Scratch};
use crate::output::{Failure, bar, note, print, quoted, warn_of_errors};
use crate::state::{Lock, State};
use crate::watch::Watch;

/// The state of a collect, as it is kept.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Collecting<C = Collect, P = PathBuf> {
    collect: C,
    archive: P,
}

/// What may come out of an archive whose samples are not known. More than by default, since it was asked for, and there
/// is no other way to it.
const LIMITS: Limits = Limits {
    entries: 100_000,
    directory_size: 32 << 20,
    entry_size: 2 << 30,
    total_size: 64 << 30,
    ratio: 500,
};

impl Session {
    /// The limits for an archive, with the ratio that is allowed.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            ratio: self.max_ratio.unwrap_or(LIMITS.ratio),
            ..LIMITS
        }
    }
}

/// Unpacks an archive that is on disk. Asks no service.
pub(crate) fn extract(session: &Session, archive: &Path, folder: &Path) -> Result<(), Failure> {
    let _folder = Folder::make(folder)?;
    if !archive.exists() {
        return Err(Failure::Invalid(format!(
            "there is no file {}",
            archive.display()
        )));
    }
    let mut collect = Collect::unpack(archive)
        .limits(session.limits())
        .extract(folder);
    let mut progress = Progress::default();
    let result = collect.verify(session.force, |now: &client::Progress<'_>| {
        let Some(collect) = now.collect else {
            return ControlFlow::Continue(());
        };
        let step = now.step;

        progress.step(collect, step, archive)
    });
    progress.end();
    let named = |error: Error| match error {
        // It names the file.
        error @ Error::File { .. } => error.into(),
        error => Failure::Failed(format!(
            "{}: {}",
            archive.display(),
            Failure::from(error).message()
        )),
    };
    let collected = result.map_err(|error| failed(error, archive, &named))?;
    show(
        session,
        json!({"path": archive.to_string_lossy()}),
        collected.samples,
    )
}

impl Commands<'_> {
    pub(crate) fn collect(
        &self,
        collect: Collect,
        folder: &Path,
        extract: bool,
        state: Option<&Path>,
    ) -> Result<(), Failure> {
        // Who goes on with a state may stand elsewhere.
        let absolute = state.map(|_| std::path::absolute(folder)).transpose();
        let absolute = absolute.map_err(|error| Failure::invalid(&error))?;
        let folder = absolute.as_deref().unwrap_or(folder);
        if state.is_some() && folder.to_str().is_none() {
            return Err(Failure::Invalid(format!(
                "{} cannot be kept in a state",
                folder.display()
            )));
        }
        let path = folder.join("samples.zip");
        if state.is_some_and(|state| std::path::absolute(state).is_ok_and(|state| state == path)) {
            return Err(Failure::Invalid(
                "the state and the archive cannot be one file".into(),
            ));
        }
        let _folder = Folder::make(folder)?;
        let collect = if extract {
            collect.extract(folder)
        } else {
            collect
        };
        // Without it there is room for as many as were asked for.
        let limited = self.session.max_ratio.is_some();
        let collect = if limited {
            collect.limits(self.session.limits())
        } else {
            collect
        };
        let _lock = Lock::take(&path)?;
        let archive = self.create(path)?;
        let state = state.map(|path| self.new_state(path)).transpose()?;
        self.run_collect(collect, archive, state)
    }

    /// Goes on with a collect.
    pub(crate) fn resume_collect(&self, stored: Collecting, state: State) -> Result<(), Failure> {
        let Collecting { collect, archive } = stored;
        let folders =
            [archive.parent(), collect.extracts_to()].map(|path| path.map(Path::to_owned));
        let folders: Result<Vec<_>, _> = folders
            .iter()
            .flatten()
            .map(|path| Folder::make(path))
            .collect();
        let _folders = folders?;
        let _lock = Lock::take(&archive)?;
        if collect.archive().is_none() {
            let archive = self.create(archive)?;
            return self.run_collect(collect, archive, Some(state));
        }
        // What is left to do needs no request.
        let mut collect = collect.limits(self.session.limits());
        let mut progress = Progress::default();
        let force = self.session.force;
        let result = collect.verify(force, |now: &client::Progress<'_>| {
            let Some(collect) = now.collect else {
                return ControlFlow::Continue(());
            };
            let step = now.step;

            progress.step(collect, step, &archive)
        });
        progress.end();
        let result = result.map_err(|error| {
            let is_gone =
                matches!(&error, Error::File { error, .. } if error.kind() == ErrorKind::NotFound);
            if let Some(id) = collect.download().filter(|_| is_gone) {
                interrupt::hint(Some(fetch_again(self.session, id, &archive)));
                interrupt::show_hint();
            }
            failed(error, &archive, &Failure::from)
        });
        show_collected(self.session, result?, &archive)
    }

    pub(crate) fn run_collect(
        &self,
        collect: Collect,
        (archive, _scratch): Output,
        state: Option<State>,
    ) -> Result<(), Failure> {
        let path = archive.path().to_owned();
        let program = self.session.program();
        let mut collect = collect.poll_every(self.session.poll_interval);
        let id = collect
            .flow()
            .and_then(JobFlow::id)
            .or(collect.download())
            .cloned();
        let mut watch = Watch::new(program.clone(), state, id);
        let go_on = |collect: &Collect| go_on(self.session, collect, &path);
        // A state may be that of a submission under way.
        let submitted = collect.flow().is_none_or(|flow| flow.id().is_some());
        let under_way = collect
            .flow()
            .is_some_and(|flow| flow.id().is_none() && flow.to_submit().is_none());
        watch.hint(go_on(&collect), submitted, under_way);
        let mut announced = collect.search().is_none() && !collect.found().is_empty();
        announced |= collect.download().is_some();
        let mut progress = Progress::default();
        let result = self
            .client
            .collect(&mut collect, archive, |now: &client::Progress<'_>| {
                let Some(collect) = now.collect else {
                    return ControlFlow::Continue(());
                };

                if !announced && !collect.found().is_empty() {
                    let count = collect.found().len();
                    watch.note(format_args!(
                        "samples to download: {count}, each of which costs a download"
                    ));
                    announced = true;
                }
                let stored = Collecting {
                    collect,
                    archive: &path,
                };
                let go_on = go_on(collect);
                match now.step {
                    Step::Verify { bytes: 0, .. } => {
                        // The archive is there, and is not to be fetched again.
                        watch.hint(go_on, true, false);
                        watch.waiting.finish_and_clear();
                        watch.keep(&stored)?;
                        progress.step(collect, now.step, &path)
                    }
                    step @ (Step::Fetch { .. } | Step::Verify { .. }) => {
                        watch.waiting.finish_and_clear();
                        progress.step(collect, step, &path)
                    }
                    step => match collect.flow() {
                        Some(flow) => watch.step(flow, step, &stored, go_on),
                        None => ControlFlow::Continue(()),
                    },
                }
            });
        progress.end();
        if let Err(Error::Flow {
            error: FlowError::JobFailed(_),
            ..
        }) = &result
        {
            // To look at the download that failed is no use; what was found is.
            let found = collect.search().filter(|_| !self.session.jobs_end);
            interrupt::hint(found.map(|id| collect_again(&program, &collect, id, &path)));
        }
        if let Some(FlowError::QuotaShort {
            what: "downloads",
            left,
            ..
        }) = result.as_ref().err().and_then(Error::flow)
            && let Some(id) = collect.search()
            && *left > 0
        {
            let limited = collect
                .clone()
                .limit(u32::try_from(*left).unwrap_or(u32::MAX));
            note(format_args!(
                "for as many as are left, {}",
                collect_again(&program, &limited, id, &path)
            ));
        }
        let worth = !collect.found().is_empty();
        let explain = |error| failed(error, &path, &|error| self.explain(error));
        show_collected(self.session, watch.end(result, worth, explain)?, &path)
    }
}

/// How to go on without a state.
fn go_on(session: &Session, collect: &Collect, path: &Path) -> Option<String> {
    let program = &session.program();
    let folder = || path.parent().unwrap_or(Path::new("."));
    if let Some(archive) = collect.archive() {
        let to = collect.extracts_to().unwrap_or_else(folder);
        return Some(format!(
            "the archive is there; unpack it with: {program} extract {} --output-dir {}",
            quoted(archive),
            quoted(to)
        ));
    }
    if session.jobs_end {
        return None;
    }
    if let Some(id) = collect.download() {
        let to = collect
            .extracts_to()
            .map_or_else(String::new, |to| format!(" --extract {}", quoted(to)));
        return Some(fetch_again(session, id, path) + &to);
    }
    let search = collect
        .search()
        .or_else(|| collect.flow().and_then(JobFlow::id));
    search.map(|id| collect_again(program, collect, id, path))
}

/// How to fetch an archive that was paid for.
pub(crate) fn fetch_again(session: &Session, id: &RequestId, output: &Path) -> String {
    let force = if session.force { " --force" } else { "" };
    let (program, id, output) = (
        session.program(),
        quoted(id.as_str().as_ref()),
        quoted(output),
    );
    format!("the archive can be fetched with: {program} samples {id} --output {output}{force}")
}

/// How to collect what a search found.
fn collect_again(program: &str, collect: &Collect, id: &RequestId, path: &Path) -> String {
    let (id, folder) = (
        quoted(id.as_str().as_ref()),
        quoted(path.parent().unwrap_or(Path::new("."))),
    );
    // Without it more would be paid for than was wanted.
    let limit = collect
        .max_samples()
        .map_or_else(String::new, |limit| format!(" --limit {limit}"));
    let rest = if collect.extracts_to().is_some() {
        ""
    } else {
        " --no-extract"
    };
    format!(
        "collect what the search found with: {program} collect --request {id}{limit} --output-dir {folder}{rest}"
    )
}

/// A folder to write into.
pub(crate) struct Folder<'a> {
    /// Those that were made for it, the innermost first.
    new: Vec<&'a Path>,
    _scratch: Vec<Scratch>,
}

impl<'a> Folder<'a> {
    pub(crate) fn make(path: &'a Path) -> Result<Self, Failure> {
        let new: Vec<_> = path
            .ancestors()
            .take_while(|path| !path.as_os_str().is_empty() && !path.exists())
            .collect();
        std::fs::create_dir_all(path).map_err(|error| {
            Failure::Invalid(format!(
                "{} cannot be made a folder: {error}",
                path.display()
            ))
        })?;
        let _scratch = new
            .iter()
            .rev()
            .map(|folder| Scratch::folder(folder))
            .collect();
        Ok(Self { new, _scratch })
    }
}

impl Drop for Folder<'_> {
    fn drop(&mut self) {
        for folder in &self.new {
            // Only an empty one can be removed, so this is for a run that left nothing.
            let _ = std::fs::remove_dir(folder);
        }
    }
}

/// Shows how an archive is fetched, verified and extracted.
#[derive(Default)]
struct Progress {
    shown: Option<(bool, ProgressBar)>,
}

impl Progress {
    fn step(&mut self, collect: &Collect, step: Step, path: &Path) -> ControlFlow<()> {
        let (fetching, bytes, total) = match step {
            Step::Fetch { bytes, total } => (true, bytes, total),
            Step::Verify { bytes, total } => (false, bytes, Some(total)),
            _ => return ControlFlow::Continue(()),
        };
        if self.shown.as_ref().is_none_or(|shown| shown.0 != fetching) {
            self.clear();
            if fetching {
                warn_of_zip(path);
            } else if let Some(folder) = collect.extracts_to() {
                warn_of_files(folder);
                interrupt::extracting(true);
            }
            self.shown = Some((fetching, bar(total)));
        }
        if let Some((_, bar)) = &self.shown {
            bar.set_position(bytes);
        }
        // While it is fetched, Ctrl-C ends it by itself.
        if !fetching && interrupt::stopped() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    fn clear(&mut self) {
        if let Some((_, bar)) = self.shown.take() {
            bar.finish_and_clear();
        }
    }

    fn end(&mut self) {
        self.clear();
        interrupt::extracting(false);
    }
}

/// What went wrong. Files that were written before are told.
fn failed(error: Error, path: &Path, explain: &dyn Fn(Error) -> Failure) -> Failure {
    if let Error::Archive(error) = &error
        && let Some(report) = ArchiveError::report(error)
        && !report.found.is_empty()
    {
        let document = json!({"path": path.to_string_lossy(), "contents": contents(report)});
        if let Err(failure) = print(&document) {
            return failure;
        }
    }
    let is_in_the_way = match &error {
        Error::Archive(ArchiveError::Stopped { source, .. }) => {
            matches!(&**source, ArchiveError::File { error, .. } if error.kind() == ErrorKind::AlreadyExists)
        }
        _ => false,
    };
    match explain(error) {
        Failure::Failed(message) if is_in_the_way => {
            Failure::Failed(format!("{message}; give --force to replace it"))
        }
        failure => failure,
    }
}

fn show_collected(session: &Session, collected: Collected, path: &Path) -> Result<(), Failure> {
    let Collected {
        search,
        results,
        errors,
        found,
        download,
        archive,
        samples,
        ..
    } = collected;
    warn_of_errors(&errors);
    if archive.is_none() {
        check_results(&results, !errors.is_empty())?;
        if !results.is_empty() {
            let count = results.len();
            return Err(Failure::Failed(format!(
                "none of the {count} results has a SHA-256 to download it by"
            )));
        }
        note(format_args!("{NOTHING}"));
    }
    let document = json!({
        "search": search,
        "download": download,
        "samples": found,
        "errors": errors,
        // JSON has no way to write a path that is not Unicode.
        "path": archive.map(|_| path.to_string_lossy()),
        "bytes": archive.map_or(0, |archive| archive.bytes),
        "sha256": archive.map(|archive| archive.sha256),
    });
    show(session, document, samples)
}

/// Prints what is in an archive. Samples that are missing or damaged are an error.
fn show(session: &Session, mut document: Value, samples: Report) -> Result<(), Failure> {
    document["contents"] = contents(&samples);
    print(&document)?;
    let is_ratio = |error: &ArchiveError| {
        matches!(
            error,
            ArchiveError::Limit {
                limit: Limit::Ratio,
                ..
            }
        )
    };
    if samples
        .damaged
        .iter()
        .any(|damaged| is_ratio(&damaged.error))
    {
        note(format_args!(
            "a sample that is padded to be large is taken with: {} extract ARCHIVE --output-dir DIR --max-ratio 1100",
            session.program()
        ));
    }
    samples
        .complete()
        .map(drop)
        .map_err(|error| Failure::failed(&error))
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
        note(format_args!(
            "warning: {} of the archive is damaged: {}",
            damaged.name, damaged.error
        ));
        json!({"name": damaged.name.to_string(), "error": damaged.error.to_string()})
    });
    for warning in &report.warnings {
        note(format_args!("warning: {warning}"));
    }
    let damaged: Value = damaged.collect();
    if report.duplicate_names {
        note(format_args!(
            "warning: several entries of the archive have the same name, and only the last can be read"
        ));
    }
    if report.omits_entries && !report.duplicate_names {
        note(format_args!(
            "warning: the directory of the archive omits entries that are in the file"
        ));
    }
    if report.is_empty {
        note(format_args!("warning: the archive has no entry"));
    }
    if !report.unexpected.is_empty() {
        let count = report.unexpected.len();
        note(format_args!(
            "warning: entries of the archive that were not asked for, and are not extracted: {count}"
        ));
    }
    for sample in &report.missing {
        note(format_args!("warning: {sample} is not in the archive"));
    }
    json!({
        "files": list(&report.found), "missing": report.missing, "unexpected": list(&report.unexpected),
        "damaged": damaged, "warnings": report.warnings, "duplicate_names": report.duplicate_names,
    })
}

pub(crate) fn warn_of_zip(path: &Path) {
    note(format_args!(
        "warning: {} will be a zip of malware; its password is `infected`",
        path.display()
    ));
}

fn warn_of_files(folder: &Path) {
    note(format_args!(
        "warning: the files in {} will be raw, unencrypted malware",
        folder.display()
    ));
}
