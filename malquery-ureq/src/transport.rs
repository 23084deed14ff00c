use std::fmt;
use std::time::Duration;

use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, HeaderValue};
use http::{Method, Request, Response, Uri};
use malquery_proto::client::TimeLeft;
use malquery_proto::endpoint::{Endpoint, Resend};
use malquery_proto::operation::Operation;
use malquery_proto::operations::FuzzySearch;
use malquery_proto::{BaseUrl, Body, Transport, TransportError};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, AsSendBody, Proxy};

use crate::body::Reader;
use crate::connect::{Connect, Lookup};
use crate::ureq_error::{ConfigError, Kind, UreqError};

/// How much is read from a connection at once. A large download took half the time of ureq's 128 KiB.
const INPUT_BUFFER: usize = 512 * 1024;

/// Sends requests over ureq. A clone shares its connections.
#[derive(Debug, Clone)]
pub struct UreqTransport {
    agent: Agent,
    reply_timeout: Duration,
    search_timeout: Duration,
    total_timeout: Option<Duration>,
}

impl UreqTransport {
    /// A transport with the timeouts of [`Builder`] and the proxy of the environment, if it names one. One that cannot be read
    /// is passed over; [`Builder::build`] refuses it.
    pub fn new() -> Self {
        Self::through(Proxy::try_from_env())
    }

    pub(crate) fn through(proxy: Option<Proxy>) -> Self {
        Builder::default().agent(proxy, TlsConfig::default())
    }

    /// A transport with other settings.
    pub fn builder() -> Builder {
        Builder::default()
    }

    fn run(
        &self,
        request: Request<impl AsSendBody>,
        settings: &PerRequest,
    ) -> Result<Response<ureq::Body>, ureq::Error> {
        let mut config = self
            .agent
            .configure_request(request)
            .https_only(!settings.loopback)
            .timeout_global(settings.total)
            .timeout_recv_response(Some(settings.reply))
            // It holds for each read, of the head as well as of the body: where the head may take longer, so
            // may a byte of the body.
            .timeout_per_read(Some(settings.reply));
        if settings.loopback {
            config = config.proxy(None);
        }
        if settings.fresh {
            // The age of a connection in the pool is at least zero, so none is young enough.
            config = config.max_idle_age(Duration::ZERO);
        }
        self.agent.run(config.build())
    }
}

impl Default for UreqTransport {
    fn default() -> Self {
        Self::new()
    }
}

/// A time that can be added to now. `Duration::MAX`, for one who wants no limit, cannot.
fn bounded(timeout: Duration) -> Duration {
    timeout.min(Duration::from_secs(100 * 365 * 24 * 3600))
}

struct PerRequest {
    /// Plain http to this machine.
    loopback: bool,
    /// Not over a connection that was used before.
    fresh: bool,
    reply: Duration,
    total: Option<Duration>,
}

impl Transport for UreqTransport {
    fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Body>, TransportError> {
        let (mut parts, body) = request.into_parts();
        let host = parts.uri.host().unwrap_or_default().to_owned();
        let loopback = parts.uri.scheme_str() == Some("http") && is_loopback(&parts.uri);
        if parts.uri.scheme_str() != Some("https") && !loopback {
            return Err(UreqError::new(Kind::PlainHttp, &host).into());
        }
        let left = parts.extensions.get::<TimeLeft>().map(|left| left.0);
        if left == Some(Duration::ZERO) {
            return Err(UreqError::new(Kind::NoTime, &host).into());
        }
        let meta = parts.extensions.get::<Endpoint>();
        let slow = meta.is_some_and(|meta| meta.id == FuzzySearch::ENDPOINT.id);
        let settings = PerRequest {
            loopback,
            // The service may close an idle connection at any moment, and then it is not known whether it has
            // seen the request. One that is billed would end as unsure, and for nothing.
            fresh: meta.is_some_and(|meta| meta.resend == Resend::Billed),
            reply: if slow {
                self.reply_timeout.max(self.search_timeout)
            } else {
                self.reply_timeout
            },
            total: self
                .total_timeout
                .into_iter()
                .chain(left.map(bounded))
                .min(),
        };
        // What asks for `identity` gets the bytes as they came.
        let any = !parts.headers.contains_key(ACCEPT_ENCODING);
        if any {
            parts
                .headers
                .insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let takes_body = matches!(parts.method, Method::POST | Method::PUT | Method::PATCH);
        let result = if body.is_empty() && !takes_body {
            // An empty `Vec` would be a body, with a `content-length: 0`; and for a POST, `()` would be a
            // chunked one.
            self.run(Request::from_parts(parts, ()), &settings)
        } else {
            self.run(Request::from_parts(parts, body), &settings)
        };
        let (mut head, body) = result
            .map_err(|error| TransportError::from(UreqError::from_ureq(error, &host)))?
            .into_parts();
        // An error is JSON, whatever was asked for.
        let gzip = (any || !head.status.is_success()) && is_gzip(&head.headers);
        if gzip {
            head.headers.remove(CONTENT_ENCODING);
            head.headers.remove(CONTENT_LENGTH);
        }
        Ok(Response::from_parts(
            head,
            Body::new(Reader::new(body, gzip)),
        ))
    }
}

fn is_gzip(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_ENCODING)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|coding| {
            coding.eq_ignore_ascii_case("gzip") || coding.eq_ignore_ascii_case("x-gzip")
        })
}

