//! Handoff: after a change of view, deltas go to the nodes that own them now.
//!
//! A holder *offers* what it has (coverage, not data) to every owner; the owner fetches what it
//! misses and says what it *has*. A holder that is no owner any more forgets its copy only when all
//! owners confirmed theirs, and a draining node leaves when everything it holds is confirmed.
//!
//! Views may differ, so two rules keep holders from letting go of their copies in a circle, each
//! because another one had it: a node confirms only slots that it owns by its own view, since it lets
//! none of these go; and what was confirmed before the own view changed last does not count. (Say A
//! let a slot go because of C, and C because of A. A confirmed it to C while it owned it, before A's
//! view changed; C confirmed it to A after that and before C's view changed; and A's word, to count,
//! came after that. So A's word is older than itself. The same holds for longer circles.)

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use cortado_protocol::peer::{self, EdgeCoverage, PeerMessage};
use cortado_protocol::{Coverage, EntryKey, JobId, LogId, NodeId, SlotSet};

use crate::config::PlantedBug;
use crate::effect::Effect;
use crate::facts::Facts;
use crate::outbox::Outbox;

mod incoming;
#[cfg(test)]
mod tests;

use incoming::{Incoming, say_have};

/// Pause between two rounds of offers.
const OFFER_EVERY: Duration = Duration::from_millis(250);
/// Pause between two sweeps. A sweep offers everything to everybody again.
const SWEEP_EVERY: Duration = Duration::from_secs(30);
/// A job that is done is offered in one of so many sweeps.
const SWEEPS: usize = 20;
/// Time from a change of view to the next sweep. Nodes that have not seen the change store entries by
/// the old view.
const SETTLED_AFTER: Duration = Duration::from_secs(3);
/// How long an offer may stay unanswered at first: a peer says nothing to a node that it believes to be
/// down. Twice as long each time, so that a slow peer is heard in the end.
const ANSWER_PATIENCE: Duration = Duration::from_secs(1);
/// So often it is doubled.
const PATIENCE_DOUBLINGS: u32 = 2;
/// How long a member that leaves waits for its last words to be heard.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a peer is known to hold of one job, by its last answer to an offer.
#[derive(Default)]
struct Confirmed {
    round: u64,
    held: Vec<EdgeCoverage>,
    /// Offers in turn that found no answer in time.
    late: u32,
}

/// An offer without an answer.
struct OpenOffer {
    round: u64,
    /// Pages without an answer.
    pages: usize,
    since: Duration,
    held: Vec<EdgeCoverage>,
}

/// What an owner says that it has: a page of an answer to an offer.
pub(crate) struct Have {
    pub(crate) job: JobId,
    pub(crate) round: u64,
    /// Whether this is the last page of the answer to a page of the offer.
    pub(crate) done: bool,
    /// The log it is in.
    pub(crate) log: LogId,
    pub(crate) held: Vec<EdgeCoverage>,
}

/// What moves, and what is known to be elsewhere.
#[derive(Default)]
pub(crate) struct Handoff {
    dirty: BTreeSet<NodeId>,
    offered_at: Duration,
    sweep_at: Duration,
    /// Since when not every copy is known to be where it belongs.
    unsettled_since: Option<Duration>,
    incoming: Incoming,
    open: BTreeMap<(JobId, NodeId), OpenOffer>,
    confirmed: BTreeMap<(JobId, NodeId), Confirmed>,
    /// Jobs that are done, if in this view all owners have confirmed the entries that this node
    /// holds.
    settled: BTreeSet<JobId>,
    /// The last settled job that was offered again.
    unsettled: Option<JobId>,
    draining: bool,
    /// Everything is elsewhere, since when.
    drained: Option<Duration>,
    /// The shell was told to end.
    left: bool,
}

impl Handoff {
    pub(crate) fn is_busy(&self) -> bool {
        let settling = !self.is_settled() || self.unsettled_since.is_some();
        self.draining || settling || self.incoming.is_fetching()
    }

