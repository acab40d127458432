//! Clients' requests: any node takes them, the job's home answers them.
//!
//! The node a client is connected to keeps the request until it has an answer, and asks again when
//! the home changes, is unreachable or says "not now".

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use cortado_protocol::client::{
    ClientError, ClientRequest, ClientResponse, ClusterView, ErrorKind, RingView,
};
use cortado_protocol::job::{JobEntry, JobSpec, JobStatus, Manifest};
use cortado_protocol::peer::{EdgeCoverage, PeerMessage};
use cortado_protocol::{Coverage, Edge, EntryKey, JobId, META_SLOT, NodeId, Slot, SlotSet};

use crate::job::BoundPlan;
use crate::task::{Purpose, Task, TaskOutput};
use crate::work::JOB_LOG_NUMBERS;
use crate::{Core, Effect};

/// Who asked: the node a client is connected to, and the number of its question.
pub(crate) type Origin = (NodeId, u64);

/// How long a request is tried before its client is told to come back.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one node is given to answer, a wanted wait not counted.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// Pause after "not now".
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// How long all members are given to say what they know of a job.
const SEARCH_FOR: Duration = Duration::from_millis(1500);

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

/// A look for a job this home knows nothing of.
struct Search {
    round: u64,
    asked: BTreeSet<NodeId>,
    open: BTreeSet<NodeId>,
    silent: bool,
    until: Duration,
    parked: Vec<(Origin, ClientRequest)>,
}

/// Requests under way at this node.
#[derive(Default)]
pub(crate) struct Asks {
    questions: BTreeMap<u64, Question>,
    listings: BTreeMap<u64, Listing>,
    searches: BTreeMap<JobId, Search>,
}

impl Asks {
    pub(crate) fn is_busy(&self) -> bool {
        !(self.questions.is_empty() && self.listings.is_empty() && self.searches.is_empty())
    }
}

/// The job a request is about.
fn job_of(request: &ClientRequest) -> Option<JobId> {
    match request {
        ClientRequest::Submit(spec) => Some(spec.job),
        ClientRequest::Spec(job)
        | ClientRequest::Coverage(job)
        | ClientRequest::Upload(job)
        | ClientRequest::Cancel(job)
        | ClientRequest::EndTable { job, .. }
        | ClientRequest::Status { job, .. }
        | ClientRequest::Result { job, .. }
        | ClientRequest::Rejects { job, .. } => Some(*job),
        ClientRequest::Cluster
        | ClientRequest::Jobs
        | ClientRequest::Ring
        | ClientRequest::Drain(_) => None,
    }
}

fn wanted_wait(request: &ClientRequest) -> Duration {
    match request {
        ClientRequest::Status { wait_ms, .. } => Duration::from_millis(u64::from(*wait_ms)),
        _ => Duration::ZERO,
    }
}

