//! CSV: RFC 4180 with the additions of real exports. Clients cut files with it, and nodes decode
//! batches with it.
//!
//! A byte-order mark is skipped, lines end in CRLF or LF or at the end of the file, blank lines are
//! not records, and a quote opens a quoted field only at the start of a field. Text between a
//! closing quote and the next separator is kept.

mod cutter;
mod header;
mod scan;
mod separators;

pub use cutter::{Cut, Cutter};
pub use header::{HeaderRead, HeaderReadError, read_header};
pub(crate) use scan::{Field, Scan, scan_record};
pub(crate) use separators::{BREAK, separators};
