//! What Ctrl-C, SIGTERM and SIGHUP do: the command removes what is half written, says how to
//! continue, and ends by the same signal, so that a loop in a shell stops too.
//!
//! While a submission is under way the id of the job is not known yet, so the first signal waits
//! for the reply. Before the submission is sent, and in the pause before another attempt, the
//! signal ends the command at once. During extraction it waits for the end of a read, so that no
//! partial sample stays. A second signal ends the command at once.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};
use std::{fs, process, thread};

use malquery_mock::{SessionGuard, Unfinished};
use malquery_proto::endpoint::{Endpoint, Resend};
use malquery_proto::flow::SendFailure;
use malquery_proto::operation::Operation;
use malquery_proto::operations::{GetDownload, GetSamples};
use malquery_proto::{Body, Clock, Timestamp, Transport, TransportError};

use crate::output::{self, note};

static HINT: Mutex<Option<String>> = Mutex::new(None);
static GATE: Mutex<Gate> = Mutex::new(Gate {
    stopped: false,
    exiting: false,
    wait_for: None,
});
static SIGNAL: AtomicI32 = AtomicI32::new(0);
static IS_NO_ERROR: AtomicBool = AtomicBool::new(false);
static SCRATCH: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
static DOWNLOADED: AtomicBool = AtomicBool::new(false);
static RECORDING: Mutex<Option<(PathBuf, SessionGuard)>> = Mutex::new(None);

/// What the command and the handler of signals know of each other.
struct Gate {
    /// A signal came.
    stopped: bool,
    /// The process ends any moment, and nothing is to be begun.
    exiting: bool,
    wait_for: Option<WaitFor>,
}

/// What a signal waits for.
#[derive(Clone, Copy)]
enum WaitFor {
    Reply,
    Sample,
}

/// The gate, unless the process is about to end: then the caller waits for that.
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

/// Locks unless another thread hangs while it holds the lock, say in a file system that does not
/// answer.
fn lock_soon<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    let end = Instant::now() + Duration::from_secs(2);
    loop {
        match mutex.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(error)) => return Some(error.into_inner()),
            Err(TryLockError::WouldBlock) if Instant::now() > end => return None,
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Listens for signals from now on.
#[cfg(unix)]
pub(crate) fn listen() {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let mut wanted = vec![SIGINT, SIGTERM];
    // `nohup` says that the end of the terminal is no reason to end.
    if !is_ignored(SIGHUP) {
        wanted.push(SIGHUP);
    }
    match signal_hook::iterator::Signals::new(wanted) {
        Ok(mut signals) => {
            thread::spawn(move || signals.forever().for_each(on_signal));
        }
        Err(error) => note(format_args!(
            "warning: Ctrl-C will end this without a word: {error}"
        )),
    }
}

#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(not(unix))]
pub(crate) fn listen() {
    const CTRL_C: i32 = 2;
    if let Err(error) = ctrlc::set_handler(|| on_signal(CTRL_C)) {
        note(format_args!(
            "warning: Ctrl-C will end this without a word: {error}"
        ));
    }
}

fn on_signal(signal: i32) {
    SIGNAL.store(signal, Ordering::SeqCst);
    let mut gate = lock(&GATE);
    let first = !std::mem::replace(&mut gate.stopped, true);
    match gate.wait_for {
        // It did not end soon enough.
        _ if gate.exiting => raise(),
        Some(WaitFor::Reply) if first => {
            note(format_args!(
                "waiting for the reply to a submission, so that its id is not lost; Ctrl-C again ends at once"
            ));
            return;
        }
        // It ends with the next read.
        Some(WaitFor::Sample) if first => return,
        _ => gate.exiting = true,
    }
    drop(gate);
    // Not here: a further signal has to be heard.
    thread::spawn(|| end());
}

