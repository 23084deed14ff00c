//! Checks the body of a download.

use std::fmt;

use sha2::{Digest, Sha256 as Hasher};

use crate::debug::debug_with_sources;
use crate::error::excerpt;
use crate::needles::Needles;
use crate::reply::ResponseHead;
use crate::sniff::what_is;
use crate::types::read::read_reply;
use crate::types::{Envelope, Json, PlainMeta, Sha256};

/// Checks the bytes of a download as they arrive, in chunks of any size.
///
/// The check does not keep the body. It buffers only the first 2 KiB and, for an archive, up to
/// about 128 KiB from the end.
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
#[derive(Clone)]
#[must_use = "call `finish` to check the whole body"]
pub struct StreamCheck {
    hasher: Hasher,
    bytes: u64,
    cap: u64,
    length: Option<u64>,
    sha256: Option<Sha256>,
    zip: bool,
    /// The first bytes, to check the signature and to describe an unexpected body.
    first: Vec<u8>,
    trace_id: Option<Box<str>>,
    /// The last bytes of an archive, to find its end record.
    tail: Vec<u8>,
    encoding: Option<Box<str>>,
}

/// The maximum number of bytes to keep from the beginning.
const FIRST: usize = 2048;
/// The maximum length of the end of an archive: a record of 22 bytes and a comment.
const ZIP_END: usize = 22 + 65_535;

impl std::fmt::Debug for StreamCheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamCheck")
            .field("bytes", &self.bytes)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

/// The size and hash of the received bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Received {
    /// The number of bytes.
    pub bytes: u64,
    /// The SHA-256 of the bytes.
    pub sha256: Sha256,
}

/// A problem with the body of a download.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The body is shorter than the declared length.
    #[error("the body ended after {received} of {declared} bytes")]
    #[allow(missing_docs)]
    Short { received: u64, declared: u64 },
    /// The body is longer than the declared length.
    #[error("the body is longer than the declared length of {declared} bytes")]
    #[allow(missing_docs)]
    Long { declared: u64 },
    /// The body is larger than the caller allows.
    #[error("the body is larger than the maximum of {cap} bytes")]
    #[allow(missing_docs)]
    TooLarge { cap: u64 },
    /// The SHA-256 of the body is not the expected one.
    #[error("the body has the SHA-256 {received} instead of {expected}{instead}")]
    #[allow(missing_docs)]
    WrongHash {
        received: Sha256,
        expected: Sha256,
        instead: Box<Instead>,
    },
    /// The body is not a zip archive.
    #[error("the body is not a zip archive{instead}")]
    #[allow(missing_docs)]
    NotZip { instead: Box<Instead> },
    /// The zip archive does not end with a valid end record.
    #[error(
        "the zip archive does not end with a valid end record: it was truncated, or bytes were appended"
    )]
    CutZip,
    /// The transport failed before the end of the body.
    #[error("the download was interrupted")]
    Broken,
    /// The body has a content encoding that was not requested.
    #[error(
        "the body has the content encoding {0:?}, which was not requested; a proxy may have added it"
    )]
    Encoded(Box<str>),
}

/// A description of the body that arrived instead of the requested file.
///
/// The body may be a gateway's web page, an error with a 2xx status, or another kind of archive.
/// `Display` completes the message of a [`StreamError`]. It writes nothing if nothing is known
/// about the body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Instead {
    what: Option<Box<str>>,
    message: Option<Box<str>>,
    trace_id: Option<Box<str>>,
}

impl Instead {
    fn new(check: &StreamCheck) -> Self {
        let first = &check.first;
        let reply = read_reply::<Envelope<PlainMeta, Json>>(first).ok();
        let message = reply
            .as_ref()
            .and_then(|reply| reply.errors.first()?.message.as_deref());
        let found = reply
            .as_ref()
            .and_then(|reply| reply.meta.trace_id.as_deref());
        Self {
            what: Some(what_is(first).into()),
            message: message.map(|message| excerpt(message.as_bytes(), 500).into()),
            trace_id: check.trace_id.clone().or(found.map(Into::into)),
        }
    }

    /// Returns the message of the first error, up to 500 characters, if the body is an error reply
    /// of at most 2 KiB.
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// Returns a description of the body's format.
    pub fn what(&self) -> Option<&str> {
        self.what.as_deref()
    }

    /// Returns the trace id, if there is one. CrowdStrike support asks for it.
    pub fn trace_id(&self) -> Option<&str> {
        self.trace_id.as_deref()
    }

