//! How often a node may be revived: with growing pauses, and not without end.

use std::collections::VecDeque;
use std::time::Duration;

use super::Allowance;

/// Revivals are counted over this time.
const WINDOW: Duration = Duration::from_secs(300);
/// So many within it are enough.
pub(super) const MOST: usize = 3;
/// Pause after the first, second … revival within the window.
const PAUSES: [Duration; MOST - 1] = [Duration::from_secs(1), Duration::from_secs(5)];

/// The latest revivals of a node.
#[derive(Clone, Debug, Default)]
pub(super) struct Budget(VecDeque<Duration>);

impl Budget {
    /// Whether the node may be revived.
    pub(super) fn allowance(&mut self, now: Duration) -> Allowance {
        self.forget(now);
        match (self.0.len(), self.0.back()) {
            (0, _) | (_, None) => Allowance::Now,
            (MOST.., _) => Allowance::Never,
            (spent, Some(last)) => match *last + PAUSES[spent - 1] {
                at if at <= now => Allowance::Now,
                at => Allowance::Later(at),
            },
        }
    }

    /// Counts a revival; returns how many there were within the window.
    pub(super) fn spend(&mut self, now: Duration) -> usize {
        self.forget(now);
        self.0.push_back(now);
        self.0.len()
    }

    /// Whether nothing of it needs to be remembered.
    pub(super) fn is_fresh(&mut self, now: Duration) -> bool {
        self.forget(now);
        self.0.is_empty()
    }

    fn forget(&mut self, now: Duration) {
        while self.0.front().is_some_and(|at| *at + WINDOW <= now) {
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
}
