//! Space reclamation. The log deletes segments without live records. If little of a segment is
//! live, the log copies that part to its end first (as in Rosenblum and Ousterhout, "The Design and
//! Implementation of a Log-Structured File System", SOSP 1991, section 3).
//!
//! A copied segment stays until [`Log::release`], so the caller can update its index first. After a
//! crash before that, a start delivers both copies.

use std::io;

use bytes::Bytes;

use crate::error::{AppendError, SyncError};
use crate::format::{RecordRef, segment_name};
use crate::log::Log;
use crate::scan::Scanner;
use crate::storage::len_of;

/// A record that was copied to the end of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// Its old place, readable until the segment is released.
    pub from: RecordRef,
    /// Its new place.
    pub to: RecordRef,
    /// The caller's kind of record.
    pub kind: u8,
    /// The first part of its payload, as a start delivers it.
    pub head: Bytes,
}

/// A segment whose live records were copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collected {
    /// The segment.
    pub segment: u32,
    /// Its live records. All copies are durable.
    pub moved: Vec<Moved>,
}

impl Log {
    /// Takes the next step of space reclamation: deletes all segments without live records, then copies
    /// the live records of one sparse segment. Call it until it returns `None`.
    ///
    /// # Errors
    /// If the disk fails; the log is poisoned.
    pub fn collect(&mut self) -> Result<Option<Collected>, SyncError> {
        if self.poisoned {
            return Err(SyncError::Poisoned);
        }
        if !std::mem::take(&mut self.garbage) {
            return Ok(None);
        }
        let collected = self.collect_one().map_err(|error| self.poison(error))?;
        // Another segment may be sparse.
        self.garbage = collected.is_some();
        if collected.is_some() {
            self.sync()?;
        }
        Ok(collected)
    }

    fn collect_one(&mut self) -> io::Result<Option<Collected>> {
        let current = self.current.segment;
        if self.segments.is_sparse(current) && self.current.is_worth_rotating() {
            // On a full disk it goes with a later rotation.
            unless_full(self.rotate(0, 0, 0))?;
        }
        self.delete(self.segments.deletable(self.current.segment))?;
        let Some(segment) = self.segments.sparse(self.current.segment) else { return Ok(None) };
        let mut moved = Vec::new();
        for (record, head) in self.live_records(segment)? {
            // On a full disk the records copied so far are there twice until space returns.
            let Some(copied) = unless_full(self.copy(record, head))? else { return Ok(None) };
            moved.extend(copied);
        }
        self.segments.copied(segment);
        tracing::debug!(segment, records = moved.len(), "copied what lives of a log segment");
        Ok(Some(Collected { segment, moved }))
    }

    /// The live records of a sealed segment, and how long their heads are.
    fn live_records(&self, segment: u32) -> io::Result<Vec<(RecordRef, u32)>> {
        let mut live = Vec::new();
        if let Some(footer) = self.reader().footer(segment)? {
            let records =
                footer.records().filter(|listed| self.segments.is_live(listed.meta.group));
            live.extend(records.map(|listed| (listed.record, listed.head.len() as u32)));
            return Ok(live);
        }
        let len = len_of(&*self.storage, &segment_name(segment))?.ok_or(io::ErrorKind::NotFound)?;
        let mut scanner = Scanner::new(&*self.storage, self.log_id, segment, len);
        let mut from = 0;
        while let Some(found) = scanner.search(from, |_| true)? {
            from = found.end();
            if self.segments.is_live(found.header.meta.group) {
                live.push((found.record(segment), found.header.head));
            }
        }
        Ok(live)
    }

    /// Copies a record to the end of the log, unless the record can't be read.
    fn copy(&mut self, from: RecordRef, head: u32) -> Result<Option<Moved>, AppendError> {
        let (meta, payload) = match self.reader().read(from) {
            Ok(read) => read,
            Err(error) => {
                tracing::error!(?from, %error, "a record is damaged and goes with its segment");
                return Ok(None);
            }
        };
        let head = payload.slice(..(head as usize).min(payload.len()));
        let rest = payload.slice(head.len()..);
        let to = self.append_reserved(meta.kind, meta.group, meta.wall_ms, &[&head, &rest])?;
        Ok(Some(Moved { from, to, kind: meta.kind, head }))
    }

    /// Deletes a segment whose records were copied. The caller does not read it any more.
    ///
    /// # Errors
    /// If the disk fails; the log is poisoned.
    pub fn release(&mut self, segment: u32) -> Result<(), SyncError> {
        if self.poisoned {
            return Err(SyncError::Poisoned);
        }
        if !self.segments.is_copied(segment) {
            return Ok(());
        }
        self.delete(vec![segment]).map_err(|error| self.poison(error))
    }

    fn delete(&mut self, segments: Vec<u32>) -> io::Result<()> {
        if segments.is_empty() {
            return Ok(());
        }
        for segment in segments {
            self.storage.delete(&segment_name(segment))?;
            self.segments.remove(segment);
            tracing::debug!(segment, "deleted a log segment");
        }
        self.storage.sync_dir()
    }
}

/// `None` if the disk is full.
fn unless_full<T>(result: Result<T, AppendError>) -> io::Result<Option<T>> {
    match result {
        Ok(done) => Ok(Some(done)),
        Err(AppendError::Full) => Ok(None),
        Err(AppendError::Io(error)) => Err(error),
        Err(error) => Err(io::Error::other(error)),
    }
}
