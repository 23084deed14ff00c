//! Compares requests with interactions, and explains the differences.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, Uri};
use malquery_proto::endpoint::Endpoint;
use url::form_urlencoded;

use super::file::Pairs;
use crate::diff;
use crate::digest;
use crate::json::{Json, member, nested};
use crate::pseudonym;

#[derive(Debug, Clone)]
pub(crate) struct Expected {
    pub(crate) method: Method,
    /// The recorded URI. Only its query and its path below the base URL are compared.
    pub(crate) uri: Uri,
    pub(crate) query: Pairs,
    /// The authorization scheme. `None` matches any scheme.
    pub(crate) scheme: Option<&'static str>,
    pub(crate) body: Body,
}

#[derive(Debug, Clone)]
pub(crate) enum Body {
    Json(Json),
    Form(Pairs),
    Bytes(Arc<[u8]>),
}

pub(crate) struct Seen<'a> {
    request: &'a http::Request<Vec<u8>>,
    query: Pairs,
    json: OnceCell<Option<Json>>,
}

/// A function that describes a difference. Most descriptions are formatted only when needed.
pub(crate) type Reason<'a> = Box<dyn Fn() -> String + 'a>;

impl Expected {
    pub(crate) fn matches(&self, seen: &Seen<'_>) -> bool {
        // This runs for many interactions, so cheap checks come first.
        self.method == *seen.request.method()
            && self.path() == seen.path()
            && self.query.len() == seen.query.len()
            && self.compare(seen).iter().all(|(.., it)| it.is_empty())
    }

    /// Returns the name of each part of a request, its weight in the search for the closest
    /// interaction, and its differences.
    pub(crate) fn compare<'a>(
        &'a self,
        seen: &'a Seen<'_>,
    ) -> [(&'static str, u32, Vec<Reason<'a>>); 5] {
        let sent = seen.request;
        let is_hidden = seen.is_hidden();
        let method = equal(self.method.as_str(), sent.method().as_str());
        let query = pairs(&self.query, &seen.query, stands_for_in_query, is_hidden);
        let scheme = authorization(sent.headers());
        let expected = self.scheme.unwrap_or(scheme);
        [
            ("path", 8, equal(self.path(), seen.path())),
            ("method", 4, method),
            ("query", 2, query),
            ("authorization", 1, equal(expected, scheme)),
            ("body", 2, self.body(seen)),
        ]
    }

    pub(crate) fn path(&self) -> &str {
        below_base(self.uri.path())
    }

    fn body<'a>(&'a self, seen: &'a Seen<'_>) -> Vec<Reason<'a>> {
        let sent = seen.request.body().as_slice();
        let other_kind = |kind: &'a str| vec![differ(kind, digest::Described(sent))];
        match &self.body {
            Body::Json(expected) => {
                let Some(json) = seen.json() else {
                    return other_kind("JSON");
                };
                let mut reasons = Vec::new();
                compare_json(Some(expected), Some(json), &mut String::new(), &mut reasons);
                match reasons.is_empty() || !seen.is_hidden() {
                    true => reasons,
                    false => other_kind("different JSON"),
                }
            }
            Body::Form(_) if std::str::from_utf8(sent).is_err() => other_kind("a form"),
            Body::Form(expected) => {
                let stands_for = |_: &str, recorded: &str, _: &str| placeholder(recorded).is_some();
                pairs(expected, &read_pairs(sent), stands_for, seen.is_hidden())
            }
            Body::Bytes(expected) if **expected == *sent => Vec::new(),
            Body::Bytes(expected) => match [expected, sent].map(std::str::from_utf8) {
                [Ok(a), Ok(b)] if !a.is_empty() && !b.is_empty() && !seen.is_hidden() => {
                    vec![Box::new(|| other_lines(a, b))]
                }
                _ => vec![differ(digest::Described(expected), digest::Described(sent))],
            },
        }
    }
}

impl<'a> Seen<'a> {
    pub(crate) fn new(request: &'a http::Request<Vec<u8>>) -> Self {
        Self {
            request,
            query: read_pairs(request.uri().query().unwrap_or_default().as_bytes()),
            json: OnceCell::new(),
        }
    }

    fn json(&self) -> Option<&Json> {
        let parse = || Json::parse(std::str::from_utf8(self.request.body()).ok()?).ok();
        self.json.get_or_init(parse).as_ref()
    }

