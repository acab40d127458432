//! When a stream may end.

use cortado_protocol::job::JobSpec;
use cortado_protocol::stream::Publisher;

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
    bench.streams.on_incomplete(&bench.facts, job, attempt, &[]);
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
