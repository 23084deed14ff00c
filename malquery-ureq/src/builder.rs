use std::error::Error as StdError;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use crate::proxy::{self, Route};
use crate::ureq_error::ConfigError;

/// The settings of a [`UreqTransport`](crate::UreqTransport). The [crate
/// documentation](crate#time-limits) explains how the time limits interact.
#[derive(Clone)]
#[must_use]
pub struct Builder {
    pub(crate) connect_timeout: Duration,
    pub(crate) reply_timeout: Duration,
    pub(crate) search_timeout: Duration,
    pub(crate) total_timeout: Option<Duration>,
    pub(crate) user_agent: String,
    /// `None` uses the proxy from the environment, and `Some(None)` uses no proxy.
    proxy: Option<Option<String>>,
    headers: Vec<(String, String)>,
    roots: Vec<Roots>,
}

#[derive(Clone)]
enum Roots {
    Pem(Vec<u8>),
    File(PathBuf),
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            reply_timeout: Duration::from_secs(60),
            search_timeout: Duration::from_secs(180),
            total_timeout: None,
            user_agent: concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")).into(),
            proxy: None,
            headers: Vec::new(),
            roots: Vec::new(),
        }
    }
}

impl Builder {
    /// Limits the time to open a connection: name lookup, TCP, proxy and TLS together. The default
    /// is 10 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = bounded(timeout);
        self
    }

    /// Sets the maximum duration of each wait while a request is being sent or its reply is being
    /// received. The whole head of a reply must arrive within 1.25 times this limit. The default is
    /// 60 s. For fuzzy searches, see [`search_timeout`](Self::search_timeout).
    pub fn reply_timeout(mut self, timeout: Duration) -> Self {
        self.reply_timeout = bounded(timeout);
        self
    }

    /// Sets the maximum duration of each wait for data from a fuzzy search. The reply arrives only
    /// when the search is done. If [`reply_timeout`](Self::reply_timeout) is longer, it applies
    /// instead. The default is 180 s.
    pub fn search_timeout(mut self, timeout: Duration) -> Self {
        self.search_timeout = bounded(timeout);
        self
    }

    /// Limits the time for each request, including the whole body of its reply. By default there is
    /// no limit, because a large download can take a long time.
    pub fn total_timeout(mut self, timeout: Duration) -> Self {
        self.total_timeout = Some(bounded(timeout));
        self
    }

    /// Sends all https requests through a proxy, such as `http://host:port` or
    /// `http://user:password@host:port`. The scheme can be `http`, `https`, `socks4`, `socks4a`,
    /// `socks5` (also written `socks`) or `socks5h`. A URL without a scheme uses `http`.
    ///
    /// By default, the proxy comes from the first of the environment variables `https_proxy`,
    /// `HTTPS_PROXY`, `all_proxy` and `ALL_PROXY` that is set and not empty. Hosts in `no_proxy`,
    /// or in `NO_PROXY` if `no_proxy` is unset or empty, are then reached directly.
    pub fn proxy(mut self, url: impl Into<String>) -> Self {
        self.proxy = Some(Some(url.into()));
        self
    }

    /// Uses no proxy, and ignores the proxy in the environment.
    pub fn no_proxy(mut self) -> Self {
        self.proxy = Some(None);
        self
    }

    /// Sets the `User-Agent` header. The default is `malquery-ureq/` followed by the version.
    pub fn user_agent(mut self, user_agent: impl Into<String>) -> Self {
        self.user_agent = user_agent.into();
        self
    }

    /// Adds a header to every request, for example for a gateway. If a name is added twice, the
    /// last value applies. The value is marked as sensitive, and errors do not show it.
    ///
    /// [`build`](Self::build) rejects reserved headers, such as `Authorization`, `Cookie`, `Host`
    /// and `Range`, and any header whose name begins with `Accept`, `Content-`, `If-` or `Proxy-`.
    /// Headers that a request already has are not replaced.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Trusts these certificates, in PEM format, in addition to Mozilla's root certificates. A
    /// company proxy that inspects TLS requires this.
    pub fn root_certificates(mut self, pem: impl AsRef<[u8]>) -> Self {
        self.roots.push(Roots::Pem(pem.as_ref().to_owned()));
        self
    }

    /// Like [`root_certificates`](Self::root_certificates), but trusts the certificates in a PEM
    /// file. [`build`](Self::build) reads the file.
    ///
    /// If the environment variable `SSL_CERT_FILE` is set and not empty, the file that it names is
    /// read as well. The maximum size of each file is 16 MiB.
    pub fn root_certificate_file(mut self, path: impl AsRef<Path>) -> Self {
        self.roots.push(Roots::File(path.as_ref().to_owned()));
        self
    }

    pub(crate) fn parts(&self) -> Result<(Route, HeaderMap, TlsConfig), ConfigError> {
        // ureq panics if the user agent is not a valid header value.
        HeaderValue::from_str(&self.user_agent).map_err(|_| ConfigError::UserAgent)?;
        let route = match &self.proxy {
            None => Route::from_env()?,
            Some(None) => Route::default(),
            Some(Some(url)) => Route::through(proxy::parse(url).ok_or(ConfigError::Proxy)?, ""),
        };
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let (name, value) = header(name, value)?;
            headers.insert(name, value);
        }
        Ok((route, headers, self.tls()?))
    }

    fn tls(&self) -> Result<TlsConfig, ConfigError> {
        let mut certificates = Vec::new();
        for roots in &self.roots {
            match roots {
                Roots::Pem(pem) => {
                    certificates.extend(parse("the root certificates", Ok(pem.clone()))?)
                }
                Roots::File(path) => certificates.extend(parse(
                    &format!("the root certificates in {}", path.display()),
                    read(path),
                )?),
            }
        }
        if let Some(path) = std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()) {
            let origin = format!("SSL_CERT_FILE={}", path.display());
            certificates.extend(parse(&origin, read(path.as_ref()))?);
        }
        let tls = TlsConfig::builder();
        if certificates.is_empty() {
            return Ok(tls.build());
        }
        // ureq uses either Mozilla's roots or these, so add Mozilla's.
        certificates.extend(
            webpki_root_certs::TLS_SERVER_ROOT_CERTS
                .iter()
                .map(|der| Certificate::from_der(der)),
        );
        Ok(tls.root_certs(RootCerts::from(certificates)).build())
    }
}

