//! End-to-end, simulation and fault tests of Cortado.
//!
//! [`sim`] runs the shipped cores, detectors and logs under a virtual clock, a simulated network and
//! simulated disks: one seed, one run. [`cluster`] runs the real programs as processes, [`containers`]
//! runs them in containers, [`oracle`] computes what they must come to, [`storm`] kills them for
//! minutes, [`chaos`] makes trouble of every kind, and an [`intruder`] knocks at their doors.

pub mod chaos;
pub mod cluster;
pub mod containers;
pub mod intruder;
pub mod oracle;
pub mod sim;
pub mod storm;
