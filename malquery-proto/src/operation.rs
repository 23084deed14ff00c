//! What an operation is, and what all of them share: how a request is put together, and how the status,
//! the headers and the errors of a reply are read.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use serde::Serialize;
use url::form_urlencoded;

use crate::cloud::BaseUrl;
use crate::error::{ApiError, BuildError, DecodeError, ResponseError};
use crate::oauth2::BearerToken;
use crate::stream::StreamCheck;
use crate::time::Timestamp;
use crate::types::extra::Item;
use crate::types::{Envelope, ReplyMeta};

/// A URL that is sent is shorter than this, in bytes.
pub const MAX_URL: usize = 8_000;

/// The largest body read as an error, in bytes.
pub const MAX_ERROR_BODY: u64 = 64 * 1024;

/// The largest JSON reply that is read, in bytes. 100,000 results take about 30 MB.
pub const MAX_JSON_BODY: u64 = 256 * 1024 * 1024;

/// What is known of an operation before it is called. Every request carries it as an extension, so that a
/// transport can, say, wait longer for a slow one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Meta {
    /// The operation id of CrowdStrike's API description.
    pub id: &'static str,
    /// The HTTP method.
    pub method: Method,
    /// The path below the base URL.
    pub path: &'static str,
    /// The media type asked for.
    pub accept: &'static str,
    /// The scope the API client needs; `None` for the token endpoints.
    pub scope: Option<Scope>,
    /// Whether the request may be sent again.
    pub replay: Replay,
}

impl Meta {
    /// An operation that only looks: a GET with the scope `malquery:read` that answers with JSON and may be sent again.
    pub const fn get(id: &'static str, path: &'static str) -> Self {
        Self::new(Method::GET, id, path, Scope::Read, Replay::Safe)
    }

    /// An operation that starts something: a POST with the scope `malquery:write` that answers with JSON. Each arrival may be
    /// [billed](Replay::Billed), unless it is said to be [safe](Meta::safe).
    pub const fn post(id: &'static str, path: &'static str) -> Self {
        Self::new(Method::POST, id, path, Scope::Write, Replay::Billed)
    }

    const fn new(
        method: Method,
        id: &'static str,
        path: &'static str,
        scope: Scope,
        replay: Replay,
    ) -> Self {
        Self {
            id,
            method,
            path,
            accept: "application/json",
            scope: Some(scope),
            replay,
        }
    }

    /// The same that answers with this media type.
    pub const fn accept(mut self, accept: &'static str) -> Self {
        self.accept = accept;
        self
    }

    /// The same that may be sent again: see [`Replay::Safe`].
    pub const fn safe(mut self) -> Self {
        self.replay = Replay::Safe;
        self
    }

    /// The same without a scope, as the token endpoints are.
    pub(crate) const fn unscoped(mut self) -> Self {
        self.scope = None;
        self
    }
}

/// What an operation takes of the monthly quotas.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Cost {
    /// So many hunts.
    pub hunts: u64,
    /// So many downloads, one for each sample.
    pub downloads: u64,
}

impl Cost {
    /// So many hunts.
    pub const fn hunts(hunts: u64) -> Self {
        Self {
            hunts,
            downloads: 0,
        }
    }

    /// So many downloads.
    pub const fn downloads(downloads: u64) -> Self {
        Self {
            hunts: 0,
            downloads,
        }
    }
}

/// A scope an API client is given in the Falcon console.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// `malquery:read`, for what only looks.
    Read,
    /// `malquery:write`, for what starts a search or a download job.
    Write,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "malquery:read",
            Self::Write => "malquery:write",
        })
    }
}

/// Whether a request may be sent again when its outcome is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Replay {
    /// Sending it again after a failure is not known to cost anything more.
    Safe,
    /// Each arrival may be billed to a monthly quota: sent again only when it surely did not arrive.
    Billed,
}

