//! Decides by its place what is written of an exchange. No other file decides what is secret.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Uri, header};
use malquery_proto::needles::Needles;
use url::form_urlencoded;

use crate::cassette::matching::{below_base, is_for_tokens, scheme};
use crate::json::{Json, quote};
use crate::pseudonym;

/// The places of a JSON reply whose values are kept: what becomes of them, the parent, and the
/// names. `*` is any item of a list. `keep` keeps a value, `text` a text without ids and long runs
/// that look like a token, `id` gives another id of the same shape, and `trace` zeros of the same
/// shape. Every other value keeps its type alone.
const PLACES: &str = "
    keep   -                              expires_in token_type
    keep   errors/*                       code type
    id     errors/*                       id
    text   errors/*                       message
    keep   meta                           powered_by status reqtype sample yara_rule
    id     meta                           reqid
    trace  meta                           trace_id
    keep   meta                           hunt_count hunt_limit download_count download_limit
    keep   meta                           monitor_count monitor_limit days_left refresh_time
    keep   meta/hunt_counts/*             counter
    id     meta/hunt_counts/*             userid
    keep   meta/download_counts/*         counter
    id     meta/download_counts/*         userid
    keep   meta/stats                     clean_count malware_count pua_count total_count
    keep   meta/stats                     unknown_count
    keep   meta/pagination                limit offset total
    keep   meta/options                   limit min_date max_date min_size max_size app
    keep   meta/options                   submitted_by_customer
    keep   meta/options/filter_filetypes  *
    keep   meta/options/filter_meta       *
    keep   meta/patterns/*                type value
    keep   resources/*                    sha256 sha1 md5 filesize filetype first_seen label family
    keep   resources/*                    ignore_reason label_confidence pattern pattern_type
    keep   resources/*                    yara_rule
    keep   resources/*/tags               *
    keep   resources/*/yara_rules         *
    keep   resources/*/samples/*          sha256 sha1 md5 filesize filetype first_seen label family
";

/// The headers of a request that are kept, and the scheme of `authorization`.
const REQUEST_HEADERS: [&str; 3] = ["accept", "accept-encoding", "content-type"];
/// The headers of a reply that are kept.
const REPLY_HEADERS: [&str; 4] = ["content-type", "location", "x-cs-region", "x-cs-traceid"];

/// The fields that hold a secret, in forms and replies of `/oauth2/`.
const CREDENTIALS: &str =
    "client_id client_secret member_cid token access_token refresh_token id_token";

/// A run of this many characters with a digit looks like a token.
const MIN_TOKEN: usize = 16;
/// The longest key that is the name of a field, and the most digits in it. Other keys are values.
const MAX_KEY: usize = 40;
const MAX_KEY_DIGITS: usize = 4;

/// The policy of a session: its secrets, its ids and the places it keeps.
#[derive(Clone, Default)]
pub(crate) struct Policy {
    secrets: Needles,
    /// The ids, to mask them in the texts of the service.
    ids: Needles,
    pseudonyms: HashMap<String, String>,
    numbered: u64,
    /// A cassette whose pseudonyms are not given again.
    taken: String,
    also: Vec<String>,
}

impl Policy {
    /// A policy that also keeps these places, and knows these secrets.
    pub(crate) fn new(also: &[String], secrets: &Needles, taken: &str) -> Self {
        Self {
            also: also.to_vec(),
            secrets: secrets.clone(),
            taken: taken.to_owned(),
            ..Self::default()
        }
    }

    /// Learns the secrets and ids of a request.
    pub(crate) fn see_request(&mut self, uri: &Uri, headers: &HeaderMap, body: &[u8]) {
        let authority = uri
            .authority()
            .map(|authority| authority.as_str())
            .unwrap_or_default();
        if let Some((user, _)) = authority.rsplit_once('@') {
            self.see_pair(user);
        }
        for (name, value) in headers {
            let text = String::from_utf8_lossy(value.as_bytes());
            if [header::AUTHORIZATION, header::PROXY_AUTHORIZATION].contains(name) {
                self.see_authorization(text.trim());
            } else if value.is_sensitive() {
                self.secrets.add(&text);
            }
        }
        if is_for_tokens(uri.path()) {
            for (name, value) in form_urlencoded::parse(body) {
                self.see_credential(&name, &value);
            }
        }
        for ids in job_ids(uri)
            .filter(|ids| !self.is_known(ids))
            .collect::<Vec<_>>()
        {
            for id in ids.split(',').filter(|id| pseudonym::is_id(id)) {
                self.ids.add(id);
                self.pseudonyms.insert(id.to_owned(), pseudonym::hashed(id));
            }
        }
    }

    /// Learns the secrets and ids of a reply.
    pub(crate) fn see_reply(&mut self, path: &str, json: &Json) {
        if let (true, Json::Object(members)) = (is_for_tokens(path), json) {
            for (name, value) in members {
                self.see_credential(name, value.as_str().unwrap_or_default());
            }
        }
        self.see_ids(json, &mut String::new());
    }

    fn see_ids(&mut self, json: &Json, place: &mut String) {
        if let (Json::String(id), Some("id")) = (json, self.rule(place))
            && !self.is_known(id)
            && !id.is_empty()
        {
            let mut pseudonym = id.clone();
            // The stand-in's client id looks like one, too.
            while pseudonym == *id
                || self.taken.contains(&pseudonym)
                || self.has_secret(pseudonym.as_bytes())
            {
                self.numbered += 1;
                pseudonym = pseudonym::numbered(id, self.numbered);
            }
            self.ids.add(id);
            self.pseudonyms.insert(id.clone(), pseudonym);
        }
        each_part(json, place, &mut |_, part, place| self.see_ids(part, place));
    }

    fn see_credential(&mut self, name: &str, value: &str) {
        if CREDENTIALS.split(' ').any(|known| known == name) {
            self.secrets.add(value);
        }
    }

    fn see_authorization(&mut self, value: &str) {
        let (first, rest) = value.split_once(char::is_whitespace).unwrap_or(("", value));
        self.secrets.add(rest.trim());
        if scheme(first.as_bytes()) == "other" {
            self.secrets.add(value);
        }
        if let Ok(pair) = STANDARD.decode(rest.trim()) {
            self.see_pair(&String::from_utf8_lossy(&pair));
        }
    }

    /// A user and a password.
    fn see_pair(&mut self, pair: &str) {
        let (user, password) = pair.split_once(':').unwrap_or((pair, ""));
        for part in [user, password] {
            self.secrets.add(part);
            let plain = part.replace('+', "%2B");
            for (decoded, _) in form_urlencoded::parse(plain.as_bytes()) {
                self.secrets.add(&decoded);
            }
        }
    }

    /// Whether one of the session's own secrets is in these bytes.
    pub(crate) fn has_secret(&self, bytes: &[u8]) -> bool {
        self.secrets.find_in(bytes).is_some()
    }

    /// Where one of the session's own secrets is in a document.
    pub(crate) fn secret_place(&self, json: &Json) -> Option<String> {
        let mut found = None;
        let mut pointer = String::new();
        self.find_secret(json, &mut pointer, &mut found);
        found
    }

    fn find_secret(&self, json: &Json, place: &mut String, found: &mut Option<String>) {
        let is_leaf = !matches!(json, Json::Array(_) | Json::Object(_));
        if is_leaf && self.has_secret(json.to_string().as_bytes()) {
            found.get_or_insert_with(|| self.mask(place).into_owned());
        }
        each_part(json, place, &mut |_, part, place| {
            self.find_secret(part, place, found)
        });
    }

    /// A text without the session's own secrets.
    pub(crate) fn mask<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.secrets.mask(text)
    }

    /// A text of others, also without ids and long runs that look like a token.
    pub(crate) fn text(&self, text: &str) -> String {
        let text = self.secrets.mask(text);
        let text = self.ids.mask(&text);
        let belongs = |c: char| c.is_ascii_alphanumeric() || "-_.~+/=%".contains(c);
        let (mut out, mut rest) = (String::with_capacity(text.len()), &*text);
        while !rest.is_empty() {
            let (run, behind) = rest.split_at(rest.find(|c| !belongs(c)).unwrap_or(rest.len()));
            let is_token = run.len() >= MIN_TOKEN && run.bytes().any(|byte| byte.is_ascii_digit());
            out.push_str(if is_token { "[redacted]" } else { run });
            let (between, next) = behind.split_at(behind.find(belongs).unwrap_or(behind.len()));
            out.push_str(between);
            rest = next;
        }
        out
    }

    /// A JSON reply as it is written.
    pub(crate) fn reply(&self, json: &Json) -> Json {
        self.at(json, &mut String::new())
    }

    fn at(&self, json: &Json, place: &mut String) -> Json {
        let rule = self.rule(place);
        match json {
            Json::Null => Json::Null,
            Json::Bool(value) => Json::Bool(*value && rule == Some("keep")),
            Json::Number(digits) => match rule {
                Some("keep" | "text") if !self.has_secret(digits.as_bytes()) => {
                    Json::Number(digits.clone())
                }
                _ => Json::Number("0".into()),
            },
            Json::String(text) => Json::String(match rule {
                _ if text.is_empty() => String::new(),
                Some("keep") => self.mask(text).into_owned(),
                Some("text") => self.text(text),
                Some("id") => self.pseudonym(text),
                Some("trace") => pseudonym::numbered(text, 0),
                _ => "[text]".into(),
            }),
            Json::Array(_) => {
                let mut items = Vec::new();
                each_part(json, place, &mut |_, item, place| {
                    items.push(self.at(item, place))
                });
                Json::Array(items)
            }
            Json::Object(_) => {
                let (mut members, mut known) = (Vec::new(), HashSet::new());
                each_part(json, place, &mut |key, value, place| {
                    let key = self.key(key, &mut known);
                    members.push((key, self.at(value, place)));
                });
                Json::Object(members)
            }
        }
    }

    /// What becomes of the value at a place.
    fn rule(&self, place: &str) -> Option<&'static str> {
        let (parent, name) = place.rsplit_once('/').unwrap_or(("-", place));
        let listed = |line: &'static str| {
            let mut words = line.split_ascii_whitespace();
            let (rule, of) = (words.next()?, words.next()?);
            (of == parent && words.any(|listed| listed == name)).then_some(rule)
        };
        let is_own = self.also.iter().any(|also| also == place);
        if is_own {
            Some("keep")
        } else {
            PLACES.lines().find_map(listed)
        }
    }

    /// A key, if it is the name of a field.
    fn key(&self, key: &str, known: &mut HashSet<String>) -> String {
        let belongs = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let digits = key.bytes().filter(u8::is_ascii_digit).count();
        let is_name = key.len() <= MAX_KEY
            && digits <= MAX_KEY_DIGITS
            && key.chars().all(belongs)
            && !key.starts_with(|c: char| c.is_ascii_digit());
        let mut name = key.to_owned();
        if !is_name || self.has_secret(key.as_bytes()) {
            name = "[key]".into();
        }
        let mut number = 1;
        while !known.insert(name.clone()) {
            number += 1;
            name = format!("[key_{number}]");
        }
        name
    }

    fn is_known(&self, ids: &str) -> bool {
        let mut all = [ids].into_iter().chain(ids.split(','));
        all.any(|id| self.pseudonyms.contains_key(id))
    }

    /// Returns what replaces an id, or several of them.
    fn pseudonym(&self, ids: &str) -> String {
        let one = |id| self.pseudonyms.get(id).map(String::as_str);
        let parts = || {
            ids.split(',')
                .map(|id| one(id).unwrap_or(id))
                .collect::<Vec<_>>()
                .join(",")
        };
        one(ids).map_or_else(parts, str::to_owned)
    }

    /// The URI as it is written: without a user, and with the pseudonyms of jobs.
    pub(crate) fn uri(&self, uri: &Uri) -> String {
        let mut out = String::new();
        if let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) {
            let host = authority.as_str().rsplit('@').next().unwrap_or_default();
            out = format!("{scheme}://{host}");
        }
        out.push_str(uri.path());
        if job_ids(uri).any(|ids| self.pseudonym(&ids) != ids) {
            let pairs = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
            let pairs = pairs.map(|(name, value)| match &*name {
                "ids" => (name, self.pseudonym(&value).into()),
                _ => (name, value),
            });
            let mut query = form_urlencoded::Serializer::new(String::new());
            out.push_str(&format!("?{}", query.extend_pairs(pairs).finish()));
        } else if let Some(query) = uri.query() {
            out.push_str(&format!("?{query}"));
        }
        out
    }

    /// The headers of a request that are written, in the order of their names.
    pub(crate) fn request_headers(&self, headers: &HeaderMap) -> Vec<(String, String)> {
        let mut kept = pairs(headers, &REQUEST_HEADERS);
        if let Some(value) = headers.get(header::AUTHORIZATION) {
            let scheme = scheme(value.as_bytes());
            kept.push(("authorization".into(), format!("{scheme} [redacted]")));
        }
        kept.sort();
        kept
    }

    /// The headers of a reply that are written, in the order of their names.
    pub(crate) fn reply_headers(&self, headers: &HeaderMap) -> Vec<(String, String)> {
        let kept = pairs(headers, &REPLY_HEADERS).into_iter();
        kept.map(|(name, value)| (name.clone(), self.header(&name, &value)))
            .collect()
    }

    fn header(&self, name: &str, value: &str) -> String {
        match name {
            "x-cs-traceid" => pseudonym::numbered(value, 0),
            "location" => self.mask(&origin(value)).into_owned(),
            _ => self.text(value),
        }
    }
}

/// The headers of these names. A marked or unreadable value is left out.
fn pairs(headers: &HeaderMap, names: &[&str]) -> Vec<(String, String)> {
    let mut kept = Vec::new();
    for name in names {
        for value in headers
            .get_all(*name)
            .iter()
            .filter(|value| !value.is_sensitive())
        {
            if let Ok(text) = value.to_str() {
                kept.push(((*name).to_owned(), text.to_owned()));
            }
        }
    }
    kept
}

/// The scheme and host of a link.
fn origin(link: &str) -> String {
    let uri: Uri = link.parse().unwrap_or_default();
    let host = uri
        .authority()
        .and_then(|authority| authority.as_str().rsplit('@').next());
    match (uri.scheme_str(), host) {
        (Some(scheme), Some(host)) => format!("{scheme}://{host}/"),
        _ => "/".into(),
    }
}

/// A content type without its parameters.
pub(crate) fn media_type(value: &str) -> String {
    let text = value
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let belongs = |c: char| c.is_ascii_alphanumeric() || "/+.-".contains(c);
    if text.chars().all(belongs) && text.len() <= MAX_KEY * 2 {
        text
    } else {
        String::new()
    }
}

/// Returns what replaces a body that is not kept.
pub(crate) fn size_and_type(length: u64, headers: &HeaderMap) -> String {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    match media_type(value.unwrap_or_default()) {
        kind if kind.is_empty() => format!("[{length} bytes]"),
        kind => format!("[{length} bytes of {kind}]"),
    }
}

/// The ids of jobs in a query.
pub(crate) fn job_ids(uri: &Uri) -> impl Iterator<Item = String> {
    let path = below_base(uri.path());
    let is_job = path.starts_with("/malquery/entities/requests/")
        || path.starts_with("/malquery/entities/samples-fetch/");
    let query = uri.query().filter(|_| is_job).unwrap_or_default();
    let ids = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "ids");
    ids.map(|(_, id)| id.into_owned())
}

/// Calls a function with the key, the value and the place of each part.
fn each_part(json: &Json, place: &mut String, f: &mut dyn FnMut(&str, &Json, &mut String)) {
    let length = place.len();
    let gap = if length == 0 { "" } else { "/" };
    let mut visit = |key: &str, name: &str, value: &Json| {
        place.push_str(gap);
        place.push_str(name);
        f(key, value, place);
        place.truncate(length);
    };
    match json {
        Json::Array(items) => items.iter().for_each(|item| visit("", "*", item)),
        Json::Object(members) => members.iter().for_each(|(key, value)| {
            // A key of this name is no item of a list.
            let name = if key == "*" || key.contains('/') {
                &*quote(key)
            } else {
                key
            };
            visit(key, name, value);
        }),
        _ => {}
    }
}

/// A reply as JSON, if it is an object or a list. A byte that is not text, a lone surrogate or a
/// control character is replaced; the rest of the reply is kept.
pub(crate) fn read_json(body: &[u8]) -> Option<Json> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let is_container = |byte: &u8| matches!(byte, b'{' | b'[');
    body.iter()
        .find(|byte| !byte.is_ascii_whitespace())
        .filter(|byte| is_container(byte))?;
    let text = String::from_utf8_lossy(body);
    Json::parse_body(&text)
        .or_else(|_| Json::parse_body(&repair(&text)))
        .ok()
}

/// The text with what JSON forbids in its strings replaced.
fn repair(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut rest, mut in_string) = (text, false);
    while let Some(c) = rest.chars().next() {
        let unit = |text: &str| {
            let digits = text.strip_prefix("\\u")?.get(..4)?;
            u16::from_str_radix(digits, 16).ok()
        };
        let mut length = c.len_utf8();
        match (c, unit(rest)) {
            ('"', _) => in_string = !in_string,
            ('\\', Some(high @ 0xd800..0xe000)) => {
                let low = rest
                    .get(6..)
                    .and_then(unit)
                    .filter(|low| (0xdc00..0xe000).contains(low));
                let is_pair = high < 0xdc00 && low.is_some();
                length = if is_pair { 12 } else { 6 };
                out.push_str(if is_pair { &rest[..length] } else { "\\ufffd" });
                rest = &rest[length..];
                continue;
            }
            ('\\', _) => length += rest[1..].chars().next().map_or(0, char::len_utf8),
            (c, _) if in_string && c.is_ascii_control() => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
                rest = &rest[1..];
                continue;
            }
            _ => {}
        }
        out.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    out
}
