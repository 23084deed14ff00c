//! Opens connections: name lookup, TCP, proxy and TLS, all within one time limit.
//!
//! ureq looks up the host of a request even if it then reuses a connection. Here, the connector
//! does the lookup instead, because ureq calls it only to open a new connection.

use std::io::{self, Read, Write};
use std::time::Instant;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::Uri;
use ureq::config::{AutoHeaderValue, Config};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, NextTimeout, RustlsConnector, SocksConnector,
    TcpConnector, Transport, TransportAdapter,
};
use ureq::{Error, Proxy, ProxyProtocol};

use crate::ureq_error::{Broken, PROXY, UreqError, host_and_port};

/// The limit in bytes for the head of a proxy's reply. A head must be shorter than this.
const MAX_HEAD: usize = 64 * 1024;

/// A resolver that returns no addresses, because the connector does the lookup.
#[derive(Debug)]
pub(crate) struct NoLookup;

impl Resolver for NoLookup {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        Ok(self.empty())
    }
}

#[derive(Debug, Default)]
pub(crate) struct Connect {
    resolver: DefaultResolver,
    tls: RustlsConnector,
}

impl Connector for Connect {
    type Out = Connection;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<Connection>, Error> {
        let attempt = Attempt {
            connect: self,
            details,
            start: Instant::now(),
        };
        match attempt.open() {
            Ok(connection) => Ok(Some(connection)),
            Err(error) => Err(Error::Other(Box::new(error))),
        }
    }
}

/// A connection that is being opened. All steps share the remaining time.
struct Attempt<'a> {
    connect: &'a Connect,
    details: &'a ConnectionDetails<'a>,
    start: Instant,
}

impl Attempt<'_> {
    fn open(&self) -> Result<Connection, UreqError> {
        let uri = self.details.uri;
        let host = host_and_port(uri);
        let Some(proxy) = self.details.config.proxy() else {
            return self.tls(self.tcp(uri, &host)?, uri, &host);
        };
        let name = format!("{PROXY}{}", host_and_port(proxy.uri()));
        let through = format!("{host} through {name}");
        let socket = match proxy.protocol() {
            ProxyProtocol::Http | ProxyProtocol::Https => {
                let socket = self.tls(self.tcp(proxy.uri(), &name)?, proxy.uri(), &name)?;
                self.tunnel(socket, &host, proxy, &through)?
            }
            _ => self.socks(proxy, &through)?,
        };
        self.tls(socket, uri, &through)
    }

    fn time_left(&self) -> NextTimeout {
        let mut timeout = self.details.timeout;
        if !timeout.after.is_not_happening() {
            timeout.after = timeout.after.saturating_sub(self.start.elapsed()).into();
        }
        timeout
    }

    fn step<'b>(&'b self, uri: &'b Uri, addrs: ResolvedSocketAddrs) -> ConnectionDetails<'b> {
        ConnectionDetails {
            uri,
            addrs,
            config: self.details.config,
            // Each request has its own configuration, but all have the same TLS settings. ureq
            // caches these, with the TLS sessions, only if they come from the agent.
            request_level: false,
            resolver: &self.connect.resolver,
            now: (self.details.current_time)(),
            timeout: self.time_left(),
            current_time: self.details.current_time.clone(),
            run_connector: self.details.run_connector.clone(),
            register_shutdown: self.details.register_shutdown.clone(),
        }
    }

    fn look_up(&self, uri: &Uri, host: &str) -> Result<ResolvedSocketAddrs, UreqError> {
        self.connect
            .resolver
            .resolve(uri, self.details.config, self.time_left())
            .map_err(|error| UreqError::of_lookup(host, error))
    }

    fn tcp(&self, uri: &Uri, host: &str) -> Result<Connection, UreqError> {
        let step = self.step(uri, self.look_up(uri, host)?);
        let socket = Connector::<()>::connect(&TcpConnector::default(), &step, None);
        Connection::new(socket, false).map_err(|error| UreqError::of_connect(host, error))
    }

    fn socks(&self, proxy: &Proxy, through: &str) -> Result<Connection, UreqError> {
        let uri = self.details.uri;
        let addresses = match proxy.resolve_target() {
            true => self.look_up(uri, &host_and_port(uri))?,
            false => NoLookup.empty(),
        };
        let step = self.step(uri, addresses);
        let socket = Connector::<()>::connect(&SocksConnector::default(), &step, None);
        Connection::new(socket, false).map_err(|error| UreqError::of_proxy(through, error))
    }

    fn tls(&self, socket: Connection, uri: &Uri, host: &str) -> Result<Connection, UreqError> {
        let step = self.step(uri, NoLookup.empty());
        if !step.needs_tls() {
            return Ok(socket);
        }
        Connection::new(self.connect.tls.connect(&step, Some(socket)), true)
            .map_err(|error| UreqError::of_connect(host, error))
    }

    /// Asks an HTTP proxy to connect to the host. ureq's own version applies the time limit to each
    /// read separately, and reports the status only as text.
    fn tunnel(
        &self,
        socket: Connection,
        host: &str,
        proxy: &Proxy,
        through: &str,
    ) -> Result<Connection, UreqError> {
        let mut request =
            format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\nProxy-Connection: Keep-Alive\r\n");
        if let AutoHeaderValue::Provided(agent) = self.details.config.user_agent() {
            request += &format!("User-Agent: {agent}\r\n");
        }
        if proxy.username().is_some() || proxy.password().is_some() {
            let [user, password] =
                [proxy.username(), proxy.password()].map(Option::unwrap_or_default);
            let login = BASE64_STANDARD.encode(format!("{user}:{password}"));
            request += &format!("Proxy-Authorization: Basic {login}\r\n");
        }
        request += "\r\n";

        let mut socket = TransportAdapter::new(socket, self.details.current_time.clone());
        // All reads and writes share this time.
        socket.set_timeout(self.time_left());
        let status = socket
            .write_all(request.as_bytes())
            .and_then(|()| read_status(&mut socket))
            .map_err(|error| UreqError::of_proxy(through, error.into()))?;
        match status {
            200..300 => Ok(Connection {
                transport: Box::new(socket.into_inner()),
                tls: false,
            }),
            _ => Err(UreqError::of_proxy_status(through, status)),
        }
    }
}

