//! Plays cassettes: which interaction answers, and what is wrong at the end.

use std::fmt::{self, Write as _};
use std::io::{self, Read};
use std::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use malquery_proto::{
    Auth, BaseUrl, Body, Client, Cloud, Credentials, Transport, TransportError, flow::SendFailure,
};

use super::matching::{self, Seen};
use super::{Cassette, Interaction};
use crate::clock::VirtualClock;
use crate::pseudonym;
use crate::reply::{Answer, Fault};

/// The most reasons a message gives for one matcher.
const MAX_REASONS: usize = 8;
const HOW_TO_FIX: &str = "to fix it: send what was recorded, or change the interaction, or record it again (a `Session` does, \
    with MALQUERY_MOCK=record)";

/// A transport that plays a cassette. Clones play the same one, also from several threads.
///
/// A request that no interaction answers is an error whose message says why, and never a reply: see
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
    /// The requests that no interaction answered, and how often.
    unmatched: Vec<(Arc<str>, u32)>,
}

impl Cassette {
    /// Returns a client that plays the cassette from the beginning, with test credentials, tokens
    /// and a virtual clock ([`MockGuard::clock`]). The guard fails the test if not everything was
    /// played, or if something else was sent. It checks on drop, so give it a name: the pattern `_`
    /// drops it at once.
    ///
    /// ```
    /// use malquery_mock::{reply, script};
    ///
    /// let (client, guard) = script([reply::status(503), reply::quotas()]).client();
    /// assert_eq!(client.quotas()?.meta.hunt_limit, Some(100));
    /// assert_eq!(guard.clock().waits().len(), 1);
    /// guard.finish();
    /// # Ok::<(), malquery_proto::client::Error>(())
    /// ```
    #[track_caller]
    #[must_use = "the guard checks at its end that every reply was used"]
    pub fn client(&self) -> (Client, MockGuard) {
        let (mock, guard) = self.clone().with_tokens().play();
        (Client::new(mock, guard.clock.clone(), self.auth()), guard)
    }

    /// Returns a transport that plays the cassette from the beginning, for a client with settings
    /// of your own.
    ///
    /// ```
    /// let cassette = malquery_mock::script([malquery_mock::reply::status(200)]);
    /// let (mock, guard) = cassette.play();
    /// # use malquery_proto::Transport;
    /// # mock.send(http::Request::new(Vec::new())).unwrap();
    /// guard.finish();
    /// ```
    #[track_caller]
    #[must_use = "the guard checks at its end that every reply was used"]
    pub fn play(&self) -> (Mock, MockGuard) {
        let mock = self.transport();
        (
            mock.clone(),
            MockGuard {
                mock,
                clock: VirtualClock::new(),
                finished: false,
            },
        )
    }

    /// Returns a transport for a program: it has no guard, so nothing panics. A request that no
    /// interaction answers is an error as well, and [`Mock::check`] checks at the end that
    /// everything was played.
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

    /// Returns test credentials for the recorded base URL.
    pub(crate) fn auth(&self) -> Auth {
        let mut base: BaseUrl = Cloud::Us1.into();
        let mut credentials = Credentials::new("test-client-id", "test-client-secret");
        let first = self
            .interactions
            .first()
            .and_then(|first| first.expected.as_ref());
        if let Some(recorded) = first.and_then(|first| first.origin.as_ref()?.parse().ok()) {
            base = recorded;
        }
        if let Some(matching::Body::Form(pairs)) = first.map(|first| &first.body)
            && pairs.iter().any(|(name, _)| name == "member_cid")
            && let Ok(cid) = "0".repeat(32).parse()
        {
            credentials = credentials.member_cid(cid);
        }
        Auth::new(base, credentials)
    }
}

impl Mock {
    /// Checks that everything was played and nothing else was sent, so far.
    ///
    /// # Errors
    /// Lists the interactions that were not played, and the requests without a match.
    pub fn check(&self) -> Result<(), Unfinished> {
        let Shared {
            cassette: Cassette {
                name, interactions, ..
            },
            made_at,
            ..
        } = &*self.0;
        let state = self.state();
        let mut text = String::new();
        for (message, count) in &state.unmatched {
            let _ = write!(text, "\n\n{message}");
            if *count > 1 {
                let _ = write!(text, "\n(asked {count} times)");
            }
        }
        let unplayed: Vec<String> = interactions
            .iter()
            .zip(&state.played)
            .filter(|(interaction, played)| **played < interaction.times && !interaction.any_number)
            .map(|(interaction, played)| {
                format!("\n  {}: {}", interaction.label, interaction.played(*played))
            })
            .collect();
        if !unplayed.is_empty() {
            let (count, of) = (unplayed.len(), interactions.len());
            let verb = if count == 1 { "was" } else { "were" };
            let _ = write!(
                text,
                "\n\n{count} of {of} replies {verb} not used:{}",
                unplayed.concat()
            );
        }
        if text.is_empty() {
            return Ok(());
        }
        if state.unmatched.is_empty() && state.played.iter().all(|played| *played == 0) {
            text.push_str(
                "\nnothing was sent: was the guard dropped at once? Bind it, as in `let (client, guard)`",
            );
        }
        Err(Unfinished(format!(
            "{name} and the requests do not match (the mock was made at {made_at}):{text}"
        )))
    }

