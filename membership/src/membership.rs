//! One node's part in the cluster: failure detector, reports of health and election, over one kind
//! of datagram.
//!
//! Owns all three. The reachable members take part in the election, and a leader loses the lead
//! once the detector declares it down; so one call drives all three, in the order that [`Detector`]
//! describes. The first byte of a datagram names the part it belongs to. The daemon and the
//! simulator call it.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use cortado_protocol::frame::{from_postcard, to_postcard};
use cortado_protocol::health::Illness;
use cortado_protocol::{NodeId, limits};
use serde::{Deserialize, Serialize};

use crate::bully::{self, Election};
use crate::health::{Report, Reports};
use crate::trouble::{NAMED, Troubles};
use crate::{
    Counters, Detector, DetectorConfig, Identity, KnownPeer, Member, MemberState, Output, Trouble,
    View,
};

/// First byte of the detector's datagrams.
const SWIM: u8 = 0;
/// First byte of the election's datagrams.
const ELECTION: u8 = 1;
/// First byte of reports of health.
const HEALTH: u8 = 2;

/// What the shell has to do, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// An output of the detector. Its datagrams already have their first byte.
    Membership(Output),
    /// The leader, its term or the list of troubles has changed.
    Leader(Lead),
}

/// The leader, and what is known about nodes that had to be revived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lead {
    /// The leader; `None` while there is an election.
    pub leader: Option<NodeId>,
    /// The leader's term, or the highest known if there is none.
    pub term: u64,
    /// Nodes that were revived lately or given up, at most as many as one datagram names.
    pub troubles: Vec<Trouble>,
}

impl Lead {
    /// Nodes that were revived too often and are left to the operator.
    #[must_use]
    pub fn crash_looping(&self) -> Vec<NodeId> {
        self.troubles.iter().filter(|t| t.given_up).map(|trouble| trouble.node).collect()
    }
}

/// A datagram of the election.
#[derive(Serialize, Deserialize)]
struct Said {
    message: bully::Message,
    /// All troubles that the sender knows.
    troubles: Vec<Trouble>,
}

/// Detector, reports of health and election of one node.
pub struct Membership {
    detector: Detector,
    election: Election,
    outbox: VecDeque<Effect>,
    lead: Lead,
    troubles: Troubles,
    reports: Reports,
    /// The view reported last: the detector's view with the reports of health.
    shown: View,
    /// No node had anything to report when that view was made.
    was_quiet: bool,
    /// Datagrams that could not be read, apart from those counted by the detector.
    malformed: u64,
    left: bool,
}

impl Membership {
    /// A node that is about to join; see [`Detector::new`].
    #[must_use]
    pub fn new(
        config: DetectorConfig,
        me: Identity,
        known: Vec<KnownPeer>,
        now: Duration,
        unix_ms: u64,
    ) -> Self {
        let mut membership = Self {
            detector: Detector::new(config, me, known, now, unix_ms),
            election: Election::new(me.id),
            outbox: VecDeque::new(),
            lead: Lead::default(),
            troubles: Troubles::default(),
            reports: Reports::default(),
            shown: View::default(),
            was_quiet: true,
            malformed: 0,
            left: false,
        };
        membership.settle(now);
        membership
    }

    /// Handles a datagram. `from` is the sender's name, proved by its certificate.
    pub fn handle_packet(&mut self, now: Duration, unix_ms: u64, from: NodeId, data: &[u8]) {
        match data.split_first() {
            _ if self.left => return,
            Some((&SWIM, swim)) => self.detector.handle_packet(now, unix_ms, from, swim),
            Some((&ELECTION, message)) if data.len() <= limits::GOSSIP_BYTES => {
                match from_postcard::<Said>(message) {
                    Ok(said) if said.troubles.len() <= NAMED => self.hear(now, from, said),
                    _ => self.malformed += 1,
                }
            }
            Some((&HEALTH, report)) if data.len() <= limits::GOSSIP_BYTES => {
                match from_postcard::<Report>(report) {
                    Ok(report) if report.is_sensible() => {
                        // A report in this node's own name comes from another process with its
                        // certificate.
                        let other = from != self.me().id;
                        if other && self.detector.view().get(from).is_some() {
                            self.reports.hear(now, from, report);
                        }
                    }
                    _ => self.malformed += 1,
                }
            }
            _ => self.malformed += 1,
        }
        self.settle(now);
    }

    /// Takes in whether this node is ill by this cause. It counts as well some seconds after the
    /// cause has ended.
    pub fn set_ill(&mut self, now: Duration, illness: Illness, is_bad: bool) {
        self.reports.set_ill(now, illness, is_bad);
        self.settle(now);
    }

