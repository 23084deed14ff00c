use serde::{Deserialize, Serialize};

use crate::endpoint::{Cost, Endpoint};
use crate::operation::{JsonOperation, Operation};
use crate::request::BuildError;
use crate::request::RequestParts;
use crate::types::{Json, SearchOptions, SubmitMeta};

/// Starts a job that runs a YARA rule over the corpus.
///
/// `POST /malquery/queries/hunt/v1` (operation id `PostMalQueryHuntV1`, also known as `hunt`).
/// Scope `malquery:write`. **Costs one hunt of the monthly quota**, so it is not sent a second time unless the
/// first surely did not arrive. Errors 400, 401, 403, 429, 500.
///
/// The reply holds the id of the job; [`GetRequest`](super::GetRequest) tells when it is done.
///
/// ```
/// use malquery_proto::operations::Hunt;
/// use malquery_proto::types::SearchOptions;
///
/// let hunt = Hunt::new(r#"rule gnu { strings: $a = "GNU" condition: $a }"#)
///     .options(SearchOptions::new().limit(100));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hunt {
    #[serde(default, skip_serializing_if = "SearchOptions::is_empty")]
    options: SearchOptions,
    yara_rule: String,
}

impl Hunt {
    /// Runs this YARA rule, one for each hunt.
    pub fn new(yara_rule: impl Into<String>) -> Self {
        Self {
            yara_rule: yara_rule.into(),
            options: SearchOptions::new(),
        }
    }

    /// Narrows the hunt.
    pub fn options(mut self, options: SearchOptions) -> Self {
        self.options = options;
        self
    }

    #[cfg(all(feature = "fs", feature = "archive"))]
    pub(crate) fn options_mut(&mut self) -> &mut SearchOptions {
        &mut self.options
    }

    /// Compiles the rule here, before a hunt of the quota is spent on it.
    ///
    /// What it refuses, the service most likely refuses, too. Two things it cannot know: a module that the service
    /// has and [`Rule`](crate::yara::Rule) has not, and an identifier that the service defines. A rule that it
    /// takes can still be refused, since which version of YARA the service runs is not known.
    ///
    /// ```
    /// use malquery_proto::operations::Hunt;
    ///
    /// let error = Hunt::new("rule gnu { condition: filesise < 5 }").check().unwrap_err();
    /// assert_eq!((error.line(), error.column()), (1, 23));
    /// ```
    ///
    /// # Errors
    /// Says what is wrong, shows the line and marks the place.
    #[cfg(feature = "yara")]
    pub fn check(&self) -> Result<(), crate::yara::RuleError> {
        crate::yara::Rule::compile(&self.yara_rule).map(drop)
    }
}

impl Operation for Hunt {
    const ENDPOINT: Endpoint = Endpoint::post("PostMalQueryHuntV1", "/malquery/queries/hunt/v1");

    fn encode(&self, out: &mut RequestParts) -> Result<(), BuildError> {
        if self.yara_rule.trim().is_empty() {
            return Err(BuildError::EmptyRule);
        }
        self.options.check()?;
        out.json(self)
    }

    fn cost(&self) -> Cost {
        Cost::hunts(1)
    }
}

impl JsonOperation for Hunt {
    type Meta = SubmitMeta;
    type Resource = Json;
}
