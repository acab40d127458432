//! Entries: ledgers consist of them, nodes send them to replicas, and the log records them.
//!
//! An entry is one numbered batch of one edge of one job, turned into deltas, one for each slot.
//! The mapper encodes it once; nodes send, log and hand off the same bytes. A slot in
//! [`EntryHead::slots`] without a part has an *empty* delta, which counts for coverage like any
//! other.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::frame::FrameError;
use crate::limits::{HEAD_BYTES, NUMBERS};
use crate::{JobId, META_SLOT, NodeId, Slot, SlotSet, content_hash};

/// An edge of a job's dataflow: a table's upload, the job log or the result; of a stream also a
/// publisher's batches, or what a coordinator publishes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Edge(pub u64);

/// Set in the edges of publishers.
const PUBLISHER: u64 = 1 << 63;
/// Set in the edges of outputs, in which [`PUBLISHER`] is not.
const OUTPUT: u64 = 1 << 62;

impl Edge {
    /// The job log: specification, ends of tables, cancellation, manifest
    /// ([`crate::job::JobEntry`]).
    pub const JOB: Self = Self(u16::MAX as u64);
    /// The result files, concatenated and cut into chunks.
    pub const RESULT: Self = Self(u16::MAX as u64 - 1);

    /// The edge of an upload.
    #[must_use]
    pub const fn table(index: usize) -> Self {
        Self(index as u64)
    }

    /// The table's index in the plan, if this is the edge of an upload.
    #[must_use]
    pub const fn as_table(self) -> Option<usize> {
        if self.0 < Self::RESULT.0 { Some(self.0 as usize) } else { None }
    }

    /// The edge of a publisher's generation: a hash of its name, the same on all nodes.
    #[must_use]
    pub fn publisher(name: &str, generation: u32) -> Self {
        Self(PUBLISHER | hash_of(name, u64::from(generation)))
    }

    /// The edge of what a node publishes as the coordinator of a stream, during one boot.
    #[must_use]
    pub fn output(node: NodeId, boot: u64) -> Self {
        Self(OUTPUT | hash_of(node.as_str(), boot))
    }

    /// Whether it is the edge of a publisher.
    #[must_use]
    pub const fn is_publisher(self) -> bool {
        self.0 & PUBLISHER != 0
    }

    /// Whether it is the edge of what a coordinator publishes.
    #[must_use]
    pub const fn is_output(self) -> bool {
        self.0 & (PUBLISHER | OUTPUT) == OUTPUT
    }

    /// Whether only streams have such an edge: it is that of a publisher or of an output.
    #[must_use]
    pub const fn is_of_stream(self) -> bool {
        self.0 & (PUBLISHER | OUTPUT) != 0
    }

    /// Whether clients send the batches of this edge.
    #[must_use]
    pub const fn is_upload(self) -> bool {
        self.as_table().is_some() || self.is_publisher()
    }
}

/// A hash of 62 bits.
fn hash_of(name: &str, number: u64) -> u64 {
    content_hash(&[&number.to_le_bytes(), name.as_bytes()].concat()) & (OUTPUT - 1)
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::JOB => f.write_str("job"),
            Self::RESULT => f.write_str("result"),
            Self(hash) if self.is_publisher() => write!(f, "publisher {:x}", hash ^ PUBLISHER),
            Self(hash) if self.is_output() => write!(f, "output {:x}", hash ^ OUTPUT),
            Self(table) => write!(f, "table {table}"),
        }
    }
}

/// The name of an entry, the same on all nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EntryKey {
    /// The job.
    pub job: JobId,
    /// The edge of the job's dataflow.
    pub edge: Edge,
    /// The batch number on that edge.
    pub number: u64,
}

/// The batch that the deltas were made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Source {
    /// Content hash of the batch as the client sent it.
    pub content: u64,
    /// Its length in bytes.
    pub bytes: u32,
    /// Records in it, rejected ones included.
    pub rows: u32,
}

/// A delta's place in the entry's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The slot of the delta.
    pub slot: Slot,
    /// Its length in bytes.
    pub len: u32,
    /// Its content hash.
    pub hash: u64,
}

/// An entry without its data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryHead {
    /// The name of the entry.
    pub key: EntryKey,
    /// The batch it was made from.
    pub source: Source,
    /// The slots for which the entry has a delta, empty or not.
    pub slots: SlotSet,
    /// The deltas that are not empty, in slot order.
    pub parts: Vec<Part>,
}

