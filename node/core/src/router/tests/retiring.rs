//! What a member promises a stream's coordinator, told message by message.

use cortado_protocol::entry::Source;
use cortado_protocol::peer::{NotStored, Work};
use cortado_protocol::stream::Floors;
use cortado_protocol::{Coverage, Edge, EntryKey, Slot};
use cortado_stream::{Cut, OutputBatch};

use super::*;
use crate::{Group, StateFile};

const JOB: JobId = JobId(77);

fn publisher() -> Edge {
    Edge::publisher("p", 0)
}

fn output() -> Edge {
    Edge::output(node("b"), 1)
}

/// A batch of a publisher.
fn batch(number: u64) -> Bytes {
    let key = EntryKey { job: JOB, edge: publisher(), number };
    Entry::new(key, Source::default(), SlotSet::first(4).or(SlotSet::META), &[]).encode()
}

/// A batch of outputs with a window that ends at a time.
fn published(number: u64, oldest_ms: i64) -> Bytes {
    let key = EntryKey { job: JOB, edge: output(), number };
    let batch = OutputBatch { oldest_ms, ..OutputBatch::new(Cut::default(), 0) };
    Entry::meta(key, batch.encode()).encode()
}

fn floors(publisher_floor: u64) -> Floors {
    let floors = vec![(publisher(), publisher_floor), (output(), 1)];
    Floors { before_ms: 20_000, checkpoint: (output(), 2), floors }
}

/// Everything that was to be saved is on disk; returns the file with the promises.
fn save(bench: &mut Bench) -> Bytes {
    let mut retention = Bytes::new();
    for (ticket, file, bytes) in std::mem::take(&mut bench.saves) {
        if file == StateFile::Retention {
            retention = bytes;
        }
        bench.input(Input::Saved(ticket));
    }
    retention
}

fn said(bench: &mut Bench) -> Vec<PeerMessage> {
    let sent = std::mem::take(&mut bench.sent);
    sent.into_iter().filter(|(to, ..)| *to == node("b")).map(|(_, message, _)| message).collect()
}

fn refusals(bench: &mut Bench) -> Vec<NotStored> {
    let refused = |message| match message {
        PeerMessage::NotStored { reason, .. } => Some(reason),
        _ => None,
    };
    said(bench).into_iter().filter_map(refused).collect()
}

#[test]
fn who_has_promised_takes_no_revision_of_old_windows_and_says_what_it_has() {
    let mut bench = Bench::new(1);
    bench.hear_with("b", 0, PeerMessage::Store, published(0, 10_000));
    bench.sent.clear();
    bench.hear("b", 1, PeerMessage::Retire { job: JOB, before_ms: 20_000 });
    assert!(said(&mut bench).is_empty(), "the promise is not on disk yet");
    save(&mut bench);
    let told = PeerMessage::Retiring { job: JOB, before_ms: 20_000, outputs: vec![(output(), 1)] };
    assert_eq!(said(&mut bench), [told], "what is on its way to the disk is there, too");
    // A window that ends by then gets no revision, but for copies of those that were stored before.
    bench.hear_with("b", 2, PeerMessage::Store, published(1, 20_000));
    bench.hear_with("b", 3, PeerMessage::Store, published(2, 20_001));
    bench.hear_with("b", 4, PeerMessage::Moved, published(3, 15_000));
    assert_eq!(refusals(&mut bench), [NotStored::Retired]);
    assert_eq!(bench.appends.len(), 3);
    // An earlier time takes nothing back.
    bench.hear("b", 5, PeerMessage::Retire { job: JOB, before_ms: 5_000 });
    save(&mut bench);
    let before = |message: &PeerMessage| match message {
        PeerMessage::Retiring { before_ms, .. } => Some(*before_ms),
        _ => None,
    };
    assert_eq!(said(&mut bench).iter().find_map(before), Some(20_000));
}

