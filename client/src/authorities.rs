//! The two certificate authorities of a cluster: makes and loads them, and writes the files that
//! nodes and clients need. `cortado init` and the local cluster use it.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use cortado_protocol::NodeId;
use cortado_transport::{Authority, Profile, Role};
use serde::{Deserialize, Serialize};

use crate::{Error, files};

/// Names of the authorities' files, without their extension.
const PEERS: &str = "peer";
const CLIENTS: &str = "client";

/// The authority for nodes and the authority for clients.
pub(crate) struct Authorities {
    peers: Authority,
    clients: Authority,
}

impl Authorities {
    /// Name of their folder in a cluster's folder.
    pub(crate) const FOLDER: &str = "authority";

    /// Makes both in a new folder that only its owner can read.
    pub(crate) fn make(folder: &Path, cluster: &str) -> Result<Self, Error> {
        fs::DirBuilder::new()
            .mode(0o700)
            .create(folder)
            .map_err(|source| Error::io("create", folder, source))?;
        let make = |role, name| {
            let authority = Authority::generate(cluster, role).map_err(internal)?;
            let (certificate, key) = paths(folder, name);
            authority.save(&certificate, &key).map_err(internal)?;
            Ok::<_, Error>(authority)
        };
        Ok(Self { peers: make(Role::Peer, PEERS)?, clients: make(Role::Client, CLIENTS)? })
    }

    /// Loads those of an existing cluster.
    pub(crate) fn load(folder: &Path) -> Result<Self, Error> {
        let load = |name| {
            let (certificate, key) = paths(folder, name);
            Authority::load(&certificate, &key).map_err(internal)
        };
        Ok(Self { peers: load(PEERS)?, clients: load(CLIENTS)? })
    }

    /// Writes a node's certificate and key and the certificates of both authorities into the node's
    /// folder. Clients and peers check the id in it; host names and addresses are for other
    /// programs.
    pub(crate) fn write_node(
        &self,
        folder: &Path,
        node: NodeId,
        names: &[String],
        addresses: &[IpAddr],
    ) -> Result<(), Error> {
        let issued = self.peers.issue_node(node, names, addresses).map_err(internal)?;
        let own = NodeFiles::default();
        for (name, text, secret) in [
            (own.peer_ca, self.peers.certificate_pem(), false),
            (own.client_ca, self.clients.certificate_pem(), false),
            (own.cert, &issued.certificate_pem, false),
            (own.key, &issued.key_pem, true),
        ] {
            let file = folder.join(name);
            files::write(&file, text.as_bytes(), secret)
                .map_err(|source| Error::io("write", &file, source))?;
        }
        Ok(())
    }

    /// Writes a client's certificate and key and the nodes' authority to the paths in its profile.
    pub(crate) fn write_client(&self, profile: &Profile, name: &str) -> Result<(), Error> {
        let dir = &profile.dir;
        let ca = dir.join(&profile.ca);
        files::write(&ca, self.peers.certificate_pem().as_bytes(), false)
            .map_err(|source| Error::io("write", &ca, source))?;
        let issued = self.clients.issue_client(name).map_err(internal)?;
        issued.save(&dir.join(&profile.cert), &dir.join(&profile.key)).map_err(internal)
    }
}

/// Paths of a node's certificates, relative to its configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct NodeFiles {
    peer_ca: PathBuf,
    client_ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

impl NodeFiles {
    /// The key of the node in this folder.
    pub(crate) fn key_in(&self, folder: &Path) -> PathBuf {
        folder.join(&self.key)
    }
}

impl Default for NodeFiles {
    fn default() -> Self {
        Self {
            peer_ca: "peer-ca.pem".into(),
            client_ca: "client-ca.pem".into(),
            cert: "node.pem".into(),
            key: "node.key".into(),
        }
    }
}

/// Certificate and key of an authority.
fn paths(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    let file = |extension: &str| folder.join(format!("{name}.{extension}"));
    (file("pem"), file("key"))
}

/// This program makes these certificates and profiles itself, so an error means a failing disk or a
/// damaged folder.
pub(crate) fn internal(error: impl std::error::Error) -> Error {
    Error::BadInput(error.to_string())
}
