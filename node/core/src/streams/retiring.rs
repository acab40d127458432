//! The coordinator's part of retention; see [`crate::retention`].

use cortado_protocol::peer::PeerMessage;
use cortado_protocol::{Coverage, Edge, JobId, NodeId};
use cortado_stream::OutputBatch;

use super::events::Reads;
use super::promises::Retiring;
use super::stream::{Step, Stream};
use super::{Streams, reading};
use crate::facts::Facts;
use crate::job::JobLog;
use crate::outbox::Outbox;

impl Streams {
    /// A member has promised that it stores no revision of windows that end by a time.
    pub(crate) fn on_retiring(
        &mut self,
        from: NodeId,
        (job, before_ms): (JobId, i64),
        outputs: &[(Edge, u64)],
    ) {
        let Some(stream) = self.all.get_mut(&job) else { return };
        let Some(retiring) = stream.retiring.as_mut() else { return };
        if before_ms >= retiring.before_ms {
            retiring.asked.heard(from);
            for (edge, end) in outputs {
                let known = retiring.outputs.entry(*edge).or_default();
                *known = (*known).max(*end);
            }
        }
    }
}

impl Stream {
    /// Goes on with the retirement of windows, if any are due; returns whether a step was taken.
    pub(super) fn retire(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        (job, log): (JobId, &JobLog),
        reads: &mut Reads,
    ) -> bool {
        let due = self.due(facts, (job, log));
        let Some(before_ms) = due else {
            self.retiring = None;
            return false;
        };
        // What was promised for an earlier time is promised again for a later one.
        let retiring = match &mut self.retiring {
            Some(retiring) if retiring.before_ms == before_ms => retiring,
            retiring => retiring.insert(Retiring::new(before_ms)),
        };
        if retiring.asked.is_complete(facts) {
            if retiring.unread(&self.state).next().is_some() {
                return false;
            }
            // A batch that is there in part only must not decide anything: its publisher completes it, or is
            // sealed.
            if let Some((edge, loose)) = self.state.loose(&self.plan, before_ms, &retiring.whole) {
                if retiring.checking.is_none() && self.sealing.is_none() {
                    reads.check_for_seal(facts, out, job, (edge, &loose));
                    retiring.checking = Some((edge, loose));
                }
                return false;
            }
            self.note_deliveries();
            let left = self.state.checkpoint(&self.plan, before_ms);
            let mut batch = OutputBatch::new(self.state.cut(), self.state.until_ms());
            batch.retired = Some(Box::new(left));
            self.step = self.write(job, batch);
            return true;
        }
        let due = retiring.asked.due(facts).into_iter();
        out.send_to_all(due, &PeerMessage::Retire { job, before_ms });
        false
    }

    /// It is known which of the batches that are to be settled as late are whole.
    pub(super) fn checked_late(&mut self, (edge, found): (Edge, Option<Coverage>)) {
        let Some(retiring) = self.retiring.as_mut() else { return };
        let Some((_, asked)) = retiring.checking.take_if(|(of, _)| *of == edge) else { return };
        match found {
            Some(found) if found == asked => {
                retiring.whole.entry(edge).or_default().union(&found);
            }
            _ => self.stuck = true,
        }
    }

    /// Which windows are to be retired: those that end by this time. What was promised already is brought
    /// to an end first, whoever wanted it.
    fn due(&self, facts: &Facts, (job, log): (JobId, &JobLog)) -> Option<i64> {
        let gone = self.state.gone_before();
        let promised =
            facts.retention.promised(job).filter(|at| gone.is_none_or(|gone| *at > gone));
        if promised.is_some() {
            return promised;
        }
        if log.stream.stopping {
            return None;
        }
        let due = self.state.retires_before(&log.stream, &self.plan, facts.now)?;
        (self.state.has_older(&self.plan, due) && gone.is_none_or(|gone| due > gone)).then_some(due)
    }

    /// Members hold outputs that can't be read here: they are asked again whether they still do.
    pub(super) fn ask_again(&mut self, facts: &Facts) {
        let all = |retiring: &&mut Retiring| retiring.asked.open(facts).is_empty();
        if let Some(retiring) = self.retiring.as_mut().filter(all) {
            *retiring = Retiring::new(retiring.before_ms);
        }
    }

    /// Batches of outputs that members hold and that are missing here.
    pub(super) fn missing_outputs(&self, facts: &Facts, job: JobId) -> Vec<(Edge, Coverage)> {
        let unread = self.retiring.iter().flat_map(|retiring| retiring.unread(&self.state));
        let checkpoint = facts.retention.floors(job).map(|floors| floors.checkpoint);
        let checkpoint =
            checkpoint.map(|(edge, number)| (edge, Coverage::range(number, number + 1)));
        unread.chain(checkpoint).filter_map(|of| reading::lacks(facts, job, of)).collect()
    }

    /// Windows of a batch that is to be sent get no revision any more, as was promised meanwhile: the batch
    /// is given up, and what follows goes to another edge, because some members may have it.
    pub(super) fn give_up_frozen(&mut self, facts: &Facts, out: &mut Outbox, job: JobId) {
        let promised = facts.retention.promised(job);
        if let Step::Write { batch, sent: false, .. } = &self.step
            && promised.is_some_and(|promised| batch.oldest_ms <= promised)
        {
            self.step = Step::Idle;
            self.edge = Edge::output(facts.config.node, out.fresh_id());
        }
    }
}
