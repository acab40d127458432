//! The cluster profile: a directory with the addresses of a cluster and the certificate of a
//! client. `cortado init` and `cortado local up` write it; every command of the client reads it.
//!
//! `profile.toml`:
//! ```toml
//! cluster = "dev"
//! addresses = ["127.0.0.1:7401", "127.0.0.1:7411"]
//! ca = "ca.pem"         # certificate of the authority for nodes
//! cert = "client.pem"   # the client's certificate
//! key = "client.key"    # and its key
//! [published]           # optional: where clients reach a node, if not at its own address
//! node-1 = "127.0.0.1:17402"
//! ```
//! Relative paths start at the directory.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::{fs, io};

use cortado_protocol::NodeId;
use serde::{Deserialize, Serialize};

use crate::tls::{ClientTls, TlsError};

/// The addresses of a cluster, and the certificate of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The directory it was read from.
    #[serde(skip)]
    pub dir: PathBuf,
    /// The cluster's name.
    pub cluster: String,
    /// Client addresses of nodes, `host:port`. The client may use any of them.
    pub addresses: Vec<String>,
    /// Certificate of the authority for nodes.
    pub ca: PathBuf,
    /// The client's certificate.
    pub cert: PathBuf,
    /// The client's private key.
    pub key: PathBuf,
    /// Addresses at which clients reach nodes, where they differ from the nodes' own: published
    /// ports of containers, for example.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub published: BTreeMap<NodeId, SocketAddr>,
}

/// Why a profile can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// A file could not be read or written.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The directory has no profile.
    #[error("{path} does not exist: give the directory of a cluster profile, as written by \
             `cortado local up --dir DIR`", path = path.display())]
    Missing {
        /// The missing file.
        path: PathBuf,
    },
    /// The profile is malformed.
    #[error("{path}: {reason}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong: the line, and what was expected.
        reason: String,
    },
    /// A certificate or key of the profile can't be used.
    #[error("profile {dir}: {source}", dir = dir.display())]
    Tls {
        /// The profile's directory.
        dir: PathBuf,
        /// What is wrong.
        source: TlsError,
    },
}

impl Profile {
    /// Name of the file in the directory.
    pub const FILE: &str = "profile.toml";

    /// A profile with the usual file names.
    #[must_use]
    pub fn new(dir: &Path, cluster: &str, addresses: Vec<String>) -> Self {
        Self {
            dir: dir.to_owned(),
            cluster: cluster.to_owned(),
            addresses,
            ca: "ca.pem".into(),
            cert: "client.pem".into(),
            key: "client.key".into(),
            published: BTreeMap::new(),
        }
    }

    /// Reads the profile of a directory. Certificates are read by [`Profile::tls`].
    ///
    /// # Errors
    /// If the file is missing or malformed; unknown keys are errors.
    pub fn load(dir: &Path) -> Result<Self, ProfileError> {
        let path = dir.join(Profile::FILE);
        let text = fs::read_to_string(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ProfileError::Missing { path: path.clone() },
            _ => ProfileError::File { path: path.clone(), source },
        })?;
        let malformed = |reason: String| ProfileError::Malformed { path: path.clone(), reason };
        let mut profile: Self = toml::from_str(&text).map_err(|e| malformed(e.to_string()))?;
        profile.dir = dir.to_owned();
        if profile.addresses.is_empty() {
            return Err(malformed("`addresses` is empty: expected at least one host:port".into()));
        }
        for address in &profile.addresses {
            let port = address.rsplit_once(':').and_then(|(host, port)| {
                (!host.is_empty()).then(|| port.parse::<u16>().ok()).flatten()
            });
            if port.is_none() {
                return Err(malformed(format!("`addresses`: '{address}' is not host:port")));
            }
        }
        Ok(profile)
    }

    /// Writes the profile into its directory, replacing an earlier one as a whole.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn save(&self) -> Result<(), ProfileError> {
        let path = self.dir.join(Profile::FILE);
        let malformed = |reason: String| ProfileError::Malformed { path: path.clone(), reason };
        let text = toml::to_string(self).map_err(|error| malformed(error.to_string()))?;
        let temporary = path.with_extension("new");
        fs::write(&temporary, text)
            .and_then(|()| fs::rename(&temporary, &path))
            .map_err(|source| ProfileError::File { path, source })
    }

    /// Reads the certificates of the profile.
    ///
    /// # Errors
    /// If a file can't be read or is not what it should be.
    pub fn tls(&self) -> Result<ClientTls, ProfileError> {
        let at = |path: &Path| self.dir.join(path);
        ClientTls::load(&self.cluster, &at(&self.cert), &at(&self.key), &at(&self.ca))
            .map_err(|source| ProfileError::Tls { dir: self.dir.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Authority, Role};

    fn written() -> (tempfile::TempDir, Profile) {
        let dir = tempfile::tempdir().unwrap();
        let mut profile = Profile::new(dir.path(), "dev", vec!["127.0.0.1:7401".into()]);
        let address = "127.0.0.1:17402".parse().unwrap();
        profile.published.insert("node-1".parse().unwrap(), address);
        profile.save().unwrap();
        (dir, profile)
    }

    #[test]
    fn a_profile_round_trips_with_its_certificates() {
        let (dir, profile) = written();
        let peers = Authority::generate("dev", Role::Peer).unwrap();
        let clients = Authority::generate("dev", Role::Client).unwrap();
        peers.save(&dir.path().join("ca.pem"), &dir.path().join("ca.key")).unwrap();
        let alice = clients.issue_client("alice").unwrap();
        alice.save(&dir.path().join("client.pem"), &dir.path().join("client.key")).unwrap();
        let loaded = Profile::load(dir.path()).unwrap();
        assert_eq!(loaded, profile);
        assert_eq!(loaded.tls().unwrap().cluster(), "dev");
        clients.save(&dir.path().join("ca.pem"), &dir.path().join("ca.key")).unwrap();
        let error = loaded.tls().unwrap_err().to_string();
        assert!(error.contains("expected the peer authority"), "{error}");
    }

    #[test]
    fn mistakes_are_named() {
        let (dir, profile) = written();
        let error = profile.tls().unwrap_err().to_string();
        assert!(error.contains("client.pem"), "{error}");
        fs::write(dir.path().join("client.pem"), "rubbish").unwrap();
        fs::write(dir.path().join("client.key"), "rubbish").unwrap();
        fs::write(dir.path().join("ca.pem"), "rubbish").unwrap();
        let error = profile.tls().unwrap_err().to_string();
        assert!(error.contains("not PEM"), "{error}");

        let file = dir.path().join(Profile::FILE);
        let good = fs::read_to_string(&file).unwrap();
        for (text, expected) in [
            (format!("extra = 1\n{good}"), "extra"),
            (good.replace("cluster", "klaster"), "klaster"),
            (good.replace("127.0.0.1:7401", "nowhere"), "'nowhere' is not host:port"),
            (good.replace("\"127.0.0.1:7401\"", ""), "`addresses` is empty"),
        ] {
            fs::write(&file, text).unwrap();
            let error = Profile::load(dir.path()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        fs::remove_file(&file).unwrap();
        let error = Profile::load(dir.path()).unwrap_err().to_string();
        assert!(error.contains("does not exist"), "{error}");
    }
}
