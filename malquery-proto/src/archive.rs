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
//! let file = Cursor::new(include_bytes!("../tests/archives/zipcrypto-stored.zip"));
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
    feature = "fs",
    doc = r#"With the feature `fs`, [`Archive::extract`] writes the samples into a folder, each under its SHA-256:

```
# use std::io::Cursor;
# use malquery_proto::archive::Archive;
# let file = Cursor::new(include_bytes!("../tests/archives/zipcrypto-stored.zip"));
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

use std::collections::HashSet;
use std::error::Error as StdError;
use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;

use sha2::{Digest, Sha256 as Hasher};
use zip::read::{ArchiveOffset, Config, ZipFile};
use zip::result::ZipError;
use zip::{ZipArchive, ZipReadOptions};

use crate::stream::Received;
use crate::types::Sha256;

/// The password of MalQuery's archives. It protects nothing but keeps scanners from looking in.
pub const PASSWORD: &str = "infected";

/// How much is read at a time.
const CHUNK: usize = 64 * 1024;
/// What an entry may inflate to before its ratio counts.
const RATIO_FLOOR: u64 = 1 << 20;

/// How much of an archive is read at most.
///
/// ```
/// use malquery_proto::archive::Limits;
///
/// let limits = Limits { entries: 100, ..Limits::default() };
/// assert_eq!(limits.total_size, 8 << 30);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Entries in the archive: 10,000.
    pub entries: u64,
    /// Bytes of the directory of the archive: 4 MiB. A hostile directory takes up to 15 times that of memory.
    pub directory_size: u64,
    /// Bytes that come out of one entry: 2 GiB.
    pub entry_size: u64,
    /// Bytes that come out of all entries together: 8 GiB.
    pub total_size: u64,
    /// Bytes that come out of an entry for each byte that is in the archive: 500. It counts from the first MiB that
    /// comes out. Deflate reaches 1032; samples that were padded with zeros, to be too large for scanners, a few
    /// hundred.
    pub ratio: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 10_000,
            directory_size: 4 << 20,
            entry_size: 2 << 30,
            total_size: 8 << 30,
            ratio: 500,
        }
    }
}

impl Limits {
    /// Refuses an entry of this size, made of so many bytes of the archive.
    fn check_entry(&self, size: u64, packed: u64) -> Result<(), ArchiveError> {
        if size > self.entry_size {
            return Err(ArchiveError::Limit {
                limit: Limit::EntrySize,
                allowed: self.entry_size,
            });
        }
        if size > RATIO_FLOOR && size > packed.saturating_mul(self.ratio) {
            return Err(ArchiveError::Limit {
                limit: Limit::Ratio,
                allowed: self.ratio,
            });
        }
        Ok(())
    }

    fn check_total(&self, size: u64) -> Result<(), ArchiveError> {
        if size > self.total_size {
            return Err(ArchiveError::Limit {
                limit: Limit::TotalSize,
                allowed: self.total_size,
            });
        }
        Ok(())
    }

    fn check_directory(&self, entries: u64, size: u64) -> Result<(), ArchiveError> {
        if entries > self.entries {
            return Err(ArchiveError::Limit {
                limit: Limit::Entries,
                allowed: self.entries,
            });
        }
        if size > self.directory_size {
            return Err(ArchiveError::Limit {
                limit: Limit::DirectorySize,
                allowed: self.directory_size,
            });
        }
        Ok(())
    }
}

/// One of the [`Limits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Limit {
    Entries,
    DirectorySize,
    EntrySize,
    TotalSize,
    Ratio,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Entries => "the number of entries",
            Self::DirectorySize => "the bytes of the directory",
            Self::EntrySize => "the bytes of an entry",
            Self::TotalSize => "the bytes of all entries",
            Self::Ratio => "the bytes that come out for each byte of an entry",
        })
    }
}

