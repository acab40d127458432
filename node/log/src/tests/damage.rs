//! Bits that flip, bytes that go astray, files that vanish.

use std::sync::Arc;

use super::{ID, append, copy, open, payload, prefix};
use crate::format::{DATA_START, SEGMENT_HEADER_BYTES, SegmentHeader, segment_name};
use crate::{MemStorage, OpenError, RecordRef, Storage};

/// Twelve synced records in several segments.
fn storage() -> (Arc<MemStorage>, Vec<RecordRef>) {
    let storage = Arc::new(MemStorage::new());
    let (mut log, ..) = open(&storage);
    let refs = append(&mut log, 1..=12);
    log.sync().unwrap();
    assert!(log.segments().count() >= 2);
    (storage, refs)
}

fn holds(record: &RecordRef, segment: u32, offset: usize) -> bool {
    let start = record.offset as usize;
    record.segment == segment && (start..start + 64 + record.len as usize).contains(&offset)
}

#[test]
fn a_flipped_bit_anywhere_costs_at_most_the_record_it_is_in() {
    let (storage, refs) = storage();
    for (name, len) in storage.list().unwrap() {
        let segment = crate::format::segment_number(&name);
        for offset in 0..len as usize {
            let padding = SEGMENT_HEADER_BYTES..DATA_START as usize;
            if segment.is_some() && padding.contains(&offset) {
                continue;
            }
            let flipped = copy(&storage);
            assert!(flipped.flip_bit(&name, offset, offset as u8));
            let (mut log, recovery, delivered) = open(&flipped);
            let hit = refs.iter().position(|r| segment.is_some_and(|s| holds(r, s, offset)));
            let mut expected = prefix(12);
            // By its footer a sealed segment is delivered unread.
            let sealed = segment.is_some_and(|segment| segment < refs[11].segment);
            if let Some(hit) = hit.filter(|_| sealed) {
                assert!(recovery.report.damage.is_empty(), "{name} {offset}");
                assert!(log.reader().read(refs[hit]).is_err());
            } else if let Some(hit) = hit {
                expected.remove(hit);
                let damage = &recovery.report.damage;
                assert_eq!(damage.len(), 1, "{name} {offset}: {damage:?}");
                let lost = (damage[0].first_lost, damage[0].end_lost);
                assert_eq!(lost, (hit as u64 + 1, Some(hit as u64 + 2)), "{name} {offset}");
                assert!((damage[0].from..damage[0].to).contains(&(offset as u32)));
                assert!(log.reader().read(refs[hit]).is_err());
            }
            assert_eq!(delivered, expected, "{name} {offset}");
            assert_eq!(recovery.log_id, ID);
            // The log goes on with a number that was never used, and says the same the next time.
            append(&mut log, [13]);
            log.sync().unwrap();
            expected.push((13, payload(13)));
            let (_, again, delivered) = open(&flipped);
            assert_eq!(delivered, expected, "{name} {offset}");
            assert_eq!(again.report.damage, recovery.report.damage, "{name} {offset}");
        }
    }
}

#[test]
fn a_record_at_another_place_is_not_valid() {
    let (storage, refs) = storage();
    let mut bytes = vec![0; 64 + refs[1].len as usize];
    storage.read_at(&segment_name(refs[1].segment), refs[1].offset.into(), &mut bytes).unwrap();
    // Misdirected: the second record is written over the first one.
    storage.write_at(&segment_name(refs[0].segment), refs[0].offset.into(), &bytes).unwrap();
    let (log, _, delivered) = open(&storage);
    assert_eq!(delivered, prefix(12));
    assert!(log.reader().read(refs[0]).is_err());
    drop(log);
    // Nor is it where the records are read because the footer is damaged.
    let name = segment_name(refs[0].segment);
    let len = storage.list().unwrap().iter().find(|(file, _)| *file == name).unwrap().1;
    assert!(storage.flip_bit(&name, len as usize - 1, 0));
    let (_, recovery, delivered) = open(&storage);
    assert!(delivered.iter().all(|(sequence, bytes)| *bytes == payload(*sequence)));
    assert!(!delivered.iter().any(|(sequence, _)| *sequence == 1));
    assert!(!recovery.report.damage.is_empty());
}

