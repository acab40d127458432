//! Work on slots: wait until they are complete, close their gaps, then fold or look up.
//!
//! Gaps are closed from the slots' other owners, then from anyone. What nobody has is reported to
//! whoever asked for the work, and in the end the client is asked to send it again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use cortado_protocol::job::JobEntry;
use cortado_protocol::peer::{self, EdgeCoverage, PeerMessage, Work};
use cortado_protocol::{Coverage, Edge, JobId, META_SLOT, NodeId, Slot, SlotSet, frame, limits};

use crate::config::PlantedBug;
use crate::facts::Facts;
use crate::job::up_to;
use crate::ledger::index::numbers;
use crate::outbox::Outbox;
use crate::purpose::{Purpose, WorkKey};
use crate::stream_task::SlotIds;
use crate::task::{Task, TaskOutput};

/// How long a source is given to answer before the next one is asked.
const SOURCE_PATIENCE: Duration = Duration::from_secs(2);
/// What is to be done once the slots are complete.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Fold,
    Lookup {
        table: usize,
        keys: Vec<(Slot, Vec<Vec<u8>>)>,
    },
    /// Fold windows of a stream.
    Windows(Arc<cortado_stream::Wanted>),
    /// Read the events of a stream.
    Events,
    /// Only be complete.
    Gather,
}

impl Kind {
    /// Whether the specification must be known.
    fn needs_plan(&self) -> bool {
        !matches!(self, Self::Events | Self::Gather)
    }
}

/// What a coordinator wants: these slots, complete for these batches.
pub(crate) struct Wanted {
    pub(crate) job: JobId,
    pub(crate) slots: SlotSet,
    pub(crate) needs: Vec<(Edge, Coverage)>,
    pub(crate) kind: Kind,
}

struct Asking {
    source: NodeId,
    round: u64,
    since: Duration,
    missing: u64,
}

struct SlotWork {
    job: JobId,
    slots: SlotSet,
    needs: Vec<(Edge, Coverage)>,
    kind: Kind,
    sources: VecDeque<NodeId>,
    /// Which page of what is missing the next source is asked for.
    page: usize,
    asking: Option<Asking>,
    running: bool,
}

/// How long it is remembered that the outputs of some work were sent.
const SENT_FOR: Duration = Duration::from_secs(600);

/// How long the ids of a stream are kept of which no slots are folded here any more.
const IDS_FOR: Duration = Duration::from_secs(600);

/// Outputs that were queued for a coordinator.
struct Sent {
    at: Duration,
    /// How often what was queued for the coordinator had been lost at that moment.
    losses: u64,
}

/// Work this node does for coordinators, its own included.
#[derive(Default)]
pub(crate) struct SlotTasks {
    all: BTreeMap<WorkKey, SlotWork>,
    /// Work that is done. A coordinator that waits for its outputs asks again; as long as they are on their
    /// way, nothing is computed twice.
    sent: BTreeMap<WorkKey, Sent>,
    /// The ids that are known of streams, and when they were used last.
    ids: BTreeMap<JobId, (Duration, Arc<Mutex<SlotIds>>)>,
}

impl SlotTasks {
    pub(crate) fn is_busy(&self) -> bool {
        !self.all.is_empty()
    }
}

impl SlotTasks {
    /// A coordinator asks for work; a request seen before is not started again. `losses` counts how often what
    /// was queued for the coordinator was lost ([`crate::link::Links::losses`]).
    pub(crate) fn start(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        key: WorkKey,
        wanted: Wanted,
        losses: u64,
    ) {
        let Wanted { job, slots, needs, kind } = wanted;
        if self.all.contains_key(&key) {
            return;
        }
        if self.sent.get(&key).is_some_and(|sent| sent.losses == losses) {
            return;
        }
        let sources = sources(facts, job, slots);
        let work =
            SlotWork { job, slots, needs, kind, sources, page: 0, asking: None, running: false };
        self.all.insert(key, work);
        self.advance(facts, out, key);
    }

