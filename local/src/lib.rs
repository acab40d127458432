//! The processes of a local cluster: who runs, who starts them, who was stopped on purpose.
//!
//! A node has a folder ([`Place`]) in which its configuration, log and process id lie. The command
//! line starts and stops nodes there, and so do nodes that bring their peers back; whoever does it
//! holds the folder's lock, so that a node is started once.

mod place;
mod process;

pub use place::{By, Place, Start};
pub use process::ProcessId;
