//! End-to-end, simulation and fault tests of Cortado.
//!
//! [`sim`] runs the shipped cores, detectors and logs under a virtual clock, a simulated network and
//! simulated disks: one seed, one run.

pub mod sim;
