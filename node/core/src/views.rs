//! What a node answers its own clients by itself: who is there, who owns what, and who is forgotten.

use bytes::Bytes;
use cortado_protocol::client::{
    ClientRequest, ClientResponse, ClusterView, ErrorKind, MemberState, Overdue, RingView,
};
use cortado_protocol::peer::PeerMessage;
use cortado_protocol::{JobId, META_SLOT, NodeId, Slot};

use crate::Core;
use crate::placement::names_of;
use crate::reach::is_unreached_by_most;
use crate::request::error;
use crate::state::{StateFile, Then};

impl Core {
    /// A client of this node asks.
    pub(crate) fn on_request(&mut self, ticket: u64, request: ClientRequest) {
        match request {
            ClientRequest::Cluster => {
                let view = ClientResponse::Cluster(self.cluster_view());
                self.out.reply(ticket, view, Bytes::new());
            }
            ClientRequest::Ring => {
                let view = ClientResponse::Ring(self.ring_view());
                self.out.reply(ticket, view, Bytes::new());
            }
            ClientRequest::Jobs { after } => {
                self.forwarding.list(&self.facts, &mut self.out, ticket, after);
            }
            ClientRequest::Forget(node) => self.forget(ticket, node),
            // The shell keeps these.
            ClientRequest::Upload(_) | ClientRequest::Log { .. } | ClientRequest::Chaos(_) => {
                let response = error(ErrorKind::BadInput, "not a request for the core");
                self.out.reply(ticket, response, Bytes::new());
            }
            request => self.forwarding.request(&self.facts, &mut self.out, ticket, request),
        }
    }

    /// A client wants a dead member to be forgotten for good. A minority may not: the others may be well
    /// and on the other side of a cut.
    fn forget(&mut self, ticket: u64, node: NodeId) {
        if self.facts.roster.has_left(node) {
            return self.out.reply(ticket, ClientResponse::Accepted, Bytes::new());
        }
        let here =
            self.facts.roster.known().filter(|n| self.facts.members.is_reachable(*n)).count();
        let known = self.facts.roster.known().len();
        let response = if !self.facts.roster.is_known(node) {
            let names: Vec<_> = self.facts.roster.known().collect();
            let names = names_of(&names);
            error(ErrorKind::NotFound, format!("there is no node '{node}'; there are {names}"))
        } else if node == self.facts.config.node || self.facts.told.is_reachable(node) {
            let message = format!(
                "{node} lives, and only a dead node can be forgotten: `cortado drain {node}` moves \
                 everything off it and lets it leave"
            );
            error(ErrorKind::BadInput, message)
        } else if 2 * here <= known {
            let message = format!(
                "{here} of {known} members answer here, and it takes more than half to forget one: \
                 start the others first"
            );
            error(ErrorKind::BadInput, message)
        } else {
            tracing::warn!(%node, "forgotten: it counts no more, and its certificate opens nothing");
            self.facts.roster.forget(node);
            self.tell_departed();
            return self.save(StateFile::Members, Some(Then::TellDeparted { ticket }));
        };
        self.out.reply(ticket, response, Bytes::new());
    }

    /// The roster without the forgotten member is on disk.
    pub(crate) fn forgotten(&mut self, ticket: u64) {
        let (members, barred) = self.departed();
        self.out.send_to_peers(&self.facts, &PeerMessage::Departed { members, barred });
        self.out.reply(ticket, ClientResponse::Accepted, Bytes::new());
    }

    fn cluster_view(&self) -> ClusterView {
        let config = &self.facts.config;
        let mut members = self.facts.told.views.clone();
        for member in &mut members {
            if member.id == config.node {
                member.jobs = Some(self.facts.holdings.jobs().count() as u32);
            }
            let by = self.facts.reach.unreached_by(config.node, &self.facts.told, member.id);
            // Others do without this node before it knows better itself.
            let serves = self.facts.members.live.contains(&member.id)
                && !is_unreached_by_most(&self.facts.told, member.id);
            if member.state == MemberState::Alive && !serves && !by.is_empty() {
                member.state = MemberState::Ill;
                member.reason = Some(format!("{} can not reach its data port", names_of(&by)));
            }
        }
        let away = self.expiry_waits_for();
        let overdue = away.map(|away| Overdue { jobs: self.overdue(), away });
        let overdue = overdue.filter(|overdue| overdue.jobs > 0);
        ClusterView {
            cluster: config.cluster.clone(),
            answered_by: config.node,
            replicas: config.replicas,
            min_copies: config.min_copies,
            slots: config.slots,
            expected_nodes: self.facts.expected_members() as u16,
            formed: self.facts.roster.known().len() >= self.facts.expected_members(),
            members,
            supervisor: None,
            crash_looping: Vec::new(),
            overdue,
        }
    }

    fn ring_view(&mut self) -> RingView {
        // Owners depend on the job; the nil job stands for "jobs in general".
        let placement = self.facts.placement(JobId(0));
        let slots = (0..self.facts.config.slots).map(Slot).chain([META_SLOT]);
        let slots = slots.map(|slot| (slot, placement.owners(slot).to_vec())).collect();
        RingView {
            version: self.facts.members.version,
            slots,
            moves: self.handoff.moves(&self.facts),
        }
    }
}
