//! JSON that keeps the digits of numbers and the order of keys. `serde_json::Value` would round
//! large numbers and sort the keys.

use std::collections::HashSet;
use std::fmt::{self, Write as _};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The maximum nesting depth of a value.
const MAX_DEPTH: usize = 100;
/// The nesting depth of a JSON body in a cassette. The outermost value of the file has depth 0.
const BODY_DEPTH: usize = 5;
/// The maximum number of bytes in an array or object on one line of a file, including indentation.
const MAX_LINE: usize = 110;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    /// The number as written.
    Number(Box<str>),
    String(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// The layout of a written document.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Style {
    /// Without whitespace.
    Shortest,
    /// On one line, with spaces.
    Line,
    /// For a file: each array or object is on one line if it fits.
    File,
    /// For a transcript: each member or item starts a line, and plain multi-line text is a block.
    Pretty,
}

impl Json {
    /// Parses a document. Fails on duplicate keys.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        build(read::<&RawValue>(text)?.get(), 0)
    }

    /// Parses a body. Its outermost value has depth [`BODY_DEPTH`].
    pub(crate) fn parse_body(text: &str) -> Result<Self, String> {
        build(read::<&RawValue>(text)?.get(), BODY_DEPTH)
    }

    /// Parses a reply body that is an object or an array. Replaces invalid UTF-8 and lone
    /// surrogates. Accepts unescaped control characters in strings, and a byte order mark.
    pub(crate) fn of_reply(body: &[u8]) -> Option<Self> {
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
        if !matches!(body.trim_ascii_start(), [b'{' | b'[', ..]) {
            return None;
        }
        let text = String::from_utf8_lossy(body);
        Self::parse_body(&text)
            .or_else(|_| Self::parse_body(&repair(&text)))
            .ok()
    }

    /// Returns the type of the value, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::String(_) => "a string",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }

    /// Returns whether the two values are equal and neither is an array or object. The numbers `1`
    /// and `1.0` are equal.
    pub(crate) fn same_leaf(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Number(a), Self::Number(b)) => a == b || normal(a) == normal(b),
            (Self::Array(_) | Self::Object(_), _) => false,
            _ => self == other,
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => member(members, key),
            _ => None,
        }
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// Calls `f` for this value and each nested value, with its path, such as
    /// `/resources/*/sha256`. All items of an array share one path.
    pub(crate) fn each<'a>(&'a self, place: &mut String, f: &mut dyn FnMut(&str, &'a Self)) {
        f(place, self);
        match self {
            Self::Array(items) => items
                .iter()
                .for_each(|item| nested(place, "*", |place| item.each(place, f))),
            Self::Object(members) => members
                .iter()
                .for_each(|(key, value)| nested(place, key, |place| value.each(place, f))),
            _ => {}
        }
    }

    /// Formats the value in this style, at this indentation. Does not indent the first line.
    pub(crate) fn text(&self, style: Style, indent: usize) -> String {
        let mut out = String::new();
        self.write(style, indent, &mut out);
        out
    }

    fn write(&self, style: Style, indent: usize, out: &mut String) {
        let (open, close, parts): (_, _, Vec<(Option<&str>, &Self)>) = match self {
            Self::Null => return out.push_str("null"),
            Self::Bool(value) => return out.push_str(if *value { "true" } else { "false" }),
            Self::Number(digits) => return out.push_str(digits),
            Self::String(text)
                if style == Style::Pretty && text.contains('\n') && is_plain(text) =>
            {
                return block(text, indent, out);
            }
            Self::String(text) => return out.push_str(&quote(text)),
            Self::Array(items) => ('[', ']', items.iter().map(|item| (None, item)).collect()),
            Self::Object(members) => {
                let parts = members.iter().map(|(key, value)| (Some(&**key), value));
                ('{', '}', parts.collect())
            }
        };
        if style == Style::File {
            let line = self.text(Style::Line, 0);
            if line.len() <= MAX_LINE.saturating_sub(indent) {
                return out.push_str(&line);
            }
        }
        let is_line = parts.is_empty() || matches!(style, Style::Shortest | Style::Line);
        let gap = |indent: usize| match style {
            _ if !is_line => format!("\n{}", " ".repeat(indent)),
            Style::Shortest => String::new(),
            _ => " ".into(),
        };
        // With `Style::Line`: `{ "a": 1 }`, but `[1, 2]` and `{}`.
        let has_ends = !is_line || open == '{' && !parts.is_empty();
        let colon = if style == Style::Shortest { ":" } else { ": " };
        out.push(open);
        for (index, (key, value)) in parts.iter().enumerate() {
            out.push_str(if index == 0 { "" } else { "," });
            if index > 0 || has_ends {
                out.push_str(&gap(indent + 2));
            }
            if let Some(key) = key {
                let _ = write!(out, "{}{colon}", quote(key));
            }
            value.write(style, indent + 2, out);
        }
        if has_ends {
            out.push_str(&gap(indent));
        }
        out.push(close);
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(Style::Shortest, 0))
    }
}

