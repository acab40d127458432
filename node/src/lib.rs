//! The Cortado daemon: one binary for every role.
//!
//! This crate is the shell around the pure core (`cortado-core`). It moves bytes and reads clocks
//! and files; the core decides. The binary `cortado-node` uses it.

pub mod chaos;
pub mod clients;
pub mod clock;
pub mod config;
pub mod disk;
pub mod driver;
pub mod gossip;
pub mod health;
pub mod history;
pub mod http;
pub mod keeper;
mod lock;
pub mod logging;
pub mod machine;
pub mod meters;
pub mod peers;
mod refused;
pub mod revive;
pub mod scrub;
pub mod seldom;
pub mod start;
pub mod supervision;
pub mod watch;
pub mod webhooks;
pub mod words;
pub mod workers;
