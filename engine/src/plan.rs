//! Plans: the tables of a job and the queries over them. A plan is data (TOML); no code here or
//! below knows any particular plan. [`Plan`] describes the format. Client and nodes parse the same
//! text.
//!
//! A plan compiles into *stages* (what is computed over one table and folded slot by slot),
//! *keyings* (columns of a reference table with the key column for joins) and *queries* (the steps
//! from a stage's rows to a file). Queries over the same rows and keys share a stage.

mod document;
mod layout;
mod parser;
mod query;
mod steps;
mod tables;
mod types;

use std::sync::Arc;

use cortado_protocol::content_hash;
pub use document::PlanError;
pub use layout::{HeaderError, Layout};
pub use tables::{ColumnSchema, TableSchema};
use toml::de::DeTable;
pub use types::slot_of;
pub(crate) use types::{Join, Keying, Order, Query, Shape, Stage, Top};

use self::document::{Source, Table};
use self::parser::QueryParser;
use self::types::LIST_LIMIT;
use crate::expr::Program;
use crate::types::ColumnType;

/// Longest plan in bytes.
const PLAN_BYTES: usize = 256 << 10;

/// A parsed and checked plan. Cloning is cheap.
///
/// # The format
/// Unknown keys are errors; the order of keys is the order of columns.
/// ```
/// let plan = cortado_engine::Plan::parse(r#"
/// name = "sample"
///
/// [tables.sales]
/// files = "sales/*.csv"          # below the dataset; '*' and '?' stay within a folder
/// [tables.sales.columns]         # the needed columns; a row in which one can't be read is rejected
/// id = "text"                    # text, int, decimal, decimal(SCALE), date, timestamp;
/// shop = "int?"                  # '?' if the field may be empty (null)
/// paid = "decimal(2)"            # more fractional digits are accepted if they are zeros
/// at = "timestamp"               # 2024-01-31 10:06:50, also with 'T' or a fraction
///
/// [tables.shops]
/// files = "shops.csv"
/// columns = { id = "int", name = "text" }
///
/// [[queries]]
/// output = "best.csv"
/// from = "sales"
/// where = "year(at) = 2024"      # rows for which it is false or null are left out
/// group_by = { month = "year_month(at)", shop = "shop" }
/// aggregates = { total = "sum(paid)", mean = "avg(paid)" }
/// top = { n = 3, per = ["month"], by = "total desc", ties = "shop" }   # or ties = "all"
/// joins = [{ table = "shops", on = "shop = id", columns = ["name as shop_name"] }]
/// select = ["month", "shop_name", "total as sum"]
/// order_by = ["month", "total desc"]
/// limit = 1000
/// "#).unwrap();
/// assert_eq!(plan.outputs().next(), Some("best.csv"));
/// let error = cortado_engine::Plan::parse("name = 'x'\ncolour = 1").unwrap_err();
/// assert_eq!(error.line, 2);
/// ```
/// A query with neither `group_by` nor `aggregates` makes one row of each row: from the expressions
/// in `columns = { name = "expression" }`, or otherwise from the table's columns that it mentions.
/// The steps are applied in the order above. A join is `kind = "left"` (the default: a row without
/// a match gets nulls, which are empty fields) or `"inner"`; every match makes a row. Nulls sort
/// last. Rows with equal order keys are ordered by all their columns, so that every result has
/// exactly one order.
///
/// # Expressions
/// SQL: columns, numbers, `'texts'`, `true`, `false`, `=` `<>` `<` `<=` `>` `>=`, `and`, `or`,
/// `not`, `in (…)`, `between`, `is [not] null`, `+ - * /` and the functions `year`, `month`, `half`
/// (int), `year_month` (`2024-01`), `year_half` (`2024-H1`), `date`, `time` and `coalesce`. Text
/// literals are compared with dates and times in the spelling of these. Arithmetic is exact: a
/// product has the fractional digits of both sides together, a quotient those of the longer side
/// but at least 6, an average 6 more than its values (at most 18); quotients and averages are
/// rounded half to even. A result beyond 64 bits or a division by zero rejects the row for this
/// query. Aggregates are `sum`, `count(*)`, `count(x)`, `min`, `max`, `avg`.
#[derive(Clone, Debug)]
pub struct Plan(Arc<Compiled>);

