use std::error::Error as StdError;
use std::io;

use http::StatusCode;

#[cfg(feature = "samples")]
use super::Collect;
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

/// The error type of the blocking [client](super).
///
/// `Display` writes what went wrong and, if there is one, a hint. `source` returns the underlying
/// error, if any, such as the transport's error. `Debug` writes the same text as `Display`,
/// followed by the sources.
///
/// ```
/// use malquery_proto::client::Error;
/// use malquery_proto::flow::FlowError;
///
/// fn what_to_do(error: &Error) -> &'static str {
///     match error.flow() {
///         Some(FlowError::OutcomeUnknown { .. }) => "check the quotas before you submit the job again",
///         Some(FlowError::QuotaShort { .. }) => "wait until next month",
///         _ if error.is_retryable() => "try again later",
///         _ => "fix the problem first",
///     }
/// }
/// ```
#[non_exhaustive]
pub enum Error {
    /// A call or a job failed.
    #[allow(missing_docs)]
    Flow {
        error: FlowError,
        /// The transport error of the last attempt, if it explains the failure.
        cause: Option<Box<dyn StdError + Send + Sync>>,
        /// The request id of the job that the call ran or waited for, if known.
        job: Option<RequestId>,
    },
    /// The observer stopped the run.
    Stopped,
    /// The body of a download was rejected, for example because it is truncated or has the wrong
    /// hash.
    Stream(StreamError),
    /// The body of a download could not be read completely.
    Body(io::Error),
    /// A file or folder could not be created or accessed.
    #[cfg(feature = "samples")]
    #[allow(missing_docs)]
    File {
        path: std::path::PathBuf,
        error: io::Error,
    },
    /// An archive was rejected or could not be read, or a sample from it could not be written.
    #[cfg(feature = "samples")]
    Archive(ArchiveError),
    /// [`Client::collect_to`](super::Client::collect_to) failed after it received a request id.
    #[cfg(feature = "samples")]
    #[allow(missing_docs)]
    Collect {
        error: Box<Error>,
        /// The state of the run. To continue, call [`Client::collect`](super::Client::collect), or
        /// [`Collect::verify`] if the archive has been downloaded.
        job: Box<Collect>,
    },
}

/// The kind of an error, as returned by [`Error::kind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request is not valid, so it was not sent.
    Invalid,
    /// The reply has a 3xx status, or a 4xx status that has no kind of its own.
    Refused,
    /// The token or the credentials are not valid in this cloud (401).
    Unauthorized,
    /// Access was denied (403), for example because the API client lacks a scope.
    Forbidden,
    /// The service or a gateway returned 404, usually because the sample, job or archive was not
    /// found.
    NotFound,
    /// Too many requests were sent (429). Wait, then try again.
    RateLimited,
    /// The monthly quota is exhausted, is unknown, or does not cover the job.
    QuotaExhausted,
    /// No complete reply arrived, the service or a gateway failed (5xx), or a file is not ready.
    /// Try again later.
    Unavailable,
    /// The request cannot be sent, for example because the certificate is not trusted.
    CannotSend,
    /// A submission may have reached the service, and may have been billed. It was not retried.
    OutcomeUnknown,
    /// The call or the download timed out. A submitted job keeps running.
    Timeout,
    /// The job failed.
    JobFailed,
    /// The reply cannot be used, for example because it cannot be parsed.
    Service,
    /// A download or an archive is damaged or incomplete, exceeds a limit or is not supported.
    Damaged,
    /// A file or folder could not be created, read or written.
    File,
    /// The observer stopped the run.
    Stopped,
}

