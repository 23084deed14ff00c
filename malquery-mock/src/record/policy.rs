//! Decides which parts of an exchange are recorded, and which are secret.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Uri, header};
use malquery_proto::needles::Needles;
use url::form_urlencoded;

use super::log::Exchange;
use crate::cassette::file::Pairs;
use crate::cassette::matching::{is_for_tokens, job_ids, origin, scheme};
use crate::json::{Json, nested};
use crate::pseudonym;

/// How a value is recorded.
#[derive(Clone, Copy, Default, PartialEq)]
enum Rule {
    /// Without secrets.
    Keep,
    /// Without secrets, ids or words that look like tokens.
    Text,
    /// As a pseudonym.
    Id,
    /// As a made-up trace id.
    Trace,
    /// Only as its type. Also applies to all paths without a rule.
    #[default]
    Kind,
}
use Rule::{Id, Keep, Kind, Text, Trace};

/// The known paths in a JSON reply. Each row has a rule, a parent and the names below it. `*`
/// stands for any item of an array. An unknown key is not written, because it may be sensitive.
#[rustfmt::skip]
const PLACES: &[(Rule, &str, &str)] = &[
    (Keep,  "",                        "expires_in token_type"),
    (Kind,  "",                        "access_token"),
    (Keep,  "/errors/*",               "code type"),
    (Id,    "/errors/*",               "id"),
    (Text,  "/errors/*",               "message"),
    (Keep,  "/meta",                   "powered_by status reqtype sample yara_rule"),
    (Id,    "/meta",                   "reqid"),
    (Trace, "/meta",                   "trace_id"),
    (Kind,  "/meta",                   "query_time"),
    (Keep,  "/meta",                   "hunt_count hunt_limit download_count download_limit"),
    (Keep,  "/meta",                   "monitor_count monitor_limit days_left refresh_time"),
    (Keep,  "/meta/hunt_counts/*",     "counter"),
    (Id,    "/meta/hunt_counts/*",     "userid"),
    (Keep,  "/meta/download_counts/*", "counter"),
    (Id,    "/meta/download_counts/*", "userid"),
    (Keep,  "/meta/stats",             "clean_count malware_count pua_count total_count"),
    (Keep,  "/meta/stats",             "unknown_count"),
    (Keep,  "/meta/pagination",        "limit offset total"),
    (Keep,  "/meta/writes",            "resources_affected"),
    (Keep,  "/meta/options",           "limit min_date max_date min_size max_size app"),
    (Keep,  "/meta/options",           "submitted_by_customer filter_filetypes/* filter_meta/*"),
    (Keep,  "/meta/patterns/*",        "type value"),
    (Keep,  "/resources/*",            "sha256 sha1 md5 filesize filetype first_seen label family"),
    (Keep,  "/resources/*",            "ignore_reason label_confidence pattern pattern_type"),
    (Keep,  "/resources/*",            "yara_rule yara_rules/* tags/*"),
    (Keep,  "/resources/*/samples/*",  "sha256 sha1 md5 filesize filetype first_seen label family"),
];

/// The request headers that are kept, besides the scheme of `authorization`.
const REQUEST_HEADERS: [&str; 3] = ["accept", "accept-encoding", "content-type"];
/// The reply headers that are kept, besides `retry-after` and the `content-length` of a sample.
/// [`Policy::reply_headers`] redacts the sensitive parts of their values.
const REPLY_HEADERS: [&str; 4] = ["content-type", "location", "x-cs-region", "x-cs-traceid"];

/// The secret fields in the forms and replies of the `/oauth2/` endpoints.
const CREDENTIALS: &str =
    "client_id client_secret member_cid token access_token refresh_token id_token";

/// The minimum number of bytes in a word that looks like a token, which must also contain a digit.
const MIN_TOKEN: usize = 16;
/// The maximum length of a content type that is shown, in bytes.
const MAX_TYPE: usize = 80;

/// The redaction policy of a session or transcript: the rules for paths, the secrets and the ids.
#[derive(Clone, Default)]
pub(crate) struct Policy {
    places: HashMap<String, Rule>,
    secrets: Needles,
    /// Whether a secret passed to `hide` is too short to be found.
    pub(crate) has_short: bool,
    /// The ids to mask in text from the service.
    ids: Needles,
    pseudonyms: HashMap<String, String>,
    numbered: u64,
    /// The text of a cassette whose pseudonyms must not be used again.
    pub(crate) taken: String,
}

impl fmt::Debug for Policy {
    /// Omits all secrets and ids.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Policy({} places)", self.places.len())
    }
}

impl Policy {
    pub(crate) fn new() -> Self {
        let places = PLACES.iter().flat_map(|(rule, parent, names)| {
            let names = names.split(' ');
            names.map(move |name| (format!("{parent}/{name}"), *rule))
        });
        Self {
            places: places.collect(),
            ..Self::default()
        }
    }

