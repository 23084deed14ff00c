use super::lenient::model;
use super::{JobStatus, Json, Number, PatternType, ReplyMeta, RequestId, RequestType};

model! {
    /// How many samples matched, by verdict.
    ///
    /// In a fuzzy search `total_count` counts all matches. In a job it counts the results that were
    /// returned, and the verdicts are counted among those: all are unknown if `label` was filtered
    /// out (see [`JobMeta::counts_lack_labels`]).
    #[derive(Default)]
    pub struct Stats {
        /// Harmless samples.
        pub clean_count: Option<u64>,
        /// Malware.
        pub malware_count: Option<u64>,
        /// Potentially unwanted samples.
        pub pua_count: Option<u64>,
        /// All samples.
        pub total_count: Option<u64>,
        /// Samples without a verdict.
        pub unknown_count: Option<u64>,
    }
}

model! {
    /// The `meta` of a fuzzy search.
    #[derive(Default)]
    pub struct SearchMeta {
        /// The time the query took, in a unit the service does not document.
        pub query_time: Option<Number>,
        /// The service that answered.
        pub powered_by: Option<String>,
        /// The id to give to CrowdStrike's support.
        pub trace_id: Option<String>,
        /// How many samples matched.
        pub stats: Option<Stats>,
        /// The status of the search, which is done when the reply arrives.
        pub status: Option<JobStatus>,
    }
}

model! {
    /// The `meta` of a job: its status, and what it was asked for.
    #[derive(Default)]
    pub struct JobMeta {
        /// The time the query took, in a unit the service does not document.
        pub query_time: Option<Number>,
        /// The service that answered.
        pub powered_by: Option<String>,
        /// The id to give to CrowdStrike's support.
        pub trace_id: Option<String>,
        /// The job.
        pub reqid: Option<RequestId>,
        /// Its kind.
        pub reqtype: Option<RequestType>,
        /// The status of the job itself, unlike the `status` in the reply to a submission.
        pub status: Option<JobStatus>,
        /// How many samples matched.
        pub stats: Option<Stats>,
        /// The options it was submitted with.
        pub options: Option<Json>,
        /// The patterns it searches for.
        pub patterns: Vec<JobPattern>,
        /// The YARA rule it runs; for an exact search, the one the service made of the patterns.
        pub yara_rule: Option<String>,
        /// A sample the job is about.
        pub sample: Option<Json>,
    }
}

impl JobMeta {
    /// The limit of results that the job was submitted with, if the reply repeats it.
    pub fn limit(&self) -> Option<u64> {
        self.options.as_ref()?.get("limit")?.as_u64()
    }

    /// Whether the counts by verdict say nothing, because `label` is not among the fields that the
    /// results were filtered to: the service then counts every result as unknown.
    pub fn counts_lack_labels(&self) -> bool {
        let fields = self
            .options
            .as_ref()
            .and_then(|options| options.get("filter_meta"));
        let fields = fields
            .and_then(|fields| fields.as_array())
            .filter(|fields| !fields.is_empty());
        let label = |field: &serde_json::Value| field.as_str() == Some("label");
        self.stats.is_some() && fields.is_some_and(|fields| !fields.iter().any(label))
    }
}

impl ReplyMeta for SearchMeta {
    fn trace_id(&self) -> Option<&str> {
        self.trace_id.as_deref()
    }

    fn may_be_truncated(&self, results: usize) -> bool {
        let total = self.stats.as_ref().and_then(|stats| stats.total_count);
        total.is_some_and(|total| total > results as u64)
    }
}

impl ReplyMeta for JobMeta {
    fn trace_id(&self) -> Option<&str> {
        self.trace_id.as_deref()
    }

    fn may_be_truncated(&self, results: usize) -> bool {
        self.limit().is_some_and(|limit| results as u64 >= limit)
    }
}

model! {
    /// A pattern, as the service repeats it.
    #[derive(Default)]
    pub struct JobPattern {
        /// The type of the value.
        pub pattern_type = "type": Option<PatternType>,
        /// The hex digits or the text.
        pub value: Option<String>,
    }
}
