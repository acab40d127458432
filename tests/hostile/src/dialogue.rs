//! A node's core receives any messages from nodes and clients, in any order.
//!
//! The bench syncs what the core appends and runs its tasks. The core must not panic, and its
//! messages must be readable.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use cortado_core::task::{Records, execute};
use cortado_core::{Budget, Config, Core, Effect, Input, Members, RecordRef};
use cortado_protocol::client::ClientRequest;
use cortado_protocol::frame::{PREFIX_BYTES, decode, encode};
use cortado_protocol::job::BatchHeader;
use cortado_protocol::peer::{Hello, LinkFrame, PeerMessage};
use cortado_protocol::{JobId, LogId, NodeId};

use crate::{Pieces, pieces, sample};

const STEPS: usize = 48;
const WALL_MS: u64 = 1_795_000_000_000;

/// The appended records, by place.
#[derive(Default)]
struct Disk(Vec<Bytes>);

impl Records for Disk {
    fn read(&self, record: RecordRef) -> Option<Bytes> {
        self.0.get(record.offset as usize).cloned()
    }
}

/// Node `a` alone, or among `b` and `c`.
struct Bench {
    core: Core,
    now: Duration,
    disk: Disk,
    unsynced: Vec<(u64, RecordRef)>,
    next_ticket: u64,
    /// The next number of each peer's messages.
    numbers: [u64; 2],
    /// Messages of the core; answers get the numbers of its requests.
    asked: Vec<(NodeId, PeerMessage)>,
}

fn config(alone: bool) -> Config {
    Config {
        node: sample::node("a"),
        cluster: "c".to_owned(),
        boot: 1,
        log: LogId(1),
        replicas: if alone { 1 } else { 3 },
        min_copies: if alone { 1 } else { 2 },
        slots: sample::SLOTS,
        expected_nodes: 1,
        max_running_jobs: 4,
        upload_idle: Duration::from_secs(30),
        memory: Budget::of(1 << 30, 1),
        job_ttl: Duration::from_secs(3600),
        planted: None,
    }
}

impl Bench {
    fn new(alone: bool) -> Self {
        let mut bench = Self {
            core: Core::new(config(alone)),
            now: Duration::from_secs(1),
            disk: Disk::default(),
            unsynced: Vec::new(),
            next_ticket: 1,
            numbers: [0; 2],
            asked: Vec::new(),
        };
        bench.members(if alone { &["a"] } else { &["a", "b", "c"] }, 1);
        if !alone {
            for (conn, peer) in [(1, "b"), (2, "c")] {
                bench.input(Input::LinkUp(sample::hello(peer)));
                bench.input(Input::Inbound(conn, sample::hello(peer)));
            }
        }
        bench
    }

    fn members(&mut self, live: &[&str], version: u64) {
        let live: Vec<_> = live.iter().map(|name| sample::node(name)).collect();
        let (reachable, alone) = (live.clone(), Members::alone(sample::node("a")));
        let known = ["a", "b", "c"].map(sample::node).to_vec();
        self.input(Input::Members(Members { version, live, reachable, known, ..alone }));
    }

