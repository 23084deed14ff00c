//! Downloads to a file, over real sockets, of replies that are damaged in every way. Each must
//! return an error and leave no file, not even a temporary one. The bytes of the samples are
//! harmless.

use std::cell::OnceCell;
use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::ops::{ControlFlow, Range};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use malquery_proto::client::{Download, Error, Progress, Step};
use malquery_proto::credentials::BearerToken;
use malquery_proto::flow::{Auth, FlowError, RetryPolicy};
use malquery_proto::operations::{GetDownload, GetSamples};
use malquery_proto::stream::{Received, StreamError};
use malquery_proto::types::Sha256;
use malquery_proto::{BaseUrl, OutputFile};
use malquery_test_support::{Server, peek_request};
use malquery_ureq::{Client, SystemClock, UreqTransport};
use tempfile::TempDir;

const SAMPLE: &[u8] = b"hello";
const SHA256: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
/// Large enough to be read and written in several parts.
const LARGE: usize = 300_000;
const LARGE_SHA256: &str = "6faf65bccedfdd1c688edc3dc36a740b08ee4eb82f64d726fa3f69cf839e5a01";

/// The timeout if the service is not silent: far longer than a call takes, even on a slow machine.
const NO_HANG: Duration = Duration::from_secs(40);
/// The timeout if the service is silent.
const SILENCE: Duration = Duration::from_millis(300);

// Replies.

/// The first bytes and the end of an archive. A download checks no other part of it.
const ARCHIVE: &[u8] = b"PK\x03\x04PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// Compresses a body as gzip with a stored block.
fn gzip(body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap();
    let block = [
        &[1][..],
        &length.to_le_bytes(),
        &(!length).to_le_bytes(),
        body,
    ]
    .concat();
    let end = [crc32(body).to_le_bytes(), u32::from(length).to_le_bytes()].concat();
    [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255][..], &block, &end].concat()
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| {
        if crc & 1 == 1 {
            (crc >> 1) ^ 0xedb8_8320
        } else {
            crc >> 1
        }
    };
    !bytes
        .iter()
        .fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Framing {
    Length,
    Chunked,
    /// At the end of the connection.
    Close,
}

const FRAMINGS: [Framing; 3] = [Framing::Length, Framing::Chunked, Framing::Close];

/// A reply as it is sent over the wire.
#[derive(Clone)]
struct Wire {
    bytes: Vec<u8>,
    /// The positions of the bytes of the body.
    body: Vec<Range<usize>>,
}

impl Wire {
    fn new(framing: Framing, body: &[u8]) -> Self {
        Self::with_headers(framing, "", body)
    }

    fn with_headers(framing: Framing, headers: &str, body: &[u8]) -> Self {
        let framed = match framing {
            Framing::Length => format!("content-length: {}\r\n", body.len()),
            Framing::Chunked => "transfer-encoding: chunked\r\n".into(),
            Framing::Close => String::new(),
        };
        let mut wire = Self::head("200 OK", &format!("{headers}{framed}"));
        if framing == Framing::Chunked {
            for chunk in body.chunks(body.len().div_ceil(2).max(1)) {
                wire.bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
                wire.push(chunk);
                wire.bytes.extend(b"\r\n");
            }
            wire.bytes.extend(b"0\r\n\r\n");
        } else {
            wire.push(body);
        }
        wire
    }

    fn head(status: &str, headers: &str) -> Self {
        let bytes = format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}\r\n").into_bytes();
        Self {
            bytes,
            body: Vec::new(),
        }
    }

    fn push(&mut self, body: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend(body);
        self.body.push(start..self.bytes.len());
    }

    fn cut(&self, end: usize) -> Self {
        Self {
            bytes: self.bytes[..end].to_vec(),
            body: Vec::new(),
        }
    }
}

/// What the service does after a reply.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Close,
    /// Resets the connection.
    Reset,
    Hold,
    /// Sends a byte now and then, forever.
    Trickle,
    Stay,
}

// The service.

