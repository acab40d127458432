//! Metrics that were read before: only what is new of them is read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cortado_protocol::JobId;
use cortado_protocol::stream::Cursor;
use serde_json::{Map, Value};

use crate::lock::lock;

/// What nobody wanted for so long is dropped.
const IDLE: Duration = Duration::from_secs(300);

/// The metrics of a stream.
#[derive(Default)]
pub(super) struct Rollup {
    /// How far they were read.
    pub(super) cursor: Cursor,
    /// The last revision of each.
    pub(super) rows: Vec<Map<String, Value>>,
}

/// The metrics of a stream, for one at a time.
type Shared = Arc<tokio::sync::Mutex<Rollup>>;

/// The metrics of streams.
#[derive(Default)]
pub(super) struct Rollups(Mutex<BTreeMap<JobId, (Instant, Shared)>>);

impl Rollups {
    pub(super) fn of(&self, job: JobId) -> Shared {
        let mut all = lock(&self.0);
        all.retain(|_, (used, _)| used.elapsed() < IDLE);
        let (used, known) = all.entry(job).or_insert_with(|| (Instant::now(), Arc::default()));
        *used = Instant::now();
        Arc::clone(known)
    }
}
