//! foca's timers, in a heap that the detector owns.
//!
//! foca needs every timer back, in order; one lost timer stops its probing for good. So the heap
//! has no limit and drops nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use foca::Timer;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::Identity;

#[derive(Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<Entry>>,
    submitted: u64,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    // The order of the fields is the order of delivery: foca ranks timers that are due together,
    // and the number makes the order total, hence the same in every run.
    due: Duration,
    timer: Timer<Identity>,
    number: u64,
}

impl Timers {
    pub(super) fn submit(&mut self, due: Duration, timer: Timer<Identity>) {
        self.submitted += 1;
        self.heap.push(Reverse(Entry { due, timer, number: self.submitted }));
    }

    pub(super) fn next(&self) -> Option<Duration> {
        self.heap.peek().map(|Reverse(entry)| entry.due)
    }

    pub(super) fn pop_due(&mut self, now: Duration) -> Option<Timer<Identity>> {
        self.next().filter(|due| *due <= now)?;
        self.heap.pop().map(|Reverse(entry)| entry.timer)
    }

    /// Moves the declarations of down nodes that are due by `now` to `until`: a node that was
    /// suspected while this node did not run had no chance to refute.
    pub(super) fn put_off_condemnations(&mut self, now: Duration, until: Duration) {
        let put_off = |Reverse(mut entry): Reverse<Entry>| {
            if entry.due <= now && matches!(entry.timer, Timer::ChangeSuspectToDown { .. }) {
                entry.due = until;
            }
            Reverse(entry)
        };
        self.heap = std::mem::take(&mut self.heap).into_iter().map(put_off).collect();
    }

    pub(super) fn clear(&mut self) {
        self.heap.clear();
    }
}

/// The delay to use for a timer: 20% more or less for those that repeat, so that nodes which
/// started or were reconnected at the same moment do not act in step for ever.
pub(super) fn jittered(timer: &Timer<Identity>, after: Duration, rng: &mut StdRng) -> Duration {
    match timer {
        Timer::ProbeRandomMember(_)
        | Timer::PeriodicAnnounce(_)
        | Timer::PeriodicAnnounceDown(_)
        | Timer::PeriodicGossip(_) => after.mul_f64(rng.random_range(0.8..1.2)),
        Timer::SendIndirectProbe { .. }
        | Timer::ChangeSuspectToDown { .. }
        | Timer::RemoveDown(_) => after,
    }
}
