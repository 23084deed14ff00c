//! The state of a job on disk.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use malquery_proto::OutputFile;
use serde::Serialize;

use crate::input;
use crate::interrupt::Scratch;
use crate::output::{Failure, no_folder};

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
    /// Takes the state at `path`, which may not exist yet. No other process may use it, under
    /// another name neither.
    pub(crate) fn take(path: &Path) -> Result<Self, Failure> {
        let path = input::target(path);
        Ok(Self {
            _lock: Lock::take(&path)?,
            path,
            is_new: false,
            is_own: false,
        })
    }

    /// Removes what this command has made of it: there is no job to resume.
    pub(crate) fn forget(self) {
        if self.is_own {
            // It does no harm where it cannot be removed: a resume says the same again.
            let _ = std::fs::remove_file(&self.path);
        }
    }

    /// Writes it, whole or not at all. It may hold a YARA rule, so it is for its owner alone. It is
    /// on the disk before a request goes out, also after a power cut.
    pub(crate) fn keep(&mut self, stored: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_vec_pretty(stored).map_err(|error| Failure::failed(&error))?;
        let create = match std::mem::take(&mut self.is_new) {
            true => OutputFile::create_new,
            false => OutputFile::replace,
        };
        Scratch::make(|| create(self.path.clone()), OutputFile::temporary)
            .and_then(|(mut file, _scratch)| {
                file.write_all(&text)?;
                file.finish()
            })
            .map_err(|error| Failure::failed(&error))
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
