//! Streams with short windows.

use cortado::generate::events::{Bursts, EventOptions};
use serde_json::Value;

use super::{Cluster, path_text};

/// The plan of the built-in stream, with windows of half a second.
#[must_use]
pub fn short_windows() -> String {
    cortado_stream::EVENTS
        .replace("every = \"5s\"", "every = \"500ms\"")
        .replace("lateness = \"2s\"", "lateness = \"0s\"")
        .replace("idle = \"10s\"", "idle = \"3s\"")
}

/// Events at 100 a second, without copies and all of them valid, from a second of event time on.
#[must_use]
pub fn plain_events(name: &str, from_s: i64) -> EventOptions {
    EventOptions {
        seed: 3,
        publisher: name.into(),
        start_ms: 1_790_000_000_000 + from_s * 1_000,
        rate: 100.0,
        duplicates: 0.0,
        invalid: 0.0,
        disorder_ms: 0,
        bursts: Bursts::default(),
    }
}

impl Cluster {
    /// Makes the stream `events` with a plan, and the schemas that are built in; returns its job.
    ///
    /// # Panics
    /// If that fails.
    pub fn start_stream(&self, plan: &str) -> String {
        let path = self.path("plan.toml");
        std::fs::write(&path, plan).expect("a file can be written");
        let schemas = self.path("schemas");
        std::fs::create_dir_all(&schemas).expect("a folder can be made");
        for (name, text) in cortado_stream::EVENTS_SCHEMAS {
            std::fs::write(schemas.join(name), text).expect("a file can be written");
        }
        let (path, schemas) = (path_text(&path), path_text(&schemas));
        let started = self.json(&["events", "start", &path, "--schemas", &schemas]);
        started["job"].as_str().expect("a job").to_owned()
    }

    /// Publishes [`plain_events`] of so many seconds.
    ///
    /// # Panics
    /// If that fails.
    pub fn publish_plain(&self, name: &str, from_s: i64, seconds: u64) {
        let options = plain_events(name, from_s);
        let lines: Vec<_> = (0..100 * seconds).map(|n| options.event(n).line).collect();
        let path = self.path(name);
        std::fs::write(&path, lines.join("\n")).expect("a file can be written");
        let path = path_text(&path);
        self.cortado(&["events", "publish", "--publisher", name, "--from", &path]).run().ok();
    }

    /// All rows of an output that there are now.
    ///
    /// # Panics
    /// If they can't be read.
    #[must_use]
    pub fn rows(&self, output: &str) -> Vec<Value> {
        self.cortado(&["events", "tail", output, "--no-follow"]).run().ok().json_lines()
    }
}
