//! Limits the rate of an upload.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

/// The time of the next batch.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: Option<NonZeroU64>,
    next: Instant,
}

impl Pace {
    pub(super) fn new(bytes_per_second: Option<NonZeroU64>, now: Instant) -> Self {
        Self { bytes_per_second, next: now }
    }

    /// How long the next batch has to wait; `None` if it may be sent now.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        let left = self.next.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// Counts a sent batch of this length. Unused time is not saved up, so that there are no
    /// bursts.
    pub(super) fn sent(&mut self, now: Instant, bytes: usize) {
        if let Some(rate) = self.bytes_per_second {
            let seconds = bytes as f64 / rate.get() as f64;
            self.next = self.next.max(now) + Duration::from_secs_f64(seconds.min(3600.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_spread_over_time_and_idle_time_is_not_saved() {
        let start = Instant::now();
        let mut pace = Pace::new(NonZeroU64::new(1000), start);
        assert_eq!(pace.wait(start), None);
        pace.sent(start, 500);
        assert_eq!(pace.wait(start), Some(Duration::from_millis(500)));
        let later = start + Duration::from_secs(10);
        assert_eq!(pace.wait(later), None);
        pace.sent(later, 250);
        assert_eq!(pace.wait(later), Some(Duration::from_millis(250)));
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        let start = Instant::now();
        let mut pace = Pace::new(None, start);
        pace.sent(start, usize::MAX);
        assert_eq!(pace.wait(start), None);
    }
}
