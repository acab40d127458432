//! Makes the files of a cluster on other hosts or in containers: both authorities, a folder for
//! each node (configuration and certificate), and the profile for clients. It starts nothing.
//! `cortado init` calls it.

mod host;
mod owner;

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use cortado_protocol::{NodeId, limits};
use cortado_transport::Profile;
use serde::Serialize;

use crate::authorities::{Authorities, NodeFiles, internal};
use crate::local::Durability;
use crate::{Error, Timing};
use host::{Host, check_different};

/// Ports of every node; nodes have different addresses.
const GOSSIP_PORT: u16 = 7400;
const PEER_PORT: u16 = 7401;
/// The port for clients.
pub const CLIENT_PORT: u16 = 7402;
/// The TCP port of HTTP.
const HTTP_PORT: u16 = 7403;

/// The options.
#[derive(Clone, Debug)]
pub struct Options {
    /// The cluster's name.
    pub cluster: String,
    /// Names or addresses of the hosts, one per node, as the nodes reach each other.
    pub hosts: Vec<String>,
    /// Addresses at which clients reach the nodes, in the same order, if they are not the hosts.
    pub published: Vec<SocketAddr>,
    /// Addresses at which browsers reach the nodes, in the same order. With them, the nodes answer everyone
    /// who reaches their HTTP port; without, only programs on their own machines.
    pub published_http: Vec<SocketAddr>,
    /// The nodes' data folder, on their hosts.
    pub data: PathBuf,
    /// Copies of each batch.
    pub replicas: u8,
    /// Copies on disk before a batch is acknowledged.
    pub min_copies: u8,
    /// Timing of the failure detector.
    pub timing: Timing,
    /// The means to start dead nodes: `docker` or `none`.
    pub reviver: String,
    /// Whether clients may disturb the nodes (`cortado chaos`).
    pub allow_chaos: bool,
    /// Whether an existing cluster is left unchanged.
    pub once: bool,
    /// Group of the nodes, if they do not run as the owner of the folder.
    pub node_group: Option<u32>,
}

/// The outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The nodes' names.
    pub nodes: Vec<NodeId>,
    /// Whether the cluster existed already, so that nothing was written.
    pub before: bool,
}

/// A node's configuration file.
#[derive(Serialize)]
struct NodeConfig<'a> {
    cluster: &'a str,
    node: NodeId,
    data: &'a Path,
    bind: &'static str,
    /// If absent, the address of the host's own name.
    #[serde(skip_serializing_if = "Option::is_none")]
    advertise: Option<IpAddr>,
    gossip_port: u16,
    peer_port: u16,
    client_port: u16,
    http_port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_bind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_readers: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_advertise: Option<SocketAddr>,
    join: &'a [String],
    expected_nodes: usize,
    replicas: u8,
    min_copies: u8,
    profile: &'a str,
    reviver: &'a str,
    allow_chaos: bool,
    tls: NodeFiles,
}

/// Writes all files into a folder that is empty or does not exist.
///
/// # Errors
/// [`Error::BadInput`] if the options or the folder make no sense, [`Error::Io`] if a file can't be
/// written.
pub fn init(dir: &Path, options: &Options) -> Result<Made, Error> {
    check(options)?;
    let hosts =
        options.hosts.iter().map(|host| Host::parse(host)).collect::<Result<Vec<_>, _>>()?;
    check_different(&hosts)?;
    let nodes: Vec<_> = (1..=options.hosts.len()).map(node_name).collect();
    if options.once && is_made(dir, options)? {
        return Ok(Made { nodes, before: true });
    }
    check_empty(dir)?;
    fs::create_dir_all(dir).map_err(|source| Error::io("create", dir, source))?;
    let authorities = Authorities::make(&dir.join(Authorities::FOLDER), &options.cluster)?;

    let join: Vec<_> = hosts.iter().map(|host| host.with_port(GOSSIP_PORT)).collect();
    // If a host has only an IPv6 address, all nodes need sockets for both kinds of addresses.
    let bind = if hosts.iter().any(Host::is_v6) { "::" } else { "0.0.0.0" };
    let mut published_http = options.published_http.iter().copied();
    for (&node, host) in nodes.iter().zip(&hosts) {
        let folder = dir.join(node.as_str());
        fs::create_dir_all(&folder).map_err(|source| Error::io("create", &folder, source))?;
        authorities.write_node(&folder, node, &[], &[])?;
        let file = folder.join("node.toml");
        fs::write(&file, config(options, (node, host), bind, published_http.next(), &join))
            .map_err(|source| Error::io("write", &file, source))?;
    }
    // Written last: a folder with a profile is complete.
    write_profile(dir, options, &nodes, &hosts, &authorities)?;
    if let Some(group) = options.node_group {
        owner::share(dir, &nodes, group)?;
    }
    Ok(Made { nodes, before: false })
}