    /// Goes on with some work as far as it goes.
    fn advance(&mut self, facts: &Facts, out: &mut Outbox, key: WorkKey) {
        let Some(work) = self.all.get(&key) else { return };
        if work.running || work.asking.is_some() {
            return;
        }
        let job = work.job;
        let retired = retired_of(facts, work);
        if !retired.is_empty() {
            self.all.remove(&key);
            return say_incomplete(out, key, job, retired);
        }
        let gaps = gaps_of(facts, work);
        if gaps.is_empty() {
            let pending = facts.ledger.job(job).is_some_and(|held| {
                let edges = work.needs.iter().filter_map(|(edge, _)| held.edge(*edge));
                edges.into_iter().any(|edge| edge.has_pending(work.slots))
            });
            let spec_pending = work.kind.needs_plan() && facts.plan_of(job).is_none();
            if !pending && !spec_pending {
                self.run(facts, out, key);
            }
            return;
        }
        let missing = numbers(&gaps);
        let round = out.fresh_id();
        let now = facts.now;
        let work = self.all.get_mut(&key).expect("looked up above");
        let Some(source) = work.sources.pop_front() else {
            self.all.remove(&key);
            return say_incomplete(out, key, job, gaps);
        };
        work.asking = Some(Asking { source, round, since: now, missing });
        let mut pages = peer::pages(gaps);
        let page = work.page.min(pages.len() - 1);
        let wanted = pages.swap_remove(page);
        out.send(source, PeerMessage::Fetch { job, round, wanted });
    }

    fn run(&mut self, facts: &Facts, out: &mut Outbox, key: WorkKey) {
        let Some(work) = self.all.get_mut(&key) else { return };
        let (job, slots, kind) = (work.job, work.slots, work.kind.clone());
        work.running = true;
        let (plan, memory) = (facts.plan_of(job), facts.config.memory.fold);
        let needs = &self.all[&key].needs;
        let task = match (kind, plan) {
            (Kind::Gather, _) => {
                self.all.remove(&key);
                slots.iter().for_each(|slot| send_output(out, key, job, slot, &Bytes::new()));
                return;
            }
            (Kind::Events, _) => {
                let entries = facts.located(job, needs.iter(), slots);
                Task::ReadEvents { slots, entries, memory }
            }
            (_, None) => return,
            (Kind::Fold, Some(plan)) => {
                let entries = facts.located(job, needs.iter(), slots);
                let float_sums = facts.config.planted == Some(PlantedBug::FloatSums);
                Task::Fold { plan, slots, entries, memory, float_sums }
            }
            (Kind::Lookup { table, keys }, Some(plan)) => {
                let of_table = needs.iter().filter(|(edge, _)| *edge == Edge::table(table));
                let entries = facts.located(job, of_table, slots);
                Task::Lookup { plan, table, keys, entries, memory }
            }
            (Kind::Windows(wanted), Some(plan)) => {
                let entries = facts.located(job, needs.iter(), slots);
                let (used, ids) = self.ids.entry(job).or_default();
                *used = facts.now;
                let ids = Arc::clone(ids);
                Task::Windows { plan, slots, wanted, ids, entries, memory }
            }
        };
        out.run(task, Purpose::Work(key));
    }

    /// A task of some work has ended. What it could not read is missing from now on, and fetched again.
    pub(crate) fn on_task(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        key: WorkKey,
        losses: u64,
        output: TaskOutput,
    ) {
        let Some(work) = self.all.get_mut(&key) else { return };
        let job = work.job;
        match output {
            TaskOutput::Outputs(outputs) => {
                self.all.remove(&key);
                if key.0 == facts.config.node || facts.members.is_reachable(key.0) {
                    self.sent.insert(key, Sent { at: facts.now, losses });
                }
                for (slot, bytes) in outputs {
                    send_output(out, key, job, slot, &bytes);
                }
            }
            TaskOutput::Unreadable(_) => {
                work.running = false;
                work.sources = sources(facts, job, work.slots);
                self.advance(facts, out, key);
            }
            TaskOutput::Failed(message) => {
                self.all.remove(&key);
                out.send(key.0, PeerMessage::WorkFailed { job, attempt: key.1, message });
            }
            other => tracing::error!(?other, "a task of slot work gave something else"),
        }
    }

