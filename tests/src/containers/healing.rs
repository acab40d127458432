//! Measures how long a cluster takes to heal.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{Containers, State, WHOLE};
use crate::cluster::wait_for;

/// The moment of a fault, and the state of the containers before it.
#[derive(Debug)]
pub struct Hit {
    what: &'static str,
    at: Instant,
    unix: Duration,
    before: BTreeMap<String, State>,
}

impl Hit {
    /// Call it right before the fault.
    #[must_use]
    pub fn now(cluster: &Containers, what: &'static str) -> Self {
        let before = cluster.states();
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { what, at: Instant::now(), unix, before }
    }

    /// Time since the fault.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.at.elapsed()
    }

    /// A node's address before the fault.
    #[must_use]
    pub fn address(&self, name: &str) -> &str {
        &self.before[name].address
    }

    /// Waits until these nodes have been restarted and the cluster is whole, and checks that no
    /// other node was started. Prints the times.
    ///
    /// # Panics
    /// If a check fails.
    pub fn await_back(&self, cluster: &Containers, names: &[&str]) {
        wait_for(&format!("{names:?} to be started again"), WHOLE, || {
            let now = cluster.states();
            let anew = |name: &&str| {
                let (before, now) = (&self.before[*name], now.get(*name)?);
                (now.status == "running" && now.started != before.started).then_some(())
            };
            names.iter().map(anew).collect::<Option<()>>()
        });
        let started = self.elapsed();
        cluster.await_whole();
        let whole = self.elapsed();
        self.expect_others_untouched(cluster, names);
        // The last of them was known to be dead right before it was started.
        let events = cluster.events();
        let known = names.iter().filter_map(|name| {
            let about =
                |event: &&serde_json::Value| event["event"] == "reviving" && event["node"] == *name;
            let times = events.iter().filter(about).filter_map(|event| event["unix_ms"].as_u64());
            times.map(Duration::from_millis).filter(|time| *time >= self.unix).min()
        });
        let known = known.max().map_or("never".into(), |time| seconds(time - self.unix));
        println!(
            "{}: known after {known}, started after {}, whole after {}",
            self.what,
            seconds(started),
            seconds(whole)
        );
    }

    /// Checks that no node but these was started since.
    ///
    /// # Panics
    /// If another one was.
    pub fn expect_others_untouched(&self, cluster: &Containers, names: &[&str]) {
        let now = cluster.states();
        for (name, before) in self.before.iter().filter(|(name, _)| !names.contains(&&***name)) {
            let run = |state: &State| (state.id.clone(), state.started.clone());
            assert_eq!(run(&now[name]), run(before), "{name} was well and was started anew");
        }
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f32())
}
