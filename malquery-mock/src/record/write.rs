//! Makes a cassette of what was recorded.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Method, Uri, header};
use malquery_proto::needles::Needles;
use malquery_proto::reply::{ResponseHead, RetryAfter};
use url::form_urlencoded;

use super::log::{Content, End, Exchange, Log, Outcome};
use super::policy::{self, Policy, read_json};
use crate::cassette::file;
use crate::cassette::load;
use crate::cassette::matching::{below_base, is_for_tokens};
use crate::cassette::save::{Staging, document};
use crate::digest;
use crate::json::Json;

/// Longer bodies of replies go to files of their own.
const MAX_INLINE: u64 = 64 * 1024;
/// Longer bodies are not read as JSON.
const MAX_JSON: u64 = 256 * 1024 * 1024;
/// Characters of base64 on a line.
const BASE64_LINE: usize = 76;
/// How much of a sample is searched at once, and how much of it again with the next part.
const WINDOW: usize = 1024 * 1024;
const OVERLAP: usize = 16 * 1024;

/// What is recorded, and where it is to be written.
pub(crate) struct Recording {
    pub(crate) path: PathBuf,
    pub(crate) log: Log,
    /// The interactions of the file stay.
    pub(crate) appends: bool,
    pub(crate) also: Vec<String>,
    pub(crate) secrets: Needles,
    /// The text of the cassette when the session began, or to which it was added.
    pub(crate) base: Option<String>,
    /// The text that was written last.
    pub(crate) written: Option<String>,
}

/// What the person should know.
pub(crate) type Notes = Vec<String>;

impl Recording {
    /// Whether an exchange may have been billed.
    pub(crate) fn is_paid(&self) -> bool {
        self.log.lock().exchanges.iter().any(|exchange| {
            let path = below_base(exchange.uri.path());
            let is_job = exchange.method == Method::POST && path.starts_with("/malquery/");
            is_job || path.starts_with("/malquery/entities/download-files/")
        })
    }

    /// Writes the exchanges that are over, or `all` that came so far. Without `rest`, one that is
    /// refused refuses the file.
    pub(crate) fn save(&mut self, to: &Path, all: bool, rest: bool) -> Result<Notes, String> {
        let mut state = self.log.lock();
        let is_done = |exchange: &Exchange| {
            let is_pending = matches!(exchange.outcome, Outcome::Pending);
            exchange.is_over() || all && !is_pending
        };
        if !state
            .exchanges
            .iter()
            .any(|one| one.is_written && is_done(one))
        {
            return Ok(Notes::new());
        }
        let mut staging = Staging::open(to)?;
        let former = staging.former();
        let base = match &former {
            _ if to != self.path => None,
            // This session wrote it, and now there is more.
            Some(_) if former == self.written => self.base.clone(),
            _ if self.appends && self.written.is_none() => former.clone(),
            _ if former == self.base => former.clone(),
            _ => {
                return Err(
                    "another session has written it since this one began; save this one \
                            to another path"
                        .into(),
                );
            }
        };
        let kept = base.as_deref().filter(|_| self.appends).unwrap_or_default();
        let kept = kept.strip_prefix('\u{feff}').unwrap_or(kept);
        let outline = load::outline("", kept).ok();

        let mut policy = Policy::new(&self.also, &self.secrets, kept);
        state
            .exchanges
            .iter_mut()
            .for_each(|exchange| see(&mut policy, exchange));
        let mut writer = Writer {
            policy: &policy,
            staging: &mut staging,
            jobs: HashMap::new(),
            notes: vec![],
        };
        let (mut interactions, mut refused): (Vec<(String, u32)>, _) = (Vec::new(), Vec::new());
        let redaction = outline
            .as_ref()
            .and_then(|outline| outline.redaction.clone());
        for part in outline
            .map(|outline| outline.interactions)
            .unwrap_or_default()
        {
            if policy.has_secret(part.get().as_bytes()) {
                refused.push("what is in the file already holds a secret of this session".into());
            }
            interactions.push((part.get().to_owned(), 1));
        }
        let kept = interactions.len();
        for exchange in state.exchanges.iter_mut().filter(|one| one.is_written) {
            if !is_done(exchange) {
                let note = "was under way when the recording was saved";
                writer.notes.push(format!(
                    "{} {note}, and is not in it",
                    writer.shown(exchange)
                ));
                continue;
            }
            match writer.text(exchange) {
                Err(why) => refused.push(format!("{} {why}", writer.shown(exchange))),
                Ok(text) => match interactions[kept..].last_mut() {
                    Some((last, times)) if *last == text => *times += 1,
                    _ => interactions.push((text, 1)),
                },
            }
        }
        let mut notes = std::mem::take(&mut writer.notes);
        if !rest && !refused.is_empty() {
            let why = refused.join("; ");
            return Err(format!(
                "{why}. Nothing was written, and nothing is lost: save the rest"
            ));
        }
        for (text, times) in &mut interactions[kept..] {
            let mut json = Json::parse(text)?;
            if let (Json::Object(members), 2..) = (&mut json, *times) {
                members.push(("times".into(), Json::Number(times.to_string().into())));
            }
            *text = json.layout(4);
        }
        let all: Vec<_> = interactions.into_iter().map(|(text, _)| text).collect();
        let text = document(redaction.as_deref().unwrap_or(file::REDACTION), &all);
        staging.commit(&text)?;
        if to == self.path {
            self.base = base;
            self.written = Some(text);
        }
        notes.extend(
            refused
                .into_iter()
                .map(|why| format!("{why}, and is not in the recording")),
        );
        Ok(notes)
    }
}

