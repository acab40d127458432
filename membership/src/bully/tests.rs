use std::collections::BTreeMap;

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

fn id(n: usize) -> NodeId {
    format!("node-{n}").parse().unwrap()
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn outputs(election: &mut Election) -> Vec<Output> {
    std::iter::from_fn(|| election.poll_output()).collect()
}

/// Elections over a network that delays, loses and doubles messages.
struct Net {
    rng: StdRng,
    now: Duration,
    nodes: BTreeMap<NodeId, Election>,
    wire: BTreeMap<(Duration, u64), (NodeId, NodeId, Message)>,
    sent: u64,
    loss: f64,
    doubles: f64,
}

impl Net {
    fn new(seed: u64, count: usize, loss: f64, doubles: f64) -> Self {
        let nodes = (1..=count).map(|n| (id(n), Election::new(id(n)))).collect();
        let rng = StdRng::seed_from_u64(seed);
        let (now, wire) = (Duration::ZERO, BTreeMap::new());
        Self { rng, now, nodes, wire, sent: 0, loss, doubles }
    }

    fn see(&mut self, node: NodeId, live: &[NodeId]) {
        let now = self.now;
        if let Some(election) = self.nodes.get_mut(&node) {
            election.set_view(now, live);
            self.carry(node);
        }
    }

    fn everyone_sees_everyone(&mut self) {
        let live: Vec<NodeId> = self.nodes.keys().copied().collect();
        for node in &live {
            self.see(*node, &live);
        }
    }

    fn carry(&mut self, from: NodeId) {
        let Some(election) = self.nodes.get_mut(&from) else { return };
        for output in outputs(election) {
            let Output::Send { to, message } = output else { continue };
            let copies = 1 + usize::from(self.rng.random_bool(self.doubles));
            for _ in 0..copies {
                if !self.rng.random_bool(self.loss) {
                    self.sent += 1;
                    let late = if self.rng.random_bool(0.02) { 3000 } else { 20 };
                    let at = self.now + ms(self.rng.random_range(0..late));
                    self.wire.insert((at, self.sent), (from, to, message));
                }
            }
        }
    }

    fn run_until(&mut self, end: Duration) {
        loop {
            let timer = self.nodes.iter().filter_map(|(id, e)| Some((e.next_deadline()?, *id)));
            let timer = timer.min();
            let packet = self.wire.first_key_value().map(|((at, _), _)| *at);
            let next = packet.into_iter().chain(timer.map(|(at, _)| at)).min();
            let Some(next) = next.filter(|at| *at <= end) else { break };
            self.now = self.now.max(next);
            let now = self.now;
            let node = if packet == Some(next) {
                let (_, (from, to, message)) = self.wire.pop_first().unwrap();
                if let Some(election) = self.nodes.get_mut(&to) {
                    election.handle(now, from, message);
                }
                to
            } else {
                let (_, node) = timer.unwrap();
                self.nodes.get_mut(&node).unwrap().tick(now);
                node
            };
            self.carry(node);
        }
        self.now = end;
    }

    fn leaders(&self) -> BTreeSet<Option<(NodeId, u64)>> {
        self.nodes.values().map(Election::leader).collect()
    }

    fn assert_one_leader(&self) {
        let highest = *self.nodes.keys().last().unwrap();
        let leaders = self.leaders();
        assert_eq!(leaders.len(), 1, "{leaders:?}");
        assert_eq!(leaders.first().unwrap().map(|(id, _)| id), Some(highest));
    }
}

#[test]
fn the_highest_leads_and_a_lower_one_follows_when_it_goes() {
    let mut net = Net::new(1, 4, 0.0, 0.0);
    net.everyone_sees_everyone();
    net.run_until(ms(500));
    net.assert_one_leader();
    net.nodes.remove(&id(4));
    net.everyone_sees_everyone();
    net.run_until(ms(1000));
    net.assert_one_leader();
}

#[test]
fn a_higher_node_that_returns_without_memory_takes_over_in_a_later_term() {
    let mut net = Net::new(2, 3, 0.0, 0.0);
    net.everyone_sees_everyone();
    net.run_until(ms(1000));
    net.nodes.remove(&id(3));
    net.everyone_sees_everyone();
    net.run_until(ms(2000));
    let (leader, term) = net.nodes[&id(1)].leader().unwrap();
    assert_eq!(leader, id(2));
    net.nodes.insert(id(3), Election::new(id(3)));
    net.everyone_sees_everyone();
    net.run_until(ms(3000));
    net.assert_one_leader();
    assert!(net.nodes[&id(1)].leader().unwrap().1 > term);
}

#[test]
fn two_sides_of_a_cut_each_lead_and_merge() {
    let mut net = Net::new(3, 5, 0.0, 0.0);
    for side in [[id(1), id(2), id(3)].as_slice(), &[id(4), id(5)]] {
        for node in side {
            net.see(*node, side);
        }
    }
    net.run_until(ms(3000));
    assert_eq!(net.nodes[&id(1)].leader().unwrap().0, id(3));
    assert_eq!(net.nodes[&id(4)].leader().unwrap().0, id(5));
    net.everyone_sees_everyone();
    net.run_until(ms(6000));
    net.assert_one_leader();
}

#[test]
fn a_large_cluster_forms_without_a_storm() {
    const NODES: usize = 32;
    let mut net = Net::new(4, NODES, 0.0, 0.0);
    // The nodes find each other one after the other, as after a start of the whole cluster.
    for known in 2..=NODES {
        let live: Vec<NodeId> = (1..=known).map(id).collect();
        for node in &live {
            net.see(*node, &live);
        }
        let until = net.now + ms(30);
        net.run_until(until);
    }
    net.run_until(ms(5_000));
    net.assert_one_leader();
    println!("{} messages", net.sent);
    assert!(net.sent < 4 * (NODES * NODES) as u64, "{} messages", net.sent);
}

#[test]
fn two_that_both_think_the_lead_theirs_do_not_outshout_each_other() {
    const NODES: usize = 8;
    let mut net = Net::new(5, NODES, 0.0, 0.0);
    net.everyone_sees_everyone();
    net.run_until(ms(5_000));
    // In all other views the highest node may not lead; in its own view it still may.
    let all: Vec<NodeId> = (1..=NODES).map(id).collect();
    for node in &all[..NODES - 1] {
        let now = net.now;
        let election = net.nodes.get_mut(node).unwrap();
        election.set_candidates(now, &all[..NODES - 1], &all, false);
        net.carry(*node);
    }
    net.run_until(ms(6_000));
    let before = net.sent;
    net.run_until(ms(9_000));
    let sent = net.sent - before;
    // Each of the two claims at most four times a second, and the followers of the other one
    // answer.
    assert!(sent <= 3 * 4 * 2 * 2 * NODES as u64, "{sent} messages in three seconds");
    net.everyone_sees_everyone();
    // Late messages arrive, and the leader repeats its claim.
    net.run_until(ms(18_000));
    net.assert_one_leader();
}

#[test]
fn an_old_claim_and_a_strangers_claim_are_not_followed() {
    let mut election = Election::new(id(1));
    election.set_view(ms(0), &[id(1), id(2), id(3)]);
    election.handle(ms(1), id(3), Message::Coordinator { term: 9 });
    outputs(&mut election);
    election.handle(ms(2), id(4), Message::Coordinator { term: 10 });
    assert_eq!(election.leader(), Some((id(3), 9)), "not in the view");
    election.handle(ms(2), id(2), Message::Coordinator { term: u64::MAX });
    assert_eq!(election.leader(), Some((id(3), 9)), "a leap");
    election.handle(ms(3), id(3), Message::Coordinator { term: 4 });
    assert_eq!(election.leader(), Some((id(3), 9)));
    let answer = Output::Send { to: id(3), message: Message::Answer { term: 9 } };
    assert_eq!(outputs(&mut election), [answer]);
}

#[test]
fn a_lost_question_is_asked_again_before_the_lead_is_taken() {
    let mut election = Election::new(id(1));
    election.set_view(ms(0), &[id(1), id(2)]);
    let mut asked = 0;
    while let Some(at) = election.next_deadline().filter(|_| !election.leads()) {
        asked += outputs(&mut election).len();
        election.tick(at);
    }
    assert_eq!(asked, 3);
    election.handle(ms(900), id(2), Message::Answer { term: 1 });
    assert!(!election.leads(), "the higher one lives after all");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    /// Once views agree and messages arrive, all nodes follow one leader, whatever happened before.
    #[test]
    fn agreement_returns(seed: u64, count in 1usize..8, loss in 0.0..0.6, doubles in 0.0..0.6) {
        let mut net = Net::new(seed, count, loss, doubles);
        for _ in 0..12 {
            let until = net.now + ms(net.rng.random_range(0..1500));
            net.run_until(until);
            let node = id(net.rng.random_range(1..=count));
            match net.rng.random_range(0..4) {
                0 if net.nodes.len() > 1 => { net.nodes.remove(&node); }
                1 => { net.nodes.insert(node, Election::new(node)); }
                _ => {
                    let seen: Vec<NodeId> =
                        (1..=count).map(id).filter(|_| net.rng.random_bool(0.6)).collect();
                    net.see(node, &seen);
                }
            }
        }
        net.loss = 0.0;
        net.everyone_sees_everyone();
        let settled = net.now + Duration::from_secs(12);
        net.run_until(settled);
        net.assert_one_leader();
        let (sent, leaders) = (net.sent, net.leaders());
        net.run_until(settled + Duration::from_secs(20));
        prop_assert_eq!(net.leaders(), leaders, "and they stay");
        // Only the repeated claims remain: one per follower every two seconds.
        prop_assert!(net.sent - sent <= 11 * 2 * count as u64, "{} messages", net.sent - sent);
    }
}

#[test]
fn an_ill_leader_gives_the_lead_up_and_follows_until_it_is_well() {
    let nodes: Vec<NodeId> = (1..=3).map(|n| format!("node-{n}").parse().unwrap()).collect();
    let (well, ill) = (&nodes[..2], nodes[2]);
    let mut elections: Vec<_> = nodes.iter().map(|node| Election::new(*node)).collect();
    // Delivers all messages.
    let run = |elections: &mut Vec<Election>, now: Duration| {
        for _ in 0..10 {
            for from in 0..3 {
                while let Some(output) = elections[from].poll_output() {
                    if let Output::Send { to, message } = output {
                        let to = nodes.iter().position(|node| *node == to).unwrap();
                        elections[to].handle(now, nodes[from], message);
                    }
                }
            }
        }
    };
    let at = Duration::from_secs;
    for election in &mut elections {
        election.set_view(at(1), &nodes);
    }
    run(&mut elections, at(1));
    assert!(elections.iter().all(|e| e.leader().map(|(leader, _)| leader) == Some(ill)));
    // node-3 falls ill, and the other nodes learn of it before node-3 does.
    for n in [0, 1, 2] {
        elections[n].set_candidates(at(2), well, &nodes, n == 2);
        run(&mut elections, at(2));
    }
    for second in 3..20 {
        elections.iter_mut().for_each(|election| election.tick(at(second)));
        run(&mut elections, at(second));
    }
    let leaders: Vec<_> = elections.iter().map(|e| e.leader().map(|(leader, _)| leader)).collect();
    assert_eq!(leaders, vec![Some(nodes[1]); 3]);
    assert!(!elections[2].leads());
    for election in &mut elections {
        election.set_view(at(20), &nodes);
    }
    for second in 20..40 {
        elections.iter_mut().for_each(|election| election.tick(at(second)));
        run(&mut elections, at(second));
    }
    assert!(elections.iter().all(|e| e.leader().map(|(leader, _)| leader) == Some(ill)));
}