/// An entry: head and data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Key, source, slots and parts.
    pub head: EntryHead,
    /// The deltas of [`EntryHead::parts`], one after the other.
    pub data: Bytes,
}

/// Hash of an empty delta.
pub const EMPTY_HASH: u64 = 0;

impl Entry {
    /// Builds an entry from deltas, which must be in slot order. Slots of `slots` without a delta
    /// have an empty one.
    #[must_use]
    pub fn new(key: EntryKey, source: Source, slots: SlotSet, deltas: &[(Slot, Bytes)]) -> Self {
        debug_assert!(deltas.windows(2).all(|pair| pair[0].0 < pair[1].0));
        let mut data = BytesMut::with_capacity(deltas.iter().map(|(_, d)| d.len()).sum());
        let mut parts = Vec::with_capacity(deltas.len());
        for (slot, delta) in deltas.iter().filter(|(_, delta)| !delta.is_empty()) {
            debug_assert!(slots.contains(*slot));
            data.put_slice(delta);
            parts.push(Part { slot: *slot, len: delta.len() as u32, hash: content_hash(delta) });
        }
        Self { head: EntryHead { key, source, slots, parts }, data: data.freeze() }
    }

    /// An entry with a delta for the meta slot only.
    #[must_use]
    pub fn meta(key: EntryKey, delta: Bytes) -> Self {
        Self::new(key, Source::default(), SlotSet::META, &[(META_SLOT, delta)])
    }

    /// Length of the bytes that [`Entry::encode`] returns.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let head =
            postcard::to_stdvec(&self.head).expect("an entry head has no unserializable type");
        4 + head.len() + self.data.len()
    }

    /// The bytes for the wire and for the log.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let head =
            postcard::to_stdvec(&self.head).expect("an entry head has no unserializable type");
        let mut bytes = BytesMut::with_capacity(4 + head.len() + self.data.len());
        bytes.put_u32_le(head.len() as u32);
        bytes.put_slice(&head);
        bytes.put_slice(&self.data);
        bytes.freeze()
    }

    /// Decodes what [`Entry::encode`] wrote; the data is a slice of `bytes`, not a copy.
    ///
    /// # Errors
    /// If the bytes are not exactly one well-formed entry. Delta hashes are not checked here:
    /// transport and log have their own checksums.
    pub fn decode(bytes: &Bytes) -> Result<Self, FrameError> {
        let head = EntryHead::decode(bytes)?;
        let data = bytes.slice(Self::head_len(bytes)..);
        head.check(data.len() as u64)?;
        Ok(Self { head, data })
    }

    /// Length of the part of an encoded entry that [`EntryHead::decode`] reads, or of all of it if it is
    /// none.
    #[must_use]
    pub fn head_len(bytes: &[u8]) -> usize {
        let len = bytes.first_chunk().map(|len| u32::from_le_bytes(*len) as usize);
        len.map_or(bytes.len(), |len| len.saturating_add(4).min(bytes.len()))
    }

    /// The delta of a slot; may be empty. `None` if the entry has no delta for the slot.
    #[must_use]
    pub fn delta(&self, slot: Slot) -> Option<Bytes> {
        if !self.head.slots.contains(slot) {
            return None;
        }
        let mut at = 0;
        for part in &self.head.parts {
            let end = at + part.len as usize;
            if part.slot == slot {
                return Some(self.data.slice(at..end));
            }
            at = end;
        }
        Some(Bytes::new())
    }

    /// The deltas that are not empty, in slot order.
    pub fn deltas(&self) -> impl Iterator<Item = (Slot, Bytes)> {
        let mut at = 0;
        self.head.parts.iter().map(move |part| {
            let start = at;
            at += part.len as usize;
            (part.slot, self.data.slice(start..at))
        })
    }

    /// The same entry, without the slots that are not in `slots`.
    #[must_use]
    pub fn restrict(&self, slots: SlotSet) -> Self {
        let kept = self.head.slots.and(slots);
        if kept == self.head.slots {
            return self.clone();
        }
        let mut data = BytesMut::new();
        for (_, delta) in self.deltas().filter(|(slot, _)| kept.contains(*slot)) {
            data.put_slice(&delta);
        }
        Self { head: self.head.restrict(slots), data: data.freeze() }
    }
}

