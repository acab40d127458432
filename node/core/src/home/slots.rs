//! Slots at work: which replica was asked for which slot, and what came back.
//!
//! Once others have shown how long a slot takes, the next owner of what a slow worker still has is
//! asked too (backup tasks: Dean, Ghemawat, "MapReduce", 2004, §3.6). The first answer counts; all
//! owners give the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cortado_engine::LookupRequest;
use cortado_engine::largest_query;
use cortado_protocol::client::ErrorKind;
use cortado_protocol::job::Manifest;
use cortado_protocol::peer::{self, EdgeCoverage, PeerMessage, Work};
use cortado_protocol::{JobId, META_SLOT, NodeId, Slot, SlotSet, frame};

use super::{Home, Phase, RETRY_AFTER, Then};
use crate::Core;
use crate::job::JobLog;
use crate::task::{Purpose, Task};

/// A request without an answer is sent again after this: the worker may have dropped it, believing
/// its home to be down. One that still works on it takes no notice.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// When one slot in so many is done, it is known how long all should take.
const SAMPLE_SHARE: u32 = 3;
/// A worker is slow when it takes so many times as long as all should,
const SLOW_TIMES: u32 = 2;
/// and so much longer.
const SLOW_AFTER: Duration = Duration::from_millis(250);

/// A request to one worker.
struct Asked {
    node: NodeId,
    /// Slots it has not answered yet.
    slots: SlotSet,
    at: Duration,
    /// Whether somebody else was asked too, or it is that one.
    backed_up: bool,
}

/// One question to a set of slots.
pub(super) struct SlotRound {
    work: Work,
    keys: BTreeMap<Slot, Vec<Vec<u8>>>,
    open: SlotSet,
    asked: BTreeMap<u64, Asked>,
    /// How many owners could not complete a slot, in turn: a full disk can't take what it misses.
    passed_on: BTreeMap<Slot, usize>,
    /// Parts of answers, by attempt and slot.
    parts: BTreeMap<(u64, Slot), Vec<Option<Bytes>>>,
    done: BTreeMap<Slot, Bytes>,
    /// Bytes of the parts and of what is done.
    bytes: usize,
    total: u32,
    began: Option<Duration>,
    /// When a worker that is not done is called slow.
    slow_at: Option<Duration>,
}

impl SlotRound {
    pub(super) fn fold(slots: SlotSet) -> Self {
        Self::new(Work::Fold, slots, BTreeMap::new())
    }

    pub(super) fn lookup(request: LookupRequest) -> Self {
        let keys: BTreeMap<_, _> = request.keys.into_iter().collect();
        let slots = keys.keys().copied().collect();
        Self::new(Work::Lookup { table: request.table as u16 }, slots, keys)
    }

    fn new(work: Work, open: SlotSet, keys: BTreeMap<Slot, Vec<Vec<u8>>>) -> Self {
        let (asked, parts, done) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (passed_on, total) = (BTreeMap::new(), open.len() as u32);
        let (began, slow_at) = (None, None);
        let bytes = 0;
        Self { work, keys, open, asked, passed_on, parts, done, bytes, total, began, slow_at }
    }

    /// Slots that nobody works on now.
    fn unasked(&self) -> SlotSet {
        self.asked.values().fold(self.open, |open, asked| open.minus(asked.slots))
    }

    /// Sees how long the round takes.
    fn watch(&mut self, now: Duration) {
        let began = *self.began.get_or_insert(now);
        if self.slow_at.is_none() && self.done.len() as u32 * SAMPLE_SHARE >= self.total {
            let all = (now - began) * SAMPLE_SHARE;
            self.slow_at = Some(began + SLOW_TIMES * all + SLOW_AFTER);
        }
    }

    /// The slots of each slow worker that nobody else was asked for yet, and that worker.
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

    fn take(&mut self, attempt: u64, slot: Slot, part: (u32, u32), bytes: Bytes) {
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
        // Whoever else was asked for it is late.
        self.drop_parts(|(_, other)| other == slot);
        for asked in self.asked.values_mut() {
            asked.slots = asked.slots.minus(SlotSet::one(slot));
        }
        self.asked.retain(|_, asked| !asked.slots.is_empty());
        self.open = self.open.minus(SlotSet::one(slot));
        self.done.insert(slot, whole);
    }

    /// Gives an attempt up, to ask the next owners of its slots, which are returned.
    fn pass_on(&mut self, attempt: u64) -> Option<SlotSet> {
        let slots = self.asked.get(&attempt)?.slots;
        for slot in slots.iter() {
            *self.passed_on.entry(slot).or_default() += 1;
        }
        self.give_up(attempt);
        Some(slots)
    }

    /// Gives an attempt up; its slots are asked again.
    fn give_up(&mut self, attempt: u64) -> bool {
        self.drop_parts(|(of, _)| of == attempt);
        self.asked.remove(&attempt).is_some()
    }

