//! Reads zip archives of samples.
//!
//! [`GetSamples`](crate::operations::GetSamples) downloads these archives. Their password is
//! `infected`. [`Archive`] lists the entries, reads each one as a stream, and identifies samples by
//! their SHA-256. It limits the unpacked size, and never uses the names of entries as paths.
//!
//! ```
//! use std::io::Cursor;
//!
//! use malquery_proto::archive::Archive;
//! use malquery_proto::types::Sha256;
//!
//! // The archive has one entry, `greeting.txt`, with the content "hello".
//! let file = Cursor::new(std::fs::read("tests/archives/zipcrypto-stored.zip")?);
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
//! [`Archive::extract`] writes samples to files that are named after their SHA-256:
//!
//! ```
//! # use std::io::Cursor;
//! # use malquery_proto::archive::Archive;
//! # let file = Cursor::new(std::fs::read("tests/archives/zipcrypto-stored.zip")?);
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
//! See [`Limits`]. [`Archive::open`] fails if the archive has too many entries or too large a
//! directory, or if overlapping entries are found. [`check`](Archive::check) and
//! [`extract`](Archive::extract) fail if the total size of the entries is too large. If a single
//! entry exceeds a limit, they report that entry as damaged and read the others. An archive inside
//! an archive is treated as an ordinary sample.
//!
//! # Performance
//!
//! Opening an archive reads its directory, and then seeks to the header of each entry and reads it.
//! Pass a `File` rather than a `BufReader`, which would read 8 KiB for each header. An ordinary
//! entry uses less than 1 KB of memory. Samples are unpacked in chunks of at most 64 KiB, and are
//! not kept in memory. ZipCrypto entries are decrypted at about 100 MB per second. AES is about
//! three times as fast, but takes up to a few milliseconds per entry to derive the key.
//!
//! # Supported archives
//!
//! Entries may be stored or deflated, and unencrypted or encrypted with ZipCrypto or AES. Zip64 and
//! data descriptors are supported. An archive with other data before its entries, such as a
//! self-extracting archive, is not supported.

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
use std::path::Path;

use sha2::{Digest, Sha256 as Hasher};
use zip::read::{ArchiveOffset, Config};
use zip::{ZipArchive, ZipReadOptions};

use self::directory::{Directory, broken, is_closed, read_directory, survey};
use self::entries::Marked;
pub use self::entries::{Entry, EntryInfo};
use self::extraction::{Folder, Part};
pub use self::limits::Limits;
pub use self::report::{ArchiveError, Damaged, EntryName, Found, Limit, PASSWORD, Report};
use crate::atomic_file::{CHUNK, remove_abandoned};
use crate::stream::Received;
use crate::types::Sha256;

/// A zip archive of samples. See the [module documentation](self).
pub struct Archive<R> {
    zip: ZipArchive<Marked<R>>,
    directory: Directory,
    limits: Limits,
    password: Vec<u8>,
    expected: Option<Vec<Sha256>>,
    keep_unexpected: bool,
    /// The number of unpacked bytes that count toward [`Limits::total_size`].
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
    /// Returns [`ArchiveError::NotZip`], [`ArchiveError::Broken`], [`ArchiveError::Read`],
    /// [`ArchiveError::Limit`] or [`ArchiveError::Overlap`]. Damage inside an entry is reported
    /// when the entry is opened or read.
    pub fn open(reader: R) -> Result<Self, ArchiveError> {
        Self::open_with(reader, Limits::default())
    }

