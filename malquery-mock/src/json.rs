//! JSON as it is written: numbers keep their digits, objects their order, and every value its place.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::diff;
use crate::redact::{self, Redaction, Side};
use crate::secret::{self, is_placeholder, is_secret_field};

/// How deep arrays and objects may nest.
const MAX_DEPTH: usize = 100;
/// How deep a body stands in a cassette.
const BODY_DEPTH: usize = 5;
/// How long a line of a file becomes, unless one value alone is longer.
const MAX_LINE: usize = 110;

#[derive(Debug, Clone)]
pub(crate) struct Json {
    /// Where it begins in the text, in bytes.
    pub(crate) at: usize,
    pub(crate) value: Value,
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    /// The digits as they are written.
    Number(Box<str>),
    String(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

#[derive(Debug)]
pub(crate) struct JsonError {
    pub(crate) at: usize,
    pub(crate) pointer: String,
    pub(crate) message: String,
}

impl Json {
    /// Reads a document. Duplicate keys are refused, since one of the two would be lost.
    pub(crate) fn parse(text: &str) -> Result<Self, JsonError> {
        let raw = read::<&RawValue>(text, text, "")?;
        build(text, raw.get(), &mut String::new(), 0)
    }

    /// Reads a document that is to stand in a cassette, and must not be deeper than a cassette may be.
    pub(crate) fn parse_body(text: &str) -> Result<Self, JsonError> {
        let raw = read::<&RawValue>(text, text, "")?;
        build(text, raw.get(), &mut String::new(), BODY_DEPTH)
    }

    /// What kind of value it is, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "an array",
            Value::Object(_) => "an object",
        }
    }

    /// Appends what differs from `other`, one entry for each place. Objects have no order here, and numbers are
    /// equal when their values are.
    pub(crate) fn differences(&self, other: &Self, pointer: &mut String, out: &mut Vec<String>) {
        match (&self.value, &other.value) {
            (Value::Null, Value::Null) => {}
            (Value::Bool(a), Value::Bool(b)) if a == b => {}
            (Value::Number(a), Value::Number(b)) if same_number(a, b) => {}
            (Value::String(a), Value::String(b)) if a == b => {}
            (Value::String(a), Value::String(b))
                if (a.contains('\n') || b.contains('\n'))
                    && (secret::is_searched(pointer)
                        || ![a, b].iter().any(|text| redact::value_gives_secret(text))) =>
            {
                out.push(format!(
                    "{}: other lines (- cassette, + request)\n{}",
                    place(pointer),
                    diff::lines(a, b)
                ));
            }
            (Value::Array(a), Value::Array(b)) => {
                for index in 0..a.len().max(b.len()) {
                    nested(pointer, &index.to_string(), |pointer| {
                        compare(a.get(index), b.get(index), pointer, out);
                    });
                }
            }
            (Value::Object(a), Value::Object(b)) => {
                for (key, value) in a {
                    nested(pointer, key, |pointer| match member(b, key) {
                        Some(sent) if is_secret_field(key) => {
                            // Nothing of a secret is shown, and its name in its place stands for it.
                            if !value.stands_for(sent) {
                                out.push(format!(
                                    "{}: the values differ, and are not shown",
                                    place(pointer)
                                ));
                            }
                        }
                        sent => compare(Some(value), sent, pointer, out),
                    });
                }
                for (key, value) in b.iter().filter(|(key, _)| member(a, key).is_none()) {
                    nested(pointer, key, |pointer| match is_secret_field(key) {
                        true => out.push(format!(
                            "{}: only in the request, and not shown",
                            place(pointer)
                        )),
                        false => compare(None, Some(value), pointer, out),
                    });
                }
            }
            _ => {
                let shown = |json: &Self| json.shown(pointer).to_string();
                let (recorded, sent) = diff::around_difference(&shown(self), &shown(other));
                out.push(format!(
                    "{}: {recorded} in the cassette, {sent} in the request",
                    place(pointer)
                ));
            }
        }
    }

