//! Batch summaries: the deltas of the meta slot, and their fold. Mappers write them; the
//! coordinator folds them for receipts and rejected rows.

use cortado_protocol::client::Reject;
use cortado_protocol::job::{BatchHeader, JobSpec, TableTotal};
use cortado_protocol::limits::REJECTS_KEPT;
use cortado_protocol::{Coverage, content_hash, frame};
use serde::{Deserialize, Serialize};

use crate::decode::Problem;
use crate::plan::Plan;
use crate::tally::Tally;
use crate::wire::DeltaError;

/// Most rejected rows that one batch keeps in full.
pub(crate) const REJECTS_PER_BATCH: usize = 250;
/// Most bytes kept of a rejected row.
const REJECT_ROW_BYTES: usize = 1_000;
/// Most different reasons of a table. Reasons contain column names and only few numbers, so a plan
/// within its limits never has as many.
const REASONS: usize = 4_096;

/// Counts of the rows of a batch or table in one stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StageCount {
    pub(crate) stage: u32,
    pub(crate) passed: u64,
    pub(crate) filtered: u64,
    pub(crate) rejected: u64,
    /// The sections made for the stage, for all slots together.
    pub(crate) made: Tally,
}

/// Rows rejected for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReasonCount {
    /// The stage that rejected them; `None` if they were rejected for the whole table.
    pub(crate) stage: Option<u32>,
    pub(crate) reason: String,
    pub(crate) rows: u64,
}

/// A rejected row, ordered by its position.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Kept {
    line: u64,
    reason: String,
    row: Vec<u8>,
}

/// The summary of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BatchSummary {
    file: u32,
    content: u64,
    bytes: u64,
    rows: u64,
    rejected: u64,
    stages: Vec<StageCount>,
    reasons: Vec<ReasonCount>,
    kept: Vec<Kept>,
}

impl BatchSummary {
    pub(crate) fn new(
        plan: &Plan,
        header: &BatchHeader,
        payload: &[u8],
        rows: u32,
        rejected: u32,
        stages: Vec<StageCount>,
        problems: &[(u32, Problem)],
    ) -> Self {
        let mut counts: Vec<(Problem, u64)> = Vec::new();
        for (_, problem) in problems {
            match counts.iter_mut().find(|(other, _)| other == problem) {
                Some((_, rows)) => *rows += 1,
                None => counts.push((*problem, 1)),
            }
        }
        let table = &plan.tables()[usize::from(header.table)];
        let outputs = |stage| {
            let of_stage = plan.queries().iter().filter(|query| query.stage == stage);
            of_stage.map(|query| query.output.as_str()).collect::<Vec<_>>().join(", ")
        };
        let mut reasons: Vec<_> = counts
            .into_iter()
            .map(|(problem, rows)| {
                let stage = match problem {
                    Problem::Arithmetic { stage } => Some(stage as u32),
                    _ => None,
                };
                ReasonCount { stage, reason: problem.reason(table, outputs), rows }
            })
            .collect();
        reasons.sort_by(|a, b| (a.stage, &a.reason).cmp(&(b.stage, &b.reason)));
        let mut first = problems.to_vec();
        first.sort_by_key(|(start, _)| *start);
        first.truncate(REJECTS_PER_BATCH);
        let (mut line, mut at) = (header.first_line, 0);
        let mut kept = Vec::with_capacity(first.len());
        for (start, problem) in first {
            let start = start as usize;
            line = line.saturating_add(count_lines(&payload[at..start]));
            at = start;
            let row = raw_row(payload, start).to_vec();
            kept.push(Kept { line, reason: problem.reason(table, outputs), row });
        }
        Self {
            file: header.file,
            content: header.content,
            bytes: payload.len() as u64,
            rows: u64::from(rows),
            rejected: u64::from(rejected),
            stages,
            reasons,
            kept,
        }
    }

    pub(crate) fn encode(&self) -> bytes::Bytes {
        postcard::to_stdvec(self).expect("a summary has no unserializable type").into()
    }
}

fn count_lines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

/// The row that starts at `start`, without its line break and cut at the limit.
fn raw_row(payload: &[u8], start: usize) -> &[u8] {
    let end = match crate::csv::scan_record(payload, start, |_| ()) {
        crate::csv::Scan::Record(next) => next - 1,
        _ => payload.len(),
    };
    let row = &payload[start..end.min(start + REJECT_ROW_BYTES)];
    row.strip_suffix(b"\r").unwrap_or(row)
}

/// The summary of a table's batches.
#[derive(Clone, Debug, Default)]
pub(crate) struct TableSummary {
    pub(crate) coverage: Coverage,
    pub(crate) bytes: u64,
    pub(crate) rows: u64,
    pub(crate) rejected: u64,
    /// Wrapping sum over the batches, so that their order does not matter.
    pub(crate) content: u64,
    pub(crate) stages: Vec<StageCount>,
    pub(crate) reasons: Vec<ReasonCount>,
    kept: Vec<(u32, Kept)>,
}

