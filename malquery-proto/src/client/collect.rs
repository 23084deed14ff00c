use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Client, Clock, Error, JobStep, Transport};
use crate::archive::{Archive, ArchiveError, Limits, Report};
use crate::endpoint::Cost;
use crate::flow::{FlowError, JobFlow, Submission, Version};
use crate::fs::{OutputFile, check_folder, digest, open};
use crate::operations::{GetSamples, SamplesMultidownload};
use crate::request::BuildError;
use crate::stream::Received;
use crate::types::{ErrorItem, RequestId, Sample, Sha256};

/// Bytes of a sample in the directory of an archive, with a name that is a SHA-256 and all that formats add to it.
const DIRECTORY_ENTRY: u64 = 400;

/// The whole job, and how far it is: search or hunt, schedule the samples that were found, wait, fetch the archive,
/// and verify what is in it. [`Client::collect`] runs it.
///
/// It serialises as a [`JobFlow`] does, so that a job that was paid for survives a restart. After an error the same
/// value goes on where it was: nothing is submitted twice. Once the archive is there, [`Collect::verify`] goes on without
/// a request.
///
/// ```
/// # fn example<T: malquery_proto::Transport, C: malquery_proto::Clock>(
/// #     client: &malquery_proto::Client<T, C>,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// use std::ops::ControlFlow;
///
/// use malquery_proto::OutputFile;
/// use malquery_proto::client::Collect;
///
/// // `state.json` was written by the observer of a former run, with `serde_json::to_vec(job)`.
/// let mut job: Collect = serde_json::from_slice(&std::fs::read("state.json")?)?;
/// let collected = if job.archive().is_some() {
///     job.verify(false, |_, _| ControlFlow::Continue(()))?
/// } else {
///     let archive = OutputFile::create("samples.zip", false)?;
///     client.collect(&mut job, archive, |job, _| match std::fs::write("state.json", store(job)) {
///         Ok(()) => ControlFlow::Continue(()),
///         Err(_) => ControlFlow::Break(()),
///     })?
/// };
/// # let _ = collected;
/// # fn store(job: &Collect) -> Vec<u8> { serde_json::to_vec(job).unwrap_or_default() }
/// # Ok(())
/// # }
/// ```
///
/// A submission that was under way when its process died may have been billed, and is not sent again: the error is
/// [`FlowError::OutcomeUnknown`](crate::flow::FlowError::OutcomeUnknown). Compare the quotas, then begin anew, with [`Collect::attach`] if
/// the search has an id.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[must_use]
pub struct Collect {
    version: Version,
    phase: Phase,
    limit: Option<u32>,
    interval: Option<Duration>,
    extract: Option<PathBuf>,
    search: Option<RequestId>,
    found: Vec<Sha256>,
    /// Too much to be stored in every step.
    #[serde(skip)]
    results: Vec<Sample>,
    #[serde(skip)]
    errors: Vec<ErrorItem>,
    /// Of this process, as a deadline is.
    #[serde(skip)]
    limits: Option<Limits>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
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

/// What the observer of a [`Collect`] is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CollectStep {
    /// The job under way, [`Collect::flow`], takes this step.
    Job(JobStep),
    /// So many bytes of the archive were fetched, of a total that may be known.
    #[allow(missing_docs)]
    Fetch { bytes: u64, total: Option<u64> },
    /// So many bytes of the archive were verified, and extracted where that is wanted. It begins with 0, when the archive
    /// has got its name.
    #[allow(missing_docs)]
    Verify { bytes: u64, total: u64 },
}

/// What became of a [`Collect`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Collected {
    /// The id of the search or hunt, if there was one.
    pub search: Option<RequestId>,
    /// Its results; none when the search was done by another process, before this one went on.
    pub results: Vec<Sample>,
    /// What the service said went wrong in part in the search or in the download, as far as this process was told.
    pub errors: Vec<ErrorItem>,
    /// The samples that were found, each once: those of the results that have a SHA-256, and no more than the limit
    /// of the search.
    pub found: Vec<Sha256>,
    /// The id of the multi-download; `None` when nothing was found.
    pub download: Option<RequestId>,
    /// The archive as it is in the output file; `None` when nothing was found, and there is no file, or when it was not
    /// fetched by this [`Collect`].
    pub archive: Option<Received>,
    /// What is in the archive, and what is missing there.
    pub samples: Report,
}

