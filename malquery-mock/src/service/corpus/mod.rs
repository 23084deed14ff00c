//! The samples that a service searches.

mod annotations;
mod file_type;
mod scan;
mod source;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::HashSet;
use std::io::{self, Read};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::{fmt, fs};

use malquery_proto::types::{Date, Label, Md5, Pattern, Sha1, Sha256};
#[cfg(feature = "yara")]
pub(crate) use malquery_proto::yara::Rule;

use annotations::{Annotation, Annotations};
use scan::Scan;
use source::{Opened, Source, Stamp};

/// The maximum number of attempts to read a file that changes while it is being read.
const TRIES: usize = 3;

/// The samples of a [`Service`](super::Service): the files in a folder, single files, or bytes in
/// memory. Clones share the samples.
///
/// Files are listed when the corpus is created, and read when a request needs them. They are never
/// modified. A changed file is a new sample. On systems other than Unix, a change that keeps the
/// size and the modification time may go undetected. If several samples have the same content, a
/// search reports only one of them. A search skips files that are gone or cannot be read, and lists
/// up to 10 of them in `errors`. It fails if the path passed to [`open`](Self::open) is no longer
/// accessible.
///
/// A search reads files of any size in chunks. A hunt holds up to one whole file per processor in
/// memory. It skips samples that exceed 256 MiB or on which the rule runs longer than 60 seconds.
///
/// # File types
///
/// The type of a sample is detected from its content. It is `PE32`, `PE64`, `elf32`, `elf64`,
/// `macho`, `pdf`, `doc`, `docx`, `xls`, `xlsx`, `ppt`, `pptx`, `rtf`, `hwp`, `cdfv2` (other
/// compound documents), `html`, `email`, `perl`, `python`, `pythonc`, `java.arc`, `cjava`,
/// `dalvik`, `lnk`, `swf`, `pcap` or `text`, or `data` for anything else. Filters ignore case.
///
/// # Labels and dates
///
/// By default, a file has no label, and its first-seen date is the day of its last modification, in
/// UTC. In a folder passed to [`open`](Self::open), the file `malquery-corpus.json` overrides these
/// values, by relative path (with slashes) or by SHA-256. The values for a SHA-256 take precedence
/// over those for a path, but `submitted_by_customer` is true if either value is.
/// `malquery-corpus.json` itself is not a sample. All its keys are optional:
///
/// ```json
/// { "path": { "tools/nc.exe": { "label": "unwanted", "submitted_by_customer": true } },
///   "sha256": { "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08":
///     { "first_seen": "2020/06/09", "label": "malware", "family": "demo" } } }
/// ```
///
/// ```
/// use malquery_mock::{Corpus, CorpusSample};
/// use malquery_proto::types::Label;
///
/// let corpus = Corpus::from_bytes([
///     CorpusSample::new("one").label(Label::Malware).first_seen("2020/06/09".parse()?),
///     CorpusSample::new("two"),
/// ]);
/// assert_eq!(corpus.len(), 2);
/// # Ok::<(), malquery_proto::types::ParseError>(())
/// ```
#[derive(Clone)]
pub struct Corpus(Arc<Inner>);

#[derive(Default)]
struct Inner {
    name: String,
    /// The path passed to [`Corpus::open`].
    root: Option<PathBuf>,
    samples: Vec<Arc<Slot>>,
    annotations: Annotations,
    skipped: Vec<Skipped>,
}

/// A file or a sample in memory.
struct Slot {
    source: Source,
    annotation: Annotation,
    /// The hashes, and the stamp of the file when it was hashed.
    known: Mutex<Option<(Stamp, Hashes)>>,
}

#[derive(Clone, Copy)]
pub(crate) struct Hashes {
    pub(crate) sha256: Sha256,
    pub(crate) sha1: Sha1,
    pub(crate) md5: Md5,
}

/// A sample in memory, for [`Corpus::from_bytes`].
#[derive(Debug, Clone)]
pub struct CorpusSample {
    bytes: Vec<u8>,
    annotation: Annotation,
}

