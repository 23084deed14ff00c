use std::error::Error as StdError;
use std::fmt;
use std::io;

use malquery_proto::client::TransportError;
use malquery_proto::flow::SendFailure;

use crate::connect::{Broken, NoConnection, Phase};

/// A setting of the transport that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Not the URL of a proxy. It is not shown, since it may hold a password.
    #[error(
        "the proxy is not a URL like http://host:port (http, https, socks4, socks4a, socks5 and socks5h)"
    )]
    Proxy,
    /// The same of a variable of the environment.
    #[error("{0} is not the URL of a proxy like http://host:port; correct or unset it")]
    ProxyVariable(&'static str),
    /// Characters that a header cannot carry.
    #[error("the user agent has a character that a header cannot carry")]
    UserAgent,
    /// No root certificate in the text, or one that cannot be read.
    #[error("the root certificates cannot be read; give X.509 certificates in PEM form")]
    RootCertificates(#[source] Option<Box<dyn StdError + Send + Sync>>),
}

/// Why there is no reply.
///
/// Its `Display` is one line and tells what to do where that is known; `source` is what the system, rustls or
/// ureq said. Neither shows a header or a body.
#[derive(Debug)]
pub struct UreqError {
    kind: Kind,
    host: Box<str>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// Which of them were not sent is said in one place, [`Kind::failure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    NoTime,
    PlainHttp,
    Malformed,
    Lookup,
    LookupTimeout,
    Connect,
    ConnectTimeout,
    UntrustedCertificate,
    CertificateName,
    CertificateTime,
    Tls,
    Proxy,
    Timeout,
    NotHttp,
    Broken,
}

impl Kind {
    fn failure(self) -> SendFailure {
        match self {
            Self::PlainHttp
            | Self::Malformed
            | Self::UntrustedCertificate
            | Self::CertificateName
            | Self::CertificateTime => SendFailure::CannotSend,
            Self::NoTime
            | Self::Lookup
            | Self::LookupTimeout
            | Self::Connect
            | Self::ConnectTimeout
            | Self::Tls
            | Self::Proxy => SendFailure::NotSent,
            Self::Timeout | Self::NotHttp | Self::Broken => SendFailure::Unknown,
        }
    }
}

impl UreqError {
    pub(crate) fn new(kind: Kind, host: &str) -> Self {
        Self {
            kind,
            host: host.into(),
            source: None,
        }
    }

    pub(crate) fn from_ureq(error: ureq::Error, host: &str) -> Self {
        match error {
            ureq::Error::Other(cause) => match cause.downcast::<NoConnection>() {
                Ok(cause) => Self::no_connection(*cause),
                Err(cause) => Self {
                    source: source(ureq::Error::Other(cause)),
                    ..Self::new(Kind::Broken, host)
                },
            },
            // ureq looks at these two before it connects, and at the third before it sends.
            ureq::Error::RequireHttpsOnly(_) => Self::new(Kind::PlainHttp, host),
            ureq::Error::BadUri(_) => Self {
                source: source(error),
                ..Self::new(Kind::Malformed, host)
            },
            ureq::Error::TlsRequired => Self {
                source: source(error),
                ..Self::new(Kind::Tls, host)
            },
            ureq::Error::Timeout(_) => Self {
                source: source(error),
                ..Self::new(Kind::Timeout, host)
            },
            ureq::Error::Protocol(_) | ureq::Error::LargeResponseHeader(..) => Self {
                source: source(error),
                ..Self::new(Kind::NotHttp, host)
            },
            // When in doubt, the service has seen the request.
            error => Self {
                source: source(error),
                ..Self::new(Kind::Broken, host)
            },
        }
    }

    /// Nothing was sent. The kind only chooses the words.
    fn no_connection(cause: NoConnection) -> Self {
        let NoConnection { host, phase, error } = cause;
        let kind = match (&error, phase) {
            (ureq::Error::BadUri(_), _) => Kind::Malformed,
            (ureq::Error::Timeout(_), Phase::Lookup) => Kind::LookupTimeout,
            (ureq::Error::Timeout(_), Phase::Connect) => Kind::ConnectTimeout,
            (_, Phase::Lookup) => Kind::Lookup,
            (ureq::Error::ConnectProxyFailed(_) | ureq::Error::Protocol(_), _) => Kind::Proxy,
            (ureq::Error::Rustls(error), _) => Kind::of_tls(error),
            (ureq::Error::Tls(_), _) => Kind::Tls,
            (ureq::Error::Io(error), _) => {
                match error
                    .get_ref()
                    .and_then(|inner| inner.downcast_ref::<rustls::Error>())
                {
                    Some(error) => Kind::of_tls(error),
                    None => Kind::Connect,
                }
            }
            _ => Kind::Connect,
        };
        Self {
            kind,
            host: host.into(),
            source: source(error),
        }
    }
}

impl Kind {
    fn of_tls(error: &rustls::Error) -> Self {
        use rustls::{CertificateError as Certificate, Error};

        match error {
            Error::InvalidCertificate(error) => match error {
                Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => {
                    Self::CertificateName
                }
                Certificate::Expired
                | Certificate::ExpiredContext { .. }
                | Certificate::NotValidYet
                | Certificate::NotValidYetContext { .. } => Self::CertificateTime,
                _ => Self::UntrustedCertificate,
            },
            _ => Self::Tls,
        }
    }
}

/// What an error of ureq is about; its own `source` is always `None`.
fn source(error: ureq::Error) -> Option<Box<dyn StdError + Send + Sync>> {
    Some(match error {
        ureq::Error::Other(cause) => match cause.downcast::<Broken>() {
            Ok(cause) => return source(ureq::Error::Io(cause.0)),
            Err(cause) => cause,
        },
        ureq::Error::Io(error) => match error.downcast::<rustls::Error>() {
            Ok(error) => error.into(),
            Err(error) => error.into(),
        },
        ureq::Error::Rustls(error) => error.into(),
        ureq::Error::Protocol(error) => error.into(),
        ureq::Error::Timeout(_) => io::Error::from(io::ErrorKind::TimedOut).into(),
        error => error.into(),
    })
}

impl From<UreqError> for TransportError {
    fn from(error: UreqError) -> Self {
        match error.kind.failure() {
            SendFailure::NotSent => Self::not_sent(error),
            SendFailure::CannotSend => Self::cannot_send(error),
            SendFailure::Unknown => Self::unknown(error),
        }
    }
}

impl fmt::Display for UreqError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = &self.host;
        match self.kind {
            Kind::NoTime => write!(
                f,
                "the time for the call was up before it was sent to {host}"
            ),
            Kind::PlainHttp => {
                write!(
                    f,
                    "plain http would show the credentials to the network on the way to {host}; use https"
                )
            }
            Kind::Malformed => write!(f, "the URL of the request cannot be used"),
            Kind::Lookup => write!(
                f,
                "the name {host} was not found; check the cloud or base URL, the network, and whether a proxy is needed"
            ),
            Kind::LookupTimeout => write!(
                f,
                "looking up the name {host} took too long; check the network"
            ),
            Kind::Connect => write!(
                f,
                "no connection to {host}; check the network, a firewall, and whether a proxy is needed"
            ),
            Kind::ConnectTimeout => write!(
                f,
                "no connection to {host} in time; check the network, a firewall, and whether a proxy is needed"
            ),
            Kind::UntrustedCertificate => write!(
                f,
                "the certificate of {host} is not trusted; if a proxy of your own inspects TLS, add its root \
                 certificate (Builder::root_certificates)"
            ),
            Kind::CertificateName => {
                write!(
                    f,
                    "the certificate is for another name than {host}; check the base URL"
                )
            }
            Kind::CertificateTime => write!(
                f,
                "the certificate of {host} has expired or is not valid yet; check the clock of this machine"
            ),
            Kind::Tls => write!(
                f,
                "no TLS connection to {host}; is it https that is spoken there?"
            ),
            Kind::Proxy => write!(
                f,
                "the proxy gave no connection to {host}; check its address, its user name and password, and \
                 whether it lets {host} pass"
            ),
            Kind::Timeout => write!(f, "no reply from {host} in time"),
            Kind::NotHttp => write!(f, "the reply of {host} is not HTTP"),
            Kind::Broken => write!(f, "the connection to {host} broke before the reply"),
        }
    }
}

impl StdError for UreqError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
