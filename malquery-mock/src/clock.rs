use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use malquery_proto::{Clock, Timestamp};

/// A clock that jumps: waiting takes no time, so a hunt of half an hour is over at once.
///
/// It starts at 2026-01-01T00:00:00Z and moves only when someone waits or calls
/// [`advance`](Self::advance). Clones share the time: keep one to read [`waits`](Self::waits).
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

/// A real pause in each wait, so that waiting threads do not jump ahead of a working one.
const PAUSE: Duration = Duration::from_micros(20);

impl VirtualClock {
    /// Creates a clock at 2026-01-01T00:00:00Z.
    pub fn new() -> Self {
        Self::starting_at(Timestamp::from_millis(1_767_225_600_000))
    }

    /// Creates a clock at another time.
    pub fn starting_at(now: Timestamp) -> Self {
        Self(Arc::new(Mutex::new(State {
            now,
            waits: Vec::new(),
        })))
    }

    /// Advances the time, as if something took that long.
    pub fn advance(&self, duration: Duration) {
        let mut state = self.state();
        state.now = state.now.after(duration);
    }

    /// Returns the waits so far, in order. A wait for a past time does not count.
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
