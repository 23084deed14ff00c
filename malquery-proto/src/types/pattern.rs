use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::text::text_conversions;
use super::{ParseError, PatternType};

/// Bytes or text to search for in samples.
///
/// A pattern can be parsed from a string, such as `hex:8948208b48`, `ascii:CreateRemoteThread`,
/// `wide:powershell`, `utf8:größe` or `utf16:größe`.
///
/// ```
/// use malquery_proto::types::Pattern;
///
/// assert_eq!(Pattern::hex("89 48 20")?, Pattern::hex_bytes(b"\x89\x48\x20")?);
/// assert_eq!("wide:powershell".parse::<Pattern>()?, Pattern::wide("powershell")?);
/// assert!(Pattern::hex("894").is_err());
/// # Ok::<(), malquery_proto::types::ParseError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Parts")]
pub struct Pattern {
    r#type: PatternType,
    value: String,
}

const WHAT: &str = "a pattern";

impl Pattern {
    /// Creates a pattern from hex digits in a common notation, such as `89 48` or `0x89,0x48`.
    ///
    /// Each byte is a pair of hex digits. Whitespace, commas, colons and the prefixes `0x` and `\x`
    /// are ignored outside the pairs, and so are braces around the whole text. The pattern stores
    /// only the digits, in lowercase, so two hex patterns for the same bytes are equal.
    ///
    /// ```
    /// use malquery_proto::types::Pattern;
    ///
    /// for text in ["8948", "89 48", r"\x89\x48", "0x89,0x48", "89:48", "{ 89 48 }", "0x8948"] {
    ///     assert_eq!(Pattern::hex(text)?.value(), "8948");
    /// }
    /// let error = Pattern::hex("8948??8b").unwrap_err();
    /// assert_eq!(error.to_string(), "not a hex pattern: '?' at position 4 is a wildcard; wildcards need a YARA rule");
    /// # Ok::<(), malquery_proto::types::ParseError>(())
    /// ```
    ///
    /// # Errors
    /// Fails if the text has no digits, or if it contains an incomplete byte, a prefix without
    /// digits, or an invalid character. For wildcards, use a YARA rule in a
    /// [`Hunt`](crate::operations::Hunt).
    pub fn hex(text: impl AsRef<str>) -> Result<Self, ParseError> {
        const WHAT: &str = "a hex pattern";
        let text = text.as_ref();
        let refuse = |at, why| Err(ParseError::at(WHAT, text, at, why));
        let bytes = text.as_bytes();
        let mut digits = String::with_capacity(bytes.len());
        let (mut at, mut end) = (0, bytes.len());
        let trimmed = text.trim();
        if let Some(inner) = trimmed
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'))
        {
            at = text.len() - text.trim_start().len() + 1;
            end = at + inner.len();
        }
        while at < end {
            match (bytes[at], bytes.get(at + 1)) {
                // A prefix must be followed by a digit.
                (b'0' | b'\\', Some(b'x' | b'X')) => {
                    at += 2;
                    if !bytes[..end].get(at).is_some_and(u8::is_ascii_hexdigit) {
                        return refuse(at - 1, "is not followed by a hex digit");
                    }
                }
                (b',' | b':', _) => at += 1,
                (b'?', _) => return refuse(at, "is a wildcard; wildcards need a YARA rule"),
                (b'[' | b'(' | b'|' | b'~', _) => {
                    return refuse(
                        at,
                        "is not a hex digit; jumps, alternatives and negations need a YARA rule",
                    );
                }
                (high, low) if high.is_ascii_hexdigit() => match low.filter(|_| at + 1 < end) {
                    Some(low) if low.is_ascii_hexdigit() => {
                        digits.extend(
                            [high, *low].map(|digit| char::from(digit.to_ascii_lowercase())),
                        );
                        at += 2;
                    }
                    Some(b'?') => at += 1,
                    _ => return refuse(at, "is only half a byte; each byte needs two hex digits"),
                },
                _ => match text[at..].chars().next() {
                    Some(space) if space.is_whitespace() => at += space.len_utf8(),
                    _ => return refuse(at, "is not a hex digit"),
                },
            }
        }
        Self::new(WHAT, PatternType::Hex, digits)
    }

    /// Creates a hex pattern from bytes.
    ///
    /// # Errors
    /// Fails if there are no bytes.
    pub fn hex_bytes(bytes: impl AsRef<[u8]>) -> Result<Self, ParseError> {
        let digits = bytes.as_ref().iter().map(|byte| format!("{byte:02x}"));
        Self::new("a hex pattern", PatternType::Hex, digits.collect())
    }

    /// Creates a pattern for text that is encoded in UTF-8. ASCII text becomes an ascii pattern,
    /// and other text becomes a hex pattern.
    ///
    /// ```
    /// use malquery_proto::types::Pattern;
    ///
    /// assert_eq!(Pattern::utf8("size")?, Pattern::ascii("size")?);
    /// assert_eq!(Pattern::utf8("größe")?, Pattern::hex("6772 c3b6 c39f 65")?);
    /// # Ok::<(), malquery_proto::types::ParseError>(())
    /// ```
    ///
    /// # Errors
    /// Fails if the text is empty.
    pub fn utf8(text: impl Into<String>) -> Result<Self, ParseError> {
        let text = text.into();
        if text.is_ascii() {
            Self::ascii(text)
        } else {
            Self::hex_bytes(text)
        }
    }

