//! Rotation and deletion.

use std::sync::Arc;

use super::{append, open};
use crate::{Fate, Log, MemStorage, ReadError};

/// Appends a record of this group that fills most of a segment.
fn fill(log: &mut Log, group: u128) -> u32 {
    let record = log.append(1, group, 0, &[&[1; 500]]).unwrap();
    log.sync().unwrap();
    record.segment
}

fn segments(log: &Log) -> Vec<u32> {
    log.segments().collect()
}

#[test]
fn a_segment_goes_when_all_its_groups_are_forgotten() {
    let storage = Arc::new(MemStorage::new());
    let (mut log, ..) = open(&storage);
    let first = log.append(1, 1, 0, &[&[1; 200]]).unwrap();
    log.append(1, 2, 0, &[&[1; 200]]).unwrap();
    log.append(1, 0, 0, &[b"of no group"]).unwrap();
    fill(&mut log, 3);
    log.append(1, 4, 0, &[&[1; 1000]]).unwrap();
    let before = segments(&log);
    log.forget(1).unwrap();
    assert_eq!(segments(&log), before);
    log.forget(2).unwrap();
    assert_eq!(segments(&log), before[1..]);
    assert!(matches!(log.reader().read(first), Err(ReadError::Gone(_))));
    log.forget(9).unwrap();
    log.forget(3).unwrap();
    assert_eq!(segments(&log), before[2..]);
    // Even after a power cut they stay away.
    let (reopened, recovery, delivered) = open(&Arc::new(storage.crash(|_| Fate::Lost)));
    assert!(recovery.report.damage.is_empty());
    assert!(!segments(&reopened).contains(&before[0]));
    assert!(delivered.len() <= 1);
}

#[test]
fn the_end_of_a_group_stays_while_its_beginning_does() {
    let storage = Arc::new(MemStorage::new());
    let (mut log, ..) = open(&storage);
    log.append(1, 1, 0, &[b"begin"]).unwrap();
    let pinned = fill(&mut log, 2);
    let ended = log.append(1, 1, 0, &[&[1; 1000]]).unwrap().segment;
    log.append(1, 3, 0, &[&[1; 1000]]).unwrap();
    log.forget(1).unwrap();
    assert!(segments(&log).contains(&pinned) && segments(&log).contains(&ended));
    log.forget(2).unwrap();
    assert!(!segments(&log).contains(&pinned) && !segments(&log).contains(&ended));
}

#[test]
fn a_forgotten_group_lives_again_when_it_is_appended_to() {
    let storage = Arc::new(MemStorage::new());
    let (mut log, ..) = open(&storage);
    let first = log.append(1, 1, 0, &[&[1; 200]]).unwrap().segment;
    log.append(1, 2, 0, &[b"pins"]).unwrap();
    fill(&mut log, 3);
    log.forget(1).unwrap();
    log.append(1, 1, 0, &[b"again"]).unwrap();
    log.forget(2).unwrap();
    assert!(segments(&log).contains(&first));
}

#[test]
fn the_current_segment_goes_too_once_it_is_worth_it() {
    let storage = Arc::new(MemStorage::new());
    let (mut log, ..) = open(&storage);
    let segment = log.append(1, 1, 0, &[b"small"]).unwrap().segment;
    log.forget(1).unwrap();
    assert_eq!(segments(&log), [segment]);
    let segment = fill(&mut log, 1);
    log.forget(1).unwrap();
    assert_eq!(segments(&log).len(), 1);
    assert!(!segments(&log).contains(&segment));
    append(&mut log, [1]);
    log.sync().unwrap();
    drop(log);
    let (_, recovery, delivered) = open(&storage);
    assert_eq!((delivered.len(), recovery.report.damage.len()), (1, 0));
}
