//! Strangers at the ports of a running cluster are refused and counted and cost little memory.
//! Uploads continue meanwhile, and no node is marked as down.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::Bytes;
use cortado_protocol::peer::Hello;
use cortado_protocol::{ALPN_CLIENT, ALPN_GOSSIP, ALPN_PEER, LogId, PROTOCOL_VERSION, frame};
use cortado_transport::{Authority, Issued, Refusal, Role};
use tests::cluster::{Cluster, Coffee, Shape, job_id, wait_for};
use tests::forger::Forger;
use tests::intruder::Intruder;
use tokio::task::JoinSet;

/// Number of handshakes.
const KNOCKS: usize = 10_000;
/// Handshakes of each kind at the same time.
const AT_ONCE: usize = 6;
/// By how many bytes a node's memory may grow.
const GROWTH_BYTES: u64 = 48 << 20;

/// The ports of one node, and the cluster's authorities.
struct Target {
    cluster: String,
    peers: Authority,
    clients: Authority,
    peer_port: SocketAddr,
    gossip_port: SocketAddr,
    client_port: SocketAddr,
}

impl Target {
    fn new(cluster: &Cluster, name: &str) -> Self {
        let authority = cluster.dir().join("authority");
        let load = |role: &str| {
            let file = |kind: &str| authority.join(format!("{role}.{kind}"));
            Authority::load(&file("pem"), &file("key")).unwrap()
        };
        let [gossip_port, peer_port, client_port] = cluster.ports(name);
        let (peers, clients) = (load("peer"), load("client"));
        let cluster = peers.cluster().to_owned();
        Self { cluster, peers, clients, peer_port, gossip_port, client_port }
    }

    /// Every kind of stranger, with its target port and the refusal it must get.
    fn strangers(&self) -> Vec<(Intruder, SocketAddr, Refusal)> {
        let alice = self.clients.issue_client("alice").unwrap();
        let node = self.peers.issue_node("node-2".parse().unwrap(), &[], &[]).unwrap();
        let forged = |cluster: &str, role: Role| -> Issued {
            let authority = Authority::generate(cluster, role).unwrap();
            match role {
                Role::Peer => authority.issue_node("node-2".parse().unwrap(), &[], &[]).unwrap(),
                Role::Client => authority.issue_client("alice").unwrap(),
            }
        };
        let false_node = forged(&self.cluster, Role::Peer);
        let false_client = forged(&self.cluster, Role::Client);
        let other_node = forged("other", Role::Peer);
        let (gossip, peer, client) = (self.gossip_port, self.peer_port, self.client_port);
        let mut strangers = Vec::new();
        for (alpn, port) in [(ALPN_PEER, peer), (ALPN_GOSSIP, gossip)] {
            let mut add = |shown: Option<&Issued>, refusal| {
                strangers.push((Intruder::new(alpn, shown), port, refusal));
            };
            add(None, Refusal::NoCertificate);
            add(Some(&alice), Refusal::WrongRole);
            add(Some(&false_node), Refusal::UnknownAuthority);
            add(Some(&other_node), Refusal::OtherCluster);
        }
        let mut add = |alpn, shown: Option<&Issued>, refusal| {
            strangers.push((Intruder::new(alpn, shown), client, refusal));
        };
        add(ALPN_CLIENT, None, Refusal::NoCertificate);
        add(ALPN_CLIENT, Some(&node), Refusal::WrongRole);
        add(ALPN_CLIENT, Some(&false_client), Refusal::UnknownAuthority);
        add(ALPN_PEER, Some(&node), Refusal::OtherProtocol);
        strangers
    }
}

