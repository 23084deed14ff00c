//! What arrived where something else should be.

use crate::error::excerpt;

/// How many bytes of a beginning are enough to say what it is.
pub(crate) const ENOUGH: usize = 512;

/// Formats that may arrive instead of a zip archive or a sample, with their first bytes.
const FORMATS: [(&[u8], &str); 8] = [
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\x1f\x8b", "gzip data"),
    (b"\x28\xb5\x2f\xfd", "Zstandard data"),
    (b"\xfd7zXZ\0", "XZ data"),
    (b"MZ", "a Windows program"),
    (b"\x7fELF", "an ELF program"),
    (b"%PDF", "a PDF"),
];

/// Says what these bytes are the beginning of, as an object of a sentence.
pub(crate) fn what_is(bytes: &[u8]) -> String {
    let bytes = &bytes[..bytes.len().min(ENOUGH)];
    if bytes.is_empty() {
        return "nothing".into();
    }
    if let Some((_, name)) = FORMATS.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return (*name).into();
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => Some(text),
        // The last character may be cut.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    };
    match text.filter(|text| !text.contains('\0')) {
        Some(text) => {
            let start = text.trim_start_matches('\u{feff}').trim_start();
            let lower = start.get(..15).unwrap_or(start).to_ascii_lowercase();
            let kind = match start.as_bytes().first() {
                Some(b'{' | b'[') => "JSON",
                _ if lower.starts_with("<!doctype html") || lower.starts_with("<html") => {
                    "an HTML page"
                }
                _ => "a text",
            };
            format!("{kind} that begins {:?}", excerpt(start.as_bytes(), 200))
        }
        None => {
            let first = bytes.iter().take(8).map(|byte| format!(" {byte:02x}"));
            format!(
                "data that begin with the bytes{}",
                first.collect::<String>()
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_arrives_is_named() {
        for (bytes, name) in [
            (&b""[..], "nothing"),
            (b"7z\xbc\xaf\x27\x1c\0\x04", "a 7z archive"),
            (
                b"\r\n<!DOCTYPE html><title>Sign in",
                r#"an HTML page that begins "<!DOCTYPE html><title>Sign in""#,
            ),
            (b"<HTML>", r#"an HTML page that begins "<HTML>""#),
            (
                b"\xef\xbb\xbf{\"errors\": []}",
                r#"JSON that begins "{\"errors\": []}""#,
            ),
            (b"Not found\x1b[2J", r#"a text that begins "Not found [2J""#),
            (b"caf\xc3", r#"a text that begins "caf""#),
            (b"\0\x01\xff", "data that begin with the bytes 00 01 ff"),
            (b"caf\xff", "data that begin with the bytes 63 61 66 ff"),
        ] {
            assert_eq!(what_is(bytes), name);
        }
        let long = what_is("é".repeat(10_000).as_bytes());
        assert_eq!(
            long.chars().count(),
            "a text that begins \"…\"".chars().count() + 200
        );
    }
}
