//! Error replies, and an overview of the main error types.
//!
//! - [`BuildError`](crate::request::BuildError): a request was rejected before it was sent.
//! - [`ResponseError`]: a reply is an error, or cannot be used.
//! - [`StreamError`](crate::stream::StreamError): a download was rejected or interrupted.
//! - [`FlowError`](crate::flow::FlowError): a call or a job failed, after any retries.
//! - [`client::Error`](crate::client::Error): a call to the blocking client failed.

use std::borrow::Cow;
use std::fmt;

use http::StatusCode;

use crate::cloud::{BaseUrl, Cloud};
use crate::debug::debug_with_sources;
use crate::endpoint::{Endpoint, Resend, Scope};
use crate::needles::{CUT, Needles};
use crate::reply::{RateLimit, ResponseHead, RetryAfter};
use crate::time::Timestamp;
use crate::types::read::read_reply;
use crate::types::{Envelope, ErrorItem, Extra, Json, RequestId};

/// A reply that does not contain the requested result.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ResponseError {
    /// An error reply from the service or a gateway.
    #[error(transparent)]
    Api(Box<ApiError>),
    /// The status is 2xx, but the body cannot be used, for example because it is not valid JSON.
    #[error(transparent)]
    Decode(Box<DecodeError>),
}

impl ResponseError {
    /// Returns the HTTP status of the reply.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Api(error) => error.status(),
            Self::Decode(error) => error.status,
        }
    }

    /// Returns the trace id, if there is one. CrowdStrike support asks for it.
    pub fn trace_id(&self) -> Option<&str> {
        match self {
            Self::Api(error) => error.trace_id(),
            Self::Decode(error) => error.trace_id.as_deref(),
        }
    }
}

/// A 2xx reply whose body cannot be used, for example because it is not valid JSON.
#[derive(Clone, thiserror::Error)]
pub struct DecodeError {
    operation: &'static str,
    status: StatusCode,
    trace_id: Option<String>,
    why: String,
    /// The beginning of the body. `None` if it must not be shown, because it may contain a token.
    body: Option<String>,
    billed: bool,
    reqid: Option<RequestId>,
    pub(crate) fault: Fault,
}

/// The reason a 2xx reply cannot be used.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    Damaged,
    /// The reply does not fit the request, so a retry on a new connection may help.
    Foreign,
    /// The body is too large, so a retry would fail again.
    TooLarge,
    /// The call timed out while the body was being parsed.
    TooLate,
}

/// Masks the secrets in a string, and the beginning of a secret before a `…`.
fn mask(text: &mut String, needles: &Needles) {
    if let Cow::Owned(masked) = needles.mask_excerpt(text) {
        *text = masked;
    }
}

