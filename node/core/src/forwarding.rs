//! Forwarding: any node takes a client's request, and the job's coordinator answers it. The router
//! calls this component.
//!
//! The entry node keeps the request until it has an answer. It asks again when the coordinator
//! changes, is unreachable or answers `Unavailable`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use cortado_protocol::client::{
    ANSWER_TIMEOUT, ClientError, ClientRequest, ClientResponse, ErrorKind,
};
use cortado_protocol::job::JobStatus;
use cortado_protocol::limits::JOBS_PER_ANSWER;
use cortado_protocol::peer::PeerMessage;
use cortado_protocol::{JobId, NodeId};

use crate::facts::Facts;
use crate::outbox::Outbox;

/// Time after which the client gets the last error.
const PATIENCE: Duration = Duration::from_secs(ANSWER_TIMEOUT.as_secs() - 1);
/// How long one node may take to answer, not counting the wait that the request asks for.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// Pause after the answer `Unavailable`.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// A client's request in progress.
struct Question {
    ticket: u64,
    request: ClientRequest,
    target: Option<NodeId>,
    ask_at: Duration,
    lost_at: Duration,
    until: Duration,
    last_error: Option<ClientError>,
}

/// A listing of jobs in progress.
struct Listing {
    ticket: u64,
    open: BTreeSet<NodeId>,
    jobs: BTreeMap<JobId, JobStatus>,
    until: Duration,
}

/// Requests in progress at this node.
#[derive(Default)]
pub(crate) struct Forwarding {
    questions: BTreeMap<u64, Question>,
    listings: BTreeMap<u64, Listing>,
}

impl Forwarding {
    pub(crate) fn is_busy(&self) -> bool {
        !(self.questions.is_empty() && self.listings.is_empty())
    }
}

fn wanted_wait(request: &ClientRequest) -> Duration {
    match request {
        ClientRequest::Status { wait_ms, .. } => Duration::from_millis(u64::from(*wait_ms)),
        _ => Duration::ZERO,
    }
}

impl Forwarding {
    /// A client of this node sends a request that some node of the cluster has to answer.
    pub(crate) fn request(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        ticket: u64,
        request: ClientRequest,
    ) {
        let id = out.fresh_id();
        let until = facts.now + PATIENCE + wanted_wait(&request);
        let (ask_at, lost_at) = (facts.now, facts.now);
        let (target, last_error) = (None, None);
        let question = Question { ticket, request, target, ask_at, lost_at, until, last_error };
        self.questions.insert(id, question);
        self.ask(facts, out, id);
    }

    /// Sends a request to the node that can answer it now.
    fn ask(&mut self, facts: &Facts, out: &mut Outbox, id: u64) {
        let Some(question) = self.questions.get(&id) else { return };
        let request = question.request.clone();
        let target = match (&request, request.job()) {
            (ClientRequest::Drain(node), _) if facts.members.is_reachable(*node) => *node,
            (ClientRequest::Drain(node), _) => {
                let message = format!("there is no live node '{node}'; see `cortado nodes`");
                return self.settle(
                    out,
                    id,
                    ClientResponse::error(ErrorKind::NotFound, message),
                    Bytes::new(),
                );
            }
            (_, Some(job)) => facts.coordinator(job),
            (_, None) => facts.config.node,
        };
        let now = facts.now;
        if let Some(question) = self.questions.get_mut(&id) {
            question.target = Some(target);
            question.lost_at = now + ANSWER_WITHIN + wanted_wait(&request);
        }
        out.send(target, PeerMessage::Ask { id, request });
    }

    fn settle(&mut self, out: &mut Outbox, id: u64, response: ClientResponse, tail: Bytes) {
        if let Some(question) = self.questions.remove(&id) {
            out.reply(question.ticket, response, tail);
        }
    }

