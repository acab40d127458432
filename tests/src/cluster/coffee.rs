//! Datasets of the coffee-shop chain, and checks of their results.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Client, Cluster, Cortado, path_text, wait_for};
use crate::oracle::{self, Answer};

/// The size of a dataset.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Transactions in each of two months.
    pub transactions_per_month: u64,
    /// Customers.
    pub users: u64,
    /// Seed of the random numbers.
    pub seed: u64,
}

impl Shape {
    /// Its upload takes no noticeable time.
    pub const TINY: Self = Self { transactions_per_month: 500, users: 200, seed: 1 };
    /// About 14 MB in 35 batches: at [`Self::SLOW`], an upload of about four seconds.
    pub const MIDDLE: Self = Self { transactions_per_month: 30_000, users: 30_000, seed: 2 };
    /// Upload rate in bytes per second that lets a fault hit the middle of [`Self::MIDDLE`].
    pub const SLOW: u64 = 4_000_000;
}

/// A dataset in a temporary folder.
pub struct Coffee {
    folder: tempfile::TempDir,
    answer: Answer,
}

impl Coffee {
    /// Generates a dataset and computes its reports.
    ///
    /// # Panics
    /// If it can't be generated.
    #[must_use]
    pub fn new(shape: Shape) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let out = path_text(folder.path());
        let [transactions, users, seed] =
            [shape.transactions_per_month, shape.users, shape.seed].map(|n| n.to_string());
        let _ = Cortado::new(&["gen", "coffee", "--out", &out])
            .args(&["--transactions-per-month", &transactions, "--users", &users, "--seed", &seed])
            .run()
            .ok();
        let answer = oracle::coffee(folder.path());
        Self { folder, answer }
    }

    /// Appends text to a file, and computes the reports again.
    ///
    /// # Panics
    /// If the file can't be written.
    pub fn append(&mut self, file: &str, text: &str) {
        use std::io::Write;
        let open = std::fs::File::options().append(true).open(self.dir().join(file));
        open.and_then(|mut file| file.write_all(text.as_bytes())).expect("the file can grow");
        self.answer = oracle::coffee(self.folder.path());
    }

    /// Its folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// The expected results.
    #[must_use]
    pub fn answer(&self) -> &Answer {
        &self.answer
    }

    /// Starts a slow upload with `run`, calls `fault` when 30 % is durable, and expects the right
    /// result in the folder named like the job.
    ///
    /// # Panics
    /// If the result does not come or is wrong.
    pub fn upload_through(&self, cluster: &Client, job: &str, run: Cortado, fault: impl FnOnce()) {
        let run = run.upload_rate(Shape::SLOW).spawn();
        cluster.await_upload(job, 30);
        fault();
        let _ = run.wait().ok();
        self.check(cluster, job, job);
    }

    /// Checks that a job is done and its result right: the reports in the folder `out` equal the
    /// oracle's byte for byte, the receipt names every row, and `cortado verify` agrees.
    ///
    /// # Panics
    /// If a check fails.
    pub fn check(&self, cluster: &Client, job: &str, out: &str) {
        self.check_reports(&cluster.path(out));
        // A job stays done, also at a new coordinator.
        assert_eq!(cluster.status(job)["state"], "done");
        let verified = cluster.json(&["verify", job]);
        assert_eq!(verified["ok"], true, "{verified}");
    }

    /// Kills all nodes but one after everything has reached its owners, and checks that this one
    /// returns the right result of each job.
    ///
    /// # Panics
    /// If a check fails.
    pub fn check_alone(&self, cluster: &Cluster, name: &str, jobs: &[String]) {
        cluster.await_members();
        cluster.await_moves();
        let others = cluster.others(name);
        cluster.kill_together(&others.iter().map(String::as_str).collect::<Vec<_>>());
        let address = cluster.address(name);
        for job in jobs {
            let out = format!("alone-{name}-{job}");
            let folder = path_text(&cluster.path(&out));
            wait_for(&format!("{name} to give the result alone"), 60, || {
                let arguments = ["result", job, "--out", &folder, "--connect", &address];
                (cluster.cortado(&arguments).run().code == Some(0)).then_some(())
            });
            self.check_reports(&cluster.path(&out));
        }
    }

    /// Checks the reports and the receipt in a folder.
    ///
    /// # Panics
    /// If they are missing or wrong.
    pub fn check_reports(&self, folder: &Path) {
        let mut names = file_names(folder);
        names.retain(|name| name != "receipt.json");
        assert_eq!(names, self.answer.reports.keys().copied().collect::<Vec<_>>());
        for (name, expected) in &self.answer.reports {
            let found = std::fs::read_to_string(folder.join(name)).expect("a report can be read");
            assert!(
                found == *expected,
                "{name} differs: {} lines instead of {}; first difference: {:?}",
                found.lines().count(),
                expected.lines().count(),
                found.lines().zip(expected.lines()).find(|(found, expected)| found != expected)
            );
        }
        self.check_receipt(&folder.join("receipt.json"));
    }

    fn check_receipt(&self, path: &PathBuf) {
        let text = std::fs::read_to_string(path).expect("there is a receipt");
        let receipt: Value = serde_json::from_str(&text).expect("a receipt is JSON");
        assert_eq!((&receipt["batches_lost"], &receipt["batches_twice"]), (&0.into(), &0.into()));
        let tables = receipt["tables"].as_array().expect("a receipt names tables");
        assert_eq!(tables.len(), self.answer.rows.len());
        for table in tables {
            let name = table["name"].as_str().expect("a table has a name");
            let expected = self.answer.rows[name];
            assert_eq!(table["rows_in"], expected.0, "rows of {name}");
            assert_eq!(table["rows_rejected"], expected.1, "rejected rows of {name}");
        }
    }
}

fn file_names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("there is a folder of reports");
    let name =
        |entry: std::io::Result<std::fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
    let mut names: Vec<_> = entries.filter_map(name).collect();
    names.sort();
    names
}
