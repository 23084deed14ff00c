use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::PathBuf;

use serde::{Serialize, Serializer};
use zip::result::ZipError;

use super::limits::{Exceeded, Limit};
use crate::debug::debug_with_sources;
use crate::types::Sha256;

/// The password of MalQuery's archives. It protects nothing: it keeps scanners out.
pub const PASSWORD: &str = "infected";

/// What is wrong with an archive, with an entry of it, or with writing it.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// Something else than a zip archive. It says what.
    #[error("this is not a zip archive but {0}")]
    NotZip(Box<str>),
    /// It begins as a zip archive, but its directory cannot be read.
    #[error("the archive is cut off or damaged: fetch it again")]
    Broken(#[source] Source),
    /// The archive's file cannot be read.
    #[error("the archive could not be read")]
    Read(#[source] io::Error),
    /// More than the [`Limits`](super::Limits) allow, which may be a zip bomb.
    #[error(
        "the archive may be a zip bomb: {limit} may be at most {allowed}; raise the limit if you trust it"
    )]
    #[allow(missing_docs)]
    Limit { limit: Limit, allowed: u64 },
    /// Entries share bytes of the archive, as in a zip bomb.
    #[error("entries of the archive overlap: it is damaged or a zip bomb, and was not read")]
    Overlap,
    /// The archive has fewer entries.
    #[error("the archive has no entry {0}")]
    NoEntry(usize),
    /// The password is wrong, or the entry is damaged.
    #[error("the password is wrong for this entry; MalQuery's is {PASSWORD:?}")]
    WrongPassword,
    /// The entry is damaged or cut off, or was decrypted with a wrong password, which one in 256
    /// entries does not notice at once.
    #[error("the entry is damaged, or the password is wrong")]
    Damaged(#[source] Source),
    /// The entry is packed with a method that is not supported. It gives the number of the method.
    #[error(
        "the entry is packed with {}, which is not supported: unpack the archive with another program, such as 7-Zip",
        method(*_0)
    )]
    UnsupportedMethod(u16),
    /// The entry is encrypted or made in another way that is not supported.
    #[error("the entry is not supported: unpack the archive with another program, such as 7-Zip")]
    Unsupported(#[source] Source),
    /// A sample cannot be written.
    #[error("{} could not be written", path.display())]
    #[allow(missing_docs)]
    File {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    /// Reading stopped at an entry. The report has what was found before. Files that were written
    /// before stay: they are whole.
    #[error("stopped at entry {} of the archive", entry + 1)]
    #[allow(missing_docs)]
    Stopped {
        entry: usize,
        source: Box<ArchiveError>,
        report: Box<Report>,
    },
    /// Samples are missing, damaged or hidden.
    #[error(
        "the archive is not complete: samples missing: {}, entries damaged: {}{}",
        _0.missing.len(), _0.damaged.len(), _0.hidden()
    )]
    Incomplete(Box<Report>),
}

debug_with_sources!(ArchiveError);

/// What a library said.
type Source = Box<dyn StdError + Send + Sync>;

impl ArchiveError {
    /// What was found before the error.
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
                | Self::UnsupportedMethod(_)
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
            ZipError::CompressionMethodNotSupported(method) => Self::UnsupportedMethod(method),
            ZipError::UnsupportedArchive(_) => Self::Unsupported(error.into()),
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

impl From<Exceeded> for ArchiveError {
    fn from(Exceeded(limit, allowed): Exceeded) -> Self {
        Self::Limit { limit, allowed }
    }
}

/// The name of a packing method.
fn method(number: u16) -> String {
    let name = match number {
        1 => "Shrink",
        2..=5 => "Reduce",
        6 => "Implode",
        9 => "Deflate64",
        12 => "bzip2",
        14 => "LZMA",
        20 | 93 => "Zstandard",
        94 => "MP3",
        95 => "XZ",
        96 => "JPEG",
        97 => "WavPack",
        98 => "PPMd",
        _ => return format!("method {number}"),
    };
    format!("{name} (method {number})")
}

/// An error of the file beneath the archive, as opposed to one of what is in it.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct ReadError(pub(super) io::Error);

/// The name of an entry: any bytes. Do not use it as a path.
///
/// `Display` is safe for a terminal: it escapes what is not printable or not UTF-8, and cuts long
/// names.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EntryName(pub(super) Box<[u8]>);

impl EntryName {
    /// The bytes as they are in the archive. Take care what you do with them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether it is UTF-8, and all of it can be seen.
    pub(super) fn is_plain(&self) -> bool {
        let seen = |c: char| matches!(c, '\'' | '"' | '\\') || c.escape_debug().len() == 1;
        std::str::from_utf8(&self.0).is_ok_and(|name| name.chars().all(seen))
    }
}

/// How many characters of a name are displayed.
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

impl Serialize for EntryName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A sample that is whole in the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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
    /// The file with its bytes, if it was extracted.
    pub file: Option<PathBuf>,
    /// Whether that file existed before, with the same bytes.
    pub existed: bool,
}

