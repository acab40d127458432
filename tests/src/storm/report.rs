//! What a storm has shown.

use std::fmt;
use std::time::Duration;

use super::Storm;

/// One job, with the right result.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    /// When its client started, after the storm did.
    pub began: Duration,
    /// From then until its reports were checked.
    pub took: Duration,
}

/// One client's jobs.
#[derive(Clone, Debug, Default)]
pub struct ClientReport {
    /// One after the other.
    pub jobs: Vec<Job>,
    /// How often a client gave up (exit code 5) and was resumed.
    pub resumed: u32,
    /// Jobs for which the cluster asked for batches again.
    pub sent_again: u32,
}

/// One node's death and return.
#[derive(Clone, Debug)]
pub struct Restart {
    /// Which node.
    pub node: String,
    /// From its death until it answered again.
    pub took: Duration,
}

/// A storm that was survived.
#[derive(Clone, Debug)]
pub struct Report {
    /// What it was.
    pub storm: Storm,
    /// How long it was, with the jobs under way at its end.
    pub took: Duration,
    /// Its clients.
    pub clients: Vec<ClientReport>,
    /// Its kills.
    pub restarts: Vec<Restart>,
}

/// Median and largest of some times, in seconds.
pub(crate) fn median_and_most(mut times: Vec<Duration>) -> (f64, f64) {
    times.sort_unstable();
    let at = |index: usize| times.get(index).map_or(0.0, Duration::as_secs_f64);
    (at(times.len() / 2), at(times.len().saturating_sub(1)))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Storm { seed, nodes, .. } = self.storm;
        let (seconds, kills) = (self.took.as_secs(), self.restarts.len());
        writeln!(f, "seed {seed}, {nodes} nodes, {seconds} s, {kills} kills\n")?;
        writeln!(
            f,
            "CLIENT   JOBS  EXACT  MEDIAN s  MOST s  (BEGAN AT s)  RESUMED  BATCHES SENT AGAIN"
        )?;
        for (number, client) in (1..).zip(&self.clients) {
            let (median, most) = median_and_most(client.jobs.iter().map(|job| job.took).collect());
            let longest = client.jobs.iter().max_by_key(|job| job.took);
            let at = longest.map_or(0, |job| job.began.as_secs());
            let (jobs, resumed, again) = (client.jobs.len(), client.resumed, client.sent_again);
            writeln!(
                f,
                "{number:>6} {jobs:>6} {jobs:>6} {median:>9.1} {most:>7.1} {at:>13} {resumed:>8} {again:>19}"
            )?;
        }
        writeln!(f, "\nNODE     KILLS  BACK AFTER s (MEDIAN, MOST)")?;
        for number in 1..=nodes {
            let name = format!("node-{number}");
            let of_node = self.restarts.iter().filter(|restart| restart.node == name);
            let times: Vec<_> = of_node.map(|restart| restart.took).collect();
            let kills = times.len();
            let (median, most) = median_and_most(times);
            writeln!(f, "{name:<8} {kills:>5} {median:>13.2} {most:>6.2}")?;
        }
        let jobs: usize = self.clients.iter().map(|client| client.jobs.len()).sum();
        write!(f, "\nall {jobs} results are exact, also when fetched again from other nodes")
    }
}