/// An operation of the API: a value that says what to ask.
///
/// The nine of MalQuery are in [`operations`](crate::operations).
///
/// ```
/// use malquery_proto::error::BuildError;
/// use malquery_proto::operation::{JsonOperation, Meta, Operation, RequestParts};
/// use malquery_proto::types::{Json, PlainMeta};
///
/// /// One that this crate does not have yet, say. A client calls it like any other.
/// struct Rules {
///     limit: u32,
/// }
///
/// impl Operation for Rules {
///     const META: Meta = Meta::get("GetRules", "/malquery/entities/rules/v1");
///
///     fn encode(&self, out: &mut RequestParts) -> Result<(), BuildError> {
///         out.query("limit", self.limit);
///         Ok(())
///     }
/// }
///
/// impl JsonOperation for Rules {
///     type Meta = PlainMeta;
///     type Resource = Json;
/// }
/// # use malquery_proto::oauth2::BearerToken;
/// # let request = Rules { limit: 5 }.request(&malquery_proto::Cloud::Us1.into(), &BearerToken::new("t").unwrap()).unwrap();
/// # assert!(request.uri().to_string().ends_with("/malquery/entities/rules/v1?limit=5"));
/// ```
pub trait Operation {
    /// What is known beforehand.
    const META: Meta;

    /// Writes the query or the body.
    ///
    /// # Errors
    /// Refuses what the service would refuse, or what cannot find anything.
    fn encode(&self, out: &mut RequestParts) -> Result<(), BuildError>;

    /// What it takes of the monthly quotas, as far as that is known: nothing, unless an operation says otherwise.
    fn cost(&self) -> Cost {
        Cost::default()
    }

    /// The request, ready to be sent.
    ///
    /// # Errors
    /// As [`Operation::encode`]; also a URL of [`MAX_URL`] bytes or more.
    fn request(
        &self,
        base: &BaseUrl,
        bearer: &BearerToken,
    ) -> Result<http::Request<Vec<u8>>, BuildError> {
        let mut request = unsigned(self, base)?;
        request
            .headers_mut()
            .insert(header::AUTHORIZATION, bearer.header());
        Ok(request)
    }

    /// Reads a reply that is no success. Give it at least the first [`MAX_ERROR_BODY`] bytes of the body.
    fn error(&self, head: ResponseHead<'_>, body: &[u8]) -> ApiError {
        ApiError::new(&Self::META, head, body)
    }
}

/// The request without a token, so that what cannot be sent is refused before a token is asked for.
pub(crate) fn unsigned<O: Operation + ?Sized>(
    operation: &O,
    base: &BaseUrl,
) -> Result<http::Request<Vec<u8>>, BuildError> {
    let mut parts = RequestParts::new(base, &O::META);
    operation.encode(&mut parts)?;
    parts.finish()
}

/// An operation that answers with a JSON document.
pub trait JsonOperation: Operation {
    /// What the document says of itself: [`PlainMeta`], or one of the others in [`types`](crate::types) with a name that ends
    /// so. Others cannot be made outside of this crate.
    ///
    /// [`PlainMeta`]: crate::types::PlainMeta
    type Meta: ReplyMeta;
    /// One result: a [`Sample`](crate::types::Sample), or any [`Json`](crate::types::Json). Others cannot be made outside of
    /// this crate.
    type Resource: Item;

    /// Reads the reply.
    ///
    /// # Errors
    /// [`ResponseError::Api`] for any status but 2xx, and for a body that cannot be read as a result but holds errors;
    /// [`ResponseError::Decode`] for a body that is not the JSON it should be. Errors beside a result, which may be
    /// empty, are left in the envelope.
    fn response(
        &self,
        head: ResponseHead<'_>,
        body: &[u8],
    ) -> Result<JsonReply<Self>, ResponseError> {
        let output: Envelope<Self::Meta, Self::Resource> = read_json(&Self::META, head, body)?;
        let trace_id = output.meta.trace_id().map(Into::into);
        Ok(Reply::new(head, trace_id, output))
    }
}

/// The reply to a [`JsonOperation`].
pub type JsonReply<O> = Reply<Envelope<<O as JsonOperation>::Meta, <O as JsonOperation>::Resource>>;

