//! Collects samples, and unpacks archives.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufRead, ErrorKind, IsTerminal};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use malquery_proto::archive::{Archive, ArchiveError, Found, Limit, Limits, Report};
use malquery_proto::client::{Collect, Collected, Error, Progress, Step};
use malquery_proto::flow::{FlowError, JobFlow};
use malquery_proto::operations::ExactSearch;
use malquery_proto::types::{Extra, RequestId, Sample};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::args::{CollectArgs, Session, Source};
use crate::common::{Commands, NOTHING, Output, check_results, is_replaceable, running};
use crate::format::{Format, print_fields, print_results};
use crate::interrupt::{self, Scratch};
use crate::output::{self, Failure, ServiceErrors, bar, code, note, quoted};
use crate::state::{Lock, State};
use crate::watch::{self, Watch};
use crate::{input, rule};

/// The stored state of a `collect` command.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Collecting<C = Collect, P = PathBuf> {
    collect: C,
    archive: P,
}

/// Unpacks an archive on disk. Sends nothing.
pub(crate) fn extract(
    session: &Session,
    format: Format,
    archive: &Path,
    folder: &Path,
) -> Result<(), Failure> {
    if !archive.exists() {
        return Err(Failure::refused(format!(
            "file not found: {}",
            archive.display()
        )));
    }
    input::check_regular(archive)?;
    let _folder = Folder::make(folder)?;
    let mut collect = Collect::unpack(archive)
        .limits(session.limits())
        .extract(folder);
    let mut bars = Bars::new(session.demo);
    let result = collect.verify(session.force, |progress: &Progress<'_>| {
        bars.step(progress, archive)
    });
    bars.end();
    let named = |error: Error| {
        // `Error::File` already names the file.
        let is_named = matches!(error, Error::File { .. } | Error::Stopped);
        let mut failure = Failure::from(error);
        if !is_named {
            failure.message = format!("{}: {}", archive.display(), failure.message);
        }
        failure
    };
    let shown = Shown { session, format };
    let collected = result.map_err(|error| shown.failed(error, archive, &named))?;
    let document = json!({"path": archive.to_string_lossy()});
    shown.show(document, &[], collected.samples)
}

