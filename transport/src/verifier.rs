//! Certificate checks of both sides: webpki checks the chain, then this module checks the identity.
//! Host names are not checked: nodes are dialled by address, and an address does not identify a
//! node. The TLS settings use one verifier for each role.

use std::fmt;
use std::sync::Arc;

use cortado_protocol::NodeId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::identity::{Identity, Role};
use crate::register::Register;

/// Checks that the other side is a node or a client of this cluster.
pub(crate) struct Verifier {
    role: Role,
    cluster: String,
    expect: Option<NodeId>,
    roots: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
    provider: Arc<CryptoProvider>,
    register: Option<Register>,
}

impl Verifier {
    pub(crate) fn new(
        role: Role,
        cluster: &str,
        expect: Option<NodeId>,
        roots: &Arc<RootCertStore>,
        provider: &Arc<CryptoProvider>,
        register: Option<&Register>,
    ) -> Result<Arc<Self>, rustls::server::VerifierBuilderError> {
        let clients =
            WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build()?;
        Ok(Arc::new(Self {
            role,
            cluster: cluster.to_owned(),
            expect,
            roots: roots.clone(),
            clients,
            provider: provider.clone(),
            register: register.cloned(),
        }))
    }

    /// Checks the identity before the chain, so that a certificate of the wrong kind is reported as
    /// such and not as one of an unknown authority. The identity alone grants nothing.
    fn check_identity(&self, certificate: &CertificateDer<'_>) -> Result<Identity, Error> {
        let identity = Identity::of(certificate).map_err(|_| CertificateError::BadEncoding)?;
        match (self.role, &identity) {
            (Role::Peer, Identity::Node { .. }) | (Role::Client, Identity::Client { .. }) => {}
            _ => return Err(CertificateError::InvalidPurpose.into()),
        }
        if identity.cluster() != self.cluster {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        if let (Some(expected), Identity::Node { node, .. }) = (self.expect, &identity)
            && *node != expected
        {
            let reason = OtherNode { expected, found: *node };
            return Err(CertificateError::Other(rustls::OtherError(Arc::new(reason))).into());
        }
        Ok(identity)
    }

    /// Checks that a certificate with a valid chain is not barred, and records it.
    fn check_register(
        &self,
        identity: &Identity,
        certificate: &CertificateDer<'_>,
    ) -> Result<(), Error> {
        if let (Some(register), Identity::Node { node, .. }) = (&self.register, identity) {
            if register.is_barred(certificate) {
                return Err(CertificateError::Revoked.into());
            }
            register.note(*node, certificate);
        }
        Ok(())
    }
}

/// With a forged issuer name the signature is wrong and the issuer is not unknown. For the user
/// both mean the wrong authority.
fn wrong_signature_is_unknown_authority(error: Error) -> Error {
    match error {
        Error::InvalidCertificate(CertificateError::BadSignature) => {
            CertificateError::UnknownIssuer.into()
        }
        other => other,
    }
}

#[derive(Debug, thiserror::Error)]
#[error("expected {expected}, found {found}")]
struct OtherNode {
    expected: NodeId,
    found: NodeId,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({} of {})", self.role, self.cluster)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let identity = self.check_identity(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &self.roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )
        .map_err(wrong_signature_is_unknown_authority)?;
        self.check_register(&identity, end_entity)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.clients.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let identity = self.check_identity(end_entity)?;
        let verified = self
            .clients
            .verify_client_cert(end_entity, intermediates, now)
            .map_err(wrong_signature_is_unknown_authority)?;
        self.check_register(&identity, end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ServerCertVerifier::verify_tls12_signature(self, message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ServerCertVerifier::verify_tls13_signature(self, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ServerCertVerifier::supported_verify_schemes(self)
    }
}
