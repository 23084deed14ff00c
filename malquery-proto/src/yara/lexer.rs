//! Splits YARA source into tokens, like YARA's lexer.

use std::ops::Range;

use super::error::RuleError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An identifier or a reserved word.
    Word,
    /// `$a`, `$a*`, `#a`, `@a`, `!a`.
    StringName,
    Number,
    /// `"..."`
    Text,
    /// `/.../is`
    Regex,
    /// `{ 4D 5A }`
    Hex,
    /// `include "..."`
    Include,
    /// An operator, a bracket or other punctuation.
    Sign,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) span: Range<usize>,
}

impl Token {
    /// Returns whether this is the given word or symbol.
    pub(super) fn is(&self, text: &str, written: &str) -> bool {
        matches!(self.kind, Kind::Word | Kind::Sign) && &text[self.span.clone()] == written
    }
}

/// The words that YARA's lexer reserves. `include` is not one of them.
pub(super) const RESERVED: &str = "\
    all and any ascii at base64 base64wide condition contains defined endswith entrypoint \
    false filesize for fullword global icontains iendswith iequals import in int16 int16be \
    int32 int32be int8 int8be istartswith matches meta nocase none not of or private rule \
    startswith strings them true uint16 uint16be uint32 uint32be uint8 uint8be wide xor";

/// The maximum length of an identifier in bytes.
const MAX_NAME: usize = 128;

/// The maximum length of a string or regular expression in bytes. An escape sequence in a string,
/// or `\/` in a regular expression, counts as one byte.
const MAX_TEXT: usize = 8190;

/// The two-character symbols. All other symbols consist of one character.
const PAIRS: [&str; 7] = ["..", "<=", ">=", "==", "!=", "<<", ">>"];

pub(super) fn tokens(text: &str) -> Result<Vec<Token>, RuleError> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(found) = next(text, at)? {
        at = found.span.end;
        tokens.push(found);
    }
    Ok(tokens)
}

fn next(text: &str, from: usize) -> Result<Option<Token>, RuleError> {
    let start = skip_blank(text, from);
    let bytes = text.as_bytes();
    let rest = &text[start..];
    let Some(&first) = bytes.get(start) else {
        return Ok(None);
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let (kind, length) = match first {
        b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
            let length = length_while(rest, is_name);
            if length > MAX_NAME {
                return Err(RuleError::invalid(
                    text,
                    start..start + length,
                    format!(
                        "an identifier can have at most {MAX_NAME} characters, but this one has {length}"
                    ),
                ));
            }
            match include(&rest[length..]).filter(|_| &rest[..length] == "include") {
                Some(more) => (Kind::Include, length + more),
                None => (Kind::Word, length),
            }
        }
        b'!' if rest.starts_with("!=") => (Kind::Sign, 2),
        b'$' | b'#' | b'@' | b'!' => {
            let length = 1 + length_while(&rest[1..], is_name);
            let star = first == b'$' && rest[length..].starts_with('*');
            (Kind::StringName, length + usize::from(star))
        }
        b'0'..=b'9' => (Kind::Number, number(rest)),
        b'"' => (Kind::Text, quoted(text, start)?),
        b'/' => (Kind::Regex, regex(text, start)?),
        b'{' => match hex(rest) {
            Some(length) => (Kind::Hex, length),
            None => (Kind::Sign, 1),
        },
        _ if PAIRS.iter().any(|pair| rest.starts_with(pair)) => (Kind::Sign, 2),
        b'!'..=b'~' => (Kind::Sign, 1),
        _ => {
            let c = rest.chars().next().unwrap_or_default();
            return Err(RuleError::invalid(
                text,
                start..start + c.len_utf8(),
                format!("{c:?} is allowed only in strings, regular expressions and comments"),
            ));
        }
    };
    let span = start..start + length;
    Ok(Some(Token { kind, span }))
}

fn length_while(text: &str, accept: impl Fn(char) -> bool) -> usize {
    text.find(|c| !accept(c)).unwrap_or(text.len())
}

/// Skips whitespace and comments. Like YARA, this accepts an unterminated comment.
fn skip_blank(text: &str, mut at: usize) -> usize {
    loop {
        let rest = &text[at..];
        at += if rest.starts_with([' ', '\t', '\r', '\n']) {
            1
        } else if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(comment) = rest.strip_prefix("/*") {
            comment.find("*/").map_or(rest.len(), |end| end + 4)
        } else {
            return at;
        };
    }
}

