//! A dataset on disk: which files belong to which table, and their batches.
//!
//! Files are ordered by name and cut the same way every time, so a client that was interrupted makes
//! the same batches with the same numbers when it returns.

mod batches;
mod scan;

pub use batches::{Batch, TableReader};
pub use scan::{compare, scan};
