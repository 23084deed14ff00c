use std::fmt::{self, Write as _};
use std::io::{self, Read};
use std::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use malquery_proto::flow::SendFailure;
use malquery_proto::{Body, Transport, TransportError};

use crate::cassette::Cassette;
use crate::matching::{Expected, Seen};
use crate::reply::{Answer, Fault};

/// The most reasons a message gives for one matcher.
const MAX_REASONS: usize = 8;

/// One exchange to be played.
#[derive(Clone)]
pub(crate) struct Interaction {
    /// The id in the cassette; a reply of a script has none.
    pub(crate) id: Arc<str>,
    pub(crate) label: String,
    /// `None` answers any request.
    pub(crate) expected: Option<Expected>,
    pub(crate) answer: Answer,
    pub(crate) times: u32,
    pub(crate) repeat_last: bool,
    /// It answers as often as it is asked for, also less often than `times`.
    pub(crate) any_number: bool,
}

impl Interaction {
    pub(crate) fn matches(&self, seen: &Seen<'_>) -> bool {
        self.expected
            .as_ref()
            .is_none_or(|expected| expected.matches(seen))
    }

    fn played(&self, played: u32) -> String {
        match played {
            0 => "not played yet".into(),
            _ if self.times == 1 && played == 1 => "played".into(),
            _ => format!("played {played} of {} times", self.times),
        }
    }
}

/// A transport that plays a cassette. Clones play the same one, also from several threads.
///
/// A request that no interaction answers is an error, with a message that says why, and never a reply: see
/// [`MockError::Unmatched`].
#[derive(Clone)]
pub struct Mock(Arc<Shared>);

struct Shared {
    cassette: Cassette,
    made_at: &'static Location<'static>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How often each interaction was played.
    played: Vec<u32>,
    /// What no interaction answered, and how often.
    unmatched: Vec<(Arc<str>, u32)>,
}

impl Cassette {
    /// Plays it from the beginning, for a test. The guard fails the test when not all was played, or something
    /// else was asked for. It checks when it is dropped, so give it a name: a pattern of `_` drops it at once.
    ///
    /// ```
    /// let cassette = malquery_mock::script([malquery_mock::reply::status(200)]);
    /// let (mock, guard) = cassette.play();
    /// # use malquery_proto::Transport;
    /// # mock.send(http::Request::new(Vec::new())).unwrap();
    /// guard.finish();
    /// ```
    #[track_caller]
    #[must_use = "the guard checks at its end that all was played"]
    pub fn play(&self) -> (Mock, MockGuard) {
        let mock = self.transport();
        (
            mock.clone(),
            MockGuard {
                mock,
                finished: false,
            },
        )
    }

    /// Plays it from the beginning, for a program: without a guard, so nothing panics. A request that no
    /// interaction answers is an error all the same, and [`Mock::check`] tells at the end whether all was played.
    #[track_caller]
    pub fn transport(&self) -> Mock {
        let state = State {
            played: vec![0; self.interactions.len()],
            ..State::default()
        };
        Mock(Arc::new(Shared {
            cassette: self.clone(),
            made_at: Location::caller(),
            state: Mutex::new(state),
        }))
    }
}

impl Mock {
    /// Whether all was played and nothing else was asked for, until now.
    ///
    /// # Errors
    /// Says what is missing, and repeats what had no match.
    pub fn check(&self) -> Result<(), Unfinished> {
        let Shared {
            cassette, made_at, ..
        } = &*self.0;
        let state = self.state();
        let mut text = String::new();
        for (message, count) in &state.unmatched {
            let times = if *count == 1 {
                String::new()
            } else {
                format!("\n(asked {count} times)")
            };
            let _ = write!(text, "\n\n{message}{times}");
        }
        let unplayed: Vec<String> = cassette
            .interactions
            .iter()
            .zip(&state.played)
            .filter(|(interaction, played)| **played < interaction.times && !interaction.any_number)
            .map(|(interaction, played)| {
                format!("\n  {}: {}", interaction.label, interaction.played(*played))
            })
            .collect();
        if !unplayed.is_empty() {
            let of = cassette.interactions.len();
            let _ = write!(
                text,
                "\n\n{} of {of} not played to the end:{}",
                unplayed.len(),
                unplayed.concat()
            );
        }
        if text.is_empty() {
            return Ok(());
        }
        if state.unmatched.is_empty() && state.played.iter().all(|played| *played == 0) {
            text.push_str(
                "\nnothing was asked: was the guard dropped at once? Bind it, as in `let (mock, guard)`",
            );
        }
        Err(Unfinished(format!(
            "{} was not played as it is (the mock was made at {made_at}):{text}",
            cassette.name
        )))
    }

    pub(crate) fn tell_unmatched(&self) {
        for (message, _) in &self.state().unmatched {
            eprintln!("{message}");
        }
    }