/// An operation that answers with bytes: a sample, or an archive of samples.
pub trait StreamOperation: Operation {
    /// What the body must satisfy, given the head of a successful reply.
    fn check(&self, head: ResponseHead<'_>) -> StreamCheck;

    /// Reads the head of a reply. `None` says that it is no success: read the body and give both to
    /// [`Operation::error`]. The status alone decides, since a sample may look like anything, even like an error.
    fn response(&self, head: ResponseHead<'_>) -> Option<Reply<StreamCheck>> {
        head.status
            .is_success()
            .then(|| Reply::new(head, None, self.check(head)))
    }
}

/// Reads a JSON document of type `T` from a reply.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(
    meta: &Meta,
    head: ResponseHead<'_>,
    body: &[u8],
) -> Result<T, ResponseError> {
    if !head.status.is_success() {
        return Err(ResponseError::Api(Box::new(ApiError::new(
            meta, head, body,
        ))));
    }
    if body.len() as u64 > MAX_JSON_BODY {
        return Err(ResponseError::Decode(Box::new(DecodeError::too_large(
            meta, head, body,
        ))));
    }
    serde_json::from_str(&json_text(body)).map_err(|why| {
        let error = ApiError::new(meta, head, body);
        if error.errors().is_empty() {
            ResponseError::Decode(Box::new(DecodeError::new(meta, head, body, why)))
        } else {
            ResponseError::Api(Box::new(error))
        }
    })
}

/// The text of a body. Some gateways put a byte order mark first, and an odd byte in the name of a malware family is no
/// reason to lose the results of a hunt. It is checked once as a whole, which is faster than text by text.
pub(crate) fn json_text(body: &[u8]) -> Cow<'_, str> {
    let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    std::str::from_utf8(text).map_or_else(|_| String::from_utf8_lossy(text), Cow::Borrowed)
}

/// A request in the making. [`Operation::encode`] fills it.
#[derive(Debug)]
pub struct RequestParts {
    meta: Meta,
    uri: String,
    has_query: bool,
    pub(crate) headers: HeaderMap,
    body: Vec<u8>,
}

impl RequestParts {
    pub(crate) fn new(base: &BaseUrl, meta: &Meta) -> Self {
        let mut uri = String::with_capacity(base.as_str().len() + meta.path.len() + 80);
        uri.push_str(base.as_str());
        uri.push_str(meta.path);
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(header::ACCEPT, HeaderValue::from_static(meta.accept));
        Self {
            meta: meta.clone(),
            uri,
            has_query: false,
            headers,
            body: Vec::new(),
        }
    }

    /// Adds a pair to the query. A name, which is written as it is, may come several times.
    pub fn query(&mut self, name: &'static str, value: impl fmt::Display) {
        self.uri.push(if self.has_query { '&' } else { '?' });
        self.has_query = true;
        self.uri.push_str(name);
        self.uri.push('=');
        self.uri.extend(form_urlencoded::byte_serialize(
            value.to_string().as_bytes(),
        ));
    }

    /// Sets a JSON body.
    ///
    /// # Errors
    /// Fails when the value cannot be written as JSON.
    pub fn json(&mut self, body: &impl Serialize) -> Result<(), BuildError> {
        self.body =
            serde_json::to_vec(body).map_err(|error| BuildError::Malformed(error.to_string()))?;
        self.headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        Ok(())
    }

    /// Sets a form as the body.
    pub(crate) fn form<'a>(&mut self, fields: impl IntoIterator<Item = (&'a str, &'a str)>) {
        self.body = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish()
            .into_bytes();
        self.headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
    }

    /// Asks for the bytes as they are: a compressed sample could not be checked against its declared length.
    pub fn identity(&mut self) {
        self.headers.insert(
            header::ACCEPT_ENCODING,
            HeaderValue::from_static("identity"),
        );
    }

    pub(crate) fn finish(self) -> Result<http::Request<Vec<u8>>, BuildError> {
        if self.uri.len() >= MAX_URL {
            return Err(BuildError::UrlTooLong(self.uri.len()));
        }
        let mut request = http::Request::builder()
            .method(self.meta.method.clone())
            .uri(self.uri)
            .body(self.body)
            .map_err(|error| BuildError::Malformed(error.to_string()))?;
        *request.headers_mut() = self.headers;
        request.extensions_mut().insert(self.meta);
        Ok(request)
    }
}

/// The status and the headers of a reply.
#[derive(Debug, Clone, Copy)]
pub struct ResponseHead<'a> {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: &'a HeaderMap,
}

impl<'a, B> From<&'a http::Response<B>> for ResponseHead<'a> {
    fn from(response: &'a http::Response<B>) -> Self {
        Self {
            status: response.status(),
            headers: response.headers(),
        }
    }
}

