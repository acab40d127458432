//! What a coordinator tells the keeper of the queue: which of its jobs hold a place, or want one.

use std::time::Duration;

use cortado_protocol::JobId;
use cortado_protocol::peer::{PeerMessage, PlaceWish};

use super::Home;
use crate::Core;

/// How often jobs are reported.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// When this node reported its jobs.
#[derive(Default)]
pub(crate) struct Reports {
    reported_at: Duration,
    reported_any: bool,
}

impl Core {
    /// Reports this node's jobs now.
    pub(crate) fn report_jobs(&mut self) {
        let (now, idle) = (self.facts.now, self.facts.config.upload_idle);
        let wish = |(job, home): (&JobId, &Home)| {
            let log = self.facts.jobs.get(job)?;
            let wants = log.ended().is_none() && !home.is_idle(now, idle, log);
            wants.then(|| PlaceWish {
                job: *job,
                client: home.client,
                submitted_ms: log.submitted_ms,
                running: home.runs(),
            })
        };
        let jobs: Vec<_> = self.homes.iter().filter_map(wish).collect();
        if jobs.is_empty() && !self.reports.reported_any {
            return;
        }
        self.reports.reported_any = !jobs.is_empty();
        self.reports.reported_at = self.facts.now;
        self.out.send(self.facts.queue_keeper(), PeerMessage::Admit { jobs });
    }

    pub(crate) fn tick_reports(&mut self) {
        if self.facts.now >= self.reports.reported_at + REPORT_EVERY {
            self.report_jobs();
        }
    }

    /// The members changed, and with them, perhaps, the keeper.
    pub(crate) fn reports_after_change(&mut self, new_keeper: bool) {
        // A new keeper waits for the report of every member, also for an empty one.
        self.reports.reported_any |= new_keeper;
        self.report_jobs();
    }
}
