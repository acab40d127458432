//! The segment being written, and how the next one is made ready.

use std::io;

use crate::footer::{Builder, Of};
use crate::format::{
    DATA_START, RECORD_HEADER_BYTES, RecordMeta, RecordRef, SegmentHeader, segment_name,
};
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
    /// Sequence number of its first record.
    first_sequence: u64,
    footer: Builder,
    /// Whether the file exists: a log that is opened on a full disk has nowhere to write yet.
    exists: bool,
}

impl Current {
    /// No file yet: the first append makes it, if there is space by then.
    pub(crate) fn missing(segment: u32) -> Self {
        let name = segment_name(segment);
        let (end, capacity, footer) = (DATA_START, DATA_START, Builder::default());
        Self { segment, name, end, capacity, first_sequence: 0, footer, exists: false }
    }

    /// Whether the file exists.
    pub(crate) fn exists(&self) -> bool {
        self.exists
    }

    /// Whether a record of so many bytes with so long a head still fits, and the footer behind it.
    pub(crate) fn has_room(&self, frame_bytes: u32, head: usize) -> bool {
        let footer = self.footer.len_with(head) as u64;
        let end = u64::from(self.end) + u64::from(frame_bytes) + footer;
        end <= self.capacity.into() && !self.footer.is_full(head)
    }

    /// Bytes of a segment for one record, in which nothing else would fit.
    pub(crate) fn bytes_for(frame_bytes: u32, head: usize) -> u32 {
        DATA_START + frame_bytes + Builder::default().len_with(head) as u32
    }

    /// A record stands at the end now.
    pub(crate) fn add(&mut self, record: RecordRef, meta: &RecordMeta, head: &[u8]) {
        self.end += RECORD_HEADER_BYTES as u32 + record.len;
        self.footer.add(record, meta, head);
    }

    /// Ends the segment with its footer, and makes it durable.
    pub(crate) fn seal(&mut self, storage: &dyn Storage, log_id: u128) -> io::Result<()> {
        if !self.exists {
            return Ok(());
        }
        let (segment, first_sequence) = (self.segment, self.first_sequence);
        let of = Of { log_id, segment, first_sequence };
        let footer = std::mem::take(&mut self.footer).finish(of, self.end);
        let end = match storage.write_at(&self.name, self.end.into(), &footer) {
            // Some file systems reserve no space. Without a footer the next start reads the records.
            Err(error) if is_full(&error) => self.end.into(),
            written => written.map(|()| u64::from(self.end) + footer.len() as u64)?,
        };
        storage.resize(&self.name, end)?;
        storage.sync(&self.name)
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
        let (end, footer) = (DATA_START, Builder::default());
        Ok(Prepared(Self { segment, name, end, capacity, first_sequence, footer, exists: true }))
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
