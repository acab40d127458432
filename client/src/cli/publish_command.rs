//! `cortado events publish`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::args::PublishArguments;
use super::output::{self, Output, grouped};
use crate::generate::events::Bursts;
use crate::job::new_job_id;
use crate::publish::{Options, Source, Synthetic, publish};
use crate::{Cluster, Error, Observer, Progress, stream};

/// What a publisher has done, for its last line.
#[derive(Default)]
pub(super) struct Counts {
    events: AtomicU64,
    pub(super) dead: AtomicU64,
    known: AtomicU64,
    /// Microseconds from the first sending of each batch to its acknowledgement.
    took: Mutex<Vec<u32>>,
    printed: Mutex<Option<Instant>>,
}

/// Batches of which the time is kept.
const TIMES: usize = 1 << 20;
/// Pause between two lines of progress.
const LINE_EVERY: Duration = Duration::from_secs(5);

impl Observer for Counts {
    fn note(&self, progress: Progress<'_>) {
        match progress {
            Progress::Durable { rows, rejected, took, .. } => {
                let mut all = locked(&self.took);
                if all.len() < TIMES {
                    all.push(took.as_micros().try_into().unwrap_or(u32::MAX));
                }
                drop(all);
                self.events.fetch_add(rows, Ordering::Relaxed);
                self.dead.fetch_add(rejected, Ordering::Relaxed);
            }
            Progress::Known { .. } => {
                self.known.fetch_add(1, Ordering::Relaxed);
            }
            Progress::Waiting(reason) => return self.line(&format!("waits: {reason}")),
            _ => return,
        }
        let events = self.events.load(Ordering::Relaxed);
        self.line(&format!("{} events on disk", grouped(events)));
    }
}

impl Counts {
    /// The time in milliseconds within which this share of the batches was acknowledged.
    fn within(&self, share: f64) -> f64 {
        let mut all = locked(&self.took);
        all.sort_unstable();
        let at = (all.len() as f64 * share) as usize;
        let micros = all.get(at.min(all.len().saturating_sub(1))).copied().unwrap_or_default();
        f64::from(micros) / 1_000.0
    }

    fn line(&self, text: &str) {
        let mut printed = locked(&self.printed);
        if printed.is_none_or(|at| at.elapsed() >= LINE_EVERY) {
            *printed = Some(Instant::now());
            output::note(text);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A name that no publisher has.
pub(super) fn new_name(prefix: &str) -> String {
    format!("{prefix}{:08x}", new_job_id().0 as u32)
}

pub(super) async fn run(
    cluster: Arc<Cluster>,
    arguments: PublishArguments,
    output: Output,
) -> Result<(), Error> {
    let PublishArguments { rate, lasts, count, seed, duplicates, out_of_order, invalid, .. } =
        arguments;
    let PublishArguments { burst_probability, burst_size, .. } = arguments;
    let named = arguments.publisher.is_some();
    let publisher = arguments.publisher.unwrap_or_else(|| new_name("publisher-"));
    let source = match arguments.from {
        Some(path) if path.as_os_str() == "-" => Source::Stdin,
        Some(path) => Source::File(path),
        None => {
            let count = count.or_else(|| lasts.map(|seconds| (seconds * rate) as u64));
            let bursts = Bursts { probability: burst_probability, size: burst_size };
            Source::Synthetic(Synthetic { seed, rate, count, duplicates, invalid, bursts })
        }
    };
    let options = Options {
        publisher: publisher.clone(),
        backfill: arguments.backfill,
        disorder_ms: (out_of_order * 1_000.0) as i64,
        source,
    };
    let job = stream::find(&cluster, &arguments.stream.stream).await?;
    if !named {
        output::note(&format!("publisher {publisher}"));
    }
    let counts = Counts::default();
    let failed = |error| Error::io("wait for", "signals".as_ref(), error);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let done = tokio::select! {
        done = publish(&cluster, job, &options, &counts) => done,
        _ = interrupt.recv() => {
            output::note(&format!(
                "interrupted: publisher {publisher} has not ended. To go on, use the same command with \
                 --publisher {publisher}"
            ));
            Err(Error::Detached(job))
        }
    };
    done?;
    let events = counts.events.load(Ordering::Relaxed);
    let (dead, known) = (counts.dead.load(Ordering::Relaxed), counts.known.load(Ordering::Relaxed));
    let value = json!({
        "publisher": publisher, "events": events, "dead": dead, "batches_known": known,
        "acknowledged_ms": { "p50": counts.within(0.5), "p99": counts.within(0.99) },
    });
    output.show(&value, |_| {
        let before = match known {
            0 => String::new(),
            known => format!(", {} batches were there before", grouped(known)),
        };
        format!(
            "publisher {publisher}: {} events sent, {} of them dead letters{before}",
            grouped(events),
            grouped(dead)
        )
    })
}
