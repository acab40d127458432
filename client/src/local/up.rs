//! Making, starting and growing a local cluster.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cortado_protocol::client::{ClientRequest, ClientResponse, ClusterView, MemberState};
use cortado_protocol::{NodeId, limits};
use cortado_transport::{Authority, Profile, Role};
use serde::Serialize;

use super::folder::Wanted;
use super::nodes::{LOOPBACK, NodeConfig, TlsConfig};
use super::{Folder, NodeFolder, ports};
use crate::generate::Random;
use crate::{Cluster, Error};

/// How long the nodes have to see each other.
const UP_DEADLINE: Duration = Duration::from_secs(30);
/// How often they are asked.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// Lines of each node's log in the message when they do not.
const LOG_LINES: usize = 5;
/// Up to this many cores the failure detector is given more time.
const SHARED_CORES: usize = 4;
/// Names of the authorities' files.
const PEER_AUTHORITY: &str = "peer";
const CLIENT_AUTHORITY: &str = "client";

/// What a new cluster should be.
#[derive(Clone, Debug)]
pub struct Options {
    /// Number of nodes.
    pub nodes: u16,
    /// Copies aimed at.
    pub replicas: u8,
    /// Copies needed before an acknowledgement.
    pub min_copies: u8,
}

/// How many copies of each batch there are, given the number of nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Durability {
    /// Nodes of the cluster.
    pub nodes: u16,
    /// Copies aimed at.
    pub replicas: u8,
    /// Copies needed before an acknowledgement.
    pub min_copies: u8,
}

impl Durability {
    /// The copies that `nodes` nodes can hold of those wanted.
    #[must_use]
    pub fn of(nodes: u16, replicas: u8, min_copies: u8) -> Self {
        let most = u8::try_from(nodes).unwrap_or(u8::MAX).max(1);
        let replicas = replicas.clamp(1, most);
        Self { nodes, replicas, min_copies: min_copies.clamp(1, replicas) }
    }

    /// What survives, in a sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let nodes = if self.nodes == 1 { "1 node".into() } else { format!("{} nodes", self.nodes) };
        let (copies, replicas) = (self.min_copies, self.replicas);
        match copies - 1 {
            0 if self.nodes == 1 => format!("{nodes}: nothing survives the loss of its disk"),
            0 => format!(
                "{nodes}: acknowledged by fsync on 1 of {replicas}; the loss of one disk may lose data"
            ),
            lost => format!(
                "{nodes}: acknowledged by fsync on {copies} of {replicas}; the loss of any {lost} \
                 {} loses nothing",
                if lost == 1 { "disk" } else { "disks" }
            ),
        }
    }
}

/// What came up.
#[derive(Clone, Debug)]
pub struct UpReport {
    /// The cluster's folder, which is also its profile.
    pub folder: PathBuf,
    /// Nodes that were started, the others ran already.
    pub started: Vec<NodeId>,
    /// The members as the first node sees them.
    pub view: ClusterView,
    /// What survives.
    pub durability: Durability,
}

/// Makes a cluster in `path`, or starts what does not run of the one that is there, and waits until
/// every node sees every node alive.
///
/// # Errors
/// [`Error::BadInput`] for senseless options or an unsuitable folder; [`Error::Unreachable`] with the
/// end of the nodes' logs if they do not find each other in time.
pub async fn up(path: &Path, options: &Options) -> Result<UpReport, Error> {
    let folder = if Folder::exists(path) {
        let folder = Folder::open_locked(path)?;
        let nodes = folder.nodes()?.len();
        if nodes == 0 {
            // An earlier `up` was interrupted before it had made the first node.
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
        };
        let folder = Folder::create(path, wanted)?;
        for (role, name) in [(Role::Peer, PEER_AUTHORITY), (Role::Client, CLIENT_AUTHORITY)] {
            let authority = Authority::generate(&folder.wanted.cluster, role).map_err(internal)?;
            let (certificate, key) = authority_files(&folder, name);
            authority.save(&certificate, &key).map_err(internal)?;
        }
        grow(&folder, options.nodes)?;
        folder
    };
    start_all(&folder).await
}

/// Adds nodes to a running cluster and waits until all see all.
///
/// # Errors
/// As [`up`].
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

/// Starts one node and waits until it answers; returns whether it had to be started.
///
/// # Errors
/// As [`up`].
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
    let Options { nodes, replicas, min_copies } = *options;
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

