//! Replication: an entry is done when each of its deltas is fsynced on W distinct nodes.
//!
//! There is no primary: whoever has an entry sends it to the owners of its slots and counts the
//! answers. A dead owner costs nothing but a changed list. Copies are counted by (node, log): a node
//! that lost its disk lost what it acknowledged.

use std::collections::BTreeMap;
use std::time::Duration;

use cortado_engine::mebi;
use cortado_protocol::client::{BatchOutcome, ClientError, ErrorKind};
use cortado_protocol::entry::Entry;
use cortado_protocol::expiry::Reason;
use cortado_protocol::limits::ENTRY_BYTES;
use cortado_protocol::peer::{NotStored, PeerMessage};
use cortado_protocol::{EntryKey, JobId, LogId, NodeId, SlotSet};

use crate::config::PlantedBug;
use crate::facts::Facts;
use crate::job::{DONE, SEALED};
use crate::outbox::Outbox;

/// How long an entry is tried before its asker is told to come back.
const GIVE_UP_AFTER: Duration = Duration::from_secs(8);
/// How long an answer is waited for before the entry is sent again.
const RESEND_AFTER: Duration = Duration::from_secs(2);

/// Who wants to know that an entry is durable.
#[derive(Debug, Clone)]
pub(crate) enum Asker {
    /// A client's batch: its tickets and the number of rejected rows.
    Batch { tickets: Vec<u64>, rejected: u32 },
    /// The coordinator, about its own entries.
    Coordinator,
}

/// An entry of the coordinator that could not be stored, and why.
pub(crate) type Failed = (EntryKey, ClientError);

struct Outstanding {
    entry: Entry,
    copies: BTreeMap<NodeId, (LogId, SlotSet)>,
    sent: BTreeMap<NodeId, SlotSet>,
    asker: Asker,
    since: Duration,
    sent_at: Duration,
    full: bool,
    expiring: bool,
}

/// Entries on their way to W nodes.
#[derive(Default)]
pub(crate) struct Replicator {
    outstanding: BTreeMap<EntryKey, Outstanding>,
}

impl Replicator {
    pub(crate) fn is_busy(&self) -> bool {
        !self.outstanding.is_empty()
    }

    /// Entries that are not on enough disks yet.
    pub(crate) fn waiting(&self) -> u64 {
        self.outstanding.len() as u64
    }
}

impl Outstanding {
    /// Fewest copies of any slot of the entry.
    fn fewest_copies(&self) -> u8 {
        let slots = self.entry.head.slots;
        let copies = |slot| self.copies.values().filter(|(_, set)| set.contains(slot)).count();
        slots.iter().map(copies).min().unwrap_or(0) as u8
    }

    fn is_durable(&self, min_copies: u8) -> bool {
        // Copies by bit-slices would be faster; two sets are the common case and done directly.
        if min_copies == 2 {
            let (mut once, mut twice) = (SlotSet::EMPTY, SlotSet::EMPTY);
            for (_, set) in self.copies.values() {
                twice = twice.or(once.and(*set));
                once = once.or(*set);
            }
            return twice.contains_all(self.entry.head.slots);
        }
        self.fewest_copies() >= min_copies
    }
}

fn conflict(key: EntryKey) -> ClientError {
    let number = key.number;
    let message =
        format!("batch {number} was recorded before with other content; did the dataset change?");
    ClientError::new(ErrorKind::Conflict, message)
}

impl Replicator {
    /// Sends an entry to the owners of its slots. A second call for the same entry joins the first.
    pub(crate) fn replicate(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        entry: Entry,
        asker: Asker,
    ) -> Option<Failed> {
        let key = entry.head.key;
        if let Err(error) = check_size(&entry) {
            return failed(out, key, asker, error);
        }
        if let Some(outstanding) = self.outstanding.get_mut(&key) {
            if outstanding.entry.head != entry.head {
                let error = conflict(key);
                if let Asker::Batch { tickets, .. } = &asker {
                    out.refuse_batches(key, tickets, &error);
                }
            } else if let (Asker::Batch { tickets, .. }, Asker::Batch { tickets: more, .. }) =
                (&mut outstanding.asker, asker)
            {
                tickets.extend(more);
            }
            return None;
        }
        let outstanding = Outstanding {
            entry,
            copies: BTreeMap::new(),
            sent: BTreeMap::new(),
            asker,
            since: facts.now,
            sent_at: facts.now,
            full: false,
            expiring: false,
        };
        self.outstanding.insert(key, outstanding);
        self.send_to_owners(facts, out, key);
        None
    }

