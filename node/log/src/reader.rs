//! Random reads, from any thread.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::ReadError;
use crate::footer::{Footer, Of};
use crate::format::{
    PAYLOAD_BYTES, Place, RECORD_HEADER_BYTES, RecordHeader, RecordMeta, RecordRef,
    SEGMENT_HEADER_BYTES, SegmentHeader, payload_crc, segment_name, segment_number,
};
use crate::storage::{Storage, len_of, read_full};

/// Reads records of a log by reference. Cheap to clone; needs nothing from the writer.
#[derive(Clone)]
pub struct LogReader {
    storage: Arc<dyn Storage>,
    log_id: u128,
}

impl LogReader {
    pub(crate) fn new(storage: Arc<dyn Storage>, log_id: u128) -> Self {
        Self { storage, log_id }
    }

    /// Numbers of the segments on disk, oldest first.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn segments(&self) -> io::Result<Vec<u32>> {
        let files = self.storage.list()?;
        let mut numbers: Vec<_> =
            files.iter().filter_map(|(name, _)| segment_number(name)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The records of a sealed segment with their heads, by its footer. A segment that is written
    /// still, was deleted or has a damaged footer lists none; the next start reads it as a whole.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn listed(&self, segment: u32) -> io::Result<Vec<(RecordRef, Bytes)>> {
        let listed = self.footer(segment)?.map(|footer| {
            let records = footer.records();
            records.map(|one| (one.record, Bytes::copy_from_slice(one.head))).collect()
        });
        Ok(listed.unwrap_or_default())
    }

    /// The valid footer of a segment, if it has one.
    pub(crate) fn footer(&self, segment: u32) -> io::Result<Option<Footer>> {
        let name = segment_name(segment);
        let Some(len) = len_of(&*self.storage, &name)? else { return Ok(None) };
        let mut header = [0; SEGMENT_HEADER_BYTES];
        match read_full(&*self.storage, &name, 0, &mut header) {
            // Deleted meanwhile, if this is not the thread that deletes.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read?,
        };
        let Ok(SegmentHeader { first_sequence, .. }) = SegmentHeader::decode(&header) else {
            return Ok(None);
        };
        let of = Of { log_id: self.log_id, segment, first_sequence };
        Footer::read(&*self.storage, of, len)
    }

    /// Reads a record and checks it. It can be read as soon as it was appended; whether it is
    /// durable is another question.
    ///
    /// # Errors
    /// If its segment is deleted, its bytes are damaged, or the disk fails.
    pub fn read(&self, record: RecordRef) -> Result<(RecordMeta, Bytes), ReadError> {
        let RecordRef { segment, offset, len } = record;
        let damaged = || ReadError::Damaged { segment, offset };
        if len as usize > PAYLOAD_BYTES {
            return Err(damaged());
        }
        let mut bytes = vec![0; RECORD_HEADER_BYTES + len as usize];
        let read = read_full(&*self.storage, &segment_name(segment), offset.into(), &mut bytes)
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => ReadError::Gone(segment),
                _ => ReadError::Io(error),
            })?;
        let place = Place { log_id: self.log_id, segment, offset };
        let (header, _) = RecordHeader::decode(&bytes, place).ok_or_else(damaged)?;
        let payload = Bytes::from(bytes).slice(RECORD_HEADER_BYTES..);
        if read < RECORD_HEADER_BYTES + len as usize
            || header.len != len
            || header.payload_crc != payload_crc(&[&payload])
        {
            return Err(damaged());
        }
        Ok((header.meta, payload))
    }
}
