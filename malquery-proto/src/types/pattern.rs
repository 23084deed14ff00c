use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{ParseError, PatternType};

/// Something to search for in the bytes of a sample. Several patterns of a search must all occur.
///
/// As text, on a command line, it is written `hex:8948208b48`, `ascii:CreateRemoteThread` or `wide:powershell`.
///
/// ```
/// use malquery_proto::types::Pattern;
///
/// assert_eq!(Pattern::hex("8948208b48")?, Pattern::hex_bytes(b"\x89\x48\x20\x8b\x48")?);
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
    /// Bytes, written as pairs of hex digits without spaces. Two patterns of the same bytes are equal, so their digits are
    /// kept as small letters.
    ///
    /// # Errors
    /// Refuses an empty pattern, anything but hex digits, and an odd number of them.
    pub fn hex(digits: impl Into<String>) -> Result<Self, ParseError> {
        const WHAT: &str = "a hex pattern";
        let mut digits = digits.into();
        if let Some((position, c)) = digits.char_indices().find(|(_, c)| !c.is_ascii_hexdigit()) {
            let why = match c {
                'x' | 'X' if position == 1 => "is not a hex digit; leave out 0x",
                c if c.is_whitespace() => "is not a hex digit; leave out spaces",
                _ => "is not a hex digit",
            };
            return Err(ParseError::at(WHAT, &digits, position, why));
        }
        if digits.len() % 2 == 1 {
            return Err(ParseError::new(
                WHAT,
                format!(
                    "a byte is two hex digits, and the one at position {} is alone",
                    digits.len() - 1
                ),
            )
            .with_position(digits.len() - 1));
        }
        digits.make_ascii_lowercase();
        Self::new(WHAT, PatternType::Hex, digits)
    }

    /// These bytes, as a hex pattern.
    ///
    /// # Errors
    /// Refuses an empty pattern.
    pub fn hex_bytes(bytes: impl AsRef<[u8]>) -> Result<Self, ParseError> {
        Self::hex(
            bytes
                .as_ref()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>(),
        )
    }

    /// A text of one byte a character.
    ///
    /// # Errors
    /// Refuses an empty pattern and a character that is not ASCII: the bytes it stands for depend on an
    /// encoding, so write those as [`Pattern::hex`].
    pub fn ascii(text: impl Into<String>) -> Result<Self, ParseError> {
        const WHAT: &str = "an ascii pattern";
        let text = text.into();
        match text.char_indices().find(|(_, c)| !c.is_ascii()) {
            Some((position, _)) => Err(ParseError::at(
                WHAT,
                &text,
                position,
                "is not ASCII; give its bytes as a hex pattern",
            )),
            None => Self::new(WHAT, PatternType::Ascii, text),
        }
    }

    /// A text of two bytes a character (UTF-16), as Windows stores it.
    ///
    /// # Errors
    /// Refuses an empty pattern.
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

    fn of_type(kind: &str, value: impl Into<String>) -> Result<Self, ParseError> {
        match kind {
            "hex" => Self::hex(value),
            "ascii" => Self::ascii(value),
            "wide" => Self::wide(value),
            _ => Err(ParseError::new(
                WHAT,
                format!("there is no type {kind:?}; it is one of hex, ascii and wide"),
            )),
        }
    }

    /// How the value is to be understood.
    pub fn pattern_type(&self) -> &PatternType {
        &self.r#type
    }

    /// The hex digits, as small letters, or the text.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// The bytes that a sample has to contain: those of the hex digits, the ASCII text itself, or the wide text
    /// as UTF-16 in little-endian order.
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
            PatternType::Hex => self
                .value
                .as_bytes()
                .chunks(2)
                .map(|pair| {
                    pair.iter()
                        .fold(0, |byte, &digit| byte << 4 | hex_digit(digit))
                })
                .collect(),
            PatternType::Wide => self
                .value
                .encode_utf16()
                .flat_map(u16::to_le_bytes)
                .collect(),
            _ => self.value.clone().into_bytes(),
        }
    }
}

/// The value of a hex digit of either case.
fn hex_digit(digit: u8) -> u8 {
    (digit & 0xf) + if digit.is_ascii_alphabetic() { 9 } else { 0 }
}

/// A pattern as it is stored; reading it checks it again.
#[derive(Deserialize)]
struct Parts {
    r#type: PatternType,
    value: String,
}

impl TryFrom<Parts> for Pattern {
    type Error = ParseError;

