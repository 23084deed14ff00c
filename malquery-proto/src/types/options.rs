use serde::{Deserialize, Serialize};

use super::{Date, FileSize, FileType, MetaField};
use crate::request::BuildError;

/// What narrows an exact search or a hunt. What is not set is not sent.
///
/// ```
/// use malquery_proto::types::{FileType, MetaField, SearchOptions};
///
/// let options = SearchOptions::new()
///     .limit(100)
///     .filter_meta([MetaField::Sha256, MetaField::Label])
///     .filter_filetypes([FileType::PE32, FileType::PE64])
///     .min_date("2024/01/01".parse()?)
///     .max_size("8mb".parse()?);
/// # Ok::<(), malquery_proto::types::ParseError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[must_use]
pub struct SearchOptions {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    filter_filetypes: Vec<FileType>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    filter_meta: Vec<MetaField>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_date: Option<Date>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_date: Option<Date>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_size: Option<FileSize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_size: Option<FileSize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    app: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    submitted_by_customer: Option<bool>,
}

impl SearchOptions {
    /// No option set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns at most this many results, at least 1. The service's own maximum is not documented.
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Returns only these fields of each sample.
    pub fn filter_meta(mut self, fields: impl IntoIterator<Item = MetaField>) -> Self {
        self.filter_meta = fields.into_iter().collect();
        self
    }

    /// Finds only files of these types.
    pub fn filter_filetypes(mut self, types: impl IntoIterator<Item = FileType>) -> Self {
        self.filter_filetypes = types.into_iter().collect();
        self
    }

    /// Finds only samples first seen on this day or later.
    pub fn min_date(mut self, date: Date) -> Self {
        self.min_date = Some(date);
        self
    }

    /// Finds only samples first seen on this day or earlier.
    pub fn max_date(mut self, date: Date) -> Self {
        self.max_date = Some(date);
        self
    }

    /// Finds only files of this size or larger.
    pub fn min_size(mut self, size: FileSize) -> Self {
        self.min_size = Some(size);
        self
    }

    /// Finds only files of this size or smaller.
    pub fn max_size(mut self, size: FileSize) -> Self {
        self.max_size = Some(size);
        self
    }

    /// The `app` option, new in 2026 and not documented further.
    pub fn app(mut self, app: impl Into<String>) -> Self {
        self.app = Some(app.into());
        self
    }

    /// Finds only samples that your organisation submitted, or only those it did not.
    pub fn submitted_by_customer(mut self, submitted: bool) -> Self {
        self.submitted_by_customer = Some(submitted);
        self
    }

    /// Refuses what cannot find anything.
    pub(crate) fn check(&self) -> Result<(), BuildError> {
        check_limit(self.limit)?;
        if let (Some(min), Some(max)) = (self.min_date, self.max_date)
            && min > max
        {
            return Err(BuildError::EmptyRange {
                what: "date",
                min: min.to_string(),
                max: max.to_string(),
            });
        }
        if let (Some(min), Some(max)) = (&self.min_size, &self.max_size)
            && min.surely_exceeds(max)
        {
            return Err(BuildError::EmptyRange {
                what: "size",
                min: min.to_string(),
                max: max.to_string(),
            });
        }
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// How many results are wanted at most.
    #[cfg(all(feature = "fs", feature = "archive"))]
    pub(crate) fn most(&self) -> Option<u32> {
        self.limit
    }

    /// Has every result say its SHA-256, whatever fields were selected.
    #[cfg(all(feature = "fs", feature = "archive"))]
    pub(crate) fn want_sha256(&mut self) {
        if !self.filter_meta.is_empty() && !self.filter_meta.contains(&MetaField::Sha256) {
            self.filter_meta.push(MetaField::Sha256);
        }
    }
}

pub(crate) fn check_limit(limit: Option<u32>) -> Result<(), BuildError> {
    if limit == Some(0) {
        Err(BuildError::ZeroLimit)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_without_values_is_refused() {
        let date = |text: &str| text.parse::<Date>().unwrap();
        let refused = |options: SearchOptions| options.check().unwrap_err().to_string();
        assert_eq!(
            refused(
                SearchOptions::new()
                    .min_date(date("2024/01/02"))
                    .max_date(date("2024/01/01"))
            ),
            "the smallest date 2024/01/02 is above the largest 2024/01/01, so nothing can match"
        );
        assert_eq!(
            refused(
                SearchOptions::new()
                    .min_size("8mb".parse::<FileSize>().unwrap())
                    .max_size(FileSize::bytes(1000))
            ),
            "the smallest size 8mb is above the largest 1000, so nothing can match"
        );
        assert_eq!(
            refused(SearchOptions::new().limit(0)),
            "a limit of 0 returns nothing; give at least 1"
        );
        let day = date("2024/01/01");
        assert!(
            SearchOptions::new()
                .min_date(day)
                .max_date(day)
                .min_size(FileSize::bytes(5))
                .max_size(FileSize::bytes(5))
                .limit(1)
                .check()
                .is_ok()
        );
    }

    #[test]
    #[cfg(all(feature = "fs", feature = "archive"))]
    fn a_collection_asks_for_the_hash_whatever_was_selected() {
        let selected = |fields: &[MetaField]| {
            let mut options = SearchOptions::new()
                .filter_meta(fields.iter().cloned())
                .limit(7);
            options.want_sha256();
            assert_eq!(options.most(), Some(7));
            options.filter_meta
        };
        // nothing selected is everything
        assert_eq!(selected(&[]), []);
        assert_eq!(
            selected(&[MetaField::Label]),
            [MetaField::Label, MetaField::Sha256]
        );
        assert_eq!(selected(&[MetaField::Sha256]), [MetaField::Sha256]);
    }

    #[test]
    fn only_what_was_set_is_written() {
        assert!(SearchOptions::new().is_empty());
        for (options, written) in [
            (
                SearchOptions::new().limit(3).app("x"),
                r#"{"limit":3,"app":"x"}"#,
            ),
            (
                SearchOptions::new().limit(3).submitted_by_customer(false),
                r#"{"limit":3,"submitted_by_customer":false}"#,
            ),
            (
                SearchOptions::new()
                    .limit(3)
                    .filter_meta([MetaField::Label]),
                r#"{"filter_meta":["label"],"limit":3}"#,
            ),
            (
                SearchOptions::new()
                    .limit(3)
                    .filter_filetypes([FileType::PE32]),
                r#"{"filter_filetypes":["pe32"],"limit":3}"#,
            ),
        ] {
            assert!(!options.is_empty());
            assert_eq!(serde_json::to_string(&options).unwrap(), written);
        }
    }
}
