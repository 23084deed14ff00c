//! The status, the headers and the rate limit of a reply.

use std::io;
use std::time::Duration;

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName};

use crate::time::Timestamp;
use crate::types::Envelope;
use crate::types::lenient::{Field, Item};

/// The status and headers of a reply.
#[derive(Debug, Clone, Copy)]
pub struct ResponseHead<'a> {
    /// The HTTP status.
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

    /// Returns the trace id (`X-Cs-Traceid`), which CrowdStrike support asks for.
    pub fn trace_id(&self) -> Option<&'a str> {
        self.text(&HeaderName::from_static("x-cs-traceid"))
    }

    /// Returns the cloud name from the `X-Cs-Region` header, if there is one. In a redirect, this
    /// is the cloud of the account.
    pub fn region(&self) -> Option<&'a str> {
        self.text(&HeaderName::from_static("x-cs-region"))
    }

    pub(crate) fn location(&self) -> Option<&'a str> {
        self.text(&header::LOCATION)
    }

    pub(crate) fn content_encoding(&self) -> Option<&'a str> {
        self.text(&header::CONTENT_ENCODING)
    }

    pub(crate) fn content_type(&self) -> Option<&'a str> {
        self.text(&header::CONTENT_TYPE)
    }

    /// Returns whether the body is partial (206 with `Content-Range`).
    pub(crate) fn is_part(&self) -> bool {
        self.status == StatusCode::PARTIAL_CONTENT
            && self.headers.contains_key(header::CONTENT_RANGE)
    }

    pub(crate) fn content_length(&self) -> Option<u64> {
        self.text(&header::CONTENT_LENGTH)?.parse().ok()
    }

    /// Returns the rate limit reported in the headers.
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
        // The local clock may be off by more than the pause, so compute the pause from the `Date`
        // header, which contains the service's time.
        let sent = self.text(&header::DATE).and_then(date);
        let at = |time: Timestamp| {
            sent.map_or(RetryAfter::At(time), |sent| {
                RetryAfter::After(time.since(sent))
            })
        };
        let after = || {
            let text = self.text(&header::RETRY_AFTER)?;
            match text.parse() {
                Ok(seconds) => Some(RetryAfter::After(Duration::from_secs(seconds))),
                Err(_) => date(text).map(at),
            }
        };
        // CrowdStrike specifies milliseconds, but all observed values are in seconds. A value above
        // 1e11 must be in milliseconds: 1e11 seconds after the epoch is the year 5138.
        let epoch = |epoch: u64| {
            let unit = if epoch > 100_000_000_000 { 1 } else { 1000 };
            at(Timestamp::from_millis(epoch.saturating_mul(unit)))
        };
        RateLimit {
            limit: number("x-ratelimit-limit"),
            remaining: number("x-ratelimit-remaining"),
            retry: number("x-ratelimit-retryafter").map(epoch).or_else(after),
        }
    }
}

/// The rate limit reported in the headers of a reply. Together, the API clients of an account may
/// send up to 6,000 requests per minute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimit {
    /// The maximum number of requests per minute (`X-RateLimit-Limit`).
    pub limit: Option<u64>,
    /// The number of requests left (`X-RateLimit-Remaining`).
    pub remaining: Option<u64>,
    /// The time at which the service allows a retry (`X-RateLimit-RetryAfter`, or else
    /// `Retry-After`). Most replies have neither header.
    pub retry: Option<RetryAfter>,
}

/// The time at which the service allows a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAfter {
    /// An absolute time, used only if the reply has no valid `Date` header to compare it with.
    At(Timestamp),
    /// A delay after the arrival of the reply.
    After(Duration),
}

impl RetryAfter {
    /// Returns the time at which the service allows a retry. `now` is the time at which the reply
    /// arrived.
    pub fn at(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(time) => time,
            Self::After(duration) => now.after(duration),
        }
    }
}

/// A successful reply with its status and headers. It dereferences to its output.
///
/// Iterating over a reply with results yields the results. A reply implements `Read` if its output
/// does.
///
/// ```
/// # fn example(client: &malquery_proto::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use malquery_proto::operations::FuzzySearch;
/// use malquery_proto::types::Pattern;
///
/// let search = FuzzySearch::new([Pattern::hex("89 48 20")?]).limit(3);
/// for sample in client.fuzzy_search(&search)? {
///     println!("{:?}", sample.sha256);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Reply<T> {
    /// The result, such as the parsed body or the download.
    pub output: T,
    /// The HTTP status, always 2xx.
    pub status: StatusCode,
    /// The headers, as the transport returned them.
    pub headers: HeaderMap,
    /// The trace id, which CrowdStrike support asks for.
    pub trace_id: Option<String>,
    /// The rate limit reported in the headers.
    pub rate_limit: RateLimit,
}

impl<T> Reply<T> {
    pub(crate) fn new(head: ResponseHead<'_>, trace_id: Option<String>, output: T) -> Self {
        Self {
            output,
            status: head.status,
            headers: head.headers.clone(),
            trace_id: head.trace_id().map(Into::into).or(trace_id),
            rate_limit: head.rate_limit(),
        }
    }

    /// Returns the output, and drops the rest of the reply.
    pub fn into_inner(self) -> T {
        self.output
    }

    /// Returns the cloud name from the `X-Cs-Region` header, if there is one.
    pub fn region(&self) -> Option<&str> {
        let (status, headers) = (self.status, &self.headers);
        ResponseHead { status, headers }.region()
    }

    pub(crate) fn map<U>(self, to: impl FnOnce(T) -> U) -> Reply<U> {
        Reply {
            output: to(self.output),
            status: self.status,
            headers: self.headers,
            trace_id: self.trace_id,
            rate_limit: self.rate_limit,
        }
    }
}

impl<M: Field, R: Item> Reply<Envelope<M, R>> {
    /// Returns the results, and drops the rest of the reply.
    pub fn into_resources(self) -> Vec<R> {
        self.output.resources
    }
}

impl<M: Field, R: Item> IntoIterator for Reply<Envelope<M, R>> {
    type Item = R;
    type IntoIter = std::vec::IntoIter<R>;

    fn into_iter(self) -> Self::IntoIter {
        self.output.resources.into_iter()
    }
}

impl<'a, M: Field, R: Item> IntoIterator for &'a Reply<Envelope<M, R>> {
    type Item = &'a R;
    type IntoIter = std::slice::Iter<'a, R>;

    fn into_iter(self) -> Self::IntoIter {
        self.output.resources.iter()
    }
}

impl<T: io::Read> io::Read for Reply<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.output.read(buffer)
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
