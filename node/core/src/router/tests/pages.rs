//! Coverages that fit no single message.

use cortado_protocol::entry::Source;
use cortado_protocol::limits::PAGE_INTERVALS;
use cortado_protocol::{Coverage, Edge, EntryKey};

use super::*;
use crate::answers::coverage;
use crate::ledger::index::Place;

/// Every second number, so many that two pages are needed.
const NUMBERS: u64 = PAGE_INTERVALS as u64 + 1000;

const JOB: JobId = JobId(1);

fn edge() -> Edge {
    Edge::table(0)
}

fn second_numbers() -> Coverage {
    (0..NUMBERS).map(|n| 2 * n).collect()
}

fn hold(core: &mut Core, numbers: impl Iterator<Item = u64>) {
    let edge_held = core.facts.ledger.job_mut(JOB).edge_mut(edge());
    for number in numbers {
        let key = EntryKey { job: JOB, edge: edge(), number };
        let entry = Entry::new(key, Source::default(), SlotSet::ALL, &[]);
        let record = RecordRef { segment: 1, offset: number as u32, len: 1 };
        edge_held.insert(&entry.head, Place::Durable(record));
    }
}

fn union(parts: &[EdgeCoverage]) -> Coverage {
    let mut all = Coverage::default();
    parts.iter().for_each(|part| all.union(&part.coverage));
    all
}

#[test]
fn a_long_offer_is_settled_when_all_its_pages_are_answered() {
    let mut bench = Bench::new(1);
    hold(&mut bench.core, second_numbers().iter());
    let offered = |message: &PeerMessage| match message {
        PeerMessage::Offer { round, held, .. } => Some((*round, held.clone())),
        _ => None,
    };
    bench.now += Duration::from_millis(250);
    bench.input(Input::LinkUp(hello("b", 1)));
    bench.input(Input::Tick);
    let pages = bench.sent_to("b", offered);
    let [(round, first), (same, second)] = &pages[..] else { panic!("{} pages", pages.len()) };
    assert_eq!(round, same);
    assert_eq!(union(&[&first[..], second].concat()), second_numbers());
    let settled = |bench: &Bench| {
        let confirmed = &bench.core.handoff.held_by(JOB, node("b"));
        union(confirmed) == second_numbers()
    };
    let mut answer = |seq, held: &[EdgeCoverage], done| {
        let held = held.to_vec();
        let (job, round, log) = (JOB, *round, LogId(1));
        bench.hear("b", seq, PeerMessage::Have { job, round, done, log, held });
        settled(&bench)
    };
    assert!(!answer(0, first, true));
    // The answer to one page may need several itself.
    let (some, rest) = second.split_at(second.len() / 2);
    assert!(!answer(1, some, false));
    assert!(answer(2, rest, true));
}

#[test]
fn each_page_of_an_offer_is_fetched_and_confirmed() {
    let mut bench = Bench::new(1);
    // The first page is here; of the second there is nothing.
    let first = PAGE_INTERVALS as u64;
    hold(&mut bench.core, second_numbers().iter().take(first as usize));
    let part = EdgeCoverage { edge: edge(), slots: SlotSet::ALL, coverage: second_numbers() };
    let pages = cortado_protocol::peer::pages(vec![part]);
    for (seq, held) in pages.into_iter().enumerate() {
        bench.hear("b", seq as u64, PeerMessage::Offer { job: JOB, round: 9, held });
    }
    let have = |message: &PeerMessage| match message {
        PeerMessage::Have { held, done, round: 9, .. } => Some((union(held), *done)),
        _ => None,
    };
    let confirmed = bench.sent_to("b", have);
    let firsts: Coverage = (0..first).map(|n| 2 * n).collect();
    assert_eq!(confirmed, [(firsts, true), (Coverage::default(), true)]);
    let fetched = |message: &PeerMessage| match message {
        PeerMessage::Fetch { wanted, round, .. } => Some((union(wanted), *round)),
        _ => None,
    };
    let fetches = bench.sent_to("b", fetched);
    let lasts: Coverage = (first..NUMBERS).map(|n| 2 * n).collect();
    let [(wanted, round)] = &fetches[..] else { panic!("{} fetches", fetches.len()) };
    assert_eq!(*wanted, lasts);
    // Half of it came. As long as something comes, the same page is asked for, once it is durable.
    let idle_ms = None;
    for (seq, number) in (2..).zip(lasts.iter().take(500)) {
        let key = EntryKey { job: JOB, edge: edge(), number };
        let tail = Entry::new(key, Source::default(), SlotSet::ALL, &[]).encode();
        bench.hear_with("b", seq, PeerMessage::Moved, tail);
    }
    bench.hear("b", 502, PeerMessage::Fetched { job: JOB, round: *round, idle_ms });
    assert_eq!(bench.sent_to("b", fetched).len(), 1, "the disk is behind");
    bench.sync();
    let fetches = bench.sent_to("b", fetched);
    let [_, (wanted, round)] = &fetches[..] else { panic!("{} fetches", fetches.len()) };
    assert_eq!(wanted.count(), 500);
    // No more comes: what is there is confirmed.
    bench.hear("b", 503, PeerMessage::Fetched { job: JOB, round: *round, idle_ms });
    assert_eq!(bench.sent_to("b", fetched).len(), 2);
    let confirmed = bench.sent_to("b", have);
    let (last, done) = confirmed.last().unwrap();
    assert_eq!((last.count(), *done), (500, false));
}

