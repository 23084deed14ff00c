//! A custom transport: prints the number of hunts left, with attohttpc instead of ureq.
//!
//! The `FALCON_*` environment variables are the same as for the quickstart.

use std::error::Error;
use std::io::{self, ErrorKind::ConnectionRefused};
use std::time::Duration;

use attohttpc::{ErrorKind, RequestBuilder};
use http::{Request, Response};
use malquery_proto::client::{Settings, TimeLeft};
use malquery_proto::{Auth, Body, Client, SystemClock, Transport, TransportError};

pub(crate) struct Attohttpc;

impl Transport for Attohttpc {
    fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Body>, TransportError> {
        let (head, body) = request.into_parts();
        let mut request = RequestBuilder::try_new(head.method, head.uri.to_string())
            .map(trust_public_roots)
            .map_err(TransportError::cannot_send)?
            .follow_redirects(false)
            .timeout(time_left(&head.extensions));
        request.headers_mut().extend(head.headers);
        let reply = match body.is_empty() {
            true => request.send(),
            false => request.bytes(body).send(),
        };
        let (status, headers, body) = reply.map_err(classify)?.split();
        if status.is_informational() {
            // attohttpc 0.31 returns an interim reply and loses the final one.
            return Err(TransportError::unknown("the reply is an interim reply"));
        }
        let mut response = Response::new(Body::new(body));
        (*response.status_mut(), *response.headers_mut()) = (status, headers);
        Ok(response)
    }
}

/// Returns the request with Mozilla's root certificates. attohttpc 0.31 has none if it uses rustls
/// with ring.
fn trust_public_roots(request: RequestBuilder) -> RequestBuilder {
    let roots = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned();
    roots.fold(request, RequestBuilder::add_root_certificate)
}

fn time_left(extensions: &http::Extensions) -> Duration {
    extensions
        .get()
        .map_or(Duration::from_secs(3600), |TimeLeft(time)| *time)
}

/// Converts an error. If the service may have received the request, returns an `unknown` error, so
/// that malquery does not send a hunt again.
fn classify(error: attohttpc::Error) -> TransportError {
    match error.kind() {
        ErrorKind::Io(cause) if cause.kind() == ConnectionRefused || is_lookup(cause) => {
            TransportError::not_sent(error)
        }
        _ => TransportError::unknown(error),
    }
}

/// Returns whether the name lookup failed. The standard library reports this only as text.
fn is_lookup(error: &io::Error) -> bool {
    error.to_string().starts_with("failed to lookup address")
}

fn main() -> Result<(), Box<dyn Error>> {
    let Settings { base, credentials } = Settings::from_env()?;
    let client = Client::new(Attohttpc, SystemClock, Auth::new(base, credentials));
    if let Some(hunts) = client.quotas()?.meta.hunts_left() {
        println!("{hunts} hunts left this month");
    }
    Ok(())
}
