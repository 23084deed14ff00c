//! The format of a cassette file: JSON, for people to read and edit. Its version is 1.
//!
//! ```
//! let cassette = malquery_mock::Cassette::parse("example", r#"
//! { "version": 1,
//!   "interactions": [
//!     { "id": "hunt.submit",
//!       "request": {
//!         "method": "POST",
//!         "uri": "https://api.crowdstrike.com/malquery/queries/hunt/v1",
//!         "headers": [["authorization", "Bearer [access_token]"]],
//!         "body": { "json": { "yara_rule": "rule gnu { strings: $a = \"GNU\" condition: $a }" } }
//!       },
//!       "response": {
//!         "status": 200,
//!         "headers": [["content-type", "application/json"]],
//!         "body": { "json": { "meta": { "reqid": "a-job", "status": "done" }, "resources": [] } }
//!       } },
//!     { "id": "hunt.poll",
//!       "request": { "method": "GET", "uri": "/malquery/entities/requests/v1?ids=a-job" },
//!       "response": { "status": 200, "body": { "json": { "meta": { "status": "inprogress" } } } },
//!       "times": 2 },
//!     { "id": "hunt.poll",
//!       "request": { "method": "GET", "uri": "/malquery/entities/requests/v1?ids=a-job" },
//!       "error": { "kind": "reset" } }
//!   ] }
//! "#)?;
//! # Ok::<(), malquery_mock::CassetteError>(())
//! ```
//!
//! The types of this module are the format: [`File`] is the whole file, and each field is a key.
//! Unknown and duplicate keys, wrong lengths and hashes, and markers of merge conflicts are errors.
//!
//! # Which interaction answers a request
//!
//! The first interaction in the file that matches it in all of these and was played fewer than
//! `times` times:
//!
//! - the **method**;
//! - the **path**. The host does not count, and neither does what a base URL puts before
//!   `/malquery/` or `/oauth2/`;
//! - the **query**: the same pairs. The order counts only among pairs of one name;
//! - the **authorization scheme** (`Bearer`, `Basic`, another or none), unless the recorded request
//!   has no `headers`. Other headers do not count;
//! - the **body**: JSON and forms by their meaning, others by their bytes. A recorded request
//!   without a body answers only requests without one. In a form, a recorded value such as
//!   `[client_secret]` (lower case and underscores in square brackets) stands for any value. In
//!   queries and JSON it does so only in a field of that name.
//!
//! A cassette of `falcon-2` holds no tokens and answers token requests by itself. For other
//! cassettes, [`Cassette::client`](crate::Cassette::client), a [`Session`](crate::Session) and
//! [`Cassette::with_tokens`](crate::Cassette::with_tokens) answer them.
//!
//! # What is recorded
//!
//! A [`Session`](crate::Session) keeps what is on a list, and nothing else:
//!
//! - Exchanges with `/oauth2/` are never written. A replay answers them by itself.
//! - Of a request: method, path, query, `accept`, `content-type`, the scheme of `authorization`,
//!   and the body as it was sent.
//! - Of a reply: status, `content-type`, `x-cs-region`, `x-cs-traceid`, the origin of `location`,
//!   and the seconds to wait.
//! - JSON replies keep the values of known fields: results, counts, states, quotas, error messages.
//!   Every other value keeps its type: `"[text]"`, `0` or `false`. A key that is no known field
//!   could be a value too, and becomes `[key 1]`. [`Session::also`](crate::Session::also) adds
//!   fields.
//! - Job ids and user ids become others of the same shape. Trace ids and `query_time` become zeros.
//! - Samples and archives stay unchanged. **They are malware**, so the files are readable by their
//!   owner alone.
//! - Any other body becomes its size and type, such as `[312 bytes of text/html]`.
//! - The session's own secrets (id, secret, member CID, tokens) are searched for in all of this:
//!   plain, URL-encoded, escaped as in JSON, in hex and in base64. A reply gets `[redacted]` in
//!   their place. If your own request holds one, that exchange is refused, and the rest can still
//!   be saved. In error messages, long runs that look like a token are masked too.
//!
//! # What stays the same
//!
//! Every later version of this crate reads a file of version 1 in the same way. An extension gets a
//! name in `features`, or a higher `version`, and older versions refuse it by that name.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::reply::Fault;

/// The rules of this version. A file that was recorded by them holds no tokens.
pub(crate) const REDACTION: &str = "falcon-2";

/// A list of pairs, such as `[["accept", "application/json"]]`.
pub type Pairs = Vec<(String, String)>;

