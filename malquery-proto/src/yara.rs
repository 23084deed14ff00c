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

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use boreal::Scanner;
use boreal::compiler::CompilerParams;
use boreal::scanner::ScanParams;

/// One compiled YARA rule.
///
/// The modules `pe`, `elf`, `macho`, `dotnet`, `dex`, `hash`, `math`, `string` and `time` can be imported. The rule
/// stands alone: an `include` is refused, and so is a second rule, be it private or global, since a hunt takes
/// one rule.
pub struct Rule {
    scanner: Scanner,
    name: String,
}

impl Rule {
    /// Compiles a rule.
    ///
    /// # Errors
    /// Says what is wrong, and where.
    pub fn compile(text: &str) -> Result<Self, RuleError> {
        let mut compiler = boreal::Compiler::new();
        compiler.set_params(CompilerParams::default().disable_includes(true));
        compiler.add_rules_str(text).map_err(|error| {
            let diagnostic = error.to_diagnostic();
            let span = diagnostic.labels.first().map(|label| label.range.clone()).unwrap_or_default();
            RuleError::new(text, span, diagnostic.message)
        })?;
        let mut scanner = compiler.finalize();
        scanner.set_scan_params(ScanParams::default().timeout_duration(Some(TIMEOUT)));
        let rules: Vec<(String, bool)> =
            scanner.rules().map(|rule| (rule.name.to_owned(), rule.is_private)).collect();
        match rules.as_slice() {
            [(_, true)] => Err(RuleError::new(text, 0..0, "the rule is private, so that it reports nothing")),
            [(name, _)] => Ok(Self { name: name.clone(), scanner }),
            [] => Err(RuleError::new(text, 0..0, "there is no rule")),
            _ => {
                let names: Vec<_> = rules.iter().map(|(name, _)| name.as_str()).collect();
                let why =
                    format!("a hunt takes one rule, and here are {}: {}", names.len(), names.join(", "));
                Err(RuleError::new(text, 0..0, why))
            }
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the rule matches these bytes, which should be those of a whole file.
    ///
    /// # Errors
    /// Gives up after 60 seconds.
    pub fn matches(&self, bytes: &[u8]) -> Result<bool, TimedOut> {
        self.scanner.scan_mem(bytes).map(|found| !found.rules.is_empty()).map_err(|_| TimedOut)
    }
}

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

/// A YARA rule that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleError {
    why: String,
    line: usize,
    column: usize,
    shown: String,
}

impl RuleError {
    fn new(text: &str, span: Range<usize>, why: impl Into<String>) -> Self {
        let before = text.get(..span.start).unwrap_or(text);
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = text[start..].lines().next().unwrap_or_default();
        Self {
            why: why.into(),
            line: before.matches('\n').count() + 1,
            column: before[start..].chars().count() + 1,
            shown: line.into(),
        }
    }

    /// The line of what is wrong, from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// The column of what is wrong, in characters from 1.
    pub fn column(&self) -> usize {
        self.column
    }
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { why, line, column, shown } = self;
        write!(f, "line {line}, column {column}: {why}\n  {shown}\n  {:>column$}", '^')
    }
}

impl std::error::Error for RuleError {}