/// Masks the secrets in the text of error items, and drops the unknown fields of an item if one of
/// them contains a secret.
pub(crate) fn mask_items(items: &mut [ErrorItem], needles: &Needles) {
    for item in items {
        let is_secret = |text: &str| needles.find(text).is_some();
        let is_unsafe =
            |(name, value): (&str, &Json)| is_secret(name) || is_secret(&value.to_string());
        if item.extra.iter().any(is_unsafe) {
            item.extra = Extra::default();
        }
        for text in [&mut item.message, &mut item.id, &mut item.error_type] {
            text.iter_mut().for_each(|text| mask(text, needles));
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (operation, status, why) = (self.operation, self.status, &self.why);
        write!(
            f,
            "the reply to {operation} ({status}) cannot be used: {why}; the body "
        )?;
        match self.body.as_deref() {
            None => f.write_str("is not shown, because it may contain a token")?,
            Some("") => f.write_str("is empty")?,
            Some(body) => write!(f, "begins with {body:?}")?,
        }
        if self.billed {
            f.write_str("; the request was sent, and may have been billed")?;
        }
        IdNote(self.request_id()).fmt(f)
    }
}

impl DecodeError {
    pub(crate) fn new(
        fault: Fault,
        endpoint: &Endpoint,
        head: ResponseHead<'_>,
        body: &[u8],
        why: impl fmt::Display,
    ) -> Self {
        let billed = endpoint.resend == Resend::Billed;
        Self {
            operation: endpoint.id,
            status: head.status,
            trace_id: head.trace_id().map(Into::into),
            why: why.to_string(),
            body: Some(excerpt(body, 200)),
            billed,
            reqid: billed.then(|| find_id(body).and_then(Result::ok)).flatten(),
            fault,
        }
    }

    pub(crate) fn masked(mut self, needles: &Needles) -> Self {
        let texts = self.body.iter_mut().chain(&mut self.trace_id);
        for text in texts.chain([&mut self.why]) {
            mask(text, needles);
        }
        self
    }

    /// Returns the request id of the job, if the reply to a submission contains one.
    pub(crate) fn request_id(&self) -> Option<&RequestId> {
        self.reqid.as_ref()
    }

    /// Returns whether the request may have been billed.
    pub(crate) fn is_billed(&self) -> bool {
        self.billed
    }

    /// Creates the error for a body that must not be shown, because it may contain a token.
    pub(crate) fn secret(
        endpoint: &Endpoint,
        head: ResponseHead<'_>,
        why: impl fmt::Display,
    ) -> Self {
        Self {
            body: None,
            ..Self::new(Fault::Damaged, endpoint, head, &[], why)
        }
    }
}

/// The kind of an error reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ApiErrorKind {
    /// The service or a gateway rejected the request (400, or any 4xx without a kind of its own). A
    /// retry usually does not help, except after a timeout (408).
    BadRequest,
    /// The bearer token or the credentials are not valid in this cloud (401).
    Unauthorized,
    /// Access was denied (403). For example, the API client lacks a scope.
    Forbidden,
    /// The service or a gateway returned 404, usually because the sample, job or archive was not
    /// found.
    NotFound,
    /// Too many requests were sent (429). Wait, then retry.
    RateLimited,
    /// The monthly quota is exhausted (a 429 from MalQuery itself, without a retry time). A retry
    /// does not help until the quota is renewed.
    QuotaExhausted,
    /// The service or a gateway failed (5xx, or another status outside 200 to 499).
    Server,
    /// The reply is a redirect that was not followed, or has another 3xx status, such as 304.
    Redirect,
    /// The status is 2xx, but the body has errors instead of a result, or is not a whole file (205,
    /// 206).
    Partial,
    /// The file to download is not ready yet (202, 204). Retry later.
    NotReady,
}

/// An error reply from the service or a gateway.
///
/// `Display` writes one line: the operation id, the status and, if known, the first errors, the
/// beginning of the body, the trace id and a hint.
#[derive(Clone)]
pub struct ApiError {
    status: StatusCode,
    kind: ApiErrorKind,
    operation: &'static str,
    scope: Option<Scope>,
    errors: Vec<ErrorItem>,
    trace_id: Option<String>,
    region: Option<String>,
    /// The cloud that the request was sent to, if it is known and the reply does not name it.
    asked: Option<Cloud>,
    rate_limit: RateLimit,
    body: Option<String>,
    is_page: bool,
    reqid: Option<RequestId>,
    has_job: bool,
}

