//! Reads samples to search for patterns, run a rule, or compute hashes.

use std::io::{self, Seek};

use malquery_proto::types::{Md5, Pattern, Sha1, Sha256};
use memchr::memmem::Finder;
use sha2::Digest;

use super::Hashes;
use super::source::Opened;

/// The default number of bytes read at a time.
pub(super) const CHUNK: usize = 256 * 1024;

/// A search for samples that contain all patterns.
pub(super) struct Scan {
    /// The patterns, longest first, because a long pattern is likely to be rare.
    finders: Vec<Finder<'static>>,
    /// The maximum number of bytes of an incomplete pattern at the end of a chunk.
    overlap: usize,
    chunk: usize,
}

impl Scan {
    pub(super) fn new(patterns: &[Pattern]) -> Self {
        Self::with_chunk(patterns, CHUNK)
    }

    pub(super) fn with_chunk(patterns: &[Pattern], chunk: usize) -> Self {
        let mut needles: Vec<_> = patterns.iter().map(Pattern::bytes).collect();
        needles.sort_unstable_by_key(|needle| usize::MAX - needle.len());
        let overlap = needles
            .first()
            .map_or(0, |longest| longest.len().saturating_sub(1));
        Self {
            finders: needles
                .iter()
                .map(|needle| Finder::new(needle).into_owned())
                .collect(),
            overlap,
            chunk: chunk.max(overlap),
        }
    }

    pub(super) fn run(&self, opened: &mut Opened, buffer: &mut Vec<u8>) -> io::Result<bool> {
        grow(buffer, self.overlap + self.chunk);
        let mut missing: Vec<_> = self.finders.iter().collect();
        let mut kept = 0;
        opened.rewind()?;
        loop {
            let count = opened.fill(&mut buffer[kept..kept + self.chunk])?;
            let bytes = &buffer[..kept + count];
            if opened.is_at_end() || count == 0 {
                return Ok(missing.iter().all(|finder| finder.find(bytes).is_some()));
            }
            missing.retain(|finder| finder.find(bytes).is_none());
            if missing.is_empty() {
                return Ok(true);
            }
            let end = bytes.len();
            kept = self.overlap.min(end);
            buffer.copy_within(end - kept..end, 0);
        }
    }
}

/// The maximum size of a file in a hunt, in bytes. Each thread holds one file in memory.
#[cfg(feature = "yara")]
const MAX_RULE_SIZE: u64 = 256 * 1024 * 1024;

#[cfg(feature = "yara")]
pub(super) fn hunt(
    rule: &super::Rule,
    opened: &mut Opened,
    buffer: &mut Vec<u8>,
) -> io::Result<bool> {
    let size = match usize::try_from(opened.stamp.size) {
        Ok(size) if opened.stamp.size <= MAX_RULE_SIZE => size,
        _ => {
            return Err(io::Error::other(
                "the sample is larger than 256 MiB, so the rule was not run on it",
            ));
        }
    };
    grow(buffer, size);
    opened.rewind()?;
    let count = opened.fill(&mut buffer[..size])?;
    rule.matches(&buffer[..count]).map_err(io::Error::other)
}

pub(super) fn hash(opened: &mut Opened, buffer: &mut Vec<u8>) -> io::Result<Hashes> {
    let (mut sha256, mut sha1, mut md5) = (sha2::Sha256::new(), sha1::Sha1::new(), md5::Md5::new());
    grow(buffer, CHUNK);
    opened.rewind()?;
    loop {
        let count = opened.fill(&mut buffer[..CHUNK])?;
        let bytes = &buffer[..count];
        if bytes.is_empty() {
            break;
        }
        sha256.update(bytes);
        sha1.update(bytes);
        md5.update(bytes);
    }
    Ok(Hashes {
        sha256: Sha256::from_bytes(sha256.finalize().into()),
        sha1: Sha1::from_bytes(sha1.finalize().into()),
        md5: Md5::from_bytes(md5.finalize().into()),
    })
}

fn grow(buffer: &mut Vec<u8>, size: usize) {
    if buffer.len() < size {
        buffer.resize(size, 0);
    }
}
