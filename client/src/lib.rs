//! The Cortado client: upload, results, local cluster, generators; a library others can use.
//!
//! [`Cluster`] speaks to a cluster's nodes, [`generate`] makes datasets and [`local`] runs a cluster
//! of processes on this machine. [`cli`] is the command `cortado`, a thin layer on top.

pub mod cli;
mod cluster;
mod error;
mod files;
pub mod generate;
pub mod local;

pub use cluster::{Cluster, DEFAULT_PATIENCE, Target};
pub use error::Error;
