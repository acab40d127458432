//! TLS 1.3 settings of nodes and clients, read from PEM files; a node can read them again while it
//! runs. Endpoints use them. The provider is passed explicitly, and 0-RTT and session resumption
//! are off at both ends, so every connection shows its certificate.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::{fs, io};

use cortado_protocol::NodeId;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::Resumption;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CipherSuite, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

use crate::identity::{Identity, IdentityError, Role, valid_until};
use crate::register::Register;
use crate::settings::Kind;
use crate::verifier::Verifier;

/// Why certificates can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// A file holds no certificate or key.
    #[error("{what} is not PEM of the expected kind: {reason}")]
    Pem {
        /// What was read.
        what: String,
        /// Why it was refused.
        reason: String,
    },
    /// Certificate and key do not belong together, or are of an unsupported kind.
    #[error("certificate and key can't be used together: {0}")]
    Key(rustls::Error),
    /// The certificate does not belong to this cluster.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The certificate has another identity than the expected one.
    #[error("the certificate is for {found}, expected {expected}")]
    Other {
        /// Its identity.
        found: Identity,
        /// The expected identity.
        expected: String,
    },
    /// The authority's certificate can't be used.
    #[error("authority can't be used: {0}")]
    Roots(String),
}

/// The TLS settings for all ports of a node.
#[derive(Clone, Debug)]
pub struct NodeTls {
    cluster: String,
    node: NodeId,
    files: Arc<RwLock<Arc<Files>>>,
    register: Register,
}

/// What was read from the files. A node may read them again; later handshakes use the new content.
#[derive(Debug)]
struct Files {
    own: Own,
    peers: Arc<RootCertStore>,
    clients: Arc<RootCertStore>,
    /// Verifiers for the ports for nodes and for the port for clients.
    verifiers: [Arc<Verifier>; 2],
}

impl Files {
    fn new(
        cluster: &str,
        register: &Register,
        own: Own,
        peers: Arc<RootCertStore>,
        clients: Arc<RootCertStore>,
    ) -> Result<Self, TlsError> {
        let verifier = |role, roots| {
            Verifier::new(role, cluster, None, roots, &own.provider, Some(register))
                .map_err(|error| TlsError::Roots(error.to_string()))
        };
        let verifiers = [verifier(Role::Peer, &peers)?, verifier(Role::Client, &clients)?];
        Ok(Self { own, peers, clients, verifiers })
    }
}

/// Gives a listening port the newest files.
#[derive(Debug)]
struct Newest {
    files: Arc<RwLock<Arc<Files>>>,
    role: Role,
}

impl Newest {
    fn files(&self) -> Arc<Files> {
        Arc::clone(&self.files.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn verifier(&self) -> Arc<Verifier> {
        let [peers, clients] = &self.files().verifiers;
        Arc::clone(if self.role == Role::Peer { peers } else { clients })
    }
}

impl ResolvesServerCert for Newest {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        ResolvesServerCert::resolve(&*self.files().own.certificate, hello)
    }
}

impl ClientCertVerifier for Newest {
    /// Hints would name the authorities at the start only, and no client uses them.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verifier().verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ClientCertVerifier::verify_tls12_signature(&*self.verifier(), message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ClientCertVerifier::verify_tls13_signature(&*self.verifier(), message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ClientCertVerifier::supported_verify_schemes(&*self.verifier())
    }
}

/// The TLS settings with which a client dials nodes.
#[derive(Clone, Debug)]
pub struct ClientTls {
    cluster: String,
    own: Own,
    peers: Arc<RootCertStore>,
}

/// The own certificate and key, and what is derived from the key.
#[derive(Clone, Debug)]
struct Own {
    certificate: Arc<SingleCertAndKey>,
    provider: Arc<CryptoProvider>,
    reset_secret: [u8; 32],
    /// Seconds since the Unix epoch.
    valid_until: u64,
}

