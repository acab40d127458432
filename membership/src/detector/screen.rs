//! What stands between the network and foca: who is not believed, and what is said to whom instead.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cortado_protocol::NodeId;
use cortado_protocol::limits::MEMBERS;
use foca::{State, Timer};

use super::packet::{Packet, Refusal};
use super::{Detector, GENERATION_AHEAD, OWN_GENERATION_AHEAD, Output};
use crate::Identity;

impl Detector {
    /// Whether a timer would condemn a member that has refuted the suspicion since. foca spares it
    /// in its list, but tells it to its face that it is dead, and the member would renew for nothing.
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

    /// Whether the cluster stays within its limit with the nodes a datagram names.
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

    /// Tells a sender that lost its generation (a blank disk, and a clock that is behind) which one
    /// we hold. foca would only tell it that it is down, once for every generation it tries.
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

    /// Takes identities from the future out of a datagram: one of generation `u64::MAX` would lock a
    /// node out for good. What a node says of itself is taken, since it harms nobody else (its clock
    /// may have jumped), and what is held of a node may be repeated. Tells whether anything was taken
    /// out.
    ///
    /// # Errors
    /// If more than the news is from the future: nothing of the datagram is to be used.
    pub(super) fn leave_future_out(&mut self, packet: &mut Packet) -> Result<bool, Refusal> {
        let horizon = self.latest_unix_ms.saturating_add(GENERATION_AHEAD);
        if packet.named().all(|identity| identity.generation <= horizon) {
            return Ok(false);
        }
        // Our own clock may be the one that is wrong.
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
        // Far enough from the end that a node can always go above what is known of it.
        if src.generation > u64::MAX / 2 || !packet.named().all(credible) {
            return Err(Refusal::Future);
        }
        let left_out = packet.updates.len() < before;
        self.counters.future += u64::from(left_out);
        Ok(left_out)
    }

    /// A generation that at least half of those who were heard themselves have reached: a clock that a
    /// minority can't set forward. Without it two nodes with blank disks, whose clocks are both behind,
    /// would never believe what the others say of the other one.
    fn usual_generation(&self) -> u64 {
        let mut heard: Vec<_> = self.heard.values().copied().collect();
        heard.sort_unstable();
        heard.len().checked_sub(1).map_or(0, |last| heard[last / 2])
    }

    /// Takes news of deaths out of a datagram if its sender has told too many of them. Tells
    /// whether anything was taken out.
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
