//! A storm: kills (SIGKILL) and starts a random node every few seconds while several clients upload
//! one dataset after the other. Each result must equal the oracle's.

mod client;
mod report;
mod settings;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::cluster::{Cluster, Coffee, Deadline, Shape};

pub(crate) use client::Client;
pub(crate) use report::median_and_most;
pub use report::{ClientReport, Job, Report, Restart};
pub use settings::Storm;

/// Sets the flag if its thread panics, so that the other threads stop early.
struct EndsWith<'a>(&'a AtomicBool);

impl Drop for EndsWith<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

impl Storm {
    /// Runs the storm. The report has passed all checks.
    ///
    /// # Panics
    /// If any result is wrong or does not come, or a node does not come back.
    #[must_use]
    pub fn run(self) -> Report {
        let cluster = Cluster::up(self.nodes);
        let (profile, work) = (cluster.dir(), cluster.path("results"));
        let data: Vec<_> = (1..=self.clients).map(dataset).collect();
        let clients: Vec<_> = (1..)
            .zip(&data)
            .map(|(number, data)| Client {
                profile: &profile,
                work: &work,
                data,
                number,
                first_job: 0,
            })
            .collect();
        let began = Instant::now();
        let (restarts, reports) =
            upload_during(&clients, began, |over| self.kill_and_start(&cluster, began, over));
        let took = began.elapsed();
        cluster.await_members();
        cluster.await_moves();
        let nodes = cluster.nodes();
        for (client, report) in clients.iter().zip(&reports) {
            let another = |job: usize| nodes[job % nodes.len()].client_addr().to_string();
            client.fetch_again(report.jobs.len(), another);
        }
        Report { storm: self, took, clients: reports, restarts }
    }

    fn kill_and_start(&self, cluster: &Cluster, began: Instant, over: &AtomicBool) -> Vec<Restart> {
        let mut random = StdRng::seed_from_u64(self.seed);
        let mut restarts = Vec::new();
        let mut next = began + self.every;
        while next < began + self.duration {
            let pause = Deadline::at(next);
            while pause.next_look() {
                if over.load(Ordering::Relaxed) {
                    return restarts;
                }
            }
            let node = format!("node-{}", random.random_range(1..=self.nodes));
            cluster.kill(&node);
            let killed = Instant::now();
            cluster.start(&node);
            restarts.push(Restart { node, took: killed.elapsed() });
            next = (next + self.every).max(Instant::now());
        }
        restarts
    }
}

/// The dataset of a client, small enough for many uploads.
pub(crate) fn dataset(seed: u64) -> Coffee {
    Coffee::new(Shape { transactions_per_month: 15_000, users: 10_000, seed })
}

/// Lets clients upload until `weather` returns, and returns the results of both. If a client fails,
/// it sets the flag that `weather` gets, and the run ends early.
pub(crate) fn upload_during<W: Send>(
    clients: &[Client<'_>],
    began: Instant,
    weather: impl FnOnce(&AtomicBool) -> W + Send,
) -> (W, Vec<ClientReport>) {
    let over = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut uploads = Vec::new();
        for &client in clients {
            uploads.push(scope.spawn(move || {
                let _ends = EndsWith(over);
                client.upload_until(began, over)
            }));
        }
        let _ends = EndsWith(over);
        let seen = weather(over);
        over.store(true, Ordering::Relaxed);
        let join = |upload: std::thread::ScopedJoinHandle<'_, _>| {
            upload.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        (seen, uploads.into_iter().map(join).collect())
    })
}
