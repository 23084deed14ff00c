//! What must not get into a file: found, replaced, and looked for again in what is to be written.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use malquery_proto::Cloud;
use url::form_urlencoded;

use crate::json::{self, Json, Value};
use crate::matching::{self, Pairs};
use crate::pseudonym;
use crate::secret::{self, secret_name};

/// Shorter secrets are replaced where they have a name, and not looked for elsewhere: they are part of any text.
const MIN_SECRET: usize = 4;
/// Shorter secrets are not replaced in the midst of a reply: it could be another word that is changed. The search
/// finds them.
const MIN_REPLACED: usize = 8;
/// How many encodings within each other are looked through: in what is small, in a large text, whose strings are
/// escaped, and in large binary bodies.
const LAYERS: [u32; 3] = [3, 2, 1];
/// Digits of an id that is the same with and without dashes.
const MIN_UNDASHED: usize = 16;
const LARGE: usize = 128 * 1024;
/// How often a text may be escaped in the same way. Hostile ones are escaped a thousand times, to keep who reads them busy.
const MAX_ROUNDS: u32 = 16;
/// How many bytes of what was decoded are looked through.
const MAX_DECODED: usize = 256 * 1024 * 1024;
/// Fewer characters of base64 hold no secret.
const MIN_BASE64: usize = 6;

/// Base64 as it comes, with padding and without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Characters that the parts of a JWT have at least.
const MIN_JWT_PART: usize = 16;

/// Bytes of the longest character reference, such as `#x10ffff`, with zeros before.
const MAX_ENTITY: usize = 24;

/// What is shown in the place of a secret.
const REDACTED: &str = "[redacted]";
const TRACE_ID: &str = "x-cs-traceid";
const QUERY_TIME: &str = "query_time";
const SERVICE_IDS: [&str; 3] = ["trace_id", "reqid", "request_id"];
const USER_IDS: [&str; 2] = ["user_id", "user_uuid"];
/// What an id is called that was found where it should not be.
const SERVICE_ID: &str = "id of the service";

/// What is no secret in a reply of `/oauth2`, where everything else is one.
const HARMLESS: [&str; 13] = [
    "token_type",
    "issued_token_type",
    "expires_in",
    "scope",
    "status",
    "path",
    "resources",
    "meta",
    "errors",
    "error",
    "error_description",
    "message",
    "code",
];
/// Shorter values of fields that are not known are replaced where they stand, and, if they may be words, nowhere else.
const MIN_UNKNOWN: usize = 16;
/// Words that stand for nothing secret, whatever their name: flags, and the password of every archive of samples.
const WORDS: [&str; 7] = [
    "true",
    "false",
    "null",
    "none",
    "deleted",
    "infected",
    "undefined",
];

/// Fewer characters of a part of a JWT are a word.
const MIN_JWT: usize = 8;

/// Whether an id can be told from a word, and so be looked for in texts. It may be an address.
fn is_told_apart(id: &str) -> bool {
    pseudonym::is_id(id) && id.bytes().any(|byte| byte.is_ascii_digit() || byte == b'@')
}

/// Whose body it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Side {
    Request,
    Reply,
    /// A reply with a token.
    TokenReply,
}

impl Side {
    /// The side of the reply to a request for this path.
    pub(crate) fn of_reply(path: &str, status: StatusCode) -> Self {
        let is_token = status.is_success() && matching::below_base(path) == "/oauth2/token";
        if is_token {
            Self::TokenReply
        } else {
            Self::Reply
        }
    }

    /// What a field of this name is called where it stood, if it is a secret.
    fn secret(self, name: &str) -> Option<&'static str> {
        let unknown = self == Self::TokenReply && !is_one_of(name, &HARMLESS);
        secret_name(name).or(unknown.then_some("token"))
    }

    /// What a document is called that is no object.
    fn whole(self, json: &Json) -> Option<&'static str> {
        (self == Self::TokenReply && !matches!(json.value, Value::Object(_))).then_some("token")
    }

    /// The side of what is within a field.
    fn within(self) -> Self {
        if self == Self::Request {
            self
        } else {
            Self::Reply
        }
    }
}

/// A body by its media type.
#[derive(Clone)]
pub(crate) enum Content {
    Empty,
    Json(Json),
    Form(Pairs),
    Text(String),
    Bytes(Vec<u8>),
}

impl Content {
    /// Reads a body. An `exact` one is kept to the byte, whatever it is; and a reply is no form, which would be written
    /// in another way than it came.
    pub(crate) fn read(headers: &HeaderMap, body: &[u8], side: Side, exact: bool) -> Self {
        let media = headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let media = media
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        let text = std::str::from_utf8(body).ok();
        let plain = media.is_empty() || media.starts_with("text/");
        match text {
            _ if body.is_empty() => return Self::Empty,
            Some(text)
                if !exact
                    && (media.contains("json")
                        || plain && text.trim_start().starts_with(['{', '['])) =>
            {
                if let Ok(json) = Json::parse_body(text) {
                    return Self::Json(json);
                }
            }
            Some(text)
                if side == Side::Request
                    && media == "application/x-www-form-urlencoded"
                    && is_plain(text) =>
            {
                return Self::Form(
                    form_urlencoded::parse(text.as_bytes())
                        .into_owned()
                        .collect(),
                );
            }
            _ => {}
        }
        match text {
            Some(text) if is_plain(text) => Self::Text(text.to_owned()),
            _ => Self::Bytes(body.to_vec()),
        }
    }
}

/// Whether it is text and no bytes that could be one, such as those of wide characters.
pub(crate) fn is_plain(text: &str) -> bool {
    text.chars()
        .all(|c| !c.is_control() || matches!(c, '\n' | '\r' | '\t'))
}

/// What was found in all exchanges of a recording.
#[derive(Default)]
pub(crate) struct Redaction {
    /// The values, and what they are.
    secrets: BTreeMap<Vec<u8>, &'static str>,
    /// In the order in which they came, and whether the program brought them along.
    found: Vec<(String, bool)>,
    /// In a fixed order, since in a text those that are alike are replaced by the pseudonym of the first.
    ids: BTreeMap<String, String>,
    /// What to replace in replies, and by what.
    replacer: Option<(AhoCorasick, Vec<String>)>,
    /// What is not to be shown, made when it is asked for.
    hider: OnceCell<Option<(AhoCorasick, usize)>>,
    /// What must not be in the file: what is a part of our own words, and the rest.
    needles: [Needles; 2],
}

/// What [`Redaction::scan`] found.
pub(crate) struct Leak {
    pub(crate) what: &'static str,
    /// Else it could not be searched.
    pub(crate) is_found: bool,
}

impl Redaction {
    pub(crate) fn see_request(&mut self, uri: &Uri, headers: &HeaderMap, body: &Content) {
        for id in job_ids(uri) {
            self.id(&id, true);
        }
        self.see_secrets(uri, headers, body);
    }

