//! Cassettes: their format, and how they are read, written and played.

pub mod file;
pub(crate) mod load;
pub(crate) mod matching;
pub(crate) mod overlay;
pub(crate) mod play;
pub(crate) mod save;

use std::fmt;
use std::sync::Arc;

use malquery_proto::oauth2::GetToken;

use crate::reply::Reply;
use matching::{Expected, Seen};

/// Exchanges to replay: from a file ([`load`](Self::load)), from a text ([`parse`](Self::parse)),
/// or replies in code ([`script`](crate::script)).
///
/// A test calls [`client`](Self::client) or [`play`](Self::play), and the guard checks that
/// everything was played. A program calls [`transport`](Self::transport). [`format`](crate::format)
/// explains the format.
#[derive(Clone)]
pub struct Cassette {
    pub(crate) name: Arc<str>,
    pub(crate) interactions: Arc<[Interaction]>,
    /// It answers token requests by itself.
    pub(crate) tokens: bool,
}

/// One exchange to play.
#[derive(Clone)]
pub(crate) struct Interaction {
    /// The id in the cassette; a reply of a script has none.
    pub(crate) id: Arc<str>,
    pub(crate) label: String,
    /// `None` answers any request.
    pub(crate) expected: Option<Expected>,
    pub(crate) reply: Reply,
}

impl Interaction {
    pub(crate) fn matches(&self, seen: &Seen<'_>) -> bool {
        self.expected
            .as_ref()
            .is_none_or(|expected| expected.matches(seen))
    }

    fn gives_token(&self) -> bool {
        let expected = self.expected.as_ref();
        expected.is_some_and(|it| it.path() == GetToken::ENDPOINT.path)
    }
}

impl Cassette {
    /// Answers every request for a token or its revocation: the number depends on the clock of the
    /// program. It gives the recorded tokens or, if the cassette has none, a token that lives for
    /// 30 minutes.
    pub fn with_tokens(mut self) -> Self {
        self.tokens = true;
        self
    }

    /// Whether it makes tokens up, because it has none.
    fn makes_tokens(&self) -> bool {
        self.tokens && !self.interactions.iter().any(Interaction::gives_token)
    }

    /// Whether this interaction may answer any number of requests, because it gives a token.
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
