//! Made-up datasets, the same bytes for the same options on every machine.
//!
//! Every file has a random stream of its own, seeded by the seed and the file's name, so files can
//! be written in parallel and a month's content does not depend on the other months.

pub mod coffee;
mod random;
mod writer;

pub use random::Random;
pub use writer::CsvWriter;
