//! Sessions, which replay cassettes and record them on demand.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use http::{Request, Response};
use malquery_proto::{Auth, Body, Client, Clock, Transport, TransportError};

use crate::cassette::load::{CassetteError, unfit};
use crate::cassette::matching::{is_for_tokens, job_ids};
use crate::cassette::play::{Mock, MockError, Unfinished};
use crate::cassette::{Cassette, folder_of, save};
use crate::clock::VirtualClock;
use crate::record::log::Log;
use crate::record::policy::Policy;
use crate::record::write::Recording;
use crate::script::script;
use crate::verify;

const VARIABLE: &str = "MALQUERY_MOCK";

/// The mode of a [`Session`], set by the environment variable `MALQUERY_MOCK` or in code.
///
/// All modes except `Replay` can send requests that use quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Mode {
    /// Answers from the cassette and sends nothing (`replay`, the default).
    #[default]
    Replay,
    /// Sends the requests and replaces the cassette (`record`). Fails if the file changes during
    /// the session, so use a separate cassette for each test.
    Record,
    /// Answers requests from the cassette if possible, sends the others, and adds them to the
    /// cassette (`append`). Token requests are always sent, and never added. A job that starts live
    /// continues live. A recorded job cannot continue live, because its real id is not in the
    /// cassette; record the job again.
    Append,
    /// Sends the requests and writes nothing (`verify`). Fails if a request is not in the cassette,
    /// if the status or the JSON structure of its reply differs from the recording, or if no
    /// recorded request is sent. Ignores token requests.
    Verify,
    /// Sends the requests and ignores the cassette (`passthrough`).
    Passthrough,
}

impl Mode {
    const NAMES: [(&str, Self); 5] = [
        ("replay", Self::Replay),
        ("record", Self::Record),
        ("append", Self::Append),
        ("verify", Self::Verify),
        ("passthrough", Self::Passthrough),
    ];

    /// Returns the mode from the environment variable `MALQUERY_MOCK`. The default is `Replay`.
    ///
    /// # Errors
    /// Fails if the value is not a mode. Also fails for `record` and `append` if `CI` has a
    /// non-empty value other than `0` and `false`, because a recording on a build server would be
    /// lost.
    pub fn from_env() -> Result<Self, OpenError> {
        let value = |name| {
            let value = std::env::var_os(name).unwrap_or_default();
            value.to_string_lossy().into_owned()
        };
        let mode = match value(VARIABLE) {
            unset if unset.is_empty() => Self::Replay,
            set => set
                .parse()
                .map_err(|OpenError(error)| OpenError::new(format!("{VARIABLE}={error}"), None))?,
        };
        let is_ci = !matches!(&*value("CI").to_ascii_lowercase(), "" | "0" | "false");
        if is_ci && matches!(mode, Self::Record | Self::Append) {
            let message = format!(
                "{VARIABLE} starts a recording, but CI is set; record on your own machine and \
                 commit the cassette"
            );
            return Err(OpenError::new(message, None));
        }
        Ok(mode)
    }
}

impl FromStr for Mode {
    type Err = OpenError;

    fn from_str(text: &str) -> Result<Self, OpenError> {
        if let Some((_, mode)) = Self::NAMES.iter().find(|(name, _)| *name == text) {
            return Ok(*mode);
        }
        let names = Self::NAMES.map(|(name, _)| name).join(", ");
        let text: String = text.chars().take(40).collect();
        let message = format!("{text:?} is not a valid mode; use one of: {names}");
        Err(OpenError::new(message, None))
    }
}

/// The error returned if a session cannot start or a string is not a valid [`Mode`]. No request was
/// sent.
#[derive(Clone, thiserror::Error)]
#[error(transparent)]
pub struct OpenError(Arc<CassetteError>);

impl OpenError {
    fn new(message: String, source: Option<io::Error>) -> Self {
        let place = None;
        Self(Arc::new(CassetteError {
            message,
            place,
            source,
        }))
    }
}

impl fmt::Debug for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<CassetteError> for OpenError {
    fn from(mut error: CassetteError) -> Self {
        if error.source.is_some() {
            error.message += &format!(
                " (to record a cassette, use the mode `record`, for example with {VARIABLE}=record)"
            );
        }
        Self(Arc::new(error))
    }
}

