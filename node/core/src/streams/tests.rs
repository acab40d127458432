//! When a stream may end, and how clients read its events.

use cortado_protocol::META_SLOT;
use cortado_protocol::client::{ClientResponse, ErrorKind};
use cortado_protocol::job::JobSpec;
use cortado_protocol::peer::{PeerMessage, Work};
use cortado_protocol::stream::{
    Cursor, Publisher, Row, StoredEvent, StreamRequest, StreamResponse,
};

use super::*;
use crate::effect::Effect;
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
    /// An answer to a client.
    answer: Option<Out>,
}

impl Bench {
    fn new() -> Self {
        let last = |brief: Brief| Brief { low_watermark_ms: i64::MAX, last: true, ..brief };
        Self::of(cortado_stream::EVENTS, vec![JobEntry::Stop], vec![last(brief(0, 0))])
    }

    /// The same of another plan, and of other batches without events; `more` follows in the job's log.
    fn of(plan: &str, more: Vec<JobEntry>, briefs: Vec<Brief>) -> Self {
        let mut facts = facts_of(&["a", "b", "c"]);
        let job = (0..).map(|n| JobId::v7(1_700_000_000_000, n));
        let job = job.into_iter().find(|job| facts.is_coordinator(*job)).unwrap();
        let (plan_name, plan_toml) = ("s".to_owned(), plan.to_owned());
        let spec = JobSpec { job, plan_name, plan_toml, slots: 2, tables: Vec::new() };
        let publisher =
            Publisher { name: "p".into(), generation: 0, opened_ms: 0, backfill: false };
        for Brief { edge, number, .. } in &briefs {
            restore(&mut facts, EntryKey { job, edge: *edge, number: *number });
        }
        let log = [JobEntry::Spec(spec), JobEntry::Publisher(publisher)];
        let log = log.into_iter().chain(more);
        log.for_each(|entry| facts.jobs.apply(job, Duration::ZERO, 0, entry));
        let (out, streams) = (Outbox::new(1), Streams::default());
        let mut bench = Self { facts, out, streams, job, answer: None };
        assert!(matches!(bench.drive(), Next::Nothing));
        assert!(matches!(bench.out.next(), Some(Out::Run(_, _, Purpose::Stream(_)))));
        let next = bench.done(StreamOutput::Summaries(briefs));
        assert!(matches!(next, Next::Nothing), "what others hold may still come");
        bench.facts.now += SETTLE;
        bench
    }

