//! The nine operations of MalQuery, one file each.
//!
//! | operation | asks for | costs |
//! |---|---|---|
//! | [`GetQuotas`] | the monthly quotas | nothing |
//! | [`FuzzySearch`] | samples with some bytes or strings, fast and with false positives | nothing that is documented |
//! | [`ExactSearch`] | a job that finds samples with some bytes or strings | not documented |
//! | [`Hunt`] | a job that runs a YARA rule | one hunt |
//! | [`GetRequest`] | where a job is, and its results | nothing |
//! | [`GetMetadata`] | what is known of samples | nothing |
//! | [`GetDownload`] | a sample | one download |
//! | [`SamplesMultidownload`] | a job that makes an archive of samples | one download for each sample |
//! | [`GetSamples`] | that archive | nothing that is documented |
//!
//! There is no pagination. All of them need a bearer token with the scope `malquery:read` (the GETs) or
//! `malquery:write` (the POSTs), and all may answer 401, 403, 429 and 500, and all but
//! [`GetSamples`] 400.

mod download;
mod exact_search;
mod fuzzy_search;
mod hunt;
mod metadata;
mod quotas;
mod request;
mod samples_fetch;
mod samples_multidownload;

pub use download::GetDownload;
pub use exact_search::ExactSearch;
pub use fuzzy_search::FuzzySearch;
pub use hunt::Hunt;
pub use metadata::GetMetadata;
pub use quotas::{GetQuotas, Quotas, UserCount};
pub use request::GetRequest;
pub use samples_fetch::GetSamples;
pub use samples_multidownload::SamplesMultidownload;
