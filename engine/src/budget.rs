//! Estimates of the memory that the engine takes, and the errors when that is too much. Mapping
//! checks them before it evaluates a batch; the core uses them for its limit on folds.

use bytes::Bytes;
use cortado_protocol::limits::{ENTRY_BYTES, EVENTS_PER_BATCH};

use crate::plan::{Plan, Shape};
use crate::tally::Tally;
use crate::wire::Reader;

/// Most memory for the evaluation of one batch, in bytes. It is the same on every node, so all
/// nodes accept the same batches.
pub const MAP_BYTES: usize = 256 << 20;

/// Why a batch can't be turned into deltas. The same batch and plan give the same error on every
/// node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// The deltas are larger than an entry may be.
    #[error(
        "this plan makes more than {limit} of a batch of {payload}, and no more can be stored: let its \
         queries keep fewer columns, groups or aggregates",
        limit = mebi(ENTRY_BYTES),
        payload = mebi(*.0)
    )]
    Output(usize),
    /// A batch of events has too many lines.
    #[error("a batch of events has at most {limit} lines, not {0}", limit = EVENTS_PER_BATCH)]
    Events(usize),
    /// The columns of the expressions would take too much memory.
    #[error(
        "this plan needs {needed} of memory for a batch of {rows} rows, and gets at most {limit}: use \
         fewer expressions over this table",
        needed = mebi(*.bytes),
        limit = mebi(MAP_BYTES)
    )]
    Memory {
        /// Bytes needed.
        bytes: usize,
        /// Rows of the batch.
        rows: usize,
    },
}

/// A size as text.
#[must_use]
pub fn mebi(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Most bytes that the evaluation of `rows` rows of a table takes: a column for each expression,
/// the groups, and the states of the aggregates, one query at a time.
pub(crate) fn map_bytes(plan: &Plan, table: usize, rows: usize) -> usize {
    let columns = plan.program(table).nodes.len() * COLUMN_ROW;
    let aggregates = |shape: &Shape| match shape {
        Shape::Rows(_) => 0,
        Shape::Groups { aggregates, .. } => aggregates.len() * STATE_ROW,
    };
    let stages = plan.stages().iter().filter(|stage| stage.table == table);
    let states = stages.map(|stage| aggregates(&stage.shape)).max().unwrap_or(0);
    rows * (columns + states + GROUP_ROW)
}

/// A value and its state.
const COLUMN_ROW: usize = 9;
/// A count, a sum, or the span of a text.
const STATE_ROW: usize = 24;
/// Row number, hash, group, and the table of groups.
const GROUP_ROW: usize = 48;

/// The query with the largest of these sizes, which are in the order of the plan's queries.
fn largest(plan: &Plan, sizes: &[usize]) -> String {
    let named = plan.queries().iter().zip(sizes);
    named.max_by_key(|(_, size)| **size).map(|(query, _)| query.output.clone()).unwrap_or_default()
}

/// The query whose stage has the largest of these sizes ([`crate::SlotFold::stage_bytes`]).
#[must_use]
pub fn largest_of_stages(plan: &Plan, stages: &[usize]) -> String {
    let sizes: Vec<_> = plan.queries().iter().map(|query| stages[query.stage]).collect();
    largest(plan, &sizes)
}

/// The query with the most bytes in the outputs of the slots ([`crate::SlotFold::finish`]).
#[must_use]
pub fn largest_query<'a>(plan: &Plan, outputs: impl Iterator<Item = &'a Bytes>) -> String {
    let mut sizes = vec![0; plan.queries().len()];
    for output in outputs {
        let mut reader = Reader(output);
        if plan.stages().iter().any(|_| Tally::decode(&mut reader).is_err()) {
            continue;
        }
        for size in &mut sizes {
            let Ok(content) = reader.uint().and_then(|_| reader.bytes()) else { break };
            *size += content.len();
        }
    }
    largest(plan, &sizes)
}
