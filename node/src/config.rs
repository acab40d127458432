//! Settings of a node: a flag overrides the environment, which overrides the file, which overrides
//! the default. Unknown keys are errors. The daemon reads them at the start and on SIGHUP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use cortado_membership::Profile;
use cortado_protocol::{NodeId, limits};
use serde::Deserialize;

use crate::revive::{self, Reviver};

/// Command line of `cortado-node`.
#[derive(Debug, clap::Parser)]
#[command(
    name = "cortado-node",
    about = "One node of a Cortado cluster: the same binary for every role.",
    long_about = "One node of a Cortado cluster: the same binary for every role.\n\n\
        SIGTERM hands everything over and leaves, in bounded time; SIGINT stops at once and keeps \
        the data.\n\nExample: cortado-node --config node.toml",
    disable_version_flag = true
)]
pub struct Flags {
    /// TOML file with any of the settings below.
    #[arg(long, env = "CORTADO_CONFIG", value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Data folder.
    #[arg(long, env = "CORTADO_DATA", value_name = "DIR", global = true)]
    pub data: Option<PathBuf>,
    /// Address to listen on.
    #[arg(long, env = "CORTADO_BIND", value_name = "IP")]
    pub bind: Option<IpAddr>,
    /// Address the others reach this node at; the listening address if not given.
    #[arg(long, env = "CORTADO_ADVERTISE", value_name = "IP")]
    pub advertise: Option<IpAddr>,
    /// Gossip addresses of other nodes, `host:port`, separated by commas.
    #[arg(long, env = "CORTADO_JOIN", value_name = "ADDRESSES", value_delimiter = ',')]
    pub join: Option<Vec<String>>,
    /// Let clients disturb this node's network and disk (`cortado chaos`), to see how the cluster
    /// bears it.
    #[arg(long, env = "CORTADO_ALLOW_CHAOS")]
    pub allow_chaos: bool,
    /// What to do instead of running a node.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Print version, git revision and protocol version.
    #[arg(long, short = 'V')]
    pub version: bool,
}

/// What the program does instead of running a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Subcommand)]
pub enum Command {
    /// Ask the node on this machine how it is
    ///
    /// Prints `ok`, `starting`, or what is wrong. Exit code 0 for the first two, 1 otherwise. Asks no
    /// other node. Give --data DIR, or the node's --config.
    Health {
        /// Take `starting` for a failure: the node must serve
        #[arg(long)]
        ready: bool,
    },
}

/// The certificates of a node. Relative paths are relative to the configuration file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// Certificate of the authority of nodes.
    pub peer_ca: PathBuf,
    /// Certificate of the authority of clients.
    pub client_ca: PathBuf,
    /// This node's certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// A node's settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The cluster's name.
    pub cluster: String,
    /// This node's name; must be the one in its certificate.
    pub node: NodeId,
    /// Data folder.
    pub data: PathBuf,
    /// Address to listen on.
    #[serde(default = "loopback")]
    pub bind: IpAddr,
    /// Address the others reach this node at.
    pub advertise: Option<IpAddr>,
    /// UDP port of the membership datagrams.
    pub gossip_port: u16,
    /// UDP port of connections between nodes.
    pub peer_port: u16,
    /// UDP port of client connections.
    pub client_port: u16,
    /// TCP port of HTTP; without it, nothing is served over HTTP.
    pub http_port: Option<u16>,
    /// Address to listen on for HTTP.
    #[serde(default = "loopback")]
    pub http_bind: IpAddr,
    /// Where browsers reach this node over HTTP, if not at `advertise` and `http_port`.
    pub http_advertise: Option<SocketAddr>,
    /// Who may read over HTTP: `local` (programs on this machine) or `everyone`.
    #[serde(default = "local")]
    pub http_readers: Readers,
    /// Names under which this node is asked over HTTP, beside `localhost` and its own.
    #[serde(default)]
    pub http_hosts: Vec<String>,
    /// Gossip addresses of other nodes.
    #[serde(default)]
    pub join: Vec<String>,
    /// Members that must have joined before the first job is accepted.
    #[serde(default = "one")]
    pub expected_nodes: u16,
    /// Copies aimed at (R).
    #[serde(default = "three")]
    pub replicas: u8,
    /// Copies needed before an acknowledgement (W).
    #[serde(default = "two")]
    pub min_copies: u8,
    /// Slots of new jobs.
    #[serde(default = "sixty_four")]
    pub slots: u8,
    /// Timing of the failure detector: `lan` or `shared`.
    #[serde(default = "lan")]
    pub profile: String,
    /// Jobs that run at once.
    #[serde(default = "four")]
    pub max_running_jobs: u32,
    /// Memory for jobs, in MiB. Default: half of the machine's or of the control group's memory.
    pub memory_mib: Option<u64>,
    /// Time without a batch after which an upload loses its place in the queue.
    #[serde(default = "thirty")]
    pub upload_idle_seconds: u64,
    /// How long a job is kept after its last sign of life.
    #[serde(default = "one_day")]
    pub job_ttl_seconds: u64,
    /// Time limit for the handover after SIGTERM.
    #[serde(default = "twenty")]
    pub drain_seconds: u64,
    /// Log filter, overridden by `CORTADO_LOG`; see `EnvFilter` in the crate `tracing-subscriber`.
    #[serde(default = "log")]
    pub log: String,
    /// Free space below which the node takes no batches, in MiB.
    #[serde(default = "reserve")]
    pub disk_reserve_mib: u64,
    /// How this node brings other nodes back: `process` (those with folders beside its own),
    /// `docker` (those in labelled containers) or `none` (another program does it).
    #[serde(default = "none")]
    pub reviver: String,
    /// The container engine: `unix:///PATH` or `tcp://HOST:PORT`.
    #[serde(default = "docker_socket")]
    pub docker_host: String,
    /// Whether clients may disturb this node's network and disk (`cortado chaos`).
    #[serde(default)]
    pub allow_chaos: bool,
    /// Worker threads; the number of cores if not given.
    pub workers: Option<usize>,
    /// Certificates.
    pub tls: TlsFiles,
    /// Whether the advertised address is looked up by the host's name.
    #[serde(skip)]
    pub follow_own_name: bool,
    /// The folder of the configuration file.
    #[serde(skip)]
    pub folder: PathBuf,
}

