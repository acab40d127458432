//! The parts of a compiled plan: stages, keyings and the steps after them.

use cortado_protocol::{Slot, content_hash};

use crate::expr::{Aggregate, NodeId};
use crate::types::ColumnType;

/// Most queries of a plan, and most entries of any list in it.
pub(super) const LIST_LIMIT: usize = 64;
/// Most different subexpressions over one table: each takes a column of memory per batch.
pub(super) const NODES: usize = 1_024;

/// What is computed over the rows of one table.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    pub(crate) table: usize,
    pub(crate) filter: Option<NodeId>,
    pub(crate) shape: Shape,
}

/// The output of a stage, for the rows that pass its filter.
#[derive(Clone, Debug)]
pub(crate) enum Shape {
    /// One row of these values for each row.
    Rows(Vec<NodeId>),
    /// One row for all rows with equal keys: the keys, then the aggregates.
    Groups { keys: Vec<NodeId>, aggregates: Vec<Aggregate> },
}

/// Columns of a reference table with the key column that finds them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keying {
    pub(crate) table: usize,
    pub(crate) key: usize,
    pub(crate) columns: Vec<usize>,
}

/// The steps from a stage's rows to a result file.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    pub(crate) output: String,
    pub(crate) stage: usize,
    /// Positions in the stage's rows of the query's first columns.
    pub(crate) base: Vec<usize>,
    /// Names and types: the base, then the columns that each join adds.
    pub(crate) columns: Vec<(String, ColumnType)>,
    pub(crate) top: Option<Top>,
    pub(crate) joins: Vec<Join>,
    pub(crate) select: Vec<(String, usize)>,
    pub(crate) order: Vec<Order>,
    pub(crate) limit: Option<u64>,
    /// Whether the query aggregates without keys: then it has one row even for no input rows.
    pub(crate) global: bool,
}

/// A column to order by. Nulls come last in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) column: usize,
    pub(crate) descending: bool,
}

/// The first rows of each group of rows.
#[derive(Clone, Debug)]
pub(crate) struct Top {
    pub(crate) n: u64,
    pub(crate) per: Vec<usize>,
    pub(crate) by: Vec<Order>,
    /// Whether all rows equal to the last one by `by` stay.
    pub(crate) all_ties: bool,
    /// Orders rows that are equal by `by`, before the remaining columns do.
    pub(crate) ties: Vec<Order>,
}

/// Columns of a reference table, added to a query's rows.
#[derive(Clone, Debug)]
pub(crate) struct Join {
    pub(crate) keying: usize,
    /// The query's column with the keys to look up.
    pub(crate) left: usize,
    /// Positions in the keying's columns.
    pub(crate) picks: Vec<usize>,
    /// Whether rows without a match are dropped; otherwise they get nulls.
    pub(crate) inner: bool,
}

/// The slot of a key: `xxh3(key) % slots`.
#[must_use]
pub fn slot_of(key: &[u8], slots: usize) -> Slot {
    let (hash, slots) = (content_hash(key), slots.max(1) as u64);
    // The mask gives the same for powers of two, which are usual, without a division for each row.
    Slot(if slots.is_power_of_two() { hash & (slots - 1) } else { hash % slots } as u8)
}