    /// The secrets alone, of a request whose ids are not those of the service.
    pub(crate) fn see_secrets(&mut self, uri: &Uri, headers: &HeaderMap, body: &Content) {
        if let Some((user, _)) = uri
            .authority()
            .and_then(|authority| authority.as_str().rsplit_once('@'))
        {
            self.user(user);
        }
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            self.field(&name, &value);
        }
        for (name, value) in headers {
            let bytes = value.as_bytes();
            if *name == header::AUTHORIZATION || *name == header::PROXY_AUTHORIZATION {
                self.authorization(bytes);
            } else if *name == header::COOKIE {
                self.cookie(bytes);
            } else {
                self.header(name.as_str(), value);
            }
        }
        self.see(body, Side::Request);
    }

    pub(crate) fn see_reply(&mut self, side: Side, headers: &HeaderMap, body: &Content) {
        for (name, value) in headers {
            if *name == header::SET_COOKIE {
                let pair = value
                    .as_bytes()
                    .split(|byte| *byte == b';')
                    .next()
                    .unwrap_or_default();
                // Shorter ones are consents.
                if split_once(pair, b'=').is_none_or(|(_, value)| value.len() >= MIN_REPLACED) {
                    self.cookie(pair);
                }
            } else if *name == header::AUTHORIZATION {
                self.authorization(value.as_bytes());
            } else if value.is_sensitive() {
                self.secret(value.as_bytes(), "sensitive header");
            } else if *name == header::LOCATION
                && let Ok(value) = std::str::from_utf8(value.as_bytes())
            {
                let link = Link::new(value);
                if let Some(user) = link.user {
                    self.user(user);
                }
                for (name, value) in form_urlencoded::parse(link.query.as_bytes())
                    .chain(form_urlencoded::parse(link.fragment.as_bytes()))
                {
                    self.field(&name, &value);
                }
            } else if name == TRACE_ID {
                value
                    .to_str()
                    .into_iter()
                    .for_each(|value| self.id(value, false));
            } else {
                self.header(name.as_str(), value);
            }
        }
        self.see(body, side);
    }

    fn see(&mut self, body: &Content, side: Side) {
        match body {
            Content::Json(json) => {
                let whole = side.whole(json);
                self.see_json(json, whole, whole.is_some(), side);
            }
            Content::Form(pairs) => pairs
                .iter()
                .for_each(|(name, value)| self.field(name, value)),
            Content::Text(text) if side == Side::TokenReply => {
                self.secret(text.as_bytes(), "token")
            }
            _ => {}
        }
    }

    /// What has the name `secret`, or is within that; `is_unknown` if that is only because nothing is known of it.
    fn see_json(
        &mut self,
        json: &Json,
        secret: Option<&'static str>,
        is_unknown: bool,
        side: Side,
    ) {
        match &json.value {
            Value::Array(items) => items
                .iter()
                .for_each(|item| self.see_json(item, secret, is_unknown, side)),
            Value::Object(members) => {
                for (key, value) in members {
                    if let (false, None, Some(id)) = (side == Side::Request, secret, id_of(value)) {
                        if is_one_of(key, &SERVICE_IDS) {
                            self.id(id, false);
                        } else if is_one_of(key, &USER_IDS) && !id.is_empty() {
                            self.found.push((id.to_owned(), false));
                        }
                    }
                    let is_unknown = secret_name(key).is_none() && (secret.is_none() || is_unknown);
                    self.see_json(
                        value,
                        secret.or(side.secret(key)),
                        is_unknown,
                        side.within(),
                    );
                }
            }
            Value::String(text) => {
                if let Some(name) = secret
                    .filter(|_| !is_unknown || text.len() >= MIN_UNKNOWN || secret::is_token(text))
                {
                    self.field(name, text);
                }
                // Its secrets are replaced as those of any text.
                if let Some(inner) = quoted(text) {
                    self.see_json(&inner, secret, is_unknown, side);
                }
            }
            Value::Number(digits) => {
                if let Some(name) = secret.filter(|_| !is_unknown) {
                    self.secret(digits.as_bytes(), name);
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn header(&mut self, name: &str, value: &HeaderValue) {
        if value.is_sensitive() {
            self.secret(value.as_bytes(), "sensitive header");
        } else if let Some(name) =
            secret_name(name).filter(|_| !name.starts_with("access-control-"))
        {
            self.secret(value.as_bytes(), name);
        }
    }

    /// What stands in a URL before the host.
    fn user(&mut self, user: &str) {
        let (name, password) = user.split_once(':').unwrap_or(("", user));
        for (part, what) in [
            (name, "user name in the URL"),
            (password, "password in the URL"),
        ] {
            self.secret(part.as_bytes(), what);
            if let Cow::Owned(part) = percent(part.as_bytes(), false) {
                self.secret(&part, what);
            }
        }
    }

    fn field(&mut self, name: &str, value: &str) {
        if let Some(name) = secret_name(name) {
            self.secret(value.as_bytes(), name);
            if name == "authorization" {
                self.authorization(value.as_bytes());
            }
            // A CID has a checksum behind it, or not.
            if let (true, Some((cid, _))) = (
                name.ends_with("cid") || name == "customer_id",
                value.split_once('-'),
            ) {
                self.secret(cid.as_bytes(), name);
            }
        }
    }

    fn authorization(&mut self, value: &[u8]) {
        let scheme = matching::scheme(value);
        if scheme == matching::OTHER_SCHEME {
            // Any word of it may be the key.
            self.secret(value.trim_ascii(), "authorization");
            for word in value.split(u8::is_ascii_whitespace) {
                self.secret(word, "authorization");
                if let Some(decoded) = decode_base64(word)
                    && decoded.contains(&b':')
                {
                    self.basic(&decoded);
                }
            }
        }
        let end = value
            .iter()
            .position(u8::is_ascii_whitespace)
            .unwrap_or(value.len());
        let rest = value[end..].trim_ascii();
        if scheme == "Bearer" {
            return self.secret(rest, "access_token");
        }
        self.secret(rest, "authorization");
        if scheme == "Basic"
            && let Some(decoded) = decode_base64(rest)
        {
            self.basic(&decoded);
        }
    }

    /// What stands in a `Basic` header.
    fn basic(&mut self, decoded: &[u8]) {
        let (id, secret) = split_once(decoded, b':').unwrap_or((b"", decoded));
        for (part, what) in [
            (decoded, "authorization"),
            (id, "client_id"),
            (secret, "client_secret"),
        ] {
            self.secret(part, what);
            // They may be URL-encoded there.
            if let Cow::Owned(part) = percent(part, true) {
                self.secret(&part, what);
            }
        }
    }

    fn cookie(&mut self, value: &[u8]) {
        for pair in value.split(|byte| *byte == b';') {
            let value = split_once(pair, b'=')
                .map_or(pair, |(_, value)| value)
                .trim_ascii();
            // Where the service is, which it says elsewhere, too.
            if std::str::from_utf8(value).is_ok_and(|value| value.parse::<Cloud>().is_ok()) {
                continue;
            }
            self.secret(value, "cookie");
            if let Cow::Owned(value) = percent(value, false) {
                self.secret(&value, "cookie");
            }
            let quoted = value
                .strip_prefix(b"\"")
                .and_then(|value| value.strip_suffix(b"\""));
            quoted
                .into_iter()
                .for_each(|value| self.secret(value, "cookie"));
        }
    }

    fn secret(&mut self, value: &[u8], what: &'static str) {
        let placeholder = std::str::from_utf8(value).is_ok_and(secret::is_placeholder);
        let is_word = WORDS
            .iter()
            .any(|word| word.as_bytes().eq_ignore_ascii_case(value));
        if value.is_empty() || placeholder || is_word {
            return;
        }
        self.hider = OnceCell::new();
        self.secrets.entry(value.to_vec()).or_insert(what);
        // It may be from a file that ends with a line break, and come again without.
        let trimmed = value.trim_ascii();
        if trimmed.len() < value.len() {
            self.secret(trimmed, what);
        }
        // What a JWT says of the customer, and its signature, are not for others either.
        let belongs = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let parts: Vec<_> = value.split(|byte| *byte == b'.').collect();
        if let [_, parts @ ..] = parts.as_slice()
            && parts.len() == 2
            && parts
                .iter()
                .all(|part| part.len() >= MIN_JWT_PART && part.iter().all(belongs))
        {
            for part in parts {
                self.secrets.entry(part.to_vec()).or_insert(what);
            }
        }
    }

    fn id(&mut self, value: &str, brought: bool) {
        // That of nobody is no id.
        if pseudonym::is_id(value) && value.bytes().any(|byte| !matches!(byte, b'0' | b'-')) {
            self.found.push((value.to_owned(), brought));
        }
    }

    /// Gives every id its pseudonym. `taken` is a text whose pseudonyms are not given again.
    pub(crate) fn assign(&mut self, taken: &str) {
        // Before a run there may be the end of an escape, as in `\n` and `%2C`.
        let taken: HashSet<&str> = runs(taken)
            .flat_map(|run| (0..3).filter_map(|start| run.get(start..)))
            .collect();
        let is_taken = |id: &str| pseudonym::is_id(id) && runs(id).all(|run| taken.contains(run));
        let mut known = HashSet::new();
        let found = std::mem::take(&mut self.found)
            .into_iter()
            .filter(|(id, _)| known.insert(id.clone()));
        // What is a pseudonym already stays, unless the service gave it to something else before.
        let (kept, found): (Vec<_>, Vec<_>) = found
            .partition(|(id, brought)| pseudonym::is_numbered(id) && (*brought || !is_taken(id)));
        let kept: BTreeSet<_> = kept.into_iter().map(|(id, _)| id).collect();
        // Of the ids that the service made up, by what is the same in all their notations.
        let mut numbered: HashMap<String, String> =
            kept.iter().map(|id| (plain_id(id), id.clone())).collect();
        let mut number = 1;
        for (id, brought) in found {
            // Then it is no id, but a list of them.
            if id.contains(',') && id.split(',').any(|part| self.ids.contains_key(part)) {
                continue;
            }
            let other = if let Some(other) = numbered.get(&plain_id(&id)) {
                in_notation_of(&id, other)
            } else if brought {
                pseudonym::hashed(&id)
            } else {
                let mut candidate = pseudonym::numbered(&id, number);
                while is_taken(&candidate) || kept.contains(&candidate) {
                    number += 1;
                    candidate = pseudonym::numbered(&id, number);
                }
                number += 1;
                numbered.insert(plain_id(&id), candidate.clone());
                candidate
            };
            // Else it is a pseudonym in another notation, and stays.
            if other != id {
                self.ids.insert(id, other);
            }
        }
        let secrets = self
            .secrets
            .iter()
            .filter(|(value, _)| value.len() >= MIN_REPLACED);
        let (values, others): (Vec<_>, Vec<_>) = secrets
            .filter_map(|(value, what)| Some((std::str::from_utf8(value).ok()?, what)))
            .flat_map(|(value, what)| {
                notations(value).map(|text| (text, format!("[{}]", what.replace(' ', "_"))))
            })
            .chain(
                self.ids
                    .iter()
                    .filter(|(id, _)| is_told_apart(id))
                    .map(|(a, b)| (a.clone(), b.clone())),
            )
            .flat_map(|(value, other)| {
                let flat = undashed(value.as_bytes()).and_then(|flat| String::from_utf8(flat).ok());
                let flat = flat.filter(|flat| *flat != value).map(|flat| {
                    let other = if self.ids.contains_key(&value) {
                        in_notation_of(&flat, &other)
                    } else {
                        other.clone()
                    };
                    (flat, other)
                });
                [Some((value, other)), flat].into_iter().flatten()
            })
            .unzip();
        // Without it nothing is replaced, and what should have been is found.
        let replacer = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::LeftmostLongest)
            .build(values);
        self.replacer = replacer.ok().map(|replacer| (replacer, others));

        // What is a pseudonym of another in the same file tells nothing.
        let ids = self
            .ids
            .keys()
            .filter(|id| is_told_apart(id) && !pseudonym::is_numbered(id));
        let values = self
            .secrets
            .iter()
            .map(|(value, what)| (value.as_slice(), *what));
        let (part_of_names, others) = values
            .filter(|(value, _)| value.len() >= MIN_SECRET)
            .chain(ids.map(|id| (id.as_bytes(), SERVICE_ID)))
            .partition(|(value, _)| is_part_of_name(&value.to_ascii_lowercase()));
        self.needles = [part_of_names, others].map(Needles::new);
    }

    /// The URI as it is written: without a user, and with placeholders and pseudonyms.
    pub(crate) fn uri(&self, uri: &Uri) -> String {
        let mut text = String::new();
        if let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) {
            let host = authority.as_str().rsplit('@').next().unwrap_or_default();
            text = format!("{scheme}://{host}");
        }
        text.push_str(uri.path());
        if let Some(query) = uri.query() {
            text.push('?');
            text.push_str(&self.query(query, job_ids(uri).next().is_some()));
        }
        text
    }

    /// A `Location` as it is written, cleaned as a URI and as a text of a reply.
    pub(crate) fn location(&self, value: &str) -> String {
        let link = Link::new(value);
        let mut text = link.before.to_owned();
        text.push_str(link.after);
        for (sign, pairs) in [('?', link.query), ('#', link.fragment)] {
            if !pairs.is_empty() {
                text.push(sign);
                text.push_str(&self.query(pairs, false));
            }
        }
        self.text(text)
    }

    fn query(&self, query: &str, is_job: bool) -> String {
        let pairs: Pairs = form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect();
        let other: Pairs = pairs
            .iter()
            .map(|(name, value)| {
                let value = match secret_name(name) {
                    Some(secret) => format!("[{secret}]"),
                    None if is_job && name == "ids" => {
                        each_id(value, |id| self.ids.get(id).cloned())
                    }
                    None => value.clone(),
                };
                (name.clone(), value)
            })
            .collect();
        if other == pairs {
            return query.to_owned();
        }
        form_urlencoded::Serializer::new(String::new())
            .extend_pairs(other)
            .finish()
    }

    /// A body as it is written. Of a request only what has the name of a secret is replaced, since the rest is what
    /// requests are told apart by.
    pub(crate) fn content(&self, content: Content, side: Side) -> Content {
        match content {
            Content::Json(json) => {
                let secret = side.whole(&json);
                Content::Json(self.json(json, secret, side))
            }
            Content::Form(pairs) => Content::Form(
                pairs
                    .into_iter()
                    .map(|(name, value)| match secret_name(&name) {
                        Some(secret) => (name, format!("[{secret}]")),
                        None => (name, value),
                    })
                    .collect(),
            ),
            Content::Text(text) if side != Side::Request => Content::Text(self.text(text)),
            content => content,
        }
    }

    fn json(&self, json: Json, secret: Option<&str>, side: Side) -> Json {
        let is_reply = side != Side::Request;
        let value = match json.value {
            Value::Array(items) => Value::Array(
                items
                    .into_iter()
                    .map(|item| self.json(item, secret, side))
                    .collect(),
            ),
            Value::Object(members) => Value::Object(
                members
                    .into_iter()
                    .map(|(key, value)| {
                        let is_id = is_one_of(&key, &SERVICE_IDS) || is_one_of(&key, &USER_IDS);
                        let name = secret.or(side.secret(&key));
                        let value = match (name, id_of(&value).and_then(|id| self.ids.get(id))) {
                            (None, Some(other)) if is_id && is_reply => id_like(&value, other),
                            // Another in every recording.
                            _ if key == QUERY_TIME
                                && is_reply
                                && matches!(value.value, Value::Number(_)) =>
                            {
                                Json::number(0)
                            }
                            _ => self.json(value, name, side.within()),
                        };
                        (key, value)
                    })
                    .collect(),
            ),
            // Who reads a number is to read one when it is played, too.
            Value::Number(_) if secret.is_some() && is_reply => return Json::number(0),
            Value::String(_) | Value::Number(_) if secret.is_some() => {
                Value::String(format!("[{}]", secret.unwrap_or_default()))
            }
            Value::String(text) if is_reply => Value::String(self.text(text)),
            value => value,
        };
        value.into()
    }

    /// A text of a reply.
    pub(crate) fn text(&self, text: String) -> String {
        match &self.replacer {
            Some((replacer, others)) if replacer.is_match(&text) => {
                replacer.replace_all(&text, others)
            }
            _ => text,
        }
    }

    /// A text that is to be shown, without secrets.
    pub(crate) fn hide(&self, text: &str) -> String {
        let hider = self.hider.get_or_init(|| {
            let secrets = self
                .secrets
                .keys()
                .filter(|value| value.len() >= MIN_REPLACED);
            let secrets: Vec<_> = secrets
                .filter_map(|value| std::str::from_utf8(value).ok())
                .flat_map(notations)
                .collect();
            let finder = AhoCorasick::builder()
                .ascii_case_insensitive(true)
                .match_kind(MatchKind::LeftmostLongest)
                .build(&secrets);
            finder.ok().map(|finder| (finder, secrets.len()))
        });
        match hider {
            _ if self.secrets.is_empty() => text.to_owned(),
            Some((finder, _)) if !finder.is_match(text) => text.to_owned(),
            Some((finder, count)) => finder.replace_all(text, &vec![REDACTED; *count]),
            None => REDACTED.into(),
        }
    }

    /// A document that is to be shown, without secrets. In what is searched for any word may stand, but no field of a secret.
    pub(crate) fn hidden(&self, json: &Json, side: Side, is_searched: bool) -> Json {
        if side.whole(json).is_some() {
            return Json::string(REDACTED);
        }
        let within = side.within();
        match &json.value {
            Value::Array(items) => Json::array(
                items
                    .iter()
                    .map(|item| self.hidden(item, side, is_searched)),
            ),
            Value::Object(members) => Json::object(members.iter().map(|(key, value)| {
                let nothing = ["null", "[]", "{}"].contains(&value.to_string().as_str());
                let value = match side.secret(key) {
                    Some(_) if nothing => value.clone(),
                    Some(_) => Json::string(REDACTED),
                    None => self.hidden(value, within, is_searched || secret::is_searched(key)),
                };
                (
                    if text_gives_secret(key) {
                        REDACTED
                    } else {
                        key
                    },
                    value,
                )
            })),
            Value::String(text) if !is_searched => {
                let shown = Json::string(self.hide(text));
                if gives_secret_in(&shown, None) {
                    Json::string(REDACTED)
                } else {
                    shown
                }
            }
            _ => json.clone(),
        }
    }

    /// A text of others in a message, such as what a transport says of an error.
    pub(crate) fn shown(&self, text: &str) -> String {
        let text = self.text(text.to_owned());
        match self.scan(text.as_bytes()) {
            Ok(()) if !text_gives_secret(&text) => text,
            _ => "[not shown, since it holds a secret]".into(),
        }
    }

    /// Looks for secrets of which the end of a body has cut off less than half.
    pub(crate) fn scan_cut(&self, bytes: &[u8]) -> Result<(), Leak> {
        let halves = self
            .secrets
            .iter()
            .filter(|(value, _)| value.len() >= MIN_REPLACED);
        let halves = halves
            .map(|(value, what)| (&value[..value.len().div_ceil(2).max(MIN_REPLACED)], *what));
        let mut budget = Budget {
            left: MAX_DECODED,
            is_strict: true,
        };
        look(
            &without_names(bytes),
            &Needles::new(halves.collect()),
            layers(bytes),
            None,
            &mut budget,
        )
    }

    /// Looks for everything that was replaced, in every encoding.
    pub(crate) fn scan(&self, bytes: &[u8]) -> Result<(), Leak> {
        self.search(bytes, true)
    }

    /// The same for a sample, which may be hostile and is kept to the byte: what is escaped too often in it is passed
    /// over, and so are ids, which could not be replaced.
    pub(crate) fn scan_sample(&self, bytes: &[u8]) -> Result<(), Leak> {
        self.search(bytes, false)
    }

    /// The same for what was scanned before in its parts, which are not decoded again, and may be samples.
    pub(crate) fn scan_layout(&self, bytes: &[u8]) -> Result<(), Leak> {
        self.search_in(bytes, 0, false)
    }

    fn search(&self, bytes: &[u8], is_strict: bool) -> Result<(), Leak> {
        self.search_in(bytes, layers(bytes), is_strict)
    }

    fn search_in(&self, bytes: &[u8], layers: u32, is_strict: bool) -> Result<(), Leak> {
        let [part_of_names, others] = &self.needles;
        let mut budget = Budget {
            left: MAX_DECODED,
            is_strict,
        };
        if !others.is_empty() {
            look(bytes, others, layers, None, &mut budget)?;
        }
        if !part_of_names.is_empty() {
            look(
                &without_names(bytes),
                part_of_names,
                layers,
                None,
                &mut budget,
            )?;
        }
        Ok(())
    }
}

/// How many encodings within each other are looked through.
fn layers(bytes: &[u8]) -> u32 {
    let [small, text, binary] = LAYERS;
    match std::str::from_utf8(bytes) {
        _ if bytes.len() <= LARGE => small,
        Ok(_) => text,
        Err(_) => binary,
    }
}

/// A secret as it may stand in a text: as it is, in JSON, in a form, and in a URL.
fn notations(value: &str) -> [String; 4] {
    let quoted = json::quote(value);
    let form: String = form_urlencoded::byte_serialize(value.as_bytes()).collect();
    let url = form.replace('+', "%20");
    [
        value.to_owned(),
        quoted[1..quoted.len() - 1].to_owned(),
        form,
        url,
    ]
}

/// A URI reference by its parts: it may be relative, and have a fragment.
struct Link<'a> {
    /// Up to the user.
    before: &'a str,
    user: Option<&'a str>,
    /// From the host to the path.
    after: &'a str,
    query: &'a str,
    fragment: &'a str,
}

