//! Webhooks: rows of outputs are sent to them, too, in the order in which they were published, a few at the same
//! time. How far that is stands in output batches, so another coordinator goes on from there, and each row
//! is delivered at least once or is a dead letter.

use std::time::Duration;

use cortado_protocol::stream::{Place, Row};
use cortado_protocol::{Coverage, Edge, JobId};
use cortado_stream::{OutputBatch, failed_row};

use super::deliveries::{Deliveries, Delivery, Sending};
use super::stream::Stream;
use super::{Streams, reading, requests};
use crate::effect::Effect;
use crate::facts::Facts;
use crate::outbox::Outbox;
use crate::purpose::Purpose;
use crate::stream_task::{StreamOutput, StreamTask};
use crate::task::{Task, TaskOutput};

/// Rows that are sent to a webhook at the same time.
const AT_ONCE: usize = 16;
/// How long it may take until it is written down how far deliveries are.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// An attempt without an answer is given up after this time, whatever the shell says of it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Dead letters of one batch.
const LETTERS: usize = 64;

impl Stream {
    /// Goes on with all deliveries.
    pub(super) fn deliver(&mut self, facts: &Facts, out: &mut Outbox, job: JobId) {
        let webhooks = self.plan.webhooks();
        if webhooks.is_empty() || !self.is_settled_here(facts, job) {
            return;
        }
        let Deliveries { all, saved_at, .. } = &mut self.deliveries;
        if all.is_empty() {
            *saved_at = facts.now;
            all.extend(webhooks.iter().map(|webhook| {
                let done = self.state.delivered(&webhook.output);
                Delivery { ahead: done.clone(), done, ..Delivery::default() }
            }));
        }
        for (number, (webhook, of)) in webhooks.iter().zip(all).enumerate() {
            of.advance();
            if !of.is_reading && of.has_room() {
                let task = requests::rows(facts, job, webhook.output.clone(), of.ahead.clone());
                // What is missing here is fetched first.
                if matches!(&task, StreamTask::Rows { entries, .. } if !entries.is_empty()) {
                    of.is_reading = true;
                    out.run(Task::Stream(task), Purpose::Deliver(job, number));
                }
            }
            for sending in of.rows.iter_mut().filter(|sending| !sending.is_over).take(AT_ONCE) {
                if sending.attempt.is_some_and(|(_, since)| facts.now >= since + PATIENCE) {
                    sending.attempt = None;
                }
                if sending.attempt.is_none() && facts.now >= sending.due {
                    let ticket = out.fresh_id();
                    sending.attempt = Some((ticket, facts.now));
                    out.effect(Effect::Deliver {
                        ticket,
                        job,
                        url: webhook.url.clone(),
                        key: sending.key.clone(),
                        body: sending.row.json.clone(),
                    });
                }
            }
        }
    }

    /// Writes down how far deliveries are, from time to time and at the end, and dead letters at once; returns
    /// whether it does.
    pub(super) fn save_deliveries(&mut self, facts: &Facts, job: JobId, is_end: bool) -> bool {
        let Deliveries { all, letters, saved_at } = &mut self.deliveries;
        let is_news = all.iter().any(|of| of.is_news);
        let is_due = is_end || facts.now >= *saved_at + SAVE_EVERY;
        if letters.is_empty() && !(is_news && is_due) {
            return false;
        }
        *saved_at = facts.now;
        let mut batch = OutputBatch::new(self.state.cut(), self.state.until_ms());
        batch.rows = letters.drain(..letters.len().min(LETTERS)).collect();
        // A row whose dead letter is not written yet is not over for whoever goes on.
        if letters.is_empty() {
            all.iter_mut().for_each(|of| of.is_news = false);
            batch.delivered = self.deliveries.done(&self.plan);
        }
        self.step = self.write(job, batch);
        true
    }

    /// Output batches that are to be delivered and are missing here: the disk was full when they were published.
    pub(super) fn missing_rows(&self, facts: &Facts, job: JobId) -> Vec<(Edge, Coverage)> {
        let unread = self.deliveries.all.iter().flat_map(|of| of.unread(&self.state.outputs));
        unread.filter_map(|unread| reading::lacks(facts, job, unread)).collect()
    }

    /// A checkpoint says how far deliveries are, although no row may have been delivered for long: then
    /// nothing else says so. All dead letters were written.
    pub(super) fn note_deliveries(&mut self) {
        self.state.take_delivered(&self.deliveries.done(&self.plan));
    }
}

impl Streams {
    /// Rows that are to be delivered were read.
    pub(crate) fn on_delivery_rows(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        (job, number): (JobId, usize),
        output: TaskOutput,
    ) {
        let Some(stream) = self.all.get_mut(&job) else { return };
        let webhooks = stream.plan.webhooks();
        let Deliveries { all, .. } = &mut stream.deliveries;
        let (Some(of), Some(webhook)) = (all.get_mut(number), webhooks.get(number)) else { return };
        of.is_reading = false;
        // Of what can't be read nothing is known: it is missing from now on, and fetched as a gap.
        if let TaskOutput::Stream(StreamOutput::Rows { rows, cursor, gone, .. }) = output {
            if gone > 0 {
                let output = &webhook.output;
                tracing::warn!(%job, output, gone, "batches of rows were retired before delivery");
                of.error = Some(format!("{gone} batches of rows were retired before delivery"));
            }
            of.rows.extend(rows.into_iter().map(|row| Sending::new(&webhook.output, row, false)));
            of.ahead.join(&cursor);
        }
        stream.deliver(facts, out, job);
    }

    /// A client wants a row delivered once more.
    pub(crate) fn deliver_again(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        job: JobId,
        (place, output, json): (Place, &str, String),
    ) -> bool {
        let Some(stream) = self.all.get_mut(&job) else { return false };
        let at = stream.plan.webhooks().iter().position(|webhook| webhook.output == output);
        let Some(of) = at.and_then(|at| stream.deliveries.all.get_mut(at)) else { return false };
        let Place { edge, batch, position: row } = place;
        of.rows.push_back(Sending::new(output, Row { edge, batch, row, json }, true));
        stream.deliver(facts, out, job);
        true
    }

    /// An attempt to deliver a row has ended.
    pub(crate) fn on_delivered(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        (job, ticket): (JobId, u64),
        result: Result<(), String>,
    ) {
        let Some(stream) = self.all.get_mut(&job) else { return };
        let Deliveries { all, letters, .. } = &mut stream.deliveries;
        let of = |sending: &&mut Sending| sending.attempt.is_some_and(|(of, _)| of == ticket);
        for (webhook, delivery) in stream.plan.webhooks().iter().zip(all) {
            let Some(sending) = delivery.rows.iter_mut().find(of) else { continue };
            sending.attempt = None;
            match &result {
                Ok(()) => {
                    sending.is_over = true;
                    delivery.delivered += 1;
                    delivery.error = None;
                }
                Err(error) => {
                    sending.failed += 1;
                    let pause = webhook.pause_ms(sending.failed).unsigned_abs();
                    sending.due = facts.now + Duration::from_millis(pause);
                    delivery.error = Some(error.clone());
                    if sending.failed >= webhook.attempts {
                        sending.is_over = true;
                        delivery.failed += 1;
                        letters.push_back(failed_row(webhook, &sending.row, sending.failed, error));
                    }
                }
            }
        }
        stream.deliver(facts, out, job);
    }
}
