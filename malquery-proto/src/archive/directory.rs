use std::io::{self, Read, Seek, SeekFrom};

use zip::ZipArchive;
use zip::result::ZipError;

use super::entries::{EntryInfo, oddities};
use super::limits::Limits;
use super::report::{ArchiveError, EntryName, ReadError};

/// An error of reading the directory.
pub(super) fn broken(error: ZipError) -> ArchiveError {
    match error {
        ZipError::Io(error) => match error.downcast::<ReadError>() {
            Ok(ReadError(error)) => ArchiveError::Read(error),
            Err(error) => ArchiveError::Broken(error.into()),
        },
        error => ArchiveError::Broken(error.into()),
    }
}

/// Lists the entries, and refuses those that share bytes.
pub(super) fn read_directory<R: Read + Seek>(
    zip: &mut ZipArchive<R>,
) -> Result<Vec<EntryInfo>, ArchiveError> {
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

pub(super) enum Surveyed {
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
pub(super) fn survey<R: Read + Seek>(reader: &mut R, limits: &Limits) -> Result<bool, Surveyed> {
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

/// The number at that place. The callers have looked that it is there.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