    /// Sends what the present owners were not sent yet.
    fn send_to_owners(&mut self, facts: &Facts, out: &mut Outbox, key: EntryKey) {
        let placement = facts.placement(key.job);
        let Some(outstanding) = self.outstanding.get_mut(&key) else { return };
        outstanding.sent_at = facts.now;
        for (owner, slots) in &placement.by_owner {
            let sent = outstanding.sent.entry(*owner).or_default();
            let wanted = slots.and(outstanding.entry.head.slots).minus(*sent);
            if !wanted.is_empty() {
                *sent = sent.or(wanted);
                let bytes = outstanding.entry.restrict(wanted).encode();
                out.send_with(*owner, PeerMessage::Store, bytes);
            }
        }
    }

    /// A node has an entry, for these slots, in this log. Returns the entry once W nodes have all of it,
    /// and whether it is one of the coordinator's own; a batch is answered.
    pub(crate) fn stored(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        (from, log): (NodeId, LogId),
        (key, slots): (EntryKey, SlotSet),
    ) -> Option<(Entry, bool)> {
        let outstanding = self.outstanding.get_mut(&key)?;
        let copies = outstanding.copies.entry(from).or_insert((log, SlotSet::EMPTY));
        copies.1 = copies.1.or(slots);
        if !outstanding.is_durable(facts.config.min_copies) {
            return None;
        }
        let done = self.outstanding.remove(&key).expect("looked up just now");
        let copies = done.fewest_copies();
        if let Asker::Batch { tickets, rejected } = &done.asker {
            let (replicas, rejected) = (facts.config.replicas, *rejected);
            let outcome = BatchOutcome::Durable { copies, replicas, rejected };
            out.settle_batches(key, tickets, &outcome);
        }
        Some((done.entry, matches!(done.asker, Asker::Coordinator)))
    }

    /// A node did not store an entry.
    pub(crate) fn on_not_stored(
        &mut self,
        out: &mut Outbox,
        from: NodeId,
        key: EntryKey,
        reason: NotStored,
    ) -> Option<Failed> {
        let outstanding = self.outstanding.get_mut(&key)?;
        match reason {
            NotStored::Full => {
                outstanding.full = true;
                // Asked again with the next resend.
                outstanding.sent.remove(&from);
            }
            NotStored::Expiring => {
                outstanding.expiring = true;
                outstanding.sent.remove(&from);
            }
            NotStored::Forgotten => {
                let message = format!("job {} is gone", key.job);
                return self.fail(out, key, ClientError::new(ErrorKind::NotFound, message));
            }
            NotStored::Ended => {
                return self.fail(out, key, ClientError::new(ErrorKind::Ended, DONE));
            }
            NotStored::Retired => {
                let message = "a window in it gets no revision any more";
                return self.fail(out, key, ClientError::new(ErrorKind::Ended, message));
            }
            NotStored::Frozen => {
                return self.fail(out, key, ClientError::new(ErrorKind::Ended, SEALED));
            }
            NotStored::Conflict => return self.fail(out, key, conflict(key)),
        }
        None
    }

    fn fail(&mut self, out: &mut Outbox, key: EntryKey, error: ClientError) -> Option<Failed> {
        let outstanding = self.outstanding.remove(&key)?;
        failed(out, key, outstanding.asker, error)
    }

    /// Sends again what found no answer; returns the entries that were tried for long enough, to be given
    /// up with [`Self::give_up`].
    pub(crate) fn tick(&mut self, facts: &Facts, out: &mut Outbox) -> Vec<EntryKey> {
        let now = facts.now;
        let mut late = Vec::new();
        let mut over = Vec::new();
        for (key, outstanding) in &mut self.outstanding {
            if now >= outstanding.since + GIVE_UP_AFTER {
                over.push(*key);
            } else if now >= outstanding.sent_at + RESEND_AFTER {
                let copies = &outstanding.copies;
                outstanding.sent.retain(|node, _| copies.contains_key(node));
                late.push(*key);
            }
        }
        for key in late {
            self.send_to_owners(facts, out, key);
        }
        over
    }

