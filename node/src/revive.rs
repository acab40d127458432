//! Ways to bring a node back. The supervisor ([`cortado_membership::Supervisor`]) decides; a
//! reviver inspects and starts nodes.

mod docker;
mod none;
mod process;
mod reviver;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use anyhow::bail;

pub use docker::DockerReviver;
pub use none::NoReviver;
pub use process::ProcessReviver;
pub use reviver::{Pending, Reviver};

/// Makes the reviver that a node's settings name: `process` for nodes with folders beside `folder`,
/// `docker` for containers of `cluster` on the engine at `docker_host`.
///
/// # Errors
/// If the name is unknown, or the settings of its reviver are wrong.
pub fn named(
    name: &str,
    folder: &Path,
    docker_host: &str,
    cluster: &str,
) -> anyhow::Result<Arc<dyn Reviver>> {
    match name {
        "none" => Ok(Arc::new(NoReviver)),
        "process" => Ok(Arc::new(ProcessReviver::beside(folder)?)),
        "docker" => {
            if !["unix://", "tcp://"].iter().any(|scheme| docker_host.starts_with(scheme)) {
                bail!("docker_host = \"{docker_host}\": expected unix:///PATH or tcp://HOST:PORT");
            }
            Ok(Arc::new(DockerReviver::new(docker_host, cluster)))
        }
        other => {
            bail!("reviver = \"{other}\": expected \"none\", \"process\" or \"docker\"")
        }
    }
}
