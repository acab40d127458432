//! Runs a job: submits it, uploads its batches, waits for its end, and continues after an
//! interrupted client.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cortado_engine::Plan;
use cortado_protocol::JobId;
use cortado_protocol::client::{ClientRequest, ClientResponse};
use cortado_protocol::job::{JobSpec, JobState, JobStatus, TableFiles};
use cortado_protocol::limits::{JOBS_PER_ANSWER, NUMBERS};
use cortado_stream::StreamPlan;

use crate::cluster::unexpected;
use crate::status::status_after;
pub use crate::status::{ended, status};
use crate::upload::{Known, TableWork, upload};
use crate::{Cluster, Error, Observer, Progress, dataset};

/// How long a node waits for a change before it answers a request for a job's state.
const STATUS_WAIT: Duration = Duration::from_secs(5);
/// Shortest time between two requests for a job's state.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A new job's id: a UUIDv7 (RFC 9562 §5.7), so that ids sort by time.
#[must_use]
pub fn new_job_id() -> JobId {
    JobId(uuid::Uuid::now_v7().as_u128())
}

/// A plan and its text.
pub struct PlanSource {
    /// The parsed plan.
    pub plan: Plan,
    /// Its text.
    pub text: String,
}

impl PlanSource {
    /// The plan with the given name, or in the file at that path.
    ///
    /// # Errors
    /// [`Error::BadInput`] with file and line if the plan has a mistake.
    pub fn load(name: &str) -> Result<Self, Error> {
        Self::parse(plan_text(name, ("coffee", cortado_engine::COFFEE))?, name)
    }

    /// Parses a plan; `name` is its name in messages.
    ///
    /// # Errors
    /// Like [`PlanSource::load`].
    pub fn parse(text: String, name: &str) -> Result<Self, Error> {
        if StreamPlan::is_stream(&text) {
            let message = format!("{name} is the plan of a stream: cortado events start {name}");
            return Err(Error::BadInput(message));
        }
        let plan = Plan::parse(&text).map_err(|error| {
            Error::BadInput(format!("{name}:{}: {}", error.line, error.message))
        })?;
        Ok(Self { plan, text })
    }
}

/// The text of the plan that is built in, if that is its name, or of the file at that path.
pub(crate) fn plan_text(name: &str, built_in: (&str, &str)) -> Result<String, Error> {
    let (known, text) = built_in;
    if name == known {
        return Ok(text.to_owned());
    }
    let path = Path::new(name);
    std::fs::read_to_string(path).map_err(|source| {
        if source.kind() == std::io::ErrorKind::NotFound {
            let message =
                format!("there is no plan {name}: expected `{known}` or the path of a plan file");
            return Error::BadInput(message);
        }
        Error::io("read", path, source)
    })
}

/// Submits a job. Submitting it again is harmless.
///
/// # Errors
/// [`Error::BadInput`] if another job has this id; otherwise like [`Cluster::request`].
pub async fn submit(
    cluster: &Cluster,
    job: JobId,
    source: &PlanSource,
    tables: Vec<TableFiles>,
) -> Result<JobSpec, Error> {
    let slots = cluster.view().await?.slots;
    let spec = JobSpec {
        job,
        plan_name: source.plan.name().to_owned(),
        plan_toml: source.text.clone(),
        slots,
        tables,
    };
    status_after(cluster, &ClientRequest::Submit(spec.clone())).await?;
    Ok(spec)
}

/// Cancels a job, unless it has ended; returns its state.
///
/// # Errors
/// [`Error::NotFound`] if there is no such job; otherwise like [`Cluster::request`].
pub async fn cancel(cluster: &Cluster, job: JobId) -> Result<JobStatus, Error> {
    status_after(cluster, &ClientRequest::Cancel(job)).await
}

/// The state of all jobs.
///
/// # Errors
/// Like [`Cluster::request`].
pub async fn list(cluster: &Cluster) -> Result<Vec<JobStatus>, Error> {
    let mut jobs: Vec<JobStatus> = Vec::new();
    loop {
        let after = jobs.last().map(|status| status.job);
        let page = match cluster.request(&ClientRequest::Jobs { after }).await? {
            (ClientResponse::Jobs(page), _) => page,
            (other, _) => return Err(unexpected(&other)),
        };
        // Only larger ids are accepted, so the loop ends whatever the node answers.
        let news = page.into_iter().filter(|status| after.is_none_or(|after| status.job > after));
        let before = jobs.len();
        jobs.extend(news);
        if jobs.len() - before < JOBS_PER_ANSWER {
            return Ok(jobs);
        }
    }
}

/// The specification that was submitted under this id.
///
/// # Errors
/// [`Error::NotFound`] if there is no such job; otherwise like [`Cluster::request`].
pub async fn spec(cluster: &Cluster, job: JobId) -> Result<JobSpec, Error> {
    match cluster.request(&ClientRequest::Spec(job)).await? {
        (ClientResponse::Spec(spec), _) => Ok(spec),
        (other, _) => Err(unexpected(&other)),
    }
}