/// Lets the policy know what is in an exchange.
pub(crate) fn see(policy: &mut Policy, exchange: &mut Exchange) {
    let Exchange {
        uri, headers, body, ..
    } = exchange;
    policy.see_request(uri, headers, body);
    if let Outcome::Reply { body, .. } = &mut exchange.outcome
        && let Some(json) = read(body)
    {
        policy.see_reply(uri.path(), &json);
    }
}

pub(crate) fn read(body: &mut Content) -> Option<Json> {
    // A sample may be large, and is not read into memory.
    let is_zip = body.length > MAX_JSON || body.starts_with(b"PK").unwrap_or(true);
    if is_zip {
        None
    } else {
        read_json(&body.bytes().ok()?)
    }
}

struct Writer<'a> {
    policy: &'a Policy,
    staging: &'a mut Staging,
    /// The name of the operation that began a job.
    jobs: HashMap<String, String>,
    notes: Notes,
}

impl Writer<'_> {
    /// An exchange for messages.
    fn shown(&self, exchange: &Exchange) -> String {
        let line = format!("{} {}", exchange.method, below_base(exchange.uri.path()));
        self.policy.mask(&line).into_owned()
    }

    /// The text of an exchange in the file.
    fn text(&mut self, exchange: &mut Exchange) -> Result<String, String> {
        let request = request(self.policy, exchange);
        if let Some(place) = self.secret_place(exchange, &request) {
            return Err(format!(
                "holds a secret of this session in {place}, and what is sent is not changed"
            ));
        }
        let (mut response, mut error) = (None, None);
        let id = self.name(exchange);
        match &mut exchange.outcome {
            Outcome::Failed {
                fault: Some(kind), ..
            } => error = Some(file::Failure { kind: *kind }),
            Outcome::Failed { message, .. } => {
                let message = self.policy.text(message);
                return Err(format!(
                    "failed in a way that a cassette cannot play: {message}"
                ));
            }
            Outcome::Pending => return Err("has no reply".into()),
            Outcome::Reply { status, .. } if status.is_informational() => {
                return Err(format!("has the status {status}, which no reply has"));
            }
            Outcome::Reply { body, .. } => {
                if !body.is_kept() {
                    self.notes
                        .push(format!("the body of {id} could not be kept"));
                }
                let json = read(body);
                let job = json
                    .as_ref()
                    .and_then(|json| json.get("meta")?.get("reqid")?.as_str());
                if let (Some(job), &Method::POST) = (job, &exchange.method) {
                    self.jobs.insert(job.to_owned(), id.clone());
                }
                let mut reply = self::response(self.policy, exchange, json.as_ref());
                self.bodies(&id, exchange, &mut reply)?;
                response = Some(reply);
            }
        }
        let (times, repeat_last) = (None, None);
        let one = file::Interaction {
            id,
            request,
            response,
            error,
            times,
            repeat_last,
        };
        let text = serde_json::to_string(&one).map_err(|error| error.to_string())?;
        if self.policy.has_secret(text.as_bytes()) {
            return Err("holds a secret of this session where it is not replaced".into());
        }
        Ok(text)
    }

    /// Where the program itself sends a secret.
    fn secret_place(&self, exchange: &Exchange, request: &file::Request) -> Option<String> {
        let has = |text: &str| self.policy.has_secret(text.as_bytes());
        let (path, query) = request.uri.split_once('?').unwrap_or((&request.uri, ""));
        let mut headers = request.headers.iter().flatten();
        let json = request
            .body
            .as_ref()
            .and_then(|body| Json::parse_body(body.json.as_ref()?.get()).ok());
        let place = json.and_then(|json| self.policy.secret_place(&json));
        match () {
            () if has(path) => Some("its path".into()),
            () if has(query) => Some("its query".into()),
            () if place.is_some() => place.map(|place| format!("its body, at /{place}")),
            () if self.policy.has_secret(&exchange.body) => Some("its body".into()),
            () => headers
                .find(|(_, value)| has(value))
                .map(|(name, _)| format!("its header {name}")),
        }
    }

    /// Keeps a sample as it came, and puts a long body into a file of its own.
    fn bodies(
        &mut self,
        id: &str,
        exchange: &mut Exchange,
        reply: &mut file::Response,
    ) -> Result<(), String> {
        let uri = exchange.uri.clone();
        let Outcome::Reply {
            status,
            headers,
            body,
            end,
            ..
        } = &mut exchange.outcome
        else {
            return Ok(());
        };
        let unread = |error: io::Error| format!("has a body that could not be read again: {error}");
        let mut written = file::Body::default();
        if *end == End::Whole && status.is_success() && is_sample(&uri, body) {
            if self.holds_secret(body) {
                self.notes.push(format!(
                    "a sample of {id} holds a secret of this session, and is not recorded"
                ));
                return Ok(());
            }
            self.staging.is_private = true;
            let length = headers
                .get(header::CONTENT_LENGTH)
                .and_then(|value| value.to_str().ok());
            let kept = reply.headers.get_or_insert_default();
            kept.extend(length.map(|length| ("content-length".into(), length.to_owned())));
            kept.sort();
            if body.length <= MAX_INLINE {
                let bytes = body.bytes().map_err(unread)?;
                match std::str::from_utf8(&bytes) {
                    Ok(text) if is_plain(text) => written.text = Some(text.to_owned()),
                    _ => base64(&bytes, &mut written),
                }
            } else {
                let extension = if body.starts_with(b"PK").map_err(unread)? {
                    "zip"
                } else {
                    "bin"
                };
                let name = format!("{id}-{}.{extension}", &body.sha256()[..8]);
                (written.len, written.sha256) = (Some(body.length), Some(body.sha256()));
                let copy = |file: &mut File| body.read(|kept| io::copy(kept, file).map(drop));
                written.file = Some(self.staging.body(&name, copy)?);
            }
        } else {
            let json = reply.body.as_ref().and_then(|body| body.json.as_ref());
            let Some(bytes) = json
                .map(|json| json.get().as_bytes())
                .filter(|it| it.len() as u64 > MAX_INLINE)
            else {
                return Ok(());
            };
            if self.policy.has_secret(bytes) {
                return Err("holds a secret of this session where it is not replaced".into());
            }
            let sha256 = digest::sha256(bytes);
            let name = format!("{id}-{}.json", &sha256[..8]);
            written.file = Some(self.staging.body(&name, |file| file.write_all(bytes))?);
            (written.len, written.sha256) = (Some(bytes.len() as u64), Some(sha256));
        }
        reply.body = Some(written);
        Ok(())
    }

    /// Whether a sample holds a secret of this session. It is searched part by part, since it may
    /// be large.
    fn holds_secret(&self, body: &mut Content) -> bool {
        let search = |kept: &mut dyn Read| {
            let mut window = Vec::new();
            while kept.take(WINDOW as u64).read_to_end(&mut window)? > 0 {
                if self.policy.has_secret(&window) {
                    return Ok(true);
                }
                window.drain(..window.len().saturating_sub(OVERLAP));
            }
            Ok(false)
        };
        // A sample that cannot be read is not written either.
        body.read(search).unwrap_or(true)
    }

    /// A name for messages and overlays: the operation, and of polls also what is polled.
    fn name(&self, exchange: &Exchange) -> String {
        let is_version = |part: &str| {
            part.strip_prefix('v')
                .is_some_and(|rest| rest.parse::<u32>().is_ok())
        };
        let mut parts = below_base(exchange.uri.path()).split('/').rev();
        let last = parts
            .find(|part| !part.is_empty() && !is_version(part))
            .unwrap_or("request");
        let clean = |c: char| {
            if c.is_ascii_alphanumeric() || "-_.".contains(c) {
                c
            } else {
                '-'
            }
        };
        let name: String = last.chars().map(clean).take(60).collect();
        let mut ids = policy::job_ids(&exchange.uri).filter(|_| name == "requests");
        let job = ids.find_map(|id| self.jobs.get(&id));
        job.map_or_else(|| name.clone(), |job| format!("{job}.poll"))
    }
}

