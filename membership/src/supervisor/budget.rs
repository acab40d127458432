//! Limits how often a node is revived: with growing pauses, and at most [`MOST`] times within a
//! window. The supervisor keeps one budget per node.

use std::collections::VecDeque;
use std::time::Duration;

use super::Allowance;

/// Revivals are counted over this time.
const WINDOW: Duration = Duration::from_secs(300);
/// Most revivals within the window.
pub(super) const MOST: usize = 3;
/// Pause after the first, second … revival within the window.
const PAUSES: [Duration; MOST - 1] = [Duration::from_secs(1), Duration::from_secs(5)];

/// The latest revivals of a node: the time at which each of them expires.
#[derive(Clone, Debug, Default)]
pub(super) struct Budget(VecDeque<Duration>);

impl Budget {
    /// Whether the node may be revived.
    pub(super) fn allowance(&mut self, now: Duration) -> Allowance {
        self.forget(now);
        match (self.0.len(), self.0.back()) {
            (0, _) | (_, None) => Allowance::Now,
            (MOST.., _) => Allowance::Never,
            (spent, Some(last)) => match (*last + PAUSES[spent - 1]).saturating_sub(WINDOW) {
                at if at <= now => Allowance::Now,
                at => Allowance::Later(at),
            },
        }
    }

    /// Counts a revival; returns how many there were within the window.
    pub(super) fn spend(&mut self, now: Duration) -> usize {
        self.forget(now);
        self.0.push_back(now + WINDOW);
        self.0.len()
    }

    /// Takes the last revival back, because it started nothing.
    pub(super) fn refund(&mut self, now: Duration) {
        self.forget(now);
        self.0.pop_back();
    }

    /// Adopts the count of another supervisor, if it is higher.
    pub(super) fn adopt(&mut self, now: Duration, spent: usize, counts_for: Duration) {
        self.forget(now);
        let forgotten_at = now + counts_for.min(WINDOW);
        while self.0.len() < spent.min(MOST) && counts_for > Duration::ZERO {
            self.0.push_back(forgotten_at);
        }
        self.0.make_contiguous().sort_unstable();
    }

    /// How many revivals there were within the window, and for how long the last of them counts.
    pub(super) fn spent(&mut self, now: Duration) -> (usize, Duration) {
        self.forget(now);
        (self.0.len(), self.0.back().map_or(Duration::ZERO, |at| *at - now))
    }

    /// Whether no revival counts any more.
    pub(super) fn is_fresh(&mut self, now: Duration) -> bool {
        self.forget(now);
        self.0.is_empty()
    }

    fn forget(&mut self, now: Duration) {
        while self.0.front().is_some_and(|at| *at <= now) {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_three_within_five_minutes_are_enough() {
        let at = Duration::from_secs;
        let mut budget = Budget::default();
        assert_eq!(budget.allowance(at(10)), Allowance::Now);
        assert_eq!(budget.spend(at(10)), 1);
        assert_eq!(budget.allowance(at(10)), Allowance::Later(at(11)));
        assert_eq!(budget.allowance(at(11)), Allowance::Now);
        assert_eq!(budget.spend(at(11)), 2);
        assert_eq!(budget.allowance(at(12)), Allowance::Later(at(16)));
        assert_eq!(budget.spend(at(16)), 3);
        assert_eq!(budget.allowance(at(309)), Allowance::Never);
        assert_eq!(budget.allowance(at(310)), Allowance::Now, "the first is five minutes ago");
        assert_eq!(budget.spend(at(310)), 3);
        assert!(budget.is_fresh(at(610)));
    }

    #[test]
    fn what_others_have_counted_counts() {
        let at = Duration::from_secs;
        let mut budget = Budget::default();
        budget.adopt(at(1), 2, at(299));
        assert_eq!(budget.allowance(at(1)), Allowance::Later(at(5)));
        assert_eq!(budget.spent(at(2)), (2, at(298)));
        budget.adopt(at(2), 1, at(300));
        assert_eq!(budget.spend(at(10)), 3);
        assert_eq!(budget.allowance(at(299)), Allowance::Never);
        assert_eq!(budget.allowance(at(300)), Allowance::Now);
        budget.adopt(at(300), 9, at(9_000));
        assert_eq!(budget.spent(at(300)), (3, at(300)), "whatever they say");
    }
}
