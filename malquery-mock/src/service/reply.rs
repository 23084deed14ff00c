//! The JSON of replies, which follows MalQuery's schemas.

use malquery_proto::types::{Label, MetaField, Pattern, PatternType};
use serde_json::{Value, json};

use super::ask::Fields;
use super::corpus::{Entry, Found, Skipped};
use crate::digest;

/// The maximum number of skipped samples that a reply lists.
const MAX_SKIPPED: usize = 10;

pub(super) fn sample(entry: &Entry, fields: &Fields) -> Value {
    let mut sample = json!({});
    let mut set = |wanted: bool, name: &str, value: Value| {
        if wanted {
            sample[name] = value;
        }
    };
    let has = |field| fields.has(field);
    set(has(MetaField::Sha256), "sha256", json!(entry.hashes.sha256));
    set(fields.is_all(), "sha1", json!(entry.hashes.sha1));
    set(has(MetaField::Md5), "md5", json!(entry.hashes.md5));
    // The schema allows only 32-bit sizes, but the field is optional.
    if let Ok(size) = i32::try_from(entry.size()) {
        set(has(MetaField::Size), "filesize", size.into());
    }
    set(has(MetaField::Type), "filetype", entry.filetype.into());
    let first_seen = json!(entry.first_seen);
    set(has(MetaField::FirstSeen), "first_seen", first_seen);
    let label = entry.label.as_ref().unwrap_or(&Label::Unknown).as_str();
    set(has(MetaField::Label), "label", label.into());
    if let Some(family) = &entry.family {
        set(has(MetaField::Family), "family", family.as_str().into());
    }
    sample
}

/// Returns the statistics of a search. The counts by label cover the returned samples. If `fields`
/// omits the label, all of them count as unknown.
pub(super) fn stats(found: &Found, fields: &Fields, total: usize) -> Value {
    let [mut clean, mut malware, mut pua, mut unknown] = [0; 4];
    for entry in &found.entries {
        *match (entry.label.as_ref()).filter(|_| fields.has(MetaField::Label)) {
            Some(Label::Clean) => &mut clean,
            Some(Label::Malware | Label::Malicious) => &mut malware,
            Some(Label::Unwanted) => &mut pua,
            Some(other) if other.as_str().eq_ignore_ascii_case("pua") => &mut pua,
            _ => &mut unknown,
        } += 1;
    }
    json!({
        "clean_count": clean,
        "malware_count": malware,
        "pua_count": pua,
        "total_count": total,
        "unknown_count": unknown,
    })
}

/// Lists up to [`MAX_SKIPPED`] skipped samples in the `errors` of the reply.
pub(super) fn add_skipped(document: &mut Value, skipped: &[Skipped]) {
    let error = |file| json!({"code": 500, "message": format!("not searched: {file}")});
    if !skipped.is_empty() {
        document["errors"] = skipped.iter().take(MAX_SKIPPED).map(error).collect();
    }
}

/// Returns a YARA rule for the patterns, like the rules that MalQuery generates.
pub(super) fn rule_of(patterns: &[Pattern]) -> String {
    let string = |(number, pattern): (usize, &Pattern)| {
        let text = pattern.value();
        let kind = pattern.pattern_type();
        if *kind == PatternType::Hex || !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            format!("    $p{number} = {{ {} }}\n", digest::hex(pattern.bytes()))
        } else {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"");
            format!("    $p{number} = \"{text}\" {kind}\n")
        }
    };
    let strings: String = patterns.iter().enumerate().map(string).collect();
    format!("rule search\n{{\n  strings:\n{strings}  condition:\n    all of them\n}}\n")
}
