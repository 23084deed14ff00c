//! The archive of samples that [`GetSamples`](crate::operations::GetSamples) fetches: a zip with
//! the password `infected`.
//!
//! [`Archive`] lists the entries, reads each as a stream and identifies it by its SHA-256. It does
//! not believe what an archive says about itself: it counts the bytes as it unpacks them, and it
//! reports names but never uses them.
//!
//! ```
//! use std::io::Cursor;
//!
//! use malquery_proto::archive::Archive;
//! use malquery_proto::types::Sha256;
//!
//! // One entry, `greeting.txt`, with the bytes "hello". Usually you open a file.
//! let file = Cursor::new(include_bytes!("../../tests/archives/zipcrypto-stored.zip"));
//! let hello: Sha256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824".parse()?;
//! let other: Sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".parse()?;
//!
//! let mut archive = Archive::open(file)?.expect_samples([hello, other]);
//! assert_eq!(archive.entries()[0].name().to_string(), "greeting.txt");
//!
//! let report = archive.check()?;
//! assert_eq!(report.found[0].sha256, hello);
//! assert_eq!(report.missing, [other]);
//! assert!(!report.is_complete());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Archive::extract`] writes the samples into a folder, each under its SHA-256:
//!
//! ```
//! # use std::io::Cursor;
//! # use malquery_proto::archive::Archive;
//! # let file = Cursor::new(include_bytes!("../../tests/archives/zipcrypto-stored.zip"));
//! # let parent = tempfile::tempdir()?;
//! # let folder = parent.path();
//! let report = Archive::open(file)?.extract(folder, false)?.complete()?;
//! for sample in &report.found {
//!     println!("{} {}", sample.sha256, sample.bytes);
//! }
//! let name = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
//! assert_eq!(std::fs::read(folder.join(name))?, b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Limits
//!
//! See [`Limits`]. An archive that declares more is refused before it is read, and one that unpacks
//! to more is refused while it is read. An entry that is too large by itself is reported as
//! damaged, and the others are read. An archive whose entries share bytes is refused, and an entry
//! that unpacks to more than it declares is damaged. An archive within an archive is a sample like
//! any other: it is not opened.
//!
//! # Costs
//!
//! Opening reads the directory, at the end of the archive, and the head of each entry. These are
//! small reads with a seek before each, so open a `File` and not a `BufReader`, which would read 8
//! KiB each time. An ordinary entry takes less than a kilobyte of memory. [`check`](Archive::check)
//! and [`extract`](Archive::extract) read the archive once, in chunks of 64 KiB, and keep nothing
//! of a sample in memory. ZipCrypto is decrypted byte by byte, at about 100 MB a second. AES is
//! three times as fast, after some milliseconds for the key of each entry.
//!
//! # What is read
//!
//! Entries that are stored or deflated, and encrypted with ZipCrypto, with AES or not at all;
//! Zip64; data descriptors. Something before the first entry, as in a self-extracting archive, is
//! refused.

mod directory;
mod entries;
mod extraction;
mod limits;
mod report;
#[cfg(test)]
mod tests;

use std::borrow::Borrow;
use std::collections::HashSet;
use std::fmt;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256 as Hasher};
use zip::read::{ArchiveOffset, Config};
use zip::result::ZipError;
use zip::{ZipArchive, ZipReadOptions};

use self::directory::{Directory, Surveyed, broken, read_directory, survey};
use self::entries::Marked;
pub use self::entries::{Entry, EntryInfo};
use self::extraction::{Folder, Nowhere, Store};
pub use self::limits::{Limit, Limits};
pub use self::report::{ArchiveError, Damaged, EntryName, Found, PASSWORD, Report};
use crate::stream::Received;
use crate::types::Sha256;

/// How much is read at a time.
const CHUNK: usize = 64 * 1024;

/// A zip archive of samples. See the [module](self).
pub struct Archive<R> {
    zip: ZipArchive<Marked<R>>,
    directory: Directory,
    limits: Limits,
    password: Vec<u8>,
    expected: Option<Vec<Sha256>>,
    keep_unexpected: bool,
    /// The bytes that were unpacked.
    total: u64,
}

