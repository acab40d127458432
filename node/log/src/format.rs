//! How segments and records lie on disk. All numbers are little-endian.
//!
//! ```text
//! segment header, at 0             record, from DATA_START on
//!  0  magic            8 bytes      0  magic          u32
//!  8  format version   u32          4  header crc     u32   over identity of place, then 8..64
//! 12  header crc       u32          8  payload crc    u32
//! 16  log id           u128        12  previous       u32   header crc of the record before
//! 32  segment number   u32         16  sequence       u64
//! 36  zero             u32         24  synced         u64   highest sequence known durable
//! 40  first sequence   u64         32  wall_ms        u64
//!                                  40  group          u128
//!                                  56  payload length u32
//!                                  60  kind           u8
//!                                  61  head length    u24, or 0xFFFFFF: all of the payload
//! ```
//! Checksums are CRC-32 as in IEEE 802.3 (reflected polynomial 0xEDB88320). A record's header
//! checksum starts with the log id, the segment number and the offset: a valid record at another
//! place (a misdirected write, a file of another log, a record inside a payload) is not valid here.
//! The header has its own checksum, so a damaged length is never followed.

use std::ops::Range;

use crc32fast::Hasher;

/// Version of this format and of what records hold; stands in every segment. 2: a specification
/// writes each header once; 4: records have a head, sealed segments a footer, manifests totals; 5: output
/// batches of streams have checkpoints; 6: they say what their coordinator had read, and what was delivered.
pub(crate) const FORMAT_VERSION: u32 = 6;
/// Largest payload of one record in bytes: a peer frame (16 MiB) and some slack.
pub const PAYLOAD_BYTES: usize = (16 << 20) + (64 << 10);
/// Head length that stands for the whole payload.
const WHOLE: u32 = 0xFF_FFFF;
/// Longest head that is not the whole payload, in bytes.
pub(crate) const HEAD_BYTES: usize = WHOLE as usize - 1;
/// Length of a record's header.
pub(crate) const RECORD_HEADER_BYTES: usize = 64;
/// Length of a segment's header.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 48;
/// Where a segment's records begin: the header has a block of its own, never rewritten.
pub(crate) const DATA_START: u32 = 4096;
/// Highest sequence number that is believed: no log gets there, and what follows can be counted on.
pub(crate) const HIGHEST_SEQUENCE: u64 = u64::MAX / 2;
/// First bytes of a record.
pub(crate) const RECORD_MAGIC: [u8; 4] = [0xC0, 0x27, 0xAD, 0x0E];
const SEGMENT_MAGIC: [u8; 8] = *b"CRTDLOG\0";

/// Where a record stands. Small and cheap to keep; valid until its segment is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordRef {
    /// Number of the segment.
    pub segment: u32,
    /// Offset of the record's header in the segment, in bytes.
    pub offset: u32,
    /// Length of the payload in bytes.
    pub len: u32,
}

impl RecordRef {
    /// Where the record's bytes are, header included: the file's name and the range in it. For
    /// tests that damage them.
    #[must_use]
    pub fn file_range(self) -> (String, Range<u64>) {
        let (start, header) = (u64::from(self.offset), RECORD_HEADER_BYTES as u64);
        (segment_name(self.segment), start..start + header + u64::from(self.len))
    }
}

/// What is recorded with a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordMeta {
    /// The caller's kind of record.
    pub kind: u8,
    /// The caller's garbage-collection group; 0 belongs to none and holds no segment back.
    pub group: u128,
    /// Milliseconds since the Unix epoch, as the caller handed them in.
    pub wall_ms: u64,
    /// Grows by one with each record of the log, from 1.
    pub sequence: u64,
}

/// A record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub(crate) meta: RecordMeta,
    pub(crate) len: u32,
    /// How much of the payload a start delivers.
    pub(crate) head: u32,
    pub(crate) payload_crc: u32,
    pub(crate) previous: u32,
    pub(crate) synced: u64,
}

/// Which bytes these are: what a record's header checksum starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) log_id: u128,
    pub(crate) segment: u32,
    pub(crate) offset: u32,
}

impl Place {
    fn hasher(self) -> Hasher {
        let mut hasher = Hasher::new();
        hasher.update(&self.log_id.to_le_bytes());
        hasher.update(&self.segment.to_le_bytes());
        hasher.update(&self.offset.to_le_bytes());
        hasher
    }
}