    fn path(&self) -> &str {
        below_base(self.request.uri().path())
    }

    /// Returns whether messages must hide the values of this request, which may be secrets.
    fn is_hidden(&self) -> bool {
        is_for_tokens(self.path())
    }

    pub(crate) fn is_for(&self, endpoint: &Endpoint) -> bool {
        *self.request.method() == endpoint.method && self.path() == endpoint.path
    }

    pub(crate) fn line(&self) -> String {
        let uri = self.request.uri();
        let path = match uri.path_and_query() {
            Some(path) if !self.is_hidden() => path.as_str(),
            _ => uri.path(),
        };
        format!("{} {path}", self.request.method())
    }
}

/// Returns the scheme, host and port of a URI, without a user name or password.
pub(crate) fn origin(uri: &Uri) -> Option<String> {
    let host = uri.authority()?.as_str().rsplit('@').next()?;
    Some(format!("{}://{host}", uri.scheme_str()?))
}

/// Returns the path without the prefix that a base URL may add.
pub(crate) fn below_base(path: &str) -> &str {
    let starts = ["/malquery/", "/oauth2/"].into_iter();
    let last = starts.filter_map(|start| path.rfind(start)).max();
    last.map_or(path, |at| &path[at..])
}

/// Returns the values of `ids` in a request about jobs. Each may be a comma-separated list.
pub(crate) fn job_ids(uri: &Uri) -> impl Iterator<Item = String> {
    let path = below_base(uri.path());
    let is_job = path.starts_with("/malquery/entities/requests/")
        || path.starts_with("/malquery/entities/samples-fetch/");
    let query = uri.query().filter(|_| is_job).unwrap_or_default();
    let ids = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "ids");
    ids.map(|(_, id)| id.into_owned())
}

/// Returns whether this is the path of an `/oauth2/` endpoint.
pub(crate) fn is_for_tokens(path: &str) -> bool {
    below_base(path).starts_with("/oauth2/")
}

pub(crate) fn read_pairs(text: &[u8]) -> Pairs {
    form_urlencoded::parse(text).into_owned().collect()
}

/// Returns the authorization scheme of a request, or `none`.
pub(crate) fn authorization(headers: &HeaderMap) -> &'static str {
    headers
        .get(AUTHORIZATION)
        .map_or("none", |value| scheme(value.as_bytes()))
}

/// Returns the scheme of an `Authorization` header, such as `Bearer`. Returns `other` if the first
/// word is not a known scheme, because it may be a secret.
pub(crate) fn scheme(value: &[u8]) -> &'static str {
    const SCHEMES: &str = "Basic Bearer Digest Negotiate NTLM OAuth Token";
    let word = value.split(u8::is_ascii_whitespace).next();
    let is_this = |scheme: &&str| word.is_some_and(|it| it.eq_ignore_ascii_case(scheme.as_bytes()));
    SCHEMES.split(' ').find(is_this).unwrap_or("other")
}

/// Returns the name in a placeholder such as `[client_secret]`.
fn placeholder(value: &str) -> Option<&str> {
    let name = value.strip_prefix('[')?.strip_suffix(']')?;
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    (!name.is_empty() && name.bytes().all(is_plain)).then_some(name)
}

/// Returns whether a recorded value is a placeholder for any value of its field. Cassettes with the
/// older redaction `falcon-1` have placeholders in queries and JSON.
fn stands_for_field(field: &str, recorded: &str) -> bool {
    let plain = |text: &str| -> String {
        let letters = text.chars().filter(char::is_ascii_alphanumeric);
        letters.map(|c| c.to_ascii_lowercase()).collect()
    };
    match placeholder(recorded) {
        Some(
            name @ ("client_id" | "client_secret" | "member_cid" | "cid" | "customer_id" | "token"
            | "access_token" | "refresh_token" | "id_token" | "authorization" | "secret"
            | "password" | "passwd" | "passphrase" | "credential" | "assertion" | "apikey"
            | "accesskey" | "privatekey" | "amzsignature" | "googsignature" | "username"),
        ) => plain(field).contains(&plain(name)),
        _ => false,
    }
}

/// Returns whether a recorded query parameter stands for the sent one. In `ids`, a recorded hash
/// stands for the job id.
fn stands_for_in_query(name: &str, recorded: &str, sent: &str) -> bool {
    let (a, b) = (recorded.split(','), sent.split(','));
    let is_same = |(a, b)| a == b || pseudonym::is_id(b) && a == pseudonym::hashed(b);
    stands_for_field(name, recorded)
        || name == "ids" && a.clone().count() == b.clone().count() && a.zip(b).all(is_same)
}

