use foca::{Header, Message};
use proptest::prelude::*;

use super::*;
use cortado_protocol::limits::MEMBERS;

const WALL_MS: u64 = 1_795_000_000_000;

fn id(n: u8) -> NodeId {
    format!("node-{n}").parse().unwrap()
}

fn identity(n: u8, generation: u64) -> Identity {
    let addr = SocketAddr::from(([10, 0, 0, n], 7000));
    Identity { generation, peer_port: 7001, client_port: 7002, ..Identity::addressee(id(n), addr) }
}

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn outputs(detector: &mut Detector) -> Vec<Output> {
    std::iter::from_fn(|| detector.poll_output()).collect()
}

fn sends(outputs: &[Output]) -> Vec<(Option<NodeId>, Packet)> {
    let packet = |output: &Output| {
        let Output::Send { node, data, .. } = output else { return None };
        let (header, updates) = decoded(data);
        Some((*node, Packet { header, updates }))
    };
    outputs.iter().filter_map(packet).collect()
}

fn decoded(mut data: &[u8]) -> (Header<Identity>, Vec<foca::Member<Identity>>) {
    use bytes::Buf;
    use foca::Codec;
    let header = PostcardCodec.decode_header(&mut data).unwrap();
    let count = if data.is_empty() { 0 } else { data.get_u16() };
    let updates = (0..count).map(|_| PostcardCodec.decode_member(&mut data).unwrap()).collect();
    (header, updates)
}

fn packet(
    from: Identity,
    to: Identity,
    message: Message<Identity>,
    updates: Vec<foca::Member<Identity>>,
) -> Vec<u8> {
    let header = Header { src: from, src_incarnation: 0, dst: to, message };
    Packet { header, updates }.encode().unwrap()
}

/// Node 1, which knows nodes 2 to `others + 1`.
fn detector(others: u8) -> Detector {
    let me = identity(1, WALL_MS);
    let mut detector = Detector::new(DetectorConfig::default(), me, Vec::new(), at(0), WALL_MS);
    for n in 2..others + 2 {
        let hello = packet(identity(n, WALL_MS), me, Message::Gossip, Vec::new());
        detector.handle_packet(at(0), WALL_MS, id(n), &hello);
    }
    assert_eq!(detector.view().live().len(), usize::from(others) + 1);
    outputs(&mut detector);
    detector
}

#[test]
fn an_announcement_to_a_seed_finds_whoever_lives_there() {
    let seeds = vec![identity(1, 0).gossip_addr(), identity(2, 0).gossip_addr()];
    let config = DetectorConfig { seeds, ..DetectorConfig::default() };
    let mut first = Detector::new(config, identity(1, WALL_MS), Vec::new(), at(0), WALL_MS);
    let mut second = detector(0);
    second.swim = Foca::new(
        identity(2, WALL_MS),
        Profile::Lan.foca(),
        StdRng::seed_from_u64(1),
        PostcardCodec,
    );
    first.tick(at(100), WALL_MS);
    let sent = outputs(&mut first);
    let [Output::Send { to, node: None, data }] = &sent[1..] else {
        panic!("one announcement, and none to itself: {sent:?}")
    };
    assert_eq!(*to, identity(2, 0).gossip_addr());
    second.handle_packet(at(100), WALL_MS, id(1), data);
    assert_eq!(second.view().live(), [id(1), id(2)]);
    let answer = sends(&outputs(&mut second));
    assert!(matches!(answer.last().unwrap().1.header.message, Message::Feed));
}

#[test]
fn forged_future_and_broken_datagrams_change_nothing() {
    let mut detector = detector(2);
    let view = detector.view().clone();
    let me = detector.me();
    let down = vec![foca::Member::down(identity(2, WALL_MS))];
    let forged = packet(identity(2, WALL_MS), me, Message::Gossip, down);
    detector.handle_packet(at(1), WALL_MS, id(3), &forged);
    assert_eq!(detector.counters().forged, 1);
    let own = packet(me, me, Message::Gossip, Vec::new());
    detector.handle_packet(at(1), WALL_MS, id(1), &own);
    assert_eq!(detector.counters().forged, 2);

    let future = identity(2, WALL_MS + GENERATION_AHEAD + 1);
    let lockout =
        packet(identity(3, WALL_MS), me, Message::Gossip, vec![foca::Member::alive(future)]);
    detector.handle_packet(at(1), WALL_MS, id(3), &lockout);
    let never = packet(identity(2, u64::MAX), me, Message::Gossip, Vec::new());
    detector.handle_packet(at(1), WALL_MS, id(2), &never);
    assert_eq!(detector.counters().future, 2);

    detector.handle_packet(at(1), WALL_MS, id(2), &[0; 1151]);
    let mut long = packet(identity(2, WALL_MS), me, Message::Gossip, Vec::new());
    long.push(0);
    detector.handle_packet(at(1), WALL_MS, id(2), &long);
    assert_eq!(detector.counters().malformed, 2);
    assert_eq!(*detector.view(), view);
}