/// Makes `count` more nodes and tells the profile of them.
fn grow(folder: &Folder, count: u16) -> Result<(), Error> {
    let mut nodes = folder.nodes()?;
    let existing = nodes.len();
    let durability = match nodes.first() {
        // A running cluster keeps its number of copies: all nodes must agree on it.
        Some(node) => (node.config.replicas, node.config.min_copies),
        None => {
            let all = Durability::of(count, folder.wanted.replicas, folder.wanted.min_copies);
            (all.replicas, all.min_copies)
        }
    };
    let mut taken: BTreeSet<u16> = nodes.iter().flat_map(NodeFolder::ports).collect();
    let mut random = Random::new(seed(), "ports");
    let first = nodes.last().and_then(number).unwrap_or(0) + 1;
    for index in first..first + count {
        let draw = |bound: u16| random.below(u64::from(bound)) as u16;
        let free = ports::pick(ports::PER_NODE, &taken, draw).ok_or_else(|| {
            Error::Unreachable("no free UDP ports found on the loopback interface".into())
        })?;
        taken.extend(free.clone());
        let name = format!("node-{index}").parse().expect("a valid node name");
        let config = config(folder, name, free.start, durability);
        nodes.push(NodeFolder::create(folder.path(), config)?);
    }
    let join: Vec<String> = nodes.iter().map(NodeFolder::gossip_address).collect();
    let authority = load_authority(folder, PEER_AUTHORITY)?;
    let client_ca = load_authority(folder, CLIENT_AUTHORITY)?;
    for node in &mut nodes[existing..] {
        node.config.join.clone_from(&join);
        let issued = authority
            .issue_node(node.name(), &["localhost".into()], &[LOOPBACK])
            .map_err(internal)?;
        node.write("peer-ca.pem", authority.certificate_pem(), false)?;
        node.write("client-ca.pem", client_ca.certificate_pem(), false)?;
        node.write("node.pem", &issued.certificate_pem, false)?;
        node.write("node.key", &issued.key_pem, true)?;
        // Last: a folder with a configuration is a node.
        node.save()?;
    }
    write_profile(folder, &nodes, &authority, &client_ca)
}

fn number(node: &NodeFolder) -> Option<u16> {
    node.name().as_str().strip_prefix("node-")?.parse().ok()
}

fn config(
    folder: &Folder,
    node: NodeId,
    port: u16,
    (replicas, min_copies): (u8, u8),
) -> NodeConfig {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    NodeConfig {
        cluster: folder.wanted.cluster.clone(),
        node,
        data: "data".into(),
        bind: LOOPBACK,
        advertise: LOOPBACK,
        gossip_port: port,
        peer_port: port + 1,
        client_port: port + 2,
        join: Vec::new(),
        expected_nodes: folder.wanted.expected_nodes,
        replicas,
        min_copies,
        profile: if cores <= SHARED_CORES { "shared" } else { "lan" }.into(),
        other: toml::Table::new(),
        tls: TlsConfig {
            peer_ca: "peer-ca.pem".into(),
            client_ca: "client-ca.pem".into(),
            cert: "node.pem".into(),
            key: "node.key".into(),
        },
    }
}

/// Writes the clients' side: addresses, and a certificate if there is none yet.
fn write_profile(
    folder: &Folder,
    nodes: &[NodeFolder],
    peer_ca: &Authority,
    client_ca: &Authority,
) -> Result<(), Error> {
    let path = folder.path();
    let addresses = nodes.iter().map(|node| node.client_addr().to_string()).collect();
    let profile = Profile::new(path, &folder.wanted.cluster, addresses);
    if !path.join(&profile.key).is_file() {
        let issued = client_ca.issue_client("local").map_err(internal)?;
        let ca = path.join(&profile.ca);
        crate::files::write(&ca, peer_ca.certificate_pem().as_bytes(), false)
            .map_err(|source| Error::io("write", &ca, source))?;
        issued.save(&path.join(&profile.cert), &path.join(&profile.key)).map_err(internal)?;
    }
    profile.save().map_err(internal)
}

/// Certificate and key of an authority.
fn authority_files(folder: &Folder, name: &str) -> (PathBuf, PathBuf) {
    let file = |extension: &str| folder.authority().join(format!("{name}.{extension}"));
    (file("pem"), file("key"))
}

fn load_authority(folder: &Folder, name: &str) -> Result<Authority, Error> {
    let (certificate, key) = authority_files(folder, name);
    Authority::load(&certificate, &key).map_err(internal)
}

/// Starts what does not run and waits until every node sees every node alive.
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

/// Ends the wait once the deadline has passed, with what the nodes' logs say; at once if a process
/// has ended.
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

/// Certificates and profiles are our own making here, so what goes wrong is the disk or a damaged
/// folder.
fn internal(error: impl std::error::Error) -> Error {
    Error::BadInput(error.to_string())
}

/// Something different for each start of the program.
fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (now.as_nanos() as u64) ^ (u64::from(std::process::id()) << 32)
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
