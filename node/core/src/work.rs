//! Work on slots: wait until they are complete, close their gaps, then fold or look up.
//!
//! Gaps are closed from the slots' other owners, then from anyone. What nobody has is reported to
//! whoever asked for the work, and in the end the client is asked to send it again.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use cortado_protocol::peer::{self, EdgeCoverage, PeerMessage, Work};
use cortado_protocol::{
    Coverage, Edge, EntryKey, JobId, META_SLOT, NodeId, Slot, SlotSet, frame, limits,
};

use crate::holdings::numbers;
use crate::task::{Located, Purpose, Task, TaskOutput};
use crate::{Core, PlantedBug};

/// How long a source is given to answer before the next one is asked.
const SOURCE_PATIENCE: Duration = Duration::from_secs(2);
/// Numbers of the job log's edge that can exist.
pub(crate) const JOB_LOG_NUMBERS: u64 = 16 + limits::TABLES as u64;

/// Who asked, and the number of the request.
pub(crate) type WorkKey = (NodeId, u64);

/// What is to be done once the slots are complete.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Fold,
    Lookup {
        table: usize,
        keys: Vec<(Slot, Vec<Vec<u8>>)>,
    },
    /// Only be complete.
    Gather,
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
    ends: Vec<u64>,
    kind: Kind,
    sources: VecDeque<NodeId>,
    /// Which page of what is missing the next source is asked for.
    page: usize,
    asking: Option<Asking>,
    running: bool,
}

/// How long it is remembered that the outputs of some work were sent.
const SENT_FOR: Duration = Duration::from_secs(600);

/// Outputs that were queued for a home.
struct Sent {
    at: Duration,
    /// [`crate::link::Links::losses`] at that moment.
    losses: u64,
}

/// Work this node does for homes, its own included.
#[derive(Default)]
pub(crate) struct Works {
    all: BTreeMap<WorkKey, SlotWork>,
    /// Work that is done. A home that waits for its outputs asks again; as long as they are on their
    /// way, nothing is computed twice.
    sent: BTreeMap<WorkKey, Sent>,
}

impl Works {
    pub(crate) fn is_busy(&self) -> bool {
        !self.all.is_empty()
    }
}

impl Core {
    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(crate) fn on_work(
        &mut self,
        from: NodeId,
        job: JobId,
        attempt: u64,
        slots: SlotSet,
        ends: Vec<u64>,
        work: Work,
        tail: &Bytes,
    ) {
        let kind = match work {
            Work::Fold => Kind::Fold,
            Work::Lookup { table } => match frame::from_postcard(tail) {
                Ok(keys) => Kind::Lookup { table: usize::from(table), keys },
                Err(error) => {
                    tracing::warn!(%from, %error, "refused a lookup that can't be read");
                    return;
                }
            },
        };
        self.start_work((from, attempt), job, slots, ends, kind);
    }

    /// Starts work for this node or another one; a request seen before is not started again.
    pub(crate) fn start_work(
        &mut self,
        key: WorkKey,
        job: JobId,
        slots: SlotSet,
        ends: Vec<u64>,
        kind: Kind,
    ) {
        if ends.len() > limits::TABLES || self.works.all.contains_key(&key) {
            return;
        }
        let losses = self.links.losses(key.0);
        if self.works.sent.get(&key).is_some_and(|sent| sent.losses == losses) {
            return;
        }
        let sources = self.sources(job, slots);
        let work =
            SlotWork { job, slots, ends, kind, sources, page: 0, asking: None, running: false };
        self.works.all.insert(key, work);
        self.advance_work(key);
    }

    /// Everyone who may have what is missing: the other owners first.
    fn sources(&mut self, job: JobId, slots: SlotSet) -> VecDeque<NodeId> {
        let placement = self.facts.placement(job);
        let me = self.facts.config.node;
        let owners: Vec<_> = placement
            .by_owner
            .iter()
            .filter(|(owner, owned)| *owner != me && !owned.and(slots).is_empty())
            .map(|(owner, _)| *owner)
            .collect();
        let others =
            self.facts.members.reachable.iter().filter(|n| **n != me && !owners.contains(n));
        owners.iter().chain(others).copied().collect()
    }

