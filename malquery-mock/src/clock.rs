use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use malquery_proto::{Clock, Timestamp};

/// A clock for tests. A wait advances the clock at once and takes almost no real time.
///
/// Only waits and [`advance`](Self::advance) move the clock. Clones share their state, so keep a
/// clone to read [`waits`](Self::waits).
///
/// ```
/// use std::time::Duration;
/// use malquery_mock::VirtualClock;
/// use malquery_proto::Clock;
///
/// let clock = VirtualClock::new();
/// let start = clock.now();
/// clock.sleep_until(start.after(Duration::from_secs(1800)));
/// assert_eq!(clock.now().since(start), Duration::from_secs(1800));
/// assert_eq!(clock.waits(), [Duration::from_secs(1800)]);
/// ```
#[derive(Debug, Clone)]
pub struct VirtualClock(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    now: Timestamp,
    waits: Vec<Duration>,
}

/// The real pause in each wait, which lets other threads make progress.
const PAUSE: Duration = Duration::from_micros(20);

impl VirtualClock {
    /// Creates a clock that starts at 2026-01-01T00:00:00Z.
    pub fn new() -> Self {
        Self::starting_at(Timestamp::from_millis(1_767_225_600_000))
    }

    /// Creates a clock that starts at `now`.
    pub fn starting_at(now: Timestamp) -> Self {
        Self(Arc::new(Mutex::new(State {
            now,
            waits: Vec::new(),
        })))
    }

    /// Advances the clock by a duration, rounded down to whole milliseconds.
    pub fn advance(&self, duration: Duration) {
        let mut state = self.state();
        state.now = state.now.after(duration);
    }

    /// Returns the length of each wait so far, in order. A wait for a time that had already been
    /// reached is not included.
    pub fn waits(&self) -> Vec<Duration> {
        self.state().waits.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for VirtualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        self.state().now
    }

    fn sleep_until(&self, time: Timestamp) {
        let mut state = self.state();
        if time > state.now {
            let wait = time.since(state.now);
            state.waits.push(wait);
            state.now = time;
        }
        drop(state);
        thread::sleep(PAUSE);
    }
}
