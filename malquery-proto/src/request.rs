//! Builds requests.

use std::fmt;

use http::header::{self, HeaderMap, HeaderValue};
use serde::Serialize;
use url::form_urlencoded;

use crate::cloud::BaseUrl;
use crate::debug::debug_with_sources;
use crate::endpoint::Endpoint;

/// The limit on the length of a URL, in bytes. A URL must be shorter than this limit.
pub const MAX_URL: usize = 8_000;

/// A request extension that requires a new connection. The connection of an earlier attempt
/// delivered a wrong or unreadable reply, so it must not be used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewConnection;

/// The reason a request was rejected before it was sent.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The search has no patterns.
    #[error("a search needs at least one pattern")]
    NoPatterns,
    /// The request names no samples.
    #[error("at least one SHA-256 is required")]
    NoSamples,
    /// The YARA rule of a hunt is empty or contains only whitespace.
    #[error("the YARA rule is empty")]
    EmptyRule,
    /// The limit is zero.
    #[error("the limit is 0; set it to at least 1")]
    ZeroLimit,
    /// The limit is greater than 2,147,483,647, the maximum of an `i32`.
    #[error("a limit of {0} is too large; the maximum is 2147483647")]
    LimitTooLarge(u32),
    /// The minimum of a range is greater than its maximum.
    #[error("the minimum {what} {min} is greater than the maximum {max}, so nothing can match")]
    #[allow(missing_docs)]
    EmptyRange {
        what: &'static str,
        min: String,
        max: String,
    },
    /// The URL is too long, usually because the request has too many ids.
    #[error("the URL would be {0} bytes long, but must be shorter than {max} bytes; request fewer ids at a time", max = MAX_URL)]
    UrlTooLong(usize),
    /// The client id or the secret is empty.
    #[error("the {0} is empty")]
    EmptyCredential(&'static str),
    /// The client's token was obtained elsewhere, so it is not valid for a Flight Control child.
    #[error(
        "a token obtained elsewhere is valid only for the customer that it was issued to; use credentials to act for a Flight Control child"
    )]
    NoChildToken,
    /// The options conflict or include a reserved name, or part of the request cannot be
    /// represented in HTTP or JSON.
    #[error("the request cannot be encoded: {0}")]
    Malformed(String),
}

debug_with_sources!(BuildError);

/// A request under construction, which
/// [`Operation::encode`](crate::operation::Operation::encode) fills in.
#[derive(Debug)]
pub struct RequestParts {
    endpoint: Endpoint,
    uri: String,
    pub(crate) headers: HeaderMap,
    body: Vec<u8>,
}

impl RequestParts {
    pub(crate) fn new(base: &BaseUrl, endpoint: &Endpoint) -> Self {
        let mut uri = String::with_capacity(base.as_str().len() + endpoint.path.len() + 80);
        uri.push_str(base.as_str());
        uri.push_str(endpoint.path);
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(header::ACCEPT, HeaderValue::from_static(endpoint.accept));
        Self {
            endpoint: endpoint.clone(),
            uri,
            headers,
            body: Vec::new(),
        }
    }

    /// Adds a parameter to the query. The value is URL-encoded; the name is not. Several parameters
    /// can have the same name.
    pub fn query(&mut self, name: &'static str, value: impl fmt::Display) {
        self.uri
            .push(if self.uri.contains('?') { '&' } else { '?' });
        self.uri.push_str(name);
        self.uri.push('=');
        self.uri.extend(form_urlencoded::byte_serialize(
            value.to_string().as_bytes(),
        ));
    }

    /// Sets the body to a value serialized as JSON.
    ///
    /// # Errors
    /// Returns [`BuildError::Malformed`] if the value cannot be serialized.
    pub fn json(&mut self, body: &impl Serialize) -> Result<(), BuildError> {
        self.body =
            serde_json::to_vec(body).map_err(|error| BuildError::Malformed(error.to_string()))?;
        self.headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        Ok(())
    }

    /// Sets the body to a URL-encoded form.
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

    /// Requests an uncompressed reply, because the length of a compressed one cannot be checked.
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
            .method(self.endpoint.method.clone())
            .uri(self.uri)
            .body(self.body)
            .map_err(|error| BuildError::Malformed(error.to_string()))?;
        *request.headers_mut() = self.headers;
        request.extensions_mut().insert(self.endpoint);
        Ok(request)
    }
}
