//! Compiles a text with boreal.

use std::ops::Range;

use boreal::Scanner;
use boreal::compiler::CompilerParams;
use boreal::scanner::ScanParams;

use super::error::{RuleError, RuleErrorKind, Warning};
use super::file::RuleFile;
use super::{MAX_MATCHES, Rule, TIMEOUT, check, warn};

impl RuleFile {
    /// Compiles the text as YARA does, and looks for what is probably a mistake.
    ///
    /// Parentheses may nest 100 levels deep, and operators 60. The modules `pe`, `elf`, `macho`,
    /// `dotnet`, `dex`, `hash`, `math`, `string`, `time`, `cuckoo` and `console` are known. `pe`
    /// reads signatures, but does not verify them.
    ///
    /// # Errors
    /// The text has no public rule, or several and none was selected; or YARA refuses it; or it
    /// cannot be checked here. [`RuleError::kind`] says which.
    pub fn check(&self) -> Result<Vec<Warning>, RuleError> {
        let main = self.main()?;
        let (_, warnings) = compile(self, main)?;
        main.map(|_| warnings).ok_or_else(|| self.no_rule())
    }

    /// Compiles the text, to run it here.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn compile(&self) -> Result<Rule, RuleError> {
        let main = self.main()?;
        let (scanner, _) = compile(self, main)?;
        match main {
            Some(main) => Ok(Rule {
                scanner,
                name: self.rules()[main].name().to_owned(),
            }),
            None => Err(self.no_rule()),
        }
    }
}

/// How deep parentheses and brackets may nest. boreal counts a parenthesis twice.
const MAX_NESTING: u8 = 250;

/// How deep the operators of a condition may nest. A scan then takes at most 1 MB of a stack, even
/// without optimization.
const MAX_DEPTH: u32 = 60;

/// How many strings a rule may have, as in YARA.
const MAX_STRINGS: usize = 10_000;

/// The longest condition, in bytes. An operator in each of them nests the condition that deep.
const MAX_CONDITION: usize = 256 * 1024;

/// What each byte of a condition may take of the stack.
const STACK_PER_BYTE: usize = 1024;

/// What everything else takes.
const STACK: usize = 16 * 1024 * 1024;

/// Gives what runs the text, and warnings. `main` is the rule that the hunt is for.
fn compile(file: &RuleFile, main: Option<usize>) -> Result<(Scanner, Vec<Warning>), RuleError> {
    let mut longest = 0;
    for rule in file.rules() {
        let start = file.tokens[rule.condition.start].span.start;
        let span = start..rule.span().end;
        longest = longest.max(span.len());
        if span.len() > MAX_CONDITION {
            let why = "a condition over 256 KiB cannot be checked here";
            return Err(unchecked(file, span, why));
        }
    }
    check::tokens(file)?;
    let size = STACK + longest * STACK_PER_BYTE;
    on_large_stack(size, || compile_here(file, main))
        .unwrap_or_else(|why| Err(unchecked(file, 0..0, why)))
}

fn unchecked(file: &RuleFile, span: Range<usize>, why: impl Into<String>) -> RuleError {
    RuleError::new(RuleErrorKind::Unchecked, file.text(), span, why)
}

