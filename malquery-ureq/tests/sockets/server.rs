//! The server of all tests, which reads requests and leaves the reply to a closure, and code that
//! clients and checks share.

use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use http::{Method, Request};
use malquery_proto::flow::{Auth, RetryPolicy, SendFailure};
use malquery_ureq::{
    BaseUrl, Builder, Client, Credentials, SystemClock, TransportError, UreqError, UreqTransport,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// The body of a quotas reply.
pub(crate) const QUOTAS: &str = r#"{"meta":{"hunt_count":9},"resources":[],"errors":[]}"#;

/// A request as received, and the number of its connection, counted from 1.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Seen {
    pub(crate) connection: usize,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Seen {
    pub(crate) fn line(&self) -> &str {
        self.head.lines().next().unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// What happens to the connection after a reply.
#[derive(Debug, PartialEq)]
pub(crate) enum Then {
    Go,
    Close,
}

pub(crate) struct Server {
    pub(crate) port: u16,
    connections: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

pub(crate) trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

impl Server {
    /// Starts a server that answers each request with the bytes that `script` writes.
    pub(crate) fn start(
        script: impl Fn(&Seen, &mut dyn Write) -> Then + Send + Sync + 'static,
    ) -> Self {
        Self::wrapped(|stream| Ok(Box::new(stream)), script)
    }

    /// Does the same over connections that `wrap` has wrapped.
    pub(crate) fn wrapped(
        wrap: impl Fn(TcpStream) -> io::Result<Box<dyn Stream>> + Send + Sync + 'static,
        script: impl Fn(&Seen, &mut dyn Write) -> Then + Send + Sync + 'static,
    ) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let (port, connections) = listen(move |stream, connection| {
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
                match then {
                    Then::Go => {}
                    Then::Close => return,
                }
            }
        });
        Self {
            port,
            connections,
            seen,
        }
    }

    /// Starts a server that passes each connection to `script`, with its number, counted from 1.
    pub(crate) fn raw(script: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let (port, connections) = listen(move |stream, _| script(stream));
        Self {
            port,
            connections,
            seen: Arc::default(),
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn listen(
    connection: impl Fn(TcpStream, usize) + Send + Sync + 'static,
) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let connection = Arc::new(connection);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let number = counter.fetch_add(1, Ordering::SeqCst) + 1;
            let connection = Arc::clone(&connection);
            thread::spawn(move || connection(stream.unwrap(), number));
        }
    });
    (port, count)
}

pub(crate) fn hang() -> ! {
    loop {
        thread::sleep(Duration::from_secs(60));
    }
}

/// Reads a request. Returns its head, without the empty line at its end, and its body.
pub(crate) fn read_request(stream: &mut BufReader<impl Read>) -> Option<(String, String)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    head.truncate(head.len() - 4);
    let length = head.lines().find_map(|line| {
        line.to_ascii_lowercase()
            .strip_prefix("content-length: ")
            .and_then(|text| text.parse().ok())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).ok()?;
    Some((head, String::from_utf8(body).unwrap()))
}

/// Returns a reply with a declared length.
pub(crate) fn reply(out: &mut dyn Write, status: &str, headers: &str, body: &[u8]) -> Then {
    let head = format!(
        "HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    );
    let _ = out.write_all(&[head.as_bytes(), body].concat());
    Then::Go
}

pub(crate) fn json(out: &mut dyn Write, body: &str) -> Then {
    reply(
        out,
        "200 OK",
        "content-type: application/json\r\n",
        body.as_bytes(),
    )
}

/// Answers a token request.
pub(crate) fn token(request: &Seen, out: &mut dyn Write) -> bool {
    let wanted = request.line() == "POST /oauth2/token HTTP/1.1";
    if wanted {
        let body = br#"{"access_token":"t0ken","expires_in":1799,"token_type":"bearer"}"#;
        reply(
            out,
            "201 Created",
            "content-type: application/json\r\n",
            body,
        );
    }
    wanted
}

/// Returns a request that was built by hand.
pub(crate) fn request(method: Method, url: &str) -> Request<Vec<u8>> {
    Request::builder()
        .method(method)
        .uri(url)
        .body(Vec::new())
        .unwrap()
}

pub(crate) fn get(url: &str) -> Request<Vec<u8>> {
    request(Method::GET, url)
}

/// Far longer than the timeouts of the tests, even on a slow machine.
pub(crate) const NO_HANG: Duration = Duration::from_secs(40);

pub(crate) fn impatient() -> UreqTransport {
    builder()
        .reply_timeout(Duration::from_secs(3))
        .build()
        .unwrap()
}

/// Checks an error. Its source must be an error of this crate, whose `Display` is one line and does
/// not repeat its own source.
pub(crate) fn check(error: &TransportError, failure: SendFailure, says: &str, source: &str) {
    assert_eq!(error.failure(), failure, "{error:?}");
    let error: &UreqError = error.source().unwrap().downcast_ref().unwrap();
    let shown = error.to_string();
    assert!(shown.contains(says), "{shown}");
    assert!(!shown.contains('\n'), "{shown}");
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    assert!(cause.contains(source), "{cause}");
    let repeats = !cause.is_empty() && shown.contains(&cause);
    assert!(!repeats, "{shown}: {cause}");
}

/// Starts a server that reads a request and then runs the script.
pub(crate) fn after_request(script: impl Fn(TcpStream) + Send + Sync + 'static) -> Server {
    Server::raw(move |stream| {
        let mut reader = BufReader::new(stream);
        read_request(&mut reader);
        script(reader.into_inner());
    })
}

/// Closes a connection with unread bytes, which causes a reset.
pub(crate) fn reset(mut stream: TcpStream) {
    stream.read_exact(&mut [0]).unwrap();
}

/// Sends a byte every tenth of a second until the client disconnects.
pub(crate) fn drip(mut stream: impl Write) {
    while stream.write_all(b"x").and_then(|()| stream.flush()).is_ok() {
        thread::sleep(Duration::from_millis(100));
    }
}

/// Returns a port without a listener.
pub(crate) fn unused_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A certificate authority that signs the certificates of servers.
pub(crate) struct Ca {
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    pub(crate) fn server(&self, name: &str) -> Arc<ServerConfig> {
        self.server_with(name, |_| {})
    }

    pub(crate) fn server_with(
        &self,
        name: &str,
        change: impl Fn(&mut CertificateParams),
    ) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        Arc::new(config)
    }
}

pub(crate) fn wrap(
    config: &Arc<ServerConfig>,
    stream: impl Stream + 'static,
) -> io::Result<Box<dyn Stream>> {
    let connection = ServerConnection::new(Arc::clone(config)).unwrap();
    Ok(Box::new(StreamOwned::new(connection, stream)))
}

/// Serves the token and the quotas over TLS.
pub(crate) fn serve(config: Arc<ServerConfig>) -> Server {
    Server::wrapped(
        move |stream| wrap(&config, stream),
        |request, out| match token(request, out) {
            true => Then::Go,
            false => json(out, QUOTAS),
        },
    )
}

pub(crate) fn builder() -> Builder {
    UreqTransport::builder().no_proxy()
}

/// Requests the quotas once.
pub(crate) fn quotas(url: &str, transport: UreqTransport) -> Option<i64> {
    let auth = Auth::new(
        url.parse::<BaseUrl>().unwrap(),
        Credentials::new("an-id", "p4ssw0rd"),
    );
    let client = Client::new(transport, SystemClock, auth).retry(RetryPolicy::never());
    client
        .quotas()
        .unwrap()
        .meta
        .hunt_count
        .and_then(|count| i64::try_from(count).ok())
}
