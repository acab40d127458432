//! Promises of one core, told message by message.

use std::time::Duration;

use bytes::Bytes;
use cortado_membership::ring;
use cortado_protocol::client::{ClientRequest, ClientResponse, ErrorKind};
use cortado_protocol::entry::Entry;
use cortado_protocol::job::{JobSpec, TableFiles};
use cortado_protocol::peer::{Admission, EdgeCoverage, Hello, LinkFrame, PeerMessage, PlaceWish};
use cortado_protocol::{JobId, LogId, NodeId, PROTOCOL_VERSION, SlotSet, frame};

use crate::config::tests::config;
use crate::{Core, Effect, Input, Members, RecordRef};

mod completing;
mod expiry;
mod memory;
mod pages;
mod promises;
mod retiring;

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

/// The connection on which a peer speaks.
fn conn_of(peer: &str) -> u64 {
    u64::from(peer.as_bytes()[0])
}

/// A core among `a`, `b` and `c` with R = 3, W = 2, and what it sent.
struct Bench {
    core: Core,
    now: Duration,
    sent: Vec<(NodeId, PeerMessage, Bytes)>,
    appends: Vec<u64>,
    replies: Vec<(u64, ClientResponse)>,
    welcomes: Vec<u64>,
    /// Numbers acknowledged to peers.
    acks: Vec<u64>,
    /// Tasks to run.
    tasks: Vec<u64>,
    /// Files to save.
    saves: Vec<(u64, crate::StateFile, Bytes)>,
    forgotten: Vec<crate::Group>,
    drained: bool,
}

impl Bench {
    /// It has not heard of the others yet.
    fn alone(boot: u64) -> Self {
        let core = Core::new(config("a", boot));
        let (sent, appends, replies) = (Vec::new(), Vec::new(), Vec::new());
        let (now, welcomes) = (Duration::from_secs(1), Vec::new());
        let (acks, tasks, drained) = (Vec::new(), Vec::new(), false);
        let (saves, forgotten) = (Vec::new(), Vec::new());
        Self { core, now, sent, appends, replies, welcomes, acks, tasks, saves, forgotten, drained }
    }

    fn new(boot: u64) -> Self {
        let mut bench = Self::alone(boot);
        bench.sees(&["a", "b", "c"]);
        for peer in ["b", "c"] {
            bench.meets(peer);
        }
        bench
    }

    /// These are there, of three.
    fn sees(&mut self, nodes: &[&str]) {
        let live: Vec<_> = nodes.iter().map(|name| node(name)).collect();
        let known = ["a", "b", "c"].map(node).to_vec();
        let (version, reachable, alone) = (1, live.clone(), Members::alone(node("a")));
        self.input(Input::Members(Members { version, live, reachable, known, ..alone }));
    }

    /// Links to and from a peer are made.
    fn meets(&mut self, peer: &str) {
        self.input(Input::LinkUp(hello(peer, 1)));
        self.input(Input::Inbound(conn_of(peer), hello(peer, 1)));
    }

    fn input(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.core.handle(self.now, 1_000_000, input, &mut effects);
        for effect in effects {
            match effect {
                Effect::Send(peer, bytes) => {
                    let (head, tail) = frame::decode(&bytes.slice(frame::PREFIX_BYTES..)).unwrap();
                    if let LinkFrame::Message { message, .. } = head {
                        self.sent.push((peer, message, tail));
                    }
                }
                Effect::Append { ticket, .. } => self.appends.push(ticket),
                Effect::Reply(ticket, response, _) => self.replies.push((ticket, *response)),
                Effect::Welcome(conn, _) => self.welcomes.push(conn),
                Effect::Ack(_, next) => self.acks.push(next),
                Effect::Save { ticket, file, bytes } => self.saves.push((ticket, file, bytes)),
                Effect::Forget(group) => self.forgotten.push(group),
                Effect::Run(id, _) => self.tasks.push(id),
                Effect::Drained => self.drained = true,
                _ => {}
            }
        }
    }

