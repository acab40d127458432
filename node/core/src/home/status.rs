//! How a job stands, told to clients at once or when there is news.

use std::time::Duration;

use bytes::Bytes;
use cortado_protocol::client::{ClientResponse, TableCoverage};
use cortado_protocol::job::{JobState, JobStatus, Manifest, StageStatus, TableStatus};
use cortado_protocol::{Coverage, Edge, JobId, limits};

use super::{Home, Phase};
use crate::Core;
use crate::forwarding::Origin;
use crate::job::{BoundPlan, JobLog};
use crate::placement::names_of;

/// Longest time a client may wait for news.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

impl Core {
    /// How a job stands, if it is known here.
    pub(crate) fn status(&mut self, job: JobId) -> Option<JobStatus> {
        let home_node = self.facts.home(job);
        let log = self.facts.jobs.get(&job)?;
        let plan = log.plan.as_ref()?;
        let home = self.homes.get(&job);
        let closing = matches!(home.map(|home| &home.phase), Some(Phase::Close));
        let manifest = log.manifest.clone().filter(|_| !closing);
        let state = match &manifest {
            Some(Manifest::Done { .. }) => JobState::Done,
            Some(Manifest::Failed { message }) => JobState::Failed { message: message.clone() },
            None if log.cancelled => JobState::Cancelled,
            None => match home.and_then(|home| home.place) {
                Some(0) if log.all_ends().is_some() => JobState::Finishing,
                Some(0) => JobState::Uploading,
                None if home.is_some_and(|home| self.is_silent(home, log)) => JobState::Uploading,
                place => JobState::Queued { position: place.unwrap_or(0) },
            },
        };
        let tables = (0..plan.spec.tables.len()).map(|t| self.table_status(job, plan, log, t));
        let tables: Vec<_> = tables.collect();
        let stages = home.map(|home| stages(&home.phase, home.slots_done())).unwrap_or_default();
        let waits_for = self.waits_for(job, &state, &tables);
        Some(JobStatus {
            job,
            plan: plan.spec.plan_name.clone(),
            state,
            home: home_node,
            tables,
            stages,
            waits_for,
            manifest,
        })
    }

    /// Where a job stands at this node, in a line for people who look for a fault.
    #[must_use]
    pub fn describe(&mut self, job: JobId) -> String {
        let home = self.facts.home(job);
        let phase = self.homes.get(&job).map(|state| match &state.phase {
            Phase::Collect { gather } => format!("collect, gather {gather:?}"),
            Phase::Slots { .. } => format!("slots {:?}", state.slots_done()),
            Phase::Compute => "compute".to_owned(),
            Phase::Write { in_flight, .. } => format!("write {in_flight:?}"),
            Phase::Close => "close".to_owned(),
            Phase::Ended => "ended".to_owned(),
        });
        let place = self.homes.get(&job).and_then(|state| state.place);
        let ends = self.facts.jobs.get(&job).map(|log| log.ends.clone());
        let waits = self.status(job).and_then(|status| status.waits_for);
        format!("home {home}, phase {phase:?}, place {place:?}, ends {ends:?}, waits {waits:?}")
    }

    fn table_status(
        &self,
        job: JobId,
        plan: &BoundPlan,
        log: &JobLog,
        table: usize,
    ) -> TableStatus {
        let files = &plan.spec.tables[table];
        let mut status = TableStatus {
            name: files.name.clone(),
            declared: log.ends.get(table).copied().flatten(),
            total_bytes: files.files.iter().map(|file| file.bytes).sum(),
            ..TableStatus::default()
        };
        let edge = Edge::table(table);
        let end = status.declared.unwrap_or(limits::NUMBERS);
        let sources =
            self.facts.holdings.edge(job, edge).into_iter().flat_map(|held| held.sources(0));
        for (_, source) in sources.take_while(|(number, _)| *number < end) {
            status.batches += 1;
            status.rows += u64::from(source.rows);
            status.bytes += u64::from(source.bytes);
        }
        if let Some(home) = self.homes.get(&job) {
            let mut missing = Coverage::default();
            for gap in home.missing.iter().filter(|gap| gap.edge == edge) {
                missing.union(&gap.coverage);
            }
            status.missing = missing;
        }
        status
    }

    fn is_silent(&self, home: &Home, log: &JobLog) -> bool {
        home.is_idle(self.facts.now, self.facts.config.upload_idle, log)
    }

