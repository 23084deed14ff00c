use serde::{Deserialize, Serialize};

use crate::endpoint::Endpoint;
use crate::operation::{JsonOperation, Operation};
use crate::request::{BuildError, RequestParts};
use crate::types::options::{filter_setters, result_setters};
use crate::types::{Json, Pattern, SearchOptions, SubmitMeta};

use super::{check_ranges, write_search};

/// Starts a job that finds samples by bytes or strings.
///
/// `POST /malquery/queries/exact-search/v1` (operation id `PostMalQueryExactSearchV1`; FalconPy:
/// `exact_search`). Needs the scope `malquery:write`. CrowdStrike does not document whether the job
/// costs quota, so the submission is retried only if it provably never reached the service, or if
/// the reply is a 401 or a rate-limit error (429). Error statuses: 400, 401, 403, 429, 500.
///
/// The reply contains the request id of the job. Poll the job with
/// [`GetRequest`](super::GetRequest).
///
/// ```
/// use malquery_proto::operations::ExactSearch;
/// use malquery_proto::types::{FileType, Pattern};
///
/// let search = ExactSearch::new([Pattern::wide("powershell")?])
///     .limit(100)
///     .filter_filetypes([FileType::PE32])
///     .min_date("2024-01-01".parse()?);
/// # Ok::<(), malquery_proto::types::ParseError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[doc(alias = "PostMalQueryExactSearchV1", alias = "exact_search")]
pub struct ExactSearch {
    #[serde(default, skip_serializing_if = "SearchOptions::is_empty")]
    options: SearchOptions,
    patterns: Vec<Pattern>,
}

impl ExactSearch {
    /// Creates a search for samples that contain all of these patterns.
    pub fn new(patterns: impl IntoIterator<Item = Pattern>) -> Self {
        Self {
            patterns: patterns.into_iter().collect(),
            options: SearchOptions::new(),
        }
    }

    /// Replaces all options.
    #[must_use]
    pub fn options(mut self, options: SearchOptions) -> Self {
        self.options = options;
        self
    }
}

result_setters!(ExactSearch, options);
filter_setters!(ExactSearch, options);
#[cfg(feature = "samples")]
crate::types::options::collectable!(ExactSearch, options);

impl Operation for ExactSearch {
    const ENDPOINT: Endpoint = Endpoint::post(
        "PostMalQueryExactSearchV1",
        "/malquery/queries/exact-search/v1",
    );

    fn encode(&self, out: &mut RequestParts) -> Result<(), BuildError> {
        if self.patterns.is_empty() {
            return Err(BuildError::NoPatterns);
        }
        let options = &self.options;
        check_ranges(options)?;
        write_search(out, self, options.limit, options.count_only, &options.other)
    }
}

impl JsonOperation for ExactSearch {
    type Meta = SubmitMeta;
    type Resource = Json;
}