impl<R> fmt::Debug for Archive<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Archive")
            .field("entries", &self.directory.entries)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl<R: Read + Seek> Archive<R> {
    /// Opens an archive with the [default limits](Limits::default).
    ///
    /// # Errors
    /// [`ArchiveError::NotZip`], [`ArchiveError::Broken`], [`ArchiveError::Read`],
    /// [`ArchiveError::Limit`] or [`ArchiveError::Overlap`]. Damage within an entry is found when
    /// the entry is read.
    pub fn open(reader: R) -> Result<Self, ArchiveError> {
        Self::open_with(reader, Limits::default())
    }

    /// Opens an archive.
    ///
    /// # Errors
    /// As [`Archive::open`].
    pub fn open_with(reader: R, limits: Limits) -> Result<Self, ArchiveError> {
        let mut reader = Marked(reader);
        let begins_with_entry = survey(&mut reader, &limits).map_err(|error| match error {
            Surveyed::Refused(error) => error,
            Surveyed::Io(error) => broken(ZipError::Io(error)),
        })?;
        // A search for an archive behind other bytes reads all of them, and may find the wrong one.
        let config = Config {
            archive_offset: ArchiveOffset::Known(0),
        };
        let mut zip = ZipArchive::with_config(config, reader).map_err(broken)?;
        limits.check_directory(zip.len() as u64, 0)?;
        if begins_with_entry && zip.is_empty() {
            return Err(ArchiveError::Broken(
                "it begins with an entry, but its directory is empty".into(),
            ));
        }
        let directory = read_directory(&mut zip)?;
        Ok(Self {
            zip,
            directory,
            limits,
            password: PASSWORD.into(),
            expected: None,
            keep_unexpected: false,
            total: 0,
        })
    }

    /// Uses another password than [`PASSWORD`].
    #[must_use]
    pub fn password(mut self, password: impl Into<Vec<u8>>) -> Self {
        self.password = password.into();
        self
    }

    /// Says which samples the archive should hold. Without it, every sample counts as found.
    #[must_use]
    pub fn expect_samples(
        mut self,
        samples: impl IntoIterator<Item = impl Borrow<Sha256>>,
    ) -> Self {
        let samples = samples.into_iter().map(|sample| *sample.borrow());
        self.expected = Some(samples.collect());
        self
    }

    /// Has [`Archive::extract`] also write samples that were not asked for.
    #[must_use]
    pub fn keep_unexpected(mut self, keep: bool) -> Self {
        self.keep_unexpected = keep;
        self
    }

    /// What the archive says about its entries, in the order of its directory.
    pub fn entries(&self) -> &[EntryInfo] {
        &self.directory.entries
    }

    /// Whether several entries have the same name. Only the last of them is listed and can be read.
    pub fn has_duplicate_names(&self) -> bool {
        self.zip.has_duplicate_names()
    }

    /// Opens the entry of this number, from 0. Its bytes count towards [`Limits::total_size`] until
    /// the next [`check`](Self::check) or [`extract`](Self::extract).
    ///
    /// # Errors
    /// [`ArchiveError::NoEntry`], [`ArchiveError::Limit`], [`ArchiveError::WrongPassword`],
    /// [`ArchiveError::Damaged`], [`ArchiveError::UnsupportedMethod`],
    /// [`ArchiveError::Unsupported`] or [`ArchiveError::Read`].
    pub fn entry(&mut self, number: usize) -> Result<Entry<'_, R>, ArchiveError> {
        let info = self
            .directory
            .entries
            .get(number)
            .ok_or(ArchiveError::NoEntry(number))?;
        if info.beyond {
            return Err(ArchiveError::Damaged("its data are cut off".into()));
        }
        self.limits.check_entry(info.size, info.packed)?;
        let options = ZipReadOptions::new().password(Some(&self.password));
        let file = self
            .zip
            .by_index_with_options(number, options)
            .map_err(ArchiveError::of_entry)?;
        Ok(Entry {
            file: Some(file),
            info,
            limits: self.limits,
            total: &mut self.total,
            hasher: Hasher::new(),
            bytes: 0,
            received: None,
        })
    }

    /// Reads the whole archive and reports what is in it.
    ///
    /// # Errors
    /// [`ArchiveError::Limit`], before anything is read, if the archive declares too much.
    /// [`ArchiveError::Stopped`] if it unpacks to more, or cannot be read.
    pub fn check(&mut self) -> Result<Report, ArchiveError> {
        self.walk(&mut Nowhere)
    }

    /// Writes the samples into an existing folder and reports what is in the archive. Each sample
    /// becomes a file named by its SHA-256 in lower case. **What it writes is malware.**
    ///
    /// A file appears when its sample is whole, or not at all. Only its owner can read it, and
    /// nobody can execute it. Only samples that were asked for are written, unless
    /// [`keep_unexpected`](Self::keep_unexpected) says otherwise. A file that exists with the same
    /// bytes stays as it is. Another file of that name is an error, or is replaced with
    /// `overwrite`.
    ///
    /// A sample that was asked for is accepted if its SHA-256 is right, even if the archive's own
    /// checksum is wrong.
    ///
    /// # Errors
    /// As [`Archive::check`], and [`ArchiveError::Stopped`] if a file cannot be written. Nothing is
    /// left of the entry at which it stopped. The report in the error says what was written before.
    pub fn extract(
        &mut self,
        folder: impl AsRef<Path>,
        overwrite: bool,
    ) -> Result<Report, ArchiveError> {
        self.walk(&mut Folder {
            path: folder.as_ref(),
            overwrite,
        })
    }

    fn walk<S: Store>(&mut self, store: &mut S) -> Result<Report, ArchiveError> {
        let mut declared = 0_u64;
        for info in &self.directory.entries {
            // An entry that is too large by itself is not read.
            if self.limits.check_entry(info.size, info.packed).is_ok() {
                declared = declared.saturating_add(info.size);
                self.limits.check_total(declared)?;
            }
        }
        self.total = 0;
        let expected = self.expected.take();
        let wanted: Option<HashSet<_>> = expected
            .as_ref()
            .map(|samples| samples.iter().copied().collect());
        let mut report = Report {
            duplicate_names: self.has_duplicate_names(),
            omits_entries: self.directory.omits_entries,
            is_empty: self.directory.entries.iter().all(EntryInfo::is_folder),
            ..Report::default()
        };
        let mut stopped = None;
        let mut chunk = vec![0; CHUNK];
        for number in 0..self.directory.entries.len() {
            let info = &self.directory.entries[number];
            let (name, is_folder) = (info.name.clone(), info.is_folder());
            if let Some(warning) = info.warning() {
                let entry = number + 1;
                let warning = format!("entry {entry}, \"{name}\": {warning}");
                report.warnings.push(warning);
            }
            if is_folder {
                continue;
            }
            match self.take(number, wanted.as_ref(), &mut chunk, store) {
                Ok((Received { bytes, sha256, .. }, file, existed)) => {
                    let entry = number;
                    let found = Found {
                        entry,
                        name,
                        sha256,
                        bytes,
                        file,
                        existed,
                    };
                    match &wanted {
                        Some(wanted) if !wanted.contains(&sha256) => report.unexpected.push(found),
                        _ => report.found.push(found),
                    }
                }
                Err(error) if error.is_of_entry() => {
                    let entry = number;
                    report.damaged.push(Damaged { entry, name, error });
                }
                Err(error) => {
                    stopped = Some((number, error));
                    break;
                }
            }
        }
        report.bytes = self.total;
        report.is_expected = expected.is_some();
        // Where it stopped, the rest is not known.
        if stopped.is_none() {
            let mut seen: HashSet<_> = report.found.iter().map(|found| found.sha256).collect();
            let named = || self.entries().iter().filter_map(EntryInfo::named).collect();
            report.missing = expected.clone().unwrap_or_else(named);
            report.missing.retain(|sample| seen.insert(*sample));
        }
        self.expected = expected;
        match stopped {
            None => Ok(report),
            Some((entry, error)) => Err(ArchiveError::Stopped {
                entry,
                source: Box::new(error),
                report: Box::new(report),
            }),
        }
    }

    /// Reads an entry to its end and stores it. Returns its file, and whether that existed before.
    fn take<S: Store>(
        &mut self,
        number: usize,
        wanted: Option<&HashSet<Sha256>>,
        chunk: &mut [u8],
        store: &mut S,
    ) -> Result<(Received, Option<PathBuf>, bool), ArchiveError> {
        let keep_all = self.keep_unexpected;
        let mut entry = self.entry(number)?;
        let mut part = store.begin()?;
        let received = loop {
            match entry.read_some(chunk) {
                Ok(0) => break entry.so_far(),
                Ok(count) => store.write(&mut part, &chunk[..count])?,
                Err(error) => {
                    // The checksum is wrong, but these are the bytes.
                    let so_far = entry.so_far();
                    let is_wanted = wanted.is_some_and(|wanted| wanted.contains(&so_far.sha256));
                    if error.is_of_entry() && is_wanted {
                        break so_far;
                    }
                    return Err(error);
                }
            }
        };
        if keep_all || wanted.is_none_or(|wanted| wanted.contains(&received.sha256)) {
            let (file, existed) = store.keep(part, received)?;
            return Ok((received, file, existed));
        }
        Ok((received, None, false))
    }
}
