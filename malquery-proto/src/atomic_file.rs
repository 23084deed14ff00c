//! Files that appear whole or not at all. The one place that touches files.
#![allow(clippy::disallowed_methods)]

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use sha2::{Digest, Sha256 as Hasher};
use tempfile::NamedTempFile;

use crate::stream::Received;
use crate::types::Sha256;

/// How much is read and written at a time, in bytes.
pub(crate) const CHUNK: usize = 64 * 1024;

const PREFIX: &str = ".malquery-";
const SUFFIX: &str = ".part";
/// How often a part is made that another process takes for an abandoned one.
const TRIES: usize = 10;

/// A file that has no name of its own yet: readable and writable by its owner alone, and gone when
/// it is dropped.
#[derive(Debug)]
pub(crate) struct AtomicFile(NamedTempFile);

impl AtomicFile {
    /// A file that is to appear in this folder.
    pub(crate) fn create(folder: &Path) -> io::Result<Self> {
        for _ in 0..TRIES {
            let file = tempfile::Builder::new()
                .prefix(PREFIX)
                .suffix(SUFFIX)
                .tempfile_in(folder)?;
            // Whatever the umask is, a download that was paid for must be readable.
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt;
                file.as_file()
                    .set_permissions(fs::Permissions::from_mode(0o600))?;
            }
            // Before it is locked, it looks abandoned to another process. Not every file system has
            // locks. Without one, nothing is removed after a kill.
            match file.as_file().try_lock_shared() {
                Err(fs::TryLockError::WouldBlock) => {}
                _ if file.path().exists() => return Ok(Self(file)),
                _ => {}
            }
        }
        Err(io::Error::other("another process removes it all the time"))
    }

    /// Where it is until it appears.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    /// Starts over.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        let file = self.0.as_file_mut();
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0)).map(drop)
    }

    /// A second handle, at its beginning.
    pub(crate) fn reader(&mut self) -> io::Result<File> {
        let file = self.0.as_file_mut();
        file.seek(SeekFrom::Start(0))?;
        file.try_clone()
    }

    /// Lets the file, which is complete, appear as `path` in the folder it was made in.
    pub(crate) fn persist(self, path: &Path, overwrite: bool) -> io::Result<()> {
        check(path, overwrite)?;
        self.0.as_file().sync_all()?;
        if overwrite {
            self.0.persist(path)
        } else {
            self.0.persist_noclobber(path)
        }
        .map_err(|error| error.error)?;
        // The name is on the disk once the folder is. Not every system can sync one.
        if let Ok(folder) = File::open(folder(path)) {
            let _ = folder.sync_all();
        }
        Ok(())
    }

    /// Lets the file appear as `path`. Returns `false` and changes nothing if a file with the
    /// same bytes exists.
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
            // Another process was faster.
            Err(_) if holds(path, received) => Ok(false),
            result => result.map(|()| true),
        }
    }
}

/// Removes what killed processes left in a folder: the parts that no process has open.
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
            // The lock is held until the file is gone, so that nobody else takes it meanwhile.
            if let Ok(file) = File::open(&path)
                && file.try_lock().is_ok()
            {
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// Refuses a path at which no file can appear.
pub(crate) fn check(path: &Path, overwrite: bool) -> io::Result<()> {
    // `Path` overlooks these two, and the rename would find them out too late.
    let text = path.to_string_lossy();
    let names_a_folder = ["/", "/."].iter().any(|end| text.ends_with(end));
    if path.file_name().is_none() || names_a_folder {
        let error = "it names a folder, not a file";
        return Err(io::Error::new(io::ErrorKind::IsADirectory, error));
    }
    match path.symlink_metadata() {
        Ok(found) if !overwrite => {
            let what = if found.is_dir() { "a folder" } else { "a file" };
            let error = format!("there is {what} of that name");
            Err(io::Error::new(io::ErrorKind::AlreadyExists, error))
        }
        // Also at the end of a link, such as `/dev/stdout`: a file would take its place.
        Ok(found) if !(found.is_file() || found.is_symlink() && leads_to_file(path)) => {
            let error = "it exists and is not a file";
            Err(io::Error::new(io::ErrorKind::AlreadyExists, error))
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // A name that is too long, say.
        Err(error) => Err(error),
    }
}

/// Whether a link leads to a file, or nowhere.
fn leads_to_file(link: &Path) -> bool {
    link.metadata().map_or(true, |found| found.is_file())
}

/// The folder of a file. An empty parent is the current folder.
pub(crate) fn folder(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Refuses what is not a folder.
pub(crate) fn check_folder(path: &Path) -> io::Result<()> {
    if fs::metadata(path)?.is_dir() {
        Ok(())
    } else {
        Err(io::Error::new(
            io::ErrorKind::NotADirectory,
            "it is not a folder",
        ))
    }
}

/// Creates a folder, and those above it, if they do not exist.
pub(crate) fn create_folder(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
}

/// Opens a file to read it. Returns its length as well.
pub(crate) fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    Ok((file, length))
}

/// Whether there is a file with these bytes. A link is not one.
fn holds(path: &Path, received: Received) -> bool {
    let is_alike = |found: fs::Metadata| found.is_file() && found.len() == received.bytes;
    path.symlink_metadata().is_ok_and(is_alike) && digest(path).is_ok_and(|found| found == received)
}

/// The length and the SHA-256 of a file.
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
