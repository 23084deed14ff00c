//! Plays cassettes: answers requests, and reports what did not match.

use std::cmp::Reverse;
use std::fmt::{self, Write as _};
use std::io::{self, Cursor, Read, Take};
use std::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use http::{Request, Response, Uri};
use malquery_proto::oauth2::{GetToken, Revoke};
use malquery_proto::{
    Auth, BaseUrl, Body, Client, Cloud, Credentials, Transport, TransportError, flow::SendFailure,
};
use serde_json::json;

use super::matching::{self, Reason, Seen, job_ids};
use super::{Cassette, Interaction};
use crate::clock::VirtualClock;
use crate::pseudonym;
use crate::reply::{self, Fault, Reply};

/// The maximum number of differences that a message lists for one part of a request.
const MAX_REASONS: usize = 8;

/// A transport that plays a cassette. Clones share its state, even across threads. A request
/// without a reply fails with [`MockError::Unmatched`].
#[derive(Clone)]
pub struct Mock(Arc<Shared>);

struct Shared {
    cassette: Cassette,
    made_at: &'static Location<'static>,
    state: Mutex<State>,
}

struct State {
    /// How often each interaction was played, up to its `times`.
    played: Vec<u32>,
    /// The messages about unmatched requests, and the number of requests with each message.
    unmatched: Vec<(Arc<str>, u32)>,
}

impl Cassette {
    /// Plays the cassette from the beginning. Returns a client with test credentials and a virtual
    /// clock, and a guard that checks the requests on drop. Token requests are answered as
    /// [`with_tokens`](Self::with_tokens) describes. Binding the guard to `_` drops it immediately.
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
    #[must_use = "the guard checks on drop that every reply was used"]
    pub fn client(&self) -> (Client, MockGuard) {
        let (mock, guard) = self.clone().with_tokens().play();
        (Client::new(mock, guard.clock.clone(), self.auth()), guard)
    }

    /// Like [`client`](Self::client), but returns a transport for a client with your own settings.
    /// To answer token requests automatically, call [`with_tokens`](Self::with_tokens) first.
    #[track_caller]
    #[must_use = "the guard checks on drop that every reply was used"]
    pub fn play(&self) -> (Mock, MockGuard) {
        let mock = self.transport();
        let guard = MockGuard {
            mock: mock.clone(),
            clock: VirtualClock::new(),
            finished: false,
        };
        (mock, guard)
    }

    /// Like [`play`](Self::play), but returns no guard, because a guard can panic. Use this method
    /// in a program, and call [`Mock::check`] at the end.
    #[track_caller]
    pub fn transport(&self) -> Mock {
        let state = State {
            played: vec![0; self.interactions.len()],
            unmatched: Vec::new(),
        };
        Mock(Arc::new(Shared {
            cassette: self.clone(),
            made_at: Location::caller(),
            state: Mutex::new(state),
        }))
    }

    /// Returns test credentials for the origin of the first interaction's URL, or else for US-1.
    pub(crate) fn auth(&self) -> Auth {
        let first = self.interactions.first();
        let first = first.and_then(|first| first.expected.as_ref());
        let base: Option<BaseUrl> = first.and_then(|it| matching::origin(&it.uri)?.parse().ok());
        let mut credentials = Credentials::new("test-client-id", "test-client-secret");
        if let Some(matching::Body::Form(pairs)) = first.map(|first| &first.body)
            && pairs.iter().any(|(name, _)| name == "member_cid")
            && let Ok(cid) = "0".repeat(32).parse()
        {
            credentials = credentials.member_cid(cid);
        }
        Auth::new(base.unwrap_or(Cloud::Us1.into()), credentials)
    }
}