/// Serves a connection with the reply that was set last.
fn serve(mut stream: TcpStream, answer: &Mutex<(Wire, End)>) {
    while let Some((_, length)) = peek_request(&stream) {
        let (wire, end) = answer.lock().unwrap().clone();
        if end != End::Reset {
            stream.read_exact(&mut vec![0; length]).unwrap();
        }
        let _ = stream.write_all(&wire.bytes);
        match end {
            End::Close => return,
            // The system resets the connection, because the request is unread.
            End::Reset => return,
            End::Hold => {
                let _ = stream.read(&mut [0]);
                return;
            }
            End::Trickle => {
                while stream.write_all(b"x").is_ok() {
                    thread::sleep(Duration::from_millis(10));
                }
                return;
            }
            End::Stay => {}
        }
    }
}

// Downloads.

#[derive(Debug, Clone, Copy, PartialEq)]
enum What {
    Sample,
    Archive,
}

const BOTH: [What; 2] = [What::Sample, What::Archive];

impl What {
    fn body(self) -> &'static [u8] {
        match self {
            Self::Sample => SAMPLE,
            Self::Archive => ARCHIVE,
        }
    }
}

/// A service, and a folder for its downloads.
struct Place {
    server: Server,
    answer: Arc<Mutex<(Wire, End)>>,
    folder: TempDir,
    reply_timeout: Duration,
    total_timeout: Option<Duration>,
    sha256: Sha256,
    client: OnceCell<Client>,
}

impl Place {
    fn new() -> Self {
        let answer = Arc::new(Mutex::new((Wire::head("500 Oh", ""), End::Close)));
        let given = Arc::clone(&answer);
        Self {
            server: Server::raw(move |stream| serve(stream, &given)),
            answer,
            folder: tempfile::tempdir().unwrap(),
            reply_timeout: NO_HANG,
            total_timeout: None,
            sha256: SHA256.parse().unwrap(),
            client: OnceCell::new(),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("target")
    }

    /// Returns the names of all files in the folder.
    fn names(&self) -> Vec<String> {
        let name =
            |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        fs::read_dir(&self.folder).unwrap().map(name).collect()
    }

    fn client(&self) -> Client {
        let mut transport = UreqTransport::builder()
            .no_proxy()
            .connect_timeout(NO_HANG)
            .reply_timeout(self.reply_timeout)
            .search_timeout(self.reply_timeout);
        if let Some(timeout) = self.total_timeout {
            transport = transport.total_timeout(timeout);
        }
        let base: BaseUrl = self.server.url("").parse().unwrap();
        let auth = Auth::with_token(base, BearerToken::new("a-token").unwrap());
        Client::new(transport.build().unwrap(), SystemClock, auth).retry(RetryPolicy::never())
    }

    fn answer(&self, wire: &Wire, end: End) {
        *self.answer.lock().unwrap() = (wire.clone(), end);
    }

    fn open(&self, client: &Client, what: What) -> Result<Download, Error> {
        Ok(match what {
            What::Sample => client.download(self.sha256)?.output,
            What::Archive => client.samples(&"job-1".parse().unwrap())?.output,
        })
    }

    fn output(&self, overwrite: bool) -> Result<OutputFile, Error> {
        match overwrite {
            true => OutputFile::replace(self.path()),
            false => OutputFile::create_new(self.path()),
        }
    }

    fn fetch(&self, what: What, wire: &Wire, end: End) -> Result<Received, Error> {
        self.answer(wire, end);
        self.open(self.client.get_or_init(|| self.client()), what)?
            .write_to(self.output(false)?)
    }

    /// Downloads with `Client::save`, the other way to write a file.
    fn save(&self, what: What, wire: &Wire, end: End) -> Result<Received, Error> {
        self.answer(wire, end);
        let client = self.client.get_or_init(|| self.client());
        let output = self.output(false)?;
        let go_on = ();
        match what {
            What::Sample => client.save(&GetDownload::new(self.sha256), output, go_on),
            What::Archive => client.save(&GetSamples::new("job-1".parse().unwrap()), output, go_on),
        }
    }

    /// Checks that a download fails and leaves no file.
    #[track_caller]
    fn fails(&self, context: &str, what: What, wire: &Wire, end: End) -> Error {
        let saved = self.save(what, wire, end);
        let result = self.fetch(what, wire, end);
        assert_eq!(
            self.names(),
            [""; 0],
            "{context}: {what:?} {end:?} {result:?}"
        );
        assert!(saved.is_err(), "{context}: {what:?} {end:?} {saved:?}");
        result.expect_err(&format!(
            "{context}: {what:?} {end:?} {:?}",
            wire.bytes.escape_ascii().to_string()
        ))
    }

    /// Checks that a download succeeds. Returns the bytes and removes the file.
    #[track_caller]
    fn take(&self, context: &str, received: Received) -> Vec<u8> {
        assert_eq!(self.names(), ["target"], "{context}");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = self.path().metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o600, "{context}");
        }
        let bytes = fs::read(self.path()).unwrap();
        assert_eq!(received.bytes, bytes.len() as u64, "{context}");
        fs::remove_file(self.path()).unwrap();
        bytes
    }

    #[track_caller]
    fn succeeds(&self, context: &str, what: What, wire: &Wire, end: End) {
        let received = match self.fetch(what, wire, end) {
            Ok(received) => received,
            Err(error) => panic!("{context}: {what:?} {error:?}"),
        };
        assert_eq!(
            self.take(context, received),
            what.body(),
            "{context}: {what:?}"
        );
    }
}