/// Replays a cassette in a test, and records it on demand.
///
/// The environment variable `MALQUERY_MOCK` sets the [`Mode`]; see [the
/// guide](crate#record-and-replay). [`format`](crate::format#what-is-recorded) lists what a
/// recording may contain. The recording is written when the session ends; see [`SessionGuard`].
///
/// ```
/// use malquery_mock::Session;
/// use malquery_ureq::{Auth, Settings, SystemClock, UreqTransport};
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("quotas.json");
/// # std::fs::write(&path, r#"{"version": 1, "interactions": [{"id": "quotas",
/// #     "request": {"method": "GET", "uri": "/malquery/aggregates/quotas/v1"},
/// #     "response": {"status": 200, "body": {"json": {"meta": {"hunt_limit": 100}}}}}]}"#)?;
///
/// let (client, guard) = Session::new(path).client(|| {
///     // A replay does not call this and needs no credentials.
///     let Settings { base, credentials, .. } = Settings::from_env().unwrap();
///     (UreqTransport::new(), SystemClock, Auth::new(base, credentials))
/// })?;
/// assert_eq!(client.quotas()?.meta.hunt_limit, Some(100));
/// guard.finish();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "call `client` or `transport` to start the session"]
pub struct Session {
    path: PathBuf,
    mode: Option<Mode>,
    policy: Policy,
}

impl Session {
    /// Creates a session with the cassette at this path. Cargo runs tests in the package's folder,
    /// so relative paths start there. For `quotas.json`, large bodies are stored in the folder
    /// `quotas.json.bodies`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            mode: None,
            policy: Policy::new(),
        }
    }

    /// Sets the mode and ignores the environment. A recording can then start even if `CI` is set.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Also records the values at these paths in JSON replies, for example at `resources/*/entropy`.
    /// `*` stands for any item of an array. To record an object or array, list the paths of its
    /// members or items, for example `resources/*/names/*`. Use this for operations that you define
    /// yourself.
    pub fn also<S: Into<String>>(mut self, places: impl IntoIterator<Item = S>) -> Self {
        for place in places {
            self.policy.keep(&place.into());
        }
        self
    }

    /// Keeps these secrets, such as a proxy password, out of the recording, in addition to the
    /// client's own credentials. A recording does not start if one of these secrets is 1 to 5 bytes
    /// long, because such a short secret could be part of an ordinary word.
    pub fn secrets<S: AsRef<str>>(mut self, secrets: impl IntoIterator<Item = S>) -> Self {
        for secret in secrets {
            self.policy.hide(secret.as_ref());
        }
        self
    }

    /// Starts the session and returns its client. `live` returns the parts of a live client. A
    /// replay does not call `live`. It uses a [`VirtualClock`] and test credentials instead, and
    /// answers token requests automatically.
    ///
    /// # Errors
    /// Returns any error from [`Mode::from_env`], unless [`mode`](Self::mode) was called. Also
    /// fails if the mode requires a cassette that cannot be read or written, or, in a recording, if
    /// one of the [`secrets`](Self::secrets) is 1 to 5 bytes long.
    #[track_caller]
    pub fn client<T: Transport + 'static, C: Clock + 'static>(
        self,
        live: impl FnOnce() -> (T, C, Auth),
    ) -> Result<(Client, SessionGuard), OpenError> {
        let mut parts: Option<(Arc<dyn Clock>, Auth)> = None;
        let (transport, guard) = self.transport(|| {
            let (transport, clock, auth) = live();
            parts = Some((Arc::new(clock), auth));
            transport
        })?;
        let (clock, auth) = parts.unwrap_or_else(|| {
            let auth = match &guard.end {
                End::Check(mock) => mock.cassette().auth(),
                _ => script([]).auth(),
            };
            (Arc::new(VirtualClock::new()), auth)
        });
        Ok((Client::new(transport, clock, auth), guard))
    }

    /// Like [`client`](Self::client), but returns a transport for a client with your own settings.
    ///
    /// # Errors
    /// See [`client`](Self::client).
    #[track_caller]
    pub fn transport<T: Transport + 'static>(
        self,
        live: impl FnOnce() -> T,
    ) -> Result<(SessionTransport, SessionGuard), OpenError> {
        let Self { path, mode, policy } = self;
        let mode = mode.map_or_else(Mode::from_env, Ok)?;
        let load = || Cassette::load(&path).map(Cassette::with_tokens);
        let log = Log::new(folder_of(&path), u64::MAX);
        let (parts, end) = match mode {
            Mode::Passthrough => (Parts::Live(Arc::new(live())), End::Nothing),
            Mode::Replay => {
                let mock = load()?.transport();
                (Parts::Replay(mock.clone()), End::Check(mock))
            }
            Mode::Verify => {
                let end = End::Compare(load()?, policy);
                (Parts::Noted(Arc::new(live()), log.clone(), None), end)
            }
            Mode::Record | Mode::Append if policy.has_short => {
                let why = "a secret, such as a proxy password, must be at least 6 bytes long";
                return Err(OpenError::new(why.into(), None));
            }
            Mode::Record | Mode::Append => {
                save::check(&path).map_err(|error| {
                    let message = format!("{} cannot be written", path.display());
                    OpenError::new(message, Some(error))
                })?;
                let appends = mode == Mode::Append;
                let cassette = (appends && path.exists()).then(load).transpose()?;
                let mock = cassette.map(|cassette| cassette.transport());
                let end = End::Save(Mutex::new(Recording {
                    base: std::fs::read_to_string(&path).ok(),
                    path,
                    log: log.clone(),
                    appends,
                    policy,
                    written: None,
                }));
                (Parts::Noted(Arc::new(live()), log.clone(), mock), end)
            }
        };
        let guard = SessionGuard {
            end,
            log,
            prints: false,
        };
        Ok((SessionTransport(parts), guard))
    }
}

