//! Clusters in containers, made as users make them: with `scripts/compose.sh` and `docker compose`,
//! or `docker-compose`. The nodes bring each other back through the engine's socket.
//!
//! Names and ports are free ones. After a test, its containers, network and volumes are removed,
//! and nothing else is ever touched. If the test failed, the end of each node's log is printed
//! first. Clusters of processes and of containers take turns. Without an engine, the tests print
//! that they were skipped, or fail if `CORTADO_REQUIRE_DOCKER=1`.

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