    /// Sets the members to which this node has no working data link. If this node is the one that
    /// is `cut_off`, it reports itself ill and names no member.
    pub fn set_unreached(&mut self, now: Duration, nodes: Vec<NodeId>, cut_off: bool) {
        self.reports.set_ill(now, Illness::Links, cut_off);
        self.reports.set_unreached(now, if cut_off { Vec::new() } else { nodes });
        self.settle(now);
    }

    /// Removes nodes for good: see [`Detector::forget`].
    pub fn forget(&mut self, now: Duration, nodes: &[(NodeId, u64)]) {
        if !self.left {
            self.detector.forget(now, nodes);
            self.settle(now);
        }
    }

    /// Runs what is due. Call it at [`Self::next_deadline`], and only after all datagrams that have
    /// arrived were handed in.
    pub fn tick(&mut self, now: Duration, unix_ms: u64) {
        if self.left {
            return;
        }
        self.detector.tick(now, unix_ms);
        // The election needs the newest view before it takes silence for an answer.
        self.settle(now);
        self.election.tick(now);
        self.settle(now);
    }

    /// When [`Self::tick`] is due; `None` once this node has left.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        if self.left {
            return None;
        }
        let deadlines = [
            self.detector.next_deadline(),
            self.election.next_deadline(),
            self.reports.next_deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// The next effect. Drain all effects after every call of any other method.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.outbox.pop_front()
    }

    /// As [`Detector::set_seeds`].
    pub fn set_seeds(&mut self, seeds: Vec<SocketAddr>) {
        self.detector.set_seeds(seeds);
    }

    /// As [`Detector::set_draining`].
    pub fn set_draining(&mut self, now: Duration, draining: bool) {
        self.detector.set_draining(now, draining);
        self.settle(now);
    }

    /// As [`Detector::set_address`].
    pub fn set_address(&mut self, now: Duration, ip: IpAddr) {
        self.detector.set_address(now, ip);
        self.settle(now);
    }

    /// As [`Detector::leave`].
    pub fn leave(&mut self, now: Duration) {
        self.detector.leave(now);
        self.settle(now);
        self.left = true;
    }

    /// The membership as of the last call.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.shown
    }

    /// Adds what this node's supervisor knows of nodes it had to revive. A leader sends it to the
    /// other members at once.
    pub fn add_troubles(&mut self, now: Duration, troubles: &[Trouble]) {
        if self.troubles.learn(now, self.detector.view(), troubles) {
            self.tell_lead(now);
            self.election.repeat(now);
            self.settle(now);
        }
    }

    /// The leader and its term; `None` during an election.
    #[must_use]
    pub fn leader(&self) -> Option<(NodeId, u64)> {
        self.election.leader()
    }

    /// Counts of errors so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let counters = self.detector.counters();
        Counters { malformed: counters.malformed + self.malformed, ..counters }
    }

    /// This node's present identity.
    #[must_use]
    pub fn me(&self) -> Identity {
        self.detector.me()
    }

    fn hear(&mut self, now: Duration, from: NodeId, said: Said) {
        let view = self.detector.view();
        if view.get(from).is_some() && self.troubles.learn(now, view, &said.troubles) {
            self.tell_lead(now);
        }
        self.election.handle(now, from, said.message);
        self.settle(now);
        let bully::Message::Coordinator { term } = said.message else { return };
        // A leader that has just returned may know fewer troubles than its followers.
        let follows = self.election.leader() == Some((from, term));
        if follows && self.troubles.exceed(now, &said.troubles) {
            self.send(now, from, bully::Message::Answer { term });
        }
    }

    fn tell_lead(&mut self, now: Duration) {
        self.lead.troubles = self.troubles.list(now);
        self.outbox.push_back(Effect::Leader(self.lead.clone()));
    }

    /// Moves the outputs of detector, reports and election to the outbox.
    fn settle(&mut self, now: Duration) {
        let mut changed = false;
        while let Some(output) = self.detector.poll_output() {
            let output = match output {
                Output::Send { to, node, data } => {
                    Output::Send { to, node, data: marked(SWIM, &data) }
                }
                // `show` reports the view, with the reports of health.
                Output::View(_) => {
                    changed = true;
                    continue;
                }
                other => other,
            };
            self.outbox.push_back(Effect::Membership(output));
        }
        self.report_health(now);
        let quiet = self.reports.are_quiet();
        // Most datagrams change nothing: then the last view is still right.
        if changed || !quiet || !self.was_quiet {
            self.show(now);
        }
        self.was_quiet = quiet;
        while let Some(output) = self.election.poll_output() {
            match output {
                bully::Output::Leader { leader, term } => {
                    (self.lead.leader, self.lead.term) = (leader, term);
                    self.tell_lead(now);
                }
                bully::Output::Send { to, message } => self.send(now, to, message),
            }
        }
    }

    /// Sends this node's report of health to all reachable members, if one is due.
    fn report_health(&mut self, now: Duration) {
        let Some(report) = self.reports.tick(now) else { return };
        let data = marked(HEALTH, &to_postcard(&report));
        let (view, me) = (self.detector.view(), self.detector.me().id);
        for member in &view.members {
            if member.state != MemberState::Down && member.identity.id != me {
                let (to, node) = (member.identity.gossip_addr(), Some(member.identity.id));
                let output = Output::Send { to, node, data: data.clone() };
                self.outbox.push_back(Effect::Membership(output));
            }
        }
    }

    /// Reports the view if it differs from the last one.
    fn show(&mut self, now: Duration) {
        let me = self.detector.me().id;
        let mut view = self.detector.view().clone();
        self.reports.overlay(now, me, &mut view);
        view.version = self.shown.version;
        if view == self.shown {
            return;
        }
        view.version += 1;
        // A draining node may lead until it has left. An ill node may lead only if no node is well.
        let fit = |m: &&Member| matches!(m.state, MemberState::Alive | MemberState::Draining);
        let fit: Vec<_> = view.members.iter().filter(fit).map(|m| m.identity.id).collect();
        let reachable = view.reachable();
        let candidates = if fit.is_empty() { reachable.clone() } else { fit };
        let abstains = !candidates.contains(&me);
        self.election.set_candidates(now, &candidates, &reachable, abstains);
        if self.troubles.look(&view) {
            self.tell_lead(now);
        }
        self.shown = view.clone();
        self.outbox.push_back(Effect::Membership(Output::View(view)));
    }

    fn send(&mut self, now: Duration, node: NodeId, message: bully::Message) {
        let Some(member) = self.detector.view().get(node) else { return };
        let to = member.identity.gossip_addr();
        let said = Said { message, troubles: self.troubles.list(now) };
        let data = marked(ELECTION, &to_postcard(&said));
        self.outbox.push_back(Effect::Membership(Output::Send { to, node: Some(node), data }));
    }
}

