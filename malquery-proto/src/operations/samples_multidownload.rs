use std::borrow::Borrow;
use std::collections::HashSet;

use serde::{Deserialize, Deserializer, Serialize};

use crate::endpoint::{Cost, Endpoint};
use crate::operation::{JsonOperation, Operation};
use crate::request::{BuildError, RequestParts};
use crate::types::{Json, Sha256, SubmitMeta};

/// Starts a job that creates an archive of samples.
///
/// `POST /malquery/entities/samples-multidownload/v1` (operation id
/// `PostMalQueryEntitiesSamplesMultidownloadV1`; FalconPy: `samples_multidownload`). Needs the
/// scope `malquery:write`. **Each sample costs one download from the monthly quota**, so the
/// request is retried only if it provably never reached the service, or if the reply is a 401 or a
/// rate-limit error (429). Error statuses: 400, 401, 403, 404, 429, 500.
///
/// The reply contains the request id of the job. Once [`GetRequest`](super::GetRequest) reports
/// that the job is done, download the archive with [`GetSamples`](super::GetSamples) and this id.
///
/// ```
/// # fn example(
/// #     client: &malquery_proto::Client,
/// #     samples: Vec<malquery_proto::types::Sha256>,
/// # ) -> Result<(), malquery_proto::client::Error> {
/// let job = client.samples_multidownload(samples)?;
/// job.wait()?;
/// let archive = client.samples(job.id())?.output; // a reader that checks the bytes
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[doc(
    alias = "PostMalQueryEntitiesSamplesMultidownloadV1",
    alias = "samples_multidownload",
    alias = "multi_download"
)]
pub struct SamplesMultidownload {
    #[serde(deserialize_with = "each_once")]
    samples: Vec<Sha256>,
}

impl SamplesMultidownload {
    /// Creates the operation for these samples. Duplicates are removed, so each sample is requested
    /// and billed only once.
    pub fn new(samples: impl IntoIterator<Item = impl Borrow<Sha256>>) -> Self {
        let mut seen = HashSet::new();
        let samples = samples.into_iter().map(|sample| *sample.borrow());
        Self {
            samples: samples.filter(|sample| seen.insert(*sample)).collect(),
        }
    }

    /// Returns the samples, without duplicates.
    pub fn samples(&self) -> &[Sha256] {
        &self.samples
    }
}

fn each_once<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Sha256>, D::Error> {
    Vec::<Sha256>::deserialize(deserializer)
        .map(|samples| SamplesMultidownload::new(samples).samples)
}

impl Operation for SamplesMultidownload {
    const ENDPOINT: Endpoint = Endpoint::post(
        "PostMalQueryEntitiesSamplesMultidownloadV1",
        "/malquery/entities/samples-multidownload/v1",
    );

    fn encode(&self, out: &mut RequestParts) -> Result<(), BuildError> {
        if self.samples.is_empty() {
            return Err(BuildError::NoSamples);
        }
        out.json(self)
    }

    fn cost(&self) -> Cost {
        Cost::downloads(self.samples.len() as u64)
    }
}

impl JsonOperation for SamplesMultidownload {
    type Meta = SubmitMeta;
    type Resource = Json;
}
