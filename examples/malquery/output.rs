//! What is shown: the document on standard output, everything else on standard error.

use std::error::Error as StdError;
use std::fmt;
use std::io::{self, Write};
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use malquery_proto::client::Error;
use malquery_proto::types::{ErrorItem, Sample};
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

    /// The message as one line.
    pub(crate) fn line(&self) -> String {
        let (Self::Invalid(message) | Self::Failed(message)) = self;
        message.split(char::is_control).filter(|part| !part.trim().is_empty()).collect::<Vec<_>>().join(" ")
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        if error.invalid().is_some() { Self::invalid(&error) } else { Self::failed(&error) }
    }
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

/// A text that may come from elsewhere, without what could steer a terminal or turn the writing around.
pub(crate) fn harmless(text: &str) -> String {
    let turns = |c| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if c.is_control() || turns(c) { ' ' } else { c }).collect()
}

/// A path as it is typed into a shell.
pub(crate) fn quoted(path: &Path) -> String {
    let path = path.to_string_lossy();
    let plain = |c: char| c.is_alphanumeric() || "/._-+:@%,=~".contains(c);
    if path.chars().all(plain) { path.into_owned() } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

/// A message for the person at the terminal.
pub(crate) fn note(message: fmt::Arguments<'_>) {
    // There is nowhere to say that standard error is gone.
    let _ = writeln!(io::stderr(), "{}", harmless(&message.to_string()));
}

/// Says what went wrong in part.
pub(crate) fn warn_of_errors(errors: &[ErrorItem]) {
    for error in errors {
        note(format_args!(
            "warning: {}",
            error.message.as_deref().unwrap_or("the service reports an error without words")
        ));
    }
}

/// Prints the one document.
pub(crate) fn print(document: &impl Serialize) -> Result<(), Failure> {
    let mut text = serde_json::to_vec_pretty(document).map_err(|error| Failure::failed(&error))?;
    text.push(b'\n');
    write(&text)
}

/// Writes to standard output.
pub(crate) fn write(text: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text).and_then(|()| stdout.flush());
    written.map_err(|error| Failure::Failed(format!("standard output could not be written: {error}")))
}

/// Prints a reply as it was received, with the three members every reply has in the API's description.
pub(crate) fn print_reply(reply: &impl Serialize) -> Result<(), Failure> {
    print(&Document(serde_json::to_value(reply).map_err(|error| Failure::failed(&error))?))
}

/// Prints what is known of samples, for a person.
pub(crate) fn print_table(samples: &[Sample]) -> Result<(), Failure> {
    fn cell(value: Option<impl fmt::Display>) -> String {
        value.map_or_else(|| "-".into(), |value| harmless(&value.to_string()))
    }
    let mut rows = vec![["SHA-256", "TYPE", "BYTES", "FIRST SEEN", "LABEL", "FAMILY"].map(String::from)];
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
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| match column {
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
