//! Power cuts: every combination of what a crash may leave of the last writes.

use std::sync::Arc;

use proptest::prelude::*;

use super::{append, copy, open, prefix};
use crate::{Fate, MemStorage, Pending, SyncError};

/// Opens the crashed storage and checks that it is a prefix, at least as long as what was synced,
/// that what was delivered survives another crash, and that the log goes on.
fn check(image: MemStorage, synced: u64, appended: u64) {
    let image = Arc::new(image);
    let (mut log, recovery, delivered) = open(&image);
    let count = delivered.len() as u64;
    assert!((synced..=appended).contains(&count), "{count} of {synced} to {appended}");
    assert_eq!(delivered, prefix(count));
    assert!(recovery.report.damage.is_empty(), "{:?}", recovery.report);

    let lost = Arc::new(image.crash(|_| Fate::Lost));
    assert_eq!(open(&lost).2, prefix(count), "what was delivered was not durable");

    append(&mut log, count + 1..=count + 2);
    log.sync().unwrap();
    drop(log);
    assert_eq!(open(&image).2, prefix(count + 2));
}

#[test]
fn any_subset_and_any_tear_of_the_last_writes_leaves_a_prefix() {
    let storage = Arc::new(MemStorage::new());
    let (mut log, ..) = open(&storage);
    append(&mut log, 1..=2);
    log.sync().unwrap();
    append(&mut log, 3..=5);
    let pending = storage.pending();
    let writes = pending.iter().filter(|change| change.len > 0).count();
    assert_eq!(writes, 4, "three records and the mark: {pending:?}");
    for subset in 0..1u32 << pending.len() {
        for (torn, Pending { len, .. }) in pending.iter().enumerate() {
            for kept in [0, 1, 63, 64, 65, len.saturating_sub(1)] {
                let mut index = 0;
                let image = storage.crash(|_| {
                    index += 1;
                    match (index - 1 == torn, subset >> (index - 1) & 1) {
                        (true, _) => Fate::Torn(kept),
                        (false, 1) => Fate::Kept,
                        (false, _) => Fate::Lost,
                    }
                });
                check(image, 2, 5);
            }
        }
    }
}

#[test]
fn every_prefix_of_the_bytes_of_one_record_is_cut() {
    let storage = Arc::new(MemStorage::new());
    let (mut log, ..) = open(&storage);
    append(&mut log, 1..=2);
    log.sync().unwrap();
    append(&mut log, [3]);
    let len = storage.pending().iter().map(|change| change.len).max().unwrap();
    for kept in 0..=len {
        check(storage.crash(|_| Fate::Torn(kept)), 2, if kept == len { 3 } else { 2 });
    }
}

#[test]
fn a_crash_at_any_step_of_a_start_or_rotation_loses_nothing_synced() {
    // The storage is crashed after each append and sync; small segments make most of them rotate.
    let storage = Arc::new(MemStorage::new());
    let (mut log, ..) = open(&storage);
    for number in 1..=40 {
        append(&mut log, [number]);
        let synced = log.synced_sequence();
        check(storage.crash(|_| Fate::Lost), synced, number);
        check(storage.crash(|_| Fate::Kept), number, number);
        if number % 3 == 0 {
            log.sync().unwrap();
            check(storage.crash(|_| Fate::Lost), number, number);
        }
    }
    assert!(log.segments().count() > 3);
}

#[test]
fn after_a_failed_sync_nothing_more_is_promised_and_a_restart_makes_its_reads_durable() {
    let storage = Arc::new(MemStorage::new());
    let (mut log, ..) = open(&storage);
    append(&mut log, 1..=2);
    log.sync().unwrap();
    append(&mut log, 3..=4);
    storage.fail_syncs(1);
    assert!(matches!(log.sync(), Err(SyncError::Io(_))));
    assert!(matches!(log.sync(), Err(SyncError::Poisoned)));
    assert!(log.append(1, 1, 0, &[b"x"]).is_err());
    assert!(log.forget(1).is_err());
    assert_eq!(log.synced_sequence(), 2);
    drop(log);
    // The page cache still shows records 3 and 4, which no sync would write by itself.
    check(storage.crash(|_| Fate::Lost), 2, 2);
    let (_log, _, delivered) = open(&storage);
    assert_eq!(delivered, prefix(4));
    assert_eq!(open(&Arc::new(storage.crash(|_| Fate::Lost))).2, prefix(4));
}

#[test]
fn a_crash_in_the_middle_of_a_recovery_is_recovered() {
    let storage = Arc::new(MemStorage::new());
    let (mut log, ..) = open(&storage);
    append(&mut log, 1..=2);
    log.sync().unwrap();
    append(&mut log, 3..=4);
    drop(log);
    let torn = storage.crash(|change| Fate::Torn(change.len / 2));
    for failing in 1..4 {
        let torn = copy(&torn);
        torn.fail_syncs(failing);
        let storage: Arc<dyn crate::Storage> = torn.clone();
        assert!(crate::Log::open(storage, super::SMALL, 1, &mut |_, _, _| ()).is_err());
        torn.fail_syncs(0);
        check(torn.crash(|_| Fate::Lost), 2, 4);
        check(torn.crash(|_| Fate::Kept), 2, 4);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn random_crashes_one_after_the_other_leave_prefixes(
        rounds in prop::collection::vec((0u64..12, 0u64..12, prop::collection::vec(0usize..200, 40)), 1..5),
    ) {
        let mut storage = Arc::new(MemStorage::new());
        let mut count = 0;
        for (synced, more, fates) in rounds {
            let (mut log, recovery, delivered) = open(&storage);
            prop_assert!(recovery.report.damage.is_empty(), "{:?}", recovery.report);
            prop_assert_eq!(&delivered, &prefix(delivered.len() as u64));
            prop_assert!(delivered.len() as u64 >= count);
            let start = delivered.len() as u64;
            append(&mut log, start + 1..=start + synced);
            log.sync().unwrap();
            append(&mut log, start + synced + 1..=start + synced + more);
            count = log.synced_sequence();
            let mut fates = fates.into_iter().cycle();
            storage = Arc::new(storage.crash(|_| match fates.next() {
                Some(0..40) | None => Fate::Lost,
                Some(fate @ 40..120) => Fate::Torn(fate - 40),
                Some(_) => Fate::Kept,
            }));
        }
        let (_, recovery, delivered) = open(&storage);
        prop_assert!(recovery.report.damage.is_empty(), "{:?}", recovery.report);
        prop_assert!(delivered.len() as u64 >= count);
        prop_assert_eq!(&delivered, &prefix(delivered.len() as u64));
    }
}
