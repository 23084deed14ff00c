//! Reads and checks YARA rules.

use std::path::Path;

use malquery_proto::operations::Hunt;
use malquery_proto::yara::{RuleError, RuleErrorKind, RuleFile, Warning};
use serde_json::json;

use crate::args::{CheckedRule, RuleOptions};
use crate::format::{Format, print_fields};
use crate::input;
use crate::output::{Failure, note};

/// The size in bytes above which the service may refuse a rule.
const LARGE: usize = 64 * 1024;

/// Returns a hunt with the rule from a file.
pub(crate) fn hunt(path: &Path, options: &RuleOptions) -> Result<Hunt, Failure> {
    let bytes = input::read(path)?;
    let file = match select(path, &bytes, options.rule_name.as_deref()) {
        Ok(file) => file,
        // Send the file unchecked if it is UTF-8.
        Err(failure) if options.no_check_rule && options.rule_name.is_none() => {
            let text = std::str::from_utf8(&bytes).map_err(|_| failure)?;
            return Ok(Hunt::new(text.strip_prefix('\u{feff}').unwrap_or(text)));
        }
        Err(failure) => return Err(failure),
    };
    if options.no_check_rule {
        let public = file
            .rules()
            .iter()
            .filter(|rule| !rule.is_private() && !rule.is_global())
            .count();
        if options.rule_name.is_none() && public > 1 {
            note(format_args!(
                "warning: {} contains {public} public rules; select the rule to hunt for with --rule-name",
                input::name(path)
            ));
        }
        if file.text().len() > LARGE {
            note(format_args!(
                "warning: the rule is {} bytes long; the service may refuse rules larger than 64 KiB",
                file.text().len()
            ));
        }
    } else {
        let warnings = file.check().map_err(|error| refused(path, &error))?;
        warn(path, &warnings);
    }
    Ok(Hunt::new(file.text()))
}

pub(crate) fn check(rule: &CheckedRule, format: Format) -> Result<(), Failure> {
    let path = rule.file.as_path();
    let file = select(path, &input::read(path)?, rule.rule_name.as_deref())?;
    let warnings = file.check().map_err(|error| refused(path, &error))?;
    warn(path, &warnings);
    let name = match &rule.rule_name {
        Some(name) => name.clone(),
        None => {
            let compiled = file.compile().map_err(|error| refused(path, &error))?;
            compiled.name().to_owned()
        }
    };
    let list: Vec<_> = warnings
        .iter()
        .map(|warning| {
            json!({"line": warning.line(), "column": warning.column(), "message": warning.message()})
        })
        .collect();
    let document = json!({"path": path.to_string_lossy(), "rule": name, "warnings": list});
    let fields = [("rule", name), ("warnings", list.len().to_string())];
    print_fields(format, &fields, &document)
}

fn select(path: &Path, bytes: &[u8], name: Option<&str>) -> Result<RuleFile, Failure> {
    let file = RuleFile::from_bytes(bytes).map_err(|error| {
        let mut failure = refused(path, &error);
        // A JSON request cannot contain this file, so skipping the check does not help.
        if std::str::from_utf8(bytes).is_err() {
            failure.hints.clear();
        }
        failure
    })?;
    match name {
        Some(name) => file.select(name).map_err(|error| refused(path, &error)),
        None => Ok(file),
    }
}

fn warn(path: &Path, warnings: &[Warning]) {
    for warning in warnings {
        note(format_args!(
            "warning: {}:{}:{}: {}",
            input::name(path),
            warning.line(),
            warning.column(),
            warning.message()
        ));
    }
}

fn refused(path: &Path, error: &RuleError) -> Failure {
    let mut message = format!(
        "{}:{}:{}: {}",
        input::name(path),
        error.line(),
        error.column(),
        error.message()
    );
    // Append the source line and the line with the caret.
    for line in error.to_string().lines().skip(1) {
        message.push('\n');
        message.push_str(line.strip_prefix("  ").unwrap_or(line));
    }
    let failure = Failure::refused(message);
    match error.kind() {
        RuleErrorKind::Invalid if error.message().starts_with("syntax error") => failure,
        RuleErrorKind::Selection => failure.hint(
            "if the file has several public rules, use --rule-name NAME to select one; to send the whole file unchecked, use --no-check-rule with `hunt` or `collect`",
        ),
        _ => failure.hint(
            "if you expect the service to accept the rule, use --no-check-rule with `hunt` or `collect` to send it unchecked",
        ),
    }
}