/// What is wrong with an archive, with an entry of it, or with writing it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// Something else than a zip archive.
    #[error("this is not a zip archive")]
    NotZip,
    /// The beginning is that of a zip archive, but its directory cannot be read.
    #[error("the archive is cut off or damaged: fetch it again")]
    Broken(#[source] Source),
    /// The archive itself cannot be read. Nothing is known of what is in it.
    #[error("the archive could not be read")]
    Read(#[source] io::Error),
    /// More than the [`Limits`] allow, which may be a zip bomb.
    #[error(
        "a limit is exceeded, as by a zip bomb: {limit} may be {allowed} at most; raise the limit if you trust it"
    )]
    #[allow(missing_docs)]
    Limit { limit: Limit, allowed: u64 },
    /// Entries share bytes of the archive, as in a zip bomb.
    #[error(
        "entries of the archive overlap: it is damaged or a zip bomb, and nothing was read of it"
    )]
    Overlap,
    /// There is no entry of that number.
    #[error("the archive has no entry {0}")]
    NoEntry(usize),
    /// The password is wrong, or the entry is damaged.
    #[error("the password is wrong for this entry; MalQuery's is {PASSWORD:?}")]
    WrongPassword,
    /// The bytes of the entry are not what they were: damaged, cut off, or decrypted with a wrong password, which
    /// one in 256 entries does not notice at once.
    #[error("the entry is damaged, or the password is wrong")]
    Damaged(#[source] Source),
    /// The entry is packed or encrypted in a way that is not supported.
    #[error(
        "the entry is packed in a way that is not supported: unpack the archive with another program"
    )]
    Unsupported(#[source] Source),
    /// A sample could not be written.
    #[cfg(feature = "fs")]
    #[error("{} could not be written", path.display())]
    #[allow(missing_docs)]
    File {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    /// The archive was read up to an entry. What was found before is in the report, and files that were written
    /// before stay: they are whole.
    #[error("stopped at entry {} of the archive", entry + 1)]
    #[allow(missing_docs)]
    Stopped {
        entry: usize,
        source: Box<ArchiveError>,
        report: Box<Report>,
    },
    /// Samples are missing or damaged.
    #[error(
        "the archive is not complete: samples missing: {}, entries damaged: {}{}", _0.missing.len(), _0.damaged.len(),
        if _0.duplicate_names { "; several entries have the same name, and only the last of them can be read" } else { "" }
    )]
    Incomplete(Box<Report>),
}

/// What a library said.
type Source = Box<dyn StdError + Send + Sync>;

impl ArchiveError {
    /// What was found out before the error.
    pub fn report(&self) -> Option<&Report> {
        match self {
            Self::Stopped { report, .. } | Self::Incomplete(report) => Some(report),
            _ => None,
        }
    }

    /// Whether it is about one entry, and the others may be read.
    fn is_of_entry(&self) -> bool {
        matches!(
            self,
            Self::WrongPassword
                | Self::Damaged(_)
                | Self::Unsupported(_)
                | Self::Limit {
                    limit: Limit::EntrySize | Limit::Ratio,
                    ..
                }
        )
    }

    /// An error of opening an entry.
    fn of_entry(error: ZipError) -> Self {
        match error {
            ZipError::Io(error) => Self::of_read(error),
            ZipError::InvalidPassword => Self::WrongPassword,
            ZipError::UnsupportedArchive(_) | ZipError::CompressionMethodNotSupported(_) => {
                Self::Unsupported(error.into())
            }
            error => Self::Damaged(error.into()),
        }
    }

    /// An error of reading an entry.
    fn of_read(error: io::Error) -> Self {
        match error.downcast::<ReadError>() {
            Ok(ReadError(error)) => Self::Read(error),
            Err(error) => match error.downcast::<ZipError>() {
                Ok(error) => Self::of_entry(error),
                Err(error) => Self::Damaged(error.into()),
            },
        }
    }
}

/// An error of the reader beneath, to be told from those of what is read.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct ReadError(io::Error);

fn mark(error: io::Error) -> io::Error {
    match error.kind() {
        // It is tried again.
        io::ErrorKind::Interrupted => error,
        kind => io::Error::new(kind, ReadError(error)),
    }
}

/// The reader beneath, with its errors marked.
#[derive(Debug)]
struct Marked<R>(R);

impl<R: Read> Read for Marked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(mark)
    }
}

impl<R: Seek> Seek for Marked<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to).map_err(mark)
    }
}

/// The name of an entry: bytes, of any kind. It is no path.
///
/// `Display` is fit for a terminal: it escapes what is not printable or not UTF-8, and cuts off what is long.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EntryName(Box<[u8]>);

impl EntryName {
    /// The bytes as they are in the archive. Take care what you do with them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The most characters of a name that are displayed.
const NAME_SHOWN: usize = 200;

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;

        let mut shown = 0;
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if shown == NAME_SHOWN {
                    return f.write_char('…');
                }
                shown += 1;
                match c {
                    '\'' | '"' => f.write_char(c)?,
                    c => write!(f, "{}", c.escape_debug())?,
                }
            }
            for byte in chunk.invalid() {
                if shown == NAME_SHOWN {
                    return f.write_char('…');
                }
                shown += 1;
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntryName({self})")
    }
}

