//! What Ctrl-C does.
//!
//! A job's state is on disk, or its id was told, before anything is sent. So the command can end at once, with a
//! word on how to go on. Only while an output file is written does it end in order, so that no half of it stays;
//! a second Ctrl-C ends that, too.

use std::ops::ControlFlow;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::output::note;

static HINT: Mutex<Option<String>> = Mutex::new(None);
static WRITING: AtomicBool = AtomicBool::new(false);
static STOPPED: AtomicBool = AtomicBool::new(false);

/// Listens for Ctrl-C from now on.
pub(crate) fn listen() {
    let listening = ctrlc::set_handler(|| {
        let first = !STOPPED.swap(true, Ordering::SeqCst);
        if first && WRITING.load(Ordering::SeqCst) {
            return;
        }
        note(format_args!("error: interrupted"));
        if let Some(hint) = &*HINT.lock().unwrap_or_else(PoisonError::into_inner) {
            note(format_args!("{hint}"));
        }
        process::exit(1);
    });
    if let Err(error) = listening {
        note(format_args!("warning: Ctrl-C will end this without a word: {error}"));
    }
}

/// What to say on how to go on.
pub(crate) fn hint(hint: Option<String>) {
    *HINT.lock().unwrap_or_else(PoisonError::into_inner) = hint;
}

/// Says how to go on, after an error.
pub(crate) fn show_hint() {
    if let Some(hint) = &*HINT.lock().unwrap_or_else(PoisonError::into_inner) {
        note(format_args!("{hint}"));
    }
}

/// An output file is being written, or not any more.
pub(crate) fn writing(writing: bool) {
    WRITING.store(writing, Ordering::SeqCst);
}

/// Whether to go on writing.
pub(crate) fn check() -> ControlFlow<()> {
    if STOPPED.load(Ordering::SeqCst) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}
