//! The end of a job's life, told message by message.

use cortado_protocol::expiry::{ExpireAnswer, Forgotten, Reason};
use cortado_protocol::peer::NotStored;
use cortado_protocol::{Edge, EntryKey};

use super::*;
use crate::StateFile;

const TTL: Duration = Duration::from_secs(3600);

impl Bench {
    /// The files given to the shell are on disk.
    fn saved(&mut self) {
        for (ticket, _, _) in std::mem::take(&mut self.saves) {
            self.input(Input::Saved(ticket));
        }
    }

    fn tick(&mut self) {
        self.now += Duration::from_secs(6);
        self.input(Input::Tick);
    }

    fn gone(&self, to: &str) -> Option<Forgotten> {
        self.sent.iter().find_map(|(peer, message, _)| match message {
            PeerMessage::Forgotten { proof, .. } if *peer == node(to) => Some(proof.clone()),
            _ => None,
        })
    }

    fn answers(&mut self) -> Vec<ExpireAnswer> {
        let sent = std::mem::take(&mut self.sent);
        let answers = sent.into_iter().filter_map(|(_, message, _)| match message {
            PeerMessage::Expiring { answer, .. } => Some(answer),
            _ => None,
        });
        answers.collect()
    }

    fn proposals(&self, to: &str) -> Vec<u64> {
        let proposals = self.sent.iter().filter_map(|(peer, message, _)| match message {
            PeerMessage::Expire { number, .. } if *peer == node(to) => Some(*number),
            _ => None,
        });
        proposals.collect()
    }
}

fn accepted(known: &[&str]) -> ExpireAnswer {
    let known = known.iter().map(|name| node(name)).collect();
    ExpireAnswer::Accepted { known, min_copies: 2 }
}

/// `a` is the coordinator of a job of which nothing was heard for the time to live.
fn old_job() -> (Bench, JobId) {
    let (mut bench, job) = coordinator_of_a_job();
    bench.saved();
    bench.now += TTL;
    (bench, job)
}

/// An entry of the job as `a` may be sent it.
fn store(bench: &mut Bench, job: JobId, number: u64, seq: u64, moved: bool) {
    let key = EntryKey { job, edge: Edge::table(0), number };
    let tail = Entry::meta(key, Bytes::from_static(b"delta")).encode();
    let message = if moved { PeerMessage::Moved } else { PeerMessage::Store };
    let (conn, from) = (u64::from(b'b'), node("b"));
    bench.input(Input::Message { conn, from, seq, message, tail });
}

#[test]
fn a_job_is_dropped_when_a_majority_has_written_down_that_it_is_over() {
    let (mut bench, job) = old_job();
    bench.tick();
    let [number] = bench.proposals("b")[..] else { panic!("{:?}", bench.sent) };
    assert_eq!(bench.proposals("c"), [number]);
    bench.hear("b", 1, PeerMessage::Expiring { job, number: number + 9, answer: accepted(&[]) });
    bench.saved();
    assert!(
        bench.saves.is_empty() && !bench.core.is_forgotten(job),
        "that was no answer to this one"
    );
    // This node itself and one more of three: enough, once it is written down here.
    bench.hear("b", 2, PeerMessage::Expiring { job, number, answer: accepted(&["a", "b", "c"]) });
    assert!(!bench.core.is_forgotten(job) && bench.gone("c").is_none());
    let (_, _, gone) =
        bench.saves.iter().rfind(|(_, file, _)| *file == StateFile::Tombstones).unwrap();
    let mut next = Bench::alone(2);
    next.core.restore_state(StateFile::Tombstones, gone).unwrap();
    assert!(next.core.is_forgotten(job), "the next process knows");
    bench.saved();
    assert!(bench.core.is_forgotten(job) && bench.forgotten == crate::Group::all(job));
    let proof = bench.gone("c").unwrap();
    assert_eq!((proof.accepted.len(), proof.known), (2, 3));
    // Who has not heard asks, by agreeing again or by offering what it has.
    bench.sent.clear();
    bench.hear("c", 0, PeerMessage::Expiring { job, number, answer: accepted(&[]) });
    bench.hear("b", 3, PeerMessage::Offer { job, round: 1, held: Vec::new() });
    assert!(bench.gone("b").is_some() && bench.gone("c").is_some());
}

