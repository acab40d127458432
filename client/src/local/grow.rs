//! Making what a local cluster is made of: authorities, nodes, and the profile for clients.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use cortado_protocol::NodeId;
use cortado_transport::{Authority, Profile, Role};

use super::nodes::{LOOPBACK, NodeConfig, TlsConfig};
use super::{Durability, Folder, NodeFolder, ports};
use crate::Error;
use crate::generate::Random;

/// Up to this many cores the failure detector is given more time.
const SHARED_CORES: usize = 4;
/// Names of the authorities' files.
const PEER_AUTHORITY: &str = "peer";
const CLIENT_AUTHORITY: &str = "client";

/// Makes both authorities of a new cluster.
pub(super) fn make_authorities(folder: &Folder) -> Result<(), Error> {
    for (role, name) in [(Role::Peer, PEER_AUTHORITY), (Role::Client, CLIENT_AUTHORITY)] {
        let authority = Authority::generate(&folder.wanted.cluster, role).map_err(internal)?;
        let (certificate, key) = authority_files(folder, name);
        authority.save(&certificate, &key).map_err(internal)?;
    }
    Ok(())
}

/// Makes `count` more nodes and tells the profile of them.
pub(super) fn grow(folder: &Folder, count: u16) -> Result<(), Error> {
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
        reviver: folder.wanted.reviver.clone(),
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

/// Certificates and profiles are our own making here, so what goes wrong is the disk or a damaged
/// folder.
fn internal(error: impl std::error::Error) -> Error {
    Error::BadInput(error.to_string())
}

/// Something different for each start of the program.
pub(super) fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (now.as_nanos() as u64) ^ (u64::from(std::process::id()) << 32)
}
