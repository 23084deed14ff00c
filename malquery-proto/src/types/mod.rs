//! The values in requests and replies.
//!
//! A [`Sha256`], a [`Pattern`] or a [`Date`] is validated once, when it is created. Building a
//! request validates limits and ranges, and fails if a required list is empty. Replies are parsed
//! leniently: unknown fields are kept in [`Extra`].

mod date;
mod envelope;
mod file_size;
mod file_type;
mod hash;
mod job;
pub(crate) mod lenient;
mod open_enum;
pub(crate) mod options;
mod parse_error;
mod pattern;
pub(crate) mod read;
mod request_id;
mod sample;
#[cfg(test)]
mod tests;
pub(crate) mod text;

pub use date::Date;
pub use envelope::{Envelope, ErrorItem, PlainMeta, ReplyMeta, SubmitMeta};
pub use file_size::FileSize;
pub use file_type::FileType;
pub use hash::{Md5, Sha1, Sha256};
pub use job::{JobMeta, JobPattern, SearchMeta, Stats};
pub use lenient::{Extra, Json, Number};
pub use open_enum::{JobStatus, Label, MetaField, PatternType, RequestType};
pub use options::SearchOptions;
pub use parse_error::ParseError;
pub use pattern::Pattern;
pub use request_id::RequestId;
pub use sample::Sample;
