//! What Ctrl-C does: it ends the command at once, removes what is half written, and says how to go on.
//!
//! While a submission is under way the id of the job is not known yet, so the first Ctrl-C waits for the reply; before it
//! goes out, and in the pause before another attempt, nothing is waited for. While samples are extracted it waits for the
//! end of a read, so that no half of one stays.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{fs, process, thread};

use malquery_mock::{SessionGuard, Unfinished};
use malquery_proto::endpoint::{Endpoint, Resend};
use malquery_proto::flow::SendFailure;
use malquery_proto::operation::Operation;
use malquery_proto::operations::{GetDownload, GetSamples};
use malquery_proto::{Body, Clock, Timestamp, Transport, TransportError};

use crate::output::note;

static HINT: Mutex<Option<String>> = Mutex::new(None);
static GATE: Mutex<Gate> = Mutex::new(Gate {
    stopped: false,
    exiting: false,
    wait_for: None,
});
static IS_NO_ERROR: AtomicBool = AtomicBool::new(false);
static SCRATCH: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
static DOWNLOADED: AtomicBool = AtomicBool::new(false);
static RECORDING: Mutex<Option<(PathBuf, SessionGuard)>> = Mutex::new(None);

/// What the command and Ctrl-C know of each other.
struct Gate {
    /// Ctrl-C came.
    stopped: bool,
    /// The process ends any moment, and nothing is to be begun.
    exiting: bool,
    wait_for: Option<WaitFor>,
}

/// What Ctrl-C waits for.
#[derive(Clone, Copy)]
enum WaitFor {
    Reply,
    Sample,
}

/// The gate, unless the process is about to end: then who asks waits for that.
fn gate() -> MutexGuard<'static, Gate> {
    loop {
        let gate = lock(&GATE);
        if !gate.exiting {
            return gate;
        }
        drop(gate);
        thread::park();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Listens for Ctrl-C from now on.
pub(crate) fn listen() {
    let listening = ctrlc::set_handler(|| {
        let mut gate = lock(&GATE);
        let first = !std::mem::replace(&mut gate.stopped, true);
        match gate.wait_for {
            Some(WaitFor::Reply) if first => {
                note(format_args!(
                    "waiting for the reply to a submission, lest its id be lost; Ctrl-C again ends at once"
                ));
                return;
            }
            // It ends with the next read.
            Some(WaitFor::Sample) => return,
            _ => gate.exiting = true,
        }
        drop(gate);
        end();
    });
    if let Err(error) = listening {
        note(format_args!(
            "warning: Ctrl-C will end this without a word: {error}"
        ));
    }
}

/// Ends the process. Who calls it has said so at the gate.
fn end() -> ! {
    if IS_NO_ERROR.load(Ordering::SeqCst) {
        process::exit(0);
    }
    // No other thread makes a file from here on.
    let scratch = lock(&SCRATCH);
    for path in scratch.iter().rev() {
        // It may have got its name just now. A folder goes if nothing is left in it.
        if fs::remove_file(path).is_err() {
            let _ = fs::remove_dir(path);
        }
    }
    note(format_args!("error: interrupted"));
    if let Err(error) = end_recording() {
        note(format_args!("{error}"));
    }
    show_hint();
    process::exit(1);
}

/// From now on Ctrl-C is the way to end the command.
pub(crate) fn is_no_error() {
    IS_NO_ERROR.store(true, Ordering::SeqCst);
}

/// A submission goes out, or its reply was taken: in between Ctrl-C waits.
pub(crate) fn submitting(under_way: bool) {
    gate().wait_for = under_way.then_some(WaitFor::Reply);
}

/// A transport that knows when a submission goes out and when a download comes, and a clock. If Ctrl-C came while a
/// submission was under way that was refused, there is neither a pause nor another attempt.
pub(crate) struct Interruptible<T>(pub(crate) T);

impl<T: Transport> Transport for Interruptible<T> {
    fn send(
        &self,
        request: http::Request<Vec<u8>>,
    ) -> Result<http::Response<Body>, TransportError> {
        end_if_stopped();
        let meta = request.extensions().get::<Endpoint>();
        let downloads = [GetDownload::ENDPOINT.id, GetSamples::ENDPOINT.id];
        let is_download = meta.is_some_and(|meta| downloads.contains(&meta.id));
        let is_submission = meta.is_some_and(|meta| meta.resend == Resend::Billed);
        // Who watches over a job has said so before, when the state was kept.
        let is_told = is_submission && begin_submission();
        let reply = self.0.send(request);
        let is_success = reply
            .as_ref()
            .is_ok_and(|reply| reply.status().is_success());
        if is_download && is_success {
            DOWNLOADED.store(true, Ordering::SeqCst);
        }
        if is_told && !is_success {
            let refused = match &reply {
                Ok(reply) => reply.status().is_client_error(),
                Err(error) => error.failure() != SendFailure::Unknown,
            };
            if refused {
                hint(Some(NOT_SUBMITTED.into()));
            }
            // There is no id to wait for.
            submitting(false);
        }
        reply
    }
}

impl<C: Clock> Clock for Interruptible<C> {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn sleep_until(&self, time: Timestamp) {
        end_if_stopped();
        self.0.sleep_until(time);
    }
}

/// Ctrl-C waits from now on. Tells whether it did not before.
fn begin_submission() -> bool {
    let is_told = gate().wait_for.replace(WaitFor::Reply).is_none();
    if is_told {
        let unknown = "it is not known whether the job was submitted; compare the quotas before you start it anew";
        hint(Some(unknown.into()));
    }
    is_told
}

/// What is said of a job that did not go out.
pub(crate) const NOT_SUBMITTED: &str = "nothing was submitted";

/// Ends the process if Ctrl-C came and what it waited for is over.
fn end_if_stopped() {
    let mut gate = gate();
    if gate.stopped && gate.wait_for.is_none() {
        gate.exiting = true;
        drop(gate);
        end();
    }
}

/// Samples are being extracted: Ctrl-C waits, and who extracts looks at [`stopped`].
pub(crate) fn extracting(under_way: bool) {
    gate().wait_for = under_way.then_some(WaitFor::Sample);
}

/// Whether Ctrl-C came in between.
pub(crate) fn stopped() -> bool {
    gate().stopped
}

/// What is sent from now on is recorded in `path`.
pub(crate) fn record(path: &Path, guard: SessionGuard) {
    *lock(&RECORDING) = Some((path.to_owned(), guard));
}

/// Writes what was recorded. Who comes second waits until it is written.
pub(crate) fn end_recording() -> Result<(), Unfinished> {
    let mut recording = lock(&RECORDING);
    let Some((path, guard)) = recording.take() else {
        return Ok(());
    };
    guard.close()?;
    // There is none when nothing was sent.
    if path.exists() {
        note(format_args!("recorded in {}", path.display()));
        if DOWNLOADED.load(Ordering::SeqCst) {
            note(format_args!(
                "warning: {} holds what was downloaded: raw malware",
                path.display()
            ));
        }
    }
    Ok(())
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

/// A file under a temporary name, or a new folder, which Ctrl-C removes.
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

    /// A folder that was made for what is to come, and is there for nothing without it.
    pub(crate) fn folder(path: &Path) -> Self {
        lock(&SCRATCH).push(path.to_owned());
        Self(path.to_owned())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        lock(&SCRATCH).retain(|path| *path != self.0);
    }
}
