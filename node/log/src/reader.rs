//! Random reads, from any thread.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::ReadError;
use crate::format::{
    PAYLOAD_BYTES, Place, RECORD_HEADER_BYTES, RecordHeader, RecordMeta, RecordRef, payload_crc,
    segment_name,
};
use crate::storage::{Storage, read_full};

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
