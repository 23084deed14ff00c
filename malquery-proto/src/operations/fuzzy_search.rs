use serde::Serialize;

use crate::endpoint::Endpoint;
use crate::operation::{JsonOperation, Operation};
use crate::request::BuildError;
use crate::request::RequestParts;
use crate::types::options::check_limit;
use crate::types::{MetaField, Pattern, Sample, SearchMeta};

/// Searches fast for samples with some bytes or strings, at the price of more false positives.
///
/// `POST /malquery/combined/fuzzy-search/v1` (operation id `PostMalQueryFuzzySearchV1`, also known as
/// `fuzzy_search`). Scope `malquery:write`. No cost in quota is documented.
/// The reply holds the results, so this is slow for a single request: wait for more than 40 seconds.
/// Errors 400, 401, 403, 429, 500.
///
/// ```
/// use malquery_proto::operations::FuzzySearch;
/// use malquery_proto::types::{MetaField, Pattern};
///
/// let search = FuzzySearch::new([Pattern::ascii("CreateRemoteThread")?, Pattern::hex("8948208b48")?])
///     .filter_meta([MetaField::Sha256, MetaField::Label])
///     .limit(10);
/// # Ok::<(), malquery_proto::types::ParseError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FuzzySearch {
    #[serde(skip_serializing_if = "Options::is_default")]
    options: Options,
    patterns: Vec<Pattern>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
struct Options {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    filter_meta: Vec<MetaField>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u32>,
}

impl Options {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl FuzzySearch {
    /// Finds samples that hold all of these patterns.
    pub fn new(patterns: impl IntoIterator<Item = Pattern>) -> Self {
        Self {
            options: Options::default(),
            patterns: patterns.into_iter().collect(),
        }
    }

    /// Returns at most this many results, at least 1. The service's own maximum is not documented.
    pub fn limit(mut self, limit: u32) -> Self {
        self.options.limit = Some(limit);
        self
    }

    /// Returns only these fields of each sample.
    pub fn filter_meta(mut self, fields: impl IntoIterator<Item = MetaField>) -> Self {
        self.options.filter_meta = fields.into_iter().collect();
        self
    }
}

impl Operation for FuzzySearch {
    const ENDPOINT: Endpoint = Endpoint::post(
        "PostMalQueryFuzzySearchV1",
        "/malquery/combined/fuzzy-search/v1",
    )
    .safe();

    fn encode(&self, out: &mut RequestParts) -> Result<(), BuildError> {
        if self.patterns.is_empty() {
            return Err(BuildError::NoPatterns);
        }
        check_limit(self.options.limit)?;
        out.json(self)
    }
}

impl JsonOperation for FuzzySearch {
    type Meta = SearchMeta;
    type Resource = Sample;
}