impl Collect {
    /// Collects what a hunt or an exact search finds, or the samples of a multi-download.
    ///
    /// **Each sample costs a download.** No more are downloaded than the limit of the search; without one it is all that the
    /// search finds, which may be more than the quota of a month. See [`Collect::limit`] and [`Client::check_quota`].
    /// Every result is asked for its SHA-256, whatever fields were selected.
    pub fn new(job: impl Into<Submission>) -> Self {
        let mut job = job.into();
        let limit = match &mut job {
            Submission::Hunt(hunt) => {
                hunt.want_sha256();
                hunt.most()
            }
            Submission::ExactSearch(search) => {
                search.want_sha256();
                search.most()
            }
            Submission::SamplesMultidownload(_) => None,
        };
        let found = match &job {
            Submission::SamplesMultidownload(download) => download.samples().to_vec(),
            _ => Vec::new(),
        };
        Self {
            limit,
            found,
            ..Self::at(Phase::New(job))
        }
    }

    /// Collects what a search or hunt finds that was submitted before. It may still be running.
    pub fn attach(search: RequestId) -> Self {
        Self::at(Phase::Attached(search))
    }

    /// Collects the archive of a multi-download that is done. Since it is not known what it should hold, all that it
    /// does hold counts as found.
    pub fn fetch(id: RequestId) -> Self {
        Self::at(Phase::Fetch(id))
    }

    /// Verifies an archive that is there already: see [`Collect::verify`]. All that it holds counts as found.
    pub fn unpack(archive: impl Into<PathBuf>) -> Self {
        Self::at(Phase::Verify {
            id: None,
            archive: archive.into(),
            received: None,
        })
    }

    fn at(phase: Phase) -> Self {
        let results = Vec::new();
        Self {
            version: Version::default(),
            phase,
            limit: None,
            interval: None,
            extract: None,
            search: None,
            found: Vec::new(),
            results,
            errors: Vec::new(),
            limits: None,
        }
    }

    /// Downloads no more than so many samples, whatever the limit of the search is: the first of those that are found, or of
    /// a multi-download. Once that is submitted it comes too late, and changes nothing. A limit of 0 is refused by
    /// [`Client::collect`].
    pub fn limit(mut self, limit: u32) -> Self {
        match &self.phase {
            Phase::Search(_)
            | Phase::Attached(_)
            | Phase::New(Submission::Hunt(_) | Submission::ExactSearch(_)) => {}
            Phase::New(Submission::SamplesMultidownload(_)) => self.want(limit),
            Phase::Download(flow) if flow.to_submit().is_some() => self.want(limit),
            _ => return self,
        }
        self.limit = Some(limit);
        self
    }

    /// Schedules the first of the samples that were found.
    fn want(&mut self, limit: u32) {
        self.found.truncate(limit as usize);
        self.phase = Phase::New(SamplesMultidownload::new(self.found.iter().copied()).into());
    }