impl NodeTls {
    /// Reads PEM texts: own certificate and key, and the certificates of both authorities.
    ///
    /// # Errors
    /// If a text is malformed or the certificate is not for a node of `cluster`.
    pub fn from_pem(
        cluster: &str,
        certificate: &[u8],
        key: &[u8],
        peer_authority: &[u8],
        client_authority: &[u8],
    ) -> Result<Self, TlsError> {
        let (own, identity) = Own::from_pem(certificate, key)?;
        let node = match identity {
            Identity::Node { cluster: theirs, node } if theirs == cluster => node,
            found => {
                let expected = format!("a node of cluster '{cluster}'");
                return Err(TlsError::Other { found, expected });
            }
        };
        let register = Register::default();
        let peers = roots(peer_authority, Role::Peer)?;
        let clients = roots(client_authority, Role::Client)?;
        let files = Files::new(cluster, &register, own, peers, clients)?;
        let files = Arc::new(RwLock::new(Arc::new(files)));
        Ok(Self { cluster: cluster.to_owned(), node, files, register })
    }

    /// Adopts what `newer` has read from the files of the same node: all ports use it from the next
    /// handshake on. Open connections and the register of certificates stay.
    ///
    /// # Errors
    /// If the certificate is for another node. Then nothing changes.
    pub fn renew(&self, newer: &Self) -> Result<(), TlsError> {
        if newer.node != self.node {
            let found = Identity::Node { cluster: newer.cluster.clone(), node: newer.node };
            return Err(TlsError::Other { found, expected: format!("node '{}'", self.node) });
        }
        let newer = newer.newest();
        let (own, peers, clients) = (newer.own.clone(), newer.peers.clone(), newer.clients.clone());
        let files = Files::new(&self.cluster, &self.register, own, peers, clients)?;
        *self.files.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(files);
        Ok(())
    }

