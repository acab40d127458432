//! The one way out of a component: messages, effects, tasks, and fresh numbers. The router carries
//! it out in order, after each call of a component.

use std::collections::VecDeque;

use bytes::Bytes;
use cortado_protocol::client::{BatchOutcome, BatchReply, ClientError, ClientResponse, ErrorKind};
use cortado_protocol::job::BatchHeader;
use cortado_protocol::peer::PeerMessage;
use cortado_protocol::{EntryKey, NodeId};

use crate::effect::Effect;
use crate::purpose::Purpose;
use crate::task::Task;

/// Numbers given out in one boot: boots are at least a millisecond apart, and far more than that per
/// number.
const BOOT_SHIFT: u32 = 16;

/// One thing to be done.
pub(crate) enum Out {
    /// Send this. What is for this node itself is handled before the input ends.
    Send(NodeId, PeerMessage, Bytes),
    /// Run this, and give its output to whoever wants it.
    Run(u64, Box<Task>, Purpose),
    /// Anything else.
    Effect(Effect),
}

/// See the module's description.
pub(crate) struct Outbox {
    next_id: u64,
    items: VecDeque<Out>,
}

impl Outbox {
    /// For one start of the process.
    pub(crate) fn new(boot: u64) -> Self {
        // Numbers of an earlier boot may still come back in late answers.
        Self { next_id: boot << BOOT_SHIFT, items: VecDeque::new() }
    }

    /// A number that was never given out before.
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

    /// Tells clients what became of their batch.
    pub(crate) fn settle_batches(
        &mut self,
        key: EntryKey,
        tickets: &[u64],
        outcome: &BatchOutcome,
    ) {
        for ticket in tickets {
            let outcome = outcome.clone();
            let reply = BatchReply { table: key.edge.0, number: key.number, outcome };
            self.effect(Effect::BatchReply(*ticket, reply));
        }
    }

    /// Tells clients that their batch is not taken, or not now.
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

    /// Has anything else done.
    pub(crate) fn effect(&mut self, effect: Effect) {
        self.items.push_back(Out::Effect(effect));
    }

    /// The next thing to be done.
    pub(crate) fn next(&mut self) -> Option<Out> {
        self.items.pop_front()
    }
}