    fn input(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let mut effects = Vec::new();
            self.core.handle(self.now, WALL_MS + self.now.as_millis() as u64, input, &mut effects);
            for effect in effects {
                self.effect(effect, &mut inputs);
            }
        }
    }

    fn effect(&mut self, effect: Effect, inputs: &mut VecDeque<Input>) {
        match effect {
            Effect::Append { ticket, bytes, .. } => {
                let offset = self.disk.0.len() as u32;
                let record = RecordRef { segment: 1, offset, len: bytes.len() as u32 };
                self.disk.0.push(bytes);
                self.unsynced.push((ticket, record));
            }
            Effect::Run(id, task) => {
                inputs.push_back(Input::TaskDone(id, execute(*task, &self.disk)))
            }
            Effect::Send(peer, frame) => {
                let (head, _) = decode::<LinkFrame>(&frame.slice(PREFIX_BYTES..))
                    .expect("what it sends can be read");
                if let LinkFrame::Message { message, .. } = head {
                    self.asked.push((peer, message));
                }
            }
            _ => {}
        }
    }

    /// A message of a peer arrives, with the next number.
    fn message(&mut self, peer: usize, message: PeerMessage, tail: Bytes) {
        let from = sample::node(["b", "c"][peer]);
        let message = self.believable(from, message);
        let seq = self.numbers[peer];
        self.numbers[peer] += 1;
        self.input(Input::Message { conn: peer as u64 + 1, from, seq, message, tail });
    }

    /// The core drops answers without a matching request, and a fuzzer can't guess the numbers of
    /// requests: the numbers in a sample are replaced by those of the core's newest request.
    fn believable(&self, from: NodeId, mut message: PeerMessage) -> PeerMessage {
        let mut asked = self.asked.iter().rev().filter(|(to, _)| *to == from);
        match &mut message {
            PeerMessage::Output { attempt: 4, .. }
            | PeerMessage::Incomplete { attempt: 4, .. }
            | PeerMessage::WorkFailed { attempt: 4, .. } => {
                let newest = asked.find_map(|(_, asked)| match asked {
                    PeerMessage::Work { attempt, .. } => Some(*attempt),
                    _ => None,
                });
                if let PeerMessage::Output { attempt, .. }
                | PeerMessage::Incomplete { attempt, .. }
                | PeerMessage::WorkFailed { attempt, .. } = &mut message
                {
                    *attempt = newest.unwrap_or(*attempt);
                }
            }
            PeerMessage::Answer { id, .. } if *id < 16 => {
                let newest = asked.find_map(|(_, asked)| match asked {
                    PeerMessage::Ask { id, .. } => Some(*id),
                    _ => None,
                });
                *id = newest.unwrap_or(*id);
            }
            PeerMessage::Fetched { round, .. } => {
                let newest = asked.find_map(|(_, asked)| match asked {
                    PeerMessage::Fetch { round, .. } => Some(*round),
                    _ => None,
                });
                *round = newest.unwrap_or(*round);
            }
            _ => {}
        }
        message
    }

    fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    fn sync(&mut self) {
        let records = std::mem::take(&mut self.unsynced);
        self.input(Input::Appended(records));
    }

    fn wait(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        self.input(Input::Tick);
    }

    fn step(&mut self, pieces: &mut Pieces<'_>) {
        let kind = pieces.byte();
        let peer = usize::from(kind >> 7);
        match kind & 15 {
            0..=3 => {
                let frame = Bytes::copy_from_slice(pieces.piece());
                if let Ok((LinkFrame::Message { message, .. }, tail)) = decode(&frame) {
                    self.message(peer, message, tail);
                }
            }
            4..=6 => {
                let frame = Bytes::copy_from_slice(pieces.piece());
                if let Ok((request, _)) = decode::<ClientRequest>(&frame) {
                    let ticket = self.ticket();
                    self.input(Input::Request(ticket, request));
                }
            }
            7 | 8 => {
                let frame = Bytes::copy_from_slice(pieces.piece());
                if let Ok((header, payload)) = decode::<BatchHeader>(&frame) {
                    let (ticket, job) = (self.ticket(), JobId(sample::JOB.0));
                    self.input(Input::Batch { ticket, job, client: 1, header, payload });
                }
            }
            9 => self.sync(),
            10 => self.wait(u64::from(pieces.short())),
            11 => {
                let version = 2 + self.now.as_millis() as u64;
                self.now += Duration::from_millis(1);
                let all: [&[&str]; 4] = [&["a"], &["a", "b"], &["a", "c"], &["a", "b", "c"]];
                self.members(all[usize::from(kind >> 5 & 3)], version);
            }
            12 => {
                let frame = Bytes::copy_from_slice(pieces.piece());
                if let Ok((hello, _)) = decode::<Hello>(&frame) {
                    self.greet(peer, hello);
                }
            }
            13 => {
                let refused = kind >> 5 & 1 == 1;
                self.input(Input::LinkDown { peer: sample::node(["b", "c"][peer]), refused });
            }
            14 => {
                let refused: Vec<_> = self.unsynced.drain(..).map(|(ticket, _)| ticket).collect();
                refused.into_iter().for_each(|ticket| self.input(Input::AppendRefused(ticket)));
            }
            _ => self.input(Input::ClientLeft(self.next_ticket)),
        }
    }

    /// A peer dials and is dialled. Its certificate determines its name.
    fn greet(&mut self, peer: usize, hello: Hello) {
        let hello = Hello { node: sample::node(["b", "c"][peer]), ..hello };
        self.numbers[peer] = 0;
        self.input(Input::Inbound(peer as u64 + 1, hello.clone()));
        self.input(Input::LinkUp(hello));
    }
}

