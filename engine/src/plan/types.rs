//! What a plan is compiled into: stages, keyings and what follows them.

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

/// What a stage makes of the rows that pass.
#[derive(Clone, Debug)]
pub(crate) enum Shape {
    /// Each row becomes a row of these values.
    Rows(Vec<NodeId>),
    /// Rows with equal keys become one row: the keys, then the aggregates.
    Groups { keys: Vec<NodeId>, aggregates: Vec<Aggregate> },
}

/// Columns of a reference table, to be found by a key column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keying {
    pub(crate) table: usize,
    pub(crate) key: usize,
    pub(crate) columns: Vec<usize>,
}

/// From a stage's rows to a result file.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    pub(crate) output: String,
    pub(crate) stage: usize,
    /// Positions of the query's first columns in the stage's rows.
    pub(crate) base: Vec<usize>,
    /// Names and types: the base, then what each join adds.
    pub(crate) columns: Vec<(String, ColumnType)>,
    pub(crate) top: Option<Top>,
    pub(crate) joins: Vec<Join>,
    pub(crate) select: Vec<(String, usize)>,
    pub(crate) order: Vec<Order>,
    pub(crate) limit: Option<u64>,
    /// Whether it aggregates without keys, which makes one row even of no rows.
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
    /// Whether everyone level with the last one stays.
    pub(crate) all_ties: bool,
    /// Orders those that are level, before the remaining columns do.
    pub(crate) ties: Vec<Order>,
}

/// Columns of a reference table, added to a query's rows.
#[derive(Clone, Debug)]
pub(crate) struct Join {
    pub(crate) keying: usize,
    /// The query's column that is looked up.
    pub(crate) left: usize,
    /// Positions in the keying's columns.
    pub(crate) picks: Vec<usize>,
    /// Whether rows without a match are dropped; otherwise they get nulls.
    pub(crate) inner: bool,
}

/// `xxh3(key) % slots`.
pub(crate) fn slot_of(key: &[u8], slots: usize) -> Slot {
    let (hash, slots) = (content_hash(key), slots.max(1) as u64);
    // The same, for nearly every cluster, without a division for each row.
    Slot(if slots.is_power_of_two() { hash & (slots - 1) } else { hash % slots } as u8)
}
