//! A client in bad weather: one job after the other, each with the oracle's result.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::report::{ClientReport, Job};
use crate::cluster::{Coffee, Cortado, Finished, job_id, path_text};

/// Bytes per second of one client: an upload takes about five seconds, so that every one is hit.
const CLIENT_RATE: u64 = 1_300_000;
/// Seconds one job may take.
const JOB_SECONDS: u64 = 150;
/// Jobs of one client are numbered below this.
const JOBS: u64 = 1_000_000;

/// One of the clients.
#[derive(Clone, Copy)]
pub(crate) struct Client<'a> {
    /// The cluster's profile.
    pub(crate) profile: &'a Path,
    /// Where its results go.
    pub(crate) work: &'a Path,
    /// What it uploads.
    pub(crate) data: &'a Coffee,
    /// Tells it from the others.
    pub(crate) number: u64,
    /// Added to the numbers of its jobs.
    pub(crate) first_job: u64,
}

impl Client<'_> {
    /// One job after the other, until it is over; at least one.
    pub(crate) fn upload_until(self, storm_began: Instant, over: &AtomicBool) -> ClientReport {
        let mut report = ClientReport::default();
        while report.jobs.is_empty() || !over.load(Ordering::Relaxed) {
            let job = self.job(report.jobs.len() as u64);
            let out = self.work.join(&job);
            let (data, to) = (path_text(self.data.dir()), path_text(&out));
            let began = Instant::now();
            let run = ["run", "coffee", "--data", &data, "--job", &job, "--out", &to];
            let mut ended = self.patient(&run);
            // Unreachable, safe to retry: then it is retried.
            while ended.code == Some(5) && began.elapsed().as_secs() < JOB_SECONDS {
                report.resumed += 1;
                ended = self.patient(&["resume", &job, "--data", &data, "--out", &to]);
            }
            let ended = ended.ok();
            if ended.stderr.contains("lost batches again") {
                report.sent_again += 1;
            }
            self.data.check_reports(&out);
            report.jobs.push(Job { began: began - storm_began, took: began.elapsed() });
        }
        report
    }

    /// Fetches each result once more.
    pub(crate) fn fetch_again(self, jobs: usize, address: impl Fn(usize) -> String) {
        for number in 0..jobs {
            let job = self.job(number as u64);
            let out = self.work.join(format!("again-{job}"));
            let (to, address) = (path_text(&out), address(number));
            self.cortado(&["result", &job, "--out", &to, "--connect", &address]).run().ok();
            self.data.check_reports(&out);
        }
    }

    fn patient(self, arguments: &[&str]) -> Finished {
        self.cortado(arguments).upload_rate(CLIENT_RATE).within(JOB_SECONDS).run()
    }

    fn cortado(self, arguments: &[&str]) -> Cortado {
        Cortado::at(self.profile, arguments)
    }

    fn job(self, number: u64) -> String {
        job_id(self.number * JOBS + self.first_job + number)
    }
}