    /// One sentence on what the job waits for.
    fn waits_for(&self, job: JobId, state: &JobState, tables: &[TableStatus]) -> Option<String> {
        match state {
            JobState::Done | JobState::Failed { .. } | JobState::Cancelled => return None,
            JobState::Queued { position: 0 } => {
                return Some("waits for a place in the queue".to_owned());
            }
            JobState::Queued { position } => {
                return Some(format!("waits in the queue at place {position}"));
            }
            JobState::Uploading | JobState::Finishing => {}
        }
        if let Err(reason) = self.facts.replicas_suffice() {
            let live = &self.facts.members.live;
            let away = self.facts.roster.known().filter(|node| live.binary_search(node).is_err());
            let away: Vec<_> = away.collect();
            let who = match &away[..] {
                [] => String::new(),
                [one] => format!("; {one} is away"),
                several => format!("; {} are away", names_of(several)),
            };
            return Some(format!("{reason}{who}"));
        }
        if let Some(by) = self.expiry.closed_by(job) {
            return Some(format!(
                "its time to live was over; waits for {by}, which asked whether it is to go"
            ));
        }
        let missing: Vec<_> = tables.iter().filter(|table| !table.missing.is_empty()).collect();
        if !missing.is_empty() {
            let names = missing.iter().map(|t| format!("{} {}", t.name, ranges(&t.missing)));
            let names = names.collect::<Vec<_>>().join(", ");
            return Some(format!("waits for batches that no live node has: {names}"));
        }
        let silent = self.homes.get(&job).zip(self.facts.jobs.get(&job));
        if let Some((home, _)) = silent.filter(|(home, log)| self.is_silent(home, log)) {
            let seconds = self.facts.now.saturating_sub(home.heard_at()).as_secs();
            return Some(format!(
                "its client has sent nothing for {seconds} s, so its place is free for other jobs; \
                 to go on: cortado resume {job} --data DIR"
            ));
        }
        if *state == JobState::Uploading {
            let open = tables.iter().filter(|table| table.declared.is_none());
            let open = open.map(|table| table.name.as_str()).collect::<Vec<_>>().join(", ");
            return Some(format!("waits for the client to upload {open}"));
        }
        match self.homes.get(&job).map(|home| (&home.phase, home.slots_done())) {
            Some((Phase::Slots { .. }, Some((_, done, total)))) => {
                let workers = self.homes.get(&job).map(Home::workers).unwrap_or_default();
                let with = match &workers[..] {
                    [] => String::new(),
                    workers => format!(", the others are with {}", names_of(workers)),
                };
                Some(format!("waits for slots: {done} of {total} done{with}"))
            }
            Some((Phase::Compute, _)) => Some("is being put together at its home".to_owned()),
            Some((Phase::Write { .. } | Phase::Close, _)) => {
                Some("its result is being written to the replicas".to_owned())
            }
            _ => {
                let short = |t: &&TableStatus| t.declared.is_some_and(|end| t.batches < end);
                let behind = tables.iter().filter(short);
                let behind = behind.map(|t| {
                    format!("{} {} of {}", t.name, t.batches, t.declared.unwrap_or_default())
                });
                let behind = behind.collect::<Vec<_>>().join(", ");
                (!behind.is_empty()).then(|| format!("waits for batches: {behind}"))
            }
        }
    }

    /// What has arrived of a table at this home, for a client that resumes.
    pub(crate) fn coverage(&self, job: JobId, table: usize, from: u64) -> TableCoverage {
        let declared = self.facts.jobs.get(&job).and_then(|log| *log.ends.get(table)?);
        let held = self.facts.holdings.edge(job, Edge::table(table));
        let sources = held.iter().flat_map(|held| held.sources(from));
        let mut sources = sources.map(|(number, source)| (number, source.content));
        let batches = sources.by_ref().take(limits::BATCHES_PER_ANSWER).collect();
        let next = sources.next().map(|(number, _)| number);
        TableCoverage { batches, declared, next }
    }

    pub(crate) fn answer_status(&mut self, origin: Origin, job: JobId) {
        if let Some(status) = self.status(job) {
            self.answer(origin, ClientResponse::Status(status), Bytes::new());
        }
    }

    /// Answers now if there is news, otherwise when there is or when the time is over.
    pub(crate) fn wait_for_news(&mut self, origin: Origin, job: JobId, wait: Duration) {
        let wait = wait.min(LONGEST_WAIT);
        let ended = self.facts.jobs.get(&job).is_some_and(|log| log.ended().is_some());
        let until = self.facts.now + wait;
        let home = self.home_state(job);
        if ended || wait.is_zero() || !home.missing.is_empty() {
            self.answer_status(origin, job);
        } else {
            home.waiting.push((origin, until));
        }
    }

    pub(crate) fn answer_waiting(&mut self, job: JobId) {
        for (origin, _) in std::mem::take(&mut self.home_state(job).waiting) {
            self.answer_status(origin, job);
        }
    }

    pub(super) fn answer_overdue(&mut self, job: JobId) {
        let now = self.facts.now;
        let Some(home) = self.homes.get_mut(&job) else { return };
        let overdue: Vec<_> = home.waiting.extract_if(.., |(_, until)| *until <= now).collect();
        for (origin, _) in overdue {
            self.answer_status(origin, job);
        }
    }
}

/// `3-7, 9` for the numbers 3 to 7 and 9; cut after five intervals.
fn ranges(coverage: &Coverage) -> String {
    let intervals = coverage.intervals();
    let named = intervals.iter().take(5).map(|&(start, end)| match end - start {
        1 => start.to_string(),
        _ => format!("{start}-{}", end - 1),
    });
    let mut text = named.collect::<Vec<_>>().join(", ");
    if intervals.len() > 5 {
        text.push_str(", …");
    }
    text
}

fn stages(phase: &Phase, slots: Option<(bool, u32, u32)>) -> Vec<StageStatus> {
    let stage =
        |name: &str, complete, total| StageStatus { name: name.to_owned(), complete, total };
    match (phase, slots) {
        (Phase::Slots { .. }, Some((true, complete, total))) => {
            vec![stage("fold", complete, total)]
        }
        (Phase::Slots { .. }, Some((false, complete, total))) => {
            vec![stage("join", complete, total)]
        }
        (Phase::Write { waiting, in_flight, .. }, _) => {
            let left = (waiting.len() + in_flight.len()) as u32;
            vec![stage("result", 0, left)]
        }
        _ => Vec::new(),
    }
}
