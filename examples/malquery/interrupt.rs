//! What Ctrl-C does: it ends the command at once, removes what is half written, and says how to go on.
//!
//! What cannot be saved is the id of a job whose submission is under way just then: it is not known yet. The hint
//! says so.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{fs, process};

use crate::output::note;

static HINT: Mutex<Option<String>> = Mutex::new(None);
static SCRATCH: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Listens for Ctrl-C from now on.
pub(crate) fn listen() {
    let listening = ctrlc::set_handler(|| {
        // No other thread makes a file from here on.
        let scratch = lock(&SCRATCH);
        for path in &*scratch {
            // It may have got its name just now.
            let _ = fs::remove_file(path);
        }
        note(format_args!("error: interrupted"));
        show_hint();
        process::exit(1);
    });
    if let Err(error) = listening {
        note(format_args!("warning: Ctrl-C will end this without a word: {error}"));
    }
}

/// What to say on how to go on.
pub(crate) fn hint(hint: Option<String>) {
    *lock(&HINT) = hint;
}

/// Says how to go on.
pub(crate) fn show_hint() {
    if let Some(hint) = &*lock(&HINT) {
        note(format_args!("{hint}"));
    }
}

/// A file under a temporary name, which Ctrl-C removes.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Makes a file that stands at `path` until it is complete.
    pub(crate) fn make<F, E>(
        make: impl FnOnce() -> Result<F, E>,
        path: impl FnOnce(&F) -> &Path,
    ) -> Result<(F, Self), E> {
        let mut scratch = lock(&SCRATCH);
        let file = make()?;
        let path = path(&file).to_owned();
        scratch.push(path.clone());
        Ok((file, Self(path)))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        lock(&SCRATCH).retain(|path| *path != self.0);
    }
}
