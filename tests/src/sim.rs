//! The simulator: shipped cores, detectors, logs and engine under a virtual clock.
//!
//! One heap has all events, ordered by time and number; every random choice comes from one seeded
//! generator. So a seed determines the run: the same trace, byte for byte. A simulated second costs
//! only what its events cost; waiting costs nothing.
//!
//! The model: links deliver in order and lose everything in flight when they break (QUIC repairs
//! loss, so what a stream sees of a bad network is delay and breaks); datagrams are lost, doubled
//! and reordered; a crash keeps any subset of what a disk had not synced.

mod actor;
mod checks;
mod client;
mod copies;
mod data;
mod dials;
mod disk;
mod event;
mod faults;
mod gossip;
mod links;
mod net;
mod node;
mod requests;
mod shrink;
mod stream;
mod world;

pub use data::Dataset;
pub use dials::{Dials, Fault, Outcome};
pub use shrink::{Shrunk, shrink};
pub use world::World;