    pub(crate) fn cassette(&self) -> &Cassette {
        &self.0.cassette
    }

    pub(crate) fn print_unmatched(&self) {
        for (message, _) in &self.state().unmatched {
            eprintln!("{message}");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the reply to a request and counts it as played, or `None` if nothing answers.
    pub(crate) fn try_send(
        &self,
        request: &Request<Vec<u8>>,
    ) -> Option<Result<Response<Body>, TransportError>> {
        self.find(&Seen::new(request))
            .ok()
            .map(|answer| answer.send(request.uri()))
    }

    /// The answer, which counts as played, or the last interaction that was this request.
    fn find(&self, seen: &Seen<'_>) -> Result<Answer, Option<&Interaction>> {
        let Cassette {
            interactions,
            tokens,
            ..
        } = &self.0.cassette;
        if *tokens && seen.is_token_request() {
            return Ok(token());
        }
        let mut state = self.state();
        for (interaction, played) in interactions.iter().zip(&mut state.played) {
            // In the end most of them are used up.
            if *played < interaction.times && interaction.matches(seen) {
                *played += 1;
                return Ok(interaction.answer.clone());
            }
        }
        match interactions
            .iter()
            .rfind(|interaction| interaction.matches(seen))
        {
            Some(last) if last.repeat_last || last.any_number => Ok(last.answer.clone()),
            None if *tokens && seen.is_revocation() => Ok(answer(StatusCode::OK, b"{}")),
            last => Err(last),
        }
    }

    /// Why no interaction answers a request.
    fn explain(&self, seen: &Seen<'_>, used_up: Option<&Interaction>, played: &[u32]) -> String {
        let Cassette {
            name, interactions, ..
        } = &self.0.cassette;
        let mut text = format!("nothing in {name} answers the request\n  {}\n", seen.line());
        let closest = interactions
            .iter()
            .zip(played)
            .filter_map(|(one, played)| Some((one, one.expected.as_ref()?, *played)))
            // The last of equals wins, and that should be the first one that was not played.
            .rev()
            .max_by_key(|(one, expected, played)| (expected.closeness(seen), *played < one.times));
        match (used_up, closest) {
            (Some(Interaction { expected: None, .. }), _) => text.push_str(
                "all replies were given\nto fix it: ask less often, add a reply, or end the script with `repeat_last`",
            ),
            (Some(Interaction { label, times, .. }), _) => {
                let _ = write!(
                    text,
                    "{label} is this request, and used up: played {times} of {times} times\nto fix it: ask less often, or give it \
                     more `times`, `repeat_last` or a successor that is recorded"
                );
            }
            (None, Some((interaction, expected, played))) => {
                let played = interaction.played(played);
                let _ = writeln!(text, "the closest is {}, {played}", interaction.label);
                for (matcher, verdict) in expected.verdicts(seen) {
                    explain_verdict(matcher, &verdict.err().unwrap_or_default(), &mut text);
                }
                text.push_str(HOW_TO_FIX);
            }
            (None, None) => text.push_str("there is nothing to play"),
        }
        if seen.is_token_request() {
            text.push_str("; or let `with_tokens` answer requests for tokens");
        }
        text
    }
}

fn explain_verdict(matcher: &str, reasons: &[String], text: &mut String) {
    let _ = match reasons {
        [] => writeln!(text, "  {matcher:<13} agrees"),
        [reason] if matcher != "body" => writeln!(text, "  {matcher:<13} differs: {reason}"),
        reasons => {
            let _ = writeln!(text, "  {matcher:<13} differs");
            for reason in reasons.iter().take(MAX_REASONS) {
                let _ = writeln!(text, "    {}", reason.replace('\n', "\n      "));
            }
            match reasons.len().saturating_sub(MAX_REASONS) {
                0 => Ok(()),
                more => writeln!(text, "    … and {more} more"),
            }
        }
    };
}

impl Interaction {
    fn played(&self, played: u32) -> String {
        match played {
            0 => "not played yet".into(),
            1 if self.times == 1 => "played".into(),
            _ => format!("played {played} of {} times", self.times),
        }
    }
}

impl fmt::Debug for Mock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mock({})", self.0.cassette.name)
    }
}

