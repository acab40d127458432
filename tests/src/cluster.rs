//! Clusters of real processes: the programs `cortado` and `cortado-node` as users run them, on free
//! ports of the loopback interface, in a temporary folder.
//!
//! Dropping a [`Cluster`] kills its processes by id; if the test failed, it first prints the end of
//! each node's log. Only one cluster runs on a machine at a time, also among different test
//! processes: their failure detectors need the processor.

mod beside;
mod client;
mod coffee;
mod command;
mod disks;
mod faults;
mod http;
mod naming;
mod processes;
mod shim;
mod stream;
mod turn;
mod wait;
mod watch;
mod webhook;

pub use beside::alongside;
pub use client::Client;
pub use coffee::{Coffee, Shape};
pub(crate) use command::programs;
pub use command::{Cortado, Finished, Running, path_text, program};
pub use http::{Answer, Http, Sent};
pub use naming::{job_id, uploaded_percent};
pub use processes::Cluster;
pub use shim::{FailingSync, StarterKiller};
pub use stream::{plain_events, short_windows};
pub use wait::{Deadline, wait_for};
pub use watch::Watched;
pub use webhook::Webhook;

pub(crate) use turn::Turn;
