use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cortado_membership::{Identity, KnownPeer, MemberState, Profile};
use cortado_protocol::NodeId;
use cortado_transport::{EndpointError, Refusal};

use super::*;
use crate::history::History;
use crate::peers::certificates::{Certificates, node};

const DEADLINE: Duration = Duration::from_secs(30);

/// Keeps the generation and the known peers, as a disk would.
#[derive(Clone, Default)]
struct Disk(Arc<Mutex<(Option<u64>, Vec<KnownPeer>)>>);

impl Memory for Disk {
    fn persist(&self, generation: u64) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        assert!(disk.0 < Some(generation), "generations only grow");
        disk.0 = Some(generation);
        Ok(())
    }

    fn known(&self, peers: Vec<KnownPeer>) {
        self.0.lock().unwrap().1 = peers;
    }
}

fn configured(
    certificates: &Certificates,
    number: usize,
    seeds: Vec<String>,
    known: Vec<KnownPeer>,
) -> GossipConfig {
    GossipConfig {
        bind: (Ipv4Addr::LOCALHOST, 0).into(),
        tls: certificates.node(node(number)),
        profile: Profile::Shared,
        me: Identity {
            generation: 1_000 + number as u64,
            leaving: false,
            draining: false,
            id: node(number),
            ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            gossip_port: 0,
            peer_port: 1,
            client_port: 2,
            http_addr: None,
        },
        follow_own_name: false,
        seeds,
        known,
        seed: number as u64,
        history: History::new(1),
        faults: None,
    }
}

fn start(certificates: &Certificates, number: usize, seeds: Vec<String>, disk: &Disk) -> Gossip {
    let known = disk.0.lock().unwrap().1.clone();
    Gossip::start(configured(certificates, number, seeds, known), disk.clone()).unwrap()
}

/// Waits until the node's view fulfils the condition.
async fn until(gossip: &Gossip, wanted: impl FnMut(&View) -> bool) -> View {
    let mut views = gossip.views();
    let view = tokio::time::timeout(DEADLINE, views.wait_for(wanted)).await;
    view.expect("the view did not become as wanted in time").unwrap().clone()
}

/// Waits until the node follows this leader.
async fn follows(gossip: &Gossip, leader: NodeId) {
    let mut leaders = gossip.leaders();
    let led = leaders.wait_for(|lead| lead.leader == Some(leader));
    tokio::time::timeout(DEADLINE, led).await.expect("another one leads in time").unwrap();
}

fn sees(alive: &[NodeId]) -> impl FnMut(&View) -> bool {
    move |view| view.live() == alive
}

#[tokio::test]
async fn nodes_find_each_other_and_notice_who_dies_drains_and_leaves() {
    let certificates = Certificates::new();
    let disks: Vec<Disk> = (0..3).map(|_| Disk::default()).collect();
    let first = start(&certificates, 1, Vec::new(), &disks[0]);
    // The first seed is a name, so that it is looked up; no node listens at the second.
    let seeds = vec![format!("localhost:{}", first.local_addr().port()), "127.0.0.1:9".to_owned()];
    let second = start(&certificates, 2, seeds.clone(), &disks[1]);
    let third = start(&certificates, 3, seeds, &disks[2]);
    let all = [node(1), node(2), node(3)];
    for gossip in [&first, &second, &third] {
        let view = until(gossip, sees(&all)).await;
        assert_eq!(view.get(node(3)).unwrap().identity.gossip_addr(), third.local_addr());
        follows(gossip, node(3)).await;
    }

    second.set_draining(true);
    until(&first, |view| {
        view.get(node(2)).is_some_and(|member| member.state == MemberState::Draining)
    })
    .await;
    second.set_draining(false);
    until(&first, sees(&all)).await;

    // The node stops without announcing it, as in a crash.
    third.stop().unwrap();
    for gossip in [&first, &second] {
        let view = until(gossip, sees(&all[..2])).await;
        assert_eq!(view.down(), [node(3)]);
        follows(gossip, node(2)).await;
    }

    // The node returns at another port, without seeds, and uses the peers it has saved.
    let third = start(&certificates, 3, Vec::new(), &disks[2]);
    for gossip in [&first, &second, &third] {
        until(gossip, sees(&all)).await;
    }

    second.leave().await;
    second.stop().unwrap();
    let view = until(&first, |view| view.get(node(2)).is_none()).await;
    assert_eq!(view.live(), [node(1), node(3)]);
    follows(&first, node(3)).await;
}

