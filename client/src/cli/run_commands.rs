//! `cortado run` and `resume`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cortado_protocol::JobId;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::args::{ResumeArguments, RunArguments};
use super::job_commands::finish;
use super::output::{self, Output, quoted};
use super::progress_bar::ProgressBar;
use super::rejects::{self, MaxRejects};
use crate::job::{self, PlanSource};
use crate::{Cluster, Error, Observer, Progress, dataset, files};

/// The arguments for the steps after the submission.
struct Rest {
    data: PathBuf,
    out: Option<PathBuf>,
    detach: bool,
    max_rejects: Option<MaxRejects>,
}

pub(super) async fn run(
    cluster: Arc<Cluster>,
    arguments: RunArguments,
    output: Output,
) -> Result<(), Error> {
    let RunArguments { plan, data, out, job, detach, rejects } = arguments;
    let id = job.unwrap_or_else(job::new_job_id);
    let rest = Rest { data, out, detach, max_rejects: rejects.max_rejects };
    // Finds every mistake in plan, data and output folder before anything is sent.
    rest.out.as_deref().map_or(Ok(()), files::check_folder)?;
    let source = PlanSource::load(&plan)?;
    let tables = dataset::scan(&rest.data, &source.plan)?;
    let exists = match job {
        Some(job) => match job::spec(&cluster, job).await {
            Ok(spec) => Some(spec),
            Err(Error::NotFound(_)) => None,
            Err(error) => return Err(error),
        },
        None => None,
    };
    let submitted = AtomicBool::new(exists.is_some());
    let again = || {
        if submitted.load(Ordering::Relaxed) {
            format!("resume {id}")
        } else {
            // The job may or may not have been submitted; this command works in both cases.
            format!("run {} --job {id}", quoted(plan.as_ref()))
        }
    };
    detachable(id, &rest, again, async {
        let spec = match exists {
            Some(spec) if spec.plan_toml != source.text => {
                return Err(Error::BadInput(format!("job {id} exists and runs another plan")));
            }
            Some(spec) => {
                dataset::compare(&spec.tables, &tables)?;
                announce(id, output)?;
                spec
            }
            None => {
                announce(id, output)?;
                job::submit(&cluster, id, &source, tables).await?
            }
        };
        submitted.store(true, Ordering::Relaxed);
        go_on(&cluster, Arc::new(spec), &rest, output).await
    })
    .await
}

pub(super) async fn resume(
    cluster: Arc<Cluster>,
    arguments: ResumeArguments,
    output: Output,
) -> Result<(), Error> {
    let ResumeArguments { job, data, out, detach, rejects } = arguments;
    let rest = Rest { data, out, detach, max_rejects: rejects.max_rejects };
    rest.out.as_deref().map_or(Ok(()), files::check_folder)?;
    let again = || format!("resume {job}");
    detachable(job, &rest, again, async {
        let (spec, _) = job::open(&cluster, job, &rest.data).await?;
        announce(job, output)?;
        go_on(&cluster, Arc::new(spec), &rest, output).await
    })
    .await
}

/// Uploads missing batches, waits, and fetches the result.
async fn go_on(
    cluster: &Arc<Cluster>,
    spec: Arc<cortado_protocol::job::JobSpec>,
    rest: &Rest,
    output: Output,
) -> Result<(), Error> {
    let progress = ProgressBar::new();
    progress.note(Progress::Job(spec.job));
    let status = job::status(cluster, spec.job, std::time::Duration::ZERO).await?;
    if let Some(error) = job::ended(&status) {
        return Err(error);
    }
    if !status.state.is_final() {
        job::send_missing(cluster, &spec, &rest.data, &progress).await?;
    }
    if rest.detach {
        progress.finish();
        output::note(&format!(
            "everything is uploaded; fetch the reports with `cortado result {} --out DIR`",
            spec.job
        ));
        return Ok(());
    }
    let status = job::wait(cluster, &spec, &rest.data, &progress).await?;
    progress.finish();
    let finished = finish(cluster, &status, rest.out.as_deref(), output).await;
    if let Err(Error::Io { .. }) = &finished {
        output::note(&format!(
            "the job is done; fetch its results with: cortado result {} --out DIR",
            spec.job
        ));
    }
    rejects::check(&finished?, rest.max_rejects, spec.job)
}

/// Prints the job's id, which is the first line of standard output.
fn announce(job: JobId, output: Output) -> Result<(), Error> {
    if output.json {
        output.line(&json!({ "job": job }).to_string())
    } else {
        output.line(&job.to_string())
    }
}

/// Ends the work, but not the job, when the user or the system interrupts it. Prints how to
/// continue, also when the cluster can't be reached.
async fn detachable(
    job: JobId,
    rest: &Rest,
    again: impl Fn() -> String,
    work: impl Future<Output = Result<(), Error>>,
) -> Result<(), Error> {
    let handler =
        |kind| signal(kind).map_err(|source| Error::io("handle", "signals".as_ref(), source));
    let mut interrupt = handler(SignalKind::interrupt())?;
    let mut terminate = handler(SignalKind::terminate())?;
    let mut hang_up = handler(SignalKind::hangup())?;
    let result = tokio::select! {
        result = work => result,
        _ = interrupt.recv() => Err(Error::Detached(job)),
        _ = terminate.recv() => Err(Error::Detached(job)),
        _ = hang_up.recv() => Err(Error::Detached(job)),
    };
    if let Err(Error::Detached(_) | Error::Unreachable(_)) = &result {
        let out =
            rest.out.as_ref().map_or_else(String::new, |out| format!(" --out {}", quoted(out)));
        output::note(&format!(
            "go on with: cortado {} --data {}{out}",
            again(),
            quoted(&rest.data)
        ));
    }
    result
}