    /// A node answers.
    pub(crate) fn on_answer(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        from: NodeId,
        (id, response, tail): (u64, ClientResponse, Bytes),
    ) {
        if let Some(listing) = self.listings.get_mut(&id) {
            listing.open.remove(&from);
            if let ClientResponse::Jobs(jobs) = response {
                for status in jobs {
                    // A final state stays. Otherwise the coordinator's answer replaces that of a
                    // node that only has copies.
                    let listed = listing.jobs.get(&status.job);
                    let ended = listed.is_some_and(|listed| listed.state.is_final());
                    let counts = status.state.is_final() || status.coordinator == from;
                    if listed.is_none() || (counts && !ended) {
                        listing.jobs.insert(status.job, status);
                    }
                }
            }
            return self.finish_listing(facts, out, id, false);
        }
        let now = facts.now;
        let Some(question) = self.questions.get_mut(&id) else { return };
        if question.target != Some(from) {
            return;
        }
        match response {
            ClientResponse::Error(error) if error.kind == ErrorKind::Unavailable => {
                question.target = None;
                question.ask_at = now + ASK_AGAIN_AFTER;
                question.last_error = Some(error);
            }
            response => self.settle(out, id, response, tail),
        }
    }

    /// The client has left.
    pub(crate) fn client_left(&mut self, ticket: u64) {
        self.questions.retain(|_, question| question.ticket != ticket);
        self.listings.retain(|_, listing| listing.ticket != ticket);
    }

    /// The members changed: asks again for requests whose coordinator moved.
    pub(crate) fn after_change(&mut self, facts: &Facts, out: &mut Outbox) {
        let ids: Vec<_> = self.questions.keys().copied().collect();
        for id in ids {
            let Some(question) = self.questions.get(&id) else { continue };
            let Some(target) = question.target else { continue };
            let moved = match question.request.job() {
                Some(job) => facts.coordinator(job) != target,
                None => !facts.members.is_reachable(target),
            };
            if moved {
                self.ask(facts, out, id);
            }
        }
        let listings: Vec<_> = self.listings.keys().copied().collect();
        for id in listings {
            if let Some(listing) = self.listings.get_mut(&id) {
                listing.open.retain(|node| facts.members.is_reachable(*node));
            }
            self.finish_listing(facts, out, id, false);
        }
    }

    pub(crate) fn tick(&mut self, facts: &Facts, out: &mut Outbox) {
        let now = facts.now;
        let ids: Vec<_> = self.questions.keys().copied().collect();
        for id in ids {
            let Some(question) = self.questions.get_mut(&id) else { continue };
            if now >= question.until {
                let lost =
                    || ClientError::new(ErrorKind::Unavailable, "the job's coordinator is silent");
                let last = question.last_error.take().unwrap_or_else(lost);
                self.settle(out, id, ClientResponse::Error(last), Bytes::new());
            } else if (question.target.is_none() && now >= question.ask_at)
                || (question.target.is_some() && now >= question.lost_at)
            {
                self.ask(facts, out, id);
            }
        }
        let listings: Vec<_> = self.listings.keys().copied().collect();
        for id in listings {
            self.finish_listing(facts, out, id, true);
        }
    }

    /// A client of this node wants the list of jobs.
    pub(crate) fn list(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        ticket: u64,
        after: Option<JobId>,
    ) {
        if facts.is_joining() {
            let message = "this node has just started and does not see enough of the others yet";
            return out.reply(
                ticket,
                ClientResponse::error(ErrorKind::Unavailable, message),
                Bytes::new(),
            );
        }
        let id = out.fresh_id();
        // An ill member would delay the list, and other members have the same jobs.
        let me = facts.config.node;
        let well = |node: &NodeId| *node == me || facts.members.ill.binary_search(node).is_err();
        let open: BTreeSet<_> = facts.members.reachable.iter().copied().filter(well).collect();
        let until = facts.now + ANSWER_WITHIN;
        let listing = Listing { ticket, open: open.clone(), jobs: BTreeMap::new(), until };
        self.listings.insert(id, listing);
        for node in open {
            out.send(node, PeerMessage::Ask { id, request: ClientRequest::Jobs { after } });
        }
    }