    pub(crate) fn interactions(&self) -> &[Interaction] {
        &self.0.cassette.interactions
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer to a request, which counts as played. `None` if there is none, which does not count.
    pub(crate) fn try_execute(
        &self,
        request: &http::Request<Vec<u8>>,
    ) -> Option<Result<http::Response<Body>, TransportError>> {
        let answer = self.find(&Seen::new(request)).ok()?;
        Some(answer.send(request.uri()))
    }

    /// The answer, which counts as played, or the last interaction that was this request.
    fn find(&self, seen: &Seen<'_>) -> Result<Answer, Option<&Interaction>> {
        let Shared { cassette, .. } = &*self.0;
        if cassette.tokens && seen.is_token_request() {
            return Ok(token());
        }
        let mut state = self.state();
        for (interaction, played) in cassette.interactions.iter().zip(&mut state.played) {
            // Those that are used up are most of them in the end.
            if *played < interaction.times && interaction.matches(seen) {
                *played += 1;
                return Ok(interaction.answer.clone());
            }
        }
        match cassette
            .interactions
            .iter()
            .rfind(|interaction| interaction.matches(seen))
        {
            Some(interaction) if interaction.repeat_last || interaction.any_number => {
                Ok(interaction.answer.clone())
            }
            last => Err(last),
        }
    }

    fn answer(&self, request: &http::Request<Vec<u8>>) -> Result<Answer, MockError> {
        let seen = Seen::new(request);
        let last = match self.find(&seen) {
            Ok(answer) => return Ok(answer),
            Err(last) => last,
        };
        let mut state = self.state();
        let message: Arc<str> = self.explain(&seen, last, &state.played).into();
        match state
            .unmatched
            .iter_mut()
            .find(|(known, _)| *known == message)
        {
            Some((_, count)) => *count += 1,
            None => state.unmatched.push((message.clone(), 1)),
        }
        Err(MockError::Unmatched(message))
    }

    /// Why no interaction answers a request.
    fn explain(&self, seen: &Seen<'_>, used_up: Option<&Interaction>, played: &[u32]) -> String {
        let Cassette {
            name, interactions, ..
        } = &self.0.cassette;
        let mut text = format!("nothing in {name} answers the request\n  {}\n", seen.line());
        if let Some(interaction) = used_up {
            let _ = match interaction.expected {
                Some(_) => writeln!(
                    text,
                    "{} is this request, and used up: played {} of {} times",
                    interaction.label, interaction.times, interaction.times
                ),
                None => writeln!(text, "all replies were given"),
            };
            text.push_str(match interaction.expected {
                Some(_) => "to fix it: ask less often, or give it more `times`, `repeat_last` or a successor that is recorded",
                None => "to fix it: ask less often, add a reply, or end the script with `repeat_last`",
            });
        } else {
            let closest = interactions
                .iter()
                .zip(played)
                .filter_map(|(interaction, played)| {
                    Some((interaction, interaction.expected.as_ref()?, *played))
                })
                // The last of equals wins, and that should be the first one that was not played.
                .rev()
                .max_by_key(|(interaction, expected, played)| {
                    (expected.closeness(seen), *played < interaction.times)
                });
            match closest {
                Some((interaction, expected, played)) => {
                    let _ = writeln!(
                        text,
                        "the closest is {}, {}",
                        interaction.label,
                        interaction.played(played)
                    );
                    for (matcher, verdict) in expected.verdicts(seen) {
                        let reasons = verdict.err().unwrap_or_default();
                        let _ = match reasons.as_slice() {
                            [] => writeln!(text, "  {matcher:<13} agrees"),
                            [reason] if !reason.contains('\n') && matcher != "body" => {
                                writeln!(text, "  {matcher:<13} differs: {reason}")
                            }
                            _ => writeln!(text, "  {matcher:<13} differs"),
                        };
                        if reasons.len() > 1 || matcher == "body" {
                            for reason in reasons.iter().take(MAX_REASONS) {
                                let _ = writeln!(text, "    {}", reason.replace('\n', "\n      "));
                            }
                            if reasons.len() > MAX_REASONS {
                                let _ = writeln!(
                                    text,
                                    "    … and {} more",
                                    reasons.len() - MAX_REASONS
                                );
                            }
                        }
                    }
                    text.push_str(
                        "to fix it: send what was recorded, or change the interaction, or record it anew (a `Session` does, with MALQUERY_MOCK=record)",
                    );
                }
                None => text.push_str("there is nothing to play"),
            }
        }
        if seen.is_token_request() {
            text.push_str("; or let `with_tokens` answer requests for tokens");
        }
        text
    }
}

impl fmt::Debug for Mock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mock({})", self.0.cassette.name)
    }
}

impl Transport for Mock {
    fn send(
        &self,
        request: http::Request<Vec<u8>>,
    ) -> Result<http::Response<Body>, TransportError> {
        self.answer(&request)?.send(request.uri())
    }
}

