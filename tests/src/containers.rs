//! Clusters in containers, made as users make them: by `scripts/compose.sh` and `docker compose`, or
//! `docker-compose`. Nodes bring each other back by the engine's socket.
//!
//! Names and ports are free ones, and whatever happens in a test, its containers, network and volumes
//! are removed; nothing else is ever touched. If the test failed, the end of each node's log is printed
//! first. Clusters take turns with those of processes. Where no engine answers, tests say that they
//! were skipped, or fail if `CORTADO_REQUIRE_DOCKER=1`.

mod engine;
mod faults;
mod healing;
mod image;
mod janitor;
mod nodes;
mod own_engine;
mod proxy;
mod repository;

pub use healing::Hit;
use nodes::WHOLE;
pub use nodes::{Containers, State, compose_files};
pub use own_engine::OwnEngine;
use repository::repository;
