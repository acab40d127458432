//! Single lines of the core that must not be lost: which confirmations count, what has to be offered,
//! which answers have to wait.

use cortado_protocol::{Edge, EntryKey, META_SLOT};

use super::*;
use crate::task::TaskOutput;

/// A node `a` that got an entry by another view of the ring: its three owners are other nodes.
struct Foreign {
    bench: Bench,
    key: EntryKey,
    owners: Vec<NodeId>,
    /// Next message number, by owner.
    seq: [u64; 3],
}

const OTHERS: [&str; 4] = ["b", "c", "d", "e"];

impl Foreign {
    fn new() -> Self {
        let mut bench = Bench::alone(1);
        bench.sees(&["a", "b", "c", "d", "e"]);
        OTHERS.iter().for_each(|peer| bench.meets(peer));
        // The first offers, of nothing, are over.
        bench.wait(4);
        let owners_of = |job| bench.core.facts.placement(job).owners(META_SLOT).to_vec();
        let job = (1..).map(JobId).find(|job| !owners_of(*job).contains(&node("a"))).unwrap();
        let owners = owners_of(job);
        let key = EntryKey { job, edge: Edge::table(0), number: 0 };
        let tail = Entry::meta(key, Bytes::from_static(b"delta")).encode();
        bench.hear_with(owners[0].as_str(), 0, PeerMessage::Store, tail);
        bench.sync();
        bench.sent.clear();
        Self { bench, key, owners, seq: [1, 0, 0] }
    }

    fn held(&self) -> Vec<EdgeCoverage> {
        self.bench.core.held(self.key.job)
    }

    /// An owner says that it has all, in this log.
    fn confirm(&mut self, owner: usize, log: u128) {
        let held = vec![EdgeCoverage {
            edge: self.key.edge,
            slots: SlotSet::META,
            coverage: cortado_protocol::Coverage::range(0, 1),
        }];
        let (job, from, seq) = (self.key.job, self.owners[owner], self.seq[owner]);
        self.seq[owner] += 1;
        // Its peers hear it: who is not reached is no owner, and a change of owners asks anew.
        for peer in OTHERS {
            self.bench.input(Input::LinkAck(node(peer), u64::MAX));
        }
        self.bench.wait(4);
        self.bench.has(from.as_str(), seq, job, log, held);
    }
}

#[test]
fn a_foreign_entry_is_offered_to_its_owners_within_a_second() {
    let mut foreign = Foreign::new();
    foreign.bench.wait(4);
    let offered = |owner: &NodeId| {
        let mut sent = foreign.bench.sent.iter();
        sent.any(|(to, message, _)| to == owner && matches!(message, PeerMessage::Offer { .. }))
    };
    assert!(foreign.owners.iter().all(offered), "{:?}", foreign.bench.sent);
}

#[test]
fn a_copy_is_dropped_when_all_owners_confirmed_theirs_and_no_earlier() {
    let mut foreign = Foreign::new();
    foreign.confirm(0, 1);
    foreign.confirm(1, 1);
    assert!(!foreign.held().is_empty());
    foreign.confirm(2, 1);
    assert!(foreign.held().is_empty());
}

#[test]
fn a_confirmation_that_names_another_log_does_not_count() {
    let mut foreign = Foreign::new();
    foreign.confirm(0, 1);
    foreign.confirm(1, 1);
    foreign.confirm(2, 9);
    assert!(!foreign.held().is_empty(), "that log is not the one the owner writes to");
}

#[test]
fn a_confirmation_of_a_lost_disk_counts_no_more() {
    let mut foreign = Foreign::new();
    foreign.confirm(0, 1);
    let owner = foreign.owners[0];
    let owner = owner.as_str();
    foreign.bench.input(Input::Inbound(conn_of(owner), hello(owner, 2)));
    foreign.confirm(1, 1);
    foreign.confirm(2, 1);
    assert!(!foreign.held().is_empty(), "one of the three disks is blank");
    foreign.confirm(0, 2);
    assert!(foreign.held().is_empty());
}

