use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Client, Error, Observer, OutputFile, Progress, Step};
use crate::archive::{Archive, ArchiveError, Limits, Report};
use crate::atomic_file;
use crate::endpoint::Cost;
use crate::error::{ApiError, ApiErrorKind};
use crate::flow::{FlowError, JobFlow, MIN_INTERVAL, Submission, Version};
use crate::operation::Operation;
use crate::operations::{ExactSearch, FuzzySearch, GetSamples, Hunt, SamplesMultidownload};
use crate::request::BuildError;
use crate::stream::Received;
use crate::time::Timestamp;
use crate::types::{ErrorItem, RequestId, Sample, Sha256};

/// The maximum number of times to restart the download of a missing archive after its job is done.
const MAX_NOT_FOUND: u32 = 5;
/// The pause before restarting the download of a missing archive, if no polling interval is set.
const ARCHIVE_PAUSE: Duration = Duration::from_secs(5);

/// The number of bytes to allow for each sample in the directory of an archive.
const DIRECTORY_ENTRY: u64 = 400;

/// The state of a run that finds samples, downloads an archive of them, and verifies its contents.
///
/// [`Client::collect`] performs the run. Like a [`JobFlow`], the state can be serialized, so that a
/// billed job survives a restart. To continue after an error, pass the same value again: a job that
/// may have been billed is not submitted again. Once the archive has been downloaded,
/// [`Collect::verify`] can finish the run without sending a request.
///
/// ```
/// # fn example(client: &malquery_proto::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use std::fs;
/// use std::io::ErrorKind::NotFound;
/// use std::ops::ControlFlow;
///
/// use malquery_proto::OutputFile;
/// use malquery_proto::client::{Collect, Progress};
/// use malquery_proto::operations::Hunt;
///
/// fn store(job: Option<&Collect>) -> std::io::Result<()> {
///     fs::write("job.new", serde_json::to_vec(&job)?)?;
///     fs::rename("job.new", "job.json") // replaces the file completely or not at all
/// }
///
/// let mut job: Collect = match fs::read("job.json") {
///     Ok(stored) => serde_json::from_slice(&stored)?,
///     Err(error) if error.kind() == NotFound => {
///         Collect::new(Hunt::new(fs::read_to_string("rule.yar")?).limit(10))
///     }
///     Err(error) => return Err(error.into()),
/// };
/// let collected = if job.archive().is_some() {
///     job.verify(false, ())?
/// } else {
///     let archive = OutputFile::create_new("samples.zip")?;
///     client.collect(&mut job, archive, |progress: &Progress<'_>| match store(progress.collect) {
///         Ok(()) => ControlFlow::Continue(()),
///         Err(_) => ControlFlow::Break(()), // the state was not stored, so send nothing
///     })?
/// };
/// fs::remove_file("job.json")?;
/// # let _ = collected;
/// # Ok(())
/// # }
/// ```
///
/// If a process ends while a submission is being sent, the job may have been billed, so it is not
/// submitted again: a run with the stored state fails with [`FlowError::OutcomeUnknown`]. Compare
/// the quotas with their earlier values, then start over. If the search already has a request id,
/// start over with [`Collect::attach`] to reuse it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[must_use]
pub struct Collect {
    version: Version,
    phase: Phase,
    /// Required in a stored state, because a missing limit must not become "no limit".
    #[serde(deserialize_with = "Option::deserialize")]
    limit: Option<u32>,
    interval: Option<Duration>,
    extract: Option<PathBuf>,
    search: Option<RequestId>,
    found: Vec<Sha256>,
    /// Not stored, because the results may be too large to write at every step.
    #[serde(skip)]
    results: Vec<Sample>,
    #[serde(skip)]
    errors: Vec<ErrorItem>,
    /// Not stored, because each process sets its own limits.
    #[serde(skip)]
    limits: Option<Limits>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    Fuzzy(FuzzySearch),
    New(Submission),
    Search(JobFlow),
    Download(JobFlow),
    Attached(RequestId),
    Fetch(RequestId),
    Verify {
        id: Option<RequestId>,
        archive: PathBuf,
        received: Option<(u64, Sha256)>,
    },
    NothingFound,
}