/// What makes an entry unusual. None of it is a danger here, since names are not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Oddity {
    /// The name leads out of a folder it would be unpacked in: `..`, an absolute path, a drive letter.
    Escapes,
    /// The name has folders in it.
    Folders,
    /// The name has control characters (such as NUL), others that cannot be seen, or is not UTF-8.
    Unprintable,
    /// The name is empty, or one that a system keeps for itself: `.`, `CON`, `NUL`, `COM1`.
    Reserved,
    /// The entry is a folder.
    Directory,
    /// The entry is a symbolic link. What is read is its target's name.
    Link,
    /// The entry is a device, a pipe or a socket.
    Special,
}

impl fmt::Display for Oddity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Escapes => "its name leads out of the folder",
            Self::Folders => "its name has folders",
            Self::Unprintable => "its name is not printable",
            Self::Reserved => "its name is reserved",
            Self::Directory => "it is a folder",
            Self::Link => "it is a link",
            Self::Special => "it is a device or the like",
        })
    }
}

/// What an archive says of an entry. None of it is checked.
#[derive(Debug, Clone)]
pub struct EntryInfo {
    name: EntryName,
    size: u64,
    packed: u64,
    encrypted: bool,
    odd: Box<[Oddity]>,
    /// The data are said to lie where the directory is, or behind.
    beyond: bool,
}

impl EntryInfo {
    /// Its name.
    pub fn name(&self) -> &EntryName {
        &self.name
    }

    /// The bytes that are said to come out of it.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The bytes it takes in the archive.
    pub fn packed_size(&self) -> u64 {
        self.packed
    }

    /// The SHA-256 that its name is or begins with, as the file that it is in a folder: what the entry should hold.
    fn named(&self) -> Option<Sha256> {
        let name = self
            .name
            .0
            .rsplit(|byte| matches!(byte, b'/' | b'\\'))
            .next()?;
        let (hash, rest) = name.split_at_checked(64)?;
        let ends = rest
            .first()
            .is_none_or(|byte| !byte.is_ascii_alphanumeric());
        std::str::from_utf8(hash)
            .ok()
            .filter(|_| ends)?
            .parse()
            .ok()
    }

    /// Whether it takes a password.
    pub fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// What is unusual about it.
    pub fn oddities(&self) -> &[Oddity] {
        &self.odd
    }

    /// Whether it is a folder and nothing more.
    fn is_folder(&self) -> bool {
        self.size == 0 && self.odd.contains(&Oddity::Directory)
    }
}

/// What is unusual about an entry with this name and this mode.
fn oddities(name: &[u8], mode: u32) -> Box<[Oddity]> {
    let text = String::from_utf8_lossy(name);
    let is_separator = |c| c == '/' || c == '\\';
    let trimmed = text.strip_suffix(is_separator).unwrap_or(&text);
    let drive = matches!(name, [letter, b':', ..] if letter.is_ascii_alphabetic());
    let escapes = drive
        || text.starts_with(is_separator)
        || text.split(is_separator).any(|part| part == "..");
    let is_reserved = |part: &str| {
        let stem = part
            .split('.')
            .next()
            .unwrap_or_default()
            .trim_end()
            .to_ascii_uppercase();
        let port = stem.strip_prefix("COM").or(stem.strip_prefix("LPT"));
        part == "."
            || matches!(&*stem, "CON" | "PRN" | "AUX" | "NUL")
            || port.is_some_and(|port| matches!(port.as_bytes(), [b'0'..=b'9']))
    };
    let reserved = name.is_empty() || trimmed.split(is_separator).any(is_reserved);
    // What `escape_debug` leaves alone can be seen.
    let unseen = |c: char| !matches!(c, '\'' | '"' | '\\') && c.escape_debug().len() > 1;
    let format = mode & 0o170_000;
    let directory = format == 0o040_000 || text.ends_with(is_separator);
    [
        (escapes, Oddity::Escapes),
        (trimmed.contains(is_separator), Oddity::Folders),
        (
            std::str::from_utf8(name).is_err() || text.chars().any(unseen),
            Oddity::Unprintable,
        ),
        (reserved, Oddity::Reserved),
        (directory, Oddity::Directory),
        (format == 0o120_000, Oddity::Link),
        (
            !matches!(format, 0 | 0o040_000 | 0o100_000 | 0o120_000),
            Oddity::Special,
        ),
    ]
    .into_iter()
    .filter_map(|(is, oddity)| is.then_some(oddity))
    .collect()
}

