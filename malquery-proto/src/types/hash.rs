use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use super::ParseError;
use super::lenient::text_item;

macro_rules! hash {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// Creates a hash from its bytes.
            pub const fn from_bytes(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }

            /// Returns the bytes of the hash.
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = ParseError;

            /// Parses uppercase or lowercase hex digits. Surrounding whitespace is an error.
            fn from_str(text: &str) -> Result<Self, ParseError> {
                read_hex::<$bytes, { 2 * $bytes }>(text).map(Self).ok_or_else(|| refusal(text, 2 * $bytes, $what))
            }
        }

        impl fmt::Display for $name {
            /// Writes lowercase hex digits.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut text = [0; 2 * $bytes];
                f.pad(write_hex(&self.0, &mut text))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl From<[u8; $bytes]> for $name {
            fn from(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }
        }

        impl From<$name> for [u8; $bytes] {
            fn from(hash: $name) -> Self {
                hash.0
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = ParseError;

            fn try_from(bytes: &[u8]) -> Result<Self, ParseError> {
                bytes.try_into().map(Self).map_err(|_| {
                    ParseError::new($what, format!("expected {} bytes, found {}", $bytes, bytes.len()))
                })
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        impl Borrow<[u8; $bytes]> for $name {
            fn borrow(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        // Uppercase and lowercase digits mean the same hash, so do not keep the received text.
        text_item!($name, |_, _| true);
    };
}

hash!(
    /// The SHA-256 of a sample. MalQuery identifies samples by their SHA-256.
    ///
    /// ```
    /// use malquery_proto::types::Sha256;
    ///
    /// let sha256: Sha256 = "9F86D081884C7D659A2FEAA0C55AD015A3BF4F1B2B0B822CD15D6C15B0F00A08".parse()?;
    /// assert_eq!(sha256.to_string(), "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08");
    /// assert_eq!(Sha256::try_from(sha256.as_bytes().as_slice())?, sha256);
    /// assert!("9f86".parse::<Sha256>().is_err());
    /// # Ok::<(), malquery_proto::types::ParseError>(())
    /// ```
    Sha256, 32, "a SHA-256"
);
hash!(
    /// The SHA-1 of a sample. MalQuery returns it, but no operation takes it as an argument.
    Sha1, 20, "a SHA-1"
);
hash!(
    /// The MD5 of a sample. MalQuery returns it, but no operation takes it as an argument.
    Md5, 16, "an MD5"
);

/// Parses `2 * N` hex digits. `DIGITS` must be `2 * N`.
///
/// A large reply has millions of digits. The lengths are constants, and the first loop has no early
/// exit and no lookup table, so that the compiler can vectorize it.
fn read_hex<const N: usize, const DIGITS: usize>(text: &str) -> Option<[u8; N]> {
    let text: &[u8; DIGITS] = text.as_bytes().try_into().ok()?;
    let mut digits = [0; DIGITS];
    let mut invalid = 0;
    for i in 0..DIGITS {
        let number = text[i].wrapping_sub(b'0');
        let letter = (text[i] | 0x20).wrapping_sub(b'a');
        invalid |= u8::from(number > 9) & u8::from(letter > 5);
        digits[i] = if number > 9 {
            letter.wrapping_add(10)
        } else {
            number
        };
    }
    let mut bytes = [0; N];
    for i in 0..N {
        bytes[i] = digits[2 * i] << 4 | digits[2 * i + 1];
    }
    (invalid == 0).then_some(bytes)
}

/// Returns the error for text that does not consist of `digits` hex digits.
fn refusal(text: &str, digits: usize, what: &'static str) -> ParseError {
    match text.char_indices().find(|(_, c)| !c.is_ascii_hexdigit()) {
        Some((position, _)) => ParseError::at(what, text, position, "is not a hex digit"),
        None => {
            let other = match text.len() {
                32 => " (the length of an MD5)",
                40 => " (the length of a SHA-1)",
                64 => " (the length of a SHA-256)",
                _ => "",
            };
            ParseError::new(
                what,
                format!("expected {digits} hex digits, found {}{other}", text.len()),
            )
        }
    }
}

fn write_hex<'a>(bytes: &[u8], text: &'a mut [u8]) -> &'a str {
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
        pair[1] = b"0123456789abcdef"[usize::from(byte & 15)];
    }
    std::str::from_utf8(text).unwrap_or_default()
}

#[cfg(test)]
mod tests;