/// The outcome of a [`Collect`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Collected {
    /// The request id of the exact search or hunt, if the run included one.
    pub search: Option<RequestId>,
    /// The results of the search. A stored [`Collect`] does not contain them.
    pub results: Vec<Sample>,
    /// The errors that the service reported even though the search and the multi-download
    /// succeeded. A stored [`Collect`] does not contain them.
    pub errors: Vec<ErrorItem>,
    /// The samples to download, without duplicates, up to the limit. Empty if none are known.
    pub found: Vec<Sha256>,
    /// The request id of the multi-download, if known.
    pub download: Option<RequestId>,
    /// The size and hash of the archive, if there is one.
    pub archive: Option<Received>,
    /// The report on the contents of the archive. Lists nothing if there is no archive.
    pub samples: Report,
}

impl Collect {
    /// Creates a run for a hunt, an exact search, a fuzzy search or a list of samples.
    ///
    /// **Each sample costs one download.** The limit of the search also limits the number of
    /// downloads. Without a limit, all samples in the results are downloaded, and their number may
    /// exceed the monthly quota: see [`Collect::limit`] and [`Client::check_quota`]. If the search
    /// selects fields, the SHA-256 is added to them.
    pub fn new(source: impl Into<Source>) -> Self {
        let mut collect = Self::at(source.into().0);
        match &mut collect.phase {
            Phase::Fuzzy(search) => {
                search.want_sha256();
                collect.limit = search.most();
            }
            Phase::New(Submission::Hunt(hunt)) => {
                hunt.want_sha256();
                collect.limit = hunt.most();
            }
            Phase::New(Submission::ExactSearch(search)) => {
                search.want_sha256();
                collect.limit = search.most();
            }
            Phase::New(Submission::SamplesMultidownload(download)) => {
                collect.found = download.samples().to_vec();
            }
            _ => {}
        }
        collect
    }

    /// Creates a run for an exact search or a hunt that was submitted earlier and may still be
    /// running.
    pub fn attach(search: RequestId) -> Self {
        Self::at(Phase::Attached(search))
    }

    /// Creates a run that downloads the archive of a finished multi-download. The expected samples
    /// are unknown, so every undamaged sample in the archive counts as found.
    pub fn fetch(id: RequestId) -> Self {
        Self::at(Phase::Fetch(id))
    }

    /// Creates a run that verifies an existing archive: see [`Collect::verify`]. Every undamaged
    /// sample in the archive counts as found.
    pub fn unpack(archive: impl Into<PathBuf>) -> Self {
        Self::at(Phase::Verify {
            id: None,
            archive: archive.into(),
            received: None,
        })
    }

    fn at(phase: Phase) -> Self {
        Self {
            version: Version::default(),
            phase,
            limit: None,
            interval: None,
            extract: None,
            search: None,
            found: Vec::new(),
            results: Vec::new(),
            errors: Vec::new(),
            limits: None,
        }
    }

    /// Sets the maximum number of samples to download, which may differ from the limit of the
    /// search. The first samples found are downloaded. [`Client::collect`] rejects a limit of 0.
    ///
    /// This has no effect once the multi-download may have been submitted.
    pub fn limit(mut self, limit: u32) -> Self {
        match &self.phase {
            Phase::Search(_)
            | Phase::Fuzzy(_)
            | Phase::Attached(_)
            | Phase::New(Submission::Hunt(_) | Submission::ExactSearch(_)) => {}
            Phase::New(Submission::SamplesMultidownload(_)) => self.want(limit),
            Phase::Download(flow) if flow.to_submit().is_some() => self.want(limit),
            _ => return self,
        }
        self.limit = Some(limit);
        self
    }

