//! Carrying out what components want done, in order.

use bytes::Bytes;
use cortado_protocol::NodeId;
use cortado_protocol::client::{ClientResponse, ErrorKind};
use cortado_protocol::peer::PeerMessage;

use super::Core;
use crate::effect::Effect;
use crate::link::Pushed;
use crate::outbox::Out;

impl Core {
    /// Empties the outbox.
    pub(super) fn carry_out(&mut self) {
        while let Some(out) = self.out.next() {
            match out {
                Out::Send(to, message, tail) => self.post(to, message, tail),
                Out::Run(id, task, purpose) => {
                    self.tasks.insert(id, purpose);
                    self.effects.push(Effect::Run(id, task));
                }
                Out::Effect(effect) => self.effects.push(effect),
            }
        }
    }

    fn post(&mut self, to: NodeId, message: PeerMessage, tail: Bytes) {
        if to == self.facts.config.node {
            self.local.push_back((to, message, tail));
            return;
        }
        if !self.facts.members.is_reachable(to) {
            return;
        }
        let bulk = matches!(message, PeerMessage::Store | PeerMessage::Moved);
        match self.links.push(to, message, &tail, bulk) {
            Pushed::Write(frame) => self.effects.push(Effect::Send(to, frame)),
            Pushed::Waits => {}
            Pushed::Dropped => self.handoff.offer_to(&self.facts, to),
            Pushed::TooLarge(message) => {
                let why = "is too large for one message between nodes (2 MiB, or 16 MiB with data)";
                self.undeliverable(to, *message, why);
            }
        }
    }

    /// A peer does not take a message: whoever waits for an answer gets an error.
    pub(super) fn undeliverable(&mut self, to: NodeId, message: PeerMessage, why: &str) {
        let failed =
            |what: &str| ClientResponse::error(ErrorKind::BadInput, format!("{what} {why}"));
        let in_its_place = match message {
            PeerMessage::Ask { id, .. } => {
                let response = failed("the request (the plan, or the list of files and headers)");
                PeerMessage::Answer { id, response }
            }
            PeerMessage::Answer { id, .. } => {
                let response = failed("the answer");
                return self.out.send(to, PeerMessage::Answer { id, response });
            }
            PeerMessage::Work { job, attempt, .. } => {
                let message = format!("the work for one node {why}");
                PeerMessage::WorkFailed { job, attempt, message }
            }
            message => {
                // Entries and outputs are limited before; coverages travel in pages.
                let kind = format!("{message:?}");
                let kind = kind.split([' ', '{']).next().unwrap_or_default();
                return tracing::error!(peer = %to, kind, "a message {why}; it is not sent");
            }
        };
        self.local.push_back((to, in_its_place, Bytes::new()));
    }
}
