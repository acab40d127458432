//! What is computed: schema, CSV decoding, plan, operators, ledger folds, receipt. No I/O.
#![expect(clippy::todo, unused_variables, dead_code, reason = "signatures first; bodies follow")]
#![expect(missing_docs, reason = "signatures first; docs follow")]

use bytes::Bytes;
use cortado_protocol::Slot;
use cortado_protocol::client::Reject;
use cortado_protocol::job::{BatchHeader, JobSpec};

pub const COFFEE: &str = include_str!("../../plans/coffee.toml");

/// CSV: headers and batch boundaries.
pub mod csv {
    pub enum HeaderRead {
        /// `fields` is empty for an empty file; `bytes` are consumed, `lines` of them.
        Header { fields: Vec<String>, bytes: usize, lines: u64 },
        /// Call again with more bytes.
        NeedMore,
    }
    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    pub struct HeaderReadError(pub String);
    pub fn read_header(buffer: &[u8], eof: bool) -> Result<HeaderRead, HeaderReadError> {
        todo!()
    }
    pub enum Cut {
        /// The next `len` bytes of the buffer are one batch, with `lines` line breaks in it.
        Batch { len: usize, lines: u64 },
        /// The next `len` bytes belong to no batch (rest of a line beyond the limit, already cut).
        Skip { len: usize, lines: u64 },
        /// Call again with at least `Cutter::window()` bytes, or with `eof`.
        NeedMore,
        /// Nothing is left.
        End,
    }
    /// `next(buffer, eof)`: `buffer` starts where the last cut ended.
    pub struct Cutter {}
    impl Cutter {
        pub fn new(target: usize) -> Self {
            todo!()
        }
        /// Bytes a buffer must hold (unless the file ends) for a decision.
        pub fn window(&self) -> usize {
            todo!()
        }
        pub fn next(&mut self, buffer: &[u8], eof: bool) -> Cut {
            todo!()
        }
    }
}

#[derive(Clone, Debug)]
pub struct Plan {}
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct PlanError {
    pub line: usize,
    pub message: String,
}
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HeaderError(pub String);
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DeltaError(pub &'static str);
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FinalError(pub String);
pub struct TableSchema {
    pub name: String,
    pub pattern: String,
    pub columns: Vec<ColumnSchema>,
}
impl TableSchema {
    /// Whether a path below the dataset's directory belongs to the table.
    pub fn matches(&self, path: &str) -> bool {
        todo!()
    }
}
pub struct ColumnSchema {
    pub name: String,
}
#[derive(Clone, Debug)]
pub struct Layout {}
impl Plan {
    pub fn parse(text: &str) -> Result<Self, PlanError> {
        todo!()
    }
    pub fn name(&self) -> &str {
        todo!()
    }
    pub fn hash(&self) -> u64 {
        todo!()
    }
    pub fn tables(&self) -> &[TableSchema] {
        todo!()
    }
    /// Names of the result files, the receipt not among them.
    pub fn outputs(&self) -> impl Iterator<Item = &str> {
        [""].into_iter()
    }
    pub fn bind_header(&self, table: usize, header: &[String]) -> Result<Layout, HeaderError> {
        todo!()
    }
    pub fn slot_of_key(&self, key: &[u8], slots: usize) -> Slot {
        todo!()
    }
}

pub struct Mapped {
    pub deltas: Vec<(Slot, Bytes)>,
    pub rows: u32,
    pub rejected: u32,
}
pub fn map_batch(
    plan: &Plan,
    slots: usize,
    layout: &Layout,
    header: &BatchHeader,
    payload: &[u8],
) -> Mapped {
    todo!()
}

pub struct SlotFold {}
impl SlotFold {
    pub fn new(plan: &Plan) -> Self {
        todo!()
    }
    pub fn add(&mut self, table: usize, delta: &[u8]) -> Result<(), DeltaError> {
        todo!()
    }
    pub fn finish(self) -> Bytes {
        todo!()
    }
}
pub struct LookupFold {}
impl LookupFold {
    pub fn new(plan: &Plan, table: usize, keys: Vec<Vec<u8>>) -> Self {
        todo!()
    }
    pub fn add(&mut self, delta: &[u8]) -> Result<(), DeltaError> {
        todo!()
    }
    pub fn finish(self) -> Bytes {
        todo!()
    }
}
pub struct LookupRequest {
    pub table: usize,
    pub keys: Vec<(Slot, Vec<Vec<u8>>)>,
}
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportFile {
    pub name: String,
    pub bytes: Bytes,
    pub rows: u64,
}
pub enum FinalStep {
    /// Answer each with `add_rows`, then call `next` again.
    Lookup(Vec<LookupRequest>),
    Done(Vec<ReportFile>),
}
pub struct Final {}
impl Final {
    pub fn new(plan: &Plan, slots: usize) -> Self {
        todo!()
    }
    pub fn add(&mut self, slot: Slot, output: &[u8]) -> Result<(), DeltaError> {
        todo!()
    }
    pub fn add_rows(&mut self, table: usize, slot: Slot, rows: &[u8]) -> Result<(), DeltaError> {
        todo!()
    }
    pub fn next(&mut self) -> Result<FinalStep, FinalError> {
        todo!()
    }
}

/// Folds the deltas of the meta slot.
pub struct SummaryFold {}
impl SummaryFold {
    pub fn new(plan: &Plan) -> Self {
        todo!()
    }
    pub fn add(&mut self, table: usize, number: u64, delta: &[u8]) -> Result<(), DeltaError> {
        todo!()
    }
    /// The first kept rejects of a table, in (file, line) order.
    pub fn rejects(&self, table: usize, spec: &JobSpec) -> Vec<Reject> {
        todo!()
    }
    /// Fails if a table's batches are not exactly `0..ends[table]`.
    pub fn receipt(
        &self,
        spec: &JobSpec,
        ends: &[u64],
        durability: Durability,
        results: &[ReportFile],
    ) -> Result<Receipt, FinalError> {
        todo!()
    }
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Durability {
    pub replicas: u8,
    pub min_copies: u8,
}
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Receipt {}
impl Receipt {
    pub fn sentence(&self) -> String {
        todo!()
    }
    /// Adds everything up again; each problem is a sentence.
    pub fn check(&self) -> Result<(), Vec<String>> {
        todo!()
    }
    /// The result file `receipt.json`.
    pub fn to_file(&self) -> ReportFile {
        todo!()
    }
    pub fn parse(json: &[u8]) -> Result<Self, FinalError> {
        todo!()
    }
}
/// The whole job in one process.
pub struct Recompute {}
impl Recompute {
    pub fn new(plan: &Plan, slots: usize) -> Self {
        todo!()
    }
    pub fn add(&mut self, layout: &Layout, header: &BatchHeader, payload: &[u8]) -> Result<(), FinalError> {
        todo!()
    }
    /// The same files as the cluster's, the receipt last.
    pub fn finish(self, spec: &JobSpec, ends: &[u64], durability: Durability) -> Result<Vec<ReportFile>, FinalError> {
        todo!()
    }
}
