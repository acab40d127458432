//! Streams: the first live owner of a stream's meta slot reads the summaries of all batches, closes
//! windows by the watermark, lets the slots fold them, and publishes. The router calls it.
//!
//! ```text
//!            ┌──────────── read (summaries, outputs) ◀─┐
//!            ▼                                         │
//!          idle ──(a window is closed)──▶ fold ──▶ publish ──▶ write ──(on W nodes)──▶ idle
//!            │
//!            └──(stopped, all publishers ended, all published)──▶ ask all members ──▶ close
//! ```
//!
//! What is published together is of one *cut*: the gap-free prefixes of all publishers that were
//! read. It is one batch of an edge that only this coordinator writes, during this tenure: so two
//! coordinators never write the same number. A round that can't go on starts over from the ledgers;
//! only a batch that is being written is written to the end, byte for byte.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cortado_protocol::client::ClientError;
use cortado_protocol::entry::Entry;
use cortado_protocol::job::{JobEntry, Manifest, ResultFile};
use cortado_protocol::peer::{EdgeCoverage, PeerMessage};
use cortado_protocol::{
    Coverage, Edge, EntryKey, JobId, NodeId, Slot, SlotSet, content_hash, frame,
};
use cortado_stream::{Known, OutputBatch, StreamPlan, Touch};

use crate::config::PlantedBug;
use crate::facts::Facts;
use crate::job::{JobLog, job_log_entry};
use crate::outbox::Outbox;
use crate::purpose::Purpose;
use crate::slot_round::SlotRound;
use crate::stream_log::StreamLog;
use crate::stream_task::{Making, PublishedBatch, StreamOutput, StreamTask};
use crate::task::{Task, TaskOutput};

mod age;
mod deliveries;
mod delivering;
mod events;
mod promises;
mod reading;
pub(crate) mod requests;
mod retiring;
mod sealing;
mod state;
mod status;
mod stream;

use events::Reads;
use state::Round;
use stream::{Step, Stream};

/// The result file of a stream that has ended.
const SUMMARY_FILE: &str = "stream.json";
/// Pause between two rounds.
const ROUND_EVERY: Duration = Duration::from_millis(100);
/// Pause after a step that failed.
const RETRY_AFTER: Duration = Duration::from_millis(300);
/// How long a new coordinator waits for what others hold before it publishes.
const SETTLE: Duration = Duration::from_secs(1);
/// Time without a new batch after which gaps are fetched from other nodes.
const QUIET_BEFORE_GATHER: Duration = Duration::from_secs(1);

/// The streams that this node coordinates.
#[derive(Default)]
pub(crate) struct Streams {
    all: BTreeMap<JobId, Stream>,
    /// Clients that read events.
    reads: Reads,
}

/// What the router has to do next.
#[must_use]
pub(crate) enum Next {
    Nothing,
    /// Send this entry to its owners.
    Replicate(Box<Entry>),
    /// Close the gaps of the meta slot here for these batches, under this attempt number.
    Gather {
        job: JobId,
        attempt: u64,
        needs: Vec<(Edge, Coverage)>,
    },
}

impl Streams {
    /// The streams, in id order.
    pub(crate) fn jobs(&self) -> Vec<JobId> {
        self.all.keys().copied().collect()
    }

