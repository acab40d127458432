//! Completion: when a node asks coordinators whether jobs are done. The router's tick calls it.
//!
//! Every node drops the batches of a job that is done, unless it is a stream. A node drops them when
//! the manifest is durable in its own log, so each node that has dropped batches can send the
//! manifest to others. The coordinator sends the manifest to all members. A node may miss that
//! message. So it asks the coordinators of all jobs of which it holds batches, after each change of
//! view and every 30 s.

use std::collections::BTreeMap;
use std::time::Duration;

use cortado_protocol::peer::PeerMessage;
use cortado_protocol::{JobId, NodeId};

use crate::facts::Facts;
use crate::job::JobLog;
use crate::outbox::Outbox;

/// Pause between two questions.
const ASK_EVERY: Duration = Duration::from_secs(30);
/// Jobs in one question.
const JOBS_PER_QUESTION: usize = 1_000;

/// See the module's description.
#[derive(Default)]
pub(crate) struct Completion {
    ask_at: Duration,
}

impl Completion {
    /// Asks coordinators whether jobs are done, if a question is due.
    pub(crate) fn tick(&mut self, facts: &Facts, out: &mut Outbox) {
        if facts.now < self.ask_at {
            return;
        }
        self.ask_at = facts.now + ASK_EVERY;
        let mut by_coordinator: BTreeMap<NodeId, Vec<JobId>> = BTreeMap::new();
        let is_done = |job: &JobId| facts.jobs.get(*job).is_some_and(JobLog::is_done);
        for job in facts.ledger.with_batches().filter(|job| !is_done(job)) {
            by_coordinator.entry(facts.coordinator(job)).or_default().push(job);
        }
        by_coordinator.remove(&facts.config.node);
        for (coordinator, jobs) in by_coordinator {
            for jobs in jobs.chunks(JOBS_PER_QUESTION) {
                out.send(coordinator, PeerMessage::HaveEnded { jobs: jobs.to_vec() });
            }
        }
    }

    /// The members changed: other nodes coordinate.
    pub(crate) fn after_change(&mut self, facts: &Facts) {
        self.ask_at = facts.now;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use cortado_protocol::entry::{Entry, Source};
    use cortado_protocol::{Edge, EntryKey, SlotSet};

    use super::*;
    use crate::facts::tests::facts_of;
    use crate::outbox::Out;
    use crate::record::RecordRef;

    #[test]
    fn coordinators_are_asked_for_what_is_held_of_jobs_after_each_change_and_every_so_often() {
        let mut facts = facts_of(&["a", "b", "c"]);
        let me = facts.config.node;
        let record = RecordRef { segment: 1, offset: 0, len: 1 };
        let mut others = BTreeMap::new();
        for job in (0..20).map(JobId) {
            let key = EntryKey { job, edge: Edge::table(0), number: 0 };
            let slots = SlotSet::first(2);
            facts.ledger.restore(&Entry::new(key, Source::default(), slots, &[]).head, record);
            others.entry(facts.coordinator(job)).or_insert_with(Vec::new).push(job);
        }
        others.remove(&me);
        let (mut completion, mut out) = (Completion::default(), Outbox::new(1));
        let asked = |out: &mut Outbox| {
            let question = |out| match out {
                Out::Send(to, PeerMessage::HaveEnded { jobs }, tail) if tail == Bytes::new() => {
                    (to, jobs)
                }
                _ => panic!("not a question"),
            };
            std::iter::from_fn(|| out.next()).map(question).collect::<BTreeMap<_, _>>()
        };
        completion.tick(&facts, &mut out);
        assert_eq!(asked(&mut out), others);
        completion.tick(&facts, &mut out);
        assert!(asked(&mut out).is_empty());
        completion.after_change(&facts);
        completion.tick(&facts, &mut out);
        assert_eq!(asked(&mut out), others);
        facts.now += ASK_EVERY;
        for job in (0..20).map(JobId) {
            facts.ledger.complete(&mut out, job);
        }
        completion.tick(&facts, &mut out);
        assert!(asked(&mut out).is_empty());
    }
}
