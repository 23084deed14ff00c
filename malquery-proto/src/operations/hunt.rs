use serde::{Deserialize, Serialize};

use crate::endpoint::{Cost, Endpoint};
use crate::operation::{JsonOperation, Operation};
use crate::request::{BuildError, RequestParts};
use crate::types::options::{filter_setters, result_setters};
use crate::types::{Json, SearchOptions, SubmitMeta};

use super::{check_ranges, write_search};

/// Starts a job that finds samples matching a YARA rule.
///
/// `POST /malquery/queries/hunt/v1` (operation id `PostMalQueryHuntV1`; FalconPy: `hunt`). Needs
/// the scope `malquery:write`. **Costs one hunt from the monthly quota**, so the request is retried
/// only if it provably never reached the service, or if the reply is a 401 or a rate-limit error
/// (429). Error statuses: 400, 401, 403, 429, 500.
///
/// The reply contains the request id of the job. Poll the job with
/// [`GetRequest`](super::GetRequest).
///
/// ```
/// use malquery_proto::operations::Hunt;
/// use malquery_proto::types::{Date, MetaField};
///
/// let hunt = Hunt::new(r#"rule gnu { strings: $a = "GNU" condition: $a }"#)
///     .limit(10)
///     .filter_meta([MetaField::Sha256, MetaField::Label])
///     .min_date("2024-01-01".parse::<Date>()?)
///     .max_size("1MiB".parse()?)
///     .option("a_future_option", true);
///
/// // A hunt can be stored as JSON. Unknown keys are rejected.
/// let stored = serde_json::to_string(&hunt).unwrap();
/// assert_eq!(serde_json::from_str::<Hunt>(&stored).unwrap(), hunt);
/// assert!(serde_json::from_str::<Hunt>(&stored.replace("limit", "limt")).is_err());
/// # Ok::<(), malquery_proto::types::ParseError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[doc(alias = "PostMalQueryHuntV1", alias = "hunt")]
pub struct Hunt {
    #[serde(default, skip_serializing_if = "SearchOptions::is_empty")]
    options: SearchOptions,
    yara_rule: String,
}

impl Hunt {
    /// Creates a hunt with this YARA rule. Use a separate hunt for each rule.
    pub fn new(yara_rule: impl Into<String>) -> Self {
        Self {
            yara_rule: yara_rule.into(),
            options: SearchOptions::new(),
        }
    }

    /// Replaces all options.
    #[must_use]
    pub fn options(mut self, options: SearchOptions) -> Self {
        self.options = options;
        self
    }

    /// Compiles the rule locally, so that a mistake does not cost a hunt.
    ///
    /// The source must contain one rule to hunt for. It may also contain private rules, global
    /// rules and rules that another rule refers to. To select one rule from a larger file, use
    /// [`RuleFile::select`](crate::yara::RuleFile::select). The returned warnings are about
    /// problems that YARA accepts, such as a very short string.
    ///
    /// [`RuleError::kind`](crate::yara::RuleError::kind) distinguishes a rule that YARA rejects
    /// from a rule that cannot be checked locally, for example because it needs an external
    /// variable. The service's version of YARA is unknown, so the service may reject a rule that
    /// passes this check.
    ///
    /// ```
    /// use malquery_proto::operations::Hunt;
    ///
    /// let error = Hunt::new("rule gnu { condition: filesize < }").check().unwrap_err();
    /// assert_eq!((error.line(), error.column()), (1, 34));
    ///
    /// let warnings = Hunt::new("rule gnu { strings: $a = \"GNU\" condition: $a }").check()?;
    /// assert_eq!(warnings[0].line(), 1);
    /// # Ok::<(), malquery_proto::yara::RuleError>(())
    /// ```
    ///
    /// # Errors
    /// Fails if YARA rejects the rule, if the rule cannot be checked locally, or if the source does
    /// not contain exactly one rule to hunt for.
    #[cfg(feature = "yara")]
    pub fn check(&self) -> Result<Vec<crate::yara::Warning>, crate::yara::RuleError> {
        crate::yara::RuleFile::parse(self.yara_rule.as_str())?
            .select_last()
            .check()
    }
}

result_setters!(Hunt, options);
filter_setters!(Hunt, options);
#[cfg(feature = "samples")]
crate::types::options::collectable!(Hunt, options);

impl Operation for Hunt {
    const ENDPOINT: Endpoint = Endpoint::post("PostMalQueryHuntV1", "/malquery/queries/hunt/v1");

    fn encode(&self, out: &mut RequestParts) -> Result<(), BuildError> {
        if self.yara_rule.trim().is_empty() {
            return Err(BuildError::EmptyRule);
        }
        let options = &self.options;
        check_ranges(options)?;
        write_search(out, self, options.limit, options.count_only, &options.other)
    }

    fn cost(&self) -> Cost {
        Cost::hunts(1)
    }
}

impl JsonOperation for Hunt {
    type Meta = SubmitMeta;
    type Resource = Json;
}