/// A request as it is written.
pub(crate) fn request(policy: &Policy, exchange: &Exchange) -> file::Request {
    let Exchange {
        method,
        uri,
        headers,
        body,
        ..
    } = exchange;
    let headers = policy.request_headers(headers);
    let is_form = headers
        .iter()
        .any(|(name, value)| name == "content-type" && value.contains("x-www-form"));
    let text = std::str::from_utf8(body).ok();
    let json = text
        .filter(|_| !is_form)
        .and_then(|text| Json::parse_body(text).ok());
    let mut written = file::Body::default();
    let is_hidden = is_for_tokens(uri.path());
    match (text, json) {
        (Some(form), _) if is_form => {
            let pairs = form_urlencoded::parse(form.as_bytes()).into_owned();
            let value = |value| {
                if is_hidden {
                    "[redacted]".into()
                } else {
                    value
                }
            };
            written.form = Some(pairs.map(|(name, it)| (name, value(it))).collect());
        }
        _ if is_hidden => {
            let text = policy::size_and_type(body.len() as u64, &exchange.headers);
            written.text = Some(text);
        }
        (_, Some(json)) => written.json = file::AnyJson::new(json.to_string()),
        (Some(text), _) if is_plain(text) => written.text = Some(text.to_owned()),
        _ => base64(body, &mut written),
    }
    file::Request {
        method: method.to_string(),
        uri: policy.uri(uri),
        // Also an empty list says something: that there was no authorization.
        headers: Some(headers),
        body: (!body.is_empty()).then_some(written),
    }
}

