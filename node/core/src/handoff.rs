//! Handoff: after a change of view, deltas go to the nodes that own them now.
//!
//! A holder *offers* what it has (coverage, not data) to every owner; the owner fetches what it
//! misses and says what it *has*. A holder that is no owner any more forgets its copy only when all
//! owners confirmed theirs, and a draining node leaves when everything it holds is confirmed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cortado_protocol::peer::{self, EdgeCoverage, PeerMessage};
use cortado_protocol::{Coverage, EntryKey, JobId, LogId, NodeId, SlotSet};

use self::incoming::Incoming;
use crate::task::{Purpose, Task, TaskOutput};
use crate::{Core, Effect, PlantedBug};

mod incoming;

/// Pause between two rounds of offers.
const OFFER_EVERY: Duration = Duration::from_millis(250);
/// Offers are repeated to everyone this often, for whatever slipped through,
const SWEEP_EVERY: Duration = Duration::from_secs(30);
/// and once more so long after a change of view: until all have seen it, some store by the old one.
const SETTLED_AFTER: Duration = Duration::from_secs(3);
/// How long an offer may stay unanswered at first: a peer says nothing to a node that it believes to be
/// down. Twice as long each time, so that a slow peer is heard in the end.
const ANSWER_PATIENCE: Duration = Duration::from_secs(1);
/// So often it is doubled.
const PATIENCE_DOUBLINGS: u32 = 2;
/// How long a member that leaves waits for its last words to be heard.
const FAREWELL: Duration = Duration::from_secs(1);
/// Bytes sent for one fetch; the asker asks again for the rest.
const FETCH_BYTES: u64 = 24 << 20;

/// What a peer is known to hold of one job, by its last answer to an offer.
#[derive(Default)]
struct Confirmed {
    round: u64,
    held: Vec<EdgeCoverage>,
    /// The offer that is open.
    open: Option<OpenOffer>,
    /// Offers in turn that found no answer in time.
    late: u32,
}

struct OpenOffer {
    round: u64,
    /// Pages without an answer.
    pages: usize,
    since: Duration,
    held: Vec<EdgeCoverage>,
}

/// What moves, and what is known to be elsewhere.
#[derive(Default)]
pub(crate) struct Handoff {
    dirty: BTreeSet<NodeId>,
    offered_at: Duration,
    sweep_at: Duration,
    /// Since when not every copy is known to be where it belongs.
    unsettled_since: Option<Duration>,
    incoming: BTreeMap<JobId, Incoming>,
    confirmed: BTreeMap<(JobId, NodeId), Confirmed>,
    draining: bool,
    /// Everything is elsewhere, since when.
    drained: Option<Duration>,
    /// The shell was told to end.
    left: bool,
}

impl Handoff {
    pub(crate) fn is_busy(&self) -> bool {
        let settling = !self.is_settled() || self.unsettled_since.is_some();
        self.draining || settling || self.incoming.values().any(Incoming::is_fetching)
    }

    /// Everybody has been offered all they own of what is held here, and lacks none of it.
    fn is_settled(&self) -> bool {
        self.dirty.is_empty() && self.confirmed.values().all(|confirmed| confirmed.open.is_none())
    }

    pub(crate) fn held_by(&self, job: JobId, peer: NodeId) -> &[EdgeCoverage] {
        self.confirmed.get(&(job, peer)).map_or(&[], |confirmed| &confirmed.held)
    }
}

/// Adds what a page says.
fn add_page(held: &mut Vec<EdgeCoverage>, page: Vec<EdgeCoverage>) {
    for part in page {
        let same = |known: &&mut EdgeCoverage| known.edge == part.edge && known.slots == part.slots;
        match held.iter_mut().find(same) {
            Some(known) => known.coverage.union(&part.coverage),
            None => held.push(part),
        }
    }
}

/// Slots for which `held` covers all of `mine`.
fn covered(held: &[EdgeCoverage], mine: &EdgeCoverage) -> SlotSet {
    let same_edge = || held.iter().filter(|part| part.edge == mine.edge);
    let all = same_edge().filter(|part| part.coverage.contains_all(&mine.coverage));
    let at_once = all.fold(SlotSet::EMPTY, |set, part| set.or(part.slots)).and(mine.slots);
    // Of the others, several pages may speak.
    let others = mine.slots.minus(at_once).iter().filter(|slot| {
        let mut together = Coverage::default();
        for part in same_edge().filter(|part| part.slots.contains(*slot)) {
            together.union(&part.coverage);
        }
        together.contains_all(&mine.coverage)
    });
    others.chain(at_once.iter()).collect()
}

impl Core {
    /// The peer may miss something: offer it what it owns, soon.
    pub(crate) fn handoff_to(&mut self, peer: NodeId) {
        if peer != self.facts.config.node {
            self.handoff.dirty.insert(peer);
        }
    }

