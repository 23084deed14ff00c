//! What a request asks for. The messages say what a client did wrong, as the service's own do not.

use malquery_proto::types::{Date, FileSize, MetaField, Pattern, Sha256};
use serde_json::{Map, Value};
use url::form_urlencoded;

use super::corpus::Filter;

/// The options of a search, read, and as they were sent.
#[derive(Default)]
pub(super) struct Options {
    pub(super) filter: Filter,
    /// The fields of a result; `None` selects all.
    pub(super) fields: Option<Vec<MetaField>>,
    pub(super) sent: Option<Value>,
}

/// The JSON object of a body.
pub(super) fn document(body: &[u8]) -> Result<Map<String, Value>, String> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(document)) => Ok(document),
        Ok(other) => Err(format!(
            "the body must be a JSON object, not {}",
            kind(&other)
        )),
        Err(error) => Err(format!("the body is not JSON: {error}")),
    }
}

/// `patterns`, of which there is at least one.
/// Each is looked for in each file, so there has to be an end.
const MAX_PATTERNS: usize = 100;

pub(super) fn patterns(document: &Map<String, Value>) -> Result<Vec<Pattern>, String> {
    let list = match document.get("patterns") {
        Some(Value::Array(list)) if !list.is_empty() => list,
        Some(Value::Array(_)) | None => {
            return Err("patterns must hold at least one pattern".into());
        }
        Some(other) => return Err(format!("patterns must be a list, not {}", kind(other))),
    };
    if list.len() > MAX_PATTERNS {
        return Err(format!(
            "patterns may hold {MAX_PATTERNS} patterns, and holds {}",
            list.len()
        ));
    }
    list.iter()
        .enumerate()
        .map(|(index, pattern)| {
            if !pattern.is_object() {
                return Err(format!(
                    "patterns[{index}] must be an object, not {}",
                    kind(pattern)
                ));
            }
            let text = |name: &str| match pattern.get(name) {
                Some(Value::String(text)) => Ok(text.as_str()),
                Some(other) => Err(format!(
                    "patterns[{index}].{name} must be a text, not {}",
                    kind(other)
                )),
                None => Err(format!("patterns[{index}] has no {name}")),
            };
            let value = text("value")?;
            match text("type")? {
                "hex" => Pattern::hex(value),
                "ascii" => Pattern::ascii(value),
                "wide" => Pattern::wide(value),
                other => {
                    return Err(format!(
                        "patterns[{index}].type is {}; it is one of hex, ascii and wide",
                        quoted(other)
                    ));
                }
            }
            .map_err(|error| format!("patterns[{index}].value is {error}"))
            .and_then(|pattern| {
                let same = pattern.value().eq_ignore_ascii_case(value);
                same.then_some(pattern)
                    .ok_or_else(|| format!("patterns[{index}].value must hold hex digits alone"))
            })
        })
        .collect()
}

/// `options`. What is not known there is let pass.
pub(super) fn options(document: &Map<String, Value>) -> Result<Options, String> {
    let sent = match document.get("options") {
        None | Some(Value::Null) => return Ok(Options::default()),
        Some(sent @ Value::Object(_)) => sent,
        Some(other) => return Err(format!("options must be an object, not {}", kind(other))),
    };
    let text = |name: &str| match &sent[name] {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.as_str())),
        other => Err(format!(
            "options.{name} must be a text, not {}",
            kind(other)
        )),
    };
    let texts = |name: &str| match &sent[name] {
        Value::Null => Ok(Vec::new()),
        Value::Array(list) => list
            .iter()
            .map(|item| item.as_str().map(str::to_owned))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| format!("options.{name} must be a list of texts")),
        other => Err(format!(
            "options.{name} must be a list, not {}",
            kind(other)
        )),
    };
    let date = |name: &str| match text(name)? {
        Some(text) => match text.parse::<Date>() {
            Ok(date) if date.to_string() == text => Ok(Some(date)),
            Ok(_) => Err(format!("options.{name} must be written as YYYY/MM/DD")),
            Err(error) => Err(format!("options.{name} is {error}")),
        },
        None => Ok(None),
    };
    let size = |name: &str| match text(name)? {
        Some(text) => size(text)
            .map(Some)
            .map_err(|error| format!("options.{name} is {error}")),
        None => Ok(None),
    };
    let limit = match &sent["limit"] {
        Value::Null => None,
        limit => match limit.as_u64() {
            Some(limit) if limit > 0 => Some(limit),
            _ => return Err("options.limit must be a whole number, at least 1".into()),
        },
    };
    let fields = texts("filter_meta")?;
    let fields = fields
        .iter()
        .map(|field| match field.parse() {
            Ok(MetaField::_Other(_)) | Err(_) => Err(format!(
                "options.filter_meta has {}; it takes sha256, md5, type, size, first_seen, label and family",
                quoted(field)
            )),
            Ok(field) => Ok(field),
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Options {
        filter: Filter {
            filetypes: texts("filter_filetypes")?,
            min_date: date("min_date")?,
            max_date: date("max_date")?,
            min_size: size("min_size")?,
            max_size: size("max_size")?,
            limit,
        },
        fields: (!fields.is_empty()).then_some(fields),
        sent: Some(sent.clone()),
    })
}

