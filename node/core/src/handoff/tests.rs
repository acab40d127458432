//! Handoff alone: what it offers, whose word it takes, and when it is drained. Nodes `a` to `e`, R = 3.

use std::time::Duration;

use cortado_protocol::entry::{Entry, Source};
use cortado_protocol::peer::Hello;
use cortado_protocol::{Edge, PROTOCOL_VERSION};

use super::*;
use crate::facts::tests::facts_of;
use crate::ledger::index::Place;
use crate::outbox::Out;
use crate::record::RecordRef;

const JOB: JobId = JobId(1);

struct Bench {
    facts: Facts,
    out: Outbox,
    handoff: Handoff,
}

impl Bench {
    /// Node `a` of five, which holds one entry of all slots.
    fn new() -> Self {
        let mut facts = facts_of(&["a", "b", "c", "d", "e"]);
        let placement = facts.placement(JOB);
        let all = placement.by_owner.iter().fold(SlotSet::EMPTY, |all, (_, slots)| all.or(*slots));
        let entry = Entry::new(key(), Source::default(), all, &[]);
        let record = RecordRef { segment: 1, offset: 0, len: 1 };
        facts.ledger.job_mut(JOB).edge_mut(key().edge).insert(&entry.head, Place::Durable(record));
        for peer in ["b", "c", "d", "e"] {
            facts.peers.identify(&hello(peer, 1));
            facts.peers.set_linked(node(peer), true);
        }
        let mut bench = Self { facts, out: Outbox::new(1), handoff: Handoff::default() };
        bench.handoff.after_change(&bench.facts);
        bench
    }

    /// The offers that are made within a quarter of a second.
    fn offers(&mut self) -> Vec<(NodeId, u64, Vec<EdgeCoverage>)> {
        self.facts.now += Duration::from_millis(250);
        self.handoff.tick(&self.facts, &mut self.out);
        let out = std::iter::from_fn(|| self.out.next());
        let offer = |out| match out {
            Out::Send(to, PeerMessage::Offer { round, held, .. }, _) => Some((to, round, held)),
            _ => None,
        };
        out.filter_map(offer).collect()
    }

    /// Everybody says that it has what it was offered, in this log.
    fn confirm(&mut self, offers: &[(NodeId, u64, Vec<EdgeCoverage>)], log: u128) -> SlotSet {
        let mut released = SlotSet::EMPTY;
        for (from, round, held) in offers.iter().cloned() {
            let have = Have { job: JOB, round, done: true, log: LogId(log), held };
            let slots = self.handoff.on_have(&self.facts, from, have);
            released = released.or(slots.unwrap_or_default());
        }
        released
    }

    fn foreign(&self) -> SlotSet {
        let all = self.facts.ledger.job(JOB).unwrap().all_slots();
        all.minus(self.facts.placement(JOB).slots_of(node("a")))
    }
}

fn key() -> EntryKey {
    EntryKey { job: JOB, edge: Edge::table(0), number: 0 }
}

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn hello(peer: &str, log: u128) -> Hello {
    let (cluster, node) = ("c".to_owned(), node(peer));
    Hello { version: PROTOCOL_VERSION, cluster, node, boot: 1, log: LogId(log), seq: 0 }
}

#[test]
fn owners_are_offered_what_they_own_and_copies_of_others_go_when_all_have_theirs() {
    let mut bench = Bench::new();
    let offers = bench.offers();
    assert_eq!(offers.len(), 4);
    for (owner, _, held) in &offers {
        assert_eq!(held[0].slots, bench.facts.placement(JOB).slots_of(*owner));
    }
    let (last, others) = offers.split_last().unwrap();
    let before = bench.confirm(others, 1);
    let after = bench.confirm(std::slice::from_ref(last), 1);
    assert!(before.len() < bench.foreign().len(), "the last one has not answered");
    assert_eq!(after, bench.foreign());
    assert!(bench.offers().is_empty() && bench.handoff.is_settled());
}

#[test]
fn the_word_about_another_log_counts_for_nothing() {
    let mut bench = Bench::new();
    let offers = bench.offers();
    assert_eq!(bench.confirm(&offers, 2), SlotSet::EMPTY);
    assert!(!bench.handoff.is_settled(), "the offers are open still");
}

#[test]
fn what_a_peer_confirmed_before_it_lost_its_log_is_void() {
    let mut bench = Bench::new();
    let offers = bench.offers();
    let (lost, others) = offers.split_first().unwrap();
    bench.confirm(std::slice::from_ref(lost), 1);
    bench.facts.peers.identify(&hello(lost.0.as_str(), 9));
    bench.handoff.void(lost.0);
    let released = bench.confirm(others, 1);
    let owned = bench.facts.placement(JOB).slots_of(lost.0);
    assert!(released.and(owned).is_empty(), "its copies are gone");
}

