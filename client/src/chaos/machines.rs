//! The processes of the nodes: on this machine, or in its containers.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use cortado_protocol::NodeId;
use rustix::process::Signal;

use crate::Error;
use crate::local::Folder;

/// Kills and pauses processes.
pub(super) enum Machines {
    /// The processes of a local cluster.
    Local(Box<Folder>),
    /// Containers with the labels `cortado.cluster` and `cortado.node`.
    Containers {
        /// The cluster's name.
        cluster: String,
    },
}

impl Machines {
    pub(super) fn of(profile: &Path, cluster: &str) -> Result<Self, Error> {
        if Folder::exists(profile) {
            Ok(Self::Local(Box::new(Folder::open(profile)?)))
        } else {
            Ok(Self::Containers { cluster: cluster.to_owned() })
        }
    }

    pub(super) fn kill(&self, node: NodeId) -> Result<(), Error> {
        match self {
            Self::Local(folder) => folder.node(node)?.kill(),
            Self::Containers { cluster } => docker(cluster, node, "kill"),
        }
    }

    pub(super) fn pause(&self, node: NodeId) -> Result<(), Error> {
        match self {
            Self::Local(folder) => folder.node(node)?.signal(Signal::STOP).map(drop),
            Self::Containers { cluster } => docker(cluster, node, "pause"),
        }
    }

    /// Resumes a node. Does nothing to a node that is not paused.
    pub(super) fn resume(&self, node: NodeId) {
        // If this fails, the node has no process that stands still.
        let _ = match self {
            Self::Local(folder) => {
                folder.node(node).and_then(|node| node.signal(Signal::CONT).map(drop))
            }
            Self::Containers { cluster } => docker(cluster, node, "unpause"),
        };
    }
}

/// Calls the command `docker`, which knows the address of the engine and the user's permissions.
fn docker(cluster: &str, node: NodeId, verb: &str) -> Result<(), Error> {
    let labels = [format!("label=cortado.cluster={cluster}"), format!("label=cortado.node={node}")];
    let containers = call(&["ps", "--quiet", "--filter", &labels[0], "--filter", &labels[1]])?;
    match containers.lines().next() {
        Some(container) => call(&[verb, container]).map(drop),
        None => Err(Error::BadInput(format!(
            "{node} runs neither in a local cluster nor in a container of this machine (labels \
             cortado.cluster={cluster}, cortado.node={node})"
        ))),
    }
}

fn call(arguments: &[&str]) -> Result<String, Error> {
    let output = Command::new("docker").args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::BadInput(
            "this is no local cluster, and there is no command `docker` to reach its containers: \
             run it on the machine where they are"
                .into(),
        ),
        _ => Error::io("run", "docker".as_ref(), error),
    })?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        Err(Error::BadInput(format!("docker {}: {}", arguments.join(" "), said.trim())))
    }
}
