//! The writer: append, sync, forget.

use std::io;
use std::sync::Arc;

use crate::current::{Current, is_full};
use crate::error::{AppendError, OpenError, SyncError};
use crate::format::{
    HEAD_BYTES, PAYLOAD_BYTES, Place, RECORD_HEADER_BYTES, RecordHeader, RecordMeta, RecordRef,
    payload_crc, segment_name,
};
use crate::mark;
use crate::reader::LogReader;
use crate::recovery;
use crate::report::Recovery;
use crate::segments::Segments;
use crate::state::StateFiles;
use crate::storage::Storage;

/// Appended bytes after which free space is looked at again.
const FREE_CHECK_BYTES: u64 = 1 << 20;

/// Sizes of a log, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Size of the first segment after a start; each later one is twice as large, so that an idle
    /// node sets little space aside and a busy one rotates seldom.
    pub first_segment_bytes: u32,
    /// Largest segment, except that a single record that is larger gets one of its own.
    pub segment_bytes: u32,
    /// Free space below which [`Log::append`] refuses.
    pub reserve_bytes: u64,
}

impl Default for LogConfig {
    /// 4 MiB, growing to 64 MiB; 256 MiB in reserve.
    fn default() -> Self {
        Self { first_segment_bytes: 4 << 20, segment_bytes: 64 << 20, reserve_bytes: 256 << 20 }
    }
}

/// A write-ahead log, owned by its one writer.
pub struct Log {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) config: LogConfig,
    pub(crate) log_id: u128,
    pub(crate) segments: Segments,
    pub(crate) current: Current,
    pub(crate) next_sequence: u64,
    pub(crate) synced_sequence: u64,
    /// Header checksum of the last record, to which the next one is chained.
    pub(crate) previous: u32,
    pub(crate) poisoned: bool,
    pub(crate) next_segment_bytes: u32,
    /// There may be space to give back.
    pub(crate) garbage: bool,
    /// Bytes that may be appended before free space is looked at again; 0 while below the reserve.
    unchecked_bytes: u64,
    scratch: Vec<u8>,
}

impl Log {
    /// Opens the log of this storage and delivers every valid record in the order it was appended:
    /// where it stands, what was recorded of it, and its head. Of sealed segments only footers are
    /// read, so a payload that is damaged there shows when it is read.
    ///
    /// A directory without a log gets one with the id `new_id`. What was delivered is durable.
    /// Memory is bounded by a few records. Method: see [`Recovery`].
    ///
    /// # Errors
    /// If the disk fails, or the log is of another version. A full disk is no error: what is there
    /// is delivered and appends are refused until space returns.
    pub fn open(
        storage: Arc<dyn Storage>,
        config: LogConfig,
        new_id: u128,
        deliver: &mut dyn FnMut(RecordRef, &RecordMeta, &[u8]),
    ) -> Result<(Self, Recovery), OpenError> {
        let (recovered, recovery) = recovery::recover(&storage, new_id, deliver)?;
        let io = |what| move |source| OpenError::Io { what, source };
        let log_id = recovery.log_id;
        match mark::create(&*storage) {
            // Only a hint; it is made at the next start.
            Err(error) if is_full(&error) => {}
            other => other.map_err(io("create the synced mark"))?,
        }
        let bytes = config.first_segment_bytes.min(config.segment_bytes);
        let segment = recovered.next_segment;
        let current = Current::prepare(&*storage, log_id, segment, recovered.next_sequence, bytes)
            .and_then(|prepared| prepared.publish(&*storage));
        let current = match current {
            Err(error) if is_full(&error) => Current::missing(segment),
            other => other.map_err(io("create a segment"))?,
        };
        let mut segments = recovered.segments;
        if current.exists() {
            for empty in recovered.empty {
                storage.delete(&segment_name(empty)).map_err(io("delete an empty segment"))?;
                segments.remove(empty);
            }
            segments.add(segment);
        }
        storage.sync_dir().map_err(io("sync the directory"))?;
        let log = Self {
            storage,
            config,
            log_id,
            segments,
            current,
            next_sequence: recovered.next_sequence,
            synced_sequence: recovered.next_sequence - 1,
            previous: 0,
            poisoned: false,
            next_segment_bytes: bytes.saturating_mul(2).min(config.segment_bytes),
            garbage: true,
            unchecked_bytes: 0,
            scratch: Vec::new(),
        };
        Ok((log, recovery))
    }

    /// The log's id, which is its disk's: a blank directory gets a new one.
    #[must_use]
    pub fn log_id(&self) -> u128 {
        self.log_id
    }

    /// Appends a record whose payload is the concatenation of `payload`. It is durable after the
    /// next [`Log::sync`].
    ///
    /// The first part is the record's *head*: what a later start delivers of it. `group` is the unit
    /// of [`Log::forget`]; records of group 0 belong to none and vanish with the segment they happen
    /// to stand in. `wall_ms` is recorded as it is.
    ///
    /// # Errors
    /// [`AppendError::Full`] and [`AppendError::TooLarge`] change nothing; after any other error the
    /// process has to end.
    pub fn append(
        &mut self,
        kind: u8,
        group: u128,
        wall_ms: u64,
        payload: &[&[u8]],
    ) -> Result<RecordRef, AppendError> {
        self.write(kind, group, wall_ms, payload, self.config.reserve_bytes)
    }

