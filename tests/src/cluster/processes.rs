//! The nodes of a cluster as processes.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::PathBuf;

use cortado::local::{Folder, NodeFolder, ProcessId};
use cortado_transport::{Authority, Role};
use rustix::process::Signal;
use serde_json::Value;

use super::{Client, Cortado, Turn, path_text, wait_for};

/// Lines of each node's log that a failed test prints.
const LOG_LINES: usize = 25;

/// A cluster in a folder of its own.
pub struct Cluster {
    // The fields are dropped in this order: the folder before the turn.
    pub(super) _root: tempfile::TempDir,
    pub(super) _turn: Turn,
    pub(super) client: Client,
    /// The program that is started in place of `cortado-node`, if set.
    pub(super) daemon: Option<PathBuf>,
}

impl Cluster {
    /// Starts a cluster with R = 3 and W = 2, or the number of nodes if that is less.
    ///
    /// # Panics
    /// If the cluster does not start, like all methods here: a test can't continue then.
    #[must_use]
    pub fn up(nodes: usize) -> Self {
        let cluster = Self::empty();
        let nodes = nodes.to_string();
        cluster.local("up").args(&["--nodes", &nodes]).run().ok();
        cluster
    }

    /// Starts a cluster whose nodes restart dead nodes.
    #[must_use]
    pub fn up_reviving(nodes: usize) -> Self {
        Self::empty().reviving(nodes, &[])
    }

    /// Starts a cluster whose nodes restart dead nodes and accept `cortado chaos`.
    #[must_use]
    pub fn up_for_trouble(nodes: usize) -> Self {
        Self::empty().reviving(nodes, &["--allow-chaos"])
    }

    /// Starts a cluster with this timing of the failure detector, `lan` or `shared`, on any
    /// machine. With `reviving`, its nodes restart dead nodes.
    #[must_use]
    pub fn up_timed(nodes: usize, timing: &str, reviving: bool) -> Self {
        let reviver = if reviving { "process" } else { "none" };
        let (cluster, nodes) = (Self::empty(), nodes.to_string());
        let up = cluster.local("up").args(&["--nodes", &nodes, "--timing", timing]);
        up.args(&["--reviver", reviver]).run().ok();
        cluster
    }

    pub(super) fn reviving(self, nodes: usize, options: &[&str]) -> Self {
        let nodes = nodes.to_string();
        let up = self.local("up").args(&["--nodes", &nodes, "--reviver", "process"]);
        up.args(options).run().ok();
        self
    }

    /// Starts a cluster with these lines in the nodes' configuration.
    #[must_use]
    pub fn up_with(nodes: usize, settings: &str) -> Self {
        let cluster = Self::up(nodes);
        cluster.set(settings);
        cluster
    }

    /// Starts a cluster that accepts `cortado chaos`, with these lines in the nodes' configuration.
    #[must_use]
    pub fn up_for_trouble_with(nodes: usize, settings: &str) -> Self {
        let cluster = Self::up_for_trouble(nodes);
        cluster.set(settings);
        cluster
    }

    /// Gives a node a new certificate of the cluster's authority. The node uses it after a restart
    /// or SIGHUP.
    pub fn certify_anew(&self, name: &str) {
        let folder = self.dir().join("authority");
        let authority = Authority::load(&folder.join("peer.pem"), &folder.join("peer.key"));
        let authority = authority.expect("the authority is there");
        assert_eq!(authority.role(), Role::Peer);
        let issued = authority.issue_node(name.parse().expect("a name"), &[], &[]);
        let folder = self.dir().join(name);
        let saved =
            issued.expect("a certificate").save(&folder.join("node.pem"), &folder.join("node.key"));
        saved.expect("the folder is there");
    }

    /// Restarts all nodes with these lines in their configuration.
    pub(super) fn set(&self, settings: &str) {
        self.local("down").run().ok();
        for node in self.nodes() {
            let file = node.path().join("node.toml");
            let text = std::fs::read_to_string(&file).expect("a node has a configuration");
            std::fs::write(&file, format!("{settings}\n{text}")).expect("it can be written");
        }
        self.local("up").run().ok();
    }

    /// A folder without a cluster.
    #[must_use]
    pub fn empty() -> Self {
        let turn = Turn::take();
        let root = tempfile::tempdir().expect("a temporary folder can be made");
        let client = Client::new(root.path());
        Self { _root: root, _turn: turn, client, daemon: None }
    }

