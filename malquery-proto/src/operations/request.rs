use crate::endpoint::Endpoint;
use crate::operation::{JsonOperation, Operation};
use crate::request::{BuildError, RequestParts};
use crate::types::{Envelope, JobMeta, JobStatus, RequestId, Sample};

/// Returns the status of a job, and its results once it is done.
///
/// `GET /malquery/entities/requests/v1?ids=…` (operation id `GetMalQueryRequestV1`; FalconPy:
/// `get_request`). Needs the scope `malquery:read`. Costs no quota. Wait a few seconds between
/// polls. Error statuses: 400, 401, 403, 429, 500.
///
/// A reply about another job is an error. So is a reply with the status `done` or `failed` but
/// without a request id (`meta.reqid`).
#[derive(Debug, Clone, PartialEq, Eq)]
#[doc(alias = "GetMalQueryRequestV1", alias = "get_request")]
pub struct GetRequest {
    id: RequestId,
}

impl GetRequest {
    /// Creates the operation for the job with this request id.
    pub fn new(id: RequestId) -> Self {
        Self { id }
    }
}

impl Operation for GetRequest {
    const ENDPOINT: Endpoint =
        Endpoint::get("GetMalQueryRequestV1", "/malquery/entities/requests/v1");

    fn encode(&self, out: &mut RequestParts) -> Result<(), BuildError> {
        out.query("ids", &self.id);
        Ok(())
    }
}

impl JsonOperation for GetRequest {
    type Meta = JobMeta;
    type Resource = Sample;

    fn accept(&self, reply: &Envelope<JobMeta, Sample>) -> Result<(), String> {
        let id = &self.id;
        match (&reply.meta.reqid, &reply.meta.status) {
            (Some(other), _) if other != id => Err(format!("it is about job {other}, not {id}")),
            // The reply may be about another job. Downloading its samples would be billed.
            (None, Some(status @ (JobStatus::Done | JobStatus::Failed))) => Err(format!(
                "its job status is `{status}`, but it has no request id (`meta.reqid`); poll job {id} again"
            )),
            (None, None) if !reply.has_resources() && reply.errors.is_empty() => {
                Err("it has no `resources`, no job status and no request id".into())
            }
            _ => Ok(()),
        }
    }
}