impl Commands<'_> {
    pub(crate) fn collect(&self, args: &CollectArgs) -> Result<(), Failure> {
        let source = args.source()?;
        // clap detects this only if both options are on the same side of the command.
        if args.no_check_quota && self.session.check_quota {
            let both = "use --check-quota or --no-check-quota, not both";
            return Err(Failure::refused(both));
        }
        // `resume` may run in another working directory.
        let folder = match &args.state {
            Some(_) => {
                std::path::absolute(&args.output_dir).map_err(|error| Failure::invalid(&error))?
            }
            None => args.output_dir.clone(),
        };
        if args.state.is_some() && folder.to_str().is_none() {
            return Err(Failure::refused(format!(
                "--state cannot store {}, because the path is not valid Unicode",
                folder.display()
            )));
        }
        let path = folder.join("samples.zip");
        let limit = args.options.results.limit;
        let mut list = match &source {
            Source::Samples => args.samples.read()?,
            _ => Vec::new(),
        };
        let collect = match &source {
            Source::Samples => None,
            Source::Rule(file) => {
                let hunt = rule::hunt(file, &args.rule)?;
                Some(Collect::new(hunt.options(args.options.search())))
            }
            Source::Patterns => {
                let search = ExactSearch::new(args.patterns.some()?);
                Some(Collect::new(search.options(args.options.search())))
            }
            Source::Request(id) => Some(Collect::attach(id.clone())),
        };
        let is_limited = limit.is_some() || !list.is_empty();
        if !is_limited && !args.yes && !is_answerable() {
            return Err(Failure::refused(
                "cannot ask for confirmation; without --limit, all samples found are downloaded, and each costs a download",
            )
            .hint("use --limit N, or --yes to download all samples found"));
        }
        let _folder = Folder::make(&folder)?;
        let _lock = Lock::take(&path)?;
        let archive = self.create(path)?;
        let state = self.new_state(args.state.as_deref())?;
        let lookup = match source {
            Source::Samples => Some(self.keep_known(&mut list)?),
            _ => None,
        };
        if let Some(lookup) = lookup.as_ref().filter(|_| list.is_empty()) {
            lookup.show();
            return self.shown().nothing();
        }
        let most = match lookup {
            Some(_) => Some(limit.map_or(list.len(), |limit| list.len().min(limit as usize))),
            None => limit.map(|limit| limit as usize),
        };
        let hunts = u64::from(matches!(source, Source::Rule(_)));
        let search = if hunts > 0 { "hunt" } else { "search" };
        self.announce(args, hunts, most.map(|most| most as u64))?;
        let mut collect = collect.unwrap_or_else(|| Collect::new(list));
        if let Some(limit) = limit {
            collect = collect.limit(limit);
        }
        if !args.no_extract {
            collect = collect.extract(&folder);
        }
        // Without --max-ratio, the library raises its default limits to fit the number of samples.
        if self.session.max_ratio.is_some() {
            collect = collect.limits(self.session.limits());
        }
        let client = self.client.clone().check_quota(!args.no_check_quota);
        let careful = Commands {
            client: &client,
            ..*self
        };
        let result = careful.run_collect(collect, archive, state, search);
        if let Some(lookup) = &lookup {
            lookup.show();
        }
        result
    }

    /// Shows what the command may cost. Unless --no-check-quota is given, fails if a needed quota
    /// is exhausted. If `most` is `None` and --yes is not given, asks for confirmation.
    fn announce(&self, args: &CollectArgs, hunts: u64, most: Option<u64>) -> Result<(), Failure> {
        let mut costs = Vec::new();
        if hunts > 0 {
            costs.push("1 hunt".to_owned());
        }
        let most_of_a_search = if args.samples.is_empty() {
            "at most "
        } else {
            ""
        };
        costs.push(match most {
            Some(1) => format!("{most_of_a_search}1 download"),
            Some(most) => format!("{most_of_a_search}{most} downloads"),
            None => "a download per sample found".to_owned(),
        });
        let costs = costs.join(", plus ");
        if args.no_check_quota {
            note(format_args!("cost: {costs}"));
        } else {
            let reply = self.client.quotas().map_err(|error| {
                let failure = self.explain(error, None);
                failure.hint("use --no-check-quota to continue without checking the quotas")
            })?;
            let left = [reply.meta.hunts_left(), reply.meta.downloads_left()];
            let word =
                |left: Option<u64>| left.map_or_else(|| "unknown".into(), |left| left.to_string());
            note(format_args!(
                "cost: {costs}; hunts left this month: {}; downloads left this month: {}",
                word(left[0]),
                word(left[1])
            ));
            let downloads = match most {
                Some(most) if most_of_a_search.is_empty() => most.to_string(),
                _ => "at least 1".to_owned(),
            };
            for (what, needed, left) in [
                ("hunts", hunts.to_string(), left[0]),
                ("downloads", downloads, left[1]),
            ] {
                if needed != "0" && left == Some(0) {
                    let message = format!(
                        "the number of {what} left this month is 0, but the command needs {needed}; nothing was submitted"
                    );
                    return Err(Failure::new(code::QUOTA, message));
                }
            }
        }
        if most.is_none() && !args.yes {
            return confirm(&costs);
        }
        Ok(())
    }

    fn shown(&self) -> Shown<'_> {
        Shown {
            session: self.session,
            format: self.format,
        }
    }

    pub(crate) fn resume_collect(
        &self,
        stored: Collecting,
        mut state: State,
    ) -> Result<(), Failure> {
        let Collecting {
            mut collect,
            archive,
        } = stored;
        let folders =
            [archive.parent(), collect.extracts_to()].map(|path| path.map(Path::to_owned));
        let folders: Result<Vec<_>, _> = folders
            .iter()
            .flatten()
            .map(|path| Folder::make(path))
            .collect();
        let _folders = folders?;
        let _lock = Lock::take(&archive)?;
        if collect.archive().is_none() && is_fetched(&collect, &archive, self.session.limits()) {
            // The archive was downloaded, but the earlier process ended before it saved the state.
            collect = collect.fetched(&archive);
            state.keep(&Collecting {
                collect: &collect,
                archive: &archive,
            })?;
        }
        if collect.archive().is_none() {
            let archive = self.create(archive)?;
            return self.run_collect(collect, archive, Some(state), "search");
        }
        // The rest of the work needs no requests.
        let mut collect = collect.limits(self.session.limits());
        let mut bars = Bars::new(self.session.demo);
        let force = self.session.force;
        let result = collect.verify(force, |progress: &Progress<'_>| {
            bars.step(progress, &archive)
        });
        bars.end();
        let result = result.map_err(|error| {
            let is_gone =
                matches!(&error, Error::File { error, .. } if error.kind() == ErrorKind::NotFound);
            if let Some(id) = collect.download().filter(|_| is_gone) {
                interrupt::hint(Some(fetch_again(self.session, id, &archive)));
                interrupt::show_hint();
            }
            self.shown().failed(error, &archive, &Failure::from)
        });
        self.shown().show_collected(result?, &archive)
    }

    pub(crate) fn run_collect(
        &self,
        collect: Collect,
        (archive, _scratch): Output,
        state: Option<State>,
        search: &'static str,
    ) -> Result<(), Failure> {
        let path = archive.path().to_owned();
        let program = self.session.program();
        let mut collect = collect.poll_every(self.session.poll_interval);
        let id = collect
            .flow()
            .and_then(JobFlow::id)
            .or(collect.download())
            .cloned();
        let job = collect.flow().and_then(JobFlow::to_submit);
        let job = job.map_or(search, watch::name);
        let mut watch = Watch::new(program.clone(), state, id, job);
        let resume_hint = |collect: &Collect| resume_hint(self.session, collect, &path);
        // The state may record a submission whose reply was never received.
        let submitted = collect.flow().is_none_or(|flow| flow.id().is_some());
        let under_way = collect
            .flow()
            .is_some_and(|flow| flow.id().is_none() && flow.to_submit().is_none());
        watch.hint(resume_hint(&collect), submitted, under_way);
        let mut announced = collect.search().is_none() && !collect.found().is_empty();
        announced |= collect.download().is_some();
        let mut bars = Bars::new(self.session.demo);
        let result = self
            .client
            .collect(&mut collect, archive, |progress: &Progress<'_>| {
                let Some(collect) = progress.collect else {
                    return ControlFlow::Continue(());
                };
                if !announced && !collect.found().is_empty() {
                    let count = collect.found().len();
                    watch.note(format_args!(
                        "samples to download: {count}; each costs a download"
                    ));
                    announced = true;
                }
                let stored = Collecting {
                    collect,
                    archive: &path,
                };
                let resume_hint = resume_hint(collect);
                match progress.step {
                    Step::Verify { bytes: 0, .. } => {
                        // The archive has been downloaded and is not fetched again.
                        watch.hint(resume_hint, true, false);
                        watch.waiting.finish_and_clear();
                        watch.keep(&stored)?;
                        bars.step(progress, &path)
                    }
                    Step::Fetch { .. } | Step::Verify { .. } => {
                        watch.waiting.finish_and_clear();
                        bars.step(progress, &path)
                    }
                    _ => match collect.flow() {
                        Some(flow) => watch.step(progress, flow, &stored, resume_hint),
                        None => ControlFlow::Continue(()),
                    },
                }
            });
        bars.end();
        if let Err(Error::Flow {
            error: FlowError::JobFailed(_),
            ..
        }) = &result
        {
            // A failed multi-download cannot be resumed, but its samples can be collected again.
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
            output::error(format_args!(
                "hint: to use the remaining quota, {}",
                collect_again(&program, &limited, id, &path)
            ));
        }
        let worth = !collect.found().is_empty();
        let running = running(collect.flow());
        let shown = self.shown();
        let explain = |error| {
            shown.failed(error, &path, &|error| {
                self.explain(error, running.as_deref())
            })
        };
        shown.show_collected(watch.end(result, worth, explain)?, &path)
    }
}

