//! Handoff: after a change of view, deltas go to the nodes that own them now.
//!
//! A holder *offers* what it has (coverage, not data) to every owner; the owner fetches what it
//! misses and says what it *has*. A holder that is no owner any more forgets its copy only when all
//! owners confirmed theirs, and a draining node leaves when everything it holds is confirmed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cortado_protocol::peer::{EdgeCoverage, PeerMessage};
use cortado_protocol::{EntryKey, JobId, LogId, NodeId, SlotSet};

use crate::task::{Purpose, Task, TaskOutput};
use crate::{Core, Effect, PlantedBug};

/// Pause between two rounds of offers.
const OFFER_EVERY: Duration = Duration::from_millis(250);
/// Offers are repeated to everyone this often, for whatever slipped through,
const SWEEP_EVERY: Duration = Duration::from_secs(30);
/// and once more so long after a change of view: until all have seen it, some store by the old one.
const SETTLED_AFTER: Duration = Duration::from_secs(3);
/// How long an offer may stay unanswered. A peer says nothing to a node that it believes to be down.
const ANSWER_PATIENCE: Duration = Duration::from_secs(1);
/// How long a fetch may stay unanswered.
const FETCH_PATIENCE: Duration = Duration::from_secs(5);
/// How long a member that leaves waits for its last words to be heard.
const FAREWELL: Duration = Duration::from_secs(1);
/// Bytes sent for one fetch; the asker asks again for the rest.
const FETCH_BYTES: u64 = 24 << 20;

/// Entries coming in for one job.
#[derive(Default)]
struct Incoming {
    active: Option<(NodeId, u64, Duration)>,
    offers: BTreeMap<NodeId, Vec<EdgeCoverage>>,
}

/// What moves, and what is known to be elsewhere.
#[derive(Default)]
pub(crate) struct Handoff {
    dirty: BTreeSet<NodeId>,
    offered_at: Duration,
    sweep_at: Duration,
    /// Offers without an answer, and since when.
    unanswered: BTreeMap<(JobId, NodeId), Duration>,
    /// Since when not every copy is known to be where it belongs.
    unsettled_since: Option<Duration>,
    incoming: BTreeMap<JobId, Incoming>,
    confirmed: BTreeMap<(JobId, NodeId), Vec<EdgeCoverage>>,
    draining: bool,
    /// Everything is elsewhere, since when.
    drained: Option<Duration>,
    /// The shell was told to end.
    left: bool,
}

impl Handoff {
    pub(crate) fn is_busy(&self) -> bool {
        let fetching = |incoming: &Incoming| incoming.active.is_some();
        let settling = !self.is_settled() || self.unsettled_since.is_some();
        self.draining || settling || self.incoming.values().any(fetching)
    }

    /// Everybody has been offered all they own of what is held here, and lacks none of it.
    fn is_settled(&self) -> bool {
        self.dirty.is_empty() && self.unanswered.is_empty()
    }
}

/// Slots for which `held` covers all of `mine`.
fn covered(held: &[EdgeCoverage], mine: &EdgeCoverage) -> SlotSet {
    let same_edge = held.iter().filter(|part| part.edge == mine.edge);
    let all = same_edge.filter(|part| part.coverage.contains_all(&mine.coverage));
    all.fold(SlotSet::EMPTY, |set, part| set.or(part.slots)).and(mine.slots)
}

impl Core {
    /// The peer may miss something: offer it what it owns, soon.
    pub(crate) fn handoff_to(&mut self, peer: NodeId) {
        if peer != self.config.node {
            self.handoff.dirty.insert(peer);
        }
    }