    /// What may come out of the archive: the [default limits](Limits) unless set, with as many entries as samples were asked
    /// for. They are not stored with the rest.
    ///
    /// An archive that exceeds them is refused, and kept: it was paid for. [`Collect::verify`] takes it up with others.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// Asks this often whether a job is done: every 5 seconds unless set.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = Some(interval);
        if let Phase::Search(flow) | Phase::Download(flow) = &mut self.phase {
            flow.set_interval(interval);
        }
        self
    }

    /// Also writes each sample into this folder, which has to exist, as [`Archive::extract`] does. **What it writes is
    /// malware.**
    pub fn extract(mut self, folder: impl Into<PathBuf>) -> Self {
        self.extract = Some(folder.into());
        self
    }

    /// The job that is waited for, if there is one.
    pub fn flow(&self) -> Option<&JobFlow> {
        match &self.phase {
            Phase::Search(flow) | Phase::Download(flow) => Some(flow),
            _ => None,
        }
    }

    /// The id of the search or hunt, once it is done.
    pub fn search(&self) -> Option<&RequestId> {
        self.search.as_ref()
    }

    /// The id of the multi-download, once it is submitted.
    pub fn download(&self) -> Option<&RequestId> {
        match &self.phase {
            Phase::Download(flow) => flow.id(),
            Phase::Fetch(id) => Some(id),
            Phase::Verify { id, .. } => id.as_ref(),
            _ => None,
        }
    }

    /// The archive, once it is there.
    pub fn archive(&self) -> Option<&Path> {
        match &self.phase {
            Phase::Verify { archive, .. } => Some(archive),
            _ => None,
        }
    }

    /// The folder for the samples, if they are to be extracted.
    pub fn extracts_to(&self) -> Option<&Path> {
        self.extract.as_deref()
    }

    /// How many samples are downloaded at the most, if that is limited.
    pub fn max_samples(&self) -> Option<u32> {
        self.limit
    }

    /// The samples to be downloaded, once they are known.
    pub fn found(&self) -> &[Sha256] {
        &self.found
    }

    /// Takes the samples of the results, each once.
    fn take(&mut self, results: Vec<Sample>) {
        let mut seen = HashSet::new();
        for result in &results {
            let nested = result.samples();
            let named = std::iter::once(result)
                .chain(&nested)
                .filter_map(|sample| sample.sha256);
            self.found
                .extend(named.filter(|sha256| seen.insert(*sha256)));
        }
        self.found
            .truncate(self.limit.map_or(usize::MAX, |limit| limit as usize));
        self.results = results;
    }

    /// Verifies the [`archive`](Self::archive), and extracts it if that is wanted: what is left to do when this was
    /// interrupted. It sends nothing. With `overwrite`, samples take the place of other files of their name.
    ///
    /// # Errors
    /// [`Error::Archive`], also when the archive was not fetched yet; [`Error::File`] when it is gone; [`Error::Stopped`].
    pub fn verify(
        &mut self,
        overwrite: bool,
        observe: impl FnMut(&Self, CollectStep) -> ControlFlow<()>,
    ) -> Result<Collected, Error> {
        let Phase::Verify {
            archive, received, ..
        } = &self.phase
        else {
            let error = io::Error::new(io::ErrorKind::NotFound, "it is not fetched yet");
            return Err(ArchiveError::Read(error).into());
        };
        // It may be another one by now.
        let received = received.map(|_| digest(archive)).transpose()?;
        self.verify_file(&archive.clone(), received, overwrite, observe)
    }

    fn verify_file(
        &mut self,
        path: &Path,
        received: Option<Received>,
        overwrite: bool,
        mut observe: impl FnMut(&Self, CollectStep) -> ControlFlow<()>,
    ) -> Result<Collected, Error> {
        let (file, total) = open(path)?;
        if observe(self, CollectStep::Verify { bytes: 0, total }).is_break() {
            return Err(Error::Stopped);
        }
        let mut stopped = false;
        let watch = |bytes: u64| {
            let step = observe(
                self,
                CollectStep::Verify {
                    bytes: bytes.min(total),
                    total,
                },
            );
            stopped |= step.is_break();
            step
        };
        let result = self
            .open_archive(Watched {
                file,
                bytes: 0,
                watch,
            })
            .and_then(|mut archive| {
                match &self.extract {
                    Some(folder) => archive.extract(folder, overwrite),
                    None => archive.check(),
                }
                .map_err(Error::from)
            });
        if stopped {
            Err(Error::Stopped)
        } else {
            Ok(self.report(received, result?))
        }
    }

    fn open_archive<R: Read + Seek>(&self, reader: R) -> Result<Archive<R>, Error> {
        let limits = self.limits.unwrap_or_else(|| {
            let limits = Limits::default();
            // It may hold as many as were asked for.
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

    fn report(&mut self, archive: Option<Received>, samples: Report) -> Collected {
        Collected {
            search: self.search.clone(),
            results: std::mem::take(&mut self.results),
            errors: std::mem::take(&mut self.errors),
            found: self.found.clone(),
            download: self.download().cloned(),
            archive,
            samples,
        }
    }
}

impl<T: Transport, C: Clock> Client<T, C> {
    /// Does the whole job: searches or hunts, schedules the samples that were found, waits, fetches the archive into a
    /// file that was made before, and verifies what is in it.
    ///
    /// A hunt costs one, and each sample a download. With [`Client::check_quota`] a job the rest of the month does not
    /// cover is refused before it costs anything: the downloads once the samples are known, and before a hunt as many as
    /// its limit, or one.
    ///
    /// The archive is kept once it can be opened, even if samples are missing or damaged: [`Collected::samples`] tells. If
    /// the run ends after that, [`Collect::verify`] takes it up. When nothing was found there is no archive, and no error.
    ///
    /// Before every request of the two jobs, after every reply to them and while bytes of the archive arrive, `observe` is
    /// shown how far it is; not of questions for the quotas, nor before the archive begins to arrive. It may store
    /// the [`Collect`], so that another process can go on with it, or end the run with [`ControlFlow::Break`].
    ///
    /// ```no_run
    /// # fn example<T: malquery_proto::Transport, C: malquery_proto::Clock>(
    /// #     client: &malquery_proto::Client<T, C>,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::ops::ControlFlow;
    ///
    /// use malquery_proto::OutputFile;
    /// use malquery_proto::client::Collect;
    /// use malquery_proto::operations::Hunt;
    /// use malquery_proto::types::SearchOptions;
    ///
    /// let hunt = Hunt::new(r#"rule gnu { strings: $a = "GNU" condition: $a }"#);
    /// let mut job = Collect::new(hunt.options(SearchOptions::new().limit(10)));
    /// let archive = OutputFile::create("samples.zip", false)?;
    /// let collected = client.collect(&mut job, archive, |_, _| ControlFlow::Continue(()))?;
    /// for sample in &collected.samples.found {
    ///     println!("{} {} bytes", sample.sha256, sample.bytes);
    /// }
    /// for sample in &collected.samples.missing {
    ///     println!("{sample} is not in the archive");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Client::run_job`] and [`Client::save`]; [`Error::Archive`] when the archive cannot be opened, and then there
    /// is no file, or when it exceeds a [limit](Collect::limits) or samples cannot be extracted, and then there is one.
    pub fn collect(
        &self,
        job: &mut Collect,
        mut archive: OutputFile,
        mut observe: impl FnMut(&Collect, CollectStep) -> ControlFlow<()>,
    ) -> Result<Collected, Error> {
        // Before anything is paid for.
        if job.limit == Some(0) {
            return Err(FlowError::from(BuildError::ZeroLimit).into());
        }
        if let Some(folder) = &job.extract {
            check_folder(folder)?;
        }
        loop {
            match job.phase.clone() {
                Phase::New(submission) => {
                    let is_download = matches!(submission, Submission::SamplesMultidownload(_));
                    let flow = self.collect_flow(job, submission);
                    job.phase = if is_download {
                        Phase::Download(flow)
                    } else {
                        Phase::Search(flow)
                    };
                }
                Phase::Search(mut flow) => {
                    if let Some(submission @ Submission::Hunt(_)) = flow.to_submit() {
                        // Results that cannot be downloaded are not worth a hunt.
                        let downloads = job.limit.map_or(1, u64::from);
                        self.guard_submission(
                            submission,
                            Cost {
                                downloads,
                                ..submission.cost()
                            },
                        )?;
                    }
                    let mut stopped = false;
                    let result = self.run_guarded(&mut flow, |flow, step| {
                        job.phase = Phase::Search(flow.clone());
                        let step = observe(job, CollectStep::Job(step));
                        stopped = step.is_break();
                        step
                    });
                    job.search = flow.id().cloned();
                    job.phase = Phase::Search(flow);
                    let done = result?.output;
                    job.errors = done.errors;
                    job.take(done.resources);
                    job.phase = if job.found.is_empty() {
                        Phase::NothingFound
                    } else {
                        let download = SamplesMultidownload::new(job.found.iter().copied());
                        Phase::Download(self.collect_flow(job, download.into()))
                    };
                    // The search was done with the very step that should have been its last.
                    if stopped {
                        return Err(Error::Stopped);
                    }
                }
                Phase::NothingFound => return Ok(job.report(None, Report::default())),
                Phase::Download(mut flow) => {
                    let mut stopped = false;
                    let result = self.run_job(&mut flow, |flow, step| {
                        job.phase = Phase::Download(flow.clone());
                        let step = observe(job, CollectStep::Job(step));
                        stopped = step.is_break();
                        step
                    });
                    let id = flow.id().cloned();
                    job.phase = Phase::Download(flow);
                    job.errors.extend(result?.output.errors);
                    if let Some(id) = id {
                        job.phase = Phase::Fetch(id);
                    }
                    if stopped {
                        return Err(Error::Stopped);
                    }
                }
                Phase::Attached(id) => {
                    let mut flow = JobFlow::attach(id, self.retry, self.seed());
                    if let Some(interval) = job.interval {
                        flow.set_interval(interval);
                    }
                    job.phase = Phase::Search(flow);
                }
                Phase::Fetch(id) => {
                    let fetched = self.fetch(
                        &GetSamples::new(id.clone()),
                        &mut archive,
                        |bytes, total| observe(job, CollectStep::Fetch { bytes, total }),
                    );
                    let received = fetched?;
                    // What can be opened appears, whatever is found in it, and so does what is too large: it was paid for.
                    match job.open_archive(archive.reader()?) {
                        Ok(_) | Err(Error::Archive(ArchiveError::Limit { .. })) => {}
                        Err(error) => return Err(error),
                    }
                    let (path, overwrite) = (archive.path().to_owned(), archive.overwrites());
                    archive.finish()?;
                    let fetched = Some((received.bytes, received.sha256));
                    job.phase = Phase::Verify {
                        id: Some(id),
                        archive: path.clone(),
                        received: fetched,
                    };
                    return job.verify_file(&path, Some(received), overwrite, observe);
                }
                Phase::Verify { .. } => return job.verify(archive.overwrites(), observe),
            }
        }
    }

    fn collect_flow(&self, job: &Collect, submission: Submission) -> JobFlow {
        let mut flow = self.job_flow(submission);
        if let Some(interval) = job.interval {
            flow.set_interval(interval);
        }
        flow
    }
}

/// A file whose reader is told how far it is, and may stop it.
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
            ControlFlow::Break(()) => Err(io::Error::other("stopped")),
        }
    }
}

impl<W> Seek for Watched<W> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}
