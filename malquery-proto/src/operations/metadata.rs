use std::borrow::Borrow;

use crate::cloud::BaseUrl;
use crate::endpoint::Endpoint;
use crate::operation::{JsonOperation, Operation};
use crate::request::{BuildError, MAX_URL, RequestParts};
use crate::types::{Envelope, PlainMeta, Sample, Sha256};

/// Returns the metadata of samples. To look up a hash, use this operation instead of a hunt, which
/// costs quota.
///
/// `GET /malquery/entities/metadata/v1?ids=…&ids=…` (operation id `GetMalQueryMetadataV1`;
/// FalconPy: `get_metadata`). Needs the scope `malquery:read`. Costs no quota. The reply omits
/// samples that are not in MalQuery. A reply about a sample that was not requested is an error.
/// Error statuses: 400, 401, 403, 429, 500.
#[derive(Debug, Clone, PartialEq, Eq)]
#[doc(alias = "GetMalQueryMetadataV1", alias = "get_metadata")]
pub struct GetMetadata {
    ids: Vec<Sha256>,
}

impl GetMetadata {
    /// Creates the operation for these samples. A URL for a commercial cloud has room for 115
    /// samples. Use [`split`](Self::split) for more.
    pub fn new(ids: impl IntoIterator<Item = impl Borrow<Sha256>>) -> Self {
        Self {
            ids: ids.into_iter().map(|id| *id.borrow()).collect(),
        }
    }

    /// Splits a list of samples into as few requests to `base` as possible.
    ///
    /// ```
    /// use malquery_proto::Cloud;
    /// use malquery_proto::operations::GetMetadata;
    /// use malquery_proto::types::Sha256;
    ///
    /// let samples: Vec<_> = (0..200).map(|i| Sha256::from_bytes([i; 32])).collect();
    /// assert_eq!(GetMetadata::split(&samples, &Cloud::Us1.into()).len(), 2);
    /// ```
    pub fn split(samples: &[Sha256], base: &BaseUrl) -> Vec<Self> {
        // Each id needs room for `ids=`, 64 digits and a separator.
        let room = (MAX_URL - 1).saturating_sub(base.as_str().len() + Self::ENDPOINT.path.len());
        samples.chunks((room / 69).max(1)).map(Self::new).collect()
    }
}

impl Operation for GetMetadata {
    const ENDPOINT: Endpoint =
        Endpoint::get("GetMalQueryMetadataV1", "/malquery/entities/metadata/v1");

    /// Adds one `ids` parameter for each sample, as CrowdStrike's Python SDK does.
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

    fn accept(&self, reply: &Envelope<PlainMeta, Sample>) -> Result<(), String> {
        if !reply.has_resources() && reply.errors.is_empty() {
            return Err("it has no `resources`".into());
        }
        let mut named = reply.resources.iter().filter_map(|sample| sample.sha256);
        match named.find(|sha256| !self.ids.contains(sha256)) {
            Some(other) => Err(format!(
                "it is about sample {other}, which was not requested"
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::Cloud;
    use crate::operation::unsigned;

    #[test]
    fn many_samples_take_as_few_requests_as_fit() {
        let samples: Vec<_> = (0..500u16)
            .map(|i| Sha256::from_bytes(std::array::from_fn(|at| i.to_le_bytes()[at % 2])))
            .collect();
        let bases = [
            BaseUrl::from(Cloud::Us1),
            BaseUrl::from(Cloud::UsGov1),
            format!("https://proxy.example/{}/", "a".repeat(200))
                .parse()
                .unwrap(),
        ];
        for base in bases {
            let parts = GetMetadata::split(&samples, &base);
            assert_eq!(
                parts
                    .iter()
                    .flat_map(|part| part.ids.clone())
                    .collect::<Vec<_>>(),
                samples
            );
            for (at, part) in parts.iter().enumerate() {
                unsigned(part, &base).unwrap();
                let first_of_next = parts.get(at + 1).map(|next| next.ids[0]);
                if let Some(one_more) = first_of_next {
                    let more = GetMetadata::new(part.ids.iter().copied().chain([one_more]));
                    assert!(matches!(
                        unsigned(&more, &base),
                        Err(BuildError::UrlTooLong(_))
                    ));
                }
            }
        }
        assert!(GetMetadata::split(&[], &Cloud::Us1.into()).is_empty());
    }
}
