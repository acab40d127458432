//! Sealing: what counts of a publisher that is gone.
//!
//! A publisher may be gone with a batch missing in the middle, which was never acknowledged: then the
//! batches behind it would never count. Or the stream is to end, and a publisher never says that it has
//! ended. The coordinator asks all known members to take no new batch of such a publisher. Once all have
//! promised, what is on their disks does not change any more: a batch of which some slot is on no disk
//! never counts, and any other one is brought to W owners of each slot and counts. Two coordinators
//! find the same, so the entry of the job log that says it is the same. That settles batches, too, that
//! were never acknowledged and are there in part, in windows that can't be folded for that reason. The publisher has ended with
//! that; when it comes back it opens the next generation and sends what does not count.

use std::collections::BTreeSet;
use std::time::Duration;

use cortado_protocol::job::JobEntry;
use cortado_protocol::peer::PeerMessage;
use cortado_protocol::stream::Seal;
use cortado_protocol::{Coverage, Edge, JobId, NodeId};

use super::events::Reads;
use super::stream::{Step, Stream};
use super::{Next, Streams, reading};
use crate::facts::Facts;
use crate::job::{JobLog, job_log_entry};
use crate::outbox::Outbox;

/// Pause between two requests to members that have not promised yet, and between two checks.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// A publisher that is to be sealed.
pub(super) struct Sealing {
    edge: Edge,
    /// The members that have promised to take no new batch of it.
    promised: BTreeSet<NodeId>,
    /// The number behind the last batch of which any member holds anything.
    end: u64,
    asked_at: Option<Duration>,
    /// Whether the summaries of its batches were fetched.
    gathered: bool,
    /// Whether it is checked which batches are whole.
    checking: bool,
    /// Those that are, with all members there.
    whole: Option<Coverage>,
}

impl Sealing {
    fn new(edge: Edge) -> Self {
        let promised = BTreeSet::new();
        Self {
            edge,
            promised,
            end: 0,
            asked_at: None,
            gathered: false,
            checking: false,
            whole: None,
        }
    }

    /// Known members that have not promised.
    fn waits_for(&self, facts: &Facts) -> Vec<NodeId> {
        facts.roster.known().filter(|node| !self.promised.contains(node)).collect()
    }

    /// Those that can't be reached.
    pub(super) fn away(&self, facts: &Facts) -> Vec<NodeId> {
        let mut away: Vec<_> = facts.roster.known().collect();
        away.retain(|node| !facts.members.is_reachable(*node));
        away
    }
}

impl Streams {
    /// A member has promised to take no new batch of a publisher.
    pub(crate) fn on_frozen(&mut self, from: NodeId, (job, edge): (JobId, Edge), end: u64) {
        let sealing = self.all.get_mut(&job).and_then(|stream| stream.sealing.as_mut());
        if let Some(sealing) = sealing.filter(|sealing| sealing.edge == edge) {
            sealing.promised.insert(from);
            sealing.end = sealing.end.max(end);
        }
    }
}

impl Stream {
    /// Goes on with the sealing of a publisher, if one is to be sealed; returns what has to be done for
    /// that.
    pub(super) fn seal(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        (job, log): (JobId, &JobLog),
        reads: &mut Reads,
    ) -> Option<Next> {
        let known = self.sealing.as_ref().map(|sealing| sealing.edge);
        let due = |edge: &Edge| self.is_to_be_sealed(facts, (job, log), *edge);
        let edge = known.filter(due).or_else(|| log.stream.publishers.keys().copied().find(due));
        let Some(edge) = edge else {
            self.sealing = None;
            return None;
        };
        let sealing = match &mut self.sealing {
            Some(sealing) if sealing.edge == edge => sealing,
            sealing => sealing.insert(Sealing::new(edge)),
        };
        let waits_for = sealing.waits_for(facts);
        if !waits_for.is_empty() || sealing.promised.len() < facts.expected_members() {
            if sealing.asked_at.is_none_or(|at| facts.now >= at + ASK_EVERY) {
                sealing.asked_at = Some(facts.now);
                out.send_to_all(waits_for.into_iter(), &PeerMessage::Freeze { job, edge });
            }
            return None;
        }
        // Only with all disks there it is known what is on none.
        if facts.away() > 0 || sealing.checking {
            return None;
        }
        let read = self.state.read_of(edge);
        let unpublished = self.state.unpublished(edge);
        if let Some(whole) = sealing.whole.take() {
            let end = whole.intervals().last().map_or(read, |(_, end)| read.max(*end));
            let mut void = Coverage::range(read, end);
            void.union(&unpublished);
            let void = void.minus(&whole);
            tracing::info!(%job, ?edge, end, void = void.count(), "a publisher that is gone is sealed");
            let entry = job_log_entry(job, &JobEntry::Seal { edge, seal: Seal { end, void } });
            self.step = Step::Seal { entry: entry.clone(), sent: true };
            return Some(Next::Replicate(Box::new(entry)));
        }
        if !sealing.gathered {
            sealing.gathered = true;
            let needs = vec![(edge, Coverage::range(read, sealing.end.max(read)))];
            let attempt = out.fresh_id();
            self.step = Step::Gather(attempt);
            return Some(Next::Gather { job, attempt, needs });
        }
        sealing.checking = true;
        let mut doubtful = unpublished;
        doubtful.insert_range(read, sealing.end.max(read));
        reads.check_for_seal(facts, out, job, (edge, &doubtful));
        None
    }

    /// It is known which batches behind those that were read are whole, or that this could not be found
    /// out now.
    pub(super) fn checked(&mut self, facts: &Facts, (edge, whole): (Edge, Option<Coverage>)) {
        let Some(sealing) = self.sealing.as_mut().filter(|sealing| sealing.edge == edge) else {
            return;
        };
        (sealing.checking, sealing.gathered) = (false, false);
        sealing.whole = whole.filter(|_| facts.away() == 0);
        self.resume_at = self.resume_at.max(facts.now + super::RETRY_AFTER);
    }

    /// Whether a publisher is to be sealed: it is silent, and either something of it is missing, and that
    /// for long, or the stream is to end. One that has ended is sealed only if windows can't be folded
    /// because of a batch that it did not get through. What was promised is brought to an end.
    fn is_to_be_sealed(&self, facts: &Facts, (job, log): (JobId, &JobLog), edge: Edge) -> bool {
        let Some(source) = self.state.sources.get(&edge) else { return false };
        if log.stream.seals.contains_key(&edge) || !log.stream.publishers.contains_key(&edge) {
            return false;
        }
        if facts.retention.is_frozen(job, edge) {
            return true;
        }
        let silent_ms = (facts.now.saturating_sub(source.heard_at)).as_millis() as u64;
        if silent_ms < self.plan.idle_ms().unsigned_abs() {
            return false;
        }
        let for_long = silent_ms >= self.plan.seal_ms().unsigned_abs();
        let is_stuck = || self.stuck && self.state.has_unpublished(edge);
        let has_gap = || reading::beyond_gap(facts, job, edge).1 > 0;
        match (source.ended, log.stream.stopping) {
            (false, stopping) => stopping || for_long && (has_gap() || is_stuck()),
            (true, stopping) => (stopping || for_long) && is_stuck(),
        }
    }
}