    /// [`Log::append`] that may use the reserve: for small records that free space or keep the node
    /// working.
    ///
    /// # Errors
    /// As [`Log::append`]; `Full` only when the disk really is.
    pub fn append_reserved(
        &mut self,
        kind: u8,
        group: u128,
        wall_ms: u64,
        payload: &[&[u8]],
    ) -> Result<RecordRef, AppendError> {
        self.write(kind, group, wall_ms, payload, 0)
    }

    fn write(
        &mut self,
        kind: u8,
        group: u128,
        wall_ms: u64,
        payload: &[&[u8]],
        reserve: u64,
    ) -> Result<RecordRef, AppendError> {
        if self.poisoned {
            return Err(AppendError::Poisoned);
        }
        let bytes: usize = payload.iter().map(|part| part.len()).sum();
        let head = payload.first().map_or(&[][..], |head| head);
        if bytes > PAYLOAD_BYTES || head.len() > HEAD_BYTES && head.len() < bytes {
            return Err(AppendError::TooLarge { bytes });
        }
        let frame_bytes = (RECORD_HEADER_BYTES + bytes) as u32;
        self.check_reserve(u64::from(frame_bytes), reserve)?;
        if !self.current.has_room(frame_bytes, head.len()) {
            self.rotate(frame_bytes, head.len(), reserve)?;
        }

        let header = RecordHeader {
            meta: RecordMeta { kind, group, wall_ms, sequence: self.next_sequence },
            len: bytes as u32,
            head: head.len() as u32,
            payload_crc: payload_crc(payload),
            previous: self.previous,
            synced: self.synced_sequence,
        };
        let (segment, offset) = (self.current.segment, self.current.end);
        let (encoded, crc) = header.encode(Place { log_id: self.log_id, segment, offset });
        self.scratch.clear();
        self.scratch.extend_from_slice(&encoded);
        payload.iter().for_each(|part| self.scratch.extend_from_slice(part));
        let written = self.storage.write_at(&self.current.name, offset.into(), &self.scratch);
        // Nothing counts as appended until here: the next record overwrites what was written.
        written.map_err(|error| self.failed(error))?;

        let record = RecordRef { segment, offset, len: bytes as u32 };
        self.current.add(record, &header.meta, head);
        self.next_sequence += 1;
        self.previous = crc;
        self.segments.note(segment, group, frame_bytes.into());
        self.scratch.shrink_to(1 << 20);
        Ok(record)
    }

    /// Asking the file system on every append would cost as much as a small append.
    fn check_reserve(&mut self, bytes: u64, reserve: u64) -> Result<(), AppendError> {
        if reserve == 0 {
            return Ok(());
        }
        if self.unchecked_bytes < bytes {
            let free = self.storage.free_bytes().map_err(|error| self.failed(error))?;
            if free < reserve.saturating_add(bytes) {
                self.unchecked_bytes = 0;
                return Err(AppendError::Full);
            }
            self.unchecked_bytes = FREE_CHECK_BYTES.max(bytes);
        }
        self.unchecked_bytes -= bytes;
        Ok(())
    }

    pub(crate) fn failed(&mut self, error: io::Error) -> AppendError {
        if is_full(&error) {
            return AppendError::Full;
        }
        self.poisoned = true;
        AppendError::Io(error)
    }

    /// Makes everything appended so far durable, with one `fdatasync`; free if nothing was.
    ///
    /// # Errors
    /// Any error poisons the log for ever: the caller must end the process, without a second try.
    pub fn sync(&mut self) -> Result<(), SyncError> {
        if self.poisoned {
            return Err(SyncError::Poisoned);
        }
        if self.synced_sequence + 1 == self.next_sequence {
            return Ok(());
        }
        if let Err(error) = self.storage.sync(&self.current.name) {
            return Err(self.poison(error));
        }
        self.all_synced();
        Ok(())
    }

    /// The disk failed: nothing is acknowledged any more.
    pub(crate) fn poison(&mut self, error: io::Error) -> SyncError {
        self.poisoned = true;
        SyncError::Io(error)
    }

    /// Everything appended is durable.
    pub(crate) fn all_synced(&mut self) {
        self.synced_sequence = self.next_sequence - 1;
        if let Err(error) = mark::write(&*self.storage, self.log_id, self.synced_sequence) {
            // Only a hint for the next start; the data is where it should be.
            tracing::warn!(%error, "could not write the synced mark");
        }
    }

    /// The highest sequence number known to be durable; 0 if there is none.
    #[must_use]
    pub fn synced_sequence(&self) -> u64 {
        self.synced_sequence
    }

    /// The caller needs no record of this group any more. [`Log::collect`] gives its space back.
    ///
    /// After a restart any of its records may be delivered again, so the caller writes down first
    /// that it forgets them. Appending to a forgotten group revives what is left of it.
    ///
    /// # Errors
    /// If the log is poisoned.
    pub fn forget(&mut self, group: u128) -> Result<(), SyncError> {
        if self.poisoned {
            return Err(SyncError::Poisoned);
        }
        self.segments.forget(group);
        self.garbage = true;
        Ok(())
    }

    /// Whether [`Log::collect`] may have something to do.
    #[must_use]
    pub fn has_garbage(&self) -> bool {
        self.garbage
    }

    /// Numbers of the segments on disk, oldest first; the last one is being written.
    pub fn segments(&self) -> impl Iterator<Item = u32> + '_ {
        self.segments.numbers()
    }

    /// A reader for any thread.
    #[must_use]
    pub fn reader(&self) -> LogReader {
        LogReader::new(Arc::clone(&self.storage), self.log_id)
    }

    /// The state files next to the log.
    #[must_use]
    pub fn state(&self) -> StateFiles {
        StateFiles::new(Arc::clone(&self.storage))
    }
}
