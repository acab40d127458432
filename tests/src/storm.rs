//! A storm: random nodes are killed (SIGKILL) and started again every few seconds while several
//! clients upload one dataset after the other. Each of their results must be the oracle's.

mod report;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::cluster::{Cluster, Coffee, Deadline, Shape, job_id, path_text};

pub use report::{ClientReport, Job, Report, Restart};

/// Bytes per second of one client: an upload takes about five seconds, so that every one is hit.
const CLIENT_RATE: u64 = 1_300_000;
/// Seconds one job may take.
const JOB_SECONDS: u64 = 150;
/// Jobs of one client are numbered below this.
const JOBS: u64 = 1_000_000;

/// What the weather is.
#[derive(Clone, Copy, Debug)]
pub struct Storm {
    /// Decides which node is killed when. Processes have a will of their own: the same seed is the
    /// same plan, not the same run.
    pub seed: u64,
    /// How long nodes are killed. Jobs under way then are waited for.
    pub duration: Duration,
    /// Time from one kill to the next, unless the node takes longer to answer again.
    pub every: Duration,
    /// Nodes.
    pub nodes: usize,
    /// Clients at once.
    pub clients: u64,
}

/// Ends the storm if its thread panics: there is no need to wait for the rest.
struct EndsWith<'a>(&'a AtomicBool);

impl Drop for EndsWith<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

impl Storm {
    /// Runs it; what it returns has passed all checks.
    ///
    /// # Panics
    /// If any result is wrong or does not come, or a node does not come back.
    #[must_use]
    pub fn run(self) -> Report {
        let cluster = Cluster::up(self.nodes);
        let shape = |seed| Shape { transactions_per_month: 15_000, users: 10_000, seed };
        let data: Vec<_> = (1..=self.clients).map(|client| Coffee::new(shape(client))).collect();
        let over = AtomicBool::new(false);
        let began = Instant::now();
        let (restarts, clients) = std::thread::scope(|scope| {
            let (cluster, over) = (&cluster, &over);
            let client = |(client, data)| {
                scope.spawn(move || {
                    let _ends = EndsWith(over);
                    upload_until(cluster, data, client, began, over)
                })
            };
            let clients: Vec<_> = (1..).zip(&data).map(client).collect();
            let _ends = EndsWith(over);
            let restarts = self.kill_and_start(cluster, began, over);
            over.store(true, Ordering::Relaxed);
            let join = |client: std::thread::ScopedJoinHandle<'_, _>| {
                client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            (restarts, clients.into_iter().map(join).collect::<Vec<ClientReport>>())
        });
        let took = began.elapsed();
        cluster.await_members();
        cluster.await_moves();
        self.fetch_again(&cluster, &data, &clients);
        Report { storm: self, took, clients, restarts }
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

    /// Every result once more, each from another node.
    fn fetch_again(&self, cluster: &Cluster, data: &[Coffee], clients: &[ClientReport]) {
        let nodes = cluster.nodes();
        for (client, data) in (1..).zip(data) {
            for number in 0..clients[client as usize - 1].jobs.len() {
                let job = job_id(client * JOBS + number as u64);
                let out = format!("again-{job}");
                let folder = path_text(&cluster.path(&out));
                let address = nodes[number % nodes.len()].client_addr().to_string();
                let arguments = ["result", &job, "--out", &folder, "--connect", &address];
                cluster.cortado(&arguments).run().ok();
                data.check_reports(&cluster.path(&out));
            }
        }
    }
}

/// One job after the other, until it is over; at least one.
fn upload_until(
    cluster: &Cluster,
    data: &Coffee,
    client: u64,
    storm_began: Instant,
    over: &AtomicBool,
) -> ClientReport {
    let mut report = ClientReport::default();
    while report.jobs.is_empty() || !over.load(Ordering::Relaxed) {
        let job = job_id(client * JOBS + report.jobs.len() as u64);
        let began = Instant::now();
        let run = cluster.run_coffee(data.dir(), &job, &job);
        let mut ended = run.upload_rate(CLIENT_RATE).within(JOB_SECONDS).run();
        // Unreachable, safe to retry: then it is retried.
        while ended.code == Some(5) && began.elapsed().as_secs() < JOB_SECONDS {
            report.resumed += 1;
            let (folder, out) = (path_text(data.dir()), path_text(&cluster.path(&job)));
            let arguments = ["resume", &job, "--data", &folder, "--out", &out];
            let resume = cluster.cortado(&arguments).upload_rate(CLIENT_RATE);
            ended = resume.within(JOB_SECONDS).run();
        }
        let ended = ended.ok();
        if ended.stderr.contains("lost batches again") {
            report.sent_again += 1;
        }
        data.check_reports(&cluster.path(&job));
        report.jobs.push(Job { began: began - storm_began, took: began.elapsed() });
    }
    report
}
