//! Full disks.

use std::sync::Arc;

use super::{SMALL, append, forget, open, payload, prefix};
use crate::{AppendError, Log, LogConfig, MemStorage, Storage};

#[test]
fn a_full_disk_refuses_and_takes_again_when_space_returns() {
    let storage = Arc::new(MemStorage::new());
    let (mut log, ..) = open(&storage);
    storage.set_capacity(Some(20_000));
    let mut count = 0;
    let error = loop {
        match log.append(1, 1, count + 1, &[&payload(count + 1)]) {
            Ok(_) => count += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, AppendError::Full) && count > 5, "{count}: {error}");
    // It stays usable: what is there is synced, read and delivered.
    log.sync().unwrap();
    assert!(matches!(log.append(1, 1, 0, &[&[0; 700]]), Err(AppendError::Full)));
    let (mut restarted, _, delivered) = open(&super::copy(&storage));
    assert_eq!(delivered, prefix(count));
    assert!(matches!(restarted.append(1, 1, 0, &[&[0; 700]]), Err(AppendError::Full)));
    restarted.sync().unwrap();
    drop(log);
    // A node that starts on a full disk serves what it has and takes more once it can.
    let (mut log, ..) = open(&storage);
    storage.set_capacity(None);
    append(&mut log, [count + 1]);
    log.sync().unwrap();
    drop(log);
    assert_eq!(open(&storage).2, prefix(count + 1));
}

#[test]
fn the_reserve_is_for_those_who_may() {
    let storage = Arc::new(MemStorage::new());
    let shared: Arc<dyn Storage> = storage.clone();
    let config = LogConfig { reserve_bytes: 50_000, ..SMALL };
    let (mut log, _) = Log::open(shared, config, 1, &mut |_, _, _| ()).unwrap();
    storage.set_capacity(Some(40_000));
    assert!(matches!(log.append(1, 1, 0, &[b"x"]), Err(AppendError::Full)));
    let mut taken = 0;
    while log.append_reserved(1, 1, 0, &[&[7; 100]]).is_ok() {
        taken += 1;
    }
    assert!(taken > 10);
    storage.set_capacity(Some(1_000_000));
    log.append(1, 1, 0, &[b"x"]).unwrap();
}

#[test]
fn forgetting_gives_space_back() {
    let storage = Arc::new(MemStorage::new());
    let (mut log, ..) = open(&storage);
    storage.set_capacity(Some(30_000));
    let mut group = 0;
    while log.append(1, group + 1, 0, &[&[7; 100]]).is_ok() {
        group += 1;
    }
    assert!(log.append(1, 1, 0, &[&[7; 100]]).is_err());
    log.sync().unwrap();
    (1..=group).for_each(|group| drop(forget(&mut log, group)));
    log.append(1, 1, 0, &[&[7; 100]]).unwrap();
}

#[test]
fn a_record_over_the_limit_is_refused_and_a_large_one_gets_a_segment_of_its_own() {
    let storage = Arc::new(MemStorage::new());
    let (mut log, ..) = open(&storage);
    let bytes = crate::PAYLOAD_BYTES + 1;
    let result = log.append(1, 1, 0, &[&vec![0; bytes - 5], &[0; 5]]);
    assert!(matches!(result, Err(AppendError::TooLarge { bytes: b }) if b == bytes));
    let large = vec![3; 100_000];
    let record = log.append(1, 1, 0, &[&large]).unwrap();
    append(&mut log, [2]);
    log.sync().unwrap();
    assert_eq!(log.reader().read(record).unwrap().1, large);
    drop(log);
    assert_eq!(open(&storage).2, vec![(1, large), (2, payload(2))]);
}
