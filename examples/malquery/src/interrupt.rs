//! Handles Ctrl-C, and on Unix also SIGTERM and SIGHUP. The interrupted command removes its partial
//! files, shows how to continue, and on Unix ends with the same signal, so that a shell loop stops
//! too.
//!
//! Once a submission is about to be sent, the first signal takes effect only after the reply,
//! because only the reply contains the id of the job. During extraction, the first signal takes
//! effect only after the current read, so that no partial sample remains. Any other signal ends the
//! command at once.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant, SystemTime};
use std::{fs, io, process, thread};

use malquery_mock::SessionGuard;
use malquery_proto::endpoint::{Endpoint, Resend};
use malquery_proto::flow::SendFailure;
use malquery_proto::operation::Operation;
use malquery_proto::operations::{GetDownload, GetSamples};
use malquery_proto::{Body, Clock, Timestamp, Transport, TransportError};

use crate::output::{self, Failure, note};

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
static RECORDING: Mutex<Option<(PathBuf, Option<SystemTime>, SessionGuard)>> = Mutex::new(None);

/// State that the command and the signal handler share.
struct Gate {
    /// Whether a signal has arrived.
    stopped: bool,
    /// Whether the process is about to end, so that nothing new may start.
    exiting: bool,
    wait_for: Option<WaitFor>,
}

#[derive(Clone, Copy)]
enum WaitFor {
    Reply,
    Sample,
}

/// Locks the gate. Blocks forever if the process is about to end.
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

/// Locks a mutex, but gives up after two seconds. The thread that holds it may hang, for example on
/// a file system that does not respond.
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

#[cfg(unix)]
pub(crate) fn listen() {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let mut wanted = vec![SIGINT, SIGTERM];
    // `nohup` makes the command ignore SIGHUP, so the command survives the closing of its terminal.
    // On systems other than Linux, detecting this requires unsafe code.
    if !is_ignored(SIGHUP) {
        wanted.push(SIGHUP);
    }
    match signal_hook::iterator::Signals::new(wanted) {
        Ok(mut signals) => {
            thread::spawn(move || signals.forever().for_each(on_signal));
        }
        Err(error) => note(format_args!(
            "warning: cannot handle Ctrl-C ({error}), so Ctrl-C ends the command without cleanup"
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
            "warning: cannot handle Ctrl-C ({error}), so Ctrl-C ends the command without cleanup"
        ));
    }
}

fn on_signal(signal: i32) {
    SIGNAL.store(signal, Ordering::SeqCst);
    let mut gate = lock(&GATE);
    let first = !std::mem::replace(&mut gate.stopped, true);
    match gate.wait_for {
        // The process is already ending, but the user does not want to wait.
        _ if gate.exiting => raise(),
        Some(WaitFor::Reply) if first => {
            note(format_args!(
                "waiting for the reply to a submission, so that the request id is not lost; press Ctrl-C again to exit at once"
            ));
            return;
        }
        // The extraction ends after the current read.
        Some(WaitFor::Sample) if first => return,
        _ => gate.exiting = true,
    }
    drop(gate);
    // Use another thread, so that this one can handle a second signal.
    thread::spawn(|| end());
}

/// Ends the process. The caller must have set `Gate::exiting`.
fn end() -> ! {
    // While this is locked, `Scratch::make` does not create files.
    let scratch = lock_soon(&SCRATCH);
    for path in scratch.iter().flat_map(|scratch| scratch.iter().rev()) {
        // The file may have been renamed in the meantime. `remove_dir` removes only empty folders.
        if fs::remove_file(path).is_err() {
            let _ = fs::remove_dir(path);
        }
    }
    if !IS_NO_ERROR.load(Ordering::SeqCst) {
        output::error(format_args!("error: {}", output::INTERRUPTED));
        if let Err(failure) = end_recording() {
            failure.show();
        }
        show_hint();
    }
    raise()
}

/// Ends the process with the signal that arrived, or outside Unix with exit code 130.
fn raise() -> ! {
    let signal = SIGNAL.load(Ordering::SeqCst);
    #[cfg(unix)]
    let _ = signal_hook::low_level::emulate_default_handler(signal);
    process::exit(128 + signal)
}

/// Makes a signal the normal way to end the command, not an error.
pub(crate) fn is_no_error() {
    IS_NO_ERROR.store(true, Ordering::SeqCst);
}

