//! The driver: inputs into the core, effects out of it. It decides nothing.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use cortado_core::{Core, Effect, Figures, Group, Input, Members, MovedRecord};
use cortado_log::{Append, AppendError, Collected, CommitQueue, Committed, Moved};
use cortado_membership::{Lead, MemberState, View};
use cortado_protocol::NodeId;
use cortado_protocol::client::ClientResponse;
use cortado_transport::Register;
use tokio::sync::mpsc::{Receiver, UnboundedReceiver};
use tokio::sync::{oneshot, watch};

use crate::chaos::Switch;
use crate::clients::{ClientEvent, Clients};
use crate::clock::unix_ms;
use crate::disk::{ENTRY_RECORD, record_ref};
use crate::gossip::Gossip;
use crate::health::Ping;
use crate::keeper::Keeper;
use crate::peers::{PeerEvent, Peers};
use crate::refused::{self, Refused};
use crate::seldom::Seldom;
use crate::watch::Beat;
use crate::webhooks::{Delivered, Webhooks};
use crate::workers::{Done, Workers};

/// Completions taken at once: one message per peer tells of all of them.
const BATCH: usize = 256;

/// What the driver hears.
pub struct Inputs {
    /// Of links.
    pub peers: Receiver<PeerEvent>,
    /// Of clients.
    pub clients: Receiver<ClientEvent>,
    /// Of the membership.
    pub views: watch::Receiver<View>,
    /// Of the log.
    pub log: UnboundedReceiver<Committed<u64>>,
    /// Of the state files' writer.
    pub saved: UnboundedReceiver<u64>,
    /// Of the search for damage.
    pub damaged: UnboundedReceiver<(cortado_log::RecordRef, Bytes)>,
    /// Of the workers.
    pub tasks: UnboundedReceiver<Done>,
    /// Of webhooks.
    pub delivered: UnboundedReceiver<Delivered>,
    /// Of those who want to know whether the loop turns.
    pub pings: Receiver<Ping>,
    /// Of those who want its figures.
    pub snapshots: Receiver<oneshot::Sender<Snapshot>>,
    /// Of the operator.
    pub stop: watch::Receiver<Stop>,
}

/// Figures of the node at one moment.
pub struct Snapshot {
    /// Of the core.
    pub figures: Figures,
    /// What was refused, by port and kind.
    pub refused: BTreeMap<(&'static str, String), u64>,
    /// Queues: what waits in them, and what may.
    pub load: [(&'static str, usize, usize); 2],
}

/// What the operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Go on.
    No,
    /// Hand over, then leave.
    Drain,
    /// Stop now.
    Now,
}

/// The node's core with everything that carries its effects out.
pub struct Driver {
    /// Shared with the diallers, which ask for the number to resume at.
    pub core: Arc<Mutex<Core>>,
    /// This node.
    pub me: NodeId,
    /// Links to the others.
    pub peers: Peers,
    /// Client streams.
    pub clients: Clients,
    /// Failure detector and election.
    pub gossip: Gossip,
    /// Who leads.
    pub leaders: watch::Receiver<Lead>,
    /// The log's writer.
    pub log: CommitQueue<u64>,
    /// Writes the state files.
    pub keeper: Keeper,
    /// The certificates of nodes.
    pub register: Register,
    /// The engine's threads.
    pub workers: Workers,
    /// Sends rows of streams.
    pub webhooks: Webhooks,
    /// Shows that the loop turns.
    pub beat: Beat,
    /// Stalls the loop on request, for a node that can be disturbed.
    pub stall: Option<Switch>,
    /// Appends that found the log's queue full.
    pub refused: Vec<u64>,
    /// Records that the log refused.
    pub full: Seldom,
    /// Groups whose records may go, as soon as the log's queue has room.
    pub forgotten: VecDeque<Group>,
    /// Segments whose records were moved, which may be deleted then.
    pub released: VecDeque<u32>,
}

/// Why the driver ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everything was handed over.
    Drained,
    /// The operator stopped it.
    Stopped,
    /// The failure detector ended by itself; the process must not go on without it.
    Deaf,
}

impl Driver {
    /// Runs until the operator stops the node or everything is handed over.
    pub async fn run(&mut self, inputs: Inputs) -> Ended {
        let mut refused = Refused::new(Instant::now());
        let ended = self.drive(inputs, &mut refused).await;
        refused.tell(Instant::now(), self.refused());
        ended
    }

