//! Jobs: their specification, the entries of the job log, and their state. Clients submit and read
//! them, the job's coordinator writes them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::stream::{Publisher, SchemaFile, Seal, StreamHeader};
use crate::{Coverage, Edge, JobId, NodeId};

/// What a client submits. To submit the same specification again is harmless; a different one under
/// the same id is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// The job.
    pub job: JobId,
    /// The plan's name in listings, for example `coffee`.
    pub plan_name: String,
    /// The plan file's text.
    pub plan_toml: String,
    /// Slots of the job, 1 to [`crate::limits::SLOTS`]; clients take the cluster's default from
    /// [`crate::client::ClusterView::slots`].
    pub slots: u8,
    /// The files to upload, per table, in the plan's order of tables.
    pub tables: Vec<TableFiles>,
}

/// The files of one table, in the order in which their batches are numbered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableFiles {
    /// The table's name in the plan.
    pub name: String,
    /// Its files, ordered by name. A header that several files share is encoded once.
    #[serde(with = "shared_headers")]
    pub files: Vec<FileSpec>,
}

/// One file of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSpec {
    /// Path below the dataset's directory, with `/` between its parts.
    pub name: String,
    /// Length in bytes.
    pub bytes: u64,
    /// The fields of the header line; empty for an empty file.
    pub header: Arc<[String]>,
}

/// Encodes the headers of a table's files before the files, each different header once.
mod shared_headers {
    use std::collections::HashMap;
    use std::sync::Arc;

    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::FileSpec;

    pub(super) fn serialize<S: Serializer>(files: &[FileSpec], to: S) -> Result<S::Ok, S::Error> {
        let mut headers: Vec<&[String]> = Vec::new();
        let mut places = HashMap::new();
        let mut rows = Vec::with_capacity(files.len());
        for file in files {
            let header = &*file.header;
            let place = *places.entry(header).or_insert_with(|| {
                headers.push(header);
                headers.len() as u32 - 1
            });
            rows.push((&file.name, file.bytes, place));
        }
        (headers, rows).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<FileSpec>, D::Error> {
        type Rows = Vec<(String, u64, u32)>;
        let (headers, rows) = <(Vec<Vec<String>>, Rows)>::deserialize(from)?;
        let headers: Vec<Arc<[String]>> = headers.into_iter().map(Arc::from).collect();
        let file = |(name, bytes, place): (String, u64, u32)| {
            let header = headers.get(place as usize);
            let header = header.ok_or_else(|| D::Error::custom("a file without a header"))?.clone();
            Ok(FileSpec { name, bytes, header })
        };
        rows.into_iter().map(file).collect()
    }
}

/// The head of a batch on an upload stream; the payload is the tail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchHeader {
    /// The table's index in the plan.
    pub table: u16,
    /// The batch's number in the table.
    pub number: u64,
    /// Index of the file in [`TableFiles::files`].
    pub file: u32,
    /// Offset of the batch in the file, in bytes.
    pub offset: u64,
    /// Number of the batch's first line in the file, counted from 1.
    pub first_line: u64,
    /// Content hash of the payload ([`crate::content_hash`]).
    pub content: u64,
    /// Identifies the batch in logs of all nodes ([`trace_id`]).
    pub trace: u64,
    /// Of a batch of events: who publishes it, and when. Table, file, offset and line are 0 then.
    pub stream: Option<StreamHeader>,
}

impl BatchHeader {
    /// The head of a batch of events.
    #[must_use]
    pub fn of_events(stream: StreamHeader, number: u64, content: u64, trace: u64) -> Self {
        let (table, file, offset, first_line) = (0, 0, 0, 0);
        let stream = Some(stream);
        Self { table, number, file, offset, first_line, content, trace, stream }
    }
}

