use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::panic::Location;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::thread;

use malquery_proto::{
    Auth, BaseUrl, Body as ReplyBody, Client, Clock, Cloud, Credentials, Timestamp, Transport,
    TransportError,
};

use crate::cassette::{self, Cassette, CassetteError};
use crate::clock::VirtualClock;
use crate::drift;
use crate::json::Json;
use crate::matching::{self, Body};
use crate::play::{Mock, MockError, Unfinished};
use crate::record::{Exchange, Log, Outcome};
use crate::save::{self, Recording};

const VARIABLE: &str = "MALQUERY_MOCK";

/// Said of a request for which quota would be spent and nothing recorded, as after `let (client, _) = ...`.
const ENDED: &str = "the session has ended, so the request was not sent: keep its guard, such as in `let (client, guard)`, and \
    finish it behind the last request";

/// What a [`Session`] does: the value of `MALQUERY_MOCK`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Mode {
    /// Answers from the cassette; nothing is sent (`replay`, which it is unless set).
    #[default]
    Replay,
    /// Sends everything, and writes a new cassette in the place of the former one (`record`), unless that was written by
    /// another session meanwhile: each test has a cassette of its own.
    Record,
    /// Answers what the cassette can answer, sends the rest, and adds it to the cassette (`append`). Requests for
    /// tokens are sent, since those of a cassette are no real ones. A job that is begun live goes on live. One that the
    /// cassette knows cannot be gone on with, since its id there is not the real one: record it anew.
    Append,
    /// Sends everything, writes nothing, and fails when statuses or the shape of JSON are others than recorded, or when
    /// nothing was sent (`verify`). It costs the hunts and downloads that the test costs live.
    Verify,
    /// Sends everything, and leaves the cassette alone (`passthrough`).
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

    /// The mode that the environment asks for.
    ///
    /// # Errors
    /// When `MALQUERY_MOCK` is something else, and when it is `record` or `append` although `CI` is set (and not
    /// empty, `0` or `false`): what a test on a build server records is lost.
    pub fn from_env() -> Result<Self, OpenError> {
        Self::from_lookup(|name| std::env::var_os(name))
    }

    fn from_lookup(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Self, OpenError> {
        let value = lookup(VARIABLE).unwrap_or_default();
        let mode = if value.is_empty() {
            Self::Replay
        } else {
            value.to_string_lossy().parse()?
        };
        let ci = lookup("CI").unwrap_or_default();
        let ci = !ci.is_empty() && ci != "0" && !ci.eq_ignore_ascii_case("false");
        if ci && matches!(mode, Self::Record | Self::Append) {
            return Err(OpenError::Ci);
        }
        Ok(mode)
    }

    fn loads(self) -> bool {
        matches!(self, Self::Replay | Self::Append | Self::Verify)
    }
}

impl FromStr for Mode {
    type Err = OpenError;

    fn from_str(text: &str) -> Result<Self, OpenError> {
        let known = Self::NAMES
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(_, mode)| *mode);
        known.ok_or_else(|| OpenError::Mode(text.chars().take(40).collect()))
    }
}

