use crate::endpoint::Endpoint;
use crate::operation::{JsonOperation, Operation};
use crate::request::BuildError;
use crate::request::RequestParts;
use crate::types::lenient::model;
use crate::types::{Json, ReplyMeta};

/// Asks how much of the monthly quotas is used.
///
/// `GET /malquery/aggregates/quotas/v1` (operation id `GetMalQueryQuotasV1`, in FalconPy
/// `get_quotas`). Scope `malquery:read`. Costs nothing. Errors 400, 401, 403, 404, 429, 500.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[doc(alias = "GetMalQueryQuotasV1", alias = "get_quotas")]
pub struct GetQuotas;

impl Operation for GetQuotas {
    const ENDPOINT: Endpoint =
        Endpoint::get("GetMalQueryQuotasV1", "/malquery/aggregates/quotas/v1");

    fn encode(&self, _: &mut RequestParts) -> Result<(), BuildError> {
        Ok(())
    }
}

/// The quotas are in `meta`. The reply has no resources.
impl JsonOperation for GetQuotas {
    type Meta = Quotas;
    type Resource = Json;
}

model! {
    /// The monthly quotas of the account and how much of them is used.
    #[derive(Default)]
    pub struct Quotas {
        /// Hunts this month.
        pub hunt_count: Option<u64>,
        /// Hunts a month.
        pub hunt_limit: Option<u64>,
        /// Samples downloaded this month.
        pub download_count: Option<u64>,
        /// Samples to download a month.
        pub download_limit: Option<u64>,
        /// Monitored rules.
        pub monitor_count: Option<u64>,
        /// Rules that may be monitored.
        pub monitor_limit: Option<u64>,
        /// Days until the quotas renew.
        pub days_left: Option<u64>,
        /// When the quotas renew, in the service's own words.
        pub refresh_time: Option<Json>,
        /// Hunts of each user.
        pub hunt_counts: Vec<UserCount>,
        /// Downloads of each user.
        pub download_counts: Vec<UserCount>,
    }
}

model! {
    /// How much one user used.
    #[derive(Default)]
    pub struct UserCount {
        /// The user, which may be an empty text.
        pub userid: Option<String>,
        /// How much.
        pub counter: Option<u64>,
    }
}

impl Quotas {
    /// The hunts left this month; `None` if the reply does not say.
    pub fn hunts_left(&self) -> Option<u64> {
        Some(self.hunt_limit?.saturating_sub(self.hunt_count?))
    }

    /// The downloads left this month; `None` if the reply does not say.
    pub fn downloads_left(&self) -> Option<u64> {
        Some(self.download_limit?.saturating_sub(self.download_count?))
    }
}

/// The quotas' `meta` has no trace id.
impl ReplyMeta for Quotas {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_known_when_both_numbers_are() {
        let left = |text: &str| {
            let quotas: Quotas = serde_json::from_str(text).unwrap();
            (quotas.hunts_left(), quotas.downloads_left())
        };
        let both =
            r#"{"hunt_count": 7, "hunt_limit": 100, "download_count": 40, "download_limit": 250}"#;
        assert_eq!(left(both), (Some(93), Some(210)));
        assert_eq!(
            left(r#"{"hunt_count": 101, "hunt_limit": 100, "download_limit": 5}"#),
            (Some(0), None)
        );
    }
}