/// A number of bytes; a KB has 1,024.
fn size(text: &str) -> Result<u64, String> {
    let size: FileSize = text.parse().map_err(|error| format!("{error}"))?;
    if size.as_str() != text {
        return Err(format!(
            "{}, and the unit must be KB, MB or GB",
            quoted(text)
        ));
    }
    if let Ok(bytes) = text.parse() {
        return Ok(bytes);
    }
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let power = match unit.trim_start().as_bytes().first() {
        Some(b'k' | b'K') => 1,
        Some(b'm' | b'M') => 2,
        _ => 3,
    };
    // What was parsed as a size is a decimal below 2^64 bytes.
    Ok((number.parse::<f64>().unwrap_or(0.0) * 1024_f64.powi(power)) as u64)
}

/// The `ids` of a query, in the repeated form, and in the one with commas that generated clients send.
pub(super) fn ids(uri: &http::Uri) -> Result<Vec<String>, String> {
    let query = uri.query().unwrap_or_default();
    let ids: Vec<String> = form_urlencoded::parse(query.as_bytes())
        .filter(|(name, _)| name == "ids")
        .flat_map(|(_, value)| {
            value
                .split(',')
                .map(|id| id.trim().to_owned())
                .collect::<Vec<_>>()
        })
        .filter(|id| !id.is_empty())
        .collect();
    if ids.is_empty() {
        Err("ids is missing".into())
    } else {
        Ok(ids)
    }
}

/// The one id of a query.
pub(super) fn id(uri: &http::Uri) -> Result<String, String> {
    match <[String; 1]>::try_from(ids(uri)?) {
        Ok([id]) => Ok(id),
        Err(ids) => Err(format!("ids must be one, not {}", ids.len())),
    }
}

/// SHA-256 hashes, each once.
pub(super) fn hashes<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Vec<Sha256>, String> {
    let mut hashes = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for text in texts {
        let hash: Sha256 = text
            .parse()
            .map_err(|error| format!("{} is {error}", quoted(text)))?;
        if seen.insert(hash) {
            hashes.push(hash);
        }
    }
    Ok(hashes)
}

/// `samples` of a multi-download.
pub(super) fn samples(document: &Map<String, Value>) -> Result<Vec<Sha256>, String> {
    let list = match document.get("samples") {
        Some(Value::Array(list)) if !list.is_empty() => list,
        Some(Value::Array(_)) | None => return Err("samples must hold at least one SHA-256".into()),
        Some(other) => return Err(format!("samples must be a list, not {}", kind(other))),
    };
    let texts: Option<Vec<&str>> = list.iter().map(Value::as_str).collect();
    hashes(texts.ok_or("samples must be a list of texts")?)
}

/// The text of a rule.
pub(super) fn rule(document: &Map<String, Value>) -> Result<&str, String> {
    match document.get("yara_rule") {
        Some(Value::String(rule)) if !rule.trim().is_empty() => Ok(rule),
        Some(Value::String(_)) | None => Err("yara_rule must hold a rule".into()),
        Some(other) => Err(format!("yara_rule must be a text, not {}", kind(other))),
    }
}

/// What came from outside, short enough for a message.
pub(super) fn quoted(text: &str) -> String {
    let cut: String = text.chars().take(64).collect();
    if cut.len() < text.len() {
        format!("{cut:?}…")
    } else {
        format!("{cut:?}")
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_of_every_documented_form() {
        for (text, bytes) in [
            ("0", 0),
            ("128000", 128_000),
            ("1.3 KB", 1331),
            ("8mb", 8 << 20),
            ("2 Gb", 2 << 30),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        assert!(size("8 PB").is_err());
    }

    #[test]
    fn a_search_has_a_hundred_patterns_at_most() {
        let asked = |count: usize| {
            let pattern = r#"{"type": "ascii", "value": "GNU"}"#;
            let body = format!(r#"{{"patterns": [{}]}}"#, vec![pattern; count].join(","));
            patterns(&document(body.as_bytes()).unwrap()).map(|patterns| patterns.len())
        };
        assert_eq!((asked(1), asked(100)), (Ok(1), Ok(100)));
        assert_eq!(
            asked(101).unwrap_err(),
            "patterns may hold 100 patterns, and holds 101"
        );
    }

    #[test]
    fn what_is_long_is_cut() {
        assert_eq!(quoted(&"x".repeat(64)), format!("\"{}\"", "x".repeat(64)));
        assert_eq!(quoted(&"x".repeat(65)), format!("\"{}\"…", "x".repeat(64)));
    }

    #[test]
    fn ids_of_both_forms() {
        let ids = |query: &str| ids(&format!("/x?{query}").parse().unwrap());
        assert_eq!(ids("ids=a&ids=b").unwrap(), ["a", "b"]);
        assert_eq!(ids("ids=a%2Cb&other=c").unwrap(), ["a", "b"]);
        assert_eq!(ids("ids=a,b,").unwrap(), ["a", "b"]);
        assert!(ids("id=a").is_err() && ids("ids=").is_err() && ids("").is_err());
    }

    proptest! {
        #[test]
        fn any_body_is_read_or_refused(body in r#"[{}\[\]":,a-z0-9]{0,60}"#) {
            if let Ok(document) = document(body.as_bytes()) {
                let _ = (patterns(&document), options(&document).is_ok(), samples(&document), rule(&document));
            }
        }
    }
}