    fn try_from(Parts { r#type, value }: Parts) -> Result<Self, ParseError> {
        Self::of_type(r#type.as_str(), value)
    }
}

impl FromStr for Pattern {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (kind, value) = text.split_once(':').ok_or_else(|| {
            ParseError::new(WHAT, "write TYPE:VALUE, where TYPE is hex, ascii or wide")
        })?;
        Self::of_type(kind, value)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}:{}", self.r#type, self.value))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_of_the_same_bytes_are_equal_and_the_type_is_read_by_itself() {
        assert_eq!(
            Pattern::hex("aBC0").unwrap(),
            Pattern::hex_bytes([0xab, 0xc0]).unwrap()
        );
        let stored = r#"{"type": "ascii:x", "value": "y"}"#;
        assert!(serde_json::from_str::<Pattern>(stored).is_err());
        assert_eq!(
            format!(
                "[{:>8}] [{:.3}]",
                Pattern::ascii("x").unwrap(),
                Pattern::wide("y").unwrap()
            ),
            "[ ascii:x] [wid]"
        );
    }

    #[test]
    fn what_is_refused_is_named_with_its_place() {
        let refused = |text: &str| {
            let error = text.parse::<Pattern>().unwrap_err();
            (error.to_string(), error.position())
        };
        let case = |message: &str, position| (message.to_owned(), position);
        assert_eq!(
            refused("hex:"),
            case("not a hex pattern: it is empty", None)
        );
        assert_eq!(
            refused("ascii:"),
            case("not an ascii pattern: it is empty", None)
        );
        assert_eq!(
            refused("wide:"),
            case("not a wide pattern: it is empty", None)
        );
        assert_eq!(
            refused("hex:123"),
            case(
                "not a hex pattern: a byte is two hex digits, and the one at position 2 is alone",
                Some(2)
            )
        );
        assert_eq!(
            refused("hex:0x12"),
            case(
                "not a hex pattern: 'x' at position 1 is not a hex digit; leave out 0x",
                Some(1)
            )
        );
        assert_eq!(
            refused("hex:12 34"),
            case(
                "not a hex pattern: ' ' at position 2 is not a hex digit; leave out spaces",
                Some(2)
            )
        );
        assert_eq!(
            refused("ascii:Müll"),
            case(
                "not an ascii pattern: 'ü' at position 1 is not ASCII; give its bytes as a hex pattern",
                Some(1)
            )
        );
        assert_eq!(
            refused("utf8:x"),
            case(
                "not a pattern: there is no type \"utf8\"; it is one of hex, ascii and wide",
                None
            )
        );
        assert_eq!(
            refused("x"),
            case(
                "not a pattern: write TYPE:VALUE, where TYPE is hex, ascii or wide",
                None
            )
        );
    }

    #[test]
    fn only_what_looks_like_a_prefix_or_a_space_is_taken_for_one() {
        let refused = |text: &str| Pattern::hex(text).unwrap_err().to_string();
        assert_eq!(
            refused("12x4"),
            "not a hex pattern: 'x' at position 2 is not a hex digit"
        );
        assert_eq!(
            refused("0X12"),
            "not a hex pattern: 'X' at position 1 is not a hex digit; leave out 0x"
        );
        assert_eq!(
            refused("0g12"),
            "not a hex pattern: 'g' at position 1 is not a hex digit"
        );
        assert_eq!(Pattern::wide("aé").unwrap().bytes(), [b'a', 0, 0xe9, 0]);
        assert_eq!(Pattern::ascii("ab").unwrap().bytes(), b"ab");
    }

    proptest! {
        #[test]
        fn bytes_and_their_digits_are_one_pattern(bytes in prop::collection::vec(any::<u8>(), 1..64)) {
            let pattern = Pattern::hex_bytes(&bytes).unwrap();
            prop_assert_eq!(pattern.value().len(), 2 * bytes.len());
            prop_assert_eq!(Pattern::hex(pattern.value()).unwrap(), pattern.clone());
            prop_assert_eq!(pattern.bytes(), bytes.clone());
            prop_assert_eq!(Pattern::hex(pattern.value().to_uppercase()).unwrap().bytes(), bytes);
            prop_assert_eq!(pattern.to_string().parse::<Pattern>().unwrap(), pattern);
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            let hex = !text.is_empty() && text.len().is_multiple_of(2) && text.chars().all(|c| c.is_ascii_hexdigit());
            prop_assert_eq!(Pattern::hex(text.as_str()).is_ok(), hex);
            prop_assert_eq!(Pattern::ascii(text.as_str()).is_ok(), !text.is_empty() && text.is_ascii());
            prop_assert_eq!(Pattern::wide(text.as_str()).is_ok(), !text.is_empty());
            let _ = text.parse::<Pattern>();
        }
    }
}