#[test]
fn a_zeroed_or_truncated_tail_is_damage_if_it_was_synced() {
    let (storage, refs) = storage();
    let last = refs[11];
    let name = segment_name(last.segment);
    let zeroed = copy(&storage);
    zeroed.write_at(&name, last.offset.into(), &vec![0; 64 + last.len as usize]).unwrap();
    let cut = copy(&storage);
    cut.resize(&name, u64::from(last.offset) + 10).unwrap();
    let gone = copy(&storage);
    gone.delete(&name).unwrap();
    for (storage, left) in [
        (zeroed, 11),
        (cut, 11),
        (gone, refs.iter().filter(|r| r.segment < last.segment).count() as u64),
    ] {
        let (mut log, recovery, delivered) = open(&storage);
        assert_eq!(delivered, prefix(left));
        let damage = &recovery.report.damage;
        assert_eq!((damage[0].first_lost, damage[0].end_lost), (left + 1, Some(13)));
        append(&mut log, [13]);
        assert_eq!(log.synced_sequence(), 12);
    }
}

#[test]
fn a_file_that_is_no_segment_is_set_aside_and_its_number_is_not_used_again() {
    let (storage, _) = storage();
    let name = segment_name(7000);
    storage.create(&name).unwrap();
    storage.write_at(&name, 0, &[0xAB; 9000]).unwrap();
    let (log, recovery, delivered) = open(&storage);
    assert_eq!(delivered, prefix(12));
    assert_eq!(recovery.report.quarantined, vec![format!("quarantine-{name}")]);
    assert_eq!(log.segments().last(), Some(7001));
    drop(log);
    let (log, recovery, _) = open(&storage);
    assert!(recovery.report.quarantined.is_empty());
    assert_eq!(log.segments().last(), Some(7002));
    assert!(storage.list().unwrap().iter().any(|(file, _)| *file == format!("quarantine-{name}")));
}

#[test]
fn a_segment_of_another_log_is_set_aside() {
    let (mine, _) = storage();
    let other = Arc::new(MemStorage::new());
    let other_dyn: Arc<dyn Storage> = other.clone();
    let (mut log, _) = crate::Log::open(other_dyn, super::SMALL, 5, &mut |_, _, _| ()).unwrap();
    append(&mut log, [1]);
    log.sync().unwrap();
    let mut bytes = vec![0; 4096 + 600];
    other.read_at(&segment_name(1), 0, &mut bytes).unwrap();
    mine.create(&segment_name(900)).unwrap();
    mine.write_at(&segment_name(900), 0, &bytes).unwrap();
    let (_, recovery, delivered) = open(&mine);
    assert_eq!(delivered, prefix(12));
    assert_eq!(recovery.report.quarantined.len(), 1);
}

#[test]
fn another_version_is_refused_and_nothing_is_touched() {
    let (storage, _) = storage();
    let mut header = [0; 48];
    storage.read_at(&segment_name(1), 0, &mut header).unwrap();
    header[8] += 1;
    let other = u32::from(header[8]);
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[..12]);
    hasher.update(&header[16..]);
    header[12..16].copy_from_slice(&hasher.finalize().to_le_bytes());
    storage.write_at(&segment_name(1), 0, &header).unwrap();
    let before = storage.list().unwrap();
    let shared: Arc<dyn Storage> = storage.clone();
    let result = crate::Log::open(shared, super::SMALL, 1, &mut |_, _, _| panic!("delivered"));
    assert!(matches!(result, Err(OpenError::Version { found, .. }) if found == other));
    assert_eq!(storage.list().unwrap(), before);
}

