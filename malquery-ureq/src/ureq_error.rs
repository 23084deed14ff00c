use std::error::Error as StdError;
use std::fmt;
use std::io;

use http::Uri;
use malquery_proto::TransportError;
use malquery_proto::client::EnvError;
use rustls::CertificateError;
use ureq::unversioned::resolver::DefaultResolver;

/// An invalid transport setting.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The setting is not the URL of a proxy. It is not shown, because it may contain a password.
    #[error("the proxy URL is invalid; use a URL such as http://host:port or socks5h://host:port")]
    Proxy,
    /// The value of this environment variable is not the URL of a proxy.
    #[error(
        "{0} does not contain the URL of a proxy; use a URL such as http://host:port, or unset the variable"
    )]
    ProxyVariable(&'static str),
    /// The user agent contains a character that is not allowed in a header.
    #[error("the user agent contains a character that is not allowed in a header")]
    UserAgent,
    /// The header cannot be added. Its value is not shown.
    #[error("cannot add the header {name:?}: {reason}")]
    #[allow(missing_docs)]
    Header { name: String, reason: &'static str },
    /// The root certificates cannot be read or parsed, or none of them can be used.
    #[error("{origin} cannot be loaded (X.509 certificates in PEM format are required)")]
    RootCertificates {
        /// A description of the certificates, including the file or environment variable that they
        /// come from, if any.
        origin: String,
        /// The reason, or `None` if no certificate was found.
        #[source]
        error: Option<Source>,
    },
}

impl fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        with_sources(self, f)
    }
}

impl From<ConfigError> for EnvError {
    fn from(error: ConfigError) -> Self {
        let variable = match error {
            ConfigError::ProxyVariable(name) => name,
            _ => "SSL_CERT_FILE",
        };
        let message = format!("{error:?}");
        Self::Transport { variable, message }
    }
}

/// Writes an error and its sources on one line.
fn with_sources(error: &dyn StdError, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{error}")?;
    match error.source() {
        Some(source) => {
            f.write_str(": ")?;
            with_sources(source, f)
        }
        None => Ok(()),
    }
}

/// The reason that a request failed. This is the source of every
/// [`TransportError`](malquery_proto::TransportError) from [`UreqTransport`](crate::UreqTransport).
///
/// `Display` writes one line that describes the failure and may include the host and a remedy.
/// `source` is the underlying error, if any, for example from the operating system or rustls.
/// Neither contains a header or a body.
pub struct UreqError {
    kind: UreqErrorKind,
    message: String,
    source: Option<Source>,
}

type Source = Box<dyn StdError + Send + Sync>;

/// The kind of a [`UreqError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum UreqErrorKind {
    /// The request cannot be sent: its URL is invalid or must use https, or the proxy or the root
    /// certificates from the environment are invalid.
    Refused,
    /// The time limit of the call had already expired, so nothing was sent.
    NoTime,
    /// The DNS lookup of the host, or of an HTTP or HTTPS proxy, failed or took too long.
    Lookup,
    /// Opening the connection took too long, or failed for a reason that no other kind covers.
    Connect,
    /// The certificate was rejected, for example because it has expired or is not trusted.
    Certificate,
    /// TLS failed for another reason.
    Tls,
    /// The proxy does not allow a connection to the host, or requires a valid user name and
    /// password.
    ProxyRefused,
    /// The connection through the proxy failed for another reason.
    Proxy,
    /// The request could not be sent in time, or the head of the reply did not arrive in time.
    Timeout,
    /// The connection broke before the head of the reply arrived, or the head is too large or is
    /// not valid HTTP.
    Broken,
}

use UreqErrorKind as Kind;

/// The beginning of a proxy's name in errors, as in `the proxy HOST:PORT`.
pub(crate) const PROXY: &str = "the proxy ";

impl UreqError {
    pub(crate) fn new(kind: Kind, message: impl Into<String>, source: Option<Source>) -> Self {
        let message = message.into();
        Self {
            kind,
            message,
            source,
        }
    }

    /// Returns the kind of the error.
    pub fn kind(&self) -> UreqErrorKind {
        self.kind
    }

    pub(crate) fn of_lookup(host: &str, error: ureq::Error) -> Self {
        let message = match error {
            ureq::Error::Timeout(_) => {
                let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
                format!("the DNS lookup of {name} took too long (check the network)")
            }
            _ if host.contains(PROXY) => {
                format!("could not resolve {host} (check the proxy URL and the network)")
            }
            _ => format!(
                "could not resolve {host} (check the cloud or the base URL, the \
                 network, and whether a proxy is needed)"
            ),
        };
        Self::new(Kind::Lookup, message, source(error))
    }

    /// Describes a failure to connect. No request was sent.
    pub(crate) fn of_connect(host: &str, error: ureq::Error) -> Self {
        let tls = match &error {
            ureq::Error::Rustls(error) => Some(error),
            ureq::Error::Io(error) => error.get_ref().and_then(|inner| inner.downcast_ref()),
            _ => None,
        };
        let (kind, message) = match (&error, tls) {
            (_, Some(rustls::Error::InvalidCertificate(error))) => {
                (Kind::Certificate, of_certificate(host, error))
            }
            (ureq::Error::Tls(_), _) | (_, Some(_)) => (
                Kind::Tls,
                format!(
                    "the TLS handshake with {host} failed (check that the server supports https)"
                ),
            ),
            _ => {
                let in_time = match error {
                    ureq::Error::Timeout(_) => " in time",
                    _ => "",
                };
                let last = match host.contains(PROXY) {
                    true => "the proxy URL",
                    false => "whether a proxy is needed",
                };
                let message = format!(
                    "could not connect to {host}{in_time} (check the network, the firewall, and {last})"
                );
                (Kind::Connect, message)
            }
        };
        Self::new(kind, message, source(error))
    }

