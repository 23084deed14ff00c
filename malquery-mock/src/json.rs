//! JSON as it is written: numbers keep their digits, objects their order, and every value its
//! place.

use std::collections::HashSet;
use std::fmt::{self, Write as _};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// How deep arrays and objects may nest.
const MAX_DEPTH: usize = 100;
/// The nesting depth at which a body starts in a cassette.
const BODY_DEPTH: usize = 5;
/// The longest line of a file, unless one value alone is longer.
const MAX_LINE: usize = 110;

#[derive(Debug, Clone)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    /// The digits as they are written.
    Number(Box<str>),
    String(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// How a document is written.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Style {
    /// In its shortest form, as it is sent.
    Shortest,
    /// On one line, with spaces.
    Line,
    /// What fits stands on one line, as in a file.
    File,
    /// Over several lines, and a text of several lines as a block, as in a transcript.
    Pretty,
}

impl Json {
    /// Reads a document. Refuses duplicate keys, because one of the two would be lost.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        build(read::<&RawValue>(text)?.get(), 0)
    }

    /// Reads a document that stands in a cassette, which nests deeper than the document alone.
    pub(crate) fn parse_body(text: &str) -> Result<Self, String> {
        build(read::<&RawValue>(text)?.get(), BODY_DEPTH)
    }

    /// The kind of value, for messages.
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

    /// Whether both are the same value, and no array or object. Numbers are equal when their values
    /// are.
    pub(crate) fn same_leaf(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Number(a), Self::Number(b)) => same_number(a, b),
            (Self::String(a), Self::String(b)) => a == b,
            _ => false,
        }
    }

    /// The member of an object.
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

    /// Writes it as it stands in a file.
    pub(crate) fn layout(&self, indent: usize) -> String {
        let mut out = String::new();
        self.write(Style::File, indent, &mut out);
        out
    }

    /// Writes it as it stands in a transcript.
    pub(crate) fn pretty(&self) -> String {
        let mut out = String::new();
        self.write(Style::Pretty, 0, &mut out);
        out
    }

    fn write(&self, style: Style, indent: usize, out: &mut String) {
        let (open, close, parts): (_, _, Vec<(Option<&str>, &Self)>) = match self {
            Self::Array(items) => ('[', ']', items.iter().map(|item| (None, item)).collect()),
            Self::Object(members) => {
                let member = |(key, value)| (Some(String::as_str(key)), value);
                (
                    '{',
                    '}',
                    members
                        .iter()
                        .map(|(key, value)| member((key, value)))
                        .collect(),
                )
            }
            Self::Null => return out.push_str("null"),
            Self::Bool(value) => return out.push_str(if *value { "true" } else { "false" }),
            Self::Number(digits) => return out.push_str(digits),
            Self::String(text) if style == Style::Pretty && is_block(text) => {
                return block(text, indent, out);
            }
            Self::String(text) => return out.push_str(&quote(text)),
        };
        if style == Style::File {
            let mut line = String::new();
            self.write(Style::Line, 0, &mut line);
            if line.len() <= MAX_LINE.saturating_sub(indent) {
                return out.push_str(&line);
            }
        }
        let is_line = parts.is_empty() || matches!(style, Style::Shortest | Style::Line);
        let (gap, space) = match style {
            _ if !is_line => (format!("\n{}", " ".repeat(indent + 2)), " "),
            Style::Shortest => (String::new(), ""),
            _ => (" ".into(), " "),
        };
        out.push(open);
        for (index, (key, value)) in parts.iter().enumerate() {
            out.push_str(if index == 0 { "" } else { "," });
            if index > 0 || !is_line || open == '{' {
                out.push_str(&gap);
            }
            if let Some(key) = key {
                let _ = write!(out, "{}:{space}", quote(key));
            }
            value.write(style, indent + 2, out);
        }
        if !is_line {
            let _ = write!(out, "\n{}", " ".repeat(indent));
        } else if style == Style::Line && open == '{' && !parts.is_empty() {
            out.push(' ');
        }
        out.push(close);
    }
}

impl fmt::Display for Json {
    /// Writes it in its shortest form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.write(Style::Shortest, 0, &mut text);
        f.write_str(&text)
    }
}

/// Whether a text is shown line by line.
fn is_block(text: &str) -> bool {
    let is_shown = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
    text.contains('\n') && text.chars().all(is_shown)
}

/// Its end is on a line of its own if the text ends with a newline.
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

/// Runs `inside` with the pointer of a member.
pub(crate) fn nested<T>(
    pointer: &mut String,
    key: &str,
    inside: impl FnOnce(&mut String) -> T,
) -> T {
    let length = pointer.len();
    pointer.push('/');
    pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
    let result = inside(pointer);
    pointer.truncate(length);
    result
}

/// Whether two numbers have the same value, such as `1`, `1.0` and `10e-1`.
fn same_number(a: &str, b: &str) -> bool {
    a == b || matches!((normal(a), normal(b)), (Some(a), Some(b)) if a == b)
}

/// The sign, the digits without zeros around them, and the power of ten of the last one.
fn normal(number: &str) -> Option<(bool, String, i64)> {
    let (negative, number) = number
        .strip_prefix('-')
        .map_or((false, number), |rest| (true, rest));
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    let kept = digits.trim_end_matches('0');
    if kept.is_empty() {
        return Some((false, String::new(), 0));
    }
    let exponent: i64 = exponent.parse().ok()?;
    let exponent = exponent
        .checked_sub(i64::try_from(fraction.len()).ok()?)?
        .checked_add(i64::try_from(digits.len() - kept.len()).ok()?)?;
    Some((negative, kept.to_owned(), exponent))
}

fn build(raw: &str, depth: usize) -> Result<Json, String> {
    if depth > MAX_DEPTH {
        return Err(format!("it nests deeper than {MAX_DEPTH} levels"));
    }
    Ok(match raw.as_bytes().first() {
        Some(b'{') => {
            let Members(members) = read(raw)?;
            let mut keys = HashSet::with_capacity(members.len());
            if let Some((key, _)) = members.iter().find(|(key, _)| !keys.insert(&**key)) {
                return Err(format!("the key {} comes twice", quote(key)));
            }
            let build =
                |(key, value): (String, &RawValue)| Ok((key, build(value.get(), depth + 1)?));
            Json::Object(
                members
                    .into_iter()
                    .map(build)
                    .collect::<Result<_, String>>()?,
            )
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

struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;

        impl<'de> Visitor<'de> for Read {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Read)
    }
}