    /// A fetch of some work ended; returns whether the round was one of them.
    pub(crate) fn fetched(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        from: NodeId,
        round: u64,
    ) -> bool {
        let waits = |work: &SlotWork| work.asking.as_ref().is_some_and(|a| a.round == round);
        let Some(key) = self.all.iter().find(|(_, w)| waits(w)).map(|(key, _)| *key) else {
            return false;
        };
        let missing = gaps_of(facts, &self.all[&key]);
        let gaps = numbers(&missing);
        let pages = peer::pages(missing).len();
        let work = self.all.get_mut(&key).expect("found above");
        let before = work.asking.take().map_or(0, |asking| asking.missing);
        // If it had something, it may have more: a large fetch comes in several rounds. If it had
        // nothing of this page, there is the next one.
        work.page = if gaps < before { work.page } else { work.page + 1 };
        if gaps > 0 && work.page < pages {
            work.sources.push_front(from);
        } else {
            work.page = 0;
        }
        self.advance(facts, out, key);
        true
    }

    /// Something of the job is durable here, or no longer on its way.
    pub(crate) fn after_append(&mut self, facts: &Facts, out: &mut Outbox, job: JobId) {
        let waits = |work: &SlotWork| work.job == job && !work.running && work.asking.is_none();
        let keys: Vec<_> = self.all.iter().filter(|(_, w)| waits(w)).map(|(key, _)| *key).collect();
        for key in keys {
            self.advance(facts, out, key);
        }
    }

    /// The disk refused something of a job: work that misses anything can't be done here, but
    /// perhaps by an owner with room.
    pub(crate) fn without_room(&mut self, facts: &Facts, out: &mut Outbox, job: JobId) {
        let stuck = |work: &SlotWork| {
            let gaps = if work.job == job && !work.running { gaps_of(facts, work) } else { vec![] };
            (!gaps.is_empty()).then_some(gaps)
        };
        let works = self.all.iter();
        let stuck: Vec<_> = works.filter_map(|(key, work)| Some((*key, stuck(work)?))).collect();
        for (key, missing) in stuck {
            self.all.remove(&key);
            say_incomplete(out, key, job, missing);
        }
    }

    pub(crate) fn tick(&mut self, facts: &Facts, out: &mut Outbox) {
        let now = facts.now;
        self.sent.retain(|_, sent| now < sent.at + SENT_FOR);
        self.ids.retain(|_, (used, _)| now < *used + IDS_FOR);
        self.retry(facts, out, |asking| now >= asking.since + SOURCE_PATIENCE);
    }

    /// The members changed.
    pub(crate) fn after_change(&mut self, facts: &Facts, out: &mut Outbox) {
        self.retry(facts, out, |asking| !facts.members.is_reachable(asking.source));
        // A coordinator that is down will ask again, or its successor will.
        self.all.retain(|key, _| facts.members.is_reachable(key.0));
    }

    fn retry(&mut self, facts: &Facts, out: &mut Outbox, stuck: impl Fn(&Asking) -> bool) {
        let stuck_keys: Vec<_> = self
            .all
            .iter()
            .filter(|(_, work)| work.asking.as_ref().is_some_and(&stuck))
            .map(|(key, _)| *key)
            .collect();
        for key in stuck_keys {
            if let Some(work) = self.all.get_mut(&key) {
                work.asking = None;
                work.page = 0;
            }
            self.advance(facts, out, key);
        }
    }

    /// The job is gone.
    pub(crate) fn forget(&mut self, job: JobId) {
        self.all.retain(|_, work| work.job != job);
        self.ids.remove(&job);
    }
}

