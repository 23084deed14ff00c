use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::PathBuf;

use zip::result::ZipError;

use super::entries::Oddity;
use super::limits::Limit;
use crate::types::Sha256;

/// The password of MalQuery's archives. It protects nothing but keeps scanners from looking in.
pub const PASSWORD: &str = "infected";

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
    pub(super) fn is_of_entry(&self) -> bool {
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
    pub(super) fn of_entry(error: ZipError) -> Self {
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
    pub(super) fn of_read(error: io::Error) -> Self {
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
pub(super) struct ReadError(pub(super) io::Error);

///
/// `Display` is fit for a terminal: it escapes what is not printable or not UTF-8, and cuts off what is long.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EntryName(pub(super) Box<[u8]>);

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
    pub(super) is_expected: bool,
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
