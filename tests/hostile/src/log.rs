//! The log: with any content of the disk, opening the log reports what is there and what is lost,
//! and the log can be used afterwards.

use std::sync::Arc;

use cortado_log::{Log, LogConfig, MemStorage, OpenError, RecordRef, Storage};

use crate::Pieces;

/// Segments so small that a few records need several.
const SMALL: LogConfig =
    LogConfig { first_segment_bytes: 4096 + 1400, segment_bytes: 4096 + 2400, reserve_bytes: 0 };
const ID: u128 = 0xC0FFEE;
/// Offset of the records in a segment, and length of a record's header; see
/// `node/log/src/format.rs`.
const DATA_START: usize = 4096;
const RECORD_HEADER_BYTES: usize = 64;
/// The place that stands for a segment's footer.
const FOOTER: u8 = 255;

/// The delivered records: place, sequence and payload.
type Delivered = Vec<(RecordRef, u64, Vec<u8>)>;

/// Input: events of a disk, in order. Afterwards the log is opened twice.
pub fn check(bytes: &[u8]) {
    let mut pieces = Pieces::new(bytes);
    let storage = Arc::new(MemStorage::new());
    let Some((log, ..)) = open(&storage) else { unreachable!("an empty disk opens") };
    let mut log = Some(log);
    let mut forged = false;
    for _ in 0..64 {
        if pieces.is_empty() {
            break;
        }
        match pieces.byte() % 8 {
            0 | 1 => {
                let (group, payload) = (pieces.byte(), pieces.piece());
                if let Some(log) = &mut log {
                    log.append(1, u128::from(group), 5, &[payload]).expect("the disk is endless");
                }
            }
            2 => drop(log.as_mut().map(|log| log.sync().expect("the disk is sound"))),
            3 => overwrite(&storage, &mut pieces),
            4 => forged |= forge(&storage, &mut pieces),
            5 => {
                if let Some((name, len)) = file(&storage, pieces.byte()) {
                    log = None;
                    let len = u64::from(pieces.short()) % (2 * len + 1);
                    storage.resize(&name, len).expect("the file is there");
                }
            }
            6 => {
                if let Some((name, _)) = file(&storage, pieces.byte()) {
                    log = None;
                    storage.delete(&name).expect("the file is there");
                }
            }
            _ => {
                drop(log.take());
                log = open(&storage).map(|(log, ..)| log);
            }
        }
    }
    drop(log);
    reopen(&storage, forged);
}

/// The records that were delivered once are delivered again, and new records after them.
fn reopen(storage: &Arc<MemStorage>, forged: bool) {
    let Some((mut log, delivered)) = open(storage) else { return };
    let sequences = delivered.iter().map(|(_, sequence, _)| *sequence);
    assert!(sequences.clone().zip(sequences.skip(1)).all(|(a, b)| a < b), "numbers ascend");
    for (record, _, payload) in &delivered {
        // By a footer a record is delivered unread. If it can be read, it is that one.
        if let (Ok((_, read)), false) = (log.reader().read(*record), forged) {
            assert_eq!(read[..], payload[..]);
        }
    }
    let new = log.append(1, 0, 5, &[b"new"]).expect("the disk is endless");
    log.sync().expect("the disk is sound");
    if log.synced_sequence() > 1 << 62 {
        // The sequence was forged: no log has so many records, and the numbers would soon end.
        return;
    }
    drop(log);
    let (_, mut again) = open(storage).expect("it opened before");
    let last = again.pop().expect("the new record is there");
    assert_eq!((last.0, &last.2[..]), (new, &b"new"[..]));
    assert_eq!(again, delivered);
}

/// Opens the log; `None` if the log is of another version.
fn open(storage: &Arc<MemStorage>) -> Option<(Log, Delivered)> {
    let mut delivered = Vec::new();
    let mut deliver = |record, meta: &cortado_log::RecordMeta, payload: &[u8]| {
        delivered.push((record, meta.sequence, payload.to_vec()));
    };
    let storage: Arc<dyn Storage> = storage.clone();
    match Log::open(storage, SMALL, ID, &mut deliver) {
        Ok((log, recovery)) => {
            assert_eq!(recovery.report.records as usize, delivered.len());
            Some((log, delivered))
        }
        Err(OpenError::Version { .. }) => None,
        Err(error) => panic!("a sound disk fails: {error}"),
    }
}

fn file(storage: &MemStorage, choice: u8) -> Option<(String, u64)> {
    let files = storage.list().expect("the disk is sound");
    (!files.is_empty()).then(|| files[usize::from(choice) % files.len()].clone())
}

