//! Starts a new or existing local cluster, and waits until its nodes see each other.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cortado_protocol::client::{ClientRequest, ClientResponse, ClusterView, MemberState};
use cortado_protocol::{NodeId, limits};

use super::folder::Wanted;
use super::grow::{grow, seed};
use super::{Durability, Folder, NodeFolder};
use crate::authorities::Authorities;
use crate::{Cluster, Error, Timing};

/// How long the nodes have to see each other.
const UP_DEADLINE: Duration = Duration::from_secs(30);
/// Pause between two requests to the nodes.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// Lines of each node's log in the error message.
const LOG_LINES: usize = 5;

/// The options of a new cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// Number of nodes.
    pub nodes: u16,
    /// Copies aimed at.
    pub replicas: u8,
    /// Copies needed before an acknowledgement.
    pub min_copies: u8,
    /// Timing of the failure detector.
    pub timing: Timing,
    /// Whether nodes start peers that have died.
    pub revive: bool,
    /// Whether clients may disturb the nodes (`cortado chaos`).
    pub allow_chaos: bool,
}

/// The outcome of a start.
#[derive(Clone, Debug)]
pub struct UpReport {
    /// The cluster's folder, which is also its profile.
    pub folder: PathBuf,
    /// Nodes that were started; the others were running already.
    pub started: Vec<NodeId>,
    /// The members as the first node sees them.
    pub view: ClusterView,
    /// How many failures the cluster survives.
    pub durability: Durability,
}

/// Makes a cluster in `path`, or starts the stopped nodes of an existing one, and waits until every
/// node sees every node alive.
///
/// # Errors
/// [`Error::BadInput`] for options that make no sense or an unsuitable folder;
/// [`Error::Unreachable`] with the end of the nodes' logs if they do not see each other in time.
pub async fn up(path: &Path, options: &Options) -> Result<UpReport, Error> {
    let folder = if Folder::exists(path) {
        let folder = Folder::open_locked(path)?;
        let nodes = folder.nodes()?.len();
        if nodes == 0 {
            // An earlier `up` was interrupted before it made the first node.
            grow(&folder, folder.wanted.expected_nodes)?;
        }
        folder
    } else {
        check(options)?;
        let wanted = Wanted {
            cluster: format!("local-{:08x}", seed() as u32),
            replicas: options.replicas,
            min_copies: options.min_copies,
            expected_nodes: options.nodes,
            timing: options.timing,
            reviver: if options.revive { "process" } else { "none" }.into(),
            allow_chaos: options.allow_chaos,
        };
        let folder = Folder::create(path, wanted)?;
        Authorities::make(&folder.authority(), &folder.wanted.cluster)?;
        grow(&folder, options.nodes)?;
        folder
    };
    start_all(&folder).await
}

/// Adds nodes to a running cluster, and waits until every node sees every node alive.
///
/// # Errors
/// Like [`up`].
pub async fn add(path: &Path, count: u16) -> Result<UpReport, Error> {
    let folder = Folder::open_locked(path)?;
    let nodes = folder.nodes()?.len();
    if count == 0 || nodes + usize::from(count) > limits::MEMBERS {
        return Err(Error::BadInput(format!(
            "--count {count}: a cluster has at most {} nodes, this one has {nodes}",
            limits::MEMBERS
        )));
    }
    grow(&folder, count)?;
    start_all(&folder).await
}

/// Starts one node and waits until it answers; returns whether it was started.
///
/// # Errors
/// Like [`up`].
pub async fn start(folder: &Folder, node: &NodeFolder) -> Result<bool, Error> {
    let started = node.start()?;
    let cluster = Cluster::from_folder(folder.path())?;
    let deadline = Instant::now() + UP_DEADLINE;
    while cluster_view(&cluster, node.client_addr()).await.is_none() {
        give_up(deadline, std::slice::from_ref(node), "does not answer")?;
        tokio::time::sleep(ASK_EVERY).await;
    }
    Ok(started)
}