/// Who may read over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Readers {
    /// Programs on this machine.
    Local,
    /// Everyone who reaches the port.
    Everyone,
}

const fn local() -> Readers {
    Readers::Local
}

const fn loopback() -> IpAddr {
    IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)
}
const fn one() -> u16 {
    1
}
const fn two() -> u8 {
    2
}
const fn three() -> u8 {
    3
}
const fn four() -> u32 {
    4
}
const fn sixty_four() -> u8 {
    64
}
const fn twenty() -> u64 {
    20
}
const fn thirty() -> u64 {
    30
}
const fn one_day() -> u64 {
    86_400
}
const fn reserve() -> u64 {
    256
}
fn docker_socket() -> String {
    "unix:///var/run/docker.sock".to_owned()
}
fn log() -> String {
    "info".to_owned()
}
fn none() -> String {
    "none".to_owned()
}
fn lan() -> String {
    "lan".to_owned()
}

/// Range of `memory_mib`. With less than its start, even small jobs fail.
const MEMORY_MIB: std::ops::RangeInclusive<u64> = 32..=(1 << 30);
/// Memory for jobs if the system does not report its size.
const FALLBACK: u64 = 1 << 30;
/// Pause between two lookups of the host's own name.
const NAME_PAUSE: Duration = Duration::from_secs(1);