impl Mock {
    /// Checks that every request so far got a reply, and that no unused replies remain. After
    /// [`with_tokens`](Cassette::with_tokens), successful token replies may stay unused.
    ///
    /// # Errors
    /// Fails if a request got no reply or if unused replies remain. The message lists the unmatched
    /// requests and the unused replies.
    pub fn check(&self) -> Result<(), Unfinished> {
        let (cassette, made_at, state) = (&self.0.cassette, self.0.made_at, self.state());
        let name = &cassette.name;
        let mut text = String::new();
        for (message, count) in &state.unmatched {
            let _ = write!(text, "\n\n{message}");
            if *count > 1 {
                let _ = write!(text, "\n(sent {count} times)");
            }
        }
        let unplayed = cassette.interactions.iter().zip(&state.played);
        let unplayed: Vec<String> = unplayed
            .filter(|(one, played)| **played < one.reply.times && !cassette.is_uncounted(one))
            .map(|(one, played)| format!("\n  {}: {}", one.label, one.played(*played)))
            .collect();
        if !unplayed.is_empty() {
            let (count, of) = (unplayed.len(), cassette.interactions.len());
            let verb = if count == 1 { "was" } else { "were" };
            let unplayed = unplayed.concat();
            let _ = write!(
                text,
                "\n\n{count} of {of} replies {verb} not played enough times:{unplayed}"
            );
        }
        if text.is_empty() {
            return Ok(());
        }
        if state.unmatched.is_empty() && state.played.iter().all(|played| *played == 0) {
            text.push_str(
                "\nthe guard may have been dropped too early; keep it until after the last request, as in \
                 `let (client, guard)`",
            );
        }
        Err(Unfinished(format!(
            "the requests do not match {name} (mock created at {made_at}):{text}"
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

    /// Like `send`, but returns `None` for a request without a reply instead of reporting it.
    pub(crate) fn try_send(
        &self,
        request: &Request<Vec<u8>>,
    ) -> Option<Result<Response<Body>, TransportError>> {
        let reply = self.find(&Seen::new(request)).ok()?;
        Some(response(reply, request.uri()))
    }

    /// Takes the next reply to a request. If no reply is left, the error is the last matching
    /// interaction, if any.
    fn find(&self, seen: &Seen<'_>) -> Result<Reply, Option<&Interaction>> {
        let cassette = &self.0.cassette;
        if seen.is_for(&GetToken::ENDPOINT) && cassette.makes_tokens() {
            let token = json!({"access_token": "mock-access-token", "expires_in": 1799, "token_type": "bearer"});
            return Ok(reply::json(201, token));
        }
        let mut state = self.state();
        for (interaction, played) in cassette.interactions.iter().zip(&mut state.played) {
            // The count is cheaper to check, and most interactions have been played in the end.
            if *played < interaction.reply.times && interaction.matches(seen) {
                *played += 1;
                return Ok(interaction.reply.clone());
            }
        }
        let last = cassette.interactions.iter().rfind(|one| one.matches(seen));
        match last {
            Some(last) if last.reply.repeat_last || cassette.is_uncounted(last) => {
                Ok(last.reply.clone())
            }
            None if seen.is_for(&Revoke::ENDPOINT) && cassette.makes_tokens() => {
                Ok(reply::json(200, json!({})))
            }
            last => Err(last),
        }
    }

    fn explain(&self, seen: &Seen<'_>, used_up: Option<&Interaction>, played: &[u32]) -> String {
        let why = match used_up {
            Some(Interaction { expected: None, .. }) => {
                "there are no more replies\nto fix this, send fewer requests, add a reply, or call \
                 `repeat_last` on the last reply"
                    .into()
            }
            Some(Interaction { label, reply, .. }) => format!(
                "{label} matches but has no replies left: played {0} of {0} times\nto fix this, \
                 send fewer requests, increase `times`, set `repeat_last`, or record again",
                reply.times
            ),
            None => self.explain_closest(seen, played),
        };
        let Cassette { name, tokens, .. } = &self.0.cassette;
        let hint = match seen.is_for(&GetToken::ENDPOINT) && !tokens {
            true => "; if the cassette contains no token requests, call `with_tokens`",
            false => "",
        };
        let line = seen.line();
        format!("no reply in {name} answers the request\n  {line}\n{why}{hint}")
    }

    fn explain_closest(&self, seen: &Seen<'_>, played: &[u32]) -> String {
        let all = self.0.cassette.interactions.iter().zip(played);
        let all = all.filter_map(|(one, played)| {
            let parts = one.expected.as_ref()?.compare(seen);
            let agrees = parts.iter().filter(|(.., reasons)| reasons.is_empty());
            let agrees: u32 = agrees.map(|(_, weight, _)| weight).sum();
            let differs: usize = parts.iter().map(|(.., reasons)| reasons.len()).sum();
            let closeness = (agrees, Reverse(differs), *played < one.reply.times);
            Some((closeness, one, *played, parts))
        });
        // `max_by_key` returns the last of equal items, so `rev` selects the first in the file.
        let closest = all.rev().max_by_key(|(closeness, ..)| *closeness);
        let Some((_, one, played, parts)) = closest else {
            return "there are no replies\nto fix this, add a reply".into();
        };
        let mut text = format!(
            "the closest interaction is {}, {}\n",
            one.label,
            one.played(played)
        );
        for (part, _, reasons) in &parts {
            explain_part(part, reasons, &mut text);
        }
        text + "to fix this, send the recorded request, edit the interaction, or record again (run \
                a `Session` with MALQUERY_MOCK=record)"
    }
}

fn explain_part(part: &str, reasons: &[Reason<'_>], text: &mut String) {
    let _ = match reasons {
        [] => writeln!(text, "  {part:<13} matches"),
        [reason] if part != "body" => writeln!(text, "  {part:<13} differs: {}", reason()),
        reasons => {
            let _ = writeln!(text, "  {part:<13} differs");
            for reason in reasons.iter().take(MAX_REASONS) {
                let _ = writeln!(text, "    {}", reason().replace('\n', "\n      "));
            }
            match reasons.len().saturating_sub(MAX_REASONS) {
                0 => Ok(()),
                more => writeln!(text, "    … and {more} more"),
            }
        }
    };
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
            Ok(reply) => return response(reply, request.uri()),
            Err(last) => last,
        };
        let mut state = self.state();
        let message: Arc<str> = self.explain(&seen, last, &state.played).into();
        let mut known = state.unmatched.iter_mut();
        match known.find(|(known, _)| *known == message) {
            Some((_, count)) => *count += 1,
            None => state.unmatched.push((message.clone(), 1)),
        }
        Err(MockError::Unmatched(message).into())
    }
}

fn response(reply: Reply, uri: &Uri) -> Result<Response<Body>, TransportError> {
    let reply = reply.answer.map_err(|fault| MockError::fault(fault, uri))?;
    let end = reply.truncate_after.unwrap_or(u64::MAX);
    let mut response = Response::new(Body::new(Played {
        bytes: Cursor::new(with_own_ids(reply.body, uri)).take(end),
        piece: FIRST_PIECE,
        breaks_off: reply.truncate_after.is_some(),
    }));
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    Ok(response)
}

/// Replaces the hash of a job id in a reply with the id in the request. If the program did not get
/// an id from a recorded reply, the cassette contains only its hash.
fn with_own_ids(mut body: Arc<[u8]>, uri: &Uri) -> Arc<[u8]> {
    let ids = Vec::from_iter(job_ids(uri)).join(",");
    for id in ids.split(',').filter(|id| pseudonym::is_id(id)) {
        let recorded = pseudonym::hashed(id);
        if let Ok(text) = std::str::from_utf8(&body)
            && text.contains(&recorded)
        {
            body = text.replace(&recorded, id).into_bytes().into();
        }
    }
    body
}

/// The guard returned by [`Cassette::client`] and [`Cassette::play`]. It panics on drop if a
/// request got no reply or if unused replies remain: see [`Mock::check`].
///
/// If the thread is already panicking, the guard only prints the unmatched requests.
#[must_use = "the guard checks on drop that every reply was used"]
#[derive(Debug)]
pub struct MockGuard {
    mock: Mock,
    clock: VirtualClock,
    finished: bool,
}

impl MockGuard {
    /// Returns the client's clock, which records each wait. After [`Cassette::play`], pass a clone
    /// of this clock to your own client.
    pub fn clock(&self) -> &VirtualClock {
        &self.clock
    }

    /// Checks the requests. Unlike a panic on drop, a panic here names the line of this call.
    ///
    /// # Panics
    /// Panics if a request got no reply or if unused replies remain: see [`Mock::check`].
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
        match self.mock.check() {
            Ok(()) => {}
            // An unmatched request probably caused the panic, and unused replies are its effect.
            Err(_) if thread::panicking() => self.mock.print_unmatched(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// The error that a [`Mock`] or a session returns as the source of a [`TransportError`].
#[derive(Clone)]
#[non_exhaustive]
pub enum MockError {
    /// A fault that the cassette or script specifies. It has the same message as the corresponding
    /// failure in `malquery-ureq`, and its source is an [`io::Error`].
    #[non_exhaustive]
    Fault {
        /// The kind of failure.
        fault: Fault,
        /// The host and port of the request.
        host: Arc<str>,
        #[doc(hidden)]
        source: Arc<io::Error>,
    },
    /// No reply answers the request, or the session did not send it. The text explains why and what
    /// to do, often over several lines.
    ///
    /// A client does not retry the request. Even if the program ignores the error, the guard and
    /// [`Mock::check`] report a request without a reply.
    Unmatched(Arc<str>),
}

impl MockError {
    fn fault(fault: Fault, uri: &Uri) -> Self {
        let is_http = uri.scheme_str() == Some("http");
        let port = uri.port_u16().unwrap_or(if is_http { 80 } else { 443 });
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
        match &error {
            MockError::Unmatched(_) => Self::cannot_send(error),
            MockError::Fault { fault, .. } => match fault.failure() {
                SendFailure::NotSent => Self::not_sent(error),
                _ => Self::unknown(error),
            },
        }
    }
}

impl fmt::Display for MockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault { fault, host, .. } => f.write_str(&fault.message(host)),
            Self::Unmatched(message) => f.write_str(message),
        }
    }
}

impl fmt::Debug for MockError {
    /// Writes the message and the source, because tests `unwrap` results.
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

/// The error returned by [`Mock::check`] and by a [`SessionGuard`](crate::SessionGuard).
#[derive(Clone, thiserror::Error)]
#[error("{0}")]
pub struct Unfinished(pub(crate) String);

impl fmt::Debug for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The body of a played reply. It arrives in pieces, like a body from the network.
struct Played {
    bytes: Take<Cursor<Arc<[u8]>>>,
    piece: usize,
    breaks_off: bool,
}

const FIRST_PIECE: usize = 3;
const LAST_PIECE: usize = 12 * 1024;

impl Read for Played {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(self.piece);
        let count = self.bytes.read(&mut buffer[..most])?;
        if count == 0 && most > 0 && self.breaks_off {
            // The same error as in malquery-ureq.
            return Err(Fault::Eof.source());
        }
        self.piece = (self.piece * 2).min(LAST_PIECE);
        Ok(count)
    }
}
