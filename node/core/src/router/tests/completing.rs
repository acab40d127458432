//! What becomes of a job's batches when it is done, told message by message.

use cortado_protocol::entry::Source;
use cortado_protocol::job::{JobEntry, Manifest, TableTotal};
use cortado_protocol::peer::NotStored;
use cortado_protocol::{Coverage, Edge, EntryKey};

use super::*;
use crate::job::job_log_entry;
use crate::{Group, MovedRecord};

fn end(job: JobId) -> Bytes {
    let (files, tables) = (Vec::new(), vec![TableTotal::default()]);
    let done = Manifest::Done { files, chunks: 0, hash: 0, tables };
    job_log_entry(job, &JobEntry::Manifest(done)).encode()
}

fn batch(job: JobId, number: u64) -> Bytes {
    let key = EntryKey { job, edge: Edge::table(0), number };
    Entry::new(key, Source::default(), SlotSet::first(4), &[]).encode()
}

/// A node that holds a batch of a job of `b` or `c`.
fn holder() -> (Bench, JobId) {
    let mut bench = Bench::new(1);
    let jobs = (1..).map(|last| JobId::v7(1_700_000_000_000, last));
    let not_mine = |job: &JobId| bench.core.facts.coordinator(*job) != node("a");
    let job = jobs.into_iter().find(not_mine).unwrap();
    bench.hear_with("b", 0, PeerMessage::Store, batch(job, 0));
    bench.sync();
    bench.sent.clear();
    (bench, job)
}

fn holds_batches(bench: &Bench, job: JobId) -> bool {
    bench.core.held(job).iter().any(|part| part.edge == Edge::table(0))
}

#[test]
fn a_holder_writes_the_end_down_before_it_drops_its_batches() {
    let (mut bench, job) = holder();
    bench.hear_with("b", 1, PeerMessage::Ended { job }, end(job));
    assert!(holds_batches(&bench, job) && bench.forgotten.is_empty(), "not durable yet");
    bench.sync();
    assert!(!holds_batches(&bench, job));
    assert_eq!(bench.forgotten, [Group::batches(job)]);
    // The same once more is no news.
    bench.hear_with("c", 0, PeerMessage::Ended { job }, end(job));
    assert!(bench.appends.is_empty());
}

#[test]
fn the_end_of_a_job_of_which_nothing_is_held_is_not_kept() {
    let mut bench = Bench::new(1);
    let job = JobId::v7(1_700_000_000_000, 1);
    bench.hear_with("b", 0, PeerMessage::Ended { job }, end(job));
    bench.hear_with("b", 1, PeerMessage::Ended { job }, batch(job, 0));
    bench.hear_with("b", 2, PeerMessage::Ended { job }, Bytes::from_static(b"no entry"));
    assert!(bench.appends.is_empty());
}

#[test]
fn who_still_speaks_of_batches_of_a_job_that_is_done_is_told_so() {
    let (mut bench, job) = holder();
    bench.hear_with("b", 1, PeerMessage::Ended { job }, end(job));
    bench.sync();
    bench.sent.clear();
    let (edge, slots) = (Edge::table(0), SlotSet::first(4));
    let held = vec![EdgeCoverage { edge, slots, coverage: Coverage::range(0, 9) }];
    let wanted = held.clone();
    bench.hear("b", 2, PeerMessage::HaveEnded { jobs: vec![job, JobId(5)] });
    bench.hear("b", 3, PeerMessage::Offer { job, round: 1, held });
    bench.hear("b", 4, PeerMessage::Fetch { job, round: 2, wanted });
    let work = cortado_protocol::peer::Work::Fold;
    bench.hear("b", 5, PeerMessage::Work { job, attempt: 3, slots, ends: vec![9], work });
    bench.hear_with("b", 6, PeerMessage::Store, batch(job, 1));
    let told = bench.sent_to("b", |message| match message {
        PeerMessage::Ended { job } => Some(*job),
        _ => None,
    });
    assert_eq!(told, [job; 5]);
    let tails = bench.sent.iter().filter(|(_, m, _)| *m == PeerMessage::Ended { job });
    assert!(tails.map(|(_, _, tail)| tail).all(|tail| *tail == end(job)));
    let others = bench.sent_to("b", |message| match message {
        PeerMessage::Have { done, held, .. } => Some(*done && held.is_empty()),
        PeerMessage::Fetched { .. } => Some(true),
        PeerMessage::NotStored { reason, .. } => Some(*reason == NotStored::Ended),
        PeerMessage::Fetch { .. } | PeerMessage::Incomplete { .. } => Some(false),
        _ => None,
    });
    assert_eq!(others, [true; 3]);
    assert!(bench.appends.is_empty());
}

