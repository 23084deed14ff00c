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
    /// Compiles a rule of at most 64 KiB. Parentheses and brackets may nest 20 levels deep.
    ///
    /// # Errors
    /// Says what is wrong, and where.
    pub fn compile(text: &str) -> Result<Self, RuleError> {
        Self::compile_with(text, TIMEOUT)
    }

    fn compile_with(text: &str, timeout: Duration) -> Result<Self, RuleError> {
        if text.len() > MAX_RULE {
            return Err(RuleError::new(text, 0..0, "the rule is longer than 64 KiB"));
        }
        on_large_stack(|| Self::compile_here(text, timeout)).unwrap_or_else(|| {
            Err(RuleError::new(
                text,
                0..0,
                "there is no memory to compile the rule",
            ))
        })
    }

    fn compile_here(text: &str, timeout: Duration) -> Result<Self, RuleError> {
        let mut compiler = boreal::Compiler::new();
        let params = CompilerParams::default();
        compiler.set_params(
            params
                .disable_includes(true)
                .parse_expression_recursion_limit(MAX_NESTING),
        );
        // boreal takes no comment that ends with the text, as YARA does.
        compiler
            .add_rules_str(format!("{text}\n"))
            .map_err(|error| {
                let diagnostic = error.to_diagnostic();
                let span = diagnostic
                    .labels
                    .first()
                    .map(|label| label.range.clone())
                    .unwrap_or_default();
                RuleError::new(text, span, diagnostic.message)
            })?;
        let mut scanner = compiler.finalize();
        let params = ScanParams::default().timeout_duration(Some(timeout));
        scanner.set_scan_params(params.string_max_nb_matches(MAX_MATCHES));
        let rules: Vec<(String, bool)> = scanner
            .rules()
            .map(|rule| (rule.name.to_owned(), rule.is_private))
            .collect();
        match rules.as_slice() {
            [(_, true)] => Err(RuleError::new(
                text,
                0..0,
                "the rule is private, so that it reports nothing",
            )),
            [(name, _)] => Ok(Self {
                name: name.clone(),
                scanner,
            }),
            [] => Err(RuleError::new(text, 0..0, "there is no rule")),
            _ => {
                let names: Vec<_> = rules.iter().map(|(name, _)| name.as_str()).collect();
                let why = format!(
                    "a hunt takes one rule, and here are {}: {}",
                    names.len(),
                    names.join(", ")
                );
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
        self.scanner
            .scan_mem(bytes)
            .map(|found| !found.rules.is_empty())
            .map_err(|_| TimedOut)
    }
}

/// How deep parentheses and brackets may nest. A level may take 40 KiB of a stack, of which a thread has 2 MiB.
const MAX_NESTING: u8 = 20;

/// The longest rule, in bytes.
const MAX_RULE: usize = 64 * 1024;

/// What each byte of a rule may take of the stack: thousands of signs in a row are an expression as deep as that.
const STACK: usize = MAX_RULE * 1024;

/// Runs something that may need much of a stack.
fn on_large_stack<T: Send>(run: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        #[allow(clippy::disallowed_methods)]
        // The one thread of this crate, for the sake of its stack.
        let thread = std::thread::Builder::new()
            .stack_size(STACK)
            .spawn_scoped(scope, run)
            .ok()?;
        thread.join().ok()
    })
}

/// How often a string is counted. As YARA has it; a condition such as `#a > 5000` is never true with less.
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

/// How many characters of a line are shown before the place, and from there.
const MAX_BEFORE: usize = 60;
const MAX_AFTER: usize = 40;

/// A YARA rule that is refused. The text shows the line and the place.
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
        let column = before[start..].chars().count();
        // A long line is shown in part; tabs would move the caret.
        let left_out = column.saturating_sub(MAX_BEFORE);
        let line = text[start..].lines().next().unwrap_or_default();
        let shown = line
            .chars()
            .skip(left_out)
            .take(MAX_BEFORE + MAX_AFTER)
            .map(|c| if c == '\t' { ' ' } else { c });
        Self {
            why: why.into(),
            line: before.matches('\n').count() + 1,
            column: column + 1,
            shown: format!(
                "  {}\n  {:>2$}",
                shown.collect::<String>().trim_end(),
                '^',
                column - left_out + 1
            ),
        }
    }

    /// What is wrong, in one line.
    pub fn message(&self) -> &str {
        &self.why
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
        let Self {
            why,
            line,
            column,
            shown,
        } = self;
        write!(f, "line {line}, column {column}: {why}\n{shown}")
    }
}

