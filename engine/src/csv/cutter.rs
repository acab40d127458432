//! Batch boundaries. The client cuts files with it; a file always gives the same batches, however
//! its bytes arrive.
//!
//! A batch is the longest run of whole records within the target size, and at least one record.
//! Each decision needs only the bytes after the last cut, so it never depends on earlier chunks.

use cortado_protocol::limits::{BATCH_TARGET_BYTES, RECORD_BYTES};
use memchr::{memchr, memchr_iter, memrchr};

use super::scan::{Scan, scan_record};

/// How far the cutter looks for the end of a record beyond [`RECORD_BYTES`]. A quote that is still
/// open there counts as one that is never closed, so that a stray quote does not consume the rest
/// of the file.
const LOOK_BYTES: usize = 64 << 20;

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
    /// The next `len` bytes belong to no batch. They are the rest of a record beyond
    /// [`RECORD_BYTES`]; the batch before holds its first part, which is rejected as one row.
    Skip {
        /// Length in bytes, at least 1.
        len: usize,
        /// Line breaks in it.
        lines: u64,
    },
    /// First the buffer must hold [`Cutter::window`] bytes, or the rest of the file.
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
    window: usize,
    skip: Rest,
}

/// The rest of a record beyond [`RECORD_BYTES`]: a number of bytes, and then, if the end is not
/// known yet, everything up to and including the next line break.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rest {
    bytes: usize,
    line: bool,
}

impl Default for Cutter {
    fn default() -> Self {
        Self::new(BATCH_TARGET_BYTES)
    }
}

impl Cutter {
    /// A cutter that aims for batches of `target` bytes, 1 to [`BATCH_TARGET_BYTES`].
    #[must_use]
    pub fn new(target: usize) -> Self {
        Self {
            target: target.clamp(1, BATCH_TARGET_BYTES),
            window: RECORD_BYTES + 1,
            skip: Rest::default(),
        }
    }

    /// Bytes that the buffer must hold before a cut, unless the file ends there: a little more than
    /// [`RECORD_BYTES`], and more only while the end of a longer record is unknown.
    #[must_use]
    pub const fn window(&self) -> usize {
        self.window
    }

    /// Decides what to do with the first bytes of `buffer`, which starts where the last cut ended;
    /// `eof` says that the file ends with it.
    pub fn next(&mut self, buffer: &[u8], eof: bool) -> Cut {
        if buffer.is_empty() {
            return if eof { Cut::End } else { Cut::NeedMore };
        }
        if self.skip != Rest::default() {
            return self.skip(buffer);
        }
        if !eof && buffer.len() < self.window {
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
        if whole > 0 { batch(buffer, whole) } else { self.first_record(buffer, eof) }
    }

    /// Cuts the first record alone, because it does not end within the target.
    fn first_record(&mut self, buffer: &[u8], eof: bool) -> Cut {
        let look = buffer.len().min(LOOK_BYTES);
        let (end, line) = match scan_record(&buffer[..look], 0, |_| ()) {
            Scan::Record(end) => (end, false),
            Scan::TextEnd if eof && look == buffer.len() => (look, false),
            Scan::TextEnd | Scan::Open if !eof && look < LOOK_BYTES => {
                self.window = (2 * look).min(LOOK_BYTES);
                return Cut::NeedMore;
            }
            Scan::TextEnd => (look, true),
            Scan::Open => return self.first_line(buffer),
        };
        self.window = RECORD_BYTES + 1;
        if end <= RECORD_BYTES { batch(buffer, end) } else { self.too_long(buffer, end, line) }
    }

    /// Handles a quote that is never closed: only its line is rejected.
    fn first_line(&mut self, buffer: &[u8]) -> Cut {
        self.window = RECORD_BYTES + 1;
        let longest = buffer.len().min(RECORD_BYTES + 1);
        match memchr(b'\n', &buffer[..longest]) {
            Some(line_end) => batch(buffer, line_end + 1),
            None if longest <= RECORD_BYTES => batch(buffer, longest),
            None => self.too_long(buffer, longest, true),
        }
    }

    /// Cuts one byte more than a record may have: the batch stands for the whole record and is
    /// rejected. The record ends at `end`, or at the end of the line that contains `end`.
    fn too_long(&mut self, buffer: &[u8], end: usize, line: bool) -> Cut {
        self.skip = Rest { bytes: end - (RECORD_BYTES + 1), line };
        batch(buffer, RECORD_BYTES + 1)
    }

    fn skip(&mut self, buffer: &[u8]) -> Cut {
        let mut len = self.skip.bytes.min(buffer.len());
        self.skip.bytes -= len;
        if self.skip.bytes == 0 && self.skip.line {
            let line_end = memchr(b'\n', &buffer[len..]);
            self.skip.line = line_end.is_none();
            len = line_end.map_or(buffer.len(), |at| len + at + 1);
        }
        Cut::Skip { len, lines: line_breaks(&buffer[..len]) }
    }
}

/// Length of the whole records within the first `target` bytes. The last record of a file needs no
/// line break.
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
    Cut::Batch { len, lines: line_breaks(&buffer[..len]) }
}

fn line_breaks(bytes: &[u8]) -> u64 {
    memchr_iter(b'\n', bytes).count() as u64
}