#[test]
fn a_node_whose_clock_is_ahead_is_believed_about_itself_and_may_be_repeated() {
    let mut detector = detector(1);
    let me = detector.me();
    let ahead = identity(2, WALL_MS + 3 * GENERATION_AHEAD);
    let own = packet(ahead, me, Message::Gossip, Vec::new());
    detector.handle_packet(at(5), WALL_MS, id(2), &own);
    assert_eq!(detector.view().live(), [id(1), id(2)]);
    let repeated =
        packet(identity(3, WALL_MS), me, Message::Gossip, vec![foca::Member::alive(ahead)]);
    detector.handle_packet(at(6), WALL_MS, id(3), &repeated);
    assert_eq!(detector.counters().future, 0);
    assert_eq!(detector.view().live(), [id(1), id(2), id(3)]);
}

#[test]
fn a_clock_set_back_does_not_make_the_others_futuristic() {
    let mut detector = detector(1);
    let me = detector.me();
    let earlier = WALL_MS - 3 * GENERATION_AHEAD;
    let hello = packet(identity(3, WALL_MS + 5), me, Message::Gossip, Vec::new());
    detector.handle_packet(at(5), earlier, id(3), &hello);
    assert_eq!(detector.view().live(), [id(1), id(2), id(3)]);
}

#[test]
fn declared_down_it_renews_and_persists_before_it_speaks() {
    let mut detector = detector(2);
    let dead = packet(identity(2, WALL_MS), detector.me(), Message::TurnUndead, Vec::new());
    // The clock was set back: the generation grows all the same.
    detector.handle_packet(at(1), WALL_MS - 5_000, id(2), &dead);
    let outputs = outputs(&mut detector);
    assert_eq!(outputs[0], Output::Persist { generation: WALL_MS + 1 });
    assert_eq!(detector.me().generation, WALL_MS + 1);
    let sent = sends(&outputs);
    assert!(sent.iter().all(|(_, packet)| packet.header.src == detector.me()));
    for n in [2, 3] {
        assert!(
            sent.iter()
                .any(|(node, p)| { *node == Some(id(n)) && p.header.message == Message::Announce })
        );
    }
    assert_eq!(detector.view().reachable().len(), 3, "it still knows the others");
}

#[test]
fn who_moves_tells_the_others_under_a_new_generation() {
    let mut detector = detector(2);
    let [old, new] = [detector.me().ip, "10.0.0.99".parse().unwrap()];
    detector.set_address(at(1), old);
    assert_eq!(outputs(&mut detector), []);
    detector.set_address(at(1), new);
    let outputs = outputs(&mut detector);
    assert_eq!(outputs[0], Output::Persist { generation: WALL_MS + 1 });
    assert_eq!((detector.me().ip, detector.me().generation), (new, WALL_MS + 1));
    let sent = sends(&outputs);
    assert!(sent.iter().all(|(_, packet)| packet.header.src.ip == new));
    assert!(sent.iter().any(|(node, _)| *node == Some(id(3))));
}

#[test]
fn renewals_take_turns_with_pauses() {
    let mut detector = detector(1);
    for ms in 1..=1000 {
        let dead = packet(identity(2, WALL_MS), detector.me(), Message::TurnUndead, Vec::new());
        detector.handle_packet(at(ms), WALL_MS + ms, id(2), &dead);
        detector.tick(at(ms), WALL_MS + ms);
    }
    assert!((2..=11).contains(&detector.counters().renewed), "{:?}", detector.counters());
}

#[test]
fn a_node_that_lost_its_generation_is_reminded_of_it() {
    let mut keeper = detector(2);
    let old = identity(2, WALL_MS - 3_600_000);
    let config = DetectorConfig::default();
    let mut lost = Detector::new(config, old, Vec::new(), at(0), old.generation);
    let announce = packet(old, keeper.me(), Message::Announce, Vec::new());
    keeper.handle_packet(at(1), WALL_MS, id(2), &announce);
    let Some(Output::Send { data, node, .. }) = keeper.poll_output() else { panic!("no reminder") };
    assert_eq!(node, Some(id(2)));
    lost.handle_packet(at(2), old.generation, id(1), &data);
    assert_eq!(lost.me().generation, WALL_MS + 1);
}

#[test]
fn one_peer_alone_cannot_condemn_most_of_the_cluster() {
    let mut detector = detector(5);
    let me = detector.me();
    let down = (3..=6).map(|n| foca::Member::down(identity(n, WALL_MS))).collect();
    let rumour = packet(identity(2, WALL_MS), me, Message::Gossip, down);
    detector.handle_packet(at(1), WALL_MS, id(2), &rumour);
    assert_eq!(detector.counters().rumours, 1);
    assert_eq!(detector.view().live().len(), 6);
    let down = vec![foca::Member::down(identity(4, WALL_MS))];
    let news = packet(identity(3, WALL_MS), me, Message::Gossip, down);
    detector.handle_packet(at(1), WALL_MS, id(3), &news);
    assert_eq!(detector.view().down(), [id(4)]);
}

