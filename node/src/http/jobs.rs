//! Jobs: how they stand, their results and rejected rows.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use cortado_protocol::JobId;
use cortado_protocol::client::{ClientRequest, ClientResponse};
use cortado_protocol::job::{JobSpec, JobStatus, Manifest, ResultFile};
use cortado_protocol::limits::{CHUNK_BYTES, JOBS_PER_ANSWER};
use cortado_report::{Job, Rejected};
use futures_util::stream;

use super::answer::{Answer, JSON, Problem, Refused};
use super::cache::SHORT;
use super::site::Site;

/// Most jobs of a listing.
const JOBS: usize = 10_000;

/// All jobs that live members know, in the order of their ids; streams are among them.
pub(super) async fn list(site: &Arc<Site>) -> Result<Arc<Vec<JobStatus>>, Refused> {
    let of = Arc::clone(site);
    let ask = async move {
        let mut all: Vec<JobStatus> = Vec::new();
        loop {
            let after = all.last().map(|status| status.job);
            match of.ask(ClientRequest::Jobs { after }).await? {
                (ClientResponse::Jobs(page), _) => {
                    let is_last = page.len() < JOBS_PER_ANSWER || all.len() >= JOBS;
                    all.extend(page);
                    if is_last {
                        return Ok(Arc::new(all));
                    }
                }
                (other, _) => return Err(Refused::unexpected(&other)),
            }
        }
    };
    site.cache.jobs.get("jobs", SHORT, ask).await
}

/// Reads a job's id.
pub(super) fn job_id(text: &str) -> Result<JobId, Refused> {
    let parsed = text.parse::<uuid::Uuid>();
    let id = parsed.map_err(|_| Refused::bad(format!("'{text}' is no job id: expected a UUID")))?;
    Ok(JobId(id.as_u128()))
}

async fn status(site: &Site, job: JobId) -> Result<JobStatus, Refused> {
    match site.ask(ClientRequest::Status { job, wait_ms: 0 }).await? {
        (ClientResponse::Status(status), _) => Ok(status),
        (other, _) => Err(Refused::unexpected(&other)),
    }
}

pub(super) async fn spec(site: &Site, job: JobId) -> Result<JobSpec, Refused> {
    match site.ask(ClientRequest::Spec(job)).await? {
        (ClientResponse::Spec(spec), _) => Ok(spec),
        (other, _) => Err(Refused::unexpected(&other)),
    }
}

/// All jobs, streams among them.
#[utoipa::path(get, path = "/api/v1/jobs", tag = "jobs", responses(
    (status = 200, body = [Job]),
    (status = 503, body = Problem, description = "the node reads its log, or stops"),
))]
pub(super) async fn jobs(
    State(site): State<Arc<Site>>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let of = Arc::clone(&site);
    let ask = async move {
        let all = list(&of).await?;
        Ok(Answer::json(&all.iter().map(Job::from).collect::<Vec<_>>()))
    };
    Ok(site.cache.answers.get("jobs", SHORT, ask).await?.to(&headers))
}

/// One job.
#[utoipa::path(get, path = "/api/v1/jobs/{id}", tag = "jobs",
    params(("id" = String, Path, pattern = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", description = "its id")),
    responses(
        (status = 200, body = Job),
        (status = 400, body = Problem, description = "no UUID"),
        (status = 404, body = Problem, description = "there is no such job"),
        (status = 503, body = Problem, description = "its coordinator does not answer"),
    )
)]
pub(super) async fn job(
    State(site): State<Arc<Site>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let id = job_id(&id)?;
    let of = Arc::clone(&site);
    let ask = async move { Ok(Answer::json(&Job::from(&status(&of, id).await?))) };
    Ok(site.cache.answers.get(&format!("job {}", id), SHORT, ask).await?.to(&headers))
}

