//! Compiles YARA source with the `boreal` crate.

use std::ops::Range;

use boreal::Scanner;
use boreal::compiler::CompilerParams;
use boreal::scanner::ScanParams;

use super::error::{RuleError, RuleErrorKind, Warning};
use super::file::RuleFile;
use super::{MAX_MATCHES, Rule, TIMEOUT, check, warn};

impl RuleFile {
    /// Compiles the source, and returns warnings about probable mistakes.
    ///
    /// The modules `pe`, `elf`, `macho`, `dotnet`, `dex`, `hash`, `math`, `string`, `time`,
    /// `cuckoo` and `console` are supported. `pe` reads signatures, but does not verify them. In a
    /// condition, parentheses can be nested at least 100 levels deep, and operators at least 50.
    ///
    /// # Errors
    /// Fails if the source is not valid or cannot be checked, if it has no public rule, or if it
    /// has several public, non-global rules and none of them is selected. [`RuleError::kind`]
    /// classifies the error.
    pub fn check(&self) -> Result<Vec<Warning>, RuleError> {
        let main = self.main()?;
        let (_, warnings) = compile(self, main)?;
        main.map(|_| warnings).ok_or_else(|| self.no_rule())
    }

    /// Compiles the source into a [`Rule`] that can scan bytes.
    ///
    /// # Errors
    /// See [`check`](Self::check).
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

/// The limit for nested parentheses and brackets. boreal may count a parenthesis twice.
const MAX_NESTING: u8 = 250;

/// The nesting depth at which boreal rejects a condition: 59 operators and a value. This limit
/// keeps the stack use of a scan below 1 MB, even without optimization.
const MAX_DEPTH: u32 = 60;

/// The maximum number of strings in a rule, as in YARA.
const MAX_STRINGS: usize = 10_000;

/// The maximum length of a condition in bytes. In the worst case, each byte is an operator that
/// adds a level of nesting.
const MAX_CONDITION: usize = 256 * 1024;

/// The stack space in bytes for each byte of a condition.
const STACK_PER_BYTE: usize = 1024;

/// The stack space in bytes for everything else.
const STACK: usize = 16 * 1024 * 1024;

/// Compiles the source, and collects warnings. `main` is the index of the rule to hunt for.
fn compile(file: &RuleFile, main: Option<usize>) -> Result<(Scanner, Vec<Warning>), RuleError> {
    let mut longest = 0;
    for rule in file.rules() {
        let start = file.tokens[rule.condition.start].span.start;
        let span = start..rule.span().end;
        longest = longest.max(span.len());
        if span.len() > MAX_CONDITION {
            let why = "a condition larger than 256 KiB cannot be checked locally";
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
    // boreal does not accept an unterminated comment at the end of the source, so cut it off.
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

/// Parts of boreal's messages about source that YARA may accept, with explanations to append.
const UNCHECKED: [(&str, &str); 9] = [
    (
        "includes are not allowed",
        "copy the included rules into the source",
    ),
    ("unknown import", "this module cannot be checked locally"),
    (
        "unknown identifier",
        "external variables and unsupported modules cannot be checked locally",
    ),
    ("too many nested", "YARA may accept deeper nesting"),
    ("condition is too complex", "YARA may accept deeper nesting"),
    ("cannot be compiled", "YARA may accept it"),
    ("regex failed to build", "YARA may accept it"),
    ("jump cannot have", "YARA accepts the range [0-0]"),
    ("too much data added", "YARA may accept more data"),
];

const MODULES: [&str; 11] = [
    "console", "cuckoo", "dex", "dotnet", "elf", "hash", "macho", "math", "pe", "string", "time",
];

fn refusal(file: &RuleFile, message: &str, label: Option<(Range<usize>, String)>) -> RuleError {
    let (span, detail) = label.unwrap_or_default();
    // The rest of this message is `Debug` output.
    let message = match message.split_once("regex failed to build") {
        Some((before, _)) => format!("{before}regex failed to build"),
        None => message.replace("too many imbricated", "too many nested"),
    };
    let message = message.trim_end_matches('.');
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
            let why = format!("{message}; YARA may accept a rule that refers to itself");
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

/// Runs a function on a thread with a stack of this size in bytes.
fn on_large_stack<T: Send>(size: usize, run: impl FnOnce() -> T + Send) -> Result<T, &'static str> {
    std::thread::scope(|scope| {
        // This crate starts no other threads. This one is needed for its large stack.
        #[allow(clippy::disallowed_methods)]
        let thread = std::thread::Builder::new()
            .stack_size(size)
            .spawn_scoped(scope, run)
            .map_err(|_| "cannot start a thread to check the source; memory may be low")?;
        thread
            .join()
            .map_err(|_| "the source cannot be checked: the compiler crashed")
    })
}
