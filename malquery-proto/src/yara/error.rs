use std::fmt;
use std::ops::Range;

/// A place in a text, counted as an editor does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// From 1.
    pub(super) line: usize,
    /// In characters, from 1.
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

/// Why a rule is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RuleErrorKind {
    /// YARA refuses the text, so the service does, too.
    Invalid,
    /// The text may be right, but cannot be checked here: it has an `include`, needs a module or an
    /// identifier that is unknown here (for example an external variable), or exceeds a limit of
    /// this crate.
    Unchecked,
    /// The text has several public rules, or none, or not the rule that was asked for. The message
    /// lists the names.
    Selection,
}

/// A YARA rule that is refused.
///
/// `Display` gives the place, the reason and an excerpt that marks the place.
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

/// How many characters of a line are shown before the place, and from there.
const MAX_BEFORE: usize = 60;
const MAX_AFTER: usize = 40;

impl RuleError {
    pub(super) fn new(
        kind: RuleErrorKind,
        text: &str,
        span: Range<usize>,
        why: impl Into<String>,
    ) -> Self {
        let place = Place::new(text, span.start);
        // A long line is shown in part. A tab would move the caret.
        let left_out = (place.column - 1).saturating_sub(MAX_BEFORE);
        let line = text.split('\n').nth(place.line - 1).unwrap_or_default();
        let shown = line
            .chars()
            .skip(left_out)
            .take(MAX_BEFORE + MAX_AFTER)
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

    /// Why the rule is refused: whether YARA refuses it, or only this check.
    pub fn kind(&self) -> RuleErrorKind {
        self.kind
    }

    /// What is wrong, in one line.
    pub fn message(&self) -> &str {
        &self.why
    }

    /// The line of what is wrong, from 1.
    pub fn line(&self) -> usize {
        self.place.line
    }

    /// The column of what is wrong, in characters from 1.
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

impl fmt::Debug for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for RuleError {}

/// What is probably wrong with a rule that YARA accepts.
///
/// `Display` gives the place and the sentence.
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

    /// What is wrong, and what to do, in one sentence.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The line of what is wrong, from 1.
    pub fn line(&self) -> usize {
        self.place.line
    }

    /// The column of what is wrong, in characters from 1.
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