    /// Prepares `cortado local VERB --dir …`.
    #[must_use]
    pub fn local(&self, verb: &str) -> Cortado {
        let local = Cortado::new(&["local", verb, "--dir", &path_text(&self.dir())]);
        match &self.daemon {
            Some(daemon) => local.env("CORTADO_NODE", daemon),
            None => local,
        }
    }

    /// All nodes, running or not.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeFolder> {
        match Folder::open(&self.dir()) {
            Ok(folder) => folder.nodes().expect("the cluster's folder can be read"),
            Err(_) => Vec::new(),
        }
    }

    pub(super) fn node(&self, name: &str) -> NodeFolder {
        let named = |node: &NodeFolder| node.name().as_str() == name;
        self.nodes().into_iter().find(named).unwrap_or_else(|| panic!("there is no {name}"))
    }

    /// Kills a node (SIGKILL) and waits for its end.
    pub fn kill(&self, name: &str) {
        self.node(name).kill().expect("the node runs");
    }

    /// Starts a node and waits until it answers.
    pub fn start(&self, name: &str) {
        self.local("start").args(&[name]).run().ok();
    }

    /// Pauses a node's process (SIGSTOP).
    pub fn pause(&self, name: &str) {
        self.node(name).signal(Signal::STOP).expect("the node runs");
    }

    /// Resumes a paused process (SIGCONT).
    pub fn resume(&self, name: &str) {
        self.node(name).signal(Signal::CONT).expect("the node runs");
    }

    /// A node's process, if it runs.
    #[must_use]
    pub fn process(&self, name: &str) -> Option<ProcessId> {
        self.node(name).process()
    }

    /// Whether a node's process runs.
    #[must_use]
    pub fn is_running(&self, name: &str) -> bool {
        self.node(name).process().is_some()
    }

    /// A node's address for clients.
    #[must_use]
    pub fn address(&self, name: &str) -> String {
        self.node(name).client_addr().to_string()
    }

    /// Runs `cortado chaos ARGUMENTS`.
    pub fn chaos(&self, arguments: &[&str]) {
        self.cortado(&["chaos"]).args(arguments).run().ok();
    }

    /// The states of the members by name, as a node sees them; `None` if it does not answer.
    #[must_use]
    pub fn members_seen_by(&self, node: &str) -> Option<BTreeMap<String, String>> {
        let address = self.address(node);
        let view = self.cortado(&["nodes", "--json", "--connect", &address]).run();
        let members = (view.code == Some(0)).then(|| view.json())?["members"].clone();
        let text = |member: &Value, key: &str| member[key].as_str().map(str::to_owned);
        let members = members.as_array().expect("a list of members").iter();
        members.map(|member| Some((text(member, "id")?, text(member, "state")?))).collect()
    }

    /// Waits until every running node sees exactly these states: `alive` for running nodes, `down`
    /// or no entry for the others.
    pub fn await_members(&self) {
        let nodes = self.nodes();
        let running: Vec<_> = nodes.iter().filter(|node| node.process().is_some()).collect();
        for asked in &running {
            wait_for(&format!("{} to know who is there", asked.name()), 30, || {
                let seen = self.members_seen_by(asked.name().as_str())?;
                let alive = |node: &NodeFolder| {
                    seen.get(node.name().as_str()).is_some_and(|state| state == "alive")
                };
                let right = |node: &NodeFolder| alive(node) == node.process().is_some();
                nodes.iter().all(right).then_some(())
            });
        }
    }

    /// Kills all processes of the cluster at once (SIGKILL).
    pub fn kill_all(&self) {
        let nodes = self.nodes();
        for node in &nodes {
            // A retired node is not started by one that still runs.
            let retired = node.retire();
            assert!(retired.is_ok() || std::thread::panicking(), "{retired:?}");
        }
        let running: Vec<_> = nodes.iter().filter_map(NodeFolder::process).collect();
        for process in &running {
            let _ = process.signal(Signal::KILL);
        }
        for process in &running {
            let ended = process.wait_end(std::time::Duration::from_secs(10));
            assert!(ended || std::thread::panicking(), "process {} survives SIGKILL", process.pid);
        }
    }
}

impl Deref for Cluster {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in self.nodes() {
                eprintln!("--- end of the log of {}\n{}", node.name(), node.log_tail(LOG_LINES));
            }
        }
        self.kill_all();
    }
}
