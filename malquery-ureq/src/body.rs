use std::io::{self, Read};

use flate2::read::MultiGzDecoder;
use malquery_proto::Body;

use crate::ureq_error::Broken;

/// A body that is decoded if it is compressed, and whose error stays.
pub(crate) fn new(body: ureq::Body, gzip: bool) -> Body {
    let reader = body.into_reader();
    match gzip {
        true => Body::new(Reader {
            reader: MultiGzDecoder::new(reader),
            failed: None,
        }),
        false => Body::new(Reader {
            reader,
            failed: None,
        }),
    }
}

struct Reader<R> {
    reader: R,
    failed: Option<io::ErrorKind>,
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // ureq reports the end of the body after an error, and a cut body would seem whole.
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

/// ureq makes `ErrorKind::Other` of everything that is not an error of the socket.
fn explain(error: io::Error) -> io::Error {
    let error = match error.downcast() {
        Ok(error) => error,
        Err(error) => return error,
    };
    let (kind, message) = match error {
        ureq::Error::Timeout(ureq::Timeout::Global) => (
            io::ErrorKind::TimedOut,
            "the time for the call was up before the body ended",
        ),
        ureq::Error::Timeout(_) => (
            io::ErrorKind::TimedOut,
            "the body stalled: no byte of it came in time",
        ),
        ureq::Error::Other(cause) if cause.is::<Broken>() => {
            return io::Error::new(io::ErrorKind::UnexpectedEof, cause);
        }
        error => return io::Error::new(io::ErrorKind::InvalidData, error),
    };
    io::Error::new(kind, message)
}
