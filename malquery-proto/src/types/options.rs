use std::collections::BTreeMap;

use serde::ser::{Error, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Date, FileSize, FileType, MetaField, ParseError};

/// The options of an exact search or a hunt. Only options that you set are sent.
///
/// [`Hunt`](crate::operations::Hunt) and [`ExactSearch`](crate::operations::ExactSearch) have the
/// same setters as this type.
///
/// ```
/// use malquery_proto::types::{FileType, MetaField, SearchOptions};
///
/// let options = SearchOptions::new()
///     .limit(100)
///     .filter_meta([MetaField::Sha256, MetaField::Label])
///     .filter_filetypes([FileType::PE32, FileType::PE64])
///     .min_date("2024-01-01".parse()?)
///     .max_size("8mb".parse()?);
///
/// // A misspelled limit must not become "no limit".
/// let error = serde_json::from_str::<SearchOptions>(r#"{"limt": 100}"#).unwrap_err();
/// assert!(error.to_string().starts_with("unknown field `limt`, expected one of `filter_filetypes`"));
/// # Ok::<(), malquery_proto::types::ParseError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SearchOptions {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) filter_filetypes: Vec<FileType>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) filter_meta: Vec<MetaField>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<u32>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) count_only: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) min_date: Option<Date>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_date: Option<Date>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) min_size: Option<FileSize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_size: Option<FileSize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) app: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) submitted_by_customer: Option<bool>,
    #[serde(skip_serializing_if = "Others::is_empty")]
    pub(crate) other: Others,
}

impl SearchOptions {
    /// Creates an empty set of options.
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Options that this crate does not know. They are stored in a separate map, so that a misspelled
/// option in a serialized search is rejected.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(crate) struct Others {
    values: BTreeMap<String, Value>,
    /// The options whose last value could not be serialized as JSON, with the errors.
    #[serde(skip)]
    refused: BTreeMap<String, ParseError>,
}

impl Others {
    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty() && self.refused.is_empty()
    }

    pub(crate) fn set(&mut self, name: String, value: impl Serialize) {
        match serde_json::to_value(value) {
            Ok(value) => {
                self.refused.remove(&name);
                self.values.insert(name, value);
            }
            Err(error) => {
                let why = format!("the value of {name:?} cannot be serialized as JSON: {error}");
                self.refused
                    .insert(name, ParseError::new("a valid option", why));
            }
        }
    }

    /// Returns the options. Fails if the last value of an option could not be serialized as JSON.
    pub(crate) fn values(&self) -> Result<&BTreeMap<String, Value>, &ParseError> {
        self.refused.values().next().map_or(Ok(&self.values), Err)
    }
}

impl Serialize for Others {
    /// Fails if [`Others::values`] fails, so that no option is lost.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.values().map_err(Error::custom)?.serialize(serializer)
    }
}

/// Implements the setters that all searches and hunts have. The options are in the field
/// `$options`, or in the type itself.
macro_rules! result_setters {
    ($name:ident $(, $options:ident)?) => {
        impl $name {
            /// Sets the maximum number of results: 1 to 2,147,483,647. CrowdStrike does not
            /// document whether the service has a lower maximum.
            ///
            /// A request with a limit outside this range fails before it is sent. To request only
            /// the number of matches, use [`count_only`](Self::count_only).
            #[must_use]
            pub fn limit(mut self, limit: u32) -> Self {
                let options = &mut self$(.$options)?;
                (options.limit, options.count_only) = (Some(limit), false);
                self
            }

            /// Requests only the number of matches, by sending a limit of 0. Replaces any limit.
            ///
            /// CrowdStrike does not document a limit of 0. Such a request may cost as much quota as
            /// a request for results.
            #[must_use]
            pub fn count_only(mut self) -> Self {
                let options = &mut self$(.$options)?;
                (options.limit, options.count_only) = (None, true);
                self
            }

            /// Selects the fields to return for each sample. If you select fields and leave out
            /// [`MetaField::Label`]($crate::types::MetaField::Label), the service counts every
            /// result as unknown.
            #[must_use]
            pub fn filter_meta(
                mut self,
                fields: impl IntoIterator<Item = $crate::types::MetaField>,
            ) -> Self {
                self$(.$options)?.filter_meta = fields.into_iter().collect();
                self
            }

            /// Sets an option that this crate does not know.
            ///
            /// The request fails before it is sent if `SearchOptions` has a setter for the option,
            /// if the name is empty or `other`, or if the value cannot be serialized as JSON. In
            /// the last case, serializing the options also fails.
            #[must_use]
            pub fn option(mut self, name: impl Into<String>, value: impl serde::Serialize) -> Self {
                self$(.$options)?.other.set(name.into(), value);
                self
            }
        }
    };
}

