//! Shared code of the tests: the server, clients, checks of errors, and certificates.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request};
use malquery_proto::flow::{Auth, RetryPolicy, SendFailure};
pub(crate) use malquery_test_support::*;
use malquery_ureq::{
    BaseUrl, Builder, Client, Credentials, SystemClock, TransportError, UreqError, UreqTransport,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// The body of a quotas reply.
pub(crate) const QUOTAS: &str = r#"{"meta":{"hunt_count":9},"resources":[],"errors":[]}"#;

/// Builds a request without the client.
pub(crate) fn request(method: Method, url: &str) -> Request<Vec<u8>> {
    Request::builder()
        .method(method)
        .uri(url)
        .body(Vec::new())
        .unwrap()
}

pub(crate) fn get(url: &str) -> Request<Vec<u8>> {
    request(Method::GET, url)
}

/// Far longer than the timeouts of the tests, even on a slow machine.
pub(crate) const NO_HANG: Duration = Duration::from_secs(40);

pub(crate) fn patient() -> UreqTransport {
    builder().build().unwrap()
}

pub(crate) fn impatient() -> UreqTransport {
    let timeout = Duration::from_secs(1);
    builder().reply_timeout(timeout).build().unwrap()
}

/// Checks an error. Its source must be an error of this crate, whose `Display` is one line and does
/// not repeat its own source.
pub(crate) fn check(error: &TransportError, failure: SendFailure, says: &str, source: &str) {
    assert_eq!(error.failure(), failure, "{error:?}");
    let error: &UreqError = error.source().unwrap().downcast_ref().unwrap();
    let shown = error.to_string();
    assert!(shown.contains(says), "{shown}");
    assert!(!shown.contains('\n'), "{shown}");
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    assert!(cause.contains(source), "{cause}");
    let repeats = !cause.is_empty() && shown.contains(&cause);
    assert!(!repeats, "{shown}: {cause}");
}

/// An authority that signs the certificates of servers.
pub(crate) struct Ca {
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    pub(crate) fn server(&self, name: &str) -> Arc<ServerConfig> {
        self.server_with(name, |_| {})
    }

    pub(crate) fn server_with(
        &self,
        name: &str,
        change: impl Fn(&mut CertificateParams),
    ) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        Arc::new(config)
    }
}

pub(crate) fn wrap(
    config: &Arc<ServerConfig>,
    stream: impl Stream + 'static,
) -> io::Result<Box<dyn Stream>> {
    let connection = ServerConnection::new(Arc::clone(config)).unwrap();
    Ok(Box::new(StreamOwned::new(connection, stream)))
}

/// Serves the token and the quotas over TLS.
pub(crate) fn serve(config: Arc<ServerConfig>) -> Server {
    Server::wrapped(
        move |stream| wrap(&config, stream),
        |request, out| match token(request, out) {
            true => Then::Go,
            false => json(out, QUOTAS),
        },
    )
}

pub(crate) fn builder() -> Builder {
    UreqTransport::builder().no_proxy()
}

pub(crate) fn quotas(url: &str, transport: UreqTransport) -> Option<i64> {
    let auth = Auth::new(
        url.parse::<BaseUrl>().unwrap(),
        Credentials::new("an-id", "p4ssw0rd"),
    );
    let client = Client::new(transport, SystemClock, auth).retry(RetryPolicy::never());
    client
        .quotas()
        .unwrap()
        .meta
        .hunt_count
        .and_then(|count| i64::try_from(count).ok())
}