impl std::error::Error for RuleError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_rule_shows_the_place() {
        let cases = [
            "",
            "rule a { condition: }",
            "rule a {\n    strings:\n        $a = \"x\n    condition: $a\n}",
            "rule a {\n    strings:\n        $a = { 4D 5A ZZ }\n    condition: $a\n}",
            "rule a {\n    strings:\n\t\t$a = /(/\n    condition: $a\n}",
            "rule a {\n    condition: $b\n}",
            "rule a { strings: $a = \"x\" condition: true }",
            "rule a {\r\n    condition: filesise < 5\r\n}",
            "/* \u{fc}\u{fc} */ rule a { condition: \"\u{4e2d}\u{6587}\" + foo }",
            "import \"vt\"\nrule a { condition: vt.metadata.file_type == 1 }",
            "rule a { condition: pe.is_dll() }",
            "include \"other.yar\"\nrule a { condition: true }",
            "private rule a { condition: true }",
            "rule a { condition: true }\nrule b { condition: a }",
            "private rule a { condition: true }\nrule b { condition: a }",
            "rule a { condition: true }\nrule a { condition: true }",
            "rule a { strings: $a = /a{1000}{1000}{1000}/ condition: $a }",
            "import \"math\"",
        ];
        let shown = |text: &str| {
            let error =
                Rule::compile(text).map_or_else(|error| error.to_string(), |_| "taken".into());
            format!("{text}\n=> {error}\n")
        };
        insta::assert_snapshot!(cases.map(shown).join("\n"));
    }

    #[test]
    fn a_rule_has_a_name_and_an_error_its_place() {
        let rule = Rule::compile("rule a_name { condition: true }").unwrap();
        assert_eq!(
            (rule.name(), format!("{rule:?}")),
            ("a_name", "Rule(a_name)".into())
        );
        let error = Rule::compile("rule a {\n    condition: $b\n}").unwrap_err();
        assert_eq!((error.line(), error.column()), (2, 16));
        assert_eq!(TimedOut.to_string(), "the rule took longer than 60 seconds");
    }

    #[test]
    fn a_rule_may_have_64_kib() {
        let rule = "rule a { condition: true } //";
        let of_length = |length: usize| format!("{rule}{}", "x".repeat(length - rule.len()));
        Rule::compile(&of_length(65_536)).unwrap();
        assert!(Rule::compile(&of_length(65_537)).is_err());
    }

    #[test]
    fn modules_look_into_files() {
        let matches =
            |rule: &str, bytes: &[u8]| Rule::compile(rule).unwrap().matches(bytes).unwrap();
        let hash = "import \"hash\" rule h { condition: hash.sha256(0, filesize) ==
            \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }";
        assert!(matches(hash, b"test"));
        assert!(!matches(hash, b"tesT"));
        let math = "import \"math\" rule m { condition: math.entropy(0, filesize) > 2 }";
        assert!(matches(math, b"abcdefgh"));
        assert!(!matches(math, b"aaaaaaaa"));
        let elf = "import \"elf\" import \"pe\" rule e { condition: elf.type == elf.ET_EXEC or pe.is_pe }";
        assert!(!matches(elf, b"\x7fELF"));
        let count = "rule c { strings: $a = \"ab\" condition: #a == 5000 }";
        assert!(matches(count, "ab".repeat(5000).as_bytes()));
        assert!(matches("rule empty { condition: filesize == 0 }", b""));
        assert!(matches(
            "global rule g { strings: $a = /a.c/ nocase condition: $a }",
            b"xABC"
        ));
    }

    #[test]
    fn hostile_rules_end() {
        let endless = "rule a { condition: for all i in (0..9000000000000) : (i >= 0) }";
        let rule = Rule::compile_with(endless, Duration::from_millis(20)).unwrap();
        assert_eq!(rule.matches(b"x"), Err(TimedOut));
        let deep = |open: &str, close: &str, depth| {
            format!(
                "rule a {{ condition: {}true{} }}",
                open.repeat(depth),
                close.repeat(depth)
            )
        };
        for (sign, end) in [
            ("not ", "true"),
            ("- ", "1 == 1"),
            ("-", "1 == 1"),
            ("~", "1 == 1"),
            ("defined ", "true"),
            ("not defined ", "true"),
            ("1+", "1 == 2"),
            ("true == ", "true"),
            ("\"a\" contains ", "\"a\""),
            ("1 < ", "2"),
        ] {
            let count = (MAX_RULE - 60) / sign.len();
            let text = format!("rule a {{ condition: {}{end} }}", sign.repeat(count));
            assert!(text.len() <= MAX_RULE);
            let error = Rule::compile(&text).unwrap_err();
            assert_eq!(
                error.message(),
                "condition is too complex and reached max depth",
                "{sign}"
            );
        }
        let long = format!("rule a {{ condition: true }} //{}", "x".repeat(MAX_RULE));
        assert_eq!(
            Rule::compile(&long).unwrap_err().message(),
            "the rule is longer than 64 KiB"
        );
        for rule in [
            deep("(", ")", 10_000),
            deep("uint8(", ")", 100_000),
            format!(
                "rule a {{ strings: $a = /{}a{}/ condition: $a }}",
                "(".repeat(100_000),
                ")".repeat(100_000)
            ),
            format!(
                "rule a {{ strings: $a = {{ 00 {}00{} }} condition: $a }}",
                "(".repeat(100_000),
                ")".repeat(100_000)
            ),
            "(".repeat(100_000),
        ] {
            assert!(Rule::compile(&rule).is_err());
        }
    }
}
