use crate::endpoint::Endpoint;
use crate::operation::{JsonOperation, Operation};
use crate::request::BuildError;
use crate::request::RequestParts;
use crate::types::{JobMeta, RequestId, Sample};

/// Returns the status of a job, and its results once it is done.
///
/// `GET /malquery/entities/requests/v1?ids=…` (operation id `GetMalQueryRequestV1`; FalconPy:
/// `get_request`). Needs the scope `malquery:read`. Costs no quota. Wait a few seconds between
/// polls. Error statuses: 400, 401, 403, 429, 500.
///
/// A reply about another job is an error. A reply without `meta.reqid` is not, but
/// [`JobFlow`](crate::flow::JobFlow), and so every wait and every collect, does not accept it as the
/// end of the job.
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

    fn accept(&self, meta: &JobMeta) -> Result<(), String> {
        match &meta.reqid {
            Some(id) if *id != self.id => Err(format!("it is about the job {id}, not {}", self.id)),
            _ => Ok(()),
        }
    }
}