/// Marks the start or the end of a submission. The first signal in between takes effect only after
/// the reply.
pub(crate) fn submitting(under_way: bool) {
    gate().wait_for = under_way.then_some(WaitFor::Reply);
}

/// Wraps a transport or a clock. Ends the process instead of sending or pausing if a signal has
/// arrived and no submission or extraction is in progress. The transport also detects submissions
/// and downloads.
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
        // `Watch::step` marks its submissions earlier, before it saves the state.
        let is_first = is_submission && begin_submission();
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
        if is_first && !is_success {
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

/// Marks the start of a submission. Returns `false` if `Watch::step` has already marked it.
fn begin_submission() -> bool {
    let is_first = gate().wait_for.replace(WaitFor::Reply).is_none();
    if is_first {
        let unknown =
            "the job may have been submitted; check the quotas before you submit it again";
        hint(Some(unknown.into()));
    }
    is_first
}

pub(crate) const NOT_SUBMITTED: &str = "nothing was submitted";

/// Ends the process if a signal has arrived and no submission or extraction is in progress.
pub(crate) fn end_if_stopped() {
    let mut gate = gate();
    if gate.stopped && gate.wait_for.is_none() {
        gate.exiting = true;
        drop(gate);
        end();
    }
}

/// Marks the start or the end of an extraction. The first signal in between does not end the
/// process. Instead, the extraction checks [`stopped`].
pub(crate) fn extracting(under_way: bool) {
    gate().wait_for = under_way.then_some(WaitFor::Sample);
}

pub(crate) fn stopped() -> bool {
    gate().stopped
}

/// Registers a recording that [`end_recording`] writes to `path`.
pub(crate) fn record(path: &Path, guard: SessionGuard) {
    *lock(&RECORDING) = Some((path.to_owned(), changed(path), guard));
}

/// Returns the time at which a file was last changed, if it exists.
fn changed(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|file| file.modified()).ok()
}

/// Writes the recording, if there is one. A concurrent second call waits for the first.
pub(crate) fn end_recording() -> Result<(), Failure> {
    let mut recording = lock(&RECORDING);
    let Some((path, before, guard)) = recording.take() else {
        return Ok(());
    };
    guard.close().map_err(|error| {
        let failure = Failure::failed(&error);
        // The calls may have used quota, so save what can be saved. The folder of the cassette may
        // be on a full disk.
        match guard
            .save_beside()
            .or_else(|_| save_elsewhere(&path, &guard))
        {
            Ok(Some(rest)) => failure.hint(format!(
                "the exchanges that could be recorded were saved to {}",
                rest.display()
            )),
            Ok(None) => failure,
            Err(error) => failure.hint(format!("the recording is lost: {error}")),
        }
    })?;
    // No file is written if nothing was sent.
    if changed(&path) != before {
        note(format_args!(
            "the recording was saved to {}",
            path.display()
        ));
        if DOWNLOADED.load(Ordering::SeqCst) {
            let path = path.display();
            note(format_args!(
                "warning: {path} or the folder {path}.bodies may contain the downloaded malware"
            ));
        }
    }
    Ok(())
}

/// Saves a recording in a new folder within the system's temporary folder. On Unix, only the owner
/// can open the folder. Returns the path of the recording, or `None` if there was nothing to write.
fn save_elsewhere(cassette: &Path, guard: &SessionGuard) -> io::Result<Option<PathBuf>> {
    let folder = tempfile::Builder::new().prefix("malquery-").tempdir()?;
    let path = folder.path().join(cassette.file_name().unwrap_or_default());
    #[cfg(unix)]
    let own = |path: &Path, mode: u32| {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    };
    #[cfg(unix)]
    own(folder.path(), 0o700)?;
    guard.save_rest(&path).map_err(io::Error::other)?;
    if !path.exists() {
        return Ok(None);
    }
    #[cfg(unix)]
    own(&path, 0o600)?;
    let _ = folder.keep();
    Ok(Some(path))
}

/// Sets or clears the hint on how to continue after an interruption or an error.
pub(crate) fn hint(hint: Option<String>) {
    *lock(&HINT) = hint;
}

/// Shows the hint and clears it.
pub(crate) fn show_hint() {
    if let Some(hint) = lock(&HINT).take() {
        output::error(format_args!("hint: {hint}"));
    }
}

/// A temporary file or a new folder, registered so that `end` removes it.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Creates a file and registers its temporary path, which `path` returns.
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

    /// Registers a folder that was created for output files. `end` removes it if it is empty.
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