impl EntryHead {
    /// Reads the head of an encoded entry, whether the data follows it or not.
    ///
    /// # Errors
    /// If the bytes do not begin with a well-formed head.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let len = bytes.first_chunk().ok_or(FrameError::Truncated)?;
        let len = u32::from_le_bytes(*len) as usize;
        if len > HEAD_BYTES {
            return Err(FrameError::TooLarge { bytes: len, limit: HEAD_BYTES });
        }
        let bytes = bytes.get(4..4 + len).ok_or(FrameError::Truncated)?;
        let head: Self = crate::frame::from_postcard(bytes)?;
        head.check(head.data_len())?;
        Ok(head)
    }

    /// The same head, speaking only for those of `slots` it speaks for now.
    #[must_use]
    pub fn restrict(&self, slots: SlotSet) -> Self {
        let parts = self.parts.iter().filter(|part| slots.contains(part.slot));
        Self { slots: self.slots.and(slots), parts: parts.copied().collect(), ..*self }
    }

    fn data_len(&self) -> u64 {
        self.parts.iter().map(|part| u64::from(part.len)).sum()
    }

    /// The content hash of a slot's delta; [`EMPTY_HASH`] if it is empty.
    #[must_use]
    pub fn hash(&self, slot: Slot) -> u64 {
        self.parts.iter().find(|part| part.slot == slot).map_or(EMPTY_HASH, |part| part.hash)
    }

    fn check(&self, data_len: u64) -> Result<(), FrameError> {
        let ordered = self.parts.windows(2).all(|pair| pair[0].slot < pair[1].slot);
        let inside = self.parts.iter().all(|part| self.slots.contains(part.slot));
        if ordered && inside && self.key.number < NUMBERS && self.data_len() == data_len {
            Ok(())
        } else {
            Err(FrameError::Malformed("entry head does not describe its data"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Entry {
        let key = EntryKey { job: JobId(7), edge: Edge::table(1), number: 9 };
        let deltas = [
            (Slot(0), Bytes::from_static(b"zero")),
            (Slot(5), Bytes::from_static(b"five")),
            (META_SLOT, Bytes::from_static(b"meta")),
        ];
        Entry::new(key, Source { content: 1, bytes: 2, rows: 3 }, SlotSet::ALL, &deltas)
    }

    #[test]
    fn round_trip_keeps_deltas_and_empties() {
        let entry = sample();
        let back = Entry::decode(&entry.encode()).unwrap();
        assert_eq!(back, entry);
        assert_eq!(back.delta(Slot(5)).unwrap(), "five");
        assert_eq!(back.delta(Slot(6)).unwrap(), "");
        assert_eq!(back.head.hash(Slot(6)), EMPTY_HASH);
        assert_eq!(back.head.hash(Slot(5)), content_hash(b"five"));
    }

    #[test]
    fn restriction_speaks_for_fewer_slots() {
        let entry = sample().restrict(SlotSet::one(Slot(5)).or(SlotSet::one(Slot(6))));
        assert_eq!(entry.delta(Slot(0)), None);
        assert_eq!(entry.delta(Slot(5)).unwrap(), "five");
        assert_eq!(entry.delta(Slot(6)).unwrap(), "");
        assert_eq!(entry.deltas().collect::<Vec<_>>(), [(Slot(5), "five".into())]);
        assert_eq!(Entry::decode(&entry.encode()).unwrap(), entry);
    }

    #[test]
    fn truncated_or_padded_bytes_are_refused() {
        let bytes = sample().encode();
        for len in 0..bytes.len() {
            assert!(Entry::decode(&bytes.slice(..len)).is_err(), "{len}");
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert!(Entry::decode(&Bytes::from(longer)).is_err());
    }

    #[test]
    fn numbers_near_overflow_are_refused() {
        let entry = |number| {
            let key = EntryKey { job: JobId(7), edge: Edge::table(1), number };
            Entry::meta(key, Bytes::from_static(b"meta"))
        };
        assert!(Entry::decode(&entry(NUMBERS - 1).encode()).is_ok());
        assert!(Entry::decode(&entry(NUMBERS).encode()).is_err());
        assert!(Entry::decode(&entry(u64::MAX).encode()).is_err());
    }
}
