use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use cortado_protocol::frame::encode;
use cortado_protocol::peer::{Hello, LinkFrame, PeerMessage};
use cortado_protocol::{JobId, LogId, PROTOCOL_VERSION};
use tokio::sync::mpsc::Receiver;

use super::certificates::{Certificates, node};
use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

/// A node whose core numbers messages, keeps the unacknowledged ones and handles each number once.
struct Node {
    peers: Peers,
    events: Receiver<PeerEvent>,
    unacknowledged: Arc<Mutex<BTreeMap<u64, Bytes>>>,
    next_seq: u64,
    handled: BTreeMap<NodeId, u64>,
}

impl Node {
    fn start(certificates: &Certificates, number: usize, boot: u64) -> Self {
        let config = PeersConfig {
            bind: (Ipv4Addr::LOCALHOST, 0).into(),
            tls: certificates.node(node(number)),
            boot,
            log: LogId(number as u128),
            faults: None,
        };
        let unacknowledged: Arc<Mutex<BTreeMap<u64, Bytes>>> = Arc::default();
        let asked = unacknowledged.clone();
        let resume: Resume =
            Arc::new(move |_| lock(&asked).first_key_value().map_or(0, |(seq, _)| *seq));
        let (to_core, events) = mpsc::channel(EVENTS);
        let peers = Peers::start(config, resume, to_core).unwrap();
        Self { peers, events, unacknowledged, next_seq: 0, handled: BTreeMap::new() }
    }

    fn address(&self) -> SocketAddr {
        self.peers.local_addr().unwrap()
    }

    async fn event(&mut self) -> PeerEvent {
        tokio::time::timeout(DEADLINE, self.events.recv()).await.unwrap().unwrap()
    }

    fn say(&mut self, to: NodeId, tail: &[u8]) {
        let frame = message(self.next_seq, tail);
        lock(&self.unacknowledged).insert(self.next_seq, frame.clone());
        self.next_seq += 1;
        self.peers.send(to, frame);
    }

    /// Handles an event as the core does. Returns it, and whether it is a message that had not
    /// arrived before.
    async fn step(&mut self) -> (PeerEvent, bool) {
        let event = self.event().await;
        let mut new = false;
        match &event {
            PeerEvent::LinkUp { peer, hello } => {
                for (_, frame) in lock(&self.unacknowledged).range(hello.seq..) {
                    self.peers.send(*peer, frame.clone());
                }
            }
            PeerEvent::LinkAck { next, .. } => {
                let mut held = lock(&self.unacknowledged);
                *held = held.split_off(next);
            }
            PeerEvent::Inbound { conn, hello } => {
                let next = *self.handled.entry(hello.node).or_insert(hello.seq);
                self.peers.welcome(*conn, next);
            }
            PeerEvent::Message { conn, from, seq, .. } => {
                let next = self.handled.entry(*from).or_default();
                assert!(*seq <= *next, "gap: {seq} after {next}");
                new = *seq == *next;
                *next = (*seq + 1).max(*next);
                self.peers.ack(*conn, *next);
            }
            PeerEvent::LinkDown { .. } | PeerEvent::InboundClosed { .. } => {}
        }
        (event, new)
    }

    /// Handles events until one fulfils the condition.
    async fn until(&mut self, wanted: impl Fn(&PeerEvent) -> bool) -> PeerEvent {
        loop {
            let (event, _) = self.step().await;
            if wanted(&event) {
                return event;
            }
        }
    }
}

fn message(seq: u64, tail: &[u8]) -> Bytes {
    let message = PeerMessage::JobWanted { job: JobId(u128::from(seq)), client: 1 };
    encode(&LinkFrame::Message { seq, message }, tail)
}

#[test]
fn the_number_of_a_message_is_read_without_decoding_it() {
    for seq in [0, 1, 127, 128, 300, u64::MAX] {
        assert_eq!(message_number(&message(seq, b"tail")), Some(seq));
    }
    assert_eq!(message_number(&encode(&LinkFrame::Ack { next: 3 }, b"")), None);
    assert_eq!(message_number(&Bytes::from_static(b"xx")), None);
}

