//! The format of a cassette file, version 1: JSON that people can read and edit.
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
//! The types in this module define the format: [`File`] is the whole file, and each field is a key.
//! Unknown or duplicate keys, wrong lengths or hashes, and merge conflict markers are errors.
//!
//! # Which interaction answers a request
//!
//! The first matching interaction that has been played fewer than `times` times answers a request.
//! When all matching interactions have been played `times` times, the last one keeps answering if
//! its `repeat_last` is `true`. These parts of the request must match:
//!
//! - the **method**.
//! - the **path**. The host and anything before the last `/malquery/` or `/oauth2/` are ignored.
//! - the **query**, as pairs of names and values. Order matters only among pairs with the same
//!   name. In `ids`, the recorded hash of a job id matches the id.
//! - the **authorization scheme** (such as `Bearer`, or none), unless the recorded request has no
//!   `headers` key. Other headers are ignored.
//! - the **body**. A `json` or `form` body is compared by its values, and any other body byte by
//!   byte. A recorded request without a body matches only requests without one.
//!
//! In a form, a recorded value such as `[client_secret]` (lower-case letters and underscores in
//! square brackets) matches any value. In queries and JSON, only the names of some credentials,
//! such as `[access_token]`, match any value, and only in a field with a similar name.
//!
//! If `redaction` is `falcon-2` and the cassette contains no token requests, a replay answers token
//! requests automatically. For other cassettes, use [`Cassette::client`](crate::Cassette::client),
//! a [`Session`](crate::Session) or [`Cassette::with_tokens`](crate::Cassette::with_tokens).
//!
//! # What is recorded
//!
//! This is all that a [`Session`](crate::Session) records of each exchange:
//!
//! - Requests to `/oauth2/`: nothing. A replay answers token requests automatically.
//! - Other requests: the URL without a user name or password, the method, `accept`,
//!   `accept-encoding`, `content-type`, the scheme of `authorization`, and the body.
//! - Replies: the status, `content-type`, `x-cs-region`, the origin of `location`, `retry-after` in
//!   seconds, and whether the body is incomplete. If there was no reply: the kind of failure.
//! - JSON replies: the values of selected fields, and of those added with
//!   [`also`](crate::Session::also). Other strings, numbers and booleans become `"[text]"`, `0` and
//!   `false`; `null` and `""` are kept. Unknown keys become `[key 1]`, `[key 2]`, and so on.
//! - Ids of jobs, users, errors and traces: made-up ids in their place.
//! - Complete samples and archives: all bytes and `content-length`. They may be **malware**. On
//!   Unix, only the owner can read the files that contain them.
//! - Any other reply body: its size and type, such as `[312 bytes of text/html]`.
//!
//! A session finds its secrets (such as the client id, client secret and tokens) in plain,
//! URL-encoded, JSON-escaped, hex and base64 form, if they have at least 6 bytes. In recorded
//! strings, secrets become `[redacted]`, as do token-like words in error messages. A sample that
//! contains a secret is not saved. An exchange is not saved if its request path, query or body
//! contains a secret.
//!
//! # Compatibility
//!
//! Later versions of this crate read version 1 files in the same way. An extension adds a name to
//! `features` or raises `version`. Versions of this crate that do not support the extension reject
//! the file.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::reply::Fault;

/// The name of the current redaction rules, under which token requests are not recorded.
pub(crate) const REDACTION: &str = "falcon-2";

/// Names and values, such as `[["accept", "application/json"]]`.
pub type Pairs = Vec<(String, String)>;

/// A cassette file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "I: Deserialize<'de>"))]
#[non_exhaustive]
pub struct File<I = Interaction> {
    /// The format version: 1.
    pub version: u32,
    /// The names of the extensions in use. No extensions exist yet.
    #[serde(default, deserialize_with = "given")]
    pub features: Option<Vec<String>>,
    /// The name and version of the program that wrote the file.
    #[serde(default, deserialize_with = "given")]
    pub recorded_with: Option<String>,
    /// The name of the redaction rules: `falcon-2` for [the current ones](self#what-is-recorded). A
    /// session that appends to a cassette leaves this key unchanged.
    #[serde(default, deserialize_with = "given")]
    pub redaction: Option<String>,
    /// The exchanges, in the order of their requests.
    pub interactions: Vec<I>,
}