fn equal<'a>(recorded: &'a str, sent: &'a str) -> Vec<Reason<'a>> {
    match recorded == sent {
        true => Vec::new(),
        false => vec![differ(recorded, sent)],
    }
}

fn differ<'a>(recorded: impl Display + 'a, sent: impl Display + 'a) -> Reason<'a> {
    Box::new(move || format!("{recorded} in the cassette, {sent} in the request"))
}

fn other_lines(recorded: &str, sent: &str) -> String {
    let lines = diff::lines(recorded, sent);
    format!("the lines differ (- cassette, + request)\n{lines}")
}

/// Returns the differences between two lists of pairs. Order matters only among pairs with the same
/// name.
fn pairs<'a>(
    recorded: &Pairs,
    sent: &Pairs,
    stands_for: impl Fn(&str, &str, &str) -> bool,
    is_hidden: bool,
) -> Vec<Reason<'a>> {
    let names = recorded.iter().chain(sent).map(|(name, _)| name);
    let mut reasons = Vec::new();
    for name in names.collect::<BTreeSet<_>>() {
        let [recorded, sent] = [recorded, sent].map(|pairs| -> Vec<&str> {
            let named = pairs.iter().filter(|(key, _)| key == name);
            named.map(|(_, value)| &**value).collect()
        });
        let same = |(a, b): (&&str, &&str)| a == b || stands_for(name, a, b);
        let is_as_long = recorded.len() == sent.len();
        if is_as_long && recorded.iter().zip(&sent).all(same) {
            continue;
        }
        if is_as_long && is_hidden {
            let reason = format!("{name}: the values differ (not shown)");
            reasons.push(Box::new(move || reason.clone()) as _);
            continue;
        }
        let [recorded, sent] = [recorded, sent].map(|values| match values.as_slice() {
            [] => "nothing".into(),
            _ if is_hidden => "[redacted]".into(),
            values => diff::cut(&values.join(", ")),
        });
        reasons.push(differ(format!("{name}: {recorded}"), sent));
    }
    reasons
}

fn compare_json<'a>(
    recorded: Option<&'a Json>,
    sent: Option<&'a Json>,
    pointer: &mut String,
    reasons: &mut Vec<Reason<'a>>,
) {
    let mut inside = |key: &str, recorded, sent| {
        nested(pointer, key, |pointer| {
            compare_json(recorded, sent, pointer, reasons)
        });
    };
    match (recorded, sent) {
        (Some(Json::Array(a)), Some(Json::Array(b))) => {
            for index in 0..a.len().max(b.len()) {
                inside(&index.to_string(), a.get(index), b.get(index));
            }
        }
        (Some(Json::Object(a)), Some(Json::Object(b))) => {
            let stands = |key: &str, a: &Json| a.as_str().is_some_and(|a| stands_for_field(key, a));
            for (key, value) in a {
                let sent = member(b, key);
                if sent.is_none() || !stands(key, value) {
                    inside(key, Some(value), sent);
                }
            }
            for (key, value) in b.iter().filter(|(key, _)| member(a, key).is_none()) {
                inside(key, None, Some(value));
            }
        }
        (Some(a), Some(b)) if a.same_leaf(b) => {}
        _ => {
            let place = match pointer.as_str() {
                "" => "the whole document".to_owned(),
                pointer => pointer.to_owned(),
            };
            let reason = move || format!("{place}: {}", explain_json(recorded, sent));
            reasons.push(Box::new(reason));
        }
    }
}

fn explain_json(recorded: Option<&Json>, sent: Option<&Json>) -> String {
    let only =
        |json: &Json, whose| format!("only in the {whose}: {}", diff::cut(&json.to_string()));
    match (recorded, sent) {
        (Some(Json::String(a)), Some(Json::String(b))) if a.contains('\n') || b.contains('\n') => {
            other_lines(a, b)
        }
        (Some(a), Some(b)) => {
            let (a, b) = diff::around_difference(&a.to_string(), &b.to_string());
            differ(a, b)()
        }
        (Some(json), None) => only(json, "cassette"),
        (None, sent) => only(sent.unwrap_or(&Json::Null), "request"),
    }
}
