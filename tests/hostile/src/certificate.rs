//! Certificates. A node reads one before it checks the chain, so any program can send any bytes.

use cortado_transport::{Authority, Identity, Role};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// The name in a certificate can be written and read again.
pub fn check(bytes: &[u8]) {
    let Ok(identity) = Identity::of(&CertificateDer::from(bytes)) else { return };
    assert!(!identity.cluster().is_empty());
    let name = identity.to_string();
    assert!(name.starts_with("urn:cortado:") && name.len() < 256, "{name}");
}

/// Certificates of a node, of a client and of an authority.
#[must_use]
pub fn samples() -> Vec<Vec<u8>> {
    let peer = Authority::generate("c", Role::Peer).unwrap();
    let client = Authority::generate("c", Role::Client).unwrap();
    let names = ["localhost".to_owned()];
    let addresses = ["127.0.0.1".parse().unwrap()];
    let node = peer.issue_node("node-1".parse().unwrap(), &names, &addresses).unwrap();
    let guest = client.issue_client("guest").unwrap();
    let pems = [&node.certificate_pem, &guest.certificate_pem, peer.certificate_pem()];
    pems.map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()).into()
}