/// A reply as it is written, unless it is a sample. `json` is its body, if it is JSON.
pub(crate) fn response(
    policy: &Policy,
    exchange: &Exchange,
    json: Option<&Json>,
) -> file::Response {
    let mut reply = file::Response {
        status: 0,
        headers: None,
        body: None,
        fault: None,
    };
    let Outcome::Reply {
        status,
        headers,
        body,
        end,
        at,
    } = &exchange.outcome
    else {
        return reply;
    };
    let mut kept = policy.reply_headers(headers);
    // A time on the clock of that day would be far in the past, or in the future of a virtual
    // clock.
    let head = ResponseHead {
        status: *status,
        headers,
    };
    let wait = head.rate_limit().retry.map(|retry| match retry {
        RetryAfter::After(after) => u64::try_from(after.as_millis()).unwrap_or(u64::MAX),
        RetryAfter::At(time) => time.as_millis().saturating_sub(*at),
    });
    kept.extend(wait.map(|wait| ("retry-after".into(), wait.div_ceil(1000).to_string())));
    kept.sort();
    let mut written = file::Body::default();
    let length = match json.map(|json| policy.reply(json)) {
        Some(json) => {
            written.json = file::AnyJson::new(json.to_string());
            json.to_string().len()
        }
        None => {
            let text = written
                .text
                .insert(policy::size_and_type(body.length, headers));
            if body.length == 0 { 0 } else { text.len() }
        }
    };
    // Some read JSON to its last bracket and no further.
    let is_whole = *end == End::Whole || *end == End::Left && json.is_some();
    reply.status = status.as_u16();
    reply.headers = (!kept.is_empty()).then_some(kept);
    reply.body = (body.length > 0).then_some(written);
    reply.fault = (!is_whole).then_some(file::Truncation {
        truncate_after: length as u64,
    });
    reply
}

/// Whether a body is the sample that was asked for, or an archive.
fn is_sample(uri: &Uri, body: &mut Content) -> bool {
    let path = below_base(uri.path());
    let is_asked_for = |query: &str| query.to_ascii_lowercase().contains(&body.sha256());
    body.is_kept()
        && (path.starts_with("/malquery/entities/download-files/")
            && uri.query().is_some_and(is_asked_for)
            || path.starts_with("/malquery/entities/samples-fetch/")
                && body.starts_with(b"PK").unwrap_or(false))
}

fn base64(bytes: &[u8], written: &mut file::Body) {
    let encoded = STANDARD.encode(bytes);
    let lines = encoded.as_bytes().chunks(BASE64_LINE);
    let lines = lines.map(|line| String::from_utf8_lossy(line).into_owned());
    written.base64 = Some(lines.collect());
    (written.len, written.sha256) = (Some(bytes.len() as u64), Some(digest::sha256(bytes)));
}

/// Whether a text can be read in an editor.
fn is_plain(text: &str) -> bool {
    text.chars()
        .all(|c| !c.is_control() || matches!(c, '\n' | '\r' | '\t'))
}
