//! Servers on loopback that behave or misbehave as a case requires.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use malquery_proto::BaseUrl;

/// The time after which a server gives up waiting for its peer.
const PATIENCE: Duration = Duration::from_secs(15);
/// The time within which a case must open a [`Step::Gate`].
const GATE_TIME: Duration = Duration::from_secs(3);
/// The pause between two pieces of a [`Step::Drip`].
const DRIP_PAUSE: Duration = Duration::from_millis(20);

/// An action of a server after it has read a request.
pub(super) enum Step {
    Send(Vec<u8>),
    /// Waits until the case opens the gate, for up to [`GATE_TIME`].
    Gate,
    /// Sends these bytes repeatedly, for up to [`PATIENCE`].
    Drip(&'static [u8]),
    /// Sends nothing and waits for another byte from the peer, for up to [`PATIENCE`].
    Silence,
    Close,
    /// Closes the connection with a byte unread. This causes a reset on Linux, Android and Windows.
    Reset,
}

#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) headers: Vec<(String, Vec<u8>)>,
    pub(super) body: Vec<u8>,
}

impl Seen {
    /// Returns the values of a header, in order. `name` must be in lower case.
    pub(super) fn values(&self, name: &str) -> Vec<&[u8]> {
        let named = self.headers.iter().filter(|(key, _)| key == name);
        named.map(|(_, value)| value.as_slice()).collect()
    }

    /// Returns the number after the last `=` in the target, or 0. It selects the server's reply.
    pub(super) fn number(&self) -> usize {
        let digits = self
            .target
            .rsplit('=')
            .next()
            .and_then(|text| text.parse().ok());
        digits.unwrap_or(0)
    }

    fn has(&self, name: &str, word: &str) -> bool {
        let values = self.values(name);
        values
            .iter()
            .any(|value| contains(&value.to_ascii_lowercase(), word.as_bytes()))
    }
}

pub(super) fn contains(text: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(text, part).is_some()
}

/// A server that stops when it is dropped.
pub(super) struct Server(Arc<Shared>);

struct Shared {
    address: SocketAddr,
    stopped: AtomicBool,
    connections: Mutex<Vec<Arc<TcpStream>>>,
    seen: Mutex<Vec<Seen>>,
    /// The bytes of all requests so far. An invalid request is recorded up to its first error.
    raw: Mutex<Vec<u8>>,
    gate: Mutex<Gate>,
    gate_changed: Condvar,
}

#[derive(Clone, Copy, PartialEq)]
enum Gate {
    Closed,
    Open,
    /// The server has waited too long.
    Missed,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    pub(super) fn start(
        script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let shared = Arc::new(Shared {
            address: listener.local_addr()?,
            stopped: AtomicBool::new(false),
            connections: Mutex::default(),
            seen: Mutex::default(),
            raw: Mutex::default(),
            gate: Mutex::new(Gate::Closed),
            gate_changed: Condvar::new(),
        });
        let (accepting, script) = (Arc::clone(&shared), Arc::new(script));
        thread::Builder::new().spawn(move || {
            for stream in listener.incoming() {
                if accepting.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream.map(Arc::new) else {
                    thread::sleep(DRIP_PAUSE);
                    continue;
                };
                lock(&accepting.connections).push(Arc::clone(&stream));
                let (shared, script) = (Arc::clone(&accepting), Arc::clone(&script));
                thread::spawn(move || {
                    let _ = shared.serve(&stream, &*script);
                    // The list also holds the stream, so dropping it here would not close it.
                    lock(&shared.connections).retain(|open| !Arc::ptr_eq(open, &stream));
                });
            }
        })?;
        Ok(Self(shared))
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.0.address
    }

    pub(super) fn base(&self) -> BaseUrl {
        base(&format!("http://{}", self.0.address))
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        lock(&self.0.seen).clone()
    }

    pub(super) fn raw(&self) -> Vec<u8> {
        lock(&self.0.raw).clone()
    }

    /// Lets the server continue after a [`Step::Gate`]. Returns `false` if it had stopped waiting.
    pub(super) fn open_gate(&self) -> bool {
        let mut gate = lock(&self.0.gate);
        if *gate == Gate::Closed {
            *gate = Gate::Open;
        }
        self.0.gate_changed.notify_all();
        *gate == Gate::Open
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.stopped.store(true, Ordering::SeqCst);
        self.open_gate();
        for stream in lock(&self.0.connections).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        // Wakes the thread that accepts connections.
        let _ = TcpStream::connect_timeout(&self.0.address, Duration::from_secs(1));
    }
}