    /// A message of a peer; `seq` counts per peer.
    fn hear(&mut self, from: &str, seq: u64, message: PeerMessage) {
        self.hear_with(from, seq, message, Bytes::new());
    }

    /// The same with a tail.
    fn hear_with(&mut self, from: &str, seq: u64, message: PeerMessage, tail: Bytes) {
        let (conn, from) = (conn_of(from), node(from));
        self.input(Input::Message { conn, from, seq, message, tail });
    }

    /// Time passes, in quarters of a second.
    fn wait(&mut self, quarters: u32) {
        for _ in 0..quarters {
            self.now += Duration::from_millis(250);
            self.input(Input::Tick);
        }
    }

    /// Of what was sent to a peer, what `what` picks.
    fn sent_to<T>(&self, to: &str, what: impl Fn(&PeerMessage) -> Option<T>) -> Vec<T> {
        let to_peer = self.sent.iter().filter(|(peer, ..)| *peer == node(to));
        to_peer.filter_map(|(_, message, _)| what(message)).collect()
    }

    /// An owner answers the newest offer it was made: this is in its log.
    fn has(&mut self, owner: &str, seq: u64, job: JobId, log: u128, held: Vec<EdgeCoverage>) {
        let rounds = self.sent_to(owner, |message| match message {
            PeerMessage::Offer { job: of, round, .. } if *of == job => Some(*round),
            _ => None,
        });
        let round = *rounds.last().expect("it was offered something");
        let log = LogId(log);
        self.hear(owner, seq, PeerMessage::Have { job, round, done: true, log, held });
    }

    fn sync(&mut self) {
        let record =
            |ticket: &u64| (*ticket, RecordRef { segment: 1, offset: *ticket as u32, len: 1 });
        let records = self.appends.iter().map(record).collect();
        self.appends.clear();
        self.input(Input::Appended(records));
    }

    /// Keys of the entries sent to a peer, and the slots sent with each.
    fn stores(&mut self, to: &str) -> Vec<(cortado_protocol::EntryKey, SlotSet)> {
        let stores = self
            .sent
            .iter()
            .filter(|(peer, message, _)| *peer == node(to) && *message == PeerMessage::Store);
        let heads = stores.map(|(_, _, tail)| Entry::decode(tail).unwrap().head);
        heads.map(|head| (head.key, head.slots)).collect()
    }
}

fn hello(peer: &str, log: u128) -> Hello {
    let (cluster, node) = ("c".to_owned(), node(peer));
    Hello { version: PROTOCOL_VERSION, cluster, node, boot: 1, log: LogId(log), seq: 0 }
}

/// A job whose coordinator is `a`.
fn spec(core: &mut Core) -> JobSpec {
    let jobs = (1..).map(|last| JobId::v7(1_700_000_000_000, last));
    let job = jobs.into_iter().find(|job| core.facts.coordinator(*job) == node("a")).unwrap();
    let plan = cortado_engine::COFFEE;
    let names = ["transactions", "transaction_items", "users", "stores", "menu_items"];
    let tables = names.map(|name| TableFiles { name: name.to_owned(), files: Vec::new() });
    JobSpec {
        job,
        plan_name: "coffee".to_owned(),
        plan_toml: plan.to_owned(),
        slots: 4,
        tables: tables.into(),
    }
}

/// A node that is the coordinator of a job, which is durable on it and on `b`.
fn coordinator_of_a_job() -> (Bench, JobId) {
    let mut bench = Bench::new(1);
    let spec = spec(&mut bench.core);
    let job = spec.job;
    bench.input(Input::Request(1, ClientRequest::Submit(spec)));
    bench.sync();
    let entries = bench.stores("b");
    bench.hear("b", 0, PeerMessage::Stored { log: LogId(1), entries });
    (bench, job)
}

