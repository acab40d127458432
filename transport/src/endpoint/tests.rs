use super::*;
use crate::identity::Role;
use crate::{Authority, Issued, peer_node};

/// The two authorities of a cluster.
struct Cluster {
    name: String,
    peers: Authority,
    clients: Authority,
}

impl Cluster {
    fn new(name: &str) -> Self {
        let peers = Authority::generate(name, Role::Peer).unwrap();
        let clients = Authority::generate(name, Role::Client).unwrap();
        Self { name: name.into(), peers, clients }
    }

    fn node(&self, id: &str) -> NodeTls {
        self.node_with(&self.peers.issue_node(id.parse().unwrap(), &[], &[]).unwrap())
    }

    fn node_with(&self, issued: &Issued) -> NodeTls {
        NodeTls::from_pem(
            &self.name,
            issued.certificate_pem.as_bytes(),
            issued.key_pem.as_bytes(),
            self.peers.certificate_pem().as_bytes(),
            self.clients.certificate_pem().as_bytes(),
        )
        .unwrap()
    }

    fn client(&self) -> ClientTls {
        let issued = self.clients.issue_client("alice").unwrap();
        ClientTls::from_pem(
            &self.name,
            issued.certificate_pem.as_bytes(),
            issued.key_pem.as_bytes(),
            self.peers.certificate_pem().as_bytes(),
        )
        .unwrap()
    }
}

fn any() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn listen(kind: Kind, tls: &NodeTls) -> (Endpoint, SocketAddr) {
    let endpoint = Endpoint::node(kind, any(), tls).unwrap();
    let address = endpoint.local_addr().unwrap();
    (endpoint, address)
}

/// The results of both sides when `dialler` dials `listener`: the other side's identity, or the
/// refusal.
async fn meet(
    dialler: &Endpoint,
    listener: &Endpoint,
    expect: Option<NodeId>,
) -> (Result<Identity, ConnectError>, Result<Identity, ConnectError>) {
    let address = listener.local_addr().unwrap();
    let accepting = async {
        let (connection, identity) = listener.accept().await.unwrap().complete().await?;
        // Keeps the connection until the dialler has seen that it was accepted.
        connection.closed().await;
        Ok(identity)
    };
    let dialling = async {
        let connection = dialler.dial(address, expect).await?;
        let identity = peer_identity(&connection).unwrap();
        confirmed(&connection).await?;
        connection.close(0u32.into(), b"");
        Ok(identity)
    };
    tokio::join!(dialling, accepting)
}

/// The listener checks our certificate only after the dialler's handshake is complete; waits for
/// its confirmation (HANDSHAKE_DONE, RFC 9000 §19.20).
async fn confirmed(connection: &Connection) -> Result<(), quinn::ConnectionError> {
    while connection.stats().frame_rx.handshake_done == 0 {
        if let Some(error) = connection.close_reason() {
            return Err(error);
        }
        tokio::task::yield_now().await;
    }
    Ok(())
}