    pub(crate) fn keep(&mut self, place: &str) {
        let place = format!("/{}", place.trim_start_matches('/'));
        self.places.insert(place, Keep);
    }

    pub(crate) fn hide(&mut self, secret: &str) {
        self.has_short |= !self.secrets.add(secret) && !secret.is_empty();
    }

    /// Collects the secrets and ids in an exchange.
    pub(crate) fn see(&mut self, exchange: &mut Exchange) {
        let json = exchange.json();
        let request = &exchange.request;
        let is_for_tokens = is_for_tokens(request.uri().path());
        let authority = request.uri().authority().map_or("", |it| it.as_str());
        if let Some((user, _)) = authority.rsplit_once('@') {
            self.see_pair(user);
        }
        for (name, value) in request.headers() {
            let text = String::from_utf8_lossy(value.as_bytes());
            if [header::AUTHORIZATION, header::PROXY_AUTHORIZATION].contains(name) {
                self.see_authorization(text.trim());
            } else if value.is_sensitive() {
                self.hide(&text);
            }
        }
        if is_for_tokens {
            form_urlencoded::parse(request.body())
                .filter(|(name, _)| is_credential(name))
                .for_each(|(_, value)| self.hide(&value));
        }
        for ids in job_ids(request.uri()) {
            let is_known = self.pseudonyms.contains_key(&ids);
            for id in ids
                .split(',')
                .filter(|id| !is_known && pseudonym::is_id(id))
            {
                self.ids.add(id);
                let hashed = || pseudonym::hashed(id);
                self.pseudonyms.entry(id.into()).or_insert_with(hashed);
            }
        }
        if let Some(json) = json {
            json.each(&mut String::new(), &mut |place, value| {
                let text = value.as_str().unwrap_or_default();
                if is_for_tokens && is_credential(&place[place.len().min(1)..]) {
                    self.hide(text);
                } else if self.places.get(place) == Some(&Id) {
                    self.see_id(text);
                }
            });
        }
    }

    fn see_id(&mut self, id: &str) {
        let is_known = |id| self.pseudonyms.contains_key(id);
        if id.is_empty() || is_known(id) {
            return;
        }
        if id.split(',').any(is_known) {
            let parts = id.split(',').filter(|part| pseudonym::is_id(part));
            return parts.for_each(|part| self.see_id(part));
        }
        let mut pseudonym = id.to_owned();
        // The pseudonym may be taken, or may be a secret, such as the client id of the stand-in.
        while pseudonym == id
            || self.taken.contains(&pseudonym)
            || self.has_secret(pseudonym.as_bytes())
        {
            self.numbered += 1;
            pseudonym = pseudonym::numbered(id, self.numbered);
        }
        self.ids.add(id);
        self.pseudonyms.insert(id.to_owned(), pseudonym);
    }

    fn see_authorization(&mut self, value: &str) {
        let (first, rest) = value.split_once(char::is_whitespace).unwrap_or((value, ""));
        let is_scheme = scheme(first.as_bytes()) != "other";
        for secret in [rest.trim(), if is_scheme { "" } else { value }] {
            self.hide(secret);
            if let Ok(pair) = STANDARD.decode(secret) {
                self.see_pair(&String::from_utf8_lossy(&pair));
            }
        }
    }

    /// Adds a user name and a password to the secrets, unless they are too short to be found.
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

    pub(crate) fn has_secret(&self, bytes: &[u8]) -> bool {
        self.secrets.find_in(bytes).is_some()
    }