    /// An entry was sent here by someone with another view: its owners may miss it.
    pub(crate) fn offer_foreign(&mut self, key: EntryKey) {
        let me = self.config.node;
        let placement = self.placement(key.job);
        let held = self.holdings.edge(key.job, key.edge).map(|edge| edge.slots(key.number, true));
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
        let me = self.config.node;
        let live = self.members.live.iter().copied();
        self.handoff.dirty = live.filter(|node| *node != me).collect();
        let reachable = &self.members.reachable;
        for incoming in self.handoff.incoming.values_mut() {
            incoming.offers.retain(|node, _| reachable.binary_search(node).is_ok());
            if incoming.active.is_some_and(|(node, ..)| reachable.binary_search(&node).is_err()) {
                incoming.active = None;
            }
        }
        // Offers at once: a new owner should not wait for the next round.
        self.handoff.offered_at = Duration::ZERO;
        self.handoff.sweep_at = self.handoff.sweep_at.min(self.now + SETTLED_AFTER);
        self.handoff.unsettled_since = self.handoff.unsettled_since.or(Some(self.now));
    }

    pub(crate) fn tick_handoff(&mut self) {
        let now = self.now;
        if self.handoff.drained.is_some() {
            return self.leave();
        }
        if now >= self.handoff.sweep_at || self.handoff.draining {
            self.handoff.sweep_at = now + SWEEP_EVERY;
            let me = self.config.node;
            let live = self.members.live.iter().copied();
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
                .filter(|peer| self.links.is_up(*peer) && self.members.is_reachable(*peer))
                .collect();
            for peer in ready {
                self.handoff.dirty.remove(&peer);
                self.offer_all(peer);
            }
            let reachable = &self.members.reachable;
            self.handoff.dirty.retain(|peer| reachable.binary_search(peer).is_ok());
        }
        let late: Vec<_> = self
            .handoff
            .incoming
            .iter()
            .filter(|(_, i)| i.active.is_some_and(|(_, _, at)| now >= at + FETCH_PATIENCE))
            .map(|(job, _)| *job)
            .collect();
        for job in late {
            if let Some(incoming) = self.handoff.incoming.get_mut(&job) {
                incoming.active = None;
            }
            self.fetch_offered(job);
        }
        if self.handoff.is_settled()
            && let Some(since) = self.handoff.unsettled_since.take()
        {
            let after_ms = (now - since).as_millis() as u64;
            tracing::info!(after_ms, "every copy is in place");
        }
        self.check_drained();
    }

    fn offer_unanswered_again(&mut self) {
        let now = self.now;
        let Handoff { unanswered, dirty, .. } = &mut self.handoff;
        unanswered.retain(|(_, peer), since| {
            let waits = now < *since + ANSWER_PATIENCE;
            if !waits {
                dirty.insert(*peer);
            }
            waits
        });
    }

    fn offer_all(&mut self, peer: NodeId) {
        if self.config.planted == Some(PlantedBug::ForgetHandoff) {
            return;
        }
        let jobs: Vec<_> = self.holdings.jobs().map(|(job, _)| job).collect();
        for job in jobs {
            let slots = self.placement(job).slots_of(peer);
            let Some(held) = self.holdings.job(job) else { continue };
            let held = held.coverage(slots, true);
            if !held.is_empty() {
                self.handoff.unanswered.insert((job, peer), self.now);
                self.send(peer, PeerMessage::Offer { job, held });
            }
        }
    }

    pub(crate) fn on_offer(&mut self, from: NodeId, job: JobId, held: Vec<EdgeCoverage>) {
        if self.say_gone(from, job) {
            return;
        }
        if !self.members.is_reachable(from) {
            // Neither answer nor fetch would reach it; it offers again.
            return;
        }
        self.say_have(from, job, &held);
        self.handoff.incoming.entry(job).or_default().offers.insert(from, held);
        self.fetch_offered(job);
    }

    /// Says what is held durably of the offered edges and slots.
    fn say_have(&mut self, to: NodeId, job: JobId, offered: &[EdgeCoverage]) {
        let mut have = Vec::new();
        if let Some(held) = self.holdings.job(job) {
            for offer in offered {
                if let Some(edge) = held.edge(offer.edge) {
                    have.extend(edge.coverage(offer.edge, offer.slots, true));
                }
            }
        }
        let log = self.config.log;
        self.send(to, PeerMessage::Have { job, log, held: have });
    }