impl CorpusSample {
    /// Creates a sample with these bytes. By default, it has no label, and its first-seen date is
    /// 1970/01/01.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            bytes: bytes.into(),
            annotation: Annotation::default(),
        }
    }

    /// Sets the day on which the sample was first seen.
    pub fn first_seen(mut self, day: Date) -> Self {
        self.annotation.first_seen = Some(day);
        self
    }

    /// Sets the label.
    pub fn label(mut self, label: Label) -> Self {
        self.annotation.label = Some(label);
        self
    }

    /// Marks the sample as submitted by the customer. If a search sets the option
    /// `submitted_by_customer` to `true`, it selects only such samples.
    pub fn submitted_by_customer(mut self) -> Self {
        self.annotation.submitted_by_customer = true;
        self
    }

    /// Sets the malware family.
    pub fn family(mut self, family: impl Into<String>) -> Self {
        self.annotation.family = Some(family.into());
        self
    }
}

impl From<Vec<u8>> for CorpusSample {
    fn from(bytes: Vec<u8>) -> Self {
        Self::new(bytes)
    }
}

impl Corpus {
    /// Creates a corpus of the files in a folder and its subfolders, or of a single file.
    ///
    /// Symbolic links are not followed, but `folder` itself may be one. Only regular files are
    /// samples. Paths that cannot be listed are skipped and returned by [`skipped`](Self::skipped).
    ///
    /// # Errors
    /// Fails if `folder` is neither a folder nor a regular file, or cannot be listed. Also fails if
    /// `malquery-corpus.json` exists but is not a readable regular file, is invalid, or names a
    /// path that is not in the corpus.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, CorpusError> {
        let root = folder.as_ref();
        let (mut files, skipped) = source::list(root)?;
        let mut annotations = Annotations::load(root, &mut files)?;
        let mut samples = Vec::with_capacity(files.len());
        for path in files {
            let annotation = annotations.take(root, &path);
            samples.push(Slot::new(Source::File(path), annotation));
        }
        annotations.check(root)?;
        Ok(Self(Arc::new(Inner {
            name: root.display().to_string(),
            root: Some(root.to_owned()),
            samples,
            annotations,
            skipped,
        })))
    }

    /// Creates a corpus of samples in memory. Each is a `Vec<u8>` or a [`CorpusSample`], which can
    /// have a label and a date.
    pub fn from_bytes<S: Into<CorpusSample>>(samples: impl IntoIterator<Item = S>) -> Self {
        let slot = |sample: S| {
            let CorpusSample { bytes, annotation } = sample.into();
            Slot::new(Source::Memory(bytes.into()), annotation)
        };
        Self(Arc::new(Inner {
            name: "in memory".into(),
            samples: samples.into_iter().map(slot).collect(),
            ..Inner::default()
        }))
    }

    /// Creates a corpus from the paths of files and folders. Paths that cannot be listed are
    /// skipped and returned by [`skipped`](Self::skipped). Any `malquery-corpus.json` is treated as
    /// an ordinary sample.
    pub fn from_paths(paths: impl IntoIterator<Item = impl AsRef<Path>>) -> Self {
        let (mut samples, mut skipped) = (Vec::new(), Vec::new());
        for path in paths {
            match source::list(path.as_ref()) {
                Ok((files, more)) => {
                    let slot = |file| Slot::new(Source::File(file), Annotation::default());
                    samples.extend(files.into_iter().map(slot));
                    skipped.extend(more);
                }
                Err(error) => skipped.push(error.into()),
            }
        }
        Self(Arc::new(Inner {
            name: format!("{} files", samples.len()),
            samples,
            skipped,
            ..Inner::default()
        }))
    }

    /// Returns the number of samples, including duplicates.
    pub fn len(&self) -> usize {
        self.0.samples.len()
    }

    /// Returns whether [`len`](Self::len) is 0.
    pub fn is_empty(&self) -> bool {
        self.0.samples.is_empty()
    }

    /// Returns the paths that could not be listed when the corpus was created. Symbolic links and
    /// special files inside a folder are not among them.
    pub fn skipped(&self) -> &[Skipped] {
        &self.0.skipped
    }

    /// Returns the samples that contain all the patterns and pass the filter.
    pub(crate) fn search(&self, patterns: &[Pattern], options: &Filter) -> io::Result<Found> {
        let scan = Scan::new(patterns);
        self.select(options, |opened, buffer| scan.run(opened, buffer))
    }

    /// Returns the samples that match a YARA rule and pass the filter.
    #[cfg(feature = "yara")]
    pub(crate) fn hunt(&self, rule: &Rule, options: &Filter) -> io::Result<Found> {
        self.select(options, |opened, buffer| scan::hunt(rule, opened, buffer))
    }

    /// Returns the sample with this hash. If it is not found, returns the samples that could not be
    /// read. This may hash all samples.
    pub(crate) fn find(&self, sha256: &Sha256) -> io::Result<Result<Entry, Vec<Skipped>>> {
        self.check_root()?;
        let find = |slot: &Arc<Slot>, buffer: &mut Vec<u8>| {
            slot.read(|opened| match slot.hashes(opened, buffer)? {
                hashes if hashes.sha256 == *sha256 => self.entry(slot, opened, buffer).map(Some),
                _ => Ok(None),
            })
        };
        let mut buffer = Vec::new();
        let cached = |slot: &&Arc<Slot>| {
            let known = *slot.known();
            known.is_some_and(|(_, hashes)| hashes.sha256 == *sha256)
        };
        for slot in self.0.samples.iter().filter(cached) {
            if let Ok(Some(entry)) = find(slot, &mut buffer) {
                return Ok(Ok(entry));
            }
        }
        let (entries, skipped) = self.each(true, find)?;
        Ok(entries.into_iter().next().ok_or(skipped))
    }

    fn select(
        &self,
        options: &Filter,
        matches: impl Fn(&mut Opened, &mut Vec<u8>) -> io::Result<bool> + Sync,
    ) -> io::Result<Found> {
        self.check_root()?;
        let date_needs_hash = self.0.annotations.has_dates();
        let (mut entries, skipped) = self.each(false, |slot, buffer| {
            slot.read(|opened| {
                // Run the cheap checks first. The date may depend on the hash.
                if !options.has_size(opened.stamp.size)
                    || (!date_needs_hash && !options.has_date(slot.first_seen(opened.stamp)))
                    || !(options.filetypes.is_empty()
                        || options.has_type(file_type::detect(opened)?))
                    || !matches(opened, buffer)?
                {
                    return Ok(None);
                }
                let entry = self.entry(slot, opened, buffer)?;
                let wanted =
                    options.has_date(entry.first_seen) && (entry.is_own || !options.own_only);
                Ok(wanted.then_some(entry))
            })
        })?;
        let mut seen = HashSet::with_capacity(entries.len());
        entries.retain(|entry| seen.insert(entry.hashes.sha256));
        entries.sort_by_key(|entry| Reverse(entry.first_seen));
        let total = entries.len();
        entries.truncate(options.limit.unwrap_or(usize::MAX));
        Ok(Found {
            entries,
            total,
            skipped,
        })
    }

    /// Runs `work` on the samples in parallel. Returns the results and the skipped samples, in the
    /// order of the corpus. With `first`, stops soon after the first result.
    fn each(
        &self,
        first: bool,
        work: impl Fn(&Arc<Slot>, &mut Vec<u8>) -> io::Result<Option<Entry>> + Sync,
    ) -> io::Result<(Vec<Entry>, Vec<Skipped>)> {
        let samples = &self.0.samples;
        let next = AtomicUsize::new(0);
        let enough = AtomicBool::new(false);
        let run = || {
            let (mut results, mut buffer) = (Vec::new(), Vec::new());
            // Samples are taken in order, so every sample before the first result is searched.
            while !enough.load(Ordering::Relaxed) {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(slot) = samples.get(index) else {
                    break;
                };
                // A hostile file that makes a parser panic must not end the search.
                let result = panic::catch_unwind(AssertUnwindSafe(|| work(slot, &mut buffer)));
                match result.unwrap_or_else(|_| Err(io::Error::other("the search panicked"))) {
                    Ok(Some(entry)) => {
                        results.push((index, Ok(entry)));
                        enough.fetch_or(first, Ordering::Relaxed);
                    }
                    Ok(None) => {}
                    Err(error) => {
                        let path = match &slot.source {
                            Source::File(path) => Some(path.clone()),
                            Source::Memory(_) => None,
                        };
                        let why = error.to_string();
                        results.push((index, Err(Skipped { path, why })));
                    }
                }
            }
            results
        };
        let threads = thread::available_parallelism()
            .map_or(1, usize::from)
            .min(samples.len());
        let mut results = thread::scope(|scope| {
            let helpers: Vec<_> = (1..threads)
                .map_while(|_| thread::Builder::new().spawn_scoped(scope, run).ok())
                .collect();
            let mut results = run();
            for helper in helpers {
                let more = helper.join();
                results.extend(more.map_err(|_| io::Error::other("a search thread panicked"))?);
            }
            io::Result::Ok(results)
        })?;
        results.sort_unstable_by_key(|(index, _)| *index);
        let (mut found, mut skipped) = (Vec::new(), Vec::new());
        for (_, result) in results {
            match result {
                Ok(entry) => found.push(entry),
                Err(file) => skipped.push(file),
            }
        }
        Ok((found, skipped))
    }

    fn entry(
        &self,
        slot: &Arc<Slot>,
        opened: &mut Opened,
        buffer: &mut Vec<u8>,
    ) -> io::Result<Entry> {
        let hashes = slot.hashes(opened, buffer)?;
        let annotation = self
            .0
            .annotations
            .of(&hashes.sha256)
            .unwrap_or(&slot.annotation);
        let by_path = &slot.annotation;
        Ok(Entry {
            slot: slot.clone(),
            stamp: opened.stamp,
            hashes,
            filetype: file_type::detect(opened)?,
            first_seen: annotation
                .first_seen
                .unwrap_or_else(|| slot.first_seen(opened.stamp)),
            is_own: annotation.submitted_by_customer || by_path.submitted_by_customer,
            label: annotation.label.clone().or_else(|| by_path.label.clone()),
            family: annotation.family.clone().or_else(|| by_path.family.clone()),
        })
    }

    /// Fails if `root` is no longer accessible.
    fn check_root(&self) -> io::Result<()> {
        match self.0.root.as_ref().map(fs::metadata) {
            Some(Err(error)) => Err(io::Error::new(
                error.kind(),
                format!("{}: {error}", self.0.name),
            )),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Corpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Corpus({}, {} samples)", self.0.name, self.len())
    }
}