    /// Whether there are no [`differences`](Self::differences).
    pub(crate) fn agrees(&self, other: &Self) -> bool {
        match (&self.value, &other.value) {
            (Value::Null, Value::Null) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Number(a), Value::Number(b)) => same_number(a, b),
            (Value::String(a), Value::String(b)) => a == b,
            (Value::Array(a), Value::Array(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.agrees(b))
            }
            (Value::Object(a), Value::Object(b)) => {
                a.len() == b.len()
                    && a.iter().all(|(key, a)| {
                        member(b, key)
                            .is_some_and(|b| a.agrees(b) || is_secret_field(key) && a.stands_for(b))
                    })
            }
            _ => false,
        }
    }

    /// It as it may be shown in a message: without what has the name of a secret, unless it is what is searched for.
    fn shown(&self, pointer: &str) -> Self {
        Redaction::default().hidden(self, Side::Request, secret::is_searched(pointer))
    }

    /// Whether a secret is as it was recorded. What stands in its place, at any depth, stands for any.
    fn stands_for(&self, sent: &Self) -> bool {
        match (&self.value, &sent.value) {
            (Value::String(recorded), _) if is_placeholder(recorded) => true,
            (Value::Array(a), Value::Array(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.stands_for(b))
            }
            (Value::Object(a), Value::Object(b)) => {
                a.len() == b.len()
                    && a.iter()
                        .all(|(key, a)| member(b, key).is_some_and(|b| a.stands_for(b)))
            }
            _ => self.agrees(sent),
        }
    }

    /// Writes it as it stands in a file: what fits stands on one line.
    pub(crate) fn layout(&self, indent: usize, out: &mut String) {
        let (open, close, parts): (_, _, Vec<(Option<&str>, &Self)>) = match &self.value {
            Value::Array(items) if !items.is_empty() => {
                ('[', ']', items.iter().map(|item| (None, item)).collect())
            }
            Value::Object(members) if !members.is_empty() => (
                '{',
                '}',
                members
                    .iter()
                    .map(|(key, value)| (Some(key.as_str()), value))
                    .collect(),
            ),
            _ => {
                out.push_str(&self.to_string());
                return;
            }
        };
        let mut line = String::new();
        if self.fits(MAX_LINE.saturating_sub(indent), &mut line) {
            out.push_str(&line);
            return;
        }
        out.push(open);
        for (index, (key, value)) in parts.into_iter().enumerate() {
            out.push_str(if index == 0 { "\n" } else { ",\n" });
            out.push_str(&" ".repeat(indent + 2));
            if let Some(key) = key {
                out.push_str(&format!("{}: ", quote(key)));
            }
            value.layout(indent + 2, out);
        }
        out.push_str(&format!("\n{}{close}", " ".repeat(indent)));
    }

    /// Writes it on one line, and gives up where that gets too long.
    fn fits(&self, most: usize, out: &mut String) -> bool {
        match &self.value {
            Value::Array(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    out.push_str(if index == 0 { "" } else { ", " });
                    if !item.fits(most, out) {
                        return false;
                    }
                }
                out.push(']');
            }
            Value::Object(members) => {
                out.push('{');
                for (index, (key, value)) in members.iter().enumerate() {
                    out.push_str(if index == 0 { " " } else { ", " });
                    out.push_str(&format!("{}: ", quote(key)));
                    if !value.fits(most, out) {
                        return false;
                    }
                }
                out.push_str(if members.is_empty() { "}" } else { " }" });
            }
            _ => out.push_str(&self.to_string()),
        }
        out.len() <= most
    }

    pub(crate) fn string(text: impl Into<String>) -> Self {
        Value::String(text.into()).into()
    }

    pub(crate) fn number(number: impl ToString) -> Self {
        Value::Number(number.to_string().into()).into()
    }

    pub(crate) fn array(items: impl IntoIterator<Item = Self>) -> Self {
        Value::Array(items.into_iter().collect()).into()
    }

    pub(crate) fn object<'a>(members: impl IntoIterator<Item = (&'a str, Self)>) -> Self {
        let members = members
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value));
        Value::Object(members.collect()).into()
    }

    /// The member of an object.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Object(members) => member(members, key),
            _ => None,
        }
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// Writes it over several lines. A text of several lines becomes a block, whose end is on a line of its own
    /// if the text ends with a newline.
    pub(crate) fn pretty(&self, indent: usize, out: &mut String) {
        let inner = " ".repeat(indent + 2);
        let outer = " ".repeat(indent);
        match &self.value {
            Value::Array(items) if !items.is_empty() => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    out.push_str(if index == 0 { "\n" } else { ",\n" });
                    out.push_str(&inner);
                    item.pretty(indent + 2, out);
                }
                out.push_str(&format!("\n{outer}]"));
            }
            Value::Object(members) if !members.is_empty() => {
                out.push('{');
                for (index, (key, value)) in members.iter().enumerate() {
                    out.push_str(if index == 0 { "\n" } else { ",\n" });
                    out.push_str(&format!("{inner}{}: ", quote(key)));
                    value.pretty(indent + 2, out);
                }
                out.push_str(&format!("\n{outer}}}"));
            }
            Value::String(text) if is_block(text) => {
                out.push_str("\"\"\"");
                for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
                    out.push('\n');
                    out.push_str(if line.is_empty() { "" } else { &inner });
                    out.push_str(line);
                }
                if text.ends_with('\n') {
                    out.push_str(&format!("\n{outer}"));
                }
                out.push_str("\"\"\"");
            }
            _ => out.push_str(&self.to_string()),
        }
    }
}