fn check(options: &Options) -> Result<(), Error> {
    let Options { nodes, replicas, min_copies, .. } = *options;
    if nodes == 0 || usize::from(nodes) > limits::MEMBERS {
        return Err(Error::BadInput(format!("--nodes {nodes}: expected 1 to {}", limits::MEMBERS)));
    }
    if min_copies == 0 || min_copies > replicas {
        return Err(Error::BadInput(format!(
            "--min-copies {min_copies}: expected 1 to the number of replicas ({replicas})"
        )));
    }
    Ok(())
}

/// Starts all stopped nodes, and waits until every node sees every node alive.
async fn start_all(folder: &Folder) -> Result<UpReport, Error> {
    let nodes = folder.nodes()?;
    let mut started = Vec::new();
    for node in &nodes {
        if node.start()? {
            started.push(node.name());
        }
    }
    let cluster = Cluster::from_folder(folder.path())?;
    let deadline = Instant::now() + UP_DEADLINE;
    let mut waiting: Vec<&NodeFolder> = nodes.iter().collect();
    let mut first = None;
    while let Some(node) = waiting.last() {
        match cluster_view(&cluster, node.client_addr()).await {
            Some(view) if sees_all(&view, &nodes) => {
                first = Some(view);
                waiting.pop();
            }
            _ => {
                give_up(deadline, &nodes, "does not see every node alive")?;
                tokio::time::sleep(ASK_EVERY).await;
            }
        }
    }
    let view = first.ok_or_else(|| Error::BadInput("the cluster has no nodes".into()))?;
    let durability = Durability {
        nodes: nodes.len() as u16,
        replicas: view.replicas,
        min_copies: view.min_copies,
    };
    Ok(UpReport { folder: folder.path().to_owned(), started, view, durability })
}

async fn cluster_view(cluster: &Cluster, addr: SocketAddr) -> Option<ClusterView> {
    match cluster.ask(addr, &ClientRequest::Cluster, Duration::from_secs(2)).await {
        Ok((ClientResponse::Cluster(view), _)) => Some(view),
        _ => None,
    }
}

fn sees_all(view: &ClusterView, nodes: &[NodeFolder]) -> bool {
    let alive = |node: &NodeFolder| {
        view.members
            .iter()
            .any(|member| member.id == node.name() && member.state != MemberState::Down)
    };
    view.formed && nodes.iter().all(alive)
}

/// Ends the wait with an error that has the end of the nodes' logs: once the deadline has passed,
/// or at once if a process has ended.
fn give_up(deadline: Instant, nodes: &[NodeFolder], what: &str) -> Result<(), Error> {
    let dead = nodes.iter().find(|node| node.process().is_none());
    if dead.is_none() && Instant::now() < deadline {
        return Ok(());
    }
    let mut message = match dead {
        Some(node) => format!("{} has ended", node.name()),
        None => format!("after {} s, a node {what}", UP_DEADLINE.as_secs()),
    };
    for node in dead.map_or(nodes, std::slice::from_ref) {
        let tail = node.log_tail(LOG_LINES);
        message.push_str(&format!("\n--- {}\n{tail}", node.path().join("node.log").display()));
    }
    Err(Error::Unreachable(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_lowered_to_the_number_of_nodes_and_said() {
        let one = Durability::of(1, 3, 2);
        assert_eq!((one.replicas, one.min_copies), (1, 1));
        assert_eq!(one.sentence(), "1 node: nothing survives the loss of its disk");
        let two = Durability::of(2, 3, 2);
        assert_eq!((two.replicas, two.min_copies), (2, 2));
        let five = Durability::of(5, 3, 2);
        assert_eq!((five.replicas, five.min_copies), (3, 2));
        assert!(five.sentence().contains("fsync on 2 of 3; the loss of any 1 disk loses nothing"));
    }
}
