//! What is shown: the document on standard output, everything else on standard error.

use std::error::Error as StdError;
use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use indicatif::{ProgressBar, ProgressStyle};
use malquery_mock::MockError;
use malquery_proto::client::Error;
use malquery_proto::error::ApiError;
use malquery_proto::types::{ErrorItem, Extra, Sample};
use serde::Serialize;
use serde::ser::SerializeMap;
use serde_json::Value;

/// Why the command did not do what it was told.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Refused before anything was sent.
    Invalid(String),
    /// Everything else.
    Failed(String),
}

impl Failure {
    pub(crate) fn invalid(error: &dyn StdError) -> Self {
        Self::Invalid(chain(error))
    }

    pub(crate) fn failed(error: &dyn StdError) -> Self {
        Self::Failed(chain(error))
    }

    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Invalid(_) => 2,
            Self::Failed(_) => 1,
        }
    }

    pub(crate) fn message(&self) -> &str {
        let (Self::Invalid(message) | Self::Failed(message)) = self;
        message
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        if error.invalid().is_some() {
            return Self::invalid(&error);
        }
        let mut text = chain(&error);
        // The library makes one line of what the service says, in which the caret of a YARA error points nowhere.
        let said = error.api().map(ApiError::errors).unwrap_or_default();
        for message in said.iter().filter_map(|error| error.message.as_deref()) {
            text = text.replace(&harmless(message.trim()), message.trim());
        }
        if let Some(mismatch) = mismatch(&error) {
            // What to do is said there to the author of a test.
            let table: Vec<_> = mismatch
                .lines()
                .filter(|line| !line.starts_with("to fix it: "))
                .collect();
            text = text.replace(mismatch, &table.join("\n"));
            text.push_str(
                "\nto fix it: record it anew, with `--record FILE --force` in place of --replay",
            );
        }
        Self::Failed(text)
    }
}

/// What differs from a cassette, if that is the error.
fn mismatch(error: &Error) -> Option<&str> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(MockError::Unmatched(message)) = error.downcast_ref() {
            return Some(message);
        }
        source = error.source();
    }
    None
}

/// An error and its sources.
fn chain(error: &dyn StdError) -> String {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        message.push_str(": ");
        message.push_str(&error.to_string());
        source = error.source();
    }
    message
}

/// A file cannot be made for want of its folder.
pub(crate) fn no_folder(of: &Path) -> Failure {
    Failure::Invalid(format!(
        "there is no folder {}",
        of.parent().unwrap_or(of).display()
    ))
}

/// A text that may come from elsewhere, without what could steer a terminal or turn the writing around.
pub(crate) fn harmless(text: &str) -> String {
    text.chars()
        .map(|c| if steers(c) { ' ' } else { c })
        .collect()
}

/// Whether a character could steer a terminal, turn the writing around, or not be seen.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// A path, or another word, as it is typed into a shell.
pub(crate) fn quoted(path: &Path) -> String {
    let path = path.to_string_lossy();
    let plain = |c: char| c.is_alphanumeric() || "/._-+:@%,".contains(c);
    if path.chars().all(plain) && !path.is_empty() {
        path.into_owned()
    } else {
        format!("'{}'", path.replace('\'', r"'\''"))
    }
}

/// A message for the person at the terminal. All lines but the first are indented, so that no text from elsewhere looks like
/// a message of ours.
pub(crate) fn note(message: fmt::Arguments<'_>) {
    let message = message.to_string();
    let lines: Vec<_> = message
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(harmless)
        .collect();
    // There is nowhere to say that standard error is gone.
    let _ = writeln!(io::stderr(), "{}", lines.join("\n  "));
}

static LAST_WARNING: Mutex<String> = Mutex::new(String::new());

/// Shows what the library warns of, and nothing that is for its authors.
struct Warnings;

impl log::Log for Warnings {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn && metadata.target().starts_with("malquery")
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // An attempt that fails as the last one did is no news.
        let said = record.args().to_string();
        let mut last = LAST_WARNING.lock().unwrap_or_else(PoisonError::into_inner);
        if *last != said {
            note(format_args!("warning: {said}"));
            *last = said;
        }
    }

    fn flush(&self) {}
}

pub(crate) fn show_warnings() {
    if log::set_logger(&Warnings).is_ok() {
        log::set_max_level(log::LevelFilter::Warn);
    }
}