/// Makes many connections at once; counts the expected answers, and lists the others.
async fn flood(strangers: Vec<(Intruder, SocketAddr, Refusal)>) -> BTreeMap<String, usize> {
    let each = KNOCKS.div_ceil(strangers.len() * AT_ONCE);
    let mut tasks = JoinSet::new();
    for (stranger, port, expected) in strangers {
        for _ in 0..AT_ONCE {
            let stranger = stranger.clone();
            tasks.spawn(async move {
                let mut answers = BTreeMap::<String, usize>::new();
                for _ in 0..each {
                    let answer = stranger.knock(port).await;
                    let as_expected = answer.refusal() == Some(expected);
                    let answer =
                        if as_expected { expected.to_string() } else { answer.to_string() };
                    *answers.entry(answer).or_default() += 1;
                }
                answers
            });
        }
    }
    let mut all = BTreeMap::new();
    for answers in tasks.join_all().await {
        for (answer, count) in answers {
            *all.entry(answer).or_default() += count;
        }
    }
    all
}

/// Breaks the protocols with a valid certificate.
async fn misbehave(target: &Target) {
    let mallory = target.peers.issue_node("node-9".parse().unwrap(), &[], &[]).unwrap();
    let guest = target.clients.issue_client("guest").unwrap();
    let peer = Intruder::new(ALPN_PEER, Some(&mallory));
    let client = Intruder::new(ALPN_CLIENT, Some(&guest));
    let gossip = Intruder::new(ALPN_GOSSIP, Some(&mallory));
    // A frame of 4 GiB, and one with the maximal length, which the first frame must not have.
    for length in [u32::MAX, 16 << 20] {
        let frame = Bytes::copy_from_slice(&length.to_le_bytes());
        let answer = peer.say(target.peer_port, frame).await;
        assert_eq!(answer.refusal(), Some(Refusal::Misbehaved), "{answer}");
    }
    let hello = |node: &str| {
        let hello = Hello {
            version: PROTOCOL_VERSION,
            cluster: target.cluster.clone(),
            node: node.parse().unwrap(),
            boot: u64::MAX,
            log: LogId(7),
            seq: 0,
        };
        frame::encode(&hello, b"")
    };
    // A greeting that names another node than the certificate.
    let answer = peer.say(target.peer_port, hello("node-2")).await;
    assert_eq!(answer.refusal(), Some(Refusal::Closed), "{answer}");
    // A correct greeting, then a frame that is too long.
    let mut greeted = hello("node-9").to_vec();
    greeted.extend_from_slice(&u32::MAX.to_le_bytes());
    let answer = peer.say(target.peer_port, greeted.into()).await;
    assert_eq!(answer.refusal(), Some(Refusal::Misbehaved), "{answer}");
    let oversized = Bytes::copy_from_slice(&u32::MAX.to_le_bytes());
    let answer = client.say(target.client_port, oversized).await;
    assert_eq!(answer.refusal(), Some(Refusal::Misbehaved), "{answer}");
    // Invalid membership datagrams, which are dropped one by one.
    let noise: Vec<_> = (0..1_000u32).map(|n| Bytes::from(vec![n as u8; 1_000])).collect();
    assert!(gossip.throw(target.gossip_port, &noise).await);
}