#[test]
fn a_stall_of_our_own_gives_the_suspects_more_time() {
    // Node 2 never answers. One detector runs on time, the other one stalls before it declares node
    // 2 down.
    let run_until_suspected = |detector: &mut Detector| {
        while !detector.swim.iter_members().any(|member| member.state() == State::Suspect) {
            let next = detector.next_deadline().unwrap();
            detector.tick(next, WALL_MS);
        }
    };
    let mut punctual = detector(1);
    run_until_suspected(&mut punctual);
    while punctual.view().down().is_empty() {
        let next = punctual.next_deadline().unwrap();
        assert!(next < at(3_000));
        punctual.tick(next, WALL_MS);
    }
    assert_eq!(punctual.counters().stalls, 0);

    let mut stalled = detector(1);
    run_until_suspected(&mut stalled);
    stalled.tick(at(10_000), WALL_MS);
    assert_eq!(stalled.counters().stalls, 1);
    assert!(stalled.view().down().is_empty(), "not heard is not dead");
    while stalled.view().down().is_empty() {
        let next = stalled.next_deadline().unwrap();
        assert!(next < at(10_000 + 700), "the grace has an end");
        stalled.tick(next, WALL_MS);
    }
}

#[test]
fn a_failure_of_the_protocol_is_survived() {
    let mut detector = detector(2);
    let before = detector.me();
    detector.drive(at(1), |_, _| panic!("meant to fail"));
    detector.settle(at(1));
    assert_eq!(detector.counters().rebuilt, 1);
    assert_eq!(detector.view().live().len(), 3, "the members are kept");
    assert!(detector.me() > before);
    assert!(matches!(outputs(&mut detector)[0], Output::Persist { .. }));
    assert!(detector.timers.next().is_some(), "it probes again");
}

#[test]
fn after_leaving_nothing_happens_any_more() {
    let mut detector = detector(2);
    detector.leave(at(1));
    let sent = sends(&outputs(&mut detector));
    assert!(sent.iter().all(|(_, packet)| packet.header.src.leaving));
    assert!(sent.iter().any(|(_, packet)| packet.down().any(|down| down.id == id(1))));
    assert_eq!(detector.next_deadline(), None);
    let ping = packet(identity(2, WALL_MS), detector.me(), Message::TurnUndead, Vec::new());
    detector.handle_packet(at(2), WALL_MS, id(2), &ping);
    detector.tick(at(10_000), WALL_MS);
    assert!(outputs(&mut detector).is_empty());
    assert_eq!(detector.view().reachable(), [id(2), id(3)]);
}

#[test]
fn the_cluster_never_grows_beyond_its_limit() {
    let mut detector = detector(1);
    let me = detector.me();
    for n in 0..2 * MEMBERS {
        let name: NodeId = format!("guest-{n}").parse().unwrap();
        let guest = foca::Member::alive(Identity { id: name, ..identity(9, WALL_MS) });
        let invite = packet(identity(2, WALL_MS), me, Message::Gossip, vec![guest]);
        detector.handle_packet(at(1), WALL_MS, id(2), &invite);
    }
    assert_eq!(detector.view().members.len(), MEMBERS);
    assert!(detector.counters().crowded as usize > MEMBERS / 2);
}

proptest! {
    #[test]
    fn noise_is_dropped_and_counted(data in proptest::collection::vec(any::<u8>(), 0..1200)) {
        let mut detector = detector(2);
        let view = detector.view().clone();
        detector.handle_packet(at(1), WALL_MS, id(2), &data);
        prop_assert_eq!(detector.view(), &view);
        let counters = detector.counters();
        prop_assert_eq!(counters.malformed + counters.forged, 1);
    }

    /// Damaged datagrams of a real peer may change what is known of that peer, but break nothing.
    #[test]
    fn damage_breaks_nothing(flips in proptest::collection::vec((0usize..200, any::<u8>()), 1..6)) {
        let mut detector = detector(3);
        let updates = vec![foca::Member::alive(identity(7, WALL_MS)); 2];
        let ping = Message::PingReq { target: identity(3, WALL_MS), probe_number: 4 };
        let mut data = packet(identity(2, WALL_MS), detector.me(), ping, updates);
        for (place, byte) in flips {
            let place = place % data.len();
            data[place] = byte;
        }
        detector.handle_packet(at(1), WALL_MS, id(2), &data);
        prop_assert_eq!(detector.counters().rebuilt, 0);
        detector.tick(at(2_000), WALL_MS);
        prop_assert!(detector.next_deadline().is_some());
    }
}
