use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, HeaderValue,
};
use http::{Method, Request, Response, Uri};
use malquery_proto::client::TimeLeft;
use malquery_proto::endpoint::{Endpoint, Resend};
use malquery_proto::operation::Operation;
use malquery_proto::operations::FuzzySearch;
use malquery_proto::{Body, Transport, TransportError};
use ureq::tls::TlsConfig;
use ureq::{Agent, AsSendBody, Proxy};

use crate::body;
use crate::builder::{Builder, bounded};
use crate::connect::{Connect, NoLookup};
use crate::proxy::Route;
use crate::ureq_error::{ConfigError, UreqError, UreqErrorKind as Kind, host_and_port};

/// How much is read from a connection at once. A large download took half the time of ureq's 128
/// KiB.
const INPUT_BUFFER: usize = 512 * 1024;

/// The operation id of the request for a token.
const TOKEN: &str = "oauth2AccessToken";

/// Sends requests over ureq. A clone shares its connections.
#[derive(Debug, Clone)]
pub struct UreqTransport {
    agent: Agent,
    route: Route,
    headers: HeaderMap,
    settings: Builder,
    /// Why nothing can be sent.
    unusable: Option<Arc<ConfigError>>,
}

impl Builder {
    /// Makes the transport. Sends nothing.
    ///
    /// # Errors
    /// Refuses a proxy, a user agent, a header or certificates that cannot be used, including
    /// those from the environment.
    pub fn build(self) -> Result<UreqTransport, ConfigError> {
        let (route, headers, tls) = self.parts()?;
        Ok(UreqTransport::with(self, route, headers, tls))
    }
}

impl UreqTransport {
    /// Makes a transport with the defaults of [`Builder`], and the proxy and the root certificates
    /// of the environment. If those cannot be used, every request fails and says so;
    /// [`Builder::build`] reports it at once.
    pub fn new() -> Self {
        let settings = Builder::default();
        settings.clone().build().unwrap_or_else(|error| Self {
            unusable: Some(Arc::new(error)),
            ..Self::with(
                settings,
                Route::default(),
                HeaderMap::new(),
                TlsConfig::default(),
            )
        })
    }

    /// Starts with the defaults of [`Builder`].
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn with(
        settings: Builder,
        route: Route,
        headers: HeaderMap,
        tls: TlsConfig,
    ) -> Self {
        let config = Agent::config_builder()
            // The body of a 4xx says why.
            .http_status_as_error(false)
            // malquery-proto decides which redirect is followed, and where to.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .tls_config(tls)
            .proxy(None)
            .user_agent(&settings.user_agent)
            .timeout_connect(Some(settings.connect_timeout))
            .timeout_per_write(Some(settings.reply_timeout))
            .input_buffer_size(INPUT_BUFFER)
            .build();
        Self {
            agent: Agent::with_parts(config, Connect::default(), NoLookup),
            route,
            headers,
            settings,
            unusable: None,
        }
    }

