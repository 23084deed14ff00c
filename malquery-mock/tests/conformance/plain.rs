//! A transport over a plain `TcpStream`, written from the docs of `Transport` alone.

use std::io::{self, BufRead, BufReader, ErrorKind::UnexpectedEof, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use http::{HeaderValue, Request, Response, StatusCode};
use malquery_proto::{Body, Transport, TransportError, client::TimeLeft};

pub(crate) struct Plain;

impl Transport for Plain {
    fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Body>, TransportError> {
        let stream = connect(&request)?;
        talk(stream, closing(request)).map_err(TransportError::unknown)
    }
}

pub(crate) fn connect(request: &Request<Vec<u8>>) -> Result<TcpStream, TransportError> {
    let uri = request.uri();
    let host = uri.authority().filter(|_| uri.scheme_str() == Some("http"));
    let host = host.ok_or_else(|| TransportError::cannot_send("there is no TLS here"))?;
    TcpStream::connect(host.as_str()).map_err(TransportError::not_sent)
}

pub(crate) fn closing(mut request: Request<Vec<u8>>) -> Request<Vec<u8>> {
    let close = HeaderValue::from_static("close");
    request.headers_mut().insert("connection", close);
    request
}

pub(crate) fn talk(stream: TcpStream, request: Request<Vec<u8>>) -> io::Result<Response<Body>> {
    talk_until(stream, request, |status| !status.is_informational())
}

/// Returns the first reply whose status `is_final`.
pub(crate) fn talk_until(
    stream: TcpStream,
    request: Request<Vec<u8>>,
    is_final: fn(StatusCode) -> bool,
) -> io::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let (host, path) = (head.uri.authority(), head.uri.path_and_query());
    let (host, path) = (host.unwrap(), path.unwrap());
    let mut out = format!("{} {path} HTTP/1.1\r\nhost: {host}\r\n", head.method).into_bytes();
    for (name, value) in &head.headers {
        out.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    if !body.is_empty() {
        write!(out, "content-length: {}\r\n", body.len())?;
    }
    let left = head.extensions.get().map(|TimeLeft(left)| *left);
    let mut stream = Timed(stream, Instant::now() + left.unwrap_or(MINUTE * 60));
    stream.write_all(&[&out, &b"\r\n"[..], &body].concat())?;
    let mut reader = BufReader::new(stream);
    let mut reply = reply_head(&mut reader)?;
    while !is_final(reply.status()) {
        reply = reply_head(&mut reader)?;
    }
    let header = |name| reply.headers().get(name)?.to_str().ok();
    let length = header("content-length").map_or(Ok(u64::MAX), str::parse);
    let body = match header("transfer-encoding") {
        Some(_) => Body::new(Chunked(b"\r\n".chain(reader), Some(0))),
        None => Body::new(reader.take(length.map_err(io::Error::other)?)),
    };
    Ok(reply.map(|()| body))
}

fn reply_head(reader: &mut impl BufRead) -> io::Result<Response<()>> {
    let mut reply = Response::builder().status(line(reader)?.split(' ').nth(1).unwrap_or(""));
    while let Some((name, value)) = line(reader)?.split_once(':') {
        reply = reply.header(name, value.trim());
    }
    reply.body(()).map_err(io::Error::other)
}

fn line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    reader.take(10_000).read_line(&mut line)?;
    line.pop().filter(|end| *end == '\n').ok_or(UnexpectedEof)?;
    Ok(line)
}

/// The maximum time for one read or write.
const MINUTE: Duration = Duration::from_secs(60);

/// A stream with a deadline.
struct Timed(TcpStream, Instant);

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.1.saturating_duration_since(Instant::now());
        self.0.set_read_timeout(Some(left.min(MINUTE)))?;
        self.0.read(buffer)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = self.1.saturating_duration_since(Instant::now());
        self.0.set_write_timeout(Some(left.min(MINUTE)))?;
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A chunked body, and the number of bytes left in its chunk. A line with the size precedes each
/// chunk.
struct Chunked<R>(R, Option<u64>);

impl<R: BufRead> Read for Chunked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.1 == Some(0) {
            let end = line(&mut self.0)?;
            (end.trim_end() == "")
                .then_some(())
                .ok_or_else(|| io::Error::other(end))?;
            let size = u64::from_str_radix(line(&mut self.0)?.trim_end(), 16);
            self.1 = Some(size.map_err(io::Error::other)?).filter(|size| *size > 0);
        }
        let Some(n) = &mut self.1 else { return Ok(0) };
        let count = self.0.by_ref().take(*n).read(buffer)?;
        *n -= count as u64;
        (count > 0).then_some(count).ok_or(UnexpectedEof.into())
    }
}
