//! Tallies: what was made for a stage, and what was folded of it. When a batch is mapped, its summary
//! says how much went to all slots; each slot says how much it folded. Both must come to the same
//! before a result is published: a delta that is missing, or counted twice, or not the one that was
//! made, shows.

use serde::{Deserialize, Serialize};

use crate::wire::{DeltaError, Reader, put_uint};
use cortado_protocol::content_hash;

/// Sections of deltas of one stage, in any order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// How many.
    pub(crate) sections: u64,
    /// Rows or groups in them.
    pub(crate) entries: u64,
    /// Wrapping sum of the hashes of their contents.
    pub(crate) hash: u64,
}

impl Tally {
    /// Counts a section.
    pub(crate) fn add(&mut self, entries: u64, content: &[u8]) {
        self.merge(Self { sections: 1, entries, hash: content_hash(content) });
    }

    /// Counts what another one counted.
    pub(crate) fn merge(&mut self, other: Self) {
        self.sections = self.sections.wrapping_add(other.sections);
        self.entries = self.entries.wrapping_add(other.entries);
        self.hash = self.hash.wrapping_add(other.hash);
    }

    pub(crate) fn encode(self, out: &mut Vec<u8>) {
        [self.sections, self.entries, self.hash].iter().for_each(|value| put_uint(out, *value));
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, DeltaError> {
        Ok(Self { sections: reader.uint()?, entries: reader.uint()?, hash: reader.uint()? })
    }
}
