use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, HeaderValue,
};
use http::{Method, Request, Response, Uri};
use malquery_proto::client::TimeLeft;
use malquery_proto::endpoint::{Endpoint, Resend};
use malquery_proto::oauth2::GetToken;
use malquery_proto::operation::Operation;
use malquery_proto::operations::FuzzySearch;
use malquery_proto::request::NewConnection;
use malquery_proto::{Body, Transport, TransportError};
use ureq::tls::TlsConfig;
use ureq::{Agent, AsSendBody};

use crate::body;
use crate::builder::{Builder, bounded};
use crate::connect::{Connect, NoLookup};
use crate::proxy::Route;
use crate::ureq_error::{ConfigError, UreqError, UreqErrorKind as Kind, host_and_port};

/// The size of the input buffer in bytes. Large downloads are faster than with ureq's 128 KiB.
const INPUT_BUFFER: usize = 512 * 1024;

/// A [`Transport`] over ureq. Clones share their connections.
#[derive(Debug, Clone)]
pub struct UreqTransport {
    agent: Agent,
    route: Route,
    headers: HeaderMap,
    settings: Builder,
    /// The reason that no request can be sent, if any.
    unusable: Option<Arc<ConfigError>>,
}

impl Builder {
    /// Builds the transport without sending anything.
    ///
    /// # Errors
    /// Fails if the user agent, a header, the proxy or the root certificates cannot be used. The
    /// last two may come from the environment.
    pub fn build(self) -> Result<UreqTransport, ConfigError> {
        let (route, headers, tls) = self.parts()?;
        Ok(UreqTransport::with(self, route, headers, tls))
    }
}

impl UreqTransport {
    /// Creates a transport with the default settings of [`Builder`], and with the proxy and the
    /// root certificates from the environment.
    ///
    /// If the proxy or the certificates are invalid, each request fails with an error that states
    /// the reason. Use [`Builder::build`] to get the error immediately.
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

    /// Returns a [`Builder`] with the default settings.
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
            // The body of an error reply contains the reason.
            .http_status_as_error(false)
            // malquery-proto decides which redirects to follow.
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
}

impl Default for UreqTransport {
    fn default() -> Self {
        Self::new()
    }
}

impl Transport for UreqTransport {
    fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Body>, TransportError> {
        let (mut parts, mut body) = request.into_parts();
        let uri = parts.uri.clone();
        let host = || host_and_port(&uri);
        if let Some(reason) = &self.unusable {
            let message = "the proxy or the root certificates from the environment cannot be used";
            let reason = reason.clone().into();
            return Err(UreqError::new(Kind::Refused, message, Some(reason)).into());
        }
        let loopback = uri.scheme_str() == Some("http") && is_loopback(&uri);
        if uri.scheme_str() != Some("https") && !loopback {
            let message = match uri.scheme_str() {
                Some("http") => format!(
                    "plain http to {} would expose the credentials to the network; use https",
                    host()
                ),
                _ => "the URL of the request must begin with https://".to_owned(),
            };
            return Err(UreqError::new(Kind::Refused, message, None).into());
        }
        let left = parts.extensions.get::<TimeLeft>().map(|left| left.0);
        if left == Some(Duration::ZERO) {
            let message = format!(
                "the time limit of the call expired before the request to {} was sent",
                host()
            );
            return Err(UreqError::new(Kind::NoTime, message, None).into());
        }
        let settings = &self.settings;
        let operation = parts.extensions.get::<Endpoint>();
        let slow = operation.is_some_and(|operation| operation.id == FuzzySearch::ENDPOINT.id);
        let billed = operation.is_some_and(|operation| operation.resend == Resend::Billed);
        // The service may close an idle connection at any moment. It would then be unknown whether
        // the request arrived, and a request that may be billed could not be retried. The reply to
        // a fuzzy search does not show which search it belongs to, so it must not come from a
        // connection on which an earlier reply may arrive late.
        let fresh = slow || billed || parts.extensions.get::<NewConnection>().is_some();
        // If the request itself sets `Accept-Encoding`, a successful reply is not decompressed.
        let raw = parts.headers.contains_key(ACCEPT_ENCODING);
        if !raw {
            parts
                .headers
                .insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        }
        // If the reply arrives twice, the copy must not become the reply to the next request.
        if billed || operation.is_some_and(|operation| operation.id == GetToken::ENDPOINT.id) {
            parts
                .headers
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        for (name, value) in &self.headers {
            parts.headers.entry(name).or_insert_with(|| value.clone());
        }
        let takes_body = matches!(parts.method, Method::POST | Method::PUT | Method::PATCH);
        // With an empty `Vec`, ureq would send a GET with `content-length: 0`. With `()`, it would
        // send a POST with chunked encoding.
        let mut none = ();
        let body = match body.is_empty() && !takes_body {
            true => none.as_body(),
            false => body.as_body(),
        };
        let reply_timeout = match slow {
            true => settings.reply_timeout.max(settings.search_timeout),
            false => settings.reply_timeout,
        };
        let total = settings.total_timeout.into_iter().chain(left.map(bounded));
        let mut config = self
            .agent
            .configure_request(Request::from_parts(parts, body))
            .proxy(self.route.proxy(&uri).filter(|_| !loopback))
            .timeout_global(total.min())
            // The longer limit of a fuzzy search applies to its body as well.
            .timeout_per_read(Some(reply_timeout))
            // Limits a head that arrives byte by byte. This limit is longer than the read timeout,
            // so that ureq need not change the timeout of the socket before each read.
            .timeout_recv_response(Some(reply_timeout + reply_timeout / 4));
        if fresh {
            // No idle connection is younger than this, so none is reused.
            config = config.max_idle_age(Duration::ZERO);
        }
        let (mut head, body) = self
            .agent
            .run(config.build())
            .map_err(|error| UreqError::of_request(&host(), error))?
            .into_parts();
        // The body of an error may be compressed, even if the request was for a sample.
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

/// Returns whether the URI has a loopback host and no user name. A
/// [`BaseUrl`](malquery_proto::BaseUrl) checks this too, but not every request comes from one.
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
