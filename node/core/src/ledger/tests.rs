//! The ledger alone: when it answers, and what it counts as held.

use cortado_protocol::entry::Source;
use cortado_protocol::expiry::Reason;
use cortado_protocol::{LogId, Slot};

use super::*;
use crate::config::tests::config;
use crate::outbox::Out;

const JOB: JobId = JobId(1);

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn proof() -> Forgotten {
    let (by, reason) = (node("a"), Reason::Expired);
    Forgotten { by, number: 1, accepted: vec![by], known: 1, min_copies: 1, reason }
}

struct Bench {
    ledger: Ledger,
    out: Outbox,
    config: Config,
}

impl Bench {
    fn new() -> Self {
        Self { ledger: Ledger::default(), out: Outbox::new(1), config: config("a", 1) }
    }

    /// A peer wants these slots of the only batch stored, with deltas of one content.
    fn store(&mut self, slots: &[u8], content: &'static [u8], moved: bool) -> bool {
        let slots: SlotSet = slots.iter().map(|slot| Slot(*slot)).collect();
        let deltas: Vec<_> = slots.iter().map(|slot| (slot, Bytes::from_static(content))).collect();
        let key = EntryKey { job: JOB, edge: Edge::table(0), number: 0 };
        let entry = Entry::new(key, Source::default(), slots, &deltas);
        let (from, bytes) = (node("b"), entry.encode());
        let offered = Offered { from, entry, bytes, moved, unanswered: false };
        self.ledger.store(&self.config, &mut self.out, offered)
    }

    /// Tickets of appends, and what is said to the peer.
    fn said(&mut self) -> (Vec<u64>, Vec<PeerMessage>) {
        let (mut appends, mut messages) = (Vec::new(), Vec::new());
        for out in std::iter::from_fn(|| self.out.next()) {
            match out {
                Out::Effect(Effect::Append { ticket, .. }) => appends.push(ticket),
                Out::Send(_, message, _) => messages.push(message),
                _ => {}
            }
        }
        (appends, messages)
    }

    fn sync(&mut self, ticket: u64) -> usize {
        let record = RecordRef { segment: 1, offset: ticket as u32, len: 1 };
        self.ledger.appended(&self.config, &mut self.out, &[(ticket, record)]).len()
    }
}

fn stored(messages: &[PeerMessage]) -> usize {
    messages.iter().filter(|message| matches!(message, PeerMessage::Stored { .. })).count()
}

#[test]
fn an_entry_is_answered_after_its_sync_and_a_known_one_at_once() {
    let mut bench = Bench::new();
    assert!(bench.store(&[0, 1], b"x", false));
    let (appends, messages) = bench.said();
    assert_eq!((appends.len(), stored(&messages)), (1, 0));
    assert!(!bench.store(&[0], b"x", false), "it is on its way");
    assert_eq!(bench.said(), (vec![], vec![]));
    assert!(bench.ledger.awaits(JOB));
    assert_eq!(bench.sync(appends[0]), 1);
    let (_, messages) = bench.said();
    let PeerMessage::Stored { log, entries } = &messages[0] else { panic!("{messages:?}") };
    assert_eq!((messages.len(), *log, entries.len()), (1, LogId(1), 2), "both are told, at once");
    assert!(!bench.ledger.awaits(JOB));
    assert!(!bench.store(&[1], b"x", false));
    assert_eq!(stored(&bench.said().1), 1);
}

#[test]
fn of_an_entry_that_is_held_in_part_only_the_rest_is_written() {
    let mut bench = Bench::new();
    bench.store(&[0], b"x", false);
    let first = bench.said().0;
    assert!(bench.store(&[0, 1], b"x", true));
    let second = bench.said().0;
    let edge = bench.ledger.edge(JOB, Edge::table(0)).unwrap();
    assert_eq!(edge.slots(0, false).len(), 2);
    bench.sync(second[0]);
    assert_eq!(stored(&bench.said().1), 0, "the first part may still be lost");
    bench.sync(first[0]);
    assert_eq!(stored(&bench.said().1), 1);
}

#[test]
fn another_content_under_the_same_number_is_kept_for_inspection_and_never_counted() {
    let mut bench = Bench::new();
    bench.store(&[0], b"x", false);
    bench.said();
    assert!(!bench.store(&[0], b"y", false));
    let (appends, messages) = bench.said();
    assert_eq!(appends.len(), 1);
    assert!(matches!(&messages[..], [PeerMessage::NotStored { reason: NotStored::Conflict, .. }]));
    assert_eq!(bench.sync(appends[0]), 0);
}

#[test]
fn what_the_disk_refused_is_not_held_and_everyone_who_waits_is_told() {
    let mut bench = Bench::new();
    bench.store(&[0], b"x", false);
    bench.store(&[0], b"x", false);
    let ticket = bench.said().0[0];
    assert!(bench.ledger.refused(&mut bench.out, ticket).is_some());
    let refused = bench.said().1;
    assert_eq!(refused.len(), 2);
    assert!(bench.ledger.edge(JOB, Edge::table(0)).unwrap().all_slots().is_empty());
    assert!(bench.store(&[0], b"x", false), "it is new again");
}

#[test]
fn a_record_of_a_job_that_was_forgotten_meanwhile_is_nobodys() {
    let mut bench = Bench::new();
    bench.store(&[0], b"x", false);
    let ticket = bench.said().0[0];
    bench.ledger.forget(JOB, proof());
    assert_eq!(bench.sync(ticket), 0);
    assert_eq!(bench.said(), (vec![], vec![]));
    assert!(bench.ledger.job(JOB).is_none());
}

#[test]
fn the_oldest_tombstones_are_let_go() {
    let mut ledger = Ledger::default();
    for job in 0..TOMBSTONES as u128 + 10 {
        assert!(ledger.forget(JobId(job), proof()));
    }
    assert!(!ledger.is_forgotten(JobId(0)));
    assert!(ledger.is_forgotten(JobId(TOMBSTONES as u128 + 9)));
    assert_eq!(ledger.tombstones().count(), TOMBSTONES);
}

#[test]
fn a_start_gets_the_whole_of_a_jobs_own_entries_also_of_contradicting_ones() {
    let mut bench = Bench::new();
    for (content, edge, whole) in [
        (&b"x"[..], Edge::JOB, true),
        (b"y", Edge::JOB, true),
        (b"x", Edge::RESULT, false),
        (b"y", Edge::RESULT, false),
    ] {
        let key = EntryKey { job: JOB, edge, number: 1 };
        let entry = Entry::meta(key, Bytes::from_static(content));
        let (from, bytes) = (node("b"), entry.encode());
        let offered = Offered { from, entry, bytes, moved: false, unanswered: true };
        bench.ledger.store(&bench.config, &mut bench.out, offered);
        let append = std::iter::from_fn(|| bench.out.next()).find_map(|out| match out {
            Out::Effect(Effect::Append { bytes, head, .. }) => Some((bytes.len(), head)),
            _ => None,
        });
        let (bytes, head) = append.expect("it is logged");
        assert_eq!(head == bytes, whole, "{edge:?}");
    }
}
