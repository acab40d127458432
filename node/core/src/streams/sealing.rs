//! Sealing: what counts of a publisher that is gone.
//!
//! A publisher may be gone with a batch missing in the middle, which was never acknowledged: then the
//! batches behind it would never count. Or the stream is to end, and a publisher never says that it has
//! ended. The coordinator asks all known members to take no new batch of such a publisher. Once all have
//! promised, what is on their disks does not change any more: a batch of which some slot is on no disk
//! never counts, and any other one is brought to W owners of each slot and counts. Two coordinators
//! find the same, so the entry of the job log that says it is the same. The publisher has ended with
//! that; when it comes back it opens the next generation and sends what does not count.
//!
//! That settles batches, too, that were never acknowledged and are there in part: their windows can't
//! be folded.

use cortado_protocol::job::JobEntry;
use cortado_protocol::limits::NUMBERS;
use cortado_protocol::peer::{EdgeCoverage, PeerMessage};
use cortado_protocol::stream::Seal;
use cortado_protocol::{Coverage, Edge, JobId, NodeId};

use super::events::Reads;
use super::promises::{Checking, Sealing};
use super::state::State;
use super::stream::{Step, Stream};
use super::{Next, Streams, reading};
use crate::facts::Facts;
use crate::job::{JobLog, job_log_entry};
use crate::outbox::Outbox;

impl Streams {
    /// A member has promised to take no new batch of a publisher, and says what it has.
    pub(crate) fn on_frozen(
        &mut self,
        from: NodeId,
        job: JobId,
        (round, held): (u64, Vec<EdgeCoverage>),
    ) {
        let sealing = self.all.get_mut(&job).and_then(|stream| stream.sealing.as_mut());
        let Some(sealing) = sealing.filter(|sealing| sealing.round == round) else { return };
        sealing.asked.heard(from);
        for part in held.into_iter().filter(|part| part.edge == sealing.edge) {
            for slot in part.slots.iter() {
                sealing.held.entry(slot).or_default().union(&part.coverage);
            }
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
        let (state, slots) = (&self.state, self.slots);
        let sealing = match &mut self.sealing {
            Some(sealing) if sealing.edge == edge => sealing,
            sealing => sealing.insert(Sealing::new(edge, out.fresh_id())),
        };
        let Some(whole) = &sealing.whole else {
            if !sealing.asked.is_complete(facts) {
                let due = sealing.asked.due(facts);
                if !due.is_empty() {
                    let from =
                        doubtful(state, edge).intervals().first().map_or(0, |(start, _)| *start);
                    let ask = PeerMessage::Freeze { job, edge, from, round: sealing.round };
                    out.send_to_all(due.into_iter(), &ask);
                }
                return None;
            }
            // Only with all disks there it is known what is on none.
            if facts.away() > 0 {
                return None;
            }
            let mut whole = sealing.whole(slots, &doubtful(state, edge));
            let next = Sealing::new(edge, out.fresh_id());
            *sealing = match sealing.before.take() {
                // A copy that moved meanwhile may be in no answer. Then it has arrived, and is in the next
                // one: owners let go of nothing.
                None => Sealing { before: Some(whole), ..next },
                Some(before) => {
                    whole.union(&before);
                    Sealing { whole: Some(whole), ..next }
                }
            };
            return None;
        };
        match sealing.checking {
            Checking::Not => {
                let needs = vec![(edge, whole.clone())];
                sealing.checking = Checking::Gathered;
                let attempt = out.fresh_id();
                self.step = Step::Gather(attempt);
                Some(Next::Gather { job, attempt, needs })
            }
            Checking::Gathered => {
                sealing.checking = Checking::Asked;
                reads.check_for_seal(facts, out, job, (edge, whole));
                None
            }
            Checking::Asked => None,
            Checking::Done => {
                let last = whole.intervals().last().map_or(0, |(_, end)| *end);
                let end = last.max(state.read_of(edge));
                let void = doubtful(state, edge).and(&Coverage::range(0, end)).minus(whole);
                tracing::info!(%job, ?edge, end, void = void.count(), "a publisher is sealed");
                let entry = job_log_entry(job, &JobEntry::Seal { edge, seal: Seal { end, void } });
                self.step = Step::Seal { entry: entry.clone(), sent: true };
                Some(Next::Replicate(Box::new(entry)))
            }
        }
    }

    /// It is known which of the batches are on W nodes. If not all are, everything is asked again: a disk
    /// may be full, or something that was on its way did not arrive.
    pub(super) fn checked(&mut self, facts: &Facts, (edge, found): (Edge, Option<Coverage>)) {
        self.resume_at = self.resume_at.max(facts.now + super::RETRY_AFTER);
        let Some(sealing) = self.sealing.as_mut().filter(|sealing| sealing.edge == edge) else {
            return self.checked_late((edge, found));
        };
        if found == sealing.whole {
            sealing.checking = Checking::Done;
        } else {
            self.sealing = None;
        }
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

/// The batches of a publisher that a seal decides about: everything that was not read, and what was read
/// and can't be published.
fn doubtful(state: &State, edge: Edge) -> Coverage {
    let mut doubtful = state.unpublished(edge);
    doubtful.insert_range(state.read_of(edge), NUMBERS);
    doubtful
}
