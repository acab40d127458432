//! `cortado jobs`, `status`, `cancel`, `delete`, `result`, `verify`, `explain` and `rejects`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cortado_engine::Receipt;
use cortado_protocol::JobId;
use cortado_protocol::client::{ClientRequest, ClientResponse};
use cortado_protocol::job::{JobStatus, ResultFile};
use serde_json::json;

use super::job_text;
use super::output::{self, Output, grouped, table};
use super::rejects;
use crate::cluster::unexpected;
use crate::result::{self, FolderSink, NoSink};
use crate::{Cluster, Error, job, verify};

pub(super) async fn jobs(cluster: &Cluster, output: Output) -> Result<(), Error> {
    let jobs = job::list(cluster).await?;
    let json: Vec<_> = jobs.iter().map(cortado_report::Job::from).collect();
    output.show(&json, |_| {
        if jobs.is_empty() {
            return "no jobs".into();
        }
        let rows = jobs
            .iter()
            .map(|job| vec![job.job.to_string(), job.plan.clone(), job.state.name().to_owned()])
            .collect();
        table(&["JOB", "PLAN", "STATE"], &[], rows)
    })
}

pub(super) async fn status(cluster: &Cluster, id: JobId, output: Output) -> Result<(), Error> {
    let status = job::status(cluster, id, Duration::ZERO).await?;
    output.show(&cortado_report::Job::from(&status), |_| job_text::status(&status))
}

pub(super) async fn explain(cluster: &Cluster, id: JobId, output: Output) -> Result<(), Error> {
    let status = job::status(cluster, id, Duration::ZERO).await?;
    let sentence = job_text::explain(&status);
    output.show(&json!({ "job": id, "explanation": sentence }), |_| sentence.clone())
}

pub(super) async fn cancel(cluster: &Cluster, id: JobId, output: Output) -> Result<(), Error> {
    let status = job::cancel(cluster, id).await?;
    output
        .show(&cortado_report::Job::from(&status), |_| format!("job {id}: {}", status.state.name()))
}

pub(super) async fn delete(cluster: &Cluster, id: JobId, output: Output) -> Result<(), Error> {
    match cluster.request(&ClientRequest::Delete(id)).await? {
        (ClientResponse::Accepted, _) => {
            output.show(&json!({ "job": id, "deleted": true }), |_| format!("job {id}: deleted"))
        }
        (other, _) => Err(unexpected(&other)),
    }
}

pub(super) async fn result(
    cluster: &Arc<Cluster>,
    id: JobId,
    out: &Path,
    output: Output,
) -> Result<(), Error> {
    let status = job::status(cluster, id, Duration::ZERO).await?;
    finish(cluster, &status, Some(out), output).await.map(|_| ())
}

/// Fetches the result of a finished job, and prints the receipt's summary.
pub(super) async fn finish(
    cluster: &Arc<Cluster>,
    status: &JobStatus,
    out: Option<&Path>,
    output: Output,
) -> Result<Receipt, Error> {
    let finished = result::finished(status)?;
    let receipt = match out {
        Some(out) => {
            let mut sink = FolderSink::new(out)?;
            let receipt = result::fetch(cluster, status.job, &finished, &mut sink).await?;
            sink.commit()?;
            receipt
        }
        None => result::fetch(cluster, status.job, &finished, &mut NoSink).await?,
    };
    let receipt = verify::parse_receipt(&receipt)?;
    let sentence = receipt.sentence();
    if output.json {
        let files: Vec<_> = finished.files.iter().map(cortado_report::File::from).collect();
        let value = json!({
            "job": status.job,
            "state": status.state.name(),
            "out": out,
            "files": files,
            "receipt": sentence,
        });
        output.line(&value.to_string())?;
        return Ok(receipt);
    }
    if let Some(out) = out {
        output::note(&files_table(&finished.files));
        output::note(&format!("written to {}", out.display()));
    }
    if let Some(hint) = rejects::hint(&receipt, status.job) {
        output::note(&hint);
    }
    output.line(&sentence)?;
    Ok(receipt)
}

fn files_table(files: &[ResultFile]) -> String {
    let rows = files
        .iter()
        .map(|file| vec![file.name.clone(), grouped(file.rows), output::bytes(file.bytes)])
        .collect();
    table(&["FILE", "ROWS", "SIZE"], &[1, 2], rows)
}

pub(super) async fn verify(
    cluster: &Arc<Cluster>,
    id: JobId,
    data: Option<&Path>,
    output: Output,
) -> Result<(), Error> {
    let verified = verify::verify(cluster, id, data).await?;
    let sentence = verified.receipt.sentence();
    let value = json!({
        "job": id,
        "ok": verified.problems.is_empty(),
        "receipt": sentence,
        "compared": verified.compared,
        "problems": verified.problems,
    });
    output.show(&value, |_| {
        let mut text = format!("receipt: {sentence}");
        if !verified.compared.is_empty() && verified.problems.is_empty() {
            text.push_str(&format!(
                "\nrecomputed in one process, same bytes: {}",
                verified.compared.join(", ")
            ));
        }
        text
    })?;
    match verified.problems.as_slice() {
        [] => Ok(()),
        problems => Err(Error::Incomplete(format!(
            "job {id} does not verify:\n  {}",
            problems.join("\n  ")
        ))),
    }
}

pub(super) async fn rejects(
    cluster: &Cluster,
    id: JobId,
    only: Option<&str>,
    output: Output,
) -> Result<(), Error> {
    let spec = job::spec(cluster, id).await?;
    if let Some(only) = only
        && !spec.tables.iter().any(|table| table.name == only)
    {
        let names: Vec<_> = spec.tables.iter().map(|table| table.name.as_str()).collect();
        return Err(Error::NotFound(format!(
            "job {id} has no table {only}; there are {}",
            names.join(", ")
        )));
    }
    let mut all = Vec::new();
    for (index, files) in spec.tables.iter().enumerate() {
        if only.is_some_and(|only| only != files.name) {
            continue;
        }
        let request = ClientRequest::Rejects { job: id, table: index as u16 };
        match cluster.request(&request).await? {
            (ClientResponse::Rejects(rejects), _) => {
                all.extend(rejects.into_iter().map(|reject| (files.name.as_str(), reject)));
            }
            (other, _) => return Err(unexpected(&other)),
        }
    }
    if output.json {
        // One line per row, since there may be many rows.
        for (table, reject) in all {
            output.value(&cortado_report::Rejected::of(table, reject))?;
        }
        return Ok(());
    }
    if all.is_empty() {
        return output.line("no rejected rows");
    }
    let lines: String = all
        .iter()
        .map(|(_, r)| format!("{}:{}: {}\n    {}\n", r.file, r.line, r.reason, printable(&r.row)))
        .collect();
    output.bytes(lines.as_bytes())
}

/// Text from outside, without characters that could control a terminal.
fn printable(text: &str) -> String {
    text.trim_end().chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
