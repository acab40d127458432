//! Streams: makes one, finds it by its name, asks how it stands, reads its outputs, ends it.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use cortado_engine::Plan;
use cortado_protocol::client::{ClientRequest, ClientResponse};
use cortado_protocol::job::{JobSpec, JobState, JobStatus};
use cortado_protocol::stream::{
    Cursor, Place, Publisher, Row, SchemaFile, StoredEvent, StreamRequest, StreamResponse,
    StreamStatus,
};
use cortado_protocol::{Edge, JobId, frame};
use cortado_report::newest;
use cortado_stream::{Cut, EVENTS, EVENTS_SCHEMAS, SchemaSet, StreamPlan};
use serde_json::Value;

use crate::cluster::unexpected;
use crate::job::{self, new_job_id};
use crate::status::status_after;
use crate::upload::Known;
use crate::{Cluster, Error};

/// Most bytes of a schema file.
const SCHEMA_BYTES: u64 = 1 << 20;

/// A stream's plan and its schemas.
pub struct StreamSource {
    /// The parsed plan.
    pub plan: StreamPlan,
    /// Its text.
    pub text: String,
    /// Its schemas.
    pub schemas: Vec<SchemaFile>,
}

impl StreamSource {
    /// The plan with the given name, or in the file at that path; the schemas in a folder, or those
    /// that are built in for the plan `events`.
    ///
    /// # Errors
    /// [`Error::BadInput`] with file and line if the plan or a schema has a mistake.
    pub fn load(name: &str, schemas: Option<&Path>) -> Result<Self, Error> {
        let text = job::plan_text(name, ("events", EVENTS))?;
        if Plan::parse(&text).is_ok() {
            let message = format!("{name} is no plan of a stream: cortado run {name} --data DIR");
            return Err(Error::BadInput(message));
        }
        let plan = StreamPlan::parse(&text).map_err(|error| {
            Error::BadInput(format!("{name}:{}: {}", error.line, error.message))
        })?;
        let (schemas, hint) = match schemas {
            Some(folder) => (read_schemas(folder)?, ""),
            None if name == "events" => (built_in(), ""),
            None => (Vec::new(), "; --schemas DIR names the folder with the schemas"),
        };
        SchemaSet::compile(&plan, &schemas)
            .map_err(|error| Error::BadInput(format!("{error}{hint}")))?;
        Ok(Self { plan, text, schemas })
    }
}

/// The schemas of the plan `events`.
#[must_use]
pub fn built_in() -> Vec<SchemaFile> {
    let file = |(name, text): (&str, &str)| SchemaFile { name: name.into(), text: text.into() };
    EVENTS_SCHEMAS.map(file).to_vec()
}

