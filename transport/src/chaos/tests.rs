use std::net::{Ipv4Addr, UdpSocket};

use quinn::{Runtime, TokioRuntime};

use super::*;

/// How long a test waits for packets that must not arrive.
const QUIET: Duration = Duration::from_millis(30);
const DEADLINE: Duration = Duration::from_secs(20);
const HOUR: Duration = Duration::from_secs(3_600);

/// Two sockets; the network of the first can be disturbed.
struct Pair {
    disturbed: Arc<dyn AsyncUdpSocket>,
    other: Arc<dyn AsyncUdpSocket>,
    faults: NetworkFaults,
}

impl Pair {
    /// A pair whose second socket belongs to `node`.
    fn with(node: NodeId) -> Self {
        let socket = || {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            socket.set_nonblocking(true).unwrap();
            TokioRuntime.wrap_udp_socket(socket).unwrap()
        };
        let (faults, other) = (NetworkFaults::new(1), socket());
        faults.locate(node, other.local_addr().unwrap(), true);
        let disturbed = Arc::new(FaultySocket::new(socket(), faults.clone()));
        Self { disturbed, other, faults }
    }

    fn begin(&self, what: Disturbance) {
        self.faults.begin(what, Instant::now() + HOUR);
    }

    /// Sends `contents` out of the disturbed socket in one call, which the system cuts into
    /// segments.
    async fn send(&self, contents: &[u8], segment_size: Option<usize>) {
        send(&self.disturbed, self.other.local_addr().unwrap(), contents, segment_size).await;
    }
}

async fn send(
    from: &Arc<dyn AsyncUdpSocket>,
    destination: SocketAddr,
    contents: &[u8],
    segment_size: Option<usize>,
) {
    let packet = Transmit { destination, ecn: None, contents, segment_size, src_ip: None };
    let mut writable = Arc::clone(from).create_io_poller();
    while let Err(error) = from.try_send(&packet) {
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        poll_fn(|context| writable.as_mut().poll_writable(context)).await.unwrap();
    }
}

/// All bytes that arrive until none has arrived for `patience`.
async fn arrivals(socket: &Arc<dyn AsyncUdpSocket>, patience: Duration) -> Vec<u8> {
    let mut arrived = Vec::new();
    let mut buffer = [0; 65_536];
    let mut wait = patience;
    loop {
        let mut meta = [RecvMeta::default()];
        let received = poll_fn(|context| {
            socket.poll_recv(context, &mut [IoSliceMut::new(&mut buffer)], &mut meta)
        });
        match tokio::time::timeout(wait, received).await {
            Ok(count) => assert_eq!(count.unwrap(), 1),
            Err(_) => return arrived,
        }
        arrived.extend(&buffer[..meta[0].len]);
        wait = QUIET;
    }
}

fn node(number: u32) -> NodeId {
    format!("node-{number}").parse().unwrap()
}

#[tokio::test]
async fn a_cut_holds_both_ways_until_it_is_healed_and_concerns_nobody_else() {
    let pair = Pair::with(node(2));
    let back = pair.disturbed.local_addr().unwrap();
    pair.begin(Disturbance::Cut(vec![node(3)]));
    pair.send(b"other", None).await;
    assert_eq!(arrivals(&pair.other, DEADLINE).await, b"other");
    pair.begin(Disturbance::Cut(vec![node(2)]));
    pair.send(b"cut", None).await;
    send(&pair.other, back, b"cut", None).await;
    assert_eq!(arrivals(&pair.other, QUIET).await, b"");
    assert_eq!(arrivals(&pair.disturbed, QUIET).await, b"");
    pair.faults.heal();
    pair.send(b"whole", None).await;
    send(&pair.other, back, b"whole", None).await;
    assert_eq!(arrivals(&pair.other, DEADLINE).await, b"whole");
    assert_eq!(arrivals(&pair.disturbed, DEADLINE).await, b"whole");
}

#[tokio::test]
async fn one_way_is_the_other_way_open() {
    let pair = Pair::with(node(2));
    let back = pair.disturbed.local_addr().unwrap();
    for (what, sent, heard) in [
        (Disturbance::Mute(vec![node(2)]), &b""[..], &b"in"[..]),
        (Disturbance::Deaf(vec![node(2)]), b"out", b""),
    ] {
        pair.faults.heal();
        pair.begin(what);
        pair.send(b"out", None).await;
        send(&pair.other, back, b"in", None).await;
        let patience = |expected: &[u8]| if expected.is_empty() { QUIET } else { DEADLINE };
        assert_eq!(arrivals(&pair.other, patience(sent)).await, sent);
        assert_eq!(arrivals(&pair.disturbed, patience(heard)).await, heard);
    }
}

#[tokio::test]
async fn what_is_late_arrives_whole_in_order_and_not_before_its_time() {
    let pair = Pair::with(node(2));
    let delay = Duration::from_millis(60);
    pair.begin(Disturbance::Delay { ms: 60 });
    let began = Instant::now();
    pair.send(b"aabbc", Some(2)).await;
    pair.send(b"dd", None).await;
    assert_eq!(arrivals(&pair.other, DEADLINE).await, b"aabbcdd");
    assert!(began.elapsed() >= delay);
}

#[tokio::test]
async fn each_packet_is_lost_for_itself() {
    let pair = Pair::with(node(2));
    pair.begin(Disturbance::Loss { percent: 30 });
    let contents: Vec<u8> = (0..200).collect();
    for segments in contents.chunks(10) {
        pair.send(segments, Some(1)).await;
    }
    let arrived = arrivals(&pair.other, DEADLINE).await;
    assert!((100..180).contains(&arrived.len()), "{} of 200", arrived.len());
    pair.begin(Disturbance::Loss { percent: 100 });
    pair.send(b"lost", None).await;
    assert_eq!(arrivals(&pair.other, QUIET).await, b"");
}

#[tokio::test]
async fn trouble_ends_by_itself() {
    let pair = Pair::with(node(2));
    pair.faults.begin(Disturbance::Cut(vec![node(2)]), Instant::now());
    pair.send(b"over", None).await;
    assert_eq!(arrivals(&pair.other, DEADLINE).await, b"over");
}
