//! A recording as a file.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use std::slice;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Method, StatusCode, Uri, header};
use malquery_proto::reply::{ResponseHead, RetryAfter};
use url::form_urlencoded;

use crate::cassette::Cassette;
use crate::digest;
use crate::json::{Json, Value};
use crate::matching;
use crate::record::{End, Exchange, Outcome};
use crate::redact::{self, Content, Leak, Redaction, Side};
use crate::reply::Fault;

/// Larger bodies of replies go to files of their own.
const MAX_INLINE: usize = 64 * 1024;
/// Characters of base64 on a line.
const BASE64_LINE: usize = 76;

const REQUEST_HEADERS: [&str; 2] = ["accept", "content-type"];
const REPLY_HEADERS: [&str; 5] = [
    "content-disposition",
    "content-type",
    "location",
    "x-cs-region",
    "x-cs-traceid",
];
const TRACE_ID: &str = "x-cs-traceid";

/// How gzip and zstd begin.
const COMPRESSED: [&[u8]; 2] = [b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"];

const INTERACTIONS: &str = "\"interactions\":";

/// The text of a cassette when it was read, or `None` if there was no file.
pub(crate) type Before = Option<String>;

/// A cassette and the files beside it, not yet written.
pub(crate) struct Recording {
    path: PathBuf,
    text: String,
    /// What the file was when the session began.
    before: Before,
    /// Their names below the folder of the cassette.
    files: Vec<(String, Vec<u8>)>,
    /// Raw malware is for its owner alone.
    holds_samples: bool,
    /// What the person should know of.
    pub(crate) notes: Vec<String>,
}

/// An exchange as it is written.
struct Written {
    id: String,
    json: Json,
    /// The same without what is different each time.
    same: String,
    times: u32,
    files: Vec<(String, Vec<u8>)>,
    /// Bytes that stand in the file as base64.
    hidden: Vec<Vec<u8>>,
}

impl Recording {
    /// Makes a cassette of what was recorded, after those interactions that are to stay.
    ///
    /// # Errors
    /// Says why there can be none.
    pub(crate) fn new(
        path: &Path,
        exchanges: Vec<Exchange>,
        kept: &[Json],
        before: Before,
    ) -> Result<Self, String> {
        let folder = body_folder(path)?;
        let mut notes = Vec::new();
        let mut redaction = Redaction::default();
        let read: Vec<_> = exchanges
            .into_iter()
            .map(|exchange| Read::new(exchange, &mut redaction))
            .collect();
        let kept_text = Json::array(kept.iter().cloned()).to_string();
        redaction.assign(&kept_text);

        let mut jobs = HashMap::new();
        let mut all: Vec<Written> = Vec::new();
        for exchange in read {
            let Some(next) = exchange.write(&redaction, &folder, &mut jobs, &mut notes)? else {
                continue;
            };
            match all.last_mut() {
                Some(last) if last.id == next.id && last.same == next.same => last.times += 1,
                _ => all.push(next),
            }
        }

        let leak = |id: &str, leak: Leak| {
            if !leak.is_found {
                return format!(
                    "in {} there is a {}, so there may be a secret in it. Nothing was written",
                    shown(&redaction, id),
                    leak.what
                );
            }
            format!(
                "in {} there would be a secret in a place where it cannot be replaced: the {} of this recording. \
                 Nothing was written. If it is a dummy that is a part of other texts, take an unusual one",
                shown(&redaction, id),
                leak.what
            )
        };
        for json in kept {
            let id = json.get("id").and_then(Json::as_str).unwrap_or_default();
            scan(&redaction, json).map_err(|found| leak(id, found))?;
            for name in files_of(slice::from_ref(json)) {
                let bytes = fs::read(path.with_file_name(&name))
                    .map_err(|error| format!("{name}: {error}"))?;
                scan_body(&redaction, json, &bytes).map_err(|found| leak(&name, found))?;
            }
        }
        let mut interactions = kept.to_vec();
        let mut files = Vec::new();
        for mut written in all {
            if written.times > 1
                && let Value::Object(members) = &mut written.json.value
            {
                members.push(("times".into(), Json::number(written.times)));
            }
            scan(&redaction, &written.json).map_err(|found| leak(&written.id, found))?;
            let beside = written.files.iter().map(|(_, bytes)| bytes);
            for bytes in written.hidden.iter().chain(beside) {
                scan_body(&redaction, &written.json, bytes)
                    .map_err(|found| leak(&written.id, found))?;
            }
            interactions.push(written.json);
            files.extend(written.files);
        }
        let holds_samples = interactions.iter().any(is_sample);
        let text = document(&interactions);
        // What stands before them is of this crate.
        let (_, recorded) = text.split_once(INTERACTIONS).unwrap_or(("", &text));
        redaction
            .scan_layout(recorded.as_bytes())
            .map_err(|found| leak("the file", found))?;
        Ok(Self {
            path: path.into(),
            text,
            before,
            files,
            holds_samples,
            notes,
        })
    }

    /// Writes it, whole or not at all, unless it is there already.
    ///
    /// # Errors
    /// When it cannot be written, or is not what was added to. The former cassette is as it was.
    pub(crate) fn save(&self) -> Result<(), String> {
        let fail = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        fs::create_dir_all(folder).map_err(|error| fail(folder, error))?;
        // So that of two processes that append in the same instant one is told. Not every system can lock a folder.
        let lock = File::open(folder).and_then(|folder| folder.lock().map(|()| folder));
        let result = self.save_in(folder);
        drop(lock);
        result
    }

    fn save_in(&self, folder: &Path) -> Result<(), String> {
        let fail = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
        let former = fs::read_to_string(&self.path).ok();
        if self.before != former {
            return Err("another session has written it since this one began; record or append again, one after the other, or \
                        give each a cassette of its own"
                .into());
        }
        let unchanged =
            |name: &str, bytes: &[u8]| fs::read(folder.join(name)).is_ok_and(|old| old == bytes);
        if former.as_deref() == Some(&self.text)
            && self
                .files
                .iter()
                .all(|(name, bytes)| unchanged(name, bytes))
        {
            return Ok(());
        }
        let mut made = Vec::new();
        let result = (|| {
            for (name, bytes) in self
                .files
                .iter()
                .filter(|(name, bytes)| !unchanged(name, bytes))
            {
                let path = folder.join(name);
                let parent = path.parent().unwrap_or(folder);
                fs::create_dir_all(parent).map_err(|error| fail(parent, error))?;
                made.push(path.clone());
                staged(parent, bytes, self.holds_samples)
                    .and_then(|file| file.persist(&path).map_err(|error| error.error))
                    .map_err(|error| fail(&path, error))?;
            }
            // A cassette that could not be read again would be of no use, and the former one might be.
            let probe = staged(folder, self.text.as_bytes(), self.holds_samples)
                .map_err(|error| fail(&self.path, error))?;
            Cassette::load(probe.path()).map_err(|error| {
                format!(
                    "{}: what was recorded is not a cassette: {error}",
                    self.path.display()
                )
            })?;
            probe
                .persist(&self.path)
                .map_err(|error| fail(&self.path, error.error))?;
            Ok(())
        })();
        if result.is_err() {
            for path in made {
                // They are of no use alone, and it is told what went wrong.
                let _ = fs::remove_file(path);
            }
            remove_empty(folder, &self.path);
            return result;
        }
        self.remove_orphans(folder, &former.unwrap_or_default());
        Ok(())
    }

    /// Removes the files of the former version that this one does not name.
    fn remove_orphans(&self, folder: &Path, former: &str) {
        let Ok(own) = body_folder(&self.path) else {
            return;
        };
        let is_own = |file: &&String| {
            file.strip_prefix(&own)
                .is_some_and(|rest| rest.starts_with('/'))
        };
        let named = files_of(&interactions(&self.text));
        for name in files_of(&interactions(former))
            .difference(&named)
            .filter(is_own)
        {
            // It does no harm where it cannot be removed.
            let _ = fs::remove_file(folder.join(name));
        }
        remove_empty(folder, &self.path);
    }
}

/// Removes the folder for bodies, if there is nothing in it.
fn remove_empty(folder: &Path, cassette: &Path) {
    if let Ok(bodies) = body_folder(cassette) {
        // Else it is used, or not there.
        let _ = fs::remove_dir(folder.join(bodies));
    }
}

/// Looks for what must not be in an interaction. Only a sample is as it is; what stands around it is of the service.
fn scan(redaction: &Redaction, interaction: &Json) -> Result<(), Leak> {
    if is_sample(interaction) {
        let headers = interaction
            .get("response")
            .and_then(|response| response.get("headers"));
        for json in interaction.get("request").into_iter().chain(headers) {
            redaction.scan(json.to_string().as_bytes())?;
        }
    }
    scan_body(redaction, interaction, interaction.to_string().as_bytes())
}

/// The same for a body of it that stands elsewhere, or as base64.
fn scan_body(redaction: &Redaction, interaction: &Json, bytes: &[u8]) -> Result<(), Leak> {
    if is_sample(interaction) {
        redaction.scan_sample(bytes)
    } else {
        redaction.scan(bytes)
    }
}

/// Whether an interaction, just recorded or read again, has a sample.
fn is_sample(interaction: &Json) -> bool {
    let uri = interaction
        .get("request")
        .and_then(|request| request.get("uri"))
        .and_then(Json::as_str);
    let reply = interaction.get("response");
    let status = match reply
        .and_then(|reply| reply.get("status"))
        .map(|status| &status.value)
    {
        Some(Value::Number(digits)) => digits.parse().ok(),
        _ => None,
    };
    match (uri.and_then(|uri| uri.parse::<Uri>().ok()), status) {
        (Some(uri), Some(status)) => gives_samples(&uri, status),
        _ => false,
    }
}

/// Whether this reply is a sample or an archive, which is kept to the byte, whatever it says it is.
fn gives_samples(uri: &Uri, status: StatusCode) -> bool {
    let path = matching::below_base(uri.path());
    let samples = [
        "/malquery/entities/download-files/",
        "/malquery/entities/samples-fetch/",
    ];
    status.is_success() && samples.iter().any(|sample| path.starts_with(sample))
}

/// The interactions of a cassette that was read before, as they are written.
pub(crate) fn interactions(text: &str) -> Vec<Json> {
    let json = Json::parse(text).ok();
    match json
        .as_ref()
        .and_then(|json| json.get("interactions"))
        .map(|all| &all.value)
    {
        Some(Value::Array(interactions)) => interactions.clone(),
        _ => Vec::new(),
    }
}

/// Whether a cassette can be written there, found out before anything is sent.
pub(crate) fn check(path: &Path) -> io::Result<()> {
    // `Path` overlooks these two, and they would be found out when the file is renamed.
    let text = path.to_string_lossy();
    if path.is_dir() || ["/", "/."].iter().any(|end| text.ends_with(end)) {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if path.exists() && !path.is_file() {
        return Err(io::Error::other("what is there is no file"));
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let bodies = body_folder(path).map_err(io::Error::other)?;
    fs::create_dir_all(folder)?;
    let bodies = folder.join(bodies);
    let refuse = |why: &str| {
        let why = format!("{} {why}", bodies.display());
        Err(io::Error::new(io::ErrorKind::NotADirectory, why))
    };
    match fs::symlink_metadata(&bodies) {
        // It may be a link that leads nowhere.
        Ok(_) if !bodies.is_dir() => return refuse("is no folder"),
        // What lies elsewhere is not read as a part of the cassette.
        Ok(_) if !bodies.canonicalize()?.starts_with(folder.canonicalize()?) => {
            return refuse("leads out of the folder of the cassette");
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io::Error::new(
                error.kind(),
                format!("{}: {error}", bodies.display()),
            ));
        }
        _ => {}
    }
    staged(folder, b"", false).map(drop)
}

/// The text of a cassette with these interactions. Each has lines of its own, so that those to come change none.
fn document(interactions: &[Json]) -> String {
    let mut text = format!(
        "{{\n  \"version\": 1,\n  \"recorded_with\": \"malquery-mock {}\",\n  \"redaction\": \"falcon-1\",\n  {INTERACTIONS} [",
        env!("CARGO_PKG_VERSION")
    );
    for (index, interaction) in interactions.iter().enumerate() {
        text.push_str(if index == 0 { "\n    " } else { ",\n    " });
        interaction.layout(4, &mut text);
    }
    text.push_str("\n  ]\n}\n");
    text
}

/// A recorded exchange, with its bodies read once.
struct Read {
    exchange: Exchange,
    sent: Content,
    got: Content,
    /// The reply is a sample or an archive: it is kept to the byte, and any word may stand in it.
    exact: bool,
}

impl Read {
    fn new(exchange: Exchange, redaction: &mut Redaction) -> Self {
        let sent = Content::read(&exchange.headers, &exchange.body, Side::Request, false);
        match exchange.written {
            true => redaction.see_request(&exchange.uri, &exchange.headers, &sent),
            // The ids are those of the cassette that answered it.
            false => redaction.see_secrets(&exchange.uri, &exchange.headers, &sent),
        }
        let (mut got, mut exact) = (Content::Empty, false);
        if let Outcome::Reply {
            status,
            headers,
            body,
            ..
        } = &exchange.outcome
        {
            exact = gives_samples(&exchange.uri, *status);
            let side = Side::of_reply(exchange.uri.path(), *status);
            got = Content::read(headers, body, side, exact);
            redaction.see_reply(side, headers, &got);
        }
        Self {
            exchange,
            sent,
            got,
            exact,
        }
    }

    fn write(
        self,
        redaction: &Redaction,
        folder: &str,
        jobs: &mut HashMap<String, String>,
        notes: &mut Vec<String>,
    ) -> Result<Option<Written>, String> {
        let Self {
            exchange,
            sent,
            got,
            exact,
        } = self;
        let id = name(&exchange, &got, jobs, redaction);
        let shown = shown(redaction, &id);
        let mut written = Written {
            id: id.clone(),
            json: Value::Null.into(),
            same: String::new(),
            times: 1,
            files: vec![],
            hidden: vec![],
        };
        if redact::link_gives_secret(&redaction.uri(&exchange.uri)) {
            return Err("the path or the query of a request gives a value to the name of a secret, and only fields of a query \
                        can be replaced. Nothing was written"
                .into());
        }
        for content in [&sent, &got] {
            let names_secret = match content {
                _ if exact && std::ptr::eq(content, &got) => false,
                Content::Text(text) => redact::names_secret(text),
                Content::Bytes(bytes) => redact::bytes_name_secret(bytes),
                _ => false,
            };
            if names_secret {
                return Err(format!(
                    "a body of {shown} names a secret, and cannot be read as what it says it is, so the secret cannot \
                     be found. Nothing was written"
                ));
            }
        }
        let side = match &exchange.outcome {
            Outcome::Reply { status, .. } => Side::of_reply(exchange.uri.path(), *status),
            _ => Side::Reply,
        };
        if side == Side::TokenReply && !matches!(got, Content::Json(_) | Content::Empty) {
            return Err(format!(
                "the reply of {shown} may hold a token, and is no JSON, so the token cannot be found. Nothing was written"
            ));
        }
        let compressed = |headers: &HeaderMap| {
            headers
                .get_all(header::CONTENT_ENCODING)
                .iter()
                .any(|coding| coding != "identity")
        };
        let reply = match &exchange.outcome {
            Outcome::Reply { headers, .. } => Some(headers),
            _ => None,
        };
        let looks_compressed = |content: &Content| match content {
            Content::Bytes(bytes) => COMPRESSED.iter().any(|magic| bytes.starts_with(magic)),
            _ => false,
        };
        if compressed(&exchange.headers)
            || reply.is_some_and(compressed)
            || looks_compressed(&sent)
            || !exact && looks_compressed(&got)
        {
            return Err(format!(
                "a body of {shown} is compressed, and cannot be searched for secrets; record it around a transport \
                 that decodes it. Nothing was written"
            ));
        }
        if !exchange.written {
            return Ok(None);
        }
        let sent = redaction.content(sent, Side::Request);
        // A sample with other bytes would have another hash.
        let got = if exact {
            got
        } else {
            redaction.content(got, side)
        };
        if [&sent, &got].into_iter().any(redact::gives_secret) {
            return Err(format!(
                "a text in a body of {shown} gives a value to the name of a secret, and only fields of JSON and forms \
                 can be replaced. Nothing was written"
            ));
        }
        let mut headers = pairs(&exchange.headers, &REQUEST_HEADERS, |value| value);
        if let Some((name, _)) = headers
            .iter()
            .find(|(_, value)| redact::value_gives_secret(value))
        {
            return Err(format!(
                "the header {name} of {shown} gives a value to the name of a secret. Nothing was written"
            ));
        }
        if let Some(value) = exchange.headers.get(header::AUTHORIZATION) {
            let scheme = matching::scheme(value.as_bytes());
            let what = if scheme == "Bearer" {
                "access_token"
            } else {
                "credentials"
            };
            headers.push(("authorization".into(), format!("{scheme} [{what}]")));
            headers.sort();
        }
        let mut request = vec![
            ("method", Json::string(exchange.method.as_str())),
            ("uri", Json::string(redaction.uri(&exchange.uri))),
            // Also an empty list tells something: that there was no authorization.
            ("headers", json_pairs(headers)),
        ];
        if let Some(body) = written.body(sent, folder, true) {
            request.push(("body", body));
        }
        let request = Json::object(request);
        let request_text = request.to_string();
        let mut same = request_text.clone();
        let outcome = match exchange.outcome {
            Outcome::Pending => {
                notes.push(format!(
                    "{shown} was under way when the recording ended, and is not in it"
                ));
                return Ok(None);
            }
            Outcome::Failed {
                fault: None,
                message,
            } => {
                return Err(format!(
                    "{shown} failed in a way that a cassette cannot play: {}",
                    redaction.shown(&message)
                ));
            }
            Outcome::Failed {
                fault: Some(fault), ..
            } => {
                let name = Fault::NAMES
                    .iter()
                    .find(|(_, known)| *known == fault)
                    .map_or("eof", |(name, _)| name);
                same.push_str(name);
                ("error", Json::object([("kind", Json::string(name))]))
            }
            Outcome::Reply {
                status,
                headers,
                body,
                end,
                at,
            } => {
                // Some read JSON to its last bracket and no further.
                let whole =
                    end == End::Whole || end == End::Open && matches!(got, Content::Json(_));
                if let End::Broken(kind) = end
                    && kind != io::ErrorKind::UnexpectedEof
                {
                    notes.push(format!(
                        "the body of {shown} broke ({kind}); a cassette knows only a connection that is closed, and plays that"
                    ));
                }
                // Parts of samples are bytes of samples.
                let cut = match &got {
                    Content::Text(text) if !whole && !exact => redaction.scan_cut(text.as_bytes()),
                    Content::Bytes(bytes) if !whole && !exact => redaction.scan_cut(bytes),
                    _ => Ok(()),
                };
                if cut.is_err() {
                    return Err(format!(
                        "the body of {shown} was not read to its end, which is within a secret. Nothing was written"
                    ));
                }
                let changed = matches!(&got, Content::Text(text) if text.as_bytes() != body);
                let mut kept = reply_headers(redaction, status, &headers, at);
                if !matches!(got, Content::Json(_)) && !changed {
                    kept.extend(pairs(&headers, &["content-length"], |value| value));
                    kept.sort_by(|(a, _), (b, _)| a.cmp(b));
                }
                let header_gives_secret = |(name, value): &(String, String)| match name.as_str() {
                    "location" => redact::link_gives_secret(value),
                    _ => redact::value_gives_secret(value),
                };
                if let Some((name, _)) = kept.iter().find(|header| header_gives_secret(header)) {
                    return Err(format!(
                        "the header {name} of the reply of {shown} gives a value to the name of a secret. Nothing was written"
                    ));
                }
                let lasting = kept
                    .iter()
                    .filter(|(name, _)| name != TRACE_ID)
                    .cloned()
                    .collect();
                let mut reply = vec![("status", Json::number(status.as_u16()))];
                if !kept.is_empty() {
                    reply.push(("headers", json_pairs(kept)));
                }
                let length = match &got {
                    Content::Text(text) => text.len(),
                    Content::Json(json) => json.to_string().len(),
                    _ => body.len(),
                };
                let body = written.body(got, folder, false);
                same.push_str(&format!("{status}{}{whole}", json_pairs(lasting)));
                same.push_str(&body.as_ref().map(stable).unwrap_or_default());
                reply.extend(body.map(|body| ("body", body)));
                if !whole {
                    reply.push((
                        "fault",
                        Json::object([("truncate_after", Json::number(length))]),
                    ));
                }
                ("response", Json::object(reply))
            }
        };
        written.same = same;
        written.json = Json::object([("id", Json::string(id)), ("request", request), outcome]);
        // A sample may hold anything.
        let json = if exact {
            request_text
        } else {
            written.json.to_string()
        };
        let files = written
            .files
            .iter()
            .filter(|_| !exact)
            .map(|(_, bytes)| String::from_utf8_lossy(bytes));
        if std::iter::once(json.into())
            .chain(files)
            .any(|text| redact::has_jwt(&text))
        {
            return Err(format!(
                "in {shown} there is a token (a JWT) in a place where it cannot be replaced. Nothing was written"
            ));
        }
        Ok(Some(written))
    }
}

impl Written {
    fn body(&mut self, content: Content, folder: &str, request: bool) -> Option<Json> {
        let (bytes, extension) = match content {
            Content::Empty => return None,
            Content::Json(json) => {
                let text = json.to_string();
                // What is matched is there to be read.
                if request || text.len() <= MAX_INLINE {
                    return Some(Json::object([("json", json)]));
                }
                (text.into_bytes(), "json")
            }
            Content::Form(form) => return Some(Json::object([("form", json_pairs(form))])),
            Content::Text(text) if text.len() <= MAX_INLINE => {
                return Some(Json::object([("text", Json::string(text))]));
            }
            Content::Text(text) => (text.into_bytes(), "txt"),
            Content::Bytes(bytes) if bytes.starts_with(b"PK") => (bytes, "zip"),
            Content::Bytes(bytes) => (bytes, "bin"),
        };
        let sha256 = digest::sha256(&bytes);
        let checks = [
            ("len", Json::number(bytes.len())),
            ("sha256", Json::string(sha256.as_str())),
        ];
        let place = if bytes.len() > MAX_INLINE {
            // Named by what is in it, so that no version of a cassette meets the files of another.
            let name = format!("{folder}/{}-{}.{extension}", self.id, &sha256[..8]);
            self.files.push((name.clone(), bytes));
            ("file", Json::string(name))
        } else {
            let encoded = STANDARD.encode(&bytes);
            self.hidden.push(bytes);
            let lines = encoded
                .as_bytes()
                .chunks(BASE64_LINE)
                .map(|line| Json::string(String::from_utf8_lossy(line)));
            ("base64", Json::array(lines))
        };
        Some(Json::object([place].into_iter().chain(checks)))
    }
}

/// An id for messages. It comes from a path, and that may hold anything.
fn shown(redaction: &Redaction, id: &str) -> String {
    match redaction.scan(id.as_bytes()) {
        Ok(()) => crate::json::quote(id),
        Err(_) => "a request with a path of its own".into(),
    }
}

/// A name for messages and overlays: the operation, and for polls also what is polled.
fn name(
    exchange: &Exchange,
    got: &Content,
    jobs: &mut HashMap<String, String>,
    redaction: &Redaction,
) -> String {
    let path = exchange.uri.path();
    // Looked for in what is whole: a part of a secret, or one with other signs, would not be found in the name.
    let is_clean = redaction.scan(path.as_bytes()).is_ok();
    let path = if is_clean {
        matching::below_base(path)
    } else {
        ""
    };
    let is_version = |part: &str| {
        part.strip_prefix('v')
            .is_some_and(|rest| rest.parse::<u32>().is_ok())
    };
    let last = path
        .split('/')
        .rev()
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
    if exchange.method == Method::GET && name == "requests" {
        let query = exchange.uri.query().unwrap_or_default();
        let job =
            form_urlencoded::parse(query.as_bytes()).find_map(|(_, id)| jobs.get(&*id).cloned());
        return job.map_or(name, |job| format!("{job}.poll"));
    }
    if let Content::Json(json) = got
        && let Some(id) = json
            .get("meta")
            .and_then(|meta| meta.get("reqid"))
            .and_then(Json::as_str)
    {
        jobs.insert(id.to_owned(), name.clone());
    }
    name
}

fn reply_headers(
    redaction: &Redaction,
    status: StatusCode,
    headers: &HeaderMap,
    at: u64,
) -> Vec<(String, String)> {
    let mut kept = pairs(headers, &REPLY_HEADERS, |value| redaction.text(value));
    for (_, value) in kept.iter_mut().filter(|(name, _)| name == "location") {
        *value = redaction.location(value);
    }
    // A time on the clock of that day would be far in the past, or in the future of a virtual clock.
    let retry = ResponseHead { status, headers }.rate_limit().retry;
    let seconds = match retry {
        None => None,
        Some(RetryAfter::After(after)) => Some(after.as_millis().div_ceil(1000)),
        Some(RetryAfter::At(time)) => Some(u128::from(
            time.as_millis().saturating_sub(at).div_ceil(1000),
        )),
    };
    if let Some(seconds) = seconds {
        kept.push(("retry-after".into(), seconds.to_string()));
    }
    kept.sort_by(|(a, _), (b, _)| a.cmp(b));
    kept
}

/// The headers of an allow-list, in the order of their names.
fn pairs(
    headers: &HeaderMap,
    allowed: &[&str],
    value: impl Fn(String) -> String,
) -> Vec<(String, String)> {
    let mut kept = Vec::new();
    for name in allowed {
        for found in headers.get_all(*name) {
            if let (Ok(text), false) = (std::str::from_utf8(found.as_bytes()), found.is_sensitive())
            {
                kept.push(((*name).to_owned(), value(text.to_owned())));
            }
        }
    }
    kept
}

fn json_pairs(pairs: Vec<(String, String)>) -> Json {
    Json::array(
        pairs
            .into_iter()
            .map(|(name, value)| Json::array([Json::string(name), Json::string(value)])),
    )
}

/// The JSON without what is another in every reply, to tell equal polls.
fn stable(json: &Json) -> String {
    match &json.value {
        Value::Array(items) => format!(
            "[{}]",
            items.iter().map(stable).collect::<Vec<_>>().join(",")
        ),
        Value::Object(members) => {
            let lasting = members.iter().filter(|(key, _)| key != "trace_id");
            let members = lasting
                .map(|(key, value)| format!("{}:{}", crate::json::quote(key), stable(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
        _ => json.to_string(),
    }
}

/// The folder for bodies, beside the cassette and named after it.
fn body_folder(path: &Path) -> Result<String, String> {
    match path.file_name().and_then(|file| file.to_str()) {
        Some(file) => Ok(format!("{file}.bodies")),
        None => Err(format!("{} is no name for a cassette", path.display())),
    }
}

/// The files that interactions name, if there is no way out of the folder in it.
fn files_of(interactions: &[Json]) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    for interaction in interactions {
        for side in ["request", "response"] {
            let body = interaction.get(side).and_then(|side| side.get("body"));
            let file = body
                .and_then(|body| body.get("file"))
                .and_then(Json::as_str);
            let stays = |file: &&str| {
                Path::new(file)
                    .components()
                    .all(|part| matches!(part, Component::Normal(_)))
            };
            out.extend(file.filter(stays).map(str::to_owned));
        }
    }
    out
}

/// A file that gets its name when it is whole.
fn staged(folder: &Path, bytes: &[u8], is_private: bool) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".cassette-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // Less what the umask takes: it holds no secret, and belongs into the repository.
        builder.permissions(fs::Permissions::from_mode(if is_private {
            0o600
        } else {
            0o666
        }));
    }
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    Ok(file)
}
