//! Lists and reads files.

use std::fs::{self, File};
use std::io::{self, Cursor, Read, Seek, SeekFrom};
#[cfg(unix)]
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use malquery_proto::Timestamp;
use malquery_proto::types::Date;

use super::{CorpusError, Skipped};

/// The resolution of modification times on FAT, the coarsest among common file systems.
pub(super) const SETTLED: Duration = Duration::from_secs(2);

pub(super) enum Source {
    File(PathBuf),
    Memory(Arc<[u8]>),
}

/// The state of a file, used to detect changes.
#[derive(Default, Clone, Copy, PartialEq)]
pub(super) struct Stamp {
    pub(super) size: u64,
    modified: Option<SystemTime>,
    /// The time of the last change (ctime), which programs cannot set directly. Unix only.
    changed: Option<SystemTime>,
    /// The device and inode numbers. Unix only.
    file: (u64, u64),
}

impl Stamp {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let stamp = Self {
            size: metadata.len(),
            modified: metadata.modified().ok(),
            ..Self::default()
        };
        #[cfg(unix)]
        let stamp = {
            let seconds = u64::try_from(metadata.ctime()).ok();
            let nanos = u32::try_from(metadata.ctime_nsec()).unwrap_or_default();
            let changed =
                seconds.and_then(|seconds| UNIX_EPOCH.checked_add(Duration::new(seconds, nanos)));
            Self {
                changed,
                file: (metadata.dev(), metadata.ino()),
                ..stamp
            }
        };
        Ok(stamp)
    }

    /// Returns the day of the last modification, in UTC, or 1970/01/01 if it is unknown or earlier.
    pub(super) fn day(&self) -> Date {
        let age = self
            .modified
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
            .unwrap_or_default();
        Date::of(Timestamp::from_millis(0).after(age))
    }
}

impl Source {
    pub(super) fn open(&self) -> io::Result<Opened> {
        let (bytes, stamp) = match self {
            Self::File(path) => {
                // If the file became a pipe, opening it would block.
                if !fs::symlink_metadata(path)?.is_file() {
                    return Err(io::Error::other("no longer a regular file"));
                }
                let file = File::open(path)?;
                let stamp = Stamp::of(&file)?;
                (Bytes::File(file), stamp)
            }
            Self::Memory(bytes) => (
                Bytes::Memory(Cursor::new(bytes.clone())),
                Stamp {
                    size: bytes.len() as u64,
                    ..Stamp::default()
                },
            ),
        };
        Ok(Opened {
            bytes,
            stamp,
            left: stamp.size,
        })
    }
}

/// An open sample. Bytes that are appended after it was opened are not read.
pub(super) struct Opened {
    bytes: Bytes,
    pub(super) stamp: Stamp,
    left: u64,
}

enum Bytes {
    File(File),
    Memory(Cursor<Arc<[u8]>>),
}

impl Opened {
    /// Returns whether the file has not changed since it was opened.
    pub(super) fn is_unchanged(&self) -> io::Result<bool> {
        match &self.bytes {
            Bytes::File(file) => Ok(Stamp::of(file)? == self.stamp),
            Bytes::Memory(_) => Ok(true),
        }
    }

    /// Returns whether the file is unchanged and its timestamp is not close to the current time.
    /// File system clocks are coarse, so two changes in quick succession may have the same
    /// timestamp.
    pub(super) fn is_settled(&self) -> io::Result<bool> {
        let distance = |time: SystemTime| time.elapsed().unwrap_or_else(|ahead| ahead.duration());
        let last = self.stamp.changed.or(self.stamp.modified);
        Ok(last.is_none_or(|time| distance(time) > SETTLED) && self.is_unchanged()?)
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.left == 0
    }

    /// Reads until the buffer is full or the sample ends.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

impl Read for Opened {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let count = match &mut self.bytes {
            Bytes::File(file) => file.read(&mut buffer[..most])?,
            Bytes::Memory(bytes) => bytes.read(&mut buffer[..most])?,
        };
        self.left -= count as u64;
        Ok(count)
    }
}

impl Seek for Opened {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match &mut self.bytes {
            Bytes::File(file) => file.seek(to)?,
            Bytes::Memory(bytes) => bytes.seek(to)?,
        };
        self.left = self.stamp.size.saturating_sub(at);
        Ok(at)
    }
}

pub(super) fn changed() -> io::Error {
    io::Error::other("a sample file has changed since it was found")
}

/// Lists all regular files in a folder and its subfolders, sorted by path, or a single file. Also
/// returns the paths that could not be listed.
pub(super) fn list(root: &Path) -> Result<(Vec<PathBuf>, Vec<Skipped>), CorpusError> {
    let unreadable = |error| CorpusError::io(root, error);
    let kind = fs::metadata(root).map_err(unreadable)?;
    if kind.is_file() {
        return Ok((
            vec![fs::canonicalize(root).map_err(unreadable)?],
            Vec::new(),
        ));
    }
    if !kind.is_dir() {
        return Err(CorpusError::new(
            root,
            "neither a folder nor a regular file",
        ));
    }
    fs::read_dir(root).map_err(unreadable)?;
    let mut files = Vec::new();
    let mut skipped = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let mut skip = |path: PathBuf, error: io::Error| {
            skipped.push(Skipped {
                path: Some(path),
                why: error.to_string(),
            });
        };
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) => {
                skip(folder, error);
                continue;
            }
        };
        for entry in entries {
            match entry.and_then(|entry| Ok((entry.file_type()?, entry.path()))) {
                Ok((kind, path)) if kind.is_dir() => folders.push(path),
                Ok((kind, path)) if kind.is_file() => files.push(path),
                Ok(_) => {}
                Err(error) => skip(folder.clone(), error),
            }
        }
    }
    files.sort_unstable();
    Ok((files, skipped))
}
