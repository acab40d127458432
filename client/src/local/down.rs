//! Stops a local cluster or one of its nodes.

use std::path::Path;
use std::time::{Duration, Instant};

use cortado_protocol::NodeId;
use rustix::process::Signal;

use super::{Folder, NodeFolder};
use crate::Error;

/// How long a node has to stop before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// How long a node has to hand its data over before it is killed.
const DRAIN_LIMIT: Duration = Duration::from_secs(120);

/// How a node stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The node.
    pub node: NodeId,
    /// Whether it stopped by itself, so that it was not killed.
    pub by_itself: bool,
}

/// Stops all nodes at once (SIGINT: a fast stop that keeps the data), kills those that do not stop
/// in time, and deletes the cluster if `wipe`.
///
/// # Errors
/// [`Error::BadInput`] if there is no cluster, [`Error::Unreachable`] if a process does not end.
pub fn down(path: &Path, wipe: bool) -> Result<Vec<Ended>, Error> {
    let folder = Folder::open_locked(path)?;
    let nodes = folder.nodes()?;
    // Marks all nodes first: a node that still runs would start a stopped one.
    for node in &nodes {
        node.retire()?;
    }
    let running: Vec<_> = nodes.iter().filter_map(|node| Some((node, node.process()?))).collect();
    for (_, process) in &running {
        let _ = process.signal(Signal::INT);
        // A paused process handles no signal until it is resumed.
        let _ = process.signal(Signal::CONT);
    }
    let deadline = Instant::now() + STOP_LIMIT;
    let mut ended = Vec::new();
    for (node, process) in &running {
        let by_itself = process.wait_end(deadline.saturating_duration_since(Instant::now()));
        if !by_itself && process.is_running() {
            node.kill()?;
        }
        ended.push(Ended { node: node.name(), by_itself });
    }
    if wipe {
        folder.wipe()?;
    }
    Ok(ended)
}

/// Makes a node hand its data over and leave (SIGTERM), and waits for its end. It stays down until
/// the operator starts it.
///
/// # Errors
/// [`Error::BadInput`] if it does not run.
pub fn stop(node: &NodeFolder) -> Result<Ended, Error> {
    node.retire()?;
    let by_itself = node.end(Signal::TERM, DRAIN_LIMIT)?;
    Ok(Ended { node: node.name(), by_itself })
}
