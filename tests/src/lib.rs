//! End-to-end, simulation and fault tests of Cortado.
//!
//! - [`sim`] runs the shipped cores, detectors and logs with a virtual clock, a simulated network
//!   and simulated disks: one seed gives one run.
//! - [`cluster`] runs the real programs as processes, [`containers`] runs them in containers.
//! - [`oracle`] computes the expected results.
//! - [`storm`] kills nodes for minutes, [`outage`] measures how long dead nodes are missed,
//!   [`chaos`] makes random faults of every kind.
//! - [`kernel`] filters ports and freezes disks, [`intruder`] breaks the protocols, [`forger`]
//!   forges addresses.

pub mod browser;
pub mod chaos;
pub mod cluster;
pub mod containers;
pub mod forger;
pub mod intruder;
pub mod kernel;
pub mod oracle;
pub mod outage;
pub mod sim;
pub mod storm;