/// The transport of a [`Session`] in any mode. Clones belong to the same session, even in other
/// threads.
///
/// A session that records, appends or verifies sends nothing after [`SessionGuard::close`].
#[derive(Clone)]
pub struct SessionTransport(Parts);

#[derive(Clone)]
enum Parts {
    Replay(Mock),
    Live(Arc<dyn Transport>),
    /// The mock plays the cassette to append to, if any.
    Noted(Arc<dyn Transport>, Log, Option<Mock>),
}

impl fmt::Debug for SessionTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Parts::Replay(_) => "SessionTransport(replay)",
            _ => "SessionTransport(live)",
        })
    }
}

impl Transport for SessionTransport {
    fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Body>, TransportError> {
        let (live, log, mock) = match &self.0 {
            Parts::Replay(mock) => return mock.send(request),
            Parts::Live(live) => return live.send(request),
            Parts::Noted(live, log, mock) => (live, log, mock),
        };
        // A job that started live continues live, even if the cassette has a job with the same id.
        // Live requests need a real token.
        if let Some(mock) = mock
            && !is_for_tokens(request.uri().path())
            && !log.began(job_ids(request.uri()))
            && let Some(result) = mock.try_send(&request)
        {
            log.note(&request, false);
            return result;
        }
        let unfit = unfit(request.method(), request.uri());
        log.pass(request, |request| match unfit {
            // The log contains the request, so the guard reports it too.
            Some(why) => {
                let why = format!("{why}; the request was not sent");
                Err(MockError::Unmatched(why.into()).into())
            }
            None => live.send(request),
        })
    }
}

/// Ends a [`Session`]: checks the replay, writes the recording, or reports changes in the service.
///
/// The session ends when the guard is finished, closed or dropped. If [`close`](Self::close) fails,
/// the guard keeps the recording. [`save_beside`](Self::save_beside) or
/// [`save_rest`](Self::save_rest) can then write it to another path, without the exchanges that
/// cannot be recorded. If the thread panics before the session ends, and a recorded request may
/// have used quota, dropping the guard calls `save_beside`.
#[must_use = "dropping the guard ends the session"]
pub struct SessionGuard {
    end: End,
    /// The logged exchanges, if any. The log ends with the session.
    log: Log,
    /// Whether to print notes for the user, instead of sending them to the `log` crate.
    prints: bool,
}

enum End {
    Nothing,
    Check(Mock),
    Save(Mutex<Recording>),
    Compare(Cassette, Policy),
}

impl SessionGuard {
    /// Ends the session. Unlike a panic on drop, a panic here names the line of this call.
    ///
    /// # Panics
    /// Panics if [`close`](Self::close) fails. If a recording is not written, the exchanges that
    /// can be saved go to a file such as `quotas.rest.json`.
    #[track_caller]
    pub fn finish(mut self) {
        self.prints = true;
        self.close_or_panic();
    }

