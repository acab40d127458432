//! A record's place in the log.

use cortado_protocol::{EntryKey, SlotSet};

/// Where a record is in this node's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordRef {
    /// The segment's number.
    pub segment: u32,
    /// Where the record starts in it, in bytes.
    pub offset: u32,
    /// Its length, in bytes.
    pub len: u32,
}

/// An entry, where this node's log has it, and the slots it is to be read for. The record may speak
/// for others too, which another record counts for.
pub type Located = (EntryKey, RecordRef, SlotSet);
