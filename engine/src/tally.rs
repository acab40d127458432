//! Tallies: the sections of deltas that were made for a stage, and those that were folded. A
//! batch's summary has the tally of what was made for all slots; each slot counts what it folds.
//! Before a result is published, both tallies must be equal: a delta that is missing, folded twice
//! or changed makes a difference.

use serde::{Deserialize, Serialize};

use crate::wire::{DeltaError, Reader, put_uint};
use cortado_protocol::content_hash;

/// Counts sections of deltas of one stage, in any order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Their number.
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

    /// Adds the counts of another tally.
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
