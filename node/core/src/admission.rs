//! Admission: at most a configured number of jobs run at once, the others wait in order of arrival.
//!
//! The first owner of a constant key keeps the queue. It is soft state: homes report their jobs once
//! a second and on every change, so a successor has learned everything after one round. Two
//! admission nodes during a cut may let too many jobs run; nothing else depends on the limit.

use std::collections::BTreeMap;
use std::time::Duration;

use cortado_membership::ring;
use cortado_protocol::peer::PeerMessage;
use cortado_protocol::{JobId, NodeId};

use crate::Core;

/// How often homes report.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// After this long without a report a job counts no more.
const FORGET_AFTER: Duration = Duration::from_secs(4);
/// How long a new admission node waits for the word of every member before it lets new jobs in.
const LISTEN_FOR: Duration = Duration::from_millis(1500);

struct Entry {
    home: NodeId,
    submitted_ms: u64,
    arrival: u64,
    running: bool,
    seen: Duration,
}

/// The queue, on the node that keeps it; the reporting clock, on all.
#[derive(Default)]
pub(crate) struct Queue {
    entries: BTreeMap<JobId, Entry>,
    arrivals: u64,
    reported_at: Duration,
    /// Set while this node, new to it, does not let jobs in.
    listens_until: Option<Duration>,
    /// When each node reported last.
    heard: BTreeMap<NodeId, Duration>,
    keeper: Option<NodeId>,
    reported_any: bool,
}

impl Core {
    fn admission_node(&self) -> NodeId {
        ring::first_owner(ring::ADMISSION_KEY, &self.members.live).unwrap_or(self.config.node)
    }

    /// Reports this node's jobs now.
    pub(crate) fn ask_admission(&mut self) {
        let ended = |job: &JobId| self.jobs.get(job).is_none_or(|log| log.ended().is_some());
        let jobs: Vec<_> = self
            .homes
            .iter()
            .filter(|(job, _)| !ended(job))
            .map(|(job, home)| (*job, self.jobs[job].submitted_ms, home.runs()))
            .collect();
        if jobs.is_empty() && !self.admission.reported_any {
            return;
        }
        self.admission.reported_any = !jobs.is_empty();
        self.admission.reported_at = self.now;
        self.send(self.admission_node(), PeerMessage::Admit { jobs });
    }

    pub(crate) fn tick_admission(&mut self) {
        if self.now >= self.admission.reported_at + REPORT_EVERY {
            self.ask_admission();
        }
        if self.admission.listens_until.is_some_and(|until| self.now >= until) {
            self.admit();
        }
    }

    pub(crate) fn admission_after_change(&mut self) {
        let (now, keeper) = (self.now, self.admission_node());
        if self.admission.keeper.replace(keeper) != Some(keeper) {
            // What was reported a moment ago is from those that saw the change sooner.
            self.admission.entries.retain(|_, entry| now < entry.seen + LISTEN_FOR);
            // Where no job was ever heard of, none can be running.
            let any = self.holdings.jobs().next().is_some();
            let listens = any && keeper == self.config.node;
            self.admission.listens_until = listens.then_some(now + LISTEN_FOR);
            // The new one waits to hear of everybody, if only that there is nothing.
            self.admission.reported_any = true;
        }
        self.ask_admission();
    }

    /// Whether some member may still drive jobs that this node has not heard of.
    fn listens(&mut self) -> bool {
        let Queue { listens_until, heard, .. } = &mut self.admission;
        let recent = |node| heard.get(node).is_some_and(|at| self.now < *at + LISTEN_FOR);
        let all = self.members.live.iter().all(recent);
        *listens_until = listens_until.filter(|until| self.now < *until && !all);
        listens_until.is_some()
    }

    /// A home reports its jobs; jobs it reported before and does not name now have ended.
    pub(crate) fn on_admit(&mut self, from: NodeId, jobs: Vec<(JobId, u64, bool)>) {
        let now = self.now;
        let queue = &mut self.admission;
        queue.heard.insert(from, now);
        queue.entries.retain(|job, entry| {
            let named = || jobs.iter().any(|(named, ..)| named == job);
            entry.home != from || named()
        });
        queue.entries.retain(|_, entry| now < entry.seen + FORGET_AFTER);
        for (job, submitted_ms, running) in jobs {
            queue.arrivals += 1;
            let arrival = queue.arrivals;
            let fresh = Entry { home: from, submitted_ms, arrival, running, seen: now };
            let entry = queue.entries.entry(job).or_insert(fresh);
            entry.home = from;
            entry.seen = now;
            entry.running |= running;
        }
        self.admit();
    }

    fn admit(&mut self) {
        let limit = self.config.max_running_jobs as usize;
        let listening = self.listens();
        let entries = &mut self.admission.entries;
        let mut running = entries.values().filter(|entry| entry.running).count();
        let mut waiting: Vec<_> = entries
            .iter()
            .filter(|(_, entry)| !entry.running)
            .map(|(job, entry)| (entry.submitted_ms, entry.arrival, *job))
            .collect();
        waiting.sort_unstable();
        let mut places: BTreeMap<NodeId, Vec<(JobId, u32)>> = BTreeMap::new();
        let mut place = 0;
        for (_, _, job) in waiting {
            let entry = entries.get_mut(&job).expect("collected from the same map");
            if running < limit && !listening {
                entry.running = true;
                running += 1;
            } else {
                place += 1;
                places.entry(entry.home).or_default().push((job, place));
            }
        }
        for (job, entry) in entries.iter().filter(|(_, entry)| entry.running) {
            places.entry(entry.home).or_default().push((*job, 0));
        }
        for (home, jobs) in places {
            self.send(home, PeerMessage::Admitted { jobs });
        }
    }

    pub(crate) fn on_admitted(&mut self, jobs: &[(JobId, u32)]) {
        for (job, place) in jobs {
            self.home_admitted(*job, *place);
        }
    }
}
