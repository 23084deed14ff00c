//! Writes results to standard output and messages to standard error.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::ffi::OsStr;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use malquery_mock::MockError;
use malquery_proto::client::{Error, ErrorKind};
use malquery_proto::error::ApiError;
use malquery_proto::needles::Needles;
use malquery_proto::oauth2::GetToken;
use malquery_proto::types::{ErrorItem, Extra};
use malquery_proto::{Body, TransportError};
use serde::de::IgnoredAny;
use serde::ser::{Error as _, SerializeMap};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

pub(crate) mod code {
    /// Any error without its own code.
    pub(crate) const FAILED: u8 = 1;
    /// Refused before anything was submitted.
    pub(crate) const REFUSED: u8 = 2;
    /// The job failed, or the archive is incomplete or damaged.
    pub(crate) const INCOMPLETE: u8 = 3;
    /// Bad credentials or access denied.
    pub(crate) const DENIED: u8 = 4;
    /// Quota exceeded or unknown, or rate limit exceeded.
    pub(crate) const QUOTA: u8 = 5;
    /// --timeout expired, or left no time for another attempt, while a job was running.
    pub(crate) const RUNNING: u8 = 6;
}

/// The error message of a command that was stopped by a signal.
pub(crate) const INTERRUPTED: &str = "interrupted";

/// The exit code, message and hints of a failed command.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) message: String,
    /// Advice for the user. Each hint is shown on its own line.
    pub(crate) hints: Vec<String>,
}

