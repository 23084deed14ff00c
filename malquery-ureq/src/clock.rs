use std::thread;
use std::time::{Duration, Instant, SystemTime};

use malquery_proto::{Clock, Timestamp};

/// The clock of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        SystemTime::now().into()
    }

    fn sleep_until(&self, time: Timestamp) {
        // In slices, since the clock may be set meanwhile, and may not run on while the machine sleeps. Should it be set
        // back, the wait is no longer for that.
        let (begun, whole) = (Instant::now(), time.since(self.now()));
        loop {
            let left = time
                .since(self.now())
                .min(whole.saturating_sub(begun.elapsed()));
            if left.is_zero() {
                return;
            }
            thread::sleep(left.min(Duration::from_secs(1)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_sleeps_until_the_time_and_not_into_the_past() {
        let start = SystemClock.now();
        assert!(start > Timestamp::from_millis(1_700_000_000_000));
        let end = start.after(Duration::from_millis(30));
        SystemClock.sleep_until(end);
        assert!(SystemClock.now() >= end);
        SystemClock.sleep_until(start);
        SystemClock.sleep_until(Timestamp::from_millis(0));
    }
}
