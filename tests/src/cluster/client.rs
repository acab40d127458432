//! The commands of a client, for clusters of processes and of containers.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Cortado, path_text, uploaded_percent, wait_for};

/// The program `cortado` with a cluster's profile.
#[derive(Debug)]
pub struct Client {
    root: PathBuf,
}

impl Client {
    /// Uses the cluster whose profile is in the folder `cluster` of `root`.
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The cluster's folder, which is also its profile.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.root.join("cluster")
    }

    /// A path beside the cluster's folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Prepares `cortado ARGUMENTS` for this cluster.
    #[must_use]
    pub fn cortado(&self, arguments: &[&str]) -> Cortado {
        Cortado::at(&self.dir(), arguments)
    }

    /// Runs `cortado --json ARGUMENTS` for this cluster, and returns its output.
    #[must_use]
    pub fn json(&self, arguments: &[&str]) -> Value {
        self.cortado(arguments).args(&["--json"]).run().ok().json()
    }

    /// Prepares `cortado run coffee`, with the reports in the folder `out`.
    #[must_use]
    pub fn run_coffee(&self, data: &Path, job: &str, out: &str) -> Cortado {
        let (data, out) = (path_text(data), path_text(&self.path(out)));
        self.cortado(&["run", "coffee", "--data", &data, "--job", job, "--out", &out])
    }

    /// Waits up to so many seconds for a supervisor, and returns its name.
    #[must_use]
    pub fn supervisor(&self, seconds: u64) -> String {
        wait_for("a supervisor", seconds, || {
            let nodes = self.json(&["nodes"]);
            nodes["supervisor"]["node"].as_str().map(str::to_owned)
        })
    }

    /// The events that all reachable nodes report.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        self.cortado(&["log", "--json"]).run().ok().json_lines()
    }

    /// The status of a job.
    #[must_use]
    pub fn status(&self, job: &str) -> Value {
        self.json(&["status", job])
    }

    /// The status of a job, if the cluster already knows the job and answers now.
    #[must_use]
    pub fn try_status(&self, job: &str) -> Option<Value> {
        let status = self.cortado(&["status", job, "--json"]).run();
        (status.code == Some(0)).then(|| status.json())
    }

    /// The coordinator of a job.
    #[must_use]
    pub fn coordinator(&self, job: &str) -> String {
        self.status(job)["coordinator"].as_str().expect("a job has a coordinator").to_owned()
    }

    /// Waits until so many percent of the job's bytes are durable, and returns the status. Panics
    /// if the upload is over by then.
    pub fn await_upload(&self, job: &str, percent: u64) -> Value {
        let status = wait_for(&format!("{percent} % of job {job} to be durable"), 60, || {
            self.try_status(job).filter(|status| uploaded_percent(status) >= percent)
        });
        assert_eq!(
            status["state"], "uploading",
            "too late for a fault during the upload: {status}"
        );
        status
    }

    /// Waits until a job is in a state.
    pub fn await_state(&self, job: &str, state: &str) -> Value {
        wait_for(&format!("job {job} to be {state}"), 60, || {
            self.try_status(job).filter(|status| status["state"] == state)
        })
    }
}
