//! Checks the syntax of regular expressions. YARA is stricter about it than boreal.

use std::ops::Range;

/// The kind of the element before a position in a regular expression.
#[derive(Clone, Copy, PartialEq)]
enum Before {
    Nothing,
    /// An element that can be repeated.
    Single,
    /// A repetition, or `^`, `$`, `\b` or `\B`, which cannot be repeated.
    Other,
}

const MAX_REPEAT: u32 = 32_767;

type Fault = (Range<usize>, String);

/// Checks the text between the slashes. `is_string` is false for an expression in a condition.
pub(super) fn check(pattern: &str, is_string: bool) -> Result<(), Fault> {
    let bytes = pattern.as_bytes();
    let fault = |at: usize, why: &str| Err((at..at + 1, why.to_owned()));
    // For the whole expression and each open group, the position and whether it has any content.
    let mut groups = vec![(0, false)];
    let mut before = Before::Nothing;
    let (mut greedy, mut lazy) = (None, None);
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let start = at;
        at += 1;
        let repetition = match byte {
            b'*' | b'+' | b'?' => Some(1),
            b'{' => repeat(pattern, start)?,
            _ => None,
        };
        if let Some(length) = repetition {
            at = start + length;
            if before != Before::Single {
                return fault(start, "there is nothing to repeat before this character");
            }
            before = Before::Other;
            match bytes.get(at) {
                Some(b'?') => {
                    at += 1;
                    lazy.get_or_insert(start);
                }
                _ => drop(greedy.get_or_insert(start)),
            }
            continue;
        }
        before = match byte {
            b'(' => {
                groups.push((start, false));
                before = Before::Nothing;
                continue;
            }
            b'|' | b')' => {
                if !groups.last().is_some_and(|(_, is_filled)| *is_filled) {
                    return fault(start, "an expression is missing before this character");
                }
                if byte == b'|' {
                    before = Before::Nothing;
                    continue;
                }
                groups.pop();
                if groups.is_empty() {
                    return fault(start, "this `)` has no matching `(`");
                }
                Before::Single
            }
            b'^' | b'$' => Before::Other,
            b'[' => {
                at = class(pattern, start)?;
                Before::Single
            }
            b'\\' => match bytes.get(at) {
                Some(b'b' | b'B') => {
                    at += 1;
                    Before::Other
                }
                Some(b'0'..=b'9') => return fault(start, "backreferences are not allowed"),
                Some(b'x') => {
                    at = hex(pattern, start)?;
                    Before::Single
                }
                _ => {
                    at += 1;
                    Before::Single
                }
            },
            _ => Before::Single,
        };
        if let Some((_, is_filled)) = groups.last_mut() {
            *is_filled = true;
        }
    }
    if groups.len() > 1 {
        return fault(groups[groups.len() - 1].0, "this group has no closing `)`");
    }
    match (greedy, lazy) {
        (Some(greedy), Some(lazy)) if is_string => fault(
            greedy.max(lazy),
            "a string cannot mix greedy (`*`) and lazy (`*?`) repetitions",
        ),
        _ => Ok(()),
    }
}

/// Returns the length of a repetition such as `{3}` or `{2,5}`, or `None` if the brace is literal.
fn repeat(pattern: &str, start: usize) -> Result<Option<usize>, Fault> {
    let Some(end) = pattern[start..].find('}') else {
        return Ok(None);
    };
    let span = start..start + end + 1;
    let inner = &pattern[start + 1..start + end];
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let number = |text: &str| text.parse().unwrap_or(u32::MAX);
    let (low, high) = match inner.split_once(',') {
        None if is_number(inner) && !inner.is_empty() => (number(inner), number(inner)),
        Some((low, high)) => {
            let (low, high) = (low.trim_end_matches(' '), high.trim_start_matches(' '));
            if !is_number(low) || !is_number(high) {
                return Ok(None);
            }
            let low = if low.is_empty() { 0 } else { number(low) };
            let high = if high.is_empty() {
                MAX_REPEAT
            } else {
                number(high)
            };
            (low, high)
        }
        None => return Ok(None),
    };
    if low.max(high) > MAX_REPEAT {
        let why = format!("the maximum repeat count is {MAX_REPEAT}");
        return Err((span, why));
    }
    if low > high {
        return Err((
            span,
            "the first repeat count is larger than the second".to_owned(),
        ));
    }
    Ok(Some(end + 1))
}

/// Returns the position after `\xHH`.
fn hex(pattern: &str, start: usize) -> Result<usize, Fault> {
    let digits = pattern.as_bytes().get(start + 2..start + 4);
    match digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
        true => Ok(start + 4),
        false => Err((
            start..start + 1,
            "`\\x` must be followed by two hex digits".to_owned(),
        )),
    }
}

/// Returns the position after a character class.
fn class(pattern: &str, start: usize) -> Result<usize, Fault> {
    let bytes = pattern.as_bytes();
    let mut at = start + 1;
    at += usize::from(bytes.get(at) == Some(&b'^'));
    at += usize::from(bytes.get(at) == Some(&b']'));
    loop {
        let first = at;
        let low = match bytes.get(at) {
            None => {
                let why = "this character class has no closing `]`";
                return Err((start..start + 1, why.to_owned()));
            }
            Some(b']') => return Ok(at + 1),
            Some(_) => member(pattern, &mut at)?,
        };
        let end = bytes.get(at + 1).filter(|end| **end != b']');
        if bytes.get(at) != Some(&b'-') || end.is_none() {
            continue;
        }
        at += 1;
        let high = member(pattern, &mut at)?;
        if low > high {
            let why = "the start of the range is greater than its end";
            return Err((first..at, why.to_owned()));
        }
    }
}

/// Parses one byte, possibly escaped, of a character class. Like YARA, this treats `\w` in a range
/// as `w`.
fn member(pattern: &str, at: &mut usize) -> Result<u8, Fault> {
    let bytes = pattern.as_bytes();
    let byte = bytes[*at];
    let escaped = bytes.get(*at + 1).copied();
    match (byte, escaped) {
        (b'\\', Some(b'x')) => {
            let end = hex(pattern, *at)?;
            let value = u8::from_str_radix(&pattern[*at + 2..end], 16).unwrap_or_default();
            *at = end;
            Ok(value)
        }
        (b'\\', Some(escaped)) => {
            *at += 2;
            Ok(match escaped {
                b'n' => b'\n',
                b't' => b'\t',
                b'r' => b'\r',
                b'f' => 0x0c,
                b'a' => 0x07,
                other => other,
            })
        }
        _ => {
            *at += 1;
            match byte {
                b' '..=b'~' => Ok(byte),
                _ => {
                    let why = "a character class can contain only printable ASCII characters; write other bytes as `\\xHH`";
                    Err((*at - 1..*at, why.to_owned()))
                }
            }
        }
    }
}