/// A cassette.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "I: Deserialize<'de>"))]
#[non_exhaustive]
pub struct File<I = Interaction> {
    /// The version of the format: 1.
    pub version: u32,
    /// The names of extensions. No extension exists yet.
    #[serde(default, deserialize_with = "given")]
    pub features: Option<Vec<String>>,
    /// The program that wrote it.
    #[serde(default, deserialize_with = "given")]
    pub recorded_with: Option<String>,
    /// The rules of the recording: `falcon-2` for [the list above](self#what-is-recorded).
    #[serde(default, deserialize_with = "given")]
    pub redaction: Option<String>,
    /// The exchanges, in their order.
    pub interactions: Vec<I>,
}

/// A request and what answers it: a `response` or an `error`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Interaction {
    /// A name for messages and for [`Cassette::on`](crate::Cassette::on).
    pub id: String,
    /// What was sent.
    #[serde(deserialize_with = "object")]
    pub request: Request,
    /// What came back.
    #[serde(default, deserialize_with = "part", skip_serializing_if = "absent")]
    pub response: Option<Response>,
    /// The failure that came instead of a response.
    #[serde(default, deserialize_with = "part", skip_serializing_if = "absent")]
    pub error: Option<Failure>,
    /// The number of requests it answers: 1 unless given, at least 1.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "absent")]
    pub times: Option<u32>,
    /// `true` lets it answer all further requests that no later interaction answers.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "absent")]
    pub repeat_last: Option<bool>,
}

/// A request.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Request {
    /// The method, in capitals.
    pub method: String,
    /// A whole URL, or a path with a query.
    pub uri: String,
    /// Without this key, the authorization does not count.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "absent")]
    pub headers: Option<Pairs>,
    /// No body unless given.
    #[serde(default, deserialize_with = "part", skip_serializing_if = "absent")]
    pub body: Option<Body>,
}

/// A response.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Response {
    /// From 200 to 999.
    pub status: u16,
    /// All headers of the response. None is added.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "absent")]
    pub headers: Option<Pairs>,
    /// No body unless given.
    #[serde(default, deserialize_with = "part", skip_serializing_if = "absent")]
    pub body: Option<Body>,
    /// Breaks the connection within the body.
    #[serde(default, deserialize_with = "part", skip_serializing_if = "absent")]
    pub fault: Option<Truncation>,
}

/// A body: exactly one of `json`, `text`, `form`, `base64` and `file`.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Body {
    /// Any JSON. It is sent in its shortest form, with its digits and order unchanged.
    #[serde(deserialize_with = "given", skip_serializing_if = "absent")]
    pub json: Option<AnyJson>,
    /// A text.
    #[serde(deserialize_with = "given", skip_serializing_if = "absent")]
    pub text: Option<String>,
    /// The fields of a form.
    #[serde(deserialize_with = "given", skip_serializing_if = "absent")]
    pub form: Option<Pairs>,
    /// Lines of base64, with `len` and `sha256` beside it.
    #[serde(deserialize_with = "given", skip_serializing_if = "absent")]
    pub base64: Option<Vec<String>>,
    /// The path of a file in the folder of the cassette or below. `len` and `sha256` may be beside
    /// it.
    #[serde(deserialize_with = "given", skip_serializing_if = "absent")]
    pub file: Option<String>,
    /// The length in bytes.
    #[serde(deserialize_with = "given", skip_serializing_if = "absent")]
    pub len: Option<u64>,
    /// The SHA-256, in lower case.
    #[serde(deserialize_with = "given", skip_serializing_if = "absent")]
    pub sha256: Option<String>,
}

/// Any JSON, as it is written.
#[derive(Debug, Deserialize, Serialize)]
#[serde(transparent)]
pub struct AnyJson(Box<RawValue>);

impl AnyJson {
    /// The text.
    pub fn get(&self) -> &str {
        self.0.get()
    }

    pub(crate) fn new(text: String) -> Option<Self> {
        RawValue::from_string(text).ok().map(Self)
    }
}

/// Where a connection breaks.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Truncation {
    /// After this many bytes of the body.
    pub truncate_after: u64,
}

/// A failure.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Failure {
    /// Which one: `connect_refused`, `dns`, `tls`, `timeout`, `reset` or `eof`.
    pub kind: Fault,
}

fn absent<T>(key: &Option<T>) -> bool {
    key.is_none()
}

/// A key that may be missing, and is never null.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// The same for an object.
fn part<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    object(from).map(Some)
}

/// An object, where serde alone would also take a list of its values.
pub(super) fn object<'de, T, D>(from: D) -> Result<T, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    struct Object<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map))
        }
    }

    from.deserialize_map(Object(PhantomData))
}
