//! What is kept of an event in the delta of its slot: first the facts, which windows need, then the
//! lines as they were sent.

use bytes::{BufMut, Bytes, BytesMut};
use cortado_engine::DeltaError;
use cortado_protocol::stream::StoredEvent;
use serde::{Deserialize, Serialize};

/// The facts of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fact {
    pub(crate) id: String,
    /// Its time, in milliseconds since the Unix epoch.
    pub(crate) at_ms: i64,
    /// A hash of what it says; the order of its fields and the space between them do not count.
    pub(crate) content: u64,
    /// Its line in the batch, from 0.
    pub(crate) position: u32,
    /// For each field by which a window groups, window by window: the number of its text.
    pub(crate) keys: Vec<u32>,
    /// What it adds one to in the plan's roll-ups: the numbers of the texts of paths.
    pub(crate) paths: Vec<u32>,
}

/// Separates the parts of a path. An event with a text that has it, and that the plan counts by, is a
/// dead letter.
pub(crate) const SEPARATOR: char = '\u{1f}';

/// The facts of a slot's events.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub(crate) texts: Vec<String>,
    pub(crate) facts: Vec<Fact>,
}

impl Facts {
    /// The facts of a delta; what follows them is not read.
    pub(crate) fn decode(delta: &[u8]) -> Option<Self> {
        Some(Self::split(delta)?.0)
    }

    /// The facts of a delta, and the lines that follow them.
    fn split(delta: &[u8]) -> Option<(Self, &[u8])> {
        let (facts, lines): (Self, _) = postcard::take_from_bytes(delta).ok()?;
        let texts = facts.texts.len() as u32;
        let fine = facts.facts.iter().all(|fact| {
            let mut keys = fact.keys.iter().chain(&fact.paths);
            keys.all(|key| *key < texts)
        });
        fine.then_some((facts, lines))
    }

    /// The delta of these facts and of the lines they were read from.
    pub(crate) fn encode(&self, lines: &[&[u8]]) -> Bytes {
        let facts = postcard::to_stdvec(self).expect("facts have no unserializable type");
        let raw = lines.iter().map(|line| line.len() + 4).sum::<usize>();
        let mut delta = BytesMut::with_capacity(facts.len() + raw);
        delta.put_slice(&facts);
        for line in lines {
            delta.put_u32_le(line.len() as u32);
            delta.put_slice(line);
        }
        delta.freeze()
    }
}

/// The facts of a slot's delta of a batch; one without events has no bytes.
pub(crate) fn facts_of(delta: &[u8]) -> Result<Facts, DeltaError> {
    if delta.is_empty() {
        return Ok(Facts::default());
    }
    Facts::decode(delta).ok_or(DeltaError::Malformed("facts of events"))
}

/// The events in the delta of a slot.
///
/// # Errors
/// If the bytes are no delta of events.
pub fn stored_events(batch: u64, delta: &[u8]) -> Result<Vec<StoredEvent>, DeltaError> {
    let malformed = DeltaError::Malformed("events");
    if delta.is_empty() {
        return Ok(Vec::new());
    }
    let (Facts { facts, .. }, mut rest) = Facts::split(delta).ok_or(malformed)?;
    let malformed = DeltaError::Malformed("lines of events");
    let mut events = Vec::with_capacity(facts.len());
    for Fact { id, at_ms, content, position, .. } in facts {
        let (len, lines) = rest.split_first_chunk().ok_or(malformed)?;
        let line = lines.split_at_checked(u32::from_le_bytes(*len) as usize);
        let (line, lines) = line.ok_or(malformed)?;
        let raw = Bytes::copy_from_slice(line);
        events.push(StoredEvent { batch, position, at_ms, id, content, raw });
        rest = lines;
    }
    if rest.is_empty() { Ok(events) } else { Err(malformed) }
}