impl Slot {
    fn new(source: Source, annotation: Annotation) -> Arc<Self> {
        Arc::new(Self {
            source,
            annotation,
            known: Mutex::default(),
        })
    }

    fn known(&self) -> MutexGuard<'_, Option<(Stamp, Hashes)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the sample and runs `work`, up to [`TRIES`] times while the sample keeps changing.
    fn read<T>(&self, mut work: impl FnMut(&mut Opened) -> io::Result<T>) -> io::Result<T> {
        for _ in 0..TRIES {
            let mut opened = self.source.open()?;
            let result = work(&mut opened);
            if opened.is_unchanged()? {
                return result;
            }
        }
        Err(io::Error::other(
            "the file keeps changing while it is being read",
        ))
    }

    fn hashes(&self, opened: &mut Opened, buffer: &mut Vec<u8>) -> io::Result<Hashes> {
        if let Some((stamp, hashes)) = *self.known()
            && stamp == opened.stamp
        {
            return Ok(hashes);
        }
        let hashes = scan::hash(opened, buffer)?;
        if opened.is_settled()? {
            *self.known() = Some((opened.stamp, hashes));
        }
        Ok(hashes)
    }

    /// Returns the day on which the sample was first seen. Ignores annotations by hash.
    fn first_seen(&self, stamp: Stamp) -> Date {
        self.annotation.first_seen.unwrap_or_else(|| stamp.day())
    }
}

