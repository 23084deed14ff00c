//! Cassettes: their format, and how they are read, written and played.

pub mod file;
pub(crate) mod load;
pub(crate) mod matching;
pub(crate) mod overlay;
pub(crate) mod play;
pub(crate) mod save;

use std::fmt;
use std::sync::Arc;

use crate::reply::Answer;
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
    pub(crate) answer: Answer,
    pub(crate) times: u32,
    pub(crate) repeat_last: bool,
    /// It may answer more or fewer requests than `times`.
    pub(crate) any_number: bool,
}

impl Interaction {
    pub(crate) fn matches(&self, seen: &Seen<'_>) -> bool {
        self.expected
            .as_ref()
            .is_none_or(|expected| expected.matches(seen))
    }

    fn is_for_tokens(&self) -> bool {
        let path = self
            .expected
            .as_ref()
            .map(|expected| matching::below_base(&expected.path));
        path == Some("/oauth2/token")
    }
}

impl Cassette {
    /// Answers every request for a token or its revocation: the number depends on the clock of the
    /// program. It gives the recorded tokens or, if the cassette has none, a token that lives for
    /// 30 minutes.
    pub fn with_tokens(mut self) -> Self {
        let mut interactions = self.interactions.to_vec();
        let is_success = |answer: &Answer| matches!(answer, Answer::Response { status, .. } if status.is_success());
        self.tokens = !interactions.iter().any(Interaction::is_for_tokens);
        for interaction in interactions.iter_mut().filter(|one| one.is_for_tokens()) {
            interaction.any_number = is_success(&interaction.answer);
        }
        self.interactions = interactions.into();
        self
    }
}

impl fmt::Debug for Cassette {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Cassette({}, {} interactions)",
            self.name,
            self.interactions.len()
        )
    }
}
