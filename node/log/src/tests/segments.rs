//! Rotation and deletion.

use std::sync::Arc;

use super::{append, forget, open};
use crate::{Fate, Log, MemStorage, ReadError, Storage};

/// Appends a record of this group that fills most of a segment.
fn fill(log: &mut Log, group: u128) -> u32 {
    let record = log.append(1, group, 0, &[&[], &[1; 1200]]).unwrap();
    log.sync().unwrap();
    record.segment
}

fn copy_without_unsynced(storage: &MemStorage) -> Arc<MemStorage> {
    Arc::new(storage.crash(|_| Fate::Lost))
}

fn segments(log: &Log) -> Vec<u32> {
    log.segments().collect()
}

#[test]
fn a_segment_goes_when_all_its_groups_are_forgotten() {
    let storage = Arc::new(MemStorage::new());
    let (mut log, ..) = open(&storage);
    let first = log.append(1, 1, 0, &[&[], &[1; 450]]).unwrap();
    log.append(1, 2, 0, &[&[], &[1; 450]]).unwrap();
    log.append(1, 0, 0, &[b"of no group"]).unwrap();
    fill(&mut log, 3);
    log.append(1, 4, 0, &[&[], &[1; 2200]]).unwrap();
    let before = segments(&log);
    forget(&mut log, 1);
    assert_eq!(segments(&log), before);
    forget(&mut log, 2);
    assert_eq!(segments(&log), before[1..]);
    assert!(matches!(log.reader().read(first), Err(ReadError::Gone(_))));
    forget(&mut log, 9);
    forget(&mut log, 3);
    assert_eq!(segments(&log), before[2..]);
    // Even after a power cut they stay away.
    let (reopened, recovery, delivered) = open(&Arc::new(storage.crash(|_| Fate::Lost)));
    assert!(recovery.report.damage.is_empty());
    assert!(!segments(&reopened).contains(&before[0]));
    assert!(delivered.len() <= 1);
}

#[test]
fn what_little_lives_of_a_segment_is_copied_and_readable_until_it_is_released() {
    let storage = Arc::new(MemStorage::new());
    let (mut log, ..) = open(&storage);
    let kept = log.append(7, 1, 9, &[b"head", b"and tail"]).unwrap();
    log.append(1, 2, 0, &[&[], &[1; 900]]).unwrap();
    fill(&mut log, 3);
    log.forget(2).unwrap();
    let collected = log.collect().unwrap().expect("little lives of the first segment");
    let [moved] = &collected.moved[..] else { panic!("{collected:?}") };
    assert_eq!((moved.from, moved.kind, &moved.head[..]), (kept, 7, &b"head"[..]));
    let read =
        |log: &Log, record| log.reader().read(record).map(|(meta, bytes)| (meta.group, bytes));
    assert_eq!(read(&log, kept).unwrap(), read(&log, moved.to).unwrap());
    assert_eq!(log.collect().unwrap(), None);
    // Before the caller knows, both copies are there after a power cut, and what was copied is durable.
    let (_, recovery, delivered) = open(&copy_without_unsynced(&storage));
    assert_eq!(delivered.iter().filter(|(_, head)| head == b"head").count(), 2);
    assert!(recovery.report.damage.is_empty());
    log.release(collected.segment).unwrap();
    assert!(matches!(log.reader().read(kept), Err(ReadError::Gone(_))));
    assert_eq!(read(&log, moved.to).unwrap().1, &b"headand tail"[..]);
    drop(log);
    let (_, _, delivered) = open(&storage);
    assert_eq!(delivered.iter().filter(|(_, head)| head == b"head").count(), 1);
}

#[test]
fn one_group_that_trickles_does_not_keep_the_space_of_all_others() {
    let storage = Arc::new(MemStorage::new());
    let (mut log, ..) = open(&storage);
    let mut places = std::collections::BTreeMap::new();
    for job in 2..300u128 {
        let trickle = log.append(1, 1, 0, &[&job.to_le_bytes()]).unwrap();
        places.insert(trickle, job);
        log.append(1, job, 0, &[&[], &[1; 300]]).unwrap();
        for moved in forget(&mut log, job) {
            let job = places.remove(&moved.from).expect("only the trickle lives");
            places.insert(moved.to, job);
        }
    }
    let bytes: u64 = storage.list().unwrap().into_iter().map(|(_, len)| len).sum();
    // 298 records of 80 bytes in segments of which a quarter lives, without the blocks of their headers.
    let live = 298 * 80;
    let headers = 4096 * log.segments().count() as u64;
    assert!(bytes - headers < 8 * live, "{bytes} in {} segments", log.segments().count());
    for (record, job) in places {
        assert_eq!(log.reader().read(record).unwrap().1, &job.to_le_bytes()[..]);
    }
}

#[test]
fn a_damaged_record_does_not_keep_a_segment_from_being_copied() {
    let storage = Arc::new(MemStorage::new());
    let (mut log, ..) = open(&storage);
    let damaged = log.append(1, 1, 0, &[b"damaged"]).unwrap();
    let whole = log.append(1, 1, 0, &[b"whole"]).unwrap();
    log.append(1, 2, 0, &[&[], &[1; 900]]).unwrap();
    fill(&mut log, 3);
    assert!(storage.flip_bit(&crate::format::segment_name(1), damaged.offset as usize + 66, 1));
    let moved = forget(&mut log, 2);
    assert_eq!(moved.iter().map(|moved| moved.from).collect::<Vec<_>>(), [whole]);
    assert!(log.reader().read(damaged).is_err());
}

#[test]
fn a_forgotten_group_lives_again_when_it_is_appended_to() {
    let storage = Arc::new(MemStorage::new());
    let (mut log, ..) = open(&storage);
    let first = log.append(1, 1, 0, &[&[], &[1; 450]]).unwrap().segment;
    log.append(1, 2, 0, &[&[], &[1; 450]]).unwrap();
    fill(&mut log, 3);
    forget(&mut log, 1);
    log.append(1, 1, 0, &[b"again"]).unwrap();
    forget(&mut log, 2);
    assert!(segments(&log).contains(&first));
    forget(&mut log, 1);
    assert!(!segments(&log).contains(&first));
}

#[test]
fn the_current_segment_goes_too_once_it_is_worth_it() {
    let storage = Arc::new(MemStorage::new());
    let (mut log, ..) = open(&storage);
    let segment = log.append(1, 1, 0, &[b"small"]).unwrap().segment;
    forget(&mut log, 1);
    assert_eq!(segments(&log), [segment]);
    let segment = fill(&mut log, 1);
    forget(&mut log, 1);
    assert_eq!(segments(&log).len(), 1);
    assert!(!segments(&log).contains(&segment));
    append(&mut log, [1]);
    log.sync().unwrap();
    drop(log);
    let (_, recovery, delivered) = open(&storage);
    assert_eq!((delivered.len(), recovery.report.damage.len()), (1, 0));
}