#[test]
fn what_is_missing_is_asked_for_page_by_page_before_another_source_is() {
    let mut bench = Bench::new(1);
    // All but every second number, of which two pages are.
    let odd: Vec<_> = (0..NUMBERS).map(|n| 2 * n + 1).collect();
    hold(&mut bench.core, odd.iter().copied());
    let needs = crate::job::up_to(&[2 * NUMBERS]);
    let kind = crate::slot_tasks::Kind::Gather;
    let wanted = crate::slot_tasks::Wanted { job: JOB, slots: SlotSet::META, needs, kind };
    bench.core.start_work((node("b"), 1), wanted);
    bench.input(Input::Tick);
    let mut asked = Vec::new();
    let mut answered = [0, 0];
    loop {
        let fetches = bench.sent.iter().filter_map(|(to, message, _)| match message {
            PeerMessage::Fetch { wanted, round, .. } => Some((*to, union(wanted), *round)),
            _ => None,
        });
        let fetches: Vec<_> = fetches.collect();
        let Some((from, wanted, round)) = fetches.into_iter().nth(asked.len()) else { break };
        asked.push((from, wanted));
        let peer = usize::from(from == node("c"));
        let fetched = PeerMessage::Fetched { job: JOB, round, idle_ms: None };
        bench.hear(from.as_str(), answered[peer], fetched);
        answered[peer] += 1;
    }
    assert_eq!(asked.len(), 4, "two pages of two others");
    assert_eq!((asked[0].0, asked[2].0), (asked[1].0, asked[3].0));
    let mut all = asked[0].1.clone();
    all.union(&asked[1].1);
    assert_eq!(all, second_numbers());
    let incomplete = |message: &PeerMessage| match message {
        PeerMessage::Incomplete { missing, .. } => Some(union(missing)),
        _ => None,
    };
    let missing = bench.sent_to("b", incomplete);
    assert_eq!(missing.len(), 1);
    assert_eq!(missing[0].intervals().len(), PAGE_INTERVALS);
}

#[test]
fn a_client_that_resumes_is_told_of_many_batches_in_several_answers() {
    let mut bench = Bench::new(1);
    let spec = spec(&mut bench.core);
    let job = spec.job;
    bench.input(Input::Request(1, ClientRequest::Submit(spec)));
    bench.sync();
    let total = cortado_protocol::limits::BATCHES_PER_ANSWER as u64 + 5;
    let held = bench.core.facts.ledger.job_mut(job).edge_mut(edge());
    for number in 0..total {
        let key = EntryKey { job, edge: edge(), number };
        let source = Source { content: u64::MAX - number, ..Source::default() };
        let entry = Entry::new(key, source, SlotSet::ALL, &[]);
        let record = RecordRef { segment: 1, offset: number as u32, len: 1 };
        held.insert(&entry.head, Place::Durable(record));
    }
    let first = coverage(&bench.core.facts, job, 0, 0);
    let next = first.next.unwrap();
    let second = coverage(&bench.core.facts, job, 0, next);
    assert_eq!(
        (first.batches.len() as u64, second.batches.len(), second.next),
        (total - 5, 5, None)
    );
    let numbers = first.batches.iter().chain(&second.batches).map(|(number, _)| *number);
    assert!(numbers.eq(0..total));
    let answer = cortado_protocol::frame::encode(&ClientResponse::Coverage(first), &[]);
    assert!(cortado_protocol::frame::fits(&answer, cortado_protocol::limits::CLIENT_FRAME_BYTES));
    assert_eq!(coverage(&bench.core.facts, job, 63, 0).batches, []);
}