    /// Creates a pattern for text that is encoded in little-endian UTF-16, as in Windows programs.
    /// ASCII text becomes a wide pattern, and other text becomes a hex pattern.
    ///
    /// ```
    /// use malquery_proto::types::Pattern;
    ///
    /// assert_eq!(Pattern::utf16("size")?, Pattern::wide("size")?);
    /// assert_eq!(Pattern::utf16("größe")?, Pattern::hex("6700 7200 f600 df00 6500")?);
    /// # Ok::<(), malquery_proto::types::ParseError>(())
    /// ```
    ///
    /// # Errors
    /// Fails if the text is empty.
    pub fn utf16(text: impl Into<String>) -> Result<Self, ParseError> {
        let wide = Self::wide(text)?;
        if wide.value.is_ascii() {
            Ok(wide)
        } else {
            Self::hex_bytes(wide.bytes())
        }
    }

    /// Creates a pattern for ASCII text, which has one byte per character.
    ///
    /// # Errors
    /// Fails if the text is empty or has a character that is not ASCII. The bytes of a non-ASCII
    /// character depend on the encoding, so use [`Pattern::utf8`] or [`Pattern::hex`] for other
    /// text.
    pub fn ascii(text: impl Into<String>) -> Result<Self, ParseError> {
        const WHAT: &str = "an ascii pattern";
        let text = text.into();
        match text.char_indices().find(|(_, c)| !c.is_ascii()) {
            Some((position, _)) => Err(ParseError::at(
                WHAT,
                &text,
                position,
                "is not ASCII; use a utf8 or hex pattern",
            )),
            None => Self::new(WHAT, PatternType::Ascii, text),
        }
    }

    /// Creates a pattern for text with two bytes per character, as in Windows programs. The text is
    /// sent unchanged, and the service encodes it. If the text is not ASCII, use
    /// [`Pattern::utf16`], which sends the exact bytes.
    ///
    /// # Errors
    /// Fails if the text is empty.
    pub fn wide(text: impl Into<String>) -> Result<Self, ParseError> {
        Self::new("a wide pattern", PatternType::Wide, text.into())
    }

    fn new(what: &'static str, r#type: PatternType, value: String) -> Result<Self, ParseError> {
        if value.is_empty() {
            Err(ParseError::new(what, "it is empty"))
        } else {
            Ok(Self { r#type, value })
        }
    }

    fn of_type(kind: &str, value: &str) -> Result<Self, ParseError> {
        match kind {
            "hex" => Self::hex(value),
            "ascii" => Self::ascii(value),
            "wide" => Self::wide(value),
            "utf8" => Self::utf8(value),
            "utf16" => Self::utf16(value),
            _ => Err(ParseError::new(
                WHAT,
                format!("{kind:?} is not a pattern type; use hex, ascii, wide, utf8 or utf16"),
            )),
        }
    }

    /// Returns the type of the pattern: hex, ascii or wide.
    pub fn pattern_type(&self) -> &PatternType {
        &self.r#type
    }

    /// Returns the lowercase digits of a hex pattern, or the text of an ascii or wide pattern.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Returns the bytes to search for. Wide text is encoded as little-endian UTF-16.
    ///
    /// ```
    /// use malquery_proto::types::Pattern;
    ///
    /// assert_eq!(Pattern::hex("8948")?.bytes(), b"\x89\x48");
    /// assert_eq!(Pattern::wide("PS")?.bytes(), b"P\0S\0");
    /// # Ok::<(), malquery_proto::types::ParseError>(())
    /// ```
    pub fn bytes(&self) -> Vec<u8> {
        match self.r#type {
            PatternType::Hex => {
                let pair = |pair: &[u8]| pair.iter().fold(0, |byte, &d| byte << 4 | hex_digit(d));
                self.value.as_bytes().chunks(2).map(pair).collect()
            }
            PatternType::Wide => self
                .value
                .encode_utf16()
                .flat_map(u16::to_le_bytes)
                .collect(),
            _ => self.value.clone().into_bytes(),
        }
    }
}

fn hex_digit(digit: u8) -> u8 {
    (digit & 0xf) + if digit.is_ascii_alphabetic() { 9 } else { 0 }
}

/// The serialized form of a pattern, before validation.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parts {
    r#type: PatternType,
    value: String,
}

impl TryFrom<Parts> for Pattern {
    type Error = ParseError;

    fn try_from(Parts { r#type, value }: Parts) -> Result<Self, ParseError> {
        Self::of_type(r#type.as_str(), &value)
    }
}

impl FromStr for Pattern {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (kind, value) = text.split_once(':').ok_or_else(|| {
            ParseError::new(WHAT, "expected TYPE:VALUE, such as hex:8948 or ascii:text")
        })?;
        Self::of_type(kind, value)
    }
}

text_conversions!(Pattern);

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}:{}", self.r#type, self.value))
    }
}

#[cfg(test)]
mod tests;
