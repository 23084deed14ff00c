//! Compiles YARA rules and scans bytes with them, without the service.
//!
//! ```
//! use malquery_proto::yara::Rule;
//!
//! let rule = Rule::compile(r#"rule gnu { strings: $a = "GNU" condition: $a }"#)?;
//! assert_eq!(rule.name(), "gnu");
//! assert!(rule.matches(b"GNU is not Unix")?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`RuleFile`] splits source into rules and selects one of them. [`Rule`] is a compiled rule.

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

/// A compiled YARA rule, with the other rules in its source.
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
    /// Compiles the source of a rule. The source may also contain private rules, global rules, and
    /// rules that the rule refers to.
    ///
    /// # Errors
    /// Fails if the source is not valid or cannot be checked, if it has no public rule, or if it
    /// has several public, non-global rules to which no other rule refers.
    pub fn compile(text: &str) -> Result<Self, RuleError> {
        RuleFile::parse(text)?.select_last().compile()
    }

    /// Returns the name of the rule.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns whether any public rule in the source matches these bytes. Pass a whole file,
    /// because conditions that use `filesize` depend on its length.
    ///
    /// # Errors
    /// Returns [`TimedOut`] if the scan takes longer than 60 seconds.
    pub fn matches(&self, bytes: &[u8]) -> Result<bool, TimedOut> {
        self.scanner
            .scan_mem(bytes)
            .map(|found| !found.rules.is_empty())
            .map_err(|_| TimedOut)
    }
}

/// The maximum number of matches to count for each string, the same as in YARA. With a low maximum,
/// a condition such as `#a > 5000` would never be true.
const MAX_MATCHES: u32 = 1_000_000;

/// The time limit for a scan.
const TIMEOUT: Duration = Duration::from_secs(60);

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rule({})", self.name)
    }
}

/// The error returned by a scan that takes longer than 60 seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the scan took longer than {} seconds", TIMEOUT.as_secs())]
pub struct TimedOut;

#[cfg(test)]
mod tests;
