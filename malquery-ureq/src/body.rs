use std::io::{self, Read};

use flate2::read::MultiGzDecoder;
use ureq::BodyReader;

use crate::connect::Broken;

/// The body of a reply, read from the connection as you read it, and decoded when it is a compressed JSON document.
///
/// A body that stalls fails with [`TimedOut`](io::ErrorKind::TimedOut), one that breaks off with
/// [`UnexpectedEof`](io::ErrorKind::UnexpectedEof). After an error all further reads fail, too.
pub(crate) struct Reader {
    reader: Source,
    failed: Option<io::ErrorKind>,
}

enum Source {
    Plain(BodyReader<'static>),
    Gzip(Box<MultiGzDecoder<BodyReader<'static>>>),
}

impl Reader {
    pub(crate) fn new(body: ureq::Body, gzip: bool) -> Self {
        let reader = body.into_reader();
        let reader = if gzip {
            Source::Gzip(MultiGzDecoder::new(reader).into())
        } else {
            Source::Plain(reader)
        };
        Self {
            reader,
            failed: None,
        }
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // ureq would report the end of the body, and who reads on would take it for whole.
        if let Some(kind) = self.failed {
            return Err(kind.into());
        }
        let result = match &mut self.reader {
            Source::Plain(reader) => reader.read(buffer),
            Source::Gzip(reader) => reader.read(buffer),
        };
        result.map_err(|error| {
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
    match error.downcast::<ureq::Error>() {
        Ok(ureq::Error::Timeout(ureq::Timeout::Global)) => io::Error::new(
            io::ErrorKind::TimedOut,
            "the time for the call was up before the body ended",
        ),
        Ok(ureq::Error::Timeout(_)) => io::Error::new(
            io::ErrorKind::TimedOut,
            "the body stalled: no byte of it came in time",
        ),
        Ok(ureq::Error::Other(cause)) if cause.is::<Broken>() => {
            io::Error::new(io::ErrorKind::UnexpectedEof, cause)
        }
        Ok(error) => io::Error::new(io::ErrorKind::InvalidData, error),
        Err(error) => error,
    }
}
