//! How much memory the engine takes, and what it says when that is too much.

use bytes::Bytes;
use cortado_protocol::limits::ENTRY_BYTES;

use crate::plan::{Plan, Shape};
use crate::tally::Tally;
use crate::wire::Reader;

/// Most memory that evaluating one batch may take, in bytes. It is the same on every node, so a batch
/// that is taken anywhere is taken everywhere.
pub const MAP_BYTES: usize = 256 << 20;

/// Why a batch can't be turned into deltas. The same batch and plan give the same answer everywhere.
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

/// A size for people.
#[must_use]
pub fn mebi(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// What evaluating so many rows of a table takes at most, in bytes: a column for each expression, the
/// groups, and for one query after the other the states of its aggregates.
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
/// A count, a sum, or a text's place.
const STATE_ROW: usize = 24;
/// Row number, hash, group, and the table of groups.
const GROUP_ROW: usize = 48;

/// The query that takes most of these sizes, one for each query of the plan.
fn largest(plan: &Plan, sizes: &[usize]) -> String {
    let named = plan.queries().iter().zip(sizes);
    named.max_by_key(|(_, size)| **size).map(|(query, _)| query.output.clone()).unwrap_or_default()
}

/// The query that has the largest part of these sizes of stages ([`crate::SlotFold::stage_bytes`]).
#[must_use]
pub fn largest_of_stages(plan: &Plan, stages: &[usize]) -> String {
    let sizes: Vec<_> = plan.queries().iter().map(|query| stages[query.stage]).collect();
    largest(plan, &sizes)
}

/// The query with the most bytes in the outputs of slots ([`crate::SlotFold::finish`]).
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