    /// Everybody has been offered all they own of what is held here, and lacks none of it.
    fn is_settled(&self) -> bool {
        self.dirty.is_empty() && self.open.is_empty()
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

impl Handoff {
    /// The peer may miss something: offer it what it owns, soon.
    pub(crate) fn offer_to(&mut self, facts: &Facts, peer: NodeId) {
        if peer != facts.config.node {
            self.dirty.insert(peer);
        }
    }

    /// An entry is durable here. If a node with another view sent it, its owners may lack it. A job
    /// with a new entry is not settled.
    pub(crate) fn offer_foreign(&mut self, facts: &Facts, key: EntryKey) {
        self.settled.remove(&key.job);
        let me = facts.config.node;
        let placement = facts.placement(key.job);
        let held = facts.ledger.edge(key.job, key.edge).map(|edge| edge.slots(key.number, true));
        let foreign = held.unwrap_or_default().minus(placement.slots_of(me));
        if foreign.is_empty() {
            return;
        }
        for (owner, slots) in &placement.by_owner {
            if !slots.and(foreign).is_empty() {
                self.offer_to(facts, *owner);
            }
        }
    }

    pub(crate) fn after_change(&mut self, facts: &Facts) {
        let me = facts.config.node;
        let live = facts.members.live.iter().copied();
        self.dirty = live.filter(|node| *node != me).collect();
        let reachable = &facts.members.reachable;
        self.incoming.give_up(|node| reachable.binary_search(&node).is_err());
        // What was offered by the view before is offered by this one, and what was confirmed to it counts
        // no more: see the module's description.
        self.confirmed.clear();
        self.open.clear();
        self.settled.clear();
        // Offers at once: a new owner should not wait for the next round.
        self.offered_at = Duration::ZERO;
        self.sweep_at = self.sweep_at.min(facts.now + SETTLED_AFTER);
        self.unsettled_since = self.unsettled_since.or(Some(facts.now));
    }

    pub(crate) fn tick(&mut self, facts: &Facts, out: &mut Outbox) {
        let now = facts.now;
        if self.drained.is_some() {
            return;
        }
        if now >= self.sweep_at || self.draining {
            self.sweep_at = now + SWEEP_EVERY;
            self.unsettle_some();
            let me = facts.config.node;
            let live = facts.members.live.iter().copied();
            self.dirty.extend(live.filter(|node| *node != me));
        }
        if now >= self.offered_at + OFFER_EVERY {
            self.offered_at = now;
            self.offer_unanswered_again(now);
            let ready: Vec<_> = self
                .dirty
                .iter()
                .copied()
                .filter(|peer| facts.peers.is_linked(*peer) && facts.members.is_reachable(*peer))
                .collect();
            for peer in ready {
                self.dirty.remove(&peer);
                self.offer_all(facts, out, peer);
            }
            let reachable = &facts.members.reachable;
            self.dirty.retain(|peer| reachable.binary_search(peer).is_ok());
        }
        self.incoming.tick(facts, out);
        if self.is_settled()
            && let Some(since) = self.unsettled_since.take()
        {
            let after_ms = (now - since).as_millis() as u64;
            tracing::info!(after_ms, "every copy is in place");
        }
    }

    fn offer_unanswered_again(&mut self, now: Duration) {
        let Handoff { confirmed, open, dirty, .. } = self;
        open.retain(|of, open| {
            let late = confirmed.get(of).map_or(0, |confirmed| confirmed.late);
            let patience = ANSWER_PATIENCE * (1 << late.min(PATIENCE_DOUBLINGS));
            let over = now >= open.since + patience;
            if over {
                confirmed.entry(*of).or_default().late += 1;
                dirty.insert(of.1);
            }
            !over
        });
    }

    fn offer_all(&mut self, facts: &Facts, out: &mut Outbox, peer: NodeId) {
        if facts.config.planted == Some(PlantedBug::ForgetHandoff) {
            return;
        }
        for (job, held) in facts.ledger.jobs() {
            // The answer to an open offer shows whether there is more to offer.
            if self.settled.contains(&job) || self.open.contains_key(&(job, peer)) {
                continue;
            }
            let slots = facts.placement(job).slots_of(peer);
            let held = held.coverage(slots, true);
            if held.is_empty() {
                continue;
            }
            let (round, since) = (out.fresh_id(), facts.now);
            let pages = peer::pages(held);
            let open = OpenOffer { round, pages: pages.len(), since, held: Vec::new() };
            self.open.insert((job, peer), open);
            // Or it would ask for what is gone.
            if let Some(floors) = facts.retention.floors(job).cloned() {
                out.send(peer, PeerMessage::Retired { job, floors });
            }
            for held in pages {
                out.send(peer, PeerMessage::Offer { job, round, held });
            }
        }
    }

    /// A holder says what it has of what this node owns.
    pub(crate) fn on_offer(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        from: NodeId,
        job: JobId,
        round: u64,
        held: Vec<EdgeCoverage>,
    ) {
        if !facts.members.is_reachable(from) {
            // Neither answer nor fetch would reach it; it offers again.
            return;
        }
        say_have(facts, out, from, job, round, &held, true);
        self.incoming.offered(facts, out, from, job, (round, held));
    }

    /// All that comes for a fetch has come.
    pub(crate) fn on_fetched(&mut self, facts: &Facts, out: &mut Outbox, job: JobId, round: u64) {
        self.incoming.on_fetched(facts, out, job, round);
    }

    /// Goes on with a fetch of which everything has come, if all of that is durable.
    pub(crate) fn go_on_fetching(&mut self, facts: &Facts, out: &mut Outbox, job: JobId) {
        self.incoming.go_on(facts, out, job);
    }

    /// An owner says what it has. Returns, if that is news, the slots whose copies here may go.
    pub(crate) fn on_have(&mut self, facts: &Facts, from: NodeId, have: Have) -> Option<SlotSet> {
        let Have { job, round, done, log, held } = have;
        if facts.peers.log_of(from) != Some(log) {
            return None;
        }
        let of = (job, from);
        if let Some(open) = self.open.get_mut(&of).filter(|open| open.round == round) {
            add_page(&mut open.held, held);
            open.pages -= usize::from(done);
            if open.pages > 0 {
                return None;
            }
            let held = self.open.remove(&of).map(|open| open.held).unwrap_or_default();
            self.confirmed.insert(of, Confirmed { round, held, late: 0 });
        } else {
            // It has more by now.
            let confirmed = self.confirmed.get_mut(&of).filter(|known| known.round == round)?;
            add_page(&mut confirmed.held, held);
        }
        let slots = facts.placement(job).slots_of(from);
        if let Some(mine) = facts.ledger.job(job) {
            let mine = mine.coverage(slots, true);
            let held = self.held_by(job, from);
            let lacks = mine.iter().any(|part| covered(held, part) != part.slots);
            if lacks {
                // What is on its way now is confirmed by the next offer.
                self.offer_to(facts, from);
            }
        }
        let released = self.released(facts, job);
        self.settle(facts, job);
        Some(released)
    }

    /// Settles a job that is done when all owners have confirmed the entries that this node holds.
    /// A settled job is not offered again in this view, except in its turn, and the confirmations
    /// are dropped.
    fn settle(&mut self, facts: &Facts, job: JobId) {
        let me = facts.config.node;
        let Some(held) = facts.ledger.job(job).filter(|held| held.is_complete()) else { return };
        let placement = facts.placement(job);
        let mut others = placement.by_owner.iter().filter(|(owner, _)| *owner != me);
        let all = others.all(|(owner, slots)| {
            let confirmed = self.held_by(job, *owner);
            let mine = held.coverage(*slots, false);
            mine.iter().all(|part| covered(confirmed, part) == part.slots)
        });
        if all {
            self.settled.insert(job);
            for (owner, _) in &placement.by_owner {
                self.confirmed.remove(&(job, *owner));
                self.open.remove(&(job, *owner));
            }
        }
    }

    /// Selects the settled jobs to be offered again with this sweep: an owner may have found a
    /// damaged record meanwhile.
    fn unsettle_some(&mut self) {
        let count = self.settled.len().div_ceil(SWEEPS);
        let after = self.unsettled.map_or(Bound::Unbounded, Bound::Excluded);
        let some: Vec<_> =
            self.settled.range((after, Bound::Unbounded)).take(count).copied().collect();
        self.unsettled = some.last().copied().filter(|_| some.len() == count);
        for job in some {
            self.settled.remove(&job);
        }
    }

    /// Slots that this node does not own and of which all owners have their copies.
    fn released(&self, facts: &Facts, job: JobId) -> SlotSet {
        let Some(held) = facts.ledger.job(job) else { return SlotSet::EMPTY };
        let foreign = held.all_slots().minus(facts.placement(job).slots_of(facts.config.node));
        if foreign.is_empty() || self.draining {
            return SlotSet::EMPTY;
        }
        self.confirmed_slots(facts, job, foreign, usize::from(facts.config.replicas))
    }

    /// Of `slots`, those whose every entry here is confirmed by at least `enough` owners.
    fn confirmed_slots(&self, facts: &Facts, job: JobId, slots: SlotSet, enough: usize) -> SlotSet {
        let me = facts.config.node;
        let placement = facts.placement(job);
        let Some(held) = facts.ledger.job(job) else { return slots };
        let settled = self.settled.contains(&job);
        let parts = if settled { Vec::new() } else { held.coverage(slots, false) };
        slots
            .iter()
            .filter(|slot| {
                let owners = placement.owners(*slot).iter().filter(|owner| **owner != me);
                let has_all = |owner: &&NodeId| {
                    let confirmed = self.held_by(job, **owner);
                    let mut mine = parts.iter().filter(|part| part.slots.contains(*slot));
                    mine.all(|part| covered(confirmed, part).contains(*slot))
                };
                owners.filter(has_all).count() >= enough
            })
            .collect()
    }

    /// The operator wants this node to hand over and leave.
    pub(crate) fn drain(&mut self, out: &mut Outbox) {
        if !self.draining {
            tracing::info!("draining: everything moves to the other nodes");
            self.draining = true;
            out.effect(Effect::Draining);
        }
    }

    /// Whether everything is elsewhere and this node may leave; `replicating`: whether it still has
    /// entries on their way.
    pub(crate) fn is_drained(
        &mut self,
        facts: &Facts,
        replicating: bool,
        out: &mut Outbox,
    ) -> bool {
        let me = facts.config.node;
        if self.drained.is_some() || !self.draining {
            return self.drained.is_some();
        }
        let others = facts.members.live.iter().filter(|node| **node != me).count();
        if others > 0 && (facts.members.live.binary_search(&me).is_ok() || replicating) {
            return false;
        }
        let enough = others.min(usize::from(facts.config.replicas));
        let all = facts.ledger.jobs().all(|(job, held)| {
            let slots = held.all_slots();
            self.confirmed_slots(facts, job, slots, enough) == slots
        });
        if !all {
            return false;
        }
        self.drained = Some(facts.now);
        if others >= usize::from(facts.config.min_copies) {
            // The others have all that was acknowledged: this member is not waited for any more.
            let generation =
                facts.members.generation(me).unwrap_or_default().max(facts.config.boot);
            let (members, barred) = (vec![(me, generation)], Vec::new());
            out.send_to_all(facts.others(), &PeerMessage::Departed { members, barred });
        }
        true
    }

    /// Leaves once the peers have `heard` all that was said to them, what was said in this breath
    /// included.
    pub(crate) fn leave(&mut self, facts: &Facts, heard: bool, out: &mut Outbox) {
        let since = self.drained.unwrap_or_default();
        if !self.left && (heard || facts.now >= since + FAREWELL) {
            self.left = true;
            out.effect(Effect::Drained);
        }
    }

    /// The peer was started again: what it was offered may be lost.
    pub(crate) fn offer_again(&mut self, facts: &Facts, peer: NodeId) {
        self.open.retain(|(_, node), _| *node != peer);
        self.settled.clear();
        self.offer_to(facts, peer);
    }

    /// The peer has lost its log, and with it what it confirmed.
    pub(crate) fn void(&mut self, peer: NodeId) {
        self.confirmed.retain(|(_, node), _| *node != peer);
        self.open.retain(|(_, node), _| *node != peer);
        self.settled.clear();
    }

    /// The job is gone.
    pub(crate) fn forget(&mut self, job: JobId) {
        self.incoming.forget(job);
        self.settled.remove(&job);
        self.confirmed.retain(|(other, _), _| *other != job);
        self.open.retain(|(other, _), _| *other != job);
    }

    /// Entries still to move, per job and owner.
    pub(crate) fn moves(&self, facts: &Facts) -> Vec<(JobId, NodeId, u64)> {
        let me = facts.config.node;
        let mut moves = Vec::new();
        for (job, held) in facts.ledger.jobs().filter(|(job, _)| !self.settled.contains(job)) {
            let placement = facts.placement(job);
            for (owner, slots) in placement.by_owner.iter().filter(|(owner, _)| *owner != me) {
                let foreign = slots.minus(placement.slots_of(me));
                let confirmed = self.held_by(job, *owner);
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
