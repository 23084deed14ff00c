use super::lenient::model;
use super::{JobStatus, Json, Number, PatternType, ReplyMeta, RequestId, RequestType};

model! {
    /// The number of results, and the number with each verdict.
    ///
    /// For a fuzzy search, `total_count` is the total number of matches. For a job, it is the
    /// number of returned results, or the total number of matches if only the count was requested
    /// (limit 0). The other counts cover only the returned results. If `filter_meta` selects
    /// fields, but not `label`, the service counts all results as unknown (see
    /// [`JobMeta::counts_lack_labels`]).
    #[derive(Default)]
    pub struct Stats {
        /// The number of harmless samples.
        pub clean_count: Option<u64>,
        /// The number of malware samples.
        pub malware_count: Option<u64>,
        /// The number of potentially unwanted samples.
        pub pua_count: Option<u64>,
        /// The number of results. For a fuzzy search or a limit of 0, this is the total number of
        /// matches.
        pub total_count: Option<u64>,
        /// The number of samples that count as unknown.
        pub unknown_count: Option<u64>,
    }
}

model! {
    /// The `meta` of the reply to a fuzzy search.
    #[derive(Default)]
    pub struct SearchMeta {
        /// The duration of the query. CrowdStrike does not document its unit.
        pub query_time: Option<Number>,
        /// The name of the service that sent the reply.
        pub powered_by: Option<String>,
        /// The trace id, which CrowdStrike support asks for.
        pub trace_id: Option<String>,
        /// The number of matches, and the number of results with each verdict.
        pub stats: Option<Stats>,
        /// The status of the search, usually `done`.
        pub status: Option<JobStatus>,
    }
}

model! {
    /// The `meta` of the reply to a poll: the status of the job, and the request that started it.
    #[derive(Default)]
    pub struct JobMeta {
        /// The duration of the query. CrowdStrike does not document its unit.
        pub query_time: Option<Number>,
        /// The name of the service that sent the reply.
        pub powered_by: Option<String>,
        /// The trace id, which CrowdStrike support asks for.
        pub trace_id: Option<String>,
        /// The request id of the job.
        pub reqid: Option<RequestId>,
        /// The kind of job.
        pub reqtype: Option<RequestType>,
        /// The status of the job.
        pub status: Option<JobStatus>,
        /// The number of results, and the number with each verdict.
        pub stats: Option<Stats>,
        /// The options with which the job was submitted.
        pub options: Option<Json>,
        /// The patterns that the job searches for.
        pub patterns: Vec<JobPattern>,
        /// The YARA rule of a hunt, or the rule that the service generated for an exact search.
        pub yara_rule: Option<String>,
        /// The field `sample`, whose meaning CrowdStrike does not document.
        pub sample: Option<Json>,
    }
}

impl JobMeta {
    /// Returns the limit of the job, if the reply contains it as a non-negative integer.
    pub fn limit(&self) -> Option<u64> {
        self.options.as_ref()?.get("limit")?.as_u64()
    }

    /// Returns whether the counts by verdict in `stats` are meaningless. This is the case if
    /// `filter_meta` selects fields, but not `label`: the service then counts every result as
    /// unknown.
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
    /// A pattern of a job, as returned by the service.
    #[derive(Default)]
    pub struct JobPattern {
        /// The type of the pattern.
        pub pattern_type = "type": Option<PatternType>,
        /// The hex digits or the text.
        pub value: Option<String>,
    }
}
