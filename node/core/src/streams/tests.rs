//! When a stream may end, and how clients read its events.

use cortado_protocol::client::{ClientResponse, ErrorKind};
use cortado_protocol::job::JobSpec;
use cortado_protocol::peer::{PeerMessage, Work};
use cortado_protocol::stream::{Publisher, StreamRequest, StreamResponse};

use super::*;
use crate::facts::tests::facts_of;
use crate::outbox::Out;
use crate::placement::Members;
use crate::record::RecordRef;
use crate::stream_task::Brief;

/// Node `a` of three, the coordinator of a stream that is to end: its only publisher has ended.
struct Bench {
    facts: Facts,
    out: Outbox,
    streams: Streams,
    job: JobId,
}

impl Bench {
    fn new() -> Self {
        let mut facts = facts_of(&["a", "b", "c"]);
        let job = (0..).map(|n| JobId::v7(1_700_000_000_000, n));
        let job = job.into_iter().find(|job| facts.is_coordinator(*job)).unwrap();
        let (plan_name, plan_toml) = ("s".to_owned(), cortado_stream::EVENTS.to_owned());
        let spec = JobSpec { job, plan_name, plan_toml, slots: 2, tables: Vec::new() };
        let publisher =
            Publisher { name: "p".into(), generation: 0, opened_ms: 0, backfill: false };
        let key = EntryKey { job, edge: publisher.edge(), number: 0 };
        let record = RecordRef { segment: 1, offset: 0, len: 1 };
        facts.ledger.restore(&Entry::meta(key, Bytes::from_static(b"summary")).head, record);
        let log = [JobEntry::Spec(spec), JobEntry::Publisher(publisher), JobEntry::Stop];
        log.into_iter().for_each(|entry| facts.jobs.apply(job, Duration::ZERO, 0, entry));
        let mut bench = Self { facts, out: Outbox::new(1), streams: Streams::default(), job };
        assert!(matches!(bench.drive(), Next::Nothing));
        assert!(matches!(bench.out.next(), Some(Out::Run(_, _, Purpose::Stream(_)))));
        let brief = Brief {
            edge: key.edge,
            number: 0,
            low_watermark_ms: i64::MAX,
            last: true,
            received: 0,
            dead: 0,
            windows: Vec::new(),
        };
        let output = TaskOutput::Stream(StreamOutput::Summaries(vec![brief]));
        let next = bench.streams.on_task(&bench.facts, &mut bench.out, job, output);
        assert!(matches!(next, Next::Nothing), "what others hold may still come");
        bench.facts.now += SETTLE;
        bench
    }

    fn drive(&mut self) -> Next {
        self.streams.drive(&self.facts, &mut self.out, self.job)
    }

    /// These members are reached, others are not.
    fn reach(&mut self, nodes: &[&str]) {
        let nodes: Vec<NodeId> = nodes.iter().map(|node| node.parse().unwrap()).collect();
        let members = self.facts.members.clone();
        self.facts.set_members(Members { live: nodes.clone(), reachable: nodes, ..members });
    }
}

#[test]
fn a_stream_ends_only_after_all_members_were_asked_for_other_publishers() {
    let mut bench = Bench::new();
    let Next::Gather { job, attempt, needs } = bench.drive() else { panic!("members are asked") };
    assert_eq!(needs, [(Edge::JOB, Coverage::range(0, JobEntry::NUMBERS))]);
    assert!(matches!(bench.drive(), Next::Nothing));
    bench.streams.on_incomplete(&bench.facts, &mut bench.out, (job, attempt), &[]);
    bench.facts.now += RETRY_AFTER;
    assert!(matches!(bench.drive(), Next::Nothing));
    let Next::Replicate(last) = bench.drive() else { panic!("the last batch is written") };
    let batch = OutputBatch::decode(&last.delta(cortado_protocol::META_SLOT).unwrap()).unwrap();
    assert_eq!(batch.end, Some(vec![(last.head.key.edge, 1)]));

    // A member that comes after the question was not asked.
    let next = bench.streams.after_change(&bench.facts, &mut bench.out, bench.job);
    assert!(matches!(next, Next::Nothing));
    assert!(!bench.streams.all[&bench.job].asked);
}

