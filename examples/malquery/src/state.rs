//! Keeps the state of a job on disk, and locks files.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use malquery_proto::OutputFile;
use serde::Serialize;

use crate::input;
use crate::interrupt::Scratch;
use crate::output::{Failure, no_folder};

/// The file that stores the state of a job.
pub(crate) struct State {
    pub(crate) path: PathBuf,
    /// Whether the first write must fail if the file exists.
    pub(crate) is_new: bool,
    /// Whether this command may remove the file.
    pub(crate) is_own: bool,
    /// Whether this command wrote the file.
    is_written: bool,
    _lock: Lock,
}

impl State {
    /// Locks the state file at `path`, which may not exist yet. Fails if another malquery process
    /// uses it.
    pub(crate) fn take(path: &Path) -> Result<Self, Failure> {
        let path = input::target(path);
        Ok(Self {
            _lock: Lock::take(&path)?,
            path,
            is_new: false,
            is_own: false,
            is_written: false,
        })
    }

    /// Returns whether the file contains the state of this command's job.
    pub(crate) fn is_saved(&self) -> bool {
        self.is_written || !self.is_own
    }

    /// Removes the file, because there is no job to resume. Does nothing unless `is_own` is set and
    /// this command wrote the file.
    pub(crate) fn forget(self) {
        if self.is_own && self.is_written {
            // A leftover file does no harm: `resume` would fail in the same way.
            let _ = std::fs::remove_file(&self.path);
        }
    }

    /// Writes the state, completely or not at all, and syncs it to disk. On Unix, only the owner
    /// can read the file, because it may contain a YARA rule.
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
            .map_err(|error| Failure::failed(&error))?;
        self.is_written = true;
        Ok(())
    }
}

/// Prevents other malquery processes from using a file, if the file system supports locks.
///
/// The lock is on a separate file in the same folder, because the file itself may be replaced or
/// may not exist yet. The operating system releases the lock when the process ends for any reason.
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
            return Err(refuse(&"the path has no file name"));
        };
        let mut lock = OsString::from(".");
        lock.push(name);
        lock.push(".lock");
        let path = of.with_file_name(lock);
        // Try again if another process removes the lock file before this one locks it.
        let take = || {
            for _ in 0..100 {
                let file = open_lock(&path).map_err(|error| match error.kind() {
                    ErrorKind::NotFound => no_folder(of),
                    _ => refuse(&format!(
                        "cannot use the lock file {}: {error}",
                        path.display()
                    )),
                })?;
                match file.try_lock() {
                    Ok(()) if is_same(&file, &path) => return Ok(file),
                    // The previous holder has just removed the lock file.
                    Ok(()) => {}
                    Err(TryLockError::WouldBlock) => {
                        return Err(refuse(&"another malquery process is using it"));
                    }
                    // The file system does not support locks, so continue without one.
                    Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => {
                        return Ok(file);
                    }
                    Err(TryLockError::Error(error)) => return Err(refuse(&error)),
                }
            }
            Err(refuse(&"the lock file keeps changing; try again"))
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
        // Remove the file while it is locked. A leftover file does no harm.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Opens or creates a lock file. Fails on anything but a regular file, without blocking on a pipe.
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
    let file = options.open(path);
    // Opening a link or a socket fails with an unclear error, so check the type even then.
    let found = path.symlink_metadata();
    if found.is_ok_and(|found| !found.is_file()) {
        return Err(io::Error::other(
            "it is not a regular file; remove the lock file",
        ));
    }
    file
}

/// Returns whether an open file is still at this path.
#[cfg(unix)]
fn is_same(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |found: std::fs::Metadata| (found.dev(), found.ino());
    matches!((file.metadata().map(id), path.symlink_metadata().map(id)), (Ok(a), Ok(b)) if a == b)
}

/// Outside Unix, returns whether the path exists.
#[cfg(not(unix))]
fn is_same(_: &File, path: &Path) -> bool {
    path.exists()
}
