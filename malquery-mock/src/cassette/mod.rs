//! Cassettes: their format, and the code that reads, writes and plays them.

pub mod file;
pub(crate) mod load;
pub(crate) mod matching;
pub(crate) mod overlay;
pub(crate) mod play;
pub(crate) mod save;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use malquery_proto::oauth2::GetToken;

use crate::reply::Reply;
use matching::{Expected, Seen};

/// Exchanges to replay: read from a file ([`load`](Self::load)) or a string
/// ([`parse`](Self::parse)), or built in code ([`script`](crate::script)).
///
/// A test calls [`client`](Self::client) or [`play`](Self::play), which return a guard that reports
/// unmatched requests and unused replies. A program calls [`transport`](Self::transport). See
/// [`format`](crate::format) for the file format.
#[derive(Clone)]
pub struct Cassette {
    pub(crate) name: Arc<str>,
    pub(crate) interactions: Arc<[Interaction]>,
    /// Whether token requests are answered automatically.
    pub(crate) tokens: bool,
}

#[derive(Clone)]
pub(crate) struct Interaction {
    /// The id in the cassette. Empty in a script.
    pub(crate) id: Arc<str>,
    pub(crate) label: String,
    /// `None` matches any request.
    pub(crate) expected: Option<Expected>,
    pub(crate) reply: Reply,
}

impl Interaction {
    pub(crate) fn matches(&self, seen: &Seen<'_>) -> bool {
        self.expected
            .as_ref()
            .is_none_or(|expected| expected.matches(seen))
    }

    /// Describes how often the interaction was played, for messages.
    fn played(&self, played: u32) -> String {
        match (played, self.reply.times) {
            (0, _) => "not played yet".into(),
            (1, 1) => "already played".into(),
            (_, times) => format!("played {played} of {times} times"),
        }
    }

    fn gives_token(&self) -> bool {
        let expected = self.expected.as_ref();
        expected.is_some_and(|it| it.path() == GetToken::ENDPOINT.path)
    }
}

impl Cassette {
    /// Answers token requests automatically, because their number depends on the program's clock.
    ///
    /// If the cassette contains token requests, the last matching reply is repeated if it is
    /// successful, and successful replies to token requests may remain unused. If the cassette
    /// contains no token requests, each token request gets a test token that is valid for 1,799
    /// seconds, and a revocation request that matches no interaction gets an empty JSON object.
    pub fn with_tokens(mut self) -> Self {
        self.tokens = true;
        self
    }

    /// Returns whether token requests get a test token.
    fn makes_tokens(&self) -> bool {
        self.tokens && !self.interactions.iter().any(Interaction::gives_token)
    }

    /// Returns whether this interaction may answer any number of requests, including none.
    fn is_uncounted(&self, one: &Interaction) -> bool {
        let answer = one.reply.answer.as_ref();
        self.tokens && one.gives_token() && answer.is_ok_and(|it| it.status.is_success())
    }
}

impl fmt::Debug for Cassette {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.interactions.len();
        write!(f, "Cassette({}, {count} interactions)", self.name)
    }
}

pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}