impl ApiError {
    /// Parses an error reply.
    pub(crate) fn new(endpoint: &Endpoint, head: ResponseHead<'_>, body: &[u8]) -> Self {
        let typed = (body.len() <= MAX_ERRORS)
            .then(|| read_reply::<Envelope<ErrorMeta, Json>>(body).ok())
            .flatten();
        let (meta_found, mut errors) =
            typed.map_or_else(Default::default, |reply| (reply.meta, reply.errors));
        errors.retain(|item| item.message.is_some() || item.code.is_some());
        let rate_limit = head.rate_limit();
        // A body from the service itself that has no errors explains nothing, so it is not shown.
        let is_known = meta_found.powered_by.is_some() && meta_found.trace_id.is_some();
        let from_malquery = meta_found
            .powered_by
            .is_some_and(|by| by.to_ascii_lowercase().starts_with("malquery"));
        let kind = match head.status.as_u16() {
            202 | 204 if endpoint.accept != JSON => ApiErrorKind::NotReady,
            401 => ApiErrorKind::Unauthorized,
            403 => ApiErrorKind::Forbidden,
            404 => ApiErrorKind::NotFound,
            429 if from_malquery && rate_limit.retry.is_none() => ApiErrorKind::QuotaExhausted,
            429 => ApiErrorKind::RateLimited,
            200..=299 => ApiErrorKind::Partial,
            300..=399 => ApiErrorKind::Redirect,
            400..=499 => ApiErrorKind::BadRequest,
            _ => ApiErrorKind::Server,
        };
        let found = find_id(body);
        let has_job = found.is_some();
        let reqid = meta_found.reqid.or_else(|| found?.ok());
        let is_explained = !errors.is_empty() || is_known;
        Self {
            status: head.status,
            kind,
            operation: endpoint.id,
            scope: endpoint.scope,
            trace_id: head.trace_id().map(Into::into).or(meta_found.trace_id),
            region: head.region().map(Into::into),
            asked: None,
            rate_limit,
            is_page: errors.is_empty() && is_page(head, body),
            // Keep the body if its request id is not valid: the job may have been billed.
            body: (!is_explained || (has_job && reqid.is_none()))
                .then(|| excerpt(body, 2048))
                .filter(|body| !body.is_empty()),
            reqid,
            has_job,
            errors,
        }
    }

    /// Records the cloud of the base URL, if it is known and the reply does not name it.
    pub(crate) fn asked(mut self, base: &BaseUrl) -> Self {
        // The cloud behind a custom URL is unknown.
        self.asked = base
            .cloud()
            .filter(|cloud| Some(cloud.name()) != self.region.as_deref());
        self
    }

    /// Removes the body and the unknown fields of the errors. They may quote parts of the request.
    pub(crate) fn without_body(mut self) -> Self {
        self.body = None;
        for item in &mut self.errors {
            item.extra = Extra::default();
        }
        self
    }

    pub(crate) fn masked(mut self, needles: &Needles) -> Self {
        mask_items(&mut self.errors, needles);
        for text in [&mut self.body, &mut self.trace_id, &mut self.region] {
            text.iter_mut().for_each(|text| mask(text, needles));
        }
        self
    }

    /// Returns the request id of a job, if the error reply contains one.
    pub fn request_id(&self) -> Option<&RequestId> {
        self.reqid.as_ref()
    }

    /// Returns whether the body contains a request id, even an invalid one. Also returns `true` for a
    /// 304, because it has no body that could contain a request id.
    pub(crate) fn has_job(&self) -> bool {
        self.has_job || self.status == StatusCode::NOT_MODIFIED
    }

    /// Returns the operation id in CrowdStrike's API specification.
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    /// Returns the HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the kind of the error.
    pub fn kind(&self) -> ApiErrorKind {
        self.kind
    }

    /// Returns the errors in the body, except those with neither a message nor a code. The slice is
    /// empty if the body is not in the service's format.
    pub fn errors(&self) -> &[ErrorItem] {
        &self.errors
    }

    /// Returns the trace id, if there is one. CrowdStrike support asks for it.
    pub fn trace_id(&self) -> Option<&str> {
        self.trace_id.as_deref()
    }

    /// Returns the cloud name from the `X-Cs-Region` header, if there is one.
    pub fn region(&self) -> Option<&str> {
        self.region.as_deref()
    }

    /// Returns the beginning of the body, up to 2,048 characters. Returns `None` if the body is
    /// empty or comes from a token endpoint. Also returns `None` if the body has errors or the
    /// service's `meta`, unless its request id is invalid.
    pub fn body(&self) -> Option<&str> {
        self.body.as_deref()
    }

    /// Returns the rate limit reported in the headers.
    pub fn rate_limit(&self) -> RateLimit {
        self.rate_limit
    }