#[test]
fn a_draining_node_leaves_after_every_owner_confirmed() {
    let (mut bench, job) = coordinator_of_a_job();
    bench.input(Input::Drain);
    // The members know that it takes no roles any more.
    let reachable = ["a", "b", "c"].map(node).to_vec();
    let members = Members {
        version: 2,
        live: reachable[1..].to_vec(),
        reachable,
        ..Members::alone(node("a"))
    };
    bench.input(Input::Members(members));
    let held = bench.core.held(job);
    assert!(!held.is_empty());
    bench.wait(1);
    bench.has("b", 1, job, 1, held.clone());
    assert!(!bench.drained, "one owner is not all");
    bench.has("c", 0, job, 1, held);
    // The others are told that it has left, and are given a moment to hear that.
    let told = |to: &str| {
        let departed = |m: &PeerMessage| matches!(m, PeerMessage::Departed { members, .. } if members[0].0 == node("a"));
        bench.sent.iter().any(|(peer, message, _)| *peer == node(to) && departed(message))
    };
    assert!(told("b") && told("c"));
    assert!(!bench.drained);
    for peer in ["b", "c"] {
        bench.input(Input::LinkAck(node(peer), u64::MAX));
    }
    bench.input(Input::Tick);
    assert!(bench.drained);
}

#[test]
fn a_home_that_stood_still_asks_the_others_before_it_answers() {
    let (mut bench, job) = coordinator_of_a_job();
    bench.now += Duration::from_millis(400);
    bench.input(Input::Tick);
    let status = ClientRequest::Status { job, wait_ms: 0 };
    // The first answer about the job asks the others once.
    bench.input(Input::Request(2, status.clone()));
    let round = fetch_round(&bench);
    for (peer, seq) in [("b", 1), ("c", 0)] {
        if let Some(round) = round {
            bench.hear(peer, seq, PeerMessage::Fetched { job, round, idle_ms: None });
        }
    }
    let answered = |bench: &Bench, ticket| bench.replies.iter().any(|(to, _)| *to == ticket);
    assert!(answered(&bench, 2), "{:?}", bench.replies);
    bench.input(Input::Request(3, status.clone()));
    assert!(answered(&bench, 3), "it knows all there is");
    bench.now += Duration::from_secs(10);
    bench.sent.clear();
    bench.input(Input::Request(4, status));
    assert!(!answered(&bench, 4), "the others may have gone on without it");
    let round = fetch_round(&bench).expect("it asks the others");
    for (peer, seq) in [("b", 2), ("c", 1)] {
        bench.hear(peer, seq, PeerMessage::Fetched { job, round, idle_ms: None });
    }
    assert!(answered(&bench, 4), "{:?}", bench.replies);
}

fn fetch_round(bench: &Bench) -> Option<u64> {
    bench.sent.iter().find_map(|(_, message, _)| match message {
        PeerMessage::Fetch { round, .. } => Some(*round),
        _ => None,
    })
}

#[test]
fn exactly_the_handled_numbers_are_acknowledged() {
    let mut bench = Bench::new(1);
    let gone = || PeerMessage::Fetched { job: JobId(1), round: 1, idle_ms: None };
    bench.hear("b", 0, gone());
    assert_eq!(bench.acks.last(), Some(&1));
    bench.hear("b", 1, gone());
    assert_eq!(bench.acks.last(), Some(&2));
    // A repetition changes nothing.
    bench.hear("b", 0, gone());
    assert_eq!(bench.acks.last(), Some(&2));
}

#[test]
fn an_output_on_its_way_is_not_computed_again() {
    let (mut bench, job) = coordinator_of_a_job();
    let fold = || PeerMessage::Work {
        job,
        attempt: 5,
        slots: SlotSet::first(1),
        ends: vec![0; 5],
        work: cortado_protocol::peer::Work::Fold,
    };
    bench.hear("b", 1, fold());
    let [task] = bench.tasks[..] else { panic!("{:?}", bench.tasks) };
    // The coordinator is impatient, but it is being done, and then on its way.
    bench.hear("b", 2, fold());
    let outputs = vec![(cortado_protocol::Slot(0), Bytes::from_static(b"output"))];
    bench.input(Input::TaskDone(task, TaskOutput::Outputs(outputs)));
    bench.hear("b", 3, fold());
    assert_eq!(bench.tasks, [task]);
    // It was lost with everything else that was queued for the coordinator.
    bench.sees(&["a", "c"]);
    bench.sees(&["a", "b", "c"]);
    bench.hear("b", 4, fold());
    assert_eq!(bench.tasks.len(), 2);
}
