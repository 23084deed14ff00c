//! What stands in a cassette for the ids of the service.
//!
//! An id that the service made up gets a number, which is easy to read and the same in the next recording. An id
//! that the program brought along gets a hash, so that the program that brings it again is recognised.

use sha2::{Digest, Sha256};

/// Ids with fewer letters and digits stay: they tell nothing, and two of them could get the same pseudonym.
const MIN_ID: usize = 8;

/// No recording has as many ids.
const MAX_NUMBER: u64 = 1_000_000;

pub(crate) fn is_id(value: &str) -> bool {
    value.chars().filter(char::is_ascii_alphanumeric).count() >= MIN_ID
}

/// The shape of the id with zeros, and this number at its end. A shape that has no room for all of it becomes longer, so
/// that there are enough pseudonyms.
pub(crate) fn numbered(value: &str, number: u64) -> String {
    let uuid = is_uuid(value);
    let mut digits = number.to_string().into_bytes();
    let mut out: Vec<char> = Vec::with_capacity(value.len());
    let shape: Vec<char> = value.chars().collect();
    for (index, c) in shape.iter().enumerate().rev() {
        out.push(match c {
            c if !c.is_alphanumeric() => *c,
            _ => match (digits.pop(), uuid, index) {
                (Some(digit), ..) => char::from(digit),
                // As in a random UUID.
                (None, true, 14) => '4',
                (None, true, 19) => '8',
                _ => '0',
            },
        });
    }
    out.extend(digits.into_iter().rev().map(char::from));
    out.into_iter().rev().collect()
}

/// Whether it is what [`numbered`] gives.
pub(crate) fn is_numbered(value: &str) -> bool {
    let last = value
        .rsplit(|c: char| !c.is_ascii_digit())
        .next()
        .unwrap_or_default();
    // A real one may be all digits, and has no zeros before them.
    let zero = value
        .trim_start_matches(|c: char| !c.is_alphanumeric())
        .starts_with('0');
    zero && last
        .parse()
        .is_ok_and(|number| number < MAX_NUMBER && numbered(value, number) == value)
}

/// The shape of the id, with letters and digits that depend on all of it.
pub(crate) fn hashed(value: &str) -> String {
    let hex = value
        .chars()
        .all(|c| !c.is_alphanumeric() || matches!(c, '0'..='9' | 'a'..='f'));
    let mut hash = Sha256::digest(value.as_bytes());
    let mut next = 0;
    let mut byte = || {
        if next == hash.len() {
            hash = Sha256::digest(hash);
            next = 0;
        }
        next += 1;
        hash[next - 1]
    };
    let letter = |first: u8, count: u8, byte: u8| char::from(first + byte % count);
    let replace = |c: char| match c {
        c if hex && c.is_alphanumeric() => {
            char::from_digit(u32::from(byte() % 16), 16).unwrap_or('0')
        }
        c if c.is_ascii_digit() => letter(b'0', 10, byte()),
        c if c.is_ascii_uppercase() => letter(b'A', 26, byte()),
        c if c.is_alphanumeric() => letter(b'a', 26, byte()),
        c => c,
    };
    value.chars().map(replace).collect()
}

fn is_uuid(value: &str) -> bool {
    value.len() == 36
        && value.char_indices().all(|(index, c)| match index {
            8 | 13 | 18 | 23 => c == '-',
            _ => c.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_shape_is_kept() {
        let id = "11111111-2222-6ea1-5f4f-00000000000c";
        assert_eq!(numbered(id, 12), "00000000-0000-4000-8000-000000000012");
        assert_eq!(numbered("A1b2_C3d4e5", 7), "0000_000007");
        assert_eq!(hashed("Job-7"), hashed("Job-7"));
        assert!(is_numbered(&numbered(id, 12)) && !is_numbered(id) && !is_numbered(""));
        assert_eq!(
            [numbered("a", 9), numbered("a", 10), numbered("a-b", 123)],
            ["9", "10", "12-3"]
        );
        assert!(is_uuid(&hashed(id)) && hashed(id) != id);
    }

    #[test]
    fn a_hash_is_the_same_in_every_version() {
        // Cassettes hold them: to change one is to break what was recorded.
        for (id, hash) in [
            (
                "3c9d5b1e-4a2f-6ea1-5f4f-0123456789ab",
                "54f90961-2c40-b8b0-3669-398943517b12",
            ),
            ("Job_2026-ABCxyz-0189", "Zhj_2688-DVOnhe-6668"),
            (
                "0123456789012345678901234567890123456789",
                "b2c4de98197fc7811974468b2b5e189030e8ac4d",
            ),
        ] {
            assert_eq!(hashed(id), hash, "{id}");
        }
    }

    #[test]
    fn eight_letters_and_digits_make_an_id() {
        assert!(is_id("abcd-1234") && !is_id("abcd-123-") && !is_id(""));
        assert!(
            !is_uuid("3c9d5b1e-4a2f-6ea1-5f4f-0123456789a")
                && !is_uuid("3c9d5b1ee4a2f-6ea1-5f4f-0123456789ab")
        );
        assert!(!is_uuid("3c9d5b1e-4a2f-6ea1-5f4f-0123456789ag"));
    }

    proptest! {
        #[test]
        fn any_text_has_a_pseudonym(text in any::<String>(), number in any::<u64>()) {
            prop_assert_eq!(hashed(&text).chars().count(), text.chars().count());
            prop_assert!(numbered(&text, number).chars().count() >= text.chars().count());
            prop_assert!(numbered(&text, number) != numbered(&text, number ^ 1));
            let _ = is_numbered(&text);
        }
    }
}
