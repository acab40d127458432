//! A dataset on disk: the files of each table, and their batches. The upload and
//! `verify --recompute` read it.
//!
//! Files are ordered by name and always cut in the same way, so an interrupted client makes the
//! same batches with the same numbers when it continues.

mod batches;
mod scan;

pub use batches::{Batch, TableReader};
pub use scan::{compare, scan};
