//! Converts logged exchanges to a cassette.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Method, Request, Uri, header};
use malquery_proto::flow::SendFailure;
use malquery_proto::reply::{ResponseHead, RetryAfter};
use url::form_urlencoded;

use super::log::{End, Exchange, Log, Outcome, Reply, job};
use super::policy::{self, Policy};
use crate::cassette::file;
use crate::cassette::load;
use crate::cassette::matching::{below_base, is_for_tokens, job_ids};
use crate::cassette::save::{Staging, document};
use crate::digest;
use crate::json::{Json, Style, is_plain};

/// The maximum length of a reply body in the cassette, in bytes. Longer bodies have their own files.
const MAX_INLINE: u64 = 64 * 1024;
const BASE64_LINE: usize = 76;
/// The number of bytes of a sample that are read at a time to search for secrets.
const WINDOW: usize = 1024 * 1024;
/// The number of bytes that are searched again together with the bytes that follow.
const OVERLAP: usize = 16 * 1024;
/// The path prefixes of the operations that return a sample or an archive, in this order.
const SAMPLE_PATHS: [&str; 2] = [
    "/malquery/entities/download-files/",
    "/malquery/entities/samples-fetch/",
];
/// The number of spaces before an interaction in a file.
const INDENT: usize = 4;

/// The exchanges of a session, and the path of its cassette.
pub(crate) struct Recording {
    pub(crate) path: PathBuf,
    pub(crate) log: Log,
    /// Whether to keep the existing interactions in the file.
    pub(crate) appends: bool,
    pub(crate) policy: Policy,
    /// The text of the cassette before this session wrote to it.
    pub(crate) base: Option<String>,
    /// The text that this session last wrote to the cassette.
    pub(crate) written: Option<String>,
}

impl Recording {
    /// Returns whether any request may have used quota.
    pub(crate) fn is_paid(&self) -> bool {
        self.log.lock().exchanges.iter().any(|exchange| {
            let path = below_base(exchange.request.uri().path());
            let is_job = exchange.request.method() == Method::POST;
            let is_sent = match exchange.outcome {
                Outcome::Failed { failure, .. } => failure == SendFailure::Unknown,
                Outcome::Pending | Outcome::Reply(_) => exchange.is_written,
            };
            is_sent
                && (is_job && path.starts_with("/malquery/") || path.starts_with(SAMPLE_PATHS[0]))
        })
    }

    /// Writes the completed exchanges and, with `all`, those whose reply is still being read.
    /// Returns notes for the user. With `rest`, omits refused exchanges; otherwise fails on them.
    pub(crate) fn save(&mut self, to: &Path, all: bool, rest: bool) -> Result<Vec<String>, String> {
        let exchanges = &mut self.log.lock().exchanges;
        let is_done = |exchange: &Exchange| {
            let is_pending = matches!(exchange.outcome, Outcome::Pending);
            exchange.is_over() || all && !is_pending
        };
        let is_new = |exchange: &Exchange| exchange.is_written && is_done(exchange);
        if !exchanges.iter().any(is_new) {
            return Ok(Vec::new());
        }
        let mut staging = Staging::open(to)?;
        let former = staging.former();
        let base = match &former {
            _ if to != self.path => None,
            // The file has not changed since this session wrote it.
            Some(_) if former == self.written => self.base.clone(),
            _ if self.appends && self.written.is_none() || former == self.base => former.clone(),
            _ => {
                let why = "it was changed after this session started";
                return Err(format!("{why}; save to another path"));
            }
        };
        let kept = base.as_deref().filter(|_| self.appends).unwrap_or_default();
        let kept = kept.strip_prefix('\u{feff}').unwrap_or(kept);
        let mut policy = self.policy.clone();
        policy.taken = kept.to_owned();
        exchanges.iter_mut().for_each(|one| policy.see(one));

        let (mut refused, mut lines) = (Vec::new(), Vec::new());
        let mut redaction = Some(file::REDACTION.into());
        if !kept.is_empty() {
            let broken = "the existing cassette cannot be read";
            let outline = load::outline(kept).map_err(|why| {
                format!(
                    "{broken}: {}; repair the cassette, or save to another path",
                    why.message
                )
            })?;
            redaction = outline.redaction;
            lines.extend(outline.interactions.iter().map(|one| one.get().to_owned()));
            staging.is_private = SAMPLE_PATHS.iter().any(|path| kept.contains(path));
        }
        if lines.iter().any(|line| policy.has_secret(line.as_bytes())) {
            let why = "the existing cassette contains one of this session's secrets";
            return Err(format!("{why}; remove the secret, or save to another path"));
        }
        let mut writer = Writer {
            policy: &policy,
            staging: &mut staging,
            jobs: HashMap::new(),
            notes: vec![],
        };
        // Combines equal consecutive exchanges into one interaction, which is played several times.
        let mut new: Vec<(String, file::Interaction)> = Vec::new();
        for exchange in exchanges.iter_mut().filter(|one| one.is_written) {
            let shown = writer.shown(&exchange.request);
            if !is_done(exchange) {
                let note = "was still in progress, so it was not saved";
                writer.notes.push(format!("{shown} {note}"));
                continue;
            }
            match (writer.interaction(exchange), new.last_mut()) {
                (Err(why), _) => refused.push(format!("{shown} {why}")),
                (Ok((text, _)), Some((last, one))) if *last == text => {
                    one.times = Some(one.times.unwrap_or(1) + 1);
                }
                (Ok(one), _) => new.push(one),
            }
        }
        let mut notes = writer.notes;
        if policy.has_short {
            notes.push("a secret is shorter than 6 bytes, so it cannot be redacted".into());
        }
        if !rest && !refused.is_empty() {
            let why = refused.join("; ");
            return Err(format!(
                "{why}; any other exchanges can still be saved to another path"
            ));
        }
        for (_, one) in &new {
            lines.push(Json::parse(&text_of(one)?)?.text(Style::File, INDENT));
        }
        let missing = |why| format!("{why}; this exchange was not saved");
        notes.extend(refused.into_iter().map(missing));
        if lines.is_empty() {
            // A cassette without interactions is useless.
            return Ok(notes);
        }
        let text = document(redaction.as_deref(), &lines);
        staging.commit(&text)?;
        if to == self.path {
            self.base = base;
            self.written = Some(text);
        }
        Ok(notes)
    }
}