fn marked(kind: u8, data: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(1 + data.len());
    bytes.put_u8(kind);
    bytes.put_slice(data);
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alone() -> Membership {
        let id = "node-1".parse().unwrap();
        let me = Identity::addressee(id, "10.0.0.1:7000".parse().unwrap());
        Membership::new(DetectorConfig::default(), me, Vec::new(), Duration::ZERO, 0)
    }

    #[test]
    fn a_node_alone_leads_itself() {
        let mut node = alone();
        let leader: Vec<Effect> = std::iter::from_fn(|| node.poll_effect())
            .filter(|effect| matches!(effect, Effect::Leader(_)))
            .collect();
        let me = node.me().id;
        let lead = Lead { leader: Some(me), term: 1, troubles: Vec::new() };
        assert_eq!(leader, [Effect::Leader(lead)]);
    }

    #[test]
    fn the_longest_list_fits_a_datagram() {
        let longest = "a".repeat(limits::NODE_ID_BYTES).parse().unwrap();
        let message = bully::Message::Coordinator { term: u64::MAX };
        let trouble =
            Trouble { node: longest, revivals: 3, counts_for_s: u16::MAX, given_up: true };
        let said = to_postcard(&Said { message, troubles: vec![trouble; NAMED] });
        assert!(marked(ELECTION, &said).len() <= limits::GOSSIP_BYTES);
    }

    #[test]
    fn what_can_not_be_read_is_counted() {
        let mut node = alone();
        let from = "node-2".parse().unwrap();
        let long = [&[ELECTION][..], &[0; limits::GOSSIP_BYTES]].concat();
        let claim = |named: usize| {
            let message = bully::Message::Coordinator { term: 1 };
            let trouble = Trouble { node: from, revivals: 1, counts_for_s: 1, given_up: false };
            to_postcard(&Said { message, troubles: vec![trouble; named] })
        };
        let crowd = marked(ELECTION, &claim(NAMED + 1));
        let claim = claim(1);
        let trailing = [&[ELECTION][..], &claim, &[0]].concat();
        for data in [
            &[][..],
            &[7, 1],
            &[ELECTION],
            &[ELECTION, 9, 1],
            &[SWIM, 255],
            &long,
            &trailing,
            &crowd,
        ] {
            let before = node.counters().malformed;
            node.handle_packet(Duration::ZERO, 0, from, data);
            assert_eq!(node.counters().malformed, before + 1, "{data:?}");
        }
    }
}