impl Error {
    pub(super) fn new(
        error: FlowError,
        cause: Option<TransportError>,
        job: Option<RequestId>,
    ) -> Self {
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
            job,
        }
    }

    /// Returns the kind of the error, so that a program can decide what to do.
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
            Self::Body(error) if error.kind() == io::ErrorKind::TimedOut => {
                return ErrorKind::Timeout;
            }
            Self::Stream(_) | Self::Body(_) => return ErrorKind::Damaged,
            #[cfg(feature = "samples")]
            Self::Archive(error) => {
                let reason = match error {
                    ArchiveError::Stopped { source, .. } => source,
                    error => error,
                };
                return match reason {
                    ArchiveError::Read(_) | ArchiveError::File { .. } => ErrorKind::File,
                    _ => ErrorKind::Damaged,
                };
            }
            #[cfg(feature = "samples")]
            Self::File { .. } => return ErrorKind::File,
            #[cfg(feature = "samples")]
            Self::Collect { error, .. } => return error.kind(),
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
            FlowError::Response(ResponseError::Decode(error)) if error.is_billed() => {
                ErrorKind::OutcomeUnknown
            }
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

    /// Returns the last request id that the call received or polled, if the error contains one. The
    /// job may have been billed. Unless it failed, poll this id instead of submitting the job
    /// again.
    pub fn request_id(&self) -> Option<&RequestId> {
        match self {
            Self::Flow { error, job, .. } => error.request_id().or(job.as_ref()),
            #[cfg(feature = "samples")]
            Self::Collect { error, job } => {
                let own = error.request_id();
                own.or_else(|| job.download()).or_else(|| job.search())
            }
            _ => None,
        }
    }

    /// Returns the reason the request is not valid, if it was rejected before it was sent.
    pub fn invalid(&self) -> Option<&BuildError> {
        match self.flow()? {
            FlowError::Build(error) => Some(error),
            _ => None,
        }
    }

    /// Returns the [`FlowError`], if the error contains one.
    pub fn flow(&self) -> Option<&FlowError> {
        match self {
            Self::Flow { error, .. } => Some(error),
            #[cfg(feature = "samples")]
            Self::Collect { error, .. } => error.flow(),
            _ => None,
        }
    }

    /// Returns the error reply from the service or a gateway, if the error contains one.
    pub fn api(&self) -> Option<&ApiError> {
        self.flow()?.api()
    }

    /// Returns the HTTP status in the [`FlowError`], if there is one.
    pub fn status(&self) -> Option<StatusCode> {
        self.flow()?.status()
    }

    /// Returns the trace id that the error contains, if any. CrowdStrike support asks for it.
    pub fn trace_id(&self) -> Option<&str> {
        match self {
            Self::Stream(
                StreamError::WrongHash { instead, .. } | StreamError::NotZip { instead },
            ) => instead.trace_id(),
            #[cfg(feature = "samples")]
            Self::Collect { error, .. } => error.trace_id(),
            _ => self.flow()?.trace_id(),
        }
    }

    /// Returns whether it is worth retrying the same call or job soon. A retry may cost quota
    /// again: see the operation.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Flow { error, .. } => error.is_retryable(),
            Self::Stream(StreamError::Short { .. } | StreamError::CutZip) => true,
            Self::Body(error) => error.kind() != io::ErrorKind::FileTooLarge,
            #[cfg(feature = "samples")]
            Self::Collect { error, .. } => error.is_retryable(),
            _ => false,
        }
    }

    /// Returns the time at which the service allows a retry, if the reply contains it. `now` is the
    /// time at which the reply arrived.
    pub fn retry_at(&self, now: Timestamp) -> Option<Timestamp> {
        self.flow()?.retry_at(now)
    }
}

impl From<FlowError> for Error {
    fn from(error: FlowError) -> Self {
        Self::new(error, None, None)
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
            // The message of an error with a request id already names the job.
            Self::Flow { error, job, .. } => match (job, error.request_id()) {
                (Some(id), None) => write!(f, "job {id}: {error}"),
                _ => error.fmt(f),
            },
            Self::Stopped => f.write_str("the observer stopped the run"),
            Self::Stream(error) => error.fmt(f),
            Self::Body(_) => f.write_str("the download was interrupted"),
            #[cfg(feature = "samples")]
            Self::File { path, .. } => write!(f, "cannot create or access {}", path.display()),
            #[cfg(feature = "samples")]
            Self::Archive(error) => error.fmt(f),
            #[cfg(feature = "samples")]
            Self::Collect { error, job } => {
                let named = error.request_id();
                for (what, id) in [("search", job.search()), ("multi-download", job.download())] {
                    if let Some(id) = id.filter(|id| named != Some(*id)) {
                        write!(f, "{what} {id}: ")?;
                    }
                }
                error.fmt(f)
            }
        }
    }
}

debug_with_sources!(Error);

impl Error {
    /// Creates an `Error` from an [`io::Error`] that occurred while reading a
    /// [`Download`](super::Download).
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
            Self::Flow { error, cause, .. } => match cause {
                Some(cause) => Some(&**cause),
                None => error.source(),
            },
            Self::Stopped | Self::Stream(_) => None,
            Self::Body(error) => Some(error),
            #[cfg(feature = "samples")]
            Self::File { error, .. } => Some(error),
            #[cfg(feature = "samples")]
            Self::Archive(error) => error.source(),
            #[cfg(feature = "samples")]
            Self::Collect { error, .. } => error.source(),
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
    fn an_error_says_when_to_continue() {
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
    fn a_transport_limit_is_not_retryable() {
        let body = |kind: io::ErrorKind| Error::Body(kind.into());
        assert!(!body(io::ErrorKind::FileTooLarge).is_retryable());
        let late = body(io::ErrorKind::TimedOut);
        assert_eq!(
            (late.kind(), late.is_retryable()),
            (ErrorKind::Timeout, true)
        );
    }

    #[test]
    #[cfg(feature = "samples")]
    fn a_full_disk_is_no_damage() {
        let file = || ArchiveError::File {
            path: "sample".into(),
            error: io::ErrorKind::StorageFull.into(),
        };
        let stopped = ArchiveError::Stopped {
            entry: 0,
            source: file().into(),
            report: Box::default(),
        };
        let read = ArchiveError::Read(io::ErrorKind::NotFound.into());
        for error in [file(), stopped, read] {
            assert_eq!(Error::from(error).kind(), ErrorKind::File);
        }
        let damaged = ArchiveError::NotZip("text".into());
        assert_eq!(Error::from(damaged).kind(), ErrorKind::Damaged);
    }

    #[test]
    fn debug_shows_all_the_sources() {
        let error = Error::Body(io::Error::other(BuildError::NoSamples));
        assert_eq!(
            format!("{error:?}"),
            "the download was interrupted: at least one SHA-256 is required"
        );
        assert_eq!(
            format!("{:?}", Error::Stopped),
            "the observer stopped the run"
        );
    }
}