    fn newest(&self) -> Arc<Files> {
        Arc::clone(&self.files.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Like [`NodeTls::from_pem`], but reads files.
    ///
    /// # Errors
    /// If a file can't be read, or as [`NodeTls::from_pem`].
    pub fn load(
        cluster: &str,
        certificate: &Path,
        key: &Path,
        peer_authority: &Path,
        client_authority: &Path,
    ) -> Result<Self, TlsError> {
        Self::from_pem(
            cluster,
            &read(certificate)?,
            &read(key)?,
            &read(peer_authority)?,
            &read(client_authority)?,
        )
    }

    /// The node in its certificate.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The cluster's name.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// When its certificate expires, in seconds since the Unix epoch.
    #[must_use]
    pub fn valid_until(&self) -> u64 {
        self.newest().own.valid_until
    }

    /// The register of node certificates, shared by all ports.
    #[must_use]
    pub fn register(&self) -> &Register {
        &self.register
    }

    pub(crate) fn reset_secret(&self) -> [u8; 32] {
        self.newest().own.reset_secret
    }

    /// Settings for a listening port: the client port asks for certificates of the client
    /// authority, the other ports for those of the peer authority.
    pub(crate) fn listen(&self, kind: Kind) -> Result<QuicServerConfig, TlsError> {
        let role = match kind {
            Kind::Client => Role::Client,
            Kind::Peer | Kind::Gossip => Role::Peer,
        };
        let provider = &self.newest().own.provider;
        let newest = Arc::new(Newest { files: Arc::clone(&self.files), role });
        let mut config = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(TlsError::Key)?
            .with_client_cert_verifier(newest.clone())
            .with_cert_resolver(newest);
        config.alpn_protocols = vec![kind.alpn().to_vec()];
        config.max_early_data_size = 0;
        config.send_half_rtt_data = false;
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        QuicServerConfig::try_from(config).map_err(|error| TlsError::Roots(error.to_string()))
    }

    pub(crate) fn dial(
        &self,
        kind: Kind,
        expect: Option<NodeId>,
    ) -> Result<QuicClientConfig, TlsError> {
        let files = self.newest();
        files.own.dial(&self.cluster, &files.peers, kind, expect, Some(&self.register))
    }
}

impl ClientTls {
    /// Reads PEM texts: own certificate and key, and the certificate of the peer authority, which
    /// issues the certificates of nodes.
    ///
    /// # Errors
    /// If a text is malformed or the certificate is not for a client of `cluster`.
    pub fn from_pem(
        cluster: &str,
        certificate: &[u8],
        key: &[u8],
        peer_authority: &[u8],
    ) -> Result<Self, TlsError> {
        let (own, identity) = Own::from_pem(certificate, key)?;
        match identity {
            Identity::Client { cluster: theirs, .. } if theirs == cluster => {}
            found => {
                let expected = format!("a client of cluster '{cluster}'");
                return Err(TlsError::Other { found, expected });
            }
        }
        let peers = roots(peer_authority, Role::Peer)?;
        Ok(Self { cluster: cluster.to_owned(), own, peers })
    }

    /// Like [`ClientTls::from_pem`], but reads files.
    ///
    /// # Errors
    /// If a file can't be read, or as [`ClientTls::from_pem`].
    pub fn load(
        cluster: &str,
        certificate: &Path,
        key: &Path,
        peer_authority: &Path,
    ) -> Result<Self, TlsError> {
        Self::from_pem(cluster, &read(certificate)?, &read(key)?, &read(peer_authority)?)
    }

    /// The cluster's name.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    pub(crate) fn reset_secret(&self) -> &[u8; 32] {
        &self.own.reset_secret
    }

    pub(crate) fn dial(&self, expect: Option<NodeId>) -> Result<QuicClientConfig, TlsError> {
        self.own.dial(&self.cluster, &self.peers, Kind::Client, expect, None)
    }
}

impl Own {
    fn from_pem(certificate: &[u8], key: &[u8]) -> Result<(Self, Identity), TlsError> {
        let chain = certificates(certificate, "the certificate")?;
        let identity = Identity::of(&chain[0])?;
        let valid_until = valid_until(&chain[0]).ok_or(IdentityError::Malformed)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| TlsError::Pem {
            what: "the private key".into(),
            reason: error.to_string(),
        })?;
        // Derived from the key, so it is secret, differs between nodes and survives a restart.
        let salt = ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, b"cortado stateless reset");
        let mut reset_secret = [0; 32];
        salt.extract(key.secret_der())
            .expand(&[b"v1"], ring::hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut reset_secret))
            .map_err(|_| TlsError::Roots("key derivation failed".into()))?;
        let mut provider = rustls::crypto::ring::default_provider();
        // Of the TLS 1.3 cipher suites, the mandatory one (RFC 8446 §9.1) costs the least per byte.
        let mandatory = CipherSuite::TLS13_AES_128_GCM_SHA256;
        provider.cipher_suites.sort_by_key(|suite| suite.suite() != mandatory);
        let provider = Arc::new(provider);
        let certified = CertifiedKey::from_der(chain, key, &provider).map_err(TlsError::Key)?;
        let certificate = Arc::new(SingleCertAndKey::from(certified));
        Ok((Self { certificate, provider, reset_secret, valid_until }, identity))
    }

    fn dial(
        &self,
        cluster: &str,
        peers: &Arc<RootCertStore>,
        kind: Kind,
        expect: Option<NodeId>,
        register: Option<&Register>,
    ) -> Result<QuicClientConfig, TlsError> {
        let verifier = Verifier::new(Role::Peer, cluster, expect, peers, &self.provider, register)
            .map_err(|error| TlsError::Roots(error.to_string()))?;
        let mut config = rustls::ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(TlsError::Key)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(self.certificate.clone());
        config.alpn_protocols = vec![kind.alpn().to_vec()];
        config.enable_early_data = false;
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        QuicClientConfig::try_from(config).map_err(|error| TlsError::Roots(error.to_string()))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::File { path: path.into(), source })
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let error = |reason: String| TlsError::Pem { what: what.into(), reason };
    let chain = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| error(e.to_string()))?;
    if chain.is_empty() { Err(error("there is no certificate in it".into())) } else { Ok(chain) }
}

/// Reads an authority's certificates. A file may hold several while one authority replaces another.
fn roots(pem: &[u8], role: Role) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem, &format!("the {role} authority"))? {
        match Identity::of(&certificate) {
            Ok(found @ Identity::Authority { role: theirs, .. }) if theirs != role => {
                return Err(TlsError::Other { found, expected: format!("the {role} authority") });
            }
            // An authority made by other tools has no `urn:cortado:` name; the chain is checked all
            // the same.
            _ => roots.add(certificate).map_err(|error| TlsError::Roots(error.to_string()))?,
        }
    }
    Ok(Arc::new(roots))
}
