use std::fmt;

/// What an entry may unpack to whatever its ratio is.
const RATIO_FLOOR: u64 = 1 << 20;

/// How much of an archive is read.
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
    /// Bytes of the directory of the archive: 4 MiB. A hostile directory takes up to 15 times as
    /// much memory.
    pub directory_size: u64,
    /// Bytes that one entry unpacks to: 2 GiB.
    pub entry_size: u64,
    /// Bytes that all entries together unpack to: 8 GiB.
    pub total_size: u64,
    /// Bytes that one packed byte unpacks to: 500. An entry of up to 1 MiB may exceed it. Deflate
    /// reaches 1,032, and samples that are padded with zeros, to be too large for scanners, a few
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
    /// Refuses an entry of this size that takes `packed` bytes of the archive.
    pub(super) fn check_entry(&self, size: u64, packed: u64) -> Result<(), Exceeded> {
        check(Limit::EntrySize, size, self.entry_size)?;
        let most = packed.saturating_mul(self.ratio).max(RATIO_FLOOR);
        check(Limit::Ratio, size, most).map_err(|_| Exceeded(Limit::Ratio, self.ratio))
    }

    pub(super) fn check_total(&self, size: u64) -> Result<(), Exceeded> {
        check(Limit::TotalSize, size, self.total_size)
    }

    pub(super) fn check_directory(&self, entries: u64, size: u64) -> Result<(), Exceeded> {
        check(Limit::Entries, entries, self.entries)?;
        check(Limit::DirectorySize, size, self.directory_size)
    }
}

/// A limit that is exceeded, and what it allows.
#[derive(Debug, PartialEq)]
pub(super) struct Exceeded(pub(super) Limit, pub(super) u64);

fn check(limit: Limit, value: u64, allowed: u64) -> Result<(), Exceeded> {
    if value > allowed {
        return Err(Exceeded(limit, allowed));
    }
    Ok(())
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
            Self::Ratio => "the bytes that one packed byte unpacks to",
        })
    }
}
