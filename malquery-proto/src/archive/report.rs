use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::PathBuf;

use serde::{Serialize, Serializer};
use zip::result::ZipError;

use crate::debug::debug_with_sources;
use crate::types::Sha256;

/// The password of MalQuery's archives. It is not secret: it only keeps virus scanners from opening
/// the samples.
pub const PASSWORD: &str = "infected";

/// The error type for reading an archive and extracting its samples.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The data does not begin like a zip archive. The value describes the data.
    #[error("the file is not a zip archive; it is {0}")]
    NotZip(Box<str>),
    /// The data begins like a zip archive, but its directory is missing or damaged.
    #[error("the archive is truncated or damaged (download it again)")]
    Broken(#[source] Source),
    /// The underlying reader failed.
    #[error("the archive could not be read")]
    Read(#[source] io::Error),
    /// The archive exceeds one of the [`Limits`](super::Limits), so it may be a zip bomb.
    #[error("the archive may be a zip bomb: the {limit} exceeds the limit of {allowed}{}", limit.unit())]
    #[allow(missing_docs)]
    Limit { limit: Limit, allowed: u64 },
    /// Entries overlap, as in some zip bombs.
    #[error(
        "the archive was not read, because its entries overlap; it is damaged, or it is a zip bomb"
    )]
    Overlap,
    /// The archive has no entry with this index.
    #[error("the archive has no entry with index {0}")]
    NoEntry(usize),
    /// The password is wrong, or the entry is damaged.
    #[error(
        "the password is wrong, or the entry is damaged; MalQuery archives have the password {PASSWORD:?}"
    )]
    WrongPassword,
    /// The entry is damaged or truncated, or the password is wrong: with ZipCrypto, about one in
    /// 256 wrong passwords is not detected when the entry is opened.
    #[error("the password is wrong, or the entry is damaged")]
    Damaged(#[source] Source),
    /// The entry is compressed with an unsupported method. The value is the method number.
    #[error(
        "the entry is compressed with {}, which is not supported; unpack the archive with another program, such as 7-Zip",
        method(*_0)
    )]
    UnsupportedMethod(u16),
    /// The entry uses another unsupported feature, such as PKWARE's strong encryption.
    #[error("the entry is not supported (unpack the archive with another program, such as 7-Zip)")]
    Unsupported(#[source] Source),
    /// A sample cannot be written.
    #[error("{} could not be written", path.display())]
    #[allow(missing_docs)]
    File {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    /// Reading or writing stopped at an entry. The report covers the entries before it. Their
    /// extracted files are complete, and are kept.
    #[error("stopped at entry {} of the archive", entry + 1)]
    #[allow(missing_docs)]
    Stopped {
        entry: usize,
        source: Box<ArchiveError>,
        report: Box<Report>,
    },
    /// The archive is not complete: see [`Report::is_complete`].
    #[error(
        "the archive is not complete (missing samples: {}, damaged entries: {}){}",
        _0.missing.len(), _0.damaged.len(), _0.hidden()
    )]
    Incomplete(Box<Report>),
}

debug_with_sources!(ArchiveError);

type Source = Box<dyn StdError + Send + Sync>;

impl ArchiveError {
    /// Returns the report on the entries that were read, if the error contains one.
    pub fn report(&self) -> Option<&Report> {
        match self {
            Self::Stopped { report, .. } | Self::Incomplete(report) => Some(report),
            _ => None,
        }
    }

    /// Returns whether the error affects only one entry, and the others can still be read.
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

    /// Converts an error that occurred while opening an entry.
    pub(super) fn of_entry(error: ZipError) -> Self {
        match error {
            ZipError::Io(error) => Self::of_read(error),
            ZipError::InvalidPassword => Self::WrongPassword,
            ZipError::CompressionMethodNotSupported(method) => Self::UnsupportedMethod(method),
            ZipError::UnsupportedArchive(_) => Self::Unsupported(error.into()),
            error => Self::Damaged(error.into()),
        }
    }

    /// Converts an error that occurred while reading an entry.
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

/// Describes a compression method for a message.
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

/// One of the [`Limits`](super::Limits).
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

impl Limit {
    /// Returns the unit of the limit, for the end of a message. Empty for a count or a ratio.
    fn unit(self) -> &'static str {
        match self {
            Self::Entries | Self::Ratio => "",
            Self::DirectorySize | Self::EntrySize | Self::TotalSize => " bytes",
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Entries => "number of entries",
            Self::DirectorySize => "size of the directory",
            Self::EntrySize => "unpacked size of an entry",
            Self::TotalSize => "total unpacked size",
            Self::Ratio => "ratio of unpacked to packed size",
        })
    }
}

/// An error from the underlying reader, as opposed to an error in the content of the archive.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct ReadError(pub(super) io::Error);

/// An entry's name, which may contain any bytes. **Do not use it as a path.**
///
/// `Display` is safe for a terminal: it escapes backslashes, characters that are not printable and
/// bytes that are not UTF-8, and truncates long names.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EntryName(pub(super) Box<[u8]>);