#[test]
fn members_that_only_others_know_count_too() {
    let (mut bench, job) = old_job();
    bench.tick();
    let [number] = bench.proposals("b")[..] else { panic!("{:?}", bench.sent) };
    let answer = accepted(&["a", "b", "c", "d", "e"]);
    bench.saved();
    bench.hear("b", 1, PeerMessage::Expiring { job, number, answer: answer.clone() });
    bench.hear("c", 0, PeerMessage::Expiring { job, number, answer });
    bench.saved();
    assert!(!bench.core.is_forgotten(job), "three of five");
    // It is given up, and those who agreed are told so.
    bench.sent.clear();
    bench.tick();
    let withdrawn = |m: &PeerMessage| *m == PeerMessage::Withdrawn { job, number };
    assert!(bench.sent.iter().any(|(to, m, _)| *to == node("b") && withdrawn(m)));
}

#[test]
fn one_member_that_saw_the_job_keeps_it() {
    let (mut bench, job) = old_job();
    bench.tick();
    let [number] = bench.proposals("b")[..] else { panic!("{:?}", bench.sent) };
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let idle_ms = minutes(50).as_millis() as u64;
    bench.hear(
        "b",
        1,
        PeerMessage::Expiring { job, number, answer: ExpireAnswer::Active { idle_ms } },
    );
    bench.saved();
    // Late agreement is to nothing.
    bench.hear("c", 0, PeerMessage::Expiring { job, number, answer: accepted(&[]) });
    bench.saved();
    assert!(!bench.core.is_forgotten(job));
    bench.sent.clear();
    bench.now += minutes(9);
    bench.tick();
    assert!(bench.proposals("b").is_empty());
    bench.now += minutes(1);
    bench.tick();
    assert_eq!(bench.proposals("b").len(), 1);
}

#[test]
fn nothing_is_proposed_while_too_many_are_away() {
    let (mut bench, _) = old_job();
    bench.sees(&["a"]);
    bench.tick();
    assert!(bench.proposals("a").is_empty() && bench.saves.len() <= 1);
    bench.input(Input::Request(9, ClientRequest::Cluster));
    let Some((9, ClientResponse::Cluster(view))) = bench.replies.last() else { panic!("no view") };
    let overdue = view.overdue.clone().unwrap();
    assert_eq!((overdue.jobs, overdue.away), (1, vec![node("b"), node("c")]));
}

#[test]
fn a_member_agrees_once_it_is_written_down_and_takes_nothing_new_until_it_knows_the_outcome() {
    let (mut bench, job) = old_job();
    let refused = |bench: &Bench| {
        let reason = |m: &PeerMessage| match m {
            PeerMessage::NotStored { reason, .. } => Some(*reason),
            _ => None,
        };
        bench.sent.iter().filter_map(|(_, message, _)| reason(message)).next_back()
    };
    bench.hear("b", 1, PeerMessage::Expire { job, number: 7, reason: Reason::Expired });
    assert_eq!(bench.answers(), []);
    bench.saved();
    assert_eq!(bench.answers().len(), 1);
    store(&mut bench, job, 0, 2, false);
    assert_eq!((refused(&bench), bench.appends.len()), (Some(NotStored::Expiring), 0));
    // A copy of what others have is no sign of life, and is taken.
    store(&mut bench, job, 1, 3, true);
    assert_eq!(bench.appends.len(), 1);
    bench.sync();
    let stored = |m: &PeerMessage| matches!(m, PeerMessage::Stored { .. });
    assert!(
        !bench.sent.iter().any(|(_, message, _)| stored(message)),
        "its sender would count that for an acknowledgement"
    );
    // It asks for the outcome until it hears it.
    bench.tick();
    bench.saved();
    let [number] = bench.proposals("b")[..] else { panic!("{:?}", bench.sent) };
    assert!(bench.answers().iter().any(|answer| matches!(answer, ExpireAnswer::Accepted { .. })));
    bench.hear("b", 4, PeerMessage::Withdrawn { job, number: 8 });
    store(&mut bench, job, 0, 5, false);
    assert_eq!(bench.appends.len(), 0, "another proposal was withdrawn");
    bench.hear("b", 6, PeerMessage::Withdrawn { job, number: 7 });
    store(&mut bench, job, 0, 7, false);
    assert_eq!(bench.appends.len(), 0, "it has proposed the same itself, and agreed to that");
    let answer = ExpireAnswer::Active { idle_ms: 1 };
    bench.hear("b", 8, PeerMessage::Expiring { job, number, answer });
    store(&mut bench, job, 0, 9, false);
    assert_eq!(bench.appends.len(), 1);
    // What is on its way to the disk may be acknowledged soon, however long the disk takes.
    bench.now += Duration::from_secs(7200);
    bench.answers();
    bench.hear("b", 10, PeerMessage::Expire { job, number: 9, reason: Reason::Expired });
    assert_eq!(bench.answers(), [ExpireAnswer::Active { idle_ms: 0 }]);
    bench.sync();
    // Now it has seen the job, and says for how long it has not.
    bench.now += Duration::from_secs(60);
    bench.hear("b", 11, PeerMessage::Expire { job, number: 10, reason: Reason::Expired });
    assert_eq!(bench.answers(), [ExpireAnswer::Active { idle_ms: 60_000 }]);
}