    /// Gives an entry up, with the reason.
    pub(crate) fn give_up(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        key: EntryKey,
    ) -> Option<Failed> {
        let outstanding = self.outstanding.get(&key)?;
        let needed = facts.config.min_copies;
        let reason = match facts.replicas_suffice() {
            Err(reason) => reason,
            Ok(()) if outstanding.expiring => {
                "the job's time to live was over at some members; whether it is gone is being \
                     decided"
                    .to_owned()
            }
            Ok(()) if outstanding.full => "disk full: free space on the nodes".to_owned(),
            Ok(()) => {
                format!("waiting for replicas: {} of {needed}", outstanding.fewest_copies())
            }
        };
        self.fail(out, key, ClientError::new(ErrorKind::Unavailable, reason))
    }

    /// The owners may be others.
    pub(crate) fn after_change(&mut self, facts: &Facts, out: &mut Outbox) {
        let keys: Vec<_> = self.outstanding.keys().copied().collect();
        for key in keys {
            self.send_to_owners(facts, out, key);
        }
    }

    /// The peer was started again: what it was sent may be lost.
    pub(crate) fn resend_to(&mut self, facts: &Facts, out: &mut Outbox, peer: NodeId) {
        for outstanding in self.outstanding.values_mut() {
            if !outstanding.copies.contains_key(&peer) {
                outstanding.sent.remove(&peer);
            }
        }
        self.after_change(facts, out);
    }

    /// The peer lost its disk: what it acknowledged counts no more.
    pub(crate) fn void(&mut self, facts: &Facts, peer: NodeId) {
        if facts.config.planted == Some(PlantedBug::CountLostCopies) {
            return;
        }
        for outstanding in self.outstanding.values_mut() {
            outstanding.copies.remove(&peer);
        }
    }

    /// The entries of a job that is gone, to be failed with [`Self::fail_gone`].
    pub(crate) fn of_job(&self, job: JobId) -> Vec<EntryKey> {
        self.outstanding.keys().filter(|key| key.job == job).copied().collect()
    }

    /// Fails an entry whose job is gone.
    pub(crate) fn fail_forgotten(
        &mut self,
        out: &mut Outbox,
        key: EntryKey,
        reason: Reason,
    ) -> Option<Failed> {
        self.fail(out, key, ClientError::new(ErrorKind::NotFound, reason.tell(key.job)))
    }
}

/// A batch is answered; an entry of the coordinator is for the coordinator.
fn failed(out: &mut Outbox, key: EntryKey, asker: Asker, error: ClientError) -> Option<Failed> {
    match asker {
        Asker::Batch { tickets, .. } => {
            out.refuse_batches(key, &tickets, &error);
            None
        }
        Asker::Coordinator => Some((key, error)),
    }
}

