//! What is kept of an event in the delta of its slot: first the facts, which windows need, then the
//! lines as they were sent.

use bytes::{BufMut, Bytes, BytesMut};
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
        let (facts, _): (Self, _) = postcard::take_from_bytes(delta).ok()?;
        let texts = facts.texts.len() as u32;
        let fine = facts.facts.iter().all(|fact| {
            let mut keys = fact.keys.iter().chain(&fact.paths);
            keys.all(|key| *key < texts)
        });
        fine.then_some(facts)
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
