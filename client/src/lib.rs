//! The Cortado client as a library: upload, results, local cluster, generators.
//!
//! [`Cluster`] sends requests to a cluster's nodes, [`generate`] makes datasets, and [`local`] runs
//! a cluster of processes on this machine. [`cli`] is the command `cortado`, a thin layer on top.
//! Tests and tools use the library, too.

mod authorities;
pub mod chaos;
pub mod cli;
mod cluster;
pub mod dataset;
mod error;
pub mod events;
mod files;
pub mod generate;
pub mod history;
pub mod init;
pub mod job;
pub mod local;
mod progress;
pub mod publish;
pub mod result;
mod status;
pub mod stream;
mod timing;
mod upload;
pub mod verify;

pub use cluster::{Cluster, DEFAULT_PATIENCE, Target};
pub use error::Error;
pub use progress::{Observer, Progress};
pub use timing::Timing;
pub use upload::{TableWork, upload};