/// The filter of a search. Ranges are inclusive.
#[derive(Default)]
pub(crate) struct Filter {
    /// The file types to select. An empty list selects all types.
    pub(crate) filetypes: Vec<String>,
    pub(crate) min_date: Option<Date>,
    pub(crate) max_date: Option<Date>,
    pub(crate) min_size: Option<u64>,
    pub(crate) max_size: Option<u64>,
    pub(crate) limit: Option<usize>,
    /// Whether to select only samples that the customer submitted.
    pub(crate) own_only: bool,
}

impl Filter {
    fn has_size(&self, size: u64) -> bool {
        self.min_size.is_none_or(|min| min <= size) && self.max_size.is_none_or(|max| size <= max)
    }

    fn has_date(&self, date: Date) -> bool {
        self.min_date.is_none_or(|min| min <= date) && self.max_date.is_none_or(|max| date <= max)
    }

    fn has_type(&self, filetype: &str) -> bool {
        self.filetypes
            .iter()
            .any(|wanted| wanted.eq_ignore_ascii_case(filetype))
    }
}

pub(crate) struct Found {
    /// The samples up to the limit, without duplicates, newest first. Ties keep the corpus order.
    pub(crate) entries: Vec<Entry>,
    /// The number of matches, including those beyond the limit.
    pub(crate) total: usize,
    /// The samples that could not be searched.
    pub(crate) skipped: Vec<Skipped>,
}

