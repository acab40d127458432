//! The state of a job, as text.

use cortado_protocol::job::{JobState, JobStatus};

use super::output::{bytes, grouped, table};

/// The text of `status`.
pub(super) fn status(status: &JobStatus) -> String {
    let rows = status
        .tables
        .iter()
        .map(|t| {
            let declared = t.declared.map_or_else(|| "?".into(), grouped);
            // Headers belong to no batch, so the bytes of all batches never reach the total.
            let whole = t.declared == Some(t.batches);
            let percent = t.bytes.saturating_mul(100).checked_div(t.total_bytes).unwrap_or(0);
            vec![
                t.name.clone(),
                format!("{}/{declared}", grouped(t.batches)),
                grouped(t.rows),
                bytes(t.bytes),
                format!("{} %", if whole { 100 } else { percent.min(99) }),
            ]
        })
        .collect();
    let tables = table(&["TABLE", "BATCHES", "ROWS", "SIZE", "SENT"], &[1, 2, 3, 4], rows);
    let mut text = format!(
        "job    {}\nplan   {}\nstate  {}\nhome   {}\n\n{tables}",
        status.job,
        status.plan,
        status.state.name(),
        status.coordinator
    );
    if !status.stages.is_empty() {
        let rows = status
            .stages
            .iter()
            .map(|stage| vec![stage.name.clone(), format!("{}/{}", stage.complete, stage.total)])
            .collect();
        text.push_str(&format!("\n\n{}", table(&["STAGE", "SLOTS"], &[1], rows)));
    }
    text.push_str(&format!("\n\n{}", explain(status)));
    text
}

/// What the job waits for, as one sentence.
pub(super) fn explain(status: &JobStatus) -> String {
    let waits = |what: &str| match &status.waits_for {
        Some(reason) => format!("{what}: {reason}"),
        None => format!("{what}, waiting for nothing in particular"),
    };
    match &status.state {
        JobState::Queued { position } => {
            waits(&format!("queued at place {position} until other jobs end"))
        }
        JobState::Uploading => waits("uploading"),
        JobState::Running => waits("running"),
        JobState::Finishing => waits("finishing"),
        JobState::Done => "done: it waits for nothing".into(),
        JobState::Failed { message } => format!("failed: {message}"),
        JobState::Cancelled => "cancelled".into(),
    }
}
