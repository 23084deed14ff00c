use super::report::{ArchiveError, Limit};

/// The unpacked size in bytes up to which any ratio is allowed.
const RATIO_FLOOR: u64 = 1 << 20;

/// Limits that protect the reader of an archive against zip bombs.
///
/// ```
/// use malquery_proto::archive::Limits;
///
/// let limits = Limits { entries: 100, ..Limits::default() };
/// assert_eq!(limits.total_size, 8 << 30);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The maximum number of entries. The default is 10,000.
    pub entries: u64,
    /// The maximum size of the archive's directory in bytes. The default is 4 MiB. The memory
    /// needed to read a hostile directory can be about 15 times the directory's size.
    pub directory_size: u64,
    /// The maximum unpacked size of one entry in bytes. The default is 2 GiB.
    pub entry_size: u64,
    /// The maximum total unpacked size of the entries that are read, in bytes. The default is 8
    /// GiB.
    pub total_size: u64,
    /// The maximum ratio of the unpacked size to the packed size of an entry. The default is 500.
    /// Entries that unpack to at most 1 MiB may have any ratio.
    ///
    /// Deflate reaches a ratio of up to 1,032. Malware that is padded with zeros, to make it too
    /// large for scanners, usually has a ratio of a few hundred, but the ratio of a small program
    /// with a lot of padding can come close to 1,032.
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
    /// Checks the unpacked size of an entry and its ratio to the packed size.
    pub(super) fn check_entry(&self, size: u64, packed: u64) -> Result<(), ArchiveError> {
        check(Limit::EntrySize, size, self.entry_size)?;
        let most = packed.saturating_mul(self.ratio).max(RATIO_FLOOR);
        check(Limit::Ratio, size, most).map_err(|_| ArchiveError::Limit {
            limit: Limit::Ratio,
            allowed: self.ratio,
        })
    }

    pub(super) fn check_total(&self, size: u64) -> Result<(), ArchiveError> {
        check(Limit::TotalSize, size, self.total_size)
    }

    pub(super) fn check_directory(&self, entries: u64, size: u64) -> Result<(), ArchiveError> {
        check(Limit::Entries, entries, self.entries)?;
        check(Limit::DirectorySize, size, self.directory_size)
    }
}

fn check(limit: Limit, value: u64, allowed: u64) -> Result<(), ArchiveError> {
    if value > allowed {
        return Err(ArchiveError::Limit { limit, allowed });
    }
    Ok(())
}
