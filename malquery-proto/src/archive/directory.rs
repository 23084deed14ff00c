use std::io::{self, Read, Seek, SeekFrom};

use zip::ZipArchive;
use zip::result::ZipError;

use super::entries::{EntryInfo, Marked};
use super::limits::Limits;
use super::report::{ArchiveError, EntryName, ReadError};
use crate::sniff;

/// Converts an error that occurred while opening an archive.
pub(super) fn broken(error: impl Into<ZipError>) -> ArchiveError {
    match error.into() {
        ZipError::Io(error) => match error.downcast::<ReadError>() {
            Ok(ReadError(error)) => ArchiveError::Read(error),
            Err(error) => ArchiveError::Broken(error.into()),
        },
        error => ArchiveError::Broken(error.into()),
    }
}

/// The contents of an archive's directory.
pub(super) struct Directory {
    pub(super) entries: Vec<EntryInfo>,
    /// Whether the archive may contain entries that the directory omits.
    pub(super) omits_entries: bool,
}

/// The minimum size of an entry in bytes: its header without a name. The data descriptor that may
/// follow an entry is smaller.
const MIN_ENTRY: u64 = 30;

/// The signature at the beginning of an entry.
const ENTRY: &[u8] = b"PK\x03\x04";

/// Lists the entries. Fails if overlapping entries are found.
pub(super) fn read_directory<R: Read + Seek>(
    zip: &mut ZipArchive<Marked<R>>,
    reader: &mut Marked<R>,
) -> Result<Directory, ArchiveError> {
    let directory = zip.central_directory_start();
    let mut entries = Vec::with_capacity(zip.len());
    let mut ranges = Vec::with_capacity(zip.len());
    let mut omits_entries = false;
    for number in 0..zip.len() {
        let entry = zip.by_index_data(number).map_err(broken)?;
        let mut info = EntryInfo {
            name: EntryName(entry.name_raw().into()),
            size: entry.size(),
            packed: entry.compressed_size(),
            encrypted: entry.encrypted(),
            strong: entry.flags().as_u16() & 1 << 6 != 0,
            mode: entry.external_attributes() >> 16,
            beyond: false,
        };
        let start = entry.header_start();
        let mut end = None;
        match zip.by_index_raw(number).map(|file| file.data_start()) {
            Ok(data) => {
                end = data.and_then(|at| at.checked_add(info.packed));
                end = end.filter(|end| *end <= directory);
                info.beyond = end.is_none();
                let extra = data.unwrap_or(start).saturating_sub(start + MIN_ENTRY);
                if extra >= info.name.0.len() as u64 + MIN_ENTRY {
                    omits_entries |=
                        holds_entry(reader, start + MIN_ENTRY, extra).map_err(broken)?;
                }
            }
            // A damaged entry is reported when it is read.
            Err(error) => match ArchiveError::of_entry(error) {
                error if error.is_of_entry() => {}
                error => return Err(error),
            },
        }
        ranges.push((start, end));
        entries.push(info);
    }
    ranges.sort_unstable();
    let mut before = Some(0);
    for (start, end) in ranges.into_iter().chain([(directory, None)]) {
        // The end of a damaged entry is unknown.
        if let Some(before) = before {
            if start < before {
                return Err(ArchiveError::Overlap);
            }
            omits_entries |= start - before >= MIN_ENTRY;
        }
        before = end;
    }
    Ok(Directory {
        entries,
        omits_entries,
    })
}

/// Returns whether this range of bytes contains the signature of an entry.
fn holds_entry<R: Read + Seek>(reader: &mut R, at: u64, length: u64) -> io::Result<bool> {
    let mut bytes = Vec::new();
    reader.seek(SeekFrom::Start(at))?;
    reader.take(length).read_to_end(&mut bytes)?;
    Ok(contains_entry(&bytes))
}

fn contains_entry(bytes: &[u8]) -> bool {
    bytes.windows(ENTRY.len()).any(|window| window == ENTRY)
}