    /// Opens an archive with these limits.
    ///
    /// # Errors
    /// See [`Archive::open`].
    pub fn open_with(reader: R, limits: Limits) -> Result<Self, ArchiveError> {
        let mut reader = Marked::new(reader);
        let begins_with_entry = survey(&mut reader, &limits)?;
        // Do not let the zip crate search for an archive after other data: it would read all of the
        // data, and might find the wrong archive.
        let config = Config {
            archive_offset: ArchiveOffset::Known(0),
        };
        let mut zip = ZipArchive::with_config(config, reader.clone()).map_err(broken)?;
        limits.check_directory(zip.len() as u64, 0)?;
        if begins_with_entry && zip.is_empty() {
            return Err(ArchiveError::Broken(
                "it begins with an entry, but its directory is empty".into(),
            ));
        }
        let mut directory = read_directory(&mut zip, &mut reader)?;
        directory.omits_entries |= !is_closed(&mut reader, &zip, &limits).map_err(broken)?;
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

    /// Sets the password. The default is [`PASSWORD`].
    #[must_use]
    pub fn password(mut self, password: impl Into<Vec<u8>>) -> Self {
        self.password = password.into();
        self
    }

    /// Sets the samples that the archive should contain. Without this, every sample that can be
    /// read counts as found.
    #[must_use]
    pub fn expect_samples(
        mut self,
        samples: impl IntoIterator<Item = impl Borrow<Sha256>>,
    ) -> Self {
        let samples = samples.into_iter().map(|sample| *sample.borrow());
        self.expected = Some(samples.collect());
        self
    }

    /// Sets whether [`Archive::extract`] also keeps samples that are not expected. The default is
    /// `false`.
    #[must_use]
    pub fn keep_unexpected(mut self, keep: bool) -> Self {
        self.keep_unexpected = keep;
        self
    }

    /// Returns the unverified metadata of the entries, in the order of the archive's directory.
    pub fn entries(&self) -> &[EntryInfo] {
        &self.directory.entries
    }

    /// Returns whether several entries have the same name. Only the last of them can be read, and
    /// it is listed in the position of the first.
    pub fn has_duplicate_names(&self) -> bool {
        self.zip.has_duplicate_names()
    }

    /// Opens the entry at this zero-based index.
    ///
    /// All bytes read from entries opened by this method count toward [`Limits::total_size`]. Each
    /// call to [`check`](Self::check) or [`extract`](Self::extract) counts its bytes separately.
    ///
    /// # Errors
    /// Returns [`ArchiveError::NoEntry`], [`ArchiveError::Limit`], [`ArchiveError::WrongPassword`],
    /// [`ArchiveError::Damaged`], [`ArchiveError::UnsupportedMethod`],
    /// [`ArchiveError::Unsupported`] or [`ArchiveError::Read`].
    pub fn entry(&mut self, number: usize) -> Result<Entry<'_, R>, ArchiveError> {
        let info = self
            .directory
            .entries
            .get(number)
            .ok_or(ArchiveError::NoEntry(number))?;
        if info.beyond {
            return Err(ArchiveError::Damaged(
                "the packed size of the entry is too large".into(),
            ));
        }
        if info.strong {
            let why = "the entry uses PKWARE's strong encryption";
            return Err(ArchiveError::Unsupported(why.into()));
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

    /// Reads the entries, and returns a report on the contents of the archive.
    ///
    /// # Errors
    /// Returns [`ArchiveError::Limit`] before reading any entry if the declared sizes add up to
    /// more than [`Limits::total_size`], not counting entries that exceed a limit on their own.
    /// Returns [`ArchiveError::Stopped`] if the total number of unpacked bytes exceeds
    /// [`Limits::total_size`], or if the underlying reader fails.
    pub fn check(&mut self) -> Result<Report, ArchiveError> {
        self.walk(None)
    }

    /// Extracts the samples into an existing folder, and returns a report on the contents of the
    /// archive. Each file is named after the SHA-256 of its sample, in lowercase. **The files are
    /// malware.**
    ///
    /// Files appear complete or not at all. On Unix, only the owner can read and write new files,
    /// and they are not executable. If samples are [expected](Self::expect_samples), only those are
    /// kept, unless [`keep_unexpected`](Self::keep_unexpected) is set. An existing file with the
    /// same content stays unchanged. An existing file with different content is replaced if
    /// `overwrite` is `true`; otherwise, extraction fails.
    ///
    /// An entry whose content has the SHA-256 of an expected sample is accepted even if its
    /// checksum in the archive is wrong.
    ///
    /// # Errors
    /// See [`Archive::check`]. Also returns [`ArchiveError::Stopped`] if a file cannot be written.
    /// The report in that error lists the files that were already written. No partial file
    /// remains.
    pub fn extract(
        &mut self,
        folder: impl AsRef<Path>,
        overwrite: bool,
    ) -> Result<Report, ArchiveError> {
        remove_abandoned(folder.as_ref());
        self.walk(Some(Folder {
            path: folder.as_ref(),
            overwrite,
        }))
    }

    fn walk(&mut self, folder: Option<Folder<'_>>) -> Result<Report, ArchiveError> {
        let mut declared = 0_u64;
        for info in &self.directory.entries {
            // An entry that exceeds a limit on its own is not read, so it does not count.
            if self.limits.check_entry(info.size, info.packed).is_ok() {
                declared = declared.saturating_add(info.size);
                self.limits.check_total(declared)?;
            }
        }
        let by_hand = std::mem::take(&mut self.total);
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
        for entry in 0..self.directory.entries.len() {
            let info = &self.directory.entries[entry];
            let (name, is_folder) = (info.name.clone(), info.is_folder());
            if let Some(warning) = info.warning() {
                let warning = format!("entry {}, \"{name}\": {warning}", entry + 1);
                report.warnings.push(warning);
            }
            if is_folder {
                continue;
            }
            match self.take(entry, wanted.as_ref(), &mut chunk, folder) {
                Ok(found) => match &wanted {
                    Some(wanted) if !wanted.contains(&found.sha256) => {
                        report.unexpected.push(found)
                    }
                    _ => report.found.push(found),
                },
                Err(error) if error.is_of_entry() => {
                    report.damaged.push(Damaged { entry, name, error });
                }
                Err(error) => {
                    stopped = Some((entry, error));
                    break;
                }
            }
        }
        report.bytes = std::mem::replace(&mut self.total, by_hand);
        report.is_expected = expected.is_some();
        report.is_stopped = stopped.is_some();
        // If reading stopped, the remaining entries are unknown, so no sample counts as missing.
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

    /// Reads a whole entry. If a folder is given and the sample is to be kept, stores it there.
    fn take(
        &mut self,
        number: usize,
        wanted: Option<&HashSet<Sha256>>,
        chunk: &mut [u8],
        folder: Option<Folder<'_>>,
    ) -> Result<Found, ArchiveError> {
        let keep_all = self.keep_unexpected;
        let mut entry = self.entry(number)?;
        let mut part = folder.map(Part::begin).transpose()?;
        let received @ Received { bytes, sha256 } = loop {
            match entry.read_some(chunk) {
                Ok(0) => break entry.so_far(),
                Ok(count) => {
                    if let Some(part) = &mut part {
                        part.write(&chunk[..count])?;
                    }
                }
                Err(error) => {
                    // The bytes may have an expected SHA-256 although the checksum is wrong.
                    let so_far = entry.so_far();
                    let is_wanted = wanted.is_some_and(|wanted| wanted.contains(&so_far.sha256));
                    if error.is_of_entry() && is_wanted {
                        break so_far;
                    }
                    return Err(error);
                }
            }
        };
        let mut found = Found {
            entry: number,
            name: entry.info.name.clone(),
            sha256,
            bytes,
            file: None,
            existed: false,
        };
        let keep = keep_all || wanted.is_none_or(|wanted| wanted.contains(&sha256));
        if let Some(part) = part.filter(|_| keep) {
            let (file, existed) = part.keep(received)?;
            (found.file, found.existed) = (Some(file), existed);
        }
        Ok(found)
    }
}