    /// Returns whether a retry may succeed soon. A retry may cost quota again: a hunt that got a
    /// 5xx may already have been billed.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.kind,
            ApiErrorKind::RateLimited | ApiErrorKind::Server | ApiErrorKind::NotReady
        ) || self.status == StatusCode::REQUEST_TIMEOUT
    }

    /// Returns the time at which the service allows a retry, if the reply contains it. `now` is
    /// the time at which the reply arrived.
    pub fn retry_at(&self, now: Timestamp) -> Option<Timestamp> {
        self.rate_limit.retry.map(|retry| retry.at(now))
    }

    /// Returns the usual cause of this error, or what to do about it, if known.
    pub fn hint(&self) -> Option<Cow<'static, str>> {
        if self.is_page && self.status.is_client_error() {
            let page = "the reply seems to be a web page, probably from a gateway or a proxy";
            return Some(format!("{page}; check the base URL and the network").into());
        }
        let said = |words: &str| {
            let mut messages = self.errors.iter().filter_map(|item| item.message.as_ref());
            messages.any(|message| message.to_ascii_lowercase().contains(words))
        };
        let region = self
            .region
            .as_deref()
            .and_then(|region| region.parse::<Cloud>().ok());
        if let (401, Some(region), Some(asked)) = (self.status.as_u16(), region, self.asked) {
            return Some(format!("the request was sent to {asked}, but the reply names the cloud {region}; select that cloud, for example with FALCON_CLOUD={region}").into());
        }
        Some(match (self.status.as_u16(), self.scope) {
            (400 | 401, None) => "check the client id, the secret and the cloud; credentials for a government cloud work only in that cloud".into(),
            (401, Some(_)) => "the token has expired or was revoked, or the account belongs to another cloud (set FALCON_CLOUD)".into(),
            (403, None) if said("customer id") => "check the member CID".into(),
            (403, None) => "your IP address is probably not on the API client's allowlist".into(),
            (403, Some(scope)) => format!("the API client lacks the scope {scope}, your IP address is not on the client's allowlist, or the member CID is wrong").into(),
            (300..=399, None) => match region {
                Some(region) => {
                    format!("the account probably belongs to another cloud; select that cloud, for example with FALCON_CLOUD={region}").into()
                }
                None => "the account probably belongs to another cloud; select that cloud, for example with FALCON_CLOUD".into(),
            },
            (300..=399, _) => "check the base URL, and any gateway or proxy; redirects are not followed".into(),
            (202 | 204, _) if self.kind == ApiErrorKind::NotReady => "the file is not ready yet; try again later".into(),
            _ if said("not find sample archive") => "an archive exists only after its multi-download has finished; check the request id and wait for the job".into(),
            (429, _) if self.kind == ApiErrorKind::QuotaExhausted => "the monthly quota is exhausted; use `quotas` to check when it is renewed".into(),
            _ => match self.rate_limit.retry? {
                RetryAfter::At(time) => format!("try again at {time}").into(),
                RetryAfter::After(time) => match time.as_millis().div_ceil(1000) {
                    1 => "try again in 1 second".into(),
                    seconds => format!("try again in {seconds} seconds").into(),
                },
            },
        })
    }
}

crate::types::lenient::model! {
    /// The `meta` of an error reply.
    #[derive(Default)]
    pub struct ErrorMeta {
        /// The name of the service that sent the reply.
        pub powered_by: Option<String>,
        /// The trace id, which CrowdStrike support asks for.
        pub trace_id: Option<String>,
        /// The request id of the job.
        pub reqid: Option<RequestId>,
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} returned {}", self.operation, self.status.as_str())?;
        if let Some(reason) = self.status.canonical_reason() {
            write!(f, " {reason}")?;
        }
        let mut separator = ": ";
        for item in self.errors.iter().take(SHOWN) {
            match (&item.message, item.code) {
                (Some(message), _) => write!(f, "{separator}{}", excerpt(message.as_bytes(), 500))?,
                (None, Some(code)) => write!(f, "{separator}code {code}")?,
                (None, None) => continue,
            }
            separator = "; ";
        }
        if let more @ 1.. = self.errors.len().saturating_sub(SHOWN) {
            write!(f, "; and {more} more")?;
        }
        if let Some(body) = &self.body {
            write!(f, ": {}", excerpt(body.as_bytes(), 200))?;
        }
        if let Some(trace_id) = &self.trace_id {
            write!(f, " (trace id {})", excerpt(trace_id.as_bytes(), 100))?;
        }
        if let Some(hint) = self.hint() {
            write!(f, "; hint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ApiError {}

debug_with_sources!(ResponseError, ApiError, DecodeError);

/// The end of a message: a hint to poll the job with this request id. Empty for `None`.
pub(crate) struct IdNote<'a>(pub(crate) Option<&'a RequestId>);

impl fmt::Display for IdNote<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(id) => write!(f, "; to continue, poll job {id}"),
            None => Ok(()),
        }
    }
}

