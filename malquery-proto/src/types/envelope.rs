use super::lenient::{Field, model};
use super::{Number, RequestId};

model! {
    /// The document every JSON reply is: what the reply says of itself, the results, and errors.
    ///
    /// Serialising it gives back what was received, unknown fields included.
    pub struct Envelope<M: Field, R: Item> {
        /// What the reply says of itself.
        pub meta: M,
        /// The results.
        pub resources: Vec<R>,
        /// What went wrong in part; empty when nothing did.
        pub errors: Vec<ErrorItem>,
    }
}

model! {
    /// One error of a reply.
    #[derive(Default)]
    pub struct ErrorItem {
        /// A code, usually that of the HTTP status.
        pub code: Option<i64>,
        /// What went wrong, in the service's words.
        pub message: Option<String>,
        /// What the error is about.
        pub id: Option<String>,
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
    /// The `meta` of the reply to a hunt, an exact search or a multi-download: the job was accepted.
    ///
    /// The service sends a `status` here too, and it says `done` while the job has not begun: it speaks of
    /// the HTTP request. To keep anyone from mistaking it for the job's, it is left in `extra`.
    /// [`GetRequest`](crate::operations::GetRequest) tells where a job is.
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

/// The `meta` of a reply, which may name the trace id that CrowdStrike's support asks for.
pub trait ReplyMeta: Field {
    /// The trace id.
    fn trace_id(&self) -> Option<&str> {
        None
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
