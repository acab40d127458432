//! Certificates of nodes: which were seen, and which open nothing any more.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use cortado_protocol::{NodeId, content_hash};
use rustls_pki_types::CertificateDer;

/// Certificates of one node that are remembered.
const SEEN: usize = 4;

#[derive(Debug, Default)]
struct Certificates {
    /// By node, the newest last.
    seen: BTreeMap<NodeId, Vec<u64>>,
    barred: BTreeSet<u64>,
}

/// What a node knows of the certificates of nodes. A certificate that was issued once is valid for
/// years; a node that was forgotten must not come back with it. Clones are the same register.
#[derive(Clone, Default)]
pub struct Register(Arc<RwLock<Certificates>>);

impl fmt::Debug for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Register")
    }
}

/// A certificate's number here: a hash of all of it.
pub(crate) fn fingerprint(certificate: &CertificateDer<'_>) -> u64 {
    content_hash(certificate)
}

impl Register {
    /// Certificates that the node has shown since the start of this process, the newest last.
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

    /// These certificates open nothing any more.
    pub fn bar(&self, certificates: impl IntoIterator<Item = u64>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).barred.extend(certificates);
    }

    pub(crate) fn is_barred(&self, certificate: &CertificateDer<'_>) -> bool {
        let held = self.0.read().unwrap_or_else(PoisonError::into_inner);
        !held.barred.is_empty() && held.barred.contains(&fingerprint(certificate))
    }

    /// A node has shown a certificate, which was found valid.
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
