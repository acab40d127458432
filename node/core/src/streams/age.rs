//! How old the batches of an edge are: which of them are kept no longer at some time.

use std::collections::VecDeque;

/// Batches in turn that are kept equally long.
#[derive(Debug)]
struct Run {
    /// They are kept until windows are retired that end by then, in milliseconds since the Unix epoch.
    until_ms: i64,
    batches: u64,
    counts: [u64; 2],
}

/// The batches of an edge that are kept and were read, oldest first. Times are kept in steps of retention
/// only, so that there are few of them.
#[derive(Debug, Default)]
pub(super) struct Age {
    /// The first batch that is kept.
    pub(super) floor: u64,
    runs: VecDeque<Run>,
}

impl Age {
    /// What begins behind some batches.
    pub(super) fn from(floor: u64) -> Self {
        Self { floor, runs: VecDeque::new() }
    }

    /// Takes the next batches: nothing in them is later than a time. A batch is kept as long as one before
    /// it.
    pub(super) fn add(&mut self, step_ms: i64, until_ms: i64, batches: u64, counts: [u64; 2]) {
        let step = until_ms.saturating_neg().div_euclid(step_ms).saturating_mul(step_ms);
        let until_ms = step.saturating_neg();
        match self.runs.back_mut().filter(|last| last.until_ms >= until_ms) {
            Some(last) => {
                last.batches += batches;
                (0..2).for_each(|at| last.counts[at] += counts[at]);
            }
            None => self.runs.push_back(Run { until_ms, batches, counts }),
        }
    }

    /// The first batch that is kept once windows are retired that end by a time, and the counts of those
    /// before it that are still kept now.
    pub(super) fn after(&self, before_ms: i64) -> (u64, [u64; 2]) {
        let gone = self.runs.iter().take_while(|run| run.until_ms <= before_ms);
        gone.fold((self.floor, [0; 2]), |(floor, [a, b]), run| {
            (floor + run.batches, [a + run.counts[0], b + run.counts[1]])
        })
    }

    /// Windows are retired that end by a time.
    pub(super) fn retire(&mut self, before_ms: i64) {
        (self.floor, _) = self.after(before_ms);
        self.runs.retain(|run| run.until_ms > before_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_kept_as_long_as_any_before_it_and_in_steps() {
        let mut age = Age::default();
        for until_ms in [10, 100, 99, 130, 30, 200] {
            age.add(100, until_ms, 1, [1, 10]);
        }
        assert_eq!(age.runs.len(), 2, "100 and 200");
        assert_eq!(age.after(99), (0, [0, 0]));
        assert_eq!(age.after(100), (3, [3, 30]));
        age.retire(100);
        assert_eq!((age.floor, age.after(150), age.after(200)), (3, (3, [0, 0]), (6, [3, 30])));
        age.retire(i64::MAX);
        age.add(100, i64::MAX, 1, [1, 1]);
        age.add(100, i64::MIN, 1, [1, 1]);
        assert_eq!(age.after(i64::MAX), (8, [2, 2]));
    }
}
