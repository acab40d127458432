//! Generated datasets: the same options give the same bytes on every machine. `cortado gen` uses
//! it.
//!
//! Every file has its own random stream, seeded by the seed and the file's name, so files can be
//! written in parallel and a month's content does not depend on the other months.

pub mod coffee;
pub mod events;
mod random;
mod uuids;
mod writer;

pub use random::Random;
pub use writer::CsvWriter;