impl Failure {
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hints: Vec::new(),
        }
    }

    /// Returns a failure that occurred before anything was submitted.
    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self::new(code::REFUSED, message)
    }

    /// Returns a failure with code 2 and the messages of an error and its sources.
    pub(crate) fn invalid(error: &dyn StdError) -> Self {
        Self::refused(chain(error))
    }

    pub(crate) fn failed(error: &dyn StdError) -> Self {
        Self::new(code::FAILED, chain(error))
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    pub(crate) fn code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    pub(crate) fn show(&self) {
        error(format_args!("error: {}", self.message));
        for hint in &self.hints {
            error(format_args!("hint: {hint}"));
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        if matches!(error, Error::Stopped) {
            return Self::new(code::FAILED, INTERRUPTED);
        }
        let mut text = chain(&error);
        // The library's message contains its hint.
        let advice = error.api().and_then(ApiError::hint);
        if let Some(advice) = &advice
            && let Some((before, behind)) = text.rsplit_once(&format!("; hint: {advice}"))
        {
            text = format!("{before}{behind}");
        }
        // The library joins the service's message into one line, which misplaces the caret of a
        // YARA error.
        let said = error.api().map(ApiError::errors).unwrap_or_default();
        for message in said.iter().filter_map(|error| error.message.as_deref()) {
            text = text.replace(&harmless(message.trim()), message.trim());
        }
        let mut hints: Vec<_> = advice.into_iter().map(Cow::into_owned).collect();
        if let Some(mismatch) = mismatch(&error) {
            // Omit the line that is for test authors.
            let table: Vec<_> = mismatch
                .lines()
                .filter(|line| !line.starts_with("to fix this, "))
                .collect();
            text = text.replace(mismatch, &table.join("\n"));
            hints.push(
                "to update the cassette, use `--record FILE --force` instead of --replay".into(),
            );
        }
        Self {
            code: exit_code(&error),
            message: text,
            hints,
        }
    }
}

fn exit_code(error: &Error) -> u8 {
    let operation = error.api().map(ApiError::operation);
    let is_login = operation == Some(GetToken::ENDPOINT.id);
    match error.kind() {
        ErrorKind::Invalid => code::REFUSED,
        ErrorKind::JobFailed => code::INCOMPLETE,
        ErrorKind::Unauthorized | ErrorKind::Forbidden => code::DENIED,
        // The credentials are wrong.
        ErrorKind::Refused if is_login && error.status() == Some(http::StatusCode::BAD_REQUEST) => {
            code::DENIED
        }
        ErrorKind::QuotaExhausted | ErrorKind::RateLimited => code::QUOTA,
        _ => code::FAILED,
    }
}

/// Returns the message about an unmatched request, if one caused the error.
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

/// Joins the messages of an error and its sources.
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

/// Returns the failure for a file whose folder does not exist.
pub(crate) fn no_folder(of: &Path) -> Failure {
    Failure::refused(format!(
        "folder not found: {}",
        of.parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."))
            .display()
    ))
}

pub(crate) fn already_exists(path: &Path) -> Failure {
    let path = path.display();
    Failure::refused(format!("{path} already exists; use --force to replace it"))
}

/// In untrusted text, replaces control characters, characters that change the text direction, and
/// common invisible characters with spaces.
pub(crate) fn harmless(text: &str) -> String {
    text.chars()
        .map(|c| if steers(c) { ' ' } else { c })
        .collect()
}

/// Returns whether `harmless` replaces a character.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Quotes a path or another word for a shell, if necessary.
pub(crate) fn quoted<T: AsRef<OsStr> + ?Sized>(word: &T) -> String {
    let word = word.as_ref();
    let plain = |c: char| c.is_alphanumeric() || "/._-+:@%,".contains(c);
    match word.to_str() {
        Some(word) if word.chars().all(plain) && !word.is_empty() => word.to_owned(),
        Some(word) if !word.contains(steers) => format!("'{}'", word.replace('\'', r"'\''")),
        // Messages replace some characters with spaces, so escape them here.
        _ => {
            let bytes = word.as_encoded_bytes();
            let quoted = bytes.iter().map(|byte| match byte {
                b' '..=b'~' if !br"\'".contains(byte) => char::from(*byte).to_string(),
                byte => format!("\\x{byte:02x}"),
            });
            format!("$'{}'", quoted.collect::<String>())
        }
    }
}

static IS_QUIET: AtomicBool = AtomicBool::new(false);
static IS_VERBOSE: AtomicBool = AtomicBool::new(false);

/// The words for API operations in messages.
const WORDS: [(&str, &str); 11] = [
    ("oauth2AccessToken", "the login"),
    ("oauth2RevokeToken", "the logout"),
    ("GetMalQueryQuotasV1", "the quota query"),
    ("PostMalQueryFuzzySearchV1", "the fuzzy search"),
    ("PostMalQueryExactSearchV1", "the exact search"),
    ("PostMalQueryHuntV1", "the hunt"),
    ("GetMalQueryRequestV1", "the poll"),
    ("GetMalQueryMetadataV1", "the metadata lookup"),
    ("GetMalQueryDownloadV1", "the download"),
    (
        "PostMalQueryEntitiesSamplesMultidownloadV1",
        "the multi-download",
    ),
    ("GetMalQueryEntitiesSamplesFetchV1", "the archive download"),
];

/// The secrets of this session, which a reply or an error may contain.
static SECRETS: RwLock<Option<Needles>> = RwLock::new(None);

/// Masks this text in later messages and results. Returns `false` if it is shorter than 6 bytes,
/// which is too short to mask.
pub(crate) fn hide(secret: &str) -> bool {
    let mut secrets = SECRETS.write().unwrap_or_else(PoisonError::into_inner);
    secrets.get_or_insert_default().add(secret)
}

/// Masks the secrets of this session. Mask text before shortening it, because a truncated secret
/// may not be recognized.
pub(crate) fn masked(text: &str) -> String {
    let secrets = SECRETS.read().unwrap_or_else(PoisonError::into_inner);
    match &*secrets {
        Some(secrets) => secrets.mask_excerpt(text).into_owned(),
        None => text.to_owned(),
    }
}

/// Shows a message, even with --quiet. All lines after the first are indented, so that untrusted
/// text cannot look like a message of this program.
pub(crate) fn error(message: fmt::Arguments<'_>) {
    let mut message = masked(&message.to_string());
    for (id, word) in WORDS {
        message = message.replace(id, word);
    }
    let lines: Vec<_> = message
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(harmless)
        .collect();
    // An error while writing to standard error cannot be reported.
    let _ = writeln!(io::stderr(), "{}", lines.join("\n  "));
}

/// Shows a message unless --quiet is given.
pub(crate) fn note(message: fmt::Arguments<'_>) {
    if !IS_QUIET.load(Ordering::Relaxed) {
        error(message);
    }
}

static LAST_WARNING: Mutex<String> = Mutex::new(String::new());

/// Returns whether to show a line for each request.
pub(crate) fn is_verbose() -> bool {
    IS_VERBOSE.load(Ordering::Relaxed)
}

pub(crate) fn request(
    line: &str,
    reply: &Result<http::Response<Body>, TransportError>,
    time: Duration,
) {
    let outcome = match reply {
        Ok(reply) => {
            let id = reply
                .headers()
                .get("x-cs-traceid")
                .and_then(|id| id.to_str().ok());
            let id = id.map_or_else(String::new, |id| format!(", trace id {id}"));
            format!("{}{id}", reply.status())
        }
        Err(error) => error.to_string(),
    };
    note(format_args!("{line}: {outcome}, {} ms", time.as_millis()));
}

/// Shows the warnings that the `malquery` libraries log.
struct Log;

impl log::Log for Log {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::max_level() && metadata.target().starts_with("malquery")
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let said = record.args().to_string();
        // Do not repeat a warning when the next attempt fails in the same way.
        let mut last = LAST_WARNING.lock().unwrap_or_else(PoisonError::into_inner);
        if *last != said {
            note(format_args!("warning: {said}"));
            *last = said;
        }
    }

    fn flush(&self) {}
}

