//! The coordinator's state of one job: its phase, and what is known of its client.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use cortado_protocol::NodeId;
use cortado_protocol::job::Manifest;
use cortado_protocol::peer::EdgeCoverage;

use crate::job::JobLog;
use crate::progress::{Progress, Step};
use crate::slot_round::SlotRound;
use crate::task::Finishing;

/// Pause between two requests for a place in the queue.
pub(crate) const ASK_EVERY: Duration = Duration::from_millis(300);

/// The phase of a job.
pub(crate) enum Phase {
    /// Batches and ends arrive; `gather` is the attempt that closes gaps of the meta slot.
    Collect { gather: Option<u64> },
    /// Slots fold, or look up rows.
    Slots { rounds: Vec<SlotRound>, then: Then },
    /// A task runs here.
    Compute,
    /// The result's chunks are replicated.
    Write { manifest: Manifest, waiting: VecDeque<(u64, Bytes)>, in_flight: BTreeSet<u64> },
    /// The manifest is replicated.
    Close,
    /// Nothing is left to do.
    Ended,
}

/// The step after all slots have answered.
pub(crate) enum Then {
    Finish,
    Join(Box<Finishing>),
}

/// The coordinator's state of one job.
pub(crate) struct Round {
    /// Place in the queue: 0 runs.
    pub(crate) place: Option<u32>,
    /// Hash of the name of the client that sent batches last; 0 if none is known.
    pub(crate) client: u64,
    /// Time of a mapper's last request, which shows that the client sends batches.
    pub(crate) client_at: Duration,
    /// Mappers that wait until the job has a place.
    pub(crate) wanted_by: BTreeSet<NodeId>,
    pub(crate) phase: Phase,
    /// The batches that the client has to send again.
    pub(crate) missing: Vec<EdgeCoverage>,
    pub(crate) retry_at: Duration,
    /// How many results did not match the batches.
    pub(crate) mismatches: u32,
    /// Time of the last request for a place in the queue.
    pub(crate) asked_at: Duration,
    /// When an entry of the job was last durable here.
    pub(crate) progress_at: Duration,
}

impl Round {
    pub(crate) fn new(now: Duration) -> Self {
        Self {
            place: None,
            client: 0,
            client_at: now,
            wanted_by: BTreeSet::new(),
            phase: Phase::Collect { gather: None },
            missing: Vec::new(),
            retry_at: now,
            mismatches: 0,
            asked_at: now.saturating_sub(ASK_EVERY),
            progress_at: now,
        }
    }

    /// Whether its slots fold, or its result is computed or written.
    pub(crate) fn works(&self) -> bool {
        !matches!(self.phase, Phase::Collect { .. } | Phase::Ended)
    }

    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    pub(crate) fn closes(&self) -> bool {
        matches!(self.phase, Phase::Close)
    }

    pub(crate) fn runs(&self) -> bool {
        self.place == Some(0)
    }

    /// Whether the job waits for its client, and the client has sent nothing for `limit`.
    pub(crate) fn is_idle(&self, now: Duration, limit: Duration, log: &JobLog) -> bool {
        let open = log.all_ends().is_none() || !self.missing.is_empty();
        let waits = open && matches!(self.phase, Phase::Collect { .. });
        waits && now >= self.heard_at() + limit
    }

    /// When a batch or an entry of the job last arrived.
    fn heard_at(&self) -> Duration {
        self.client_at.max(self.progress_at)
    }

    /// The rounds of slots in progress.
    pub(crate) fn slots(&self) -> &[SlotRound] {
        match &self.phase {
            Phase::Slots { rounds, .. } => rounds,
            _ => &[],
        }
    }

    /// The rounds of slots in progress, to be changed.
    pub(crate) fn slots_mut(&mut self) -> &mut [SlotRound] {
        match &mut self.phase {
            Phase::Slots { rounds, .. } => rounds,
            _ => &mut [],
        }
    }

    /// Bytes of slots' outputs that it holds.
    pub(crate) fn output_bytes(&self) -> usize {
        self.slots().iter().map(|round| round.bytes).sum()
    }

    /// The progress of the job.
    pub(crate) fn progress(
        &self,
        now: Duration,
        limit: Duration,
        log: Option<&JobLog>,
    ) -> Progress {
        let step = match &self.phase {
            Phase::Collect { .. } => Step::Collect,
            Phase::Slots { rounds, then } => {
                let asked = rounds.iter().flat_map(|round| round.asked.values());
                let workers: BTreeSet<_> = asked.map(|asked| asked.node).collect();
                Step::Slots {
                    folds: matches!(then, Then::Finish),
                    done: rounds.iter().map(|round| round.done.len() as u32).sum(),
                    total: rounds.iter().map(|round| round.total).sum(),
                    workers: workers.into_iter().collect(),
                }
            }
            Phase::Compute => Step::Compute,
            Phase::Write { waiting, in_flight, .. } => {
                Step::Write { left: (waiting.len() + in_flight.len()) as u32 }
            }
            Phase::Close => Step::Close,
            Phase::Ended => Step::Ended,
        };
        let silent = log.is_some_and(|log| self.is_idle(now, limit, log));
        let silent_for = silent.then(|| now.saturating_sub(self.heard_at()));
        Progress { place: self.place, silent_for, missing: self.missing.clone(), step }
    }

    /// Its phase, for diagnosis.
    pub(crate) fn describe(&self) -> String {
        match &self.phase {
            Phase::Collect { gather } => format!("collect, gather {gather:?}"),
            Phase::Slots { rounds, .. } => {
                let open = rounds.iter().map(|round| round.open.len()).sum::<usize>();
                format!("slots, {open} open")
            }
            Phase::Compute => "compute".to_owned(),
            Phase::Write { in_flight, .. } => format!("write {in_flight:?}"),
            Phase::Close => "close".to_owned(),
            Phase::Ended => "ended".to_owned(),
        }
    }
}
