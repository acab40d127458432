//! Limits the log: an event that may happen thousands of times a second is logged once in ten
//! seconds, with its count.

use std::time::{Duration, Instant};

/// Shortest time between two messages of one kind.
const EVERY: Duration = Duration::from_secs(10);

/// Counts one kind of event.
#[derive(Debug, Default)]
pub struct Seldom {
    silent_until: Option<Instant>,
    untold: u64,
}

impl Seldom {
    /// Counts one event. Returns the number since the last message if it is time for the next one.
    #[must_use]
    pub fn one_more(&mut self, now: Instant) -> Option<u64> {
        self.untold += 1;
        if self.silent_until.is_some_and(|until| now < until) {
            return None;
        }
        self.silent_until = Some(now + EVERY);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_the_others_are_counted() {
        let (mut seldom, start) = (Seldom::default(), Instant::now());
        assert_eq!(seldom.one_more(start), Some(1));
        assert_eq!(seldom.one_more(start + EVERY / 2), None);
        assert_eq!(seldom.one_more(start + EVERY), Some(2));
    }
}
