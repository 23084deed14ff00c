//! Parses requests. Error messages describe what is wrong with a request.

use std::collections::HashSet;

use malquery_proto::types::{Date, FileSize, MetaField, Pattern, Sha256};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use url::form_urlencoded;

use super::corpus::Filter;

/// The maximum number of patterns in a search.
const MAX_PATTERNS: usize = 100;

#[derive(Deserialize)]
pub(super) struct Search {
    patterns: Vec<SentPattern>,
    #[serde(default, deserialize_with = "object")]
    pub(super) options: Option<Options>,
}

#[cfg(feature = "yara")]
#[derive(Deserialize)]
pub(super) struct Hunt {
    pub(super) yara_rule: String,
    #[serde(default, deserialize_with = "object")]
    pub(super) options: Option<Options>,
}

#[derive(Deserialize)]
pub(super) struct Multidownload {
    samples: Vec<String>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object with type and value")]
struct SentPattern {
    r#type: String,
    value: String,
}

/// The options of a search or hunt, as sent. Unknown options are ignored.
#[derive(Deserialize, Serialize, Default)]
#[serde(default)]
pub(super) struct Options {
    filter_filetypes: Option<Vec<String>>,
    filter_meta: Option<Vec<String>>,
    limit: Option<i32>,
    min_date: Option<String>,
    max_date: Option<String>,
    min_size: Option<String>,
    max_size: Option<String>,
    app: Option<String>,
    submitted_by_customer: Option<bool>,
}

/// The fields that results have: all, or those in `filter_meta`.
#[derive(Clone, Default)]
pub(super) struct Fields(Option<Vec<MetaField>>);

impl Fields {
    pub(super) fn has(&self, field: MetaField) -> bool {
        self.0.as_ref().is_none_or(|fields| fields.contains(&field))
    }

    /// Returns whether results have all fields. Only then do they have `sha1`.
    pub(super) fn is_all(&self) -> bool {
        self.0.is_none()
    }
}

/// Parses a body, which must be a JSON object.
pub(super) fn body<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err("the body must be a JSON object".into());
    }
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

/// Parses options, which must be an object or null.
fn object<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Options>, D::Error> {
    match Option::deserialize(deserializer)? {
        None => Ok(None),
        Some(options @ Value::Object(_)) => Options::deserialize(options)
            .map(Some)
            .map_err(|error| D::Error::custom(format!("options: {error}"))),
        Some(_) => Err(D::Error::custom("options: expected an object")),
    }
}

impl Search {
    pub(super) fn patterns(&self) -> Result<Vec<Pattern>, String> {
        let count = self.patterns.len();
        if count == 0 || count > MAX_PATTERNS {
            return Err(format!(
                "`patterns` must contain 1 to {MAX_PATTERNS} patterns, not {count}"
            ));
        }
        let parse = |(index, sent): (usize, &SentPattern)| {
            sent.parse()
                .map_err(|why| format!("patterns[{index}] {why}"))
        };
        self.patterns.iter().enumerate().map(parse).collect()
    }
}

impl SentPattern {
    fn parse(&self) -> Result<Pattern, String> {
        let value = &*self.value;
        let parsed = match &*self.r#type {
            // The service accepts only hex digits. `Pattern::hex` also accepts other notations.
            "hex" if !value.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                return Err("has a hex value with characters other than hex digits".into());
            }
            "hex" => Pattern::hex(value),
            "ascii" if !value.is_ascii() => {
                return Err("has an ascii value with non-ASCII characters; use hex".into());
            }
            "ascii" => Pattern::ascii(value),
            "wide" => Pattern::wide(value),
            other => {
                let other = quoted(other);
                return Err(format!(
                    "has the unknown type {other}; use hex, ascii or wide"
                ));
            }
        };
        parsed.map_err(|error| format!("is {error}"))
    }
}

impl Options {
    pub(super) fn filter(&self) -> Result<Filter, String> {
        if self.limit.is_some_and(|limit| limit < 0) {
            return Err("`options.limit` must not be negative".into());
        }
        fn parsed<T>(
            name: &str,
            text: Option<&String>,
            parse: fn(&str) -> Result<T, String>,
        ) -> Result<Option<T>, String> {
            text.map(|text| parse(text))
                .transpose()
                .map_err(|error| format!("options.{name} is {error}"))
        }
        Ok(Filter {
            filetypes: self.filter_filetypes.clone().unwrap_or_default(),
            min_date: parsed("min_date", self.min_date.as_ref(), date)?,
            max_date: parsed("max_date", self.max_date.as_ref(), date)?,
            min_size: parsed("min_size", self.min_size.as_ref(), size)?,
            max_size: parsed("max_size", self.max_size.as_ref(), size)?,
            limit: self.limit.and_then(|limit| usize::try_from(limit).ok()),
            own_only: self.submitted_by_customer == Some(true),
        })
    }

    /// Returns the options to repeat in the status of a job.
    pub(super) fn echo(&self) -> Value {
        let mut echo = json!(self);
        if let Some(options) = echo.as_object_mut() {
            options.retain(|_, value| !value.is_null());
        }
        echo
    }

