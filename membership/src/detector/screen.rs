//! The filter between network and foca: what is taken out of a datagram, and what is answered
//! instead.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cortado_protocol::NodeId;
use cortado_protocol::limits::MEMBERS;
use foca::{State, Timer};

use super::packet::{Packet, Refusal};
use super::{Detector, GENERATION_AHEAD, OWN_GENERATION_AHEAD, Output};
use crate::Identity;

impl Detector {
    /// Whether a timer would declare a member down that has refuted the suspicion since. foca keeps
    /// such a member in its list, but sends it a message that it is down, and the member would
    /// renew its identity for nothing.
    pub(super) fn is_refuted(&self, timer: &Timer<Identity>) -> bool {
        let Timer::ChangeSuspectToDown { member_id, incarnation, .. } = timer else {
            return false;
        };
        !self.swim.iter_members().any(|member| {
            member.id() == member_id
                && member.incarnation() == *incarnation
                && member.state() == State::Suspect
        })
    }

    pub(super) fn refuse(&mut self, from: NodeId, refusal: Refusal) {
        tracing::debug!(%from, %refusal, "dropped a membership datagram");
        match refusal {
            Refusal::Malformed => self.counters.malformed += 1,
            Refusal::Forged => self.counters.forged += 1,
            Refusal::Future => self.counters.future += 1,
        }
    }

    /// Whether the cluster stays within its limit if the nodes that a datagram names are added.
    pub(super) fn has_room_for(&self, packet: &Packet) -> bool {
        let held = self.swim.iter_membership_state();
        if held.len() + packet.updates.len() + 1 < MEMBERS {
            return true;
        }
        let mut ids: BTreeSet<NodeId> = held.map(|member| member.id().id).collect();
        ids.extend(packet.named().map(|identity| identity.id));
        ids.insert(self.me().id);
        ids.len() <= MEMBERS
    }

    /// Answers a sender that lost its generation (a blank disk, and a clock that is behind) with
    /// the generation that this node holds. foca would only answer that the sender is down, once
    /// for every generation that the sender tries.
    pub(super) fn remind(&mut self, packet: &Packet) {
        let sender = packet.header.src;
        let mut held = self.swim.iter_membership_state().map(foca::Member::id);
        let Some(held) =
            held.find(|held| held.id == sender.id && held.generation > sender.generation)
        else {
            return;
        };
        let reminder = Packet {
            header: foca::Header {
                src: self.me(),
                src_incarnation: 0,
                dst: sender,
                message: foca::Message::TurnUndead,
            },
            updates: vec![foca::Member::down(*held)],
        };
        if let Ok(data) = reminder.encode() {
            let (to, node) = (sender.gossip_addr(), Some(sender.id));
            self.outbox.push_back(Output::Send { to, node, data: data.into() });
        }
    }

    /// Removes identities from the future from a datagram: one of generation `u64::MAX` would lock
    /// a node out for good. The sender's own generation is accepted, since it harms no other node
    /// (its clock may have jumped), and so are generations that this node already holds. Returns
    /// whether anything was removed.
    ///
    /// # Errors
    /// If more than the updates is from the future: then no part of the datagram may be used.
    pub(super) fn leave_future_out(&mut self, packet: &mut Packet) -> Result<bool, Refusal> {
        let horizon = self.latest_unix_ms.saturating_add(GENERATION_AHEAD);
        if packet.named().all(|identity| identity.generation <= horizon) {
            return Ok(false);
        }
        // This node's own clock may be the wrong one.
        let horizon = horizon.max(self.usual_generation().saturating_add(GENERATION_AHEAD));
        let (src, me) = (packet.header.src, self.me());
        let held = self.swim.iter_membership_state().map(|member| *member.id());
        let held: BTreeMap<NodeId, u64> =
            held.chain([me, src]).fold(BTreeMap::new(), |mut held, identity| {
                let generation = held.entry(identity.id).or_default();
                *generation = identity.generation.max(*generation);
                held
            });
        let credible = |identity: &Identity| {
            let known = held.get(&identity.id).copied().unwrap_or(0);
            let own = if identity.id == me.id { OWN_GENERATION_AHEAD } else { 0 };
            identity.generation <= horizon.saturating_add(own).max(known)
        };
        let before = packet.updates.len();
        packet.updates.retain(|update| credible(update.id()));
        // Half of the range stays free, so that a node can always exceed its known generation.
        if src.generation > u64::MAX / 2 || !packet.named().all(credible) {
            return Err(Refusal::Future);
        }
        let left_out = packet.updates.len() < before;
        self.counters.future += u64::from(left_out);
        Ok(left_out)
    }

    /// The generation that at least half of the senders so far have reached: a clock that a
    /// minority can't set forward. Without it, two nodes with blank disks whose clocks are both
    /// behind would refuse each other's identity whenever other nodes report it.
    fn usual_generation(&self) -> u64 {
        let mut heard: Vec<_> = self.heard.values().copied().collect();
        heard.sort_unstable();
        heard.len().checked_sub(1).map_or(0, |last| heard[last / 2])
    }

    /// Removes reports of down nodes from a datagram if its sender has declared too many nodes
    /// down. Returns whether anything was removed.
    pub(super) fn leave_rumours_out(
        &mut self,
        now: Duration,
        from: NodeId,
        packet: &mut Packet,
    ) -> bool {
        if packet.down().next().is_none() {
            return false;
        }
        let me = self.me();
        let active: BTreeMap<NodeId, Identity> =
            self.swim.iter_members().map(|m| (m.id().id, *m.id())).chain([(me.id, me)]).collect();
        let is_news = |down: &Identity| active.get(&down.id).is_some_and(|held| down >= held);
        let down = packet.down().filter(|down| is_news(down)).map(|down| down.id).collect();
        if self.rumours.credible(now, from, &down, self.view.members.len()) {
            return false;
        }
        self.counters.rumours += 1;
        packet.updates.retain(|u| u.state() != State::Down || !down.contains(&u.id().id));
        true
    }
}
