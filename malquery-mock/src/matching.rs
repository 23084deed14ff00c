//! What an interaction expects of a request, and why a request is not it.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use http::Method;
use http::header::AUTHORIZATION;
use url::form_urlencoded;

use crate::diff;
use crate::digest;
use crate::json::Json;
use crate::pseudonym;
use crate::redact::{
    bytes_name_secret, is_plain, link_gives_secret, names_secret, pair_gives_secret,
};
use crate::secret::{is_placeholder, is_secret_field};

pub(crate) type Pairs = Vec<(String, String)>;

/// The request an interaction answers.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    pub(crate) method: Method,
    /// Where it was sent, which does not count.
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
    /// What stands in a cassette for the ids of the query.
    hashed: OnceCell<Vec<String>>,
    json: OnceCell<Option<Json>>,
}

/// Why a matcher refuses, a line or more for each reason.
pub(crate) type Refusal = Vec<String>;

type Matcher = fn(&Expected, &Seen<'_>) -> Result<(), Refusal>;

/// The matchers, with how much each counts for finding the closest interaction.
const MATCHERS: [(&str, u32, Matcher); 5] = [
    ("path", 8, Expected::path),
    ("method", 4, Expected::method),
    ("query", 2, Expected::query),
    ("authorization", 1, Expected::authorization),
    ("body", 2, Expected::body),
];

impl Expected {
    /// Whether no matcher refuses. It is asked of each interaction for each request, so it gives no reasons.
    pub(crate) fn matches(&self, seen: &Seen<'_>) -> bool {
        let sent = seen.request.body();
        self.method == *seen.request.method()
            && below_base(&self.path) == below_base(seen.request.uri().path())
            && self
                .scheme
                .as_ref()
                .is_none_or(|scheme| *scheme == seen.scheme)
            && same_pairs(&self.query, &seen.query, false, |at| seen.hashed(at).into())
            && match &self.body {
                Body::Empty => sent.is_empty(),
                Body::Json(expected) => seen.json().is_some_and(|json| expected.agrees(json)),
                Body::Form(expected) => {
                    let sent: Pairs = form_urlencoded::parse(sent).into_owned().collect();
                    same_pairs(expected, &sent, true, |at| hashed(&sent[at].1).into())
                }
                Body::Bytes(expected) => **expected == **sent,
            }
    }

    /// What each matcher says.
    pub(crate) fn verdicts(&self, seen: &Seen<'_>) -> Vec<(&'static str, Result<(), Refusal>)> {
        MATCHERS
            .iter()
            .map(|(name, _, matcher)| (*name, matcher(self, seen)))
            .collect()
    }

    /// How close the request is: first what agrees, then how little differs.
    pub(crate) fn closeness(&self, seen: &Seen<'_>) -> (u32, std::cmp::Reverse<usize>) {
        let mut score = 0;
        let mut reasons = 0;
        for (_, weight, matcher) in &MATCHERS {
            match matcher(self, seen) {
                Ok(()) => score += weight,
                Err(refusal) => reasons += refusal.len(),
            }
        }
        (score, std::cmp::Reverse(reasons))
    }

    fn method(&self, seen: &Seen<'_>) -> Result<(), Refusal> {
        equal(&self.method, seen.request.method())
    }

    fn path(&self, seen: &Seen<'_>) -> Result<(), Refusal> {
        let (recorded, sent) = (
            below_base(&self.path),
            below_base(seen.request.uri().path()),
        );
        if recorded != sent && [recorded, sent].into_iter().any(link_gives_secret) {
            return Err(vec!["another one, which is not shown".into()]);
        }
        equal(&recorded, &sent)
    }

    fn query(&self, seen: &Seen<'_>) -> Result<(), Refusal> {
        pairs(&self.query, &seen.query, false)
    }

    fn authorization(&self, seen: &Seen<'_>) -> Result<(), Refusal> {
        let Some(expected) = &self.scheme else {
            return Ok(());
        };
        let name = |scheme: &Option<String>| scheme.clone().unwrap_or_else(|| "none".into());
        equal(&name(expected), &name(&seen.scheme))
    }

    fn body(&self, seen: &Seen<'_>) -> Result<(), Refusal> {
        let sent = seen.request.body();
        match &self.body {
            Body::Empty if sent.is_empty() => Ok(()),
            Body::Empty => Err(vec![format!(
                "none in the cassette, {} in the request",
                digest::describe(sent)
            )]),
            Body::Json(expected) => {
                let Some(json) = seen.json() else {
                    let sent = if sent.is_empty() {
                        "none".into()
                    } else {
                        digest::describe(sent)
                    };
                    return Err(vec![format!("JSON in the cassette, {sent} in the request")]);
                };
                let mut reasons = Vec::new();
                expected.differences(json, &mut String::new(), &mut reasons);
                if reasons.is_empty() {
                    Ok(())
                } else {
                    Err(reasons)
                }
            }
            Body::Form(_) if !std::str::from_utf8(sent).is_ok_and(is_plain) => Err(vec![format!(
                "a form in the cassette, {} in the request",
                digest::describe(sent)
            )]),
            Body::Form(expected) => {
                let sent: Pairs = form_urlencoded::parse(sent).into_owned().collect();
                pairs(expected, &sent, true)
            }
            Body::Bytes(expected) if **expected == **sent => Ok(()),
            Body::Bytes(expected) if sent.is_empty() => Err(vec![format!(
                "{} in the cassette, none in the request",
                digest::describe(expected)
            )]),
            Body::Bytes(expected) => {
                let text = |bytes| {
                    std::str::from_utf8(bytes)
                        .ok()
                        .filter(|text| !may_hold_secret(text))
                };
                Err(vec![match (text(expected), text(sent)) {
                    (Some(expected), Some(sent)) => {
                        format!(
                            "other lines (- cassette, + request)\n{}",
                            diff::lines(expected, sent)
                        )
                    }
                    _ => format!(
                        "{} in the cassette, {} in the request",
                        digest::describe(expected),
                        digest::describe(sent)
                    ),
                }])
            }
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
            hashed: OnceCell::new(),
            json: OnceCell::new(),
        }
    }

    /// What stands in a cassette for the ids in a pair of the query.
    fn hashed(&self, at: usize) -> &str {
        &self
            .hashed
            .get_or_init(|| self.query.iter().map(|(_, value)| hashed(value)).collect())[at]
    }

    fn json(&self) -> Option<&Json> {
        let parse = || Json::parse(std::str::from_utf8(self.request.body()).ok()?).ok();
        self.json.get_or_init(parse).as_ref()
    }

    /// Whether it asks for a token.
    pub(crate) fn is_token_request(&self) -> bool {
        self.request.method() == Method::POST
            && below_base(self.request.uri().path()) == "/oauth2/token"
    }

    pub(crate) fn line(&self) -> String {
        let uri = self.request.uri();
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        if link_gives_secret(uri.path()) {
            return format!("{} [a path that is not shown]", self.request.method());
        }
        let hidden =
            |name: &str, value: &str| is_secret_field(name) || pair_gives_secret(name, value);
        if !self.query.iter().any(|(name, value)| hidden(name, value)) {
            return format!("{} {path}", self.request.method());
        }
        let shown = |(name, value): &(String, String)| match hidden(name, value) {
            true => format!("{}=[redacted]", shown_name(name)),
            false => format!("{}={value}", shown_name(name)),
        };
        let query: Vec<_> = self.query.iter().map(shown).collect();
        format!(
            "{} {}?{}",
            self.request.method(),
            uri.path(),
            query.join("&")
        )
    }
}

/// The path without the prefix a base URL may have.
pub(crate) fn below_base(path: &str) -> &str {
    ["/malquery/", "/oauth2/"]
        .iter()
        .filter_map(|start| path.rfind(start))
        .max()
        .map_or(path, |at| &path[at..])
}

const SCHEMES: [&str; 7] = [
    "Basic",
    "Bearer",
    "Digest",
    "Negotiate",
    "NTLM",
    "OAuth",
    "Token",
];
/// What stands for every other scheme.
pub(crate) const OTHER_SCHEME: &str = "other";

/// The scheme of an `Authorization` header, such as `Bearer`. The rest of the value is a secret, and so may be the
/// first word when it is no scheme that is known.
pub(crate) fn scheme(value: &[u8]) -> String {
    let word = value
        .split(u8::is_ascii_whitespace)
        .next()
        .unwrap_or_default();
    let known = SCHEMES
        .iter()
        .find(|scheme| scheme.as_bytes().eq_ignore_ascii_case(word));
    known.map_or(OTHER_SCHEME, |scheme| scheme).to_owned()
}

fn equal<T: PartialEq + ToString>(recorded: &T, sent: &T) -> Result<(), Refusal> {
    if recorded == sent {
        return Ok(());
    }
    Err(vec![format!(
        "{} in the cassette, {} in the request",
        recorded.to_string(),
        sent.to_string()
    )])
}

/// What stands in a cassette for the ids of jobs that the program brought along.
fn hashed(ids: &str) -> String {
    ids.split(',')
        .map(|id| {
            if pseudonym::is_id(id) {
                pseudonym::hashed(id)
            } else {
                id.to_owned()
            }
        })
        .collect::<Vec<_>>()
        .join(",")
}

/// Whether a recorded value is the one that was sent, or stands for it.
fn same_value<'a>(
    name: &str,
    recorded: &str,
    sent: &str,
    placeholders: bool,
    hashed: impl FnOnce() -> Cow<'a, str>,
) -> bool {
    recorded == sent
        || (is_placeholder(recorded) && (placeholders || is_secret_field(name)))
        || (name == "ids" && recorded == hashed())
}