impl<'a> Link<'a> {
    fn new(text: &'a str) -> Self {
        let (text, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (text, query) = text.split_once('?').unwrap_or((text, ""));
        // Two slashes within a path are no more than that.
        let start = if text.starts_with("//") {
            Some(2)
        } else {
            text.find("://").map(|at| at + 3)
        };
        let host = start.unwrap_or(text.len());
        let path = text[host..].find('/').map_or(text.len(), |at| host + at);
        let user = text[host..path].rfind('@').map(|at| host + at);
        let after = user.map_or(host, |user| user + 1);
        Self {
            before: &text[..host],
            user: user.map(|user| &text[host..user]),
            after: &text[after..],
            query,
            fragment,
        }
    }
}

/// The runs of letters and digits in a text.
fn runs(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|run| !run.is_empty())
}

/// What is the same in all notations of an id: those of hexadecimal digits are also written in capitals and without dashes.
pub(crate) fn plain_id(id: &str) -> String {
    match undashed(id.as_bytes()) {
        Some(digits) => String::from_utf8_lossy(&digits).to_ascii_lowercase(),
        None => id.to_owned(),
    }
}

/// The pseudonym of an id in this notation of it: with dashes where that has them.
pub(crate) fn in_notation_of(id: &str, pseudonym: &str) -> String {
    if plain_id(id).len() != plain_id(pseudonym).len() {
        return pseudonym.to_owned();
    }
    let mut digits = pseudonym.chars().filter(|c| *c != '-');
    id.chars()
        .map(|c| {
            if c == '-' {
                c
            } else {
                digits.next().unwrap_or('0')
            }
        })
        .collect()
}