impl EntryName {
    /// Returns the bytes of the name as stored in the archive. Do not trust them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns whether the name is UTF-8 and printable.
    pub(super) fn is_plain(&self) -> bool {
        let seen = |c: char| matches!(c, '\'' | '"' | '\\') || c.escape_debug().len() == 1;
        std::str::from_utf8(&self.0).is_ok_and(|name| name.chars().all(seen))
    }
}

/// The maximum number of characters of a name to display.
const NAME_SHOWN: usize = 200;

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |c| match c {
            '\'' | '"' => String::from(c),
            c => c.escape_debug().collect(),
        };
        let chars = self.0.utf8_chunks().flat_map(|chunk| {
            let invalid = chunk.invalid().iter();
            let invalid = invalid.map(|byte| format!("\\x{byte:02x}"));
            chunk.valid().chars().map(shown).chain(invalid)
        });
        for (count, c) in chars.enumerate() {
            if count == NAME_SHOWN {
                return f.write_str("…");
            }
            f.write_str(&c)?;
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

/// A complete sample in the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Found {
    /// The zero-based index of the entry.
    pub entry: usize,
    /// The name of the entry.
    pub name: EntryName,
    /// The SHA-256 of the sample.
    pub sha256: Sha256,
    /// The size of the sample in bytes.
    pub bytes: u64,
    /// The path of the sample's file, or `None` if the sample was not extracted.
    pub file: Option<PathBuf>,
    /// Whether the file already existed, with the same content.
    pub existed: bool,
}

/// An entry that cannot be read, or that exceeds a limit.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Damaged {
    /// The zero-based index of the entry.
    pub entry: usize,
    /// The entry's name, which may contain the SHA-256 of the lost sample.
    pub name: EntryName,
    /// The reason, which is serialized as a string.
    #[serde(serialize_with = "as_text")]
    pub error: ArchiveError,
}

/// Serializes an error and its sources as a string.
fn as_text<S: Serializer>(error: &ArchiveError, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{error:?}"))
}

/// A report on the contents of an archive. Entries are in the order of the archive's directory.
///
/// `Display` writes a one-line summary. `Serialize` writes all public fields.
#[derive(Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The expected samples that were found. Without
    /// [`Archive::expect_samples`](super::Archive::expect_samples), every sample that can be read
    /// counts as found.
    pub found: Vec<Found>,
    /// The expected samples that were not found, in the order in which they were given. Without
    /// [`Archive::expect_samples`](super::Archive::expect_samples), a sample counts as expected if
    /// an entry is named after it. Always empty in [`ArchiveError::Stopped`].
    pub missing: Vec<Sha256>,
    /// The samples in the archive that were not expected. Empty without `expect_samples`.
    pub unexpected: Vec<Found>,
    /// The entries that cannot be read, or that exceed the [`Limits`](super::Limits).
    pub damaged: Vec<Damaged>,
    /// Warnings about unusual entries, such as one whose name is a path.
    pub warnings: Vec<String>,
    /// Whether several entries have the same name. Only the last of them can be read.
    pub duplicate_names: bool,
    /// Whether the archive may contain entries that its directory omits, for example in a gap
    /// between entries, after the directory, or inside another record. Bytes that follow the
    /// compressed data inside an entry are not detected.
    pub omits_entries: bool,
    /// Whether the archive has no entries other than empty folders.
    pub is_empty: bool,
    /// The number of unpacked bytes.
    pub bytes: u64,
    /// Whether the caller set the expected samples.
    #[serde(skip)]
    pub(super) is_expected: bool,
    /// Whether reading or writing stopped early.
    #[serde(skip)]
    pub(super) is_stopped: bool,
}

impl Report {
    /// Returns whether no sample is missing and no entry is damaged.
    ///
    /// Without [`Archive::expect_samples`](super::Archive::expect_samples), `is_empty`,
    /// `duplicate_names` and `omits_entries` must also be `false`. The report in
    /// [`ArchiveError::Stopped`] is never complete.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.damaged.is_empty() && self.hidden().is_empty()
    }

    /// Returns the report if it is [complete](Self::is_complete).
    ///
    /// # Errors
    /// If the report is not complete, returns [`ArchiveError::Incomplete`], which contains the
    /// report.
    pub fn complete(self) -> Result<Self, ArchiveError> {
        if self.is_complete() {
            Ok(self)
        } else {
            Err(ArchiveError::Incomplete(Box::new(self)))
        }
    }

    /// Returns a further reason why the report is not complete, or an empty string.
    fn hidden(&self) -> &'static str {
        if self.is_stopped {
            "; reading stopped, so the remaining entries are unknown"
        } else if self.is_expected {
            ""
        } else if self.is_empty {
            "; there are no samples"
        } else if self.duplicate_names {
            "; several entries have the same name, and only the last of them can be read"
        } else if self.omits_entries {
            "; the archive may contain entries that its directory does not list"
        } else {
            ""
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "found samples: {}, missing samples: {}, damaged entries: {}, unexpected samples: {}{}",
            self.found.len(),
            self.missing.len(),
            self.damaged.len(),
            self.unexpected.len(),
            self.hidden()
        )
    }
}
