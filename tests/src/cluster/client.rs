//! What clients do with a cluster, whatever its nodes run in.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Cortado, path_text, uploaded_percent, wait_for};

/// The program `cortado` with a cluster's profile.
#[derive(Debug)]
pub struct Client {
    root: PathBuf,
}

impl Client {
    /// For the cluster whose profile is in the folder `cluster` of `root`.
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The cluster's folder, which is its profile too.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.root.join("cluster")
    }

    /// A path beside the cluster's folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// `cortado ARGUMENTS` for this cluster.
    #[must_use]
    pub fn cortado(&self, arguments: &[&str]) -> Cortado {
        Cortado::at(&self.dir(), arguments)
    }

    /// `cortado --json ARGUMENTS` for this cluster, and what it printed.
    #[must_use]
    pub fn json(&self, arguments: &[&str]) -> Value {
        self.cortado(arguments).args(&["--json"]).run().ok().json()
    }

    /// `cortado run coffee`, with the reports in the folder `out`.
    #[must_use]
    pub fn run_coffee(&self, data: &Path, job: &str, out: &str) -> Cortado {
        let (data, out) = (path_text(data), path_text(&self.path(out)));
        self.cortado(&["run", "coffee", "--data", &data, "--job", job, "--out", &out])
    }

    /// The node that brings others back, once there is one, which may take so many seconds.
    #[must_use]
    pub fn supervisor(&self, seconds: u64) -> String {
        wait_for("a supervisor", seconds, || {
            let nodes = self.json(&["nodes"]);
            nodes["supervisor"]["node"].as_str().map(str::to_owned)
        })
    }

    /// What happened, by the word of all nodes that answer.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        self.cortado(&["log", "--json"]).run().ok().json_lines()
    }

    /// How a job stands.
    #[must_use]
    pub fn status(&self, job: &str) -> Value {
        self.json(&["status", job])
    }

    /// How a job stands, if the cluster knows it already and answers now.
    #[must_use]
    pub fn try_status(&self, job: &str) -> Option<Value> {
        let status = self.cortado(&["status", job, "--json"]).run();
        (status.code == Some(0)).then(|| status.json())
    }

    /// The node that drives a job.
    #[must_use]
    pub fn coordinator(&self, job: &str) -> String {
        self.status(job)["coordinator"].as_str().expect("a job has a coordinator").to_owned()
    }

    /// Waits until this share of the job's bytes is durable, in percent, and returns the status. The
    /// upload must not be over by then.
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
