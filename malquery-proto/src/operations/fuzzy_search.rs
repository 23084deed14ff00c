use serde::{Deserialize, Serialize};

use crate::endpoint::Endpoint;
use crate::operation::{JsonOperation, Operation};
use crate::request::{BuildError, RequestParts};
use crate::types::options::{Others, result_setters};
use crate::types::{Envelope, MetaField, Pattern, Sample, SearchMeta};

use super::write_search;

/// Finds samples by bytes or strings. The search is faster than an exact search, but may return
/// false positives.
///
/// `POST /malquery/combined/fuzzy-search/v1` (operation id `PostMalQueryFuzzySearchV1`; FalconPy:
/// `fuzzy_search`). Needs the scope `malquery:write`. No cost is documented. Error statuses: 400,
/// 401, 403, 429, 500.
///
/// The search does not start a job: the reply itself contains the results. A search may take more
/// than 40 seconds.
///
/// ```
/// use malquery_proto::operations::FuzzySearch;
/// use malquery_proto::types::{MetaField, Pattern};
///
/// let search = FuzzySearch::new([Pattern::ascii("CreateRemoteThread")?, Pattern::hex("89 48 20 8b 48")?])
///     .filter_meta([MetaField::Sha256, MetaField::Label])
///     .limit(10);
/// # Ok::<(), malquery_proto::types::ParseError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[doc(alias = "PostMalQueryFuzzySearchV1", alias = "fuzzy_search")]
pub struct FuzzySearch {
    #[serde(default, skip_serializing_if = "Options::is_default")]
    options: Options,
    patterns: Vec<Pattern>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    filter_meta: Vec<MetaField>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u32>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    count_only: bool,
    #[serde(skip_serializing_if = "Others::is_empty")]
    other: Others,
}

impl Options {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl FuzzySearch {
    /// Creates a search for samples that contain all of these patterns.
    pub fn new(patterns: impl IntoIterator<Item = Pattern>) -> Self {
        Self {
            options: Options::default(),
            patterns: patterns.into_iter().collect(),
        }
    }
}

result_setters!(FuzzySearch, options);
#[cfg(feature = "samples")]
crate::types::options::collectable!(FuzzySearch, options);

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
        let options = &self.options;
        write_search(out, self, options.limit, options.count_only, &options.other)
    }
}

impl JsonOperation for FuzzySearch {
    type Meta = SearchMeta;
    type Resource = Sample;

    fn accept(&self, reply: &Envelope<SearchMeta, Sample>) -> Result<(), String> {
        let has_outcome = reply.meta.stats.is_some() || reply.meta.status.is_some();
        match reply.has_resources() || has_outcome || !reply.errors.is_empty() {
            true => Ok(()),
            false => Err("it has no `resources`".into()),
        }
    }
}