fn text_of(one: &file::Interaction) -> Result<String, String> {
    serde_json::to_string(one).map_err(|error| error.to_string())
}

struct Writer<'a> {
    policy: &'a Policy,
    staging: &'a mut Staging,
    /// For each job, the id of the interaction that started it.
    jobs: HashMap<String, String>,
    notes: Vec<String>,
}

impl Writer<'_> {
    fn shown(&self, request: &Request<Vec<u8>>) -> String {
        let line = format!("{} {}", request.method(), below_base(request.uri().path()));
        self.policy.mask(&line).into_owned()
    }

    /// Returns the recorded form of an exchange, as text on one line and as an interaction.
    fn interaction(
        &mut self,
        exchange: &mut Exchange,
    ) -> Result<(String, file::Interaction), String> {
        let json = exchange.json();
        let sent = &exchange.request;
        let mut one = file::Interaction {
            id: self.name(sent.uri()),
            request: request(self.policy, sent),
            response: None,
            error: None,
            times: None,
            repeat_last: None,
        };
        let uri = one.request.uri.as_str();
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let parts = [
            ("path", path.as_bytes()),
            ("query", query.as_bytes()),
            ("body", sent.body()),
        ];
        if let Some((part, bytes)) = parts.iter().find(|(_, part)| self.policy.has_secret(part)) {
            let place = self.place(bytes);
            return Err(format!(
                "contains one of this session's secrets in its {part}{place}, where secrets are not redacted"
            ));
        }
        match &mut exchange.outcome {
            Outcome::Pending => return Err("has no reply".into()),
            Outcome::Failed { fault, message, .. } => {
                let Some(kind) = *fault else {
                    let why = "failed with an error that a cassette cannot replay";
                    return Err(format!("{why}: {}", self.policy.text(message)));
                };
                one.error = Some(file::Failure { kind });
            }
            Outcome::Reply(reply) => {
                let status = reply.status;
                if status.is_informational() {
                    return Err(format!("got only an interim reply with status {status}"));
                }
                if !reply.is_kept {
                    let note = format!(
                        "the reply body of interaction {} could not be saved",
                        one.id
                    );
                    self.notes.push(note);
                }
                if let (Some(job), &Method::POST) = (job(json.as_ref()), sent.method()) {
                    self.jobs.insert(job.to_owned(), one.id.clone());
                }
                let mut written = response(self.policy, reply, json.as_ref());
                self.body(&one.id, sent.uri(), reply, &mut written)?;
                one.response = Some(written);
            }
        }
        let text = text_of(&one)?;
        if self.policy.has_secret(text.as_bytes()) {
            return Err("still contains one of this session's secrets after redaction".into());
        }
        Ok((text, one))
    }

    /// Adds the bytes of a sample without secrets, or moves a long JSON body to a separate file.
    fn body(
        &mut self,
        id: &str,
        uri: &Uri,
        reply: &mut Reply,
        written: &mut file::Response,
    ) -> Result<(), String> {
        let is_whole = reply.end == End::Whole && reply.status.is_success();
        let unread =
            |error: io::Error| format!("got a reply whose body could not be read back: {error}");
        if is_whole && is_sample(uri, reply) {
            if self.holds_secret(reply) {
                self.notes.push(format!(
                    "the file returned by {id} contains one of this session's secrets or could not be read back, \
                     so it was not saved"
                ));
                return Ok(());
            }
            self.staging.is_private = true;
            let length = reply.headers.get(header::CONTENT_LENGTH);
            let length = length.and_then(|value| value.to_str().ok());
            let headers = written.headers.get_or_insert_default();
            headers.extend(length.map(|length| ("content-length".into(), length.to_owned())));
            headers.sort();
            written.body = Some(if reply.length <= MAX_INLINE {
                let bytes = reply.first(MAX_INLINE).map_err(unread)?;
                text_or_base64(&bytes)
            } else {
                let extension = if reply.is_zip() { "zip" } else { "bin" };
                let (length, sha256) = (reply.length, reply.sha256());
                let copy = |file: &mut File| reply.read(|body| io::copy(body, file).map(drop));
                self.file(id, extension, length, sha256, copy)?
            });
        } else if let Some(json) = written.body.as_ref().and_then(|body| body.json.as_ref())
            && json.get().len() as u64 > MAX_INLINE
        {
            let bytes = json.get().as_bytes();
            if self.policy.has_secret(bytes) {
                return Err("still contains one of this session's secrets after redaction".into());
            }
            let (length, sha256) = (bytes.len() as u64, digest::sha256(bytes));
            let file = self.file(id, "json", length, sha256, |file| file.write_all(bytes))?;
            written.body = Some(file);
        }
        Ok(())
    }

    fn file(
        &mut self,
        id: &str,
        extension: &str,
        length: u64,
        sha256: String,
        write: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<file::Body, String> {
        let name = format!("{id}-{sha256}.{extension}");
        Ok(file::Body {
            file: Some(self.staging.body(&name, write)?),
            len: Some(length),
            sha256: Some(sha256),
            ..file::Body::default()
        })
    }

    /// Returns the path of the first string with a secret in a JSON body, such as
    /// ` at /options/yara_rule`.
    fn place(&self, body: &[u8]) -> String {
        let text = std::str::from_utf8(body).unwrap_or_default();
        let mut found = String::new();
        if let Ok(json) = Json::parse_body(text) {
            json.each(&mut String::new(), &mut |place, value| {
                let text = value.as_str().unwrap_or_default();
                if found.is_empty() && self.policy.has_secret(text.as_bytes()) {
                    found = format!(" at {}", self.policy.mask(place));
                }
            });
        }
        found
    }

    /// Returns whether a sample contains one of this session's secrets or cannot be read. Searches in
    /// parts, because a sample may be large.
    fn holds_secret(&self, sample: &mut Reply) -> bool {
        let search = |body: &mut dyn Read| {
            let mut window = Vec::new();
            while body.take(WINDOW as u64).read_to_end(&mut window)? > 0 {
                if self.policy.has_secret(&window) {
                    return Ok(true);
                }
                window.drain(..window.len().saturating_sub(OVERLAP));
            }
            Ok(false)
        };
        sample.read(search).unwrap_or(true)
    }

    /// Returns the id of the interaction for a request, such as `hunt` or `hunt.poll`.
    fn name(&self, uri: &Uri) -> String {
        let is_version = |part: &str| {
            let number = part.strip_prefix('v').map(str::parse::<u32>);
            matches!(number, Some(Ok(_)))
        };
        let mut parts = below_base(uri.path()).rsplit('/');
        let last = parts.find(|part| !part.is_empty() && !is_version(part));
        let last = last.unwrap_or("request").chars().take(60);
        let clean = |c: char| match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' | '.' => c,
            _ => '-',
        };
        let name: String = last.map(clean).collect();
        let mut ids = job_ids(uri).filter(|_| name == "requests");
        let job = ids.find_map(|id| self.jobs.get(&id));
        job.map_or_else(|| name.clone(), |job| format!("{job}.poll"))
    }
}