#[derive(Debug)]
struct Compiled {
    name: String,
    hash: u64,
    tables: Vec<TableSchema>,
    programs: Vec<Program>,
    stages: Vec<Stage>,
    keyings: Vec<Keying>,
    queries: Vec<Query>,
}

impl Plan {
    /// A plan that computes nothing.
    #[must_use]
    pub fn none() -> Self {
        Self(Arc::new(Compiled {
            name: String::new(),
            hash: 0,
            tables: Vec::new(),
            programs: Vec::new(),
            stages: Vec::new(),
            keyings: Vec::new(),
            queries: Vec::new(),
        }))
    }

    /// Parses and checks a plan.
    ///
    /// # Errors
    /// If the plan has a mistake: the line, what is wrong and what was expected.
    pub fn parse(text: &str) -> Result<Self, PlanError> {
        let source = Source(text);
        if text.len() > PLAN_BYTES {
            return Err(source.error(0, format!("a plan has at most {PLAN_BYTES} bytes")));
        }
        let document = DeTable::parse(text).map_err(|error| {
            source.error(error.span().map_or(0, |span| span.start), error.message())
        })?;
        let root = Table::root(source, &document);
        root.only(&["name", "tables", "queries"])?;
        let name = root.required("name")?.text()?.text;
        let tables = tables::parse(&root.required("tables")?)?;
        let mut parser = QueryParser::new(source, &tables);
        let queries_value = root.required("queries")?;
        let list = queries_value.list()?;
        if list.is_empty() || list.len() > LIST_LIMIT {
            return Err(queries_value.error(format!("a plan has 1 to {LIST_LIMIT} queries")));
        }
        for query in list {
            parser.query(&query.table()?)?;
        }
        let QueryParser { programs, stages, keyings, queries, .. } = parser;
        let hash = content_hash(text.as_bytes());
        Ok(Self(Arc::new(Compiled { name, hash, tables, programs, stages, keyings, queries })))
    }

    /// The plan's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Content hash of the plan's text.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.0.hash
    }

    /// The tables, in the order of the text.
    #[must_use]
    pub fn tables(&self) -> &[TableSchema] {
        &self.0.tables
    }

    /// Names of the result files in order, without the receipt.
    pub fn outputs(&self) -> impl Iterator<Item = &str> {
        self.0.queries.iter().map(|query| query.output.as_str())
    }

    /// Whether any query reads the table's rows; if not, the table only serves lookups.
    #[must_use]
    pub fn counts(&self, table: usize) -> bool {
        self.0.stages.iter().any(|stage| stage.table == table)
    }

    /// Finds a table's columns in the header of one of its files. The empty header of an empty file
    /// is accepted.
    ///
    /// # Errors
    /// If a column is missing or occurs twice.
    ///
    /// # Panics
    /// If the plan has no such table.
    pub fn bind_header(&self, table: usize, header: &[String]) -> Result<Layout, HeaderError> {
        Layout::bind(&self.0.tables[table], header)
    }

    pub(crate) fn program(&self, table: usize) -> &Program {
        &self.0.programs[table]
    }

    pub(crate) fn stages(&self) -> &[Stage] {
        &self.0.stages
    }

    pub(crate) fn keyings(&self) -> &[Keying] {
        &self.0.keyings
    }

    pub(crate) fn queries(&self) -> &[Query] {
        &self.0.queries
    }

    /// The types of a stage's keys, or of its rows if it has none.
    pub(crate) fn key_types(&self, stage: &Stage) -> Vec<ColumnType> {
        let program = self.program(stage.table);
        let (Shape::Rows(nodes) | Shape::Groups { keys: nodes, .. }) = &stage.shape;
        nodes.iter().map(|node| program.ty(*node)).collect()
    }

    /// The type of a keying's key. It is never null, since null matches nothing.
    pub(crate) fn keying_key(&self, keying: &Keying) -> ColumnType {
        let ty = self.0.tables[keying.table].columns[keying.key].ty;
        ColumnType { nullable: false, ..ty }
    }

    /// The types of a keying's columns.
    pub(crate) fn keying_columns(&self, keying: &Keying) -> Vec<ColumnType> {
        let columns = &self.0.tables[keying.table].columns;
        keying.columns.iter().map(|column| columns[*column].ty).collect()
    }
}
