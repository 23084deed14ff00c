//! Hashes and descriptions of bytes.

use std::fmt;

use sha2::{Digest, Sha256};

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(Sha256::digest(bytes))
}

pub(crate) fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

pub(crate) fn bytes(count: u64) -> String {
    match count {
        1 => "1 byte".into(),
        count => format!("{count} bytes"),
    }
}

/// Displays the length of a body and the beginning of its SHA-256, or `none` if it is empty.
pub(crate) struct Described<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str("none"),
            content => {
                let (length, sha256) = (bytes(content.len() as u64), sha256(content));
                write!(f, "{length} with the SHA-256 {}…", &sha256[..8])
            }
        }
    }
}