#[test]
fn an_entry_that_others_own_is_offered_to_them_soon() {
    let mut bench = Bench::new();
    let offers = bench.offers();
    bench.confirm(&offers, 1);
    assert!(bench.offers().is_empty());
    bench.handoff.offer_foreign(&bench.facts, key());
    let placement = bench.facts.placement(JOB);
    let offered = bench.offers();
    let owners = placement
        .by_owner
        .iter()
        .filter(|(owner, slots)| *owner != node("a") && !slots.and(bench.foreign()).is_empty());
    assert!(owners.map(|(owner, _)| owner).eq(offered.iter().map(|(to, ..)| to)));
}

#[test]
fn a_node_is_drained_when_all_it_holds_is_confirmed_and_says_so_before_it_leaves() {
    let mut bench = Bench::new();
    bench.handoff.drain(&mut bench.out);
    // It is not drained while others may give it roles, nor while its entries are on their way.
    assert!(!bench.handoff.is_drained(&bench.facts, false, &mut bench.out));
    let live: Vec<_> = ["b", "c", "d", "e"].map(node).to_vec();
    let members = crate::Members { live, ..bench.facts.members.clone() };
    bench.facts.set_members(members);
    bench.handoff.after_change(&bench.facts);
    let offers = bench.offers();
    assert!(!bench.handoff.is_drained(&bench.facts, false, &mut bench.out));
    let released = bench.confirm(&offers, 1);
    assert_eq!(released, SlotSet::EMPTY, "it goes as a whole");
    assert!(!bench.handoff.is_drained(&bench.facts, true, &mut bench.out));
    assert!(bench.handoff.is_drained(&bench.facts, false, &mut bench.out));
    let said = std::iter::from_fn(|| bench.out.next());
    let departed = |out: &Out| matches!(out, Out::Send(_, PeerMessage::Departed { .. }, _));
    assert_eq!(said.filter(departed).count(), 4);
    bench.handoff.leave(&bench.facts, true, &mut bench.out);
    assert!(matches!(bench.out.next(), Some(Out::Effect(Effect::Drained))));
}

#[test]
fn what_was_confirmed_before_the_view_changed_does_not_count() {
    let mut bench = Bench::new();
    let offers = bench.offers();
    let (last, others) = offers.split_last().unwrap();
    bench.confirm(others, 1);
    bench.handoff.after_change(&bench.facts);
    assert_eq!(bench.confirm(std::slice::from_ref(last), 1), SlotSet::EMPTY);
    let offers = bench.offers();
    assert_eq!(bench.confirm(&offers, 1), bench.foreign(), "all of it was offered again");
}

#[test]
fn a_job_that_is_done_is_offered_once_for_each_view() {
    let mut bench = Bench::new();
    let end = EntryKey { job: JOB, edge: Edge::JOB, number: 2 };
    let head = Entry::new(end, Source::default(), SlotSet::META, &[]).head;
    let record = RecordRef { segment: 1, offset: 9, len: 1 };
    bench.facts.ledger.job_mut(JOB).edge_mut(end.edge).insert(&head, Place::Durable(record));
    bench.facts.ledger.complete(&mut bench.out, JOB);
    let sweep = |bench: &mut Bench| {
        bench.facts.now += SWEEP_EVERY;
        bench.offers()
    };
    let unsettled = |bench: &mut Bench| {
        // The only job is the one of all that is offered again.
        std::mem::take(&mut bench.handoff.unsettled).is_some()
    };
    let offers = bench.offers();
    assert!(!offers.is_empty());
    bench.confirm(&offers, 1);
    assert!(bench.handoff.confirmed.is_empty(), "what was confirmed is not kept");
    assert!(bench.offers().is_empty() && bench.handoff.moves(&bench.facts).is_empty());
    // Once in a while it is, for an owner that found its record damaged.
    let offers = sweep(&mut bench);
    assert!(!offers.is_empty() && unsettled(&mut bench));
    bench.confirm(&offers, 1);
    bench.handoff.drain(&mut bench.out);
    let all = bench.facts.ledger.job(JOB).unwrap().all_slots();
    assert_eq!(bench.handoff.confirmed_slots(&bench.facts, JOB, all, 2), all);
    // A new record, a peer that lost its log, or another view: it is offered again.
    bench.handoff.offer_foreign(&bench.facts, end);
    let offers = sweep(&mut bench);
    assert!(!offers.is_empty());
    bench.confirm(&offers, 1);
    bench.handoff.void(offers[0].0);
    let offers = sweep(&mut bench);
    assert!(!offers.is_empty());
    bench.confirm(&offers, 1);
    bench.handoff.after_change(&bench.facts);
    assert!(!bench.offers().is_empty());
}

#[test]
fn a_node_confirms_only_what_it_owns_itself() {
    let mut bench = Bench::new();
    let all = bench.facts.ledger.job(JOB).unwrap().coverage(SlotSet::ALL, true);
    let Bench { facts, out, handoff, .. } = &mut bench;
    handoff.on_offer(facts, out, node("b"), JOB, 7, all);
    let Some(Out::Send(_, PeerMessage::Have { held, .. }, _)) = out.next() else {
        panic!("an offer is answered")
    };
    let said = held.iter().fold(SlotSet::EMPTY, |all, part| all.or(part.slots));
    assert_eq!(said, facts.placement(JOB).slots_of(node("a")));
}
