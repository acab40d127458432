//! The report of a storm.

use std::fmt;
use std::time::Duration;

use super::Storm;

/// A job with the right result.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    /// Its start, since the start of the storm.
    pub began: Duration,
    /// Time from its start until its reports were checked.
    pub took: Duration,
}

/// One client's jobs.
#[derive(Clone, Debug, Default)]
pub struct ClientReport {
    /// Its jobs in order.
    pub jobs: Vec<Job>,
    /// How often a client gave up (exit code 5) and was resumed.
    pub resumed: u32,
    /// Number of jobs for which the cluster asked for batches again.
    pub sent_again: u32,
}

/// A node that was killed and started again.
#[derive(Clone, Debug)]
pub struct Restart {
    /// Its name.
    pub node: String,
    /// Time from its death until it answered again.
    pub took: Duration,
}

/// A storm that passed.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its settings.
    pub storm: Storm,
    /// Its duration, including the jobs in progress at its end.
    pub took: Duration,
    /// The reports of its clients.
    pub clients: Vec<ClientReport>,
    /// Its kills.
    pub restarts: Vec<Restart>,
}

/// Median and maximum of some times, in seconds.
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