    /// Fetches from the next offer what is still missing; one fetch per job at a time, so that
    /// several holders do not send the same.
    fn fetch_offered(&mut self, job: JobId) {
        let now = self.now;
        let mine = self.placement(job).slots_of(self.config.node);
        loop {
            let Some(incoming) = self.handoff.incoming.get_mut(&job) else { return };
            if incoming.active.is_some() {
                return;
            }
            let Some((source, offered)) = incoming.offers.pop_first() else {
                self.handoff.incoming.remove(&job);
                return;
            };
            let wanted: Vec<_> = offered
                .iter()
                .map(|offer| EdgeCoverage { slots: offer.slots.and(mine), ..offer.clone() })
                .filter(|offer| !offer.slots.is_empty())
                .collect();
            let wanted = match self.holdings.job(job) {
                Some(held) => held.missing(&wanted),
                None => wanted,
            };
            if wanted.is_empty() {
                continue;
            }
            let round = self.fresh_id();
            if let Some(incoming) = self.handoff.incoming.get_mut(&job) {
                incoming.active = Some((source, round, now));
            }
            self.send(source, PeerMessage::Fetch { job, round, wanted });
            return;
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
            return self.send(from, PeerMessage::Fetched { job, round, idle_ms: None });
        }
        let mut bytes = 0;
        // One record may be wanted for several groups of slots; it is sent once.
        let mut found: BTreeMap<_, (EntryKey, SlotSet)> = BTreeMap::new();
        'all: for part in wanted {
            let Some(edge) = self.holdings.edge(job, part.edge) else { continue };
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
            return self.send(from, PeerMessage::Fetched { job, round, idle_ms });
        }
        let read = found.into_iter().map(|(record, (key, slots))| (key, record, slots)).collect();
        self.run(Task::Read(read), Purpose::Fetch { to: from, job, round });
    }

    pub(crate) fn on_fetch_task(&mut self, to: NodeId, job: JobId, round: u64, output: TaskOutput) {
        match output {
            TaskOutput::Entries(entries) => {
                for entry in entries {
                    self.send_with(to, PeerMessage::Moved, entry.encode());
                }
            }
            TaskOutput::Unreadable(entries) => self.drop_unreadable(&entries),
            other => tracing::error!(?other, "reading entries gave something else"),
        }
        let idle_ms = self.idle_ms(job);
        self.send(to, PeerMessage::Fetched { job, round, idle_ms });
    }

    fn idle_ms(&self, job: JobId) -> Option<u64> {
        self.idle(job).map(|idle| idle.as_millis() as u64)
    }

    pub(crate) fn on_fetched(&mut self, from: NodeId, job: JobId, round: u64) {
        if self.work_fetched(from, round) || self.search_fetched(from, job, round) {
            return;
        }
        let Some(incoming) = self.handoff.incoming.get_mut(&job) else { return };
        if incoming.active.is_some_and(|(_, active, _)| active == round) {
            incoming.active = None;
            // It may have more than fits one fetch, and it wants to hear what is durable now.
            self.handoff_confirm(from, job);
            self.fetch_offered(job);
        }
    }

    /// Asks for another offer, which brings another confirmation.
    fn handoff_confirm(&mut self, from: NodeId, job: JobId) {
        let mine = self.placement(job).slots_of(self.config.node);
        if let Some(held) = self.holdings.job(job) {
            let held = held.coverage(mine, true);
            let log = self.config.log;
            self.send(from, PeerMessage::Have { job, log, held });
        }
        self.handoff_to(from);
    }

    /// An owner says what it has.
    pub(crate) fn on_have(
        &mut self,
        from: NodeId,
        job: JobId,
        log: LogId,
        held: Vec<EdgeCoverage>,
    ) {
        if self.links.identity(from).is_none_or(|identity| identity.log != log) {
            return;
        }
        self.handoff.unanswered.remove(&(job, from));
        let slots = self.placement(job).slots_of(from);
        if let Some(mine) = self.holdings.job(job) {
            let mine = mine.coverage(slots, true);
            let lacks = mine.iter().any(|part| covered(&held, part) != part.slots);
            if lacks {
                // What is on its way now is confirmed by the next offer.
                self.handoff_to(from);
            }
        }
        self.handoff.confirmed.insert((job, from), held);
        self.drop_confirmed(job);
        self.check_drained();
    }

    /// Forgets copies this node does not own, once all owners have theirs.
    fn drop_confirmed(&mut self, job: JobId) {
        let me = self.config.node;
        let placement = self.placement(job);
        let Some(held) = self.holdings.job(job) else { return };
        let foreign = held.all_slots().minus(placement.slots_of(me));
        if foreign.is_empty() || self.handoff.draining {
            return;
        }
        let enough = usize::from(self.config.replicas);
        let safe = self.confirmed_slots(job, foreign, enough);
        if !safe.is_empty() {
            self.holdings.job_mut(job).drop_slots(safe);
        }
    }

    /// Of `slots`, those whose every entry here is confirmed by at least `enough` owners.
    fn confirmed_slots(&mut self, job: JobId, slots: SlotSet, enough: usize) -> SlotSet {
        let me = self.config.node;
        let placement = self.placement(job);
        let Some(held) = self.holdings.job(job) else { return slots };
        let parts = held.coverage(slots, false);
        slots
            .iter()
            .filter(|slot| {
                let owners = placement.owners(*slot).iter().filter(|owner| **owner != me);
                let has_all = |owner: &&NodeId| {
                    let confirmed = self.handoff.confirmed.get(&(job, **owner));
                    let confirmed = confirmed.map(Vec::as_slice).unwrap_or_default();
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
            self.effects.push(Effect::Draining);
        }
        self.check_drained();
    }

    fn check_drained(&mut self) {
        let me = self.config.node;
        if self.handoff.drained.is_some() {
            return self.leave();
        }
        if !self.handoff.draining {
            return;
        }
        let others = self.members.live.iter().filter(|node| **node != me).count();
        if others > 0 && (self.members.live.binary_search(&me).is_ok() || self.replicator.is_busy())
        {
            return;
        }
        let enough = others.min(usize::from(self.config.replicas));
        let jobs: Vec<_> =
            self.holdings.jobs().map(|(job, held)| (job, held.all_slots())).collect();
        let all =
            jobs.into_iter().all(|(job, slots)| self.confirmed_slots(job, slots, enough) == slots);
        if !all {
            return;
        }
        self.handoff.drained = Some(self.now);
        if others >= usize::from(self.config.min_copies) {
            // The others have all that was acknowledged: this member is not waited for any more.
            let generation = self.members.generation(me).unwrap_or_default().max(self.config.boot);
            let (members, barred) = (vec![(me, generation)], Vec::new());
            self.send_to_peers(&PeerMessage::Departed { members, barred });
        }
        self.leave();
    }

    /// Leaves once the peers have heard all that was said to them.
    fn leave(&mut self) {
        let since = self.handoff.drained.unwrap_or_default();
        let mut peers = self.members.reachable.iter();
        let heard = peers.all(|peer| self.links.oldest_unacknowledged(*peer).is_none());
        if !self.handoff.left && (heard || self.now >= since + FAREWELL) {
            self.handoff.left = true;
            self.effects.push(Effect::Drained);
        }
    }

    pub(crate) fn handoff_void(&mut self, peer: NodeId) {
        self.handoff.confirmed.retain(|(_, node), _| *node != peer);
    }

    pub(crate) fn handoff_forget(&mut self, job: JobId) {
        self.handoff.incoming.remove(&job);
        self.handoff.confirmed.retain(|(other, _), _| *other != job);
        self.handoff.unanswered.retain(|(other, _), _| *other != job);
    }

    /// Entries still to move, per job and owner.
    pub(crate) fn moves(&mut self) -> Vec<(JobId, NodeId, u64)> {
        let me = self.config.node;
        let jobs: Vec<_> = self.holdings.jobs().map(|(job, _)| job).collect();
        let mut moves = Vec::new();
        for job in jobs {
            let placement = self.placement(job);
            let Some(held) = self.holdings.job(job) else { continue };
            for (owner, slots) in placement.by_owner.iter().filter(|(owner, _)| *owner != me) {
                let foreign = slots.minus(placement.slots_of(me));
                let confirmed = self.handoff.confirmed.get(&(job, *owner));
                let confirmed = confirmed.map(Vec::as_slice).unwrap_or_default();
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