    /// Whether this node coordinates the stream: then it is alive, whether anything comes or not.
    pub(crate) fn works(&self, job: JobId) -> bool {
        self.all.contains_key(&job)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The job was dropped.
    pub(crate) fn forget(&mut self, out: &mut Outbox, job: JobId) {
        self.all.remove(&job);
        self.reads.forget(out, job);
    }

    /// Goes on with what clients read.
    pub(crate) fn tick(&mut self, facts: &Facts, out: &mut Outbox) {
        self.reads.tick(facts, out);
        self.take_checked(facts);
    }

    /// Performs the steps of a stream that are possible now.
    pub(crate) fn drive(&mut self, facts: &Facts, out: &mut Outbox, job: JobId) -> Next {
        let Some((log, plan, slots)) = open_stream(facts, job) else {
            self.all.remove(&job);
            return Next::Nothing;
        };
        let now = facts.now;
        let stream = self.all.entry(job).or_insert_with(|| {
            let edge = Edge::output(facts.config.node, out.fresh_id());
            Stream::new(now, edge, Arc::clone(plan), slots)
        });
        stream.state.expect(now, &log.stream);
        if now < stream.resume_at {
            return Next::Nothing;
        }
        stream.give_up_frozen(facts, out, job);
        stream.deliver(facts, out, job);
        match &mut stream.step {
            Step::Idle => stream.go_on(facts, out, (job, log), &mut self.reads),
            Step::Seal { entry, sent: sent @ false } => {
                *sent = true;
                Next::Replicate(Box::new(entry.clone()))
            }
            Step::Fold { slots, .. } => {
                slots.ask(facts, out, job, &[]);
                stream.folded(facts, out, job)
            }
            Step::Write { entry, sent: sent @ false, .. } => {
                *sent = true;
                Next::Replicate(Box::new(entry.clone()))
            }
            Step::Close { summary, written, sent: sent @ false } => {
                *sent = true;
                let manifest = || manifest(job, summary);
                Next::Replicate(Box::new(if *written { manifest() } else { summary.clone() }))
            }
            Step::Read
            | Step::Gather(_)
            | Step::Ask(_)
            | Step::Publish
            | Step::Write { .. }
            | Step::Seal { .. }
            | Step::Close { .. } => Next::Nothing,
        }
    }

    /// Tells streams which batches of publishers that are to be sealed are whole.
    fn take_checked(&mut self, facts: &Facts) {
        for (job, edge, whole) in self.reads.take_checked() {
            if let Some(stream) = self.all.get_mut(&job) {
                stream.checked(facts, (edge, whole));
            }
        }
    }

    /// An entry is durable here.
    pub(crate) fn appended(&mut self, facts: &Facts, out: &mut Outbox, key: EntryKey) -> Next {
        if let Some(stream) = self.all.get_mut(&key.job) {
            stream.progress_at = facts.now;
        } else if key.edge != Edge::JOB {
            return Next::Nothing;
        }
        self.drive(facts, out, key.job)
    }

    /// The members changed: requests to lost ones are given up.
    pub(crate) fn after_change(&mut self, facts: &Facts, out: &mut Outbox, job: JobId) -> Next {
        self.reads.give_up_of(Some(job), |node| !facts.members.is_reachable(node));
        if let Some(stream) = self.all.get_mut(&job) {
            stream.asked = false;
            // Copies move now: what was said of them counts no more.
            stream.sealing = None;
            if let Step::Fold { slots, .. } = &mut stream.step {
                slots.give_up_of(|node| !facts.members.is_reachable(node));
            }
        }
        self.drive(facts, out, job)
    }

    /// A peer was restarted: it has lost its requests, so they are given up.
    pub(crate) fn after_restart(&mut self, peer: NodeId) {
        self.reads.give_up_of(None, |node| node == peer);
        for stream in self.all.values_mut() {
            if let Step::Fold { slots, .. } = &mut stream.step {
                slots.give_up_of(|node| node == peer);
            }
        }
    }

    /// A worker sends a part of a slot's output, or has closed the gaps of the meta slot.
    pub(crate) fn on_output(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        (job, attempt, slot): (JobId, u64, Slot),
        part: (u32, u32),
        bytes: &Bytes,
    ) -> Next {
        self.reads.on_output(facts, out, (job, attempt, slot), part, bytes);
        self.take_checked(facts);
        let Some(stream) = self.all.get_mut(&job) else { return Next::Nothing };
        match &mut stream.step {
            Step::Gather(of) if *of == attempt => {
                (stream.step, stream.progress_at) = (Step::Idle, facts.now);
            }
            Step::Fold { slots, .. } => slots.take(attempt, slot, part, bytes.clone()),
            _ => return Next::Nothing,
        }
        self.drive(facts, out, job)
    }

    /// A worker can't complete its slots: the next owners are asked, and after all of them all over
    /// again, until the batches are there.
    pub(crate) fn on_incomplete(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        (job, attempt): (JobId, u64),
        missing: &[EdgeCoverage],
    ) {
        self.reads.on_incomplete(facts, out, attempt, missing);
        self.take_checked(facts);
        let Some(stream) = self.all.get_mut(&job) else { return };
        match &mut stream.step {
            Step::Gather(of) if *of == attempt => {
                // To ask everybody may take long: something else comes first before that is done again.
                (stream.step, stream.progress_at) = (Step::Idle, facts.now);
                stream.ask_again(facts);
            }
            // Nobody has all numbers: this is the answer when everybody was asked.
            Step::Ask(of) if *of == attempt => {
                (stream.step, stream.asked) = (Step::Idle, true);
            }
            Step::Fold { slots, .. } => {
                if slots.pass_on(attempt).is_none() {
                    return;
                }
                tracing::debug!(%job, ?missing, "a worker can't complete its slots");
                // Nobody can: perhaps a publisher that is gone has to be sealed first.
                let turns = usize::from(facts.config.replicas);
                if slots.passed_on.values().any(|turn| *turn >= turns) {
                    (stream.step, stream.stuck) = (Step::Idle, true);
                }
            }
            _ => return,
        }
        stream.resume_at = facts.now + RETRY_AFTER;
    }

    /// Work on slots fails on every worker.
    pub(crate) fn on_work_failed(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        (job, attempt): (JobId, u64),
        why: &str,
    ) {
        self.reads.on_work_failed(out, attempt, why);
        self.take_checked(facts);
        let Some(stream) = self.all.get_mut(&job) else { return };
        if let Step::Fold { slots, .. } = &mut stream.step
            && slots.give_up(attempt)
        {
            stream.start_over(facts.now, job, why);
        }
    }

    /// A task has ended.
    pub(crate) fn on_task(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        job: JobId,
        output: TaskOutput,
    ) -> Next {
        let Some(stream) = self.all.get_mut(&job) else { return Next::Nothing };
        if !matches!(stream.step, Step::Read | Step::Publish) {
            return Next::Nothing;
        }
        stream.step = Step::Idle;
        match output {
            TaskOutput::Stream(StreamOutput::Summaries(briefs)) => {
                let drop_late = facts.config.planted == Some(PlantedBug::DropLate);
                let log = facts.jobs.get(job).map(|log| &log.stream);
                let seals = log.map(|log| &log.seals);
                stream.state.read((facts.now, drop_late), &stream.plan, briefs, seals);
            }
            TaskOutput::Stream(StreamOutput::Published(batches)) => {
                for batch in &batches {
                    stream.state.published(facts.now, &stream.plan, batch);
                }
            }
            TaskOutput::Stream(StreamOutput::Output(batch)) => {
                stream.step = stream.write(job, batch);
            }
            TaskOutput::Stream(StreamOutput::Touched(touches, making)) => {
                stream.leave_out(facts, out, job, (&touches, making));
            }
            TaskOutput::Mismatch(message) => {
                tracing::error!(%job, %message, "a round is not that of its batches");
                stream.start_over(facts.now, job, &message);
            }
            // What can't be read is missing from now on, and is fetched as a gap.
            TaskOutput::Unreadable(_) => stream.resume_at = facts.now + RETRY_AFTER,
            TaskOutput::Failed(message) => stream.start_over(facts.now, job, &message),
            other => tracing::error!(?other, "a task of a stream gave something else"),
        }
        self.drive(facts, out, job)
    }

    /// An entry that a coordinator wrote is durable on W nodes.
    pub(crate) fn entry_durable(&mut self, facts: &Facts, out: &mut Outbox, key: EntryKey) -> Next {
        let Some(stream) = self.all.get_mut(&key.job) else { return Next::Nothing };
        let of = |entry: &Entry| entry.head.key == key;
        match &mut stream.step {
            Step::Write { entry, .. } if of(entry) => {}
            Step::Seal { entry, .. } if of(entry) => {
                (stream.step, stream.sealing, stream.trouble) = (Step::Idle, None, None);
                return self.drive(facts, out, key.job);
            }
            Step::Close { summary, written, sent } if of(summary) => {
                (*written, *sent) = (true, false);
                return self.drive(facts, out, key.job);
            }
            _ => return Next::Nothing,
        }
        let Step::Write { batch, .. } = std::mem::replace(&mut stream.step, Step::Idle) else {
            return Next::Nothing;
        };
        stream.marked = batch.end.is_some();
        stream.stuck &= batch.windows.is_empty();
        let batch = PublishedBatch::new((key.edge, key.number), batch);
        stream.state.published(facts.now, &stream.plan, &batch);
        if let Some(left) = &batch.retired {
            let floors = left.floors((key.edge, key.number));
            tracing::info!(job = %key.job, before_ms = left.before_ms, "windows are retired");
            let retired = PeerMessage::Retired { job: key.job, floors };
            out.send_to_all(facts.roster.known(), &retired);
        }
        stream.trouble = None;
        stream.resume_at = facts.now + ROUND_EVERY;
        self.drive(facts, out, key.job)
    }

    /// An entry that a coordinator wrote could not be stored: the same one is sent again.
    pub(crate) fn entry_failed(&mut self, facts: &Facts, key: EntryKey, error: &ClientError) {
        let Some(stream) = self.all.get_mut(&key.job) else { return };
        let again = match &mut stream.step {
            Step::Write { entry, sent, .. } | Step::Seal { entry, sent }
                if entry.head.key == key =>
            {
                sent
            }
            Step::Close { sent, .. } if key.edge == Edge::RESULT || is_manifest(key) => sent,
            _ => return,
        };
        *again = false;
        stream.trouble = Some(error.message.clone());
        stream.resume_at = facts.now + RETRY_AFTER;
    }
}

/// A stream that this node coordinates and that has not ended: its log, its plan and its slots.
fn open_stream(facts: &Facts, job: JobId) -> Option<(&JobLog, &Arc<StreamPlan>, SlotSet)> {
    let log = facts.jobs.get(job)?;
    let plan = log.plan.as_ref()?;
    let slots = SlotSet::first(usize::from(plan.spec.slots));
    let open = facts.is_coordinator(job) && log.ended().is_none();
    Some((log, plan.stream.as_ref()?, slots)).filter(|_| open)
}

fn is_manifest(key: EntryKey) -> bool {
    key.edge == Edge::JOB && key.number == JobEntry::MANIFEST
}

/// The manifest of a stream that has ended. Its result is a summary; its outputs stand on their own
/// edges.
fn manifest(job: JobId, summary: &Entry) -> Entry {
    let bytes = &summary.data;
    let file = ResultFile { name: SUMMARY_FILE.to_owned(), bytes: bytes.len() as u64, rows: 0 };
    let (files, tables) = (vec![file], Vec::new());
    let done = Manifest::Done { files, chunks: 1, hash: content_hash(bytes), tables };
    job_log_entry(job, &JobEntry::Manifest(done))
}

impl Stream {
    /// Takes the next step: reads what is new, closes gaps, or begins a round.
    fn go_on(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        (job, log): (JobId, &JobLog),
        reads: &mut Reads,
    ) -> Next {
        if let Some(task) = reading::next(facts, job, &self.state) {
            self.step = Step::Read;
            out.run(Task::Stream(task), Purpose::Stream(job));
            return Next::Nothing;
        }
        let now = facts.now;
        if now >= self.progress_at + QUIET_BEFORE_GATHER {
            let mut needs = reading::gaps(facts, job, &self.state);
            needs.extend(self.missing_outputs(facts, job));
            needs.extend(self.missing_rows(facts, job));
            if !needs.is_empty() {
                let attempt = out.fresh_id();
                self.progress_at = now;
                self.step = Step::Gather(attempt);
                return Next::Gather { job, attempt, needs };
            }
        }
        if !self.is_settled_here(facts, job) {
            return Next::Nothing;
        }
        if let Some(next) = self.seal(facts, out, (job, log), reads) {
            return next;
        }
        let watermark = self.state.watermark(&log.stream, &self.plan, now);
        let frozen = facts.retention.promised(job);
        if let Some(round) = self.state.next_round(&self.plan, watermark, frozen) {
            if round.wanted.windows.is_empty() {
                return self.publish(facts, out, job, round, Vec::new());
            }
            let wanted = frame::to_postcard(&round.wanted);
            let mut slots = Box::new(SlotRound::windows(self.slots, wanted));
            slots.ask(facts, out, job, &[]);
            self.step = Step::Fold { slots, round };
            return Next::Nothing;
        }
        let is_end = self.may_close(&log.stream);
        if self.save_deliveries(facts, job, is_end) || self.retire(facts, out, (job, log), reads) {
            return Next::Nothing;
        }
        let is_delivered = self.deliveries.are_over(&self.state.outputs);
        if !is_end || !is_delivered || facts.misses_too_many() {
            return Next::Nothing;
        }
        if !self.asked {
            // A coordinator that this node did not see may have let another publisher in.
            let attempt = out.fresh_id();
            self.step = Step::Ask(attempt);
            let needs = vec![(Edge::JOB, Coverage::range(0, JobEntry::NUMBERS))];
            return Next::Gather { job, attempt, needs };
        }
        if !self.marked {
            self.step = self.mark(job);
            return Next::Nothing;
        }
        let summary = status::summary(facts, job, (log, self));
        self.step = Step::Close { summary: summary.clone(), written: false, sent: true };
        Next::Replicate(Box::new(summary))
    }