/// A sample that came out of an archive whole.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Found {
    /// The number of its entry, from 0.
    pub entry: usize,
    /// The name of its entry.
    pub name: EntryName,
    /// The SHA-256 of its bytes.
    pub sha256: Sha256,
    /// The number of its bytes.
    pub bytes: u64,
    /// The file that has its bytes, if it was extracted.
    pub file: Option<PathBuf>,
    /// Whether that file was there before, with the same bytes.
    pub existed: bool,
}

/// An entry that could not be read.
#[derive(Debug)]
#[non_exhaustive]
pub struct Damaged {
    /// The number of the entry, from 0.
    pub entry: usize,
    /// Its name. In an archive of samples it may tell which is lost.
    pub name: EntryName,
    /// Why.
    pub error: ArchiveError,
}

/// An unusual entry.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Odd {
    /// The number of the entry, from 0.
    pub entry: usize,
    /// Its name.
    pub name: EntryName,
    /// What is unusual about it.
    pub why: Oddity,
}

/// What is in an archive. Entries are in the order of its directory.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// What was asked for and is there. Without [`Archive::expect_samples`], what is there.
    pub found: Vec<Found>,
    /// What was asked for and is not there, in the order it was asked for. Without [`Archive::expect_samples`], the samples
    /// that entries are named after, and that no entry is.
    pub missing: Vec<Sha256>,
    /// What is there and was not asked for.
    pub unexpected: Vec<Found>,
    /// What could not be read, or is larger than the [`Limits`] allow.
    pub damaged: Vec<Damaged>,
    /// What is unusual.
    pub odd: Vec<Odd>,
    /// Whether several entries have the same name. Only the last of them can be read, so that samples may be missing.
    pub duplicate_names: bool,
    /// The bytes that came out of the archive.
    pub bytes: u64,
    /// Whether it is known what was asked for.
    is_expected: bool,
}

impl Report {
    /// Whether nothing that was asked for is missing, nothing is damaged, and nothing is hidden behind another entry of the
    /// same name. (Where it is known what was asked for, that is not missing either.)
    pub fn is_complete(&self) -> bool {
        let hides = self.duplicate_names && !self.is_expected;
        self.missing.is_empty() && self.damaged.is_empty() && !hides
    }

    /// Makes an error of a report that is not complete.
    ///
    /// # Errors
    /// [`ArchiveError::Incomplete`], which has the report.
    pub fn complete(self) -> Result<Self, ArchiveError> {
        if self.is_complete() {
            Ok(self)
        } else {
            Err(ArchiveError::Incomplete(Box::new(self)))
        }
    }
}

/// A zip archive of samples. See the [module](self).
pub struct Archive<R> {
    zip: ZipArchive<Marked<R>>,
    entries: Vec<EntryInfo>,
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
            .field("entries", &self.entries)
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
                "it begins with an entry, and its directory has none".into(),
            ));
        }
        let entries = read_directory(&mut zip)?;
        Ok(Self {
            zip,
            entries,
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
        &self.entries
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
    #[cfg(feature = "fs")]
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
        for info in &self.entries {
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
            ..Report::default()
        };
        let mut stopped = None;
        let mut chunk = vec![0; CHUNK];
        for number in 0..self.entries.len() {
            let info = &self.entries[number];
            let (name, is_folder) = (info.name.clone(), info.is_folder());
            let odd = info.odd.iter().map(|why| Odd {
                entry: number,
                name: name.clone(),
                why: *why,
            });
            report.odd.extend(odd);
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
            let named = || self.entries.iter().filter_map(EntryInfo::named).collect();
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

/// A sample that was read.
struct Taken {
    received: Received,
    file: Option<PathBuf>,
    existed: bool,
}

/// Where samples go.
trait Store {
    /// A sample that is not complete. Dropped, it is gone.
    type Part;

    fn begin(&mut self) -> Result<Self::Part, ArchiveError>;
    fn write(&mut self, part: &mut Self::Part, bytes: &[u8]) -> Result<(), ArchiveError>;
    /// Gives the file, and whether it was there before.
    fn keep(
        &mut self,
        part: Self::Part,
        received: Received,
    ) -> Result<(Option<PathBuf>, bool), ArchiveError>;
}

struct Nowhere;

impl Store for Nowhere {
    type Part = ();

    fn begin(&mut self) -> Result<(), ArchiveError> {
        Ok(())
    }

    fn write(&mut self, (): &mut (), _: &[u8]) -> Result<(), ArchiveError> {
        Ok(())
    }

    fn keep(&mut self, (): (), _: Received) -> Result<(Option<PathBuf>, bool), ArchiveError> {
        Ok((None, false))
    }
}

#[cfg(feature = "fs")]
struct Folder<'a> {
    path: &'a std::path::Path,
    overwrite: bool,
}

#[cfg(feature = "fs")]
impl Folder<'_> {
    fn error(&self, error: io::Error) -> ArchiveError {
        ArchiveError::File {
            path: self.path.to_owned(),
            error,
        }
    }
}

#[cfg(feature = "fs")]
impl Store for Folder<'_> {
    type Part = crate::fs::UnnamedFile;

    fn begin(&mut self) -> Result<Self::Part, ArchiveError> {
        crate::fs::UnnamedFile::create(self.path).map_err(|error| self.error(error))
    }

    fn write(&mut self, part: &mut Self::Part, bytes: &[u8]) -> Result<(), ArchiveError> {
        part.write_all(bytes).map_err(|error| self.error(error))
    }

    fn keep(
        &mut self,
        part: Self::Part,
        received: Received,
    ) -> Result<(Option<PathBuf>, bool), ArchiveError> {
        let path = self.path.join(received.sha256.to_string());
        match part.name(&path, received, self.overwrite) {
            Ok(written) => Ok((Some(path), !written)),
            Err(error) => Err(ArchiveError::File { path, error }),
        }
    }
}

