//! One node's part in the cluster: failure detector and election, over one kind of datagram.
//!
//! The election sees the members the detector can reach, and the leader is worth nothing once the
//! detector says it is down; so both are driven together, in the manner [`Detector`] describes.
//! A datagram's first byte says whose it is.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use cortado_protocol::frame::{from_postcard, to_postcard};
use cortado_protocol::{NodeId, limits};
use serde::{Deserialize, Serialize};

use crate::bully::{self, Election};
use crate::{Counters, Detector, DetectorConfig, Identity, KnownPeer, Output, View};

/// First byte of the detector's datagrams.
const SWIM: u8 = 0;
/// First byte of the election's datagrams.
const ELECTION: u8 = 1;
/// Nodes named in one datagram: fits, however long their names are.
const NAMED: usize = 40;

/// What the shell has to do, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Of the membership itself. Datagrams go out as they are given here.
    Membership(Output),
    /// Another node leads, or in a later term, or it has other news.
    Leader(Lead),
}

/// Who leads, and what the leader says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lead {
    /// The leader; `None` while there is an election.
    pub leader: Option<NodeId>,
    /// The leader's term, or the highest known if there is none.
    pub term: u64,
    /// Nodes it has revived too often and leaves to the operator, as far as one datagram names them.
    pub crash_looping: Vec<NodeId>,
}

/// A datagram of the election.
#[derive(Serialize, Deserialize)]
struct Said {
    message: bully::Message,
    /// With a claim: [`Lead::crash_looping`].
    crash_looping: Vec<NodeId>,
}

/// Detector and election of one node.
pub struct Membership {
    detector: Detector,
    election: Election,
    outbox: VecDeque<Effect>,
    lead: Lead,
    /// Datagrams of the election that could not be read.
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
            malformed: 0,
            left: false,
        };
        membership.settle(now);
        membership
    }

    /// A datagram from the node that `from` is, as its certificate proves.
    pub fn handle_packet(&mut self, now: Duration, unix_ms: u64, from: NodeId, data: &[u8]) {
        match data.split_first() {
            _ if self.left => return,
            Some((&SWIM, swim)) => self.detector.handle_packet(now, unix_ms, from, swim),
            Some((&ELECTION, message)) if data.len() <= limits::GOSSIP_BYTES => {
                match from_postcard::<Said>(message) {
                    Ok(said) if said.crash_looping.len() <= NAMED => self.hear(now, from, said),
                    _ => self.malformed += 1,
                }
            }
            _ => self.malformed += 1,
        }
        self.settle(now);
    }

    /// Runs what is due. Call it at [`Self::next_deadline`], and only after all datagrams that have
    /// arrived were handed in.
    pub fn tick(&mut self, now: Duration, unix_ms: u64) {
        if self.left {
            return;
        }
        self.detector.tick(now, unix_ms);
        // Who is down is known before anyone's silence is taken for an answer.
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
        [self.detector.next_deadline(), self.election.next_deadline()].into_iter().flatten().min()
    }

    /// The next thing to do. Drain it after every call of any other method.
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

    /// As [`Detector::leave`].
    pub fn leave(&mut self, now: Duration) {
        self.detector.leave(now);
        self.settle(now);
        self.left = true;
    }

    /// The membership as of the last call.
    #[must_use]
    pub fn view(&self) -> &View {
        self.detector.view()
    }

    /// As leader, names nodes that are left to the operator. Another node's list is not changed.
    pub fn set_crash_looping(&mut self, now: Duration, mut nodes: Vec<NodeId>) {
        nodes.truncate(NAMED);
        if self.election.leads() && self.lead.crash_looping != nodes {
            self.lead.crash_looping = nodes;
            self.outbox.push_back(Effect::Leader(self.lead.clone()));
            self.election.repeat(now);
            self.settle(now);
        }
    }

    /// Who leads, and in which term; `None` while there is an election.
    #[must_use]
    pub fn leader(&self) -> Option<(NodeId, u64)> {
        self.election.leader()
    }

    /// What went wrong so far.
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
        self.election.handle(now, from, said.message);
        self.settle(now);
        let claims = matches!(said.message, bully::Message::Coordinator { .. });
        if claims && self.lead.leader == Some(from) && self.lead.crash_looping != said.crash_looping
        {
            self.lead.crash_looping = said.crash_looping;
            self.outbox.push_back(Effect::Leader(self.lead.clone()));
        }
    }

    /// Takes over what both have to say.
    fn settle(&mut self, now: Duration) {
        while let Some(output) = self.detector.poll_output() {
            let output = match output {
                Output::Send { to, node, data } => {
                    Output::Send { to, node, data: marked(SWIM, &data) }
                }
                Output::View(view) => {
                    // Who drains still answers, and leads until it is gone.
                    self.election.set_view(now, &view.reachable());
                    Output::View(view)
                }
                other => other,
            };
            self.outbox.push_back(Effect::Membership(output));
        }
        while let Some(output) = self.election.poll_output() {
            match output {
                bully::Output::Leader { leader, term } => {
                    // What the leader before had given up stays so until the next one has its own word.
                    (self.lead.leader, self.lead.term) = (leader, term);
                    self.outbox.push_back(Effect::Leader(self.lead.clone()));
                }
                bully::Output::Send { to, message } => self.send(to, message),
            }
        }
    }

    fn send(&mut self, node: NodeId, message: bully::Message) {
        let Some(member) = self.detector.view().get(node) else { return };
        let to = member.identity.gossip_addr();
        let claims = matches!(message, bully::Message::Coordinator { .. });
        let crash_looping = if claims { self.lead.crash_looping.clone() } else { Vec::new() };
        let data = marked(ELECTION, &to_postcard(&Said { message, crash_looping }));
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
        let lead = Lead { leader: Some(me), term: 1, crash_looping: Vec::new() };
        assert_eq!(leader, [Effect::Leader(lead)]);
    }

    #[test]
    fn the_longest_list_fits_a_datagram() {
        let longest = "a".repeat(limits::NODE_ID_BYTES).parse().unwrap();
        let message = bully::Message::Coordinator { term: u64::MAX };
        let said = to_postcard(&Said { message, crash_looping: vec![longest; NAMED] });
        assert!(marked(ELECTION, &said).len() <= limits::GOSSIP_BYTES);
    }

    #[test]
    fn what_can_not_be_read_is_counted() {
        let mut node = alone();
        let from = "node-2".parse().unwrap();
        let long = [&[ELECTION][..], &[0; limits::GOSSIP_BYTES]].concat();
        let claim = |named: usize| {
            let message = bully::Message::Coordinator { term: 1 };
            to_postcard(&Said { message, crash_looping: vec![from; named] })
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