#[test]
fn a_payload_full_of_records_is_not_mistaken_for_records() {
    let (storage, refs) = storage();
    let mut forged = Vec::new();
    for record in &refs[..2] {
        let mut bytes = vec![0; 64 + record.len as usize];
        storage.read_at(&segment_name(record.segment), record.offset.into(), &mut bytes).unwrap();
        forged.extend(bytes);
    }
    let (mut log, ..) = open(&storage);
    let record = log.append(1, 1, 0, &[&forged]).unwrap();
    append(&mut log, [14]);
    log.sync().unwrap();
    drop(log);
    assert!(storage.flip_bit(&segment_name(record.segment), record.offset as usize + 5, 0));
    let mut expected = prefix(12);
    expected.push((14, payload(14)));
    assert_eq!(open(&storage).2, expected);
}

#[test]
fn short_reads_change_nothing() {
    let (storage, _) = storage();
    storage.set_short_reads(Some(7));
    let (_, recovery, delivered) = open(&storage);
    assert_eq!((delivered, recovery.report.damage.len()), (prefix(12), 0));
}

#[test]
fn a_blank_directory_gets_the_new_id_and_an_old_one_keeps_its_own() {
    let (storage, _) = storage();
    let new = |storage: &Arc<MemStorage>| {
        let storage: Arc<dyn Storage> = storage.clone();
        crate::Log::open(storage, super::SMALL, 99, &mut |_, _, _| ()).unwrap().1
    };
    assert_eq!(new(&storage).log_id, ID);
    let blank = Arc::new(MemStorage::new());
    let recovery = new(&blank);
    assert_eq!((recovery.log_id, recovery.report.fresh), (99, true));
    // Without its own file the id is known from the segments.
    storage.delete("state-log-id").unwrap();
    assert_eq!(new(&storage).log_id, ID);
}

#[test]
fn later_records_prove_what_was_synced_when_the_mark_is_old() {
    let storage = Arc::new(MemStorage::new());
    let (mut log, ..) = open(&storage);
    let mut refs = Vec::new();
    for number in 1..=3 {
        refs.extend(append(&mut log, [number]));
        log.sync().unwrap();
    }
    assert_eq!(log.segments().count(), 1);
    drop(log);
    storage.delete("synced").unwrap();
    let flip = |storage: &MemStorage, record: &RecordRef| {
        assert!(storage.flip_bit(&segment_name(record.segment), record.offset as usize + 70, 3));
    };
    // The third record says that the second one was synced.
    let proven = copy(&storage);
    flip(&proven, &refs[1]);
    let (_, recovery, delivered) = open(&proven);
    assert_eq!(delivered, vec![(1, payload(1)), (3, payload(3))]);
    assert_eq!((recovery.report.damage.len(), recovery.report.torn_bytes), (1, 0));
    // Nothing says so of the third: it can't be told from a torn tail.
    let torn = copy(&storage);
    flip(&torn, &refs[2]);
    let (_, recovery, delivered) = open(&torn);
    assert_eq!(delivered, prefix(2));
    assert!(recovery.report.damage.is_empty());
    assert_eq!(recovery.report.torn_bytes, 64 + u64::from(refs[2].len));
}

#[test]
fn numbers_near_overflow_are_not_believed() {
    let (storage, _) = storage();
    crate::mark::write(&*storage, ID, u64::MAX).unwrap();
    let (mut log, recovery, delivered) = open(&storage);
    assert_eq!((delivered, recovery.report.damage), (prefix(12), Vec::new()));
    append(&mut log, [13]);
    log.sync().unwrap();
    drop(log);
    // A segment of the far future, with a right checksum.
    let header = SegmentHeader { log_id: ID, segment: 99, first_sequence: u64::MAX };
    storage.create(&segment_name(99)).unwrap();
    storage.write_at(&segment_name(99), 0, &header.encode()).unwrap();
    let (_, recovery, delivered) = open(&storage);
    assert_eq!(delivered, prefix(13));
    assert_eq!(recovery.report.quarantined.len(), 1);
}