fn node_name(number: usize) -> NodeId {
    format!("node-{number}").parse().expect("a valid node name")
}

/// Whether the folder holds this cluster already.
fn is_made(dir: &Path, options: &Options) -> Result<bool, Error> {
    if !dir.join(Profile::FILE).exists() {
        return Ok(false);
    }
    let found = Profile::load(dir).map_err(internal)?;
    let (wanted, nodes) = (&options.cluster, options.hosts.len());
    if found.cluster != *wanted || found.addresses.len() != nodes {
        return Err(Error::BadInput(format!(
            "{} is of the cluster {} with {} nodes, not of {wanted} with {nodes}: remove what is in \
             it, or choose another folder",
            dir.display(),
            found.cluster,
            found.addresses.len(),
        )));
    }
    Ok(true)
}

/// Hidden files do not count, nor do empty folders such as an engine makes for a mount.
fn check_empty(dir: &Path) -> Result<(), Error> {
    let counts = |entry: fs::DirEntry| {
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        let empty = fs::read_dir(entry.path()).is_ok_and(|mut within| within.next().is_none());
        !hidden && !empty
    };
    if fs::read_dir(dir).is_ok_and(|entries| entries.flatten().any(counts)) {
        return Err(Error::BadInput(format!(
            "{} is not empty; choose another folder, or remove what is in it",
            dir.display()
        )));
    }
    Ok(())
}

fn check(options: &Options) -> Result<(), Error> {
    let nodes = options.hosts.len();
    let bad = |message: String| Err(Error::BadInput(message));
    if nodes == 0 || nodes > limits::MEMBERS {
        return bad(format!("{nodes} nodes: expected 1 to {}", limits::MEMBERS));
    }
    let wrong = |published: &&Vec<SocketAddr>| !published.is_empty() && published.len() != nodes;
    let lists = [&options.published, &options.published_http];
    if let Some(published) = lists.into_iter().find(wrong) {
        let given = published.len();
        return bad(format!(
            "{given} published addresses for {nodes} nodes: one for each, or none"
        ));
    }
    if options.min_copies == 0 || options.min_copies > options.replicas {
        let Options { replicas, min_copies, .. } = options;
        return bad(format!("{min_copies} of {replicas} copies: expected 1 to {replicas}"));
    }
    Ok(())
}

fn config(
    options: &Options,
    (node, host): (NodeId, &Host),
    bind: &'static str,
    published_http: Option<SocketAddr>,
    join: &[String],
) -> String {
    let nodes = u16::try_from(join.len()).unwrap_or(u16::MAX);
    let copies = Durability::of(nodes, options.replicas, options.min_copies);
    let config = NodeConfig {
        cluster: &options.cluster,
        node,
        data: &options.data,
        bind,
        advertise: host.address(),
        gossip_port: GOSSIP_PORT,
        peer_port: PEER_PORT,
        client_port: CLIENT_PORT,
        http_port: HTTP_PORT,
        http_bind: published_http.map(|_| bind),
        http_readers: published_http.map(|_| "everyone"),
        http_advertise: published_http,
        join,
        expected_nodes: join.len(),
        replicas: copies.replicas,
        min_copies: copies.min_copies,
        profile: options.timing.profile(),
        reviver: &options.reviver,
        allow_chaos: options.allow_chaos,
        tls: NodeFiles::default(),
    };
    toml::to_string(&config).expect("plain values serialize to TOML")
}