/// What a message asks for, and the batches that the work needs; nothing if that can't be read. A
/// coordinator of tables says how many batches each of them has.
pub(crate) fn wanted_of(
    from: NodeId,
    work: Work,
    (ends, tail): (&[u64], &Bytes),
) -> Option<(Kind, Vec<(Edge, Coverage)>)> {
    let read = match work {
        Work::Fold => Ok((Kind::Fold, up_to(ends))),
        Work::Lookup { table } => frame::from_postcard(tail)
            .map(|keys| (Kind::Lookup { table: usize::from(table), keys }, up_to(ends))),
        Work::Windows => frame::from_postcard::<cortado_stream::Wanted>(tail).map(|wanted| {
            let needs = wanted.all_batches().into_iter().collect();
            (Kind::Windows(Arc::new(wanted)), needs)
        }),
        Work::Events => frame::from_postcard(tail).map(|batches| (Kind::Events, vec![batches])),
        Work::Complete => frame::from_postcard(tail).map(|batches| (Kind::Gather, vec![batches])),
    };
    read.inspect_err(|error| tracing::warn!(%from, %error, "refused work that can't be read")).ok()
}

/// Everyone who may have what is missing: the other owners first.
fn sources(facts: &Facts, job: JobId, slots: SlotSet) -> VecDeque<NodeId> {
    let placement = facts.placement(job);
    let me = facts.config.node;
    let owners: Vec<_> = placement
        .by_owner
        .iter()
        .filter(|(owner, owned)| *owner != me && !owned.and(slots).is_empty())
        .map(|(owner, _)| *owner)
        .collect();
    let others = facts.members.reachable.iter().filter(|n| **n != me && !owners.contains(n));
    owners.iter().chain(others).copied().collect()
}

/// Says what is missing; of a long list its beginning, which is enough to go on with.
fn say_incomplete(out: &mut Outbox, key: WorkKey, job: JobId, gaps: Vec<EdgeCoverage>) {
    let missing = peer::first_page(gaps);
    out.send(key.0, PeerMessage::Incomplete { job, attempt: key.1, missing });
}

/// Batches whose events are wanted, although they are retired here: a fold of other windows does not need
/// them, and whoever reads them has to know that they are gone.
fn retired_of(facts: &Facts, work: &SlotWork) -> Vec<EdgeCoverage> {
    let wanted = work.needs.iter().filter(|_| matches!(work.kind, Kind::Events));
    let retired = wanted.map(|(edge, coverage)| {
        let retired = Coverage::range(0, facts.ledger.floor(work.job, *edge));
        EdgeCoverage { edge: *edge, slots: work.slots, coverage: coverage.and(&retired) }
    });
    retired.filter(|part| !part.coverage.is_empty()).collect()
}

/// What is missing for some work, the specification included.
fn gaps_of(facts: &Facts, work: &SlotWork) -> Vec<EdgeCoverage> {
    if facts.config.planted == Some(PlantedBug::FinishWithGap)
        && work.slots != SlotSet::META
        && facts.plan_of(work.job).is_some()
    {
        return Vec::new();
    }
    let slots = work.slots;
    let wanted = work.needs.iter().map(|(edge, coverage)| {
        let (edge, coverage) = (*edge, coverage.clone());
        EdgeCoverage { edge, slots, coverage }
    });
    let wanted: Vec<_> = wanted.collect();
    let mut gaps = match facts.ledger.job(work.job) {
        Some(held) => held.missing(&wanted),
        None => wanted.into_iter().filter(|gap| !gap.coverage.is_empty()).collect(),
    };
    let spec = facts.ledger.edge(work.job, Edge::JOB);
    let spec_held = spec.is_some_and(|edge| edge.slots(0, false).contains(META_SLOT));
    if work.kind.needs_plan() && !spec_held && facts.plan_of(work.job).is_none() {
        let coverage = Coverage::range(0, JobEntry::NUMBERS);
        gaps.push(EdgeCoverage { edge: Edge::JOB, slots: SlotSet::META, coverage });
    }
    gaps
}

fn send_output(out: &mut Outbox, key: WorkKey, job: JobId, slot: Slot, bytes: &Bytes) {
    let parts = bytes.len().div_ceil(limits::CHUNK_BYTES).max(1);
    for part in 0..parts {
        let start = part * limits::CHUNK_BYTES;
        let end = bytes.len().min(start + limits::CHUNK_BYTES);
        let (part, parts) = (part as u32, parts as u32);
        let message = PeerMessage::Output { job, attempt: key.1, slot, part, parts };
        out.send_with(key.0, message, bytes.slice(start..end));
    }
}