/// Returns whether the user can answer a question.
fn is_answerable() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks whether to go on. The question repeats the costs, because --quiet hides the message.
fn confirm(costs: &str) -> Result<(), Failure> {
    output::error(format_args!("spend {costs}? [y/N]"));
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" if read.is_ok() => Ok(()),
        _ => Err(
            Failure::refused("the downloads were not confirmed; nothing was submitted")
                .hint("use --limit N to limit the downloads"),
        ),
    }
}

/// Returns whether a file is the intact archive of a `collect` command. MalQuery may omit samples,
/// so some of the requested samples are enough if the archive contains no others.
fn is_fetched(collect: &Collect, archive: &Path, limits: Limits) -> bool {
    if collect.found().is_empty() || input::check_regular(archive).is_err() {
        return false;
    }
    let Ok(archive) = File::open(archive).map(|file| Archive::open_with(file, limits)) else {
        return false;
    };
    let report = archive.and_then(|archive| {
        archive
            .expect_samples(collect.found().iter().copied())
            .check()
    });
    report.is_ok_and(|report| {
        !report.found.is_empty()
            && report.damaged.is_empty()
            && (report.missing.is_empty() || report.unexpected.is_empty())
    })
}

/// Returns a hint on how to continue without a state file, if that is possible.
fn resume_hint(session: &Session, collect: &Collect, path: &Path) -> Option<String> {
    let program = &session.program();
    let folder = || path.parent().unwrap_or(Path::new("."));
    if let Some(archive) = collect.archive() {
        let to = collect.extracts_to().unwrap_or_else(folder);
        return Some(format!(
            "the archive has been downloaded; unpack it with: {program} extract {} --output-dir {}",
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

/// Returns a hint on how to fetch an archive that has been paid for.
pub(crate) fn fetch_again(session: &Session, id: &RequestId, output: &Path) -> String {
    let force = if session.force { " --force" } else { "" };
    let (program, id, output) = (session.program(), quoted(id.as_str()), quoted(output));
    format!("fetch the archive with: {program} samples {id} --output {output}{force}")
}

/// Returns a hint on how to collect the results of a search.
fn collect_again(program: &str, collect: &Collect, id: &RequestId, path: &Path) -> String {
    let (id, folder) = (
        quoted(id.as_str()),
        quoted(path.parent().unwrap_or(Path::new("."))),
    );
    // Without a limit, the user could pay for more samples than intended.
    let limit = match (collect.max_samples(), collect.found().len()) {
        (Some(limit), _) => format!(" --limit {limit}"),
        (None, 0) => " --yes".to_owned(),
        (None, found) => format!(" --limit {found}"),
    };
    let rest = if collect.extracts_to().is_some() {
        ""
    } else {
        " --no-extract"
    };
    format!(
        "collect the results of the search with: {program} collect --request {id}{limit} --output-dir {folder}{rest}"
    )
}

/// An output folder. On drop, the folders created for it are removed if they are empty.
pub(crate) struct Folder<'a> {
    /// The folders that were created, outermost first.
    new: Vec<(&'a Path, Scratch)>,
}

impl<'a> Folder<'a> {
    pub(crate) fn make(path: &'a Path) -> Result<Self, Failure> {
        let refuse = |doing: &str, folder: &Path, why: &dyn std::fmt::Display| {
            let folder = folder.display();
            Failure::refused(format!(
                "cannot use {} as the output folder: cannot {doing} {folder}: {why}",
                path.display()
            ))
        };
        let new: Vec<_> = path
            .ancestors()
            .take_while(|path| !path.as_os_str().is_empty() && !path.exists())
            .collect();
        let mut folder = Self { new: Vec::new() };
        for path in new.into_iter().rev() {
            match fs::create_dir(path) {
                // The path contains `..` after a new folder, or another process created the folder.
                Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => continue,
                made => made.map_err(|error| refuse("create", path, &error))?,
            }
            folder.new.push((path, Scratch::folder(path)));
            // The owner must be able to write to the folder, whatever the umask.
            own(path).map_err(|error| refuse("write to", path, &error))?;
        }
        // Test that the folder is writable before anything is paid for.
        tempfile::tempfile_in(path).map_err(|error| refuse("write to", path, &error))?;
        Ok(folder)
    }
}

/// Grants the owner of a folder all permissions.
#[cfg(unix)]
fn own(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mut permissions = fs::metadata(folder)?.permissions();
    permissions.set_mode(permissions.mode() | 0o700);
    fs::set_permissions(folder, permissions)
}

#[cfg(not(unix))]
fn own(_: &Path) -> io::Result<()> {
    Ok(())
}

impl Drop for Folder<'_> {
    fn drop(&mut self) {
        for (folder, _) in self.new.iter().rev() {
            // `remove_dir` removes only empty folders. If a folder remains, so do its parents.
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
    }
}

/// Progress bars for fetching, verifying and extracting an archive.
struct Bars {
    /// Whether the samples are the harmless files of --demo.
    is_demo: bool,
    shown: Option<(bool, ProgressBar)>,
}

impl Bars {
    fn new(is_demo: bool) -> Self {
        Self {
            is_demo,
            shown: None,
        }
    }

    fn step(&mut self, progress: &Progress<'_>, path: &Path) -> ControlFlow<()> {
        let (fetching, bytes, total) = match progress.step {
            Step::Fetch { bytes, total } => (true, bytes, total),
            Step::Verify { bytes, total } => (false, bytes, Some(total)),
            _ => return ControlFlow::Continue(()),
        };
        if self.shown.as_ref().is_none_or(|shown| shown.0 != fetching) {
            self.clear();
            let folder = progress.collect.and_then(Collect::extracts_to);
            if fetching && !self.is_demo {
                warn_of_zip(path);
            }
            if folder.is_some() && !fetching {
                interrupt::extracting(true);
            }
            self.shown = Some((fetching, bar(total)));
        }
        if let Some((_, bar)) = &self.shown {
            bar.set_position(bytes);
        }
        // During the fetch, the signal handler ends the command.
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

/// Prints the samples of an archive.
struct Shown<'a> {
    session: &'a Session,
    format: Format,
}

impl Shown<'_> {
    /// Prints the samples that were found before the error, if any, and returns the failure.
    fn failed(&self, error: Error, path: &Path, explain: &dyn Fn(Error) -> Failure) -> Failure {
        if let Error::Archive(error) = &error
            && let Some(report) = ArchiveError::report(error)
            && !report.found.is_empty()
        {
            let mut document = json!({"path": path.to_string_lossy()});
            document["contents"] = self.contents(report);
            if let Err(failure) = self.print(&document, &[], report) {
                return failure;
            }
        }
        let cause = match &error {
            Error::Archive(ArchiveError::Stopped { source, .. }) => Some(&**source),
            Error::Archive(error) => Some(error),
            _ => None,
        };
        let is_in_the_way = matches!(cause, Some(ArchiveError::File { path, error }) if is_replaceable(path, error));
        let is_cut = matches!(
            error,
            Error::Archive(ArchiveError::Broken(_) | ArchiveError::Incomplete(_))
        );
        let is_limit =
            matches!(cause, Some(ArchiveError::Limit { limit, .. }) if *limit != Limit::Ratio);
        let mut failure = explain(error);
        if is_limit {
            failure = failure
                .hint("if you trust the archive, unpack it with another program, such as 7-Zip");
        }
        if is_in_the_way {
            failure.message.push_str("; use --force to replace it");
        }
        if is_cut {
            failure.code = code::INCOMPLETE;
        }
        failure
    }

    fn show_collected(&self, collected: Collected, path: &Path) -> Result<(), Failure> {
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
        let service_errors = ServiceErrors::new(&errors, &Extra::default());
        if archive.is_some() {
            service_errors.warn();
        } else {
            check_results(&results, &service_errors)?;
            if !results.is_empty() {
                let count = results.len();
                return Err(Failure::new(
                    code::FAILED,
                    format!("nothing to download: no result has a SHA-256 (results: {count})"),
                ));
            }
            note(format_args!("{NOTHING}"));
        }
        let document = json!({
            "search": search,
            "download": download,
            "samples": found,
            "errors": errors,
            // JSON cannot represent a path that is not valid Unicode.
            "path": archive.map(|_| path.to_string_lossy()),
            "bytes": archive.map_or(0, |archive| archive.bytes),
            "sha256": archive.map(|archive| archive.sha256),
        });
        self.show(document, &results, samples)
    }

    fn nothing(&self) -> Result<(), Failure> {
        note(format_args!("{NOTHING}"));
        let document = json!({
            "search": null, "download": null, "samples": [], "errors": [], "path": null, "bytes": 0,
            "sha256": null,
        });
        self.show(document, &[], Report::default())
    }

    /// Prints the contents of an archive. Fails unless [`Report::is_complete`] returns `true`.
    fn show(&self, mut document: Value, results: &[Sample], report: Report) -> Result<(), Failure> {
        document["contents"] = self.contents(&report);
        self.print(&document, results, &report)?;
        let is_ratio = |error: &ArchiveError| {
            matches!(
                error,
                ArchiveError::Limit {
                    limit: Limit::Ratio,
                    ..
                }
            )
        };
        let is_padded = report
            .damaged
            .iter()
            .any(|damaged| is_ratio(&damaged.error));
        let done = report.complete().map_err(|error| {
            let failure = Failure::failed(&error).code(code::INCOMPLETE);
            match is_padded {
                true => failure.hint(format!(
                    "if a sample is padded with zeros, extract it with: {} extract ARCHIVE --output-dir DIR --max-ratio 1100",
                    self.session.program()
                )),
                false => failure,
            }
        })?;
        say_done(&done, document["path"].as_str());
        Ok(())
    }

    /// Returns the contents of an archive as JSON, and warns about problems and extracted malware.
    fn contents(&self, report: &Report) -> Value {
        let mut files = report
            .found
            .iter()
            .filter_map(|found| found.file.as_deref());
        if let Some(folder) = files.next().and_then(Path::parent)
            && !self.session.demo
        {
            note(format_args!(
                "warning: the files in {} are raw, unencrypted samples, which may be malware",
                folder.display()
            ));
        }
        let list = |found: &[Found]| -> Value {
            let one = |found: &Found| {
                let path = found.file.as_deref().map(|path| path.to_string_lossy());
                json!({"path": path, "bytes": found.bytes, "sha256": found.sha256, "name": found.name.to_string()})
            };
            found.iter().map(one).collect()
        };
        let damaged = report.damaged.iter().map(|damaged| {
            // `Debug` also writes the sources.
            let error = format!("{:?}", damaged.error);
            note(format_args!(
                "warning: the archive entry {} cannot be read: {error}",
                damaged.name
            ));
            json!({"name": damaged.name.to_string(), "error": error})
        });
        for warning in &report.warnings {
            note(format_args!("warning: {warning}"));
        }
        let damaged: Value = damaged.collect();
        if report.duplicate_names {
            note(format_args!(
                "warning: several archive entries have the same name; only the last one can be read"
            ));
        }
        if report.omits_entries && !report.duplicate_names {
            note(format_args!(
                "warning: the archive may contain entries that its directory does not list"
            ));
        }
        if report.is_empty {
            note(format_args!("warning: the archive contains no files"));
        }
        if !report.unexpected.is_empty() {
            let what = match report.unexpected.len() {
                1 => "1 sample that was not requested; it was".to_owned(),
                count => format!("{count} samples that were not requested; they were"),
            };
            note(format_args!(
                "warning: the archive contains {what} not extracted"
            ));
        }
        for sample in &report.missing {
            note(format_args!(
                "warning: {sample} was not found in the archive"
            ));
        }
        json!({
            "files": list(&report.found), "missing": report.missing, "unexpected": list(&report.unexpected),
            "damaged": damaged, "warnings": report.warnings, "duplicate_names": report.duplicate_names,
        })
    }

    fn print(&self, document: &Value, results: &[Sample], report: &Report) -> Result<(), Failure> {
        if self.format == Format::Json {
            return print_fields(self.format, &[], document);
        }
        // If several results have the same SHA-256, the first one is used.
        let results: HashMap<_, _> = results
            .iter()
            .rev()
            .filter_map(|result| Some((result.sha256?, result)))
            .collect();
        let known = |found: &Found| {
            let result = results.get(&found.sha256);
            let mut sample = result.map_or_else(Sample::default, |result| Sample::clone(result));
            sample.sha256 = Some(found.sha256);
            sample.filesize = Some(found.bytes);
            sample
        };
        let samples: Vec<_> = report.found.iter().map(known).collect();
        print_results(self.format, &samples, document)
    }
}

/// Shows how many samples are verified and where they are, if there are any.
fn say_done(report: &Report, archive: Option<&str>) {
    let (Some(first), Some(archive)) = (report.found.first(), archive) else {
        return;
    };
    let count = report.found.len();
    let samples = if count == 1 { "sample" } else { "samples" };
    let folder = first.file.as_deref().and_then(Path::parent);
    let written = folder.map_or_else(String::new, |folder| {
        format!(" and written to {}", folder.display())
    });
    note(format_args!(
        "{count} {samples} verified{written}; the archive is {archive}"
    ));
}

pub(crate) fn warn_of_zip(path: &Path) {
    note(format_args!(
        "warning: {} will be a zip archive of samples, which may be malware; its password is `infected`",
        path.display()
    ));
}
