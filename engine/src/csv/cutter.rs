//! Batch boundaries: the same for the same file, however its bytes arrive.
//!
//! A batch is the longest run of whole records within the target size, and at least one record.
//! Every decision needs only the bytes after the last cut, so it never depends on earlier chunks.

use cortado_protocol::limits::{BATCH_TARGET_BYTES, RECORD_BYTES};
use memchr::{memchr, memchr_iter, memrchr};

use super::scan::{Scan, scan_record};

/// What to do with the first bytes of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The next `len` bytes are one batch.
    Batch {
        /// Length in bytes, at least 1, at most [`RECORD_BYTES`] + 1 or the target.
        len: usize,
        /// Line breaks in it.
        lines: u64,
    },
    /// The next `len` bytes belong to no batch: they are the rest of a line beyond
    /// [`RECORD_BYTES`], whose first part was the batch before (and will be rejected as one row).
    Skip {
        /// Length in bytes, at least 1.
        len: usize,
        /// Line breaks in it.
        lines: u64,
    },
    /// The buffer must hold [`Cutter::window`] bytes, or the rest of the file, first.
    NeedMore,
    /// Nothing is left.
    End,
}

/// Cuts the records of one file into batches. Start it after the header.
///
/// ```
/// use cortado_engine::csv::{Cut, Cutter};
///
/// let mut cutter = Cutter::new(8);
/// let mut rest = &b"1,2\n3,4\n5,6"[..];
/// let mut batches = Vec::new();
/// while let Cut::Batch { len, .. } = cutter.next(rest, true) {
///     batches.push(&rest[..len]);
///     rest = &rest[len..];
/// }
/// assert_eq!(batches, [&b"1,2\n3,4\n"[..], b"5,6"]);
/// ```
#[derive(Clone, Debug)]
pub struct Cutter {
    target: usize,
    skipping: bool,
}

impl Default for Cutter {
    fn default() -> Self {
        Self::new(BATCH_TARGET_BYTES)
    }
}

impl Cutter {
    /// A cutter that aims at batches of `target` bytes, 1 to [`BATCH_TARGET_BYTES`].
    #[must_use]
    pub fn new(target: usize) -> Self {
        Self { target: target.clamp(1, BATCH_TARGET_BYTES), skipping: false }
    }

    /// Bytes the buffer must hold, unless the file ends with it, before a cut is decided.
    #[must_use]
    pub const fn window(&self) -> usize {
        RECORD_BYTES + 1
    }

    /// Decides about the first bytes of `buffer`, which starts where the last cut ended; `eof` says
    /// that the file ends with it.
    pub fn next(&mut self, buffer: &[u8], eof: bool) -> Cut {
        if buffer.is_empty() {
            return if eof { Cut::End } else { Cut::NeedMore };
        }
        if self.skipping {
            return self.skip(buffer);
        }
        if !eof && buffer.len() < self.window() {
            return Cut::NeedMore;
        }
        if eof && buffer.len() <= self.target && memchr(b'"', buffer).is_none() {
            return batch(buffer, buffer.len());
        }
        let window = &buffer[..buffer.len().min(self.target)];
        let whole = match memchr(b'"', window) {
            None => memrchr(b'\n', window).map_or(0, |at| at + 1),
            Some(_) => whole_records(buffer, window.len(), eof),
        };
        if whole > 0 { batch(buffer, whole) } else { self.first_record(buffer) }
    }

    /// The first record alone, which does not end within the target.
    fn first_record(&mut self, buffer: &[u8]) -> Cut {
        let limit = buffer.len().min(RECORD_BYTES);
        match scan_record(&buffer[..limit], 0, |_| ()) {
            Scan::Record(end) => return batch(buffer, end),
            Scan::TextEnd if limit == buffer.len() => return batch(buffer, limit),
            Scan::TextEnd | Scan::Open => {}
        }
        // Too long, or a quote that is never closed: only its first line is given up.
        let longest = buffer.len().min(RECORD_BYTES + 1);
        match memchr(b'\n', &buffer[..longest]) {
            Some(line_end) => batch(buffer, line_end + 1),
            None => {
                self.skipping = longest < buffer.len();
                batch(buffer, longest)
            }
        }
    }

    fn skip(&mut self, buffer: &[u8]) -> Cut {
        match memchr(b'\n', buffer) {
            Some(line_end) => {
                self.skipping = false;
                Cut::Skip { len: line_end + 1, lines: 1 }
            }
            None => Cut::Skip { len: buffer.len(), lines: 0 },
        }
    }
}

/// Length of the whole records within the first `target` bytes; at the end of the file the last
/// record needs no line break.
fn whole_records(buffer: &[u8], target: usize, eof: bool) -> usize {
    let mut whole = 0;
    while whole < target {
        let end = match scan_record(buffer, whole, |_| ()) {
            Scan::Record(end) => end,
            Scan::TextEnd if eof => buffer.len(),
            Scan::TextEnd | Scan::Open => break,
        };
        if end > target {
            break;
        }
        whole = end;
    }
    whole
}

fn batch(buffer: &[u8], len: usize) -> Cut {
    Cut::Batch { len, lines: memchr_iter(b'\n', &buffer[..len]).count() as u64 }
}