/// Why a session cannot begin. Nothing was sent.
#[derive(Clone)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no such mode.
    Mode(String),
    /// On a build server nothing is written.
    Ci,
    /// The cassette is refused, or is not there.
    Cassette(Arc<CassetteError>),
    /// The cassette could not be written afterwards.
    Unwritable(PathBuf, Arc<io::Error>),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mode(value) => {
                let names: Vec<_> = Mode::NAMES.iter().map(|(name, _)| *name).collect();
                write!(
                    f,
                    "{VARIABLE}={value:?} is no mode; there are {}",
                    names.join(", ")
                )
            }
            Self::Ci => write!(
                f,
                "{VARIABLE} asks for a recording, and CI is set; record on your own machine, and commit the cassette"
            ),
            Self::Unwritable(path, error) => {
                write!(f, "{} cannot be written: {error}", path.display())
            }
            Self::Cassette(error) => {
                write!(f, "{error}")?;
                if let Some(source) = std::error::Error::source(&**error) {
                    write!(
                        f,
                        " ({source}); to record it, run this with {VARIABLE}=record"
                    )?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Debug for OpenError {
    /// As `Display`: tests `unwrap` results.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for OpenError {}

impl From<CassetteError> for OpenError {
    fn from(error: CassetteError) -> Self {
        Self::Cassette(Arc::new(error))
    }
}

/// A test that replays its cassette, and records it when it is asked to.
///
/// The environment variable `MALQUERY_MOCK` tells the [`Mode`]; see [the guide](crate#record-once-replay-for-ever).
/// What is recorded is redacted as [`format`](crate::format#what-is-recorded) says, and written when the guard ends.
///
/// ```
/// use malquery_mock::Session;
/// use malquery_proto::flow::Auth;
/// use malquery_ureq::{Settings, SystemClock, UreqTransport};
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("quotas.json");
/// # std::fs::write(&path, r#"{"version": 1, "interactions": [{"id": "quotas",
/// #     "request": {"method": "GET", "uri": "/malquery/aggregates/quotas/v1"},
/// #     "response": {"status": 200, "body": {"json": {"meta": {"hunt_limit": 100}}}}}]}"#)?;
///
/// let (client, guard) = Session::new(path).client(|| {
///     // Only when it is live: a test that replays needs no credentials.
///     let Settings { base, credentials } = Settings::from_env().unwrap();
///     (UreqTransport::new(), SystemClock, Auth::new(base, credentials))
/// })?;
/// assert_eq!(client.quotas()?.meta.hunt_limit, Some(100));
/// guard.finish();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "it begins with `client` or `transport`"]
pub struct Session {
    path: PathBuf,
    mode: Option<Mode>,
}

impl Session {
    /// A session with this cassette: a path, for tests from the folder of their package. Large bodies go into a folder
    /// beside it, which is named as it is with `.bodies` behind.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            mode: None,
        }
    }

    /// Sets the mode, whatever the environment says. A recording that stands in the code is made on a build server, too:
    /// only one that `MALQUERY_MOCK` asks for is refused there.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Begins, with a client. `live` gives what it needs to send something, and is not called to replay.
    ///
    /// A replay has a [`VirtualClock`], and credentials of its own. Where the cassette has no token, it is given
    /// one ([`Cassette::with_tokens`]).
    ///
    /// # Errors
    /// See [`OpenError`].
    #[track_caller]
    pub fn client<T: Transport + 'static, C: Clock + 'static>(
        self,
        live: impl FnOnce() -> (T, C, Auth),
    ) -> Result<(Client, SessionGuard), OpenError> {
        let mut parts = None;
        let (transport, guard) = self.transport(|| {
            let (transport, clock, auth) = live();
            parts = Some((clock, auth));
            transport
        })?;
        let (clock, auth) = match parts {
            Some((clock, auth)) => (SessionClock::Live(clock), auth),
            None => (
                SessionClock::Virtual(VirtualClock::new()),
                guard.end.stand_in(),
            ),
        };
        Ok((Client::new(transport, clock, auth), guard))
    }

    /// Begins, with a transport alone: for programs with a client of their own. `live` is not called to replay.
    ///
    /// # Errors
    /// See [`OpenError`].
    #[track_caller]
    pub fn transport<T: Transport>(
        self,
        live: impl FnOnce() -> T,
    ) -> Result<(SessionTransport<T>, SessionGuard), OpenError> {
        let mode = match self.mode {
            Some(mode) => mode,
            None => Mode::from_env()?,
        };
        let writes = matches!(mode, Mode::Record | Mode::Append);
        if writes {
            save::check(&self.path)
                .map_err(|error| OpenError::Unwritable(self.path.clone(), error.into()))?;
        }
        let mut kept = Vec::new();
        let before = if writes {
            fs::read_to_string(&self.path).ok()
        } else {
            None
        };
        let cassette = match mode {
            // There may be none yet.
            Mode::Append if !self.path.exists() => None,
            mode if mode.loads() => {
                let cassette = Cassette::load(&self.path)?;
                if mode == Mode::Append {
                    kept = save::interactions(before.as_deref().unwrap_or_default());
                }
                let token = cassette
                    .interactions
                    .iter()
                    .any(|interaction| interaction.is_for_tokens());
                Some(if token {
                    cassette.with_any_number_of_tokens()
                } else {
                    cassette.with_tokens()
                })
            }
            _ => None,
        };
        let made_at = Location::caller();
        // Not in a closure, which would be the place that messages name.
        let mock = match &cassette {
            Some(cassette) if mode != Mode::Verify => Some(cassette.transport()),
            _ => None,
        };
        let log = matches!(mode, Mode::Record | Mode::Append | Mode::Verify).then(Log::default);
        let way = match (mode, &mock) {
            (Mode::Replay, Some(mock)) => Way::Replay(mock.clone()),
            _ => Way::Live {
                live: live().into(),
                mock: mock.clone(),
                log: log.clone(),
            },
        };
        let end = match (mode, mock, log, cassette) {
            (Mode::Replay, Some(mock), ..) => End::Check(mock),
            (Mode::Verify, _, Some(log), Some(cassette)) => End::Compare { cassette, log },
            (Mode::Record | Mode::Append, _, Some(log), _) => End::Save {
                path: self.path,
                log,
                kept,
                before,
            },
            _ => End::Nothing,
        };
        let transport = SessionTransport(way);
        Ok((
            transport,
            SessionGuard {
                end,
                made_at,
                finished: false,
            },
        ))
    }
}

/// The transport of a [`Session`], whatever its mode. Clones are of the same session, also in other threads.
///
/// What records or verifies sends nothing any more once its guard has ended.
pub struct SessionTransport<T>(Way<T>);

enum Way<T> {
    Replay(Mock),
    /// The cassette, if it is asked first, and what notes the rest.
    Live {
        live: Arc<T>,
        mock: Option<Mock>,
        log: Option<Log>,
    },
}

impl<T> Clone for SessionTransport<T> {
    fn clone(&self) -> Self {
        Self(match &self.0 {
            Way::Replay(mock) => Way::Replay(mock.clone()),
            Way::Live { live, mock, log } => Way::Live {
                live: live.clone(),
                mock: mock.clone(),
                log: log.clone(),
            },
        })
    }
}

impl<T> SessionTransport<T> {
    /// The clock that belongs to it: this one, or to replay a virtual one.
    pub fn clock<C>(&self, live: impl FnOnce() -> C) -> SessionClock<C> {
        match self.0 {
            Way::Live { .. } => SessionClock::Live(live()),
            Way::Replay(_) => SessionClock::Virtual(VirtualClock::new()),
        }
    }
}

impl<T> fmt::Debug for SessionTransport<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Way::Live { .. } => "SessionTransport(live)",
            Way::Replay(_) => "SessionTransport(replay)",
        })
    }
}

