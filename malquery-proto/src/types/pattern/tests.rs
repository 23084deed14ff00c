use proptest::prelude::*;

use super::*;

#[test]
fn types_are_read_exactly_and_padded() {
    let stored = r#"{"type": "ascii:x", "value": "y"}"#;
    assert!(serde_json::from_str::<Pattern>(stored).is_err());
    let shown = format!(
        "[{:>8}] [{:.3}]",
        Pattern::ascii("x").unwrap(),
        Pattern::wide("y").unwrap()
    );
    assert_eq!(shown, "[ ascii:x] [wid]");
    assert_eq!(Pattern::wide("aé").unwrap().bytes(), [b'a', 0, 0xe9, 0]);
    assert_eq!(Pattern::ascii("ab").unwrap().bytes(), b"ab");
}

#[test]
fn refusals_name_the_character_and_its_place() {
    let refused = |text: &str| {
        let error = text.parse::<Pattern>().unwrap_err();
        (error.to_string(), error.position())
    };
    for (text, message, position) in [
        ("hex:", "hex pattern: it is empty", None),
        ("hex:{ }", "hex pattern: it is empty", None),
        ("ascii:", "ascii pattern: it is empty", None),
        ("wide:", "wide pattern: it is empty", None),
        ("utf8:", "ascii pattern: it is empty", None),
        ("utf16:", "wide pattern: it is empty", None),
        (
            "hex:123",
            "hex pattern: '3' at position 2 is only half a byte; each byte needs two hex digits",
            Some(2),
        ),
        (
            "hex:1 23",
            "hex pattern: '1' at position 0 is only half a byte; each byte needs two hex digits",
            Some(0),
        ),
        (
            "hex:{123}",
            "hex pattern: '3' at position 3 is only half a byte; each byte needs two hex digits",
            Some(3),
        ),
        (
            "hex:0x1",
            "hex pattern: '1' at position 2 is only half a byte; each byte needs two hex digits",
            Some(2),
        ),
        (
            "hex:12x4",
            "hex pattern: 'x' at position 2 is not a hex digit",
            Some(2),
        ),
        (
            "hex:0g12",
            "hex pattern: '0' at position 0 is only half a byte; each byte needs two hex digits",
            Some(0),
        ),
        (
            "hex:g",
            "hex pattern: 'g' at position 0 is not a hex digit",
            Some(0),
        ),
        (
            "hex:12{34}",
            "hex pattern: '{' at position 2 is not a hex digit",
            Some(2),
        ),
        (
            "hex:{12",
            "hex pattern: '{' at position 0 is not a hex digit",
            Some(0),
        ),
        (
            r"hex:\12",
            r"hex pattern: '\\' at position 0 is not a hex digit",
            Some(0),
        ),
        (
            "hex:0x",
            "hex pattern: 'x' at position 1 is not followed by a hex digit",
            Some(1),
        ),
        (
            "hex:{0x}",
            "hex pattern: 'x' at position 2 is not followed by a hex digit",
            Some(2),
        ),
        (
            "hex:??",
            "hex pattern: '?' at position 0 is a wildcard; wildcards need a YARA rule",
            Some(0),
        ),
        (
            "hex:8?",
            "hex pattern: '?' at position 1 is a wildcard; wildcards need a YARA rule",
            Some(1),
        ),
        (
            "hex:89 [4-6] 48",
            "hex pattern: '[' at position 3 is not a hex digit; jumps, alternatives and negations need a YARA rule",
            Some(3),
        ),
        (
            "ascii:Müll",
            "ascii pattern: 'ü' at position 1 is not ASCII; use a utf8 or hex pattern",
            Some(1),
        ),
    ] {
        let article = if message.starts_with('a') { "an" } else { "a" };
        assert_eq!(
            refused(text),
            (format!("not {article} {message}"), position),
            "{text}"
        );
    }
    assert_eq!(
        refused("text:x").0,
        "not a pattern: \"text\" is not a pattern type; use hex, ascii, wide, utf8 or utf16"
    );
    assert_eq!(
        refused("x").0,
        "not a pattern: expected TYPE:VALUE, such as hex:8948 or ascii:text"
    );
}

const PREFIXES: [&str; 4] = ["", "0x", "0X", r"\x"];
const SEPARATORS: [&str; 8] = ["", " ", ", ", ",", ":", "\n\t", "  ", "\u{a0}"];

proptest! {
    #[test]
    fn bytes_in_any_style_are_one_pattern(
        bytes in prop::collection::vec(any::<u8>(), 1..40),
        prefix in prop::sample::select(PREFIXES.to_vec()),
        separator in prop::sample::select(SEPARATORS.to_vec()),
        braces: bool,
        capital: bool,
    ) {
        let pattern = Pattern::hex_bytes(&bytes).unwrap();
        prop_assert_eq!(pattern.value().len(), 2 * bytes.len());
        prop_assert_eq!(pattern.bytes(), bytes.clone());
        prop_assert_eq!(&pattern.to_string().parse::<Pattern>().unwrap(), &pattern);
        let byte = |byte| if capital { format!("{prefix}{byte:02X}") } else { format!("{prefix}{byte:02x}") };
        let mut text = bytes.iter().map(byte).collect::<Vec<_>>().join(separator);
        if braces {
            text = format!(" {{{separator}{text}{separator}}}\n");
        }
        prop_assert_eq!(Pattern::hex(text).unwrap(), pattern);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[0-9a-fx\\\\{} ,:?]{0,12}|.{0,40}") {
        if let Ok(pattern) = Pattern::hex(&text) {
            let digits = text.replace("0x", "").replace("0X", "").to_lowercase();
            let digits: String = digits.chars().filter(char::is_ascii_hexdigit).collect();
            prop_assert_eq!(pattern.value(), digits);
        }
        prop_assert_eq!(Pattern::ascii(text.as_str()).is_ok(), !text.is_empty() && text.is_ascii());
        prop_assert_eq!(Pattern::wide(text.as_str()).is_ok(), !text.is_empty());
        for pattern in [Pattern::utf8(text.as_str()), Pattern::utf16(text.as_str())].into_iter().flatten() {
            prop_assert_eq!(&pattern.to_string().parse::<Pattern>().unwrap(), &pattern);
        }
        if !text.is_empty() {
            prop_assert_eq!(Pattern::utf8(text.as_str()).unwrap().bytes(), text.as_bytes());
            let wide = Pattern::wide(text.as_str()).unwrap().bytes();
            prop_assert_eq!(Pattern::utf16(text.as_str()).unwrap().bytes(), wide);
        }
    }
}