#[test]
fn batches_that_were_on_their_way_to_the_disk_are_dropped_with_the_others() {
    let (mut bench, job) = holder();
    bench.hear_with("b", 1, PeerMessage::Ended { job }, end(job));
    bench.hear_with("c", 0, PeerMessage::Store, batch(job, 1));
    let [ended, on_its_way] = bench.appends[..] else { panic!("two appends") };
    bench.appends = vec![ended];
    bench.sync();
    bench.appends = vec![on_its_way];
    bench.sync();
    assert!(!holds_batches(&bench, job));
    let refused = bench.sent_to("c", |message| match message {
        PeerMessage::NotStored { reason, .. } => Some(*reason),
        PeerMessage::Stored { .. } => panic!("it is not stored"),
        _ => None,
    });
    assert_eq!(refused, [NotStored::Ended]);
}

#[test]
fn batches_that_are_found_at_a_start_are_dropped_if_the_job_is_done() {
    let job = JobId::v7(1_700_000_000_000, 1);
    for end_first in [true, false] {
        let mut bench = Bench::alone(2);
        let mut records = [(1, batch(job, 0)), (2, end(job))];
        if end_first {
            records.reverse();
        }
        for (offset, bytes) in records {
            let record = RecordRef { segment: 1, offset, len: bytes.len() as u32 };
            bench.core.restore(record, 0, &bytes).unwrap();
        }
        bench.input(Input::Tick);
        assert!(!holds_batches(&bench, job));
        assert_eq!(bench.forgotten, [Group::batches(job)]);
    }
}

#[test]
fn a_record_that_was_moved_is_read_where_it_is() {
    let (mut bench, job) = holder();
    let held = |bench: &Bench| {
        let batches = (Edge::table(0), Coverage::range(0, u64::MAX));
        let located = bench.core.facts.located(job, [&batches].into_iter(), SlotSet::ALL);
        located.into_iter().map(|(_, record, _)| record).collect::<Vec<_>>()
    };
    let from = held(&bench)[0];
    let to = RecordRef { segment: 7, ..from };
    let head = batch(job, 0);
    let records = vec![MovedRecord { from, to, head }];
    bench.input(Input::Moved { segment: from.segment, records });
    assert_eq!(held(&bench), [to]);
    // A task that could not read it where it was does not make it count as lost.
    let key = EntryKey { job, edge: Edge::table(0), number: 0 };
    bench.core.facts.ledger.unreadable(&[(key, from, SlotSet::ALL)]);
    assert!(holds_batches(&bench, job));
    // One that is damaged where it is now does.
    bench.input(Input::Damaged(to, batch(job, 0)));
    assert!(!holds_batches(&bench, job));
}

#[test]
fn the_batches_of_a_stream_that_has_ended_are_kept_and_no_new_ones_are_taken() {
    let (mut bench, job) = holder();
    let done = Manifest::Done { files: Vec::new(), chunks: 0, hash: 0, tables: Vec::new() };
    let end = job_log_entry(job, &JobEntry::Manifest(done)).encode();
    bench.hear_with("b", 1, PeerMessage::Ended { job }, end);
    bench.sync();
    assert!(holds_batches(&bench, job) && bench.forgotten.is_empty());
    bench.sent.clear();
    bench.hear_with("b", 2, PeerMessage::Store, batch(job, 1));
    let refused = bench.sent_to("b", |message| match message {
        PeerMessage::NotStored { reason, .. } => Some(*reason),
        _ => None,
    });
    assert_eq!(refused, [NotStored::Ended]);
    assert!(bench.appends.is_empty());
    bench.hear_with("b", 3, PeerMessage::Moved, batch(job, 1));
    assert_eq!(bench.appends.len(), 1, "one that was acknowledged before is taken");
}