/// A request, and either its `response` or an `error`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Interaction {
    /// A name, used in messages and by [`Cassette::on`](crate::Cassette::on). It must not be empty.
    pub id: String,
    /// The request to match.
    #[serde(deserialize_with = "object")]
    pub request: Request,
    /// The response.
    #[serde(default, deserialize_with = "part", skip_serializing_if = "absent")]
    pub response: Option<Response>,
    /// The failure that occurs instead of a response.
    #[serde(default, deserialize_with = "part", skip_serializing_if = "absent")]
    pub error: Option<Failure>,
    /// The number of requests that this interaction answers. It must be at least 1. The default is
    /// 1.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "absent")]
    pub times: Option<u32>,
    /// If `true`, the interaction also answers further matching requests, except those that a later
    /// interaction matches.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "absent")]
    pub repeat_last: Option<bool>,
}

/// A recorded request.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Request {
    /// The method, in upper case.
    pub method: String,
    /// A full URL, or a path with an optional query.
    pub uri: String,
    /// The headers. Without this key, the authorization scheme is not compared.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "absent")]
    pub headers: Option<Pairs>,
    /// The body, if any.
    #[serde(default, deserialize_with = "part", skip_serializing_if = "absent")]
    pub body: Option<Body>,
}

/// A recorded response.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Response {
    /// The status code, from 200 to 999.
    pub status: u16,
    /// The headers of the replayed response. No others are added.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "absent")]
    pub headers: Option<Pairs>,
    /// The body, if any.
    #[serde(default, deserialize_with = "part", skip_serializing_if = "absent")]
    pub body: Option<Body>,
    /// The point in the body at which the connection breaks, if it does.
    #[serde(default, deserialize_with = "part", skip_serializing_if = "absent")]
    pub fault: Option<Truncation>,
}

/// A body: exactly one of `json`, `text`, `form`, `base64` and `file`.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Body {
    /// A JSON value. In a response, it is sent in compact form. Its numbers and the order of its
    /// keys are preserved.
    #[serde(deserialize_with = "given", skip_serializing_if = "absent")]
    pub json: Option<AnyJson>,
    /// UTF-8 text.
    #[serde(deserialize_with = "given", skip_serializing_if = "absent")]
    pub text: Option<String>,
    /// The fields of a form.
    #[serde(deserialize_with = "given", skip_serializing_if = "absent")]
    pub form: Option<Pairs>,
    /// The body in base64, split into lines. Requires `len` and `sha256`.
    #[serde(deserialize_with = "given", skip_serializing_if = "absent")]
    pub base64: Option<Vec<String>>,
    /// The path of a body file, relative to the cassette's folder. `len` and `sha256` are optional.
    #[serde(deserialize_with = "given", skip_serializing_if = "absent")]
    pub file: Option<String>,
    /// The length of the body in bytes.
    #[serde(deserialize_with = "given", skip_serializing_if = "absent")]
    pub len: Option<u64>,
    /// The SHA-256 of the body, in lower-case hex.
    #[serde(deserialize_with = "given", skip_serializing_if = "absent")]
    pub sha256: Option<String>,
}

/// A JSON value, exactly as written in the file.
#[derive(Debug, Deserialize, Serialize)]
#[serde(transparent)]
pub struct AnyJson(Box<RawValue>);

impl AnyJson {
    /// Returns the JSON text.
    pub fn get(&self) -> &str {
        self.0.get()
    }

    pub(crate) fn new(text: String) -> Option<Self> {
        RawValue::from_string(text).ok().map(Self)
    }
}

/// The point at which a connection breaks.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Truncation {
    /// The number of body bytes that arrive before the connection breaks.
    pub truncate_after: u64,
}

/// A failure that occurs instead of a response.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Failure {
    /// The kind of failure: `connect_refused`, `dns`, `tls`, `timeout`, `reset` or `eof`.
    pub kind: Fault,
}

fn absent<T>(key: &Option<T>) -> bool {
    key.is_none()
}

/// Reads an optional key. Unlike `Option`, does not treat `null` as missing.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// Reads an optional key that must contain an object. Does not treat `null` as missing.
fn part<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    object(from).map(Some)
}

/// Reads a struct from an object. Serde would also accept an array of the field values.
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
