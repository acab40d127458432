//! What is offered to this node and fetched by it: one page of one peer at a time, for each job.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use cortado_protocol::peer::{self, EdgeCoverage, PeerMessage};
use cortado_protocol::{JobId, NodeId};

use crate::facts::Facts;
use crate::ledger::index::numbers;
use crate::outbox::Outbox;

/// How long a fetch may stay unanswered.
const FETCH_PATIENCE: Duration = Duration::from_secs(5);

/// What a peer offers of one job, as far as it was not looked at yet.
#[derive(Default)]
struct Offered {
    round: u64,
    pages: VecDeque<Vec<EdgeCoverage>>,
}

/// A fetch of what is missing of one page of an offer.
struct Fetching {
    from: NodeId,
    /// None once all that is sent has come, until it is durable: the network is no faster than the disk.
    round: Option<u64>,
    since: Duration,
    /// Numbers missing, for all slots together, when it was sent.
    missing: u64,
    /// Of the offer.
    offer: u64,
    page: Vec<EdgeCoverage>,
}

/// Entries coming in for one job.
#[derive(Default)]
struct OfJob {
    active: Option<Fetching>,
    offers: BTreeMap<NodeId, Offered>,
}

/// Entries coming in.
#[derive(Default)]
pub(super) struct Incoming {
    jobs: BTreeMap<JobId, OfJob>,
}

impl OfJob {
    /// A page of an offer. A newer offer takes the place of an older one.
    fn take(&mut self, from: NodeId, round: u64, page: Vec<EdgeCoverage>) {
        let offered = self.offers.entry(from).or_default();
        if offered.round != round {
            *offered = Offered { round, ..Offered::default() };
        }
        offered.pages.push_back(page);
    }

    /// Nothing comes from these nodes.
    fn give_up(&mut self, gone: impl Fn(NodeId) -> bool) {
        self.offers.retain(|node, _| !gone(*node));
        self.active.take_if(|active| gone(active.from));
    }
}

impl Incoming {
    pub(super) fn is_fetching(&self) -> bool {
        self.jobs.values().any(|of| of.active.is_some())
    }

    /// A page of an offer: what is missing of it is fetched in its turn.
    pub(super) fn offered(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        from: NodeId,
        job: JobId,
        (round, page): (u64, Vec<EdgeCoverage>),
    ) {
        self.jobs.entry(job).or_default().take(from, round, page);
        self.fetch_offered(facts, out, job);
    }

    /// Nothing comes from these nodes.
    pub(super) fn give_up(&mut self, gone: impl Fn(NodeId) -> bool) {
        self.jobs.values_mut().for_each(|of| of.give_up(&gone));
    }

    pub(super) fn forget(&mut self, job: JobId) {
        self.jobs.remove(&job);
    }

    /// Gives up fetches that nobody answers.
    pub(super) fn tick(&mut self, facts: &Facts, out: &mut Outbox) {
        let now = facts.now;
        let late: Vec<_> = self
            .jobs
            .iter()
            .filter(|(_, i)| i.active.as_ref().is_some_and(|a| now >= a.since + FETCH_PATIENCE))
            .map(|(job, _)| *job)
            .collect();
        for job in late {
            if let Some(incoming) = self.jobs.get_mut(&job) {
                incoming.active = None;
            }
            self.fetch_offered(facts, out, job);
        }
    }

    /// Fetches from the next offer what is still missing; one fetch per job at a time, so that
    /// several holders do not send the same.
    fn fetch_offered(&mut self, facts: &Facts, out: &mut Outbox, job: JobId) {
        loop {
            let Some(incoming) = self.jobs.get_mut(&job) else { return };
            if incoming.active.is_some() {
                return;
            }
            let Some(mut offered) = incoming.offers.first_entry() else {
                self.jobs.remove(&job);
                return;
            };
            let (source, offer) = (*offered.key(), offered.get().round);
            let Some(page) = offered.get_mut().pages.pop_front() else {
                offered.remove();
                continue;
            };
            let wanted = missing_of(facts, job, &page);
            if !wanted.is_empty() {
                return self.fetch_page(facts, out, job, source, (offer, page), wanted);
            }
        }
    }