    fn drop_parts(&mut self, which: impl Fn((u64, Slot)) -> bool) {
        let dropped = self.parts.extract_if(.., |of, _| which(*of));
        self.bytes -=
            dropped.flat_map(|(_, parts)| parts).flatten().map(|part| part.len()).sum::<usize>();
    }
}

impl Home {
    fn rounds(&mut self) -> &mut [SlotRound] {
        match &mut self.phase {
            Phase::Slots { rounds, .. } => rounds,
            _ => &mut [],
        }
    }

    /// Bytes of slots' outputs it holds.
    pub(crate) fn output_bytes(&self) -> usize {
        match &self.phase {
            Phase::Slots { rounds, .. } => rounds.iter().map(|round| round.bytes).sum(),
            _ => 0,
        }
    }

    /// Who works on slots that are not done.
    pub(super) fn workers(&self) -> Vec<NodeId> {
        let Phase::Slots { rounds, .. } = &self.phase else { return Vec::new() };
        let asked = rounds.iter().flat_map(|round| round.asked.values());
        asked.map(|asked| asked.node).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Slots done and slots in all, for the status.
    pub(super) fn slots_done(&self) -> Option<(bool, u32, u32)> {
        let Phase::Slots { rounds, then } = &self.phase else { return None };
        let done = rounds.iter().map(|round| round.done.len() as u32).sum();
        let total = rounds.iter().map(|round| round.total).sum();
        Some((matches!(then, Then::Finish), done, total))
    }
}

impl Core {
    /// The query with the largest outputs, of a job of which they are here.
    pub(crate) fn largest_output(&self, job: JobId) -> String {
        let Some(plan) = self.facts.plan_of(job) else { return String::new() };
        let Some(Phase::Slots { rounds, .. }) = self.homes.get(&job).map(|home| &home.phase) else {
            return String::new();
        };
        let folds = rounds.iter().filter(|round| round.work == Work::Fold);
        largest_query(&plan.plan, folds.flat_map(|round| round.done.values()))
    }

    pub(super) fn start_slots(&mut self, job: JobId, rounds: Vec<SlotRound>, then: Then) {
        let home = self.home_state(job);
        home.phase = Phase::Slots { rounds, then };
        home.missing.clear();
        self.ask_slots(job);
    }

    /// Asks an owner of each open slot nobody works on, the first one first.
    pub(super) fn ask_slots(&mut self, job: JobId) {
        let Some(ends) = self.facts.jobs.get(&job).and_then(JobLog::all_ends) else { return };
        let placement = self.facts.placement(job);
        let me = self.facts.config.node;
        let owner =
            |slot, turn| placement.owners(slot).iter().cycle().nth(turn).copied().unwrap_or(me);
        let now = self.facts.now;
        let mut news = false;
        let Some(home) = self.homes.get_mut(&job) else { return };
        if now < home.retry_at {
            return;
        }
        for round in home.rounds() {
            round.watch(now);
            // By whether it is a backup, and node.
            let mut wanted: BTreeMap<(bool, NodeId), SlotSet> = BTreeMap::new();
            for slot in round.unasked().iter() {
                let turn = round.passed_on.get(&slot).copied().unwrap_or_default();
                wanted.entry((false, owner(slot, turn))).or_default().insert(slot);
            }
            news |= !wanted.is_empty();
            for (slow, slots) in round.take_slow(now) {
                tracing::info!(%job, node = %slow, slots = slots.len(), "slow: the next owners are asked too");
                for slot in slots.iter() {
                    let mut owners = placement.owners(slot).iter();
                    let turn = owners.position(|owner| *owner == slow).unwrap_or_default();
                    let next = owner(slot, turn + 1);
                    if next != slow {
                        wanted.entry((true, next)).or_default().insert(slot);
                    }
                }
            }
            for ((backed_up, node), slots) in wanted {
                // Due at once.
                let attempt = self.out.fresh_id();
                round.asked.insert(attempt, Asked { node, slots, at: Duration::ZERO, backed_up });
            }
            for (attempt, asked) in &mut round.asked {
                if asked.at > Duration::ZERO && now < asked.at + ASK_AGAIN_AFTER {
                    continue;
                }
                asked.at = now;
                let slots = asked.slots;
                let tail = match &round.work {
                    Work::Fold => Bytes::new(),
                    Work::Lookup { .. } => {
                        let keys: Vec<_> = slots.iter().map(|s| (s, &round.keys[&s])).collect();
                        frame::to_postcard(&keys)
                    }
                };
                let (attempt, ends, work) = (*attempt, ends.clone(), round.work.clone());
                let message = PeerMessage::Work { job, attempt, slots, ends, work };
                self.out.send_with(asked.node, message, tail);
            }
        }
        if news {
            // What is still missing is said again by whoever is asked now.
            home.missing.clear();
        }
        self.slots_done(job);
    }

