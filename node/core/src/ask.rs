//! Clients' requests: any node takes them, the job's home answers them.
//!
//! The node a client is connected to keeps the request until it has an answer, and asks again when
//! the home changes, is unreachable or says "not now".

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use cortado_protocol::client::{
    ANSWER_TIMEOUT, ClientError, ClientRequest, ClientResponse, ClusterView, ErrorKind,
    MemberState, Overdue, RingView,
};
use cortado_protocol::job::JobStatus;
use cortado_protocol::limits::JOBS_PER_ANSWER;
use cortado_protocol::peer::PeerMessage;
use cortado_protocol::{JobId, META_SLOT, NodeId, Slot};

use crate::request::error;
use crate::search::Search;
use crate::state::{StateFile, Then};
use crate::{Core, Effect};

/// Who asked: the node a client is connected to, and the number of its question.
pub(crate) type Origin = (NodeId, u64);

/// How long a request is tried before its client is told to come back, and why.
const PATIENCE: Duration = Duration::from_secs(ANSWER_TIMEOUT.as_secs() - 1);
/// How long one node is given to answer, a wanted wait not counted.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// Pause after "not now".
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// A client's request under way.
struct Question {
    ticket: u64,
    request: ClientRequest,
    target: Option<NodeId>,
    ask_at: Duration,
    lost_at: Duration,
    until: Duration,
    last_error: Option<ClientError>,
}

/// A listing under way.
struct Listing {
    ticket: u64,
    open: BTreeSet<NodeId>,
    jobs: BTreeMap<JobId, JobStatus>,
    until: Duration,
}

/// Requests under way at this node.
#[derive(Default)]
pub(crate) struct Asks {
    questions: BTreeMap<u64, Question>,
    listings: BTreeMap<u64, Listing>,
    pub(crate) searches: BTreeMap<JobId, Search>,
}

/// `a`, `a and b`, `a, b and c`.
pub(crate) fn names_of(nodes: &[NodeId]) -> String {
    match nodes.split_last() {
        Some((last, rest)) if !rest.is_empty() => {
            format!("{} and {last}", NodeId::join(rest, ", "))
        }
        _ => NodeId::join(nodes, ""),
    }
}

impl Asks {
    pub(crate) fn is_busy(&self) -> bool {
        !(self.questions.is_empty() && self.listings.is_empty() && self.searches.is_empty())
    }
}

/// The job a request is about.
pub(crate) fn job_of(request: &ClientRequest) -> Option<JobId> {
    match request {
        ClientRequest::Submit(spec) => Some(spec.job),
        ClientRequest::Spec(job)
        | ClientRequest::Coverage { job, .. }
        | ClientRequest::Upload(job)
        | ClientRequest::Cancel(job)
        | ClientRequest::EndTable { job, .. }
        | ClientRequest::Status { job, .. }
        | ClientRequest::Result { job, .. }
        | ClientRequest::Rejects { job, .. } => Some(*job),
        ClientRequest::Cluster
        | ClientRequest::Jobs { .. }
        | ClientRequest::Ring
        | ClientRequest::Log { .. }
        | ClientRequest::Chaos(_)
        | ClientRequest::Forget(_)
        | ClientRequest::Drain(_) => None,
    }
}

fn wanted_wait(request: &ClientRequest) -> Duration {
    match request {
        ClientRequest::Status { wait_ms, .. } => Duration::from_millis(u64::from(*wait_ms)),
        _ => Duration::ZERO,
    }
}

