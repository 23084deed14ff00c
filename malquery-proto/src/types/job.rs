use super::lenient::model;
use super::{JobStatus, Json, Number, PatternType, ReplyMeta, RequestId, RequestType};

model! {
    /// How many samples matched, by verdict. These count all matches, also those beyond the limit of a search.
    #[derive(Default)]
    pub struct Stats {
        /// Harmless ones.
        pub clean_count: Option<u64>,
        /// Malware.
        pub malware_count: Option<u64>,
        /// Potentially unwanted ones.
        pub pua_count: Option<u64>,
        /// All of them.
        pub total_count: Option<u64>,
        /// Those not judged.
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
        /// Whether the search is finished, which it is when the reply arrives.
        pub status: Option<JobStatus>,
    }
}

model! {
    /// The `meta` of a job: where it is, and what it was asked.
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
        /// Where it is. Unlike the word in the reply to a submission, this is the job's own.
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

impl ReplyMeta for SearchMeta {
    fn trace_id(&self) -> Option<&str> {
        self.trace_id.as_deref()
    }
}

impl ReplyMeta for JobMeta {
    fn trace_id(&self) -> Option<&str> {
        self.trace_id.as_deref()
    }
}

model! {
    /// A pattern as the service repeats it.
    #[derive(Default)]
    pub struct JobPattern {
        /// How the value is to be understood.
        pub pattern_type = "type": Option<PatternType>,
        /// The hex digits or the text.
        pub value: Option<String>,
    }
}