/// Returns whether the central directory and everything after it consist only of the records of
/// the listed entries, the end records and the comment, without the signature of an entry.
pub(super) fn is_closed<R: Read + Seek>(
    reader: &mut R,
    zip: &ZipArchive<impl Read + Seek>,
    limits: &Limits,
) -> io::Result<bool> {
    /// The maximum size of the end records and the comment, rounded up.
    const ENDS: u64 = 2 * 65_536;
    let most = limits.directory_size.saturating_add(ENDS);
    let mut tail = Vec::new();
    reader.seek(SeekFrom::Start(zip.central_directory_start()))?;
    reader.take(most).read_to_end(&mut tail)?;
    let mut rest = &tail[..];
    // Skips a record of `size` bytes and the variable-length fields that follow it.
    let mut skip = |magic: &[u8], size: usize, more: fn(&[u8]) -> usize| {
        let is_there = rest.starts_with(magic) && rest.len() >= size;
        let next = is_there.then(|| rest.get(size.saturating_add(more(rest))..));
        next.flatten().map(|next| rest = next).is_some()
    };
    for _ in 0..zip.len() {
        let more = |record: &[u8]| {
            [28, 30, 32]
                .map(|at| usize::from(u16_at(record, at)))
                .iter()
                .sum()
        };
        if !skip(b"PK\x01\x02", 46, more) {
            return Ok(false);
        }
    }
    if skip(b"PK\x06\x06", 56, |_| 0) {
        skip(b"PK\x06\x07", 20, |_| 0);
    }
    let has_end = skip(b"PK\x05\x06", 22, |record| usize::from(u16_at(record, 20)));
    let is_all = rest.is_empty() && (tail.len() as u64) < most;
    Ok(has_end && is_all && !contains_entry(&tail))
}

/// Checks the declared number of entries and the size of the directory before the `zip` crate
/// allocates memory for them. Returns whether the archive begins with an entry.
///
/// Fails if the file is not a zip archive. An archive may have several end records, such as fake
/// ones in its comment. Each one that the `zip` crate may use must be within the limits.
pub(super) fn survey<R: Read + Seek>(
    reader: &mut R,
    limits: &Limits,
) -> Result<bool, ArchiveError> {
    /// The size of the end record without its comment.
    const END: usize = 22;
    /// The size of the Zip64 locator before the end record.
    const LOCATOR: usize = 20;
    /// The number of bytes at the end of the file in which to search for end records.
    const SEARCHED: u64 = 65_535 + 1024;

    let length = reader.seek(SeekFrom::End(0)).map_err(broken)?;
    reader.seek(SeekFrom::Start(0)).map_err(broken)?;
    let mut first = Vec::with_capacity(sniff::ENOUGH);
    reader
        .by_ref()
        .take(sniff::ENOUGH as u64)
        .read_to_end(&mut first)
        .map_err(broken)?;
    // An archive begins with an entry or, if it is empty, with an end record.
    let is_zip = [b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06"]
        .iter()
        .any(|magic| first.starts_with(*magic));
    if !is_zip {
        return Err(ArchiveError::NotZip(sniff::what_is(&first).into()));
    }
    let start = length.saturating_sub(SEARCHED);
    let mut tail = Vec::new();
    reader.seek(SeekFrom::Start(start)).map_err(broken)?;
    reader
        .by_ref()
        .take(SEARCHED)
        .read_to_end(&mut tail)
        .map_err(broken)?;

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
            let Some(record) = read_at::<56, _>(reader, u64_at(locator, 8)).map_err(broken)? else {
                continue;
            };
            if !record.starts_with(b"PK\x06\x06") {
                continue;
            }
            // The zip crate also allocates memory for the Zip64 record, so include its length.
            (entries, directory) = (
                u64_at(&record, 32),
                u64_at(&record, 48).min(u64_at(locator, 8)),
            );
        }
        let magic = read_at::<4, _>(reader, directory).map_err(broken)?;
        if magic != Some(*b"PK\x01\x02") && !sentinel {
            continue;
        }
        limits.check_directory(entries, (start + at as u64).saturating_sub(directory))?;
    }
    Ok(first.starts_with(b"PK\x03\x04"))
}

/// Reads `N` bytes at this offset. Returns `None` if the file is too short.
pub(super) fn read_at<const N: usize, R: Read + Seek>(
    reader: &mut R,
    at: u64,
) -> io::Result<Option<[u8; N]>> {
    let mut bytes = [0; N];
    reader.seek(SeekFrom::Start(at))?;
    match reader.read_exact(&mut bytes) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads a little-endian number. The caller ensures that the bytes exist.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
