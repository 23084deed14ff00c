//! Tests of slow clients, with short time limits.

use super::*;
use crate::Corpus;
use sha2::Digest;

/// Short, but long enough for a client that sends a request at once.
const SHORT: Limits = Limits {
    request: Duration::from_secs(1),
    chunk: Duration::from_secs(1),
    linger: Duration::from_millis(100),
    ..LIMITS
};

fn start(file: Vec<u8>) -> Server {
    let service = Service::new(Corpus::from_bytes([file]));
    Server::start_with(service, (Ipv4Addr::LOCALHOST, 0).into(), SHORT).unwrap()
}

fn sent(server: &Server, bytes: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.write_all(bytes.as_bytes()).unwrap();
    stream
}

/// Sends a request, and reads until the server closes the connection.
fn ask(server: &Server, line: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let host = "HTTP/1.1\r\nHost: localhost\r\nConnection: close";
    let request = format!("{line} {host}\r\nContent-Length: {length}\r\n{headers}\r\n{body}");
    let mut received = Vec::new();
    sent(server, &request).read_to_end(&mut received).unwrap();
    received
}

fn serves(server: &Server) -> bool {
    ask(server, "GET /any", "", "").starts_with(b"HTTP/1.1 404 ")
}

#[test]
fn slow_requests_are_dropped_and_others_served() {
    let server = start(b"hello".to_vec());
    let post = "POST /oauth2/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n";
    let begun = Instant::now();
    thread::scope(|scope| {
        for head in ["", "GET / HTTP/1.1\r\nX: ", post] {
            let mut stream = sent(&server, head);
            let mut writer = stream.try_clone().unwrap();
            // Send a byte now and then, so that no single read takes long.
            scope.spawn(move || {
                while writer.write_all(b"x").is_ok() {
                    thread::sleep(Duration::from_millis(50));
                }
            });
            scope.spawn(move || {
                let mut line = [0; 30];
                stream.read_exact(&mut line).unwrap();
                assert_eq!(&line, b"HTTP/1.1 408 Request Timeout\r\n");
                assert!(begun.elapsed() >= SHORT.request);
            });
        }
        assert!(serves(&server));
    });
}

#[test]
fn a_reader_that_stops_is_dropped() {
    let large = vec![0; 32 << 20];
    let sha256: String = sha2::Sha256::digest(&large)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let server = start(large.clone());
    let form = format!(
        "client_id={}&client_secret={}",
        Service::CLIENT_ID,
        Service::CLIENT_SECRET
    );
    let reply = String::from_utf8(ask(&server, "POST /oauth2/token", "", &form)).unwrap();
    let (_, body) = reply.split_once("\r\n\r\n").unwrap();
    let token: serde_json::Value = serde_json::from_str(body).unwrap();
    let auth = format!(
        "Authorization: Bearer {}\r\n",
        token["access_token"].as_str().unwrap()
    );
    let get = format!("GET /malquery/entities/download-files/v1?ids={sha256}");
    let mut silent = sent(
        &server,
        &format!("{get} HTTP/1.1\r\nHost: localhost\r\n{auth}\r\n"),
    );
    thread::sleep(2 * SHORT.chunk);
    assert!(serves(&server));
    let mut received = Vec::new();
    let _ = silent.read_to_end(&mut received);
    assert!(received.starts_with(b"HTTP/1.1 200 OK\r\n") && received.len() < large.len());
    // A client that reads receives everything.
    let received = ask(&server, &get, &auth, "");
    assert!(received.ends_with(&large) && received.starts_with(b"HTTP/1.1 200 OK\r\n"));
}
