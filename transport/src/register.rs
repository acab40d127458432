//! Certificates of nodes: those seen since the start, and those that are barred. Owned by the TLS
//! settings of a node, filled by the verifiers, and used when a node is forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use cortado_protocol::{NodeId, content_hash};
use rustls_pki_types::CertificateDer;

/// How many certificates of one node are remembered.
const SEEN: usize = 4;

#[derive(Debug, Default)]
struct Certificates {
    /// For each node, the fingerprints of its certificates, newest last.
    seen: BTreeMap<NodeId, Vec<u64>>,
    barred: BTreeSet<u64>,
}

/// The certificates of nodes that this node has seen or barred. A certificate is valid for years,
/// so a forgotten node must be kept from joining again with it. Clones share one register.
#[derive(Clone, Default)]
pub struct Register(Arc<RwLock<Certificates>>);

impl fmt::Debug for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Register")
    }
}

/// A hash of the whole certificate, which stands for it in the register.
pub(crate) fn fingerprint(certificate: &CertificateDer<'_>) -> u64 {
    content_hash(certificate)
}

impl Register {
    /// Fingerprints of the certificates that the node has shown since this process started, newest
    /// last.
    #[must_use]
    pub fn seen(&self, node: NodeId) -> Vec<u64> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .seen
            .get(&node)
            .cloned()
            .unwrap_or_default()
    }

    /// Bars these certificates: connections with them are refused from now on.
    pub fn bar(&self, certificates: impl IntoIterator<Item = u64>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).barred.extend(certificates);
    }

    pub(crate) fn is_barred(&self, certificate: &CertificateDer<'_>) -> bool {
        let held = self.0.read().unwrap_or_else(PoisonError::into_inner);
        !held.barred.is_empty() && held.barred.contains(&fingerprint(certificate))
    }

    /// Records a valid certificate that a node has shown.
    pub(crate) fn note(&self, node: NodeId, certificate: &CertificateDer<'_>) {
        let mark = fingerprint(certificate);
        let known =
            |held: &Certificates| held.seen.get(&node).is_some_and(|s| s.last() == Some(&mark));
        if known(&self.0.read().unwrap_or_else(PoisonError::into_inner)) {
            return;
        }
        let mut held = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let seen = held.seen.entry(node).or_default();
        seen.retain(|other| *other != mark);
        seen.push(mark);
        if seen.len() > SEEN {
            seen.remove(0);
        }
    }
}
