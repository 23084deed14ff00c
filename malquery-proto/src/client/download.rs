use std::io::{self, Read};

use super::transport::Body;
use crate::needles::Needles;
use crate::stream::{Received, StreamCheck, StreamError};

/// The body of a download, as a reader that checks the bytes.
///
/// If the download is interrupted or the body fails a check, for example because its SHA-256 is
/// wrong, reading the body to the end returns an error. Functions such as [`io::copy`] therefore
/// fail too.
///
/// **The bytes are malware.** Do not use them until the whole body has been read without an error.
#[must_use = "the whole download is checked only when it is read to the end"]
pub struct Download {
    body: Option<Body>,
    state: State,
    needles: Needles,
}

impl std::fmt::Debug for Download {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Download")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum State {
    Reading(Box<StreamCheck>),
    Whole(Received),
    Failed(StreamError),
}

impl Download {
    pub(super) fn new(body: Body, check: StreamCheck, needles: Needles) -> Self {
        Self {
            body: Some(body),
            state: State::Reading(Box::new(check)),
            needles,
        }
    }

    /// Sets the maximum size in bytes. Reading fails if the body is larger. By default, there is no
    /// maximum.
    pub fn cap(mut self, cap: u64) -> Self {
        if let State::Reading(check) = &mut self.state {
            **check = std::mem::take(&mut **check).cap(cap);
        }
        self
    }

    /// Returns the declared length in bytes, if any, or the actual length once the whole body has
    /// been read. Returns `None` if the download failed.
    pub fn length(&self) -> Option<u64> {
        match &self.state {
            State::Reading(check) => check.length(),
            State::Whole(received) => Some(received.bytes),
            State::Failed(_) => None,
        }
    }

    /// Returns the size and the SHA-256, or `None` until the whole body has been read and verified.
    pub fn received(&self) -> Option<Received> {
        match &self.state {
            State::Whole(received) => Some(*received),
            _ => None,
        }
    }

    fn end(&mut self, result: Result<Received, StreamError>) -> io::Result<usize> {
        self.body = None;
        match result {
            Ok(received) => {
                self.state = State::Whole(received);
                Ok(0)
            }
            Err(error) => {
                let error = error.masked(&self.needles);
                self.state = State::Failed(error.clone());
                Err(io::Error::new(io::ErrorKind::InvalidData, error))
            }
        }
    }
}

impl Read for Download {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (State::Reading(check), Some(body)) = (&mut self.state, &mut self.body) else {
            return match &self.state {
                State::Failed(error) => {
                    Err(io::Error::new(io::ErrorKind::InvalidData, error.clone()))
                }
                _ => Ok(0),
            };
        };
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = match body.read(buffer) {
            // A count larger than the buffer is a bug in the transport, but must not cause a panic.
            Ok(count) => count.min(buffer.len()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => {
                // Stop reading after an error: a later EOF would not mean that the body is
                // complete.
                self.body = None;
                let (received, declared) = (check.bytes(), check.length());
                self.state = State::Failed(StreamError::Broken);
                return match declared {
                    Some(declared)
                        if received < declared && error.kind() == io::ErrorKind::UnexpectedEof =>
                    {
                        self.end(Err(StreamError::Short { received, declared }))
                    }
                    _ => Err(error),
                };
            }
        };
        if count > 0 {
            if let Err(error) = check.update(&buffer[..count]) {
                return self.end(Err(error));
            }
            return Ok(count);
        }
        let result = std::mem::take(&mut **check).finish();
        self.end(result)
    }
}
