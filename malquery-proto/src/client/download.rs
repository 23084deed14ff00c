use std::io::{self, Read};

use super::transport::Body;
use crate::needles::Needles;
use crate::stream::{Received, StreamCheck, StreamError};

/// The bytes of a download, checked as they are read. Reading fails at the end of a body that is
/// too short, too long or has the wrong hash, so no copy of it succeeds.
///
/// The bytes are malware. Before the end they may be a damaged sample.
#[must_use = "nothing is read, and so nothing checked, until it is read to its end"]
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

    /// Refuses a body of more than `cap` bytes.
    pub fn cap(mut self, cap: u64) -> Self {
        if let State::Reading(check) = &mut self.state {
            **check = std::mem::take(&mut **check).cap(cap);
        }
        self
    }

    /// Returns the declared length in bytes, if one was declared.
    pub fn length(&self) -> Option<u64> {
        match &self.state {
            State::Reading(check) => check.length(),
            State::Whole(received) => Some(received.bytes),
            State::Failed(_) => None,
        }
    }

    /// Returns the size and hash. `None` until the body was read to its end and is complete.
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
            // A count above the size of the buffer is a mistake of the transport. Do not panic.
            Ok(count) => count.min(buffer.len()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => {
                // Trust nothing after an error, not even an end.
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
