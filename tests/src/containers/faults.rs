//! Faults of containers.

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

    /// A node's process, which can be killed without the engine. Works only if the engine uses this
    /// process namespace.
    #[must_use]
    pub fn process(&self, name: &str) -> Pid {
        let pid = docker(&["inspect", "--format", "{{.State.Pid}}", &self.state(name).id]);
        let pid = pid.parse().ok().and_then(Pid::from_raw);
        pid.unwrap_or_else(|| panic!("{name} does not run"))
    }

    /// Pauses a node.
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

    /// Disconnects a node from the network.
    pub fn disconnect(&self, name: &str) {
        let _ = docker(&["network", "disconnect", &self.network(), &self.state(name).id]);
    }

    /// Connects a node to the network again.
    pub fn connect(&self, name: &str) {
        let (network, id) = (self.network(), self.state(name).id);
        let _ = docker(&["network", "connect", "--alias", name, &network, &id]);
    }

    /// Gives a stopped node an empty disk and starts it.
    pub fn replace_disk(&self, name: &str) {
        let _ = docker(&["rm", &self.state(name).id]);
        let volume = format!("{}_{}", self.name, name.replace("node-", "data-"));
        let _ = docker(&["volume", "rm", &volume]);
        let _ = self.compose(&["up", "-d", name]);
    }

    /// Runs `scripts/netem.sh ARGUMENTS` for this cluster, and returns its output.
    ///
    /// # Errors
    /// The output of a failed call.
    pub fn netem(&self, arguments: &[&str]) -> Result<String, String> {
        let mut script = Command::new(repository().join("scripts/netem.sh"));
        run(script.args(["--cluster", &self.name]).args(arguments))
    }

    /// Waits until each node sees exactly the nodes of its own part alive.
    pub fn await_parts(&self, parts: &[&[&str]]) {
        for (part, name) in parts.iter().flat_map(|part| part.iter().map(move |name| (part, name)))
        {
            wait_for(&format!("{name} to see its side and no other"), WHOLE, || {
                self.view(name)?.keys().eq(part.iter()).then_some(())
            });
        }
    }

    /// Makes the engine unreachable for the nodes.
    pub fn close_engine(&mut self) {
        self.proxy.as_mut().expect("the cluster is behind a proxy").close();
    }

    /// Makes the engine reachable again.
    pub fn open_engine(&mut self) {
        self.proxy.as_mut().expect("the cluster is behind a proxy").open();
    }

    /// Makes the engine hang for the nodes: it can be reached, but does not answer.
    pub fn stall_engine(&self) {
        self.proxy.as_ref().expect("the cluster is behind a proxy").stall();
    }

    /// Lets the engine answer again.
    pub fn wake_engine(&self) {
        self.proxy.as_ref().expect("the cluster is behind a proxy").go_on();
    }

    /// Stops and removes the whole cluster and its disks, as an operator does.
    pub fn down(&self) {
        let _ = self.compose(&["down", "-v"]);
    }

    /// Waits until a node reports an event about another one.
    pub fn await_event(&self, event: &str, node: &str) -> Value {
        wait_for(&format!("event {event} about {node}"), WHOLE, || {
            self.events().into_iter().find(|seen| seen["event"] == event && seen["node"] == node)
        })
    }

    /// The containers, networks and volumes of the cluster that are left on this machine.
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
