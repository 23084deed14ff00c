//! The archive of samples: a zip with the password `infected`, as [`GetSamples`](crate::operations::GetSamples)
//! fetches it.
//!
//! [`Archive`] lists the entries, reads each as a stream and says what it is by its SHA-256. What an archive says of
//! itself is believed nowhere: sizes are counted as bytes come out, and names are reported, never used.
//!
//! ```
//! use std::io::Cursor;
//!
//! use malquery_proto::archive::Archive;
//! use malquery_proto::types::Sha256;
//!
//! // One entry, `greeting.txt`, with the bytes "hello". Usually it is a file.
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
#![cfg_attr(
    feature = "samples",
    doc = r#"[`Archive::extract`] writes the samples into a folder, each under its SHA-256:

```
# use std::io::Cursor;
# use malquery_proto::archive::Archive;
# let file = Cursor::new(include_bytes!("../../tests/archives/zipcrypto-stored.zip"));
# let parent = tempfile::tempdir()?;
# let folder = parent.path();
let report = Archive::open(file)?.extract(folder, false)?.complete()?;
for sample in &report.found {
    println!("{} {}", sample.sha256, sample.bytes);
}
let name = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
assert_eq!(std::fs::read(folder.join(name))?, b"hello");
# Ok::<(), Box<dyn std::error::Error>>(())
```
"#
)]
//!
//! # Limits
//!
//! See [`Limits`]. An archive that exceeds one is refused: by what it declares before anything is read, and by what
//! comes out while it is read. So is an entry that is too large by itself, and told with those that are damaged; the others
//! are read. Entries that share bytes of the archive are refused too, and so is what inflates to
//! more than it declares. An archive within an archive is a sample like any other: it is not opened.
//!
//! # Costs
//!
//! Opening reads the directory, at the end of the archive, and the head of each entry: small reads with a seek for
//! each, so give it a file and not a `BufReader`, which would read 8 KiB for each. It takes less than a kilobyte of
//! memory for an ordinary entry. [`check`](Archive::check) and [`extract`](Archive::extract) read the archive once, in
//! chunks of 64 KiB. Nothing of a sample is kept: the memory is the same for one of a gigabyte. ZipCrypto goes byte by
//! byte, so that about 100 MB come out in a second, in any program; of AES it is three times that, after some
//! milliseconds for the key of each entry.
//!
//! # What is read
//!
//! Entries that are stored or deflated, and encrypted with ZipCrypto, with AES or not at all; Zip64; data
//! descriptors. Anything before the first entry (as in a self-extracting archive) makes it no archive of samples.

mod directory;
mod entries;
mod extraction;
mod limits;
mod report;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt;
use std::io::{Read, Seek};

use sha2::{Digest, Sha256 as Hasher};
use zip::read::{ArchiveOffset, Config};
use zip::result::ZipError;
use zip::{ZipArchive, ZipReadOptions};

