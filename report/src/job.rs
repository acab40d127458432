//! The state of a job.

use cortado_protocol::JobId;
use cortado_protocol::client::Reject;
use cortado_protocol::job::{JobState, JobStatus, Manifest, ResultFile, TableStatus};
use serde::Serialize;
use utoipa::ToSchema;

/// The state of a job, with its progress.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Job {
    /// Its id.
    #[schema(value_type = String)]
    pub job: JobId,
    /// The plan's name.
    pub plan: String,
    /// `queued`, `uploading`, `running` (a stream), `finishing`, `done`, `failed` or `cancelled`.
    pub state: &'static str,
    /// Its place in the queue; 1 is next.
    pub queue_position: Option<u32>,
    /// Why it failed.
    pub message: Option<String>,
    /// Its coordinator.
    pub coordinator: String,
    /// Its tables.
    pub tables: Vec<Table>,
    /// Its stages, once all tables have ended.
    pub stages: Vec<Stage>,
    /// What it waits for, as a sentence.
    pub waits_for: Option<String>,
    /// Its result, once it is done.
    pub files: Option<Vec<File>>,
}

/// The state of a table.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Batches that are durable.
    pub batches: u64,
    /// Batches declared, once that is known.
    pub declared: Option<u64>,
    /// Rows in those batches, rejected ones included.
    pub rows: u64,
    /// Bytes in those batches.
    pub bytes: u64,
    /// Bytes of the table's files.
    pub total_bytes: u64,
    /// Batches that no live node has: intervals `[start, end)`.
    pub missing: Vec<(u64, u64)>,
}

/// Progress of a stage.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Stage {
    /// `fold`, `join` or `result`.
    pub name: String,
    /// Slots that are complete.
    pub complete: u32,
    /// All slots.
    pub total: u32,
}

/// A file of a result.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct File {
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Its rows.
    pub rows: u64,
}

/// A rejected row.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Rejected {
    /// The table.
    pub table: String,
    /// The file.
    pub file: String,
    /// The line in the file, from 1.
    pub line: u64,
    /// Why it was rejected.
    pub reason: String,
    /// The row, shortened.
    pub row: String,
}

impl From<&JobStatus> for Job {
    fn from(status: &JobStatus) -> Self {
        let queue_position = match status.state {
            JobState::Queued { position } => Some(position),
            _ => None,
        };
        let message = match &status.state {
            JobState::Failed { message } => Some(message.clone()),
            _ => None,
        };
        let files = match &status.manifest {
            Some(Manifest::Done { files, .. }) => Some(files.iter().map(File::from).collect()),
            _ => None,
        };
        let stage = |stage: &cortado_protocol::job::StageStatus| Stage {
            name: stage.name.clone(),
            complete: stage.complete,
            total: stage.total,
        };
        Self {
            job: status.job,
            plan: status.plan.clone(),
            state: status.state.name(),
            queue_position,
            message,
            coordinator: status.coordinator.to_string(),
            tables: status.tables.iter().map(Table::from).collect(),
            stages: status.stages.iter().map(stage).collect(),
            waits_for: status.waits_for.clone(),
            files,
        }
    }
}

impl From<&TableStatus> for Table {
    fn from(status: &TableStatus) -> Self {
        Self {
            name: status.name.clone(),
            batches: status.batches,
            declared: status.declared,
            rows: status.rows,
            bytes: status.bytes,
            total_bytes: status.total_bytes,
            missing: status.missing.intervals().to_vec(),
        }
    }
}

impl From<&ResultFile> for File {
    fn from(file: &ResultFile) -> Self {
        Self { name: file.name.clone(), bytes: file.bytes, rows: file.rows }
    }
}

impl Rejected {
    /// A rejected row of a table.
    #[must_use]
    pub fn of(table: &str, reject: Reject) -> Self {
        let Reject { file, line, reason, row } = reject;
        Self { table: table.to_owned(), file, line, reason, row }
    }
}