/// Replaces a value of `ids`: one id, which may have commas in it, or else several with commas between.
pub(crate) fn each_id(value: &str, other: impl Fn(&str) -> Option<String>) -> String {
    other(value).unwrap_or_else(|| {
        let ids: Vec<_> = value
            .split(',')
            .map(|id| other(id).unwrap_or_else(|| id.to_owned()))
            .collect();
        ids.join(",")
    })
}

/// The ids of jobs in a URI. Other operations take hashes of samples.
pub(crate) fn job_ids(uri: &Uri) -> impl Iterator<Item = String> {
    let path = matching::below_base(uri.path());
    let jobs = [
        "/malquery/entities/requests/",
        "/malquery/entities/samples-fetch/",
    ];
    let query = if jobs.iter().any(|job| path.starts_with(job)) {
        uri.query()
    } else {
        None
    };
    let pairs: Pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes())
        .into_owned()
        .collect();
    pairs
        .into_iter()
        .filter(|(name, _)| name == "ids")
        .flat_map(|(_, value)| value.split(',').map(str::to_owned).collect::<Vec<_>>())
}

/// An id, which may be a number.
fn id_of(json: &Json) -> Option<&str> {
    match &json.value {
        Value::String(text) => Some(text),
        Value::Number(digits)
            if **digits != *"0" && digits.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            Some(digits)
        }
        _ => None,
    }
}

