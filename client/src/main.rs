//! The Cortado client: upload, results, local cluster, generators; a library others can use.
fn main() {}
