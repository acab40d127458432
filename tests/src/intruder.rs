//! Connects to a node's ports with hand-made QUIC and TLS that break the rules of the cluster.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cortado_transport::{ConnectError, Issued};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};

/// Time limit for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A socket, and the certificate that it shows to servers.
#[derive(Clone)]
pub struct Intruder {
    endpoint: quinn::Endpoint,
    config: quinn::ClientConfig,
}

impl Intruder {
    /// Asks for this protocol and shows this certificate. Needs a tokio runtime.
    ///
    /// # Panics
    /// If there is no socket, or the certificate does not match its key.
    #[must_use]
    pub fn new(alpn: &[u8], shown: Option<&Issued>) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider has TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(TrustsAnyone(provider)));
        let mut config = match shown {
            None => config.with_no_client_auth(),
            Some(issued) => config
                .with_client_auth_cert(
                    vec![
                        CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes())
                            .expect("an issued certificate is one"),
                    ],
                    PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes())
                        .expect("an issued key is one"),
                )
                .expect("they match"),
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        let crypto = QuicClientConfig::try_from(config).expect("TLS 1.3 is what QUIC needs");
        let endpoint =
            quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).expect("there is a free port");
        Self { endpoint, config: quinn::ClientConfig::new(Arc::new(crypto)) }
    }

    /// Connects, and waits until the node closes the connection.
    pub async fn knock(&self, target: SocketAddr) -> ConnectError {
        match self.connect(target).await {
            Ok(connection) => thrown_out(&connection).await,
            Err(error) => error,
        }
    }

    /// Connects, sends these bytes on a stream, and waits until the node closes the connection.
    pub async fn say(&self, target: SocketAddr, bytes: Bytes) -> ConnectError {
        let connection = match self.connect(target).await {
            Ok(connection) => connection,
            Err(error) => return error,
        };
        // If this fails, the reason of the closed connection says why.
        let mut stream = connection.open_bi().await;
        if let Ok((send, _)) = &mut stream {
            let _ = send.write_chunk(bytes).await;
        }
        thrown_out(&connection).await
    }

    /// Connects and sends datagrams; returns whether the connection was still open afterwards.
    pub async fn throw(&self, target: SocketAddr, datagrams: &[Bytes]) -> bool {
        let Ok(connection) = self.connect(target).await else { return false };
        let all = connection.datagram_send_buffer_space();
        for datagram in datagrams {
            if connection.send_datagram_wait(datagram.clone()).await.is_err() {
                return false;
            }
        }
        // Datagrams that still wait would be lost with the connection.
        while connection.datagram_send_buffer_space() < all {
            if connection.close_reason().is_some() {
                return false;
            }
            tokio::task::yield_now().await;
        }
        connection.close_reason().is_none()
    }

    async fn connect(&self, target: SocketAddr) -> Result<quinn::Connection, ConnectError> {
        let connecting = self
            .endpoint
            .connect_with(self.config.clone(), target, "x")
            .expect("the address can be dialled");
        Ok(connecting.await?)
    }
}

async fn thrown_out(connection: &quinn::Connection) -> ConnectError {
    match tokio::time::timeout(PATIENCE, connection.closed()).await {
        Ok(reason) => reason.into(),
        Err(_) => ConnectError::Other("was let in".into()),
    }
}

/// Accepts any server's certificate.
#[derive(Debug)]
struct TrustsAnyone(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustsAnyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
