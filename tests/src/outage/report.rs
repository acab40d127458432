//! The report of the measured outages.

use std::fmt;
use std::time::Duration;

use super::{Outage, Outages};
use crate::chaos::percentiles;

/// Selects one of the times of an outage.
type Time = fn(&Outage) -> Option<Duration>;

/// All measured outages.
#[derive(Clone, Debug)]
pub struct Report {
    /// The settings.
    pub outages: Outages,
    /// The outages in order.
    pub seen: Vec<Outage>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outages { nodes, timing, reviving, together, .. } = &self.outages;
        let who = if *reviving { "their peers start them" } else { "nobody starts them meanwhile" };
        let kills = self.seen.len();
        writeln!(f, "{kills} kills of {together}, {nodes} nodes, timing {timing}, {who}\n")?;
        writeln!(
            f,
            "{:<42} {:>6} {:>6} {:>6} {:>5}",
            "KILLED → …", "P50 s", "P99 s", "MOST", "SEEN"
        )?;
        let back = if *reviving { "back" } else { "back, from their start" };
        let rows: [(&str, Time); 5] = [
            ("known to the first of the others", |outage| outage.known_to_one),
            ("known to all others", |outage| outage.known_to_all),
            ("a job of theirs done elsewhere", |outage| outage.served),
            ("R copies of everything again", |outage| outage.copies),
            (back, |outage| Some(outage.back)),
        ];
        for (what, time) in rows {
            let times = self.seen.iter().filter_map(time).map(|time| time.as_millis() as u64);
            let times: Vec<_> = times.collect();
            let (seen, most) = (times.len(), times.iter().max().copied());
            let Some((p50, p99)) = percentiles(times) else { continue };
            let [p50, p99, most] = [p50, p99, most.unwrap_or_default()].map(|ms| ms as f64 / 1e3);
            writeln!(f, "{what:<42} {p50:>6.2} {p99:>6.2} {most:>6.2} {seen:>5}")?;
        }
        write!(f, "\nall results are exact")
    }
}