/// The bytes of an entry, counted and hashed as they are read.
///
/// Reading fails at the end of a damaged entry, with an [`ArchiveError`] in the [`io::Error`], so a copy of it
/// cannot succeed. It also fails on more bytes than the [`Limits`] allow; these are not handed out.
///
/// Take care: what it gives before its end may be a broken sample, and what it gives is malware.
pub struct Entry<'a, R: Read> {
    file: Option<ZipFile<'a, Marked<R>>>,
    info: &'a EntryInfo,
    limits: Limits,
    total: &'a mut u64,
    hasher: Hasher,
    bytes: u64,
    received: Option<Received>,
}

impl<R: Read> fmt::Debug for Entry<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("info", self.info)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl<R: Read> Entry<'_, R> {
    /// What the archive says of it.
    pub fn info(&self) -> &EntryInfo {
        self.info
    }

    /// What came out; `None` until the end was read and the entry found to be whole.
    pub fn received(&self) -> Option<Received> {
        self.received
    }

    fn so_far(&self) -> Received {
        Received {
            bytes: self.bytes,
            sha256: Sha256::from_bytes(self.hasher.clone().finalize().into()),
        }
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, ArchiveError> {
        let Some(file) = &mut self.file else {
            return match self.received {
                Some(_) => Ok(0),
                None => Err(ArchiveError::Damaged("reading it failed before".into())),
            };
        };
        if buffer.is_empty() {
            return Ok(0);
        }
        let result = loop {
            match file.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result.map_err(ArchiveError::of_read),
            }
        };
        let result = result.and_then(|count| {
            let count = count.min(buffer.len());
            let bytes = self.bytes.saturating_add(count as u64);
            *self.total = self.total.saturating_add(count as u64);
            self.limits.check_entry(bytes, self.info.packed)?;
            self.limits.check_total(*self.total)?;
            self.bytes = bytes;
            self.hasher.update(&buffer[..count]);
            if count == 0 && self.bytes != self.info.size {
                let (bytes, size) = (self.bytes, self.info.size);
                return Err(ArchiveError::Damaged(
                    format!("it ended after {bytes} of {size} bytes").into(),
                ));
            }
            Ok(count)
        });
        match result {
            Ok(0) => {
                self.file = None;
                self.received = Some(self.so_far());
            }
            // What comes after an error is not to be trusted, not even an end.
            Err(_) => self.file = None,
            Ok(_) => {}
        }
        result
    }
}

impl<R: Read> Read for Entry<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_some(buffer).map_err(|error| {
            let kind = match &error {
                ArchiveError::Read(error) => error.kind(),
                _ => io::ErrorKind::InvalidData,
            };
            io::Error::new(kind, error)
        })
    }
}

/// An error of reading the directory.
fn broken(error: ZipError) -> ArchiveError {
    match error {
        ZipError::Io(error) => match error.downcast::<ReadError>() {
            Ok(ReadError(error)) => ArchiveError::Read(error),
            Err(error) => ArchiveError::Broken(error.into()),
        },
        error => ArchiveError::Broken(error.into()),
    }
}

