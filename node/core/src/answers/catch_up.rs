//! Catch-up: a coordinator whose job log may be incomplete fetches the missing entries from all
//! members before it answers. [`Answers`] uses it.

use std::collections::BTreeSet;
use std::time::Duration;

use cortado_protocol::client::{ClientRequest, ClientResponse, ErrorKind};
use cortado_protocol::job::JobEntry;
use cortado_protocol::peer::{self, EdgeCoverage, PeerMessage};
use cortado_protocol::{Coverage, Edge, JobId, NodeId, SlotSet};

use super::reply::answer;
use super::search::Search;
use super::{Answers, Next};
use crate::facts::Facts;
use crate::outbox::Outbox;
use crate::purpose::Origin;

/// How long the members may take to send what they know of a job.
const SEARCH_FOR: Duration = Duration::from_millis(1500);

impl Answers {
    /// Jobs with a catch-up in progress.
    pub(crate) fn searched(&self) -> Vec<JobId> {
        self.searches.keys().copied().collect()
    }

    /// The members changed.
    pub(crate) fn after_change(&mut self, facts: &Facts) {
        for search in self.searches.values_mut() {
            search.give_up(|node| !facts.members.is_reachable(*node));
        }
    }

    /// Whether other nodes may have entries of the job's log that this coordinator lacks: it became
    /// the coordinator, or stood still, and has asked no member since. After a manifest no entry
    /// matters.
    pub(super) fn may_be_stale(&self, facts: &Facts, job: JobId) -> bool {
        let ended = facts.jobs.get(job).is_some_and(|log| log.manifest.is_some());
        !ended && !self.clients.get(&job).is_some_and(|clients| clients.fresh)
    }

    /// The disk refused an entry of the job's log or result: this coordinator lacks a part of what
    /// the members sent (seed 20001343).
    pub(crate) fn without_room(&mut self, job: JobId) {
        if let Some(search) = self.searches.get_mut(&job) {
            search.silent = true;
        }
    }

    /// Fetches the entries of a job's log and result that are missing here from every member.
    pub(super) fn search(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        (origin, job): (Origin, JobId),
        request: ClientRequest,
    ) -> Next {
        if let Some(search) = self.searches.get_mut(&job) {
            search.parked.push((origin, request));
            return Next::Nothing;
        }
        let round = out.fresh_id();
        let open: BTreeSet<_> = facts.others().collect();
        tracing::debug!(%job, ?request, ?open, "asking all members for the job");
        let until = facts.now + SEARCH_FOR;
        let parked = vec![(origin, request)];
        let asked = open.clone();
        let search = Search { round, asked, open: open.clone(), silent: false, until, parked };
        self.searches.insert(job, search);
        let whole = |edge, end| EdgeCoverage {
            edge,
            slots: SlotSet::META,
            coverage: Coverage::range(0, end),
        };
        let offered =
            [whole(Edge::JOB, JobEntry::NUMBERS), whole(Edge::RESULT, u64::from(u32::MAX))];
        let wanted = match facts.ledger.job(job) {
            Some(held) => held.missing(&offered),
            None => offered.to_vec(),
        };
        // A result has far fewer chunks than one page holds.
        let wanted = peer::first_page(wanted);
        for node in open {
            let wanted = wanted.clone();
            out.send(node, PeerMessage::Fetch { job, round, wanted });
        }
        self.go_on(facts, out, job)
    }

    /// A peer has sent the entries it has. Returns `None` if this component did not ask for them.
    pub(crate) fn fetched(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        from: NodeId,
        job: JobId,
        round: u64,
    ) -> Option<Next> {
        let search = self.searches.get_mut(&job).filter(|search| search.round == round)?;
        search.open.remove(&from);
        Some(self.go_on(facts, out, job))
    }

    /// Ends the catch-up if all members have answered, or the time is over.
    pub(crate) fn go_on(&mut self, facts: &Facts, out: &mut Outbox, job: JobId) -> Next {
        let Some(search) = self.searches.get_mut(&job) else { return Next::Nothing };
        let over = facts.now >= search.until;
        search.silent |= over && !search.open.is_empty();
        let edges = [Edge::JOB, Edge::RESULT].into_iter();
        let mut held = edges.filter_map(|edge| facts.ledger.edge(job, edge));
        let pending = held.any(|held| held.has_pending(SlotSet::META));
        if !over && (pending || !search.open.is_empty()) {
            return Next::Nothing;
        }
        let Some(search) = self.searches.remove(&job) else { return Next::Nothing };
        let unasked = facts.others().any(|node| !search.asked.contains(&node));
        let silent = search.silent || unasked || facts.is_joining();
        if facts.knows(job) {
            self.clients.entry(job).or_default().fresh = !silent;
        }
        // A node outside this node's view may know more, above all the node that asks.
        let told = |(origin, _): &(Origin, _)| !silent && facts.members.is_reachable(origin.0);
        let (requests, untold): (Vec<_>, Vec<_>) = search.parked.into_iter().partition(told);
        for (origin, _) in untold {
            let message = "some members did not say what they know of the job";
            answer(out, origin, ClientResponse::error(ErrorKind::Unavailable, message));
        }
        Next::CaughtUp { job, requests }
    }
}

/// The answer if no reachable node knows the job. A job is acknowledged on W nodes, so it does not
/// exist if fewer than W members are missing. A node that sees no majority may have joined during a
/// cut, and not know the number of members.
pub(super) fn not_found(facts: &Facts, job: JobId) -> ClientResponse {
    let (here, away) = (facts.members.reachable.len(), facts.away());
    tracing::debug!(%job, away, reachable = ?facts.members.reachable, "nobody knows the job");
    if !facts.misses_too_many() && 2 * here > facts.expected_members() {
        let message = format!("there is no job {job}; see `cortado jobs`");
        ClientResponse::error(ErrorKind::NotFound, message)
    } else {
        let message = format!("no live node knows job {job}, and {away} nodes are away");
        ClientResponse::error(ErrorKind::Unavailable, message)
    }
}