/// Whether [`pairs`] has nothing to say; `hashed` gives what stands for one of those that were sent.
fn same_pairs<'a>(
    recorded: &Pairs,
    sent: &Pairs,
    placeholders: bool,
    hashed: impl Fn(usize) -> Cow<'a, str>,
) -> bool {
    // Those of one name keep their order.
    let by_name = |pairs: &Pairs| {
        let mut order: Vec<usize> = (0..pairs.len()).collect();
        order.sort_by_key(|at| &pairs[*at].0);
        order
    };
    recorded.len() == sent.len()
        && by_name(recorded)
            .into_iter()
            .zip(by_name(sent))
            .all(|(a, b)| {
                let ((name, recorded), (other, sent)) = (&recorded[a], &sent[b]);
                name == other && same_value(name, recorded, sent, placeholders, || hashed(b))
            })
}

/// Whether a body that is no JSON and no form may have a secret in it.
fn may_hold_secret(text: &str) -> bool {
    if is_plain(text) {
        names_secret(text)
    } else {
        bytes_name_secret(text.as_bytes())
    }
}

/// The name of a pair as it may be shown: all of what is no form stands in one.
fn shown_name(name: &str) -> &str {
    if names_secret(name) {
        "[redacted]"
    } else {
        name
    }
}

/// Compares pairs, whatever the order of different names.
fn pairs(recorded: &Pairs, sent: &Pairs, placeholders: bool) -> Result<(), Refusal> {
    let names: BTreeSet<&str> = recorded
        .iter()
        .chain(sent)
        .map(|(name, _)| name.as_str())
        .collect();
    let mut reasons = Vec::new();
    for name in names {
        let of = |pairs: &'_ Pairs| -> Vec<String> {
            pairs
                .iter()
                .filter(|(key, _)| key == name)
                .map(|(_, value)| value.clone())
                .collect()
        };
        let (recorded, sent) = (of(recorded), of(sent));
        let same = recorded.len() == sent.len()
            && recorded
                .iter()
                .zip(&sent)
                .all(|(a, b)| same_value(name, a, b, placeholders, || hashed(b).into()));
        if !same && recorded.len() == sent.len() && is_secret_field(name) {
            reasons.push(format!(
                "{}: the values differ, and are not shown",
                shown_name(name)
            ));
        } else if !same {
            let show = |values: &[String]| -> Cow<'static, str> {
                if values.is_empty() {
                    "nothing".into()
                } else if is_secret_field(name)
                    || values.iter().any(|value| pair_gives_secret(name, value))
                {
                    "[redacted]".into()
                } else {
                    diff::cut(&values.join(", ")).into()
                }
            };
            reasons.push(format!(
                "{}: {} in the cassette, {} in the request",
                shown_name(name),
                show(&recorded),
                show(&sent)
            ));
        }
    }
    if reasons.is_empty() {
        Ok(())
    } else {
        Err(reasons)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_pairs() -> impl Strategy<Value = Pairs> {
        let name = prop::sample::select(vec!["a", "ids", "token"]);
        let value = prop::sample::select(vec!["", "x", "[token]", "x,12345678", "12345678"]);
        prop::collection::vec(
            (name.prop_map(String::from), value.prop_map(String::from)),
            0..4,
        )
    }

    proptest! {
        #[test]
        fn what_matches_is_refused_by_no_matcher(
            recorded in any_pairs(),
            sent in prop_oneof![any_pairs().prop_map(Some), Just(None)],
            turn in 0_usize..4,
            hash in any::<bool>(),
            placeholders in any::<bool>(),
        ) {
            let mut sent = sent.unwrap_or_else(|| recorded.clone());
            let count = sent.len();
            sent.rotate_left(turn.min(count));
            let hash = |(name, value): (String, String)| {
                let value = if hash && name == "ids" { hashed(&value) } else { value };
                (name, value)
            };
            let recorded: Pairs = recorded.into_iter().map(hash).collect();
            let same = same_pairs(&recorded, &sent, placeholders, |at| hashed(&sent[at].1).into());
            prop_assert_eq!(same, pairs(&recorded, &sent, placeholders).is_ok());
        }
    }

    #[test]
    fn a_prefix_of_the_base_url_does_not_count() {
        for path in [
            "/malquery/a/v1",
            "/falcon/malquery/a/v1",
            "/malquery/malquery/a/v1",
        ] {
            assert_eq!(below_base(path), "/malquery/a/v1");
        }
        assert_eq!(below_base("/x/oauth2/token"), "/oauth2/token");
        assert_eq!(below_base("/other"), "/other");
    }

    #[test]
    fn schemes_and_placeholders() {
        assert_eq!(scheme(b"bearer abc"), "Bearer");
        assert_eq!(scheme(b"basic\tabc"), "Basic");
        for value in [
            "\u{fc} x",
            "",
            "a-bare-key",
            "a-key rest",
            "Bearerabc",
            "other [credentials]",
        ] {
            assert_eq!(scheme(value.as_bytes()), "other", "{value}");
        }
        assert!(is_placeholder("[client_secret]"));
        for value in ["[]", "client", "[a b]", "[A]", "["] {
            assert!(!is_placeholder(value), "{value}");
        }
    }
}