#[test]
fn a_stream_does_not_end_while_all_who_hold_a_batch_may_be_away() {
    let mut bench = Bench::new();
    bench.facts.roster.see(&bench.facts.members);
    bench.reach(&["a"]);
    assert!(bench.facts.misses_too_many());
    assert!(matches!(bench.drive(), Next::Nothing));
    bench.reach(&["a", "b", "c"]);
    assert!(matches!(bench.drive(), Next::Gather { .. }));
}

/// A client's request for the first batches of the publisher, and the work that workers are asked for.
fn read_events(bench: &mut Bench, batches: u16) -> Vec<(NodeId, u64, SlotSet)> {
    while bench.out.next().is_some() {}
    let (edge, origin) = (Edge::publisher("p", 0), ("b".parse().unwrap(), 7));
    let request = StreamRequest::Events { edge, from: 0, batches };
    let of = (origin, bench.job);
    let answer = bench.streams.on_request(&bench.facts, &mut bench.out, of, request);
    assert!(matches!(answer, requests::Answer::Later));
    asked(&mut bench.out)
}

fn asked(out: &mut Outbox) -> Vec<(NodeId, u64, SlotSet)> {
    let work = |out| match out {
        Out::Send(to, PeerMessage::Work { attempt, slots, work: Work::Events, .. }, tail) => {
            let wanted: (Edge, Coverage) = frame::from_postcard(&tail).unwrap();
            assert_eq!(wanted, (Edge::publisher("p", 0), Coverage::range(0, 1)));
            (to, attempt, slots)
        }
        _ => panic!("no work"),
    };
    std::iter::from_fn(|| out.next()).map(work).collect()
}

/// The answer that the client gets: the batch after those in it, and the slots' parts.
fn answered(out: &mut Outbox) -> Option<(u64, Vec<Bytes>)> {
    match out.next()? {
        Out::Send(to, PeerMessage::Answer { id: 7, response }, tail)
            if to == "b".parse().unwrap() =>
        {
            let ClientResponse::Stream(StreamResponse::Events { next, prefix: 1 }) = response
            else {
                panic!("{response:?}")
            };
            let parts =
                if tail.is_empty() { Vec::new() } else { frame::from_postcard(&tail).unwrap() };
            Some((next, parts))
        }
        _ => panic!("not the answer"),
    }
}

#[test]
fn events_are_read_from_the_owners_of_all_slots_and_from_the_next_ones_if_some_can_not() {
    let mut bench = Bench::new();
    let job = bench.job;
    let works = read_events(&mut bench, 5);
    assert_eq!(works.iter().map(|(.., slots)| slots.len()).sum::<usize>(), 2);
    let (first, attempt, slots) = works[0];
    bench.streams.on_incomplete(&bench.facts, &mut bench.out, (job, attempt), &[]);
    assert!(asked(&mut bench.out).is_empty(), "the same node could be asked without end");
    bench.streams.tick(&bench.facts, &mut bench.out);
    let others = asked(&mut bench.out);
    assert!(others.iter().all(|(other, ..)| *other != first));
    assert_eq!(others.iter().map(|(.., slots)| slots.len()).sum::<usize>(), slots.len());
    let works: Vec<_> = works[1..].iter().chain(&others).copied().collect();
    for (n, (_, attempt, slots)) in works.iter().enumerate() {
        for slot in slots.iter() {
            assert!(answered(&mut bench.out).is_none(), "a slot is missing");
            let (of, part) = ((job, *attempt, slot), (0, 1));
            let bytes = Bytes::from(vec![n as u8]);
            let next = bench.streams.on_output(&bench.facts, &mut bench.out, of, part, &bytes);
            assert!(matches!(next, Next::Nothing));
        }
    }
    let (next, parts) = answered(&mut bench.out).unwrap();
    assert_eq!((next, parts.len()), (1, 2));
}