    fn mask(&mut self, needles: &Needles) {
        let texts = [&mut self.what, &mut self.message, &mut self.trace_id];
        for text in texts.into_iter().flatten() {
            *text = needles.mask_excerpt(text).into();
        }
    }
}

impl fmt::Display for Instead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.message, &self.what) {
            (Some(message), _) => write!(f, "; the service replied: {message}")?,
            (None, Some(what)) => write!(f, "; it is {what}")?,
            (None, None) => return Ok(()),
        }
        match &self.trace_id {
            Some(id) => write!(f, " (trace id {})", excerpt(id.as_bytes(), 100)),
            None => Ok(()),
        }
    }
}

debug_with_sources!(StreamError);

impl StreamError {
    /// Masks the secrets in the content encoding or the description of an unexpected body.
    pub(crate) fn masked(mut self, needles: &Needles) -> Self {
        match &mut self {
            Self::WrongHash { instead, .. } | Self::NotZip { instead } => instead.mask(needles),
            Self::Encoded(encoding) => *encoding = needles.mask(encoding).into(),
            _ => {}
        }
        self
    }
}

impl Default for StreamCheck {
    fn default() -> Self {
        Self::new()
    }
}

impl StreamCheck {
    /// Creates a check that accepts any body.
    pub fn new() -> Self {
        Self {
            hasher: Hasher::new(),
            bytes: 0,
            cap: u64::MAX,
            length: None,
            sha256: None,
            zip: false,
            first: Vec::with_capacity(FIRST),
            trace_id: None,
            tail: Vec::new(),
            encoding: None,
        }
    }

    /// Creates a check for a reply with this head. The check requires the declared length, if there
    /// is one, and rejects a content encoding other than `identity`.
    pub fn for_head(head: ResponseHead<'_>) -> Self {
        let mut check = Self::new();
        check.length = head.content_length();
        check.trace_id = head.trace_id().map(Into::into);
        check.encoding = head
            .content_encoding()
            .filter(|coding| !coding.eq_ignore_ascii_case("identity"))
            .map(Into::into);
        check
    }

    /// Sets the maximum size in bytes. There is no maximum by default.
    pub fn cap(mut self, cap: u64) -> Self {
        self.cap = cap;
        self
    }

    /// Requires exactly this number of bytes.
    pub fn expect_length(mut self, bytes: u64) -> Self {
        self.length = Some(bytes);
        self
    }

    /// Requires this SHA-256.
    pub fn expect_sha256(mut self, sha256: Sha256) -> Self {
        self.sha256 = Some(sha256);
        self
    }

    /// Requires the body to begin and end like a zip archive.
    pub fn expect_zip(mut self) -> Self {
        self.zip = true;
        self
    }

    /// Returns the required length in bytes, if there is one.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// Returns the number of bytes received so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Checks the next bytes of the body.
    ///
    /// # Errors
    /// Fails if the body has an unexpected content encoding or is too long. If a zip archive is
    /// required, also fails after 2 KiB if the body does not begin like one. Do not use the check
    /// after an error.
    pub fn update(&mut self, chunk: &[u8]) -> Result<(), StreamError> {
        if let Some(encoding) = &self.encoding {
            return Err(StreamError::Encoded(encoding.clone()));
        }
        let kept = chunk.len().min(FIRST - self.first.len());
        self.first.extend_from_slice(&chunk[..kept]);
        self.bytes = self.bytes.saturating_add(chunk.len() as u64);
        if self.bytes > self.cap {
            return Err(StreamError::TooLarge { cap: self.cap });
        }
        if let Some(declared) = self.length.filter(|declared| self.bytes > *declared) {
            return Err(StreamError::Long { declared });
        }
        // Wait for the first 2 KiB, so that an error can describe the unexpected body.
        if self.first.len() == FIRST {
            self.check_zip()?;
        }
        if self.zip {
            self.keep_tail(chunk);
        }
        self.hasher.update(chunk);
        Ok(())
    }

    /// Keeps at least the last [`ZIP_END`] bytes and at most twice as many, so that small chunks do
    /// not move the buffer each time.
    fn keep_tail(&mut self, chunk: &[u8]) {
        let chunk = &chunk[chunk.len().saturating_sub(ZIP_END)..];
        if self.tail.len() + chunk.len() > 2 * ZIP_END {
            self.tail.drain(..self.tail.len().saturating_sub(ZIP_END));
        }
        self.tail.extend_from_slice(chunk);
    }

    /// Returns whether the archive ends with its end record and a comment of the declared length.
    fn has_zip_end(&self) -> bool {
        (0..self.tail.len().saturating_sub(21)).rev().any(|at| {
            let record = &self.tail[at..];
            let comment = usize::from(u16::from_le_bytes([record[20], record[21]]));
            record.starts_with(b"PK\x05\x06") && record.len() == 22 + comment
        })
    }