    /// Fetches what is missing of a page of an offer.
    fn fetch_page(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        job: JobId,
        from: NodeId,
        (offer, page): (u64, Vec<EdgeCoverage>),
        wanted: Vec<EdgeCoverage>,
    ) {
        let (missing, since, round) = (numbers(&wanted), facts.now, out.fresh_id());
        if let Some(incoming) = self.jobs.get_mut(&job) {
            incoming.active =
                Some(Fetching { from, round: Some(round), since, missing, offer, page });
        }
        let wanted = peer::first_page(wanted);
        out.send(from, PeerMessage::Fetch { job, round, wanted });
    }

    /// All that comes for a fetch has come.
    pub(super) fn on_fetched(&mut self, facts: &Facts, out: &mut Outbox, job: JobId, round: u64) {
        let Some(incoming) = self.jobs.get_mut(&job) else { return };
        if let Some(active) = incoming.active.as_mut().filter(|active| active.round == Some(round))
        {
            (active.round, active.since) = (None, facts.now);
            self.go_on(facts, out, job);
        }
    }

    /// Goes on with a fetch of which everything has come, if all of that is durable.
    pub(super) fn go_on(&mut self, facts: &Facts, out: &mut Outbox, job: JobId) {
        let Some(incoming) = self.jobs.get_mut(&job) else { return };
        let awaits = |part: &EdgeCoverage| {
            facts.ledger.edge(job, part.edge).is_some_and(|held| held.awaits(part))
        };
        let ready =
            |active: &mut Fetching| active.round.is_none() && !active.page.iter().any(awaits);
        let Some(active) = incoming.active.take_if(ready) else { return };
        let Fetching { from, missing, offer, page, .. } = active;
        let wanted = missing_of(facts, job, &page);
        if !wanted.is_empty() && numbers(&wanted) < missing {
            // As long as something comes, there may be more than fits one fetch.
            return self.fetch_page(facts, out, job, from, (offer, page), wanted);
        }
        // It wants to hear what is durable now.
        say_have(facts, out, from, job, offer, &page, false);
        self.fetch_offered(facts, out, job);
    }
}

/// What this node owns of an offer and does not hold.
fn missing_of(facts: &Facts, job: JobId, offered: &[EdgeCoverage]) -> Vec<EdgeCoverage> {
    let wanted = owned(facts, job, offered);
    match facts.ledger.job(job) {
        Some(held) => held.missing(&wanted),
        None => wanted,
    }
}

/// What this node owns of a page of an offer.
pub(super) fn owned(facts: &Facts, job: JobId, offered: &[EdgeCoverage]) -> Vec<EdgeCoverage> {
    let mine = facts.placement(job).slots_of(facts.config.node);
    let parts = offered.iter().map(|offer| (offer.slots.and(mine), offer));
    let parts = parts.filter(|(slots, _)| !slots.is_empty());
    parts.map(|(slots, offer)| EdgeCoverage { slots, ..offer.clone() }).collect()
}

/// Says what is held durably of a page of an offer, for the first time or again.
pub(super) fn say_have(
    facts: &Facts,
    out: &mut Outbox,
    to: NodeId,
    job: JobId,
    round: u64,
    offered: &[EdgeCoverage],
    first: bool,
) {
    // Of what others own a copy may go at any time.
    let mut have = Vec::new();
    if let Some(held) = facts.ledger.job(job) {
        for offer in owned(facts, job, offered) {
            if let Some(edge) = held.edge(offer.edge) {
                have.extend(edge.held_of(&offer, true));
            }
        }
    }
    let log = facts.config.log;
    let mut pages = peer::pages(have);
    let last = pages.pop().unwrap_or_default();
    for (held, done) in pages.into_iter().map(|page| (page, false)).chain([(last, first)]) {
        out.send(to, PeerMessage::Have { job, round, done, log, held });
    }
}
