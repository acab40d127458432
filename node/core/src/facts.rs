//! What every part of the core reads and only the router changes: time, configuration, members,
//! who owns what, what the log holds and what jobs' own entries say.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use cortado_membership::ring;
use cortado_protocol::client::TableCoverage;
use cortado_protocol::expiry::needed;
use cortado_protocol::limits::BATCHES_PER_ANSWER;
use cortado_protocol::peer::EdgeCoverage;
use cortado_protocol::stream::Seal;
use cortado_protocol::{Coverage, Edge, EntryKey, JobId, META_SLOT, NodeId, SlotSet};

use crate::config::Config;
use crate::job::BoundPlan;
use crate::jobs::Jobs;
use crate::ledger::Ledger;
use crate::peers::Peers;
use crate::placement::{Members, Placement, Placements};
use crate::reach::Reach;
use crate::record::Located;
use crate::retention::Retention;
use crate::roster::Roster;

/// All live nodes come to the same view within so long: a node that runs for less than that may see
/// fewer than there are.
const JOIN: Duration = Duration::from_secs(5);

/// See the module's description.
pub(crate) struct Facts {
    pub(crate) config: Config,
    pub(crate) now: Duration,
    /// When the first input came: this process's start.
    pub(crate) began: Option<Duration>,
    pub(crate) wall_ms: u64,
    /// The members as the membership sees them.
    pub(crate) told: Members,
    pub(crate) reach: Reach,
    /// The members without those that can't be reached with data.
    pub(crate) members: Members,
    pub(crate) roster: Roster,
    /// Computed when it is asked for.
    placements: RefCell<Placements>,
    pub(crate) peers: Peers,
    pub(crate) ledger: Ledger,
    pub(crate) jobs: Jobs,
    pub(crate) retention: Retention,
}

impl Facts {
    /// A node that knows nobody and holds nothing.
    pub(crate) fn new(config: Config) -> Self {
        Self {
            now: Duration::ZERO,
            began: None,
            wall_ms: 0,
            told: Members::alone(config.node),
            reach: Reach::default(),
            members: Members::alone(config.node),
            roster: Roster::default(),
            placements: RefCell::default(),
            peers: Peers::default(),
            ledger: Ledger::default(),
            jobs: Jobs::default(),
            retention: Retention::default(),
            config,
        }
    }

    /// Takes other members.
    pub(crate) fn set_members(&mut self, members: Members) -> Members {
        self.placements.get_mut().clear();
        std::mem::replace(&mut self.members, members)
    }

    /// The owners of a job's slots.
    pub(crate) fn placement(&self, job: JobId) -> Arc<Placement> {
        let slots = self.jobs.get(job).map_or(self.config.slots, |log| log.slots(&self.config));
        let (replicas, live) = (self.config.replicas as usize, &self.members.live);
        self.placements.borrow_mut().of(job, slots, replicas, live)
    }

    /// The node that drives the job, by this node's view. A member that hands over drives nothing
    /// any more, unless nobody else is there.
    pub(crate) fn coordinator(&self, job: JobId) -> NodeId {
        let key = ring::slot_key(job, META_SLOT);
        ring::first_owner(key, &self.members.live).unwrap_or(self.config.node)
    }

    /// Whether this node drives the job.
    pub(crate) fn is_coordinator(&self, job: JobId) -> bool {
        self.coordinator(job) == self.config.node
    }

    /// For how long this node has seen no sign of life of a job it knows. A job that its coordinator
    /// `works` on is alive, however long that takes, and so is one of which something new is on its way
    /// to the disk.
    pub(crate) fn idle(&self, job: JobId, works: bool) -> Option<Duration> {
        let life = self.jobs.get(job)?.life;
        if works || self.ledger.awaits(job) {
            return Some(Duration::ZERO);
        }
        let since = life.seen_at.or(self.began).unwrap_or(self.now);
        Some(self.now.saturating_sub(since) + life.before)
    }

    /// The node that keeps the queue of jobs.
    pub(crate) fn queue_keeper(&self) -> NodeId {
        ring::first_owner(ring::ADMISSION_KEY, &self.members.live).unwrap_or(self.config.node)
    }

