use std::error::Error as StdError;
use std::io;

use http::StatusCode;

use super::TransportError;
#[cfg(feature = "samples")]
use crate::archive::ArchiveError;
use crate::debug::debug_with_sources;
use crate::error::{ApiError, ApiErrorKind, ResponseError};
use crate::flow::FlowError;
use crate::request::BuildError;
use crate::stream::StreamError;
use crate::time::Timestamp;
use crate::types::RequestId;

/// Why a call gave no result.
///
/// Its `Display` is one line and tells what to do where that is known; `source` is what the transport said.
///
/// ```
/// use malquery_proto::client::Error;
/// use malquery_proto::flow::FlowError;
///
/// fn what_to_do(error: &Error) -> &'static str {
///     match error.flow() {
///         Some(FlowError::OutcomeUnknown { .. }) => "compare the quotas before you submit it again",
///         Some(FlowError::QuotaShort { .. }) => "wait for the next month",
///         _ if error.is_retryable() => "try again later",
///         _ => "tell a person",
///     }
/// }
/// ```
#[non_exhaustive]
pub enum Error {
    /// The call ended without a result.
    #[allow(missing_docs)]
    Flow {
        error: FlowError,
        /// What the transport said of the last attempt, when that is why.
        cause: Option<Box<dyn StdError + Send + Sync>>,
    },
    /// The observer of a job, of results or of a download ended the run.
    Stopped,
    /// The bytes of a download are not what was asked for.
    Stream(StreamError),
    /// The body of a download could not be read to its end.
    Body(io::Error),
    /// A file could not be written, or an archive not be read again.
    #[cfg(feature = "samples")]
    #[allow(missing_docs)]
    File {
        path: std::path::PathBuf,
        error: io::Error,
    },
    /// An archive could not be read.
    #[cfg(feature = "samples")]
    Archive(ArchiveError),
}

/// What kind of error a call ended with: see [`Error::kind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request is not valid. Nothing was sent.
    Invalid,
    /// The service refused the request (4xx).
    Refused,
    /// The credentials or the token are not valid here (401).
    Unauthorized,
    /// The API client may not do this (403).
    Forbidden,
    /// The service does not know the sample or the job (404).
    NotFound,
    /// Too many requests (429). Wait, and try again.
    RateLimited,
    /// The monthly quota is used up, or does not cover the job.
    QuotaExhausted,
    /// There was no reply, or the service failed (5xx). Try again later.
    Unavailable,
    /// The request cannot be sent: the certificate is not trusted, say.
    CannotSend,
    /// A submission may have arrived, and was not sent again. It may have been billed.
    OutcomeUnknown,
    /// The time is up. A job continues at the service.
    Timeout,
    /// The job failed.
    JobFailed,
    /// The service answered in a way that makes no sense.
    Service,
    /// A download or an archive is damaged or incomplete.
    Damaged,
    /// A file could not be read or written.
    File,
    /// The observer stopped the run.
    Stopped,
}

impl Error {
    pub(super) fn new(error: FlowError, cause: Option<TransportError>) -> Self {
        let explains = match &error {
            FlowError::NoReply { .. }
            | FlowError::CannotSend { .. }
            | FlowError::TimeUp { .. }
            | FlowError::Deadline { .. } => true,
            FlowError::OutcomeUnknown { reply, .. } => reply.is_none(),
            _ => false,
        };
        Self::Flow {
            error,
            cause: cause.filter(|_| explains).map(TransportError::into_source),
        }
    }

    /// Returns what kind of error it is, for a program that decides what to do.
    ///
    /// ```
    /// use malquery_proto::client::{Error, ErrorKind};
    ///
    /// fn exit_code(error: &Error) -> u8 {
    ///     match error.kind() {
    ///         ErrorKind::Invalid => 2,
    ///         ErrorKind::Unauthorized | ErrorKind::Forbidden => 4,
    ///         ErrorKind::QuotaExhausted | ErrorKind::RateLimited => 5,
    ///         _ => 1,
    ///     }
    /// }
    /// ```
    pub fn kind(&self) -> ErrorKind {
        let error = match self {
            Self::Flow { error, .. } => error,
            Self::Stopped => return ErrorKind::Stopped,
            Self::Stream(_) | Self::Body(_) => return ErrorKind::Damaged,
            #[cfg(feature = "samples")]
            Self::Archive(_) => return ErrorKind::Damaged,
            #[cfg(feature = "samples")]
            Self::File { .. } => return ErrorKind::File,
        };
        match error {
            FlowError::Build(_) => ErrorKind::Invalid,
            FlowError::Response(ResponseError::Api(error)) => match error.kind() {
                ApiErrorKind::BadRequest | ApiErrorKind::Redirect => ErrorKind::Refused,
                ApiErrorKind::Unauthorized => ErrorKind::Unauthorized,
                ApiErrorKind::Forbidden => ErrorKind::Forbidden,
                ApiErrorKind::NotFound => ErrorKind::NotFound,
                ApiErrorKind::RateLimited => ErrorKind::RateLimited,
                ApiErrorKind::QuotaExhausted => ErrorKind::QuotaExhausted,
                ApiErrorKind::Server | ApiErrorKind::NotReady => ErrorKind::Unavailable,
                ApiErrorKind::Partial => ErrorKind::Service,
            },
            FlowError::Response(ResponseError::Decode(_))
            | FlowError::NoStatus
            | FlowError::WrongTicket => ErrorKind::Service,
            FlowError::NoReply { .. } => ErrorKind::Unavailable,
            FlowError::CannotSend { .. } => ErrorKind::CannotSend,
            FlowError::OutcomeUnknown { .. } => ErrorKind::OutcomeUnknown,
            FlowError::TimeUp { .. } | FlowError::Deadline { .. } => ErrorKind::Timeout,
            FlowError::QuotaShort { .. } | FlowError::QuotaUnknown { .. } => {
                ErrorKind::QuotaExhausted
            }
            FlowError::JobFailed(_) => ErrorKind::JobFailed,
        }
    }

