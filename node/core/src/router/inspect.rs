//! What the shell, clients and checks from outside may look at.

use std::time::Duration;

use cortado_protocol::client::{ClusterView, RingView};
use cortado_protocol::peer::{EdgeCoverage, Hello};
use cortado_protocol::{Edge, JobId, LogId, NodeId, PROTOCOL_VERSION, SlotSet};

use super::Core;
use crate::answers::status_of;
use crate::config::PlantedBug;
use crate::figures::Figures;
use crate::views;

impl Core {
    /// How often [`crate::Input::Tick`] is wanted. Ticks drive retries and time-outs only; everything
    /// else follows from events.
    #[must_use]
    pub fn tick_interval(&self) -> Duration {
        let busy = self.replicator.is_busy()
            || self.forwarding.is_busy()
            || self.answers.is_busy()
            || self.slot_tasks.is_busy()
            || self.handoff.is_busy()
            || !self.coordination.is_empty()
            || !self.streams.is_empty()
            || self.mapper.is_waiting();
        Duration::from_millis(if busy { 50 } else { 500 })
    }

    /// The lowest link number not yet acknowledged by the peer, for the hello.
    #[must_use]
    pub fn resume(&self, peer: NodeId) -> u64 {
        self.links.resume(peer)
    }

    /// The hello this node says to a peer it dials.
    #[must_use]
    pub fn hello(&self, seq: u64) -> Hello {
        let config = &self.facts.config;
        Hello {
            version: PROTOCOL_VERSION,
            cluster: config.cluster.clone(),
            node: config.node,
            boot: match config.planted {
                Some(PlantedBug::ReuseNumbers) => 0,
                _ => config.boot,
            },
            log: config.log,
            seq,
        }
    }

    /// Members that are gone for good, and the certificates that must not come back, for the shell to
    /// begin with.
    #[must_use]
    pub fn departed(&self) -> (Vec<(NodeId, u64)>, Vec<u64>) {
        (self.facts.roster.departed(), self.facts.roster.barred())
    }

    pub(super) fn cluster_view(&self) -> ClusterView {
        views::cluster(&self.facts, &|job| self.works(job))
    }

    pub(super) fn ring_view(&self) -> RingView {
        views::ring(&self.facts, self.handoff.moves(&self.facts))
    }

    /// Figures for an operator. The work grows with the jobs that are here, so this is not for every second.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let mut figures = Figures {
            held: self.facts.ledger.jobs().count() as u64,
            replicating: self.replicator.waiting(),
            mapping: self.mapper.waiting(),
            tasks: self.tasks.len() as u64,
            moving: self.handoff.moves(&self.facts).iter().map(|(_, _, entries)| entries).sum(),
            streams: self.streams.statuses(&self.facts),
            ..Figures::default()
        };
        for (job, _) in self.facts.jobs.iter().filter(|(job, _)| self.facts.is_coordinator(*job)) {
            if let Some(status) = self.status(job) {
                *figures.jobs.entry(status.state.name()).or_default() += 1;
            }
        }
        figures
    }

    /// What this node holds durably of a job, for checks from outside.
    #[must_use]
    pub fn held(&self, job: JobId) -> Vec<EdgeCoverage> {
        let held = self.facts.ledger.job(job);
        held.map(|held| held.coverage(SlotSet::ALL, true)).unwrap_or_default()
    }

    /// The first batch of an edge of a stream that is not retired, as this node knows, for checks from
    /// outside.
    #[must_use]
    pub fn floor(&self, job: JobId, edge: Edge) -> u64 {
        self.facts.ledger.floor(job, edge)
    }

    /// Whether the job is forgotten for good, for checks from outside.
    #[must_use]
    pub fn is_forgotten(&self, job: JobId) -> bool {
        self.facts.ledger.is_forgotten(job)
    }

    /// The log this node knows a member to write to, for checks from outside.
    #[must_use]
    pub fn log_of(&self, node: NodeId) -> Option<LogId> {
        if node == self.facts.config.node {
            return Some(self.facts.config.log);
        }
        self.facts.peers.log_of(node)
    }

    /// How a job stands, for checks from outside.
    #[must_use]
    pub fn status(&self, job: JobId) -> Option<cortado_protocol::job::JobStatus> {
        status_of(&self.facts, &|job| self.coordination.progress(&self.facts, job), job)
    }

    /// Where a job stands at this node, in a line for people who look for a fault.
    #[must_use]
    pub fn describe(&self, job: JobId) -> String {
        let coordinator = self.facts.coordinator(job);
        let phase = self.coordination.describe(job);
        let ends = self.facts.jobs.get(job).map(|log| log.ends.clone());
        let waits = self.status(job).and_then(|status| status.waits_for);
        format!("coordinator {coordinator}, {phase}, ends {ends:?}, waits {waits:?}")
    }

    /// Why a job is still there, in a line for people who look for a fault.
    #[must_use]
    pub fn describe_expiry(&self, job: JobId) -> String {
        let (idle, closed) = (self.idle(job), self.facts.jobs.closed_by(job));
        let proposed = self.expiry.describe(&self.facts, job);
        let away = self.facts.lacks_members();
        format!("idle {idle:?}, agreed with {closed:?}, {proposed}, away {away:?}")
    }
}
