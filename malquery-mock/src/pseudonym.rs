//! What stands in a cassette for the ids of the service.
//!
//! An id that the service made up gets a number, which is easy to read and the same in the next
//! recording. An id that the program brought along gets a hash, so that the program that brings it
//! again is recognised.

use sha2::{Digest, Sha256};

/// Shorter ids say nothing, and two of them could get the same pseudonym.
const MIN_ID: usize = 8;

/// Whether it has the letters and digits of an id.
pub(crate) fn is_id(value: &str) -> bool {
    value.chars().filter(char::is_ascii_alphanumeric).count() >= MIN_ID
}

/// The shape of the id with zeros, and this number at its end. A shape without room for all of the
/// number becomes longer.
pub(crate) fn numbered(value: &str, number: u64) -> String {
    let is_uuid = is_uuid(value);
    let mut digits = number.to_string().into_bytes();
    let mut out = Vec::with_capacity(value.len());
    for (index, c) in value
        .chars()
        .collect::<Vec<_>>()
        .into_iter()
        .enumerate()
        .rev()
    {
        out.push(match c {
            c if !c.is_alphanumeric() => c,
            _ => match (digits.pop(), is_uuid, index) {
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

/// The shape of the id, with letters and digits that depend on all of it. It is the same in every
/// version: cassettes hold it.
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
