//! The nine operations of MalQuery.
//!
//! | operation | purpose | cost |
//! |---|---|---|
//! | [`GetQuotas`] | returns the monthly quotas and their use | none |
//! | [`FuzzySearch`] | finds samples by bytes or strings. It is faster than an exact search, but may return false positives | not documented |
//! | [`ExactSearch`] | starts a job that finds samples by bytes or strings | not documented |
//! | [`Hunt`] | starts a job that finds samples matching a YARA rule | one hunt |
//! | [`GetRequest`] | returns the status of a job, and its results | none |
//! | [`GetMetadata`] | returns the metadata of samples | none |
//! | [`GetDownload`] | downloads a sample | one download |
//! | [`SamplesMultidownload`] | starts a job that creates an archive of samples | one download for each sample |
//! | [`GetSamples`] | downloads the archive of a multi-download | not documented |
//!
//! No operation is paginated. The API client needs the scope `malquery:read` for GET operations,
//! and `malquery:write` for POST operations. All operations may return the status 401, 403, 429 or
//! 500, and all except [`GetSamples`] may also return 400.

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

/// Fails if the minimum date or size is certainly greater than the maximum.
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

/// The names that [`option`](SearchOptions::option) cannot set: the empty name, `other`, and the
/// names of options with a setter.
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

/// Checks the limit and the names in `other`, and writes the body of a search.
fn write_search(
    out: &mut RequestParts,
    search: &impl Serialize,
    limit: Option<u32>,
    count_only: bool,
    other: &Others,
) -> Result<(), BuildError> {
    if limit.is_some() && count_only {
        let error = "`limit` and `count_only` cannot be combined";
        return Err(BuildError::Malformed(error.into()));
    }
    match limit {
        Some(0) => return Err(BuildError::ZeroLimit),
        // The service accepts an int32.
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
    // `other` and `count_only` exist only in this crate's format: convert them to the service's
    // options.
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
                    "the option {name:?} cannot be set with `option`; use its setter, if it has one"
                )));
            }
            options.insert(name.clone(), value.clone());
        }
    }
    out.json(&body)
}