impl Core {
    /// A client of this node asks.
    pub(crate) fn on_request(&mut self, ticket: u64, request: ClientRequest) {
        match request {
            ClientRequest::Cluster => {
                let view = ClientResponse::Cluster(self.cluster_view());
                self.reply(ticket, view, Bytes::new());
            }
            ClientRequest::Ring => {
                let view = ClientResponse::Ring(self.ring_view());
                self.reply(ticket, view, Bytes::new());
            }
            ClientRequest::Jobs { after } => self.list_jobs(ticket, after),
            ClientRequest::Forget(node) => self.forget(ticket, node),
            // The shell keeps these.
            ClientRequest::Upload(_) | ClientRequest::Log { .. } | ClientRequest::Chaos(_) => {
                let response = error(ErrorKind::BadInput, "not a request for the core");
                self.reply(ticket, response, Bytes::new());
            }
            request => {
                let id = self.out.fresh_id();
                let until = self.facts.now + PATIENCE + wanted_wait(&request);
                let (ask_at, lost_at) = (self.facts.now, self.facts.now);
                let (target, last_error) = (None, None);
                let question =
                    Question { ticket, request, target, ask_at, lost_at, until, last_error };
                self.asks.questions.insert(id, question);
                self.ask(id);
            }
        }
    }