/// Whether [`BaseUrl`] takes plain http for this host. A request built by hand did not pass there.
fn is_loopback(uri: &Uri) -> bool {
    uri.authority()
        .is_some_and(|authority| format!("http://{authority}").parse::<BaseUrl>().is_ok())
}

/// The settings of a [`UreqTransport`].
///
/// | timeout | unless set |
/// |---|---|
/// | [`connect_timeout`](Self::connect_timeout) | 10 s |
/// | [`reply_timeout`](Self::reply_timeout) | 60 s |
/// | [`search_timeout`](Self::search_timeout) | 180 s |
/// | [`total_timeout`](Self::total_timeout) | none, since a large download takes long |
///
/// [`Duration::MAX`] is no limit. Whatever they are, a request ends when the time its call has left ([`TimeLeft`]) is up.
#[derive(Clone)]
#[must_use]
pub struct Builder {
    connect_timeout: Duration,
    reply_timeout: Duration,
    search_timeout: Duration,
    total_timeout: Option<Duration>,
    /// `Some(None)` is no proxy, whatever the environment says.
    proxy: Option<Option<String>>,
    user_agent: String,
    root_certificates: Vec<u8>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            reply_timeout: Duration::from_secs(60),
            search_timeout: Duration::from_secs(180),
            total_timeout: None,
            proxy: None,
            user_agent: concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")).into(),
            root_certificates: Vec::new(),
        }
    }
}

impl Builder {
    /// How long the lookup of a name may take, and how long the connection after it, with TLS and a proxy.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = bounded(timeout);
        self
    }

    /// How long the service may be silent: until the head of its reply is there, and between two bytes of a body.
    pub fn reply_timeout(mut self, timeout: Duration) -> Self {
        self.reply_timeout = bounded(timeout);
        self
    }

    /// The same for a fuzzy search, which answers only when it is done. The longer of the two holds for it.
    pub fn search_timeout(mut self, timeout: Duration) -> Self {
        self.search_timeout = bounded(timeout);
        self
    }

    /// How long a request may take in all, with the whole body of the reply.
    pub fn total_timeout(mut self, timeout: Duration) -> Self {
        self.total_timeout = Some(bounded(timeout));
        self
    }

    /// Sends requests through a proxy: `http://`, `https://`, `socks4://`, `socks4a://`, `socks5://` or
    /// `socks5h://`, a host and a port, and before them `user:password@` where it asks for that.
    ///
    /// Unless set, the first of `ALL_PROXY`, `HTTPS_PROXY` and `HTTP_PROXY` in the environment, and not for the
    /// hosts in `NO_PROXY`.
    pub fn proxy(mut self, url: impl Into<String>) -> Self {
        self.proxy = Some(Some(url.into()));
        self
    }

    /// Uses no proxy, whatever the environment says.
    pub fn no_proxy(mut self) -> Self {
        self.proxy = Some(None);
        self
    }

    /// The `User-Agent` (`malquery-ureq/` and the version unless set).
    pub fn user_agent(mut self, user_agent: impl Into<String>) -> Self {
        self.user_agent = user_agent.into();
        self
    }

    /// Trusts these certificates, in PEM form, besides the built-in roots of Mozilla: for a proxy of your own that
    /// inspects TLS.
    pub fn root_certificates(mut self, pem: impl AsRef<[u8]>) -> Self {
        self.root_certificates.extend_from_slice(pem.as_ref());
        self.root_certificates.push(b'\n');
        self
    }

    /// The transport.
    ///
    /// # Errors
    /// Refuses a proxy, a user agent and certificates that cannot be used. Nothing is sent.
    pub fn build(self) -> Result<UreqTransport, ConfigError> {
        // ureq panics when it is to send a user agent that is not a header.
        HeaderValue::from_str(&self.user_agent).map_err(|_| ConfigError::UserAgent)?;
        let proxy = match &self.proxy {
            None => environment_proxy().map_err(ConfigError::ProxyVariable)?,
            Some(None) => None,
            Some(Some(url)) => Some(Proxy::new(url).map_err(|_| ConfigError::Proxy)?),
        };
        let mut tls = TlsConfig::builder();
        if !self.root_certificates.is_empty() {
            let roots =
                join_roots(&self.root_certificates).map_err(ConfigError::RootCertificates)?;
            tls = tls.root_certs(RootCerts::from(roots));
        }
        Ok(self.agent(proxy, tls.build()))
    }

    fn agent(self, proxy: Option<Proxy>, tls: TlsConfig) -> UreqTransport {
        let config = Agent::config_builder()
            // A 4xx has a body that says why, and any status is a reply.
            .http_status_as_error(false)
            // A redirect is a reply, too. Nobody but the token endpoint may redirect, and who may follow it and
            // where to is decided in malquery-proto.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .https_only(true)
            .tls_config(tls)
            .proxy(proxy)
            .user_agent(&self.user_agent)
            .timeout_resolve(Some(self.connect_timeout))
            .timeout_connect(Some(self.connect_timeout))
            .timeout_per_write(Some(self.reply_timeout))
            .input_buffer_size(INPUT_BUFFER)
            .build();
        UreqTransport {
            agent: Agent::with_parts(config, Connect::default(), Lookup::default()),
            reply_timeout: self.reply_timeout,
            search_timeout: self.search_timeout,
            total_timeout: self.total_timeout,
        }
    }
}