/// A trace id that a restarted client computes again.
#[must_use]
pub fn trace_id(job: JobId, table: u16, number: u64) -> u64 {
    let mut bytes = [0; 26];
    bytes[..16].copy_from_slice(&job.0.to_be_bytes());
    bytes[16..18].copy_from_slice(&table.to_be_bytes());
    bytes[18..].copy_from_slice(&number.to_be_bytes());
    crate::content_hash(&bytes)
}

/// One entry of the job log (edge [`crate::Edge::JOB`]). The entries form a set: each has its own
/// number, and their order of arrival has no effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobEntry {
    /// The specification.
    Spec(JobSpec),
    /// The user has cancelled the job. If a manifest exists too, the manifest wins.
    Cancel,
    /// The job has ended; the manifest says how.
    Manifest(Manifest),
    /// A table is declared to have this many batches.
    TableEnd {
        /// The table's index in the plan.
        table: u16,
        /// Its number of batches.
        batches: u64,
    },
    /// The stream ends once all its publishers have ended.
    Stop,
    /// A schema set of the stream.
    Schemas {
        /// Its number, from 0.
        set: u32,
        /// Its files.
        files: Vec<SchemaFile>,
    },
    /// A publisher of the stream has opened its edge.
    Publisher(Publisher),
    /// A publisher that is gone is sealed.
    Seal {
        /// Its edge.
        edge: Edge,
        /// Which of its batches count.
        seal: Seal,
    },
}

impl JobEntry {
    /// Number of the manifest.
    pub const MANIFEST: u64 = 2;
    /// First number of the table ends.
    const TABLE_END: u64 = 16;
    /// First number of the schema sets.
    const SCHEMAS: u64 = 1 << 16;
    /// First number of the publishers, which are numbered by a hash of 40 bits.
    const PUBLISHERS: u64 = 1 << 41;
    /// First number of the seals, which are numbered like the publishers.
    const SEALS: u64 = 1 << 42;
    /// All numbers are below this one.
    pub const NUMBERS: u64 = 1 << 43;

    /// The part of a publisher's edge by which its entries are numbered.
    fn hash_of(edge: Edge) -> u64 {
        edge.0 & ((1 << 40) - 1)
    }

    /// The entry's number on the job log's edge.
    #[must_use]
    pub fn number(&self) -> u64 {
        match self {
            Self::Spec(_) => 0,
            Self::Cancel => 1,
            Self::Manifest(_) => Self::MANIFEST,
            Self::TableEnd { table, .. } => Self::TABLE_END + u64::from(*table),
            Self::Stop => 3,
            Self::Schemas { set, .. } => Self::SCHEMAS + u64::from(*set),
            Self::Publisher(publisher) => Self::PUBLISHERS + Self::hash_of(publisher.edge()),
            Self::Seal { edge, .. } => Self::SEALS + Self::hash_of(*edge),
        }
    }
}

/// How a job ended. A node drops the batches of a job that is done and no stream when the manifest
/// is in the node's log. Two coordinators that finish the same job write the same manifest, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Manifest {
    /// The result is complete.
    Done {
        /// The result files in order. Their concatenated bytes form the result edge.
        files: Vec<ResultFile>,
        /// Number of chunks on the result edge.
        chunks: u64,
        /// Content hash over all result bytes.
        hash: u64,
        /// What became of each table, in the plan's order: its batches are dropped once the job is done.
        tables: Vec<TableTotal>,
    },
    /// The job could not be computed; the reason is for the user.
    Failed {
        /// What went wrong and what to do.
        message: String,
    },
}

/// A table of a job that is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableTotal {
    /// Its number of batches.
    pub batches: u64,
    /// Records in them, rejected ones included.
    pub rows: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Chunks of the result edge that hold its rejected rows (postcard, [`crate::client::Reject`]s). They
    /// stand behind those of the files, table by table.
    pub rejects: u64,
}

impl Manifest {
    /// The chunks of the result edge that hold the rejected rows of a table, if the job is done.
    #[must_use]
    pub fn rejects(&self, table: usize) -> Option<std::ops::Range<u64>> {
        let Self::Done { chunks, tables, .. } = self else { return None };
        let before = tables.iter().take(table).map(|total| total.rejects).sum::<u64>();
        let start = chunks.saturating_add(before);
        Some(start..start.saturating_add(tables.get(table)?.rejects))
    }

