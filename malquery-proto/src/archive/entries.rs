use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256 as Hasher};
use zip::read::ZipFile;

use super::limits::Limits;
use super::report::{ArchiveError, EntryName, ReadError};
use crate::stream::Received;
use crate::types::Sha256;

fn mark(error: io::Error) -> io::Error {
    match error.kind() {
        // The caller retries an interrupted read.
        io::ErrorKind::Interrupted => error,
        kind => io::Error::new(kind, ReadError(error)),
    }
}

/// The underlying reader. It marks its errors, to distinguish them from errors in the content.
///
/// Clones share the position. The zip crate owns one clone. Another reads the bytes that the zip
/// crate skips.
#[derive(Debug)]
pub(super) struct Marked<R>(Arc<Mutex<R>>);

impl<R> Marked<R> {
    pub(super) fn new(reader: R) -> Self {
        Self(Arc::new(Mutex::new(reader)))
    }

    fn lock(&self) -> MutexGuard<'_, R> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R> Clone for Marked<R> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<R: Read> Read for Marked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.lock().read(buffer).map_err(mark)
    }
}

impl<R: Seek> Seek for Marked<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.lock().seek(to).map_err(mark)
    }
}

/// The unverified metadata of an entry, as declared in the archive.
#[derive(Debug, Clone)]
pub struct EntryInfo {
    pub(super) name: EntryName,
    pub(super) size: u64,
    pub(super) packed: u64,
    pub(super) encrypted: bool,
    /// Whether the entry uses PKWARE's strong encryption.
    pub(super) strong: bool,
    /// The Unix file mode, or 0 if it is unknown.
    pub(super) mode: u32,
    /// Whether the data would extend into the directory.
    pub(super) beyond: bool,
}

impl EntryInfo {
    /// Returns the name of the entry.
    pub fn name(&self) -> &EntryName {
        &self.name
    }

    /// Returns the declared unpacked size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the declared packed size in bytes.
    pub fn packed_size(&self) -> u64 {
        self.packed
    }

    /// Returns the SHA-256 at the beginning of the file name, if there is one. It identifies the
    /// sample that the entry should contain.
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

    /// Returns whether the entry is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// Returns a warning for the user if the name or file type is unusual. This crate never uses
    /// the names of entries as paths.
    pub fn warning(&self) -> Option<&'static str> {
        let name = self.name.as_bytes();
        let is_path = name.iter().any(|byte| matches!(byte, b'/' | b'\\' | b':'));
        match self.mode & 0o170_000 {
            _ if self.is_directory() => Some("it is a folder"),
            0o120_000 => Some("it is a symbolic link; its content is the path of the target"),
            0 | 0o100_000 if name.is_empty() => Some("it has no name"),
            0 | 0o100_000 if is_path || name == b".." => Some("its name is a path"),
            0 | 0o100_000 if !self.name.is_plain() => {
                Some("its name contains unusual characters or invalid UTF-8")
            }
            0 | 0o100_000 => None,
            _ => Some("it is a device, a pipe or a socket"),
        }
    }

    fn is_directory(&self) -> bool {
        self.mode & 0o170_000 == 0o040_000 || self.name.as_bytes().ends_with(b"/")
    }

    /// Returns whether the entry is a folder without data.
    pub(super) fn is_folder(&self) -> bool {
        self.size == 0 && self.is_directory()
    }
}

/// An entry in an archive, as a reader that counts and hashes the bytes.
///
/// Reading the entry to the end fails if the content does not match its declared size or checksum.
/// A read that would exceed the [`Limits`] also fails. The [`io::Error`] contains an
/// [`ArchiveError`].
///
/// **The bytes are malware.** Do not use them until the whole entry has been read without an error.
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
    /// Returns the unverified metadata of the entry.
    pub fn info(&self) -> &EntryInfo {
        self.info
    }

    /// Returns the size and SHA-256, or `None` until the whole entry has been read and verified.
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
                None => Err(ArchiveError::Damaged("an earlier read failed".into())),
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
                    format!("the entry ended after {bytes} of {size} bytes").into(),
                ));
            }
            Ok(count)
        });
        match result {
            Ok(0) => {
                self.file = None;
                self.received = Some(self.so_far());
            }
            // After an error, the end of the data does not mean that the entry is complete.
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
