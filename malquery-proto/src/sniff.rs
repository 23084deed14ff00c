//! Guesses the format of an unexpected body from its first bytes.

use crate::error::excerpt;

/// The maximum number of bytes that [`what_is`] uses.
pub(crate) const ENOUGH: usize = 512;

/// File formats that an unexpected body may have: the first bytes and a description.
const FORMATS: [(&[u8], &str); 8] = [
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\x1f\x8b", "gzip data"),
    (b"\x28\xb5\x2f\xfd", "Zstandard data"),
    (b"\xfd7zXZ\0", "XZ data"),
    (b"MZ", "a Windows program"),
    (b"\x7fELF", "an ELF file"),
    (b"%PDF", "a PDF"),
];

/// Describes the format that these first bytes suggest. The description completes "it is …".
pub(crate) fn what_is(bytes: &[u8]) -> String {
    let bytes = &bytes[..bytes.len().min(ENOUGH)];
    if bytes.is_empty() {
        return "empty".into();
    }
    if let Some((_, name)) = FORMATS.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return (*name).into();
    }
    let end = match std::str::from_utf8(bytes) {
        // The last character is truncated.
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => bytes.len(),
    };
    let text = std::str::from_utf8(&bytes[..end]).ok();
    match text.filter(|text| !text.contains('\0')) {
        Some(text) => {
            let start = text.trim_start_matches('\u{feff}').trim_start();
            let lower = start.get(..15).unwrap_or(start).to_ascii_lowercase();
            let kind = match start.as_bytes().first() {
                Some(b'{' | b'[') => "JSON",
                _ if lower.starts_with("<!doctype html") || lower.starts_with("<html") => {
                    "an HTML page"
                }
                _ => "text",
            };
            format!(
                "{kind} that begins with {:?}",
                excerpt(start.as_bytes(), 200)
            )
        }
        None => {
            let first = bytes.iter().take(8).map(|byte| format!(" {byte:02x}"));
            format!(
                "data that begins with the bytes{}",
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
            (&b""[..], "empty"),
            (b"7z\xbc\xaf\x27\x1c\0\x04", "a 7z archive"),
            (
                b"\r\n<!DOCTYPE html><title>Sign in",
                r#"an HTML page that begins with "<!DOCTYPE html><title>Sign in""#,
            ),
            (b"<HTML>", r#"an HTML page that begins with "<HTML>""#),
            (
                b"\xef\xbb\xbf{\"errors\": []}",
                r#"JSON that begins with "{\"errors\": []}""#,
            ),
            (
                b"Not found\x1b[2J",
                r#"text that begins with "Not found [2J""#,
            ),
            (b"caf\xc3", r#"text that begins with "caf""#),
            (b"\0\x01\xff", "data that begins with the bytes 00 01 ff"),
            (b"caf\xff", "data that begins with the bytes 63 61 66 ff"),
        ] {
            assert_eq!(what_is(bytes), name);
        }
        let long = what_is("é".repeat(10_000).as_bytes());
        assert_eq!(
            long.chars().count(),
            "text that begins with \"…\"".chars().count() + 200
        );
    }
}
