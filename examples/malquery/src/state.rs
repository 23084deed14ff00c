//! The state of a job on disk.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use serde::Serialize;
use tempfile::NamedTempFile;

use crate::interrupt::Scratch;
use crate::output::{Failure, code, no_folder};

/// Where the state of a job is kept.
pub(crate) struct State {
    pub(crate) path: PathBuf,
    /// Whether it must not replace anything when it is kept for the first time.
    pub(crate) is_new: bool,
    /// Whether this command made it.
    pub(crate) is_own: bool,
    _lock: Lock,
}

impl State {
    /// Takes the state at `path`, which may not exist yet. No other process may use it.
    pub(crate) fn take(path: &Path) -> Result<Self, Failure> {
        Ok(Self {
            path: path.to_owned(),
            is_new: false,
            is_own: false,
            _lock: Lock::take(path)?,
        })
    }

    /// Removes what this command has made of it: there is no job to resume.
    pub(crate) fn forget(self) {
        if self.is_own {
            // It does no harm where it cannot be removed: a resume says the same again.
            let _ = std::fs::remove_file(&self.path);
        }
    }

    /// Writes it, whole or not at all.
    pub(crate) fn keep(&mut self, stored: &impl Serialize) -> Result<(), Failure> {
        keep(stored, &self.path, std::mem::take(&mut self.is_new))
    }
}

/// Keeps other processes from a file, by a lock on another one beside it: the file itself is
/// replaced, and may not be there yet. The system lets the lock go when the process ends, however
/// it does.
pub(crate) struct Lock {
    path: PathBuf,
    _file: File,
    _scratch: Scratch,
}

impl Lock {
    pub(crate) fn take(of: &Path) -> Result<Self, Failure> {
        let refuse =
            |why: &dyn std::fmt::Display| Failure::refused(format!("{}: {why}", of.display()));
        let Some(name) = of.file_name() else {
            return Err(refuse(&"it names no file"));
        };
        let mut lock = OsString::from(".");
        lock.push(name);
        lock.push(".lock");
        let path = of.with_file_name(lock);
        // Tries that end without a lock mean that others take and remove it all the time.
        let take = || {
            for _ in 0..100 {
                let file = open_lock(&path).map_err(|error| match error.kind() {
                    ErrorKind::NotFound => no_folder(of),
                    _ => refuse(&format!(
                        "its lock {} cannot be used: {error}",
                        path.display()
                    )),
                })?;
                match file.try_lock() {
                    Ok(()) if is_same(&file, &path) => return Ok(file),
                    // Its holder has just removed it.
                    Ok(()) => {}
                    Err(TryLockError::WouldBlock) => {
                        return Err(refuse(&"another malquery is busy with it"));
                    }
                    // A file system without locks is no reason to keep anyone from a hunt.
                    Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => {
                        return Ok(file);
                    }
                    Err(TryLockError::Error(error)) => return Err(refuse(&error)),
                }
            }
            Err(refuse(&"its lock changes all the time"))
        };
        let ((file, path), scratch) =
            Scratch::make(|| take().map(|file| (file, path.clone())), |made| &made.1)?;
        Ok(Self {
            path,
            _file: file,
            _scratch: scratch,
        })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While the lock is held. It is no matter if it stays.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Opens a lock, or makes it. It follows no link and waits for nobody.
fn open_lock(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.create(true).truncate(false).write(true).read(true);
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt;
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        options.custom_flags(flags.bits().cast_signed()).mode(0o600);
    }
    let file = options.open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file; remove it"));
    }
    Ok(file)
}

/// Whether a file still has this name.
#[cfg(unix)]
fn is_same(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |found: std::fs::Metadata| (found.dev(), found.ino());
    matches!((file.metadata().map(id), path.symlink_metadata().map(id)), (Ok(a), Ok(b)) if a == b)
}

/// Elsewhere a file that is open keeps its name.
#[cfg(not(unix))]
fn is_same(_: &File, path: &Path) -> bool {
    path.exists()
}

/// Writes the state of a job, whole or not at all. It may hold a YARA rule, so it is for its owner
/// alone.
fn keep(stored: &impl Serialize, path: &Path, is_new: bool) -> Result<(), Failure> {
    let failed = |error: &dyn std::error::Error| {
        Failure::new(
            code::FAILED,
            format!("{} could not be written: {error}", path.display()),
        )
    };
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let make = || {
        tempfile::Builder::new()
            .prefix(".malquery-")
            .suffix(".new")
            .tempfile_in(folder)
    };
    let (mut file, _scratch) =
        Scratch::make(make, NamedTempFile::path).map_err(|error| failed(&error))?;
    readable(file.as_file()).map_err(|error| failed(&error))?;
    serde_json::to_writer_pretty(&mut file, stored).map_err(|error| failed(&error))?;
    file.as_file().sync_all().map_err(|error| failed(&error))?;
    if is_new {
        file.persist_noclobber(path)
    } else {
        file.persist(path)
    }
    .map_err(|error| failed(&error.error))?;
    // What is on disk must know of a request before it goes out, also after a power cut. Not every
    // system can do this.
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
    Ok(())
}

/// Lets the owner read a file, whatever the umask is.
#[cfg(unix)]
fn readable(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))
}

#[cfg(not(unix))]
fn readable(_: &File) -> io::Result<()> {
    Ok(())
}