/// An entry that cannot be read.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Damaged {
    /// The number of the entry, from 0.
    pub entry: usize,
    /// Its name. In an archive of samples it may say which sample is lost.
    pub name: EntryName,
    /// Why. It is stored as text.
    #[serde(serialize_with = "as_text")]
    pub error: ArchiveError,
}

/// Writes an error and its sources.
fn as_text<S: Serializer>(error: &ArchiveError, serializer: S) -> Result<S::Ok, S::Error> {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    serializer.serialize_str(&text)
}

/// What is in an archive. Entries are in the order of its directory.
///
/// `Display` is one line with the counts. Serde writes all of it.
#[derive(Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The samples that were asked for. Without
    /// [`Archive::expect_samples`](super::Archive::expect_samples), all samples.
    pub found: Vec<Found>,
    /// The samples that were asked for and are missing, in that order. Without
    /// [`Archive::expect_samples`](super::Archive::expect_samples), those that an entry is named
    /// after and no entry holds.
    pub missing: Vec<Sha256>,
    /// The samples that were not asked for.
    pub unexpected: Vec<Found>,
    /// The entries that cannot be read, or are larger than the [`Limits`](super::Limits) allow.
    pub damaged: Vec<Damaged>,
    /// What is unusual, such as an entry whose name is a path. It is no danger here.
    pub warnings: Vec<String>,
    /// Whether several entries have the same name. Only the last of them can be read.
    pub duplicate_names: bool,
    /// Whether bytes of the archive, enough for an entry, belong to no entry of its directory.
    pub omits_entries: bool,
    /// Whether the archive has no entry at all.
    pub is_empty: bool,
    /// The bytes that were unpacked.
    pub bytes: u64,
    /// Whether it is known what was asked for.
    #[serde(skip)]
    pub(super) is_expected: bool,
}

impl Report {
    /// Whether nothing is missing or damaged.
    ///
    /// Without [`Archive::expect_samples`](super::Archive::expect_samples), nothing may be hidden
    /// either: the archive has an entry, no two entries have the same name, and the directory omits
    /// none.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.damaged.is_empty() && self.hidden().is_empty()
    }

    /// Makes an error of a report that is not complete.
    ///
    /// # Errors
    /// [`ArchiveError::Incomplete`], which holds the report.
    pub fn complete(self) -> Result<Self, ArchiveError> {
        if self.is_complete() {
            Ok(self)
        } else {
            Err(ArchiveError::Incomplete(Box::new(self)))
        }
    }

    /// Why samples may be missing that cannot be named, as the end of a sentence.
    fn hidden(&self) -> &'static str {
        if self.is_expected {
            ""
        } else if self.is_empty {
            "; it has no entry"
        } else if self.duplicate_names {
            "; several entries have the same name, and only the last of them can be read"
        } else if self.omits_entries {
            "; its directory omits entries that are in the file"
        } else {
            ""
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "samples found: {}, missing: {}, damaged: {}, not asked for: {}{}",
            self.found.len(),
            self.missing.len(),
            self.damaged.len(),
            self.unexpected.len(),
            self.hidden()
        )
    }
}
