use crate::endpoint::{Cost, Endpoint};
use crate::operation::{Operation, StreamOperation};
use crate::reply::ResponseHead;
use crate::request::BuildError;
use crate::request::RequestParts;
use crate::stream::StreamCheck;
use crate::types::Sha256;

/// Downloads one sample: the raw, unencrypted malware.
///
/// `GET /malquery/entities/download-files/v1?ids=…` (operation id `GetMalQueryDownloadV1`, in
/// FalconPy `get_download`). Scope `malquery:read`. **Costs one download of the monthly quota.** It
/// is not documented whether a download that fails counts. Errors 400, 401, 403, 404, 429, 500.
///
/// A failed request is retried until the head of the reply arrives, and `Client::save` starts again
/// when the body breaks off. [`RetryPolicy::never`](crate::flow::RetryPolicy::never) turns both
/// off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[doc(alias = "GetMalQueryDownloadV1", alias = "get_download")]
pub struct GetDownload {
    sha256: Sha256,
}

impl GetDownload {
    /// Downloads this sample.
    pub fn new(sha256: Sha256) -> Self {
        Self { sha256 }
    }
}

impl Operation for GetDownload {
    const ENDPOINT: Endpoint = Endpoint::get(
        "GetMalQueryDownloadV1",
        "/malquery/entities/download-files/v1",
    )
    .accept("application/octet-stream");

    fn encode(&self, out: &mut RequestParts) -> Result<(), BuildError> {
        out.identity();
        out.query("ids", self.sha256);
        Ok(())
    }

    fn cost(&self) -> Cost {
        Cost::downloads(1)
    }
}

/// The sample must have the length its head declares and the SHA-256 that was asked for.
impl StreamOperation for GetDownload {
    fn check(&self, head: ResponseHead<'_>) -> StreamCheck {
        StreamCheck::for_head(head).expect_sha256(self.sha256)
    }
}