fn error(kind: ErrorKind, message: impl Into<String>) -> ClientResponse {
    ClientResponse::Error(ClientError::new(kind, message))
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
            ClientRequest::Jobs => self.list_jobs(ticket),
            ClientRequest::Upload(_) => {
                let response = error(ErrorKind::BadInput, "an upload is a stream of its own");
                self.reply(ticket, response, Bytes::new());
            }
            request => {
                let id = self.fresh_id();
                let until = self.now + PATIENCE + wanted_wait(&request);
                let (ask_at, lost_at) = (self.now, self.now);
                let (target, last_error) = (None, None);
                let question =
                    Question { ticket, request, target, ask_at, lost_at, until, last_error };
                self.asks.questions.insert(id, question);
                self.ask(id);
            }
        }
    }

    fn reply(&mut self, ticket: u64, response: ClientResponse, tail: Bytes) {
        self.effects.push(Effect::Reply(ticket, Box::new(response), tail));
    }

    /// Sends a question to whoever can answer it now.
    fn ask(&mut self, id: u64) {
        let Some(question) = self.asks.questions.get(&id) else { return };
        let request = question.request.clone();
        let target = match (&request, job_of(&request)) {
            (ClientRequest::Drain(node), _) if self.members.is_reachable(*node) => *node,
            (ClientRequest::Drain(node), _) => {
                let message = format!("there is no live node '{node}'; see `cortado nodes`");
                return self.settle(id, error(ErrorKind::NotFound, message), Bytes::new());
            }
            (_, Some(job)) => self.home(job),
            (_, None) => self.config.node,
        };
        let now = self.now;
        if let Some(question) = self.asks.questions.get_mut(&id) {
            question.target = Some(target);
            question.lost_at = now + ANSWER_WITHIN + wanted_wait(&request);
        }
        self.send(target, PeerMessage::Ask { id, request });
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
                    // The home's word counts more than that of a node that only has copies.
                    if status.home == from || !listing.jobs.contains_key(&status.job) {
                        listing.jobs.insert(status.job, status);
                    }
                }
            }
            return self.finish_listing(id, false);
        }
        let now = self.now;
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
                Some(job) => self.home(job) != target,
                None => !self.members.is_reachable(target),
            };
            if moved {
                self.ask(id);
            }
        }
        let reachable = self.members.reachable.clone();
        let gone = |node: &NodeId| reachable.binary_search(node).is_err();
        let listings: Vec<_> = self.asks.listings.keys().copied().collect();
        for id in listings {
            if let Some(listing) = self.asks.listings.get_mut(&id) {
                listing.open.retain(|node| !gone(node));
            }
            self.finish_listing(id, false);
        }
        for search in self.asks.searches.values_mut() {
            let before = search.open.len();
            search.open.retain(|node| !gone(node));
            search.silent |= search.open.len() < before;
        }
    }

    pub(crate) fn tick_asks(&mut self) {
        let now = self.now;
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

    fn list_jobs(&mut self, ticket: u64) {
        let id = self.fresh_id();
        let open: BTreeSet<_> = self.members.reachable.iter().copied().collect();
        let until = self.now + ANSWER_WITHIN;
        let listing = Listing { ticket, open: open.clone(), jobs: BTreeMap::new(), until };
        self.asks.listings.insert(id, listing);
        for node in open {
            self.send(node, PeerMessage::Ask { id, request: ClientRequest::Jobs });
        }
    }

    fn finish_listing(&mut self, id: u64, tick: bool) {
        let Some(listing) = self.asks.listings.get(&id) else { return };
        if listing.open.is_empty() || (tick && self.now >= listing.until) {
            if let Some(listing) = self.asks.listings.remove(&id) {
                let jobs = listing.jobs.into_values().collect();
                self.reply(listing.ticket, ClientResponse::Jobs(jobs), Bytes::new());
            }
        }
    }

    /// Answers a question of some node's client.
    pub(crate) fn answer(&mut self, origin: Origin, response: ClientResponse, tail: Bytes) {
        self.send_with(origin.0, PeerMessage::Answer { id: origin.1, response }, tail);
    }

    /// Some node's client asks.
    pub(crate) fn on_ask(&mut self, from: NodeId, id: u64, request: ClientRequest) {
        let origin = (from, id);
        match (&request, job_of(&request)) {
            (ClientRequest::Jobs, _) => {
                let jobs: Vec<_> = self.jobs.keys().copied().collect();
                let jobs = jobs.into_iter().filter_map(|job| self.status(job)).collect();
                self.answer(origin, ClientResponse::Jobs(jobs), Bytes::new());
            }
            (ClientRequest::Drain(node), _) if *node == self.config.node => {
                self.start_draining();
                self.answer(origin, ClientResponse::Accepted, Bytes::new());
            }
            (_, Some(job)) if self.is_home(job) => self.on_job_request(origin, job, request, false),
            _ => {
                let response = error(ErrorKind::Unavailable, "the job's home is moving");
                self.answer(origin, response, Bytes::new());
            }
        }
    }

    /// A request about a job this node is the home of.
    fn on_job_request(
        &mut self,
        origin: Origin,
        job: JobId,
        request: ClientRequest,
        searched: bool,
    ) {
        if self.holdings.is_gone(job) {
            let message = format!("job {job} is gone: its time to live is over");
            return self.answer(origin, error(ErrorKind::NotFound, message), Bytes::new());
        }
        if let ClientRequest::Submit(spec) = request {
            return self.on_submit(origin, spec);
        }
        let Some(plan) = self.plan_of(job) else {
            if searched {
                let response = self.not_found(job);
                return self.answer(origin, response, Bytes::new());
            }
            return self.search(job, origin, request);
        };
        match request {
            ClientRequest::Spec(_) => {
                let response = ClientResponse::Spec(plan.spec.clone());
                self.answer(origin, response, Bytes::new());
            }
            ClientRequest::Coverage(_) => {
                let response = ClientResponse::Coverage(self.coverage(job));
                self.answer(origin, response, Bytes::new());
            }
            ClientRequest::Status { wait_ms, .. } => {
                self.wait_for_news(origin, job, Duration::from_millis(u64::from(wait_ms)));
            }
            ClientRequest::EndTable { table, batches, .. } => {
                self.on_end_table(origin, job, table, batches);
            }
            ClientRequest::Cancel(_) => {
                let log = &self.jobs[&job];
                if log.manifest.is_some() {
                    self.answer_status(origin, job);
                } else {
                    self.record(origin, job, &JobEntry::Cancel);
                }
            }
            ClientRequest::Result { chunk, .. } => {
                self.on_result(origin, job, chunk, searched);
            }
            ClientRequest::Rejects { table, .. } => {
                let table = usize::from(table);
                if table >= plan.spec.tables.len() {
                    let response = error(ErrorKind::NotFound, "the plan has no such table");
                    return self.answer(origin, response, Bytes::new());
                }
                let summaries = self.located(job, table..table + 1, SlotSet::META);
                let task = Task::Rejects { plan, table, summaries };
                self.run(task, Purpose::Rejects(origin));
            }
            ClientRequest::Submit(_)
            | ClientRequest::Upload(_)
            | ClientRequest::Cluster
            | ClientRequest::Jobs
            | ClientRequest::Ring
            | ClientRequest::Drain(_) => {}
        }
    }

    fn on_submit(&mut self, origin: Origin, spec: JobSpec) {
        let job = spec.job;
        if let Some(plan) = self.plan_of(job) {
            if plan.spec == spec {
                // Known here does not mean durable on W nodes: the owners are asked again.
                return self.record(origin, job, &JobEntry::Spec(spec));
            }
            let message = format!("job {job} was submitted before with another plan or file list");
            return self.answer(origin, error(ErrorKind::Conflict, message), Bytes::new());
        }
        let (seen, expected) = (self.members.ever_seen, usize::from(self.config.expected_nodes));
        if seen < expected {
            let message = format!("the cluster is forming: {seen} of {expected} nodes seen");
            return self.answer(origin, error(ErrorKind::Unavailable, message), Bytes::new());
        }
        if let Err(reason) = self.replicas_suffice() {
            return self.answer(origin, error(ErrorKind::Unavailable, reason), Bytes::new());
        }
        match BoundPlan::new(spec.clone()) {
            Ok(_) => self.record(origin, job, &JobEntry::Spec(spec)),
            Err(error) => self.answer(origin, ClientResponse::Error(error), Bytes::new()),
        }
    }

    fn on_end_table(&mut self, origin: Origin, job: JobId, table: u16, batches: u64) {
        let log = &self.jobs[&job];
        let response = match log.ends.get(usize::from(table)) {
            None => error(ErrorKind::NotFound, "the plan has no such table"),
            Some(Some(before)) if *before != batches => {
                let message = format!(
                    "the table was declared to have {before} batches before, now {batches}: the dataset changed"
                );
                error(ErrorKind::Conflict, message)
            }
            Some(_) => {
                return self.record(origin, job, &JobEntry::TableEnd { table, batches });
            }
        };
        self.answer(origin, response, Bytes::new());
    }

    /// Writes an entry of the job log and answers when it is durable.
    fn record(&mut self, origin: Origin, job: JobId, entry: &JobEntry) {
        let home = self.home_state(job);
        home.wait_for_entry(entry.number(), origin);
        self.replicate_job_entry(job, entry);
    }

    fn on_result(&mut self, origin: Origin, job: JobId, chunk: u64, searched: bool) {
        let chunks = match &self.jobs[&job].manifest {
            Some(Manifest::Done { chunks, .. }) => *chunks,
            Some(Manifest::Failed { message }) => {
                let response = error(ErrorKind::Ended, message.clone());
                return self.answer(origin, response, Bytes::new());
            }
            None if self.jobs[&job].cancelled => {
                let response = error(ErrorKind::Ended, "the job was cancelled");
                return self.answer(origin, response, Bytes::new());
            }
            None => {
                let message = "the job is not done yet; see `cortado status`";
                let response = error(ErrorKind::Unavailable, message);
                return self.answer(origin, response, Bytes::new());
            }
        };
        if chunk >= chunks {
            let message = format!("the result has {chunks} chunks");
            return self.answer(origin, error(ErrorKind::NotFound, message), Bytes::new());
        }
        let slots = SlotSet::META;
        let coverage = Coverage::range(chunk, chunk + 1);
        let wanted = EdgeCoverage { edge: Edge::RESULT, slots, coverage };
        let record = self
            .holdings
            .edge(job, Edge::RESULT)
            .and_then(|edge| edge.wanted(&wanted).next().map(|(_, record, _)| record));
        match record {
            Some(record) => {
                let key = EntryKey { job, edge: Edge::RESULT, number: chunk };
                self.run(Task::Read(vec![(key, record, slots)]), Purpose::Chunk(origin));
            }
            None if searched => {
                let message = "no live node has this part of the result";
                self.answer(origin, error(ErrorKind::Unavailable, message), Bytes::new());
            }
            None => self.search(job, origin, ClientRequest::Result { job, chunk }),
        }
    }

    pub(crate) fn on_chunk_task(&mut self, origin: Origin, output: TaskOutput) {
        match output {
            TaskOutput::Entries(entries) => {
                let bytes = entries.first().and_then(|entry| entry.delta(META_SLOT));
                self.answer(origin, ClientResponse::Chunk, bytes.unwrap_or_default());
            }
            TaskOutput::Unreadable(entries) => {
                self.drop_unreadable(&entries);
                let response = error(ErrorKind::Unavailable, "a record was damaged; refilling");
                self.answer(origin, response, Bytes::new());
            }
            other => tracing::error!(?other, "reading a chunk gave something else"),
        }
    }

    pub(crate) fn on_rejects_task(&mut self, origin: Origin, output: TaskOutput) {
        let response = match output {
            TaskOutput::Rejects(rejects) => ClientResponse::Rejects(rejects),
            TaskOutput::Unreadable(entries) => {
                self.drop_unreadable(&entries);
                error(ErrorKind::Unavailable, "a record was damaged; refilling")
            }
            TaskOutput::Failed(message) => error(ErrorKind::Ended, message),
            other => return tracing::error!(?other, "collecting rejects gave something else"),
        };
        self.answer(origin, response, Bytes::new());
    }

    /// Asks every member what it has of a job's log and result.
    fn search(&mut self, job: JobId, origin: Origin, request: ClientRequest) {
        if let Some(search) = self.asks.searches.get_mut(&job) {
            search.parked.push((origin, request));
            return;
        }
        let round = self.fresh_id();
        let me = self.config.node;
        let open: BTreeSet<_> =
            self.members.reachable.iter().copied().filter(|node| *node != me).collect();
        tracing::debug!(%job, ?request, ?open, "asking all members for the job");
        let until = self.now + SEARCH_FOR;
        let parked = vec![(origin, request)];
        let asked = open.clone();
        let search = Search { round, asked, open: open.clone(), silent: false, until, parked };
        self.asks.searches.insert(job, search);
        let whole = |edge, end| EdgeCoverage {
            edge,
            slots: SlotSet::META,
            coverage: Coverage::range(0, end),
        };
        let offered = [whole(Edge::JOB, JOB_LOG_NUMBERS), whole(Edge::RESULT, u64::from(u32::MAX))];
        let wanted = self.holdings.job_mut(job).missing(&offered);
        for node in open {
            let wanted = wanted.clone();
            self.send(node, PeerMessage::Fetch { job, round, wanted });
        }
        self.finish_search(job);
    }

    pub(crate) fn search_fetched(&mut self, from: NodeId, job: JobId, round: u64) -> bool {
        match self.asks.searches.get_mut(&job) {
            Some(search) if search.round == round => {
                search.open.remove(&from);
                self.finish_search(job);
                true
            }
            _ => false,
        }
    }

    fn finish_search(&mut self, job: JobId) {
        let Some(search) = self.asks.searches.get_mut(&job) else { return };
        let over = self.now >= search.until;
        search.silent |= over && !search.open.is_empty();
        let edge = |edge| self.holdings.edge(job, edge);
        let pending = [Edge::JOB, Edge::RESULT]
            .into_iter()
            .filter_map(edge)
            .any(|held| held.has_pending(SlotSet::META));
        if (search.open.is_empty() && !pending) || over {
            let Some(search) = self.asks.searches.remove(&job) else { return };
            let me = self.config.node;
            let mut members = self.members.reachable.iter();
            let unasked = members.any(|node| *node != me && !search.asked.contains(node));
            for (origin, request) in search.parked {
                // A node this one does not see yet may know the job, the asking one to begin with.
                let unseen = !self.members.is_reachable(origin.0);
                if (search.silent || unasked || unseen) && self.plan_of(job).is_none() {
                    let message = "some members did not say whether they know the job";
                    self.answer(origin, error(ErrorKind::Unavailable, message), Bytes::new());
                } else {
                    self.on_job_request(origin, job, request, true);
                }
            }
        }
    }

    /// Nobody who answers knows the job. It was acknowledged on W nodes, so it does not exist unless
    /// W of the members there are, or should be, are away. A node that sees no majority may have
    /// joined during a cut and not know how many there are.
    fn not_found(&self, job: JobId) -> ClientResponse {
        let members = self.members.ever_seen.max(usize::from(self.config.expected_nodes));
        let here = self.members.reachable.len();
        let away = members.saturating_sub(here);
        tracing::debug!(%job, away, reachable = ?self.members.reachable, "nobody knows the job");
        if away < usize::from(self.config.min_copies) && 2 * here > members {
            error(ErrorKind::NotFound, format!("there is no job {job}; see `cortado jobs`"))
        } else {
            let message = format!("no live node knows job {job}, and {away} nodes are away");
            error(ErrorKind::Unavailable, message)
        }
    }

    fn cluster_view(&self) -> ClusterView {
        let config = &self.config;
        let mut members = self.member_views();
        for member in &mut members {
            if member.id == config.node {
                member.jobs = Some(self.holdings.jobs().count() as u32);
            }
        }
        ClusterView {
            cluster: config.cluster.clone(),
            answered_by: config.node,
            replicas: config.replicas,
            min_copies: config.min_copies,
            slots: config.slots,
            expected_nodes: config.expected_nodes,
            formed: self.members.ever_seen >= usize::from(config.expected_nodes),
            members,
            supervisor: None,
        }
    }

    fn ring_view(&mut self) -> RingView {
        // Owners depend on the job; the nil job stands for "jobs in general".
        let placement = self.placement(JobId(0));
        let slots = (0..self.config.slots).map(Slot).chain([META_SLOT]);
        let slots = slots.map(|slot| (slot, placement.owners(slot).to_vec())).collect();
        RingView { version: self.members.version, slots, moves: self.moves() }
    }
}