fn compile_here(
    file: &RuleFile,
    main: Option<usize>,
) -> Result<(Scanner, Vec<Warning>), RuleError> {
    // boreal does not accept a comment that ends with the text.
    let end = file.tokens.last().map_or(0, |token| token.span.end);
    let text = format!("{}\n", &file.text()[..end]);
    let params = boreal_parser::Params::default().expression_recursion_limit(MAX_NESTING);
    let parsed = boreal_parser::parse_with_params(&text, params).map_err(|error| {
        let found = error.to_diagnostic();
        let label = found.labels.into_iter().next();
        refusal(
            file,
            &found.message,
            label.map(|label| (label.range, label.message)),
        )
    })?;
    let mut warnings = warn::warnings(file, main, &parsed);
    warnings.extend(check::conditions(file, &parsed)?);
    warnings.sort_by_key(|warning| (warning.line(), warning.column()));
    let mut compiler = boreal::compiler::CompilerBuilder::new()
        .add_module(boreal::module::Console::with_callback(drop))
        .build();
    compiler.set_params(
        CompilerParams::default()
            .disable_includes(true)
            .max_condition_depth(MAX_DEPTH)
            .max_strings_per_rule(MAX_STRINGS)
            .parse_expression_recursion_limit(MAX_NESTING),
    );
    compiler.add_rules_str(&text).map_err(|error| {
        let found = error.to_diagnostic();
        let label = found.labels.into_iter().next();
        refusal(
            file,
            &found.message,
            label.map(|label| (label.range, label.message)),
        )
    })?;
    let mut scanner = compiler.finalize();
    let params = ScanParams::default().timeout_duration(Some(TIMEOUT));
    scanner.set_scan_params(params.string_max_nb_matches(MAX_MATCHES));
    Ok((scanner, warnings))
}

/// What a message of boreal says when YARA may accept the text, and what to add to the message.
const UNCHECKED: [(&str, &str); 9] = [
    (
        "includes are not allowed",
        "the included file is not read here",
    ),
    ("unknown import", "this module is not known here"),
    (
        "unknown identifier",
        "an external variable cannot be checked here",
    ),
    ("too many imbricated", "YARA may accept more levels"),
    ("condition is too complex", "YARA may accept more levels"),
    ("cannot be compiled", "YARA may accept it"),
    (
        "regex failed to build",
        "YARA may accept a larger expression",
    ),
    ("jump cannot have", "YARA accepts it here"),
    ("too much data added", "YARA may accept a larger text"),
];

/// The modules that boreal has.
const MODULES: [&str; 11] = [
    "console", "cuckoo", "dex", "dotnet", "elf", "hash", "macho", "math", "pe", "string", "time",
];

fn refusal(file: &RuleFile, message: &str, label: Option<(Range<usize>, String)>) -> RuleError {
    let (span, detail) = label.unwrap_or_default();
    let name = file.text().get(span.clone()).unwrap_or_default();
    let named = file.rules().iter().find(|rule| rule.name() == name);
    match UNCHECKED.iter().find(|(part, _)| message.contains(part)) {
        Some(_) if MODULES.contains(&name) => {
            let why = format!("{message}; `import \"{name}\"` is missing");
            RuleError::invalid(file.text(), span, why)
        }
        Some(_) if named.is_some_and(|rule| rule.span().start > span.start) => {
            let why = format!("{message}; a rule can refer only to the rules above it");
            RuleError::invalid(file.text(), span, why)
        }
        Some(_) if named.is_some() => {
            let why = format!("{message}; a rule that refers to itself never matches");
            unchecked(file, span, why)
        }
        Some(_) if name.ends_with('*') => RuleError::invalid(file.text(), span, message),
        Some((_, advice)) => unchecked(file, span, format!("{message}; {advice}")),
        None if detail.starts_with("expected") => {
            RuleError::invalid(file.text(), span, format!("{message}: {detail}"))
        }
        None => RuleError::invalid(file.text(), span, message),
    }
}

/// Runs something that may need much of a stack.
fn on_large_stack<T: Send>(size: usize, run: impl FnOnce() -> T + Send) -> Result<T, &'static str> {
    std::thread::scope(|scope| {
        // The one thread of this crate, for the sake of its stack.
        #[allow(clippy::disallowed_methods)]
        let thread = std::thread::Builder::new()
            .stack_size(size)
            .spawn_scoped(scope, run)
            .map_err(|_| "there is no memory to check the text here")?;
        thread
            .join()
            .map_err(|_| "the text cannot be checked here: the compiler failed")
    })
}
