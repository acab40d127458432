//! Finding records in a segment: the next one, and the next valid one behind damage.

use std::io;

use crate::format::{
    Place, RECORD_HEADER_BYTES, RECORD_MAGIC, RecordHeader, RecordRef, payload_crc, segment_name,
};
use crate::storage::{Storage, read_full};

const CHUNK_BYTES: usize = 64 << 10;

/// Reads one segment. Holds one payload at a time.
pub(crate) struct Scanner<'a> {
    storage: &'a dyn Storage,
    log_id: u128,
    pub(crate) segment: u32,
    pub(crate) name: String,
    /// Length of the file.
    pub(crate) len: u32,
    /// Payload of the record that [`Scanner::record_at`] found last.
    pub(crate) payload: Vec<u8>,
}

/// A valid record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) offset: u32,
    pub(crate) header: RecordHeader,
    /// Checksum of the header, to which the next record is chained.
    pub(crate) crc: u32,
}

impl Found {
    /// Where the next record begins.
    pub(crate) fn end(&self) -> u32 {
        self.offset + RECORD_HEADER_BYTES as u32 + self.header.len
    }

    pub(crate) fn record(&self, segment: u32) -> RecordRef {
        RecordRef { segment, offset: self.offset, len: self.header.len }
    }
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(storage: &'a dyn Storage, log_id: u128, segment: u32, len: u64) -> Self {
        // No segment is longer than offsets reach; what is beyond can't be ours.
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        Self { storage, log_id, segment, name: segment_name(segment), len, payload: Vec::new() }
    }

    /// The record at this very offset, if it is whole and valid.
    pub(crate) fn record_at(&mut self, offset: u32) -> io::Result<Option<Found>> {
        let mut bytes = [0; RECORD_HEADER_BYTES];
        if read_full(self.storage, &self.name, offset.into(), &mut bytes)? < bytes.len() {
            return Ok(None);
        }
        let place = Place { log_id: self.log_id, segment: self.segment, offset };
        let Some((header, crc)) = RecordHeader::decode(&bytes, place) else { return Ok(None) };
        let start = u64::from(offset) + RECORD_HEADER_BYTES as u64;
        if start + u64::from(header.len) > self.len.into() {
            return Ok(None);
        }
        self.payload.clear();
        self.payload.resize(header.len as usize, 0);
        let read = read_full(self.storage, &self.name, start, &mut self.payload)?;
        let valid =
            read == self.payload.len() && payload_crc(&[&self.payload]) == header.payload_crc;
        Ok(valid.then_some(Found { offset, header, crc }))
    }

    /// The head of the record that was found last.
    pub(crate) fn head(&self, found: &Found) -> &[u8] {
        &self.payload[..self.payload.len().min(found.header.head as usize)]
    }

    /// The first valid record at or behind `from` that `accept` takes.
    pub(crate) fn search(
        &mut self,
        from: u32,
        accept: impl Fn(&Found) -> bool,
    ) -> io::Result<Option<Found>> {
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut start = from;
        while start < self.len {
            let read = read_full(self.storage, &self.name, start.into(), &mut chunk)?;
            for hit in memchr::memmem::find_iter(&chunk[..read], &RECORD_MAGIC) {
                if let Some(found) = self.record_at(start + hit as u32)?
                    && accept(&found)
                {
                    return Ok(Some(found));
                }
            }
            if read < chunk.len() {
                break;
            }
            // A magic may straddle two chunks.
            start = start.saturating_add((read - (RECORD_MAGIC.len() - 1)) as u32);
        }
        Ok(None)
    }

    /// Where the bytes that are not zero end; `from` if all behind it are.
    pub(crate) fn written_end(&self, from: u32) -> io::Result<u32> {
        let mut chunk = vec![0; CHUNK_BYTES];
        let (mut start, mut end) = (from, from);
        while start < self.len {
            let read = read_full(self.storage, &self.name, start.into(), &mut chunk)?;
            if let Some(last) = chunk[..read].iter().rposition(|byte| *byte != 0) {
                end = start + last as u32 + 1;
            }
            if read < chunk.len() {
                break;
            }
            start = start.saturating_add(read as u32);
        }
        Ok(end)
    }

    /// Writes the bytes of a range to where they are. After a failed sync the page cache may show
    /// bytes that are not on the disk and that no later sync would write; written again, they are.
    pub(crate) fn rewrite(&self, from: u32, to: u32) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut start = from;
        while start < to {
            let part = CHUNK_BYTES.min((to - start) as usize);
            let read = read_full(self.storage, &self.name, start.into(), &mut chunk[..part])?;
            if read == 0 {
                break;
            }
            self.storage.write_at(&self.name, start.into(), &chunk[..read])?;
            start += read as u32;
        }
        Ok(())
    }
}
