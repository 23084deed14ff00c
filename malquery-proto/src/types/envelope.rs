use super::lenient::{Field, Item, model};
use super::{Number, RequestId};

model! {
    /// The JSON document of a reply: what the reply says about itself, the results, and errors.
    ///
    /// Serialising it gives back what was received, with unknown fields.
    pub struct Envelope<M: Field, R: Item> {
        /// What the reply says about itself.
        pub meta: M,
        /// The results.
        pub resources: Vec<R>,
        /// What went wrong in part; empty if nothing did.
        pub errors: Vec<ErrorItem>,
    }
}

model! {
    /// One error of a reply.
    #[derive(Default)]
    pub struct ErrorItem {
        /// A code, usually the HTTP status.
        pub code: Option<i64>,
        /// What went wrong, in the service's words.
        pub message: Option<String>,
        /// What the error is about.
        pub id: Option<String>,
        /// The kind of error, in the service's words.
        pub error_type = "type": Option<String>,
    }
}

model! {
    /// The `meta` of a plain reply.
    #[derive(Default)]
    pub struct PlainMeta {
        /// The time the query took, in a unit the service does not document.
        pub query_time: Option<Number>,
        /// The service that answered.
        pub powered_by: Option<String>,
        /// The id to give to CrowdStrike's support.
        pub trace_id: Option<String>,
    }
}

model! {
    /// The `meta` of the reply to a hunt, an exact search or a multi-download: the job was
    /// accepted.
    ///
    /// The service replies `status: done` before the job starts: the HTTP request is done. That
    /// field is left in `extra`, so that nobody takes it for the job's status.
    /// [`GetRequest`](crate::operations::GetRequest) reports the status of a job.
    pub struct SubmitMeta {
        /// The job.
        pub reqid: RequestId,
        /// The time the query took, in a unit the service does not document.
        pub query_time: Option<Number>,
        /// The service that answered.
        pub powered_by: Option<String>,
        /// The id to give to CrowdStrike's support.
        pub trace_id: Option<String>,
    }
}

impl<M: ReplyMeta, R: Item> Envelope<M, R> {
    /// Whether more samples may match than the reply has results.
    ///
    /// A job's result may be cut when it is as long as the limit that the reply repeats: its
    /// `stats` count what was returned. A fuzzy search counts all matches. Without a limit or a
    /// count this is `false`.
    ///
    /// ```
    /// use malquery_proto::types::{Envelope, JobMeta, Sample};
    ///
    /// let reply = r#"{"meta": {"options": {"limit": 1}}, "resources": [{"label": "malware"}]}"#;
    /// let reply: Envelope<JobMeta, Sample> = serde_json::from_str(reply)?;
    /// assert!(reply.may_be_truncated());
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn may_be_truncated(&self) -> bool {
        self.meta.may_be_truncated(self.resources.len())
    }
}

/// The `meta` of a reply, which may name the trace id that CrowdStrike's support asks for.
pub trait ReplyMeta: Field {
    /// The trace id.
    fn trace_id(&self) -> Option<&str> {
        None
    }

    /// Whether more samples may match than the results that came with this `meta`.
    #[doc(hidden)]
    fn may_be_truncated(&self, _results: usize) -> bool {
        false
    }
}

impl ReplyMeta for PlainMeta {
    fn trace_id(&self) -> Option<&str> {
        self.trace_id.as_deref()
    }
}

impl ReplyMeta for SubmitMeta {
    fn trace_id(&self) -> Option<&str> {
        self.trace_id.as_deref()
    }
}