/// A pseudonym of the same type as the id. Numbers have no zeros before them.
fn id_like(id: &Json, pseudonym: &str) -> Json {
    match id.value {
        Value::Number(_) => {
            let digits: String = pseudonym.chars().filter(char::is_ascii_digit).collect();
            Json::number(digits.parse::<u128>().unwrap_or_default())
        }
        _ => Json::string(pseudonym),
    }
}

/// A document that stands in a string of another.
fn quoted(text: &str) -> Option<Json> {
    let text = text.trim();
    if text.starts_with(['{', '[', '"']) {
        Json::parse(text).ok()
    } else {
        None
    }
}

/// Whether a part of a URI or a header may hold a secret. A value may be a document, or a URI again.
pub(crate) fn value_gives_secret(value: &str) -> bool {
    gives_secret_in(&Json::string(value), None)
}

/// Whether the path or the query of a URI reference gives a secret.
pub(crate) fn link_gives_secret(link: &str) -> bool {
    let link = Link::new(link);
    let path = [link.before, link.after].concat();
    let pairs = [link.query, link.fragment].map(|pairs| form_urlencoded::parse(pairs.as_bytes()));
    text_gives_secret(&path)
        // Within a path there may be a URL without its scheme.
        || text_gives_secret(&path.replace("//", "://"))
        || pairs.into_iter().flatten().any(|(name, value)| pair_gives_secret(&name, &value))
}

/// Whether a pair of a query or a form gives a secret where none is replaced. What is no form at all stands in the name
/// of a pair.
pub(crate) fn pair_gives_secret(name: &str, value: &str) -> bool {
    names_secret(name)
        || secret_name(name).is_none()
            && (value_gives_secret(value) || secret::gives_secret(&format!("{name}={value}")))
}

/// Whether a body that is to be written may have a secret in a place where it was not found.
pub(crate) fn gives_secret(content: &Content) -> bool {
    match content {
        Content::Json(json) => gives_secret_in(json, None),
        Content::Form(pairs) => pairs
            .iter()
            .any(|(name, value)| pair_gives_secret(name, value)),
        _ => false,
    }
}

fn gives_secret_in(json: &Json, name: Option<&str>) -> bool {
    match &json.value {
        Value::Array(items) => items.iter().any(|item| gives_secret_in(item, name)),
        Value::Object(members) => members
            .iter()
            // A rule against thieves of tokens is full of such words.
            .filter(|(key, _)| !secret::is_searched(key))
            .any(|(key, value)| {
                text_gives_secret(key) || gives_secret_in(value, name.or(secret_name(key)))
            }),
        Value::String(text) if name.is_some() => !text.is_empty() && !secret::is_placeholder(text),
        Value::String(text) => match quoted(text) {
            Some(inner) => gives_secret_in(&inner, None),
            None => text_gives_secret(text),
        },
        Value::Number(digits) => name.is_some() && **digits != *"0",
        Value::Null | Value::Bool(_) => false,
    }
}

/// Whether a text gives a secret, also URL-encoded or in base64, or has a JWT in it.
fn text_gives_secret(text: &str) -> bool {
    secret::gives_secret(text) || escaped_gives_secret(text) || has_jwt(text) || {
        let gives = |decoded: Vec<u8>| {
            let text = String::from_utf8_lossy(&decoded);
            if secret::gives_secret(&text) {
                Err(Leak {
                    what: "text in base64",
                    is_found: true,
                })
            } else {
                Ok(())
            }
        };
        let joined = match joined(text.as_bytes()) {
            Cow::Owned(joined) => base64_runs(&joined, gives),
            Cow::Borrowed(_) => Ok(()),
        };
        joined
            .and_then(|()| base64_runs(text.as_bytes(), gives))
            .is_err()
    }
}

/// Whether a text gives a secret when its escapes are undone: those of URLs, HTML and JSON, and zeros between.
fn escaped_gives_secret(text: &str) -> bool {
    let decoders: [Decoder; 5] = [
        |bytes| percent(bytes, false),
        |bytes| percent(bytes, true),
        entities,
        unescape,
        narrow,
    ];
    decoders.iter().any(|decode| {
        let mut decoded = Cow::Borrowed(text.as_bytes());
        for _ in 0..MAX_ROUNDS {
            decoded = match decode(&decoded) {
                Cow::Owned(next) if next != *decoded => next.into(),
                _ => break,
            };
            if secret::gives_secret(&String::from_utf8_lossy(&decoded)) {
                return true;
            }
        }
        false
    })
}

/// Whether a body that could not be read as what it is may hold a secret.
pub(crate) fn names_secret(text: &str) -> bool {
    secret::names_secret(text) || text_gives_secret(text)
}

/// The same of bytes that are no text.
pub(crate) fn bytes_name_secret(bytes: &[u8]) -> bool {
    let names = |bytes: &[u8]| names_secret(&String::from_utf8_lossy(bytes));
    secret::bytes_name_secret(bytes)
        || names(bytes)
        || matches!(narrow(bytes), Cow::Owned(text) if names(&text))
}

/// Whether there is something with the shape of a JWT: `eyJ...` is the beginning of a JSON object in base64.
pub(crate) fn has_jwt(text: &str) -> bool {
    let belongs = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.split(|c| !belongs(c)).any(|run| {
        let parts: Vec<&str> = run.split('.').collect();
        parts.windows(3).any(|part| {
            part[0]
                .find("eyJ")
                .is_some_and(|at| part[0].len() - at >= MIN_JWT)
                && part[1..].iter().all(|part| part.len() >= MIN_JWT)
        })
    })
}

fn is_one_of(name: &str, names: &[&str]) -> bool {
    let name = secret::plain(name);
    names.iter().any(|known| secret::plain(known) == name)
}

fn split_once(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let index = bytes.iter().position(|byte| *byte == at)?;
    Some((&bytes[..index], &bytes[index + 1..]))
}

/// The words that stand in a file for secrets.
fn names() -> impl Iterator<Item = &'static str> {
    secret::secret_names().chain(["cookie", "sensitive_header"])
}

fn is_part_of_name(value: &[u8]) -> bool {
    names().any(|name| memchr::memmem::find(name.as_bytes(), value).is_some())
}

