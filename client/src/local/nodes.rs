//! One node's folder: configuration, certificate, data, log and process.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cortado_local::{By, Place, Start};
use cortado_protocol::NodeId;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::{ProcessId, logs};
use crate::Error;
use crate::authorities::NodeFiles;

/// Environment variable with the path of the daemon, if it is not beside the client.
pub(super) const DAEMON_VARIABLE: &str = "CORTADO_NODE";
/// The daemon's file name.
const DAEMON: &str = "cortado-node";
/// How long to wait for the end of a process after SIGKILL.
const KILL_WAIT: Duration = Duration::from_secs(10);

/// A node's configuration file, in the form that this crate writes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct NodeConfig {
    pub(super) cluster: String,
    pub(super) node: NodeId,
    pub(super) data: PathBuf,
    pub(super) bind: IpAddr,
    pub(super) advertise: IpAddr,
    pub(super) gossip_port: u16,
    pub(super) peer_port: u16,
    pub(super) client_port: u16,
    /// Nodes of earlier versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) http_port: Option<u16>,
    pub(super) join: Vec<String>,
    pub(super) expected_nodes: u16,
    pub(super) replicas: u8,
    pub(super) min_copies: u8,
    pub(super) profile: String,
    /// The means to start dead nodes.
    #[serde(default = "nobody")]
    pub(super) reviver: String,
    /// Whether clients may disturb the node.
    #[serde(default)]
    pub(super) allow_chaos: bool,
    /// Keys that a user has added; the node checks them.
    #[serde(flatten)]
    pub(super) other: toml::Table,
    pub(super) tls: NodeFiles,
}

/// Nodes of earlier versions have no reviver.
fn nobody() -> String {
    "none".into()
}

/// A node of a local cluster.
pub struct NodeFolder {
    place: Place,
    pub(super) config: NodeConfig,
}

impl NodeFolder {
    /// Whether `path` is the folder of a node.
    pub(super) fn is_at(path: &Path) -> bool {
        Place::new(path).is_node()
    }

    /// Opens `node-{number}` below a cluster's folder.
    pub(super) fn open(cluster: &Path, number: u16) -> Result<Self, Error> {
        let place = Place::new(cluster.join(format!("node-{number}")));
        let file = place.config();
        let text = fs::read_to_string(&file).map_err(|source| Error::io("read", &file, source))?;
        let config = toml::from_str(&text)
            .map_err(|error| Error::BadInput(format!("{}: {error}", file.display())))?;
        Ok(Self { place, config })
    }

    /// A new node; only its folder is made.
    pub(super) fn create(cluster: &Path, config: NodeConfig) -> Result<Self, Error> {
        let path = cluster.join(config.node.as_str());
        fs::create_dir_all(&path).map_err(|source| Error::io("create", &path, source))?;
        Ok(Self { place: Place::new(path), config })
    }

    /// Writes the configuration.
    pub(super) fn save(&self) -> Result<(), Error> {
        let path = self.place.config();
        let text = toml::to_string(&self.config).expect("plain values serialize to TOML");
        crate::files::write(&path, text.as_bytes(), false)
            .map_err(|source| Error::io("write", &path, source))
    }

