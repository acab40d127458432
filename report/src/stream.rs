//! How a stream stands, and which streams there are.

use std::collections::BTreeMap;

use cortado_protocol::JobId;
use cortado_protocol::job::{JobState, JobStatus};
use cortado_protocol::stream::{PublisherStatus, StreamStatus};
use cortado_stream::time_text;
use serde::Serialize;
use utoipa::ToSchema;

/// How a stream stands.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Stream {
    /// Its name.
    pub stream: String,
    /// Its job.
    #[schema(value_type = String)]
    pub job: JobId,
    /// Its coordinator.
    pub coordinator: Option<String>,
    /// The newest schema set.
    pub schema_set: Option<u32>,
    /// Whether its end was asked for.
    pub stopping: bool,
    /// Whether it has ended.
    pub ended: bool,
    /// No window that ends later is closed (RFC 3339).
    pub watermark: Option<String>,
    /// Events by what became of them.
    pub events: Events,
    /// Windows that have events and are not closed.
    pub open_windows: u64,
    /// Windows that are closed.
    pub closed_windows: u64,
    /// Window rows published, revisions included.
    pub published: u64,
    /// Windows that end by then are retired (RFC 3339).
    pub retired_before: Option<String>,
    /// The webhooks of its plan.
    pub webhooks: Vec<Webhook>,
    /// What it waits for, as a sentence.
    pub waits_for: Option<String>,
    /// Its publishers.
    pub publishers: Vec<Publisher>,
}

/// Counts of events.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub struct Events {
    /// Received.
    pub received: u64,
    /// Counted in published windows.
    pub counted: u64,
    /// Copies of counted events.
    pub duplicates: u64,
    /// Dead letters.
    pub dead: u64,
    /// Valid ones in windows that are not published with them yet.
    pub open: u64,
    /// Too late for a retired window.
    pub retired: u64,
}

/// A webhook. Counts are those since its coordinator began.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Webhook {
    /// The output whose rows it gets.
    pub output: String,
    /// Its URL.
    pub webhook: String,
    /// Rows that it has taken.
    pub delivered: u64,
    /// Rows that became dead letters.
    pub failed: u64,
    /// Rows that wait.
    pub waiting: u64,
    /// Why the last attempt failed.
    pub error: Option<String>,
}

/// A publisher.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Publisher {
    /// Its name.
    pub name: String,
    /// How often it was opened before.
    pub generation: u32,
    /// Whether it imports old data.
    pub backfill: bool,
    /// When it was opened, in milliseconds since 1970.
    pub opened_ms: i64,
    /// Batches without a gap.
    pub prefix: u64,
    /// Batches behind a gap.
    pub beyond_gap: u64,
    /// It sends nothing older any more (RFC 3339).
    pub watermark: Option<String>,
    /// Its events.
    pub events: u64,
    /// Its dead letters.
    pub dead: u64,
    /// Whether it has ended.
    pub ended: bool,
    /// Whether windows do not wait for it.
    pub idle: bool,
    /// Whether it was sealed.
    pub sealed: bool,
    /// Batches that do not count, by its seal.
    pub void: u64,
}

/// A stream, and what it publishes.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct StreamName {
    /// Its name.
    pub stream: String,
    /// Its job.
    #[schema(value_type = String)]
    pub job: JobId,
    /// The state of the job.
    pub state: &'static str,
    /// Its outputs.
    pub outputs: Vec<String>,
}

fn time(ms: Option<i64>) -> Option<String> {
    ms.filter(|ms| *ms != i64::MAX).map(time_text)
}

impl Stream {
    /// The report on a stream.
    #[must_use]
    pub fn new(stream: &str, job: JobId, status: &StreamStatus) -> Self {
        let counts = status.events;
        let webhook = |of: &cortado_protocol::stream::WebhookStatus| Webhook {
            output: of.output.clone(),
            webhook: of.webhook.clone(),
            delivered: of.delivered,
            failed: of.failed,
            waiting: of.waiting,
            error: of.error.clone(),
        };
        Self {
            stream: stream.to_owned(),
            job,
            coordinator: status.coordinator.map(|node| node.to_string()),
            schema_set: status.schema_set,
            stopping: status.stopping,
            ended: status.ended,
            watermark: time(status.watermark_ms),
            events: Events {
                received: counts.received,
                counted: counts.counted,
                duplicates: counts.duplicates,
                dead: counts.dead,
                open: counts.open,
                retired: counts.retired,
            },
            open_windows: status.open_windows,
            closed_windows: status.closed_windows,
            published: status.published,
            retired_before: time(status.retired.map(|retired| retired.before_ms)),
            webhooks: status.webhooks.iter().map(webhook).collect(),
            waits_for: status.waits_for.clone(),
            publishers: status.publishers.iter().map(Publisher::from).collect(),
        }
    }
}

impl From<&PublisherStatus> for Publisher {
    fn from(of: &PublisherStatus) -> Self {
        Self {
            name: of.publisher.name.clone(),
            generation: of.publisher.generation,
            backfill: of.publisher.backfill,
            opened_ms: of.publisher.opened_ms,
            prefix: of.prefix,
            beyond_gap: of.beyond_gap,
            watermark: time(of.watermark_ms),
            events: of.events,
            dead: of.dead,
            ended: of.ended,
            idle: of.idle,
            sealed: of.sealed.is_some(),
            void: of.sealed.as_ref().map_or(0, |seal| seal.void.count()),
        }
    }
}

/// Whether a job is a stream: only a stream has no tables.
fn is_stream(status: &JobStatus) -> bool {
    status.tables.is_empty()
}

/// The stream of a name: the one that runs, otherwise the newest. Of several that run under one name,
/// which two clients can have started at once, everybody uses the oldest.
#[must_use]
pub fn newest<'s>(jobs: &'s [JobStatus], name: &str) -> Option<&'s JobStatus> {
    let streams = || jobs.iter().filter(|status| is_stream(status) && status.plan == name);
    let running = streams().filter(|status| status.state == JobState::Running);
    running.min_by_key(|status| status.job).or_else(|| streams().max_by_key(|status| status.job))
}

/// The streams among jobs, by name; outputs are left empty.
#[must_use]
pub fn streams(jobs: &[JobStatus]) -> Vec<StreamName> {
    let names = jobs.iter().filter(|status| is_stream(status)).map(|status| status.plan.as_str());
    let mut found: BTreeMap<&str, &JobStatus> = BTreeMap::new();
    for name in names {
        if let Some(status) = newest(jobs, name) {
            found.insert(name, status);
        }
    }
    let named = |(name, status): (&str, &JobStatus)| StreamName {
        stream: name.to_owned(),
        job: status.job,
        state: status.state.name(),
        outputs: Vec::new(),
    };
    found.into_iter().map(named).collect()
}