/// The proxy of the environment, or the name of the variable that is none. ureq would look no further than that it
/// cannot read it, and send without a proxy.
pub(crate) fn environment_proxy() -> Result<Option<Proxy>, &'static str> {
    let variables = [
        "ALL_PROXY",
        "all_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "HTTP_PROXY",
        "http_proxy",
    ];
    let set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    match variables.into_iter().find(set) {
        Some(name) if !std::env::var(name).is_ok_and(|value| Proxy::new(&value).is_ok()) => {
            Err(name)
        }
        _ => Ok(Proxy::try_from_env()),
    }
}

/// These certificates and the built-in ones. ureq takes either its own or others.
fn join_roots(
    pem: &[u8],
) -> Result<Vec<Certificate<'static>>, Option<Box<dyn std::error::Error + Send + Sync>>> {
    let mut roots = Vec::new();
    let mut check = RootCertStore::empty();
    for item in parse_pem(pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| Some(error.into()))? {
            // ureq leaves out what cannot be read, and that would show only when the service is not trusted.
            check
                .add(CertificateDer::from_slice(certificate.der()))
                .map_err(|error| Some(error.into()))?;
            roots.push(certificate);
        }
    }
    if roots.is_empty() {
        return Err(None);
    }
    roots.extend(
        webpki_root_certs::TLS_SERVER_ROOT_CERTS
            .iter()
            .map(|der| Certificate::from_der(der)),
    );
    Ok(roots)
}

impl fmt::Debug for Builder {
    /// Leaves out the proxy, which may hold a password.
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

    #[test]
    fn loopback_is_nothing_but_this_machine() {
        for uri in [
            "http://127.0.0.1:1/",
            "http://127.9.9.9/",
            "http://[::1]:1/",
            "http://localhost:1/",
            "http://LOCALHOST/",
        ] {
            assert!(is_loopback(&uri.parse().unwrap()), "{uri}");
        }
        for uri in [
            "http://127.0.0.1.example/",
            "http://127.0.0.1@evil.example/",
            "http://localhost.example/",
            "http://[::2]/",
            "http://[::ffff:10.0.0.1]/",
            "http://10.0.0.1/",
            "http://api.crowdstrike.com/",
            "/path",
        ] {
            assert!(!is_loopback(&uri.parse().unwrap()), "{uri}");
        }
    }

    #[test]
    fn settings_that_cannot_be_used_are_refused() {
        let refused = |builder: Builder| builder.build().unwrap_err();
        assert!(matches!(
            refused(UreqTransport::builder().user_agent("a\nb")),
            ConfigError::UserAgent
        ));
        for url in ["", "ftp://host:1", "http://"] {
            let error = refused(UreqTransport::builder().proxy(url));
            assert!(matches!(error, ConfigError::Proxy), "{url} {error}");
        }
        let error = refused(UreqTransport::builder().proxy("ftp://user:p4ssw0rd@host"));
        assert!(!format!("{error} {error:?}").contains("p4ssw0rd"));
        for pem in [
            "",
            "no certificate",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\nAAAA\n",
        ] {
            let error = refused(UreqTransport::builder().root_certificates(pem));
            assert!(
                matches!(error, ConfigError::RootCertificates(_)),
                "{pem} {error}"
            );
        }
    }

    #[test]
    fn a_time_without_an_end_is_no_limit() {
        let forever = Duration::MAX;
        let builder = UreqTransport::builder()
            .connect_timeout(forever)
            .reply_timeout(forever);
        let transport = builder
            .search_timeout(forever)
            .total_timeout(forever)
            .no_proxy()
            .build()
            .unwrap();
        let mut request = Request::get("http://127.0.0.1:1/")
            .body(Vec::new())
            .unwrap();
        request.extensions_mut().insert(TimeLeft(forever));
        // There is nobody, and nothing panics.
        transport.send(request).map(drop).unwrap_err();
    }

    #[test]
    fn nothing_shows_the_password_of_a_proxy() {
        let builder = UreqTransport::builder().proxy("http://user:p4ssw0rd@proxy.example:1");
        let shown = format!("{builder:?} {:?}", builder.clone().build().unwrap());
        assert!(!shown.contains("p4ssw0rd"), "{shown}");
    }

    #[test]
    fn threads_can_share_it() {
        fn check<T: Send + Sync>() {}
        check::<UreqTransport>();
        check::<UreqError>();
    }
}