pub(crate) fn request(policy: &Policy, sent: &Request<Vec<u8>>) -> file::Request {
    let headers = policy.request_headers(sent.headers());
    let is_form = headers
        .iter()
        .any(|(name, value)| name == "content-type" && value.contains("x-www-form"));
    let is_hidden = is_for_tokens(sent.uri().path());
    let bytes = sent.body();
    let text = std::str::from_utf8(bytes);
    let json = || Some(Json::parse_body(text.ok()?).ok()?.to_string());
    let mut body = file::Body::default();
    if let (true, Ok(form)) = (is_form, text) {
        let pairs = form_urlencoded::parse(form.as_bytes()).into_owned();
        let kept = |(name, value)| match is_hidden {
            true => (name, "[redacted]".into()),
            false => (name, value),
        };
        body.form = Some(pairs.map(kept).collect());
    } else if is_hidden {
        let length = bytes.len() as u64;
        body.text = Some(policy::size_and_type(length, sent.headers()));
    } else if let Some(json) = json() {
        body.json = file::AnyJson::new(json);
    } else {
        body = text_or_base64(bytes);
    }
    file::Request {
        method: sent.method().to_string(),
        uri: policy.uri(sent.uri()),
        // Even an empty list has a meaning: the request had no authorization.
        headers: Some(headers),
        body: (!bytes.is_empty()).then_some(body),
    }
}

