//! Footers: the list of a sealed segment's records, which a start reads instead of the records.
//!
//! ```text
//! entries, one for each record                 trailer, the segment's last 32 bytes
//!  0  offset         u32                        0  magic            8 bytes
//!  4  payload length u32                        8  footer's start   u32
//!  8  head length    u32                       12  entries          u32
//! 12  kind           u8, then three zeros      16  first sequence   u64
//! 16  wall_ms        u64                       24  zero             u32
//! 24  group          u128                      28  crc              u32
//! 40  head
//! ```
//! The checksum covers the log id, the segment's number, the entries and the trailer before it. A
//! footer is written and synced before the next segment gets its name. So a footer counts only if there
//! is a later segment: then the records before the footer are synced, too.

use std::io;
use std::ops::Range;

use crc32fast::Hasher;

use crate::format::{
    DATA_START, HIGHEST_SEQUENCE, PAYLOAD_BYTES, RECORD_HEADER_BYTES, RecordMeta, RecordRef,
    segment_name, u32_at, u64_at, u128_at,
};
use crate::storage::{Storage, read_full};

const MAGIC: [u8; 8] = *b"CRTDFOOT";
const ENTRY_BYTES: usize = 40;
const TRAILER_BYTES: usize = 32;
/// A segment ends when its footer would be larger than this, and at a start no larger one counts.
const FOOTER_BYTES: usize = 8 << 20;

/// The footer of a segment that is being written.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    bytes: Vec<u8>,
    entries: u32,
}

impl Builder {
    /// Adds a record. `head` is the part of its payload that a start delivers.
    pub(crate) fn add(&mut self, record: RecordRef, meta: &RecordMeta, head: &[u8]) {
        self.bytes.extend_from_slice(&record.offset.to_le_bytes());
        self.bytes.extend_from_slice(&record.len.to_le_bytes());
        self.bytes.extend_from_slice(&(head.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(&[meta.kind, 0, 0, 0]);
        self.bytes.extend_from_slice(&meta.wall_ms.to_le_bytes());
        self.bytes.extend_from_slice(&meta.group.to_le_bytes());
        self.bytes.extend_from_slice(head);
        self.entries += 1;
    }

    /// Length of the footer if a record with so long a head is added.
    pub(crate) fn len_with(&self, head: usize) -> usize {
        self.bytes.len() + ENTRY_BYTES + head + TRAILER_BYTES
    }

    /// Whether a record with so long a head belongs into the next segment.
    pub(crate) fn is_full(&self, head: usize) -> bool {
        self.entries > 0 && self.len_with(head) > FOOTER_BYTES
    }

    /// The footer, to be written at `start`.
    pub(crate) fn finish(mut self, of: Of, start: u32) -> Vec<u8> {
        let mut trailer = [0; TRAILER_BYTES];
        trailer[..8].copy_from_slice(&MAGIC);
        trailer[8..12].copy_from_slice(&start.to_le_bytes());
        trailer[12..16].copy_from_slice(&self.entries.to_le_bytes());
        trailer[16..24].copy_from_slice(&of.first_sequence.to_le_bytes());
        let crc = of.crc(&self.bytes, &trailer);
        trailer[28..].copy_from_slice(&crc.to_le_bytes());
        self.bytes.extend_from_slice(&trailer);
        self.bytes
    }
}

/// Whose footer it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Of {
    pub(crate) log_id: u128,
    pub(crate) segment: u32,
    /// Sequence number of the segment's first record.
    pub(crate) first_sequence: u64,
}

impl Of {
    fn crc(self, entries: &[u8], trailer: &[u8; TRAILER_BYTES]) -> u32 {
        let mut hasher = Hasher::new();
        hasher.update(&self.log_id.to_le_bytes());
        hasher.update(&self.segment.to_le_bytes());
        hasher.update(entries);
        hasher.update(&trailer[..28]);
        hasher.finalize()
    }
}

/// A footer that was read and is valid.
#[derive(Debug)]
pub(crate) struct Footer {
    of: Of,
    bytes: Vec<u8>,
    entries: u32,
    /// Where it begins, and the segment's records end.
    pub(crate) start: u32,
}

/// One record, by its footer.
pub(crate) struct Listed<'f> {
    pub(crate) record: RecordRef,
    pub(crate) meta: RecordMeta,
    pub(crate) head: &'f [u8],
}

