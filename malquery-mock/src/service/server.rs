use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use http::{HeaderMap, Method, Request, Response, StatusCode, Version, header};
use malquery_proto::Body;
use ureq_proto::Error;
use ureq_proto::server::{RecvRequestResult, Reply};

use super::Service;
use super::call::Call;

const MAX_CONNECTIONS: usize = 1024;
/// The maximum size of a request head, in bytes.
const MAX_HEAD: usize = 32 * 1024;
/// The maximum size of a request body, in bytes.
const MAX_BODY: usize = 1024 * 1024;
const CHUNK: usize = 64 * 1024;

/// Time limits. Tests use shorter ones.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// The maximum time from the first byte of a request to its last byte.
    request: Duration,
    /// The time after which an idle connection is closed.
    idle: Duration,
    /// The maximum time for the peer to accept a chunk of a reply.
    chunk: Duration,
    /// The maximum time to discard input before a connection is closed.
    linger: Duration,
}

const LIMITS: Limits = Limits {
    request: Duration::from_secs(10),
    idle: Duration::from_secs(60),
    chunk: Duration::from_secs(30),
    linger: Duration::from_secs(2),
};

/// An HTTP/1.1 server that makes a [`Service`] available to clients in any language. It stops when
/// it is dropped.
///
/// Each connection has its own thread. At most 1,024 connections are served at once; further ones
/// get a 503. A request must arrive within 10 seconds of its first byte (otherwise 408), with a
/// head of at most 32 KiB (otherwise 431) and a body of at most 1 MiB (otherwise 413). A connection
/// is closed when it has been idle for a minute, or when its client needs more than 30 seconds to
/// accept a chunk (about 64 KiB) of a reply.
///
/// The server does not support TLS. A `BaseUrl` accepts `http://` only for `localhost` and loopback
/// addresses.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    service: Service,
    limits: Limits,
    address: SocketAddr,
    stopped: AtomicBool,
    connections: Mutex<HashMap<u64, Arc<TcpStream>>>,
}

impl Server {
    /// Starts a server on a loopback address. Port 0 selects a free port.
    ///
    /// A request whose `Host` is a name other than `localhost` is refused, because a web page could
    /// have sent it.
    ///
    /// # Errors
    /// Fails if the address is not a loopback address, because the corpus may contain malware. Also
    /// fails if the server cannot listen on the address or cannot start a thread.
    pub fn start(service: Service, address: SocketAddr) -> io::Result<Self> {
        if !address.ip().is_loopback() {
            let why = format!(
                "{} is not a loopback address, so other machines could fetch samples; \
                 use 127.0.0.1 or ::1",
                address.ip()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        Self::start_anywhere(service, address)
    }

    /// Starts a server on any address. Anyone who can reach it can fetch the samples, because the
    /// tokens are predictable and sent unencrypted.
    ///
    /// # Errors
    /// Fails if the server cannot listen on the address or cannot start a thread.
    pub fn start_anywhere(service: Service, address: SocketAddr) -> io::Result<Self> {
        Self::start_with(service, address, LIMITS)
    }

    fn start_with(service: Service, address: SocketAddr, limits: Limits) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let shared = Arc::new(Shared {
            service,
            limits,
            address: listener.local_addr()?,
            stopped: AtomicBool::new(false),
            connections: Mutex::default(),
        });
        let accepting = shared.clone();
        let thread = thread::Builder::new()
            .name("malquery-server".into())
            .spawn(move || accepting.accept(&listener))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Returns the address that the server listens on.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Returns the URL for clients on this machine, such as `http://127.0.0.1:8080`.
    ///
    /// If the server listens on all addresses, the URL has a loopback address.
    pub fn url(&self) -> String {
        format!("http://{}", self.shared.local_address())
    }
}

impl Drop for Server {
    /// Stops accepting connections, and closes the open ones.
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts connections.
        let address = self.shared.local_address();
        let woken = TcpStream::connect_timeout(&address, Duration::from_secs(1));
        if let Some(thread) = self.thread.take().filter(|_| woken.is_ok()) {
            let _ = thread.join();
        }
        for stream in self.shared.connections().values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    /// Returns the address for clients on this machine.
    fn local_address(&self) -> SocketAddr {
        let mut address = self.address;
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        address
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<u64, Arc<TcpStream>>> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for number in 0.. {
            let accepted = listener.accept();
            if self.stopped.load(Ordering::SeqCst) {
                return;
            }
            let Ok((stream, _)) = accepted else {
                // Most likely there are no free file descriptors. Wait and try again.
                thread::sleep(Duration::from_millis(20));
                continue;
            };
            let stream = Arc::new(stream);
            let mut connections = self.connections();
            let full = connections.len() >= MAX_CONNECTIONS;
            if !full {
                connections.insert(number, stream.clone());
            }
            drop(connections);
            let connection = Connection {
                shared: self.clone(),
                stream: stream.clone(),
                number,
                input: Vec::new(),
            };
            let spawned = !full
                && thread::Builder::new()
                    .name("malquery-connection".into())
                    .spawn(move || connection.serve())
                    .is_ok();
            if !spawned {
                let refused = Call::new(&self.service)
                    .refuse(StatusCode::SERVICE_UNAVAILABLE, "too many connections");
                let _ = send(&stream, refused, true, false, Duration::from_millis(100));
            }
        }
    }

    /// Returns whether to accept a `Host`. On loopback, a name other than `localhost` may come from
    /// a web page (DNS rebinding).
    fn trusts(&self, host: Option<&[u8]>) -> bool {
        let Some(host) = host else { return true };
        if !self.address.ip().is_loopback() {
            return true;
        }
        let Ok(authority) = http::uri::Authority::try_from(host) else {
            return false;
        };
        let name = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
    }
}

struct Connection {
    shared: Arc<Shared>,
    stream: Arc<TcpStream>,
    number: u64,
    /// Bytes that were read but not yet parsed.
    input: Vec<u8>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.connections().remove(&self.number);
    }
}

/// The reason why no request was received.
enum NoRequest {
    /// The connection failed.
    Gone,
    Refused(StatusCode, &'static str),
}

const BAD_LENGTH: NoRequest = NoRequest::Refused(
    StatusCode::BAD_REQUEST,
    "the content-length must be one whole number",
);

impl From<io::Error> for NoRequest {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // The error kind of a timeout depends on the system.
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Refused(
                StatusCode::REQUEST_TIMEOUT,
                "the request did not arrive in time",
            ),
            // The peer may still read a reply.
            io::ErrorKind::UnexpectedEof => {
                Self::Refused(StatusCode::BAD_REQUEST, "the request ended early")
            }
            _ => Self::Gone,
        }
    }
}