impl Shared {
    fn serve(&self, stream: &TcpStream, script: &dyn Fn(&Seen) -> Vec<Step>) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut wire = Wire {
            stream,
            shared: self,
            unread: false,
        };
        loop {
            let seen = wire.request()?;
            let is_last = seen.has("connection", "close");
            lock(&self.seen).push(seen.clone());
            for step in script(&seen) {
                match step {
                    Step::Send(bytes) => wire.stream.write_all(&bytes)?,
                    Step::Gate => self.wait_for_gate(),
                    Step::Drip(bytes) => {
                        let end = Instant::now() + PATIENCE;
                        while Instant::now() < end {
                            wire.stream.write_all(bytes)?;
                            thread::sleep(DRIP_PAUSE);
                        }
                    }
                    Step::Silence => {
                        wire.take_unread()?;
                        let _ = wire.stream.read(&mut [0]);
                    }
                    Step::Close => return wire.take_unread(),
                    Step::Reset => return Ok(()),
                }
            }
            wire.take_unread()?;
            if is_last {
                return Ok(());
            }
        }
    }

    fn wait_for_gate(&self) {
        let gate = lock(&self.gate);
        let waited = self
            .gate_changed
            .wait_timeout_while(gate, GATE_TIME, |gate| *gate == Gate::Closed);
        let (mut gate, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if *gate == Gate::Closed {
            *gate = Gate::Missed;
        }
    }
}

/// Reads requests. The last byte of each read stays in the socket until `take_unread`, for
/// [`Step::Reset`].
struct Wire<'a> {
    stream: &'a TcpStream,
    shared: &'a Shared,
    unread: bool,
}

impl Wire<'_> {
    fn take_unread(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.unread) {
            self.stream.read_exact(&mut [0])?;
        }
        Ok(())
    }

    /// Reads `count` bytes, and leaves the last one in the socket.
    fn bytes(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        if let Some((last, before)) = bytes.split_last_mut() {
            self.take_unread()?;
            self.stream.read_exact(before)?;
            if self.stream.peek(std::slice::from_mut(last))? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.unread = true;
        }
        lock(&self.shared.raw).extend_from_slice(&bytes);
        Ok(bytes)
    }

    /// Reads a line, and returns it without trailing whitespace.
    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            line.extend(self.bytes(1)?);
            // A TLS connection begins with a byte that cannot begin a method.
            if line.len() > 64 * 1024 || !(line[0].is_ascii_graphic() || line[0] == b'\r') {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        Ok(line
            .iter()
            .map(|byte| char::from(*byte))
            .collect::<String>()
            .trim_end()
            .to_owned())
    }

    fn request(&mut self) -> io::Result<Seen> {
        let line = self.line()?;
        let mut words = line.split(' ').map(str::to_owned);
        let mut seen = Seen {
            method: words.next().unwrap_or_default(),
            target: words.next().unwrap_or_default(),
            headers: Vec::new(),
            body: Vec::new(),
        };
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or(io::ErrorKind::InvalidData)?;
            let value = value.trim().chars().map(|c| c as u8).collect();
            seen.headers.push((name.to_ascii_lowercase(), value));
        }
        if seen.has("transfer-encoding", "chunked") {
            loop {
                let line = self.line()?;
                let size = usize::from_str_radix(&line, 16).map_err(io::Error::other)?;
                let chunk = self.bytes(size.min(1 << 24))?;
                seen.body.extend(chunk);
                self.line()?;
                if size == 0 {
                    return Ok(seen);
                }
            }
        }
        let length = seen
            .values("content-length")
            .first()
            .map(|value| value.to_vec());
        let length = length.and_then(|value| String::from_utf8(value).ok()?.parse().ok());
        seen.body = self.bytes(length.unwrap_or(0).min(1 << 24))?;
        Ok(seen)
    }
}

pub(super) fn base(url: &str) -> BaseUrl {
    url.parse()
        .expect("a loopback or https URL should be a valid base URL")
}