// Tests.

#[test]
fn a_whole_body_arrives() {
    let place = Place::new();
    for what in BOTH {
        for framing in FRAMINGS {
            let context = format!("{framing:?}");
            place.succeeds(&context, what, &Wire::new(framing, what.body()), End::Close);
            let identity =
                Wire::with_headers(framing, "content-encoding: identity\r\n", what.body());
            place.succeeds(&context, what, &identity, End::Close);
            if framing != Framing::Close {
                // The client does not wait for the end of a connection that it no longer needs.
                place.succeeds(&context, what, &Wire::new(framing, what.body()), End::Hold);
            }
        }
        let mut bytewise = Wire::head("200 OK", "transfer-encoding: chunked\r\ntrailer: x\r\n");
        for byte in what.body() {
            bytewise
                .bytes
                .extend([b'1', b'\r', b'\n', *byte, b'\r', b'\n']);
        }
        bytewise.bytes.extend(b"0\r\nx: y\r\n\r\n");
        place.succeeds("byte by byte", what, &bytewise, End::Close);
    }
}

/// Runs a check of each pair in a thread.
fn for_each_pair(check: impl Fn(What, Framing) + Sync) {
    let check = &check;
    thread::scope(|scope| {
        for (what, framing) in BOTH
            .iter()
            .flat_map(|what| FRAMINGS.map(|framing| (*what, framing)))
        {
            scope.spawn(move || check(what, framing));
        }
    });
}

#[test]
fn every_cut_is_an_error() {
    for_each_pair(|what, framing| {
        let place = Place::new();
        let wire = Wire::new(framing, what.body());
        for end in 0..wire.bytes.len() {
            let context = format!("{framing:?}, {end} of {}", wire.bytes.len());
            place.fails(&context, what, &wire.cut(end), End::Reset);
            if framing == Framing::Chunked && end + 2 == wire.bytes.len() {
                // The last chunk has arrived, which ends the body. ureq does not wait for the line
                // after it.
                place.succeeds(&context, what, &wire.cut(end), End::Close);
            } else {
                place.fails(&context, what, &wire.cut(end), End::Close);
            }
        }
        place.succeeds("whole", what, &wire, End::Close);
        if framing == Framing::Close {
            // Without a length, only a reset shows that the body is incomplete.
            place.fails("reset", what, &wire, End::Reset);
        }
    });
}

#[test]
fn no_flipped_bit_is_overlooked() {
    for_each_pair(|what, framing| {
        // A reply without its `connection: close` may leave a dead connection to the next call.
        let (place, odd) = (Place::new(), Place::new());
        let (body, wire) = (what.body(), Wire::new(framing, what.body()));
        let head = wire
            .bytes
            .windows(4)
            .position(|end| end == b"\r\n\r\n")
            .unwrap();
        for at in 0..wire.bytes.len() {
            // In a head and in an archive, one bit of each byte is enough.
            let every = what == What::Sample && at > head;
            for bit in (0..8).filter(|bit| every || at % 8 == *bit) {
                let mut flipped = wire.clone();
                flipped.bytes[at] ^= 1 << bit;
                let context = format!(
                    "{framing:?}, {}",
                    flipped.bytes[..wire.bytes.len()].escape_ascii()
                );
                let of_body = wire.body.iter().any(|range| range.contains(&at));
                if what == What::Sample && of_body {
                    let error = place.fails(&context, what, &flipped, End::Close);
                    let wrong = matches!(error, Error::Stream(StreamError::WrongHash { .. }));
                    assert!(wrong, "{context}: {error:?}");
                    continue;
                }
                match odd.fetch(what, &flipped, End::Close) {
                    Err(_) => assert_eq!(odd.names(), [""; 0], "{context}"),
                    // The changed bit did not matter, or it is in an archive, which has no known
                    // hash and whose entries are checked when they are read.
                    Ok(received) => {
                        let bytes = odd.take(&context, received);
                        assert_eq!(bytes.len(), body.len(), "{context}");
                        let pairs = bytes.iter().zip(body);
                        let flips: u32 = pairs.map(|(one, other)| (one ^ other).count_ones()).sum();
                        assert_eq!(flips, u32::from(of_body), "{context}");
                    }
                }
            }
        }
    });
}

