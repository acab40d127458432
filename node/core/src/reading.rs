//! Reading entries from this node's log, for tasks.

use bytes::Bytes;
use cortado_protocol::SlotSet;
use cortado_protocol::entry::Entry;

use crate::record::{Located, RecordRef};

/// Reads this node's log.
pub trait Records {
    /// The payload of a record, or `None` if it can't be read or its checksum is wrong.
    fn read(&self, record: RecordRef) -> Option<Bytes>;

    /// A long task stands between two of its slices: something short may be done now.
    fn between(&self) {}
}

/// Why a task stopped.
pub(crate) enum Stop {
    Unreadable(Vec<Located>),
    Mismatch(String),
    Failed(String),
}

impl From<cortado_engine::DeltaError> for Stop {
    fn from(error: cortado_engine::DeltaError) -> Self {
        Self::Failed(format!("a delta can't be read: {error}"))
    }
}

/// Reads entries one after the other and visits them with the slots they are read for; all unreadable
/// ones are reported together.
pub(crate) fn for_each<'e>(
    entries: impl IntoIterator<Item = &'e Located>,
    records: &dyn Records,
    mut visit: impl FnMut(Entry, SlotSet) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let mut unreadable = Vec::new();
    for located in entries {
        let entry = records.read(located.1).and_then(|bytes| Entry::decode(&bytes).ok());
        match entry.filter(|entry| entry.head.key == located.0) {
            Some(entry) if unreadable.is_empty() => visit(entry, located.2)?,
            Some(_) => {}
            None => unreadable.push(*located),
        }
    }
    if unreadable.is_empty() { Ok(()) } else { Err(Stop::Unreadable(unreadable)) }
}