/// Without our own words, such as `"client_secret": "[client_secret]"`, for a secret that is a part of one of them.
fn without_names(bytes: &[u8]) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return bytes.to_vec();
    };
    let mut text = text.to_owned();
    for name in names() {
        for (open, close) in [("[", "]"), ("\"", "\""), ("%5B", "%5D")] {
            text = text.replace(&format!("{open}{name}{close}"), &format!("{open}{close}"));
        }
    }
    text.into_bytes()
}

/// What is looked for.
#[derive(Default)]
struct Needles {
    plain: Searcher,
    /// The same without dashes, of what is written with and without them.
    undashed: Searcher,
}

impl Needles {
    fn new(values: Vec<(&[u8], &'static str)>) -> Self {
        let undashed = values
            .iter()
            .filter_map(|(value, what)| Some((undashed(value)?, *what)));
        Self {
            undashed: Searcher::new(undashed),
            plain: Searcher::new(values.iter().copied()),
        }
    }

    fn is_empty(&self) -> bool {
        self.plain.what.is_empty()
    }

    fn find(&self, bytes: &[u8], ids: bool) -> Result<(), Leak> {
        let found = self.plain.find(bytes, ids).or_else(|| {
            let flat = || {
                bytes
                    .iter()
                    .copied()
                    .filter(|byte| *byte != b'-')
                    .collect::<Vec<_>>()
            };
            if self.undashed.what.is_empty() {
                None
            } else {
                self.undashed.find(&flat(), ids)
            }
        });
        found.map_or(Ok(()), |what| {
            Err(Leak {
                what,
                is_found: true,
            })
        })
    }
}

/// Finds any of many values, in any case of letters, and tells what it is.
#[derive(Default)]
struct Searcher {
    finder: Option<AhoCorasick>,
    what: Vec<&'static str>,
}

impl Searcher {
    fn new(values: impl Iterator<Item = (impl AsRef<[u8]>, &'static str)>) -> Self {
        let (values, what): (Vec<_>, Vec<_>) = values.unzip();
        Self {
            finder: AhoCorasick::builder()
                .ascii_case_insensitive(true)
                .build(values)
                .ok(),
            what,
        }
    }

    /// The first of them, or the first that is no id.
    fn find(&self, bytes: &[u8], ids: bool) -> Option<&'static str> {
        let what = |found: aho_corasick::Match| self.what[found.pattern().as_usize()];
        match &self.finder {
            Some(finder) if ids => finder.find(bytes).map(what),
            // A secret may begin within an id.
            Some(finder) => finder
                .find_overlapping_iter(bytes)
                .map(what)
                .find(|what| *what != SERVICE_ID),
            // It could not be made, so nobody knows.
            None => self.what.first().copied(),
        }
    }
}

/// The digits of a hexadecimal id, such as a UUID.
fn undashed(value: &[u8]) -> Option<Vec<u8>> {
    let digits: Vec<u8> = value.iter().copied().filter(|byte| *byte != b'-').collect();
    (digits.len() >= MIN_UNDASHED && digits.iter().all(u8::is_ascii_hexdigit)).then_some(digits)
}

/// What undoes one kind of escape, if there is something to undo.
type Decoder = fn(&[u8]) -> Cow<'_, [u8]>;

const DECODERS: [Decoder; 6] = [
    unescape,
    entities,
    narrow,
    joined,
    |bytes| percent(bytes, false),
    |bytes| percent(bytes, true),
];

/// Looks into bytes, and into what they are when they are decoded. What a decoder gave was decoded by it as often as it can
/// be, so it is not `last` given to it again.
fn look(
    bytes: &[u8],
    needles: &Needles,
    layers: u32,
    last: Option<usize>,
    budget: &mut Budget,
) -> Result<(), Leak> {
    needles.find(bytes, budget.is_strict)?;
    if layers == 0 {
        return Ok(());
    }
    for (index, decode) in DECODERS
        .iter()
        .enumerate()
        .filter(|(index, _)| Some(*index) != last)
    {
        let mut decoded = Cow::Borrowed(bytes);
        for round in 0.. {
            let next = match decode(&decoded) {
                Cow::Owned(next) if next != *decoded => next,
                _ => break,
            };
            if round == MAX_ROUNDS {
                budget.refuse("text that is escaped too often to be searched")?;
                break;
            }
            if !budget.spend(&next)? {
                return Ok(());
            }
            look(&next, needles, layers - 1, Some(index), budget)?;
            decoded = next.into();
        }
    }
    for decoded in hex_runs(bytes)
        .into_iter()
        .filter(|decoded| decoded.len() > 1)
    {
        if !budget.spend(&decoded)? {
            return Ok(());
        }
        look(&decoded, needles, layers - 1, None, budget)?;
    }
    base64_runs(bytes, |decoded| {
        if budget.spend(&decoded)? {
            look(&decoded, needles, layers - 1, None, budget)
        } else {
            Ok(())
        }
    })
}

/// How much is looked through.
struct Budget {
    left: usize,
    is_strict: bool,
}

impl Budget {
    /// Takes the work of searching what was decoded from what there is left, and tells whether there was enough.
    fn spend(&mut self, decoded: &[u8]) -> Result<bool, Leak> {
        match self.left.checked_sub(decoded.len()) {
            Some(left) => {
                self.left = left;
                Ok(true)
            }
            None => self
                .refuse("text with too many encodings to be searched")
                .map(|()| false),
        }
    }

    fn refuse(&self, what: &'static str) -> Result<(), Leak> {
        if self.is_strict {
            Err(Leak {
                what,
                is_found: false,
            })
        } else {
            Ok(())
        }
    }
}

/// Hexadecimal digits as bytes, also with spaces, colons or dashes between as in a YARA rule, wherever in them a byte may begin.
fn hex_runs(bytes: &[u8]) -> [Vec<u8>; 2] {
    let mut decoded = [const { Vec::new() }; 2];
    let belongs =
        |byte: &u8| byte.is_ascii_hexdigit() || byte.is_ascii_whitespace() || b":-".contains(byte);
    for run in bytes
        .split(|byte| !belongs(byte))
        .filter(|run| run.len() >= 2 * MIN_SECRET)
    {
        let digits: Vec<u8> = run
            .iter()
            .filter_map(|byte| char::from(*byte).to_digit(16)?.try_into().ok())
            .collect();
        if digits.len() < 2 * MIN_SECRET {
            continue;
        }
        for (start, out) in decoded.iter_mut().enumerate() {
            out.extend(
                digits[start..]
                    .chunks_exact(2)
                    .map(|pair| pair[0] * 16 + pair[1]),
            );
            out.push(0);
        }
    }
    decoded
}

/// Wide text as narrow one, if there is a zero byte.
fn narrow(bytes: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(0, bytes).is_none() {
        return bytes.into();
    }
    bytes.iter().copied().filter(|byte| *byte != 0).collect()
}

/// Without the character references of HTML, if there are any.
fn entities(bytes: &[u8]) -> Cow<'_, [u8]> {
    if !bytes.contains(&b'&') {
        return bytes.into();
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = memchr::memchr(b'&', rest) {
        out.extend_from_slice(&rest[..at]);
        let name = &rest[at + 1..];
        let end = name.iter().take(MAX_ENTITY).position(|byte| *byte == b';');
        let character = end
            .and_then(|end| std::str::from_utf8(&name[..end]).ok())
            .and_then(|name| match name {
                "amp" => Some('&'),
                "lt" => Some('<'),
                "gt" => Some('>'),
                "quot" => Some('"'),
                "apos" => Some('\''),
                "sol" => Some('/'),
                "plus" => Some('+'),
                "equals" => Some('='),
                "colon" => Some(':'),
                "percnt" => Some('%'),
                "bsol" => Some('\\'),
                name => {
                    let digits = name.strip_prefix('#')?;
                    let number = match digits.strip_prefix(['x', 'X']) {
                        Some(hex) => u32::from_str_radix(hex, 16),
                        None => digits.parse(),
                    };
                    char::from_u32(number.ok()?)
                }
            });
        match (character, end) {
            (Some(character), Some(end)) => {
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                rest = &name[end + 1..];
            }
            _ => {
                out.push(b'&');
                rest = name;
            }
        }
    }
    out.extend_from_slice(rest);
    out.into()
}

/// Without the escapes of JSON and of strings of YARA, if there are any.
fn unescape(bytes: &[u8]) -> Cow<'_, [u8]> {
    if !bytes.contains(&b'\\') {
        return bytes.into();
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut units: Vec<u16> = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let unit = bytes
            .get(at..at + 6)
            .filter(|part| part.starts_with(b"\\u"))
            .and_then(|part| u16::from_str_radix(std::str::from_utf8(&part[2..]).ok()?, 16).ok());
        if let Some(unit) = unit {
            units.push(unit);
            at += 6;
            continue;
        }
        out.extend(String::from_utf16_lossy(&units).bytes());
        units.clear();
        let byte = bytes
            .get(at..at + 4)
            .filter(|part| part.starts_with(b"\\x") && part[2..].iter().all(u8::is_ascii_hexdigit))
            .and_then(|part| u8::from_str_radix(std::str::from_utf8(&part[2..]).ok()?, 16).ok());
        if let Some(byte) = byte {
            out.push(byte);
            at += 4;
            continue;
        }
        if let (b'\\', Some(next)) = (bytes[at], bytes.get(at + 1)) {
            out.push(match next {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'b' => 8,
                b'f' => 12,
                other => *other,
            });
            at += 2;
            continue;
        }
        // All up to the next escape, which may begin here and be none.
        let end = memchr::memchr(b'\\', &bytes[at + 1..]).map_or(bytes.len(), |next| at + 1 + next);
        out.extend_from_slice(&bytes[at..end]);
        at = end;
    }
    out.extend(String::from_utf16_lossy(&units).bytes());
    out.into()
}

