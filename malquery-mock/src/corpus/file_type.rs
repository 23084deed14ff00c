//! The type of a sample by its content, in the service's words.

use std::io::{self, Read, Seek};

use super::source::Opened;

/// How much of a sample is looked at.
const PREFIX: u64 = 64 * 1024;

/// `data` is what has no other word.
pub(super) fn detect(opened: &mut Opened) -> io::Result<&'static str> {
    opened.rewind()?;
    let mut prefix = Vec::new();
    opened.take(PREFIX).read_to_end(&mut prefix)?;
    Ok(if std::str::from_utf8(&prefix).is_ok() { "text" } else { "data" })
}