impl Settings {
    /// Reads the file, then applies flags and environment.
    ///
    /// # Errors
    /// A sentence that names the file and the key.
    pub fn load(flags: &Flags) -> anyhow::Result<Self> {
        let Some(path) = &flags.config else {
            bail!("no configuration: give --config FILE (`cortado local up` writes one per node)");
        };
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("can't read {}", path.display()))?;
        let mut settings: Self =
            toml::from_str(&text).with_context(|| format!("{} is wrong", path.display()))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        settings.resolve(folder);
        if let Some(data) = &flags.data {
            settings.data.clone_from(data);
        }
        if let Some(bind) = flags.bind {
            settings.bind = bind;
        }
        if let Some(join) = &flags.join {
            settings.join.clone_from(join);
        }
        settings.allow_chaos |= flags.allow_chaos;
        settings.advertise = flags.advertise.or(settings.advertise);
        settings.follow_own_name = settings.advertise.is_none() && settings.bind.is_unspecified();
        settings.check().with_context(|| format!("{} is wrong", path.display()))?;
        Ok(settings)
    }

    fn resolve(&mut self, folder: &Path) {
        self.folder = folder.to_owned();
        let tls = &mut self.tls;
        let files = [&mut tls.peer_ca, &mut tls.client_ca, &mut tls.cert, &mut tls.key];
        for path in files.into_iter().chain([&mut self.data]) {
            if path.is_relative() {
                *path = folder.join(&*path);
            }
        }
    }

    fn check(&self) -> anyhow::Result<()> {
        if self.slots == 0 || usize::from(self.slots) > limits::SLOTS {
            bail!("slots = {}: expected 1 to {}", self.slots, limits::SLOTS);
        }
        if self.min_copies == 0 || self.min_copies > self.replicas {
            bail!("min_copies = {}: expected 1 to replicas ({})", self.min_copies, self.replicas);
        }
        if usize::from(self.replicas) > limits::MEMBERS {
            bail!("replicas = {}: expected at most {}", self.replicas, limits::MEMBERS);
        }
        if let Err(error) = self.log.parse::<tracing_subscriber::EnvFilter>() {
            bail!("log = \"{}\": {error}; expected for example info,cortado_core=debug", self.log);
        }
        if let Some(mib) = self.memory_mib.filter(|mib| !MEMORY_MIB.contains(mib)) {
            bail!("memory_mib = {mib}: expected {} or more", MEMORY_MIB.start());
        }
        if self.max_running_jobs == 0 {
            bail!("max_running_jobs = 0: expected at least 1");
        }
        if self.advertise.is_some_and(|address| address.is_unspecified()) {
            bail!("advertise = \"{}\": expected the IP the others reach", self.advertised());
        }
        self.reviver()?;
        self.detector_profile().map(|_| ())
    }

    /// Makes the reviver that the settings name.
    ///
    /// # Errors
    /// If the name is unknown, or the reviver can't work with these settings.
    pub fn reviver(&self) -> anyhow::Result<Arc<dyn Reviver>> {
        revive::named(&self.reviver, &self.folder, &self.docker_host, &self.cluster)
    }

    /// Timing of the failure detector.
    ///
    /// # Errors
    /// If the name is neither `lan` nor `shared`.
    pub fn detector_profile(&self) -> anyhow::Result<Profile> {
        match self.profile.as_str() {
            "lan" => Ok(Profile::Lan),
            "shared" => Ok(Profile::Shared),
            other => bail!("profile = \"{other}\": expected \"lan\" or \"shared\""),
        }
    }

    /// Looks up the advertised address if it follows the host's name. Repeats the lookup while the
    /// name service does not answer, or names another host.
    ///
    /// # Errors
    /// If the name resolves only to loopback addresses, which the operator must change.
    pub fn find_own_address(&mut self) -> anyhow::Result<()> {
        let mut told = String::new();
        while self.follow_own_name && self.advertise.is_none() {
            let why = match own_addresses(self.bind) {
                Ok(addresses) => {
                    self.advertise = addresses.first().copied();
                    continue;
                }
                Err(OwnName::Loopback(name)) => bail!(
                    "others can't reach this node by this host's name, {name}: it stands for a \
                     loopback address; give advertise = \"IP the others reach\""
                ),
                Err(why) => why.to_string(),
            };
            if told != why {
                tracing::warn!("waiting for an address to be reached at: {why}");
                told = why;
            }
            std::thread::sleep(NAME_PAUSE);
        }
        Ok(())
    }

    /// The address that the other nodes use for this node.
    #[must_use]
    pub fn advertised(&self) -> IpAddr {
        self.advertise.unwrap_or(self.bind)
    }

    /// Where browsers reach this node over HTTP, which listens on `port`; `None` if that is not known.
    #[must_use]
    pub fn http_addr(&self, port: u16) -> Option<SocketAddr> {
        let reachable = !self.http_bind.is_loopback() || self.advertised().is_loopback();
        let own = || reachable.then(|| SocketAddr::new(self.advertised(), port));
        self.http_advertise.or_else(own)
    }

    /// Time without a batch after which an upload loses its place in the queue.
    #[must_use]
    pub fn upload_idle(&self) -> Duration {
        Duration::from_secs(self.upload_idle_seconds)
    }

    /// Bytes of memory for jobs.
    #[must_use]
    pub fn memory(&self) -> usize {
        let set = self.memory_mib.map(|mib| mib << 20);
        let bytes = set.unwrap_or_else(|| crate::machine::memory().map_or(FALLBACK, |all| all / 2));
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// Number of threads that parse and fold.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.workers.unwrap_or_else(crate::machine::cores).max(1)
    }

    /// How long a job is kept after its last sign of life.
    #[must_use]
    pub fn job_ttl(&self) -> Duration {
        Duration::from_secs(self.job_ttl_seconds)
    }

    /// Time limit for the handover after SIGTERM.
    #[must_use]
    pub fn drain_limit(&self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }
}