/// Without the escapes of URLs, if there are any; `plus` is a space in forms.
fn percent(bytes: &[u8], plus: bool) -> Cow<'_, [u8]> {
    // Without a plus the one does what the other does.
    if !bytes.contains(if plus { &b'+' } else { &b'%' }) {
        return bytes.into();
    }
    let digit = |at: usize| {
        bytes
            .get(at)
            .and_then(|byte| char::from(*byte).to_digit(16))
    };
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match (bytes[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                at += 3;
            }
            (b'+', ..) if plus => {
                out.push(b' ');
                at += 1;
            }
            _ => {
                let rest = &bytes[at + 1..];
                let next = if plus {
                    memchr::memchr2(b'%', b'+', rest)
                } else {
                    memchr::memchr(b'%', rest)
                };
                let end = next.map_or(bytes.len(), |next| at + 1 + next);
                out.extend_from_slice(&bytes[at..end]);
                at = end;
            }
        }
    }
    out.into()
}

/// Base64 of the usual or of the URL alphabet.
pub(crate) fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    BASE64.decode(usual_alphabet(text)).ok()
}

fn usual_alphabet(text: &[u8]) -> Vec<u8> {
    text.iter()
        .map(|byte| match byte {
            b'-' => b'+',
            b'_' => b'/',
            byte => *byte,
        })
        .collect()
}

/// Lines put together, if there are several, also in a string of JSON: base64 may be broken into lines.
fn joined(bytes: &[u8]) -> Cow<'_, [u8]> {
    let escape = |pair: &[u8]| matches!(pair, b"\\n" | b"\\r" | b"\\t");
    if !bytes.contains(&b'\n') && !bytes.windows(2).any(escape) {
        return bytes.into();
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match bytes.get(at..at + 2) {
            Some(pair) if escape(pair) => at += 2,
            _ => {
                at += 1;
                out.extend((!byte.is_ascii_whitespace()).then_some(*byte));
            }
        }
    }
    out.into()
}