#[test]
fn an_archive_is_known_by_its_ends() {
    let place = Place::new();
    let end = ARCHIVE.len() - 22;
    let last = [end, end + 1, end + 2, end + 3, end + 20, end + 21];
    for at in [&[0, 1, 2, 3][..], &last].concat() {
        for (bit, framing) in (0..8).flat_map(|bit| FRAMINGS.map(|framing| (bit, framing))) {
            let mut flipped = ARCHIVE.to_vec();
            flipped[at] ^= 1 << bit;
            let wire = Wire::new(framing, &flipped);
            let error = place.fails("archive", What::Archive, &wire, End::Close);
            assert!(is_no_zip(&error), "{at} {bit}: {error:?}");
        }
    }
}

#[test]
fn other_bytes_are_an_error() {
    let place = Place::new();
    let samples: [&[u8]; 6] = [
        b"hellp",
        b"",
        b"h",
        b"hello\n",
        b"\0hello",
        b"{\"errors\": []}",
    ];
    let archives: [&[u8]; 6] = [
        b"hello",
        b"",
        b"PK",
        b"{\"errors\": []}",
        b"PK\x01\x02",
        b"PK\x03\x04",
    ];
    for framing in FRAMINGS {
        for (what, others) in [(What::Sample, samples), (What::Archive, archives)] {
            for other in others {
                let context = format!("{framing:?}");
                let error = place.fails(&context, what, &Wire::new(framing, other), End::Close);
                let told = match what {
                    What::Sample => matches!(error, Error::Stream(StreamError::WrongHash { .. })),
                    What::Archive => is_no_zip(&error),
                };
                assert!(told, "{context}: {error:?}");
            }
        }
    }
}

fn is_no_zip(error: &Error) -> bool {
    matches!(
        error,
        Error::Stream(StreamError::NotZip { .. } | StreamError::CutZip)
    )
}

#[test]
fn no_error_is_taken_for_a_sample() {
    let place = Place::new();
    for what in BOTH {
        for status in [
            "400 Bad Request",
            "403 Forbidden",
            "404 Not Found",
            "429 Too Many Requests",
            "500 Oh",
        ] {
            let mut wire = Wire::head(status, "content-type: application/octet-stream\r\n");
            wire.push(what.body());
            let error = place.fails(status, what, &wire, End::Close);
            assert!(error.status().is_some(), "{error:?}");
        }
        for status in ["204 No Content", "206 Partial Content"] {
            let mut wire = Wire::head(status, "");
            wire.push(&what.body()[1..]);
            place.fails(status, what, &wire, End::Close);
        }
    }
}

#[test]
fn extra_bytes_are_an_error() {
    let place = Place::new();
    for what in BOTH {
        for framing in FRAMINGS {
            for extra in [&b"\0"[..], b"\r\n", b"0\r\n\r\n", &[b'x'; 70_000]] {
                let wire = Wire::new(framing, &[what.body(), extra].concat());
                place.fails(&format!("{framing:?}"), what, &wire, End::Close);
            }
        }
        for (framing, headers) in [
            (Framing::Chunked, "content-length: 4\r\n"),
            (Framing::Close, ""),
        ] {
            // With chunks, the `content-length` is wrong. Without a length, the extra byte is part
            // of the body.
            let mut wire = Wire::with_headers(framing, headers, what.body());
            wire.bytes.extend(b"x");
            place.fails(&format!("{framing:?}"), what, &wire, End::Close);
        }
    }
}

