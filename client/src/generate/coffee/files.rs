//! The options of the dataset, and the list of written files.

use std::path::{Path, PathBuf};

use super::calendar::Month;
use crate::Error;

/// The options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoffeeOptions {
    /// Months of sales, without repetition.
    pub months: Vec<Month>,
    /// Transactions in each month.
    pub transactions_per_month: u64,
    /// Registered customers.
    pub users: u64,
    /// The seed; the same options give the same bytes.
    pub seed: u64,
}

/// A written file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct WrittenFile {
    /// Path below the dataset's directory.
    pub name: String,
    /// Data rows.
    pub rows: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// Adds the path to an I/O error.
pub(super) fn at<T>(path: &Path, result: std::io::Result<T>) -> Result<T, Error> {
    result.map_err(|source| Error::io("write", path, source))
}

/// The path of a file of the dataset.
pub(super) fn path_of(out: &Path, name: &str) -> PathBuf {
    out.join(name)
}