fn write_profile(
    dir: &Path,
    options: &Options,
    nodes: &[NodeId],
    hosts: &[Host],
    authorities: &Authorities,
) -> Result<(), Error> {
    let addresses = if options.published.is_empty() {
        hosts.iter().map(|host| host.with_port(CLIENT_PORT)).collect()
    } else {
        options.published.iter().map(SocketAddr::to_string).collect()
    };
    let mut profile = Profile::new(dir, &options.cluster, addresses);
    profile.published = nodes.iter().copied().zip(options.published.iter().copied()).collect();
    authorities.write_client(&profile, "operator")?;
    profile.save().map_err(internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(nodes: usize) -> Options {
        Options {
            cluster: "c".into(),
            hosts: (1..=nodes)
                .map(|n| if n == 1 { "10.0.0.1".into() } else { format!("host-{n}") })
                .collect(),
            published: Vec::new(),
            published_http: Vec::new(),
            data: "/data".into(),
            replicas: 3,
            min_copies: 2,
            timing: Timing::Lan,
            reviver: "none".into(),
            allow_chaos: false,
            once: false,
            node_group: None,
        }
    }

    #[test]
    fn everything_a_cluster_needs_is_written() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("c");
        let published = ["127.0.0.1:17402".parse().unwrap(), "127.0.0.1:17412".parse().unwrap()];
        let nodes =
            init(&dir, &Options { published: published.into(), ..options(2) }).unwrap().nodes;
        let config = fs::read_to_string(dir.join("node-2/node.toml")).unwrap();
        let config: toml::Table = config.parse().unwrap();
        assert_eq!(config["node"].as_str(), Some("node-2"));
        assert_eq!(config["replicas"].as_integer(), Some(2), "no more copies than nodes");
        assert_eq!(config["join"].as_array().unwrap()[1].as_str(), Some("host-2:7400"));
        assert!(config.get("advertise").is_none(), "a name may stand for another address later");
        let first = fs::read_to_string(dir.join("node-1/node.toml")).unwrap();
        assert!(first.contains("advertise = \"10.0.0.1\""), "{first}");
        let profile = Profile::load(&dir).unwrap();
        assert_eq!(profile.published[&nodes[1]], published[1]);
        assert_eq!(profile.addresses, ["127.0.0.1:17402", "127.0.0.1:17412"]);
        assert!(profile.tls().is_ok());
        for name in ["node.pem", "node.key", "peer-ca.pem", "client-ca.pem"] {
            assert!(dir.join("node-1").join(name).is_file(), "{name}");
        }
        let error = init(&dir, &options(2)).unwrap_err().to_string();
        assert!(error.contains("not empty"), "{error}");
    }

    #[test]
    fn a_cluster_is_made_once() {
        let root = tempfile::tempdir().unwrap();
        // Like a folder that is kept empty in a repository.
        fs::write(root.path().join(".gitignore"), "*").unwrap();
        fs::create_dir(root.path().join("node-1")).unwrap();
        let once = |nodes| Options { once: true, ..options(nodes) };
        let first = init(root.path(), &once(2)).unwrap();
        assert!(!first.before);
        let key = fs::read(root.path().join("node-1/node.key")).unwrap();
        let again = init(root.path(), &once(2)).unwrap();
        assert_eq!(again, Made { before: true, ..first });
        assert_eq!(fs::read(root.path().join("node-1/node.key")).unwrap(), key);
        for other in [once(3), Options { cluster: "d".into(), ..once(2) }] {
            let error = init(root.path(), &other).unwrap_err().to_string();
            assert!(error.contains("is of the cluster c with 2 nodes"), "{error}");
        }
        fs::remove_file(root.path().join(Profile::FILE)).unwrap();
        let error = init(root.path(), &once(2)).unwrap_err().to_string();
        assert!(error.contains("not empty"), "half of one is none: {error}");
    }

    #[test]
    fn mistakes_are_named() {
        let root = tempfile::tempdir().unwrap();
        let published = vec!["127.0.0.1:1".parse().unwrap()];
        for (options, told) in [
            (options(0), "0 nodes"),
            (Options { published, ..options(2) }, "1 published"),
            (Options { min_copies: 4, ..options(5) }, "4 of 3"),
            (Options { hosts: vec!["a:7400".into()], ..options(1) }, "without a port"),
            (Options { hosts: vec!["a".into(), "a".into()], ..options(2) }, "named twice"),
        ] {
            let error = init(root.path(), &options).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}