/// Ends the process. The caller has said so at the gate.
fn end() -> ! {
    // No other thread makes a file from here on.
    let scratch = lock_soon(&SCRATCH);
    for path in scratch.iter().flat_map(|scratch| scratch.iter().rev()) {
        // It may have got its name just now. A folder goes if nothing is left in it.
        if fs::remove_file(path).is_err() {
            let _ = fs::remove_dir(path);
        }
    }
    if !IS_NO_ERROR.load(Ordering::SeqCst) {
        output::error(format_args!("error: {}", output::INTERRUPTED));
        if let Err(error) = end_recording() {
            output::error(format_args!("error: {error}"));
        }
        show_hint();
    }
    raise()
}

/// Ends the process by the signal that came.
fn raise() -> ! {
    let signal = SIGNAL.load(Ordering::SeqCst);
    #[cfg(unix)]
    let _ = signal_hook::low_level::emulate_default_handler(signal);
    process::exit(128 + signal)
}

/// From now on a signal is the way to end the command.
pub(crate) fn is_no_error() {
    IS_NO_ERROR.store(true, Ordering::SeqCst);
}

/// A submission goes out, or its reply was taken: in between a signal waits.
pub(crate) fn submitting(under_way: bool) {
    gate().wait_for = under_way.then_some(WaitFor::Reply);
}

/// A transport that knows when a submission goes out and when a download comes, and a clock. If a
/// signal came while a submission was under way that was refused, there is neither a pause nor
/// another attempt.
pub(crate) struct Interruptible<T>(pub(crate) T);

impl<T: Transport> Transport for Interruptible<T> {
    fn send(
        &self,
        request: http::Request<Vec<u8>>,
    ) -> Result<http::Response<Body>, TransportError> {
        end_if_stopped();
        let authorization = request.headers().get(http::header::AUTHORIZATION);
        let authorization = authorization.and_then(|value| value.to_str().ok());
        if let Some(token) = authorization.and_then(|value| value.strip_prefix("Bearer ")) {
            output::hide(token);
        }
        let endpoint = request.extensions().get::<Endpoint>();
        let downloads = [GetDownload::ENDPOINT.id, GetSamples::ENDPOINT.id];
        let is_download = endpoint.is_some_and(|endpoint| downloads.contains(&endpoint.id));
        let is_submission = endpoint.is_some_and(|endpoint| endpoint.resend == Resend::Billed);
        // The observer of a job has said so before, when the state was kept.
        let is_told = is_submission && begin_submission();
        let line = output::is_verbose().then(|| format!("{} {}", request.method(), request.uri()));
        let begun = Instant::now();
        let reply = self.0.send(request);
        if let Some(line) = line {
            output::request(&line, &reply, begun.elapsed());
        }
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

/// A signal waits from now on. Returns whether it did not before.
fn begin_submission() -> bool {
    let is_told = gate().wait_for.replace(WaitFor::Reply).is_none();
    if is_told {
        let unknown = "it is not known whether the job was submitted; compare the quotas before you start it again";
        hint(Some(unknown.into()));
    }
    is_told
}

/// What is said of a job that did not go out.
pub(crate) const NOT_SUBMITTED: &str = "nothing was submitted";

/// Ends the process if a signal came and what it waited for is over.
pub(crate) fn end_if_stopped() {
    let mut gate = gate();
    if gate.stopped && gate.wait_for.is_none() {
        gate.exiting = true;
        drop(gate);
        end();
    }
}

/// Samples are being extracted: a signal waits, and the extraction asks [`stopped`].
pub(crate) fn extracting(under_way: bool) {
    gate().wait_for = under_way.then_some(WaitFor::Sample);
}

/// Whether a signal came in between.
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
    // No file is written when nothing was sent.
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

/// Sets the hint that says how to continue.
pub(crate) fn hint(hint: Option<String>) {
    *lock(&HINT) = hint;
}

/// Shows the hint, once.
pub(crate) fn show_hint() {
    if let Some(hint) = lock(&HINT).take() {
        output::error(format_args!("hint: {hint}"));
    }
}

/// A file under a temporary name, or a new folder, which a signal removes.
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

    /// A folder that was made for the files to come. It goes if it stays empty.
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