    /// Goes on when every slot has answered.
    fn slots_done(&mut self, job: JobId) {
        let Some(home) = self.homes.get_mut(&job) else { return };
        let Phase::Slots { rounds, .. } = &home.phase else { return };
        if rounds.iter().any(|round| !round.open.is_empty()) {
            return;
        }
        match std::mem::replace(&mut home.phase, Phase::Compute) {
            Phase::Slots { rounds, then: Then::Finish } => {
                let outputs = rounds.into_iter().flat_map(|round| round.done).collect();
                self.compute(job, outputs);
            }
            Phase::Slots { rounds, then: Then::Join(state) } => {
                let mut rows = Vec::new();
                for SlotRound { work, done, .. } in rounds {
                    if let Work::Lookup { table } = work {
                        let table = usize::from(table);
                        rows.extend(done.into_iter().map(|(slot, bytes)| (table, slot, bytes)));
                    }
                }
                self.out.run(Task::Join { state, rows }, Purpose::Home(job));
            }
            other => home.phase = other,
        }
    }

    pub(crate) fn on_output(
        &mut self,
        job: JobId,
        attempt: u64,
        slot: Slot,
        part: (u32, u32),
        bytes: Bytes,
    ) {
        let Some(home) = self.homes.get_mut(&job) else { return };
        if slot == META_SLOT {
            if matches!(home.phase, Phase::Collect { gather: Some(number) } if number == attempt) {
                home.phase = Phase::Collect { gather: None };
                home.missing.clear();
                self.drive(job);
            }
            return;
        }
        for round in home.rounds() {
            round.take(attempt, slot, part, bytes.clone());
        }
        self.check_outputs(job);
        self.slots_done(job);
    }

    /// A worker can't complete its slots: nobody has what is missing, or its disk is full. What not
    /// one owner could get is missing indeed; before that is known, the next owners are asked.
    pub(crate) fn on_incomplete(&mut self, job: JobId, attempt: u64, missing: &[EdgeCoverage]) {
        let now = self.facts.now;
        let placement = self.facts.placement(job);
        let Some(home) = self.homes.get_mut(&job) else { return };
        let (asked, is_last) = match &mut home.phase {
            Phase::Collect { gather } if *gather == Some(attempt) => {
                *gather = None;
                (true, true)
            }
            Phase::Slots { rounds, .. } => {
                let slots = rounds.iter_mut().find_map(|round| {
                    let slots = round.pass_on(attempt)?;
                    let asked_all = |slot| round.passed_on[&slot] >= placement.owners(slot).len();
                    Some(slots.iter().all(asked_all))
                });
                (slots.is_some(), slots.unwrap_or(false))
            }
            _ => (false, false),
        };
        if !asked {
            return;
        }
        if !is_last {
            self.ask_slots(job);
            return;
        }
        home.retry_at = now + RETRY_AFTER;
        home.missing.retain(|before| missing.iter().all(|gap| gap.edge != before.edge));
        home.missing.extend_from_slice(missing);
        // The client is asked for no more at a time than a message holds.
        home.missing = peer::first_page(std::mem::take(&mut home.missing));
        self.answer_waiting(job);
    }

    pub(crate) fn on_work_failed(&mut self, job: JobId, attempt: u64, message: String) {
        let Some(home) = self.homes.get_mut(&job) else { return };
        if home.rounds().iter_mut().any(|round| round.give_up(attempt)) {
            tracing::error!(%job, %message, kind = ?ErrorKind::Ended, "slot work failed");
            self.close(job, Manifest::Failed { message });
        }
    }

    /// Slots whose worker is gone are asked elsewhere.
    pub(super) fn slots_after_change(&mut self, job: JobId) {
        let reachable = &self.facts.members.reachable;
        let Some(home) = self.homes.get_mut(&job) else { return };
        for round in home.rounds() {
            let gone: Vec<_> = round
                .asked
                .iter()
                .filter(|(_, asked)| reachable.binary_search(&asked.node).is_err())
                .map(|(attempt, _)| *attempt)
                .collect();
            for attempt in gone {
                round.give_up(attempt);
            }
        }
    }

    /// A peer was started again: it does not remember what it was asked.
    pub(crate) fn slots_after_restart(&mut self, peer: NodeId) {
        for home in self.homes.values_mut() {
            for round in home.rounds() {
                let lost: Vec<_> = round
                    .asked
                    .iter()
                    .filter(|(_, asked)| asked.node == peer)
                    .map(|(attempt, _)| *attempt)
                    .collect();
                for attempt in lost {
                    round.give_up(attempt);
                }
            }
        }
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

        // Answers in parts are not mixed, and what comes late is left.
        round.take(2, Slot(2), (0, 2), Bytes::from_static(b"b"));
        round.take(3, Slot(2), (1, 2), Bytes::from_static(b"d"));
        assert!(!round.done.contains_key(&Slot(2)));
        round.take(3, Slot(2), (0, 2), Bytes::from_static(b"c"));
        assert_eq!(round.done[&Slot(2)], "cd");
        round.take(2, Slot(2), (1, 2), Bytes::from_static(b"b"));
        assert_eq!(round.done[&Slot(2)], "cd");
        assert!(round.parts.is_empty());
        // The slow one may still be the first with the rest.
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