impl Connection {
    fn serve(mut self) {
        let _ = self.stream.set_nodelay(true);
        while let Ok(keep) = self.exchange() {
            if !keep || self.shared.stopped.load(Ordering::SeqCst) {
                break;
            }
        }
    }

    /// Answers one request and returns whether another one may follow.
    fn exchange(&mut self) -> io::Result<bool> {
        let limits = self.shared.limits;
        if self.input.is_empty() {
            self.fill(Instant::now() + limits.idle)?;
        }
        let (response, keep, body) = match self.request(Instant::now() + limits.request) {
            Ok((request, keep)) => {
                let body = request.method() != Method::HEAD;
                (self.shared.service.answer(&request), keep, body)
            }
            Err(NoRequest::Refused(status, message)) => (
                Call::new(&self.shared.service).refuse(status, message),
                false,
                true,
            ),
            Err(NoRequest::Gone) => return Ok(false),
        };
        send(&self.stream, response, body, keep, limits.chunk)?;
        if !keep {
            self.linger();
        }
        Ok(keep)
    }

    /// Reads a request. Also returns whether the connection can be reused.
    fn request(&mut self, end: Instant) -> Result<(Request<Vec<u8>>, bool), NoRequest> {
        const MALFORMED: NoRequest =
            NoRequest::Refused(StatusCode::BAD_REQUEST, "the request is malformed");
        let mut reply = Reply::new().map_err(|_| MALFORMED)?;
        let (used, head) = loop {
            match reply.try_request(&self.input) {
                Ok((used, Some(head))) if used <= MAX_HEAD => break (used, head),
                Ok((_, None)) if self.input.len() < MAX_HEAD => self.fill(end)?,
                Ok(_) => {
                    let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
                    return Err(NoRequest::Refused(
                        status,
                        "the head of the request is larger than 32 KiB",
                    ));
                }
                Err(Error::BadContentLengthHeader | Error::TooManyContentLengthHeaders) => {
                    return Err(BAD_LENGTH);
                }
                Err(_) => return Err(MALFORMED),
            }
        };
        self.input.drain(..used);
        let headers = head.headers();
        if !self
            .shared
            .trusts(headers.get(header::HOST).map(|host| host.as_bytes()))
        {
            let why = "the Host header must be localhost or an IP address";
            return Err(NoRequest::Refused(StatusCode::MISDIRECTED_REQUEST, why));
        }
        let is_http11 = head.version() == Version::HTTP_11;
        let keep = is_http11
            && !headers.get_all(header::CONNECTION).iter().any(|value| {
                let mut options = value.as_bytes().split(|byte| *byte == b',');
                options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
            });
        let length = content_length(headers)?;
        let encodings = headers.get_all(header::TRANSFER_ENCODING).iter();
        let mut encodings = encodings.map(|encoding| encoding.as_bytes());
        let encoded = match (encodings.next(), encodings.next()) {
            (None, _) => false,
            (Some(_), _) if length.is_some() => {
                let why = "the request has both content-length and transfer-encoding";
                return Err(NoRequest::Refused(StatusCode::BAD_REQUEST, why));
            }
            (Some(it), None) if is_http11 && it.eq_ignore_ascii_case(b"chunked") => true,
            _ => {
                let why =
                    "the transfer-encoding is not supported; use HTTP/1.1 with chunked encoding";
                return Err(NoRequest::Refused(StatusCode::NOT_IMPLEMENTED, why));
            }
        };
        let too_large = NoRequest::Refused(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body of the request is larger than 1 MiB",
        );
        if length.is_some_and(|length| length > MAX_BODY as u64) {
            return Err(too_large);
        }
        // HTTP/1.1 allows a POST without a declared body, but each POST of the API has one.
        let has_body = [Method::POST, Method::PUT, Method::PATCH].contains(head.method());
        if has_body && length.is_none() && !encoded {
            let why = "the request has neither content-length nor transfer-encoding";
            return Err(NoRequest::Refused(StatusCode::LENGTH_REQUIRED, why));
        }
        let empty = length.unwrap_or(0) == 0 && !encoded;
        let mut body = Vec::new();
        let mut receive = match reply.proceed() {
            // The body of a HEAD or CONNECT is not read and must not be parsed as the next request.
            Some(RecvRequestResult::ProvideResponse(_)) => {
                return Ok((head.map(|()| body), keep && empty));
            }
            Some(RecvRequestResult::RecvBody(receive)) => receive,
            Some(RecvRequestResult::Send100(expecting)) => {
                let mut text = [0; 64];
                let (length, receive) = expecting.accept(&mut text).map_err(|_| MALFORMED)?;
                let time = self.shared.limits.request;
                self.stream.set_write_timeout(Some(time))?;
                (&*self.stream).write_all(&text[..length])?;
                receive
            }
            None => return Err(MALFORMED),
        };
        let mut chunk = vec![0; CHUNK];
        while !receive.is_ended() {
            let (used, count) = receive
                .read(&self.input, &mut chunk)
                .map_err(|_| MALFORMED)?;
            self.input.drain(..used);
            body.extend_from_slice(&chunk[..count]);
            if body.len() > MAX_BODY {
                return Err(too_large);
            }
            if used == 0 && count == 0 && !receive.is_ended() {
                if self.input.len() > MAX_HEAD {
                    return Err(MALFORMED);
                }
                self.fill(end)?;
            }
        }
        Ok((head.map(|()| body), keep))
    }