/// Reads a certificate file of up to 16 MiB. The limit protects against files like `/dev/zero`.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    const MOST: u64 = 16 * 1024 * 1024;
    let mut pem = Vec::new();
    File::open(path)?.take(MOST + 1).read_to_end(&mut pem)?;
    match pem.len() as u64 > MOST {
        true => Err(io::Error::other("the file is larger than 16 MiB")),
        false => Ok(pem),
    }
}

/// Limits a timeout to 100 years, so that it can be added to the current time.
pub(crate) fn bounded(timeout: Duration) -> Duration {
    timeout.min(Duration::from_secs(100 * 365 * 24 * 3600))
}

fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), ConfigError> {
    const RESERVED: [&str; 11] = [
        "authorization",
        "connection",
        "cookie",
        "expect",
        "host",
        "keep-alive",
        "range",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    const PREFIXES: [&str; 4] = ["accept", "content-", "if-", "proxy-"];
    let refuse = |reason| ConfigError::Header {
        name: name.to_owned(),
        reason,
    };
    let key: HeaderName = name.parse().map_err(|_| refuse("the name is not valid"))?;
    if key == http::header::USER_AGENT {
        return Err(refuse("use Builder::user_agent"));
    }
    if RESERVED.contains(&key.as_str())
        || PREFIXES
            .iter()
            .any(|prefix| key.as_str().starts_with(prefix))
    {
        return Err(refuse("it is reserved"));
    }
    let mut value = HeaderValue::from_str(value)
        .map_err(|_| refuse("the value contains a character that is not allowed in a header"))?;
    value.set_sensitive(true);
    Ok((key, value))
}

/// Parses certificates, and skips those that rustls cannot use. Fails if no certificate remains.
fn parse(origin: &str, pem: io::Result<Vec<u8>>) -> Result<Vec<Certificate<'static>>, ConfigError> {
    let refuse = |error: Option<Box<dyn StdError + Send + Sync>>| ConfigError::RootCertificates {
        origin: origin.to_owned(),
        error,
    };
    let pem = pem.map_err(|error| refuse(Some(error.into())))?;
    let (mut certificates, mut reason) = (Vec::new(), None);
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) =
            item.map_err(|error| refuse(Some(error.into())))?
        {
            match RootCertStore::empty().add(CertificateDer::from_slice(certificate.der())) {
                Ok(()) => certificates.push(certificate),
                Err(error) => reason = Some(error.into()),
            }
        }
    }
    match certificates.is_empty() {
        true => Err(refuse(reason)),
        false => Ok(certificates),
    }
}