/// Sets how much is shown, and starts to show the warnings that the libraries log.
pub(crate) fn set_up(quiet: bool, verbose: bool) {
    IS_QUIET.store(quiet, Ordering::Relaxed);
    IS_VERBOSE.store(verbose, Ordering::Relaxed);
    if log::set_logger(&Log).is_ok() {
        log::set_max_level(log::LevelFilter::Warn);
    }
}

/// The errors in a reply, including `errors` or `resources` that could not be parsed.
pub(crate) struct ServiceErrors(Vec<String>);

impl ServiceErrors {
    pub(crate) fn new(errors: &[ErrorItem], extra: &Extra) -> Self {
        const SHOWN: usize = 5;
        let message = |error: &ErrorItem| {
            let message = error.message.as_deref();
            message
                .unwrap_or("the service returned an error without a message")
                .to_owned()
        };
        let mut all: Vec<_> = errors.iter().take(SHOWN).map(message).collect();
        if let more @ 1.. = errors.len().saturating_sub(SHOWN) {
            all.push(format!("errors not shown: {more}"));
        }
        let odd = |name: &&str| ["errors", "resources"].contains(name);
        for (name, value) in extra.iter().filter(|(name, _)| odd(name)) {
            let text = value.to_string();
            if !["null", "[]", "{}"].contains(&&*text) {
                let text = excerpt(&masked(&text), 500);
                all.push(format!("cannot parse `{name}` in the reply: {text}"));
            }
        }
        Self(all)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn warn(&self) {
        for said in &self.0 {
            note(format_args!("warning: {said}"));
        }
    }

    /// Returns the errors as a failure, which is shown even with --quiet.
    pub(crate) fn failure(&self, what: &str) -> Failure {
        Failure::new(code::FAILED, format!("{what}: {}", self.0.join("\n")))
    }
}

/// In JSON text, escapes the characters that `harmless` replaces, except line breaks.
fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        // These characters occur only in JSON strings, where the escape means the same.
        if steers(c) && c != '\n' {
            shown.push_str(&format!("\\u{:04x}", u32::from(c)))
        } else {
            shown.push(c)
        }
    }
    shown
}