    /// Prepares the multi-download of the first `limit` samples.
    fn want(&mut self, limit: u32) {
        self.found.truncate(limit as usize);
        self.phase = Phase::New(SamplesMultidownload::new(&self.found).into());
    }

    /// Sets the limits for the contents of the archive. The default is [`Limits::default`], raised
    /// to allow at least one entry for each requested sample. Limits are not stored with the state.
    ///
    /// If the archive exceeds a limit, verification fails or reports entries as damaged. The file
    /// is kept, because it was paid for. To read it, set higher limits, and call
    /// [`Collect::verify`].
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// Sets the interval between polls of a job. The default is 5 seconds, and the minimum is 100
    /// milliseconds.
    pub fn poll_every(mut self, interval: Duration) -> Self {
        self.interval = Some(interval);
        if let Phase::Search(flow) | Phase::Download(flow) = &mut self.phase {
            flow.set_interval(interval);
        }
        self
    }

    fn paced(&self, mut flow: JobFlow) -> JobFlow {
        if let Some(interval) = self.interval {
            flow.set_interval(interval);
        }
        flow
    }

    /// Sets the folder into which [`Archive::extract`] extracts the samples. The folder must exist.
    /// By default, samples are not extracted. **The samples are malware.**
    pub fn extract(mut self, folder: impl Into<PathBuf>) -> Self {
        self.extract = Some(folder.into());
        self
    }

    /// Returns the state of the current job, if there is one.
    pub fn flow(&self) -> Option<&JobFlow> {
        match &self.phase {
            Phase::Search(flow) | Phase::Download(flow) => Some(flow),
            _ => None,
        }
    }

    /// Returns the request id of the exact search or hunt. `None` until it is known.
    pub fn search(&self) -> Option<&RequestId> {
        match &self.phase {
            Phase::Search(flow) => flow.id(),
            Phase::Attached(id) => Some(id),
            _ => self.search.as_ref(),
        }
    }

    /// Returns the request id of the multi-download. `None` until it is known.
    pub fn download(&self) -> Option<&RequestId> {
        match &self.phase {
            Phase::Download(flow) => flow.id(),
            Phase::Fetch(id) => Some(id),
            Phase::Verify { id, .. } => id.as_ref(),
            _ => None,
        }
    }

    /// Returns the path of the archive to verify. `None` until it is known.
    pub fn archive(&self) -> Option<&Path> {
        match &self.phase {
            Phase::Verify { archive, .. } => Some(archive),
            _ => None,
        }
    }

    /// Returns the folder into which the samples are extracted, if one is set.
    pub fn extracts_to(&self) -> Option<&Path> {
        self.extract.as_deref()
    }

    /// Returns the maximum number of samples to download, if there is one.
    pub fn max_samples(&self) -> Option<u32> {
        self.limit
    }

    /// Returns the samples to download. Empty until they are known.
    pub fn found(&self) -> &[Sha256] {
        &self.found
    }

    /// Uses this file as the downloaded archive. Call this method if a process ended after it
    /// renamed the archive, but before it stored the state. First check that the archive contains
    /// the samples that were [`found`](Self::found). Does nothing until
    /// [`download`](Self::download) returns an id.
    pub fn fetched(mut self, archive: impl Into<PathBuf>) -> Self {
        if let Some(id) = self.download().cloned() {
            self.phase = Phase::Verify {
                id: Some(id),
                archive: archive.into(),
                received: None,
            };
        }
        self
    }

