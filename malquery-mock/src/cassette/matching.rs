//! What an interaction expects of a request, and why a request is not it.

use std::cell::OnceCell;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use http::Method;
use http::header::AUTHORIZATION;
use url::form_urlencoded;

use super::file::Pairs;
use crate::diff;
use crate::digest;
use crate::json::{Json, member, nested};
use crate::pseudonym;

/// The request an interaction answers.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    pub(crate) method: Method,
    /// The scheme and host, which do not count.
    pub(crate) origin: Option<String>,
    pub(crate) path: String,
    pub(crate) query: Pairs,
    /// The authorization scheme; the outer `None` says that it is not checked.
    pub(crate) scheme: Option<Option<String>>,
    pub(crate) body: Body,
}

#[derive(Debug, Clone)]
pub(crate) enum Body {
    Empty,
    Json(Json),
    Form(Pairs),
    Bytes(Arc<[u8]>),
}

/// A request, with its parts read once.
pub(crate) struct Seen<'a> {
    request: &'a http::Request<Vec<u8>>,
    query: Pairs,
    scheme: Option<String>,
    json: OnceCell<Option<Json>>,
}

/// Why a matcher refuses, a line or more for each reason.
pub(crate) type Refusal = Result<(), Vec<String>>;

type Matcher = fn(&Expected, &Seen<'_>) -> Refusal;

/// The matchers, with how much each counts for finding the closest interaction.
const MATCHERS: [(&str, u32, Matcher); 5] = [
    ("path", 8, Expected::path),
    ("method", 4, Expected::method),
    ("query", 2, Expected::query),
    ("authorization", 1, Expected::authorization),
    ("body", 2, Expected::body),
];

impl Expected {
    /// Whether no matcher refuses.
    pub(crate) fn matches(&self, seen: &Seen<'_>) -> bool {
        // Each request asks this of each interaction, so the cheapest comes first.
        self.method == *seen.request.method()
            && below_base(&self.path) == seen.path()
            && self.query.len() == seen.query.len()
            && MATCHERS
                .iter()
                .all(|(_, _, matcher)| matcher(self, seen).is_ok())
    }

    /// What each matcher says.
    pub(crate) fn verdicts(&self, seen: &Seen<'_>) -> Vec<(&'static str, Refusal)> {
        MATCHERS
            .iter()
            .map(|(name, _, matcher)| (*name, matcher(self, seen)))
            .collect()
    }

    /// How close the request is: first what agrees, then how little differs.
    pub(crate) fn closeness(&self, seen: &Seen<'_>) -> (u32, Reverse<usize>) {
        let (mut score, mut reasons) = (0, 0);
        for (_, weight, matcher) in &MATCHERS {
            match matcher(self, seen) {
                Ok(()) => score += weight,
                Err(refusal) => reasons += refusal.len(),
            }
        }
        (score, Reverse(reasons))
    }

    fn method(&self, seen: &Seen<'_>) -> Refusal {
        equal(self.method.as_str(), seen.request.method().as_str())
    }

    fn path(&self, seen: &Seen<'_>) -> Refusal {
        equal(below_base(&self.path), seen.path())
    }

    fn query(&self, seen: &Seen<'_>) -> Refusal {
        pairs(
            &self.query,
            &seen.query,
            stands_for_in_query,
            seen.is_hidden(),
        )
    }

    fn authorization(&self, seen: &Seen<'_>) -> Refusal {
        let Some(expected) = &self.scheme else {
            return Ok(());
        };
        equal(
            expected.as_deref().unwrap_or("none"),
            seen.scheme.as_deref().unwrap_or("none"),
        )
    }

    fn body(&self, seen: &Seen<'_>) -> Refusal {
        let sent = seen.request.body();
        let shown = match sent.as_slice() {
            [] => "none".into(),
            sent => digest::describe(sent),
        };
        let differ = |recorded: &str| {
            Err(vec![format!(
                "{recorded} in the cassette, {shown} in the request"
            )])
        };
        match &self.body {
            Body::Empty if sent.is_empty() => Ok(()),
            Body::Empty => differ("none"),
            Body::Json(expected) => match seen.json() {
                None => differ("JSON"),
                Some(json) if expected.agrees(json, stands_for_field) => Ok(()),
                Some(_) if seen.is_hidden() => differ("other JSON"),
                Some(json) => {
                    let mut reasons = Vec::new();
                    differences(expected, json, &mut String::new(), &mut reasons);
                    Err(reasons)
                }
            },
            Body::Form(_) if std::str::from_utf8(sent).is_err() => differ("a form"),
            Body::Form(expected) => {
                let sent: Pairs = form_urlencoded::parse(sent).into_owned().collect();
                pairs(
                    expected,
                    &sent,
                    |_, recorded, _| is_placeholder(recorded),
                    seen.is_hidden(),
                )
            }
            Body::Bytes(expected) if **expected == **sent => Ok(()),
            Body::Bytes(expected) => match [expected, sent.as_slice()].map(std::str::from_utf8) {
                [Ok(expected), Ok(text)] if !sent.is_empty() && !seen.is_hidden() => {
                    let lines = diff::lines(expected, text);
                    Err(vec![format!(
                        "other lines (- cassette, + request)\n{lines}"
                    )])
                }
                _ => differ(&digest::describe(expected)),
            },
        }
    }
}

impl<'a> Seen<'a> {
    pub(crate) fn new(request: &'a http::Request<Vec<u8>>) -> Self {
        let query = request.uri().query().unwrap_or_default();
        Self {
            request,
            query: form_urlencoded::parse(query.as_bytes())
                .into_owned()
                .collect(),
            scheme: request
                .headers()
                .get(AUTHORIZATION)
                .map(|value| scheme(value.as_bytes())),
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

    /// Whether its values are secrets, which no message shows.
    fn is_hidden(&self) -> bool {
        is_for_tokens(self.path())
    }

    /// Whether it asks for a token.
    pub(crate) fn is_token_request(&self) -> bool {
        self.request.method() == Method::POST && self.path() == "/oauth2/token"
    }

    /// Whether it gives a token back.
    pub(crate) fn is_revocation(&self) -> bool {
        self.request.method() == Method::POST && self.path() == "/oauth2/revoke"
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

/// The path without the prefix a base URL may have.
pub(crate) fn below_base(path: &str) -> &str {
    let starts = ["/malquery/", "/oauth2/"].into_iter();
    let last = starts.filter_map(|start| path.rfind(start)).max();
    last.map_or(path, |at| &path[at..])
}

/// Whether it is a path of the endpoints for tokens.
pub(crate) fn is_for_tokens(path: &str) -> bool {
    below_base(path).starts_with("/oauth2/")
}

/// The scheme of an `Authorization` header, such as `Bearer`, or `other`. The rest of the value is
/// a secret, and so may be the first word when it is no known scheme.
pub(crate) fn scheme(value: &[u8]) -> String {
    const SCHEMES: [&str; 7] = [
        "Basic",
        "Bearer",
        "Digest",
        "Negotiate",
        "NTLM",
        "OAuth",
        "Token",
    ];
    let word = value
        .split(u8::is_ascii_whitespace)
        .next()
        .unwrap_or_default();
    let known = SCHEMES
        .into_iter()
        .find(|scheme| scheme.as_bytes().eq_ignore_ascii_case(word));
    known.unwrap_or("other").to_owned()
}

fn equal(recorded: &str, sent: &str) -> Refusal {
    if recorded == sent {
        return Ok(());
    }
    Err(vec![format!(
        "{recorded} in the cassette, {sent} in the request"
    )])
}

/// Whether this stands for a value that is not in the cassette, such as `[client_secret]`.
pub(crate) fn is_placeholder(value: &str) -> bool {
    let name = value
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    name.is_some_and(|name| {
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    })
}

/// Whether a recorded value stands for any value of its field. Files of `falcon-1` have such values
/// in queries and JSON.
fn stands_for_field(name: &str, recorded: &str) -> bool {
    const NAMES: [&str; 22] = [
        "client_id",
        "client_secret",
        "member_cid",
        "cid",
        "customer_id",
        "token",
        "access_token",
        "refresh_token",
        "id_token",
        "authorization",
        "secret",
        "password",
        "passwd",
        "passphrase",
        "credential",
        "assertion",
        "apikey",
        "accesskey",
        "privatekey",
        "amzsignature",
        "googsignature",
        "username",
    ];
    let plain = |text: &str| -> String {
        let letters = text.chars().filter(char::is_ascii_alphanumeric);
        letters.map(|c| c.to_ascii_lowercase()).collect()
    };
    is_placeholder(recorded)
        && NAMES
            .iter()
            .any(|known| recorded[1..recorded.len() - 1] == **known)
        && plain(name).contains(&plain(recorded))
}

/// The same in a query, where a job id that the program brought along is recorded as its hash.
fn stands_for_in_query(name: &str, recorded: &str, sent: &str) -> bool {
    let hashed = |id: &str| match pseudonym::is_id(id) {
        true => pseudonym::hashed(id),
        false => id.to_owned(),
    };
    stands_for_field(name, recorded)
        || name == "ids" && recorded == sent.split(',').map(hashed).collect::<Vec<_>>().join(",")
}

/// Compares pairs, whatever the order of different names.
fn pairs(
    recorded: &Pairs,
    sent: &Pairs,
    stands_for: impl Fn(&str, &str, &str) -> bool,
    is_hidden: bool,
) -> Refusal {
    let names: BTreeSet<&str> = recorded
        .iter()
        .chain(sent)
        .map(|(name, _)| &**name)
        .collect();
    let mut reasons = Vec::new();
    for name in names {
        let [recorded, sent] = [recorded, sent].map(|pairs| -> Vec<&str> {
            pairs
                .iter()
                .filter(|(key, _)| key == name)
                .map(|(_, value)| &**value)
                .collect()
        });
        let same = |(a, b): (&&str, &&str)| a == b || stands_for(name, a, b);
        let is_as_long = recorded.len() == sent.len();
        if is_as_long && recorded.iter().zip(&sent).all(same) {
            continue;
        }
        if is_as_long && is_hidden {
            reasons.push(format!("{name}: the values differ, and are not shown"));
            continue;
        }
        let [recorded, sent] = [recorded, sent].map(|values| match values.as_slice() {
            [] => "nothing".into(),
            _ if is_hidden => "[redacted]".into(),
            values => diff::cut(&values.join(", ")),
        });
        reasons.push(format!(
            "{name}: {recorded} in the cassette, {sent} in the request"
        ));
    }
    if reasons.is_empty() {
        Ok(())
    } else {
        Err(reasons)
    }
}

/// Appends what differs, one entry for each place.
fn differences(recorded: &Json, sent: &Json, pointer: &mut String, out: &mut Vec<String>) {
    let place = |pointer: &str| match pointer {
        "" => "the whole document".to_owned(),
        pointer => pointer.to_owned(),
    };
    let mut compare = |pointer: &mut String, recorded: Option<&Json>, sent: Option<&Json>| {
        let only = |json: &Json, whose| {
            format!(
                "{}: only in the {whose}: {}",
                place(pointer),
                diff::cut(&json.to_string())
            )
        };
        match (recorded, sent) {
            (Some(recorded), Some(sent)) => differences(recorded, sent, pointer, out),
            (Some(json), None) => out.push(only(json, "cassette")),
            (None, Some(json)) => out.push(only(json, "request")),
            (None, None) => {}
        }
    };
    match (recorded, sent) {
        (Json::Array(a), Json::Array(b)) => {
            for index in 0..a.len().max(b.len()) {
                nested(pointer, &index.to_string(), |pointer| {
                    compare(pointer, a.get(index), b.get(index));
                });
            }
        }
        (Json::Object(a), Json::Object(b)) => {
            let stands = |key: &str, a: &Json| a.as_str().is_some_and(|a| stands_for_field(key, a));
            for (key, a) in a
                .iter()
                .filter(|(key, a)| member(b, key).is_none() || !stands(key, a))
            {
                nested(pointer, key, |pointer| {
                    compare(pointer, Some(a), member(b, key))
                });
            }
            for (key, b) in b.iter().filter(|(key, _)| member(a, key).is_none()) {
                nested(pointer, key, |pointer| compare(pointer, None, Some(b)));
            }
        }
        _ if recorded.same_leaf(sent) => {}
        (Json::String(a), Json::String(b)) if a.contains('\n') || b.contains('\n') => {
            let lines = diff::lines(a, b);
            out.push(format!(
                "{}: other lines (- cassette, + request)\n{lines}",
                place(pointer)
            ));
        }
        _ => {
            let (a, b) = diff::around_difference(&recorded.to_string(), &sent.to_string());
            out.push(format!(
                "{}: {a} in the cassette, {b} in the request",
                place(pointer)
            ));
        }
    }
}