/// The maximum number of bytes that [`find_id`] searches.
pub(crate) const NEAR: usize = 64 * 1024;

/// Finds the request id in a reply, even if the reply is truncated or damaged. `Err` contains the
/// beginning of a truncated or invalid id.
pub(crate) fn find_id(body: &[u8]) -> Option<Result<RequestId, String>> {
    const NAME: &[u8] = b"\"reqid\"";
    let body = &body[..body.len().min(NEAR)];
    // The name may also occur as a value.
    let value = |at| {
        let rest = body.get(at..)?.strip_prefix(NAME)?.trim_ascii_start();
        Some(rest.strip_prefix(b":")?.trim_ascii_start())
    };
    let value = (0..body.len()).find_map(value)?;
    let (text, end) = match value.strip_prefix(b"\"") {
        Some(text) => (text, text.iter().position(|byte| *byte == b'"')),
        // The id may be a number.
        None if value.first()?.is_ascii_digit() => {
            let is_end = |byte: &u8| matches!(byte, b',' | b'}') || byte.is_ascii_whitespace();
            (value, value.iter().position(is_end))
        }
        None => return None,
    };
    let id = &text[..end.unwrap_or(text.len())];
    if id.is_empty() {
        return None;
    }
    let parsed = std::str::from_utf8(id).ok().and_then(|id| id.parse().ok());
    Some(match (end, parsed) {
        (Some(_), Some(id)) => Ok(id),
        _ => Err(excerpt(id, 100)),
    })
}

const JSON: &str = "application/json";
/// The maximum size in bytes of a body that is parsed as an error.
const MAX_ERRORS: usize = 16 << 20;
/// The maximum number of error items in a message.
const SHOWN: usize = 5;

/// Returns whether a body seems to be a web page.
fn is_page(head: ResponseHead<'_>, body: &[u8]) -> bool {
    let is_html = |kind: &str| kind.to_ascii_lowercase().contains("html");
    head.content_type().is_some_and(is_html) || body.trim_ascii_start().starts_with(b"<")
}

