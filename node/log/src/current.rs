//! The segment being written, and how the next one is made ready.

use std::io;

use crate::format::{DATA_START, SegmentHeader, segment_name};
use crate::storage::Storage;

/// Name of a segment that has none yet.
pub(crate) const SPARE_FILE: &str = "segment-next";

/// The segment being written.
#[derive(Debug)]
pub(crate) struct Current {
    pub(crate) segment: u32,
    pub(crate) name: String,
    /// Where the next record goes.
    pub(crate) end: u32,
    /// Length of the file.
    capacity: u32,
    /// Whether the file exists: a log that is opened on a full disk has nowhere to write yet.
    exists: bool,
}

impl Current {
    /// No file yet: the first append makes it, if there is space by then.
    pub(crate) fn missing(segment: u32) -> Self {
        let name = segment_name(segment);
        Self { segment, name, end: DATA_START, capacity: DATA_START, exists: false }
    }

    /// Whether the file exists.
    pub(crate) fn exists(&self) -> bool {
        self.exists
    }

    /// Bytes that still fit.
    pub(crate) fn room(&self) -> u32 {
        self.capacity.saturating_sub(self.end)
    }

    /// Whether giving its space back is worth a new file: not for every small job of an idle node.
    pub(crate) fn is_worth_rotating(&self) -> bool {
        self.end - DATA_START >= (self.capacity - DATA_START) / 4
    }

    /// Makes the file of a segment under a temporary name, durable except for the name. On an error
    /// nothing is left behind that matters.
    pub(crate) fn prepare(
        storage: &dyn Storage,
        log_id: u128,
        segment: u32,
        first_sequence: u64,
        bytes: u32,
    ) -> io::Result<Prepared> {
        let capacity = bytes.max(DATA_START);
        let fill = || {
            storage.resize(SPARE_FILE, capacity.into())?;
            let header = SegmentHeader { log_id, segment, first_sequence };
            storage.write_at(SPARE_FILE, 0, &header.encode())?;
            storage.sync(SPARE_FILE)
        };
        discard_spare(storage)?;
        storage.create(SPARE_FILE)?;
        if let Err(error) = fill() {
            // Best effort: it is deleted before the next one is made, too.
            let _ = storage.delete(SPARE_FILE);
            return Err(error);
        }
        let name = segment_name(segment);
        Ok(Prepared(Self { segment, name, end: DATA_START, capacity, exists: true }))
    }
}

/// Deletes a file left from an earlier try; it never held a record.
pub(crate) fn discard_spare(storage: &dyn Storage) -> io::Result<()> {
    match storage.delete(SPARE_FILE) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A segment that has no name yet.
pub(crate) struct Prepared(Current);

impl Prepared {
    /// Gives the segment its name, durably.
    pub(crate) fn publish(self, storage: &dyn Storage) -> io::Result<Current> {
        storage.rename(SPARE_FILE, &self.0.name)?;
        storage.sync_dir()?;
        Ok(self.0)
    }
}

/// Whether space is what is missing.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
