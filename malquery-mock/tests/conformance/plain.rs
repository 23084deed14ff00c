//! A transport over a plain `TcpStream`, from the docs of `Transport` alone.

use std::io::{self, BufRead, BufReader, ErrorKind::UnexpectedEof, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use http::{Request, Response};
use malquery_proto::{Body, Transport, TransportError, client::TimeLeft};

pub(crate) struct Plain;

impl Transport for Plain {
    fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Body>, TransportError> {
        let host = request.uri().authority().map_or("", |host| host.as_str());
        if request.uri().scheme_str() != Some("http") {
            return Err(TransportError::cannot_send("there is no TLS here"));
        }
        let stream = TcpStream::connect(host).map_err(TransportError::not_sent)?;
        exchange(stream, request).map_err(TransportError::unknown)
    }
}

fn exchange(mut stream: TcpStream, request: Request<Vec<u8>>) -> io::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let (host, path) = (
        head.uri.authority().unwrap(),
        head.uri.path_and_query().unwrap(),
    );
    let mut out = format!("{} {path} HTTP/1.1\r\nhost: {host}\r\n", head.method).into_bytes();
    for (name, value) in &head.headers {
        out.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    if !body.is_empty() {
        write!(out, "content-length: {}\r\n", body.len())?;
    }
    stream.write_all(&[&out, &b"connection: close\r\n\r\n"[..], &body].concat())?;
    let left = head
        .extensions
        .get()
        .map_or(Duration::from_secs(3600), |TimeLeft(left)| *left);
    let mut reader = BufReader::new(Timed(stream, Instant::now() + left));
    let mut reply = Response::builder().status(line(&mut reader)?.split(' ').nth(1).unwrap_or(""));
    while let Some((name, value)) = line(&mut reader)?.split_once(':') {
        reply = reply.header(name, value.trim());
    }
    let header = |name| reply.headers_ref()?.get(name)?.to_str().ok();
    let body = match header("content-length").map(str::parse) {
        _ if header("transfer-encoding").is_some() => {
            Body::new(Chunked(b"\r\n".chain(reader), Some(0)))
        }
        Some(length) => Body::new(reader.take(length.map_err(io::Error::other)?)),
        None => Body::new(reader),
    };
    reply.body(body).map_err(io::Error::other)
}

fn line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    reader.take(10_000).read_line(&mut line)?;
    line.strip_suffix("\r\n")
        .map(str::to_owned)
        .ok_or(UnexpectedEof.into())
}

/// A stream that ends in time.
struct Timed(TcpStream, Instant);

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.1.saturating_duration_since(Instant::now());
        self.0
            .set_read_timeout(Some(left.min(Duration::from_secs(60))))?;
        self.0.read(buffer)
    }
}

/// A chunked body, and the bytes left of its chunk. A line comes before each size.
struct Chunked<R>(R, Option<u64>);

impl<R: BufRead> Read for Chunked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.1 == Some(0) {
            line(&mut self.0)?;
            let size = u64::from_str_radix(line(&mut self.0)?.split(';').next().unwrap_or(""), 16);
            self.1 = Some(size.map_err(io::Error::other)?).filter(|size| *size > 0);
        }
        let Some(n) = &mut self.1 else { return Ok(0) };
        let count = self.0.by_ref().take(*n).read(buffer)?;
        *n -= count as u64;
        (count > 0).then_some(count).ok_or(UnexpectedEof.into())
    }
}