    /// A client wants a dead member to be forgotten for good. A minority may not: the others may be well
    /// and on the other side of a cut.
    fn forget(&mut self, ticket: u64, node: NodeId) {
        if self.facts.roster.has_left(node) {
            return self.reply(ticket, ClientResponse::Accepted, Bytes::new());
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
        self.reply(ticket, response, Bytes::new());
    }

    /// The roster without the forgotten member is on disk.
    pub(crate) fn forgotten(&mut self, ticket: u64) {
        let (members, barred) = self.departed();
        self.out.send_to_peers(&self.facts, &PeerMessage::Departed { members, barred });
        self.reply(ticket, ClientResponse::Accepted, Bytes::new());
    }

    fn reply(&mut self, ticket: u64, response: ClientResponse, tail: Bytes) {
        self.out.effect(Effect::Reply(ticket, Box::new(response), tail));
    }

    /// Sends a question to whoever can answer it now.
    fn ask(&mut self, id: u64) {
        let Some(question) = self.asks.questions.get(&id) else { return };
        let request = question.request.clone();
        let target = match (&request, job_of(&request)) {
            (ClientRequest::Drain(node), _) if self.facts.members.is_reachable(*node) => *node,
            (ClientRequest::Drain(node), _) => {
                let message = format!("there is no live node '{node}'; see `cortado nodes`");
                return self.settle(id, error(ErrorKind::NotFound, message), Bytes::new());
            }
            (_, Some(job)) => self.facts.home(job),
            (_, None) => self.facts.config.node,
        };
        let now = self.facts.now;
        if let Some(question) = self.asks.questions.get_mut(&id) {
            question.target = Some(target);
            question.lost_at = now + ANSWER_WITHIN + wanted_wait(&request);
        }
        self.out.send(target, PeerMessage::Ask { id, request });
    }

    fn settle(&mut self, id: u64, response: ClientResponse, tail: Bytes) {
        if let Some(question) = self.asks.questions.remove(&id) {
            self.reply(question.ticket, response, tail);
        }
    }

    pub(crate) fn on_answer(
        &mut self,
        from: NodeId,
        id: u64,
        response: ClientResponse,
        tail: Bytes,
    ) {
        if let Some(listing) = self.asks.listings.get_mut(&id) {
            listing.open.remove(&from);
            if let ClientResponse::Jobs(jobs) = response {
                for status in jobs {
                    // What has ended stays so. Else the home's word counts more than that of a node
                    // that only has copies.
                    let listed = listing.jobs.get(&status.job);
                    let ended = listed.is_some_and(|listed| listed.state.is_final());
                    let counts = status.state.is_final() || status.home == from;
                    if listed.is_none() || (counts && !ended) {
                        listing.jobs.insert(status.job, status);
                    }
                }
            }
            return self.finish_listing(id, false);
        }
        let now = self.facts.now;
        let Some(question) = self.asks.questions.get_mut(&id) else { return };
        if question.target != Some(from) {
            return;
        }
        match response {
            ClientResponse::Error(error) if error.kind == ErrorKind::Unavailable => {
                question.target = None;
                question.ask_at = now + ASK_AGAIN_AFTER;
                question.last_error = Some(error);
            }
            response => self.settle(id, response, tail),
        }
    }

    pub(crate) fn on_client_gone(&mut self, ticket: u64) {
        self.asks.questions.retain(|_, question| question.ticket != ticket);
        self.asks.listings.retain(|_, listing| listing.ticket != ticket);
    }

    /// The ring changed: questions whose home moved are asked again.
    pub(crate) fn reroute_asks(&mut self) {
        let ids: Vec<_> = self.asks.questions.keys().copied().collect();
        for id in ids {
            let Some(question) = self.asks.questions.get(&id) else { continue };
            let Some(target) = question.target else { continue };
            let moved = match job_of(&question.request) {
                Some(job) => self.facts.home(job) != target,
                None => !self.facts.members.is_reachable(target),
            };
            if moved {
                self.ask(id);
            }
        }
        let reachable = self.facts.members.reachable.clone();
        let gone = |node: &NodeId| reachable.binary_search(node).is_err();
        let listings: Vec<_> = self.asks.listings.keys().copied().collect();
        for id in listings {
            if let Some(listing) = self.asks.listings.get_mut(&id) {
                listing.open.retain(|node| !gone(node));
            }
            self.finish_listing(id, false);
        }
        for search in self.asks.searches.values_mut() {
            search.give_up(gone);
        }
    }

    pub(crate) fn tick_asks(&mut self) {
        let now = self.facts.now;
        let ids: Vec<_> = self.asks.questions.keys().copied().collect();
        for id in ids {
            let Some(question) = self.asks.questions.get_mut(&id) else { continue };
            if now >= question.until {
                let lost = || ClientError::new(ErrorKind::Unavailable, "the job's home is silent");
                let last = question.last_error.take().unwrap_or_else(lost);
                self.settle(id, ClientResponse::Error(last), Bytes::new());
            } else if (question.target.is_none() && now >= question.ask_at)
                || (question.target.is_some() && now >= question.lost_at)
            {
                self.ask(id);
            }
        }
        let listings: Vec<_> = self.asks.listings.keys().copied().collect();
        for id in listings {
            self.finish_listing(id, true);
        }
        let searches: Vec<_> = self.asks.searches.keys().copied().collect();
        for job in searches {
            self.finish_search(job);
        }
    }

    fn list_jobs(&mut self, ticket: u64, after: Option<JobId>) {
        if self.is_joining() {
            let message = "this node has just started and does not see enough of the others yet";
            return self.reply(ticket, error(ErrorKind::Unavailable, message), Bytes::new());
        }
        let id = self.out.fresh_id();
        let open: BTreeSet<_> = self.facts.members.reachable.iter().copied().collect();
        let until = self.facts.now + ANSWER_WITHIN;
        let listing = Listing { ticket, open: open.clone(), jobs: BTreeMap::new(), until };
        self.asks.listings.insert(id, listing);
        for node in open {
            self.out.send(node, PeerMessage::Ask { id, request: ClientRequest::Jobs { after } });
        }
    }

    fn finish_listing(&mut self, id: u64, tick: bool) {
        let Some(listing) = self.asks.listings.get(&id) else { return };
        let over = listing.open.is_empty() || (tick && self.facts.now >= listing.until);
        if over && let Some(listing) = self.asks.listings.remove(&id) {
            // Each member said its first ones, so these are the first of all.
            let jobs = listing.jobs.into_values().take(JOBS_PER_ANSWER).collect();
            self.reply(listing.ticket, ClientResponse::Jobs(jobs), Bytes::new());
        }
    }

    fn cluster_view(&self) -> ClusterView {
        let config = &self.facts.config;
        let mut members = self.facts.told.views.clone();
        for member in &mut members {
            if member.id == config.node {
                member.jobs = Some(self.facts.holdings.jobs().count() as u32);
            }
            let by = self.facts.reach.unreached_by(config.node, &self.facts.told, member.id);
            let serves = self.facts.members.live.contains(&member.id);
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
            expected_nodes: self.expected_members() as u16,
            formed: self.facts.roster.known().len() >= self.expected_members(),
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