/// Lists the entries, and refuses those that share bytes.
fn read_directory<R: Read + Seek>(zip: &mut ZipArchive<R>) -> Result<Vec<EntryInfo>, ArchiveError> {
    let directory = zip.central_directory_start();
    let mut entries = Vec::with_capacity(zip.len());
    let mut ranges = Vec::with_capacity(zip.len());
    for number in 0..zip.len() {
        let entry = zip.by_index_data(number).map_err(broken)?;
        let mut info = EntryInfo {
            name: EntryName(entry.name_raw().into()),
            size: entry.size(),
            packed: entry.compressed_size(),
            encrypted: entry.encrypted(),
            odd: oddities(entry.name_raw(), entry.external_attributes() >> 16),
            beyond: false,
        };
        let start = entry.header_start();
        match zip.by_index_raw(number) {
            Ok(file) => {
                let end = file.data_start().and_then(|at| at.checked_add(info.packed));
                match end.filter(|end| *end <= directory) {
                    Some(end) => ranges.push((start, end)),
                    None => info.beyond = true,
                }
            }
            // Damage is reported when the entry is read.
            Err(error) => match ArchiveError::of_entry(error) {
                error if error.is_of_entry() => {}
                error => return Err(error),
            },
        }
        entries.push(info);
    }
    ranges.sort_unstable();
    if ranges.windows(2).any(|pair| pair[0].1 > pair[1].0) {
        return Err(ArchiveError::Overlap);
    }
    Ok(entries)
}

enum Surveyed {
    Refused(ArchiveError),
    Io(io::Error),
}