#[test]
fn retired_batches_go_once_that_is_on_disk_and_count_as_held() {
    let mut bench = Bench::new(1);
    for number in 0..130 {
        bench.hear_with("b", number, PeerMessage::Store, batch(number));
    }
    bench.sync();
    bench.sent.clear();
    bench.hear("b", 130, PeerMessage::Retired { job: JOB, floors: floors(100) });
    assert!(bench.forgotten.is_empty(), "not on disk yet");
    let file = save(&mut bench);
    // Of the second group some are needed.
    assert_eq!(bench.forgotten, [Group::of_stream(JOB, publisher(), 0)]);
    let held = |core: &Core| {
        let held = core.held(JOB).into_iter();
        held.map(|part| part.coverage).reduce(|mut all, part| {
            all.union(&part);
            all
        })
    };
    assert_eq!(held(&bench.core), Some(Coverage::range(100, 130)));
    // A peer that has them is told, and one that sends them is told that they are there.
    let stale = EdgeCoverage {
        edge: publisher(),
        slots: SlotSet::one(Slot(0)),
        coverage: Coverage::range(90, 110),
    };
    bench.hear("b", 131, PeerMessage::Offer { job: JOB, round: 4, held: vec![stale.clone()] });
    let told = said(&mut bench);
    let retired = PeerMessage::Retired { job: JOB, floors: floors(100) };
    assert!(told.contains(&retired), "{told:?}");
    let have = |message: &PeerMessage| match message {
        PeerMessage::Have { held, .. } => Some(held.clone()),
        _ => None,
    };
    assert_eq!(told.iter().find_map(have), Some(vec![stale]));
    bench.hear_with("b", 132, PeerMessage::Store, batch(3));
    assert!(matches!(&said(&mut bench)[..], [PeerMessage::Stored { .. }]));
    assert!(bench.appends.is_empty());
    // Who wants their events learns that they are gone, and not that there are none.
    let wanted = frame::to_postcard(&(publisher(), Coverage::range(98, 102)));
    let (slots, work) = (SlotSet::one(Slot(0)), Work::Events);
    let ask = PeerMessage::Work { job: JOB, attempt: 9, slots, ends: Vec::new(), work };
    bench.hear_with("b", 133, ask, wanted);
    let lacks = said(&mut bench).into_iter().find_map(|message| match message {
        PeerMessage::Incomplete { missing, .. } => Some(missing[0].coverage.clone()),
        _ => None,
    });
    assert_eq!(lacks, Some(Coverage::range(98, 100)));

    // After a restart, too: the log still has their records.
    let mut bench = Bench::alone(2);
    bench.core.restore_state(StateFile::Retention, &file).unwrap();
    for number in 0..130 {
        let record = RecordRef { segment: 1, offset: number as u32, len: 1 };
        bench.core.restore(record, 0, &batch(number)).unwrap();
    }
    bench.sees(&["a", "b", "c"]);
    bench.meets("b");
    assert_eq!(held(&bench.core), Some(Coverage::range(100, 130)));
    assert_eq!(bench.forgotten, [Group::of_stream(JOB, publisher(), 0)]);
    bench.hear_with("b", 0, PeerMessage::Store, published(0, 20_000));
    assert_eq!(refusals(&mut bench), [NotStored::Retired], "what is gone was promised");
}

#[test]
fn who_has_promised_takes_no_new_batch_of_a_publisher_that_is_to_be_sealed() {
    let mut bench = Bench::new(1);
    bench.hear_with("b", 0, PeerMessage::Store, batch(4));
    bench.sent.clear();
    let freeze = PeerMessage::Freeze { job: JOB, edge: publisher(), from: 2, round: 7 };
    bench.hear("b", 1, freeze);
    assert!(said(&mut bench).is_empty());
    let file = save(&mut bench);
    let told = said(&mut bench);
    let [PeerMessage::Frozen { round: 7, held, .. }] = &told[..] else { panic!("{told:?}") };
    assert_eq!((held.len(), &held[0].coverage), (1, &Coverage::range(4, 5)));
    bench.hear_with("b", 2, PeerMessage::Store, batch(5));
    bench.hear_with("b", 3, PeerMessage::Moved, batch(6));
    assert_eq!(refusals(&mut bench), [NotStored::Frozen]);
    assert_eq!(bench.appends.len(), 2);

    let mut bench = Bench::new(2);
    bench.core.restore_state(StateFile::Retention, &file).unwrap();
    bench.hear_with("b", 0, PeerMessage::Store, batch(5));
    assert_eq!(refusals(&mut bench), [NotStored::Frozen]);
}
