//! Reads input files, such as rules, lists and state files.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::output::Failure;
use crate::values::written;

/// The maximum size of an input file, in bytes.
const MOST: u64 = 16 * 1024 * 1024;

/// The time at which --timeout expires, and the value of --timeout.
static DEADLINE: OnceLock<(Instant, Duration)> = OnceLock::new();

/// Starts the time limit for reading input files. The client has its own deadline.
pub(crate) fn end_after(timeout: Duration) {
    let _ = DEADLINE.set((Instant::now() + timeout, timeout));
}

/// Returns how much of --timeout is left.
pub(crate) fn time_left() -> Duration {
    let left = |(end, _): &(Instant, _)| end.saturating_duration_since(Instant::now());
    DEADLINE.get().map_or(Duration::ZERO, left)
}

/// Returns the name of a file for messages.
pub(crate) fn name(path: &Path) -> String {
    match path.as_os_str() == "-" {
        true => "standard input".into(),
        false => path.display().to_string(),
    }
}

fn refuse(path: &Path, why: impl std::fmt::Display) -> Failure {
    Failure::refused(format!("{}: {why}", name(path)))
}

/// Reads a file of at most 16 MiB, within the time limit. `-` is standard input.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let owned = path.to_owned();
    match within(path, move || read_all(&owned))? {
        Ok(bytes) if bytes.len() as u64 > MOST => Err(refuse(path, "the input exceeds 16 MiB")),
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(refuse(path, error)),
    }
}

/// Runs `read` within the time limit, because a pipe can block its reader forever, even in `open`.
pub(crate) fn within<T: Send + 'static>(
    path: &Path,
    read: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    // Nothing joins this thread, so it may block forever.
    let (sender, result) = mpsc::channel();
    thread::spawn(move || sender.send(read()));
    result.recv_timeout(time_left()).map_err(|_| {
        let timeout = DEADLINE
            .get()
            .map_or(Duration::ZERO, |(_, timeout)| *timeout);
        let timeout = written(timeout);
        refuse(
            path,
            format!("reading did not finish within {timeout} (--timeout)"),
        )
    })
}

fn read_all(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if path.as_os_str() == "-" {
        io::stdin().lock().take(MOST + 1).read_to_end(&mut bytes)?;
    } else {
        File::open(path)?.take(MOST + 1).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// Follows symbolic links to a file, which may not exist yet. Returns `path` itself after 40 links.
/// A write must replace the file, not the link.
pub(crate) fn target(path: &Path) -> PathBuf {
    const MOST_LINKS: usize = 40;
    let mut target = path.to_owned();
    for _ in 0..MOST_LINKS {
        let Ok(next) = target.read_link() else {
            return target;
        };
        target = target.with_file_name("").join(next);
    }
    path.to_owned()
}

/// Returns the canonical path of a file, which may not exist yet. If its folder cannot be
/// resolved, returns its absolute path.
pub(crate) fn place(path: &Path) -> PathBuf {
    let target = target(path);
    let folder = target
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new(".")).canonicalize();
    match (folder, target.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => std::path::absolute(&target).unwrap_or(target),
    }
}

/// Refuses anything but a regular file, because a pipe may block and cannot be read twice.
pub(crate) fn check_regular(path: &Path) -> Result<(), Failure> {
    match path.metadata() {
        Ok(found) if found.is_file() => Ok(()),
        Ok(_) => Err(refuse(path, "not a regular file")),
        Err(error) => Err(refuse(path, error)),
    }
}