impl Footer {
    /// The footer of a segment whose file has this length, if there is a valid one.
    pub(crate) fn read(storage: &dyn Storage, of: Of, len: u64) -> io::Result<Option<Self>> {
        let name = segment_name(of.segment);
        let mut trailer = [0; TRAILER_BYTES];
        let Some(at) = len.checked_sub(TRAILER_BYTES as u64) else { return Ok(None) };
        if read_full(storage, &name, at, &mut trailer)? < TRAILER_BYTES || trailer[..8] != MAGIC {
            return Ok(None);
        }
        let (start, entries) = (u32_at(&trailer, 8), u32_at(&trailer, 12));
        let possible = u64_at(&trailer, 16) == of.first_sequence && start >= DATA_START;
        // One record alone may have a longer head.
        let most = (FOOTER_BYTES + PAYLOAD_BYTES) as u64;
        let bytes = at.checked_sub(start.into()).filter(|bytes| possible && *bytes <= most);
        let Some(bytes) = bytes else { return Ok(None) };
        let mut all = vec![0; bytes as usize];
        let read = read_full(storage, &name, start.into(), &mut all)?;
        if read < all.len() || u32_at(&trailer, 28) != of.crc(&all, &trailer) {
            return Ok(None);
        }
        let footer = Self { of, bytes: all, entries, start };
        Ok(footer.is_sound().then_some(footer))
    }

    /// Whether the entries are what a writer writes: records one behind the other, up to the footer.
    fn is_sound(&self) -> bool {
        let (mut at, mut offset, mut entries) = (0, u64::from(DATA_START), 0);
        while let Some((entry, next)) = self.entry(at) {
            let record = entry.record;
            if u64::from(record.offset) != offset || record.len as usize > PAYLOAD_BYTES {
                return false;
            }
            offset += RECORD_HEADER_BYTES as u64 + u64::from(record.len);
            (at, entries) = (next, entries + 1);
        }
        let last = self.of.first_sequence.saturating_add(self.entries.into());
        let whole = at == self.bytes.len() && entries == self.entries;
        whole && offset == self.start.into() && last <= HIGHEST_SEQUENCE
    }

    fn entry(&self, at: usize) -> Option<(RawEntry, usize)> {
        let bytes = self.bytes.get(at..at + ENTRY_BYTES)?;
        let (segment, head) = (self.of.segment, u32_at(bytes, 8));
        let record = RecordRef { segment, offset: u32_at(bytes, 0), len: u32_at(bytes, 4) };
        let end = (at + ENTRY_BYTES).checked_add(head as usize)?;
        if end > self.bytes.len() || head > record.len {
            return None;
        }
        let (kind, wall_ms, group) = (bytes[12], u64_at(bytes, 16), u128_at(bytes, 24));
        Some((RawEntry { record, kind, wall_ms, group, head: at + ENTRY_BYTES..end }, end))
    }

    /// All records, in order.
    pub(crate) fn records(&self) -> impl Iterator<Item = Listed<'_>> {
        let (mut at, mut sequence) = (0, self.of.first_sequence);
        std::iter::from_fn(move || {
            let (entry, next) = self.entry(at)?;
            let RawEntry { record, kind, wall_ms, group, head } = entry;
            let meta = RecordMeta { kind, group, wall_ms, sequence };
            (at, sequence) = (next, sequence + 1);
            Some(Listed { record, meta, head: &self.bytes[head] })
        })
    }

    /// The segment it is of.
    pub(crate) fn segment(&self) -> u32 {
        self.of.segment
    }

    /// How many records there are.
    pub(crate) fn count(&self) -> u64 {
        self.entries.into()
    }
}

struct RawEntry {
    record: RecordRef,
    kind: u8,
    wall_ms: u64,
    group: u128,
    head: Range<usize>,
}