    /// The id of a job whose submission ended with this error, if the reply names one. The job may
    /// have been billed: poll it.
    pub fn request_id(&self) -> Option<&RequestId> {
        self.flow()?.request_id()
    }

    /// The request was refused before anything was sent.
    pub fn invalid(&self) -> Option<&BuildError> {
        match self {
            Self::Flow {
                error: FlowError::Build(error),
                ..
            } => Some(error),
            _ => None,
        }
    }

    /// The error of the flow, when that is what it is.
    pub fn flow(&self) -> Option<&FlowError> {
        match self {
            Self::Flow { error, .. } => Some(error),
            _ => None,
        }
    }

    /// The error reply, when the service answered with one.
    pub fn api(&self) -> Option<&ApiError> {
        self.flow()?.api()
    }

    /// The HTTP status, when there was a reply.
    pub fn status(&self) -> Option<StatusCode> {
        self.flow()?.status()
    }

    /// The id to give to CrowdStrike's support.
    pub fn trace_id(&self) -> Option<&str> {
        self.flow()?.trace_id()
    }

    /// Whether the same call, or the same job flow, may succeed later without a change of anything. What another try
    /// costs, its operation says: a download, say, costs a download.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Flow { error, .. } => error.is_retryable(),
            Self::Stream(StreamError::Short { .. } | StreamError::CutZip) | Self::Body(_) => true,
            _ => false,
        }
    }

    /// When the service asks to try again, if it says so; `now` is when the reply came.
    pub fn retry_at(&self, now: Timestamp) -> Option<Timestamp> {
        self.flow()?.retry_at(now)
    }
}

impl From<FlowError> for Error {
    fn from(error: FlowError) -> Self {
        Self::new(error, None)
    }
}

#[cfg(feature = "samples")]
impl From<ArchiveError> for Error {
    fn from(error: ArchiveError) -> Self {
        Self::Archive(error)
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flow { error, .. } => error.fmt(f),
            Self::Stopped => f.write_str("stopped"),
            Self::Stream(error) => error.fmt(f),
            Self::Body(_) => f.write_str("the download broke off"),
            #[cfg(feature = "samples")]
            Self::File { path, .. } => write!(f, "{} could not be written or read", path.display()),
            #[cfg(feature = "samples")]
            Self::Archive(error) => error.fmt(f),
        }
    }
}

debug_with_sources!(Error);

impl Error {
    /// What an error of reading a [`Download`](super::Download) says.
    pub fn of_download(error: io::Error) -> Self {
        match error.downcast::<StreamError>() {
            Ok(error) => Self::Stream(error),
            Err(error) => Self::Body(error),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Flow { error, cause } => match cause {
                Some(cause) => Some(&**cause),
                None => error.source(),
            },
            Self::Stopped | Self::Stream(_) => None,
            Self::Body(error) => Some(error),
            #[cfg(feature = "samples")]
            Self::File { error, .. } => Some(error),
            #[cfg(feature = "samples")]
            Self::Archive(error) => error.source(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;
    use crate::operation::Operation;
    use crate::operations::GetQuotas;
    use crate::reply::ResponseHead;

    fn busy() -> Error {
        let headers =
            HeaderMap::from_iter([(http::header::RETRY_AFTER, HeaderValue::from_static("5"))]);
        let head = ResponseHead {
            status: StatusCode::SERVICE_UNAVAILABLE,
            headers: &headers,
        };
        FlowError::from(crate::error::ResponseError::Api(
            GetQuotas.error(head, b"").into(),
        ))
        .into()
    }

    #[test]
    fn an_error_says_whether_and_when_to_go_on() {
        let now = Timestamp::from_millis(1_000);
        assert_eq!(busy().retry_at(now), Some(Timestamp::from_millis(6_000)));
        assert!(busy().is_retryable());
        let refused = Error::from(FlowError::from(BuildError::NoPatterns));
        assert!(refused.invalid().is_some() && !refused.is_retryable());
        for error in [
            Error::Stopped,
            Error::Stream(StreamError::CutZip),
            Error::Body(io::ErrorKind::Other.into()),
        ] {
            assert_eq!(
                (error.retry_at(now), error.is_retryable()),
                (None, !matches!(error, Error::Stopped))
            );
        }
    }

    #[test]
    fn debug_tells_all_the_sources() {
        let error = Error::Body(io::Error::other(BuildError::NoSamples));
        assert_eq!(
            format!("{error:?}"),
            "the download broke off: name at least one SHA-256"
        );
        assert_eq!(format!("{:?}", Error::Stopped), "stopped");
    }
}