/// Folds the summaries of all batches of a job, in any order.
#[derive(Clone, Debug)]
pub struct SummaryFold {
    pub(crate) plan: Plan,
    pub(crate) tables: Vec<TableSummary>,
}

impl SummaryFold {
    /// A fold without batches.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let tables = plan.tables().iter().enumerate().map(|(table, _)| {
            let stages = plan.stages().iter().enumerate().filter(|(_, s)| s.table == table);
            let none = |(stage, _): (usize, _)| StageCount {
                stage: stage as u32,
                passed: 0,
                filtered: 0,
                rejected: 0,
                made: Tally::default(),
            };
            TableSummary { stages: stages.map(none).collect(), ..TableSummary::default() }
        });
        Self { plan: plan.clone(), tables: tables.collect() }
    }

    /// Adds a batch's delta of the meta slot.
    ///
    /// # Errors
    /// If the bytes are no summary of this plan and table, or the batch was added before. After an
    /// error the fold is worth nothing.
    pub fn add(&mut self, table: usize, number: u64, delta: &[u8]) -> Result<(), DeltaError> {
        let summary: BatchSummary =
            frame::from_postcard(delta).map_err(|_| DeltaError::Malformed("batch summary"))?;
        let known = self.tables.get_mut(table).ok_or(DeltaError::Malformed("unknown table"))?;
        if known.coverage.contains(number) {
            return Err(DeltaError::Twice(number));
        }
        known.merge(number, summary)
    }

    /// How many batches of a table were added, and their records and bytes.
    #[must_use]
    pub fn total(&self, table: usize) -> TableTotal {
        let of = |table: &TableSummary| TableTotal {
            batches: table.coverage.count(),
            rows: table.rows,
            bytes: table.bytes,
            rejects: 0,
        };
        self.tables.get(table).map(of).unwrap_or_default()
    }

    /// Rejected rows of a table in the order of files and lines: the first 1,000, and at most 250
    /// of each batch.
    #[must_use]
    pub fn rejects(&self, table: usize, spec: &JobSpec) -> Vec<Reject> {
        let files = spec.tables.get(table).map_or(&[][..], |table| &table.files);
        let kept = self.tables.get(table).map_or(Vec::new(), |table| table.first_kept());
        let reject = |(file, kept): (u32, Kept)| Reject {
            file: files.get(file as usize).map_or_else(String::new, |file| file.name.clone()),
            line: kept.line,
            reason: kept.reason,
            row: String::from_utf8_lossy(&kept.row).into_owned(),
        };
        kept.into_iter().map(reject).collect()
    }
}

impl TableSummary {
    fn merge(&mut self, number: u64, summary: BatchSummary) -> Result<(), DeltaError> {
        let add = |to: &mut u64, value: u64| {
            *to = to.checked_add(value).ok_or(DeltaError::Malformed("count beyond 64 bits"))?;
            Ok::<_, DeltaError>(())
        };
        add(&mut self.bytes, summary.bytes)?;
        add(&mut self.rows, summary.rows)?;
        add(&mut self.rejected, summary.rejected)?;
        if summary.stages.len() != self.stages.len() {
            return Err(DeltaError::Malformed("summary of another table"));
        }
        for (to, from) in self.stages.iter_mut().zip(&summary.stages) {
            if to.stage != from.stage {
                return Err(DeltaError::Malformed("summary of another table"));
            }
            add(&mut to.passed, from.passed)?;
            add(&mut to.filtered, from.filtered)?;
            add(&mut to.rejected, from.rejected)?;
            to.made.merge(from.made);
        }
        for reason in summary.reasons {
            let key = |r: &ReasonCount| (r.stage, r.reason.clone());
            match self.reasons.binary_search_by_key(&key(&reason), key) {
                Ok(at) => add(&mut self.reasons[at].rows, reason.rows)?,
                Err(_) if self.reasons.len() >= REASONS => {
                    return Err(DeltaError::Malformed("too many reasons"));
                }
                Err(at) => self.reasons.insert(at, reason),
            }
        }
        self.kept.extend(summary.kept.into_iter().map(|kept| (summary.file, kept)));
        if self.kept.len() > 2 * REJECTS_KEPT {
            self.kept = self.first_kept();
        }
        let mut mixed = [0; 16];
        mixed[..8].copy_from_slice(&number.to_le_bytes());
        mixed[8..].copy_from_slice(&summary.content.to_le_bytes());
        self.content = self.content.wrapping_add(content_hash(&mixed));
        self.coverage.insert(number);
        Ok(())
    }

    fn first_kept(&self) -> Vec<(u32, Kept)> {
        let mut kept = self.kept.clone();
        kept.sort_unstable();
        kept.truncate(REJECTS_KEPT);
        kept
    }
}