/// An entry that no record and no message can hold is refused, with what it was made of.
fn check_size(entry: &Entry) -> Result<(), ClientError> {
    let bytes = entry.encoded_len();
    if bytes <= ENTRY_BYTES {
        return Ok(());
    }
    let message = format!(
        "this plan makes {} of a batch of {}, at most {} can be stored: let its queries keep fewer \
         columns, groups or aggregates",
        mebi(bytes),
        mebi(entry.head.source.bytes as usize),
        mebi(ENTRY_BYTES),
    );
    Err(ClientError::new(ErrorKind::BadInput, message))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use cortado_protocol::entry::Source;
    use cortado_protocol::{Edge, Slot};

    use super::*;
    use crate::effect::Effect;
    use crate::facts::tests::facts_of;
    use crate::outbox::Out;

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    /// A batch of one slot on its way from node `a` of three, W = 2.
    struct Bench {
        facts: Facts,
        out: Outbox,
        replicator: Replicator,
        key: EntryKey,
    }

    impl Bench {
        fn new() -> Self {
            let (facts, mut out) = (facts_of(&["a", "b", "c"]), Outbox::new(1));
            let mut replicator = Replicator::default();
            let key = EntryKey { job: JobId(1), edge: Edge::table(0), number: 0 };
            let delta = (Slot(0), Bytes::from_static(b"delta"));
            let entry = Entry::new(key, Source::default(), SlotSet::first(1), &[delta]);
            let asker = Asker::Batch { tickets: vec![7], rejected: 0 };
            assert!(replicator.replicate(&facts, &mut out, entry, asker).is_none());
            Self { facts, out, replicator, key }
        }

        /// A node has it; tells whether it is durable now.
        fn stored(&mut self, name: &str) -> bool {
            let (of, slots) = ((node(name), LogId(1)), (self.key, SlotSet::first(1)));
            self.replicator.stored(&self.facts, &mut self.out, of, slots).is_some()
        }

        /// To whom the entry was sent, and what the client heard, since the last call.
        fn said(&mut self) -> (Vec<NodeId>, Vec<BatchOutcome>) {
            let (mut sent, mut heard) = (Vec::new(), Vec::new());
            while let Some(out) = self.out.next() {
                match out {
                    Out::Send(to, PeerMessage::Store, _) => sent.push(to),
                    Out::Effect(Effect::BatchReply(7, reply)) => heard.push(reply.outcome),
                    _ => panic!("nothing else is said"),
                }
            }
            (sent, heard)
        }
    }

    #[test]
    fn a_batch_is_acknowledged_when_two_nodes_have_it() {
        let mut bench = Bench::new();
        assert_eq!(bench.said(), (["a", "b", "c"].map(node).to_vec(), vec![]));
        assert!(!bench.stored("b") && !bench.stored("b"), "the same node twice is one copy");
        assert!(bench.stored("c"));
        let durable = BatchOutcome::Durable { copies: 2, replicas: 3, rejected: 0 };
        assert_eq!(bench.said(), (vec![], vec![durable]));
        assert!(!bench.replicator.is_busy());
    }

    #[test]
    fn what_a_node_had_before_it_lost_its_log_does_not_count() {
        let mut bench = Bench::new();
        assert!(!bench.stored("b"));
        bench.replicator.void(&bench.facts, node("b"));
        assert!(!bench.stored("c"));
        assert!(bench.stored("a"));
    }

    #[test]
    fn a_node_that_was_started_again_is_sent_what_it_did_not_confirm() {
        let mut bench = Bench::new();
        bench.stored("b");
        bench.said();
        for peer in ["b", "c"] {
            bench.replicator.resend_to(&bench.facts, &mut bench.out, node(peer));
        }
        assert_eq!(bench.said().0, [node("c")]);
    }

    #[test]
    fn a_batch_that_no_second_node_takes_is_given_back_with_the_reason() {
        let mut bench = Bench::new();
        bench.stored("a");
        let full = NotStored::Full;
        assert!(
            bench.replicator.on_not_stored(&mut bench.out, node("b"), bench.key, full).is_none()
        );
        bench.facts.now += GIVE_UP_AFTER;
        assert_eq!(bench.replicator.tick(&bench.facts, &mut bench.out), [bench.key]);
        bench.said();
        assert!(bench.replicator.give_up(&bench.facts, &mut bench.out, bench.key).is_none());
        let reason = "disk full: free space on the nodes".to_owned();
        assert_eq!(bench.said().1, [BatchOutcome::Retry { reason }]);
    }

    #[test]
    fn an_entry_that_no_record_can_hold_is_refused_with_its_size() {
        let key = EntryKey { job: JobId(1), edge: Edge::table(0), number: 0 };
        let source = Source { content: 1, bytes: 1 << 20, rows: 1 };
        let entry = |bytes: usize| {
            let delta = Bytes::from(vec![0; bytes]);
            Entry::new(key, source, SlotSet::first(1), &[(Slot(0), delta)])
        };
        assert_eq!(entry(9).encoded_len(), entry(9).encode().len());
        assert!(check_size(&entry(ENTRY_BYTES - 100)).is_ok());
        let error = check_size(&entry(20 << 20)).unwrap_err();
        assert_eq!(error.kind, ErrorKind::BadInput);
        let made = "this plan makes 20.0 MiB of a batch of 1.0 MiB, at most 16.0 MiB can be stored";
        assert!(error.message.starts_with(made), "{}", error.message);
    }
}