impl RecordHeader {
    /// The header's bytes and its checksum, to which the next record is chained.
    pub(crate) fn encode(&self, place: Place) -> ([u8; RECORD_HEADER_BYTES], u32) {
        let mut bytes = [0; RECORD_HEADER_BYTES];
        bytes[..4].copy_from_slice(&RECORD_MAGIC);
        bytes[8..12].copy_from_slice(&self.payload_crc.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.previous.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.meta.sequence.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.synced.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.meta.wall_ms.to_le_bytes());
        bytes[40..56].copy_from_slice(&self.meta.group.to_le_bytes());
        bytes[56..60].copy_from_slice(&self.len.to_le_bytes());
        let head = if self.head == self.len { WHOLE } else { self.head };
        bytes[60..].copy_from_slice(&(head << 8 | u32::from(self.meta.kind)).to_le_bytes());
        let crc = header_crc(place, &bytes);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        (bytes, crc)
    }

    /// The header and its checksum, if the bytes are a record's header at this very place.
    pub(crate) fn decode(bytes: &[u8], place: Place) -> Option<(Self, u32)> {
        let bytes = bytes.get(..RECORD_HEADER_BYTES)?;
        let crc = u32_at(bytes, 4);
        if bytes[..4] != RECORD_MAGIC || crc != header_crc(place, bytes) {
            return None;
        }
        let (len, head) = (u32_at(bytes, 56), u32_at(bytes, 60) >> 8);
        let header = Self {
            meta: RecordMeta {
                kind: bytes[60],
                group: u128_at(bytes, 40),
                wall_ms: u64_at(bytes, 32),
                sequence: u64_at(bytes, 16),
            },
            len,
            head: if head == WHOLE { len } else { head },
            payload_crc: u32_at(bytes, 8),
            previous: u32_at(bytes, 12),
            synced: u64_at(bytes, 24),
        };
        let possible = header.len as usize <= PAYLOAD_BYTES
            && header.head <= header.len
            && header.meta.sequence <= HIGHEST_SEQUENCE
            && header.synced <= HIGHEST_SEQUENCE;
        possible.then_some((header, crc))
    }
}

fn header_crc(place: Place, bytes: &[u8]) -> u32 {
    let mut hasher = place.hasher();
    hasher.update(&bytes[8..RECORD_HEADER_BYTES]);
    hasher.finalize()
}

/// CRC-32 of a payload given in parts.
pub(crate) fn payload_crc(parts: &[&[u8]]) -> u32 {
    let mut hasher = Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

/// A segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) log_id: u128,
    pub(crate) segment: u32,
    pub(crate) first_sequence: u64,
}

/// Why bytes are no segment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadHeader {
    Damaged,
    Version(u32),
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[..8].copy_from_slice(&SEGMENT_MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.log_id.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.segment.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.first_sequence.to_le_bytes());
        let crc = segment_crc(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Magic, version and checksum keep their places in every version, so that another version is
    /// told from damage.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadHeader> {
        let bytes = bytes.get(..SEGMENT_HEADER_BYTES).ok_or(BadHeader::Damaged)?;
        if bytes[..8] != SEGMENT_MAGIC || u32_at(bytes, 12) != segment_crc(bytes) {
            return Err(BadHeader::Damaged);
        }
        match u32_at(bytes, 8) {
            FORMAT_VERSION if u64_at(bytes, 40) > HIGHEST_SEQUENCE => Err(BadHeader::Damaged),
            FORMAT_VERSION => Ok(Self {
                log_id: u128_at(bytes, 16),
                segment: u32_at(bytes, 32),
                first_sequence: u64_at(bytes, 40),
            }),
            other => Err(BadHeader::Version(other)),
        }
    }
}

fn segment_crc(bytes: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&bytes[..12]);
    hasher.update(&bytes[16..SEGMENT_HEADER_BYTES]);
    hasher.finalize()
}

/// File name of a segment.
pub(crate) fn segment_name(segment: u32) -> String {
    format!("segment-{segment:010}")
}

/// Number of the segment with this file name.
pub(crate) fn segment_number(name: &str) -> Option<u32> {
    let segment = name.strip_prefix("segment-")?.parse().ok()?;
    (segment_name(segment) == name).then_some(segment)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

pub(crate) fn u128_at(bytes: &[u8], at: usize) -> u128 {
    u128::from_le_bytes(array_at(bytes, at))
}

/// Callers have checked the length of `bytes`.
fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}
