//! The HTTP server of the tests. It reads requests, and a script writes the replies byte by byte.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// A request that the server received.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// The number of the connection, counted from 1.
    pub connection: usize,
    /// The head, without the empty line at the end.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Seen {
    /// Returns the first line.
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    /// Returns the path and the query.
    pub fn target(&self) -> &str {
        self.line().split(' ').nth(1).unwrap_or_default()
    }

    /// Returns the path without the query.
    pub fn path(&self) -> &str {
        self.target().split('?').next().unwrap_or_default()
    }

    /// Returns the first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.head.lines().skip(1);
        headers.find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// Converts it to a request of the `http` crate.
    ///
    /// # Panics
    /// Panics if it is not valid HTTP.
    pub fn request(&self) -> http::Request<Vec<u8>> {
        let method = self.line().split(' ').next().unwrap_or_default();
        let mut request = http::Request::builder().method(method).uri(self.target());
        for (name, value) in self.head.lines().filter_map(|line| line.split_once(": ")) {
            request = request.header(name, value);
        }
        request.body(self.body.clone().into_bytes()).unwrap()
    }
}

/// What happens to the connection after a reply.
#[derive(Debug, PartialEq)]
pub enum Then {
    /// It stays open for the next request.
    Go,
    /// It is closed.
    Close,
}

/// A connection, possibly encrypted.
pub trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// A status, headers and a body.
pub type Answer = (u16, Vec<(String, String)>, Vec<u8>);

/// A server on loopback. It listens until it is dropped.
#[derive(Debug)]
pub struct Server {
    /// The port on which it listens.
    pub port: u16,
    stopped: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// Starts a server that calls `script` to write the reply to each request.
    pub fn start(script: impl Fn(&Seen, &mut dyn Write) -> Then + Send + Sync + 'static) -> Self {
        Self::wrapped(|stream| Ok(Box::new(stream)), script)
    }

    /// Like [`start`](Self::start), but wraps each connection first, for example in TLS.
    pub fn wrapped(
        wrap: impl Fn(TcpStream) -> io::Result<Box<dyn Stream>> + Send + Sync + 'static,
        script: impl Fn(&Seen, &mut dyn Write) -> Then + Send + Sync + 'static,
    ) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let mut server = Self::listen(usize::MAX, move |stream, connection| {
            let Ok(stream) = wrap(stream) else { return };
            let mut stream = BufReader::new(stream);
            while let Some((head, body)) = read_request(&mut stream) {
                let request = Seen {
                    connection,
                    head,
                    body,
                };
                log.lock().unwrap().push(request.clone());
                let then = script(&request, stream.get_mut());
                let _ = stream.get_mut().flush();
                if then == Then::Close {
                    return;
                }
            }
        });
        server.seen = seen;
        server
    }

    /// Starts a server that calls `answer` for each reply, one request at a time.
    pub fn answering(answer: impl FnMut(&Seen) -> Answer + Send + 'static) -> Self {
        let answer = Mutex::new(answer);
        Self::start(move |request, out| {
            let (status, headers, body) = (answer.lock().unwrap())(request);
            let headers = headers
                .iter()
                .map(|(name, value)| format!("{name}: {value}\r\n"));
            reply(
                out,
                &format!("{status} Status"),
                &headers.collect::<String>(),
                &body,
            )
        })
    }

    /// Starts a server that passes each connection to `script`.
    pub fn raw(script: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        Self::listen(usize::MAX, move |stream, _| script(stream))
    }

    /// Starts a server that passes its first connection to `script` and then stops listening.
    pub fn once(script: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        Self::listen(1, move |stream, _| script(stream))
    }

    /// Returns a server that refuses every connection.
    pub fn none() -> Self {
        Self {
            port: unused_port(),
            stopped: Arc::default(),
            connections: Arc::default(),
            seen: Arc::default(),
        }
    }

    fn listen(most: usize, script: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            port: listener.local_addr().unwrap().port(),
            stopped: Arc::default(),
            connections: Arc::default(),
            seen: Arc::default(),
        };
        let (stopped, connections) = (Arc::clone(&server.stopped), Arc::clone(&server.connections));
        let script = Arc::new(script);
        thread::spawn(move || {
            let mut listener = Some(listener);
            while let Some(Ok((stream, _))) = listener.as_ref().map(TcpListener::accept) {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let number = connections.fetch_add(1, Ordering::SeqCst) + 1;
                if number == most {
                    listener = None;
                }
                let _ = stream.set_nodelay(true);
                let script = Arc::clone(&script);
                thread::spawn(move || script(stream, number));
            }
        });
        server
    }

    /// Returns the URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Returns the requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Returns the number of connections so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    /// Stops listening. Open connections stay open.
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes the listening thread.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// Reads a request. Returns its head, without the empty line at the end, and its body.
pub fn read_request(stream: &mut BufReader<impl Read>) -> Option<(String, String)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    head.truncate(head.len() - 4);
    let mut body = vec![0; body_length(&head)];
    stream.read_exact(&mut body).ok()?;
    Some((head, String::from_utf8(body).ok()?))
}

fn body_length(head: &str) -> usize {
    let mut lines = head.lines();
    let length = lines.find_map(|line| {
        let line = line.to_ascii_lowercase();
        line.strip_prefix("content-length: ")?.parse().ok()
    });
    length.unwrap_or(0)
}

/// Waits for a complete request of at most 16 KiB, but leaves it unread. Closing the connection
/// then resets it. Returns the head and the length of the request.
pub fn peek_request(stream: &TcpStream) -> Option<(String, usize)> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = stream.peek(&mut buffer).ok().filter(|count| *count > 0)?;
        let text = String::from_utf8_lossy(&buffer[..count]);
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && body.len() >= body_length(head)
        {
            return Some((head.to_owned(), head.len() + 4 + body_length(head)));
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Writes a reply with a `content-length` header.
pub fn reply(out: &mut dyn Write, status: &str, headers: &str, body: &[u8]) -> Then {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n");
    let _ = out.write_all(&[head.as_bytes(), body].concat());
    Then::Go
}

/// Writes a JSON reply.
pub fn json(out: &mut dyn Write, body: &str) -> Then {
    let headers = "content-type: application/json\r\n";
    reply(out, "200 OK", headers, body.as_bytes())
}

/// Replies to a token request. Returns `false` for any other request.
pub fn token(request: &Seen, out: &mut dyn Write) -> bool {
    let wanted = request.line() == "POST /oauth2/token HTTP/1.1";
    if wanted {
        let headers = "content-type: application/json\r\n";
        let body = br#"{"access_token":"t0ken","expires_in":1799,"token_type":"bearer"}"#;
        reply(out, "201 Created", headers, body);
    }
    wanted
}

/// Starts a server that reads a request on each connection and then calls `script`.
pub fn after_request(script: impl Fn(TcpStream) + Send + Sync + 'static) -> Server {
    Server::raw(move |stream| {
        let mut reader = BufReader::new(stream);
        read_request(&mut reader);
        script(reader.into_inner());
    })
}

/// Closes a connection with unread bytes, so that the system resets it.
pub fn reset(mut stream: TcpStream) {
    stream.read_exact(&mut [0]).unwrap();
}

/// Sends a byte every tenth of a second until the client leaves.
pub fn drip(mut stream: impl Write) {
    while stream.write_all(b"x").and_then(|()| stream.flush()).is_ok() {
        thread::sleep(Duration::from_millis(100));
    }
}

/// Waits forever.
pub fn hang() -> ! {
    loop {
        thread::sleep(Duration::from_secs(60));
    }
}

/// Returns a port on which nothing listens.
pub fn unused_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
