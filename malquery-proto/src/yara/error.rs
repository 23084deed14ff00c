use std::fmt;
use std::ops::Range;

use crate::debug::debug_with_sources;

/// A line and column in the source, starting from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: usize,
    /// The column in characters.
    pub(super) column: usize,
}

impl Place {
    pub(super) fn new(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[start..].chars().count() + 1,
        }
    }
}

/// The kind of a [`RuleError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RuleErrorKind {
    /// The source is not valid YARA or not valid UTF-8, so the service probably rejects it too.
    Invalid,
    /// The source may be valid, but this crate cannot check it, for example because it has an
    /// `include`, uses an unknown module or an external variable, or exceeds a limit of this crate.
    Unchecked,
    /// The source has no public rule, or it has several public, non-global rules and none of them
    /// is selected, or the selected rule is missing or private.
    Selection,
}

/// The reason a YARA rule was rejected or could not be checked.
///
/// `Display` writes the position, the reason, and an excerpt of the line with a caret below it.
///
/// ```
/// use malquery_proto::yara::{RuleErrorKind, RuleFile};
///
/// let error = RuleFile::parse("rule a { condition: filename == \"a.exe\" }")?.check().unwrap_err();
/// assert_eq!(error.kind(), RuleErrorKind::Unchecked);
/// assert_eq!((error.line(), error.column()), (1, 21));
/// # Ok::<(), malquery_proto::yara::RuleError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct RuleError {
    kind: RuleErrorKind,
    why: String,
    place: Place,
    excerpt: String,
}

/// The maximum number of characters to show before the position in the line.
const MAX_BEFORE: usize = 60;
/// The minimum number of characters to show starting at the position, if the line is long enough.
const MIN_AFTER: usize = 40;

impl RuleError {
    pub(super) fn new(
        kind: RuleErrorKind,
        text: &str,
        span: Range<usize>,
        why: impl Into<String>,
    ) -> Self {
        let place = Place::new(text, span.start);
        // Show only part of a long line. Replace tabs, which would shift the caret.
        let left_out = (place.column - 1).saturating_sub(MAX_BEFORE);
        let line = text.split('\n').nth(place.line - 1).unwrap_or_default();
        let shown = line
            .chars()
            .skip(left_out)
            .take(MAX_BEFORE + MIN_AFTER)
            .map(|c| if c.is_control() { ' ' } else { c });
        Self {
            kind,
            why: why.into(),
            place,
            excerpt: format!(
                "  {}\n  {:>2$}",
                shown.collect::<String>().trim_end(),
                '^',
                place.column - left_out
            ),
        }
    }

    pub(super) fn invalid(text: &str, span: Range<usize>, why: impl Into<String>) -> Self {
        Self::new(RuleErrorKind::Invalid, text, span, why)
    }

    /// Returns the kind of the error.
    pub fn kind(&self) -> RuleErrorKind {
        self.kind
    }

    /// Returns a one-line description of the problem, without the position.
    pub fn message(&self) -> &str {
        &self.why
    }

    /// Returns the 1-based line number of the problem.
    pub fn line(&self) -> usize {
        self.place.line
    }

    /// Returns the 1-based column of the problem, counted in characters.
    pub fn column(&self) -> usize {
        self.place.column
    }
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { line, column } = self.place;
        write!(
            f,
            "line {line}, column {column}: {}\n{}",
            self.why, self.excerpt
        )
    }
}

debug_with_sources!(RuleError);

impl std::error::Error for RuleError {}

/// A probable mistake in source that YARA accepts.
///
/// `Display` writes the position and the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    place: Place,
    message: String,
}

impl Warning {
    pub(super) fn new(text: &str, offset: usize, message: impl Into<String>) -> Self {
        Self {
            place: Place::new(text, offset),
            message: message.into(),
        }
    }

    /// Returns a one-line description of the problem.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns the 1-based line number of the problem.
    pub fn line(&self) -> usize {
        self.place.line
    }

    /// Returns the 1-based column of the problem, counted in characters.
    pub fn column(&self) -> usize {
        self.place.column
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { line, column } = self.place;
        write!(f, "line {line}, column {column}: {}", self.message)
    }
}