fn number(rest: &str) -> usize {
    let digits = |text: &str| length_while(text, |c| c.is_ascii_digit());
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(number) = rest.strip_prefix(prefix) {
            let length = length_while(number, |c| c.is_digit(radix));
            return if length > 0 { 2 + length } else { 1 };
        }
    }
    let whole = digits(rest);
    let after = &rest[whole..];
    if after.starts_with("KB") || after.starts_with("MB") {
        return whole + 2;
    }
    match after.strip_prefix('.').map(digits) {
        Some(fraction) if fraction > 0 => whole + 1 + fraction,
        _ => whole,
    }
}

fn quoted(text: &str, start: usize) -> Result<usize, RuleError> {
    let bytes = text.as_bytes();
    let mut at = start + 1;
    for length in 0.. {
        match bytes.get(at) {
            Some(b'"') => {
                fits(text, start..at + 1, length)?;
                break;
            }
            Some(b'\\') => {
                let hex = |offset: usize| bytes.get(at + offset).is_some_and(u8::is_ascii_hexdigit);
                at += match bytes.get(at + 1) {
                    Some(b't' | b'r' | b'n' | b'"' | b'\\') => 2,
                    Some(b'x') if hex(2) && hex(3) => 4,
                    _ => {
                        let why = r#"unknown escape sequence; use \t, \r, \n, \", \\ or \xHH"#;
                        return Err(RuleError::invalid(text, at..at + 1, why));
                    }
                };
            }
            Some(b'\n') | None => {
                let why = "this string has no closing quote on the same line";
                return Err(RuleError::invalid(text, start..at, why));
            }
            Some(_) => at += 1,
        }
    }
    Ok(at + 1 - start)
}

fn fits(text: &str, span: Range<usize>, length: usize) -> Result<(), RuleError> {
    match length > MAX_TEXT {
        true => {
            let why = format!(
                "this string or regular expression is {length} bytes long; YARA allows at most {MAX_TEXT}"
            );
            Err(RuleError::invalid(text, span, why))
        }
        false => Ok(()),
    }
}

fn regex(text: &str, start: usize) -> Result<usize, RuleError> {
    let bytes = text.as_bytes();
    let mut at = start + 1;
    loop {
        match (bytes.get(at), bytes.get(at + 1)) {
            (Some(b'/'), _) => break,
            (Some(b'\\'), Some(b'\n')) | (Some(b'\n') | None, _) => {
                let why = "this regular expression has no closing slash on the same line";
                return Err(RuleError::invalid(text, start..at, why));
            }
            (Some(b'\\'), Some(_)) => at += 2,
            (Some(_), _) => at += 1,
        }
    }
    let slashes = text[start + 1..at].matches("\\/").count();
    fits(text, start..at, at - start - 1 - slashes)?;
    at += 1;
    at += usize::from(bytes.get(at) == Some(&b'i'));
    at += usize::from(bytes.get(at) == Some(&b's'));
    Ok(at - start)
}

/// Returns the length of the hex string at the start of `rest`, if any.
fn hex(rest: &str) -> Option<usize> {
    let mut at = 1;
    loop {
        let here = &rest[at..];
        at += match here.as_bytes().first()? {
            b'}' => return Some(at + 1),
            b'/' if here.starts_with("//") => here.find('\n')?,
            b'/' if here.starts_with("/*") => here[2..].find("*/")? + 4,
            b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F' => 1,
            b' ' | b'-' | b'|' | b'~' | b'?' | b'[' | b']' | b'(' | b')' => 1,
            b'\n' | b'\r' | b'\t' => 1,
            _ => return None,
        };
    }
}

/// Returns the length of the whitespace and the quoted name at the start of `rest`, if any.
fn include(rest: &str) -> Option<usize> {
    let blank = length_while(rest, |c| c == ' ' || c == '\t');
    let name = rest[blank..].strip_prefix('"').filter(|_| blank > 0)?;
    let end = name.find('"').filter(|&end| end > 0)?;
    Some(blank + end + 2)
}