impl<T: Transport> Transport for SessionTransport<T> {
    fn send(
        &self,
        request: http::Request<Vec<u8>>,
    ) -> Result<http::Response<ReplyBody>, TransportError> {
        let (live, mock, log) = match &self.0 {
            Way::Replay(mock) => return mock.send(request),
            Way::Live { live, mock, log } => (live, mock, log.as_ref()),
        };
        let ended = || MockError::Unmatched(ENDED.into());
        let mut written = true;
        // A job that was begun live goes on live, also when the cassette has one of the same id.
        let mock = mock
            .as_ref()
            .filter(|_| !log.is_some_and(|log| log.began(request.uri())));
        if let Some(result) = mock.and_then(|mock| mock.try_execute(&request)) {
            if !is_for_tokens(request.uri().path()) {
                if let Some(log) = log {
                    log.see(request);
                }
                return result;
            }
            // The cassette has it, so it is not added; but a real token takes a real reply.
            written = false;
        }
        if let (Some(log), Some(why)) = (log, cassette::unfit(request.method(), request.uri())) {
            // It is noted, so that it is told again at the end.
            let refuse = |_| Err(MockError::Unmatched(why.into()).into());
            return log.pass(request, written, refuse).ok_or_else(ended)?;
        }
        match log {
            Some(log) => log
                .pass(request, written, |request| live.send(request))
                .ok_or_else(ended)?,
            None => live.send(request),
        }
    }
}

/// Whether it is a path of the endpoints for tokens.
pub(crate) fn is_for_tokens(path: &str) -> bool {
    matching::below_base(path).starts_with("/oauth2/")
}

impl crate::play::Interaction {
    pub(crate) fn is_for_tokens(&self) -> bool {
        self.expected
            .as_ref()
            .is_some_and(|expected| matching::below_base(&expected.path) == "/oauth2/token")
    }
}

/// The clock of a [`Session`]: recorded time passes at once.
#[derive(Debug, Clone)]
pub enum SessionClock<C> {
    /// To replay.
    Virtual(VirtualClock),
    /// In every other mode.
    Live(C),
}

impl<C: Clock> Clock for SessionClock<C> {
    fn now(&self) -> Timestamp {
        match self {
            Self::Virtual(clock) => clock.now(),
            Self::Live(clock) => clock.now(),
        }
    }

    fn sleep_until(&self, time: Timestamp) {
        match self {
            Self::Virtual(clock) => clock.sleep_until(time),
            Self::Live(clock) => clock.sleep_until(time),
        }
    }
}

/// Ends a [`Session`]: it checks that all was played, writes what was recorded, or tells what has drifted.
#[must_use = "the guard writes or checks at its end"]
pub struct SessionGuard {
    end: End,
    made_at: &'static Location<'static>,
    finished: bool,
}

enum End {
    Nothing,
    Check(Mock),
    Save {
        path: PathBuf,
        log: Log,
        kept: Vec<Json>,
        before: save::Before,
    },
    Compare {
        cassette: Cassette,
        log: Log,
    },
}

