//! Bytes that are not shown.

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

/// Says which bytes they are, in a few words.
pub(crate) fn describe(bytes: &[u8]) -> String {
    format!(
        "{} bytes with the SHA-256 {}…",
        bytes.len(),
        &sha256(bytes)[..8]
    )
}