    pub(super) fn fields(&self) -> Result<Fields, String> {
        let sent = self.filter_meta.as_deref().unwrap_or_default();
        let parse = |field: &String| match field.parse() {
            Ok(MetaField::_Other(_)) | Err(_) => Err(format!(
                "options.filter_meta has the unknown field {}; use sha256, md5, type, size, first_seen, label or family",
                quoted(field)
            )),
            Ok(field) => Ok(field),
        };
        let fields = sent.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        Ok(Fields((!fields.is_empty()).then_some(fields)))
    }
}

impl Multidownload {
    pub(super) fn hashes(&self) -> Result<Vec<Sha256>, String> {
        if self.samples.is_empty() {
            return Err("`samples` must contain at least one SHA-256".into());
        }
        hashes(&self.samples)
    }
}

fn date(text: &str) -> Result<Date, String> {
    match text.parse::<Date>() {
        Ok(date) if date.to_string() == text => Ok(date),
        _ => Err("not a date of the form YYYY/MM/DD".into()),
    }
}

/// Parses a file size. A KB is 1,024 bytes.
fn size(text: &str) -> Result<u64, String> {
    // Refuse KiB, MiB and GiB, which `FileSize` converts to bytes.
    if text.parse::<FileSize>().ok().as_ref().map(FileSize::as_str) != Some(text) {
        let says = "not a valid file size; use a size such as 128000, 1.3 KB or 8mb";
        return Err(says.into());
    }
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let power = match unit.trim_start().as_bytes().first() {
        None => return number.parse().map_err(|_| "too large".into()),
        Some(b'k' | b'K') => 1,
        Some(b'm' | b'M') => 2,
        Some(_) => 3,
    };
    // `FileSize` accepts only decimal numbers, so parsing cannot fail.
    Ok((number.parse::<f64>().unwrap_or(0.0) * 1024_f64.powi(power)) as u64)
}

/// Returns the ids of a query. The parameter `ids` may be repeated or be a comma-separated list.
/// Fails if the query has no id.
pub(super) fn ids(uri: &http::Uri) -> Result<Vec<String>, String> {
    let query = uri.query().unwrap_or_default();
    let ids: Vec<String> = form_urlencoded::parse(query.as_bytes())
        .filter(|(name, _)| name == "ids")
        .flat_map(|(_, value)| value.split(',').map(str::to_owned).collect::<Vec<_>>())
        .map(|id| id.trim().to_owned())
        .filter(|id| !id.is_empty())
        .collect();
    if ids.is_empty() {
        return Err("`ids` is missing".into());
    }
    Ok(ids)
}

/// Returns the id of a query. Fails unless the query has exactly one.
pub(super) fn id(uri: &http::Uri) -> Result<String, String> {
    <[String; 1]>::try_from(ids(uri)?)
        .map(|[id]| id)
        .map_err(|ids| format!("`ids` must contain one id, not {}", ids.len()))
}

/// Parses SHA-256 hashes and removes duplicates.
pub(super) fn hashes(texts: &[String]) -> Result<Vec<Sha256>, String> {
    let mut seen = HashSet::new();
    let mut hashes = Vec::new();
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

/// Quotes untrusted text for a message. Truncates the text after 64 characters.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(64) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_read_in_each_documented_form() {
        for (text, bytes) in [
            ("0", 0),
            ("128000", 128_000),
            ("1.3 KB", 1331),
            ("8mb", 8 << 20),
            ("2 Gb", 2 << 30),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["8 PB", "1MiB", "1.5", "18446744073709551616"] {
            let error = size(text).unwrap_err();
            assert!(error.starts_with("not a valid file size"), "{text}");
        }
    }

    #[test]
    fn a_search_has_at_most_a_hundred_patterns() {
        let asked = |count: usize| {
            let pattern = r#"{"type": "ascii", "value": "GNU"}"#;
            let json = format!(r#"{{"patterns": [{}]}}"#, vec![pattern; count].join(","));
            let search: Search = body(json.as_bytes()).unwrap();
            search.patterns().map(|patterns| patterns.len())
        };
        assert_eq!((asked(1), asked(100)), (Ok(1), Ok(100)));
        assert_eq!(
            asked(101).unwrap_err(),
            "`patterns` must contain 1 to 100 patterns, not 101"
        );
    }

    #[test]
    fn long_text_is_cut() {
        assert_eq!(quoted(&"é".repeat(64)), format!("\"{}\"", "é".repeat(64)));
        assert_eq!(quoted(&"é".repeat(65)), format!("\"{}\"…", "é".repeat(64)));
    }

    #[test]
    fn ids_are_read_in_both_forms() {
        let ids = |query: &str| ids(&format!("/x?{query}").parse().unwrap());
        assert_eq!(ids("ids=a&ids=b").unwrap(), ["a", "b"]);
        assert_eq!(ids("ids=a%2Cb&other=c").unwrap(), ["a", "b"]);
        assert_eq!(ids("ids=a,b,").unwrap(), ["a", "b"]);
        assert!(ids("id=a").is_err() && ids("ids=").is_err() && ids("").is_err());
    }

    proptest! {
        #[test]
        fn any_body_is_read_or_refused(json in r#"[{}\[\]":,a-z0-9]{0,60}"#) {
            if let Ok(search) = body::<Search>(json.as_bytes()) {
                let _ = (search.patterns(), search.options.map(|options| options.filter().is_ok()));
            }
            let _ = body::<Multidownload>(json.as_bytes()).map(|asked| asked.hashes());
        }
    }
}