/// Says what went wrong in part.
pub(crate) fn warn_of_errors(errors: &[ErrorItem]) {
    const SHOWN: usize = 5;
    for error in errors.iter().take(SHOWN) {
        note(format_args!(
            "warning: {}",
            error
                .message
                .as_deref()
                .unwrap_or("the service reports an error without words")
        ));
    }
    if let more @ 1.. = errors.len().saturating_sub(SHOWN) {
        note(format_args!(
            "warning: the service reports {more} more errors"
        ));
    }
}

/// Says what went wrong in part, and what of a reply could not be read. Tells whether there is any.
pub(crate) fn warn_of(errors: &[ErrorItem], extra: &Extra) -> bool {
    warn_of_errors(errors);
    let mut is_odd = false;
    for (name, value) in extra
        .iter()
        .filter(|(name, _)| ["errors", "resources"].contains(name))
    {
        let text = value.to_string();
        if !["null", "[]", "{}"].contains(&&*text) {
            let text: String = text.chars().take(500).collect();
            note(format_args!(
                "warning: the {name} of the reply could not be read: {text}"
            ));
            is_odd = true;
        }
    }
    is_odd || !errors.is_empty()
}

/// Prints the one document.
pub(crate) fn print(document: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(document).map_err(|error| Failure::failed(&error))?;
    let mut shown = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        // Where it can stand in JSON, this is the same character.
        if steers(c) && c != '\n' {
            shown.push_str(&format!("\\u{:04x}", u32::from(c)))
        } else {
            shown.push(c)
        }
    }
    shown.push('\n');
    write(shown.as_bytes())
}

/// Writes to standard output.
pub(crate) fn write(text: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text).and_then(|()| stdout.flush());
    written
        .map_err(|error| Failure::Failed(format!("standard output could not be written: {error}")))
}

/// Prints a reply as it was received, with the three members every reply has in the API's description.
pub(crate) fn print_reply(reply: &impl Serialize) -> Result<(), Failure> {
    print(&Document(
        serde_json::to_value(reply).map_err(|error| Failure::failed(&error))?,
    ))
}

/// Prints what is known of samples, for a person.
pub(crate) fn print_table(samples: &[Sample]) -> Result<(), Failure> {
    fn cell(value: Option<impl fmt::Display>) -> String {
        value.map_or_else(|| "-".into(), |value| harmless(&value.to_string()))
    }
    let mut rows =
        vec![["SHA-256", "TYPE", "BYTES", "FIRST SEEN", "LABEL", "FAMILY"].map(String::from)];
    rows.extend(samples.iter().map(|sample| {
        [
            cell(sample.sha256),
            cell(sample.filetype.as_ref()),
            cell(sample.filesize),
            cell(sample.first_seen),
            cell(sample.label.as_ref()),
            cell(sample.family.as_ref()),
        ]
    }));
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: [usize; 6] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let cells =
            row.iter()
                .zip(widths)
                .enumerate()
                .map(|(column, (cell, width))| match column {
                    // Numbers stand at the right.
                    2 => format!("{cell:>width$}"),
                    _ => format!("{cell:<width$}"),
                });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    write(text.as_bytes())
}

struct Document(Value);

impl Serialize for Document {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const MEMBERS: [&str; 3] = ["meta", "resources", "errors"];
        let mut map = serializer.serialize_map(None)?;
        for name in MEMBERS {
            map.serialize_entry(name, self.0.get(name).unwrap_or(&Value::Array(Vec::new())))?;
        }
        for (name, value) in self.0.as_object().into_iter().flatten() {
            if !MEMBERS.contains(&name.as_str()) {
                map.serialize_entry(name, value)?;
            }
        }
        map.end()
    }
}

/// A line that moves while something takes its time; on a terminal only.
pub(crate) fn spinner(message: impl Into<String>) -> ProgressBar {
    let spinner = ProgressBar::new_spinner().with_message(message.into());
    spinner.enable_steady_tick(std::time::Duration::from_millis(120));
    spinner
}

/// A bar with bytes, rate and the time left; on a terminal only.
pub(crate) fn bar(length: Option<u64>) -> ProgressBar {
    match length {
        Some(length) => ProgressBar::new(length).with_style(
            ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
                .unwrap_or_else(|_| ProgressStyle::default_bar()),
        ),
        None => ProgressBar::new_spinner().with_style(
            ProgressStyle::with_template("{spinner} {bytes} {bytes_per_sec}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner()),
        ),
    }
}
