use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};

use sha2::{Digest, Sha256 as Hasher};
use zip::read::ZipFile;

use super::limits::Limits;
use super::report::{ArchiveError, EntryName, ReadError};
use crate::stream::Received;
use crate::types::Sha256;

fn mark(error: io::Error) -> io::Error {
    match error.kind() {
        // It is retried.
        io::ErrorKind::Interrupted => error,
        kind => io::Error::new(kind, ReadError(error)),
    }
}

/// The file beneath, with its errors marked.
#[derive(Debug)]
pub(super) struct Marked<R>(pub(super) R);

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

/// What an archive says about an entry. None of it is checked.
#[derive(Debug, Clone)]
pub struct EntryInfo {
    pub(super) name: EntryName,
    pub(super) size: u64,
    pub(super) packed: u64,
    pub(super) encrypted: bool,
    /// The mode of a Unix file, or 0.
    pub(super) mode: u32,
    /// The data would lie in the directory or behind it.
    pub(super) beyond: bool,
}

impl EntryInfo {
    /// Its name.
    pub fn name(&self) -> &EntryName {
        &self.name
    }

    /// The bytes that it says it unpacks to.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The bytes it takes in the archive.
    pub fn packed_size(&self) -> u64 {
        self.packed
    }

    /// The SHA-256 that its file name is or begins with: what the entry should hold.
    pub(super) fn named(&self) -> Option<Sha256> {
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

    /// Whether it is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// What is unusual about it, to show to the user. It is no danger here: names are never
    /// used.
    pub fn warning(&self) -> Option<&'static str> {
        let name = self.name.as_bytes();
        let is_path = name.iter().any(|byte| matches!(byte, b'/' | b'\\' | b':'));
        match self.mode & 0o170_000 {
            _ if self.is_directory() => Some("it is a folder"),
            0o120_000 => Some("it is a symbolic link, and holds the name of its target"),
            0 | 0o100_000 if name.is_empty() => Some("it has no name"),
            0 | 0o100_000 if is_path || name == b".." => Some("its name is a path"),
            0 | 0o100_000 if !self.name.is_plain() => Some("its name is not printable"),
            0 | 0o100_000 => None,
            _ => Some("it is a device, a pipe or a socket"),
        }
    }

    fn is_directory(&self) -> bool {
        self.mode & 0o170_000 == 0o040_000 || self.name.as_bytes().ends_with(b"/")
    }

    /// Whether it is a folder and nothing more.
    pub(super) fn is_folder(&self) -> bool {
        self.size == 0 && self.is_directory()
    }
}

/// The bytes of an entry, counted and hashed as they are read.
///
/// Reading fails at the end of a damaged entry, with an [`ArchiveError`] in the [`io::Error`], so
/// that a copy of it cannot succeed. It also fails before it returns more bytes than the [`Limits`]
/// allow.
///
/// Take care: the bytes before the end may be a broken sample, and they are malware.
pub struct Entry<'a, R: Read> {
    pub(super) file: Option<ZipFile<'a, Marked<R>>>,
    pub(super) info: &'a EntryInfo,
    pub(super) limits: Limits,
    pub(super) total: &'a mut u64,
    pub(super) hasher: Hasher,
    pub(super) bytes: u64,
    pub(super) received: Option<Received>,
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
    /// What the archive says about it.
    pub fn info(&self) -> &EntryInfo {
        self.info
    }

    /// What was read; `None` until the end is read and the entry is known to be whole.
    pub fn received(&self) -> Option<Received> {
        self.received
    }

    pub(super) fn so_far(&self) -> Received {
        Received {
            bytes: self.bytes,
            sha256: Sha256::from_bytes(self.hasher.clone().finalize().into()),
        }
    }

    pub(super) fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, ArchiveError> {
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
            // Nothing after an error can be trusted, not even an end.
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
