//! Files that the user names: rules, lists, states.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::output::Failure;

/// The largest file that is read.
const MOST: u64 = 16 * 1024 * 1024;

static DEADLINE: OnceLock<(Instant, Duration)> = OnceLock::new();

/// Reading a pipe ends when `timeout` has passed from now on.
pub(crate) fn end_after(timeout: Duration) {
    let _ = DEADLINE.set((Instant::now() + timeout, timeout));
}

/// How a file is named in messages.
pub(crate) fn name(path: &Path) -> String {
    match path.as_os_str() == "-" {
        true => "standard input".into(),
        false => path.display().to_string(),
    }
}

/// Reads a small file; `-` is standard input.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let refuse = |why: &dyn std::fmt::Display| Failure::refused(format!("{}: {why}", name(path)));
    // A pipe may keep its reader for ever, even in `open`. No other thread waits for this one.
    let (sender, result) = mpsc::channel();
    let path = path.to_owned();
    thread::spawn(move || sender.send(read_all(&path)));
    let (deadline, timeout) = DEADLINE.get().copied().unwrap_or_else(|| {
        let minute = Duration::from_secs(60);
        (Instant::now() + minute, minute)
    });
    match result.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        Ok(Ok(bytes)) if bytes.len() as u64 > MOST => Err(refuse(&"it is larger than 16 MiB")),
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) => Err(refuse(&error)),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(refuse(&format!(
            "it did not end within {} s (--timeout)",
            timeout.as_secs_f64()
        ))),
    }
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

/// Refuses what is no regular file: a pipe would block, and cannot be read twice.
pub(crate) fn check_regular(path: &Path) -> Result<(), Failure> {
    let refuse = |why: &dyn std::fmt::Display| Failure::refused(format!("{}: {why}", name(path)));
    match path.metadata() {
        Ok(found) if found.is_file() => Ok(()),
        Ok(_) => Err(refuse(&"it is not a regular file")),
        Err(error) => Err(refuse(&error)),
    }
}