    /// A task has ended.
    fn done(&mut self, output: StreamOutput) -> Next {
        let output = TaskOutput::Stream(output);
        self.streams.on_task(&self.facts, &mut self.out, self.job, output)
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

/// A batch of the publisher without events.
fn brief(number: u64, low_watermark_ms: i64) -> Brief {
    let (edge, sent_at_ms) = (Edge::publisher("p", 0), low_watermark_ms);
    let (last, received, dead, windows) = (false, 0, 0, Vec::new());
    Brief { edge, number, low_watermark_ms, sent_at_ms, last, received, dead, windows }
}

/// An entry is durable at this node.
fn restore(facts: &mut Facts, key: EntryKey) {
    let record = RecordRef { segment: 1, offset: key.number as u32, len: 1 };
    let head = Entry::meta(key, Bytes::from_static(b"summary")).head;
    assert!(facts.ledger.restore(&head, record).is_none());
}

#[test]
fn windows_are_retired_once_all_members_have_promised_it_and_what_they_hold_was_read() {
    let plan = "name = 's'\n[stream]\nid = 'i'\ntime = 't'\nretention = '4s'\n\
                [[windows]]\noutput = 'w'\nevery = '1s'\ngroup_by = ['g']\n";
    let mut bench = Bench::of(plan, Vec::new(), vec![brief(0, 5_000), brief(1, 20_000)]);
    bench.facts.roster.see(&bench.facts.members);
    while bench.out.next().is_some() {}
    assert!(matches!(bench.drive(), Next::Nothing));
    let asked = std::iter::from_fn(|| bench.out.next()).map(|out| match out {
        Out::Send(to, PeerMessage::Retire { before_ms, .. }, _) => (to, before_ms),
        _ => panic!("members are asked"),
    });
    let asked: Vec<_> = asked.collect();
    assert_eq!(asked, ["a", "b", "c"].map(|name| (name.parse().unwrap(), 16_000)));
    let (job, other) = (bench.job, Edge::output("c".parse().unwrap(), 9));
    let promises = |bench: &mut Bench, name: &str, before_ms: i64, outputs: &[(Edge, u64)]| {
        bench.streams.on_retiring(name.parse().unwrap(), (job, before_ms), outputs);
        bench.drive()
    };
    for name in ["a", "b"] {
        assert!(matches!(promises(&mut bench, name, 16_000, &[]), Next::Nothing));
    }
    assert!(matches!(promises(&mut bench, "c", 15_000, &[]), Next::Nothing), "not enough");
    // The last one holds something that another coordinator has published.
    let next = promises(&mut bench, "c", 17_000, &[(other, 1)]);
    let Next::Gather { needs, attempt, .. } = next else { panic!("it is fetched") };
    assert_eq!(needs, [(other, Coverage::range(0, 1))]);
    restore(&mut bench.facts, EntryKey { job, edge: other, number: 0 });
    let of = (job, attempt, cortado_protocol::META_SLOT);
    let next = bench.streams.on_output(&bench.facts, &mut bench.out, of, (0, 1), &Bytes::new());
    assert!(matches!(next, Next::Nothing));
    let batch = OutputBatch::new([(Edge::publisher("p", 0), 1)].into_iter().collect(), 0);
    let batch = PublishedBatch::new((other, 0), batch);
    let Next::Nothing = bench.done(StreamOutput::Published(vec![batch])) else {
        panic!("a checkpoint is made in a step of its own")
    };
    let Next::Replicate(entry) = bench.drive() else { panic!("now it is published") };
    let written = OutputBatch::decode(&entry.delta(META_SLOT).unwrap()).unwrap();
    let left = written.retired.unwrap();
    assert_eq!((left.before_ms, left.sources[0].floor), (16_000, 1));
    assert_eq!(left.outputs[0].edge, other);
}

#[test]
fn rows_that_are_missing_here_are_fetched_and_delivered_before_a_stream_ends() {
    let plan = "name = 's'\n[stream]\nid = 'i'\ntime = 't'\n[[windows]]\noutput = 'w'\n\
                every = '1s'\ngroup_by = ['g']\n[[webhooks]]\noutput = 'w'\nwebhook = 'http://h'\n";
    let last = Brief { last: true, ..brief(0, i64::MAX) };
    let mut bench = Bench::of(plan, vec![JobEntry::Stop], vec![last]);
    let (job, edge) = (bench.job, Edge::output("c".parse().unwrap(), 9));
    // This node wrote it to others, and had no room for it.
    let stream = bench.streams.all.get_mut(&job).unwrap();
    let batch = PublishedBatch::new((edge, 0), OutputBatch::new(cortado_stream::Cut::default(), 0));
    stream.state.published(bench.facts.now, &Arc::clone(&stream.plan), &batch);
    let Next::Gather { needs, attempt, .. } = bench.drive() else { panic!("it is fetched") };
    assert_eq!(needs, [(edge, Coverage::range(0, 1))]);
    restore(&mut bench.facts, EntryKey { job, edge, number: 0 });
    while bench.out.next().is_some() {}
    let of = (job, attempt, META_SLOT);
    let next = bench.streams.on_output(&bench.facts, &mut bench.out, of, (0, 1), &Bytes::new());
    assert!(matches!(next, Next::Nothing));
    let Some(Out::Run(_, _, Purpose::Deliver(..))) = bench.out.next() else { panic!("it is read") };
    // The row is sent, and the stream waits for the answer.
    let row = |json: &str| Row { edge, batch: 0, row: 0, json: json.to_owned() };
    let rows = vec![row("{\"window_start\":\"x\",\"cut\":\"a\"}")];
    let mut cursor = Cursor::default();
    cursor.advance(edge, 1, 0);
    let read = StreamOutput::Rows { rows, cursor, ended: false, gone: 0 };
    let (facts, out) = (&bench.facts, &mut bench.out);
    bench.streams.on_delivery_rows(facts, out, (job, 0), TaskOutput::Stream(read));
    let sent = std::iter::from_fn(|| bench.out.next()).find_map(|out| match out {
        Out::Effect(Effect::Deliver { ticket, key, .. }) => Some((ticket, key)),
        _ => None,
    });
    let (ticket, key) = sent.unwrap();
    assert_eq!(key, "w/x/a");
    assert!(matches!(bench.drive(), Next::Nothing));
    let (facts, out) = (&bench.facts, &mut bench.out);
    bench.streams.on_delivered(facts, out, (job, ticket), Ok(()));
    let Next::Nothing = bench.drive() else { panic!("it is written in a step of its own") };
    let Next::Replicate(entry) = bench.drive() else { panic!("how far it is, is written") };
    let written = OutputBatch::decode(&entry.delta(META_SLOT).unwrap()).unwrap();
    assert_eq!(written.delivered[0].1.of(edge), (1, 0));
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
            let ClientResponse::Stream(StreamResponse::Events {
                next,
                prefix: 1,
                lost: 0,
                gone: 0,
            }) = response
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
    assert_eq!(works.iter().map(|(.., slots)| slots.len()).sum::<usize>(), 3, "the meta slot, too");
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

/// Requests to be complete: attempt and slot.
fn asked_whole(out: &mut Outbox) -> Vec<(u64, Slot)> {
    let work = |out| match out {
        Out::Send(_, PeerMessage::Work { attempt, slots, work: Work::Complete, .. }, _) => {
            Some(slots.iter().map(|slot| (attempt, slot)).collect::<Vec<_>>())
        }
        _ => None,
    };
    std::iter::from_fn(|| out.next()).filter_map(work).flatten().collect()
}

/// All workers that are asked answer that they are complete, until nobody is asked any more; returns how
/// many did, and keeps what is sent last.
fn answer_whole(bench: &mut Bench, mut works: Vec<(u64, Slot)>) -> usize {
    let mut answered = 0;
    while !works.is_empty() {
        for (attempt, slot) in std::mem::take(&mut works) {
            let (of, none) = ((bench.job, attempt, slot), Bytes::new());
            let (facts, out) = (&bench.facts, &mut bench.out);
            assert!(matches!(
                bench.streams.on_output(facts, out, of, (0, 1), &none),
                Next::Nothing
            ));
            answered += 1;
        }
        let mut sent: Vec<_> = std::iter::from_fn(|| bench.out.next()).collect();
        let is_answer = |out: &Out| matches!(out, Out::Send(_, PeerMessage::Answer { .. }, _));
        if let Some(at) = sent.iter().position(is_answer) {
            bench.answer = Some(sent.swap_remove(at));
            return answered;
        }
        for out in sent {
            if let Out::Send(_, PeerMessage::Work { attempt, slots, .. }, _) = out {
                works.extend(slots.iter().map(|slot| (attempt, slot)));
            }
        }
    }
    answered
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
    let works = asked_whole(&mut bench.out);
    assert_eq!(works.len(), 2);
    let lacks = EdgeCoverage { edge, slots: SlotSet::META, coverage: Coverage::range(0, 1) };
    let (lost, _) = works[0];
    bench.streams.on_incomplete(&bench.facts, &mut bench.out, (job, lost), &[lacks]);
    bench.answer = bench.out.next();
    assert_eq!(whole(&mut bench), []);

    // One that is everywhere is there once two owners of each slot have said so.
    let request = StreamRequest::Coverage { edge, from: 0, whole: true };
    let answer = bench.streams.on_request(&bench.facts, &mut bench.out, of, request);
    assert!(matches!(answer, requests::Answer::Later));
    let works = asked_whole(&mut bench.out);
    assert_eq!(answer_whole(&mut bench, works), 4);
    assert_eq!(whole(&mut bench).len(), 1);
}

/// The batches in the answer that was sent.
fn whole(bench: &mut Bench) -> Vec<(u64, u64)> {
    match bench.answer.take() {
        Some(Out::Send(_, PeerMessage::Answer { response, .. }, _)) => match response {
            ClientResponse::Coverage(there) => there.batches,
            other => panic!("{other:?}"),
        },
        _ => panic!("no answer"),
    }
}

#[test]
fn events_that_do_not_fit_an_answer_are_asked_for_in_smaller_parts() {
    let mut bench = Bench::new();
    let job = bench.job;
    let large = Bytes::from(vec![0; cortado_protocol::limits::CLIENT_FRAME_BYTES / 2]);
    let works = read_events(&mut bench, 1).into_iter();
    let slots = works.flat_map(|(_, attempt, slots)| slots.iter().map(move |slot| (attempt, slot)));
    // Two are too much already: nothing is kept for the third.
    for (attempt, slot) in slots.take(2).collect::<Vec<_>>() {
        let of = (job, attempt, slot);
        let next = bench.streams.on_output(&bench.facts, &mut bench.out, of, (0, 1), &large);
        assert!(matches!(next, Next::Nothing));
    }
    assert_eq!(answered(&mut bench.out), Some((0, Vec::new())));
}

/// A slot of a batch that no owner has is left out; its summary says whether events are missing. While a
/// member is away, they may be there.
#[test]
fn what_no_owner_has_is_left_out_and_its_events_are_lost_only_if_nobody_is_away() {
    for (valid, away, expected) in [(1_u32, true, Some(0)), (2, true, None), (2, false, Some(1))] {
        let mut bench = Bench::new();
        let job = bench.job;
        bench.facts.roster.see(&bench.facts.members);
        let mut works = read_events(&mut bench, 1);
        if away {
            bench.reach(&["a", "b"]);
        }
        let event = StoredEvent {
            batch: 0,
            position: 0,
            at_ms: 0,
            id: "e".into(),
            content: 0,
            raw: Bytes::from_static(b"{}"),
        };
        let bytes_of = |slot| match slot {
            META_SLOT => frame::to_postcard(&vec![(0_u64, valid)]),
            _ => frame::to_postcard(&vec![event.clone()]),
        };
        let edge = Edge::publisher("p", 0);
        let lacks =
            EdgeCoverage { edge, slots: SlotSet::one(Slot(0)), coverage: Coverage::range(0, 1) };
        let mut refusals = 0;
        // The nodes that are asked for slot 0 can't; all others answer.
        while !works.is_empty() {
            for (_, attempt, slots) in std::mem::take(&mut works) {
                let (facts, out, of) = (&bench.facts, &mut bench.out, (job, attempt));
                if slots.contains(Slot(0)) {
                    refusals += 1;
                    bench.streams.on_incomplete(facts, out, of, std::slice::from_ref(&lacks));
                    continue;
                }
                for slot in slots.iter() {
                    let (of, bytes) = ((job, attempt, slot), bytes_of(slot));
                    let next = bench.streams.on_output(facts, out, of, (0, 1), &bytes);
                    assert!(matches!(next, Next::Nothing));
                }
            }
            let sent: Vec<_> = std::iter::from_fn(|| bench.out.next()).collect();
            if let Some(answer) = sent.into_iter().last() {
                bench.answer = Some(answer);
                break;
            }
            bench.streams.tick(&bench.facts, &mut bench.out);
            works = asked(&mut bench.out);
        }
        assert_eq!(refusals, 3);
        match bench.answer.take() {
            Some(Out::Send(_, PeerMessage::Answer { response, .. }, _)) => match response {
                ClientResponse::Stream(StreamResponse::Events { next, lost, .. }) => {
                    assert_eq!((next, Some(lost)), (1, expected));
                }
                ClientResponse::Error(error) => {
                    assert_eq!((error.kind, expected), (ErrorKind::Unavailable, None));
                }
                other => panic!("{other:?}"),
            },
            _ => panic!("no answer"),
        }
    }
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
