//! What befalls containers.

use std::process::Command;

use rustix::process::Pid;
use serde_json::Value;

use super::engine::{docker, run};
use super::{Containers, WHOLE, repository};
use crate::cluster::wait_for;

impl Containers {
    /// Kills nodes (SIGKILL), all at the same moment.
    pub fn kill(&self, names: &[&str]) {
        let states = self.states();
        std::thread::scope(|scope| {
            for name in names {
                let id = &states[*name].id;
                scope.spawn(move || docker(&["kill", id]));
            }
        });
    }

    /// A node's process, which can be killed without the engine. Only where the engine counts processes
    /// as this one does.
    #[must_use]
    pub fn process(&self, name: &str) -> Pid {
        let pid = docker(&["inspect", "--format", "{{.State.Pid}}", &self.state(name).id]);
        let pid = pid.parse().ok().and_then(Pid::from_raw);
        pid.unwrap_or_else(|| panic!("{name} does not run"))
    }

    /// Stops a node in its tracks.
    pub fn pause(&self, name: &str) {
        let _ = docker(&["pause", &self.state(name).id]);
    }

    /// Stops a node as an operator does (SIGTERM), and waits for its end.
    pub fn stop(&self, name: &str) {
        let _ = docker(&["stop", &self.state(name).id]);
    }

    /// Starts a node as an operator does.
    pub fn start(&self, name: &str) {
        let _ = docker(&["start", &self.state(name).id]);
    }

    /// Pulls a node's plug.
    pub fn disconnect(&self, name: &str) {
        let _ = docker(&["network", "disconnect", &self.network(), &self.state(name).id]);
    }

    /// Puts it in again.
    pub fn connect(&self, name: &str) {
        let (network, id) = (self.network(), self.state(name).id);
        let _ = docker(&["network", "connect", "--alias", name, &network, &id]);
    }

    /// Gives a node an empty disk and starts it. It must have been stopped.
    pub fn replace_disk(&self, name: &str) {
        let _ = docker(&["rm", &self.state(name).id]);
        let volume = format!("{}_{}", self.name, name.replace("node-", "data-"));
        let _ = docker(&["volume", "rm", &volume]);
        let _ = self.compose(&["up", "-d", name]);
    }

    /// `scripts/netem.sh ARGUMENTS` for this cluster, and what it printed.
    ///
    /// # Errors
    /// What it said instead.
    pub fn netem(&self, arguments: &[&str]) -> Result<String, String> {
        let mut script = Command::new(repository().join("scripts/netem.sh"));
        run(script.args(["--cluster", &self.name]).args(arguments))
    }

    /// Waits until each node of each part sees alive just the nodes of its part.
    pub fn await_parts(&self, parts: &[&[&str]]) {
        for (part, name) in parts.iter().flat_map(|part| part.iter().map(move |name| (part, name)))
        {
            wait_for(&format!("{name} to see its side and no other"), WHOLE, || {
                self.view(name)?.keys().eq(part.iter()).then_some(())
            });
        }
    }

    /// The nodes can't reach the engine any more.
    pub fn close_engine(&mut self) {
        self.proxy.as_mut().expect("the cluster is behind a proxy").close();
    }

    /// They can.
    pub fn open_engine(&mut self) {
        self.proxy.as_mut().expect("the cluster is behind a proxy").open();
    }

    /// The nodes reach the engine, but it says nothing any more.
    pub fn stall_engine(&self) {
        self.proxy.as_ref().expect("the cluster is behind a proxy").stall();
    }

    /// It does.
    pub fn wake_engine(&self) {
        self.proxy.as_ref().expect("the cluster is behind a proxy").go_on();
    }

    /// Stops and removes the whole cluster, disks too, as an operator does.
    pub fn down(&self) {
        let _ = self.compose(&["down", "-v"]);
    }

    /// Waits until a node says that something happened to another one.
    pub fn await_event(&self, event: &str, node: &str) -> Value {
        wait_for(&format!("event {event} about {node}"), WHOLE, || {
            self.events().into_iter().find(|seen| seen["event"] == event && seen["node"] == node)
        })
    }

    /// Whether anything of the cluster is left on this machine: containers, networks, volumes.
    #[must_use]
    pub fn remains(&self) -> Vec<String> {
        let ours = format!("label=com.docker.compose.project={}", self.name);
        let list = |kind: &[&str]| {
            let mut command = Command::new("docker");
            let listed = run(command.args(kind).args(["-q", "--filter", &ours]));
            listed.unwrap_or_else(|why| panic!("{why}"))
        };
        let lists = [list(&["ps", "-a"]), list(&["network", "ls"]), list(&["volume", "ls"])];
        lists.iter().flat_map(|list| list.lines()).map(str::to_owned).collect()
    }
}