#[test]
fn a_job_whose_id_is_no_uuid_of_version_7_is_refused() {
    let mut bench = Bench::new(1);
    let job = (0..).map(JobId).find(|job| bench.core.facts.coordinator(*job) == node("a")).unwrap();
    let spec = JobSpec { job, ..spec(&mut bench.core) };
    bench.input(Input::Request(1, ClientRequest::Submit(spec)));
    let [(1, ClientResponse::Error(error))] = &bench.replies[..] else { panic!("no answer") };
    assert_eq!(error.kind, ErrorKind::BadInput);
    assert!(error.message.contains("UUIDv7"), "{}", error.message);
    assert!(bench.appends.is_empty());
}

#[test]
fn a_submission_is_acknowledged_on_two_disks_and_no_earlier() {
    let mut bench = Bench::new(1);
    let spec = spec(&mut bench.core);
    bench.input(Input::Request(1, ClientRequest::Submit(spec.clone())));
    let stored = bench.stores("b");
    assert_eq!(stored.len(), 1);
    bench.sync();
    // Known here is not enough, however often the client asks.
    bench.input(Input::Request(2, ClientRequest::Submit(spec)));
    bench.now += Duration::from_secs(3);
    bench.input(Input::Tick);
    assert!(bench.replies.is_empty(), "{:?}", bench.replies);
    bench.hear("b", 0, PeerMessage::Stored { log: LogId(1), entries: stored });
    assert_eq!(bench.replies.len(), 2);
    assert!(bench.replies.iter().all(|(_, reply)| matches!(reply, ClientResponse::Status(_))));
}

#[test]
fn a_copy_in_a_log_that_was_lost_does_not_count() {
    let mut bench = Bench::new(1);
    let spec = spec(&mut bench.core);
    bench.input(Input::Request(1, ClientRequest::Submit(spec)));
    let entries = bench.stores("b");
    // It lost its disk on the way: what it says is of another log.
    bench.input(Input::Inbound(98, hello("b", 2)));
    bench.sync();
    bench.hear("b", 0, PeerMessage::Stored { log: LogId(1), entries: entries.clone() });
    assert!(bench.replies.is_empty());
    // The blank disk is sent everything again, and then counts.
    assert_eq!(bench.stores("b").len(), 2);
    bench.hear("b", 1, PeerMessage::Stored { log: LogId(2), entries });
    assert_eq!(bench.replies.len(), 1);
}

#[test]
fn an_acknowledgement_of_others_waits_for_the_fsync() {
    let mut bench = Bench::new(1);
    let spec = spec(&mut bench.core);
    let job = spec.job;
    let entry = cortado_protocol::job::JobEntry::Spec(spec);
    let key = cortado_protocol::EntryKey {
        job,
        edge: cortado_protocol::Edge::JOB,
        number: entry.number(),
    };
    let bytes = Entry::meta(key, frame::to_postcard(&entry)).encode();
    let store = |bench: &mut Bench, seq| {
        let (conn, from, tail) = (u64::from(b'b'), node("b"), bytes.clone());
        bench.input(Input::Message { conn, from, seq, message: PeerMessage::Store, tail });
    };
    let stored = |bench: &Bench| {
        let told = |m: &PeerMessage| matches!(m, PeerMessage::Stored { .. });
        bench.sent.iter().filter(|(_, message, _)| told(message)).count()
    };
    store(&mut bench, 0);
    // A repetition is neither logged again nor acknowledged early.
    store(&mut bench, 0);
    store(&mut bench, 1);
    assert_eq!((bench.appends.len(), stored(&bench)), (1, 0));
    bench.sync();
    assert_eq!(stored(&bench), 1, "one message tells of both");
    store(&mut bench, 2);
    assert_eq!((bench.appends.len(), stored(&bench)), (0, 2));
}

#[test]
fn numbers_of_one_boot_never_come_back_in_the_next() {
    let mut first = Bench::new(1_700_000_000_000);
    let mut second = Bench::new(1_700_000_000_001);
    let highest = (0..1000).map(|_| first.core.out.fresh_id()).max().unwrap();
    assert!(second.core.out.fresh_id() > highest);
}

