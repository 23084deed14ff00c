use crate::endpoint::Endpoint;
use crate::operation::{Operation, StreamOperation};
use crate::reply::ResponseHead;
use crate::request::{BuildError, RequestParts};
use crate::stream::StreamCheck;
use crate::types::RequestId;

/// Downloads the archive of a multi-download: a zip with the password `infected`.
///
/// `GET /malquery/entities/samples-fetch/v1?ids=…` (operation id
/// `GetMalQueryEntitiesSamplesFetchV1`; FalconPy: `get_samples`), with the request id of a finished
/// [`SamplesMultidownload`](super::SamplesMultidownload). Needs the scope `malquery:read`. Beyond
/// the cost of the multi-download, no cost is documented. Error statuses: 401, 403, 429, 500, and
/// an undocumented one if the archive does not exist (`Could not find sample archive`).
#[derive(Debug, Clone, PartialEq, Eq)]
#[doc(alias = "GetMalQueryEntitiesSamplesFetchV1", alias = "get_samples")]
pub struct GetSamples {
    id: RequestId,
}

impl GetSamples {
    /// Creates the operation that downloads the archive of the job with this request id.
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

/// The body must have the declared length, if any, and no content encoding, and must begin and end
/// like a zip archive.
impl StreamOperation for GetSamples {
    fn check(&self, head: ResponseHead<'_>) -> StreamCheck {
        StreamCheck::for_head(head).expect_zip()
    }
}
