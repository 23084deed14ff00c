//! Files that appear complete or not at all. No other module of this crate opens files.
#![allow(clippy::disallowed_methods)]

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use sha2::{Digest, Sha256 as Hasher};
use tempfile::NamedTempFile;

use crate::stream::Received;
use crate::types::Sha256;

/// The maximum number of bytes to read at a time.
pub(crate) const CHUNK: usize = 64 * 1024;

const PREFIX: &str = ".malquery-";
const SUFFIX: &str = ".part";
/// The maximum number of attempts to create a temporary file.
const TRIES: usize = 10;

/// A file under a temporary name, to be renamed when it is complete. Dropping it deletes the file.
#[derive(Debug)]
pub(crate) struct AtomicFile(NamedTempFile);

impl AtomicFile {
    /// Creates a file in this folder. On Unix, only its owner can read and write it.
    pub(crate) fn create(folder: &Path) -> io::Result<Self> {
        for _ in 0..TRIES {
            let file = tempfile::Builder::new()
                .prefix(PREFIX)
                .suffix(SUFFIX)
                .tempfile_in(folder)?;
            // The owner must be able to read a billed download, whatever the umask is.
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt;
                file.as_file()
                    .set_permissions(fs::Permissions::from_mode(0o600))?;
            }
            // Until the file is locked, another process may remove it as abandoned. On a file
            // system without locks, the files of killed processes are never removed.
            match file.as_file().try_lock_shared() {
                Err(fs::TryLockError::WouldBlock) => {}
                _ if file.path().exists() => return Ok(Self(file)),
                _ => {}
            }
        }
        Err(io::Error::other(
            "another process keeps removing the temporary file",
        ))
    }

    /// Returns the temporary path.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    /// Truncates the file to zero bytes.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        let file = self.0.as_file_mut();
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0)).map(drop)
    }

    /// Seeks to the beginning, and returns a second handle, which shares the position.
    pub(crate) fn reader(&mut self) -> io::Result<File> {
        let file = self.0.as_file_mut();
        file.seek(SeekFrom::Start(0))?;
        file.try_clone()
    }

    /// Flushes the file to disk and renames it to `path`, which must be in the same folder.
    pub(crate) fn persist(self, path: &Path, overwrite: bool) -> io::Result<()> {
        self.0.as_file().sync_all()?;
        self.rename(path, overwrite).map_err(|(error, _)| error)
    }

    /// Like [`AtomicFile::persist`], but if the rename fails, keeps the file under another name if
    /// possible. The error then contains the new path.
    pub(crate) fn persist_or_keep(self, path: &Path, overwrite: bool) -> io::Result<()> {
        self.0.as_file().sync_all()?;
        let kept = self.path().with_extension("kept");
        let Err((error, file)) = self.rename(path, overwrite) else {
            return Ok(());
        };
        Err(match file.rename(&kept, false) {
            Ok(()) => {
                let where_it_is = format!("{error}; the complete file is at {}", kept.display());
                io::Error::new(error.kind(), where_it_is)
            }
            Err(_) => error,
        })
    }

    fn rename(self, path: &Path, overwrite: bool) -> Result<(), (io::Error, Self)> {
        if let Err(error) = check(path, overwrite) {
            return Err((error, self));
        }
        if overwrite {
            self.0.persist(path)
        } else {
            self.0.persist_noclobber(path)
        }
        .map_err(|failed| (failed.error, Self(failed.file)))?;
        // The new name is durable only after a sync of the folder, which not every system supports.
        if let Ok(folder) = File::open(folder(path)) {
            let _ = folder.sync_all();
        }
        Ok(())
    }

    /// Renames the file to `path`. Returns `false`, and keeps the existing file, if a file with the
    /// same bytes is already there.
    pub(crate) fn persist_once(
        self,
        path: &Path,
        received: Received,
        overwrite: bool,
    ) -> io::Result<bool> {
        if holds(path, received) {
            return Ok(false);
        }
        match self.persist(path, overwrite) {
            // Another process has written the same file.
            Err(_) if holds(path, received) => Ok(false),
            result => result.map(|()| true),
        }
    }
}

/// Removes the temporary files in a folder, except those locked by a process. Ignores errors.
pub(crate) fn remove_abandoned(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_part = name.starts_with(PREFIX) && name.ends_with(SUFFIX);
        if is_part && entry.metadata().is_ok_and(|found| found.is_file()) {
            let path = entry.path();
            // Hold the lock until the file is removed, so that no other process can start using it.
            if let Ok(file) = File::open(&path)
                && file.try_lock().is_ok()
            {
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// Fails if the path names a folder, or if something exists there that must not be replaced.
pub(crate) fn check(path: &Path, overwrite: bool) -> io::Result<()> {
    // `Path::file_name` ignores these endings. The rename would fail, but only after the download.
    let text = path.to_string_lossy();
    let names_a_folder = ["/", "/."].iter().any(|end| text.ends_with(end));
    if path.file_name().is_none() || names_a_folder {
        let error = "the path names a folder, not a file";
        return Err(io::Error::new(io::ErrorKind::IsADirectory, error));
    }
    match path.symlink_metadata() {
        Ok(found) if !overwrite => {
            let what = if found.is_dir() { "a folder" } else { "a file" };
            let error = format!("{what} with that name already exists");
            Err(io::Error::new(io::ErrorKind::AlreadyExists, error))
        }
        // Also reject a link to anything other than a file: the rename would replace the link.
        Ok(found) if !(found.is_file() || found.is_symlink() && leads_to_file(path)) => {
            let error = "the path exists but is not a file";
            Err(io::Error::new(io::ErrorKind::AlreadyExists, error))
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // For example, the name is too long.
        Err(error) => Err(error),
    }
}

/// Returns whether a link points to a file or cannot be followed.
fn leads_to_file(link: &Path) -> bool {
    link.metadata().map_or(true, |found| found.is_file())
}

/// Returns the folder of a file, or `.` if the path has no folder.
pub(crate) fn folder(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Fails if the path is not a folder.
pub(crate) fn check_folder(path: &Path) -> io::Result<()> {
    if fs::metadata(path)?.is_dir() {
        Ok(())
    } else {
        Err(io::Error::new(
            io::ErrorKind::NotADirectory,
            "the path is not a folder",
        ))
    }
}

/// Creates a folder and its parents if they do not exist.
pub(crate) fn create_folder(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
}

/// Opens a file for reading. Returns the file and its length.
pub(crate) fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    Ok((file, length))
}

/// Returns whether the path is a file with this size and hash. A link does not count.
fn holds(path: &Path, received: Received) -> bool {
    let is_alike = |found: fs::Metadata| found.is_file() && found.len() == received.bytes;
    path.symlink_metadata().is_ok_and(is_alike) && digest(path).is_ok_and(|found| found == received)
}

/// Returns the size and SHA-256 of a file.
pub(crate) fn digest(path: &Path) -> io::Result<Received> {
    let mut file = File::open(path)?;
    let (mut bytes, mut hasher) = (0, Hasher::new());
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => {
                hasher.update(&chunk[..count]);
                bytes += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let sha256 = Sha256::from_bytes(hasher.finalize().into());
    Ok(Received { bytes, sha256 })
}