/// Reads the job's specification, and compares it with the dataset at `root`.
///
/// # Errors
/// [`Error::BadInput`] with the name of the file that differs; otherwise like [`spec`].
pub async fn open(cluster: &Cluster, job: JobId, root: &Path) -> Result<(JobSpec, Plan), Error> {
    let spec = spec(cluster, job).await?;
    let source = PlanSource::parse(spec.plan_toml.clone(), &spec.plan_name)?;
    dataset::compare(&spec.tables, &dataset::scan(root, &source.plan)?)?;
    Ok((spec, source.plan))
}

/// Uploads the batches of a job that the cluster does not have.
///
/// # Errors
/// Like [`upload`].
pub async fn send_missing(
    cluster: &Arc<Cluster>,
    spec: &Arc<JobSpec>,
    root: &Path,
    observer: &dyn Observer,
) -> Result<(), Error> {
    let mut there = Vec::with_capacity(spec.tables.len());
    for table in 0..spec.tables.len() {
        let (job, table) = (spec.job, table as u16);
        let page = |from| ClientRequest::Coverage { job, table, from };
        there.push(known_batches(cluster, page).await?.0);
    }
    let total_bytes = spec.tables.iter().flat_map(|t| &t.files).map(|file| file.bytes).sum();
    let known = there.iter().any(|known| !known.is_empty());
    let resumed_bytes = if known {
        let status = status(cluster, spec.job, Duration::ZERO).await?;
        status.tables.iter().map(|table| table.bytes).sum()
    } else {
        0
    };
    observer.note(Progress::Upload { total_bytes, resumed_bytes });
    upload(cluster, root, spec, remaining(there), observer).await
}

/// The batches of a table or of a publisher that have arrived, with the hashes of their content, and the
/// number below which all of a publisher's have arrived and are gone. It asks as often as the answer
/// continues.
pub(crate) async fn known_batches(
    cluster: &Cluster,
    page: impl Fn(u64) -> ClientRequest,
) -> Result<(Known, u64), Error> {
    let (mut known, mut from) = (Known::new(), 0);
    loop {
        let there = match cluster.request(&page(from)).await? {
            (ClientResponse::Coverage(there), _) => there,
            (other, _) => return Err(unexpected(&other)),
        };
        known.extend(there.batches);
        match there.next {
            Some(next) if next > from && next < NUMBERS => from = next,
            _ => return Ok((known, there.floor)),
        }
    }
}

/// The work for each table: all of it is read. Batches that have arrived are compared, not sent,
/// even if none is missing: a changed dataset must be noticed.
fn remaining(there: Vec<Known>) -> Vec<TableWork> {
    let work = |(table, known)| TableWork { table: table as u16, known, only: None };
    there.into_iter().enumerate().map(work).collect()
}

/// Waits for the end of a job, and sends the batches again that its coordinator asks for.
///
/// # Errors
/// [`Error::Ended`] if the job failed or was cancelled, [`Error::NotFound`] if no node knows it for
/// the cluster's patience; otherwise like [`upload`] and [`Cluster::request`].
pub async fn wait(
    cluster: &Arc<Cluster>,
    spec: &Arc<JobSpec>,
    root: &Path,
    observer: &dyn Observer,
) -> Result<JobStatus, Error> {
    let mut unknown_since = None;
    loop {
        let asked = Instant::now();
        let status = match status(cluster, spec.job, STATUS_WAIT).await {
            // The job was acknowledged, so it exists. Its coordinator may be a node that joined
            // during a cut and has not learned of the job yet.
            Err(error @ Error::NotFound(_)) => {
                let since: Instant = *unknown_since.get_or_insert(asked);
                if since.elapsed() > cluster.patience() {
                    return Err(error);
                }
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
            other => other?,
        };
        unknown_since = None;
        observer.note(Progress::Status(&status));
        if let Some(error) = ended(&status) {
            return Err(error);
        }
        if status.state == JobState::Done {
            return Ok(status);
        }
        let again = missing(&status);
        for work in &again {
            observer.note(Progress::Resend {
                table: &spec.tables[usize::from(work.table)].name,
                batches: work.only.as_ref().map_or(0, cortado_protocol::Coverage::count),
            });
        }
        upload(cluster, root, spec, again, observer).await?;
        tokio::time::sleep(LOOK_EVERY.saturating_sub(asked.elapsed())).await;
    }
}

/// The batches that a job's coordinator asks for.
fn missing(status: &JobStatus) -> Vec<TableWork> {
    let tables = status.tables.iter().enumerate();
    tables
        .filter(|(_, table)| !table.missing.is_empty())
        .map(|(index, table)| TableWork {
            table: index as u16,
            only: Some(table.missing.clone()),
            ..TableWork::default()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_tables_are_compared_with_what_is_there() {
        let known = Known::from([(0, 10), (1, 11)]);
        let work = remaining(vec![known.clone(), Known::new()]);
        assert_eq!(work.iter().map(|work| work.table).collect::<Vec<_>>(), [0, 1]);
        assert_eq!((&work[0].known, &work[0].only), (&known, &None));
        assert!(work[1].known.is_empty());
    }

    #[test]
    fn plans_are_named_in_errors() {
        let error = PlanSource::load("no/such.toml").err().unwrap();
        assert!(error.to_string().contains("no/such.toml"), "{error}");
    }
}
