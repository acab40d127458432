//! Random faults of every kind (`cortado chaos run`) in a running cluster, while several clients
//! upload one dataset after the other. Each result must equal the oracle's.

mod report;
mod settings;
mod times;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use serde_json::Value;

use crate::cluster::{Cortado, Deadline, Finished};
use crate::storm::{Client, dataset, upload_during};

pub use report::Report;
pub use settings::Chaos;
pub use times::Recovery;
pub(crate) use times::percentiles;

/// Seconds after the last fault within which the cluster has to be whole, with a reserve.
const AFTERWARDS: u64 = 90;
/// The jobs of one run are numbered from a number below this.
const JOBS: u64 = 900_000;

impl Chaos {
    /// Runs the faults and the clients. The report has passed all checks.
    ///
    /// # Panics
    /// If any result is wrong or does not come, or the cluster is not whole in the end.
    #[must_use]
    pub fn run(self) -> Report {
        let results = tempfile::tempdir().expect("a temporary folder can be made");
        let data: Vec<_> = (1..=self.clients).map(dataset).collect();
        // The cluster may have the jobs of an earlier run.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let first_job = now.as_secs() % JOBS;
        let (profile, work) = (&self.profile, results.path());
        let client = |(number, data)| Client { profile, work, data, number, first_job };
        let clients: Vec<_> = (1..).zip(&data).map(client).collect();
        let log = self.cortado(&["log", "--follow", "--json"]).within(u64::MAX / 4).spawn();
        let began = Instant::now();
        let (acts, reports) = upload_during(&clients, began, |over| self.make_trouble(over));
        let took = began.elapsed();
        let members = self.cortado(&["nodes", "--json"]).run().ok().json()["members"].clone();
        let addresses: Vec<_> = members
            .as_array()
            .expect("a list of members")
            .iter()
            .map(|member| member["client_addr"].as_str().expect("an address").to_owned())
            .collect();
        for (client, report) in clients.iter().zip(&reports) {
            let another = |job: usize| addresses[job % addresses.len()].clone();
            client.fetch_again(report.jobs.len(), another);
        }
        let acts = acts.json_lines();
        // The last line may be incomplete.
        let seen = log.stdout();
        let events: Vec<Value> =
            seen.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let recoveries = times::recoveries(&acts, &events);
        Report { chaos: self, took, clients: reports, acts, recoveries }
    }

    fn make_trouble(&self, over: &AtomicBool) -> Finished {
        let minutes = (self.duration.as_secs_f64() / 60.0).to_string();
        let seed = self.seed.to_string();
        let mut run = self.cortado(&["chaos", "run", "--json", "--minutes", &minutes]);
        run = run.args(&["--seed", &seed]);
        if !self.only.is_empty() {
            run = run.args(&["--only", &self.only.join(",")]);
        }
        let seconds = self.duration.as_secs() + AFTERWARDS;
        let mut running = run.within(seconds).spawn();
        let deadline = Deadline::after(seconds);
        while running.is_running() && deadline.next_look() {
            if over.load(Ordering::Relaxed) {
                // On SIGINT, `chaos run` ends all faults before it exits.
                running.signal(Signal::INT);
                return running.wait();
            }
        }
        running.wait().ok()
    }

    fn cortado(&self, arguments: &[&str]) -> Cortado {
        Cortado::at(&self.profile, arguments)
    }
}