#[tokio::test]
async fn sequences_resume_after_the_other_side_was_restarted() {
    let certificates = Certificates::new();
    let mut a = Node::start(&certificates, 1, 1);
    let mut b = Node::start(&certificates, 2, 1);
    let to_b = node(2);
    a.peers.set_targets(vec![(to_b, b.address())]);

    for n in 0..50u64 {
        a.say(to_b, &n.to_le_bytes());
    }
    let receiving = async {
        let mut tails = Vec::new();
        while tails.len() < 50 {
            if let (PeerEvent::Message { from, tail, .. }, true) = b.step().await {
                assert_eq!(from, node(1));
                tails.push(u64::from_le_bytes(tail[..].try_into().unwrap()));
            }
        }
        assert_eq!(tails, (0..50).collect::<Vec<_>>());
        b
    };
    let acknowledged = a.until(|event| matches!(event, PeerEvent::LinkAck { next: 50, .. }));
    let (b, _) = tokio::join!(receiving, acknowledged);

    let handled = b.handled.clone();
    b.peers.stop().await;
    a.until(|event| matches!(event, PeerEvent::LinkDown { .. })).await;
    // While the link is down, these messages wait in the core.
    for n in 50..60u64 {
        a.say(to_b, &n.to_le_bytes());
    }
    // The node returns at another address.
    let mut b = Node::start(&certificates, 2, 2);
    b.handled = handled;
    a.peers.set_targets(vec![(to_b, b.address())]);
    let again = a.until(|event| matches!(event, PeerEvent::LinkAck { next: 60, .. }));
    let receiving = async {
        let mut new = Vec::new();
        while new.len() < 10 {
            if let (PeerEvent::Message { seq, .. }, true) = b.step().await {
                new.push(seq);
            }
        }
        new
    };
    let (new, _) = tokio::join!(receiving, again);
    assert_eq!(new, (50..60).collect::<Vec<_>>());

    a.peers.set_targets(Vec::new());
    a.until(|event| matches!(event, PeerEvent::LinkDown { .. })).await;
    b.until(|event| matches!(event, PeerEvent::InboundClosed { .. })).await;
}

#[tokio::test]
async fn three_nodes_talk_to_each_other() {
    let certificates = Certificates::new();
    let mut nodes: Vec<Node> = (1..4).map(|n| Node::start(&certificates, n, 1)).collect();
    let addresses: Vec<_> =
        nodes.iter().enumerate().map(|(n, x)| (node(n + 1), x.address())).collect();
    // A node ignores its own address among the targets.
    nodes.iter().for_each(|node| node.peers.set_targets(addresses.clone()));
    let runs = nodes.iter_mut().map(|me| async {
        let (mut up, mut heard) = (0, BTreeMap::new());
        while up < 2 || heard.len() < 2 {
            match me.step().await.0 {
                PeerEvent::LinkUp { peer, hello } => {
                    up += 1;
                    assert_eq!(hello.node, peer);
                    me.peers.send(peer, message(hello.seq, b"hello"));
                }
                PeerEvent::Message { from, tail, .. } => {
                    heard.insert(from, tail);
                }
                _ => {}
            }
        }
        heard
    });
    let mut runs: Vec<_> = runs.map(Box::pin).collect();
    let (third, second, first) = (runs.remove(2), runs.remove(1), runs.remove(0));
    let heard = tokio::join!(first, second, third);
    assert_eq!(heard.0.into_keys().collect::<Vec<_>>(), [node(2), node(3)]);
    assert_eq!(heard.1.into_keys().collect::<Vec<_>>(), [node(1), node(3)]);
    assert_eq!(heard.2.into_keys().collect::<Vec<_>>(), [node(1), node(2)]);
}

#[tokio::test]
async fn a_second_link_of_the_same_node_replaces_the_first() {
    let certificates = Certificates::new();
    let mut b = Node::start(&certificates, 2, 1);
    let mut first = Node::start(&certificates, 1, 1);
    first.peers.set_targets(vec![(node(2), b.address())]);
    let PeerEvent::Inbound { conn, hello } = b.step().await.0 else { panic!() };
    assert_eq!((hello.boot, hello.node), (1, node(1)));
    first.until(|event| matches!(event, PeerEvent::LinkUp { .. })).await;

    let second = Node::start(&certificates, 1, 2);
    second.peers.set_targets(vec![(node(2), b.address())]);
    let closed = b.step().await.0;
    assert!(matches!(closed, PeerEvent::InboundClosed { conn: old } if old == conn), "{closed:?}");
    let PeerEvent::Inbound { conn: newer, hello } = b.step().await.0 else { panic!() };
    assert!(newer > conn);
    assert_eq!(hello.boot, 2);
    first.until(|event| matches!(event, PeerEvent::LinkDown { .. })).await;
}

#[tokio::test]
async fn a_peer_that_calls_something_misbehaviour_is_told_from_a_broken_link() {
    let certificates = Certificates::new();
    let mut a = Node::start(&certificates, 1, 1);
    let mut b = Node::start(&certificates, 2, 1);
    a.peers.set_targets(vec![(node(2), b.address())]);
    let serving = tokio::spawn(async move {
        loop {
            b.step().await;
        }
    });
    a.until(|event| matches!(event, PeerEvent::LinkUp { .. })).await;
    a.peers.send(node(2), Bytes::from_static(&[8, 0, 0, 0, 4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]));
    let down = a.until(|event| matches!(event, PeerEvent::LinkDown { .. })).await;
    assert!(matches!(down, PeerEvent::LinkDown { refused: true, .. }), "{down:?}");
    a.until(|event| matches!(event, PeerEvent::LinkUp { .. })).await;
    serving.abort();
    let down = a.until(|event| matches!(event, PeerEvent::LinkDown { .. })).await;
    assert!(matches!(down, PeerEvent::LinkDown { refused: false, .. }), "{down:?}");
}