    fn advance_work(&mut self, key: WorkKey) {
        let Some(work) = self.works.all.get(&key) else { return };
        if work.running || work.asking.is_some() {
            return;
        }
        let job = work.job;
        let gaps = self.work_gaps(work);
        if gaps.is_empty() {
            let pending = self.facts.holdings.job(job).is_some_and(|held| {
                let tables = (0..work.ends.len()).filter_map(|table| held.edge(Edge::table(table)));
                tables.into_iter().any(|edge| edge.has_pending(work.slots))
            });
            let spec_pending =
                !matches!(work.kind, Kind::Gather) && self.facts.plan_of(job).is_none();
            if !pending && !spec_pending {
                self.run_work(key);
            }
            return;
        }
        let missing = numbers(&gaps);
        let round = self.out.fresh_id();
        let now = self.facts.now;
        let work = self.works.all.get_mut(&key).expect("looked up above");
        let Some(source) = work.sources.pop_front() else {
            self.works.all.remove(&key);
            return self.say_incomplete(key, job, gaps);
        };
        work.asking = Some(Asking { source, round, since: now, missing });
        let mut pages = peer::pages(gaps);
        let page = work.page.min(pages.len() - 1);
        let wanted = pages.swap_remove(page);
        self.out.send(source, PeerMessage::Fetch { job, round, wanted });
    }

    /// Says what is missing; of a long list its beginning, which is enough to go on with.
    fn say_incomplete(&mut self, key: WorkKey, job: JobId, gaps: Vec<EdgeCoverage>) {
        let missing = peer::first_page(gaps);
        self.out.send(key.0, PeerMessage::Incomplete { job, attempt: key.1, missing });
    }

    /// What is missing for some work, the specification included.
    fn work_gaps(&self, work: &SlotWork) -> Vec<EdgeCoverage> {
        if self.facts.config.planted == Some(PlantedBug::FinishWithGap)
            && work.slots != SlotSet::META
            && self.facts.plan_of(work.job).is_some()
        {
            return Vec::new();
        }
        let mut wanted = Vec::new();
        for (table, end) in work.ends.iter().enumerate() {
            let (edge, coverage) = (Edge::table(table), Coverage::range(0, *end));
            wanted.push(EdgeCoverage { edge, slots: work.slots, coverage });
        }
        let mut gaps = match self.facts.holdings.job(work.job) {
            Some(held) => held.missing(&wanted),
            None => wanted.into_iter().filter(|gap| !gap.coverage.is_empty()).collect(),
        };
        let spec = self.facts.holdings.edge(work.job, Edge::JOB);
        let spec_held = spec.is_some_and(|edge| edge.slots(0, false).contains(META_SLOT));
        if !matches!(work.kind, Kind::Gather)
            && !spec_held
            && self.facts.plan_of(work.job).is_none()
        {
            let coverage = Coverage::range(0, JOB_LOG_NUMBERS);
            gaps.push(EdgeCoverage { edge: Edge::JOB, slots: SlotSet::META, coverage });
        }
        gaps
    }

    fn run_work(&mut self, key: WorkKey) {
        let Some(work) = self.works.all.get_mut(&key) else { return };
        let (job, slots, kind) = (work.job, work.slots, work.kind.clone());
        let ends = work.ends.clone();
        work.running = true;
        let plan = self.facts.plan_of(job);
        let task = match (kind, plan) {
            (Kind::Gather, _) => {
                self.works.all.remove(&key);
                let (attempt, slot) = (key.1, META_SLOT);
                let done = PeerMessage::Output { job, attempt, slot, part: 0, parts: 1 };
                return self.out.send(key.0, done);
            }
            (_, None) => return,
            (Kind::Fold, Some(plan)) => {
                let entries = self.located(job, 0..ends.len(), slots, &ends);
                let float_sums = self.facts.config.planted == Some(PlantedBug::FloatSums);
                let memory = self.facts.config.memory.fold;
                Task::Fold { plan, slots, entries, memory, float_sums }
            }
            (Kind::Lookup { table, keys }, Some(plan)) => {
                let entries = self.located(job, table..table + 1, slots, &ends);
                let memory = self.facts.config.memory.fold;
                Task::Lookup { plan, table, keys, entries, memory }
            }
        };
        self.out.run(task, Purpose::Work(key));
    }

    /// The durable entries of some tables that speak for any of the slots. Batches beyond a table's
    /// declared end belong to nothing: they are left out.
    pub(crate) fn located(
        &self,
        job: JobId,
        tables: impl Iterator<Item = usize>,
        slots: SlotSet,
        ends: &[u64],
    ) -> Vec<Located> {
        let mut all = Vec::new();
        for table in tables {
            let edge = Edge::table(table);
            let end = ends.get(table).copied().unwrap_or_default();
            if let Some(held) = self.facts.holdings.edge(job, edge) {
                let key = |number| EntryKey { job, edge, number };
                let records = held.records(slots).take_while(|(number, ..)| *number < end);
                all.extend(records.map(|(number, record, slots)| (key(number), record, slots)));
            }
        }
        all
    }

