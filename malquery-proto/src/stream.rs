//! What a downloaded body must satisfy.

use sha2::{Digest, Sha256 as Hasher};

use crate::operation::ResponseHead;
use crate::types::Sha256;

/// Checks the bytes of a download as they come, in chunks of any size. It holds no byte of them.
///
/// ```
/// use malquery_proto::stream::StreamCheck;
///
/// let mut check = StreamCheck::new().expect_length(5);
/// check.update(b"hel")?;
/// check.update(b"lo")?;
/// let received = check.finish()?;
/// assert_eq!(received.bytes, 5);
/// assert_eq!(received.sha256, "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824".parse().unwrap());
/// # Ok::<(), malquery_proto::stream::StreamError>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "only finish() tells whether the body is whole"]
pub struct StreamCheck {
    hasher: Hasher,
    bytes: u64,
    cap: u64,
    length: Option<u64>,
    sha256: Option<Sha256>,
    zip: bool,
    /// The first bytes, for the signature.
    first: [u8; 4],
    encoding: Option<Box<str>>,
}

/// What was received, once it was found to be whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Received {
    /// The number of bytes.
    pub bytes: u64,
    /// The SHA-256 of the bytes.
    pub sha256: Sha256,
}

/// The bytes of a download are not what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The body ended before its declared length.
    #[error("the body ended after {received} of {declared} bytes")]
    #[allow(missing_docs)]
    Short { received: u64, declared: u64 },
    /// More bytes than were declared.
    #[error("the body is longer than the {declared} bytes it declared")]
    #[allow(missing_docs)]
    Long { declared: u64 },
    /// More bytes than the caller allows.
    #[error("the body is larger than the {cap} bytes allowed")]
    #[allow(missing_docs)]
    TooLarge { cap: u64 },
    /// Other bytes than those asked for.
    #[error("the bytes received have the SHA-256 {received}, not {expected}")]
    #[allow(missing_docs)]
    WrongHash { received: Sha256, expected: Sha256 },
    /// Something else than a zip archive.
    #[error("the body is not a zip archive")]
    NotZip,
    /// A compressed body, though none was asked for: its bytes cannot be checked.
    #[error(
        "the body arrived with the content encoding {0:?}, which was not asked for; a proxy may have added it"
    )]
    Encoded(Box<str>),
}

impl Default for StreamCheck {
    fn default() -> Self {
        Self::new()
    }
}

impl StreamCheck {
    /// Takes any body.
    pub fn new() -> Self {
        Self {
            hasher: Hasher::new(),
            bytes: 0,
            cap: u64::MAX,
            length: None,
            sha256: None,
            zip: false,
            first: [0; 4],
            encoding: None,
        }
    }

    /// Takes a body of the length its head declares, uncompressed.
    pub fn for_head(head: ResponseHead<'_>) -> Self {
        let mut check = Self::new();
        check.length = head.content_length();
        check.encoding =
            head.content_encoding().filter(|coding| !coding.eq_ignore_ascii_case("identity")).map(Into::into);
        check
    }

    /// Refuses a body of more than `cap` bytes.
    pub fn cap(mut self, cap: u64) -> Self {
        self.cap = cap;
        self
    }

    /// Refuses a body of another length.
    pub fn expect_length(mut self, bytes: u64) -> Self {
        self.length = Some(bytes);
        self
    }

    /// Refuses a body with another SHA-256.
    pub fn expect_sha256(mut self, sha256: Sha256) -> Self {
        self.sha256 = Some(sha256);
        self
    }

    /// Refuses a body that does not begin like a zip archive.
    pub fn expect_zip(mut self) -> Self {
        self.zip = true;
        self
    }

    /// The declared length in bytes, if there is one.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// The bytes received until now.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// Fails as soon as the body cannot be right any more. After an error the check has no meaning.
    pub fn update(&mut self, chunk: &[u8]) -> Result<(), StreamError> {
        if let Some(encoding) = &self.encoding {
            return Err(StreamError::Encoded(encoding.clone()));
        }
        let before = usize::try_from(self.bytes).unwrap_or(usize::MAX).min(4);
        let taken = chunk.len().min(4 - before);
        self.first[before..before + taken].copy_from_slice(&chunk[..taken]);
        self.bytes = self.bytes.saturating_add(chunk.len() as u64);
        if self.bytes > self.cap {
            return Err(StreamError::TooLarge { cap: self.cap });
        }
        if let Some(declared) = self.length.filter(|declared| self.bytes > *declared) {
            return Err(StreamError::Long { declared });
        }
        if self.bytes >= 4 {
            self.check_zip()?;
        }
        self.hasher.update(chunk);
        Ok(())
    }

    /// Ends the body.
    ///
    /// # Errors
    /// Fails when bytes are missing or the hash is another one.
    pub fn finish(self) -> Result<Received, StreamError> {
        if let Some(encoding) = self.encoding {
            return Err(StreamError::Encoded(encoding));
        }
        if let Some(declared) = self.length.filter(|declared| self.bytes < *declared) {
            return Err(StreamError::Short { received: self.bytes, declared });
        }
        self.check_zip()?;
        let received = Sha256::from_bytes(self.hasher.finalize().into());
        match self.sha256 {
            Some(expected) if expected != received => Err(StreamError::WrongHash { received, expected }),
            _ => Ok(Received { bytes: self.bytes, sha256: received }),
        }
    }

    fn check_zip(&self) -> Result<(), StreamError> {
        // An archive begins with an entry, or with the end of the directory when it is empty.
        if self.zip && !matches!(&self.first, b"PK\x03\x04" | b"PK\x05\x06") {
            return Err(StreamError::NotZip);
        }
        Ok(())
    }
}