impl fmt::Debug for Builder {
    /// Omits the proxy and the headers, which may contain secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("connect_timeout", &self.connect_timeout)
            .field("reply_timeout", &self.reply_timeout)
            .field("search_timeout", &self.search_timeout)
            .field("total_timeout", &self.total_timeout)
            .field("user_agent", &self.user_agent)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(builder: Builder) -> ConfigError {
        builder.build().unwrap_err()
    }

    #[test]
    fn settings_that_cannot_be_used_are_refused() {
        let error = refused(Builder::default().user_agent("a\nb"));
        assert!(matches!(error, ConfigError::UserAgent));
        for url in [
            "",
            "ftp://host:1",
            "http://",
            "http://host:port",
            "http://host:0",
            "http://user:word@host:99999",
            "http://[::1]:port",
            "host:port",
        ] {
            let error = refused(Builder::default().proxy(url));
            assert!(matches!(error, ConfigError::Proxy), "{url} {error}");
        }
        let error = refused(Builder::default().proxy("ftp://user:p4ssw0rd@host"));
        assert!(!format!("{error} {error:?}").contains("p4ssw0rd"));
    }

    #[test]
    fn certificates_that_cannot_be_used_are_refused() {
        for pem in [
            "",
            "no certificate",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\nAAAA\n",
        ] {
            let error = refused(Builder::default().root_certificates(pem)).to_string();
            let says = "the root certificates cannot be loaded (X.509 certificates in PEM format are required)";
            assert_eq!(error, says);
        }
        let error = refused(Builder::default().root_certificate_file("/no/such.pem"));
        let shown = format!("{error:?}");
        #[cfg(unix)]
        {
            let error = refused(Builder::default().root_certificate_file("/dev/zero"));
            assert!(format!("{error:?}").ends_with(": the file is larger than 16 MiB"));
        }
        let says = "the root certificates in /no/such.pem cannot be loaded (X.509 certificates";
        assert!(shown.starts_with(says), "{shown}");
    }

    #[test]
    fn headers_that_belong_to_others_are_refused() {
        for (name, value, says) in [
            ("Authorization", "s3cret", "reserved"),
            ("cookie", "s3cret", "reserved"),
            ("Content-Type", "s3cret", "reserved"),
            ("Accept-Encoding", "s3cret", "reserved"),
            ("range", "s3cret", "reserved"),
            ("If-None-Match", "s3cret", "reserved"),
            ("Proxy-Authorization", "s3cret", "reserved"),
            ("user-agent", "s3cret", "Builder::user_agent"),
            ("", "s3cret", "not valid"),
            ("a header", "s3cret", "not valid"),
            ("x-key", "s3cret\r\nx: y", "not allowed in a header"),
        ] {
            let shown = format!("{:?}", refused(Builder::default().header(name, value)));
            assert!(shown.contains(name) && shown.contains(says), "{shown}");
            assert!(!shown.contains("s3cret"), "{shown}");
        }
    }

    #[test]
    fn nothing_shows_the_secrets_of_settings() {
        let builder = Builder::default()
            .proxy("http://user:p4ssw0rd@proxy.example:1")
            .header("x-key", "s3cret");
        let shown = format!("{builder:?} {:?}", builder.clone().build().unwrap());
        assert!(
            !shown.contains("p4ssw0rd") && !shown.contains("s3cret"),
            "{shown}"
        );
    }
}
