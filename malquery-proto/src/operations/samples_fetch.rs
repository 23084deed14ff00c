use crate::endpoint::Endpoint;
use crate::operation::{Operation, StreamOperation};
use crate::reply::ResponseHead;
use crate::request::BuildError;
use crate::request::RequestParts;
use crate::stream::StreamCheck;
use crate::types::RequestId;

/// Fetches the archive that a multi-download made: a zip with the password `infected`.
///
/// `GET /malquery/entities/samples-fetch/v1?ids=…` (operation id
/// `GetMalQueryEntitiesSamplesFetchV1`, in FalconPy `get_samples`), with the request id of a
/// [`SamplesMultidownload`](super::SamplesMultidownload) that is done. Scope `malquery:read`. No
/// cost in quota is documented: the multi-download was billed. Errors 401, 403, 429, 500; the
/// message `Could not find sample archive` when it has no such archive.
#[derive(Debug, Clone, PartialEq, Eq)]
#[doc(alias = "GetMalQueryEntitiesSamplesFetchV1", alias = "get_samples")]
pub struct GetSamples {
    id: RequestId,
}

impl GetSamples {
    /// Fetches the archive of this multi-download.
    pub fn new(id: RequestId) -> Self {
        Self { id }
    }
}

impl Operation for GetSamples {
    const ENDPOINT: Endpoint = Endpoint::get(
        "GetMalQueryEntitiesSamplesFetchV1",
        "/malquery/entities/samples-fetch/v1",
    )
    .accept("application/zip");

    fn encode(&self, out: &mut RequestParts) -> Result<(), BuildError> {
        out.identity();
        out.query("ids", &self.id);
        Ok(())
    }
}

/// The archive must have the length its head declares, and begin and end as a zip archive does.
impl StreamOperation for GetSamples {
    fn check(&self, head: ResponseHead<'_>) -> StreamCheck {
        StreamCheck::for_head(head).expect_zip()
    }
}
