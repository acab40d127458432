//! The processes of a local cluster: which nodes run, and which were stopped on purpose.
//!
//! Each node has a folder ([`Place`]) with its configuration, log and process id. The command line
//! starts and stops nodes there, and so do nodes that bring back their peers. Each of them holds
//! the folder's lock while it starts a node, so a node is started only once.

mod place;
mod process;

pub use place::{By, Place, Start};
pub use process::ProcessId;
