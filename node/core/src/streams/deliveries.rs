//! What of a stream is delivered to webhooks, and what is under way.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use cortado_protocol::stream::{Cursor, Row, WebhookStatus};
use cortado_protocol::{Coverage, Edge};
use cortado_stream::{OutputRow, StreamPlan, Webhook, key_of};

/// Rows after which no more are read ahead.
const AHEAD: usize = 128;
/// And bytes.
const AHEAD_BYTES: usize = 4 << 20;

/// A row that is to be delivered.
pub(super) struct Sending {
    pub(super) row: Row,
    pub(super) key: String,
    pub(super) failed: u32,
    pub(super) due: Duration,
    /// The number of the attempt that is under way, and since when it is.
    pub(super) attempt: Option<(u64, Duration)>,
    pub(super) is_over: bool,
    /// Somebody wants it delivered once more.
    pub(super) is_repeat: bool,
}

/// What is delivered of one output to one webhook.
#[derive(Default)]
pub(super) struct Delivery {
    /// The rows before are delivered, or dead letters.
    pub(super) done: Cursor,
    /// The rows that follow, up to `ahead`.
    pub(super) rows: VecDeque<Sending>,
    pub(super) ahead: Cursor,
    pub(super) is_reading: bool,
    /// Whether `done` was not written down yet.
    pub(super) is_news: bool,
    pub(super) delivered: u64,
    pub(super) failed: u64,
    pub(super) error: Option<String>,
}

/// The deliveries of a stream.
#[derive(Default)]
pub(super) struct Deliveries {
    /// In the order of the plan; none before it is known how far they are.
    pub(super) all: Vec<Delivery>,
    pub(super) letters: VecDeque<OutputRow>,
    pub(super) saved_at: Duration,
}

impl Sending {
    pub(super) fn new(output: &str, row: Row, is_repeat: bool) -> Self {
        let key = key_of(output, &row.json);
        let is_over = key.is_none();
        let key = key.unwrap_or_default();
        Self { row, key, failed: 0, due: Duration::ZERO, attempt: None, is_over, is_repeat }
    }
}

impl Delivery {
    fn open(&self) -> impl Iterator<Item = &Sending> {
        self.rows.iter().filter(|sending| !sending.is_over)
    }

    /// Whether more rows are to be read.
    pub(super) fn has_room(&self) -> bool {
        let bytes = self.rows.iter().map(|sending| sending.row.json.len());
        self.rows.len() < AHEAD && bytes.sum::<usize>() < AHEAD_BYTES
    }

    /// Output batches that were not read.
    pub(super) fn unread(
        &self,
        outputs: &BTreeMap<Edge, u64>,
    ) -> impl Iterator<Item = (Edge, Coverage)> {
        let unread = |(edge, end): (&Edge, &u64)| {
            let read = self.ahead.of(*edge).0;
            (read < *end).then(|| (*edge, Coverage::range(read, *end)))
        };
        outputs.iter().filter_map(unread)
    }

    /// Moves on past rows that are over.
    pub(super) fn advance(&mut self) {
        while let Some(first) = self.rows.front().filter(|first| first.is_over) {
            if !first.is_repeat {
                self.done.advance(first.row.edge, first.row.batch, first.row.row + 1);
                self.is_news = true;
            }
            self.rows.pop_front();
        }
        if self.rows.is_empty() {
            self.done.join(&self.ahead);
        }
    }
}

impl Deliveries {
    /// Whether nothing is to be delivered or written down of these output batches: how many there are, by
    /// edge.
    pub(super) fn are_over(&self, outputs: &BTreeMap<Edge, u64>) -> bool {
        let is_idle = |of: &Delivery| of.rows.is_empty() && !of.is_reading && !of.is_news;
        let is_over = |of: &Delivery| is_idle(of) && of.unread(outputs).next().is_none();
        self.letters.is_empty() && self.all.iter().all(is_over)
    }

    /// How far they are, by output.
    pub(super) fn done(&self, plan: &StreamPlan) -> Vec<(String, Cursor)> {
        let done = plan.webhooks().iter().zip(&self.all);
        done.map(|(webhook, of)| (webhook.output.clone(), of.done.clone())).collect()
    }

    pub(super) fn status(&self, plan: &StreamPlan) -> Vec<WebhookStatus> {
        let status = |(webhook, of): (&Webhook, &Delivery)| WebhookStatus {
            output: webhook.output.clone(),
            webhook: webhook.url.clone(),
            delivered: of.delivered,
            failed: of.failed,
            waiting: of.open().count() as u64,
            error: of.error.clone(),
        };
        plan.webhooks().iter().zip(&self.all).map(status).collect()
    }
}