    /// Verifies the [`archive`](Self::archive), and extracts its samples if a folder is set. Sends
    /// nothing. If `overwrite` is `true`, an extracted sample may replace a different file with the
    /// same name.
    ///
    /// # Errors
    /// Returns [`Error::Archive`] if the archive has not been downloaded, if the whole archive
    /// exceeds a limit, or if it cannot be read or extracted. If a single entry exceeds a limit,
    /// that entry is reported as damaged instead. Returns [`Error::File`] if the file cannot be
    /// opened or hashed, and [`Error::Stopped`] if the observer stops the run.
    pub fn verify(
        &mut self,
        overwrite: bool,
        mut observer: impl Observer,
    ) -> Result<Collected, Error> {
        self.verify_with(None, overwrite, None, &mut observer)
    }

    fn verify_with(
        &mut self,
        fetched: Option<Received>,
        overwrite: bool,
        run: Option<(&Client, Timestamp)>,
        observer: &mut dyn Observer,
    ) -> Result<Collected, Error> {
        let Phase::Verify {
            archive: path,
            received,
            ..
        } = &self.phase
        else {
            let error = io::Error::new(io::ErrorKind::NotFound, "it has not been downloaded");
            return Err(ArchiveError::Read(error).into());
        };
        let path = path.clone();
        let explain = |error| Error::File {
            path: path.clone(),
            error,
        };
        let received = match *received {
            Some(_) if fetched.is_some() => fetched,
            expected => {
                let found = atomic_file::digest(&path).map_err(explain)?;
                if expected.is_some_and(|expected| expected != (found.bytes, found.sha256)) {
                    let path = path.display();
                    log::warn!("{path} has changed since it was downloaded");
                }
                Some(found)
            }
        };
        let (file, total) = atomic_file::open(&path).map_err(explain)?;
        let (mut stopped, mut late) = (false, false);
        let mut watch = |bytes: u64| {
            let now = run.map(|(client, begun)| (client.clock().now(), begun));
            let elapsed = now.map_or(Duration::ZERO, |(now, begun)| now.since(begun));
            let step = Step::Verify {
                bytes: bytes.min(total),
                total,
            };
            let progress = Progress {
                collect: Some(self),
                ..Progress::new(step, elapsed, None)
            };
            stopped |= observer.observe(&progress).is_break();
            let ends = run.and_then(|(client, _)| client.deadline);
            late |= ends.zip(now).is_some_and(|(ends, (now, _))| ends <= now);
            match stopped || late {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        let _ = watch(0);
        let watched = Watched {
            file,
            bytes: 0,
            watch,
        };
        let result = self.open_archive(watched).and_then(|mut archive| {
            match &self.extract {
                Some(folder) => archive.extract(folder, overwrite),
                None => archive.check(),
            }
            .map_err(Error::from)
        });
        if stopped {
            Err(Error::Stopped)
        } else if late {
            Err(FlowError::late(GetSamples::ENDPOINT.id).into())
        } else {
            Ok(self.report(received, result?))
        }
    }

    fn open_archive<R: Read + Seek>(&self, reader: R) -> Result<Archive<R>, Error> {
        let limits = self.limits.unwrap_or_else(|| {
            let limits = Limits::default();
            let asked = self.found.len() as u64;
            Limits {
                entries: limits.entries.max(asked),
                directory_size: limits
                    .directory_size
                    .max(asked.saturating_mul(DIRECTORY_ENTRY)),
                ..limits
            }
        });
        let archive = Archive::open_with(reader, limits)?;
        let expected = self.found.iter().copied();
        Ok(if self.found.is_empty() {
            archive
        } else {
            archive.expect_samples(expected)
        })
    }

    fn report(&self, archive: Option<Received>, samples: Report) -> Collected {
        Collected {
            search: self.search.clone(),
            results: self.results.clone(),
            errors: self.errors.clone(),
            found: self.found.clone(),
            download: self.download().cloned(),
            archive,
            samples,
        }
    }
}

/// The source of the samples for [`Collect::new`]: a [`Hunt`], an [`ExactSearch`], a
/// [`FuzzySearch`], a [`SamplesMultidownload`] or a list of hashes.
#[derive(Debug, Clone)]
pub struct Source(Phase);

impl From<Submission> for Source {
    fn from(job: Submission) -> Self {
        Self(Phase::New(job))
    }
}

impl From<Vec<Sha256>> for Source {
    fn from(samples: Vec<Sha256>) -> Self {
        SamplesMultidownload::new(samples).into()
    }
}

impl From<&[Sha256]> for Source {
    fn from(samples: &[Sha256]) -> Self {
        SamplesMultidownload::new(samples).into()
    }
}

impl<const N: usize> From<[Sha256; N]> for Source {
    fn from(samples: [Sha256; N]) -> Self {
        SamplesMultidownload::new(samples).into()
    }
}

macro_rules! sources {
    ($($job:ty: $phase:ident),+) => {$(
        impl From<$job> for Source {
            fn from(job: $job) -> Self {
                Self(Phase::$phase(job.into()))
            }
        }

        impl From<&$job> for Source {
            fn from(job: &$job) -> Self {
                job.clone().into()
            }
        }
    )+};
}

sources!(FuzzySearch: Fuzzy, Hunt: New, ExactSearch: New, SamplesMultidownload: New);

impl Client {
    /// Downloads the samples from a search, a hunt or a list into `folder`, and extracts them.
    ///
    /// The archive is `samples.zip`, and each extracted file is named after its SHA-256. **The
    /// samples are malware.** The folder is created if necessary.
    ///
    /// Costs the same as [`Client::collect`]. The state of the run is not stored: for a long job,
    /// use [`Client::collect`] with an observer that stores the state.
    ///
    /// # Errors
    /// See [`Client::collect`]. If `samples.zip` exists, this fails before anything is billed. Once
    /// a job has a request id, errors are returned as [`Error::Collect`], which contains the state.
    pub fn collect_to(
        &self,
        source: impl Into<Source>,
        folder: impl AsRef<Path>,
    ) -> Result<Collected, Error> {
        let folder = folder.as_ref();
        atomic_file::create_folder(folder).map_err(|error| Error::File {
            path: folder.to_owned(),
            error,
        })?;
        let archive = OutputFile::create_new(folder.join("samples.zip"))?;
        let mut job = Collect::new(source).extract(folder);
        let result = self.collect(&mut job, archive, ());
        result.map_err(|error| match job.search().or(job.download()) {
            Some(_) => Error::Collect {
                error: error.into(),
                job: job.into(),
            },
            None => error,
        })
    }

    /// Finds samples, downloads an archive of them into `archive`, and verifies its contents.
    ///
    /// A hunt costs one hunt, and each sample costs one download. With [`Client::check_quota`], a
    /// hunt or a multi-download is not submitted if the remaining quota does not cover it. For a
    /// hunt, the quota must also cover its downloads: as many as the limit allows, or one if there
    /// is no limit.
    ///
    /// If the archive can be opened, the file is kept, even if samples are missing or damaged: see
    /// [`Collected::samples`]. If the run fails during the verification, for example at its
    /// deadline, continue with [`Collect::verify`]. If no samples are found, the run succeeds
    /// without an archive file.
    ///
    /// The observer is called during the search, the multi-download, the download and the
    /// verification. It can store the [`Collect`], so that another process can continue the run.
    ///
    /// ```no_run
    /// # fn example(client: &malquery_proto::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use malquery_proto::OutputFile;
    /// use malquery_proto::client::Collect;
    /// use malquery_proto::operations::Hunt;
    ///
    /// let hunt = Hunt::new(r#"rule gnu { strings: $a = "GNU" condition: $a }"#).limit(10);
    /// let archive = OutputFile::create_new("samples.zip")?;
    /// let collected = client.collect(&mut Collect::new(hunt), archive, ())?;
    /// for sample in &collected.samples.found {
    ///     println!("{} {} bytes", sample.sha256, sample.bytes);
    /// }
    /// for sample in &collected.samples.missing {
    ///     println!("{sample} was not found in the archive");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`Client::run_job`], [`Client::save`] and [`Collect::verify`]. If the downloaded archive
    /// cannot be opened, it is deleted, unless it exceeds a [limit](Collect::limits).
    pub fn collect(
        &self,
        job: &mut Collect,
        mut archive: OutputFile,
        mut observer: impl Observer,
    ) -> Result<Collected, Error> {
        // Check the limit and the folder first, so that the run fails before anything is billed.
        if job.limit == Some(0) {
            return Err(FlowError::from(BuildError::ZeroLimit).into());
        }
        if let Some(folder) = &job.extract {
            atomic_file::check_folder(folder).map_err(|error| Error::File {
                path: folder.clone(),
                error,
            })?;
        }
        let begun = self.clock().now();
        let mut not_found_left = 0;
        // The timeout applies to the whole run.
        let client = match self.ends(self.timeout) {
            Some(ends) => &self.clone().deadline(ends),
            None => self,
        };
        loop {
            let mut run = Run {
                begun,
                client,
                job,
                observer: &mut observer,
                stopped: false,
            };
            match run.job.phase.clone() {
                Phase::Fuzzy(search) => {
                    let reply = client.call_with(&search, &mut run);
                    let stopped = run.stopped;
                    let done = reply?.output;
                    run.job.errors = done.errors;
                    run.download(done.resources);
                    if stopped {
                        return Err(Error::Stopped);
                    }
                }
                Phase::New(submission) => {
                    let is_download = matches!(submission, Submission::SamplesMultidownload(_));
                    let flow = run.job.paced(client.job_flow(submission));
                    run.job.phase = if is_download {
                        Phase::Download(flow)
                    } else {
                        Phase::Search(flow)
                    };
                }
                Phase::Attached(id) => {
                    let flow = JobFlow::attach(id, client.retry, client.seed());
                    run.job.phase = Phase::Search(run.job.paced(flow));
                }
                Phase::Search(mut flow) => {
                    if let Some(submission @ Submission::Hunt(_)) = flow.to_submit() {
                        // Do not spend a hunt if its results cannot be downloaded.
                        let downloads = run.job.limit.map_or(1, u64::from);
                        let cost = Cost {
                            downloads,
                            ..submission.cost()
                        };
                        client.guard_submission(submission, cost, client.deadline)?;
                    }
                    let result = client.run_guarded(&mut flow, client.deadline, &mut run);
                    let stopped = run.stopped;
                    run.job.search = flow.id().cloned();
                    run.job.phase = Phase::Search(flow);
                    let done = result?.output;
                    run.job.errors = done.errors;
                    run.download(done.resources);
                    // The observer stopped the run at the step that also ended the search.
                    if stopped {
                        return Err(Error::Stopped);
                    }
                }
                Phase::NothingFound => return Ok(job.report(None, Report::default())),
                Phase::Download(mut flow) => {
                    let result = client.run_within(&mut flow, None, &mut run);
                    let stopped = run.stopped;
                    let id = flow.id().cloned();
                    job.phase = Phase::Download(flow);
                    job.errors.extend(result?.output.errors);
                    if let Some(id) = id {
                        job.phase = Phase::Fetch(id);
                        not_found_left = MAX_NOT_FOUND;
                    }
                    if stopped {
                        return Err(Error::Stopped);
                    }
                }
                Phase::Fetch(id) => {
                    let operation = GetSamples::new(id.clone());
                    let received = match client.fetch(&operation, &mut archive, &mut run) {
                        // The job has just ended, so its archive may take a moment to appear.
                        Err(error) if not_found_left > 0 && is_missing(&error) => {
                            not_found_left -= 1;
                            let pause = job.interval.unwrap_or(ARCHIVE_PAUSE).max(MIN_INTERVAL);
                            client.pause(pause)?;
                            continue;
                        }
                        result => result?,
                    };
                    // Keep an archive that can be opened or that exceeds a limit: it was paid for.
                    match job.open_archive(archive.reader()?) {
                        Ok(_) | Err(Error::Archive(ArchiveError::Limit { .. })) => {}
                        Err(error) => return Err(error),
                    }
                    let (path, overwrite) = (archive.path().to_owned(), archive.overwrites());
                    archive.finish()?;
                    job.phase = Phase::Verify {
                        id: Some(id),
                        archive: path,
                        received: Some((received.bytes, received.sha256)),
                    };
                    let run = Some((client, begun));
                    return job.verify_with(Some(received), overwrite, run, &mut observer);
                }
                Phase::Verify { .. } => {
                    let run = Some((client, begun));
                    return job.verify_with(None, archive.overwrites(), run, &mut observer);
                }
            }
        }
    }
}

/// Returns whether the error means that the archive does not exist or is not ready.
fn is_missing(error: &Error) -> bool {
    let kind = error.api().map(ApiError::kind);
    matches!(kind, Some(ApiErrorKind::NotFound | ApiErrorKind::NotReady))
}

/// A running [`Collect`] and its observer.
struct Run<'a> {
    begun: Timestamp,
    client: &'a Client,
    job: &'a mut Collect,
    observer: &'a mut dyn Observer,
    stopped: bool,
}

impl Run<'_> {
    /// Prepares the multi-download of the samples in the results, if there are any. Drops
    /// duplicates, and samples beyond the limit.
    fn download(&mut self, results: Vec<Sample>) {
        let job = &mut *self.job;
        let mut seen = HashSet::new();
        for result in &results {
            let nested = result.samples();
            let named = std::iter::once(result)
                .chain(&nested)
                .filter_map(|sample| sample.sha256);
            job.found
                .extend(named.filter(|sha256| seen.insert(*sha256)));
        }
        job.found
            .truncate(job.limit.map_or(usize::MAX, |limit| limit as usize));
        job.results = results;
        job.phase = if job.found.is_empty() {
            Phase::NothingFound
        } else {
            let download = SamplesMultidownload::new(&job.found);
            Phase::Download(job.paced(self.client.job_flow(download)))
        };
    }
}

