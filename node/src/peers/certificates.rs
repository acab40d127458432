//! Certificates for the tests of peers, gossip and clients.

use cortado_protocol::NodeId;
use cortado_transport::{Authority, ClientTls, NodeTls, Role};

/// The authorities of a cluster.
pub(crate) struct Certificates {
    peers: Authority,
    clients: Authority,
}

impl Certificates {
    pub(crate) fn new() -> Self {
        let authority = |role| Authority::generate("dev", role).unwrap();
        Self { peers: authority(Role::Peer), clients: authority(Role::Client) }
    }

    pub(crate) fn node(&self, id: NodeId) -> NodeTls {
        let issued = self.peers.issue_node(id, &[], &[]).unwrap();
        NodeTls::from_pem(
            "dev",
            issued.certificate_pem.as_bytes(),
            issued.key_pem.as_bytes(),
            self.peers.certificate_pem().as_bytes(),
            self.clients.certificate_pem().as_bytes(),
        )
        .unwrap()
    }

    pub(crate) fn client(&self, name: &str) -> ClientTls {
        let issued = self.clients.issue_client(name).unwrap();
        ClientTls::from_pem(
            "dev",
            issued.certificate_pem.as_bytes(),
            issued.key_pem.as_bytes(),
            self.peers.certificate_pem().as_bytes(),
        )
        .unwrap()
    }
}

/// `node-1` and so on.
pub(crate) fn node(number: usize) -> NodeId {
    format!("node-{number}").parse().unwrap()
}
