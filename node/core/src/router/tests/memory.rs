//! Budgets at a job's coordinator.

use cortado_protocol::job::{JobState, Manifest};
use cortado_protocol::{META_SLOT, Slot};

use super::*;

/// A job of which `b` was asked to fold some slots.
struct Folding {
    job: JobId,
    attempt: u64,
    slots: Vec<Slot>,
}

/// Jobs whose coordinator is `a`, the oldest first, all of whose tables are empty: their slots fold.
fn folding(bench: &mut Bench, count: usize) -> Vec<Folding> {
    let first = spec(&mut bench.core);
    let ids = (1..).map(|last| JobId::v7(1_700_000_000_000, last));
    let fits = |job: &JobId| {
        let placement = bench.core.facts.placement(*job);
        let first = |slot: u8| placement.owners(Slot(slot))[0] == node("b");
        placement.owners(META_SLOT)[0] == node("a")
            && (0..4).filter(|slot| first(*slot)).count() >= 2
    };
    let mine = ids.into_iter().filter(fits);
    let jobs: Vec<_> = mine.take(count).collect();
    let mut all = Vec::new();
    for (ticket, job) in (1..).zip(jobs) {
        let spec = JobSpec { job, ..first.clone() };
        bench.input(Input::Request(ticket, ClientRequest::Submit(spec)));
        bench.sync();
        bench.core.facts.jobs.get_mut(job).unwrap().ends = vec![Some(0); 5];
        bench.core.on_admitted(job, 0);
        bench.input(Input::Tick);
        let asked = bench.sent.iter().find_map(|(to, message, _)| match message {
            PeerMessage::Work { job: of, attempt, slots, .. } if *of == job && *to == node("b") => {
                Some(Folding { job, attempt: *attempt, slots: slots.iter().collect() })
            }
            _ => None,
        });
        all.push(asked.unwrap());
    }
    all
}

impl Bench {
    fn output(&mut self, seq: u64, of: &Folding, slot: usize, bytes: usize) {
        let Folding { job, attempt, ref slots } = *of;
        let message = PeerMessage::Output { job, attempt, slot: slots[slot], part: 0, parts: 1 };
        let (conn, from) = (u64::from(b'b'), node("b"));
        self.input(Input::Message { conn, from, seq, message, tail: vec![0; bytes].into() });
    }

    fn held(&self, of: &Folding) -> usize {
        self.core.coordination.output_bytes(of.job)
    }
}

#[test]
fn of_jobs_that_do_not_fit_together_the_youngest_starts_over_and_one_alone_fails() {
    let mut bench = Bench::new(1);
    let jobs = folding(&mut bench, 2);
    let [old, young] = &jobs[..] else { panic!("two jobs") };
    bench.core.facts.config.memory.outputs = 100;
    bench.output(0, young, 0, 60);
    assert_eq!((bench.held(old), bench.held(young)), (0, 60));
    bench.output(1, old, 0, 60);
    assert_eq!((bench.held(old), bench.held(young)), (60, 0), "the younger one gave its own back");
    // What still comes of its first round is nothing to it.
    bench.output(2, young, 0, 60);
    assert_eq!(bench.held(young), 0);
    assert_eq!(bench.core.status(young.job).unwrap().state, JobState::Finishing);

    bench.output(3, old, 1, 60);
    bench.sync();
    let manifest = bench.core.facts.jobs[old.job].manifest.clone();
    let Some(Manifest::Failed { message }) = manifest else { panic!("{manifest:?}") };
    assert!(message.contains("more than 0.0 MiB"), "{message}");
}

#[test]
fn a_job_that_does_not_fit_beside_the_others_is_refused_with_the_numbers() {
    let mut bench = Bench::new(1);
    bench.core.facts.config.memory.jobs = 30_000;
    let mut spec = spec(&mut bench.core);
    bench.input(Input::Request(1, ClientRequest::Submit(spec.clone())));
    bench.sync();
    assert_eq!(bench.stores("b").len(), 1);
    let ids = (1..).map(|last| JobId::v7(1_700_000_000_001, last));
    let mut mine = ids
        .into_iter()
        .filter(|job| bench.core.facts.placement(*job).owners(META_SLOT)[0] == node("a"));
    spec.job = mine.next().unwrap();
    let file = |n: usize| cortado_protocol::job::FileSpec {
        name: format!("{n}.csv"),
        bytes: 1,
        header: cortado_engine::Plan::parse(cortado_engine::COFFEE).unwrap().tables()[0]
            .columns
            .iter()
            .map(|column| column.name.clone())
            .collect(),
    };
    spec.tables[0].files = (0..100).map(file).collect();
    bench.input(Input::Request(2, ClientRequest::Submit(spec)));
    let Some((2, ClientResponse::Error(error))) = bench.replies.last() else { panic!("no answer") };
    assert_eq!(error.kind, ErrorKind::BadInput);
    assert!(error.message.contains("the plans and file lists of 1 jobs"), "{}", error.message);
}
