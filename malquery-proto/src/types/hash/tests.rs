use proptest::prelude::*;

use super::*;

#[test]
fn what_is_refused_is_named_with_its_place() {
    let message = |text: &str| text.parse::<Md5>().unwrap_err().to_string();
    assert_eq!(message(""), "not an MD5: expected 32 hex digits, found 0");
    assert_eq!(
        message("0123"),
        "not an MD5: expected 32 hex digits, found 4"
    );
    assert_eq!(
        message("g123456789abcdef0123456789abcdef"),
        "not an MD5: 'g' at position 0 is not a hex digit"
    );
    assert_eq!(
        message("0123456789abcdef0123456789abcde\n"),
        "not an MD5: '\\n' at position 31 is not a hex digit"
    );
    // The text has 32 bytes, but two of them are one character.
    assert_eq!(
        message("0123456789abcdef0123456789abcdé"),
        "not an MD5: 'é' at position 30 is not a hex digit"
    );
}

#[test]
fn another_kind_of_hash_is_named() {
    let digits = |count| "a".repeat(count);
    let refused = |error: ParseError| error.to_string();
    assert_eq!(
        refused(digits(32).parse::<Sha256>().unwrap_err()),
        "not a SHA-256: expected 64 hex digits, found 32 (the length of an MD5)"
    );
    assert_eq!(
        refused(digits(40).parse::<Sha256>().unwrap_err()),
        "not a SHA-256: expected 64 hex digits, found 40 (the length of a SHA-1)"
    );
    assert_eq!(
        refused(digits(64).parse::<Md5>().unwrap_err()),
        "not an MD5: expected 32 hex digits, found 64 (the length of a SHA-256)"
    );
}

#[test]
fn bytes_and_hashes_convert_and_look_up() {
    let hash = Sha256::from([7; 32]);
    assert_eq!(<[u8; 32]>::from(hash), [7; 32]);
    assert_eq!(hash.as_ref(), [7; 32].as_slice());
    assert!(std::collections::HashSet::from([hash]).contains(&[7; 32]));
    assert!(std::collections::BTreeSet::from([hash]).contains(&[7; 32]));
    assert_eq!(Sha256::try_from(hash.to_string()).unwrap(), hash);
    assert_eq!(
        Sha256::try_from([7; 31].as_slice())
            .unwrap_err()
            .to_string(),
        "not a SHA-256: expected 32 bytes, found 31"
    );
}

proptest! {
    #[test]
    fn bytes_survive_text_of_any_case(bytes: [u8; 32]) {
        let hash = Sha256::from_bytes(bytes);
        let text = hash.to_string();
        prop_assert_eq!(&text, &bytes.iter().map(|b| format!("{b:02x}")).collect::<String>());
        prop_assert_eq!(text.parse::<Sha256>().unwrap(), hash);
        prop_assert_eq!(text.to_uppercase().parse::<Sha256>().unwrap(), hash);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[0-9a-fA-Fx ]{64}|[0-9a-f]{60,68}|.{0,70}") {
        let is_hash = text.len() == 64 && text.chars().all(|c| c.is_ascii_hexdigit());
        prop_assert_eq!(text.parse::<Sha256>().is_ok(), is_hash);
    }
}
