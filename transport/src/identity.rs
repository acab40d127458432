//! The identity in a certificate: a URI among its subject alternative names,
//! `urn:cortado:<cluster>:node:<id>` or `urn:cortado:<cluster>:client:<name>` (RFC 5280 §4.2.1.6).
//! Authorities write it; verifiers and connections read it.

use std::fmt;

use cortado_protocol::NodeId;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Longest cluster or client name.
const NAME_BYTES: usize = 48;

/// Which of the two authorities issues a certificate: the one for nodes or the one for clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Issues certificates of nodes.
    Peer,
    /// Issues certificates of clients.
    Client,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Peer => "peer",
            Self::Client => "client",
        })
    }
}

/// The node, client or authority that a certificate identifies.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// A node.
    Node {
        /// Its cluster.
        cluster: String,
        /// Its name.
        node: NodeId,
    },
    /// A client.
    Client {
        /// Its cluster.
        cluster: String,
        /// Its name.
        name: String,
    },
    /// An authority itself; never accepted at the end of a connection.
    Authority {
        /// Its cluster.
        cluster: String,
        /// What it issues.
        role: Role,
    },
}

/// Why a certificate has no usable identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The connection has no certificate.
    #[error("the other side showed no certificate")]
    NoCertificate,
    /// Not a certificate.
    #[error("the certificate can't be read")]
    Malformed,
    /// It does not have exactly one `urn:cortado:` name.
    #[error("the certificate names no node or client: issue one with this cluster's authority")]
    Unnamed,
    /// A name that can't be used.
    #[error("'{0}' can't be a name: expected 1 to {NAME_BYTES} of a-z, A-Z, 0-9, '-', '_' and '.'")]
    Name(String),
    /// It has an identity, but not that of a node of this cluster.
    #[error("the certificate is for {0}, not for a node of this cluster")]
    NotPeer(Identity),
}

/// The end of a certificate's validity, in seconds since the Unix epoch.
pub(crate) fn valid_until(certificate: &CertificateDer<'_>) -> Option<u64> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    u64::try_from(parsed.validity().not_after.timestamp()).ok()
}

impl Identity {
    /// The cluster it belongs to.
    #[must_use]
    pub fn cluster(&self) -> &str {
        match self {
            Self::Node { cluster, .. }
            | Self::Client { cluster, .. }
            | Self::Authority { cluster, .. } => cluster,
        }
    }

    /// Reads the identity of a DER certificate. The certificate's chain is not checked here.
    ///
    /// # Errors
    /// If the certificate is malformed or does not have exactly one `urn:cortado:` name.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let (rest, parsed) =
            X509Certificate::from_der(certificate).map_err(|_| IdentityError::Malformed)?;
        let names = parsed.subject_alternative_name().map_err(|_| IdentityError::Malformed)?;
        if !rest.is_empty() {
            return Err(IdentityError::Malformed);
        }
        let names = names.map(|extension| extension.value.general_names.as_slice());
        let mut ours = names.unwrap_or_default().iter().filter_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix("urn:cortado:"),
            _ => None,
        });
        match (ours.next(), ours.next()) {
            (Some(name), None) => Self::parse(name),
            _ => Err(IdentityError::Unnamed),
        }
    }

    fn parse(name: &str) -> Result<Self, IdentityError> {
        let mut parts = name.splitn(3, ':');
        let (Some(cluster), Some(kind), Some(name)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(IdentityError::Unnamed);
        };
        let cluster = checked_name(cluster)?.to_owned();
        match (kind, name) {
            ("node", name) => {
                let node = name.parse().map_err(|_| IdentityError::Unnamed)?;
                Ok(Self::Node { cluster, node })
            }
            ("client", name) => Ok(Self::Client { cluster, name: checked_name(name)?.to_owned() }),
            ("authority", "peer") => Ok(Self::Authority { cluster, role: Role::Peer }),
            ("authority", "client") => Ok(Self::Authority { cluster, role: Role::Client }),
            _ => Err(IdentityError::Unnamed),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node { cluster, node } => write!(f, "urn:cortado:{cluster}:node:{node}"),
            Self::Client { cluster, name } => write!(f, "urn:cortado:{cluster}:client:{name}"),
            Self::Authority { cluster, role } => {
                write!(f, "urn:cortado:{cluster}:authority:{role}")
            }
        }
    }
}

/// Checks a cluster's or client's name: it becomes a part of a URN.
pub(crate) fn checked_name(name: &str) -> Result<&str, IdentityError> {
    let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > NAME_BYTES || !name.bytes().all(ok) {
        return Err(IdentityError::Name(name.chars().take(64).collect()));
    }
    Ok(name)
}

/// The identity at the other end of a connection. TLS has checked the chain; see
/// [`crate::Endpoint`].
///
/// # Errors
/// If the certificate is missing or has no usable identity.
pub fn peer_identity(connection: &quinn::Connection) -> Result<Identity, IdentityError> {
    let chain = connection
        .peer_identity()
        .and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok())
        .ok_or(IdentityError::NoCertificate)?;
    Identity::of(chain.first().ok_or(IdentityError::NoCertificate)?)
}

/// The node at the other end of a connection.
///
/// # Errors
/// If the other end is not a node, or is a node of another cluster.
pub fn peer_node(connection: &quinn::Connection, cluster: &str) -> Result<NodeId, IdentityError> {
    match peer_identity(connection)? {
        Identity::Node { cluster: theirs, node } if theirs == cluster => Ok(node),
        other => Err(IdentityError::NotPeer(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_strange_ones_are_refused() {
        for text in ["dev:node:node-1", "dev:client:alice", "dev:authority:peer"] {
            let identity = Identity::parse(text).unwrap();
            assert_eq!(identity.to_string(), format!("urn:cortado:{text}"));
        }
        for text in ["", "dev", "dev:node", "dev:node:NODE", "dev:x:y", ":node:a", "a b:node:a"] {
            assert!(Identity::parse(text).is_err(), "{text}");
        }
        assert!(Identity::of(&CertificateDer::from(vec![0x30, 0x80, 1, 2, 3])).is_err());
    }
}
