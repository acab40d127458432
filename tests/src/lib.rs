//! End-to-end, simulation and fault tests of Cortado.
//!
//! [`sim`] runs the shipped cores, detectors and logs under a virtual clock, a simulated network and
//! simulated disks: one seed, one run. [`cluster`] runs the real programs as processes, [`containers`]
//! runs them in containers, [`oracle`] computes what they must come to, [`storm`] kills them for
//! minutes, [`outage`] measures how long a dead one is missed, [`chaos`] makes trouble of every kind,
//! the [`kernel`] filters their ports and freezes their disks, an [`intruder`] knocks at their doors,
//! and a [`forger`] does so in the name of others.

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