    pub(crate) fn mask<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.secrets.mask(text)
    }

    /// Masks secrets, known ids and words that look like tokens in text from the service.
    pub(crate) fn text(&self, text: &str) -> String {
        let other = |c: char| !c.is_ascii_alphanumeric() && !"-_.~+/=%".contains(c);
        let mask = |part: &str| {
            let run = part.trim_end_matches(other);
            let is_token = run.len() >= MIN_TOKEN && run.bytes().any(|byte| byte.is_ascii_digit());
            let kept = if is_token { "[redacted]" } else { run };
            format!("{kept}{}", &part[run.len()..])
        };
        let text = self.secrets.mask(text);
        let text = self.ids.mask(&text);
        text.split_inclusive(other).map(mask).collect()
    }

    /// Returns the recorded form of a JSON reply, after applying the rule for each path.
    pub(crate) fn reply(&self, json: &Json) -> Json {
        let places = self.places.keys();
        let names = places.flat_map(|place| place.split('/').skip(1)).collect();
        self.at(json, &mut String::new(), &names)
    }

    /// Applies the rules to a value. Replaces keys that contain a secret or are not in `names`.
    fn at(&self, json: &Json, place: &mut String, names: &HashSet<&str>) -> Json {
        let rule = self.places.get(place.as_str()).copied().unwrap_or_default();
        match json {
            Json::Null => Json::Null,
            Json::Bool(value) => Json::Bool(*value && rule == Keep),
            Json::Number(digits) => match rule {
                Keep | Text if !self.has_secret(digits.as_bytes()) => json.clone(),
                _ => Json::Number("0".into()),
            },
            Json::String(text) => Json::String(match rule {
                _ if text.is_empty() => String::new(),
                Keep => self.mask(text).into_owned(),
                Text => self.text(text),
                Id => replaced(text, &self.pseudonyms),
                Trace => pseudonym::numbered(text, 0),
                Kind => "[text]".into(),
            }),
            Json::Array(items) => {
                let item = |item| nested(place, "*", |place| self.at(item, place, names));
                Json::Array(items.iter().map(item).collect())
            }
            Json::Object(members) => {
                let mut others = 0;
                let member = |(key, value): &(String, Json)| {
                    let value = nested(place, key, |place| self.at(value, place, names));
                    if names.contains(&**key) && !self.has_secret(key.as_bytes()) {
                        return (key.clone(), value);
                    }
                    others += 1;
                    (format!("[key {others}]"), value)
                };
                Json::Object(members.iter().map(member).collect())
            }
        }
    }

    /// Returns a URI without a user name or password, and with pseudonyms for the known job ids.
    pub(crate) fn uri(&self, uri: &Uri) -> String {
        origin(uri).unwrap_or_default() + &with_jobs(uri, &self.pseudonyms)
    }

    pub(crate) fn request_headers(&self, headers: &HeaderMap) -> Pairs {
        let mut kept = pairs(headers, &REQUEST_HEADERS);
        if let Some(value) = headers.get(header::AUTHORIZATION) {
            let scheme = scheme(value.as_bytes());
            kept.push(("authorization".into(), format!("{scheme} [redacted]")));
        }
        kept.sort();
        kept
    }

    pub(crate) fn reply_headers(&self, headers: &HeaderMap) -> Pairs {
        let mut kept = pairs(headers, &REPLY_HEADERS);
        for (name, value) in &mut kept {
            *value = match &**name {
                "x-cs-traceid" => pseudonym::numbered(value, 0),
                "location" => {
                    let origin = value.parse().ok().and_then(|uri| origin(&uri));
                    self.mask(&(origin.unwrap_or_default() + "/")).into_owned()
                }
                _ => self.text(value),
            };
        }
        kept
    }
}

fn is_credential(name: &str) -> bool {
    CREDENTIALS.split(' ').any(|known| known == name)
}

/// Returns the headers with these names. Omits values that are not ASCII or are marked sensitive.
fn pairs(headers: &HeaderMap, names: &[&str]) -> Pairs {
    let mut kept = Pairs::new();
    for name in names {
        let values = headers.get_all(*name).iter();
        let texts =
            values.filter_map(|value| value.to_str().ok().filter(|_| !value.is_sensitive()));
        kept.extend(texts.map(|text| ((*name).to_owned(), text.to_owned())));
    }
    kept
}

/// Returns the replacement for a body that is not kept, such as `[312 bytes of text/html]`.
pub(crate) fn size_and_type(length: u64, headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE);
    let value = value.and_then(|value| value.to_str().ok()).unwrap_or("");
    // Drops the parameters, which may contain anything.
    let kind = value.split(';').next().unwrap_or_default().trim();
    let belongs = |c: char| c.is_ascii_alphanumeric() || "/+.-".contains(c);
    if kind.is_empty() || kind.len() > MAX_TYPE || !kind.chars().all(belongs) {
        return format!("[{length} bytes]");
    }
    format!("[{length} bytes of {}]", kind.to_ascii_lowercase())
}

/// Returns the path and query of a URI. Replaces the job ids that are keys of `others`.
pub(crate) fn with_jobs(uri: &Uri, others: &HashMap<String, String>) -> String {
    let query = uri.query().unwrap_or_default();
    let mut out = uri.path().to_owned();
    if job_ids(uri).any(|ids| replaced(&ids, others) != ids) {
        let pairs = form_urlencoded::parse(query.as_bytes());
        let pairs = pairs.map(|(name, value)| match &*name {
            "ids" => (name, replaced(&value, others).into()),
            _ => (name, value),
        });
        let mut query = form_urlencoded::Serializer::new(String::new());
        out.push_str(&format!("?{}", query.extend_pairs(pairs).finish()));
    } else if uri.query().is_some() {
        out.push_str(&format!("?{query}"));
    }
    out
}

/// Replaces an id, or each id in a comma-separated list, if it is a key of `others`.
fn replaced(ids: &str, others: &HashMap<String, String>) -> String {
    let one = |id| others.get(id).map_or(id, String::as_str);
    match others.get(ids) {
        Some(other) => other.clone(),
        None => ids.split(',').map(one).collect::<Vec<_>>().join(","),
    }
}