    #[track_caller]
    fn close_or_panic(&self) {
        if let Err(error) = self.close() {
            panic!("{error}{}", self.rescue());
        }
    }

    /// Ends the session without panicking, for use in a program.
    ///
    /// # Errors
    /// A replay fails if a request got no reply or if unused replies remain. A recording fails if
    /// an exchange cannot be recorded or if the file cannot be written. A verification fails if the
    /// requests or their replies differ from the cassette.
    pub fn close(&self) -> Result<(), Unfinished> {
        self.log.end();
        match &self.end {
            End::Nothing => Ok(()),
            End::Check(mock) => mock.check(),
            End::Save(_) => self.write(None, true, false),
            End::Compare(cassette, policy) => {
                let drift = verify::find(cassette, &self.log, policy);
                if drift.is_empty() {
                    return Ok(());
                }
                let (name, drift) = (&cassette.name, drift.join("\n  "));
                Err(Unfinished(format!(
                    "the verification of {name} failed:\n  {drift}\n\
                     to fix this, check what changed, and record again"
                )))
            }
        }
    }

    /// Writes the completed exchanges without ending the session. Can be called at any time, from
    /// any thread, for example on Ctrl-C. Does nothing unless the session records or appends.
    ///
    /// # Errors
    /// Fails if an exchange cannot be recorded, or if the file cannot be written. The guard keeps
    /// the recording.
    pub fn save(&self) -> Result<(), Unfinished> {
        self.write(None, false, false)
    }

    /// Like [`save`](Self::save), but writes to this path and omits exchanges that cannot be
    /// recorded. An existing file at this path is replaced. The exception is the cassette of a
    /// session that appends: its existing interactions are kept.
    ///
    /// # Errors
    /// Fails if the file cannot be written. The guard keeps the recording.
    pub fn save_rest(&self, path: impl AsRef<Path>) -> Result<(), Unfinished> {
        self.write(Some(path.as_ref()), false, true)
    }

    /// Calls [`save_rest`](Self::save_rest) with an unused path next to the cassette, such as
    /// `quotas.rest.json`. Returns the path, or `None` if there was nothing to write.
    ///
    /// # Errors
    /// Fails if the file cannot be written. The guard keeps the recording.
    pub fn save_beside(&self) -> Result<Option<PathBuf>, Unfinished> {
        let End::Save(recording) = &self.end else {
            return Ok(None);
        };
        let path = locked(recording).path.clone();
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let mut rest = path.with_file_name(format!("{name}.rest.json"));
        let mut number = 1;
        // Keeps the file from an earlier run, because its replies may have used quota too.
        while rest.exists() {
            number += 1;
            rest.set_file_name(format!("{name}.rest-{number}.json"));
        }
        self.save_rest(&rest)?;
        Ok(rest.exists().then_some(rest))
    }

    fn write(&self, to: Option<&Path>, all: bool, rest: bool) -> Result<(), Unfinished> {
        let End::Save(recording) = &self.end else {
            return Ok(());
        };
        let mut recording = locked(recording);
        let to = to.map_or_else(|| recording.path.clone(), Path::to_path_buf);
        let shown = to.display();
        let fail = |why| Unfinished(format!("{shown} was not written: {why}"));
        let notes = recording.save(&to, all, rest).map_err(fail)?;
        notes.iter().for_each(|note| match self.prints {
            true => eprintln!("{shown}: {note}"),
            false => log::warn!("{shown}: {note}"),
        });
        Ok(())
    }

    /// Calls `save_beside`, and describes the result for a message.
    fn rescue(&self) -> String {
        match self.save_beside() {
            Ok(Some(rest)) => format!("\ncompleted exchanges were saved to {}", rest.display()),
            Ok(None) => String::new(),
            Err(error) => format!("\n{error}"),
        }
    }
}

fn locked(recording: &Mutex<Recording>) -> MutexGuard<'_, Recording> {
    recording.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        self.prints = true;
        let has_ended = self.log.end();
        match &self.end {
            _ if has_ended => {}
            _ if !thread::panicking() => self.close_or_panic(),
            // An unmatched request probably caused the test to fail.
            End::Check(mock) => mock.print_unmatched(),
            End::Save(recording) if locked(recording).is_paid() => {
                eprintln!("the test failed during a recording{}", self.rescue());
            }
            _ => {}
        }
    }
}

impl fmt::Debug for SessionGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionGuard")
    }
}