#[test]
fn too_few_prove_nothing() {
    let (mut bench, job) = old_job();
    let proof = |accepted: &[&str]| Forgotten {
        by: node("b"),
        number: 1,
        accepted: accepted.iter().map(|name| node(name)).collect(),
        known: 3,
        min_copies: 2,
        reason: Reason::Expired,
    };
    bench.hear("b", 1, PeerMessage::Forgotten { job, proof: proof(&["b"]) });
    assert!(!bench.core.is_forgotten(job));
    bench.hear("b", 2, PeerMessage::Forgotten { job, proof: proof(&["b", "c"]) });
    assert!(bench.core.is_forgotten(job));
    // Its records go once it is written down that they are to.
    assert!(bench.forgotten.is_empty());
    bench.saved();
    assert_eq!(bench.forgotten, crate::Group::all(job));
}

#[test]
fn a_restart_puts_nothing_off_and_forgets_nothing_that_came_after() {
    let (mut first, job) = old_job();
    store(&mut first, job, 0, 1, false);
    first.sync();
    first.now += TTL - Duration::from_secs(60);
    first.tick();
    let file = |bench: &Bench, wanted| {
        let saves = bench.saves.iter().rev();
        saves.into_iter().find(|(_, file, _)| *file == wanted).map(|(_, _, bytes)| bytes.clone())
    };
    let idle = file(&first, StateFile::Expiry).unwrap();
    let key = EntryKey { job, edge: Edge::table(0), number: 0 };
    let payload = Entry::meta(key, Bytes::from_static(b"delta")).encode();
    let newest = first.core.facts.jobs[job].newest;
    for (offset, over) in [(newest.1, true), (newest.1 + 1, false)] {
        let mut bench = Bench::alone(2);
        bench.core.restore_state(StateFile::Expiry, &idle).unwrap();
        let record = RecordRef { segment: newest.0, offset, len: 1 };
        bench.core.restore(record, 0, &payload).unwrap();
        bench.sees(&["a", "b", "c"]);
        bench.now += Duration::from_secs(61);
        bench.input(Input::Tick);
        let idle = bench.core.idle(job).unwrap();
        assert_eq!(idle >= TTL, over, "{idle:?}");
    }
}

#[test]
fn a_job_that_its_home_works_on_is_alive_however_long_that_takes() {
    let (mut bench, job) = old_job();
    bench.core.facts.jobs.get_mut(job).unwrap().ends = vec![Some(0); 5];
    bench.core.on_admitted(job, 0);
    bench.tick();
    assert!(bench.proposals("b").is_empty());
    bench.answers();
    bench.hear("b", 1, PeerMessage::Expire { job, number: 1, reason: Reason::Expired });
    assert_eq!(bench.answers(), [ExpireAnswer::Active { idle_ms: 0 }]);
}

/// `a` is the coordinator of a job that was cancelled a moment ago.
fn cancelled_job() -> (Bench, JobId) {
    let (mut bench, job) = coordinator_of_a_job();
    bench.input(Input::Request(2, ClientRequest::Cancel(job)));
    bench.sync();
    let entries = bench.stores("b").split_off(1);
    bench.hear("b", 1, PeerMessage::Stored { log: LogId(1), entries });
    assert_eq!(bench.replies.len(), 2, "{:?}", bench.replies);
    bench.saved();
    bench.replies.clear();
    (bench, job)
}

fn told(bench: &Bench) -> Vec<(u64, ErrorKind, String)> {
    let error = |(ticket, response): &(u64, ClientResponse)| match response {
        ClientResponse::Error(error) => Some((*ticket, error.kind, error.message.clone())),
        _ => None,
    };
    bench.replies.iter().filter_map(error).collect()
}

