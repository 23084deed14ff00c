//! Pseudonyms, which replace real ids in a cassette.
//!
//! An id that first appears in a reply gets a number, which is easy to read and often the same in
//! the next recording. A long id that first appears in a request gets a hash, which a replay can
//! match.

use sha2::{Digest, Sha256};

/// The minimum number of ASCII letters and digits in a hashed id, to make collisions unlikely.
const MIN_ID: usize = 8;

/// Returns whether the value has enough ASCII letters and digits to be hashed.
pub(crate) fn is_id(value: &str) -> bool {
    value.chars().filter(char::is_ascii_alphanumeric).count() >= MIN_ID
}

/// Replaces the letters and digits of an id with zeros, and the last zeros with `number`. In a
/// UUID, a `4` and an `8` keep it valid. The result is longer if the number does not fit.
pub(crate) fn numbered(value: &str, number: u64) -> String {
    let zero = |c: char| if c.is_alphanumeric() { '0' } else { c };
    let mut shape: Vec<char> = match is_uuid(value) {
        true => "00000000-0000-4000-8000-000000000000".chars().collect(),
        false => value.chars().map(zero).collect(),
    };
    let mut digits: Vec<char> = number.to_string().chars().collect();
    let places = shape.iter_mut().rev().filter(|c| c.is_ascii_digit());
    for place in places {
        *place = digits.pop().unwrap_or(*place);
    }
    digits.into_iter().chain(shape).collect()
}

/// Returns an id of the same shape, with letters and digits from a hash of the whole id. The result
/// must not change between versions, because cassettes contain it.
pub(crate) fn hashed(value: &str) -> String {
    let is_hex = |c: char| !c.is_alphanumeric() || matches!(c, '0'..='9' | 'a'..='f');
    let all_hex = value.chars().all(is_hex);
    let mut hash = Sha256::digest(value.as_bytes());
    let mut next = 0;
    let replace = |c: char| {
        let letters: &[u8] = match c {
            c if !c.is_alphanumeric() => return c,
            _ if all_hex => b"0123456789abcdef",
            '0'..='9' => b"0123456789",
            'A'..='Z' => b"ABCDEFGHIJKLMNOPQRSTUVWXYZ",
            _ => b"abcdefghijklmnopqrstuvwxyz",
        };
        if next == hash.len() {
            hash = Sha256::digest(hash);
            next = 0;
        }
        next += 1;
        char::from(letters[usize::from(hash[next - 1]) % letters.len()])
    };
    value.chars().map(replace).collect()
}

fn is_uuid(value: &str) -> bool {
    let fits = |(index, c): (usize, char)| match index {
        8 | 13 | 18 | 23 => c == '-',
        _ => c.is_ascii_hexdigit(),
    };
    value.len() == 36 && value.char_indices().all(fits)
}
