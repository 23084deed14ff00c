//! How a request is built.

use std::fmt;

use http::header::{self, HeaderMap, HeaderValue};
use serde::Serialize;
use url::form_urlencoded;

use crate::cloud::BaseUrl;
use crate::debug::debug_with_sources;
use crate::endpoint::Endpoint;

/// The limit for a URL in bytes: every URL is shorter.
pub const MAX_URL: usize = 8_000;
/// A request that was refused before anything was sent. Nothing was billed.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A search without patterns.
    #[error("a search needs at least one pattern")]
    NoPatterns,
    /// A request about samples without a sample.
    #[error("name at least one SHA-256")]
    NoSamples,
    /// A hunt with an empty YARA rule.
    #[error("the YARA rule is empty")]
    EmptyRule,
    /// A limit of zero.
    #[error("a limit of 0 returns nothing; give at least 1")]
    ZeroLimit,
    /// A limit that the service cannot read.
    #[error("a limit of {0} is too large; give at most 2147483647")]
    LimitTooLarge(u32),
    /// A range whose start is above its end.
    #[error("the smallest {what} {min} is above the largest {max}, so nothing can match")]
    #[allow(missing_docs)]
    EmptyRange {
        what: &'static str,
        min: String,
        max: String,
    },
    /// More ids than a URL can hold.
    #[error("the URL would have {0} bytes and must stay below {max}; ask for fewer ids at once", max = MAX_URL)]
    UrlTooLong(usize),
    /// Credentials with an empty client id or secret.
    #[error("the {0} is empty")]
    EmptyCredential(&'static str),
    /// A child customer of a client that has a token from elsewhere.
    #[error(
        "a token from elsewhere acts for its own customer alone; give credentials to act for a child"
    )]
    NoChildToken,
    /// A part of the request that HTTP or JSON cannot represent.
    #[error("the request cannot be written: {0}")]
    Malformed(String),
}

debug_with_sources!(BuildError);

/// A request under construction. [`Operation::encode`](crate::operation::Operation::encode) fills
/// it.
#[derive(Debug)]
pub struct RequestParts {
    meta: Endpoint,
    uri: String,
    has_query: bool,
    pub(crate) headers: HeaderMap,
    body: Vec<u8>,
}

impl RequestParts {
    pub(crate) fn new(base: &BaseUrl, meta: &Endpoint) -> Self {
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

    /// Adds a pair to the query. The name is written unchanged and may repeat.
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

    /// Asks for uncompressed bytes: a compressed sample could not be checked against its declared
    /// length.
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
