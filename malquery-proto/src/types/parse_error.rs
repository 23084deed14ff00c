use std::borrow::Cow;
use std::fmt;

/// A value that was refused before anything was sent.
///
/// ```
/// use malquery_proto::types::Pattern;
///
/// let error = Pattern::hex("89 48").unwrap_err();
/// assert_eq!(error.to_string(), "not a hex pattern: ' ' at position 2 is not a hex digit; leave out spaces");
/// assert_eq!(error.position(), Some(2));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
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

    /// `text` has a character at byte `position` that does not belong there.
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

    pub(crate) fn with_position(mut self, position: usize) -> Self {
        self.position = Some(position);
        self
    }

    /// The byte offset of the character that was refused, counted from 0, when there is one.
    pub fn position(&self) -> Option<usize> {
        self.position
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not {}: {}", self.what, self.why)
    }
}

impl std::error::Error for ParseError {}
