//! ureq's resolver and connector, wrapped so that what fails in them is known to have sent no request, and that
//! a broken connection is never the end of a body.

use std::{fmt, io};

use http::Uri;
use ureq::Error;
use ureq::config::Config;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, DefaultConnector, NextTimeout, Transport,
};

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
        self.0
            .resolve(uri, config, timeout)
            .map_err(|error| NoConnection::wrap(uri, Phase::Lookup, error))
    }
}

#[derive(Debug, Default)]
pub(crate) struct Connect(DefaultConnector);

impl Connector for Connect {
    type Out = Connection;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<()>,
    ) -> Result<Option<Connection>, Error> {
        match self.0.connect(details, chained) {
            Ok(transport) => Ok(transport.map(Connection)),
            Err(error) => Err(NoConnection::wrap(details.uri, Phase::Connect, error)),
        }
    }
}

/// A connection that tells when it breaks. ureq takes a reset, and an end of TLS that the other side did not
/// announce, for the end of a body that has no declared length.
#[derive(Debug)]
pub(crate) struct Connection(Box<dyn Transport>);

/// The connection broke.
#[derive(Debug)]
pub(crate) struct Broken(pub(crate) io::Error);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Broken {}

impl Transport for Connection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.0.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.0.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.0.await_input(timeout).map_err(|error| match error {
            Error::Io(error) => Error::Other(Box::new(Broken(error))),
            error => error,
        })
    }

    fn is_open(&mut self) -> bool {
        self.0.is_open()
    }

    fn is_tls(&self) -> bool {
        self.0.is_tls()
    }
}