    fn fill(&mut self, end: Instant) -> io::Result<()> {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut chunk = [0; 16 * 1024];
        match (&*self.stream).read(&mut chunk)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.input.extend_from_slice(&chunk[..count]);
                Ok(())
            }
        }
    }

    /// Lets the peer read the reply. Closing the connection while the peer is still sending could
    /// discard the reply.
    fn linger(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
        let end = Instant::now() + self.shared.limits.linger;
        while self.fill(end).is_ok() {
            self.input.clear();
        }
    }
}

/// Returns the body length that the head declares. Unlike `ureq_proto`, refuses repeated lengths
/// even if they are equal.
fn content_length(headers: &HeaderMap) -> Result<Option<u64>, NoRequest> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let (first, second) = (lengths.next(), lengths.next());
    let Some(text) = first.map(|length| length.to_str().unwrap_or_default()) else {
        return Ok(None);
    };
    match text.parse() {
        Ok(length) if second.is_none() && !text.starts_with('+') => Ok(Some(length)),
        _ => Err(BAD_LENGTH),
    }
}

/// Writes a reply. Fails if `with_body` is set and the body does not have the declared length.
fn send(
    stream: &TcpStream,
    response: Response<Body>,
    with_body: bool,
    keep: bool,
    limit: Duration,
) -> io::Result<()> {
    let (head, mut body) = response.into_parts();
    let mut text = format!(
        "HTTP/1.1 {} {}\r\n",
        head.status.as_str(),
        head.status.canonical_reason().unwrap_or("Unknown")
    )
    .into_bytes();
    for (name, value) in &head.headers {
        text.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    text.extend_from_slice(if keep {
        b"\r\n"
    } else {
        b"connection: close\r\n\r\n"
    });
    let declared = head
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let mut left: u64 = declared.filter(|_| with_body).unwrap_or(0);
    loop {
        // A small body is sent together with the head.
        let room = left.min(CHUNK as u64);
        let count = body.by_ref().take(room).read_to_end(&mut text)? as u64;
        if count < room {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left -= count;
        // Reading the end of a changed sample fails, so that the reply does not look complete.
        if with_body && left == 0 && body.read(&mut [0])? > 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut rest = &text[..];
        let end = Instant::now() + limit;
        while !rest.is_empty() {
            let time = end.saturating_duration_since(Instant::now());
            if time.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            stream.set_write_timeout(Some(time))?;
            match (&mut &*stream).write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        text.clear();
        if left == 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests;