    /// An entry was sent here by someone with another view: its owners may miss it.
    pub(crate) fn offer_foreign(&mut self, key: EntryKey) {
        let me = self.facts.config.node;
        let placement = self.facts.placement(key.job);
        let held =
            self.facts.holdings.edge(key.job, key.edge).map(|edge| edge.slots(key.number, true));
        let foreign = held.unwrap_or_default().minus(placement.slots_of(me));
        if foreign.is_empty() {
            return;
        }
        for (owner, slots) in &placement.by_owner {
            if !slots.and(foreign).is_empty() {
                self.handoff_to(*owner);
            }
        }
    }

    pub(crate) fn handoff_after_change(&mut self) {
        let me = self.facts.config.node;
        let live = self.facts.members.live.iter().copied();
        self.handoff.dirty = live.filter(|node| *node != me).collect();
        let reachable = &self.facts.members.reachable;
        for incoming in self.handoff.incoming.values_mut() {
            incoming.give_up(|node| reachable.binary_search(&node).is_err());
        }
        // What was offered by the view before is offered by this one.
        self.handoff.confirmed.values_mut().for_each(|confirmed| confirmed.open = None);
        // Offers at once: a new owner should not wait for the next round.
        self.handoff.offered_at = Duration::ZERO;
        self.handoff.sweep_at = self.handoff.sweep_at.min(self.facts.now + SETTLED_AFTER);
        self.handoff.unsettled_since = self.handoff.unsettled_since.or(Some(self.facts.now));
    }

    pub(crate) fn tick_handoff(&mut self) {
        let now = self.facts.now;
        if self.handoff.drained.is_some() {
            return self.leave();
        }
        if now >= self.handoff.sweep_at || self.handoff.draining {
            self.handoff.sweep_at = now + SWEEP_EVERY;
            let me = self.facts.config.node;
            let live = self.facts.members.live.iter().copied();
            self.handoff.dirty.extend(live.filter(|node| *node != me));
        }
        if now >= self.handoff.offered_at + OFFER_EVERY {
            self.handoff.offered_at = now;
            self.offer_unanswered_again();
            let ready: Vec<_> = self
                .handoff
                .dirty
                .iter()
                .copied()
                .filter(|peer| self.links.is_up(*peer) && self.facts.members.is_reachable(*peer))
                .collect();
            for peer in ready {
                self.handoff.dirty.remove(&peer);
                self.offer_all(peer);
            }
            let reachable = &self.facts.members.reachable;
            self.handoff.dirty.retain(|peer| reachable.binary_search(peer).is_ok());
        }
        self.tick_incoming();
        if self.handoff.is_settled()
            && let Some(since) = self.handoff.unsettled_since.take()
        {
            let after_ms = (now - since).as_millis() as u64;
            tracing::info!(after_ms, "every copy is in place");
        }
        self.check_drained();
    }

    fn offer_unanswered_again(&mut self) {
        let now = self.facts.now;
        let Handoff { confirmed, dirty, .. } = &mut self.handoff;
        for ((_, peer), confirmed) in confirmed {
            let patience = ANSWER_PATIENCE * (1 << confirmed.late.min(PATIENCE_DOUBLINGS));
            if confirmed.open.take_if(|open| now >= open.since + patience).is_some() {
                confirmed.late += 1;
                dirty.insert(*peer);
            }
        }
    }

    fn offer_all(&mut self, peer: NodeId) {
        if self.facts.config.planted == Some(PlantedBug::ForgetHandoff) {
            return;
        }
        let jobs: Vec<_> = self.facts.holdings.jobs().map(|(job, _)| job).collect();
        for job in jobs {
            let slots = self.facts.placement(job).slots_of(peer);
            let confirmed = self.handoff.confirmed.get(&(job, peer));
            if confirmed.is_some_and(|confirmed| confirmed.open.is_some()) {
                // Its answer shows whether there is more to offer.
                continue;
            }
            let Some(held) = self.facts.holdings.job(job) else { continue };
            let held = held.coverage(slots, true);
            if held.is_empty() {
                continue;
            }
            let (round, since) = (self.out.fresh_id(), self.facts.now);
            let confirmed = self.handoff.confirmed.entry((job, peer)).or_default();
            let pages = peer::pages(held);
            let open = OpenOffer { round, pages: pages.len(), since, held: Vec::new() };
            confirmed.open = Some(open);
            for held in pages {
                self.out.send(peer, PeerMessage::Offer { job, round, held });
            }
        }
    }

    pub(crate) fn on_offer(
        &mut self,
        from: NodeId,
        job: JobId,
        round: u64,
        held: Vec<EdgeCoverage>,
    ) {
        if self.say_gone(from, job) {
            return;
        }
        if !self.facts.members.is_reachable(from) {
            // Neither answer nor fetch would reach it; it offers again.
            return;
        }
        self.say_have(from, job, round, &held, true);
        self.handoff.incoming.entry(job).or_default().take(from, round, held);
        self.fetch_offered(job);
    }

