use crate::endpoint::Endpoint;
use crate::operation::{JsonOperation, Operation};
use crate::request::BuildError;
use crate::request::RequestParts;
use crate::types::{JobMeta, RequestId, Sample};

/// Asks where a job is, and for its results once it is done.
///
/// `GET /malquery/entities/requests/v1?ids=…` (operation id `GetMalQueryRequestV1`, also known as
/// `get_request`). Scope `malquery:read`. Costs nothing, but do not ask more than every few seconds.
/// Errors 400, 401, 403, 429, 500.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetRequest {
    id: RequestId,
}

impl GetRequest {
    /// Asks about this job.
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
}
