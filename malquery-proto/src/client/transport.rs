use std::error::Error as StdError;
use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use crate::debug::debug_with_sources;
use crate::flow::SendFailure;
use crate::time::Timestamp;

/// Sends HTTP requests. Implement this trait for the HTTP client of your choice.
///
/// A transport must follow these rules:
///
/// - Send the request once, and do not change its method, URI, headers or body. Add the `host`
///   header and, except for a GET, the `content-length`. You may add headers such as `connection`.
/// - Skip 1xx replies, and return the final reply, whatever its status is.
/// - Do not follow redirects. Use TLS for `https`, and check certificates.
/// - Do not reuse a connection that the service has closed. Open a new connection for a
///   [`Billed`](crate::endpoint::Resend::Billed) request, for a fuzzy search, and for a request
///   with the extension [`NewConnection`](crate::request::NewConnection). Do not reuse the
///   connection of a token request or of a `Billed` request.
/// - Stream the body of the reply: [`Body::new`] accepts a reader. If the body is interrupted, the
///   reader must return an error. (If the reply has a `content-length`, the client itself checks
///   that no bytes are missing.)
/// - If you decode compressed bodies, remove `content-length` and `content-encoding` from the head.
///   Do not decode a 2xx reply to a request with `accept-encoding: identity`.
/// - Give up when the [`TimeLeft`] of a request has elapsed. A download may have no time limit, so
///   also limit the duration of each read.
/// - If a body becomes too large when it is decompressed, the reader must return an error of the
///   kind [`FileTooLarge`](io::ErrorKind::FileTooLarge). If this happens in a 2xx reply, the client
///   does not retry.
///
/// Each request carries its [`Endpoint`](crate::endpoint::Endpoint) as an extension and, if its
/// time is limited, its [`TimeLeft`]. The conformance kit of `malquery-mock`
/// (`malquery_mock::conformance::check`) tests a transport against misbehaving servers.
///
/// ```
/// use malquery_proto::{Body, Transport, TransportError};
///
/// /// A transport that always returns the same reply.
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
    /// Sends the request, and returns when the head of the reply arrives.
    ///
    /// # Errors
    /// Fails if no reply arrives. A reply with an error status is `Ok`.
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

/// A reply body that is read as it arrives.
pub struct Body(Box<dyn Read + Send>);

impl Body {
    /// Creates a body that reads from `reader`.
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

/// The error that a [`Transport`] returns if no reply arrives.
///
/// Its kind affects whether the request is retried. For example, a hunt that may have reached the
/// service is not retried, because it could be billed twice.
///
/// ```
/// use std::io;
///
/// use malquery_proto::TransportError;
///
/// fn classify(error: io::Error) -> TransportError {
///     match error.kind() {
///         // Nothing was sent, because the connection was never opened.
///         io::ErrorKind::ConnectionRefused => TransportError::not_sent(error),
///         // If in doubt, assume that the request may have arrived.
///         _ => TransportError::unknown(error),
///     }
/// }
/// ```
pub struct TransportError {
    failure: SendFailure,
    source: Box<dyn StdError + Send + Sync>,
}

impl TransportError {
    /// Creates an error for a request that provably never reached the service. For example, the
    /// host name was not found, or the connection was refused. The request may be retried, even if
    /// it is a hunt.
    pub fn not_sent(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            failure: SendFailure::NotSent,
            source: error.into(),
        }
    }

    /// Creates an error for a request that the service may have received. For example, the
    /// connection broke or timed out. Use this if in doubt. A [`Resend::Billed`] request, such as a
    /// hunt, is not retried.
    ///
    /// [`Resend::Billed`]: crate::endpoint::Resend::Billed
    pub fn unknown(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            failure: SendFailure::Unknown,
            source: error.into(),
        }
    }

    /// Creates an error for a request that never reached the service and would fail again if it
    /// were retried. For example, the certificate is not trusted, or a proxy rejected the password.
    /// The request is not retried.
    pub fn cannot_send(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            failure: SendFailure::CannotSend,
            source: error.into(),
        }
    }

    /// Returns the kind of failure. It affects whether the request is retried.
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
            SendFailure::Unknown => {
                "no complete reply arrived, but the service may have received the request"
            }
        })
    }
}

debug_with_sources!(TransportError);

impl StdError for TransportError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.source)
    }
}

/// A clock that can wait, such as `SystemClock`. Implement this trait to control the time in tests.
pub trait Clock: Send + Sync {
    /// Returns the current time.
    fn now(&self) -> Timestamp;

    /// Blocks until `time`.
    fn sleep_until(&self, time: Timestamp);
}

/// A request extension: the time within which the whole reply, including its body, must arrive. A
/// transport must give up after this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLeft(pub Duration);
