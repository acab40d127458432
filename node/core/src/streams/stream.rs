//! What a coordinator knows of one stream, and what is under way.

use std::sync::Arc;
use std::time::Duration;

use cortado_protocol::entry::Entry;
use cortado_protocol::{Edge, SlotSet};
use cortado_stream::{OutputBatch, StreamPlan};

use super::deliveries::Deliveries;
use super::promises::{Retiring, Sealing};
use super::state::{Round, State};
use crate::slot_round::SlotRound;

/// One stream.
pub(super) struct Stream {
    pub(super) plan: Arc<StreamPlan>,
    /// All its slots.
    pub(super) slots: SlotSet,
    pub(super) state: State,
    pub(super) step: Step,
    /// The edge that this node publishes on.
    pub(super) edge: Edge,
    /// When this node began to coordinate it.
    pub(super) since: Duration,
    /// No step is taken before.
    pub(super) resume_at: Duration,
    /// When a batch was durable here last.
    pub(super) progress_at: Duration,
    /// Why the last round could not be published, if so.
    pub(super) trouble: Option<String>,
    /// Whether all members were asked for what the job log lacks here, since they changed last.
    pub(super) asked: bool,
    /// Whether the batch that ends the stream is durable.
    pub(super) marked: bool,
    /// Whether no owner could complete some slot of the last round.
    pub(super) stuck: bool,
    /// The publisher that is to be sealed.
    pub(super) sealing: Option<Sealing>,
    /// Windows that are to be retired.
    pub(super) retiring: Option<Retiring>,
    /// Rows that go to webhooks.
    pub(super) deliveries: Deliveries,
}

/// What is under way.
pub(super) enum Step {
    Idle,
    /// A task reads.
    Read,
    /// Gaps are being closed, under this attempt number.
    Gather(u64),
    /// All members are asked for entries of the job log that are missing here, under this attempt
    /// number.
    Ask(u64),
    /// Slots fold.
    Fold {
        slots: Box<SlotRound>,
        round: Round,
    },
    /// A task makes rows.
    Publish,
    /// The rows are replicated.
    Write {
        entry: Entry,
        batch: OutputBatch,
        sent: bool,
    },
    /// The seal of a publisher is replicated.
    Seal {
        entry: Entry,
        sent: bool,
    },
    /// The summary is replicated, and then the manifest.
    Close {
        summary: Entry,
        written: bool,
        sent: bool,
    },
}

impl Stream {
    pub(super) fn new(now: Duration, edge: Edge, plan: Arc<StreamPlan>, slots: SlotSet) -> Self {
        Self {
            plan,
            slots,
            state: State::default(),
            step: Step::Idle,
            edge,
            since: now,
            resume_at: now,
            progress_at: now,
            trouble: None,
            asked: false,
            marked: false,
            stuck: false,
            sealing: None,
            retiring: None,
            deliveries: Deliveries::default(),
        }
    }
}
