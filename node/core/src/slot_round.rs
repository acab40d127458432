//! One round of work on a set of slots: which worker is asked for each slot, and the outputs that
//! came back. A coordinator has such rounds, of batch jobs and of streams.
//!
//! Once other workers have shown how long a slot takes, the next owner of each slot that a slow
//! worker still has is asked too (backup tasks: Dean, Ghemawat, "MapReduce", 2004, §3.6). The first
//! output of a slot is used; all owners compute the same bytes.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cortado_engine::LookupRequest;
use cortado_protocol::peer::{PeerMessage, Work};
use cortado_protocol::{Coverage, Edge, JobId, NodeId, Slot, SlotSet, frame};

use crate::facts::Facts;
use crate::outbox::Outbox;

/// A request without an answer is repeated after this time: the worker may have dropped it while it
/// saw its coordinator as down. A worker that still works on it ignores the repeat.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// When one slot in so many is done, the time for all slots is estimated.
const SAMPLE_SHARE: u32 = 3;
/// A worker is slow after so many times the estimated time, plus [`SLOW_AFTER`].
const SLOW_TIMES: u32 = 2;
/// Additional time before a worker is slow, for short rounds.
const SLOW_AFTER: Duration = Duration::from_millis(250);

/// A request to one worker.
pub(crate) struct Asked {
    pub(crate) node: NodeId,
    /// Slots that the worker has not answered yet.
    pub(crate) slots: SlotSet,
    pub(crate) at: Duration,
    /// Whether another worker was asked for these slots too, or this request is the backup.
    pub(crate) backed_up: bool,
}

/// One round of work on a set of slots.
pub(crate) struct SlotRound {
    pub(crate) work: Work,
    keys: BTreeMap<Slot, Vec<Vec<u8>>>,
    /// Of work on a stream: what is wanted (postcard).
    wanted: Bytes,
    pub(crate) open: SlotSet,
    pub(crate) asked: BTreeMap<u64, Asked>,
    /// The number of owners that could not complete a slot. A full disk is a cause: it can't take
    /// the missing batches.
    pub(crate) passed_on: BTreeMap<Slot, usize>,
    /// Parts of outputs, by attempt and slot.
    parts: BTreeMap<(u64, Slot), Vec<Option<Bytes>>>,
    pub(crate) done: BTreeMap<Slot, Bytes>,
    /// Bytes of the parts and of the complete outputs.
    pub(crate) bytes: usize,
    pub(crate) total: u32,
    began: Option<Duration>,
    /// The time after which an unfinished worker is slow.
    slow_at: Option<Duration>,
}

impl SlotRound {
    pub(crate) fn fold(slots: SlotSet) -> Self {
        Self::new(Work::Fold, slots, BTreeMap::new())
    }

    pub(crate) fn lookup(request: LookupRequest) -> Self {
        let keys: BTreeMap<_, _> = request.keys.into_iter().collect();
        let slots = keys.keys().copied().collect();
        Self::new(Work::Lookup { table: request.table as u16 }, slots, keys)
    }

    /// A fold of windows of a stream; `wanted` goes with each request.
    pub(crate) fn windows(slots: SlotSet, wanted: Bytes) -> Self {
        Self { wanted, ..Self::new(Work::Windows, slots, BTreeMap::new()) }
    }

    /// A read of the events of some batches of a stream.
    pub(crate) fn events(slots: SlotSet, edge: Edge, batches: &Coverage) -> Self {
        let wanted = frame::to_postcard(&(edge, batches));
        Self { wanted, ..Self::new(Work::Events, slots, BTreeMap::new()) }
    }

    /// A check whether an owner of each slot has some batches of a stream, or can get them, beginning with
    /// the owner of this number.
    pub(crate) fn complete(slots: SlotSet, turn: usize, edge: Edge, batches: &Coverage) -> Self {
        let passed_on = slots.iter().map(|slot| (slot, turn)).collect();
        Self { work: Work::Complete, passed_on, ..Self::events(slots, edge, batches) }
    }

    fn new(work: Work, open: SlotSet, keys: BTreeMap<Slot, Vec<Vec<u8>>>) -> Self {
        let (asked, parts, done) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (passed_on, total) = (BTreeMap::new(), open.len() as u32);
        let (began, slow_at) = (None, None);
        let (bytes, wanted) = (0, Bytes::new());
        Self {
            work,
            keys,
            wanted,
            open,
            asked,
            passed_on,
            parts,
            done,
            bytes,
            total,
            began,
            slow_at,
        }
    }

    /// Open slots that no worker has.
    fn unasked(&self) -> SlotSet {
        self.asked.values().fold(self.open, |open, asked| open.minus(asked.slots))
    }

    /// Measures the round, and sets `slow_at` when enough slots are done.
    fn watch(&mut self, now: Duration) {
        let began = *self.began.get_or_insert(now);
        if self.slow_at.is_none() && self.done.len() as u32 * SAMPLE_SHARE >= self.total {
            let all = (now - began) * SAMPLE_SHARE;
            self.slow_at = Some(began + SLOW_TIMES * all + SLOW_AFTER);
        }
    }