    /// Whether this node knows enough to go on from what was published before. What is published includes all
    /// of that: so revisions of a window grow.
    fn is_settled_here(&self, facts: &Facts, job: JobId) -> bool {
        let gone = facts.retention.floors(job).map(|floors| floors.before_ms);
        let lacks_checkpoint = gone > self.state.gone_before();
        facts.now >= self.since + SETTLE && self.state.has_caught_up() && !lacks_checkpoint
    }

    /// The batch that ends the stream: it says which rows a reader must have had.
    fn mark(&self, job: JobId) -> Step {
        let mut edges = self.state.outputs.clone();
        *edges.entry(self.edge).or_default() += 1;
        let mut batch = OutputBatch::new(self.state.cut(), self.state.until_ms());
        batch.end = Some(edges.into_iter().collect());
        self.write(job, batch)
    }

    /// Writes a batch as the next one of this node's edge.
    fn write(&self, job: JobId, batch: OutputBatch) -> Step {
        let key = EntryKey { job, edge: self.edge, number: self.state.read_of(self.edge) };
        let entry = Entry::meta(key, batch.encode());
        Step::Write { entry, batch, sent: false }
    }

    /// Whether nothing follows. A window that came too late to be published waits for its checkpoint.
    fn may_close(&self, log: &StreamLog) -> bool {
        log.stopping && self.state.have_ended(log) && self.state.is_settled()
    }

