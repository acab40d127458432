//! The report of a chaos run.

use std::fmt;
use std::time::Duration;

use serde_json::Value;

use super::times::percentiles;
use super::{Chaos, Recovery};
use crate::storm::{ClientReport, median_and_most};

/// A chaos run that passed.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its settings.
    pub chaos: Chaos,
    /// Its duration, including the jobs in progress at its end.
    pub took: Duration,
    /// The reports of its clients.
    pub clients: Vec<ClientReport>,
    /// Each fault, as printed by `cortado chaos run --json`.
    pub acts: Vec<Value>,
    /// How long each killed node was missed.
    pub recoveries: Vec<Recovery>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}, {} s, trouble:", self.chaos.seed, self.took.as_secs())?;
        for act in &self.acts {
            let note = act["note"].as_str().map_or_else(String::new, |note| format!("  ({note})"));
            writeln!(f, "  {}{note}", act["message"].as_str().unwrap_or_default())?;
        }
        writeln!(f, "\nCLIENT   JOBS  MEDIAN s  MOST s  RESUMED  VERDICT")?;
        for (number, client) in (1..).zip(&self.clients) {
            let (median, most) = median_and_most(client.jobs.iter().map(|job| job.took).collect());
            let (jobs, resumed) = (client.jobs.len(), client.resumed);
            writeln!(
                f,
                "{number:>6} {jobs:>6} {median:>9.1} {most:>7.1} {resumed:>8}  \
                 all equal the recomputation, 0 lost, 0 twice"
            )?;
        }
        let kills = self.recoveries.len();
        writeln!(f, "\nKILLED → …, {kills} kills   p50 s   p99 s   seen")?;
        let known: fn(&Recovery) -> Option<u64> = |recovery| recovery.known;
        for (what, time) in [
            ("known to be down", known),
            ("served elsewhere, or again", |recovery| recovery.served),
            ("back", |recovery| recovery.back),
        ] {
            let times: Vec<_> = self.recoveries.iter().filter_map(time).collect();
            let seen = times.len();
            match percentiles(times) {
                Some((p50, p99)) => {
                    let (p50, p99) = (p50 as f64 / 1e3, p99 as f64 / 1e3);
                    writeln!(f, "{what:<27} {p50:>7.2} {p99:>7.2} {seen:>6}")?;
                }
                None => writeln!(f, "{what:<27} {:>7} {:>7} {seen:>6}", "–", "–")?,
            }
        }
        let jobs: usize = self.clients.iter().map(|client| client.jobs.len()).sum();
        write!(f, "\nall {jobs} results are exact, also when fetched again from other nodes")
    }
}
