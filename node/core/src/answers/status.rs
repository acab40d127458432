//! The status of a job, as clients receive it.

use cortado_protocol::client::TableCoverage;
use cortado_protocol::job::{JobState, JobStatus, Manifest, StageStatus, TableStatus};
use cortado_protocol::{Coverage, Edge, JobId, limits};

use crate::facts::Facts;
use crate::job::{Brief, JobLog};
use crate::placement::names_of;
use crate::progress::{Progress, ProgressOf, Step};

/// The status of a job, if this node knows the job.
pub(crate) fn of(facts: &Facts, progress: ProgressOf<'_>, job: JobId) -> Option<JobStatus> {
    let log = facts.jobs.get(job)?;
    let brief = log.brief.as_ref()?;
    let progress = progress(job);
    let progress = progress.as_ref();
    let closing = progress.is_some_and(|progress| progress.step == Step::Close);
    let manifest = log.manifest.clone().filter(|_| !closing);
    let state = match &manifest {
        Some(Manifest::Done { .. }) => JobState::Done,
        Some(Manifest::Failed { message }) => JobState::Failed { message: message.clone() },
        None if log.cancelled => JobState::Cancelled,
        None if brief.is_stream() => JobState::Running,
        None => match progress.and_then(|progress| progress.place) {
            Some(0) if log.all_ends().is_some() => JobState::Finishing,
            Some(0) => JobState::Uploading,
            None if progress.is_some_and(|p| p.silent_for.is_some()) => JobState::Uploading,
            place => JobState::Queued { position: place.unwrap_or(0) },
        },
    };
    let tables = (0..brief.tables.len()).map(|t| table(facts, job, (brief, log), progress, t));
    let tables: Vec<_> = tables.collect();
    let waits_for = waits_for(facts, job, &state, &tables, progress);
    Some(JobStatus {
        job,
        plan: brief.plan_name.clone(),
        state,
        coordinator: facts.coordinator(job),
        tables,
        stages: progress.map(stages).unwrap_or_default(),
        waits_for,
        manifest,
    })
}

fn table(
    facts: &Facts,
    job: JobId,
    (brief, log): (&Brief, &JobLog),
    progress: Option<&Progress>,
    table: usize,
) -> TableStatus {
    let (name, total_bytes) = &brief.tables[table];
    let mut status = TableStatus {
        name: name.clone(),
        declared: log.ends.get(table).copied().flatten(),
        total_bytes: *total_bytes,
        ..TableStatus::default()
    };
    if let Some(Manifest::Done { tables, .. }) = &log.manifest {
        let total = tables.get(table).copied().unwrap_or_default();
        (status.batches, status.rows, status.bytes) = (total.batches, total.rows, total.bytes);
        return status;
    }
    let edge = Edge::table(table);
    let end = status.declared.unwrap_or(limits::NUMBERS);
    let sources = facts.ledger.edge(job, edge).into_iter().flat_map(|held| held.sources(0));
    for (_, source) in sources.take_while(|(number, _)| *number < end) {
        status.batches += 1;
        status.rows += u64::from(source.rows);
        status.bytes += u64::from(source.bytes);
    }
    let missing = progress.iter().flat_map(|progress| &progress.missing);
    for gap in missing.filter(|gap| gap.edge == edge) {
        status.missing.union(&gap.coverage);
    }
    status
}

/// A sentence that says what the job waits for.
fn waits_for(
    facts: &Facts,
    job: JobId,
    state: &JobState,
    tables: &[TableStatus],
    progress: Option<&Progress>,
) -> Option<String> {
    match state {
        JobState::Done | JobState::Failed { .. } | JobState::Cancelled => return None,
        // Its own status says more.
        JobState::Running => return facts.replicas_suffice().err(),
        JobState::Queued { position: 0 } => {
            return Some("waits for a place in the queue".to_owned());
        }
        JobState::Queued { position } => {
            return Some(format!("waits in the queue at place {position}"));
        }
        JobState::Uploading | JobState::Finishing => {}
    }
    if let Err(reason) = facts.replicas_suffice() {
        let live = &facts.members.live;
        let away = facts.roster.known().filter(|node| live.binary_search(node).is_err());
        let away: Vec<_> = away.collect();
        let who = match &away[..] {
            [] => String::new(),
            [one] => format!("; {one} is away"),
            several => format!("; {} are away", names_of(several)),
        };
        return Some(format!("{reason}{who}"));
    }
    if let Some(by) = facts.jobs.closed_by(job) {
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
    if let Some(silent) = progress.and_then(|progress| progress.silent_for) {
        let seconds = silent.as_secs();
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
    match progress.map(|progress| &progress.step) {
        Some(Step::Slots { done, total, workers, .. }) => {
            let with = match &workers[..] {
                [] => String::new(),
                workers => format!(", the others are with {}", names_of(workers)),
            };
            Some(format!("waits for slots: {done} of {total} done{with}"))
        }
        Some(Step::Compute) => Some("is being put together at its coordinator".to_owned()),
        Some(Step::Write { .. } | Step::Close) => {
            Some("its result is being written to the replicas".to_owned())
        }
        Some(Step::Collect | Step::Ended) | None => {
            let short = |t: &&TableStatus| t.declared.is_some_and(|end| t.batches < end);
            let behind = tables.iter().filter(short);
            let behind = behind
                .map(|t| format!("{} {} of {}", t.name, t.batches, t.declared.unwrap_or_default()));
            let behind = behind.collect::<Vec<_>>().join(", ");
            (!behind.is_empty()).then(|| format!("waits for batches: {behind}"))
        }
    }
}

/// Formats the numbers 3 to 7 and 9 as `3-7, 9`; cut after five intervals.
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

fn stages(progress: &Progress) -> Vec<StageStatus> {
    let (name, complete, total) = match &progress.step {
        Step::Slots { folds: true, done, total, .. } => ("fold", *done, *total),
        Step::Slots { folds: false, done, total, .. } => ("join", *done, *total),
        Step::Write { left } => ("result", 0, *left),
        Step::Collect | Step::Compute | Step::Close | Step::Ended => return Vec::new(),
    };
    vec![StageStatus { name: name.to_owned(), complete, total }]
}

/// The batches of a table that are here, for a client that resumes.
pub(crate) fn coverage(facts: &Facts, job: JobId, table: usize, from: u64) -> TableCoverage {
    let declared = facts.jobs.get(job).and_then(|log| *log.ends.get(table)?);
    facts.coverage((job, Edge::table(table)), from, declared)
}
