//! Makes the parts of a local cluster: nodes, and the profile for clients.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use cortado_protocol::NodeId;
use cortado_transport::Profile;

use super::nodes::{LOOPBACK, NodeConfig};
use super::{Durability, Folder, NodeFolder, ports};
use crate::Error;
use crate::authorities::{Authorities, NodeFiles, internal};
use crate::generate::Random;

/// Makes `count` more nodes and adds them to the profile.
pub(super) fn grow(folder: &Folder, count: u16) -> Result<(), Error> {
    let mut nodes = folder.nodes()?;
    let existing = nodes.len();
    let durability = match nodes.first() {
        // A running cluster keeps its number of copies, which must be the same on all nodes.
        Some(node) => (node.config.replicas, node.config.min_copies),
        None => {
            let all = Durability::of(count, folder.wanted.replicas, folder.wanted.min_copies);
            (all.replicas, all.min_copies)
        }
    };
    let mut taken: BTreeSet<u16> = nodes.iter().flat_map(NodeFolder::ports).collect();
    taken.extend(nodes.iter().filter_map(|node| node.config.http_port));
    let mut random = Random::new(seed(), "ports");
    let first = nodes.last().and_then(number).unwrap_or(0) + 1;
    for index in first..first + count {
        let draw = |bound: u16| random.below(u64::from(bound)) as u16;
        let free = ports::pick(ports::PER_NODE, &taken, draw).ok_or_else(|| {
            Error::Unreachable("no free ports found on the loopback interface".into())
        })?;
        taken.extend(free.clone());
        let name = format!("node-{index}").parse().expect("a valid node name");
        let config = config(folder, name, free.start, durability);
        nodes.push(NodeFolder::create(folder.path(), config)?);
    }
    let join: Vec<String> = nodes.iter().map(NodeFolder::gossip_address).collect();
    let authorities = Authorities::load(&folder.authority())?;
    for node in &mut nodes[existing..] {
        node.config.join.clone_from(&join);
        authorities.write_node(node.path(), node.name(), &["localhost".into()], &[LOOPBACK])?;
        // Written last: a folder with a configuration counts as a node.
        node.save()?;
    }
    write_profile(folder, &nodes, &authorities)
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
    NodeConfig {
        cluster: folder.wanted.cluster.clone(),
        node,
        data: "data".into(),
        bind: LOOPBACK,
        advertise: LOOPBACK,
        gossip_port: port,
        peer_port: port + 1,
        client_port: port + 2,
        http_port: Some(port + 3),
        join: Vec::new(),
        expected_nodes: folder.wanted.expected_nodes,
        replicas,
        min_copies,
        profile: folder.wanted.timing.profile().into(),
        reviver: folder.wanted.reviver.clone(),
        allow_chaos: folder.wanted.allow_chaos,
        other: toml::Table::new(),
        tls: NodeFiles::default(),
    }
}

/// Writes the clients' files: addresses, and a certificate if there is none yet.
fn write_profile(
    folder: &Folder,
    nodes: &[NodeFolder],
    authorities: &Authorities,
) -> Result<(), Error> {
    let path = folder.path();
    let addresses = nodes.iter().map(|node| node.client_addr().to_string()).collect();
    let profile = Profile::new(path, &folder.wanted.cluster, addresses);
    if !path.join(&profile.key).is_file() {
        authorities.write_client(&profile, "local")?;
    }
    profile.save().map_err(internal)
}

/// A seed that differs at each start of the program.
pub(super) fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (now.as_nanos() as u64) ^ (u64::from(std::process::id()) << 32)
}