    pub(crate) fn on_work_task(&mut self, key: WorkKey, output: TaskOutput) {
        let Some(work) = self.works.all.get_mut(&key) else { return };
        let job = work.job;
        match output {
            TaskOutput::Outputs(outputs) => {
                self.works.all.remove(&key);
                if key.0 == self.facts.config.node || self.facts.members.is_reachable(key.0) {
                    let sent = Sent { at: self.facts.now, losses: self.links.losses(key.0) };
                    self.works.sent.insert(key, sent);
                }
                for (slot, bytes) in outputs {
                    self.send_output(key, job, slot, &bytes);
                }
            }
            TaskOutput::Unreadable(entries) => {
                let slots = work.slots;
                work.running = false;
                self.drop_unreadable(&entries);
                let sources = self.sources(job, slots);
                if let Some(work) = self.works.all.get_mut(&key) {
                    work.sources = sources;
                }
                self.advance_work(key);
            }
            TaskOutput::Failed(message) => {
                self.works.all.remove(&key);
                self.out.send(key.0, PeerMessage::WorkFailed { job, attempt: key.1, message });
            }
            other => tracing::error!(?other, "a task of slot work gave something else"),
        }
    }

    fn send_output(&mut self, key: WorkKey, job: JobId, slot: Slot, bytes: &Bytes) {
        let parts = bytes.len().div_ceil(limits::CHUNK_BYTES).max(1);
        for part in 0..parts {
            let start = part * limits::CHUNK_BYTES;
            let end = bytes.len().min(start + limits::CHUNK_BYTES);
            let (part, parts) = (part as u32, parts as u32);
            let message = PeerMessage::Output { job, attempt: key.1, slot, part, parts };
            self.out.send_with(key.0, message, bytes.slice(start..end));
        }
    }

    pub(crate) fn drop_unreadable(&mut self, entries: &[Located]) {
        for (key, record, _) in entries {
            self.on_unreadable(*key, *record);
        }
    }

    /// A fetch of some work ended; returns whether the round was one of them.
    pub(crate) fn work_fetched(&mut self, from: NodeId, round: u64) -> bool {
        let waits = |work: &SlotWork| work.asking.as_ref().is_some_and(|a| a.round == round);
        let Some(key) = self.works.all.iter().find(|(_, w)| waits(w)).map(|(key, _)| *key) else {
            return false;
        };
        let missing = self.work_gaps(&self.works.all[&key]);
        let gaps = numbers(&missing);
        let pages = peer::pages(missing).len();
        let work = self.works.all.get_mut(&key).expect("found above");
        let before = work.asking.take().map_or(0, |asking| asking.missing);
        // If it had something, it may have more: a large fetch comes in several rounds. If it had
        // nothing of this page, there is the next one.
        work.page = if gaps < before { work.page } else { work.page + 1 };
        if gaps > 0 && work.page < pages {
            work.sources.push_front(from);
        } else {
            work.page = 0;
        }
        self.advance_work(key);
        true
    }

    pub(crate) fn works_after_append(&mut self, job: JobId) {
        let waits = |work: &SlotWork| work.job == job && !work.running && work.asking.is_none();
        let keys: Vec<_> =
            self.works.all.iter().filter(|(_, w)| waits(w)).map(|(key, _)| *key).collect();
        for key in keys {
            self.advance_work(key);
        }
    }

    /// The disk refused something of a job: work that misses anything can't be done here, but
    /// perhaps by an owner with room.
    pub(crate) fn works_without_room(&mut self, job: JobId) {
        let stuck = |work: &SlotWork| {
            let gaps = if work.job == job && !work.running { self.work_gaps(work) } else { vec![] };
            (!gaps.is_empty()).then_some(gaps)
        };
        let works = self.works.all.iter();
        let stuck: Vec<_> = works.filter_map(|(key, work)| Some((*key, stuck(work)?))).collect();
        for (key, missing) in stuck {
            self.works.all.remove(&key);
            self.say_incomplete(key, job, missing);
        }
    }

    pub(crate) fn tick_works(&mut self) {
        let now = self.facts.now;
        self.works.sent.retain(|_, sent| now < sent.at + SENT_FOR);
        self.retry_works(|asking, _| now >= asking.since + SOURCE_PATIENCE);
    }

    pub(crate) fn works_after_change(&mut self) {
        self.retry_works(|asking, core| !core.facts.members.is_reachable(asking.source));
        // A home that is down will ask again, or its successor will.
        let reachable = self.facts.members.reachable.clone();
        self.works.all.retain(|key, _| reachable.binary_search(&key.0).is_ok());
    }

    fn retry_works(&mut self, stuck: impl Fn(&Asking, &Self) -> bool) {
        let stuck_keys: Vec<_> = self
            .works
            .all
            .iter()
            .filter(|(_, work)| work.asking.as_ref().is_some_and(|asking| stuck(asking, self)))
            .map(|(key, _)| *key)
            .collect();
        for key in stuck_keys {
            if let Some(work) = self.works.all.get_mut(&key) {
                work.asking = None;
                work.page = 0;
            }
            self.advance_work(key);
        }
    }

    pub(crate) fn works_forget(&mut self, job: JobId) {
        self.works.all.retain(|_, work| work.job != job);
    }
}
