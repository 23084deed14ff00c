use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A point in time, in milliseconds since the Unix epoch.
///
/// Unlike `Instant`, it can be serialized and compared with the times in replies.
///
/// ```
/// use std::time::Duration;
///
/// use malquery_proto::Timestamp;
///
/// let begin = Timestamp::from_millis(1_767_225_600_000);
/// let later = begin.after(Duration::from_secs(90));
/// assert_eq!(later.since(begin), Duration::from_secs(90));
/// assert_eq!(begin.since(later), Duration::ZERO);
/// assert_eq!(begin.to_string(), "2026-01-01T00:00:00Z");
/// assert!(Timestamp::from(std::time::SystemTime::now()) > begin);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The latest representable time.
    pub const MAX: Self = Self(u64::MAX);

    /// Creates a timestamp from the number of milliseconds since the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Returns the number of milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Adds a duration, rounded down to whole milliseconds. Returns [`MAX`](Self::MAX) on overflow.
    pub fn after(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    /// Returns the time elapsed since `earlier`, or zero if `earlier` is later than `self`.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl From<SystemTime> for Timestamp {
    /// Converts a system time. Times before the Unix epoch become the epoch.
    fn from(time: SystemTime) -> Self {
        Self(0).after(time.duration_since(UNIX_EPOCH).unwrap_or_default())
    }
}

impl fmt::Display for Timestamp {
    /// Writes the time in UTC in RFC 3339 format. A time too late for this format is written as
    /// milliseconds since the Unix epoch.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match i64::try_from(self.0)
            .ok()
            .and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok())
        {
            Some(time) => time.fmt(f),
            None => write!(f, "{} ms", self.0),
        }
    }
}
