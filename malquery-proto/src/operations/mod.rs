//! The nine operations of MalQuery, one file each.
//!
//! | operation | asks for | costs |
//! |---|---|---|
//! | [`GetQuotas`] | the monthly quotas | nothing |
//! | [`FuzzySearch`] | samples with some bytes or strings, fast and with false positives | nothing that is documented |
//! | [`ExactSearch`] | a job that finds samples with some bytes or strings | not documented |
//! | [`Hunt`] | a job that runs a YARA rule | one hunt |
//! | [`GetRequest`] | the status of a job, and its results | nothing |
//! | [`GetMetadata`] | what MalQuery knows about samples | nothing |
//! | [`GetDownload`] | a sample | one download |
//! | [`SamplesMultidownload`] | a job that makes an archive of samples | one download for each sample |
//! | [`GetSamples`] | that archive | nothing that is documented |
//!
//! None of them has pages. Each needs a bearer token with the scope `malquery:read` (the GETs) or
//! `malquery:write` (the POSTs). Each may reply with 401, 403, 429 and 500, and each except
//! [`GetSamples`] with 400.

mod download;
mod exact_search;
mod fuzzy_search;
mod hunt;
mod metadata;
mod quotas;
mod request;
mod samples_fetch;
mod samples_multidownload;
#[cfg(test)]
mod tests;

pub use download::GetDownload;
pub use exact_search::ExactSearch;
pub use fuzzy_search::FuzzySearch;
pub use hunt::Hunt;
pub use metadata::GetMetadata;
pub use quotas::{GetQuotas, Quotas, UserCount};
pub use request::GetRequest;
pub use samples_fetch::GetSamples;
pub use samples_multidownload::SamplesMultidownload;

use serde::Serialize;
use serde_json::Value;

use crate::request::{BuildError, RequestParts};
use crate::types::SearchOptions;
use crate::types::options::Others;

/// Refuses a range in which nothing can be.
fn check_ranges(options: &SearchOptions) -> Result<(), BuildError> {
    let refuse = |what, min: &dyn ToString, max: &dyn ToString| {
        let (min, max) = (min.to_string(), max.to_string());
        Err(BuildError::EmptyRange { what, min, max })
    };
    match (options.min_date, options.max_date) {
        (Some(min), Some(max)) if min > max => return refuse("date", &min, &max),
        _ => {}
    }
    match (&options.min_size, &options.max_size) {
        (Some(min), Some(max)) if min.surely_exceeds(max) => refuse("size", min, max),
        _ => Ok(()),
    }
}

/// The options that have setters, which check what they send.
const SETTERS: [&str; 12] = [
    "",
    "app",
    "count_only",
    "filter_filetypes",
    "filter_meta",
    "limit",
    "max_date",
    "max_size",
    "min_date",
    "min_size",
    "other",
    "submitted_by_customer",
];

/// Writes the body of a search.
fn write_search(
    out: &mut RequestParts,
    search: &impl Serialize,
    limit: Option<u32>,
    count_only: bool,
    other: &Others,
) -> Result<(), BuildError> {
    if limit.is_some() && count_only {
        let error = "a limit and count_only exclude each other";
        return Err(BuildError::Malformed(error.into()));
    }
    match limit {
        Some(0) => return Err(BuildError::ZeroLimit),
        // The service reads an int32.
        Some(limit) if i32::try_from(limit).is_err() => {
            return Err(BuildError::LimitTooLarge(limit));
        }
        _ => {}
    }
    let other = other
        .values()
        .map_err(|error| BuildError::Malformed(error.to_string()))?;
    if !count_only && other.is_empty() {
        return out.json(search);
    }
    // What is stored apart is sent with the other options.
    let mut body =
        serde_json::to_value(search).map_err(|error| BuildError::Malformed(error.to_string()))?;
    if let Some(Value::Object(options)) = body.get_mut("options") {
        options.remove("other");
        if options.remove("count_only").is_some() {
            options.insert("limit".into(), 0.into());
        }
        for (name, value) in other {
            if SETTERS.contains(&&**name) {
                return Err(BuildError::Malformed(format!(
                    "the option {name:?} has a setter; use that"
                )));
            }
            if options.insert(name.clone(), value.clone()).is_some() {
                return Err(BuildError::Malformed(format!(
                    "the option {name:?} is set twice"
                )));
            }
        }
    }
    out.json(&body)
}