/// Returns whether the text has no control characters other than line endings and tabs.
pub(crate) fn is_plain(text: &str) -> bool {
    text.chars()
        .all(|c| !c.is_control() || matches!(c, '\n' | '\r' | '\t'))
}

/// Writes text between triple quotes. If the text ends with a newline, the closing quotes are on
/// their own line.
fn block(text: &str, indent: usize, out: &mut String) {
    out.push_str("\"\"\"");
    for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
        let gap = if line.is_empty() { 0 } else { indent + 2 };
        let _ = write!(out, "\n{}{line}", " ".repeat(gap));
    }
    if text.ends_with('\n') {
        let _ = write!(out, "\n{}", " ".repeat(indent));
    }
    out.push_str("\"\"\"");
}

pub(crate) fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

pub(crate) fn member<'a>(members: &'a [(String, Json)], key: &str) -> Option<&'a Json> {
    members
        .iter()
        .find(|(name, _)| name == key)
        .map(|(_, value)| value)
}

/// Calls `inside` with the path of a member or an item.
pub(crate) fn nested<T>(place: &mut String, key: &str, inside: impl FnOnce(&mut String) -> T) -> T {
    let length = place.len();
    place.push('/');
    place.push_str(&key.replace('~', "~0").replace('/', "~1"));
    let result = inside(place);
    place.truncate(length);
    result
}

/// Returns whether a number is negative, its digits without leading and trailing zeros, and the
/// power of ten of the last digit. Equal numbers, such as `1`, `1.0` and `10e-1`, produce the same
/// result. Fails if the exponent does not fit in 64 bits, unless the number is 0.
fn normal(number: &str) -> Result<(bool, String, i128), &str> {
    let digits = number.trim_start_matches('-');
    let (mantissa, exponent) = digits.split_once(['e', 'E']).unwrap_or((digits, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    let kept = digits.trim_end_matches('0');
    if kept.is_empty() {
        return Ok((false, String::new(), 0));
    }
    let exponent: i128 = exponent.parse::<i64>().map_err(|_| number)?.into();
    let shift = (digits.len() - kept.len()) as i128 - fraction.len() as i128;
    Ok((number.starts_with('-'), kept.into(), exponent + shift))
}

/// Replaces escapes of lone surrogates, and escapes ASCII control characters in strings.
fn repair(text: &str) -> String {
    let unit = |at: usize| {
        let digits = text.get(at..)?.strip_prefix("\\u")?.get(..4)?;
        u16::from_str_radix(digits, 16).ok()
    };
    let (mut out, mut at, mut in_string) = (String::with_capacity(text.len()), 0, false);
    while let Some(c) = text[at..].chars().next() {
        let start = at;
        at += c.len_utf8();
        match (c, unit(start), unit(start + 6)) {
            ('"', ..) => in_string = !in_string,
            ('\\', Some(0xd800..0xdc00), Some(0xdc00..0xe000)) => at = start + 12,
            ('\\', Some(0xd800..0xe000), _) => {
                out.push_str("\\ufffd");
                at = start + 6;
                continue;
            }
            ('\\', ..) => at += text[at..].chars().next().map_or(0, char::len_utf8),
            _ if in_string && c.is_ascii_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
                continue;
            }
            _ => {}
        }
        out.push_str(&text[start..at]);
    }
    out
}

fn build(raw: &str, depth: usize) -> Result<Json, String> {
    if depth > MAX_DEPTH {
        return Err(format!(
            "the JSON is nested too deeply: a value is more than {MAX_DEPTH} levels below the root of the file"
        ));
    }
    Ok(match raw.as_bytes().first() {
        Some(b'{') => {
            let Members(raw) = read(raw)?;
            let (mut members, mut keys) = (Vec::with_capacity(raw.len()), HashSet::new());
            for (key, value) in raw {
                if !keys.insert(key.clone()) {
                    return Err(format!("duplicate key {}", quote(&key)));
                }
                members.push((key, build(value.get(), depth + 1)?));
            }
            Json::Object(members)
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = read(raw)?;
            let items = items.into_iter().map(|item| build(item.get(), depth + 1));
            Json::Array(items.collect::<Result<_, _>>()?)
        }
        Some(b'"') => Json::String(read(raw)?),
        Some(b't') => Json::Bool(true),
        Some(b'f') => Json::Bool(false),
        Some(b'n') => Json::Null,
        _ => Json::Number(raw.into()),
    })
}

fn read<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// The members of an object in order, including duplicate keys.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Self(Vec::new()))
    }
}

impl<'de> Visitor<'de> for Members<'de> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        while let Some(member) = map.next_entry()? {
            self.0.push(member);
        }
        Ok(self)
    }
}