    /// Says what is held durably of a page of an offer, for the first time or again.
    fn say_have(
        &mut self,
        to: NodeId,
        job: JobId,
        round: u64,
        offered: &[EdgeCoverage],
        first: bool,
    ) {
        let mut have = Vec::new();
        if let Some(held) = self.facts.holdings.job(job) {
            for offer in offered {
                if let Some(edge) = held.edge(offer.edge) {
                    have.extend(edge.held_of(offer, true));
                }
            }
        }
        let log = self.facts.config.log;
        let mut pages = peer::pages(have);
        let last = pages.pop().unwrap_or_default();
        for (held, done) in pages.into_iter().map(|page| (page, false)).chain([(last, first)]) {
            self.out.send(to, PeerMessage::Have { job, round, done, log, held });
        }
    }

    /// A peer wants entries.
    pub(crate) fn on_fetch(
        &mut self,
        from: NodeId,
        job: JobId,
        round: u64,
        wanted: &[EdgeCoverage],
    ) {
        if self.say_gone(from, job) {
            return self.out.send(from, PeerMessage::Fetched { job, round, idle_ms: None });
        }
        let mut bytes = 0;
        // One record may be wanted for several groups of slots; it is sent once.
        let mut found: BTreeMap<_, (EntryKey, SlotSet)> = BTreeMap::new();
        'all: for part in wanted {
            let Some(edge) = self.facts.holdings.edge(job, part.edge) else { continue };
            for (number, record, slots) in edge.wanted(part) {
                let key = EntryKey { job, edge: part.edge, number };
                let entry = found.entry(record).or_insert((key, SlotSet::EMPTY));
                if entry.1.is_empty() {
                    bytes += u64::from(record.len);
                }
                entry.1 = entry.1.or(slots);
                if bytes >= FETCH_BYTES {
                    break 'all;
                }
            }
        }
        if found.is_empty() {
            let idle_ms = self.idle_ms(job);
            return self.out.send(from, PeerMessage::Fetched { job, round, idle_ms });
        }
        let read = found.into_iter().map(|(record, (key, slots))| (key, record, slots)).collect();
        self.out.run(Task::Read(read), Purpose::Fetch { to: from, job, round });
    }

    pub(crate) fn on_fetch_task(&mut self, to: NodeId, job: JobId, round: u64, output: TaskOutput) {
        match output {
            TaskOutput::Entries(entries) => {
                for entry in entries {
                    self.out.send_with(to, PeerMessage::Moved, entry.encode());
                }
            }
            TaskOutput::Unreadable(entries) => self.drop_unreadable(&entries),
            other => tracing::error!(?other, "reading entries gave something else"),
        }
        let idle_ms = self.idle_ms(job);
        self.out.send(to, PeerMessage::Fetched { job, round, idle_ms });
    }

    fn idle_ms(&self, job: JobId) -> Option<u64> {
        self.idle(job).map(|idle| idle.as_millis() as u64)
    }

    /// An owner says what it has.
    pub(crate) fn on_have(
        &mut self,
        from: NodeId,
        job: JobId,
        (round, done): (u64, bool),
        log: LogId,
        held: Vec<EdgeCoverage>,
    ) {
        if self.links.identity(from).is_none_or(|identity| identity.log != log) {
            return;
        }
        let Some(confirmed) = self.handoff.confirmed.get_mut(&(job, from)) else { return };
        match &mut confirmed.open {
            Some(open) if open.round == round => {
                add_page(&mut open.held, held);
                open.pages -= usize::from(done);
                if open.pages > 0 {
                    return;
                }
                confirmed.held = std::mem::take(&mut open.held);
                (confirmed.round, confirmed.open, confirmed.late) = (round, None, 0);
            }
            // It has more by now.
            _ if confirmed.round == round => add_page(&mut confirmed.held, held),
            _ => return,
        }
        let slots = self.facts.placement(job).slots_of(from);
        if let Some(mine) = self.facts.holdings.job(job) {
            let mine = mine.coverage(slots, true);
            let held = self.handoff.held_by(job, from);
            let lacks = mine.iter().any(|part| covered(held, part) != part.slots);
            if lacks {
                // What is on its way now is confirmed by the next offer.
                self.handoff_to(from);
            }
        }
        self.drop_confirmed(job);
        self.check_drained();
    }

    /// Forgets copies this node does not own, once all owners have theirs.
    fn drop_confirmed(&mut self, job: JobId) {
        let me = self.facts.config.node;
        let placement = self.facts.placement(job);
        let Some(held) = self.facts.holdings.job(job) else { return };
        let foreign = held.all_slots().minus(placement.slots_of(me));
        if foreign.is_empty() || self.handoff.draining {
            return;
        }
        let enough = usize::from(self.facts.config.replicas);
        let safe = self.confirmed_slots(job, foreign, enough);
        if !safe.is_empty() {
            self.facts.holdings.job_mut(job).drop_slots(safe);
        }
    }

    /// Of `slots`, those whose every entry here is confirmed by at least `enough` owners.
    fn confirmed_slots(&mut self, job: JobId, slots: SlotSet, enough: usize) -> SlotSet {
        let me = self.facts.config.node;
        let placement = self.facts.placement(job);
        let Some(held) = self.facts.holdings.job(job) else { return slots };
        let parts = held.coverage(slots, false);
        slots
            .iter()
            .filter(|slot| {
                let owners = placement.owners(*slot).iter().filter(|owner| **owner != me);
                let has_all = |owner: &&NodeId| {
                    let confirmed = self.handoff.held_by(job, **owner);
                    let mut mine = parts.iter().filter(|part| part.slots.contains(*slot));
                    mine.all(|part| covered(confirmed, part).contains(*slot))
                };
                owners.filter(has_all).count() >= enough
            })
            .collect()
    }

    pub(crate) fn start_draining(&mut self) {
        if !self.handoff.draining {
            tracing::info!("draining: everything moves to the other nodes");
            self.handoff.draining = true;
            self.out.effect(Effect::Draining);
        }
        self.check_drained();
    }

    fn check_drained(&mut self) {
        let me = self.facts.config.node;
        if self.handoff.drained.is_some() {
            return self.leave();
        }
        if !self.handoff.draining {
            return;
        }
        let others = self.facts.members.live.iter().filter(|node| **node != me).count();
        if others > 0
            && (self.facts.members.live.binary_search(&me).is_ok() || self.replicator.is_busy())
        {
            return;
        }
        let enough = others.min(usize::from(self.facts.config.replicas));
        let jobs: Vec<_> =
            self.facts.holdings.jobs().map(|(job, held)| (job, held.all_slots())).collect();
        let all =
            jobs.into_iter().all(|(job, slots)| self.confirmed_slots(job, slots, enough) == slots);
        if !all {
            return;
        }
        self.handoff.drained = Some(self.facts.now);
        if others >= usize::from(self.facts.config.min_copies) {
            // The others have all that was acknowledged: this member is not waited for any more.
            let generation =
                self.facts.members.generation(me).unwrap_or_default().max(self.facts.config.boot);
            let (members, barred) = (vec![(me, generation)], Vec::new());
            self.out.send_to_peers(&self.facts, &PeerMessage::Departed { members, barred });
        }
        self.leave();
    }

    /// Leaves once the peers have heard all that was said to them.
    fn leave(&mut self) {
        // What is said in the same breath has to be heard, too.
        self.carry_out();
        let since = self.handoff.drained.unwrap_or_default();
        let mut peers = self.facts.members.reachable.iter();
        let heard = peers.all(|peer| self.links.oldest_unacknowledged(*peer).is_none());
        if !self.handoff.left && (heard || self.facts.now >= since + FAREWELL) {
            self.handoff.left = true;
            self.out.effect(Effect::Drained);
        }
    }

    /// The peer was started again: what it was offered may be lost.
    pub(crate) fn handoff_again(&mut self, peer: NodeId) {
        for ((_, node), confirmed) in &mut self.handoff.confirmed {
            confirmed.open.take_if(|_| *node == peer);
        }
        self.handoff_to(peer);
    }

    pub(crate) fn handoff_void(&mut self, peer: NodeId) {
        self.handoff.confirmed.retain(|(_, node), _| *node != peer);
    }

    pub(crate) fn handoff_forget(&mut self, job: JobId) {
        self.handoff.incoming.remove(&job);
        self.handoff.confirmed.retain(|(other, _), _| *other != job);
    }

    /// Entries still to move, per job and owner.
    pub(crate) fn moves(&mut self) -> Vec<(JobId, NodeId, u64)> {
        let me = self.facts.config.node;
        let jobs: Vec<_> = self.facts.holdings.jobs().map(|(job, _)| job).collect();
        let mut moves = Vec::new();
        for job in jobs {
            let placement = self.facts.placement(job);
            let Some(held) = self.facts.holdings.job(job) else { continue };
            for (owner, slots) in placement.by_owner.iter().filter(|(owner, _)| *owner != me) {
                let foreign = slots.minus(placement.slots_of(me));
                let confirmed = self.handoff.held_by(job, *owner);
                let mut left = 0;
                for part in held.coverage(foreign, true) {
                    let open = part.slots.minus(covered(confirmed, &part)).len() as u64;
                    left += open * part.coverage.count();
                }
                if left > 0 {
                    moves.push((job, *owner, left));
                }
            }
        }
        moves
    }
}
