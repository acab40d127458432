//! Retention: promises to a stream's coordinator, and what goes once windows are retired.

use cortado_protocol::entry::Entry;
use cortado_protocol::peer::{EdgeCoverage, PeerMessage};
use cortado_protocol::stream::Floors;
use cortado_protocol::{Coverage, Edge, JobId, META_SLOT, NodeId, SlotSet, limits};
use cortado_stream::OutputBatch;

use super::Core;
use crate::effect::StateFile;
use crate::saving::{Question, Then};

impl Core {
    /// A coordinator wants windows to get no revision any more. This node takes none from here on, and
    /// says so once that is on disk.
    pub(super) fn on_retire(&mut self, from: NodeId, job: JobId, before_ms: i64) {
        if self.say_forgotten(from, job) {
            return;
        }
        self.facts.retention.promise(job, before_ms);
        self.saving.save(StateFile::Retention, Some(Then::SayRetiring { job, to: from }));
    }

    /// A promise is on disk: tells the coordinator which outputs are here.
    pub(super) fn say_retiring(&mut self, to: NodeId, job: JobId) {
        let Some(before_ms) = self.facts.retention.promised(job) else { return };
        let held = self.facts.ledger.job(job).into_iter().flat_map(|held| held.edges());
        let outputs = held.filter(|(edge, _)| edge.is_output());
        let outputs = outputs.map(|(edge, index)| (edge, index.end())).collect();
        self.out.send(to, PeerMessage::Retiring { job, before_ms, outputs });
    }

    /// A coordinator wants to seal a publisher. This node takes no new batch of it from here on, and says so
    /// once that is on disk.
    pub(super) fn on_freeze(&mut self, from: NodeId, job: JobId, question: Question) {
        if self.say_forgotten(from, job) || !question.edge.is_publisher() {
            return;
        }
        self.facts.retention.freeze(job, question.edge);
        let then = Then::SayFrozen { job, to: from, question };
        self.saving.save(StateFile::Retention, Some(then));
    }

    /// A promise is on disk: tells the coordinator what is here of the publisher's batches.
    pub(super) fn say_frozen(&mut self, to: NodeId, job: JobId, question: Question) {
        let Question { edge, from, round } = question;
        let coverage = Coverage::range(from, limits::NUMBERS);
        let all = EdgeCoverage { edge, slots: SlotSet::ALL, coverage };
        let index = self.facts.ledger.edge(job, edge);
        let held = index.map(|index| index.held_of(&all, false)).unwrap_or_default();
        self.out.send(to, PeerMessage::Frozen { job, edge, round, held });
    }

    /// A member takes no new batch of a publisher any more.
    pub(super) fn on_frozen(
        &mut self,
        from: NodeId,
        job: JobId,
        (round, held): (u64, Vec<EdgeCoverage>),
    ) {
        self.streams.on_frozen(from, job, (round, held));
        let next = self.streams.drive(&self.facts, &mut self.out, job);
        self.lead_streams(next);
    }

    /// A member has promised what this node asked for.
    pub(super) fn on_retiring(
        &mut self,
        from: NodeId,
        (job, before_ms): (JobId, i64),
        outputs: &[(Edge, u64)],
    ) {
        self.streams.on_retiring(from, (job, before_ms), outputs);
        let next = self.streams.drive(&self.facts, &mut self.out, job);
        self.lead_streams(next);
    }

    /// Windows are retired, and batches go once that is on disk.
    pub(super) fn on_retired(&mut self, from: NodeId, job: JobId, floors: Floors) {
        if self.say_forgotten(from, job) {
            return;
        }
        if self.facts.retention.retire(job, floors) {
            self.saving.save(StateFile::Retention, Some(Then::DropRetired(job)));
        }
    }

    /// The floors are on disk.
    pub(super) fn drop_retired(&mut self, job: JobId) {
        let Some(floors) = self.facts.retention.floors(job) else { return };
        self.facts.ledger.retire(&mut self.out, job, &floors.floors);
        // What waited for batches that are gone has them now.
        self.slot_tasks.after_append(&self.facts, &mut self.out, job);
        self.handoff.go_on_fetching(&self.facts, &mut self.out, job);
        let next = self.streams.drive(&self.facts, &mut self.out, job);
        self.lead_streams(next);
    }

    /// Tells a node what of a stream is gone, if anything is.
    pub(super) fn say_retired(&mut self, to: NodeId, job: JobId) {
        if let Some(floors) = self.facts.retention.floors(job) {
            let floors = floors.clone();
            self.out.send(to, PeerMessage::Retired { job, floors });
        }
    }

    /// Whether some of these batches are retired here.
    pub(super) fn reaches_below(&self, job: JobId, part: &EdgeCoverage) -> bool {
        let floor = self.facts.ledger.floor(job, part.edge);
        part.coverage.intervals().first().is_some_and(|(start, _)| *start < floor)
    }

    /// Whether an entry is a revision of a window that is to get none any more.
    pub(super) fn is_too_late(&self, entry: &Entry) -> bool {
        let key = entry.head.key;
        let promised = self.facts.retention.promised(key.job).filter(|_| key.edge.is_output());
        promised.is_some_and(|promised| {
            let oldest = entry.delta(META_SLOT).and_then(|bytes| OutputBatch::peek_oldest(&bytes));
            oldest.is_none_or(|oldest| oldest <= promised)
        })
    }
}