    /// Describes a failure to connect through the proxy. No request was sent.
    pub(crate) fn of_proxy(host: &str, error: ureq::Error) -> Self {
        // ureq reports a refusal by a SOCKS proxy with one of these messages.
        let status = match &error {
            ureq::Error::Timeout(_) => return Self::of_connect(host, error),
            ureq::Error::Io(error) if error.raw_os_error().is_some() => 502,
            error => match &*error.to_string() {
                "io: no acceptable auth methods"
                | "io: unknown auth method"
                | "io: invalid password"
                | "io: password authentication failed" => 407,
                "io: connection not allowed by ruleset"
                | "io: request rejected because SOCKS server cannot connect to identd on the client"
                | "io: request rejected because the client program and identd report different user-ids" => {
                    403
                }
                _ => 502,
            },
        };
        Self {
            source: source(error),
            ..Self::of_proxy_status(host, status)
        }
    }

    /// Describes a failure to connect because the proxy replied with this status.
    pub(crate) fn of_proxy_status(host: &str, status: u16) -> Self {
        let (kind, why) = match status {
            407 => (
                Kind::ProxyRefused,
                ", which requires a valid user name and password (set them in the proxy URL)",
            ),
            408 | 425 | 429 | 500.. => (Kind::Proxy, " (check the proxy)"),
            _ => (
                Kind::ProxyRefused,
                ", which does not allow the connection (ask its administrator, or connect without the proxy)",
            ),
        };
        let source = format!("the proxy replied with status {status}");
        Self::new(
            kind,
            format!("could not connect to {host}{why}"),
            Some(source.into()),
        )
    }

    pub(crate) fn of_request(host: &str, error: ureq::Error) -> Self {
        let error = match error {
            ureq::Error::Other(cause) => match cause.downcast::<Self>() {
                Ok(error) => return *error,
                Err(cause) => ureq::Error::Other(cause),
            },
            error => error,
        };
        let (kind, message) = match error {
            // ureq checks this before it connects.
            ureq::Error::BadUri(_) => (
                Kind::Refused,
                "the URL of the request is invalid".to_owned(),
            ),
            ureq::Error::Timeout(_) => (Kind::Timeout, format!("{host} did not reply in time")),
            ureq::Error::LargeResponseHeader(..) => (
                Kind::Broken,
                format!("the head of the reply from {host} is too large"),
            ),
            ureq::Error::Protocol(_) => (Kind::Broken, format!("invalid HTTP reply from {host}")),
            // When in doubt, assume that the service received the request.
            _ => (
                Kind::Broken,
                format!("the connection to {host} broke before the reply arrived"),
            ),
        };
        Self::new(kind, message, source(error))
    }
}

fn of_certificate(host: &str, error: &CertificateError) -> String {
    use CertificateError as Error;

    match error {
        Error::NotValidForName | Error::NotValidForNameContext { .. } => {
            let url = match host.starts_with(PROXY) {
                true => "proxy",
                false => "base",
            };
            format!("the certificate from {host} is for another name (check the {url} URL)")
        }
        Error::Expired
        | Error::ExpiredContext { .. }
        | Error::NotValidYet
        | Error::NotValidYetContext { .. } => {
            format!(
                "the certificate of {host} has expired or is not valid yet (check the clock of \
                 this machine)"
            )
        }
        _ => format!(
            "the certificate of {host} is not trusted (if a company proxy inspects TLS, add its \
             root certificate with SSL_CERT_FILE or Builder::root_certificates)"
        ),
    }
}

/// Returns the cause of a ureq error, whose own `source` is always `None`.
fn source(error: ureq::Error) -> Option<Source> {
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

/// Returns the host of a URI, with its port if known, as shown in errors.
pub(crate) fn host_and_port(uri: &Uri) -> String {
    uri.scheme()
        .zip(uri.authority())
        .and_then(|(scheme, authority)| DefaultResolver::host_and_port(scheme, authority))
        .unwrap_or_else(|| uri.host().unwrap_or_default().to_owned())
}

impl From<UreqError> for TransportError {
    fn from(error: UreqError) -> Self {
        match error.kind {
            // Retrying a wrong password could lock the account.
            Kind::Refused | Kind::Certificate | Kind::ProxyRefused => Self::cannot_send(error),
            Kind::NoTime | Kind::Lookup | Kind::Connect | Kind::Tls | Kind::Proxy => {
                Self::not_sent(error)
            }
            // The service may have received the request.
            Kind::Timeout | Kind::Broken => Self::unknown(error),
        }
    }
}

impl fmt::Display for UreqError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for UreqError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        with_sources(self, f)
    }
}

impl StdError for UreqError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// The I/O error of a broken connection.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct Broken(pub(crate) io::Error);