/// Implements the setters that exact searches and hunts have, but fuzzy searches do not.
macro_rules! filter_setters {
    ($name:ident $(, $options:ident)?) => {
        impl $name {
            /// Limits the search to samples of these file types, unless the list is empty.
            #[must_use]
            pub fn filter_filetypes(
                mut self,
                types: impl IntoIterator<Item = $crate::types::FileType>,
            ) -> Self {
                self$(.$options)?.filter_filetypes = types.into_iter().collect();
                self
            }

            /// Limits the search to samples first seen after this date. CrowdStrike does not
            /// document whether the day itself is included.
            #[must_use]
            pub fn min_date(mut self, date: $crate::types::Date) -> Self {
                self$(.$options)?.min_date = Some(date);
                self
            }

            /// Limits the search to samples first seen before this date. CrowdStrike does not
            /// document whether the day itself is included.
            #[must_use]
            pub fn max_date(mut self, date: $crate::types::Date) -> Self {
                self$(.$options)?.max_date = Some(date);
                self
            }

            /// Limits the search to samples of this size or larger.
            #[must_use]
            pub fn min_size(mut self, size: $crate::types::FileSize) -> Self {
                self$(.$options)?.min_size = Some(size);
                self
            }

            /// Limits the search to samples of this size or smaller.
            #[must_use]
            pub fn max_size(mut self, size: $crate::types::FileSize) -> Self {
                self$(.$options)?.max_size = Some(size);
                self
            }

            /// Sets the option `app`. It was added in 2026, and CrowdStrike does not document its
            /// meaning.
            #[must_use]
            pub fn app(mut self, app: impl Into<String>) -> Self {
                self$(.$options)?.app = Some(app.into());
                self
            }

            /// If `true`, limits the search to samples that your organization submitted.
            #[must_use]
            pub fn submitted_by_customer(mut self, submitted: bool) -> Self {
                self$(.$options)?.submitted_by_customer = Some(submitted);
                self
            }
        }
    };
}

/// Implements the methods that [`Collect`](crate::client::Collect) needs for a search.
#[cfg(feature = "samples")]
macro_rules! collectable {
    ($name:ident $(, $options:ident)?) => {
        impl $name {
            /// Returns the maximum number of results: 0 if only a count is requested, or else the
            /// limit, if one is set.
            pub(crate) fn most(&self) -> Option<u32> {
                let options = &self$(.$options)?;
                if options.count_only { Some(0) } else { options.limit }
            }

            /// Makes sure that the selected fields, if any, include the SHA-256.
            pub(crate) fn want_sha256(&mut self) {
                let fields = &mut self$(.$options)?.filter_meta;
                if !fields.is_empty() && !fields.contains(&$crate::types::MetaField::Sha256) {
                    fields.push($crate::types::MetaField::Sha256);
                }
            }
        }
    };
}

#[cfg(feature = "samples")]
pub(crate) use collectable;
pub(crate) use {filter_setters, result_setters};

result_setters!(SearchOptions);
filter_setters!(SearchOptions);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_set_is_written_and_read() {
        assert!(SearchOptions::new().is_empty());
        let options = || SearchOptions::new().limit(3);
        for (options, written) in [
            (options().app("x"), r#"{"limit":3,"app":"x"}"#),
            (
                options().submitted_by_customer(false),
                r#"{"limit":3,"submitted_by_customer":false}"#,
            ),
            (
                options().filter_meta([MetaField::Label]),
                r#"{"filter_meta":["label"],"limit":3}"#,
            ),
            (
                options().filter_filetypes([FileType::PE32]),
                r#"{"filter_filetypes":["pe32"],"limit":3}"#,
            ),
            (options().count_only(), r#"{"count_only":true}"#),
            (
                options().option("new", [1]).option("b", true),
                r#"{"limit":3,"other":{"b":true,"new":[1]}}"#,
            ),
        ] {
            assert!(!options.is_empty());
            assert_eq!(serde_json::to_string(&options).unwrap(), written);
            assert_eq!(
                serde_json::from_str::<SearchOptions>(written).unwrap(),
                options
            );
        }
    }

    #[test]
    fn an_option_without_json_is_never_lost() {
        let unwritable = BTreeMap::from([((), 1)]);
        let options = SearchOptions::new().option("new", &unwritable);
        assert!(!options.is_empty());
        let error = serde_json::to_string(&options).unwrap_err().to_string();
        assert!(error.contains(r#"the value of "new" cannot be"#), "{error}");
        let options = options.option("new", 1).option("old", 2);
        let written = r#"{"other":{"new":1,"old":2}}"#;
        assert_eq!(serde_json::to_string(&options).unwrap(), written);
        let options = options.option("old", unwritable);
        assert!(serde_json::to_string(&options).is_err());
    }
}