fn refused(result: &Result<Identity, ConnectError>) -> (Refusal, Side) {
    match result {
        Err(ConnectError::Refused { refusal, side }) => (*refusal, *side),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn nodes_and_clients_of_a_cluster_meet() {
    let cluster = Cluster::new("dev");
    for kind in [Kind::Peer, Kind::Gossip] {
        let (a, _) = listen(kind, &cluster.node("node-1"));
        let (b, _) = listen(kind, &cluster.node("node-2"));
        let (at_a, at_b) = meet(&a, &b, Some("node-2".parse().unwrap())).await;
        assert_eq!(at_a.unwrap().to_string(), "urn:cortado:dev:node:node-2");
        assert_eq!(at_b.unwrap().to_string(), "urn:cortado:dev:node:node-1");
    }
    let (node, address) = listen(Kind::Client, &cluster.node("node-1"));
    let client = Endpoint::client(address, &cluster.client()).unwrap();
    let (at_client, at_node) = meet(&client, &node, None).await;
    assert_eq!(at_client.unwrap().to_string(), "urn:cortado:dev:node:node-1");
    assert_eq!(at_node.unwrap().to_string(), "urn:cortado:dev:client:alice");
}

#[tokio::test]
async fn the_dialler_checks_whom_it_reached() {
    let cluster = Cluster::new("dev");
    let (a, _) = listen(Kind::Peer, &cluster.node("node-1"));
    let (b, _) = listen(Kind::Peer, &cluster.node("node-2"));
    let (at_a, at_b) = meet(&a, &b, Some("node-3".parse().unwrap())).await;
    assert_eq!(refused(&at_a), (Refusal::OtherNode, Side::Us));
    assert_eq!(refused(&at_b), (Refusal::OtherNode, Side::Them));
}

#[tokio::test]
async fn a_barred_certificate_opens_nothing_and_a_new_one_does() {
    let cluster = Cluster::new("dev");
    let forgotten: NodeId = "node-1".parse().unwrap();
    let before = cluster.node("node-1");
    let ours = cluster.node("node-2");
    let (a, _) = listen(Kind::Peer, &before);
    let (b, _) = listen(Kind::Peer, &ours);
    assert!(ours.register().seen(forgotten).is_empty());
    let (at_a, at_b) = meet(&a, &b, None).await;
    assert!(at_a.is_ok() && at_b.is_ok());
    let seen = ours.register().seen(forgotten);
    assert_eq!(seen.len(), 1);
    ours.register().bar(seen);
    let (at_a, at_b) = meet(&a, &b, None).await;
    assert_eq!(refused(&at_a), (Refusal::Forgotten, Side::Them));
    assert_eq!(refused(&at_b), (Refusal::Forgotten, Side::Us));
    assert!(at_a.unwrap_err().to_string().contains("that was forgotten"));
    let (at_b, at_a) = meet(&b, &a, None).await;
    assert_eq!(refused(&at_b), (Refusal::Forgotten, Side::Us));
    assert_eq!(refused(&at_a), (Refusal::Forgotten, Side::Them));
    let (anew, _) = listen(Kind::Peer, &cluster.node("node-1"));
    let (at_anew, at_b) = meet(&anew, &b, None).await;
    assert!(at_anew.is_ok() && at_b.is_ok());
}

#[tokio::test]
async fn another_authority_of_the_same_name_is_refused() {
    let (ours, theirs) = (Cluster::new("dev"), Cluster::new("dev"));
    let (b, _) = listen(Kind::Peer, &ours.node("node-2"));
    let (stranger, _) = listen(Kind::Peer, &theirs.node("node-1"));
    let (at_stranger, _) = meet(&stranger, &b, None).await;
    assert_eq!(refused(&at_stranger), (Refusal::UnknownAuthority, Side::Us));

    // A certificate of another authority is refused with a TLS alert, even if its holder trusts
    // ours.
    let issued = theirs.peers.issue_node("node-1".parse().unwrap(), &[], &[]).unwrap();
    let (trusting, _) = listen(Kind::Peer, &ours.node_with(&issued));
    let (at_stranger, at_b) = meet(&trusting, &b, None).await;
    assert_eq!(refused(&at_stranger), (Refusal::UnknownAuthority, Side::Them));
    assert_eq!(refused(&at_b), (Refusal::UnknownAuthority, Side::Us));
    let counted: Vec<_> = b.refusals().counts().collect();
    assert!(counted.contains(&(Refusal::UnknownAuthority, 2)), "{counted:?}");
    let sentence = at_stranger.unwrap_err().to_string();
    assert!(sentence.contains("use one issued by this cluster's own authority"), "{sentence}");
}

#[tokio::test]
async fn another_cluster_is_refused() {
    let ours = Cluster::new("dev");
    let theirs = Cluster { name: "other".into(), ..Cluster::new("other") };
    let (b, _) = listen(Kind::Peer, &ours.node("node-2"));
    let (stranger, _) = listen(Kind::Peer, &theirs.node("node-1"));
    let (at_stranger, at_b) = meet(&stranger, &b, None).await;
    assert_eq!(refused(&at_stranger), (Refusal::OtherCluster, Side::Us));
    assert_eq!(refused(&at_b), (Refusal::OtherCluster, Side::Them));
}

/// Dials with hand-made TLS, as an attacker would.
async fn attack(
    target: SocketAddr,
    alpn: &[u8],
    trusted: &Authority,
    shown: Option<&Issued>,
) -> ConnectError {
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer};
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(trusted.certificate_pem().as_bytes()).unwrap())
        .unwrap();
    let verifier = crate::verifier::Verifier::new(
        Role::Peer,
        trusted.cluster(),
        None,
        &Arc::new(roots),
        &provider,
        None,
    )
    .unwrap();
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match shown {
        None => config.with_no_client_auth(),
        Some(issued) => config
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap(),
            )
            .unwrap(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(config).unwrap();
    let endpoint = quinn::Endpoint::client(any()).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    match endpoint.connect_with(config, target, "x").unwrap().await {
        Ok(connection) => connection.closed().await.into(),
        Err(error) => error.into(),
    }
}

#[tokio::test]
async fn a_port_for_nodes_refuses_clients_and_nobodies() {
    let cluster = Cluster::new("dev");
    let (node, address) = listen(Kind::Peer, &cluster.node("node-1"));
    let alice = cluster.clients.issue_client("alice").unwrap();
    let peer = cortado_protocol::ALPN_PEER;
    let client = cortado_protocol::ALPN_CLIENT;
    for (alpn, shown, expected) in [
        (peer, Some(&alice), Refusal::WrongRole),
        (peer, None, Refusal::NoCertificate),
        (client, Some(&alice), Refusal::OtherProtocol),
    ] {
        let (theirs, ours) = tokio::join!(attack(address, alpn, &cluster.peers, shown), async {
            node.accept().await.unwrap().complete().await
        });
        assert_eq!(theirs, ConnectError::by(Side::Them, expected));
        assert_eq!(ours.unwrap_err(), ConnectError::by(Side::Us, expected));
    }
    assert_eq!(node.refusals().counts().map(|(_, count)| count).sum::<u64>(), 3);
}

#[tokio::test]
async fn the_client_port_refuses_nodes() {
    let cluster = Cluster::new("dev");
    let (node, address) = listen(Kind::Client, &cluster.node("node-1"));
    let other = cluster.peers.issue_node("node-2".parse().unwrap(), &[], &[]).unwrap();
    let alpn = cortado_protocol::ALPN_CLIENT;
    let (theirs, ours) = tokio::join!(attack(address, alpn, &cluster.peers, Some(&other)), async {
        node.accept().await.unwrap().complete().await
    });
    assert_eq!(theirs, ConnectError::by(Side::Them, Refusal::WrongRole));
    assert_eq!(ours.unwrap_err(), ConnectError::by(Side::Us, Refusal::WrongRole));
}

#[tokio::test]
async fn a_restarted_node_ends_old_connections_at_once() {
    let cluster = Cluster::new("dev");
    let tls = cluster.node("node-2");
    let (a, _) = listen(Kind::Peer, &cluster.node("node-1"));
    let old = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let old = old.unwrap();
    let (b, address) = {
        let _inside = old.enter();
        listen(Kind::Peer, &tls)
    };
    let accepted = old.spawn(async move { b.accept().await.unwrap().complete().await.unwrap() });
    let connection = a.dial(address, Some("node-2".parse().unwrap())).await.unwrap();
    assert_eq!(peer_node(&connection, "dev").unwrap().as_str(), "node-2");
    let held = accepted.await.unwrap();
    // The runtime ends first, so that no closing message is sent, as when a process is killed.
    let patience = std::time::Duration::from_secs(5);
    tokio::task::spawn_blocking(move || old.shutdown_timeout(patience)).await.unwrap();
    drop(held);
    let _again = rebind(address, &tls).await;
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    send.write_all(b"still there?").await.unwrap();
    let lost = tokio::time::timeout(std::time::Duration::from_secs(5), connection.closed()).await;
    assert!(matches!(lost, Ok(quinn::ConnectionError::Reset)), "{lost:?}");
}

/// Binds the port of the old endpoint, whose socket is closed in the background.
async fn rebind(address: SocketAddr, tls: &NodeTls) -> Endpoint {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        match Endpoint::node(Kind::Peer, address, tls) {
            Ok(endpoint) => return endpoint,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_reason_of_a_close_arrives() {
    let cluster = Cluster::new("dev");
    for kind in [Kind::Peer, Kind::Gossip, Kind::Client] {
        let (node, address) = listen(kind, &cluster.node("node-1"));
        let other = match kind {
            Kind::Client => Endpoint::client(address, &cluster.client()).unwrap(),
            _ => listen(kind, &cluster.node("node-2")).0,
        };
        let (dialled, accepted) = tokio::join!(other.dial(address, None), async {
            node.accept().await.unwrap().complete().await
        });
        let (dialled, (accepted, _)) = (dialled.unwrap(), accepted.unwrap());
        if kind != Kind::Gossip {
            let (mut send, _recv) = dialled.open_bi().await.unwrap();
            send.write_all(b"rubbish").await.unwrap();
            drop(accepted.accept_bi().await.unwrap());
        }
        accepted.close(7u32.into(), b"enough");
        let reason = dialled.closed().await;
        assert!(
            matches!(&reason, quinn::ConnectionError::ApplicationClosed(close)
            if close.error_code == 7u32.into()),
            "{kind:?} {reason:?}"
        );
    }
}