#[tokio::test]
async fn a_gap_is_not_sent() {
    let certificates = Certificates::new();
    let mut a = Node::start(&certificates, 1, 1);
    let mut b = Node::start(&certificates, 2, 1);
    a.peers.set_targets(vec![(node(2), b.address())]);
    let up = a.until(|event| matches!(event, PeerEvent::LinkUp { .. }));
    let (_, inbound) = tokio::join!(up, b.step());
    assert!(matches!(inbound.0, PeerEvent::Inbound { .. }));
    for seq in [5, 0, 2, 1] {
        a.peers.send(node(2), message(seq, b""));
    }
    for expected in [0, 1] {
        let PeerEvent::Message { seq, .. } = b.step().await.0 else { panic!() };
        assert_eq!(seq, expected);
    }
}

#[tokio::test]
async fn whoever_breaks_the_protocol_is_closed_and_counted() {
    let certificates = Certificates::new();
    let mut b = Node::start(&certificates, 2, 1);
    let tls = certificates.node(node(3));
    let hostile = Endpoint::node(Kind::Peer, (Ipv4Addr::LOCALHOST, 0).into(), &tls).unwrap();
    let hello = Hello {
        version: PROTOCOL_VERSION,
        cluster: "dev".into(),
        node: node(3),
        boot: 1,
        log: LogId(3),
        seq: 0,
    };
    let greetings = [
        // Claims another name than its certificate's.
        (encode(&Hello { node: node(1), ..hello.clone() }, b""), Refusal::OtherNode),
        (encode(&Hello { version: 99, ..hello.clone() }, b""), Refusal::OtherVersion),
        (encode(&Hello { cluster: "prod".into(), ..hello.clone() }, b""), Refusal::OtherCluster),
        (Bytes::from_static(&[5, 0, 0, 0, 255, 255, 255, 255, 9]), Refusal::Misbehaved),
        (Bytes::from_static(&[255, 255, 255, 255]), Refusal::Misbehaved),
    ];
    for (greeting, expected) in greetings {
        let before = b.peers.refusals();
        let connection = hostile.dial(b.address(), Some(node(2))).await.unwrap();
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(&greeting).await.unwrap();
        tokio::time::timeout(DEADLINE, connection.closed()).await.unwrap();
        let count = |counts: &[(Refusal, u64)]| {
            counts.iter().find(|(kind, _)| *kind == expected).map_or(0, |(_, count)| *count)
        };
        assert_eq!(count(&b.peers.refusals()), count(&before) + 1, "{expected:?}");
    }
    assert!(b.events.try_recv().is_err(), "the core must not hear of any of it");

    // The greeting is correct; the frame after it is not.
    let connection = hostile.dial(b.address(), Some(node(2))).await.unwrap();
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    send.write_all(&encode(&hello, b"")).await.unwrap();
    send.write_all(&encode(&LinkFrame::Ack { next: 7 }, b"")).await.unwrap();
    b.until(|event| matches!(event, PeerEvent::InboundClosed { .. })).await;
}

/// Run it with `cargo test -p cortado-node throughput -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, not a check"]
async fn throughput_of_a_link() {
    const MESSAGES: u64 = 2048;
    let certificates = Certificates::new();
    let mut a = Node::start(&certificates, 1, 1);
    let mut b = Node::start(&certificates, 2, 1);
    a.peers.set_targets(vec![(node(2), b.address())]);
    let receiving = tokio::spawn(async move {
        let mut started = None;
        loop {
            if let (PeerEvent::Message { seq, .. }, true) = b.step().await {
                let started = *started.get_or_insert_with(Instant::now);
                if seq == MESSAGES - 1 {
                    return started.elapsed();
                }
            }
        }
    });
    a.until(|event| matches!(event, PeerEvent::LinkUp { .. })).await;
    let payload = vec![7; 1 << 20];
    let mut acknowledged = 0;
    for seq in 0..MESSAGES {
        a.peers.send(node(2), message(seq, &payload));
        // A window of 16 messages, as the core has one.
        while acknowledged + 16 <= seq {
            if let PeerEvent::LinkAck { next, .. } = a.step().await.0 {
                acknowledged = next;
            }
        }
    }
    let took = receiving.await.unwrap();
    println!("{:.0} MB/s", MESSAGES as f64 * 1.048_576 / took.as_secs_f64());
}
