use std::error::Error as StdError;
use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use crate::debug::debug_with_sources;
use crate::flow::SendFailure;
use crate::time::Timestamp;

/// Sends a request and returns the reply, whatever its status. Implement it for the HTTP client of
/// your choice.
///
/// - Send the request once and as it is: its method, URI, headers and exact body, with the length
///   of the body. An empty body means none; a GET goes out without `content-length`. The
///   transport adds `host`; it may add headers of its own, such as `connection`.
/// - Skip 1xx replies and return the final one.
/// - Follow no redirect. Use TLS for `https`, and check certificates.
/// - Use no connection that the service has closed in the meantime.
/// - Stream the body of the reply: [`Body::new`] takes any reader. A body that breaks off ends with
///   an error. For a body with `content-length` the client notices by itself.
/// - A transport that decodes bodies (gzip) removes `content-length` and `content-encoding` from
///   the head, and leaves a reply alone whose request asked for `identity`.
/// - Give up when the [`TimeLeft`] of a request is over. A download may have no limit, so limit
///   the silence between two bytes as well.
///
/// A request carries its [`Endpoint`](crate::endpoint::Endpoint) and its [`TimeLeft`] as
/// extensions. The conformance kit of `malquery-mock` (`malquery_mock::conformance::check`) runs a
/// transport against servers that misbehave.
///
/// ```
/// use malquery_proto::{Body, Transport, TransportError};
///
/// /// A service with one reply.
/// struct Offline;
///
/// impl Transport for Offline {
///     fn send(
///         &self,
///         _: http::Request<Vec<u8>>,
///     ) -> Result<http::Response<Body>, TransportError> {
///         Ok(http::Response::new(Body::from(b"{}".to_vec())))
///     }
/// }
/// ```
pub trait Transport: Send + Sync {
    /// Sends the request and waits for the head of the reply.
    ///
    /// # Errors
    /// Only when there is no reply: any status is `Ok`.
    fn send(&self, request: http::Request<Vec<u8>>)
    -> Result<http::Response<Body>, TransportError>;
}

macro_rules! pointers {
    ($($pointer:ty),+) => {$(
        impl<T: Transport + ?Sized> Transport for $pointer {
            fn send(
                &self,
                request: http::Request<Vec<u8>>,
            ) -> Result<http::Response<Body>, TransportError> {
                (**self).send(request)
            }
        }

        impl<T: Clock + ?Sized> Clock for $pointer {
            fn now(&self) -> Timestamp {
                (**self).now()
            }

            fn sleep_until(&self, time: Timestamp) {
                (**self).sleep_until(time);
            }
        }
    )+};
}

pointers!(&T, Box<T>, Arc<T>);

/// The body of a reply, read as it arrives.
pub struct Body(Box<dyn Read + Send>);

impl Body {
    /// A body that reads from `reader`.
    pub fn new(reader: impl Read + Send + 'static) -> Self {
        Self(Box::new(reader))
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::new(io::Cursor::new(bytes))
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Body")
    }
}

/// Why there is no reply. Its kind decides about a retry: a hunt that may have arrived is not sent
/// again, since it would be billed twice.
///
/// ```
/// use std::io;
///
/// use malquery_proto::TransportError;
///
/// fn classify(error: io::Error) -> TransportError {
///     match error.kind() {
///         // There was no connection, so nothing was sent.
///         io::ErrorKind::ConnectionRefused => TransportError::not_sent(error),
///         // When in doubt.
///         _ => TransportError::unknown(error),
///     }
/// }
/// ```
pub struct TransportError {
    failure: SendFailure,
    source: Box<dyn StdError + Send + Sync>,
}

impl TransportError {
    /// The request provably never reached the service: the name was not found, or the connection
    /// was refused. It is retried, even a hunt.
    pub fn not_sent(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            failure: SendFailure::NotSent,
            source: error.into(),
        }
    }

    /// The service may have received the request: the connection broke, or time ran out. Use this
    /// when in doubt. A hunt is not sent again.
    pub fn unknown(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            failure: SendFailure::Unknown,
            source: error.into(),
        }
    }

    /// The request never reached the service, and a second try would not change that: the
    /// certificate is not trusted, or a proxy refuses the password. It is not retried.
    pub fn cannot_send(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            failure: SendFailure::CannotSend,
            source: error.into(),
        }
    }

    /// Returns whether the service may have received the request.
    pub fn failure(&self) -> SendFailure {
        self.failure
    }

    pub(super) fn reason(&self) -> &(dyn StdError + Send + Sync + 'static) {
        &*self.source
    }

    pub(super) fn into_source(self) -> Box<dyn StdError + Send + Sync> {
        self.source
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.failure {
            SendFailure::NotSent => "the request was not sent",
            SendFailure::CannotSend => "the request cannot be sent",
            SendFailure::Unknown => "no reply, and the request may have arrived",
        })
    }
}

debug_with_sources!(TransportError);

impl StdError for TransportError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.source)
    }
}

/// Returns the time and waits.
pub trait Clock: Send + Sync {
    /// The time now.
    fn now(&self) -> Timestamp;

    /// Returns at `time` or later.
    fn sleep_until(&self, time: Timestamp);
}

/// The time left for a request, its whole body included. A transport gives up when it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLeft(pub Duration);
