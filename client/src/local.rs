//! A cluster of real node processes on this machine, without containers. `cortado local` and tests
//! use it.
//!
//! A cluster is a folder: `cluster.toml` (the options), `authority/` (both certificate
//! authorities), `node-K/` (configuration, certificate, data, log and process id of each node) and,
//! at the top, the profile that clients use (`--cluster DIR`). Nodes continue to run after the
//! command that started them has ended.

mod down;
mod durability;
mod folder;
mod grow;
mod logs;
mod nodes;
mod ports;
mod up;

pub use cortado_local::ProcessId;
pub use down::{Ended, down, stop};
pub use durability::Durability;
pub use folder::Folder;
pub use nodes::NodeFolder;
pub use up::{Options, UpReport, add, start, up};