impl From<io::Error> for Surveyed {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<ArchiveError> for Surveyed {
    fn from(error: ArchiveError) -> Self {
        Self::Refused(error)
    }
}

/// Reads what an archive says of the size of its directory, before anyone makes room for it. (The `zip` crate makes
/// room for as many entries as are declared, and for all that there are.)
///
/// There may be several ends, one real and others in its comment, say. All that could be taken must be within the limits.
/// Tells whether the archive begins with an entry.
fn survey<R: Read + Seek>(reader: &mut R, limits: &Limits) -> Result<bool, Surveyed> {
    /// A record without its comment, and the record of Zip64 that stands before it.
    const END: usize = 22;
    const LOCATOR: usize = 20;
    /// What is searched: the longest comment, and some more.
    const SEARCHED: u64 = 65_535 + 1024;

    let length = reader.seek(SeekFrom::End(0))?;
    reader.seek(SeekFrom::Start(0))?;
    let mut first = Vec::with_capacity(4);
    reader.by_ref().take(4).read_to_end(&mut first)?;
    // An archive begins with an entry, or with the end of the directory when it is empty.
    let is_zip = [b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06"]
        .iter()
        .any(|magic| first.starts_with(*magic));
    if !is_zip {
        return Err(ArchiveError::NotZip.into());
    }
    let start = length.saturating_sub(SEARCHED);
    let mut tail = Vec::new();
    reader.seek(SeekFrom::Start(start))?;
    reader.by_ref().take(SEARCHED).read_to_end(&mut tail)?;

    let ends =
        (0..tail.len().saturating_sub(END - 1)).filter(|at| tail[*at..].starts_with(b"PK\x05\x06"));
    for at in ends {
        let end = &tail[at..];
        let (mut entries, mut directory) = (u64::from(u16_at(end, 10)), u64::from(u32_at(end, 16)));
        let sentinel =
            entries == 0xffff || directory == 0xffff_ffff || u32_at(end, 12) == 0xffff_ffff;
        let locator = at.checked_sub(LOCATOR).map(|at| &tail[at..]);
        if let Some(locator) =
            locator.filter(|locator| sentinel && locator.starts_with(b"PK\x06\x07"))
        {
            let Some(record) = read_at::<56, _>(reader, u64_at(locator, 8))? else {
                continue;
            };
            if !record.starts_with(b"PK\x06\x06") {
                continue;
            }
            // The record is as long as it says, and room is made for that, too.
            (entries, directory) = (
                u64_at(&record, 32),
                u64_at(&record, 48).min(u64_at(locator, 8)),
            );
        }
        if read_at::<4, _>(reader, directory)?.is_none_or(|magic| magic != *b"PK\x01\x02")
            && !sentinel
        {
            continue;
        }
        limits.check_directory(entries, (start + at as u64).saturating_sub(directory))?;
    }
    Ok(first.starts_with(b"PK\x03\x04"))
}

/// Reads so many bytes from there, if there are as many.
fn read_at<const N: usize, R: Read + Seek>(reader: &mut R, at: u64) -> io::Result<Option<[u8; N]>> {
    let mut bytes = [0; N];
    reader.seek(SeekFrom::Start(at))?;
    match reader.read_exact(&mut bytes) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// The number at that place. The callers have looked that it is there.
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_fit_for_a_terminal() {
        let shown = |name: &[u8]| EntryName(name.into()).to_string();
        assert_eq!(shown(b"it's \"a\" sample.exe"), "it's \"a\" sample.exe");
        assert_eq!(shown("größe 日本".as_bytes()), "größe 日本");
        assert_eq!(
            shown(b"a\0b\r\n\x1b[2J\x7f\xc2\x9b"),
            r"a\0b\r\n\u{1b}[2J\u{7f}\u{9b}"
        );
        assert_eq!(
            shown("\u{202e}\u{200b}\u{feff}\u{2028}\u{301}".as_bytes()),
            r"\u{202e}\u{200b}\u{feff}\u{2028}\u{301}"
        );
        assert_eq!(shown(b"\xc3(\xff"), r"\xc3(\xff");
        assert_eq!(shown(&[b'a'; 200]), "a".repeat(200));
        for name in [[b'a'; 65_535], [0xff; 65_535]] {
            let shown = shown(&name);
            assert!(shown.ends_with('…') && shown.chars().count() <= 801);
        }
    }

    #[test]
    fn names_are_odd_or_not() {
        use Oddity::{Directory, Escapes, Folders, Reserved, Unprintable};

        let cases: [(&str, &[Oddity]); 17] = [
            (
                "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                &[],
            ),
            ("it's a sample (1).exe", &[]),
            ("größe", &[]),
            ("...", &[]),
            ("console", &[]),
            ("com10", &[]),
            ("a/b", &[Folders]),
            ("a/", &[Directory]),
            ("..", &[Escapes]),
            ("a/../../b", &[Escapes, Folders]),
            (r"a\..\b", &[Escapes, Folders]),
            (r"\\server\share", &[Escapes, Folders]),
            ("/", &[Escapes, Directory]),
            ("c:x", &[Escapes]),
            ("con.txt", &[Reserved]),
            ("", &[Reserved]),
            ("a\u{200b}", &[Unprintable]),
        ];
        for (name, expected) in cases {
            assert_eq!(*oddities(name.as_bytes(), 0), *expected, "{name:?}");
        }
        assert_eq!(*oddities(b"a", 0o100_644), []);
        assert_eq!(*oddities(b"a", 0o140_777), [Oddity::Special]);
    }

    #[test]
    fn a_limit_may_be_reached_and_not_passed() {
        let limits = Limits::default();
        assert_eq!(
            (limits.directory_size, limits.entry_size, limits.total_size),
            (4_194_304, 2_147_483_648, 8_589_934_592)
        );
        let refused = |result: Result<(), ArchiveError>| match result {
            Ok(()) => None,
            Err(ArchiveError::Limit { limit, allowed }) => Some((limit, allowed)),
            Err(error) => panic!("{error:?}"),
        };
        let entry = |size, packed| refused(limits.check_entry(size, packed));
        let size = limits.entry_size;
        assert_eq!(entry(size, size), None);
        assert_eq!(entry(size + 1, size), Some((Limit::EntrySize, size)));
        // The ratio counts from the first MiB.
        assert_eq!(entry(1_048_576, 1), None);
        assert_eq!(entry(1_048_577, 1), Some((Limit::Ratio, 500)));
        assert_eq!(entry(500 * 4000, 4000), None);
        assert_eq!(entry(500 * 4000 + 1, 4000), Some((Limit::Ratio, 500)));

        let total = limits.total_size;
        assert_eq!(refused(limits.check_total(total)), None);
        assert_eq!(
            refused(limits.check_total(total + 1)),
            Some((Limit::TotalSize, total))
        );

        let directory = |entries, size| refused(limits.check_directory(entries, size));
        assert_eq!(directory(10_000, limits.directory_size), None);
        assert_eq!(directory(10_001, 0), Some((Limit::Entries, 10_000)));
        assert_eq!(
            directory(0, limits.directory_size + 1),
            Some((Limit::DirectorySize, limits.directory_size))
        );
    }

    #[test]
    fn limits_and_oddities_have_words() {
        let limits = [
            Limit::Entries,
            Limit::DirectorySize,
            Limit::EntrySize,
            Limit::TotalSize,
            Limit::Ratio,
        ];
        let oddities = [
            Oddity::Escapes,
            Oddity::Folders,
            Oddity::Unprintable,
            Oddity::Reserved,
            Oddity::Directory,
            Oddity::Link,
            Oddity::Special,
        ];
        let words: HashSet<_> = limits
            .iter()
            .map(Limit::to_string)
            .chain(oddities.iter().map(Oddity::to_string))
            .collect();
        assert_eq!(words.len(), 12);
        assert!(words.contains("the bytes of an entry") && words.contains("its name has folders"));
    }

    /// What an archive with this end says of its directory. Behind the one entry that it has stands a record of Zip64,
    /// which says that there are 20,000.
    fn surveyed(
        entries: u16,
        size: u32,
        directory: Option<u32>,
        locator: &[u8],
        comment: &[u8],
    ) -> Option<Limit> {
        let mut bytes = b"PK\x03\x04".to_vec();
        bytes.resize(30, 0);
        let start = u32::try_from(bytes.len()).unwrap();
        bytes.extend(b"PK\x01\x02");
        bytes.resize(bytes.len() + 42, 0);
        let record = bytes.len() as u64;
        bytes.extend(b"PK\x06\x06");
        bytes.resize(bytes.len() + 28, 0);
        bytes.extend(20_000_u64.to_le_bytes());
        bytes.resize(bytes.len() + 8, 0);
        bytes.extend(u64::from(start).to_le_bytes());
        bytes.extend(locator);
        bytes.extend([0; 4]);
        bytes.extend(record.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(b"PK\x05\x06");
        bytes.resize(bytes.len() + 6, 0);
        bytes.extend(entries.to_le_bytes());
        bytes.extend(size.to_le_bytes());
        bytes.extend(directory.unwrap_or(start).to_le_bytes());
        bytes.extend(u16::try_from(comment.len()).unwrap().to_le_bytes());
        bytes.extend(comment);
        match survey(&mut io::Cursor::new(bytes), &Limits::default()) {
            Ok(_) => None,
            Err(Surveyed::Refused(ArchiveError::Limit { limit, .. })) => Some(limit),
            Err(Surveyed::Refused(error)) => panic!("{error}"),
            Err(Surveyed::Io(error)) => panic!("{error}"),
        }
    }

    #[test]
    fn whatever_end_is_taken_is_within_the_limits() {
        const LOCATOR: &[u8] = b"PK\x06\x07";
        let entries = Some(Limit::Entries);
        assert_eq!(surveyed(1, 46, None, LOCATOR, b""), None);
        assert_eq!(surveyed(10_001, 46, None, LOCATOR, b""), entries);
        // Each of the three numbers, when it is at its end, leads to the record of Zip64.
        assert_eq!(surveyed(0xffff, 46, None, LOCATOR, b""), entries);
        assert_eq!(surveyed(1, 0xffff_ffff, None, LOCATOR, b""), entries);
        assert_eq!(surveyed(1, 46, Some(0xffff_ffff), LOCATOR, b""), entries);
        // Without one, the number itself is meant.
        assert_eq!(surveyed(0xffff, 46, None, b"none", b""), entries);
        assert_eq!(surveyed(1, 0xffff_ffff, None, b"none", b""), None);
        // The longest comment hides nothing.
        assert_eq!(
            surveyed(0xffff, 46, None, LOCATOR, &[b' '; 65_535]),
            entries
        );
        // What looks like an end in a comment, and leads to no directory, is none.
        assert_eq!(
            surveyed(1, 46, None, LOCATOR, b"PK\x05\x06AAAAAAAAAAAAAAAAAAAAAAAA"),
            None
        );
    }

    #[test]
    fn numbers_are_little_endian() {
        let bytes = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
        assert_eq!(u16_at(&bytes, 1), 0x0201);
        assert_eq!(u32_at(&bytes, 1), 0x0403_0201);
        assert_eq!(u64_at(&bytes, 1), 0x0807_0605_0403_0201);
    }

    #[test]
    fn only_the_end_of_a_file_is_no_error() {
        let mut file = io::Cursor::new(b"1234");
        assert_eq!(read_at(&mut file, 1).unwrap(), Some(*b"234"));
        assert_eq!(read_at::<3, _>(&mut file, 2).unwrap(), None);

        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("the disk is on fire"))
            }
        }
        impl Seek for Broken {
            fn seek(&mut self, _: SeekFrom) -> io::Result<u64> {
                Ok(0)
            }
        }
        assert!(read_at::<3, _>(&mut Broken, 0).is_err());
    }
}
