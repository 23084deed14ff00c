//! YARA rules, run here instead of in the service.
//!
//! ```
//! use malquery_proto::yara::Rule;
//!
//! let rule = Rule::compile(r#"rule gnu { strings: $a = "GNU" condition: $a }"#)?;
//! assert_eq!(rule.name(), "gnu");
//! assert!(rule.matches(b"GNU is not Unix")?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

//! [`RuleFile`] takes a text apart and checks it; [`Rule`] is one that can be run.

use std::fmt;
use std::time::Duration;

use boreal::Scanner;

mod check;
mod compile;
mod error;
mod file;
mod lexer;
mod regex;
mod slow;
mod splits;
mod warn;

pub use error::{RuleError, RuleErrorKind, Warning};
pub use file::{RuleEntry, RuleFile};

/// One compiled YARA rule, with the rules that it refers to.
///
/// ```
/// use malquery_proto::yara::Rule;
///
/// let rule = Rule::compile("rule greeting { strings: $a = \"hello\" nocase condition: $a }")?;
/// assert!(rule.matches(b"Hello, analyst")?);
///
/// let error = Rule::compile("rule typo { condition: filesise < 5 }").unwrap_err();
/// assert_eq!((error.line(), error.column()), (1, 24));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Rule {
    scanner: Scanner,
    name: String,
}

impl Rule {
    /// Compiles a text with one rule, and perhaps private rules, global rules and rules that the
    /// one refers to.
    ///
    /// # Errors
    /// As [`RuleFile::check`].
    pub fn compile(text: &str) -> Result<Self, RuleError> {
        RuleFile::parse(text)?.select_last().compile()
    }

    /// The name of the rule.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a public rule of the text matches these bytes, which should be a whole file.
    ///
    /// # Errors
    /// Gives up after 60 seconds.
    pub fn matches(&self, bytes: &[u8]) -> Result<bool, TimedOut> {
        self.scanner
            .scan_mem(bytes)
            .map(|found| !found.rules.is_empty())
            .map_err(|_| TimedOut)
    }
}

/// How often a string is counted, as in YARA. With less, a condition such as `#a > 5000` is never
/// true.
const MAX_MATCHES: u32 = 1_000_000;

/// How long a rule may take for one file.
const TIMEOUT: Duration = Duration::from_secs(60);

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rule({})", self.name)
    }
}

/// A rule took too long for a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimedOut;

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the rule took longer than {} seconds", TIMEOUT.as_secs())
    }
}

impl std::error::Error for TimedOut {}

#[cfg(test)]
mod tests;