    /// Each slow worker without a backup, and its open slots.
    fn take_slow(&mut self, now: Duration) -> Vec<(NodeId, SlotSet)> {
        if self.slow_at.is_none_or(|at| now < at) {
            return Vec::new();
        }
        let slow = self.asked.values_mut().filter(|asked| !asked.backed_up);
        slow.map(|asked| {
            asked.backed_up = true;
            (asked.node, asked.slots)
        })
        .collect()
    }

    pub(crate) fn take(&mut self, attempt: u64, slot: Slot, part: (u32, u32), bytes: Bytes) {
        let (part, parts) = (part.0 as usize, part.1 as usize);
        let asked = self.asked.get(&attempt);
        if asked.is_none_or(|asked| !asked.slots.contains(slot)) || part >= parts || parts > 1 << 16
        {
            return;
        }
        let received = self.parts.entry((attempt, slot)).or_default();
        received.resize(parts, None);
        self.bytes += bytes.len();
        let before = received[part].replace(bytes);
        self.bytes -= before.map_or(0, |before| before.len());
        if received.iter().any(Option::is_none) {
            return;
        }
        let mut received = self.parts.remove(&(attempt, slot)).unwrap_or_default();
        let whole = if let [Some(only)] = &mut received[..] {
            std::mem::take(only)
        } else {
            let mut whole = BytesMut::new();
            received.iter().flatten().for_each(|part| whole.extend_from_slice(part));
            whole.freeze()
        };
        // The parts of other workers' outputs are not needed any more.
        self.drop_parts(|(_, other)| other == slot);
        for asked in self.asked.values_mut() {
            asked.slots = asked.slots.minus(SlotSet::one(slot));
        }
        self.asked.retain(|_, asked| !asked.slots.is_empty());
        self.open = self.open.minus(SlotSet::one(slot));
        self.done.insert(slot, whole);
    }

    /// Gives up an attempt and returns its slots, which the next owners have to be asked for.
    pub(crate) fn pass_on(&mut self, attempt: u64) -> Option<SlotSet> {
        let slots = self.asked.get(&attempt)?.slots;
        for slot in slots.iter() {
            *self.passed_on.entry(slot).or_default() += 1;
        }
        self.give_up(attempt);
        Some(slots)
    }

    /// Asks nobody for these slots any more: they have no output.
    pub(crate) fn leave_out(&mut self, slots: SlotSet) {
        self.open = self.open.minus(slots);
        self.asked.values_mut().for_each(|asked| asked.slots = asked.slots.minus(slots));
        self.asked.retain(|_, asked| !asked.slots.is_empty());
        self.drop_parts(|(_, slot)| slots.contains(slot));
    }

    /// Gives up an attempt; its slots are asked for again.
    pub(crate) fn give_up(&mut self, attempt: u64) -> bool {
        self.drop_parts(|(of, _)| of == attempt);
        self.asked.remove(&attempt).is_some()
    }

    /// Gives up all attempts of such nodes.
    pub(crate) fn give_up_of(&mut self, gone: impl Fn(NodeId) -> bool) {
        let asked = self.asked.iter().filter(|(_, asked)| gone(asked.node));
        let attempts: Vec<_> = asked.map(|(attempt, _)| *attempt).collect();
        for attempt in attempts {
            self.give_up(attempt);
        }
    }

    /// What goes with a request for these slots.
    fn tail(&self, slots: SlotSet) -> Bytes {
        match &self.work {
            Work::Fold => Bytes::new(),
            Work::Windows | Work::Complete | Work::Events => self.wanted.clone(),
            Work::Lookup { .. } => {
                let keys: Vec<_> = slots.iter().map(|s| (s, &self.keys[&s])).collect();
                frame::to_postcard(&keys)
            }
        }
    }

    fn drop_parts(&mut self, which: impl Fn((u64, Slot)) -> bool) {
        let dropped = self.parts.extract_if(.., |of, _| which(*of));
        self.bytes -=
            dropped.flat_map(|(_, parts)| parts).flatten().map(|part| part.len()).sum::<usize>();
    }
}

impl SlotRound {
    /// Sends each open slot that no worker has to one of its owners, beginning with the first, and
    /// repeats the requests that are due. `ends` goes with each request. Returns whether a worker was
    /// asked for slots that no other has.
    pub(crate) fn ask(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        job: JobId,
        ends: &[u64],
    ) -> bool {
        self.watch(facts.now);
        let mut news = false;
        for ((backed_up, node), of) in next_requests(facts, job, self) {
            news |= !backed_up;
            // At time zero, the request is due at once.
            let (attempt, at) = (out.fresh_id(), Duration::ZERO);
            self.asked.insert(attempt, Asked { node, slots: of, at, backed_up });
        }
        send_due(out, self, job, facts.now, ends);
        news
    }
}