impl From<Value> for Json {
    fn from(value: Value) -> Self {
        Self { at: 0, value }
    }
}

impl fmt::Display for Json {
    /// Writes it in its shortest form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Value::Null => f.write_str("null"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Number(digits) => f.write_str(digits),
            Value::String(text) => f.write_str(&quote(text)),
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if index == 0 { "[" } else { "," })?;
                }
                f.write_str(if items.is_empty() { "[]" } else { "]" })
            }
            Value::Object(members) => {
                for (index, (key, value)) in members.iter().enumerate() {
                    write!(
                        f,
                        "{}{}:{value}",
                        if index == 0 { "{" } else { "," },
                        quote(key)
                    )?;
                }
                f.write_str(if members.is_empty() { "{}" } else { "}" })
            }
        }
    }
}

/// Whether a text is shown line by line.
fn is_block(text: &str) -> bool {
    text.contains('\n')
        && text
            .chars()
            .all(|c| !c.is_control() || matches!(c, '\n' | '\r' | '\t'))
}

pub(crate) fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn member<'a>(members: &'a [(String, Json)], key: &str) -> Option<&'a Json> {
    members
        .iter()
        .find(|(name, _)| name == key)
        .map(|(_, value)| value)
}

fn compare(
    recorded: Option<&Json>,
    sent: Option<&Json>,
    pointer: &mut String,
    out: &mut Vec<String>,
) {
    let only =
        |value: &Json, whose| format!("only in the {whose}: {}", diff::cut(&value.to_string()));
    match (recorded, sent) {
        (Some(recorded), Some(sent)) => recorded.differences(sent, pointer, out),
        (Some(value), None) => {
            out.push(format!(
                "{}: {}",
                place(pointer),
                only(&value.shown(pointer), "cassette")
            ));
        }
        (None, Some(value)) => {
            out.push(format!(
                "{}: {}",
                place(pointer),
                only(&value.shown(pointer), "request")
            ));
        }
        (None, None) => {}
    }
}

fn place(pointer: &str) -> &str {
    match pointer {
        "" => "the whole document",
        // A key may be any text.
        _ if redact::names_secret(pointer) => "a place that is not shown",
        _ => pointer,
    }
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

/// Line and column, from 1, of a place in a text.
pub(crate) fn line_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (
        before.matches('\n').count() + 1,
        before[start..].chars().count() + 1,
    )
}