    fn run(
        &self,
        request: Request<impl AsSendBody>,
        settings: PerRequest,
    ) -> Result<Response<ureq::Body>, ureq::Error> {
        let mut config = self
            .agent
            .configure_request(request)
            .proxy(settings.proxy)
            .timeout_global(settings.total)
            // Where the head may take longer, a byte of the body may, too.
            .timeout_per_read(Some(settings.reply))
            // A head that arrives byte by byte. The limit is longer than the limit of a read,
            // so that the socket keeps its time limit from call to call.
            .timeout_recv_response(Some(settings.reply + settings.reply / 4));
        if settings.fresh {
            // A connection in the pool is at least this old, so none is taken.
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

struct PerRequest {
    proxy: Option<Proxy>,
    /// Not over a connection that was used before.
    fresh: bool,
    reply: Duration,
    total: Option<Duration>,
}

impl Transport for UreqTransport {
    fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Body>, TransportError> {
        let (mut parts, body) = request.into_parts();
        let uri = parts.uri.clone();
        let host = || host_and_port(&uri);
        if let Some(reason) = &self.unusable {
            let message = "the proxy or the root certificates of the environment cannot be used";
            let reason = reason.clone().into();
            return Err(UreqError::new(Kind::Refused, message, Some(reason)).into());
        }
        let loopback = uri.scheme_str() == Some("http") && is_loopback(&uri);
        if uri.scheme_str() != Some("https") && !loopback {
            let message = format!(
                "plain http would show the credentials to the network on the way to {}; use https",
                host()
            );
            return Err(UreqError::new(Kind::Refused, message, None).into());
        }
        let left = parts.extensions.get::<TimeLeft>().map(|left| left.0);
        if left == Some(Duration::ZERO) {
            let message = format!(
                "the time for the call was up before it was sent to {}",
                host()
            );
            return Err(UreqError::new(Kind::NoTime, message, None).into());
        }
        let settings = &self.settings;
        let operation = parts.extensions.get::<Endpoint>();
        let slow = operation.is_some_and(|operation| operation.id == FuzzySearch::ENDPOINT.id);
        let per_request = PerRequest {
            proxy: self.route.proxy(&uri).filter(|_| !loopback),
            // The service may close an idle connection at any moment. Whether it has seen the
            // request is not known then, and a request that may be billed is not sent again.
            fresh: operation.is_some_and(|operation| operation.resend == Resend::Billed),
            reply: match slow {
                true => settings.reply_timeout.max(settings.search_timeout),
                false => settings.reply_timeout,
            },
            total: settings
                .total_timeout
                .into_iter()
                .chain(left.map(bounded))
                .min(),
        };
        // What asks for `identity` gets the bytes as they came.
        let raw = parts.headers.contains_key(ACCEPT_ENCODING);
        if !raw {
            parts
                .headers
                .insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        }
        // If the reply comes twice, the copy must not become the reply to another request.
        if operation.is_some_and(|operation| operation.id == TOKEN) {
            parts
                .headers
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        for (name, value) in &self.headers {
            parts.headers.entry(name).or_insert_with(|| value.clone());
        }
        let takes_body = matches!(parts.method, Method::POST | Method::PUT | Method::PATCH);
        let result = if body.is_empty() && !takes_body {
            // ureq sends a `content-length: 0` with an empty `Vec`, and a POST with `()` as
            // chunked.
            self.run(Request::from_parts(parts, ()), per_request)
        } else {
            self.run(Request::from_parts(parts, body), per_request)
        };
        let (mut head, body) = result
            .map_err(|error| UreqError::of_request(&host(), error))?
            .into_parts();
        // An error is JSON, whatever was asked for.
        let gzip = (!raw || !head.status.is_success()) && is_gzip(&head.headers);
        if gzip {
            head.headers.remove(CONTENT_ENCODING);
            head.headers.remove(CONTENT_LENGTH);
        }
        Ok(Response::from_parts(head, body::new(body, gzip)))
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

/// Whether this host is this machine, as [`BaseUrl`](malquery_proto::BaseUrl) sees it. A request
/// built by hand did not pass there.
fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let user = uri
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'));
    !user
        && (host.eq_ignore_ascii_case("localhost")
            || address
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_this_machine_alone() {
        let uris = [
            ("http://127.0.0.1:1/", true),
            ("http://127.9.9.9/", true),
            ("http://[::1]:1/", true),
            ("http://localhost:1/", true),
            ("http://LOCALHOST/", true),
            ("http://127.0.0.1.example/", false),
            ("http://127.0.0.1@evil.example/", false),
            ("http://evil.example@127.0.0.1/", false),
            ("http://localhost.example/", false),
            ("http://[::2]/", false),
            ("http://[::ffff:10.0.0.1]/", false),
            ("http://10.0.0.1/", false),
            ("http://api.crowdstrike.com/", false),
            ("/path", false),
        ];
        for (uri, expected) in uris {
            assert_eq!(is_loopback(&uri.parse().unwrap()), expected, "{uri}");
        }
    }
}
