//! Faults made on purpose, to test a cluster: processes are killed and paused, networks cut and
//! disturbed, disks filled. `cortado chaos` uses it. Nodes that were started with `--allow-chaos`
//! disturb themselves, below QUIC, and stop when the time is over.

mod cluster;
mod fault;
mod machines;
mod weather;

pub use cluster::Chaos;
pub use fault::{Fault, Kind, Way};
pub use weather::{Act, Weather};
