//! A look for a job: a home that may not know everything asks all members before it answers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use cortado_protocol::client::{ClientRequest, ClientResponse, ErrorKind};
use cortado_protocol::peer::{self, EdgeCoverage, PeerMessage};
use cortado_protocol::{Coverage, Edge, JobId, NodeId, SlotSet};

use crate::Core;
use crate::facts::Facts;
use crate::forwarding::Origin;
use crate::request::error;
use crate::slot_tasks::JOB_LOG_NUMBERS;

/// How long all members are given to say what they know of a job.
const SEARCH_FOR: Duration = Duration::from_millis(1500);

/// A look for a job this home knows nothing of.
struct Search {
    round: u64,
    asked: BTreeSet<NodeId>,
    open: BTreeSet<NodeId>,
    silent: bool,
    until: Duration,
    parked: Vec<(Origin, ClientRequest)>,
}

/// Looks under way at this node.
#[derive(Default)]
pub(crate) struct Searches(BTreeMap<JobId, Search>);

impl Searches {
    pub(crate) fn is_busy(&self) -> bool {
        !self.0.is_empty()
    }

    /// Jobs that are looked for.
    pub(crate) fn jobs(&self) -> Vec<JobId> {
        self.0.keys().copied().collect()
    }

    /// The members changed.
    pub(crate) fn after_change(&mut self, facts: &Facts) {
        for search in self.0.values_mut() {
            search.give_up(|node| !facts.members.is_reachable(*node));
        }
    }
}

impl Search {
    /// These members will not answer any more.
    fn give_up(&mut self, gone: impl Fn(&NodeId) -> bool) {
        let before = self.open.len();
        self.open.retain(|node| !gone(node));
        self.silent |= self.open.len() < before;
    }
}

impl Core {
    pub(crate) fn tick_searches(&mut self) {
        for job in self.searches.jobs() {
            self.finish_search(job);
        }
    }

    /// Whether others may know of entries of the job's log that this home does not have: it became
    /// the home, or stood still, and has asked nobody since. A manifest is the last word.
    pub(crate) fn may_be_stale(&self, job: JobId) -> bool {
        let ended = self.facts.jobs.get(&job).is_some_and(|log| log.manifest.is_some());
        !ended && !self.homes.get(&job).is_some_and(|home| home.fresh)
    }

    /// Asks every member what it has of a job's log and result.
    pub(crate) fn search(&mut self, job: JobId, origin: Origin, request: ClientRequest) {
        if let Some(search) = self.searches.0.get_mut(&job) {
            search.parked.push((origin, request));
            return;
        }
        let round = self.out.fresh_id();
        let me = self.facts.config.node;
        let open: BTreeSet<_> =
            self.facts.members.reachable.iter().copied().filter(|node| *node != me).collect();
        tracing::debug!(%job, ?request, ?open, "asking all members for the job");
        let until = self.facts.now + SEARCH_FOR;
        let parked = vec![(origin, request)];
        let asked = open.clone();
        let search = Search { round, asked, open: open.clone(), silent: false, until, parked };
        self.searches.0.insert(job, search);
        let whole = |edge, end| EdgeCoverage {
            edge,
            slots: SlotSet::META,
            coverage: Coverage::range(0, end),
        };
        let offered = [whole(Edge::JOB, JOB_LOG_NUMBERS), whole(Edge::RESULT, u64::from(u32::MAX))];
        let wanted = match self.facts.holdings.job(job) {
            Some(held) => held.missing(&offered),
            None => offered.to_vec(),
        };
        // A result has far fewer chunks than one page holds.
        let wanted = peer::first_page(wanted);
        for node in open {
            let wanted = wanted.clone();
            self.out.send(node, PeerMessage::Fetch { job, round, wanted });
        }
        self.finish_search(job);
    }

    pub(crate) fn search_fetched(&mut self, from: NodeId, job: JobId, round: u64) -> bool {
        match self.searches.0.get_mut(&job) {
            Some(search) if search.round == round => {
                search.open.remove(&from);
                self.finish_search(job);
                true
            }
            _ => false,
        }
    }

    pub(crate) fn finish_search(&mut self, job: JobId) {
        let Some(search) = self.searches.0.get_mut(&job) else { return };
        let over = self.facts.now >= search.until;
        search.silent |= over && !search.open.is_empty();
        let edge = |edge| self.facts.holdings.edge(job, edge);
        let pending = [Edge::JOB, Edge::RESULT]
            .into_iter()
            .filter_map(edge)
            .any(|held| held.has_pending(SlotSet::META));
        if !over && (pending || !search.open.is_empty()) {
            return;
        }
        let Some(search) = self.searches.0.remove(&job) else { return };
        let me = self.facts.config.node;
        let mut members = self.facts.members.reachable.iter();
        let unasked = members.any(|node| *node != me && !search.asked.contains(node));
        let silent = search.silent || unasked || self.facts.is_joining();
        if self.facts.plan_of(job).is_some() {
            self.home_state(job).fresh = !silent;
        }
        for (origin, request) in search.parked {
            // A node this one does not see yet may know more, the asking one to begin with.
            if silent || !self.facts.members.is_reachable(origin.0) {
                let message = "some members did not say what they know of the job";
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
pub(crate) fn not_found(facts: &Facts, job: JobId) -> ClientResponse {
    let (here, away) = (facts.members.reachable.len(), facts.away());
    tracing::debug!(%job, away, reachable = ?facts.members.reachable, "nobody knows the job");
    if !facts.misses_too_many() && 2 * here > facts.expected_members() {
        error(ErrorKind::NotFound, format!("there is no job {job}; see `cortado jobs`"))
    } else {
        let message = format!("no live node knows job {job}, and {away} nodes are away");
        error(ErrorKind::Unavailable, message)
    }
}
