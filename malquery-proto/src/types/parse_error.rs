use std::borrow::Cow;
use std::fmt;

use crate::debug::debug_with_sources;

/// The error for an invalid value, such as a malformed hash or date.
///
/// ```
/// use malquery_proto::types::Pattern;
///
/// let error = Pattern::hex("89g8").unwrap_err();
/// assert_eq!(error.to_string(), "not a hex pattern: 'g' at position 2 is not a hex digit");
/// assert_eq!(error.position(), Some(2));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct ParseError {
    what: &'static str,
    why: Cow<'static, str>,
    position: Option<usize>,
}

impl ParseError {
    pub(crate) fn new(what: &'static str, why: impl Into<Cow<'static, str>>) -> Self {
        Self {
            what,
            why: why.into(),
            position: None,
        }
    }

    /// Creates an error for the character at byte `position` of `text`.
    pub(crate) fn at(what: &'static str, text: &str, position: usize, why: &str) -> Self {
        let found = text
            .get(position..)
            .and_then(|rest| rest.chars().next())
            .unwrap_or_default();
        Self {
            what,
            why: format!("{found:?} at position {position} {why}").into(),
            position: Some(position),
        }
    }

    /// Returns the byte offset of the invalid character, if the error is about one character. In a
    /// pattern such as `hex:89g8`, offset 0 is the first character after the colon.
    pub fn position(&self) -> Option<usize> {
        self.position
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not {}: {}", self.what, self.why)
    }
}

debug_with_sources!(ParseError);

impl std::error::Error for ParseError {}