impl Transport for Mock {
    fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Body>, TransportError> {
        let seen = Seen::new(&request);
        let last = match self.find(&seen) {
            Ok(answer) => return answer.send(request.uri()),
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
        Err(MockError::Unmatched(message).into())
    }
}

impl Answer {
    fn send(self, uri: &Uri) -> Result<Response<Body>, TransportError> {
        match self {
            Self::Fault(fault) => Err(MockError::fault(fault, uri).into()),
            Self::Response {
                status,
                headers,
                body,
                truncate_after,
            } => {
                let body = with_own_ids(body, uri);
                let end = truncate_after.unwrap_or(body.len());
                let body = Played {
                    bytes: body,
                    at: 0,
                    piece: FIRST_PIECE,
                    end,
                    truncate_after,
                };
                let mut response = Response::new(Body::new(body));
                *response.status_mut() = status;
                *response.headers_mut() = headers;
                Ok(response)
            }
        }
    }
}

/// Gives a job the id that the program asked for. The cassette holds only the hash of an id that
/// the program brought along.
fn with_own_ids(body: Arc<[u8]>, uri: &Uri) -> Arc<[u8]> {
    let query = uri.query().unwrap_or_default().as_bytes();
    let ids = url::form_urlencoded::parse(query).filter(|(name, _)| name == "ids");
    ids.fold(body, |body, (_, id)| {
        let recorded = pseudonym::hashed(&id);
        match std::str::from_utf8(&body) {
            Ok(text) if pseudonym::is_id(&id) && text.contains(&recorded) => {
                text.replace(&recorded, &id).into_bytes().into()
            }
            _ => body,
        }
    })
}

fn token() -> Answer {
    let body = br#"{"access_token":"mock-access-token","expires_in":1799,"token_type":"bearer"}"#;
    answer(StatusCode::CREATED, body)
}

fn answer(status: StatusCode, body: &[u8]) -> Answer {
    let json = HeaderValue::from_static("application/json");
    let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, json)]);
    Answer::Response {
        status,
        headers,
        body: body.into(),
        truncate_after: None,
    }
}

/// Fails the test if the cassette and the requests do not match: see [`Cassette::client`],
/// [`Cassette::play`].
#[must_use = "the guard checks at its end that every reply was used"]
#[derive(Debug)]
pub struct MockGuard {
    mock: Mock,
    clock: VirtualClock,
    finished: bool,
}

impl MockGuard {
    /// Returns the clock of the client, which knows the waits.
    pub fn clock(&self) -> &VirtualClock {
        &self.clock
    }

    /// Ends the play. Dropping the guard does the same, but a panic of this method names its line.
    ///
    /// # Panics
    /// Panics if a request had no match, or if an interaction was not played as often as expected.
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
        let Err(error) = self.mock.check() else {
            return;
        };
        if thread::panicking() && !self.finished {
            // What had no match is probably why; what was not played is not.
            self.mock.print_unmatched();
        } else if !self.finished {
            panic!("{error}");
        }
    }
}

/// Why a mock gives no reply: the source of the [`TransportError`].
#[derive(Clone)]
#[non_exhaustive]
pub enum MockError {
    /// A fault of the cassette or script. Its message is the message of `malquery-ureq` for the
    /// real failure, and its source is an [`io::Error`] of the same kind.
    #[non_exhaustive]
    Fault {
        /// Which fault.
        fault: Fault,
        /// The host of the request, and its port.
        host: Arc<str>,
        #[doc(hidden)]
        source: Arc<io::Error>,
    },
    /// Nothing answers this request. The text, of several lines, says why and what to do.
    ///
    /// The request counts as one that cannot be sent, so a client does not retry it. If the program
    /// ignores the error, the guard and [`Mock::check`] still report it.
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

impl From<MockError> for TransportError {
    fn from(error: MockError) -> Self {
        let failure = match &error {
            MockError::Fault { fault, .. } => fault.failure(),
            MockError::Unmatched(_) => SendFailure::CannotSend,
        };
        match failure {
            SendFailure::NotSent => Self::not_sent(error),
            SendFailure::Unknown => Self::unknown(error),
            SendFailure::CannotSend => Self::cannot_send(error),
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
    /// Writes the error and its source: tests `unwrap` results.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault { source, .. } => write!(f, "{self}: {source}"),
            Self::Unmatched(message) => f.write_str(message),
        }
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

/// The error of [`Mock::check`] and [`SessionGuard::close`](crate::SessionGuard::close).
#[derive(Clone)]
pub struct Unfinished(pub(crate) String);

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

/// The body of a played reply. It arrives in pieces, small ones first, as from a network.
struct Played {
    bytes: Arc<[u8]>,
    at: usize,
    piece: usize,
    end: usize,
    truncate_after: Option<usize>,
}

const FIRST_PIECE: usize = 3;
const LAST_PIECE: usize = 12 * 1024;

impl Read for Played {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = buffer.len().min(self.piece).min(self.end - self.at);
        if count == 0 && self.truncate_after.is_some() {
            // In the words of malquery-ureq.
            return Err(Fault::Eof.source());
        }
        buffer[..count].copy_from_slice(&self.bytes[self.at..self.at + count]);
        self.at += count;
        self.piece = (self.piece * 2).min(LAST_PIECE);
        Ok(count)
    }
}
