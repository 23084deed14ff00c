//! Services made from functions, and sessions that record them.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use http::{Request, Response};
use malquery_mock::{Mode, Session, SessionGuard, SessionTransport, script};
use malquery_proto::flow::SendFailure;
use malquery_proto::{Body, Transport, TransportError};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) type Sent = Request<Vec<u8>>;
pub(crate) type Got = Response<Vec<u8>>;
pub(crate) const JSON: [(&str, &str); 1] = [("content-type", "application/json")];
pub(crate) const FORM: [(&str, &str); 1] = [("content-type", "application/x-www-form-urlencoded")];

/// A service that calls a function for each reply.
pub(crate) struct Service<F>(pub(crate) F);

#[derive(Debug)]
pub(crate) struct Down(pub(crate) SendFailure);

impl std::fmt::Display for Down {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the service is down")
    }
}

impl std::error::Error for Down {}

impl From<Down> for TransportError {
    fn from(down: Down) -> Self {
        match down.0 {
            SendFailure::NotSent => Self::not_sent(down),
            SendFailure::CannotSend => Self::cannot_send(down),
            SendFailure::Unknown => Self::unknown(down),
        }
    }
}

impl<F: Fn(&Sent) -> Result<Got, Down> + Send + Sync> Transport for Service<F> {
    fn send(&self, request: Sent) -> Result<Response<Body>, TransportError> {
        Ok(self.0(&request)?.map(Body::from))
    }
}

pub(crate) fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Got {
    let mut builder = Response::builder().status(status);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(body.into()).unwrap()
}

pub(crate) fn json_answer(status: u16, body: &Value) -> Got {
    answer(status, &JSON, body.to_string())
}

pub(crate) fn request(
    method: &str,
    uri: &str,
    headers: &[(&str, &str)],
    body: impl Into<Vec<u8>>,
) -> Sent {
    let mut builder = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(body.into()).unwrap()
}

pub(crate) fn get(uri: &str) -> Sent {
    request("GET", uri, &[], "")
}

pub(crate) fn login(id: &str, secret: &str) -> Sent {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("client_id", id)
        .append_pair("client_secret", secret);
    request("POST", "/oauth2/token", &FORM, form.finish())
}

pub(crate) fn folder() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("test.json");
    (folder, path)
}

pub(crate) fn begin<T: Transport + 'static>(
    path: &Path,
    mode: Mode,
    live: T,
) -> (SessionTransport, SessionGuard) {
    Session::new(path).mode(mode).transport(|| live).unwrap()
}

/// A transport that must not be used.
pub(crate) fn nothing() -> malquery_mock::Mock {
    script([]).transport()
}

/// Returns the status, the body, and whether the body broke off.
pub(crate) fn take(
    transport: &impl Transport,
    request: Sent,
) -> Result<(u16, Vec<u8>, bool), SendFailure> {
    let response = transport.send(request).map_err(|error| error.failure())?;
    let status = response.status().as_u16();
    let mut bytes = Vec::new();
    let is_broken = response.into_body().read_to_end(&mut bytes).is_err();
    Ok((status, bytes, is_broken))
}

/// Starts a session and records these exchanges.
pub(crate) fn recorded(path: &Path, exchanges: &[(Sent, Got)]) -> SessionGuard {
    let all = exchanges.to_vec();
    let next = Mutex::new(all.into_iter());
    let service = Service(move |_: &Sent| Ok(next.lock().unwrap().next().unwrap().1));
    let (transport, guard) = begin(path, Mode::Record, service);
    for (request, _) in exchanges {
        take(&transport, request.clone()).unwrap();
    }
    guard
}

pub(crate) fn record(exchanges: &[(Sent, Got)]) -> Result<String, String> {
    let (_folder, path) = folder();
    let closed = recorded(&path, exchanges).close();
    closed.map_err(|error| error.to_string())?;
    Ok(fs::read_to_string(&path).unwrap())
}

#[track_caller]
pub(crate) fn says(text: &str, part: &str) {
    check(text, &[part], &[]);
}

/// Checks that a text contains the first parts and none of the others.
#[track_caller]
pub(crate) fn check(text: &str, has: &[&str], lacks: &[&str]) {
    for part in has {
        assert!(text.contains(part), "{part:?} is missing in {text}");
    }
    for part in lacks {
        assert!(!text.contains(part), "{part:?} is in {text}");
    }
}