pub(crate) fn print(document: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(document).map_err(|error| Failure::failed(&error))?;
    write(&(json(&text)? + "\n"))
}

/// Masks secrets in the strings and member names of JSON text, and escapes characters that could
/// control a terminal.
pub(crate) fn json(text: &str) -> Result<String, Failure> {
    let hidden = masked(text);
    if hidden == text || serde_json::from_str::<IgnoredAny>(&hidden).is_ok() {
        return Ok(escaped(&hidden));
    }
    // A number looks like a secret. Keep it, so that the text remains valid JSON.
    let hidden = serde_json::from_str(text).and_then(|mut document| {
        mask(&mut document);
        serde_json::to_string(&document)
    });
    hidden
        .map(|text| escaped(&text))
        .map_err(|error| Failure::failed(&error))
}

fn mask(value: &mut Value) {
    match value {
        Value::String(text) => *text = masked(text),
        Value::Array(items) => items.iter_mut().for_each(mask),
        Value::Object(members) => {
            let all = std::mem::take(members).into_iter();
            members.extend(all.map(|(name, mut value)| {
                mask(&mut value);
                (masked(&name), value)
            }));
        }
        _ => {}
    }
}

/// Writes text to standard output without masking secrets. A closed pipe is not an error.
pub(crate) fn write(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(
            code::FAILED,
            format!("cannot write to standard output: {error}"),
        )),
        _ => Ok(()),
    }
}

/// A reply as JSON. Adds an empty `meta`, `resources` or `errors` if it is missing, because the API
/// documentation requires all three.
pub(crate) struct Document<'a, T>(pub(crate) &'a T);

impl<T: Serialize> Serialize for Document<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let members = [
            ("meta", json!({})),
            ("resources", json!([])),
            ("errors", json!([])),
        ];
        let reply = serde_json::to_value(self.0).map_err(S::Error::custom)?;
        let mut map = serializer.serialize_map(None)?;
        for (name, empty) in &members {
            map.serialize_entry(name, reply.get(name).unwrap_or(empty))?;
        }
        for (name, value) in reply.as_object().into_iter().flatten() {
            if !members.iter().any(|(member, _)| member == name) {
                map.serialize_entry(name, value)?;
            }
        }
        map.end()
    }
}

/// Returns the first `most` characters of a string, followed by `…` if it is longer.
pub(crate) fn excerpt(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Shows a spinner if standard error is a terminal, unless --quiet is given.
pub(crate) fn spinner(message: impl Into<String>) -> ProgressBar {
    if IS_QUIET.load(Ordering::Relaxed) {
        return ProgressBar::hidden();
    }
    let spinner = ProgressBar::new_spinner().with_message(message.into());
    let spinner = spinner.with_style(style("{spinner} {elapsed} {msg}"));
    spinner.enable_steady_tick(Duration::from_millis(120));
    spinner
}

/// Returns whether standard error is not a terminal.
pub(crate) fn is_log() -> bool {
    !io::stderr().is_terminal()
}

/// If standard error is a terminal and --quiet is not given, shows a progress bar, or a spinner if
/// the length is unknown.
pub(crate) fn bar(length: Option<u64>) -> ProgressBar {
    if IS_QUIET.load(Ordering::Relaxed) {
        return ProgressBar::hidden();
    }
    let (bar, template) = match length {
        Some(length) => (
            ProgressBar::new(length),
            "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        ),
        None => (
            ProgressBar::new_spinner(),
            "{spinner} {bytes} {bytes_per_sec}",
        ),
    };
    bar.with_style(style(template))
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_for_a_shell() {
        for (path, expected) in [
            ("a/b-1.bin", "a/b-1.bin"),
            ("", "''"),
            ("it's $HOME", r"'it'\''s $HOME'"),
            ("a\nb'\u{202e}", r"$'a\x0ab\x27\xe2\x80\xae'"),
        ] {
            assert_eq!(quoted(path), expected);
        }
    }
}