#[test]
fn bytes_after_a_body_are_no_reply() {
    for framing in [Framing::Length, Framing::Chunked] {
        for what in BOTH {
            let place = Place::new();
            let client = place.client();
            // On a connection that stays open.
            let keep = |wire: Wire| {
                let at = wire
                    .bytes
                    .windows(17)
                    .position(|part| part == b"connection: close")
                    .unwrap();
                Wire {
                    bytes: [&wire.bytes[..at], &wire.bytes[at + 19..]].concat(),
                    body: Vec::new(),
                }
            };
            let hostile = [b"PK\x05\x06".as_slice(), &[0; 18]].concat();
            let mut wire = keep(Wire::new(framing, what.body()));
            wire.bytes.extend(keep(Wire::new(framing, &hostile)).bytes);
            for end in [End::Stay, End::Close] {
                place.answer(&wire, end);
                for _ in 0..3 {
                    let result = place
                        .open(&client, What::Archive)
                        .unwrap()
                        .write_to(place.output(false).unwrap());
                    match (what, result) {
                        (What::Archive, Ok(received)) => {
                            assert_eq!(place.take("archive", received), ARCHIVE, "{framing:?}");
                        }
                        (What::Sample, Err(Error::Stream(StreamError::NotZip { .. }))) => {
                            assert_eq!(place.names(), [""; 0]);
                        }
                        (_, result) => panic!("{framing:?} {what:?} {result:?}"),
                    }
                    if end == End::Close {
                        break;
                    }
                }
            }
        }
    }
}

#[test]
fn a_lying_content_length_is_an_error() {
    let place = Place::new();
    for what in BOTH {
        let body = what.body();
        let length = body.len();
        let mut lies: Vec<String> = (0..length + 4)
            .filter(|lie| *lie != length)
            .map(|lie| lie.to_string())
            .collect();
        let odd = [
            "18446744073709551615",
            "18446744073709551616",
            "-1",
            "",
            "+5",
            "0x5",
            "many",
            "5 5",
        ];
        lies.extend(odd.map(Into::into));
        lies.push(format!("{length}, {}", length + 1));
        lies.push(format!("{length}\r\ncontent-length: {}", length - 1));
        lies.push(format!("{}\r\ncontent-length: {length}", length - 1));
        for lie in &lies {
            let mut wire = Wire::head("200 OK", &format!("content-length: {lie}\r\n"));
            wire.push(body);
            for end in [End::Close, End::Reset] {
                place.fails(lie, what, &wire, end);
            }
        }
        // The chunks determine the length, but a false `content-length` is an error too.
        for lie in (0..length + 4).filter(|lie| *lie != length) {
            let headers = format!("content-length: {lie}\r\n");
            let wire = Wire::with_headers(Framing::Chunked, &headers, body);
            let error = place.fails(&headers, what, &wire, End::Close);
            let told = match error {
                Error::Stream(StreamError::Long { declared }) => {
                    lie < length && declared == lie as u64
                }
                Error::Stream(StreamError::Short { declared, .. }) => {
                    lie > length && declared == lie as u64
                }
                // The first bytes already show that this is not a zip.
                Error::Stream(StreamError::NotZip { .. }) => lie < 4 && what == What::Archive,
                _ => false,
            };
            assert!(told, "{lie}: {error:?}");
        }
    }
}

#[test]
fn broken_chunks_are_an_error() {
    let place = Place::new();
    for what in BOTH {
        let body = String::from_utf8_lossy(&what.body()[..4]).into_owned();
        for chunks in [
            format!("5\r\n{body}\r\n0\r\n\r\n"),
            format!("3\r\n{body}\r\n0\r\n\r\n"),
            format!("-4\r\n{body}\r\n0\r\n\r\n"),
            format!("x\r\n{body}\r\n0\r\n\r\n"),
            format!("ffffffffffffffff\r\n{body}\r\n0\r\n\r\n"),
            format!("fffffffffffffffff\r\n{body}\r\n0\r\n\r\n"),
            format!("4\r\n{body}0\r\n\r\n"),
            format!("4\r\n{body}\r\n\r\n"),
            body,
            "0\r\n\r\n".into(),
        ] {
            let mut wire = Wire::head("200 OK", "transfer-encoding: chunked\r\n");
            wire.push(chunks.as_bytes());
            place.fails(&chunks, what, &wire, End::Close);
        }
    }
}

