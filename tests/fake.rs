//! A transport that is a function.

use malquery_proto::{Body, Transport, TransportError};

type Reply = Result<http::Response<Body>, TransportError>;

struct Fake<F>(F);

impl<F: Fn(http::Request<Vec<u8>>) -> Reply + Send + Sync> Transport for Fake<F> {
    fn send(&self, request: http::Request<Vec<u8>>) -> Reply {
        (self.0)(request)
    }
}

pub(crate) fn fake(
    send: impl Fn(http::Request<Vec<u8>>) -> Reply + Send + Sync + 'static,
) -> impl Transport + 'static {
    Fake(send)
}
