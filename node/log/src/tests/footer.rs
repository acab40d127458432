//! Footers: what a start reads instead of records.

use std::sync::Arc;

use super::{ID, append, copy, open, payload, prefix};
use crate::format::{SegmentHeader, segment_name};
use crate::{Log, LogConfig, MemStorage, Storage};

#[test]
fn a_start_delivers_heads_alike_with_and_without_a_footer() {
    let storage = Arc::new(MemStorage::new());
    let config = LogConfig { first_segment_bytes: 20_000, segment_bytes: 20_000, reserve_bytes: 0 };
    let start = |storage: &Arc<MemStorage>| {
        let mut seen = Vec::new();
        let storage: Arc<dyn Storage> = storage.clone();
        let (log, recovery) = Log::open(storage, config, ID, &mut |record, meta, head| {
            seen.push((record, *meta, head.to_vec()));
        })
        .unwrap();
        assert!(recovery.report.damage.is_empty() && recovery.report.torn_bytes == 0);
        (log, seen)
    };
    let (mut log, _) = start(&storage);
    let mut appended = Vec::new();
    for number in 0..40u8 {
        let (head, tail) = (vec![number; usize::from(number)], [0; 900]);
        let record = log.append(number, 5 + u128::from(number), 3, &[&head, &tail]).unwrap();
        appended.push((record, head));
    }
    log.sync().unwrap();
    drop(log);
    let without = copy(&storage);
    for (name, len) in without.list().unwrap() {
        if let Some(at) = len.checked_sub(5).filter(|_| name.starts_with("segment-")) {
            assert!(without.flip_bit(&name, at as usize, 0));
        }
    }
    let (_, seen) = start(&storage);
    let delivered: Vec<_> = seen.iter().map(|(record, _, head)| (*record, head.clone())).collect();
    assert_eq!(delivered, appended);
    // What stands in sealed segments is listed to those who look for damage.
    let reader = start(&storage).0.reader();
    let listed = reader.segments().unwrap().into_iter().map(|s| reader.listed(s).unwrap());
    let listed: Vec<_> = listed.flatten().map(|(record, head)| (record, head.to_vec())).collect();
    assert_eq!(listed, appended);
    assert_eq!(reader.listed(999).unwrap(), Vec::new());
    // By now the segment that was written last has a footer, too.
    assert_eq!(start(&storage).1, seen);
    let mut scanned = Vec::new();
    let without: Arc<dyn Storage> = without;
    let opened = Log::open(without, config, ID, &mut |record, meta, head| {
        scanned.push((record, *meta, head.to_vec()));
    });
    assert_eq!(scanned, seen);
    // It is said that footers were damaged, and that no record was.
    let damage = opened.unwrap().1.report.damage;
    assert!(damage.len() > 1 && damage.iter().all(|d| d.end_lost == Some(d.first_lost)));
}

#[test]
fn a_footer_of_the_segment_written_last_proves_nothing() {
    // A power cut while a segment is sealed may leave the footer and not what stands before it.
    let storage = Arc::new(MemStorage::new());
    let (mut log, ..) = open(&storage);
    let refs = append(&mut log, 1..=3);
    log.sync().unwrap();
    drop(log);
    let (log, ..) = open(&storage);
    let last = log.segments().last().unwrap();
    drop(log);
    storage.delete(&segment_name(last)).unwrap();
    let sealed = copy(&storage);
    assert_eq!(open(&sealed).1.report.torn_bytes, 0, "the footer is no torn tail");
    assert!(storage.flip_bit(&segment_name(refs[1].segment), refs[1].offset as usize + 70, 0));
    let (_, recovery, delivered) = open(&storage);
    assert_eq!(delivered, vec![(1, payload(1)), (3, payload(3))]);
    assert_eq!(recovery.report.damage.len(), 1);
}

#[test]
fn what_one_start_finds_damaged_the_next_does_not_deliver_by_a_footer() {
    let storage = Arc::new(MemStorage::new());
    let (mut log, ..) = open(&storage);
    let refs = append(&mut log, 1..=12);
    log.sync().unwrap();
    drop(log);
    // The later segments are gone: the first one is the last now, with its footer.
    let first = refs[0].segment;
    for (name, _) in storage.list().unwrap() {
        if crate::format::segment_number(&name).is_some_and(|number| number != first) {
            storage.delete(&name).unwrap();
        }
    }
    assert!(storage.flip_bit(&segment_name(first), refs[1].offset as usize + 70, 0));
    let (mut log, _, delivered) = open(&storage);
    assert!(!delivered.iter().any(|(number, _)| *number == 2));
    append(&mut log, [13]);
    log.sync().unwrap();
    drop(log);
    let (_, _, again) = open(&storage);
    assert_eq!(again, [delivered, vec![(13, payload(13))]].concat());
}

#[test]
fn a_segment_whose_header_begins_with_another_number_gets_no_footer() {
    let storage = Arc::new(MemStorage::new());
    let (mut log, ..) = open(&storage);
    append(&mut log, 1..=3);
    log.sync().unwrap();
    assert_eq!(log.segments().count(), 1);
    drop(log);
    let header = SegmentHeader { log_id: ID, segment: 1, first_sequence: 0 };
    storage.write_at(&segment_name(1), 0, &header.encode()).unwrap();
    for _ in 0..2 {
        assert_eq!(open(&storage).2, prefix(3));
    }
}

#[test]
fn heads_without_end_do_not_make_a_footer_without_end() {
    let storage = Arc::new(MemStorage::new());
    let config =
        LogConfig { first_segment_bytes: 64 << 20, segment_bytes: 64 << 20, reserve_bytes: 0 };
    let shared: Arc<dyn Storage> = storage.clone();
    let (mut log, _) = Log::open(shared, config, ID, &mut |_, _, _| ()).unwrap();
    let head = vec![1; 1 << 20];
    for _ in 0..10 {
        log.append(1, 1, 0, &[&head]).unwrap();
    }
    assert_eq!(log.segments().count(), 2);
    let largest = vec![2; crate::PAYLOAD_BYTES];
    log.append(1, 1, 0, &[&largest]).unwrap();
    assert!(log.append(1, 1, 0, &[&largest[..largest.len() - 1], &[0]]).is_err());
    log.sync().unwrap();
    drop(log);
    let mut heads = Vec::new();
    let shared: Arc<dyn Storage> = storage.clone();
    Log::open(shared, config, ID, &mut |_, _, head| heads.push(head.len())).unwrap();
    assert_eq!(heads, [vec![1 << 20; 10], vec![crate::PAYLOAD_BYTES]].concat());
    assert_eq!(prefix(0), Vec::new());
}
