//! Reads cassettes and converts them to interactions that can be played.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Method, Uri, header};
use serde::Deserialize;
use serde_json::value::RawValue;
use url::form_urlencoded;

use super::file::{self, Pairs};
use super::matching::{self, Body, Expected};
use super::{Cassette, Interaction, folder_of};
use crate::digest;
use crate::json::{self, Json};
use crate::reply::{Reply, Response, parse_header, status_code};

/// The maximum size of a cassette in bytes, excluding its separate body files.
const MAX_FILE: u64 = 256 * 1024 * 1024;
const MARKERS: [&str; 4] = ["<<<<<<<", "|||||||", "=======", ">>>>>>>"];

impl Cassette {
    /// Reads a cassette from a file, including any bodies in separate files.
    ///
    /// # Errors
    /// Fails if a file cannot be read, if the cassette is larger than 256 MiB, or if it does not
    /// follow the [`format`](crate::format).
    pub fn load(path: impl AsRef<Path>) -> Result<Self, CassetteError> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let mut bytes = Vec::new();
        let file = File::open(path);
        let file = file.and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes));
        let refusal = match (file, std::str::from_utf8(&bytes)) {
            (Err(error), _) => Refusal {
                source: Some(error),
                ..Refusal::from("the file could not be read")
            },
            (Ok(length), _) if length as u64 > MAX_FILE => "the file is larger than 256 MiB".into(),
            (Ok(_), Err(error)) => Refusal::at(error.valid_up_to(), "the file is not valid UTF-8"),
            (Ok(_), Ok(text)) => return read(&name, text, Some(folder_of(path))),
        };
        Err(refusal.of(&name, &String::from_utf8_lossy(&bytes)))
    }

    /// Reads a cassette from a string, such as `include_str!(..)`. Error messages contain `name`.
    ///
    /// # Errors
    /// Fails if the text does not follow the [`format`](crate::format), or refers to a body file.
    pub fn parse(name: &str, text: &str) -> Result<Self, CassetteError> {
        read(name, text, None)
    }
}

/// The error returned by [`Cassette::load`] and [`Cassette::parse`].
#[derive(thiserror::Error)]
#[error("{message}")]
pub struct CassetteError {
    pub(crate) message: String,
    pub(crate) place: Option<(usize, usize)>,
    pub(crate) source: Option<io::Error>,
}

impl CassetteError {
    /// Returns the 1-based line and column of the error, or of the interaction that contains it.
    /// The column is counted in characters. Returns `None` if, for example, the cassette is not
    /// found.
    pub fn place(&self) -> Option<(usize, usize)> {
        self.place
    }
}

impl fmt::Debug for CassetteError {
    /// Writes the message and the source, because tests `unwrap` results.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = self.source.as_ref().map(|source| format!(": {source}"));
        write!(f, "{self}{}", source.unwrap_or_default())
    }
}

/// The reason for a refusal, and the byte offset of the error, if known.
pub(crate) struct Refusal {
    at: Option<usize>,
    pub(crate) message: String,
    source: Option<io::Error>,
}

impl<T: Into<String>> From<T> for Refusal {
    fn from(message: T) -> Self {
        Self {
            at: None,
            message: message.into(),
            source: None,
        }
    }
}

impl Refusal {
    fn at(at: usize, message: impl Into<String>) -> Self {
        Self {
            at: Some(at),
            ..Self::from(message)
        }
    }

    fn unread(text: &str, error: &serde_json::Error) -> Self {
        let before = text.split_inclusive('\n').take(error.line().max(1) - 1);
        let start: usize = before.map(str::len).sum();
        let mut at = (start + error.column().saturating_sub(1)).min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        // The message without the line and column.
        let message = error.to_string();
        let end = message.rfind(" at line ").unwrap_or(message.len());
        Self::at(at, &message[..end])
    }

    fn of(self, name: &str, text: &str) -> CassetteError {
        let place = self.at.map(|at| {
            let before = text.get(..at).unwrap_or(text);
            let start = before.rfind('\n').map_or(0, |newline| newline + 1);
            let line = before.matches('\n').count() + 1;
            (line, before[start..].chars().count() + 1)
        });
        let shown = place.map(|(line, column)| format!(":{line}:{column}"));
        CassetteError {
            message: format!("{name}{}: {}", shown.unwrap_or_default(), self.message),
            place,
            source: self.source,
        }
    }
}

/// The keys that determine whether this crate can read the rest of a cassette.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    version: Option<&'a RawValue>,
    #[serde(default, borrow)]
    features: Vec<&'a RawValue>,
}