/// The next requests: slots by node, and by whether the node is a backup of a slow worker.
fn next_requests(
    facts: &Facts,
    job: JobId,
    slots: &mut SlotRound,
) -> BTreeMap<(bool, NodeId), SlotSet> {
    let placement = facts.placement(job);
    let me = facts.config.node;
    let owner = |slot, turn| placement.owners(slot).iter().cycle().nth(turn).copied().unwrap_or(me);
    let mut wanted: BTreeMap<_, SlotSet> = BTreeMap::new();
    for slot in slots.unasked().iter() {
        let turn = slots.passed_on.get(&slot).copied().unwrap_or_default();
        wanted.entry((false, owner(slot, turn))).or_default().insert(slot);
    }
    for (slow, of) in slots.take_slow(facts.now) {
        tracing::info!(%job, node = %slow, slots = of.len(), "slow: the next owners are asked too");
        for slot in of.iter() {
            let mut owners = placement.owners(slot).iter();
            let turn = owners.position(|owner| *owner == slow).unwrap_or_default();
            let next = owner(slot, turn + 1);
            if next != slow {
                wanted.entry((true, next)).or_default().insert(slot);
            }
        }
    }
    wanted
}

/// Sends the requests that are due.
fn send_due(out: &mut Outbox, slots: &mut SlotRound, job: JobId, now: Duration, ends: &[u64]) {
    let due = |asked: &Asked| asked.at.is_zero() || now >= asked.at + ASK_AGAIN_AFTER;
    let mut requests = Vec::new();
    for (attempt, asked) in slots.asked.iter_mut().filter(|(_, asked)| due(asked)) {
        asked.at = now;
        requests.push((*attempt, asked.node, asked.slots));
    }
    for (attempt, node, of) in requests {
        let (ends, work) = (ends.to_vec(), slots.work.clone());
        let message = PeerMessage::Work { job, attempt, slots: of, ends, work };
        out.send_with(node, message, slots.tail(of));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(7);

    fn slots(numbers: &[u8]) -> SlotSet {
        numbers.iter().map(|number| Slot(*number)).collect()
    }

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    fn ask(round: &mut SlotRound, attempt: u64, name: &str, numbers: &[u8], backed_up: bool) {
        let (node, slots) = (node(name), slots(numbers));
        round.asked.insert(attempt, Asked { node, slots, at: START, backed_up });
    }

    #[test]
    fn what_a_slow_worker_has_is_asked_of_others_once_and_the_first_answer_counts() {
        let mut round = SlotRound::fold(slots(&[0, 1, 2, 3]));
        ask(&mut round, 1, "a", &[0, 1], false);
        ask(&mut round, 2, "b", &[2, 3], false);
        round.watch(START);
        assert_eq!(
            round.take_slow(START + Duration::from_secs(3600)),
            [],
            "nothing to compare with"
        );
        for slot in [0, 1] {
            round.take(1, Slot(slot), (0, 1), Bytes::from_static(b"a"));
        }
        let sampled = Duration::from_secs(1);
        round.watch(START + sampled);
        let slow_at = START + 2 * 3 * sampled + SLOW_AFTER;
        assert_eq!(round.take_slow(slow_at - Duration::from_millis(1)), []);
        assert_eq!(round.take_slow(slow_at), [(node("b"), slots(&[2, 3]))]);
        assert_eq!(round.take_slow(slow_at), []);
        ask(&mut round, 3, "c", &[2, 3], true);
        assert_eq!(round.take_slow(slow_at), [], "no third one");

        // Parts of different workers are not mixed, and parts that arrive after the output are
        // ignored.
        round.take(2, Slot(2), (0, 2), Bytes::from_static(b"b"));
        round.take(3, Slot(2), (1, 2), Bytes::from_static(b"d"));
        assert!(!round.done.contains_key(&Slot(2)));
        round.take(3, Slot(2), (0, 2), Bytes::from_static(b"c"));
        assert_eq!(round.done[&Slot(2)], "cd");
        round.take(2, Slot(2), (1, 2), Bytes::from_static(b"b"));
        assert_eq!(round.done[&Slot(2)], "cd");
        assert!(round.parts.is_empty());
        // The slow worker may still be the first to answer the other slots.
        round.take(2, Slot(3), (0, 1), Bytes::from_static(b"b"));
        assert!(round.open.is_empty() && round.asked.is_empty());
    }

    #[test]
    fn a_backup_that_can_not_leaves_the_slow_worker_at_it() {
        let mut round = SlotRound::fold(slots(&[0, 1]));
        ask(&mut round, 1, "a", &[0, 1], true);
        ask(&mut round, 2, "b", &[0, 1], true);
        assert_eq!(round.pass_on(2), Some(slots(&[0, 1])));
        assert!(round.unasked().is_empty());
        assert_eq!(round.pass_on(1), Some(slots(&[0, 1])));
        assert_eq!((round.unasked(), round.passed_on[&Slot(0)]), (slots(&[0, 1]), 2));
    }
}