fn build(text: &str, raw: &str, pointer: &mut String, depth: usize) -> Result<Json, JsonError> {
    let at = offset(text, raw);
    let fail = |pointer: &str, message: String| JsonError {
        at,
        pointer: pointer.to_owned(),
        message,
    };
    if depth > MAX_DEPTH {
        return Err(fail(
            pointer,
            format!("it nests deeper than {MAX_DEPTH} levels"),
        ));
    }
    let value = match raw.as_bytes().first() {
        Some(b'{') => {
            let Members(members) = read(text, raw, pointer)?;
            let mut keys = HashSet::with_capacity(members.len());
            for (key, value) in &members {
                if !keys.insert(key.as_str()) {
                    let at = offset(text, value.get());
                    let message = format!("the key {} comes twice", quote(key));
                    return Err(JsonError {
                        at,
                        ..fail(pointer, message)
                    });
                }
            }
            let mut built = Vec::with_capacity(members.len());
            for (key, value) in members {
                let value = nested(pointer, &key, |pointer| {
                    build(text, value.get(), pointer, depth + 1)
                })?;
                built.push((key, value));
            }
            Value::Object(built)
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = read(text, raw, pointer)?;
            let mut built = Vec::with_capacity(items.len());
            for (index, item) in items.into_iter().enumerate() {
                built.push(nested(pointer, &index.to_string(), |pointer| {
                    build(text, item.get(), pointer, depth + 1)
                })?);
            }
            Value::Array(built)
        }
        Some(b'"') => Value::String(read(text, raw, pointer)?),
        Some(b't') => Value::Bool(true),
        Some(b'f') => Value::Bool(false),
        Some(b'n') => Value::Null,
        _ => Value::Number(raw.into()),
    };
    Ok(Json { at, value })
}

/// Where a part of the text begins.
fn offset(text: &str, part: &str) -> usize {
    (part.as_ptr() as usize)
        .wrapping_sub(text.as_ptr() as usize)
        .min(text.len())
}

