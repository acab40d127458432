//! Trouble made on purpose, to see how a cluster bears it: processes are killed and paused, networks
//! cut and disturbed, disks filled. Nodes disturb themselves, below QUIC, if they were started with
//! `--allow-chaos`; they heal by themselves when the time is over.

mod cluster;
mod fault;
mod machines;
mod weather;

pub use cluster::Chaos;
pub use fault::{Fault, Kind, Way};
pub use weather::{Act, Weather};