/// A sample in the state in which it was found.
pub(crate) struct Entry {
    slot: Arc<Slot>,
    stamp: Stamp,
    pub(crate) hashes: Hashes,
    pub(crate) filetype: &'static str,
    pub(crate) first_seen: Date,
    is_own: bool,
    pub(crate) label: Option<Label>,
    pub(crate) family: Option<String>,
}

impl Entry {
    pub(crate) fn size(&self) -> u64 {
        self.stamp.size
    }

    /// Opens the sample for reading. Fails if the file has changed since it was found. If the file
    /// changes while it is being read, the read at the end of the file fails.
    pub(crate) fn open(&self) -> io::Result<impl Read + Send + use<>> {
        let opened = self.slot.source.open()?;
        if opened.stamp != self.stamp {
            return Err(source::changed());
        }
        Ok(Checked(opened))
    }
}

/// Reads a sample. Fails at its end if the file has changed since it was opened.
struct Checked(Opened);

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 if !buffer.is_empty() && !self.0.is_unchanged()? => Err(source::changed()),
            count => Ok(count),
        }
    }
}

/// A skipped file, folder or in-memory sample.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Skipped {
    /// The path, or `None` for a sample in memory.
    pub path: Option<PathBuf>,
    /// The reason the file, folder or sample was skipped.
    pub why: String,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{}: {}", path.display(), self.why),
            None => write!(f, "a sample in memory: {}", self.why),
        }
    }
}

/// The error returned when a corpus cannot be opened.
#[derive(Debug)]
pub struct CorpusError {
    path: PathBuf,
    why: String,
    source: Option<io::Error>,
}

impl CorpusError {
    fn new(path: impl Into<PathBuf>, why: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            why: why.into(),
            source: None,
        }
    }

    fn io(path: &Path, source: io::Error) -> Self {
        Self {
            source: Some(source),
            ..Self::new(path, "cannot be read")
        }
    }
}

impl From<CorpusError> for Skipped {
    fn from(error: CorpusError) -> Self {
        Self {
            path: Some(error.path),
            why: error.source.map_or(error.why, |source| source.to_string()),
        }
    }
}

impl fmt::Display for CorpusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.why)
    }
}

impl std::error::Error for CorpusError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|error| error as _)
    }
}
