//! CSV: RFC 4180, and what real exports add to it.
//!
//! A byte-order mark is skipped, lines end in CRLF or LF or with the file, blank lines are no
//! records, and a quote opens a quoted field only at the start of a field. Text between a closing
//! quote and the next separator is kept as it is.

mod cutter;
mod header;
mod scan;
mod separators;

pub use cutter::{Cut, Cutter};
pub use header::{HeaderRead, HeaderReadError, read_header};
pub(crate) use scan::{Field, Scan, scan_record};
pub(crate) use separators::{BREAK, separators};