impl Observer for Run<'_> {
    fn observe(&mut self, progress: &Progress<'_>) -> ControlFlow<()> {
        if let (Phase::Search(flow) | Phase::Download(flow), Some(job)) =
            (&mut self.job.phase, progress.job)
        {
            flow.clone_from(job);
        }
        let elapsed = self.client.clock().now().since(self.begun);
        let decision = self.observer.observe(&Progress {
            elapsed,
            collect: Some(self.job),
            ..*progress
        });
        self.stopped = decision.is_break();
        decision
    }
}

/// A reader that passes the number of bytes read so far to a callback, which can stop it.
struct Watched<W> {
    file: File,
    bytes: u64,
    watch: W,
}

impl<W: FnMut(u64) -> ControlFlow<()>> Read for Watched<W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.bytes += count as u64;
        match (self.watch)(self.bytes) {
            ControlFlow::Continue(()) => Ok(count),
            ControlFlow::Break(()) => Err(io::Error::other("the callback stopped the read")),
        }
    }
}

impl<W> Seek for Watched<W> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_downloaded_archive_is_hashed_once() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/archives");
        let path = folder.join("zipcrypto-several.zip");
        let hashed = atomic_file::digest(&path).unwrap();
        // A hash from the download that differs from the hash of the file.
        let downloaded = Received {
            sha256: Sha256::from_bytes([7; 32]),
            ..hashed
        };
        for (known, expected) in [(Some(downloaded), downloaded), (None, hashed)] {
            let mut job = Collect::at(Phase::Verify {
                id: None,
                archive: path.clone(),
                received: Some((downloaded.bytes, downloaded.sha256)),
            });
            let collected = job.verify_with(known, false, None, &mut ()).unwrap();
            assert_eq!(collected.archive, Some(expected));
        }
    }
}