impl End {
    /// Who asks when nothing is sent: credentials of the recorded kind.
    fn stand_in(&self) -> Auth {
        let mut base: BaseUrl = Cloud::Us1.into();
        let mut credentials = Credentials::new("replayed", "replayed");
        let interactions = match self {
            Self::Check(mock) => mock.interactions(),
            _ => &[],
        };
        if let Some(expected) = interactions
            .first()
            .and_then(|first| first.expected.as_ref())
        {
            if let Some(recorded) = expected
                .origin
                .as_ref()
                .and_then(|origin| origin.parse().ok())
            {
                base = recorded;
            }
            if let Body::Form(pairs) = &expected.body
                && pairs.iter().any(|(name, _)| name == "member_cid")
                && let Ok(cid) = "0".repeat(32).parse()
            {
                credentials = credentials.member_cid(cid);
            }
        }
        Auth::new(base, credentials)
    }

    fn finish(&self, made_at: &Location<'_>) -> Result<(), Unfinished> {
        match self {
            Self::Nothing => Ok(()),
            Self::Check(mock) => mock.check(),
            Self::Save {
                path,
                log,
                kept,
                before,
            } => {
                let exchanges = log.end();
                let is_over = |exchange: &&Exchange| !matches!(exchange.outcome, Outcome::Pending);
                if !exchanges
                    .iter()
                    .filter(is_over)
                    .any(|exchange| exchange.written)
                {
                    return Ok(());
                }
                let fail = |why: String| {
                    Unfinished::new(format!(
                        "{} was not written: {why} (the session began at {made_at})",
                        path.display()
                    ))
                };
                let recording =
                    Recording::new(path, exchanges, kept, before.clone()).map_err(fail)?;
                recording.save().map_err(fail)?;
                recording
                    .notes
                    .iter()
                    .for_each(|note| eprintln!("{}: {note}", path.display()));
                Ok(())
            }
            Self::Compare { cassette, log } => {
                let drift = drift::find(cassette, log.end());
                if drift.is_empty() {
                    return Ok(());
                }
                Err(Unfinished::new(format!(
                    "the service has moved away from {} (the session began at {made_at}):\n  {}\nto fix it: look at \
                     what changed, and record it anew",
                    cassette.name,
                    drift.join("\n  ")
                )))
            }
        }
    }
}

impl SessionGuard {
    /// Ends the session. Dropping the guard does the same, but a panic of this names its own line.
    ///
    /// # Panics
    /// When something was not as it should be; the message tells what, and what to do.
    #[track_caller]
    pub fn finish(self) {
        if let Err(error) = self.close() {
            panic!("{error}");
        }
    }

    /// The same for a program: nothing panics.
    ///
    /// # Errors
    /// What [`finish`](Self::finish) panics with.
    pub fn close(mut self) -> Result<(), Unfinished> {
        self.finished = true;
        self.end.finish(self.made_at)
    }
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        if thread::panicking() {
            // A recording of a test that failed would be half of one. What had no match is probably why it failed.
            if let End::Check(mock) = &self.end {
                mock.tell_unmatched();
            }
            return;
        }
        if let Err(error) = self.end.finish(self.made_at) {
            panic!("{error}");
        }
    }
}

impl fmt::Debug for SessionGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionGuard({})", self.made_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(mock: Option<&str>, ci: Option<&str>) -> Result<Mode, String> {
        Mode::from_lookup(|name| {
            if name == "CI" {
                ci.map(Into::into)
            } else {
                mock.map(Into::into)
            }
        })
        .map_err(|error| error.to_string())
    }

    #[test]
    fn the_environment_tells_the_mode() {
        assert_eq!(mode(None, None), Ok(Mode::Replay));
        assert_eq!(mode(Some(""), Some("true")), Ok(Mode::Replay));
        for (name, value) in Mode::NAMES {
            for ci in [None, Some(""), Some("0"), Some("False")] {
                assert_eq!(mode(Some(name), ci), Ok(value));
            }
            let writes = matches!(value, Mode::Record | Mode::Append);
            for ci in ["1", "true", "woodpecker"] {
                assert_eq!(mode(Some(name), Some(ci)).is_err(), writes, "{name}");
            }
        }
        assert_eq!(
            mode(Some("Record"), None).unwrap_err(),
            "MALQUERY_MOCK=\"Record\" is no mode; there are replay, record, append, verify, passthrough"
        );
        assert_eq!(
            mode(Some("record"), Some("1")).unwrap_err(),
            "MALQUERY_MOCK asks for a recording, and CI is set; record on your own machine, and commit the cassette"
        );
    }
}
