use std::io::{self, Read, Take};

use flate2::read::MultiGzDecoder;
use malquery_proto::Body;

use crate::ureq_error::Broken;

/// Wraps a body, and decompresses it if `gzip` is set.
pub(crate) fn new(body: ureq::Body, gzip: bool) -> Body {
    let reader = body.into_reader();
    let failed = None;
    match gzip {
        true => Body::new(Reader {
            reader: Gzip::new(reader),
            failed,
        }),
        false => Body::new(Reader { reader, failed }),
    }
}

struct Reader<R> {
    reader: R,
    failed: Option<io::ErrorKind>,
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // After an error, ureq may report the end of the body, which would make a truncated body
        // look complete.
        if let Some(kind) = self.failed {
            return Err(kind.into());
        }
        self.reader.read(buffer).map_err(|error| {
            let error = explain(error);
            if error.kind() != io::ErrorKind::Interrupted {
                self.failed = Some(error.kind());
            }
            error
        })
    }
}

/// The decompressed size in bytes up to which any compression ratio is allowed.
const ANY_RATIO: u64 = 16 * 1024 * 1024;
/// The maximum compression ratio above `ANY_RATIO`. Job results reach about 10, gzip about 1,000.
const MAX_RATIO: u64 = 200;

/// Decompresses a gzip body. Reading fails once the output exceeds both 16 MiB and 200 times the
/// number of compressed bytes read so far.
struct Gzip<R> {
    /// `Take` only counts the bytes read: its limit is never reached.
    decoder: MultiGzDecoder<Take<R>>,
    decoded: u64,
}

impl<R: Read> Gzip<R> {
    fn new(reader: R) -> Self {
        Self {
            decoder: MultiGzDecoder::new(reader.take(u64::MAX)),
            decoded: 0,
        }
    }
}

impl<R: Read> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.decoder.read(buffer)?;
        self.decoded += count as u64;
        let encoded = u64::MAX - self.decoder.get_ref().limit();
        if self.decoded > encoded.saturating_mul(MAX_RATIO).max(ANY_RATIO) {
            let error = "the body looks like a gzip bomb, so it was not read to the end";
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, error));
        }
        Ok(count)
    }
}

/// Sets the kind of an error: ureq uses `ErrorKind::Other` for all errors except I/O errors.
fn explain(error: io::Error) -> io::Error {
    let error = match error.downcast() {
        Ok(error) => error,
        Err(error) => return error,
    };
    let (kind, message) = match error {
        ureq::Error::Timeout(ureq::Timeout::Global) => (
            io::ErrorKind::TimedOut,
            "the time limit expired before the body ended",
        ),
        ureq::Error::Timeout(_) => (
            io::ErrorKind::TimedOut,
            "the body stalled: no more data arrived in time",
        ),
        ureq::Error::Other(cause) if cause.is::<Broken>() => {
            return io::Error::new(io::ErrorKind::UnexpectedEof, cause);
        }
        error => return io::Error::new(io::ErrorKind::InvalidData, error),
    };
    io::Error::new(kind, message)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn read(text: &[u8], times: usize) -> io::Result<u64> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        for _ in 0..times {
            encoder.write_all(text).unwrap();
        }
        let bytes = encoder.finish().unwrap();
        io::copy(&mut Gzip::new(&bytes[..]), &mut io::sink())
    }

    #[test]
    fn a_gzip_bomb_is_not_read_whole() {
        let zeros = [b' '; 4096];
        assert_eq!(read(&zeros, 4096).unwrap(), ANY_RATIO);
        let error = read(&zeros, 4097).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        let results: String = (0..20_000)
            .map(|number: u64| format!("{{\"sha256\":\"{:064x}\"}},", number.wrapping_mul(!0 / 59)))
            .collect();
        assert!(read(results.as_bytes(), 20).unwrap() > ANY_RATIO);
    }
}