    /// Publishes when every slot has answered.
    fn folded(&mut self, facts: &Facts, out: &mut Outbox, job: JobId) -> Next {
        if !matches!(&self.step, Step::Fold { slots, .. } if slots.open.is_empty()) {
            return Next::Nothing;
        }
        match std::mem::replace(&mut self.step, Step::Idle) {
            Step::Fold { slots, round } => {
                let parts = slots.done.into_iter().collect();
                self.publish(facts, out, job, round, parts)
            }
            _ => Next::Nothing,
        }
    }

    fn publish(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        job: JobId,
        round: Round,
        parts: Vec<(Slot, Bytes)>,
    ) -> Next {
        let fresh = facts.located(job, round.fresh.iter(), SlotSet::META);
        let batches = round.fresh.iter().map(|(_, coverage)| coverage.count()).sum::<u64>();
        if fresh.len() as u64 != batches {
            self.start_over(facts.now, job, "batches with dead letters are missing here");
            return Next::Nothing;
        }
        let Round { cut, wanted, known, .. } = round;
        let plan = Arc::clone(&self.plan);
        self.make(out, job, Box::new(Making { plan, cut, wanted, parts, fresh, known }));
        Next::Nothing
    }

    /// Windows that touch others which are published without what is new wait until those are published
    /// again; the rest of the round goes on.
    fn leave_out(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        job: JobId,
        (touches, mut making): (&[Touch], Box<Making>),
    ) {
        let windows = making.wanted.windows.iter();
        let mut keys: Vec<_> = windows.map(|window| window.key).collect();
        let ignores = facts.config.planted == Some(PlantedBug::IgnoreTouches);
        let waiting = if ignores { BTreeSet::new() } else { self.state.touch(&keys, touches) };
        keys.retain(|key| !waiting.contains(key));
        if keys.is_empty() && making.fresh.is_empty() {
            self.resume_at = facts.now + ROUND_EVERY;
            return;
        }
        making.known = Known { left_out: Some(waiting), ..self.state.known(&self.plan, &keys) };
        self.make(out, job, making);
    }

    /// Makes the rows of a round.
    fn make(&mut self, out: &mut Outbox, job: JobId, making: Box<Making>) {
        self.step = Step::Publish;
        out.run(Task::Stream(StreamTask::Publish(making)), Purpose::Stream(job));
    }

    /// Begins the round again, after a pause.
    fn start_over(&mut self, now: Duration, job: JobId, why: &str) {
        tracing::warn!(%job, why, "a round could not be published; trying again");
        self.step = Step::Idle;
        self.trouble = Some(why.to_owned());
        self.resume_at = now + RETRY_AFTER;
    }
}

#[cfg(test)]
mod tests;