    /// Whether nobody needs the batches any more. Those of a stream, which has no tables, are kept as
    /// long as the job: its events are read after its end, too.
    #[must_use]
    pub fn drops_batches(&self) -> bool {
        matches!(self, Self::Done { tables, .. } if !tables.is_empty())
    }
}

/// One file of a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultFile {
    /// File name, for example `q1.csv`.
    pub name: String,
    /// Length in bytes.
    pub bytes: u64,
    /// Data rows in it (the header not counted); 0 for the receipt.
    pub rows: u64,
}

/// The state of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Too many jobs run already; this one waits at this position of the queue (1 is next).
    Queued {
        /// Place in the queue.
        position: u32,
    },
    /// Batches are being accepted.
    Uploading,
    /// A stream: batches are being accepted, and outputs published.
    Running,
    /// The end of every table is declared; missing batches are being fetched and slots folded.
    Finishing,
    /// The result can be fetched.
    Done,
    /// It failed; see the message.
    Failed {
        /// What went wrong and what to do.
        message: String,
    },
    /// It was cancelled.
    Cancelled,
}

impl JobState {
    /// The state as one word.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Queued { .. } => "queued",
            Self::Uploading => "uploading",
            Self::Running => "running",
            Self::Finishing => "finishing",
            Self::Done => "done",
            Self::Failed { .. } => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether the state can't change any more.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Done | Self::Failed { .. } | Self::Cancelled)
    }
}

/// The state of a table, as the job's coordinator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TableStatus {
    /// The table's name.
    pub name: String,
    /// Batches that are durable at the coordinator.
    pub batches: u64,
    /// Declared number of batches, once it is known.
    pub declared: Option<u64>,
    /// Records in those batches, rejected ones included.
    pub rows: u64,
    /// Bytes in those batches.
    pub bytes: u64,
    /// Bytes of the table's files.
    pub total_bytes: u64,
    /// Batches that no live node has: the client must send them again.
    pub missing: Coverage,
}

/// Progress of a stage.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StageStatus {
    /// The stage's name: `fold`, `join` or `result`.
    pub name: String,
    /// Number of complete slots.
    pub complete: u32,
    /// Number of all slots.
    pub total: u32,
}

/// The state of a job, with its progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStatus {
    /// The job.
    pub job: JobId,
    /// The plan's name.
    pub plan: String,
    /// Its state.
    pub state: JobState,
    /// Its present coordinator.
    pub coordinator: NodeId,
    /// The tables.
    pub tables: Vec<TableStatus>,
    /// The stages, once finishing has begun.
    pub stages: Vec<StageStatus>,
    /// What the job waits for now, as a sentence; `None` if it waits for nothing.
    pub waits_for: Option<String>,
    /// The manifest, once there is one.
    pub manifest: Option<Manifest>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_many_files_are_written_once() {
        let header: Arc<[String]> = ["a".repeat(500), "b".to_owned()].into();
        let file = |n: usize| {
            let header = if n == 7 { [].into() } else { header.clone() };
            FileSpec { name: format!("{n:05}.csv"), bytes: n as u64, header }
        };
        let table = TableFiles { name: "t".into(), files: (0..20_000).map(file).collect() };
        let bytes = postcard::to_stdvec(&table).unwrap();
        assert!(bytes.len() < 500_000, "{}", bytes.len());
        let read: TableFiles = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(read, table);
        assert!(Arc::ptr_eq(&read.files[0].header, &read.files[9].header));
        let none: (Vec<Vec<String>>, _) = (Vec::new(), [("x", 1u64, 0u32)]);
        let bytes = postcard::to_stdvec(&("t", none)).unwrap();
        assert!(postcard::from_bytes::<TableFiles>(&bytes).is_err());
    }
}