/// Decodes what may be base64, of the usual and of the URL alphabet, wherever in it a group of four may begin.
fn base64_runs(
    bytes: &[u8],
    mut found: impl FnMut(Vec<u8>) -> Result<(), Leak>,
) -> Result<(), Leak> {
    let belongs =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_');
    let mut decoded = [const { Vec::new() }; 4];
    for run in bytes
        .split(|byte| !belongs(byte))
        .filter(|run| run.len() >= MIN_BASE64)
    {
        let usual = usual_alphabet(run);
        for (start, out) in decoded.iter_mut().enumerate() {
            let part = &usual[start..];
            let part = if part.len() % 4 == 1 {
                &part[..part.len() - 1]
            } else {
                part
            };
            out.extend(BASE64.decode(part).unwrap_or_default());
            // So that what is next to each other here was next to each other there.
            out.push(0);
        }
    }
    decoded
        .into_iter()
        .filter(|decoded| decoded.len() > 1)
        .try_for_each(&mut found)
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
    use proptest::prelude::*;

    use super::*;

    fn knowing(secret: &str) -> Redaction {
        let mut redaction = Redaction::default();
        redaction.secret(secret.as_bytes(), "client_secret");
        redaction.assign("");
        redaction
    }

    #[test]
    fn what_others_say_is_shown_unless_a_secret_is_in_it() {
        let redaction = knowing("S3cretOfTheUser");
        assert_eq!(
            redaction.shown("no route to the host"),
            "no route to the host"
        );
        for text in [
            "S3cretOfTheUser is wrong",
            "access_token=whatever-it-is was refused",
        ] {
            let shown = redaction.shown(text);
            assert!(
                !shown.contains("S3cret") && !shown.contains("whatever"),
                "{shown}"
            );
        }
    }

    fn percent_all(text: &str, upper: bool) -> String {
        text.bytes()
            .map(|byte| {
                if upper {
                    format!("%{byte:02X}")
                } else {
                    format!("%{byte:02x}")
                }
            })
            .collect()
    }

    fn html(text: &str) -> String {
        let text = text
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;");
        text.replace('"', "&quot;").replace('\'', "&#39;")
    }

    fn escape_all(text: &str) -> String {
        text.encode_utf16()
            .map(|unit| format!("\\u{unit:04x}"))
            .collect()
    }

    proptest! {
        #[test]
        fn a_secret_is_found_in_every_encoding(
            secret in r#"[a-zA-Z0-9+/=&%"'\\ üß€😀.~-]{4,24}"#,
            before in "[a-zA-Z0-9+/]{0,5}",
            after in "[a-zA-Z0-9+/]{0,5}",
        ) {
            prop_assume!(!secret::is_placeholder(&secret));
            let redaction = knowing(&secret);
            let form: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
            let json = crate::json::quote(&secret);
            let json = &json[1..json.len() - 1];
            let inside = format!("{before}{secret}{after}");
            let lower = form.replace("%C3", "%c3").replace("%2B", "%2b").replace("%2F", "%2f");
            for text in [
                secret.clone(),
                form.clone(),
                lower,
                form.replace('+', "%20"),
                percent_all(&secret, true),
                percent_all(&secret, false),
                json.to_owned(),
                json.replace('/', "\\/"),
                escape_all(&secret),
                crate::json::quote(json),
                STANDARD.encode(&inside),
                STANDARD_NO_PAD.encode(&inside),
                URL_SAFE.encode(&inside),
                URL_SAFE_NO_PAD.encode(&inside),
                form_urlencoded::byte_serialize(STANDARD.encode(&inside).as_bytes()).collect(),
                STANDARD.encode(STANDARD.encode(&inside)),
                STANDARD.encode(&form),
                secret.bytes().map(|byte| format!("\\x{byte:02x}")).collect(),
                secret.bytes().map(|byte| format!("\\\\x{byte:02X}")).collect(),
                secret.bytes().map(|byte| format!("{byte:02x}")).collect(),
                secret.bytes().map(|byte| format!("{byte:02X} ")).collect(),
                secret.bytes().map(|byte| format!("{byte:02X}\\n")).collect(),
                secret.chars().map(|c| format!("&#{};", u32::from(c))).collect(),
                secret.chars().map(|c| format!("&#x{:x};", u32::from(c))).collect(),
                html(&secret),
                secret.bytes().flat_map(|byte| [char::from(byte), '\0']).filter(|_| secret.is_ascii()).collect::<String>()
                    + if secret.is_ascii() { "" } else { &secret },
            ] {
                prop_assert!(redaction.scan(format!("xyz {text} xyz").as_bytes()).is_err(), "{} in {}", secret, text);
                prop_assert!(redaction.scan(format!("\"{text}\"").as_bytes()).is_err(), "{} in {}", secret, text);
            }
        }

        #[test]
        fn a_text_without_it_is_clean(text in "[a-z0-9 {}:\"]{0,200}") {
            prop_assert!(knowing("S3CRET+VALUE=&").scan(text.as_bytes()).is_ok());
        }
    }

    #[test]
    fn a_secret_is_found_however_often_it_was_escaped() {
        let redaction = knowing("p4ss/w+rd");
        let mut text = "p4ss/w+rd".to_owned();
        for _ in 0..12 {
            text = form_urlencoded::byte_serialize(text.as_bytes()).collect();
            assert!(redaction.scan(text.as_bytes()).is_err(), "{text}");
        }
        assert!(redaction.scan(b"100% of %25 and %2525").is_ok());
    }

    #[test]
    fn our_own_words_are_no_secret() {
        let redaction = knowing("secret");
        assert!(
            redaction
                .scan(br#"[["client_secret", "[client_secret]"]]"#)
                .is_ok()
        );
        assert!(
            redaction
                .scan(br#"[["client_secret", "[client_secret]"], "a secret"]"#)
                .is_err()
        );
        assert!(knowing("abc").scan(b"abc").is_ok());
        for secret in ["p4ss[token]w0rd", "abc%5Bcookie%5Ddef", "a\"token\"b"] {
            assert!(
                knowing(secret)
                    .scan(format!("rule {secret}").as_bytes())
                    .is_err(),
                "{secret}"
            );
        }
    }

    #[test]
    fn three_encodings_within_each_other_are_undone_and_no_more() {
        let redaction = knowing("p4ss/w+rd");
        let hex = |text: String| {
            text.bytes()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        };
        let mut text = "p4ss/w+rd".to_owned();
        for layers in 1..5 {
            text = hex(text);
            assert_eq!(
                redaction.scan(text.as_bytes()).is_err(),
                layers < 4,
                "{layers}"
            );
        }
    }

    #[test]
    fn base64_is_decoded_with_more_behind_it_and_in_lines() {
        let redaction = knowing("p4ss/w+rd");
        for more in ["", "A", "AB", "ABC"] {
            let text = STANDARD_NO_PAD.encode("p4ss/w+rd") + more;
            assert!(redaction.scan(text.as_bytes()).is_err(), "{text}");
        }
        assert_eq!(*joined(b"abcd\\nef\\r\\ngh\nij kl"), *b"abcdefghijkl");
    }

    #[test]
    fn a_pseudonym_of_another_length_has_no_other_notation() {
        let id = "6b1e2cd4-a6c1-4df0-98b3-7e0d4ad3c8f1";
        assert_eq!(
            in_notation_of(&id.replace('-', ""), &pseudonym::numbered(id, 7)),
            "00000000000040008000000000000007"
        );
        for other in ["a-job", "00000000-0000-4000-8000-000000000007-1"] {
            assert_eq!(in_notation_of(id, other), other);
        }
    }

    #[test]
    fn only_a_jwt_is_looked_for_in_its_parts() {
        for (secret, text) in [
            ("head.abcdefgh.ijklmnop", "abcdefgh"),
            (
                "head.some words and more.other words and more",
                "some words and more",
            ),
        ] {
            assert!(knowing(secret).scan(text.as_bytes()).is_ok(), "{secret}");
        }
        assert!(
            knowing("head.abcdefghijklmnop.abcdefghijklmnop")
                .scan(b"abcdefghijklmnop")
                .is_err()
        );
    }

    #[test]
    fn a_secret_that_comes_later_is_hidden_too() {
        let mut redaction = knowing("a-secret-0123456");
        let text = "a-secret-0123456, b-secret-0123456";
        assert_eq!(redaction.hide(text), "[redacted], b-secret-0123456");
        redaction.secret(b"b-secret-0123456", "client_secret");
        assert_eq!(redaction.hide(text), "[redacted], [redacted]");
        assert_eq!(Redaction::default().hide(text), text);
    }

    #[test]
    fn a_word_is_judged_by_its_beginning() {
        // So that a text of one word with `bearer` in it ever again is read in good time.
        let long = "a".repeat(1023);
        assert!(
            secret::is_token(&format!("{long}1{long}")) && !secret::is_token(&format!("{long}a1"))
        );
        assert!(
            !secret::is_token(&format!("{}é1", &long[..1022])) && secret::is_token("abcdefg1é")
        );
    }

    #[test]
    fn an_id_is_the_same_in_capitals_and_without_dashes() {
        let id = "6b1e2cd4-a6c1-4df0-98b3-7e0d4ad3c8f1";
        let flat = id.replace('-', "");
        for known in [id, &flat, &id.to_uppercase()] {
            let redaction = knowing(known);
            for text in [id, &id.to_uppercase(), &flat, &flat.to_uppercase()] {
                assert!(
                    redaction.scan(STANDARD.encode(text).as_bytes()).is_err(),
                    "{known} in {text}"
                );
                let other = redaction.text(format!("a {text}, {text} z"));
                assert!(
                    redaction.scan(other.as_bytes()).is_ok() || !known.contains('-'),
                    "{known} in {other}"
                );
            }
        }
    }

    #[test]
    fn a_secret_is_known_by_its_name_in_every_notation() {
        for text in [
            "access_token: N",
            "'access_token': 'N'",
            "<access_token>N</access_token>",
            r#"{\"access_token\":\"N\"}"#,
            r#"{\\\"Client_Secret\\\" : \\\"N"#,
            "POST /x?client_secret=N failed",
            r#"["client_id", "N"]"#,
            "'access_token' => 'N'",
            "token=N",
            "token: NEWunkn0wn",
            "Authorization: Bearer NEWunkn0wn",
            "curl -H 'bearer NEWunkn0wn'",
            "Basic dXNlcjpwdzEyMw==",
        ] {
            assert!(
                secret::gives_secret(text) && secret::names_secret(text),
                "{text}"
            );
        }
        for text in [
            "",
            "no access_token",
            "client_secret=[client_secret]&client_id=",
            r#""access_token": """#,
            "access denied, invalid token: expired",
            "bearer authentication, please",
            "token_type: bearer",
            "</access_token> <a>",
            "rule a { strings: $token = \"abc12345\" $b = \"client_secret=\" condition: #token > 1 and $b }",
        ] {
            assert!(!secret::gives_secret(text), "{text}");
        }
        assert!(secret::names_secret("{\"access_token\""));
    }
}