/// Trims untrusted text, and returns its first `most` characters on one line, followed by `…` if
/// there are more. Spaces replace characters that could control a terminal or hide text.
pub(crate) fn excerpt(bytes: &[u8], most: usize) -> String {
    let bytes = bytes.trim_ascii();
    // A character has at most 4 bytes. One more character shows whether the text is longer.
    let cut = &bytes[..bytes.len().min(4 * (most + 1))];
    let text = String::from_utf8_lossy(cut);
    let mut line = String::with_capacity(text.len().min(most));
    for (count, c) in text.chars().enumerate() {
        if count == most {
            line.push(CUT);
            break;
        }
        // Also replace invisible characters, line separators, and characters that reverse the text.
        let steers = c.is_control()
            || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        line.push(if steers { ' ' } else { c });
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_small() {
        assert!(size_of::<ResponseError>() <= 16);
        assert!(size_of::<crate::request::BuildError>() <= 64);
        assert!(size_of::<crate::flow::FlowError>() <= 64);
        assert!(size_of::<crate::client::Error>() <= 96);
    }

    #[test]
    fn a_cut_secret_is_hidden_alone() {
        let needles = Needles::new(["toke-n123"]);
        let hidden = |text: &str| {
            let mut text = text.to_owned();
            mask(&mut text, &needles);
            text
        };
        assert_eq!(
            hidden("a toke-n123 b toke-n12… c"),
            "a [redacted] b [redacted]… c"
        );
        assert_eq!(hidden("é toke-n12…"), "é [redacted]…");
        assert_eq!(hidden("a toke…"), "a [redacted]…");
        for text in ["a tok…", "a toke-n12", "…", "toke-n124…", ""] {
            assert_eq!(hidden(text), text);
        }
    }

    #[test]
    fn every_text_of_an_error_is_masked() {
        let endpoint = <crate::operations::Hunt as crate::operation::Operation>::ENDPOINT;
        let fields =
            ["message", "id", "type", "new"].map(|name| format!(r#""{name}":"toke-n123""#));
        let body = format!(r#"{{"errors":[{{{}}}]}}"#, fields.join(","));
        let error = answered(&endpoint, 400, &[("x-cs-region", "toke-n123")], &body);
        let error = error.masked(&Needles::new(["toke-n123"]));
        let shown = format!("{:?} {:?}", error.errors(), error.region());
        assert_eq!(shown.matches("[redacted]").count(), 4, "{shown}");
        assert!(!shown.contains("toke"), "{shown}");
    }

    #[test]
    fn foreign_text_cannot_steer_a_terminal() {
        assert_eq!(
            excerpt("a\u{1b}[31mred\r\nb\u{202e}c\u{0}".as_bytes(), 50),
            "a [31mred  b c "
        );
        assert_eq!(excerpt(&[b'x'; 60], 50).chars().count(), 51);
        assert_eq!(excerpt(&[&[b' '; 60][..], b"x"].concat(), 5), "x");
        let twice = find_id(br#"{"x": "reqid", "meta": {"reqid": "r-1"}}"#);
        assert_eq!(twice.unwrap().unwrap().as_str(), "r-1");
        assert_eq!(excerpt(b"hello            x", 5), "hello…");
        assert_eq!(excerpt(&[0xff, b'a'], 50), "\u{fffd}a");
    }

    #[test]
    fn a_malformed_reply_gives_what_is_known() {
        let headers = http::HeaderMap::from_iter([(
            http::HeaderName::from_static("x-cs-traceid"),
            http::HeaderValue::from_static("trace-1"),
        )]);
        let head = ResponseHead {
            status: StatusCode::OK,
            headers: &headers,
        };
        let endpoint = <crate::operations::Hunt as crate::operation::Operation>::ENDPOINT;
        let error = ResponseError::Decode(
            DecodeError::new(Fault::Damaged, &endpoint, head, b"<html>", "odd").into(),
        );
        assert_eq!(
            (error.status().as_u16(), error.trace_id()),
            (200, Some("trace-1"))
        );
        let shown = "the reply to PostMalQueryHuntV1 (200 OK) cannot be used: odd; the body";
        let billed = "; the request was sent, and may have been billed";
        assert_eq!(
            error.to_string(),
            format!("{shown} begins with \"<html>\"{billed}")
        );
        let secret = DecodeError::secret(&endpoint, head, "odd");
        let hidden = "is not shown, because it may contain a token";
        assert_eq!(secret.to_string(), format!("{shown} {hidden}{billed}"));
        let empty = DecodeError::new(Fault::Damaged, &endpoint, head, b"", "odd");
        assert_eq!(empty.to_string(), format!("{shown} is empty{billed}"));
    }

    #[test]
    fn an_excerpt_has_one_length_in_characters() {
        assert_eq!(
            excerpt("\u{1f600}".repeat(60).as_bytes(), 50),
            "\u{1f600}".repeat(50) + "…"
        );
    }

    fn answered(
        endpoint: &Endpoint,
        status: u16,
        headers: &[(&'static str, &'static str)],
        body: &str,
    ) -> ApiError {
        let headers = headers.iter().map(|(name, value)| {
            (
                http::HeaderName::from_static(name),
                http::HeaderValue::from_static(value),
            )
        });
        let headers = http::HeaderMap::from_iter(headers);
        let head = ResponseHead {
            status: StatusCode::from_u16(status).unwrap(),
            headers: &headers,
        };
        ApiError::new(endpoint, head, body.as_bytes())
    }

    #[test]
    fn an_error_gives_all_that_the_reply_says() {
        let endpoint = <crate::operations::GetQuotas as crate::operation::Operation>::ENDPOINT;
        let headers = [
            ("x-cs-region", "us-2"),
            ("x-cs-traceid", "t-1"),
            ("retry-after", "7"),
            ("x-ratelimit-limit", "6000"),
        ];
        let error = answered(&endpoint, 503, &headers, "<html>busy</html>");
        assert_eq!(
            (error.region(), error.trace_id(), error.body()),
            (Some("us-2"), Some("t-1"), Some("<html>busy</html>"))
        );
        assert_eq!(
            error.rate_limit().retry,
            Some(RetryAfter::After(std::time::Duration::from_secs(7)))
        );
        assert_eq!(error.rate_limit().limit, Some(6000));
        assert_eq!(error.hint().unwrap(), "try again in 7 seconds");
        let error = answered(&endpoint, 503, &[("retry-after", "1")], "");
        assert_eq!(error.hint().unwrap(), "try again in 1 second");
        assert_eq!(error.operation(), "GetMalQueryQuotasV1");
        let error = answered(
            &endpoint,
            500,
            &[],
            r#"{"errors": [{"code": 500, "message": "no"}]}"#,
        );
        assert_eq!(
            (error.region(), error.trace_id(), error.body(), error.hint()),
            (None, None, None, None)
        );
        assert_eq!(error.errors()[0].message.as_deref(), Some("no"));
    }

    #[test]
    fn only_a_few_errors_are_shown() {
        let endpoint = <crate::operations::GetQuotas as crate::operation::Operation>::ENDPOINT;
        let body = |count| {
            format!(
                r#"{{"errors": [{}]}}"#,
                vec![r#"{"message": "no"}"#; count].join(",")
            )
        };
        let shown = |count| answered(&endpoint, 500, &[], &body(count)).to_string();
        assert!(shown(5).ends_with(": no; no; no; no; no"), "{}", shown(5));
        assert!(
            shown(1005).ends_with(": no; no; no; no; no; and 1000 more"),
            "{}",
            shown(1005)
        );
    }

    #[test]
    fn a_hint_fits_the_endpoint_and_the_message() {
        let token = Endpoint {
            scope: None,
            ..<crate::operations::Hunt as crate::operation::Operation>::ENDPOINT
        };
        let read = <crate::operations::GetQuotas as crate::operation::Operation>::ENDPOINT;
        let hint = |endpoint, status, message: &str| {
            let body = format!(r#"{{"errors": [{{"message": "{message}"}}]}}"#);
            answered(endpoint, status, &[], &body)
                .hint()
                .map(|hint| hint.split([',', ' ']).take(3).collect::<Vec<_>>().join(" "))
        };
        let hints = [
            hint(&token, 400, "no"),
            hint(&token, 401, "no"),
            hint(&token, 403, "Invalid customer ID"),
            hint(&token, 403, "no"),
            hint(&read, 400, "no"),
            hint(&read, 401, "no"),
            hint(&read, 403, "no"),
            hint(&read, 404, "no"),
            hint(&read, 404, "Could not find sample archive"),
            hint(&read, 500, "Could not find sample archive"),
            hint(&read, 429, "no"),
        ];
        let hints = hints.map(|hint| hint.unwrap_or_else(|| "none".into()));
        assert_eq!(
            hints,
            [
                "check the client",
                "check the client",
                "check the member",
                "your IP address",
                "none",
                "the token has",
                "the API client",
                "none",
                "an archive exists",
                "an archive exists",
                "none"
            ]
        );
    }
}
