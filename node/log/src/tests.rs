//! Tests of the log as a whole, each by what it inflicts.

use std::sync::Arc;

use crate::{AppendError, Log, LogConfig, MemStorage, Moved, RecordRef, Recovery, Storage};

mod commit;
mod contract;
mod crash;
mod damage;
mod footer;
mod full;
mod model;
mod segments;

/// Segments so small that a handful of records needs several.
const SMALL: LogConfig =
    LogConfig { first_segment_bytes: 4096 + 1400, segment_bytes: 4096 + 2400, reserve_bytes: 0 };
const ID: u128 = 0xC0FFEE;

/// What was delivered: sequence and payload.
type Delivered = Vec<(u64, Vec<u8>)>;

fn open(storage: &Arc<MemStorage>) -> (Log, Recovery, Delivered) {
    let storage: Arc<dyn Storage> = storage.clone();
    open_any(&storage)
}

fn open_any(storage: &Arc<dyn Storage>) -> (Log, Recovery, Delivered) {
    let mut delivered = Vec::new();
    let (log, recovery) =
        Log::open(Arc::clone(storage), SMALL, ID, &mut |record, meta, payload| {
            assert!(record.len as usize >= payload.len());
            delivered.push((meta.sequence, payload.to_vec()));
        })
        .expect("the log opens");
    assert_eq!(recovery.report.records as usize, delivered.len());
    assert_eq!(recovery.log_id, log.log_id());
    (log, recovery, delivered)
}

/// A payload that tells which record it is of, long enough to be torn.
fn payload(number: u64) -> Vec<u8> {
    let len = 20 + (number * 37 % 90) as usize;
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(len, number as u8 ^ 0x5A);
    bytes
}

/// Appends the payloads of these numbers, in group 1.
fn append(log: &mut Log, numbers: impl IntoIterator<Item = u64>) -> Vec<RecordRef> {
    let one = |number| log.append(1, 1, number, &[&payload(number)]);
    let refs: Result<_, AppendError> = numbers.into_iter().map(one).collect();
    refs.expect("there is space")
}

/// Forgets a group and gives back all the space there is; returns what was moved.
fn forget(log: &mut Log, group: u128) -> Vec<Moved> {
    log.forget(group).unwrap();
    let mut moved = Vec::new();
    while let Some(collected) = log.collect().unwrap() {
        moved.extend(collected.moved);
        log.release(collected.segment).unwrap();
    }
    moved
}

/// What is delivered after appending the payloads of `1..=count` to a new log.
fn prefix(count: u64) -> Delivered {
    (1..=count).map(|number| (number, payload(number))).collect()
}

/// A copy that shares nothing; what was not synced is kept.
fn copy(storage: &MemStorage) -> Arc<MemStorage> {
    Arc::new(storage.crash(|_| crate::Fate::Kept))
}
