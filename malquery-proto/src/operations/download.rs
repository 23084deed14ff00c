use crate::endpoint::{Cost, Endpoint};
use crate::operation::{Operation, StreamOperation};
use crate::reply::ResponseHead;
use crate::request::{BuildError, RequestParts};
use crate::stream::StreamCheck;
use crate::types::Sha256;

/// Downloads one sample. **The reply is the raw, unencrypted file, which may be malware.**
///
/// `GET /malquery/entities/download-files/v1?ids=…` (operation id `GetMalQueryDownloadV1`;
/// FalconPy: `get_download`). Needs the scope `malquery:read`. **Costs one download from the
/// monthly quota.** CrowdStrike does not document whether a failed download counts. Error statuses:
/// 400, 401, 403, 404, 429, 500.
///
/// The request may be retried until the head of a successful reply arrives. `Client::save` also
/// starts over if the body is interrupted. With
/// [`RetryPolicy::never`](crate::flow::RetryPolicy::never), the request is retried only after a
/// 401, and only once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[doc(alias = "GetMalQueryDownloadV1", alias = "get_download")]
pub struct GetDownload {
    sha256: Sha256,
}

impl GetDownload {
    /// Creates the operation that downloads this sample.
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

/// The body must have the requested SHA-256, no content encoding, and the declared length, if any.
impl StreamOperation for GetDownload {
    fn check(&self, head: ResponseHead<'_>) -> StreamCheck {
        StreamCheck::for_head(head).expect_sha256(self.sha256)
    }
}