/// The files of a folder that end in `.json`, ordered by name.
///
/// # Errors
/// [`Error::BadInput`] if there are none, or one is too large; [`Error::Io`] if one can't be read.
pub fn read_schemas(folder: &Path) -> Result<Vec<SchemaFile>, Error> {
    let failed = |source| Error::io("read", folder, source);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let wrong = |source| Error::io("read", &path, source);
        if std::fs::metadata(&path).map_err(wrong)?.len() > SCHEMA_BYTES {
            let message = format!("{}: a schema has at most 1 MiB", path.display());
            return Err(Error::BadInput(message));
        }
        let text = std::fs::read_to_string(&path).map_err(wrong)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        files.push(SchemaFile { name, text });
    }
    if files.is_empty() {
        let message = format!("{} has no file that ends in .json", folder.display());
        return Err(Error::BadInput(message));
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

/// The stream of a name: the one that runs, otherwise the newest.
///
/// # Errors
/// [`Error::NotFound`] if there is none; otherwise like [`Cluster::request`].
pub async fn find(cluster: &Cluster, name: &str) -> Result<JobId, Error> {
    let found = newest(&job::list(cluster).await?, name).map(|status| status.job);
    found.ok_or_else(|| {
        Error::NotFound(format!(
            "there is no stream '{name}'; `cortado events start --stream {name}` makes it"
        ))
    })
}

/// Makes a stream, unless one of this name runs; returns its id, and whether it is new.
///
/// # Errors
/// [`Error::BadInput`] if one of this name runs with another plan; otherwise like
/// [`Cluster::request`].
pub async fn start(
    cluster: &Cluster,
    name: &str,
    source: &StreamSource,
) -> Result<(JobId, bool), Error> {
    let running = |jobs: &[JobStatus]| {
        let found = newest(jobs, name)?;
        (found.state == JobState::Running).then_some(found.job)
    };
    if let Some(job) = running(&job::list(cluster).await?) {
        let spec = job::spec(cluster, job).await?;
        if spec.plan_toml != source.text {
            let message = format!(
                "stream '{name}' runs with another plan: end it with `cortado events stop`, or choose \
                 another name with --stream"
            );
            return Err(Error::BadInput(message));
        }
        put_first_set(cluster, job, source).await?;
        return Ok((job, false));
    }
    let slots = cluster.view().await?.slots;
    let (job, plan_name, plan_toml) = (new_job_id(), name.to_owned(), source.text.clone());
    let spec = JobSpec { job, plan_name, plan_toml, slots, tables: Vec::new() };
    status_after(cluster, &ClientRequest::Submit(spec)).await?;
    // Another client may have started one at the same time: all use the oldest.
    if let Some(other) = running(&job::list(cluster).await?).filter(|other| *other != job) {
        job::cancel(cluster, job).await?;
        put_first_set(cluster, other, source).await?;
        return Ok((other, false));
    }
    put_first_set(cluster, job, source).await?;
    Ok((job, true))
}

/// Puts the schemas in force if there are none yet: the client that made the stream may have died.
async fn put_first_set(cluster: &Cluster, job: JobId, source: &StreamSource) -> Result<(), Error> {
    if status(cluster, job).await?.schema_set.is_none() {
        put_schemas(cluster, job, 0, source.schemas.clone()).await?;
    }
    Ok(())
}

/// Puts a schema set in force.
///
/// # Errors
/// [`Error::BadInput`] if a schema has a mistake, or another set has this number; otherwise like
/// [`Cluster::request`].
pub async fn put_schemas(
    cluster: &Cluster,
    job: JobId,
    set: u32,
    files: Vec<SchemaFile>,
) -> Result<(), Error> {
    record(cluster, job, StreamRequest::PutSchemas { set, files }).await
}

/// Opens the edge of a publisher.
///
/// # Errors
/// [`Error::BadInput`] if it was opened with other options; otherwise like [`Cluster::request`].
pub async fn open(cluster: &Cluster, job: JobId, publisher: Publisher) -> Result<(), Error> {
    record(cluster, job, StreamRequest::Open(publisher)).await
}

/// Ends the stream once all publishers have ended.
///
/// # Errors
/// Like [`Cluster::request`].
pub async fn stop(cluster: &Cluster, job: JobId) -> Result<(), Error> {
    record(cluster, job, StreamRequest::Stop).await
}

async fn record(cluster: &Cluster, job: JobId, request: StreamRequest) -> Result<(), Error> {
    status_after(cluster, &ClientRequest::Stream(job, request)).await.map(drop)
}

/// How a stream stands.
///
/// # Errors
/// Like [`Cluster::request`].
pub async fn status(cluster: &Cluster, job: JobId) -> Result<StreamStatus, Error> {
    match cluster.request(&ClientRequest::Stream(job, StreamRequest::Status)).await? {
        (ClientResponse::Stream(StreamResponse::Status(status)), _) => Ok(*status),
        (other, _) => Err(unexpected(&other)),
    }
}

/// The batches of a publisher that have arrived, with the hashes of their content, and the number below which
/// all have arrived and are gone. With `whole`, those that have arrived in part and were not acknowledged
/// are not among them.
///
/// # Errors
/// Like [`Cluster::request`].
pub(crate) async fn known(
    cluster: &Cluster,
    job: JobId,
    (edge, whole): (Edge, bool),
) -> Result<(Known, u64), Error> {
    let page = |from| ClientRequest::Stream(job, StreamRequest::Coverage { edge, from, whole });
    job::known_batches(cluster, page).await
}

/// Rows of an output.
pub struct Rows {
    /// The rows.
    pub rows: Vec<Row>,
    /// Where the reader stands after them.
    pub cursor: Cursor,
    /// Whether no more will come.
    pub ended: bool,
    /// Batches of outputs after the cursor that are gone, because their time of retention is over.
    pub gone: u64,
}

/// The rows of an output after a cursor; there may be more than are returned.
///
/// # Errors
/// [`Error::NotFound`] if there is no such output; otherwise like [`Cluster::request`].
pub async fn rows(
    cluster: &Cluster,
    job: JobId,
    output: &str,
    after: Cursor,
) -> Result<Rows, Error> {
    let request = StreamRequest::Rows { output: output.to_owned(), after };
    match cluster.request(&ClientRequest::Stream(job, request)).await? {
        (ClientResponse::Stream(StreamResponse::Rows { ended, cursor, gone }), tail) => {
            Ok(Rows { rows: rows_of(&tail)?, cursor, ended, gone })
        }
        (other, _) => Err(unexpected(&other)),
    }
}

fn rows_of(tail: &Bytes) -> Result<Vec<Row>, Error> {
    frame::from_postcard(tail)
        .map_err(|error| Error::Unreachable(format!("a node's rows can't be read: {error}")))
}

/// All rows of an output that there are now, as JSON objects, in the order of their cursors.
///
/// # Errors
/// Like [`rows`].
pub async fn all_rows(
    cluster: &Cluster,
    job: JobId,
    output: &str,
) -> Result<Vec<serde_json::Map<String, Value>>, Error> {
    let (mut all, mut cursor) = (Vec::new(), Cursor::default());
    loop {
        let answer = rows(cluster, job, output, cursor.clone()).await?;
        for row in answer.rows {
            if let Ok(Value::Object(row)) = serde_json::from_str(&row.json) {
                all.push(row);
            }
        }
        if answer.cursor == cursor {
            return Ok(all);
        }
        cursor = answer.cursor;
    }
}

/// An event that is not counted: why, where in it, and the line as it was sent.
///
/// # Errors
/// [`Error::NotFound`] if there is none at this place; otherwise like [`Cluster::request`].
pub async fn dead(
    cluster: &Cluster,
    job: JobId,
    place: Place,
) -> Result<(String, String, Bytes), Error> {
    match cluster.request(&ClientRequest::Stream(job, StreamRequest::Dead(place))).await? {
        (ClientResponse::Stream(StreamResponse::Dead { reason, path }), raw) => {
            Ok((reason, path, raw))
        }
        (other, _) => Err(unexpected(&other)),
    }
}

/// Sends a row to the webhook of its output once more.
///
/// # Errors
/// [`Error::NotFound`] if there is no such row, or no webhook gets it; otherwise like [`Cluster::request`].
pub async fn deliver(cluster: &Cluster, job: JobId, place: Place) -> Result<(), Error> {
    match cluster.request(&ClientRequest::Stream(job, StreamRequest::Deliver(place))).await? {
        (ClientResponse::Stream(StreamResponse::Sending), _) => Ok(()),
        (other, _) => Err(unexpected(&other)),
    }
}

/// Valid events of batches of a publisher.
pub struct Events {
    /// The events, in no particular order.
    pub events: Vec<StoredEvent>,
    /// The batch after those that were read; the one that was asked for if they do not fit an answer, or
    /// there are none.
    pub next: u64,
    /// Batches that are durable without a gap.
    pub prefix: u64,
    /// Events of these batches that are on no disk any more; the batches were never acknowledged.
    pub lost: u64,
    /// Batches from the first one that was asked for on that are gone, because their time of retention is
    /// over.
    pub gone: u64,
    /// Size of the answer.
    pub bytes: usize,
}

/// The valid events of some batches: of an edge, from a batch on, at most so many.
///
/// # Errors
/// Like [`Cluster::request`].
pub async fn events(
    cluster: &Cluster,
    job: JobId,
    (edge, from, batches): (Edge, u64, u16),
) -> Result<Events, Error> {
    let request = StreamRequest::Events { edge, from, batches };
    match cluster.request(&ClientRequest::Stream(job, request)).await? {
        (ClientResponse::Stream(StreamResponse::Events { next, prefix, lost, gone }), tail) => {
            let unreadable =
                |error| Error::Unreachable(format!("a node's events can't be read: {error}"));
            let parts: Vec<Bytes> = if next > from + gone {
                frame::from_postcard(&tail).map_err(unreadable)?
            } else {
                Vec::new()
            };
            let mut events: Vec<StoredEvent> = Vec::new();
            for part in parts {
                events.append(&mut frame::from_postcard(&part).map_err(unreadable)?);
            }
            Ok(Events { events, next, prefix, lost, gone, bytes: tail.len() })
        }
        (other, _) => Err(unexpected(&other)),
    }
}

/// The batches that an output batch includes.
///
/// # Errors
/// [`Error::NotFound`] if there is no such batch; otherwise like [`Cluster::request`].
pub async fn cut(cluster: &Cluster, job: JobId, (edge, batch): (Edge, u64)) -> Result<Cut, Error> {
    let request = StreamRequest::Cut { edge, batch };
    match cluster.request(&ClientRequest::Stream(job, request)).await? {
        (ClientResponse::Stream(StreamResponse::Cut(edges)), _) => Ok(edges.into_iter().collect()),
        (other, _) => Err(unexpected(&other)),
    }
}

/// Pause between two requests for rows.
pub const POLL_EVERY: Duration = Duration::from_millis(200);
