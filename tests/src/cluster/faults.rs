//! Faults of several processes at once, and what nodes report about them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use cortado::local::NodeFolder;
use rustix::process::Signal;

use super::{Cluster, wait_for};

impl Cluster {
    /// Kills nodes (SIGKILL) at the same moment, and waits for their end.
    ///
    /// # Panics
    /// If one does not run, or does not end.
    pub fn kill_together(&self, names: &[&str]) {
        let killed: Vec<_> = names
            .iter()
            .map(|name| self.node(name).signal(Signal::KILL).expect("the node runs"))
            .collect();
        for process in killed {
            assert!(process.wait_end(Duration::from_secs(10)), "{} survives", process.pid);
        }
    }

    /// The names of all other nodes.
    #[must_use]
    pub fn others(&self, than: &str) -> Vec<String> {
        let names = self.nodes().into_iter().map(|node| node.name().to_string());
        names.filter(|name| name != than).collect()
    }

    /// Waits until every running node reports that all entries have reached their owners.
    pub fn await_moves(&self) {
        for node in self.nodes().iter().filter(|node| node.process().is_some()) {
            let address = node.client_addr().to_string();
            wait_for(&format!("{} to have moved everything", node.name()), 30, || {
                let ring = self.cortado(&["ring", "--json", "--connect", &address]).run();
                let ring = (ring.code == Some(0)).then(|| ring.json())?;
                ring["moves"].as_array().is_some_and(Vec::is_empty).then_some(())
            });
        }
    }

    /// Waits until a node's log has this text, and returns the line.
    pub fn await_line(&self, name: &str, text: &str) -> String {
        wait_for(&format!("'{text}' in the log of {name}"), 30, || {
            self.log(name).lines().find(|line| line.contains(text)).map(str::to_owned)
        })
    }

    /// The log of a node so far.
    #[must_use]
    pub fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.node(name).path().join("node.log")).unwrap_or_default()
    }

    /// The addresses at which a node listens for members, other nodes and clients.
    #[must_use]
    pub fn ports(&self, name: &str) -> [SocketAddr; 3] {
        let node = self.node(name);
        let address = node.client_addr().ip();
        node.ports().map(|port| SocketAddr::new(address, port))
    }

    /// Waits until a process has ended by itself.
    pub fn await_end(&self, name: &str) {
        wait_for(&format!("{name} to end"), 30, || (!self.is_running(name)).then_some(()));
    }

    /// The segments of a node's log, oldest first.
    ///
    /// # Panics
    /// If its data folder can't be read.
    #[must_use]
    pub fn segments(&self, name: &str) -> Vec<PathBuf> {
        let data = self.node(name).path().join("data");
        let entries = std::fs::read_dir(data).expect("the node has a data folder");
        let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        let is_segment = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("segment-"))
        };
        paths.retain(is_segment);
        paths.sort();
        paths
    }

    /// Peak of a running node's resident memory so far, in bytes (`VmHWM` in proc(5)), and its
    /// resident memory now.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn memory(&self, name: &str) -> Memory {
        let process = self.node(name).process().expect("the node runs");
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid))
            .expect("a process has a status");
        let bytes = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
            let number = line.split_ascii_whitespace().next().and_then(|text| text.parse().ok());
            number.map_or(0, |kib: u64| kib << 10)
        };
        Memory { peak: bytes("VmHWM:"), now: bytes("VmRSS:") }
    }

    /// The process ids of all nodes, to be compared later.
    #[must_use]
    pub fn processes(&self) -> Vec<Option<i32>> {
        self.nodes().iter().map(NodeFolder::process).map(|p| Some(p?.pid)).collect()
    }
}

/// Resident memory of a process, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// The most since the start.
    pub peak: u64,
    /// The present value.
    pub now: u64,
}
