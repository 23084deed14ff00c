//! A transport of your own: malquery over another blocking HTTP client, attohttpc in place of ureq.
//!
//! It reads the same environment as the quickstart.

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
            // attohttpc 0.31 does not skip interim replies, and the final reply is lost.
            return Err(TransportError::unknown("the reply is an interim one"));
        }
        let mut response = Response::new(Body::new(body));
        (*response.status_mut(), *response.headers_mut()) = (status, headers);
        Ok(response)
    }
}

/// attohttpc 0.31 has no root certificates when it uses rustls with ring.
fn trust_public_roots(request: RequestBuilder) -> RequestBuilder {
    let roots = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned();
    roots.fold(request, RequestBuilder::add_root_certificate)
}

fn time_left(extensions: &http::Extensions) -> Duration {
    extensions
        .get()
        .map_or(Duration::from_secs(3600), |TimeLeft(time)| *time)
}

/// May the service have received the request? When in doubt it may, and a hunt is not sent again.
fn classify(error: attohttpc::Error) -> TransportError {
    match error.kind() {
        ErrorKind::Io(cause) if cause.kind() == ConnectionRefused || is_lookup(cause) => {
            TransportError::not_sent(error)
        }
        _ => TransportError::unknown(error),
    }
}

/// The name was not found. The standard library has no kind for that, only this text.
fn is_lookup(error: &io::Error) -> bool {
    error.to_string().starts_with("failed to lookup address")
}

fn main() -> Result<(), Box<dyn Error>> {
    let Settings { base, credentials } = Settings::from_env()?;
    let client = Client::new(Attohttpc, SystemClock, Auth::new(base, credentials));
    let quotas = client.quotas()?;
    println!(
        "{} hunts left this month",
        quotas.meta.hunts_left().unwrap_or_default()
    );
    Ok(())
}