fn read<'de, T: Deserialize<'de>>(
    text: &str,
    part: &'de str,
    pointer: &str,
) -> Result<T, JsonError> {
    serde_json::from_str(part).map_err(|error| {
        // Its line and column count from the part; the message ends with them.
        let start = part
            .split_inclusive('\n')
            .take(error.line().saturating_sub(1))
            .map(str::len)
            .sum::<usize>();
        let mut at =
            (offset(text, part) + start + error.column().saturating_sub(1)).min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default();
        JsonError {
            at,
            pointer: pointer.to_owned(),
            message: format!("no valid JSON: {message}"),
        }
    })
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn differences(a: &str, b: &str) -> Vec<String> {
        let (a, b) = (Json::parse(a).unwrap(), Json::parse(b).unwrap());
        let mut out = Vec::new();
        a.differences(&b, &mut String::new(), &mut out);
        assert_eq!(a.agrees(&b), out.is_empty(), "{a} {b}");
        out
    }

    #[test]
    fn documents_are_compared_by_meaning() {
        for (a, b) in [
            (
                r#"{"a": 1, "b": [1.0, 10e-1, "x"]}"#,
                r#"{"b":[1,1,"\u0078"],"a":0.1E+1}"#,
            ),
            ("-0", "0.00"),
            ("100", "1e2"),
            (
                "123456789012345678901234567890",
                "123456789012345678901234567890.0",
            ),
            ("1e99999999999999999999", "1e99999999999999999999"),
        ] {
            assert_eq!(differences(a, b), Vec::<String>::new(), "{a} {b}");
        }
        assert_eq!(
            differences("12345678901234567890", "12345678901234567891").len(),
            1
        );
        assert_eq!(
            differences(
                r#"{"a": {"b/c": [1, 2]}, "x": 1}"#,
                r#"{"a": {"b/c": [1]}, "y": null}"#
            ),
            [
                "/a/b~1c/1: only in the cassette: 2",
                "/x: only in the cassette: 1",
                "/y: only in the request: null"
            ]
        );
        assert_eq!(
            differences("1", "\"1\""),
            ["the whole document: 1 in the cassette, \"1\" in the request"]
        );
    }

    #[test]
    fn numbers_are_equal_when_their_values_are() {
        for (a, b) in [
            ("1.50", "15e-1"),
            ("1500", "15e2"),
            ("0.015", "1.5E-2"),
            ("-2", "-2.0"),
        ] {
            assert_eq!(differences(a, b), Vec::<String>::new(), "{a} {b}");
        }
        for (a, b) in [
            ("15", "1500"),
            ("1.5", "15"),
            ("2", "-2"),
            ("1e2", "1e3"),
            ("0.1", "0.01"),
        ] {
            assert_eq!(differences(a, b).len(), 1, "{a} {b}");
        }
    }

    #[test]
    fn words_are_told_apart_and_lines_are_compared_as_lines() {
        for word in ["true", "false", "null", "0", "\"\"", "[]", "{}"] {
            for other in ["true", "false", "null", "0", "\"\"", "[]", "{}"] {
                assert_eq!(
                    differences(word, other).is_empty(),
                    word == other,
                    "{word} {other}"
                );
            }
        }
        assert_eq!(differences(r#""a\nb""#, r#""a""#).len(), 1);
        assert!(
            differences(r#""a\nb""#, r#""a""#)[0].starts_with("the whole document: other lines")
        );
        assert!(
            differences(r#""a""#, r#""a\nb""#)[0].starts_with("the whole document: other lines")
        );
        assert_eq!(
            differences(r#""a""#, r#""b""#),
            [r#"the whole document: "a" in the cassette, "b" in the request"#]
        );
    }

    #[test]
    fn of_a_secret_no_value_is_shown() {
        let one = |a: &str, b: &str| differences(a, b).join("|");
        let differ = "/client_secret: the values differ, and are not shown";
        assert_eq!(
            one(r#"{"client_secret": "a"}"#, r#"{"client_secret": "a"}"#),
            ""
        );
        assert_eq!(
            one(r#"{"client_secret": "a"}"#, r#"{"client_secret": "b"}"#),
            differ
        );
        assert_eq!(
            one(
                r#"{"client_secret": "[client_secret]"}"#,
                r#"{"client_secret": [1]}"#
            ),
            ""
        );
        assert_eq!(
            one("{}", r#"{"client_secret": "b"}"#),
            "/client_secret: only in the request, and not shown"
        );
        // what stands in the place of a part stands for it, and for no more
        let parts = r#"{"client_secret": ["[client_secret]", {"a": "[client_secret]"}]}"#;
        assert_eq!(one(parts, r#"{"client_secret": ["x", {"a": "y"}]}"#), "");
        for sent in [
            r#"{"client_secret": ["x"]}"#,
            r#"{"client_secret": ["x", {"a": "y"}, 1]}"#,
            r#"{"client_secret": ["x", {"b": "y"}]}"#,
            r#"{"client_secret": ["x", {"a": "y", "b": 1}]}"#,
        ] {
            assert_eq!(one(parts, sent), differ, "{sent}");
        }
    }

    #[test]
    fn what_fits_stands_on_one_line() {
        let layout = |text: &str| {
            let mut out = String::new();
            Json::parse(text).unwrap().layout(0, &mut out);
            out
        };
        let long = "x".repeat(60);
        assert_eq!(
            layout(&format!(
                r#"{{"a":[1,{{"b":null,"c":[]}}],"none":{{}},"list":["{long}","{long}"],"words":{{"d":"{long}","e":"{long}"}}}}"#
            )),
            format!(
                r#"{{
  "a": [1, {{ "b": null, "c": [] }}],
  "none": {{}},
  "list": [
    "{long}",
    "{long}"
  ],
  "words": {{
    "d": "{long}",
    "e": "{long}"
  }}
}}"#
            )
        );
        let line = |length: usize| format!("[\"{}\"]", "x".repeat(length - 4));
        assert_eq!(layout(&line(MAX_LINE)), line(MAX_LINE));
        assert_eq!(layout(&line(MAX_LINE + 1)).lines().count(), 3);
        // Within something else there is as much less room.
        let nested = format!("[{},{}]", line(MAX_LINE - 2), line(MAX_LINE - 1));
        assert_eq!(layout(&nested).lines().count(), 1 + 1 + 3 + 1);
    }

    #[test]
    fn a_document_is_shown_over_several_lines() {
        let text = r#"{"a":[1,[],{"b":null}],"lines":"x\ny\n","none":{}}"#;
        let mut out = String::new();
        Json::parse(text).unwrap().pretty(0, &mut out);
        let lines = [
            "{",
            "  \"a\": [",
            "    1,",
            "    [],",
            "    {",
            "      \"b\": null",
            "    }",
            "  ],",
            "  \"lines\": \"\"\"",
            "    x",
            "    y",
            "  \"\"\",",
            "  \"none\": {}",
            "}",
        ];
        assert_eq!(out, lines.join("\n"));
    }

    #[test]
    fn every_value_has_its_kind() {
        let kinds = ["null", "true", "false", "-1.5e3", "\"\"", "[]", "{}"]
            .map(|text| Json::parse(text).unwrap().kind());
        assert_eq!(
            kinds,
            [
                "null",
                "a boolean",
                "a boolean",
                "a number",
                "a string",
                "an array",
                "an object"
            ]
        );
    }

    #[test]
    fn a_fault_has_its_place() {
        let place = |text: &str| Json::parse(text).unwrap_err().at;
        assert_eq!(place("[\n  \u{fc}]"), 4);
        assert_eq!(place(r#"{"a": {"b": 1, "b": 2}}"#), 20);
        let json = Json::parse(r#"{"a": "text", "b": 1}"#).unwrap();
        assert_eq!(json.get("a").and_then(Json::as_str), Some("text"));
        assert!(json.get("b").and_then(Json::as_str).is_none());
        assert!(json.get("c").is_none() && json.get("a").unwrap().get("a").is_none());
    }

    #[test]
    fn digits_and_order_are_kept() {
        let text = r#"{"z":1.2700e-07,"a":[12345678901234567890123],"s":"\"ü\u0000"}"#;
        let shown = Json::parse(text).unwrap().to_string();
        assert_eq!(shown, text);
    }

    #[test]
    fn deep_documents_are_refused() {
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
            let deep = |levels: usize| {
                Json::parse(&format!("{}1{}", open.repeat(levels), close.repeat(levels)))
                    .map_err(|error| error.message)
            };
            assert!(deep(MAX_DEPTH).is_ok());
            assert_eq!(
                deep(MAX_DEPTH + 1).unwrap_err(),
                "it nests deeper than 100 levels"
            );
            assert_eq!(
                deep(100_000).unwrap_err(),
                "it nests deeper than 100 levels"
            );
        }
        assert!(Json::parse(&"[".repeat(100_000)).is_err());
    }

    proptest! {
        #[test]
        fn what_is_read_can_be_written_and_read_again(
            text in prop_oneof![r#"[\[\]{}:,"\\u0-9eE.+ \ntrufalsnü-]{0,60}"#, document()]
        ) {
            // One side alone is lenient: numbers beyond f64 are read here, and duplicate keys there.
            let lenient = serde_json::from_str::<serde_json::Value>(&text).is_ok();
            match Json::parse(&text) {
                Ok(json) => {
                    prop_assert!(serde_json::from_str::<&RawValue>(&text).is_ok());
                    let again = Json::parse(&json.to_string()).unwrap();
                    let mut out = Vec::new();
                    json.differences(&again, &mut String::new(), &mut out);
                    prop_assert!(out.is_empty());
                    json.pretty(0, &mut String::new());
                }
                Err(error) => prop_assert!(!lenient || error.message.contains("twice"), "{}", error.message),
            }
        }
    }

    fn document() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            any::<bool>().prop_map(|value| value.to_string()),
            r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,9})?(e[+-]?[0-9]{1,3})?",
            any::<String>().prop_map(|text| quote(&text)),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6)
                    .prop_map(|items| format!("[ {} ]", items.join(" ,\n"))),
                prop::collection::vec((any::<String>(), inner), 0..6).prop_map(|members| {
                    let members: Vec<_> = members
                        .iter()
                        .map(|(key, value)| format!("{}:\t{value}", quote(key)))
                        .collect();
                    format!("{{{}}}", members.join(","))
                }),
            ]
        })
    }
}