#[test]
fn an_offer_is_made_again_until_it_is_answered() {
    let mut bench = Bench::new(1);
    let spec = spec(&mut bench.core);
    let job = spec.job;
    bench.input(Input::Request(1, ClientRequest::Submit(spec)));
    bench.sync();
    bench.input(Input::LinkUp(hello("b", 1)));
    let offered = |bench: &Bench| -> Vec<_> {
        bench.sent_to("b", |message| match message {
            PeerMessage::Offer { held, .. } => Some(held.clone()),
            _ => None,
        })
    };
    // It believes this node to be down, and says nothing to it.
    bench.wait(40);
    let unanswered = offered(&bench);
    assert!(unanswered.len() >= 4, "{unanswered:?}");
    bench.has("b", 0, job, 1, unanswered[0].clone());
    let before = offered(&bench).len();
    bench.wait(40);
    assert_eq!(offered(&bench).len(), before, "it has all");
}

#[test]
fn a_new_admission_node_lets_jobs_in_once_everybody_has_reported() {
    let keeper = |live: &[NodeId]| ring::first_owner(ring::ADMISSION_KEY, live);
    let names: Vec<_> = (0..100).map(|number| node(&format!("n{number}"))).collect();
    let outranks = |other: &&NodeId| keeper(&[node("a"), **other]) == Some(**other);
    let gone = names.iter().find(outranks).unwrap();
    let mut below = names.iter().filter(|other| !outranks(other));
    let (teller, silent) = (below.next().unwrap(), below.next().unwrap());
    for (rest, waits) in [(vec![*teller], false), (vec![*teller, *silent], true)] {
        let mut bench = Bench::new(1);
        let mut version = 1;
        let mut see = |bench: &mut Bench, others: &[NodeId]| {
            version += 1;
            let mut live = [&[node("a")], others].concat();
            live.sort_unstable();
            let (reachable, alone) = (live.clone(), Members::alone(node("a")));
            let mut known = [&[node("a"), *teller, *gone], others].concat();
            known.sort_unstable();
            known.dedup();
            bench.input(Input::Members(Members { version, live, reachable, known, ..alone }));
        };
        see(&mut bench, &[&rest[..], &[*gone]].concat());
        bench.input(Input::LinkUp(hello(teller.as_str(), 1)));
        bench.input(Input::Inbound(u64::from(b'n'), hello(teller.as_str(), 1)));
        let spec = spec(&mut bench.core);
        bench.input(Input::Request(1, ClientRequest::Submit(spec)));
        bench.sync();
        see(&mut bench, &rest);
        let (submitted_ms, running) = (0, false);
        let jobs = vec![PlaceWish { job: JobId(9), client: 1, submitted_ms, running }];
        bench.hear(teller.as_str(), 0, PeerMessage::Admit { jobs });
        let admitted = |bench: &Bench| {
            let mine = bench.sent.iter().filter(|(to, ..)| to == teller);
            mine.filter_map(|(_, message, _)| match message {
                PeerMessage::Admitted { jobs } => Some(jobs.contains(&(JobId(9), 0))),
                _ => None,
            })
            .any(|is| is)
        };
        assert_eq!(admitted(&bench), !waits);
        bench.now += Duration::from_millis(1500);
        bench.input(Input::Tick);
        assert!(admitted(&bench), "it does not wait for ever");
    }
}

#[test]
fn a_peer_is_heard_once_it_is_a_member_and_not_before() {
    let mut bench = Bench::alone(1);
    bench.meets("b");
    assert!(bench.welcomes.is_empty());
    bench.sees(&["a", "b"]);
    assert_eq!(bench.welcomes, [u64::from(b'b')]);
}