/// Skips interim replies, reads the head of the final reply, and returns its status.
fn read_status(socket: &mut impl Read) -> io::Result<u16> {
    loop {
        match read_head(socket)? {
            100 | 102..200 => {}
            status => return Ok(status),
        }
    }
}

/// Reads a head and returns its status. Reads single bytes, because the bytes after the head belong
/// to the tunnel.
fn read_head(socket: &mut impl Read) -> io::Result<u16> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < MAX_HEAD {
        let mut byte = [0];
        socket.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    str::from_utf8(&head[..12.min(head.len())])
        .ok()
        .filter(|_| head.len() < MAX_HEAD)
        .and_then(|line| line.strip_prefix("HTTP/1.")?.get(2..)?.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "invalid HTTP reply"))
}

/// A connection that reports a break as an error. ureq itself accepts a reset, or TLS that ends
/// without `close_notify`, as the end of a body without a declared length.
#[derive(Debug)]
pub(crate) struct Connection {
    transport: Box<dyn Transport>,
    tls: bool,
}

impl Connection {
    fn new(connected: Result<Option<impl Transport>, Error>, tls: bool) -> Result<Self, Error> {
        let transport = Box::new(connected?.ok_or(Error::ConnectionFailed)?);
        Ok(Self { transport, tls })
    }
}

impl Transport for Connection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.transport.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.transport.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.transport
            .await_input(timeout)
            .map_err(|error| match error {
                Error::Io(error) => Error::Other(Box::new(Broken(error))),
                error => error,
            })
    }

    /// Returns whether the connection can be reused. ureq itself checks the socket and the outer
    /// buffer for unrequested bytes, but not the buffer below TLS.
    fn is_open(&mut self) -> bool {
        self.transport.buffers().input().is_empty() && self.transport.is_open()
    }

    fn is_tls(&self) -> bool {
        self.tls
    }
}