use self::directory::{Directory, Surveyed, broken, read_directory, survey};
use self::entries::Marked;
pub use self::entries::{Entry, EntryInfo};
use self::extraction::Folder;
use self::extraction::{Nowhere, Store, Taken};
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
    /// The bytes that came out.
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
    /// [`ArchiveError::NotZip`], [`ArchiveError::Broken`], [`ArchiveError::Read`], [`ArchiveError::Limit`] or
    /// [`ArchiveError::Overlap`]. Damage within an entry is found when it is read.
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
        // Whoever looks for an archive behind other bytes reads all of them, and may find another one than meant.
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

    /// Takes another password than [`PASSWORD`].
    #[must_use]
    pub fn password(mut self, password: impl Into<Vec<u8>>) -> Self {
        self.password = password.into();
        self
    }

    /// Says which samples should be there. Without it, all that are there are taken.
    #[must_use]
    pub fn expect_samples(mut self, samples: impl IntoIterator<Item = Sha256>) -> Self {
        self.expected = Some(samples.into_iter().collect());
        self
    }

    /// Lets [`Archive::extract`] also write what was not asked for.
    #[must_use]
    pub fn keep_unexpected(mut self, keep: bool) -> Self {
        self.keep_unexpected = keep;
        self
    }

    /// What the archive says of its entries, in the order of its directory.
    pub fn entries(&self) -> &[EntryInfo] {
        &self.directory.entries
    }

    /// Whether several entries have the same name. Only the last of them can be read, and is listed.
    pub fn has_duplicate_names(&self) -> bool {
        self.zip.has_duplicate_names()
    }

    /// Opens the entry of this number, from 0. What comes out of it counts towards [`Limits::total_size`], until
    /// the next [`check`](Self::check) or [`extract`](Self::extract).
    ///
    /// # Errors
    /// [`ArchiveError::NoEntry`], [`ArchiveError::Limit`], [`ArchiveError::WrongPassword`],
    /// [`ArchiveError::Damaged`], [`ArchiveError::Unsupported`] or [`ArchiveError::Read`].
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

    /// Reads the whole archive and reports what is there.
    ///
    /// # Errors
    /// [`ArchiveError::Limit`] by what the archive declares, before anything is read;
    /// [`ArchiveError::Stopped`] by a limit or [`ArchiveError::Read`] on the way.
    pub fn check(&mut self) -> Result<Report, ArchiveError> {
        self.walk(&mut Nowhere)
    }

    /// Writes the samples into a folder, which has to exist, each into a file named by its SHA-256 in lower case,
    /// and reports what is there. **What it writes is malware.**
    ///
    /// A file appears when its sample is whole, or not at all. Its owner alone can read it, and nobody execute it.
    /// Only what was asked for is written, unless [`keep_unexpected`](Self::keep_unexpected) says otherwise. A file
    /// that is there already with the same bytes is the sample and stays as it is; anything else of that name is
    /// refused, or with `overwrite` replaced.
    ///
    /// A sample that was asked for is taken if it has the right bytes, even where the archive's own checksum is wrong.
    ///
    /// # Errors
    /// As [`Archive::check`], and [`ArchiveError::Stopped`] by [`ArchiveError::File`]. Of the entry it stopped at
    /// nothing is left behind; the report in the error says what was written before.
    pub fn extract(
        &mut self,
        folder: impl AsRef<std::path::Path>,
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
            // What is too large by itself is not read, whatever the others are.
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
            is_empty: self.directory.entries.is_empty(),
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
                Ok(Taken {
                    received,
                    file,
                    existed,
                }) => {
                    let Received { bytes, sha256 } = received;
                    let is_wanted = wanted
                        .as_ref()
                        .is_none_or(|wanted| wanted.contains(&sha256));
                    let list = if is_wanted {
                        &mut report.found
                    } else {
                        &mut report.unexpected
                    };
                    list.push(Found {
                        entry: number,
                        name,
                        sha256,
                        bytes,
                        file,
                        existed,
                    });
                }
                Err(error) if error.is_of_entry() => {
                    report.damaged.push(Damaged {
                        entry: number,
                        name,
                        error,
                    });
                }
                Err(error) => {
                    stopped = Some((number, error));
                    break;
                }
            }
        }
        report.bytes = self.total;
        report.is_expected = expected.is_some();
        // What comes behind the entry it stopped at was not looked at.
        if stopped.is_none() {
            let mut seen: HashSet<_> = report.found.iter().map(|found| found.sha256).collect();
            let named = || {
                self.directory
                    .entries
                    .iter()
                    .filter_map(EntryInfo::named)
                    .collect()
            };
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

    /// Reads an entry to its end and stores it.
    fn take<S: Store>(
        &mut self,
        number: usize,
        wanted: Option<&HashSet<Sha256>>,
        chunk: &mut [u8],
        store: &mut S,
    ) -> Result<Taken, ArchiveError> {
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
            return Ok(Taken {
                received,
                file,
                existed,
            });
        }
        Ok(Taken {
            received,
            file: None,
            existed: false,
        })
    }
}