#[test]
fn ten_thousand_strangers_are_refused_counted_and_harmless() {
    let cluster = Cluster::up(3);
    let data = Coffee::new(Shape::MIDDLE);
    let target = Target::new(&cluster, "node-1");
    let views = || {
        let changes = |name| cluster.log(name).matches("the ring changed").count();
        ["node-1", "node-2", "node-3"].map(changes)
    };
    let (views_before, processes) = (views(), cluster.processes());
    let job = job_id(1);
    let run = cluster.run_coffee(data.dir(), &job, "out").upload_rate(Shape::SLOW).spawn();
    cluster.await_upload(&job, 10);
    let before = cluster.memory("node-1");

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let answers = runtime.block_on(async {
        let answers = flood(target.strangers()).await;
        misbehave(&target).await;
        answers
    });
    let after = cluster.memory("node-1");
    println!("{answers:?}; before {before:?}, after {after:?}");

    // No stranger got in, and nearly all received the reason: the message that closes a connection
    // is sent once, and the end of the connection may overtake it.
    let each = KNOCKS.div_ceil(12 * AT_ONCE) * AT_ONCE;
    assert!(!answers.keys().any(|answer| answer.contains("was let in")), "{answers:?}");
    for (kind, ports) in [
        ("no_certificate", 3),
        ("other_cluster", 2),
        ("other_protocol", 1),
        ("unknown_authority", 3),
        ("wrong_role", 3),
    ] {
        let told = answers.get(kind).copied().unwrap_or_default();
        assert!((ports * each - 20..=ports * each).contains(&told), "{kind}: {answers:?}");
    }
    assert!(after.now < before.now + GROWTH_BYTES, "before {before:?}, after {after:?}");
    assert!(after.peak < before.peak + 2 * GROWTH_BYTES, "before {before:?}, after {after:?}");
    // No node was marked as down, and the upload is right.
    run.wait().ok();
    assert_eq!(views(), views_before, "the view of the members has changed");
    assert_eq!(cluster.processes(), processes);
    data.check(&cluster, &job, "out");

    // At its end, the node logs what it refused.
    cluster.await_members();
    cluster.local("down").run().ok();
    cluster.await_line("node-1", "since_start");
    let log = cluster.log("node-1");
    let totals = log.lines().rev().find(|line| line.contains("since_start")).unwrap();
    for (port, kind, least) in [
        ("peer", "no_certificate", each),
        ("gossip", "no_certificate", each),
        ("client", "no_certificate", each),
        ("peer", "wrong_role", each),
        ("gossip", "other_cluster", each),
        ("client", "other_protocol", each),
        ("peer", "misbehaved", 3),
        ("peer", "other_node", 1),
        ("client", "misbehaved", 1),
        ("datagram", "malformed", 1),
    ] {
        let count = totals.split(&format!("{port} {kind} ")).nth(1);
        let count = count.and_then(|rest| rest.split([',', '"']).next()?.trim().parse().ok());
        assert!(count >= Some(least), "{port} {kind}: {count:?} of {least} in {totals}");
    }
}

/// Number of forged connections, and of the addresses that they seem to come from.
const FORGED: usize = 4_000;
const FORGED_ADDRESSES: u16 = 400;

#[test]
fn connections_from_forged_addresses_cost_little_and_answer_with_little() {
    let cluster = Cluster::up(3);
    let data = Coffee::new(Shape::MIDDLE);
    let target = Target::new(&cluster, "node-1");
    let changes = || cluster.log("node-1").matches("the ring changed").count();
    let (changes_before, processes) = (changes(), cluster.processes());
    let job = job_id(1);
    let run = cluster.run_coffee(data.dir(), &job, "out").upload_rate(Shape::SLOW).spawn();
    cluster.await_upload(&job, 10);
    let before = cluster.memory("node-1");

    let forger = Forger::new(FORGED_ADDRESSES);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut traffic = tests::forger::Traffic::default();
    for (alpn, port) in [
        (ALPN_PEER, target.peer_port),
        (ALPN_GOSSIP, target.gossip_port),
        (ALPN_CLIENT, target.client_port),
    ] {
        let sent = runtime
            .block_on(async { forger.flood(&Intruder::new(alpn, None), port, FORGED / 3).await });
        traffic.sent += sent.sent;
        traffic.sent_bytes += sent.sent_bytes;
        traffic.answered_bytes += forger.answers();
    }
    // Clients at the same port are served meanwhile and afterwards.
    run.wait().ok();
    data.check(&cluster, &job, "out");
    wait_for("the node to forget all of them", 30, || {
        let bytes = forger.answers();
        traffic.answered_bytes += bytes;
        (bytes == 0 && cluster.members_seen_by("node-1").is_some()).then_some(())
    });
    let after = cluster.memory("node-1");
    println!("{traffic:?}; before {before:?}, after {after:?}");
    assert!(traffic.sent > FORGED * 9 / 10, "{traffic:?}");
    // RFC 9000, section 8.1: an address gets at most three times the bytes that came from it.
    assert!(traffic.answered_bytes <= 3 * traffic.sent_bytes, "{traffic:?}");
    assert!(after.now < before.now + GROWTH_BYTES, "before {before:?}, after {after:?}");
    assert!(after.peak < before.peak + 2 * GROWTH_BYTES, "before {before:?}, after {after:?}");
    assert_eq!(changes(), changes_before, "the view of the members has changed");
    assert_eq!(cluster.processes(), processes);
}
