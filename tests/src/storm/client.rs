//! A client in a storm: uploads one job after the other, and compares each result with the
//! oracle's.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::report::{ClientReport, Job};
use crate::cluster::{Coffee, Cortado, Finished, job_id, path_text};

/// Bytes per second of one client: an upload takes about five seconds, so that a kill hits each
/// one.
const CLIENT_RATE: u64 = 1_300_000;
/// Time limit of one job, in seconds.
const JOB_SECONDS: u64 = 150;
/// Distance between the job numbers of two clients.
const JOBS: u64 = 1_000_000;

/// One of the clients.
#[derive(Clone, Copy)]
pub(crate) struct Client<'a> {
    /// The cluster's profile.
    pub(crate) profile: &'a Path,
    /// Folder for its results.
    pub(crate) work: &'a Path,
    /// The dataset it uploads.
    pub(crate) data: &'a Coffee,
    /// Its number among the clients.
    pub(crate) number: u64,
    /// Offset of the numbers of its jobs.
    pub(crate) first_job: u64,
}

impl Client<'_> {
    /// Runs one job after the other until `over` is set; at least one.
    pub(crate) fn upload_until(self, storm_began: Instant, over: &AtomicBool) -> ClientReport {
        let mut report = ClientReport::default();
        while report.jobs.is_empty() || !over.load(Ordering::Relaxed) {
            let job = self.job(report.jobs.len() as u64);
            let out = self.work.join(&job);
            let (data, to) = (path_text(self.data.dir()), path_text(&out));
            let began = Instant::now();
            let run = ["run", "coffee", "--data", &data, "--job", &job, "--out", &to];
            let mut ended = self.patient(&run);
            // Exit code 5 means: unreachable, safe to retry.
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

    /// Fetches each result again and checks it.
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