    /// The other members that answer.
    pub(crate) fn others(&self) -> impl Iterator<Item = NodeId> + '_ {
        let me = self.config.node;
        self.members.reachable.iter().copied().filter(move |node| *node != me)
    }

    /// Members that there are, or should be.
    pub(crate) fn expected_members(&self) -> usize {
        self.roster.expected(self.config.expected_nodes)
    }

    /// How many of them can't be reached.
    pub(crate) fn away(&self) -> usize {
        self.expected_members().saturating_sub(self.members.reachable.len())
    }

    /// Whether so many members are away that all who hold an acknowledged entry may be among them.
    pub(crate) fn misses_too_many(&self) -> bool {
        self.away() >= usize::from(self.config.min_copies)
    }

    /// Members that are away, if so many are that no step that can't be taken back is in force without
    /// them.
    pub(crate) fn lacks_members(&self) -> Option<Vec<NodeId>> {
        let needed = needed(self.expected_members(), self.config.min_copies);
        let (here, away): (Vec<_>, Vec<_>) =
            self.roster.known().partition(|node| self.members.is_reachable(*node));
        (here.len() < needed).then_some(away)
    }

    /// Whether this node has just started and does not see enough of the others yet: what its log says
    /// of a job may be long out of date. If they don't come, it goes on with those it sees.
    pub(crate) fn is_joining(&self) -> bool {
        self.began.is_none_or(|began| self.now < began + JOIN) && self.misses_too_many()
    }

    /// Whether as many members live as an acknowledgement needs.
    ///
    /// # Errors
    /// A sentence that says how many are missing.
    pub(crate) fn replicas_suffice(&self) -> Result<(), String> {
        let (live, needed) = (self.members.live.len(), usize::from(self.config.min_copies));
        if live >= needed {
            Ok(())
        } else {
            Err(format!("waiting for replicas: {live} of {needed}"))
        }
    }

    /// The durable entries of these batches that speak for any of the slots.
    pub(crate) fn located<'n>(
        &self,
        job: JobId,
        batches: impl Iterator<Item = &'n (Edge, Coverage)>,
        slots: SlotSet,
    ) -> Vec<Located> {
        let mut all = Vec::new();
        for (edge, coverage) in batches {
            let (edge, coverage) = (*edge, coverage.clone());
            let wanted = EdgeCoverage { edge, slots, coverage };
            if let Some(held) = self.ledger.edge(job, edge) {
                let key = |number| EntryKey { job, edge, number };
                let records = held.wanted(&wanted);
                all.extend(records.map(|(number, record, slots)| (key(number), record, slots)));
            }
        }
        all
    }

    /// An entry of an edge that has a delta for the meta slot, if it is durable here.
    pub(crate) fn located_at(&self, job: JobId, edge: Edge, number: u64) -> Option<Located> {
        let batch = (edge, Coverage::range(number, number.saturating_add(1)));
        self.located(job, [&batch].into_iter(), SlotSet::META).pop()
    }

    /// The batches of an edge that are here, for a client that resumes.
    pub(crate) fn coverage(
        &self,
        (job, edge): (JobId, Edge),
        from: u64,
        declared: Option<u64>,
    ) -> TableCoverage {
        let held = self.ledger.edge(job, edge);
        let sources = held.iter().flat_map(|held| held.sources(from));
        let mut sources = sources.map(|(number, source)| (number, source.content));
        let batches = sources.by_ref().take(BATCHES_PER_ANSWER).collect();
        let next = sources.next().map(|(number, _)| number);
        let floor = self.ledger.floor(job, edge);
        TableCoverage { batches, declared, next, floor }
    }

    /// Which batches of a publisher count, if it was sealed.
    pub(crate) fn seal(&self, job: JobId, edge: Edge) -> Option<&Seal> {
        self.jobs.get(job)?.stream.seals.get(&edge)
    }

    /// Of these batches of an edge those that count, as far as a seal says.
    pub(crate) fn not_void(&self, job: JobId, edge: Edge, batches: Coverage) -> Coverage {
        match self.seal(job, edge) {
            Some(seal) => batches.minus(&seal.void),
            None => batches,
        }
    }

    /// Known members that can't be reached.
    pub(crate) fn unreached(&self) -> impl Iterator<Item = NodeId> {
        self.roster.known().filter(|node| !self.members.is_reachable(*node))
    }

    /// Whether the job's specification is known.
    pub(crate) fn knows(&self, job: JobId) -> bool {
        self.jobs.get(job).is_some_and(|log| log.brief.is_some())
    }

    /// The job's plan, once its specification is known and until it is done.
    pub(crate) fn plan_of(&self, job: JobId) -> Option<Arc<BoundPlan>> {
        self.jobs.get(job).and_then(|log| log.plan.clone())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::config::tests::config;

    /// What the first of these nodes knows when all are there.
    pub(crate) fn facts_of(names: &[&str]) -> Facts {
        let nodes: Vec<NodeId> = names.iter().map(|name| name.parse().unwrap()).collect();
        let mut facts = Facts::new(config(names[0], 1));
        let (live, reachable, known) = (nodes.clone(), nodes.clone(), nodes);
        let alone = Members::alone(facts.config.node);
        facts.set_members(Members { live, reachable, known, ..alone });
        facts
    }

    #[test]
    fn the_coordinator_is_the_first_owner_of_the_meta_slot() {
        let facts = facts_of(&["a", "b", "c", "d", "e"]);
        for job in (0..100).map(JobId) {
            assert_eq!(facts.coordinator(job), facts.placement(job).owners(META_SLOT)[0]);
        }
    }
}
