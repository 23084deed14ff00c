use serde::{Deserialize, Serialize};

use crate::endpoint::Endpoint;
use crate::operation::{JsonOperation, Operation};
use crate::request::BuildError;
use crate::request::RequestParts;
use crate::types::{Json, Pattern, SearchOptions, SubmitMeta};

/// Starts a job that finds samples with some bytes or strings.
///
/// `POST /malquery/queries/exact-search/v1` (operation id `PostMalQueryExactSearchV1`, also known as
/// `exact_search`). Scope `malquery:write`. Whether it costs quota is not documented, so it is not sent a
/// second time unless the first surely did not arrive. Errors 400, 401, 403, 429, 500.
///
/// The reply holds the id of the job; [`GetRequest`](super::GetRequest) tells when it is done.
///
/// ```
/// use malquery_proto::operations::ExactSearch;
/// use malquery_proto::types::{FileType, Pattern, SearchOptions};
///
/// let search = ExactSearch::new([Pattern::wide("powershell")?])
///     .options(SearchOptions::new().limit(100).filter_filetypes([FileType::PE32]));
/// # Ok::<(), malquery_proto::types::ParseError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExactSearch {
    #[serde(default, skip_serializing_if = "SearchOptions::is_empty")]
    options: SearchOptions,
    patterns: Vec<Pattern>,
}

impl ExactSearch {
    /// Finds samples that hold all of these patterns.
    pub fn new(patterns: impl IntoIterator<Item = Pattern>) -> Self {
        Self {
            patterns: patterns.into_iter().collect(),
            options: SearchOptions::new(),
        }
    }

    /// Narrows the search.
    pub fn options(mut self, options: SearchOptions) -> Self {
        self.options = options;
        self
    }

    #[cfg(all(feature = "fs", feature = "archive"))]
    pub(crate) fn options_mut(&mut self) -> &mut SearchOptions {
        &mut self.options
    }
}

impl Operation for ExactSearch {
    const ENDPOINT: Endpoint = Endpoint::post(
        "PostMalQueryExactSearchV1",
        "/malquery/queries/exact-search/v1",
    );

    fn encode(&self, out: &mut RequestParts) -> Result<(), BuildError> {
        if self.patterns.is_empty() {
            return Err(BuildError::NoPatterns);
        }
        self.options.check()?;
        out.json(self)
    }
}

impl JsonOperation for ExactSearch {
    type Meta = SubmitMeta;
    type Resource = Json;
}