#[tokio::test]
async fn a_node_of_another_authority_stays_out() {
    let (ours, theirs) = (Certificates::new(), Certificates::new());
    let first = start(&ours, 1, Vec::new(), &Disk::default());
    let seeds = vec![first.local_addr().to_string()];
    let stranger = start(&theirs, 2, seeds.clone(), &Disk::default());
    let friend = start(&ours, 3, seeds, &Disk::default());
    until(&first, sees(&[node(1), node(3)])).await;
    let mut refused = first.refused.clone();
    let counted = refused.wait_for(|(counts, _)| {
        counts.iter().any(|(kind, count)| *kind == Refusal::UnknownAuthority && *count > 0)
    });
    tokio::time::timeout(DEADLINE, counted).await.unwrap().unwrap();
    assert_eq!(stranger.views().borrow().live(), [node(2)]);
    assert_eq!(first.views().borrow().live(), [node(1), node(3)]);
    friend.stop().unwrap();
}

#[tokio::test]
async fn a_generation_that_is_not_on_disk_ends_the_detector() {
    struct Broken;
    impl Memory for Broken {
        fn persist(&self, _: u64) -> io::Result<()> {
            Err(io::Error::other("no space"))
        }
        fn known(&self, _: Vec<KnownPeer>) {}
    }
    let certificates = Certificates::new();
    let gossip = start(&certificates, 1, Vec::new(), &Disk::default());
    let taken = gossip.local_addr();
    let config = |bind| GossipConfig {
        bind,
        tls: certificates.node(node(2)),
        profile: Profile::Shared,
        me: gossip.views().borrow().get(node(1)).unwrap().identity,
        follow_own_name: false,
        seeds: Vec::new(),
        known: Vec::new(),
        seed: 1,
        history: History::new(1),
        faults: None,
    };
    until(&gossip, sees(&[node(1)])).await;
    assert!(matches!(
        Gossip::start(config(taken), Broken),
        Err(GossipError::Endpoint(EndpointError::Bind { .. }))
    ));
    let broken = Gossip::start(config((Ipv4Addr::LOCALHOST, 0).into()), Broken).unwrap();
    let mut views = broken.views();
    broken.set_draining(true);
    // Draining needs a new generation.
    let closed = async { while views.changed().await.is_ok() {} };
    tokio::time::timeout(DEADLINE, closed).await.unwrap();
    assert!(matches!(broken.stop(), Err(GossipError::Persist(_))));
}

#[tokio::test]
async fn a_disk_that_hangs_makes_the_detector_silent_not_deaf() {
    /// Completes a write when the test says so.
    struct Hanging(Mutex<std::sync::mpsc::Receiver<()>>);
    impl Memory for Hanging {
        fn persist(&self, _: u64) -> io::Result<()> {
            self.0.lock().unwrap().recv().map_err(io::Error::other)
        }
        fn known(&self, _: Vec<KnownPeer>) {}
    }
    let certificates = Certificates::new();
    let first = start(&certificates, 1, Vec::new(), &Disk::default());
    let seeds = vec![first.local_addr().to_string()];
    let (go_on, words) = std::sync::mpsc::channel();
    let config = configured(&certificates, 2, seeds.clone(), Vec::new());
    let hanging = Gossip::start(config, Hanging(Mutex::new(words))).unwrap();
    until(&first, sees(&[node(1), node(2)])).await;
    // Draining needs a new generation.
    hanging.set_draining(true);
    let third = start(&certificates, 3, seeds, &Disk::default());
    until(&hanging, |view| view.get(node(3)).is_some()).await;
    let drains =
        |view: &View| view.get(node(2)).is_some_and(|member| member.state == MemberState::Draining);
    assert!(!drains(&first.views().borrow()), "nothing of it is said before it is on disk");
    // Completes many writes: the node may need several generations if it was declared down
    // meanwhile.
    let _ = (0..100).try_for_each(|_| go_on.send(()));
    until(&first, drains).await;
    third.stop().unwrap();
}
