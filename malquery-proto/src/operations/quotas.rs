use crate::endpoint::Endpoint;
use crate::operation::{JsonOperation, Operation};
use crate::request::{BuildError, RequestParts};
use crate::types::lenient::model;
use crate::types::{Envelope, Json, ReplyMeta};

/// Returns the monthly quotas and their current use.
///
/// `GET /malquery/aggregates/quotas/v1` (operation id `GetMalQueryQuotasV1`; FalconPy:
/// `get_quotas`). Needs the scope `malquery:read`. Costs no quota. Error statuses: 400, 401, 403,
/// 404, 429, 500.
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

/// The members of `meta` that identify a reply with quotas.
const QUOTAS: [&str; 8] = [
    "hunt_count",
    "hunt_limit",
    "download_count",
    "download_limit",
    "monitor_count",
    "monitor_limit",
    "days_left",
    "refresh_time",
];

/// The quotas are in `meta`.
impl JsonOperation for GetQuotas {
    type Meta = Quotas;
    type Resource = Json;

    fn accept(&self, reply: &Envelope<Quotas, Json>) -> Result<(), String> {
        let meta = serde_json::to_value(&reply.meta).map_err(|error| error.to_string())?;
        let has_quota = QUOTAS.iter().any(|name| meta.get(name).is_some());
        match has_quota || !reply.errors.is_empty() {
            true => Ok(()),
            false => Err("it has no quotas".into()),
        }
    }
}

model! {
    /// The monthly quotas of the account and their current use.
    #[derive(Default)]
    pub struct Quotas {
        /// The number of hunts so far this month.
        pub hunt_count: Option<u64>,
        /// The number of hunts allowed per month.
        pub hunt_limit: Option<u64>,
        /// The number of samples downloaded so far this month.
        pub download_count: Option<u64>,
        /// The number of sample downloads allowed per month.
        pub download_limit: Option<u64>,
        /// The number of monitors created so far this month.
        pub monitor_count: Option<u64>,
        /// The number of monitors allowed per month.
        pub monitor_limit: Option<u64>,
        /// The number of days until the quotas are renewed.
        pub days_left: Option<u64>,
        /// The time at which the quotas are renewed. According to CrowdStrike, it is in ISO 8601
        /// format.
        pub refresh_time: Option<Json>,
        /// The number of hunts by each user.
        pub hunt_counts: Vec<UserCount>,
        /// The number of downloads by each user.
        pub download_counts: Vec<UserCount>,
    }
}

model! {
    /// The number of hunts or downloads by one user.
    #[derive(Default)]
    pub struct UserCount {
        /// The user id, which may be an empty string.
        pub userid: Option<String>,
        /// The number of hunts or downloads.
        pub counter: Option<u64>,
    }
}

impl Quotas {
    /// Returns the number of hunts left this month, or `None` if the count or the limit is missing
    /// or invalid.
    pub fn hunts_left(&self) -> Option<u64> {
        let count = self.hunt_count.or_else(|| self.huge("hunt_count"));
        Some(self.hunt_limit?.saturating_sub(count?))
    }

    /// Returns the number of downloads left this month, or `None` if the count or the limit is
    /// missing or invalid.
    pub fn downloads_left(&self) -> Option<u64> {
        let count = self.download_count.or_else(|| self.huge("download_count"));
        Some(self.download_limit?.saturating_sub(count?))
    }

    /// Returns `u64::MAX` if the field `name` is too large for a `u64`, and `None` otherwise.
    fn huge(&self, name: &str) -> Option<u64> {
        let count = self.extra.get(name)?.to::<f64>()?;
        (count >= u64::MAX as f64).then_some(u64::MAX)
    }
}

impl ReplyMeta for Quotas {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_known_from_both_numbers() {
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
        for (count, expected) in [
            ("1e30", Some(0)),
            ("-1", None),
            ("0.5", None),
            ("null", None),
        ] {
            let text = format!(
                r#"{{"hunt_count": {count}, "hunt_limit": 5, "download_count": {count}, "download_limit": 5}}"#
            );
            assert_eq!(left(&text), (expected, expected), "{count}");
        }
        for limit in ["\"x\"", "-1", "null"] {
            let text = format!(r#"{{"hunt_count": 0, "hunt_limit": {limit}}}"#);
            assert_eq!(left(&text).0, None, "{limit}");
        }
    }
}