    async fn drive(&mut self, mut inputs: Inputs, refused: &mut Refused) -> Ended {
        let start = Instant::now();
        let mut effects = Vec::new();
        let mut committed = Vec::new();
        let mut tick_at = tokio::time::Instant::now();
        loop {
            let mut next: Vec<Input> = Vec::with_capacity(1);
            self.beat.turn();
            if let Some(stall) = &self.stall {
                stall.block();
            }
            tokio::select! {
                Some(event) = inputs.peers.recv() => {
                    next.extend(self.certified(&event));
                    next.push(from_peer(event));
                }
                _ = inputs.log.recv_many(&mut committed, BATCH) => {
                    next = from_log(&mut committed, &mut self.full);
                }
                Some(ticket) = inputs.saved.recv() => next.push(Input::Saved(ticket)),
                Some((id, output)) = inputs.tasks.recv() => next.push(Input::TaskDone(id, output)),
                Some(Delivered { ticket, job, result }) = inputs.delivered.recv() => {
                    next.push(Input::Delivered { ticket, job, result });
                }
                Some(event) = inputs.clients.recv() => next.push(from_client(event)),
                changed = inputs.views.changed() => {
                    if changed.is_err() {
                        return Ended::Deaf;
                    }
                    let view = inputs.views.borrow_and_update().clone();
                    next.push(Input::Members(self.on_view(&view)));
                }
                Ok(()) = inputs.stop.changed() => match *inputs.stop.borrow_and_update() {
                    Stop::Now => return Ended::Stopped,
                    Stop::Drain => next.push(Input::Drain),
                    Stop::No => {}
                },
                Some((record, head)) = inputs.damaged.recv() => {
                    next.push(Input::Damaged(record_ref(record), head));
                }
                Some(ping) = inputs.pings.recv() => {
                    // Who asked may have given up.
                    let _ = ping.send(());
                }
                Some(wanted) = inputs.snapshots.recv() => {
                    // Who asked may have given up.
                    let _ = wanted.send(self.snapshot());
                }
                () = tokio::time::sleep_until(tick_at) => next.push(Input::Tick),
            }
            {
                let mut core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
                for input in next {
                    let ticked = matches!(input, Input::Tick);
                    core.handle(start.elapsed(), unix_ms(), input, &mut effects);
                    let interval = core.tick_interval();
                    let now = tokio::time::Instant::now();
                    tick_at = if ticked { now + interval } else { tick_at.min(now + interval) };
                }
            }
            if refused.is_due(Instant::now()) {
                refused.tell(Instant::now(), self.refused());
            }
            loop {
                for effect in effects.drain(..) {
                    if self.carry_out(effect) {
                        return Ended::Drained;
                    }
                }
                if self.refused.is_empty() {
                    break;
                }
                let mut core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
                for ticket in self.refused.drain(..) {
                    let input = Input::AppendRefused(ticket);
                    core.handle(start.elapsed(), unix_ms(), input, &mut effects);
                }
            }
            self.forget_some();
        }
    }

    /// Hands over what is to be forgotten or released, as far as the log's queue has room.
    fn forget_some(&mut self) {
        while let Some(group) = self.forgotten.pop_front() {
            if self.log.try_forget(group.number()).is_err_and(|refused| refused.full) {
                self.forgotten.push_front(group);
                return;
            }
        }
        while let Some(segment) = self.released.pop_front() {
            if self.log.try_release(segment).is_err_and(|refused| refused.full) {
                self.released.push_front(segment);
                return;
            }
        }
    }

    /// A link shows a certificate: it must be known should its node be forgotten.
    fn certified(&self, event: &PeerEvent) -> Option<Input> {
        let PeerEvent::LinkUp { peer, .. } = event else { return None };
        Some(Input::Certified(*peer, self.register.seen(*peer)))
    }

    fn snapshot(&self) -> Snapshot {
        let core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
        let figures = core.figures();
        drop(core);
        Snapshot { figures, refused: self.refused(), load: self.clients.load() }
    }

    fn refused(&self) -> refused::Totals {
        let (gossip, datagrams) = self.gossip.refused();
        refused::totals(self.peers.refusals(), self.clients.refusals(), gossip, datagrams)
    }

