use http::Method;

use crate::cloud::BaseUrl;
use crate::error::BuildError;
use crate::operation::{JsonOperation, MAX_URL, Meta, Operation, Replay, RequestParts, Scope};
use crate::types::{PlainMeta, Sample, Sha256};

/// Asks what is known of samples. It is the cheap way to look a hash up: a hunt for it would cost a hunt.
///
/// `GET /malquery/entities/metadata/v1?ids=…&ids=…` (operation id `GetMalQueryMetadataV1`, also known as
/// `get_metadata`). Scope `malquery:read`. Costs nothing. Samples that are not known are left out of the reply.
/// Errors 400, 401, 403, 429, 500.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetMetadata {
    ids: Vec<Sha256>,
}

impl GetMetadata {
    /// Asks about these samples, as many as fit into a URL: 115 for most clouds.
    pub fn new(ids: impl IntoIterator<Item = Sha256>) -> Self {
        Self { ids: ids.into_iter().collect() }
    }

    /// As many requests as it takes to ask `base` about all of these samples.
    pub fn split(samples: &[Sha256], base: &BaseUrl) -> Vec<Self> {
        // Each takes `ids=`, 64 digits and a separator.
        let room = (MAX_URL - 1).saturating_sub(base.as_str().len() + Self::META.path.len());
        samples.chunks((room / 69).max(1)).map(|ids| Self::new(ids.iter().copied())).collect()
    }
}

impl Operation for GetMetadata {
    const META: Meta = Meta {
        id: "GetMalQueryMetadataV1",
        method: Method::GET,
        path: "/malquery/entities/metadata/v1",
        accept: "application/json",
        scope: Some(Scope::Read),
        replay: Replay::Safe,
    };

    /// Repeats `ids` for each, the form that CrowdStrike's own Python client sends.
    fn encode(&self, out: &mut RequestParts) -> Result<(), BuildError> {
        if self.ids.is_empty() {
            return Err(BuildError::NoSamples);
        }
        self.ids.iter().for_each(|id| out.query("ids", id));
        Ok(())
    }
}

impl JsonOperation for GetMetadata {
    type Meta = PlainMeta;
    type Resource = Sample;
}
