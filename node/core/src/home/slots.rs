//! Slots at work: which replica was asked for which slot, and what came back.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cortado_engine::LookupRequest;
use cortado_protocol::client::ErrorKind;
use cortado_protocol::job::Manifest;
use cortado_protocol::peer::{EdgeCoverage, PeerMessage, Work};
use cortado_protocol::{JobId, META_SLOT, NodeId, Slot, SlotSet, frame};

use super::{Home, Phase, RETRY_AFTER, Then};
use crate::Core;
use crate::job::JobLog;
use crate::task::{Purpose, Task};

/// A request without an answer is sent again after this: the worker may have dropped it, believing
/// its home to be down. One that still works on it takes no notice.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// A request to one worker.
struct Asked {
    node: NodeId,
    /// Slots it has not answered yet.
    slots: SlotSet,
    at: Duration,
}

/// One question to a set of slots.
pub(super) struct SlotRound {
    work: Work,
    keys: BTreeMap<Slot, Vec<Vec<u8>>>,
    open: SlotSet,
    asked: BTreeMap<u64, Asked>,
    /// How many owners could not complete a slot, in turn: a full disk can't take what it misses.
    passed_on: BTreeMap<Slot, usize>,
    parts: BTreeMap<Slot, Vec<Option<Bytes>>>,
    done: BTreeMap<Slot, Bytes>,
    total: u32,
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
        Self { work, keys, open, asked, passed_on, parts, done, total }
    }

    /// Slots that nobody works on now.
    fn unasked(&self) -> SlotSet {
        self.asked.values().fold(self.open, |open, asked| open.minus(asked.slots))
    }

    fn take(&mut self, attempt: u64, slot: Slot, part: (u32, u32), bytes: Bytes) {
        let (part, parts) = (part.0 as usize, part.1 as usize);
        let Some(asked) = self.asked.get_mut(&attempt) else { return };
        if !asked.slots.contains(slot) || part >= parts || parts > 1 << 16 {
            return;
        }
        let received = self.parts.entry(slot).or_default();
        received.resize(parts, None);
        received[part] = Some(bytes);
        if received.iter().any(Option::is_none) {
            return;
        }
        asked.slots = asked.slots.minus(SlotSet::one(slot));
        if asked.slots.is_empty() {
            self.asked.remove(&attempt);
        }
        self.open = self.open.minus(SlotSet::one(slot));
        let mut received = self.parts.remove(&slot).unwrap_or_default();
        let whole = if let [Some(only)] = &mut received[..] {
            std::mem::take(only)
        } else {
            let mut whole = BytesMut::new();
            received.iter().flatten().for_each(|part| whole.extend_from_slice(part));
            whole.freeze()
        };
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
        let Some(asked) = self.asked.remove(&attempt) else { return false };
        self.parts.retain(|slot, _| !asked.slots.contains(*slot));
        true
    }
}

impl Home {
    fn rounds(&mut self) -> &mut [SlotRound] {
        match &mut self.phase {
            Phase::Slots { rounds, .. } => rounds,
            _ => &mut [],
        }
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
    pub(super) fn start_slots(&mut self, job: JobId, rounds: Vec<SlotRound>, then: Then) {
        let home = self.home_state(job);
        home.phase = Phase::Slots { rounds, then };
        home.missing.clear();
        self.ask_slots(job);
    }

    /// Asks an owner of each open slot nobody works on, the first one first.
    pub(super) fn ask_slots(&mut self, job: JobId) {
        let Some(ends) = self.jobs.get(&job).and_then(JobLog::all_ends) else { return };
        let placement = self.placement(job);
        let me = self.config.node;
        let (now, mut next) = (self.now, self.next_id);
        let mut messages = Vec::new();
        let mut news = false;
        let Some(home) = self.homes.get_mut(&job) else { return };
        if now < home.retry_at {
            return;
        }
        for round in home.rounds() {
            let mut by_node: BTreeMap<NodeId, SlotSet> = BTreeMap::new();
            for slot in round.unasked().iter() {
                let turn = round.passed_on.get(&slot).copied().unwrap_or_default();
                let owner = placement.owners(slot).iter().cycle().nth(turn).copied().unwrap_or(me);
                by_node.entry(owner).or_default().insert(slot);
            }
            for (node, slots) in by_node {
                next += 1;
                news = true;
                // Due at once.
                round.asked.insert(next, Asked { node, slots, at: Duration::ZERO });
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
                messages.push((asked.node, message, tail));
            }
        }
        if news {
            // What is still missing is said again by whoever is asked now.
            home.missing.clear();
        }
        self.next_id = next;
        for (node, message, tail) in messages {
            self.send_with(node, message, tail);
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
                self.run(Task::Join { state, rows }, Purpose::Home(job));
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
        self.slots_done(job);
    }

    /// A worker can't complete its slots: nobody has what is missing, or its disk is full. What not
    /// one owner could get is missing indeed; before that is known, the next owners are asked.
    pub(crate) fn on_incomplete(&mut self, job: JobId, attempt: u64, missing: &[EdgeCoverage]) {
        let now = self.now;
        let placement = self.placement(job);
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
        let reachable = &self.members.reachable;
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
