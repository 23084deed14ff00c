use super::lenient::{Field, Item, model};
use super::{Number, RequestId};

model! {
    /// The JSON document of a reply: `meta`, the results and the errors.
    ///
    /// Serializing it also writes the unknown fields that were received.
    pub struct Envelope<M: Field, R: Item> {
        /// The metadata of the reply, such as its trace id.
        pub meta: M,
        /// The results, such as samples.
        pub resources: Vec<R>,
        /// The errors. A reply may have both results and errors.
        pub errors: Vec<ErrorItem>,
    }
}

model! {
    /// An error in a reply.
    #[derive(Default)]
    pub struct ErrorItem {
        /// The error code, usually the HTTP status.
        pub code: Option<i64>,
        /// The error message.
        pub message: Option<String>,
        /// The id of the item that the error is about.
        pub id: Option<String>,
        /// The kind of error. In replies, the field is called `type`.
        pub error_type = "type": Option<String>,
    }
}

model! {
    /// A `meta` with only the common fields: the query time, the service and the trace id.
    #[derive(Default)]
    pub struct PlainMeta {
        /// The duration of the query. CrowdStrike does not document its unit.
        pub query_time: Option<Number>,
        /// The name of the service that sent the reply.
        pub powered_by: Option<String>,
        /// The trace id, which CrowdStrike support asks for.
        pub trace_id: Option<String>,
    }
}

model! {
    /// The `meta` of the reply to a submitted hunt, exact search or multi-download.
    ///
    /// The `status` in this reply, usually `done`, is not the status of the job, so it is kept only
    /// in `extra`. To get the status of the job, use
    /// [`GetRequest`](crate::operations::GetRequest).
    pub struct SubmitMeta {
        /// The request id of the job.
        pub reqid: RequestId,
        /// The duration of the query. CrowdStrike does not document its unit.
        pub query_time: Option<Number>,
        /// The name of the service that sent the reply.
        pub powered_by: Option<String>,
        /// The trace id, which CrowdStrike support asks for.
        pub trace_id: Option<String>,
    }
}

impl<M: ReplyMeta, R: Item> Envelope<M, R> {
    /// Returns whether the document has the member `resources`, even if it is `null`.
    pub(crate) fn has_resources(&self) -> bool {
        !self.resources.is_empty() || self.extra.get("resources").is_some()
    }

    /// Returns whether more samples may match than the reply contains.
    ///
    /// For a fuzzy search, this is true if the total number of matches exceeds the number of
    /// results. For a job, it is true if the number of results reaches the job's limit. Returns
    /// `false` for other replies, and if that total or limit is missing or invalid.
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

/// A type for the `meta` of a reply. Only this crate can implement this trait.
pub trait ReplyMeta: Field {
    /// Returns the trace id, which CrowdStrike support asks for. The default implementation returns
    /// `None`.
    fn trace_id(&self) -> Option<&str> {
        None
    }

    /// Returns whether more samples may match than this number of results.
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
