//! ureq's resolver and connector, wrapped so that what fails in them is known to have sent no request.

use std::fmt;

use http::Uri;
use ureq::Error;
use ureq::config::Config;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{ConnectionDetails, Connector, DefaultConnector, NextTimeout, Transport};

/// There is no connection, so no byte of the request was sent.
#[derive(Debug)]
pub(crate) struct NoConnection {
    /// The host that was to be reached: the service, or a proxy.
    pub(crate) host: String,
    pub(crate) phase: Phase,
    pub(crate) error: Error,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The address is looked up.
    Lookup,
    /// TCP, a proxy and TLS.
    Connect,
}

impl NoConnection {
    fn wrap(uri: &Uri, phase: Phase, error: Error) -> Error {
        match error {
            // The connection to a proxy runs through here a second time. The first time knows better.
            Error::Other(cause) if cause.is::<Self>() => Error::Other(cause),
            error => {
                let host = uri.host().unwrap_or_default().to_owned();
                Error::Other(Box::new(Self { host, phase, error }))
            }
        }
    }
}

impl fmt::Display for NoConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no connection to {}", self.host)
    }
}

impl std::error::Error for NoConnection {}

#[derive(Debug, Default)]
pub(crate) struct Lookup(DefaultResolver);

impl Resolver for Lookup {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        self.0.resolve(uri, config, timeout).map_err(|error| NoConnection::wrap(uri, Phase::Lookup, error))
    }
}

#[derive(Debug, Default)]
pub(crate) struct Connect(DefaultConnector);

impl Connector for Connect {
    type Out = Box<dyn Transport>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<()>,
    ) -> Result<Option<Self::Out>, Error> {
        self.0
            .connect(details, chained)
            .map_err(|error| NoConnection::wrap(details.uri, Phase::Connect, error))
    }
}