#[test]
fn a_batch_that_is_there_in_part_is_not_there_for_its_publisher() {
    let mut bench = Bench::new();
    let (job, edge) = (bench.job, Edge::publisher("p", 0));
    while bench.out.next().is_some() {}
    let request = StreamRequest::Coverage { edge, from: 0, whole: true };
    let of = (("b".parse().unwrap(), 7), job);
    let answer = bench.streams.on_request(&bench.facts, &mut bench.out, of, request);
    assert!(matches!(answer, requests::Answer::Later));
    let mut works = Vec::new();
    while let Some(out) = bench.out.next() {
        let Out::Send(_, PeerMessage::Work { attempt, slots, work, .. }, _) = out else { continue };
        assert_eq!(work, Work::Complete);
        works.extend(slots.iter().map(|slot| (attempt, slot)));
    }
    assert_eq!(works.len(), 2);
    let (lost, slot) = works[0];
    let rest = works.into_iter().filter(|(of, _)| *of != lost);
    let lacks = EdgeCoverage { edge, slots: SlotSet::one(slot), coverage: Coverage::range(0, 1) };
    bench.streams.on_incomplete(&bench.facts, &mut bench.out, (job, lost), &[lacks]);
    for (attempt, slot) in rest {
        let (of, none) = ((job, attempt, slot), Bytes::new());
        let next = bench.streams.on_output(&bench.facts, &mut bench.out, of, (0, 1), &none);
        assert!(matches!(next, Next::Nothing));
    }
    let there = std::iter::from_fn(|| bench.out.next()).find_map(|out| match out {
        Out::Send(_, PeerMessage::Answer { response: ClientResponse::Coverage(there), .. }, _) => {
            Some(there)
        }
        _ => None,
    });
    assert_eq!(there.unwrap().batches, []);
}

#[test]
fn events_that_do_not_fit_an_answer_are_asked_for_in_smaller_parts() {
    let mut bench = Bench::new();
    let job = bench.job;
    let large = Bytes::from(vec![0; cortado_protocol::limits::CLIENT_FRAME_BYTES / 2]);
    for (_, attempt, slots) in read_events(&mut bench, 1) {
        for slot in slots.iter() {
            let of = (job, attempt, slot);
            let next = bench.streams.on_output(&bench.facts, &mut bench.out, of, (0, 1), &large);
            assert!(matches!(next, Next::Nothing));
        }
    }
    assert_eq!(answered(&mut bench.out), Some((0, Vec::new())));
}

#[test]
fn a_client_that_waits_for_events_is_told_when_they_do_not_come() {
    let mut bench = Bench::new();
    let refused = |out: &mut Outbox| {
        let error = std::iter::from_fn(|| out.next()).find_map(|out| match out {
            Out::Send(_, PeerMessage::Answer { response: ClientResponse::Error(error), .. }, _) => {
                Some(error.kind)
            }
            _ => None,
        });
        error.unwrap()
    };
    let works = read_events(&mut bench, 1);
    let of = (bench.job, works[0].1);
    bench.streams.on_work_failed(&bench.facts, &mut bench.out, of, "too large");
    assert_eq!(refused(&mut bench.out), ErrorKind::Ended);
    read_events(&mut bench, 1);
    bench.facts.now += Duration::from_secs(60);
    bench.streams.tick(&bench.facts, &mut bench.out);
    assert_eq!(refused(&mut bench.out), ErrorKind::Unavailable);
    read_events(&mut bench, 1);
    bench.streams.forget(&mut bench.out, bench.job);
    assert_eq!(refused(&mut bench.out), ErrorKind::NotFound);
}