#[test]
fn a_node_that_has_just_started_says_nothing_of_jobs_before_it_sees_the_others() {
    let mut bench = Bench::new(1);
    let spec = spec(&mut bench.core);
    bench.input(Input::Request(1, ClientRequest::Submit(spec.clone())));
    bench.sync();
    // Its log knows the job; how that went on while the node was away, it does not.
    bench.sees(&["a"]);
    let status = ClientRequest::Status { job: spec.job, wait_ms: 0 };
    bench.input(Input::Request(2, status.clone()));
    bench.input(Input::Request(3, ClientRequest::Jobs { after: None }));
    let said = |bench: &Bench, ticket| {
        let mut replies = bench.replies.iter().filter(|(to, _)| *to == ticket);
        replies.next().map(|(_, reply)| reply.clone())
    };
    assert_eq!(said(&bench, 2), None);
    let Some(ClientResponse::Error(error)) = said(&bench, 3) else { panic!("{:?}", bench.replies) };
    assert_eq!(error.kind, ErrorKind::Unavailable);
    // It does not wait for ever.
    bench.now += Duration::from_secs(5);
    bench.input(Input::Request(4, status));
    bench.input(Input::Tick);
    assert!(matches!(said(&bench, 4), Some(ClientResponse::Status(_))), "{:?}", bench.replies);
}

#[test]
fn a_silent_upload_gives_its_place_up_and_gets_one_when_its_client_returns() {
    let mut bench = Bench::new(1);
    // Another node keeps the queue.
    let names: Vec<_> = (0..999).map(|n| format!("n{n}")).collect();
    let live = |name: &String| [node("a"), node("b"), node(name)];
    let keeps =
        |name: &&String| ring::first_owner(ring::ADMISSION_KEY, &live(name)) == Some(node(name));
    let keeper = names.iter().find(keeps).unwrap();
    bench.sees(&["a", "b", keeper]);
    bench.meets(keeper);
    let spec = spec(&mut bench.core);
    let job = spec.job;
    bench.input(Input::Request(1, ClientRequest::Submit(spec)));
    bench.sync();
    let place = |bench: &mut Bench, seq, place| {
        bench.hear(keeper, seq, PeerMessage::Admitted { jobs: vec![(job, place)] });
    };
    let reported = |bench: &Bench| {
        let reports = bench.sent.iter().filter_map(|(_, message, _)| match message {
            PeerMessage::Admit { jobs } => Some(jobs.clone()),
            _ => None,
        });
        reports.last().map(|jobs| jobs.iter().map(|wish| (wish.client, wish.running)).collect())
    };
    let told = |bench: &Bench| {
        bench.sent.iter().rev().find_map(|(_, message, _)| match message {
            PeerMessage::JobIs { admission, .. } => Some(admission.clone()),
            _ => None,
        })
    };
    place(&mut bench, 0, 0);
    bench.hear("b", 0, PeerMessage::JobWanted { job, client: 7 });
    assert_eq!(told(&bench), Some(Admission::Running));
    bench.now += Duration::from_secs(29);
    bench.hear("b", 1, PeerMessage::JobWanted { job, client: 7 });
    bench.now += Duration::from_secs(29);
    bench.input(Input::Tick);
    assert_eq!(reported(&bench), Some(vec![(7, true)]), "it has sent something");
    bench.now += Duration::from_secs(1);
    bench.input(Input::Tick);
    assert_eq!(reported(&bench), Some(vec![]), "its place is free");
    let status = bench.core.status(job).unwrap();
    let waits_for = status.waits_for.clone().unwrap();
    assert!(waits_for.contains("its client has sent nothing for 30 s"), "{waits_for}");
    bench.hear("b", 2, PeerMessage::JobWanted { job, client: 7 });
    assert_eq!(reported(&bench), Some(vec![(7, false)]), "it wants one again");
    place(&mut bench, 1, 3);
    assert_eq!(told(&bench), Some(Admission::Queued { position: 3 }));
    place(&mut bench, 2, 0);
    bench.hear("b", 3, PeerMessage::JobWanted { job, client: 7 });
    assert_eq!(told(&bench), Some(Admission::Running));
}