/// Input: a byte for the size of the cluster, then steps.
pub fn check(bytes: &[u8]) {
    let mut pieces = Pieces::new(bytes);
    let mut bench = Bench::new(pieces.byte() & 1 == 1);
    for _ in 0..STEPS {
        if pieces.is_empty() {
            break;
        }
        bench.step(&mut pieces);
    }
    // The core must not hang afterwards.
    for _ in 0..20 {
        bench.sync();
        bench.wait(1_000);
    }
    // The core must be able to start from the records it wrote.
    let mut restarted = Core::new(config(false));
    for (offset, bytes) in bench.disk.0.iter().enumerate() {
        let record = RecordRef { segment: 1, offset: offset as u32, len: bytes.len() as u32 };
        restarted.restore(record, WALL_MS, bytes).expect("it wrote this itself");
    }
}

/// A job from its submission to its result, alone and among three; and each message alone.
#[must_use]
pub fn samples() -> Vec<Vec<u8>> {
    let framed = |kind: u8, frame: Bytes| {
        let mut step = vec![kind];
        pieces::put(&mut step, &frame[PREFIX_BYTES..]);
        step
    };
    let message = |(message, tail): (PeerMessage, Bytes)| {
        framed(0, encode(&LinkFrame::Message { seq: 0, message }, &tail))
    };
    let request = |request: ClientRequest| framed(4, encode(&request, b""));
    let (sync, wait) = (vec![9], vec![10, 200, 0]);
    let settle = [sync.clone(), wait.clone(), sync, wait].concat();

    let job = sample::JOB;
    let submit = [request(ClientRequest::Submit(sample::spec())), settle.clone()].concat();
    let batch = |(header, bytes): (BatchHeader, Bytes)| framed(7, encode(&header, &bytes));
    let upload: Vec<_> = sample::batches().into_iter().flat_map(batch).collect();
    let end = |table| request(ClientRequest::EndTable { job, table, batches: 1 });
    let ends: Vec<_> = (0..5).flat_map(end).collect();
    let result = request(ClientRequest::Result { job, chunk: 0 });
    let alone = [
        vec![1],
        submit.clone(),
        upload.clone(),
        settle.clone(),
        ends.clone(),
        settle.clone(),
        settle.clone(),
        result,
    ];

    let stores = sample::messages().into_iter().filter(|(kind, _)| *kind == PeerMessage::Store);
    let stores: Vec<_> = [vec![0]].into_iter().chain(stores.map(message)).flatten().collect();
    let stored = [&stores[..], &settle].concat();
    let hello = framed(12, encode(&Hello { boot: 2, ..sample::hello("b") }, b""));
    let among = [vec![0], submit, upload, settle.clone(), hello, settle, ends];
    let each = sample::messages().into_iter().map(|said| [&stored[..], &message(said)].concat());
    each.chain([alone.concat(), among.concat()]).collect()
}