#[test]
fn a_compressed_body_is_an_error() {
    for_each_pair(|what, framing| {
        let place = Place::new();
        for coding in [
            "gzip",
            "GZIP",
            "x-gzip",
            "deflate",
            "br",
            "zstd",
            "gzip, identity",
            "identity, gzip",
        ] {
            // Whether the body is compressed, or only the header says so.
            for body in [&gzip(what.body()), what.body(), b""] {
                let headers = format!("content-encoding: {coding}\r\n");
                let context = format!("{framing:?} {coding}");
                let wire = Wire::with_headers(framing, &headers, body);
                let error = place.fails(&context, what, &wire, End::Close);
                let told = match &error {
                    Error::Stream(StreamError::Encoded(told)) => **told == *coding,
                    _ => false,
                };
                assert!(told, "{context}: {error:?}");
            }
        }
        let compressed = gzip(what.body());
        for headers in [
            "",
            "content-encoding: identity\r\ncontent-encoding: gzip\r\n",
            "content-encoding: gzip\r\ncontent-encoding: identity\r\n",
            "transfer-encoding: gzip\r\n",
        ] {
            let wire = Wire::with_headers(framing, headers, &compressed);
            place.fails(headers, what, &wire, End::Close);
        }
    });
}

#[test]
fn a_peer_that_stalls_is_an_error() {
    let mut cases = Vec::new();
    for what in BOTH {
        for framing in FRAMINGS {
            let wire = Wire::new(framing, what.body());
            let (start, length) = (wire.body[0].start, wire.bytes.len());
            let last = match framing {
                Framing::Length => vec![length - 1],
                Framing::Chunked => vec![wire.body[1].end, length - 5, length - 2, length - 1],
                // The end never arrives.
                Framing::Close => vec![length],
            };
            for end in [vec![0, 20, start, start + 2], last].concat() {
                cases.push((what, wire.cut(end), end >= start, End::Hold));
            }
        }
        let length = Wire::head("200 OK", "content-length: 99999999999\r\n");
        for wire in [length, Wire::new(Framing::Close, what.body())] {
            cases.push((what, wire, true, End::Trickle));
        }
    }
    // Run all cases at once, because they mostly wait.
    let threads: Vec<_> = cases
        .into_iter()
        .map(|(what, wire, has_head, end)| {
            thread::spawn(move || {
                let mut place = Place::new();
                match end {
                    End::Trickle => place.total_timeout = Some(SILENCE),
                    _ => place.reply_timeout = SILENCE,
                }
                let error = place.fails("stall", what, &wire, end);
                let told = match &error {
                    Error::Body(error) => has_head && error.kind() == io::ErrorKind::TimedOut,
                    // This also happens if the machine was too slow to receive the head.
                    Error::Flow {
                        error: FlowError::NoReply { .. },
                        cause,
                        ..
                    } => cause.is_some(),
                    // The first bytes of the trickle already show that this is not a zip.
                    Error::Stream(StreamError::NotZip { .. }) => {
                        end == End::Trickle && what == What::Archive
                    }
                    _ => false,
                };
                assert!(told, "{what:?} {end:?} {error:?}");
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Downloads a large sample, and inspects the folder before the sample is complete.
fn watched(
    framing: Framing,
    overwrite: bool,
    act: fn() -> ControlFlow<()>,
) -> (Place, impl FnOnce() -> Result<Received, Error>) {
    let mut place = Place::new();
    place.sha256 = LARGE_SHA256.parse().unwrap();
    place.answer(&Wire::new(framing, &[b'J'; LARGE]), End::Close);
    let folder = place.folder.path().to_owned();
    let watch = move |now: &Progress<'_>| {
        let Step::Fetch { bytes, .. } = now.step else {
            panic!("{now:?}");
        };
        if bytes <= 100_000 {
            return ControlFlow::Continue(());
        }
        // The first part is in a hidden file that only the owner can read.
        let files: Vec<_> = fs::read_dir(&folder).unwrap().map(Result::unwrap).collect();
        assert_eq!(files.len(), 1);
        assert!(files[0].file_name().to_string_lossy().starts_with('.'));
        let metadata = files[0].metadata().unwrap();
        assert!((1..=bytes).contains(&metadata.len()), "{metadata:?}");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
        }
        act()
    };
    let (client, output, sample) = (
        place.client(),
        place.output(overwrite).unwrap(),
        GetDownload::new(place.sha256),
    );
    (place, move || client.save(&sample, output, watch))
}

#[test]
fn a_panic_leaves_nothing_behind() {
    const WHY: &str = "as the test wants it";
    let act: fn() -> ControlFlow<()> = || std::panic::panic_any(WHY);
    for framing in FRAMINGS {
        for overwrite in [false, true] {
            let (place, save) = watched(framing, overwrite, act);
            let panic = catch_unwind(AssertUnwindSafe(save)).unwrap_err();
            assert_eq!(panic.downcast_ref(), Some(&WHY));
            assert_eq!(place.names(), [""; 0]);
        }
        let (place, save) = watched(framing, false, act);
        let panic = thread::spawn(save).join().unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&WHY));
        assert_eq!(place.names(), [""; 0]);
    }
}

#[test]
fn a_download_that_is_stopped_leaves_nothing_behind() {
    for framing in FRAMINGS {
        let (place, save) = watched(framing, false, || ControlFlow::Break(()));
        let error = save().unwrap_err();
        assert!(matches!(error, Error::Stopped), "{error:?}");
        assert_eq!(place.names(), [""; 0]);

        let (place, save) = watched(framing, false, || ControlFlow::Continue(()));
        let received = save().unwrap();
        assert_eq!(place.take("large", received), [b'J'; LARGE]);

        let download = || place.open(&place.client(), What::Sample).unwrap();
        let error = download()
            .cap(LARGE as u64 - 1)
            .write_to(place.output(false).unwrap())
            .unwrap_err();
        assert!(
            matches!(error, Error::Stream(StreamError::TooLarge { .. })),
            "{error:?}"
        );
        assert_eq!(place.names(), [""; 0]);

        let mut begun = download();
        begun.read_exact(&mut [0]).unwrap();
        let error = begun.write_to(place.output(false).unwrap()).unwrap_err();
        assert!(matches!(error, Error::File { .. }), "{error:?}");
        assert_eq!(place.names(), [""; 0]);

        drop(download());
        assert_eq!(place.names(), [""; 0]);
    }
}

#[test]
fn a_failed_download_keeps_the_old_file() {
    let place = Place::new();
    fs::write(place.path(), "old").unwrap();
    let client = place.client();
    for framing in FRAMINGS {
        for what in BOTH {
            let mut body = what.body().to_vec();
            body[0] ^= 1;
            place.answer(&Wire::new(framing, &body), End::Close);
            for overwrite in [false, true] {
                let result = place
                    .output(overwrite)
                    .and_then(|output| place.open(&client, what).unwrap().write_to(output));
                match result.unwrap_err() {
                    Error::File { error, .. } if !overwrite => {
                        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
                    }
                    Error::Stream(_) if overwrite => {}
                    error => panic!("{error:?}"),
                }
                assert_eq!(place.names(), ["target"]);
                assert_eq!(fs::read(place.path()).unwrap(), b"old");
            }
        }
    }
    place.answer(&Wire::new(Framing::Length, SAMPLE), End::Close);
    let received = place
        .open(&client, What::Sample)
        .unwrap()
        .write_to(place.output(true).unwrap())
        .unwrap();
    assert_eq!(place.take("replaced", received), SAMPLE);
}

#[test]
fn a_file_that_appears_meanwhile_loses_no_download() {
    let place = Place::new();
    let client = place.client();
    place.answer(&Wire::new(Framing::Length, SAMPLE), End::Close);
    let output = place.output(false).unwrap();
    fs::write(place.path(), "other").unwrap();
    let download = place.open(&client, What::Sample).unwrap();
    let Error::File { error, .. } = download.write_to(output).unwrap_err() else {
        panic!("not a file error");
    };
    let shown = error.to_string();
    let (_, kept) = shown.split_once("; the complete file is at ").unwrap();
    assert_eq!(fs::read(place.path()).unwrap(), b"other");
    // The next download must not remove it as abandoned.
    drop(place.output(true).unwrap());
    assert_eq!(fs::read(kept).unwrap(), SAMPLE);
}