/// Why the host's own name gives no address.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OwnName {
    #[error("this host's name, {0}, can't be looked up: {1}")]
    Unknown(String, std::io::Error),
    #[error("this host's name, {0}, stands for a loopback address")]
    Loopback(String),
    #[error("this host's name, {0}, stands for {1}, which is not an address of this host")]
    Elsewhere(String, IpAddr),
}

/// The addresses of this machine that its name resolves to, of the same family as `bind`.
/// Containers find their address this way. May block.
pub(crate) fn own_addresses(bind: IpAddr) -> Result<Vec<IpAddr>, OwnName> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    let found = (name, 0).to_socket_addrs().map_err(|why| OwnName::Unknown(name.into(), why))?;
    usable(name, found.map(|address| address.ip()).filter(|ip| ip.is_ipv4() == bind.is_ipv4()))
}

/// Whether an address belongs to this host: only datagrams to such an address are sent from the
/// same address. Connecting a datagram socket chooses a route and sends nothing. (Binding to the
/// address is no test: it always succeeds where `net.ipv4.ip_nonlocal_bind` is set.)
fn is_of_this_host(ip: IpAddr) -> bool {
    let any: IpAddr =
        if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let source = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((ip, 9))?;
        socket.local_addr()
    });
    source.is_ok_and(|source| source.ip() == ip)
}

/// The addresses among `found` at which other nodes can reach this machine.
fn usable(name: &str, found: impl Iterator<Item = IpAddr>) -> Result<Vec<IpAddr>, OwnName> {
    let found: Vec<_> = found.filter(|ip| !ip.is_loopback()).collect();
    let Some(first) = found.first().copied() else {
        return Err(OwnName::Loopback(name.to_owned()));
    };
    let here: Vec<_> = found.into_iter().filter(|ip| is_of_this_host(*ip)).collect();
    if here.is_empty() { Err(OwnName::Elsewhere(name.to_owned(), first)) } else { Ok(here) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        cluster = "c"
        node = "node-1"
        data = "data"
        gossip_port = 1
        peer_port = 2
        client_port = 3
        [tls]
        peer_ca = "a"
        client_ca = "b"
        cert = "c"
        key = "d"
    "#;

    fn load(text: &str) -> anyhow::Result<Settings> {
        let settings: Settings = toml::from_str(text)?;
        settings.check()?;
        Ok(settings)
    }

    #[test]
    fn defaults_fill_what_is_not_said() {
        let settings = load(GOOD).unwrap();
        assert_eq!((settings.replicas, settings.min_copies, settings.slots), (3, 2, 64));
        assert_eq!(settings.advertised(), loopback());
    }

    #[test]
    fn only_an_address_of_this_host_is_told_to_others() {
        let ips =
            |list: &[&str]| list.iter().map(|ip| ip.parse().unwrap()).collect::<Vec<IpAddr>>();
        // Addresses for documentation (RFC 5737): no host has them.
        let elsewhere =
            usable("h", ips(&["127.0.1.1", "198.51.100.1", "198.51.100.2"]).into_iter());
        assert!(
            elsewhere.unwrap_err().to_string().contains("198.51.100.1, which is not an address")
        );
        assert!(is_of_this_host(loopback()) && !is_of_this_host("198.51.100.1".parse().unwrap()));
        let alone = usable("h", ips(&["127.0.1.1"]).into_iter());
        assert!(matches!(alone, Err(OwnName::Loopback(_))));
    }

    #[test]
    fn mistakes_are_named() {
        for (line, told) in [
            ("replica = 3", "replica"),
            ("slots = 65", "slots = 65"),
            ("min_copies = 4", "min_copies = 4"),
            ("reviver = \"magic\"", "magic"),
            ("reviver = \"docker\"\ndocker_host = \"npipe://x\"", "npipe"),
            ("profile = \"wan\"", "profile = \"wan\""),
            ("advertise = \"0.0.0.0\"", "the IP the others reach"),
            ("max_running_jobs = 0", "max_running_jobs"),
        ] {
            let error = load(&format!("{line}\n{GOOD}")).expect_err(line);
            assert!(format!("{error:#}").contains(told), "{line}: {error:#}");
        }
    }
}
