//! The cases, and the functions that they share.

mod failures;
mod replies;
mod requests;

use std::io::{self, Read};
use std::time::{Duration, Instant};

use http::{Request, Response, header, response};
use malquery_proto::client::TimeLeft;
use malquery_proto::flow::SendFailure;
use malquery_proto::operation::Operation;
use malquery_proto::operations::{GetQuotas, Hunt};
use malquery_proto::{BaseUrl, Body, Transport, TransportError};

use super::servers::{Seen, Server, Step, base};

/// A description of what happened: `Ok` if the transport behaved correctly.
pub(super) type Outcome = Result<String, String>;

pub(super) struct Case {
    pub(super) name: &'static str,
    /// What can happen to users of a transport that fails the case.
    pub(super) consequence: &'static str,
    /// Starts the servers of the case, if it has any.
    pub(super) prepare: fn() -> io::Result<Prepared>,
}

pub(super) struct Prepared {
    /// The base URL that is passed to `make`.
    pub(super) base: BaseUrl,
    pub(super) run: Run,
}

type Run = Box<dyn FnOnce(&dyn Transport) -> Outcome + Send>;

pub(super) fn all() -> impl Iterator<Item = &'static Case> {
    [requests::CASES, replies::CASES, failures::CASES]
        .into_iter()
        .flatten()
}

/// More time than a good transport needs.
const AMPLE: Duration = Duration::from_secs(20);
/// The time left for a request that must time out.
const SHORT: Duration = Duration::from_secs(1);
/// The maximum duration of a request that must time out.
const LATE: Duration = Duration::from_secs(4);
/// The maximum number of bytes to read from a body.
const MOST: u64 = 16 << 20;

const TOKEN: &str = "Bearer eyJhbGciOi.test-token_0123456789~+/==";

/// Prepares a case with one server.
fn served(
    script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static,
    run: impl FnOnce(&Server, &dyn Transport) -> Outcome + Send + 'static,
) -> io::Result<Prepared> {
    let server = Server::start(script)?;
    prepared(server.base(), move |transport| run(&server, transport))
}

fn prepared(
    base: BaseUrl,
    run: impl FnOnce(&dyn Transport) -> Outcome + Send + 'static,
) -> io::Result<Prepared> {
    Ok(Prepared {
        base,
        run: Box::new(run),
    })
}

/// Returns a GET request for the quotas.
fn get(base: &BaseUrl, query: &str) -> Request<Vec<u8>> {
    request::<GetQuotas>(base, query, Vec::new())
}

/// Returns a POST request for a hunt.
fn post(base: &BaseUrl, body: impl Into<Vec<u8>>) -> Request<Vec<u8>> {
    let mut request = request::<Hunt>(base, "", body.into());
    let json = header::HeaderValue::from_static("application/json");
    request.headers_mut().insert(header::CONTENT_TYPE, json);
    request
}

fn request<O: Operation>(base: &BaseUrl, query: &str, body: Vec<u8>) -> Request<Vec<u8>> {
    Request::builder()
        .method(O::ENDPOINT.method)
        .uri(format!("{base}{}{query}", O::ENDPOINT.path))
        .header(header::ACCEPT, O::ENDPOINT.accept)
        .header(header::AUTHORIZATION, TOKEN)
        .extension(O::ENDPOINT)
        .extension(TimeLeft(AMPLE))
        .body(body)
        .expect("the parts of the request should be valid")
}

fn within(mut request: Request<Vec<u8>>, left: Duration) -> Request<Vec<u8>> {
    request.extensions_mut().insert(TimeLeft(left));
    request
}

/// Removes the time limit, as for a download.
fn without_limit(mut request: Request<Vec<u8>>) -> Request<Vec<u8>> {
    request.extensions_mut().remove::<TimeLeft>();
    request
}

/// Returns a reply with a declared length.
fn reply(status: &str, headers: &str, body: &[u8]) -> Step {
    let head = format!(
        "HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    );
    Step::Send([head.as_bytes(), body].concat())
}

fn json() -> Vec<Step> {
    vec![reply("200 OK", "content-type: application/json\r\n", b"{}")]
}

/// Returns bytes in an irregular sequence, which reveals changed or lost bytes.
fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|index| (index.wrapping_mul(31) ^ (index >> 8)) as u8)
        .collect()
}

fn send(
    transport: &dyn Transport,
    request: Request<Vec<u8>>,
) -> Result<(response::Parts, Body), String> {
    match transport.send(request) {
        Ok(reply) => Ok(reply.into_parts()),
        Err(error) => Err(format!("`send` did not return a reply: {error:?}")),
    }
}

/// Reads a body to its end, up to [`MOST`] bytes.
fn whole(body: Body) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    match body.take(MOST).read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(format!(
            "reading the body failed after {} bytes: {error}",
            bytes.len()
        )),
    }
}

/// Sends a request whose reply must have this status, and reads the body.
fn exchange(
    transport: &dyn Transport,
    request: Request<Vec<u8>>,
    status: u16,
) -> Result<(response::Parts, Vec<u8>), String> {
    let (head, body) = send(transport, request)?;
    if head.status != status {
        return Err(format!(
            "the service sent status {status}, but `send` returned {}",
            head.status.as_u16()
        ));
    }
    let bytes = whole(body)?;
    Ok((head, bytes))
}

fn same(what: &str, received: &[u8], expected: &[u8]) -> Result<(), String> {
    if received == expected {
        return Ok(());
    }
    let at = received
        .iter()
        .zip(expected)
        .take_while(|(a, b)| a == b)
        .count();
    Err(format!(
        "{what} was changed (expected length: {}, received length: {}); the first difference is at offset {at}",
        expected.len(),
        received.len()
    ))
}

/// Formats the values of a header.
fn shown(values: &[&[u8]]) -> String {
    if values.is_empty() {
        return "nothing".into();
    }
    format!("{:?}", String::from_utf8_lossy(&values.join(&b" | "[..])))
}

/// Checks that the transport reported the failure of a request as `unknown`.
fn unknown(result: Result<Response<Body>, TransportError>) -> Outcome {
    match result {
        Ok(reply) => Err(format!(
            "there was no complete reply, but `send` returned one with status {}",
            reply.status().as_u16()
        )),
        Err(error) if error.failure() == SendFailure::Unknown => Ok(format!(
            "the transport reported the failure as `unknown`: {error:?}"
        )),
        Err(error) => Err(format!(
            "`send` must fail with `unknown` in this case, but the transport reported that the request was not sent: {error:?}"
        )),
    }
}

fn in_time(begun: Instant) -> Result<(), String> {
    let took = begun.elapsed();
    if took < LATE {
        return Ok(());
    }
    Err(format!(
        "the transport gave up only after {took:.1?}, long after the time limit"
    ))
}