impl<'a> ResponseHead<'a> {
    fn text(&self, name: &HeaderName) -> Option<&'a str> {
        self.headers
            .get(name)?
            .to_str()
            .ok()
            .map(str::trim)
            .filter(|text| !text.is_empty())
    }

    /// The id to give to CrowdStrike's support.
    pub fn trace_id(&self) -> Option<&'a str> {
        self.text(&HeaderName::from_static("x-cs-traceid"))
    }

    /// The cloud the reply names.
    pub fn region(&self) -> Option<&'a str> {
        self.text(&HeaderName::from_static("x-cs-region"))
    }

    pub(crate) fn location(&self) -> Option<&'a str> {
        self.text(&header::LOCATION)
    }

    pub(crate) fn content_encoding(&self) -> Option<&'a str> {
        self.text(&header::CONTENT_ENCODING)
    }

    pub(crate) fn content_length(&self) -> Option<u64> {
        self.text(&header::CONTENT_LENGTH)?.parse().ok()
    }

    /// The rate limit the reply states.
    pub fn rate_limit(&self) -> RateLimit {
        let number = |name| {
            self.text(&HeaderName::from_static(name))
                .and_then(|text| text.parse::<u64>().ok())
        };
        let date = |text: &str| {
            let date = jiff::fmt::rfc2822::DateTimeParser::new()
                .parse_timestamp(text)
                .ok()?;
            Some(Timestamp::from_millis(
                u64::try_from(date.as_millisecond()).ok()?,
            ))
        };
        // The clock here may be wrong by more than the pause is long: the one of the service says how long that is.
        let sent = self.text(&header::DATE).and_then(date);
        let at =
            |time: Timestamp| sent.map_or(Retry::At(time), |sent| Retry::After(time.since(sent)));
        let after = || {
            let text = self.text(&header::RETRY_AFTER)?;
            match text.parse() {
                Ok(seconds) => Some(Retry::After(Duration::from_secs(seconds))),
                Err(_) => date(text).map(at),
            }
        };
        // CrowdStrike's description says milliseconds, all that was seen is seconds; 1e11 seconds are the year 5138.
        let epoch = |epoch: u64| {
            at(Timestamp::from_millis(if epoch > 100_000_000_000 {
                epoch
            } else {
                epoch.saturating_mul(1000)
            }))
        };
        RateLimit {
            limit: number("x-ratelimit-limit"),
            remaining: number("x-ratelimit-remaining"),
            retry: number("x-ratelimit-retryafter").map(epoch).or_else(after),
        }
    }
}

/// The rate limit of the account: 6,000 requests a minute for all of its API clients together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimit {
    /// Requests a minute.
    pub limit: Option<u64>,
    /// Requests left.
    pub remaining: Option<u64>,
    /// When to send the next request; only on some 429 replies.
    pub retry: Option<Retry>,
}

/// When a reply asks to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// At this time; only where the reply does not tell its own.
    At(Timestamp),
    /// This long after the reply.
    After(Duration),
}

impl Retry {
    /// The time, for a reply that came at `now`.
    pub fn at(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(time) => time,
            Self::After(duration) => now.after(duration),
        }
    }
}

/// A reply, with what its head says. It dereferences to the output.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Reply<T> {
    /// What was asked for.
    pub output: T,
    /// The HTTP status, some 2xx.
    pub status: StatusCode,
    /// The id to give to CrowdStrike's support.
    pub trace_id: Option<String>,
    /// The rate limit.
    pub rate_limit: RateLimit,
}

impl<T> Reply<T> {
    pub(crate) fn new(head: ResponseHead<'_>, trace_id: Option<String>, output: T) -> Self {
        Self {
            output,
            status: head.status,
            trace_id: head.trace_id().map(Into::into).or(trace_id),
            rate_limit: head.rate_limit(),
        }
    }

    /// The same reply with another output.
    #[cfg(feature = "client")]
    pub(crate) fn map<U>(self, to: impl FnOnce(T) -> U) -> Reply<U> {
        let Self {
            output,
            status,
            trace_id,
            rate_limit,
        } = self;
        Reply {
            output: to(output),
            status,
            trace_id,
            rate_limit,
        }
    }
}

impl<T> std::ops::Deref for Reply<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.output
    }
}

impl<T> std::ops::DerefMut for Reply<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.output
    }
}