/// Rejected rows of a job, at most 1,000 of each table.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/rejects", tag = "jobs",
    params(("id" = String, Path, pattern = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", description = "its id")),
    responses(
        (status = 200, body = [Rejected]),
        (status = 400, body = Problem, description = "no UUID"),
        (status = 404, body = Problem, description = "there is no such job"),
        (status = 409, body = Problem, description = "the job has failed or was cancelled"),
        (status = 503, body = Problem, description = "its coordinator does not answer"),
    )
)]
pub(super) async fn rejects(
    State(site): State<Arc<Site>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let job = job_id(&id)?;
    let mut all = Vec::new();
    for (table, files) in (0u16..).zip(&spec(&site, job).await?.tables) {
        match site.ask(ClientRequest::Rejects { job, table }).await? {
            (ClientResponse::Rejects(rejects), _) => {
                all.extend(rejects.into_iter().map(|reject| Rejected::of(&files.name, reject)));
            }
            (other, _) => return Err(Refused::unexpected(&other)),
        }
    }
    Ok(Answer::json(&all).to(&headers))
}

/// A file of a result: its name stands in `files` of the job.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/results/{file}", tag = "jobs",
    params(
        ("id" = String, Path, pattern = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", description = "the job's id"),
        ("file" = String, Path, description = "the file's name, for example `q1.csv`"),
    ),
    responses(
        (status = 200, body = String, content_type = "text/csv"),
        (status = 400, body = Problem, description = "no UUID"),
        (status = 404, body = Problem, description = "there is no such job or file"),
        (status = 409, body = Problem, description = "the job has no result"),
        (status = 503, body = Problem, description = "its coordinator does not answer"),
    )
)]
pub(super) async fn result(
    State(site): State<Arc<Site>>,
    Path((id, name)): Path<(String, String)>,
) -> Result<Response, Refused> {
    let id = job_id(&id)?;
    let status = status(&site, id).await?;
    let Some(Manifest::Done { files, .. }) = &status.manifest else {
        let why = status.waits_for.as_deref().unwrap_or("it has none");
        return Err(Refused::new(
            axum::http::StatusCode::CONFLICT,
            format!("job {id} has no result: {why}"),
        ));
    };
    let Some(at) = files.iter().position(|file| file.name == name) else {
        return Err(Refused::not_found(format!("job {id} has no file '{name}'")));
    };
    let start = files[..at].iter().map(|file| file.bytes).sum();
    Ok(download(site, id, &files[at], start))
}

/// Sends a file, which begins at a place of the result, chunk by chunk.
fn download(site: Arc<Site>, job: JobId, file: &ResultFile, start: u64) -> Response {
    let end = start + file.bytes;
    let parts = stream::try_unfold((site, start), move |(site, at)| async move {
        if at >= end {
            return Ok::<_, std::io::Error>(None);
        }
        let chunk = at / CHUNK_BYTES as u64;
        let broken = |why: &str| std::io::Error::other(why.to_owned());
        let inside = site.inside().map_err(|_| broken("the node stops"))?;
        let answer = inside.ask(ClientRequest::Result { job, chunk }).await;
        let (_, bytes) = answer.map_err(|error| broken(&error.message))?;
        let skipped = usize::try_from(at % CHUNK_BYTES as u64).unwrap_or(usize::MAX);
        let wanted = usize::try_from(end - at).unwrap_or(usize::MAX);
        if bytes.len() <= skipped {
            return Err(broken("a chunk of the result is too short"));
        }
        let bytes: Bytes = bytes.slice(skipped..bytes.len().min(skipped.saturating_add(wanted)));
        let next = at + bytes.len() as u64;
        Ok(Some((bytes, (site, next))))
    });
    let kind = match file.name.rsplit_once('.') {
        Some((_, "csv")) => HeaderValue::from_static("text/csv; charset=utf-8"),
        Some((_, "json")) => JSON,
        _ => HeaderValue::from_static("application/octet-stream"),
    };
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let name: String = file.name.chars().map(plain).collect();
    let disposition = HeaderValue::from_str(&format!("attachment; filename=\"{name}\""));
    let disposition = disposition.unwrap_or(HeaderValue::from_static("attachment"));
    let headers = [
        (CONTENT_TYPE, kind),
        (CONTENT_LENGTH, HeaderValue::from(file.bytes)),
        (CONTENT_DISPOSITION, disposition),
    ];
    (headers, Body::from_stream(parts)).into_response()
}