    /// Carries an effect out; returns whether the node may leave now.
    fn carry_out(&mut self, effect: Effect) -> bool {
        match effect {
            Effect::Send(peer, frame) => self.peers.send(peer, frame),
            Effect::Welcome(conn, next) => self.peers.welcome(conn, next),
            Effect::Ack(conn, next) => self.peers.ack(conn, next),
            Effect::Append { ticket, group, reserved, mut bytes, head } => {
                let head = bytes.split_to(head.min(bytes.len()));
                let (kind, payload, tag) = (ENTRY_RECORD, vec![head, bytes], ticket);
                let (group, wall_ms) = (group.number(), unix_ms());
                let append = Append { kind, group, wall_ms, payload, reserved, tag };
                // Closed only after it reported that the log failed, which ends the process. A full
                // queue is that of a disk that does not keep up: whoever asked tries again.
                if self.log.try_append(append).is_err_and(|refused| refused.full) {
                    self.refused.push(ticket);
                }
            }
            Effect::Forget(group) => self.forgotten.push_back(group),
            Effect::Release(segment) => self.released.push_back(segment),
            Effect::Save { ticket, file, bytes } => {
                self.keeper.write(file.name(), Some(ticket), bytes);
            }
            Effect::Run(id, task) => self.workers.run(id, *task),
            Effect::Deliver { ticket, job, url, key, body } => {
                self.webhooks.deliver((ticket, job), url, key, body);
            }
            Effect::Reply(ticket, mut response, tail) => {
                // The core knows who owns what; who leads is the membership's to say.
                if let ClientResponse::Cluster(view) = &mut *response {
                    let lead = self.leaders.borrow();
                    view.supervisor = lead.leader.map(|leader| (leader, lead.term));
                    view.crash_looping = lead.crash_looping();
                }
                self.clients.reply(ticket, &response, &tail);
            }
            Effect::BatchReply(ticket, reply) => self.clients.batch_reply(ticket, &reply),
            Effect::Draining => self.gossip.set_draining(true),
            Effect::Unreached { nodes, cut_off } => {
                self.gossip.health().set_unreached(nodes, cut_off);
            }
            Effect::Departed { members, barred } => {
                self.register.bar(barred);
                self.gossip.forget(members);
            }
            Effect::Drained => return true,
        }
        false
    }

    /// Dials who is there, and tells the core of them.
    fn on_view(&mut self, view: &View) -> Members {
        let targets: Vec<(NodeId, SocketAddr)> = view
            .members
            .iter()
            .filter(|m| m.state != MemberState::Down && m.identity.id != self.me)
            .map(|m| (m.identity.id, m.identity.peer_addr()))
            .collect();
        self.peers.set_targets(targets);
        Members::of(view)
    }
}

fn from_peer(event: PeerEvent) -> Input {
    match event {
        PeerEvent::LinkUp { hello, .. } => Input::LinkUp(hello),
        PeerEvent::LinkDown { peer, refused } => Input::LinkDown { peer, refused },
        PeerEvent::LinkAck { peer, next } => Input::LinkAck(peer, next),
        PeerEvent::Inbound { conn, hello } => Input::Inbound(conn, hello),
        PeerEvent::Message { conn, from, seq, message, tail } => {
            Input::Message { conn, from, seq, message, tail }
        }
        PeerEvent::InboundClosed { conn } => Input::InboundClosed(conn),
    }
}

fn from_client(event: ClientEvent) -> Input {
    match event {
        ClientEvent::Request { ticket, request } => Input::Request(ticket, request),
        ClientEvent::Batch { ticket, job, client, header, payload } => {
            Input::Batch { ticket, job, client, header, payload }
        }
        ClientEvent::ClientLeft { ticket } => Input::ClientLeft(ticket),
    }
}

/// Durable appends of one group become one input.
fn from_log(committed: &mut Vec<Committed<u64>>, full: &mut Seldom) -> Vec<Input> {
    let mut appended = Vec::with_capacity(committed.len());
    let mut inputs = Vec::new();
    for done in committed.drain(..) {
        match done {
            Committed::Stored { tag, record } => {
                appended.push((tag, record_ref(record)));
            }
            Committed::Refused { tag, error } => match error {
                AppendError::Full | AppendError::TooLarge { .. } => {
                    if let Some(records) = full.one_more(Instant::now()) {
                        tracing::warn!(%error, records, "the log refused records");
                    }
                    inputs.push(Input::AppendRefused(tag));
                }
                AppendError::Io(_) | AppendError::Poisoned => fail_stop(&error),
            },
            Committed::Collected(Collected { segment, moved }) => {
                // One of them may have been appended just before.
                if !appended.is_empty() {
                    inputs.push(Input::Appended(std::mem::take(&mut appended)));
                }
                let records = moved.into_iter().map(moved_record).collect();
                inputs.push(Input::Moved { segment, records });
            }
            Committed::Poisoned(error) => fail_stop(&error),
        }
    }
    if !appended.is_empty() {
        inputs.push(Input::Appended(appended));
    }
    inputs
}

fn moved_record(moved: Moved) -> MovedRecord {
    let Moved { from, to, head, .. } = moved;
    MovedRecord { from: record_ref(from), to: record_ref(to), head }
}

/// After a failed fsync the page cache can't be trusted: stop at once, restart from what is on disk.
fn fail_stop(error: &dyn std::error::Error) -> ! {
    crate::logging::last_words(format!(
        "cortado-node: the log failed; stopping at once, the peers have the rest: {error}"
    ));
    std::process::abort();
}
