//! An own transport: malquery over another blocking HTTP client, attohttpc in place of ureq.
//!
//! It reads the same environment as the quickstart. What it takes is the two methods below.

use std::error::Error;
use std::fmt;
use std::io::ErrorKind as Io;
use std::time::Duration;

use attohttpc::{ErrorKind, RequestBuilder, ResponseReader};
use malquery_proto::client::{TimeLeft, TransportError};
use malquery_proto::flow::{Auth, SendFailure};
use malquery_proto::{Client, Transport};
use malquery_ureq::{Settings, SystemClock};

struct Attohttpc;

impl Transport for Attohttpc {
    type Body = ResponseReader;
    type Error = Failure;

    fn execute(
        &self,
        request: http::Request<Vec<u8>>,
    ) -> Result<http::Response<ResponseReader>, Failure> {
        let (head, body) = request.into_parts();
        let mut builder = RequestBuilder::try_new(head.method, head.uri.to_string())?
            // The token endpoint redirects to another cloud, and malquery decides where credentials may go.
            .follow_redirects(false)
            .connect_timeout(Duration::from_secs(10))
            // A fuzzy search takes its time.
            .read_timeout(Duration::from_secs(180));
        if let Some(TimeLeft(time)) = head.extensions.get() {
            builder = builder.timeout(*time);
        }
        builder.headers_mut().extend(head.headers);
        // A request without a body must go out without one.
        let reply = if body.is_empty() {
            builder.send()
        } else {
            builder.bytes(body).send()
        }?;
        let (status, headers, body) = reply.split();
        let mut response = http::Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }
}

#[derive(Debug)]
struct Failure(attohttpc::Error);

impl TransportError for Failure {
    /// May the service have seen the request? When in doubt it may: a hunt is then not sent again.
    fn failure(&self) -> SendFailure {
        match self.0.kind() {
            ErrorKind::InvalidBaseUrl | ErrorKind::InvalidUrlHost => SendFailure::CannotSend,
            ErrorKind::Io(error) if error.kind() == Io::ConnectionRefused => SendFailure::NotSent,
            _ => SendFailure::Unknown,
        }
    }
}

impl From<attohttpc::Error> for Failure {
    fn from(error: attohttpc::Error) -> Self {
        Self(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Failure {}

fn main() -> Result<(), Box<dyn Error>> {
    let Settings { base, credentials } = Settings::from_env()?;
    let client = Client::new(Attohttpc, SystemClock, Auth::new(base, credentials));
    let quotas = client.quotas()?;
    println!(
        "{} hunts are left this month",
        quotas.meta.hunts_left().unwrap_or_default()
    );
    Ok(())
}