    fn finish_listing(&mut self, facts: &Facts, out: &mut Outbox, id: u64, tick: bool) {
        let Some(listing) = self.listings.get(&id) else { return };
        let over = listing.open.is_empty() || (tick && facts.now >= listing.until);
        if over && let Some(listing) = self.listings.remove(&id) {
            // Each member sends its first jobs in id order, so these are the first of all.
            let jobs = listing.jobs.into_values().take(JOBS_PER_ANSWER).collect();
            out.reply(listing.ticket, ClientResponse::Jobs(jobs), Bytes::new());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effect::Effect;
    use crate::facts::tests::facts_of;
    use crate::outbox::Out;
    use crate::placement::Members;

    const JOB: JobId = JobId(1);
    const TICKET: u64 = 7;

    /// Node `a` of three, with a request about a job in progress.
    struct Bench {
        facts: Facts,
        out: Outbox,
        forwarding: Forwarding,
    }

    impl Bench {
        fn new() -> Self {
            let (facts, mut out) = (facts_of(&["a", "b", "c"]), Outbox::new(1));
            let mut forwarding = Forwarding::default();
            forwarding.request(&facts, &mut out, TICKET, ClientRequest::Cancel(JOB));
            Self { facts, out, forwarding }
        }

        /// The node that was asked since the last call, and the number of the request.
        fn asked(&mut self) -> Option<(NodeId, u64)> {
            match self.out.next() {
                None => None,
                Some(Out::Send(to, PeerMessage::Ask { id, .. }, _)) => Some((to, id)),
                Some(_) => panic!("nothing else is said"),
            }
        }

        fn answer(&mut self, (from, id): (NodeId, u64), response: ClientResponse) {
            let answer = (id, response, Bytes::new());
            self.forwarding.on_answer(&self.facts, &mut self.out, from, answer);
        }

        fn reply(&mut self) -> Option<ClientResponse> {
            match self.out.next() {
                None => None,
                Some(Out::Effect(Effect::Reply(TICKET, response, _))) => Some(*response),
                Some(_) => panic!("nothing else is said"),
            }
        }

        fn wait(&mut self, time: Duration) {
            self.facts.now += time;
            self.forwarding.tick(&self.facts, &mut self.out);
        }
    }

    #[test]
    fn the_home_is_asked_again_while_it_says_not_now_and_its_answer_is_the_clients() {
        let mut bench = Bench::new();
        let asked = bench.asked().unwrap();
        assert_eq!(asked.0, bench.facts.coordinator(JOB));
        bench.answer(asked, ClientResponse::error(ErrorKind::Unavailable, "not now"));
        assert_eq!(bench.reply(), None);
        bench.wait(ASK_AGAIN_AFTER);
        assert_eq!(bench.asked(), Some(asked));
        bench.answer(asked, ClientResponse::Accepted);
        assert_eq!(bench.reply(), Some(ClientResponse::Accepted));
        assert!(!bench.forwarding.is_busy());
    }

    #[test]
    fn when_the_home_moves_the_new_one_is_asked_and_the_old_one_is_not_heard_any_more() {
        let mut bench = Bench::new();
        let old = bench.asked().unwrap();
        let left = |nodes: &[NodeId]| nodes.iter().copied().filter(|node| *node != old.0).collect();
        let members = bench.facts.members.clone();
        let (live, reachable) = (left(&members.live), left(&members.reachable));
        bench.facts.set_members(Members { live, reachable, ..members });
        bench.forwarding.after_change(&bench.facts, &mut bench.out);
        let new = bench.asked().unwrap();
        assert!(new.0 != old.0 && new.0 == bench.facts.coordinator(JOB));
        bench.answer(old, ClientResponse::Accepted);
        assert_eq!(bench.reply(), None);
    }

    #[test]
    fn a_client_is_told_in_time_why_there_is_no_answer() {
        let mut bench = Bench::new();
        let asked = bench.asked().unwrap();
        bench.answer(
            asked,
            ClientResponse::error(ErrorKind::Unavailable, "waiting for replicas: 1 of 2"),
        );
        bench.wait(PATIENCE);
        let Some(ClientResponse::Error(error)) = bench.reply() else { panic!("an answer is due") };
        assert_eq!(error.message, "waiting for replicas: 1 of 2");
        assert!(!bench.forwarding.is_busy());
    }
}
