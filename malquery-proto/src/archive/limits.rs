use std::fmt;

use super::report::ArchiveError;

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
    pub(super) fn check_entry(&self, size: u64, packed: u64) -> Result<(), ArchiveError> {
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

    pub(super) fn check_total(&self, size: u64) -> Result<(), ArchiveError> {
        if size > self.total_size {
            return Err(ArchiveError::Limit {
                limit: Limit::TotalSize,
                allowed: self.total_size,
            });
        }
        Ok(())
    }

    pub(super) fn check_directory(&self, entries: u64, size: u64) -> Result<(), ArchiveError> {
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