#[test]
fn a_deletion_is_answered_once_it_holds_and_its_reason_stays() {
    let (mut bench, job) = cancelled_job();
    bench.input(Input::Request(3, ClientRequest::Delete(job)));
    let [number] = bench.proposals("b")[..] else { panic!("{:?}", bench.sent) };
    bench.saved();
    bench.hear("b", 2, PeerMessage::Expiring { job, number, answer: accepted(&["a", "b", "c"]) });
    assert!(bench.replies.is_empty() && !bench.core.is_forgotten(job), "not on disk yet");
    bench.saved();
    assert_eq!(bench.replies, [(3, ClientResponse::Accepted)]);
    assert_eq!(bench.gone("c").unwrap().reason, Reason::Deleted);
    assert_eq!(bench.forgotten, crate::Group::all(job));
    bench.input(Input::Request(4, ClientRequest::Status { job, wait_ms: 0 }));
    let told = told(&bench);
    assert_eq!((told[0].0, told[0].1), (4, ErrorKind::NotFound));
    assert!(told[0].2.contains("was deleted"), "{told:?}");
    // A client that did not hear the answer asks again.
    bench.input(Input::Request(5, ClientRequest::Delete(job)));
    assert_eq!(bench.replies.last(), Some(&(5, ClientResponse::Accepted)));
}

#[test]
fn a_member_agrees_to_a_deletion_of_what_it_saw_a_moment_ago() {
    let (mut bench, job) = cancelled_job();
    bench.hear("b", 2, PeerMessage::Expire { job, number: 7, reason: Reason::Deleted });
    assert_eq!(bench.answers(), [], "not on disk yet");
    bench.saved();
    assert!(matches!(bench.answers()[..], [ExpireAnswer::Accepted { .. }]));
}

/// Asks for a deletion of a job that `a` does not know to have ended; returns the round in which it asks
/// the others for what it misses.
fn asked_to_delete(bench: &mut Bench, job: JobId) -> u64 {
    bench.replies.clear();
    bench.input(Input::Request(2, ClientRequest::Delete(job)));
    let rounds = bench.sent_to("b", |message| match message {
        PeerMessage::Fetch { round, .. } => Some(*round),
        _ => None,
    });
    assert!(bench.replies.is_empty());
    rounds[0]
}

#[test]
fn only_an_ended_job_is_deleted() {
    let (mut bench, job) = coordinator_of_a_job();
    let round = asked_to_delete(&mut bench, job);
    bench.hear("b", 1, PeerMessage::Fetched { job, round, idle_ms: None });
    bench.hear("c", 0, PeerMessage::Fetched { job, round, idle_ms: None });
    let told = told(&bench);
    assert_eq!(told[0].1, ErrorKind::Conflict);
    assert!(told[0].2.contains("cortado cancel"), "{told:?}");
    assert!(bench.proposals("b").is_empty());
}

/// Seed 10240919: while views differed, another coordinator had cancelled it a moment ago.
#[test]
fn a_job_that_only_others_know_to_have_ended_is_deleted() {
    let (mut bench, job) = coordinator_of_a_job();
    let round = asked_to_delete(&mut bench, job);
    let cancel = cortado_protocol::job::JobEntry::Cancel;
    let key = EntryKey { job, edge: Edge::JOB, number: cancel.number() };
    let tail = Entry::meta(key, frame::to_postcard(&cancel)).encode();
    bench.hear_with("b", 1, PeerMessage::Moved, tail);
    bench.sync();
    bench.hear("b", 2, PeerMessage::Fetched { job, round, idle_ms: None });
    bench.hear("c", 0, PeerMessage::Fetched { job, round, idle_ms: None });
    assert_eq!(bench.proposals("b").len(), 1, "{:?}", bench.replies);
}

#[test]
fn a_deletion_that_too_few_answer_is_taken_back_and_said() {
    let (mut bench, job) = cancelled_job();
    bench.input(Input::Request(3, ClientRequest::Delete(job)));
    let number = bench.proposals("b")[0];
    for _ in 0..24 {
        bench.wait(1);
        bench.saved();
    }
    let withdrawn = |m: &PeerMessage| *m == PeerMessage::Withdrawn { job, number };
    assert!(bench.sent.iter().any(|(to, m, _)| *to == node("b") && withdrawn(m)));
    let told = told(&bench);
    assert_eq!((told.len(), told[0].1), (1, ErrorKind::Unavailable), "{told:?}");
    assert!(!bench.core.is_forgotten(job));
}

/// Seed 10201597: a node that was alone said of a cancelled job that it has not ended.
#[test]
fn without_enough_members_a_deletion_is_put_off_whatever_this_node_knows() {
    for (mut bench, job) in [cancelled_job(), coordinator_of_a_job()] {
        bench.replies.clear();
        bench.sees(&["a"]);
        bench.input(Input::Request(3, ClientRequest::Delete(job)));
        bench.wait(24);
        let told = told(&bench);
        assert_eq!(told[0].1, ErrorKind::Unavailable, "{told:?}");
        assert!(!bench.core.is_forgotten(job));
    }
}