    /// Finishes the check, and returns the size and hash of the body.
    ///
    /// # Errors
    /// Fails if the body is too short, has the wrong hash, or has an unexpected content encoding.
    /// If a zip archive is required, also fails unless the body begins and ends like one.
    pub fn finish(self) -> Result<Received, StreamError> {
        if let Some(encoding) = self.encoding {
            return Err(StreamError::Encoded(encoding));
        }
        if let Some(declared) = self.length.filter(|declared| self.bytes < *declared) {
            return Err(StreamError::Short {
                received: self.bytes,
                declared,
            });
        }
        self.check_zip()?;
        // Check the end even if a length was declared: the length may be wrong, and an archive has
        // no expected hash that would reveal it.
        if self.zip && !self.has_zip_end() {
            return Err(StreamError::CutZip);
        }
        let received = Sha256::from_bytes(self.hasher.clone().finalize().into());
        match self.sha256 {
            Some(expected) if expected != received => Err(StreamError::WrongHash {
                received,
                expected,
                instead: Instead::new(&self).into(),
            }),
            _ => Ok(Received {
                bytes: self.bytes,
                sha256: received,
            }),
        }
    }

    fn check_zip(&self) -> Result<(), StreamError> {
        // An archive begins with an entry or, if it is empty, with its end record.
        let is_zip = [b"PK\x03\x04", b"PK\x05\x06"]
            .iter()
            .any(|zip| self.first.starts_with(*zip));
        if self.zip && !is_zip {
            return Err(StreamError::NotZip {
                instead: Instead::new(self).into(),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Checks a body in chunks of these sizes, repeated as needed, or in one chunk if `sizes` is
    /// empty.
    fn feed(mut check: StreamCheck, body: &[u8], sizes: &[usize]) -> Result<Received, StreamError> {
        let mut rest = body;
        let mut sizes = sizes.iter().cycle();
        while !rest.is_empty() {
            let size = sizes
                .next()
                .map_or(rest.len(), |size| *size)
                .min(rest.len());
            let (chunk, behind) = rest.split_at(size);
            check.update(chunk)?;
            rest = behind;
        }
        check.finish()
    }

    fn sha256(body: &[u8]) -> Sha256 {
        Sha256::from_bytes(Hasher::digest(body).into())
    }

    #[test]
    fn each_way_to_be_wrong_has_its_error() {
        let body = b"any bytes are";
        let right = || {
            StreamCheck::new()
                .expect_length(13)
                .expect_sha256(sha256(body))
                .cap(13)
        };
        assert_eq!(
            feed(right(), body, &[]).unwrap(),
            Received {
                bytes: 13,
                sha256: sha256(body)
            }
        );
        for end in 0..body.len() {
            let error = feed(right(), &body[..end], &[]).unwrap_err();
            assert_eq!(
                error,
                StreamError::Short {
                    received: end as u64,
                    declared: 13
                }
            );
        }
        let longer = b"any bytes are!";
        assert_eq!(
            feed(right().cap(99), longer, &[]).unwrap_err(),
            StreamError::Long { declared: 13 }
        );
        assert_eq!(
            feed(right(), longer, &[]).unwrap_err(),
            StreamError::TooLarge { cap: 13 }
        );
        let other = b"any bytes arm";
        let error = feed(right(), other, &[]).unwrap_err();
        assert!(
            matches!(error, StreamError::WrongHash { received, expected, .. }
                if received == sha256(other) && expected == sha256(body)),
            "{error:?}"
        );
        for body in [b"{\"errors\": []}".as_slice(), b"PK", b"", b"PK\x01\x02"] {
            let error = feed(StreamCheck::new().expect_zip(), body, &[]).unwrap_err();
            assert!(matches!(error, StreamError::NotZip { .. }), "{error:?}");
        }
    }

    /// Returns the end record of an archive with a comment.
    fn zip_end(comment: &[u8]) -> Vec<u8> {
        let length = u16::try_from(comment.len()).unwrap().to_le_bytes();
        [b"PK\x05\x06".as_slice(), &[0; 16], &length, comment].concat()
    }

    #[test]
    fn an_archive_needs_its_end() {
        let whole = [b"PK\x03\x04 an entry".as_slice(), &zip_end(b"a comment")].concat();
        for chunks in [&[][..], &[1], &[7, 100_000]] {
            feed(StreamCheck::new().expect_zip(), &whole, chunks).unwrap();
            feed(StreamCheck::new().expect_zip(), &zip_end(b""), chunks).unwrap();
        }
        for end in 4..whole.len() {
            let error = feed(StreamCheck::new().expect_zip(), &whole[..end], &[]).unwrap_err();
            assert_eq!(error, StreamError::CutZip, "{end}");
        }
        // The longest comment, after more bytes than are kept, in chunks that cross the boundary.
        let large = [
            b"PK\x03\x04".as_slice(),
            &[b'x'; 300_000],
            &zip_end(&[b'c'; 65_535]),
        ]
        .concat();
        for chunks in [&[][..], &[65_557], &[4096], &[65_536, 3]] {
            feed(StreamCheck::new().expect_zip(), &large, chunks).unwrap();
        }
    }

    #[test]
    fn a_compressed_body_is_refused() {
        let mut headers = http::HeaderMap::new();
        let check = |headers: &http::HeaderMap| {
            feed(
                StreamCheck::for_head(ResponseHead {
                    status: http::StatusCode::OK,
                    headers,
                }),
                b"x",
                &[],
            )
        };
        headers.insert("content-encoding", "identity".parse().unwrap());
        check(&headers).unwrap();
        headers.insert("content-encoding", "gzip".parse().unwrap());
        assert_eq!(
            check(&headers).unwrap_err(),
            StreamError::Encoded("gzip".into())
        );
        let empty = StreamCheck::for_head(ResponseHead {
            status: http::StatusCode::OK,
            headers: &headers,
        });
        assert_eq!(
            empty.finish().unwrap_err(),
            StreamError::Encoded("gzip".into())
        );
    }

    #[test]
    fn every_text_of_an_error_is_masked() {
        let needles = Needles::new(["toke-n123"]);
        let cut = "x".repeat(195) + " toke-n123";
        let error = feed(StreamCheck::new().expect_zip(), cut.as_bytes(), &[]).unwrap_err();
        for error in [error, StreamError::Encoded("toke-n123".into())] {
            assert!(error.to_string().contains("toke"));
            assert!(!error.masked(&needles).to_string().contains("toke"));
        }
    }

    #[test]
    fn a_check_says_what_it_expects_and_has() {
        let mut check = StreamCheck::new().expect_length(5);
        check.update(b"abc").unwrap();
        assert_eq!((check.length(), check.bytes()), (Some(5), 3));
        assert_eq!(
            format!("{check:?}"),
            "StreamCheck { bytes: 3, length: Some(5), .. }"
        );
        assert_eq!(StreamCheck::new().length(), None);
    }

    #[test]
    fn an_archive_keeps_no_more_than_its_end() {
        const LONGEST_END: usize = 22 + 65_535;
        let mut check = StreamCheck::new().expect_zip();
        check.update(b"PK\x03\x04").unwrap();
        let mut most = 0;
        for chunk in (0..3000).map(|i| [i as u8; 100]) {
            check.update(&chunk).unwrap();
            most = most.max(check.tail.len());
            assert!(check.tail.len() >= LONGEST_END.min(check.bytes as usize));
            assert!(check.tail.ends_with(&chunk));
        }
        // The buffer is moved only at twice the size; otherwise, small chunks would take
        // quadratic time.
        assert!(
            (2 * LONGEST_END - 100..=2 * LONGEST_END).contains(&most),
            "{most}"
        );
        check.update(&vec![0; 1_000_000]).unwrap();
        assert!(check.tail.len() <= 2 * LONGEST_END);
    }

    proptest! {
        #[test]
        fn chunks_make_no_difference(
            body in prop::collection::vec(any::<u8>(), 0..200),
            zip: bool,
            cut in 0usize..220,
            flip in prop::option::of(0usize..200),
            sizes in prop::collection::vec(1usize..9, 1..6),
        ) {
            let mut body = body;
            if zip {
                body.splice(..0, *b"PK\x03\x04");
                body.extend(zip_end(b"end"));
            }
            let declared = StreamCheck::new().expect_length(body.len() as u64).expect_sha256(sha256(&body));
            let check = if zip { declared.expect_zip() } else { declared };
            let right = body.clone();
            body.truncate(cut);
            if let Some(byte) = flip.and_then(|at| body.get_mut(at)) {
                *byte ^= 1;
            }
            let whole = feed(check.clone(), &body, &[]);
            prop_assert_eq!(&whole, &feed(check.clone(), &body, &[1]));
            prop_assert_eq!(&whole, &feed(check, &body, &sizes));
            prop_assert_eq!(whole.is_ok(), body == right);
        }
    }
}
