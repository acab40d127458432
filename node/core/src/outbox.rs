//! The outbox: the messages, tasks and effects that components request, and the source of fresh
//! numbers. The router carries the requests out in order, after each call of a component.

use std::collections::VecDeque;

use bytes::Bytes;
use cortado_protocol::client::{BatchOutcome, BatchReply, ClientError, ClientResponse, ErrorKind};
use cortado_protocol::job::BatchHeader;
use cortado_protocol::peer::PeerMessage;
use cortado_protocol::{EntryKey, NodeId};

use crate::effect::Effect;
use crate::purpose::{Origin, Purpose};
use crate::task::Task;

/// Shift of the boot in fresh numbers. Boots are at least a millisecond apart, and a node uses far
/// fewer than 2^16 numbers in a millisecond.
const BOOT_SHIFT: u32 = 16;

/// A request of a component.
pub(crate) enum Out {
    /// Send a message. The router handles a message to this node before the input ends.
    Send(NodeId, PeerMessage, Bytes),
    /// Run a task, and pass its output to the component that the purpose names.
    Run(u64, Box<Task>, Purpose),
    /// Return an effect to the shell.
    Effect(Effect),
}

/// The requests in order, and the last number.
pub(crate) struct Outbox {
    next_id: u64,
    items: VecDeque<Out>,
}

impl Outbox {
    /// The outbox of one boot.
    pub(crate) fn new(boot: u64) -> Self {
        // Late answers may still carry numbers of an earlier boot.
        Self { next_id: boot << BOOT_SHIFT, items: VecDeque::new() }
    }

    /// A number that was never used before.
    pub(crate) fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Sends a message.
    pub(crate) fn send(&mut self, to: NodeId, message: PeerMessage) {
        self.send_with(to, message, Bytes::new());
    }

    /// Sends a message with a tail.
    pub(crate) fn send_with(&mut self, to: NodeId, message: PeerMessage, tail: Bytes) {
        self.items.push_back(Out::Send(to, message, tail));
    }

    /// Sends a message to each of these nodes.
    pub(crate) fn send_to_all(
        &mut self,
        nodes: impl Iterator<Item = NodeId>,
        message: &PeerMessage,
    ) {
        nodes.for_each(|node| self.send(node, message.clone()));
    }

    /// Answers a client of this node; the tail belongs to the answer.
    pub(crate) fn reply(&mut self, ticket: u64, response: ClientResponse, tail: Bytes) {
        self.effect(Effect::Reply(ticket, Box::new(response), tail));
    }

    /// Answers a client's request through the node that sent it; the tail belongs to the answer.
    pub(crate) fn answer(&mut self, (node, id): Origin, response: ClientResponse, tail: Bytes) {
        self.send_with(node, PeerMessage::Answer { id, response }, tail);
    }

    /// Answers a batch.
    pub(crate) fn answer_batch(
        &mut self,
        ticket: u64,
        header: &BatchHeader,
        outcome: BatchOutcome,
    ) {
        let reply = BatchReply { table: header.table, number: header.number, outcome };
        self.effect(Effect::BatchReply(ticket, reply));
    }

    /// Sends clients the outcome of their batch.
    pub(crate) fn settle_batches(
        &mut self,
        key: EntryKey,
        tickets: &[u64],
        outcome: &BatchOutcome,
    ) {
        for ticket in tickets {
            let outcome = outcome.clone();
            let table = key.edge.as_table().unwrap_or_default() as u16;
            let reply = BatchReply { table, number: key.number, outcome };
            self.effect(Effect::BatchReply(*ticket, reply));
        }
    }

    /// Answers clients that their batch is refused, or has to be sent again later.
    pub(crate) fn refuse_batches(&mut self, key: EntryKey, tickets: &[u64], error: &ClientError) {
        let outcome = match error.kind {
            ErrorKind::Unavailable => BatchOutcome::Retry { reason: error.message.clone() },
            _ => BatchOutcome::Refused(error.clone()),
        };
        self.settle_batches(key, tickets, &outcome);
    }

    /// Runs a task.
    pub(crate) fn run(&mut self, task: Task, purpose: Purpose) {
        let id = self.fresh_id();
        self.items.push_back(Out::Run(id, Box::new(task), purpose));
    }

    /// Requests an effect.
    pub(crate) fn effect(&mut self, effect: Effect) {
        self.items.push_back(Out::Effect(effect));
    }

    /// Removes and returns the first request.
    pub(crate) fn next(&mut self) -> Option<Out> {
        self.items.pop_front()
    }
}
