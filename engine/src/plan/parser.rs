//! The state of the parser while it reads the queries of a plan.

use super::document::Source;
use super::tables::TableSchema;
use super::types::{Keying, Query, Stage};
use crate::expr::Program;
use crate::types::ColumnType;

/// Compiles queries into stages, keyings and the steps after them.
pub(super) struct QueryParser<'a> {
    pub(super) source: Source<'a>,
    pub(super) tables: &'a [TableSchema],
    pub(super) programs: Vec<Program>,
    pub(super) stages: Vec<Stage>,
    pub(super) keyings: Vec<Keying>,
    pub(super) queries: Vec<Query>,
}

pub(super) type Columns = Vec<(String, ColumnType)>;