/// Reads the outer level of a cassette, and leaves its interactions as text.
pub(crate) fn outline(text: &str) -> Result<file::File<&RawValue>, Refusal> {
    let is_marker = |line: &&str| MARKERS.iter().any(|marker| line.starts_with(marker));
    if let Some(line) = text.split('\n').find(is_marker) {
        let message = "the cassette contains a merge conflict marker; resolve the conflict";
        return Err(Refusal::at(offset(text, line), message));
    }
    let unread = |error| Refusal::unread(text, &error);
    let head: Head<'_> = object(text).map_err(unread)?;
    let unknown = |raw: &RawValue, message| Err(Refusal::at(offset(text, raw.get()), message));
    match (head.version, head.features.first()) {
        (Some(version), _) if version.get() != "1" => unknown(
            version,
            format!(
                "format version {version} is not supported; use format version 1, or upgrade malquery-mock"
            ),
        ),
        (_, Some(feature)) => unknown(
            feature,
            format!("feature {feature} is not supported; use a newer version of malquery-mock"),
        ),
        _ => object(text).map_err(unread),
    }
}

fn object<'de, T: Deserialize<'de>>(text: &'de str) -> serde_json::Result<T> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = file::object(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

fn read(name: &str, text: &str, folder: Option<&Path>) -> Result<Cassette, CassetteError> {
    #[derive(Deserialize)]
    struct Id {
        id: String,
    }

    // Some editors begin a file with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let refuse = |refusal: Refusal| refusal.of(name, text);
    let outline = outline(text).map_err(refuse)?;
    let tokens = outline.redaction.as_deref() == Some(file::REDACTION);
    let mut interactions = Vec::with_capacity(outline.interactions.len());
    let (mut counted, mut line) = (0, 1);
    for part in outline.interactions {
        let part = part.get();
        let at = offset(text, part);
        // Counts only the lines since the previous interaction, to avoid quadratic time.
        line += text[counted..at].matches('\n').count();
        counted = at;
        let read = object::<file::Interaction>(part)
            .map_err(|error| Refusal::unread(part, &error))
            .and_then(|found| interaction(found, line, folder));
        interactions.push(read.map_err(|refusal| {
            let id = serde_json::from_str(part).map(|Id { id }| json::quote(&id) + ": ");
            refuse(Refusal {
                at: Some(at + refusal.at.unwrap_or(0)),
                message: id.unwrap_or_default() + &refusal.message,
                ..refusal
            })
        })?);
    }
    Ok(Cassette {
        name: name.into(),
        tokens: tokens && !interactions.iter().any(Interaction::gives_token),
        interactions: interactions.into(),
    })
}

/// Checks the syntax of a cassette, but not all values, and not the separate body files.
pub(crate) fn check(text: &str) -> Result<(), Refusal> {
    for part in outline(text)?.interactions {
        object::<file::Interaction>(part.get()).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn interaction(
    found: file::Interaction,
    line: usize,
    folder: Option<&Path>,
) -> Result<Interaction, Refusal> {
    let answer = match (found.response, found.error) {
        _ if found.id.is_empty() => return Err("id must not be empty".into()),
        _ if found.times == Some(0) => return Err("times must be at least 1".into()),
        (Some(response), None) => Ok(self::response(response, folder)?),
        (None, Some(failure)) => Err(failure.kind),
        _ => return Err("the interaction needs either a response or an error".into()),
    };
    Ok(Interaction {
        label: format!("{} (line {line})", json::quote(&found.id)),
        id: found.id.into(),
        expected: Some(request(found.request, folder)?),
        reply: Reply {
            times: found.times.unwrap_or(1),
            repeat_last: found.repeat_last.unwrap_or(false),
            answer,
        },
    })
}

/// Returns why a cassette cannot contain this method or URI, or `None` if it can.
pub(crate) fn unfit(method: &Method, uri: &Uri) -> Option<&'static str> {
    // Methods are case-sensitive, so lower case is almost certainly a mistake.
    if method.as_str().contains(|c: char| c.is_ascii_lowercase()) {
        return Some("the method must be in upper case");
    }
    let has_path = uri.path().starts_with('/');
    (!has_path).then_some("the path must begin with /")
}

fn request(found: file::Request, folder: Option<&Path>) -> Result<Expected, Refusal> {
    let [method, uri] = [&found.method, &found.uri].map(|text| json::quote(text));
    let method: Method = found
        .method
        .parse()
        .map_err(|_| format!("request.method: {method} is not a valid method"))?;
    let uri: Uri = found
        .uri
        .parse()
        .map_err(|error| format!("request.uri: {uri} is not a valid URI: {error}"))?;
    if found.uri.contains('#') {
        return Err("request.uri: remove the fragment, because requests never contain one".into());
    }
    if let Some(why) = unfit(&method, &uri) {
        return Err(format!("request: {why}").into());
    }
    let headers = found.headers.map(|it| headers(it, "request")).transpose()?;
    Ok(Expected {
        method,
        query: matching::read_pairs(uri.query().unwrap_or_default().as_bytes()),
        uri,
        scheme: headers.as_ref().map(matching::authorization),
        body: body(found.body, "request", folder)?,
    })
}

fn response(found: file::Response, folder: Option<&Path>) -> Result<Response, Refusal> {
    let status = status_code(found.status).map_err(|why| format!("response.status: {why}"))?;
    let headers = headers(found.headers.unwrap_or_default(), "response")?;
    let body = match body(found.body, "response", folder)? {
        Body::Json(_) if headers.contains_key(header::CONTENT_LENGTH) => {
            return Err(
                "response.headers: remove content-length, because a JSON body is sent in compact \
                 form, which may have a different length"
                    .into(),
            );
        }
        Body::Json(json) => json.to_string().into_bytes().into(),
        Body::Form(pairs) => {
            let mut form = form_urlencoded::Serializer::new(String::new());
            form.extend_pairs(&pairs).finish().into_bytes().into()
        }
        Body::Bytes(bytes) => bytes,
    };
    let truncate_after = found.fault.map(|fault| fault.truncate_after);
    if truncate_after.is_some_and(|after| after > body.len() as u64) {
        return Err("response.fault: truncate_after exceeds the length of the body".into());
    }
    Ok(Response {
        status,
        headers,
        body,
        truncate_after,
    })
}

fn headers(pairs: Pairs, side: &str) -> Result<HeaderMap, Refusal> {
    let mut headers = HeaderMap::new();
    for (name, value) in &pairs {
        let Ok((name, value)) = parse_header(name, value) else {
            let name = json::quote(name);
            return Err(
                format!("{side}.headers: the header {name} has an invalid name or value").into(),
            );
        };
        let full = |_| format!("{side}.headers: too many headers");
        headers.try_append(name, value).map_err(full)?;
    }
    Ok(headers)
}

fn body(body: Option<file::Body>, side: &str, folder: Option<&Path>) -> Result<Body, Refusal> {
    let Some(body) = body else {
        return Ok(Body::Bytes(Arc::default()));
    };
    let within = |key: &str, refusal: Refusal| Refusal {
        message: format!("{side}.body.{key}: {}", refusal.message),
        ..refusal
    };
    let is_checked = body.len.is_some() && body.sha256.is_some();
    let is_bare = body.len.is_none() && body.sha256.is_none();
    let bytes = match (body.json, body.text, body.form, body.base64, body.file) {
        (Some(json), None, None, None, None) if is_bare => {
            let json = Json::parse_body(json.get());
            return json
                .map(Body::Json)
                .map_err(|why| within("json", why.into()));
        }
        (None, Some(text), None, None, None) if is_bare => text.into_bytes(),
        (None, None, Some(form), None, None) if is_bare => return Ok(Body::Form(form)),
        (None, None, None, Some(lines), None) if is_checked => STANDARD
            .decode(lines.concat())
            .map_err(|error| format!("invalid base64: {error}").to_lowercase())
            .map_err(|why| within("base64", why.trim_end_matches('.').into()))?,
        (None, None, None, None, Some(name)) => {
            file(&name, folder).map_err(|refusal| within("file", refusal))?
        }
        _ => {
            return Err(format!(
                "{side}.body: needs exactly one of json, text, form, base64 and file; len and \
                 sha256 are required with base64, optional with file, and otherwise not allowed"
            )
            .into());
        }
    };
    let real = bytes.len() as u64;
    if body.len.is_some_and(|len| len != real) {
        let why = format!("the value must be {real}, the length of the body");
        return Err(within("len", why.into()));
    }
    if let Some(sha256) = body.sha256 {
        let real = digest::sha256(&bytes);
        if sha256 != real {
            let why = format!("the value must be {real}, the SHA-256 of the body");
            return Err(within("sha256", why.into()));
        }
    }
    Ok(Body::Bytes(bytes.into()))
}

/// Reads a file in the cassette's folder or below it.
fn file(name: &str, folder: Option<&Path>) -> Result<Vec<u8>, Refusal> {
    let folder = folder.ok_or("`Cassette::parse` cannot read files; use `Cassette::load`")?;
    let name = Path::new(name);
    let is_plain = name
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if name.as_os_str().is_empty() || !is_plain {
        let why = "the path must be relative to the cassette's folder and must not have a `.` or `..` component";
        return Err(why.into());
    }
    let unread = |error| Refusal {
        source: Some(error),
        ..Refusal::from("the file could not be read")
    };
    // A symbolic link may point elsewhere.
    let real = folder.join(name).canonicalize().map_err(unread)?;
    if !real.starts_with(folder.canonicalize().map_err(unread)?) {
        return Err("the file must be in the cassette's folder or below it".into());
    }
    if !real.is_file() {
        return Err("not a regular file".into());
    }
    std::fs::read(real).map_err(unread)
}

fn offset(text: &str, part: &str) -> usize {
    (part.as_ptr() as usize)
        .wrapping_sub(text.as_ptr() as usize)
        .min(text.len())
}
