//! Uploads that record each acknowledgement, as the uploading client sees it.

use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cortado::job::{PlanSource, send_missing, submit};
use cortado::{Cluster, Observer, Progress, Target, dataset};

use super::{Client, Coffee, alongside, job_id, path_text};

/// How long a client continues without an answer of the cluster.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longer stalls are printed, with the events of that time.
const LONG_STALL: Duration = Duration::from_secs(1);

/// The times of an upload.
#[derive(Debug, Default)]
pub struct Watched {
    /// The longest time without a batch becoming durable.
    pub longest_stall: Duration,
    /// Time from the first sending of each batch until it was durable.
    pub latencies: Vec<Duration>,
    since: Option<Instant>,
    reasons: BTreeSet<String>,
}

impl Watched {
    /// The time within which so many percent of the later half of the batches were durable. The
    /// first half only shows the client which nodes are slow.
    ///
    /// # Panics
    /// If there was no batch.
    #[must_use]
    pub fn latency(&self, percent: usize) -> Duration {
        let mut sorted = self.latencies[self.latencies.len() / 2..].to_vec();
        sorted.sort_unstable();
        sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1]
    }
}

#[derive(Default)]
struct Watch(Mutex<Watched>);

impl Observer for Watch {
    fn note(&self, progress: Progress<'_>) {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match progress {
            Progress::Waiting(reason) => {
                watched.reasons.insert(reason.to_owned());
                return;
            }
            Progress::Durable { took, .. } => watched.latencies.push(took),
            Progress::Upload { .. } => {}
            _ => return,
        }
        let now = Instant::now();
        let stall = watched.since.replace(now).map_or(Duration::ZERO, |since| now - since);
        let reasons = std::mem::take(&mut watched.reasons);
        if stall > LONG_STALL {
            println!("{:.2} s without progress: {reasons:?}", stall.as_secs_f32());
        }
        watched.longest_stall = watched.longest_stall.max(stall);
    }
}

impl Coffee {
    /// Uploads this dataset with at most so many bytes per second, and checks the result.
    ///
    /// # Panics
    /// If the result does not come or is wrong.
    #[must_use]
    pub fn upload_watched(&self, client: &Client, job: &str, rate: u64) -> Watched {
        let target = Target {
            profile: Some(client.dir()),
            patience: Some(PATIENCE),
            upload_rate: NonZeroU64::new(rate),
            ..Target::default()
        };
        let cluster = Arc::new(Cluster::new(&target).expect("the cluster has a profile"));
        let source = PlanSource::load("coffee").expect("it is built in");
        let tables = dataset::scan(self.dir(), &source.plan).expect("a dataset can be read");
        let id = job.parse().expect("a job's id");
        let watch = Watch::default();
        let runtime = tokio::runtime::Runtime::new().expect("a runtime can be made");
        let uploaded = runtime.block_on(async {
            let spec = Arc::new(submit(&cluster, id, &source, tables).await?);
            send_missing(&cluster, &spec, self.dir(), &watch).await
        });
        uploaded.unwrap_or_else(|error| panic!("job {job}: {error}"));
        let (dir, out) = (path_text(self.dir()), path_text(&client.path(job)));
        let _ = client.cortado(&["resume", job, "--data", &dir, "--out", &out]).run().ok();
        self.check(client, job, job);
        watch.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Uploads this dataset repeatedly while `during` runs; prints the longest stall.
    ///
    /// # Panics
    /// Like [`Self::upload_watched`].
    pub fn uploads_during(&self, client: &Client, rate: u64, during: impl FnOnce()) {
        let upload = |number| self.upload_watched(client, &job_id(number), rate).longest_stall;
        let uploads = |over: &AtomicBool| {
            let mut stalls = vec![upload(1)];
            while !over.load(Ordering::Relaxed) {
                stalls.push(upload(stalls.len() as u64 + 1));
            }
            stalls
        };
        let ((), stalls) = alongside(uploads, during);
        let longest = stalls.iter().max().copied().unwrap_or_default().as_secs_f32();
        println!("{} uploads, at most {longest:.2} s without a durable batch", stalls.len());
    }
}