fn overwrite(storage: &MemStorage, pieces: &mut Pieces<'_>) {
    let Some((name, _)) = file(storage, pieces.byte()) else { return };
    let (at, bytes) = (pieces.short(), pieces.piece());
    storage.write_at(&name, at.into(), bytes).expect("the disk is endless");
}

/// Overwrites a part of a header and corrects its checksum: of a segment, of a record, of a footer,
/// or of the synced mark. Returns whether it was a footer.
fn forge(storage: &MemStorage, pieces: &mut Pieces<'_>) -> bool {
    let Some((name, _)) = file(storage, pieces.byte()) else { return false };
    let (place, at, bytes) = (pieces.byte(), usize::from(pieces.byte()), pieces.piece());
    let mut content = vec![0; 3 * DATA_START];
    let len = storage.read_at(&name, 0, &mut content).expect("the file is there");
    content.truncate(len);
    let mut put = |from: usize, to: usize, crc_at: usize, crc: &dyn Fn(&[u8]) -> u32| {
        let Some(header) = content.get_mut(from..to) else { return };
        let start = (crc_at + 4 + at).min(header.len());
        for (byte, new) in header[start..].iter_mut().zip(bytes) {
            *byte = *new;
        }
        let crc = crc(header).to_le_bytes();
        header[crc_at..crc_at + 4].copy_from_slice(&crc);
        storage.write_at(&name, from as u64, header).expect("the disk is endless");
    };
    if name == "synced" {
        let sequence = u64::from_le_bytes([(); 8].map(|()| bytes.first().copied().unwrap_or(9)));
        let number = &sequence.to_le_bytes();
        let mark = [&number[..], &crc32(&[b"synced", &ID.to_le_bytes(), number]).to_le_bytes()];
        storage.write_at(&name, 0, &mark.concat()).expect("the disk is endless");
    } else if let Some(segment) = name.strip_prefix("segment-").and_then(|n| n.parse::<u32>().ok())
    {
        if place == FOOTER {
            let len = content.len();
            let trailer = len.saturating_sub(32);
            let start = content.get(trailer + 8..trailer + 12);
            let start =
                start.map_or(trailer, |s| u32::from_le_bytes([s[0], s[1], s[2], s[3]]) as usize);
            let Some(footer) = content.get_mut(start.min(trailer)..).filter(|f| f.len() >= 32)
            else {
                return false;
            };
            for (byte, new) in footer.iter_mut().skip(at).zip(bytes) {
                *byte = *new;
            }
            let end = footer.len() - 4;
            let crc = crc32(&[&ID.to_le_bytes(), &segment.to_le_bytes(), &footer[..end]]);
            footer[end..].copy_from_slice(&crc.to_le_bytes());
            let from = (len - end - 4) as u64;
            storage.write_at(&name, from, footer).expect("the disk is endless");
            return true;
        }
        if place == 0 {
            put(0, 48, 12, &|header| crc32(&[&header[..12], &header[16..]]));
        } else {
            let from = DATA_START + usize::from(place - 1) * 8;
            let prefix =
                [&ID.to_le_bytes()[..], &segment.to_le_bytes(), &(from as u32).to_le_bytes()];
            put(from, from + RECORD_HEADER_BYTES, 4, &|h| crc32(&[&prefix.concat(), &h[8..]]));
        }
    }
    false
}

fn crc32(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}

/// Records, followed by events of a disk.
#[must_use]
pub fn samples() -> Vec<Vec<u8>> {
    let append = |len: u8| [&[0, 1, len, 0][..], &vec![len; len.into()]].concat();
    let (sync, restart) = (vec![2], vec![7]);
    let overwrite = vec![3, 0, 0x10, 0x10, 1, 0, 9];
    let (resize, delete) = (vec![5, 0, 0x00, 0x10], vec![6, 1]);
    let forge_record = vec![4, 0, 1, 8, 8, 0, 5, 0, 0, 0, 0, 0, 0, 0];
    let forge_segment = vec![4, 0, 0, 24, 8, 0, 5, 0, 0, 0, 0, 0, 0, 0];
    let forge_mark = vec![4, 2, 0, 0, 1, 0, 1];
    let some: Vec<_> = [20, 70, 120, 200, 33, 90].iter().flat_map(|len| append(*len)).collect();
    // In the first record of the first segment: its offset, its head's length, the group.
    let footer = |at: u8| vec![4, 0, FOOTER, at, 4, 0, 0xF0, 0xFF, 0, 0];
    let footers = [0, 4, 8, 24, 60].map(footer);
    let after = [overwrite, resize, delete, forge_record, forge_segment, forge_mark, restart];
    let after = after.into_iter().chain(footers);
    let one = |fault: &Vec<u8>| [&some[..], &sync, &append(50), fault, &append(9)].concat();
    after.map(|fault| one(&fault)).collect()
}
