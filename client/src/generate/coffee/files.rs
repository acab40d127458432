//! What to generate, and the files that were written.

use std::path::{Path, PathBuf};

use super::calendar::Month;
use crate::Error;

/// What to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoffeeOptions {
    /// Months of sales, without repetition.
    pub months: Vec<Month>,
    /// Transactions in each of them.
    pub transactions_per_month: u64,
    /// Registered customers.
    pub users: u64,
    /// Seed: the same options give the same bytes.
    pub seed: u64,
}

/// A file that was written.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct WrittenFile {
    /// Path below the dataset's directory.
    pub name: String,
    /// Data rows.
    pub rows: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// Turns an I/O error at a path into ours.
pub(super) fn at<T>(path: &Path, result: std::io::Result<T>) -> Result<T, Error> {
    result.map_err(|source| Error::io("write", path, source))
}

/// Where a file of the dataset lies.
pub(super) fn path_of(out: &Path, name: &str) -> PathBuf {
    out.join(name)
}