impl Answer {
    fn send(self, uri: &Uri) -> Result<http::Response<Body>, TransportError> {
        match self {
            Self::Fault(fault) => Err(MockError::fault(fault, uri).into()),
            Self::Response {
                status,
                headers,
                body,
                truncate_after,
            } => {
                let mut response =
                    http::Response::new(Body::new(MockBody::new(body, truncate_after)));
                *response.status_mut() = status;
                *response.headers_mut() = headers;
                Ok(response)
            }
        }
    }
}

fn token() -> Answer {
    let body = br#"{"access_token":"mock-access-token","expires_in":1799,"token_type":"bearer"}"#;
    let mut headers = HeaderMap::new();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    Answer::Response {
        status: StatusCode::CREATED,
        headers,
        body: Arc::from(*body),
        truncate_after: None,
    }
}

/// Fails the test when a cassette was not played as it is. It is made by [`Cassette::play`].
#[must_use = "the guard checks at its end that all was played"]
#[derive(Debug)]
pub struct MockGuard {
    mock: Mock,
    finished: bool,
}

impl MockGuard {
    /// Ends the play. Dropping the guard does the same, but a panic of this names its own line.
    ///
    /// # Panics
    /// When a request had no match, or an interaction was not played as often as it should be.
    #[track_caller]
    pub fn finish(mut self) {
        self.finished = true;
        if let Err(error) = self.mock.check() {
            panic!("{error}");
        }
    }
}

impl Drop for MockGuard {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let Err(error) = self.mock.check() else {
            return;
        };
        if thread::panicking() {
            // What had no match is probably why; what was not played is not.
            self.mock.tell_unmatched();
            return;
        }
        panic!("{error}");
    }
}

/// Why a mock gives no reply.
#[derive(Clone)]
#[non_exhaustive]
pub enum MockError {
    /// A fault that was asked for. It reads as the error of `malquery-ureq` for the real thing, and so does its
    /// source: an [`io::Error`] of the same kind.
    #[non_exhaustive]
    Fault {
        /// Which fault.
        fault: Fault,
        /// The host that was to be reached, and its port.
        host: Arc<str>,
        #[doc(hidden)]
        source: Arc<io::Error>,
    },
    /// Nothing answers this request. The text says why and what to do, over several lines.
    ///
    /// It counts as one that cannot be sent, so a client does not try it again. What a program does about it is of no
    /// importance, since the guard and [`Mock::check`] raise it again.
    Unmatched(Arc<str>),
}

impl MockError {
    fn fault(fault: Fault, uri: &Uri) -> Self {
        let default = if uri.scheme_str() == Some("http") {
            80
        } else {
            443
        };
        let port = uri.port_u16().unwrap_or(default);
        let host = format!("{}:{port}", uri.host().unwrap_or_default()).into();
        Self::Fault {
            fault,
            host,
            source: Arc::new(fault.source()),
        }
    }
}

impl fmt::Display for MockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault { fault, host, .. } => fault.explain(host, f),
            Self::Unmatched(message) => f.write_str(message),
        }
    }
}

impl fmt::Debug for MockError {
    /// As `Display`: tests `unwrap` results, and the message should be readable then, too.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for MockError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Fault { source, .. } => Some(&**source),
            Self::Unmatched(_) => None,
        }
    }
}

impl From<MockError> for TransportError {
    fn from(error: MockError) -> Self {
        let failure = match &error {
            MockError::Fault { fault, .. } => fault.failure(),
            MockError::Unmatched(_) => SendFailure::CannotSend,
        };
        match failure {
            SendFailure::NotSent => Self::not_sent(error),
            SendFailure::CannotSend => Self::cannot_send(error),
            SendFailure::Unknown => Self::unknown(error),
        }
    }
}

/// What was wrong at the end: [`Mock::check`], [`SessionGuard::close`](crate::SessionGuard::close).
#[derive(Clone)]
pub struct Unfinished(String);

impl Unfinished {
    pub(crate) fn new(message: String) -> Self {
        Self(message)
    }
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unfinished {}

/// The body of a played reply. It comes in pieces, small ones first, as it may from a network.
struct MockBody {
    bytes: Arc<[u8]>,
    at: usize,
    piece: usize,
    truncate_after: Option<usize>,
}

const FIRST_PIECE: usize = 3;
const LAST_PIECE: usize = 12 * 1024;

impl MockBody {
    fn new(bytes: Arc<[u8]>, truncate_after: Option<usize>) -> Self {
        Self {
            bytes,
            at: 0,
            piece: FIRST_PIECE,
            truncate_after,
        }
    }
}

impl Read for MockBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let end = self
            .truncate_after
            .unwrap_or(self.bytes.len())
            .min(self.bytes.len());
        let count = buffer
            .len()
            .min(self.piece)
            .min(end.saturating_sub(self.at));
        if count == 0 {
            return match self.truncate_after {
                None => Ok(0),
                // In the words of malquery-ureq.
                Some(_) => Err(Fault::Eof.source()),
            };
        }
        buffer[..count].copy_from_slice(&self.bytes[self.at..self.at + count]);
        self.at += count;
        self.piece = (self.piece * 2).min(LAST_PIECE);
        Ok(count)
    }
}