/// Returns the recorded form of a reply, without the bytes of a sample. `json` is the parsed body.
pub(crate) fn response(policy: &Policy, reply: &Reply, json: Option<&Json>) -> file::Response {
    let mut headers = policy.reply_headers(&reply.headers);
    // Records a duration, because an absolute time would be wrong in a replay.
    let head = ResponseHead {
        status: reply.status,
        headers: &reply.headers,
    };
    let wait = head.rate_limit().retry.map(|retry| match retry {
        RetryAfter::After(after) => u64::try_from(after.as_millis()).unwrap_or(u64::MAX),
        RetryAfter::At(time) => time.as_millis().saturating_sub(reply.at),
    });
    headers.extend(wait.map(|wait| ("retry-after".into(), wait.div_ceil(1000).to_string())));
    headers.sort();
    let length = reply.length;
    let text = match json {
        Some(json) => policy.reply(json).to_string(),
        None if length == 0 => String::new(),
        None => policy::size_and_type(length, &reply.headers),
    };
    // Some readers stop at the last bracket of the JSON.
    let is_whole = reply.end == End::Whole || reply.end == End::Left && json.is_some();
    let fault = (!is_whole).then_some(file::Truncation {
        truncate_after: text.len() as u64,
    });
    let mut body = file::Body::default();
    if json.is_some() {
        body.json = file::AnyJson::new(text);
    } else {
        body.text = Some(text);
    }
    file::Response {
        status: reply.status.as_u16(),
        headers: (!headers.is_empty()).then_some(headers),
        body: (length > 0).then_some(body),
        fault,
    }
}

/// Returns whether a body was kept and is the requested sample or an archive.
fn is_sample(uri: &Uri, reply: &mut Reply) -> bool {
    let path = below_base(uri.path());
    let query = uri.query().unwrap_or_default().to_ascii_lowercase();
    let [is_download, is_archive] = SAMPLE_PATHS.map(|start| path.starts_with(start));
    reply.is_kept
        && (is_download && query.contains(&reply.sha256()) || is_archive && reply.is_zip())
}

/// Returns a body as text if an editor can show it, otherwise as base64.
fn text_or_base64(bytes: &[u8]) -> file::Body {
    let mut body = file::Body::default();
    match std::str::from_utf8(bytes) {
        Ok(text) if is_plain(text) => body.text = Some(text.to_owned()),
        _ => {
            let encoded = STANDARD.encode(bytes);
            let lines = encoded.as_bytes().chunks(BASE64_LINE);
            let lines = lines.map(|line| String::from_utf8_lossy(line).into_owned());
            body.base64 = Some(lines.collect());
            (body.len, body.sha256) = (Some(bytes.len() as u64), Some(digest::sha256(bytes)));
        }
    }
    body
}
