//! Names of files that every result has.

/// Name of the receipt among the result files.
pub const RECEIPT_FILE: &str = "receipt.json";