    /// The path of its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> NodeId {
        self.config.node
    }

    /// Its address for clients.
    #[must_use]
    pub fn client_addr(&self) -> SocketAddr {
        SocketAddr::new(self.config.advertise, self.config.client_port)
    }

    /// Its address for other nodes, in the format of their `join` list.
    pub(super) fn gossip_address(&self) -> String {
        SocketAddr::new(self.config.advertise, self.config.gossip_port).to_string()
    }

    /// Its address for HTTP.
    #[must_use]
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.config.http_port.map(|port| SocketAddr::new(self.config.advertise, port))
    }

    /// Its UDP ports: gossip, peers, clients.
    #[must_use]
    pub fn ports(&self) -> [u16; 3] {
        [self.config.gossip_port, self.config.peer_port, self.config.client_port]
    }

    /// Its process, if it runs or is paused.
    #[must_use]
    pub fn process(&self) -> Option<ProcessId> {
        self.place.process()
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        logs::tail(&self.place.log(), lines)
    }

    /// Whether the operator stopped it, so that its peers do not start it.
    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.place.is_retired()
    }

    /// Marks the node to stay down: from now on no peer starts it. A running process continues.
    ///
    /// # Errors
    /// If its folder can't be written to.
    pub fn retire(&self) -> Result<(), Error> {
        self.place.retire().map_err(|source| Error::io("write to", self.path(), source))
    }

    /// Starts its process unless it runs already; returns whether it was started. The process gets
    /// its own process group, so that no signals of a terminal reach it. From now on its peers may
    /// start it again.
    ///
    /// # Errors
    /// If the daemon can't be found or started, or another process has its ports.
    pub fn start(&self) -> Result<bool, Error> {
        let daemon = daemon()?;
        self.check_ports()?;
        let started = self.place.start(&daemon, By::Operator);
        let started = started.map_err(|source| Error::io("start", self.path(), source))?;
        Ok(started == Start::Started)
    }

    /// Refuses if another process has the node's ports: clients would reach that process instead.
    fn check_ports(&self) -> Result<(), Error> {
        let taken = |port: &u16| {
            let bound = UdpSocket::bind((self.config.advertise, *port));
            bound.is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
        };
        match self.ports().iter().find(|port| taken(port)) {
            // Checked after the ports: a peer may have just started the node.
            Some(port) if self.process().is_none() => Err(Error::BadInput(format!(
                "port {port} of {} is in use, perhaps by the node of a folder that this one was copied \
                 from: end that one, or give this one other ports in {}",
                self.name(),
                self.place.config().display()
            ))),
            _ => Ok(()),
        }
    }

    /// Sends a signal to its process.
    ///
    /// # Errors
    /// [`Error::BadInput`] if it does not run.
    pub fn signal(&self, signal: Signal) -> Result<ProcessId, Error> {
        self.process().filter(|process| process.signal(signal)).ok_or_else(|| {
            Error::BadInput(format!("{} does not run; see `cortado local up`", self.name()))
        })
    }

    /// Kills its process (SIGKILL) and waits for its end.
    ///
    /// # Errors
    /// If it does not run, or does not end.
    pub fn kill(&self) -> Result<(), Error> {
        self.end(Signal::KILL, KILL_WAIT).map(drop)
    }

    /// Sends `signal` to its process, waits up to `limit` for its end, then kills it; returns
    /// whether it ended without being killed.
    ///
    /// # Errors
    /// If it does not run, or does not end even after SIGKILL.
    pub fn end(&self, signal: Signal, limit: Duration) -> Result<bool, Error> {
        let process = self.signal(signal)?;
        // Resumes the process: while paused, it handles no signal but SIGKILL.
        let _ = process.signal(Signal::CONT);
        if process.wait_end(limit) {
            return Ok(true);
        }
        let _ = process.signal(Signal::KILL);
        if process.wait_end(KILL_WAIT) {
            return Ok(false);
        }
        Err(Error::Unreachable(format!(
            "{} (process {}) does not end, not even by SIGKILL; it may be waiting for a disk",
            self.name(),
            process.pid
        )))
    }

    /// Deletes its data; the node must not run.
    ///
    /// # Errors
    /// [`Error::BadInput`] if it runs, [`Error::Io`] if the data can't be deleted.
    pub fn wipe_disk(&self) -> Result<(), Error> {
        if self.process().is_some() {
            return Err(Error::BadInput(format!(
                "{} runs; stop it first with `cortado local stop {}` or `kill`",
                self.name(),
                self.name()
            )));
        }
        let data = self.path().join(&self.config.data);
        match empty(&data) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("empty", &data, error))
            }
            _ => Ok(()),
        }
    }
}

/// The address of local nodes: loopback.
pub(super) const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Deletes the content of a folder. The folder itself stays, since it may be a link or a mounted
/// file system.
fn empty(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// The daemon: `$CORTADO_NODE`, or the one beside this program.
fn daemon() -> Result<PathBuf, Error> {
    if let Some(path) = std::env::var_os(DAEMON_VARIABLE).filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    let beside = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.join(DAEMON)));
    beside.filter(|path| path.is_file()).ok_or_else(|| {
        Error::BadInput(format!(
            "{DAEMON} is not beside this program; build it (`cargo build --release`) or name it in \
             {DAEMON_VARIABLE}"
        ))
    })
}
