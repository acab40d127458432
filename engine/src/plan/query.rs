//! Parses the queries of a plan.

use super::document::{Located, PlanError, Source, Table};
use super::parser::{Columns, QueryParser};
use super::steps::{mentioned_names, renamed};
use super::tables::TableSchema;
use super::types::{LIST_LIMIT, NODES, Query, Shape, Stage};
use crate::expr::{Aggregate, Compiler, NodeId, Outcome, Program, parse_aggregate};

const KEYS: [&str; 11] = [
    "output",
    "from",
    "where",
    "columns",
    "group_by",
    "aggregates",
    "top",
    "joins",
    "select",
    "order_by",
    "limit",
];

impl<'a> QueryParser<'a> {
    pub(super) fn new(source: Source<'a>, tables: &'a [TableSchema]) -> Self {
        let programs = vec![Program::default(); tables.len()];
        Self { source, tables, programs, stages: vec![], keyings: vec![], queries: vec![] }
    }

    pub(super) fn table(&self, name: &Located) -> Result<usize, PlanError> {
        self.tables.iter().position(|table| table.name == name.text).ok_or_else(|| {
            let names: Vec<_> = self.tables.iter().map(|table| table.name.as_str()).collect();
            let message =
                format!("unknown table '{}'; the tables are: {}", name.text, names.join(", "));
            self.source.error(name.offset, message)
        })
    }

    fn compile<T>(
        &mut self,
        table: usize,
        text: &Located,
        compile: impl FnOnce(&mut Compiler<'_>, &str) -> Result<T, String>,
    ) -> Result<T, PlanError> {
        let schema = &self.tables[table];
        let columns: Columns =
            schema.columns.iter().map(|column| (column.name.clone(), column.ty)).collect();
        let program = &mut self.programs[table];
        let mut compiler = Compiler { table: &schema.name, columns: &columns, program };
        let compiled = compile(&mut compiler, &text.text)
            .map_err(|message| self.source.error(text.offset, message))?;
        if self.programs[table].nodes.len() > NODES {
            let message = format!("more than {NODES} different subexpressions over one table");
            return Err(self.source.error(text.offset, message));
        }
        Ok(compiled)
    }

    pub(super) fn query(&mut self, query: &Table<'a>) -> Result<(), PlanError> {
        query.only(&KEYS)?;
        let output = self.output_name(&query.required("output")?.text()?)?;
        let table = self.table(&query.required("from")?.text()?)?;
        let filter = match query.optional("where") {
            None => None,
            Some(text) => Some(self.compile(table, &text.text()?, |c, text| c.condition(text))?),
        };
        let grouped =
            query.optional("group_by").is_some() || query.optional("aggregates").is_some();
        let (stage, base, mut columns) = if grouped {
            self.groups(query, table, filter)?
        } else {
            self.rows(query, table, filter)?
        };
        let top = match query.optional("top") {
            None => None,
            Some(top) => Some(self.top(&top.table()?, &columns)?),
        };
        let joins = match query.optional("joins") {
            None => Vec::new(),
            Some(joins) => {
                let join =
                    |join: &super::document::Value<'a>| self.join(&join.table()?, &mut columns);
                let list = joins.list()?;
                if list.len() > LIST_LIMIT {
                    return Err(joins.error(format!("a query has at most {LIST_LIMIT} joins")));
                }
                list.iter().map(join).collect::<Result<_, _>>()?
            }
        };
        let select = match query.optional("select") {
            None => columns.iter().enumerate().map(|(at, (name, _))| (name.clone(), at)).collect(),
            Some(select) => select
                .texts()?
                .iter()
                .map(|item| {
                    let (name, alias) = renamed(item);
                    Ok((alias.text, self.column(&name, &columns)?))
                })
                .collect::<Result<Vec<_>, PlanError>>()?,
        };
        if select.is_empty() {
            return Err(self.source.error(query.offset, "a query selects at least one column"));
        }
        let order = match query.optional("order_by") {
            None => Vec::new(),
            Some(order) => self.orders(&order.texts()?, &columns)?,
        };
        let limit = query.optional("limit").map(|limit| limit.count()).transpose()?;
        let global =
            matches!(&self.stages[stage].shape, Shape::Groups { keys, .. } if keys.is_empty());
        self.queries.push(Query {
            output,
            stage,
            base,
            columns,
            top,
            joins,
            select,
            order,
            limit,
            global,
        });
        Ok(())
    }

    fn output_name(&self, name: &Located) -> Result<String, PlanError> {
        let text = &name.text;
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let problem = if text.is_empty()
            || text.len() > 100
            || text.starts_with('.')
            || !text.bytes().all(plain)
        {
            "is no file name; expected letters, digits, '.', '_' and '-'"
        } else if text == crate::names::RECEIPT_FILE {
            "is the name of the receipt; expected another one"
        } else if self.queries.iter().any(|query| query.output == *text) {
            "is the output of another query; expected another name"
        } else {
            return Ok(text.clone());
        };
        Err(self.source.error(name.offset, format!("'{text}' {problem}")))
    }

    /// Adds a stage without aggregation: the query's rows.
    fn rows(
        &mut self,
        query: &Table<'a>,
        table: usize,
        filter: Option<NodeId>,
    ) -> Result<(usize, Vec<usize>, Columns), PlanError> {
        let mut nodes = Vec::new();
        let mut columns = Columns::new();
        if let Some(named) = query.optional("columns") {
            for (name, text) in named.table()?.entries() {
                let node = self.compile(table, &text.text()?, |c, text| c.value(text))?;
                nodes.push(node);
                columns.push((name.text.clone(), self.programs[table].ty(node)));
            }
        } else {
            let mentioned = mentioned_names(query)?;
            for (index, column) in self.tables[table].columns.iter().enumerate() {
                if mentioned.is_empty() || mentioned.contains(&column.name) {
                    nodes.push(self.programs[table].column(index, column.ty));
                    columns.push((column.name.clone(), column.ty));
                }
            }
        }
        self.stages.push(Stage { table, filter, shape: Shape::Rows(nodes) });
        Ok((self.stages.len() - 1, (0..columns.len()).collect(), columns))
    }

    /// Adds a stage with aggregation, or shares an earlier one with the same rows and keys.
    fn groups(
        &mut self,
        query: &Table<'a>,
        table: usize,
        filter: Option<NodeId>,
    ) -> Result<(usize, Vec<usize>, Columns), PlanError> {
        if let Some(columns) = query.optional("columns") {
            return Err(
                columns.error("'columns' and aggregation exclude each other; expected 'group_by'")
            );
        }
        let (mut keys, mut columns) = (Vec::new(), Columns::new());
        if let Some(group_by) = query.optional("group_by") {
            for (name, text) in group_by.table()?.entries() {
                let node = self.compile(table, &text.text()?, |c, text| c.value(text))?;
                keys.push(node);
                columns.push((name.text.clone(), self.programs[table].ty(node)));
            }
        }
        let mut aggregates = Vec::new();
        if let Some(named) = query.optional("aggregates") {
            for (name, text) in named.table()?.entries() {
                if columns.iter().any(|(other, _)| *other == name.text) {
                    let message = format!("'{}' names a key and an aggregate", name.text);
                    return Err(self.source.error(name.offset, message));
                }
                let mut aggregate = self.compile(table, &text.text()?, parse_aggregate)?;
                let counts = aggregate.kind.rule().outcome == Outcome::Count;
                // Without keys there is one row even if no row was aggregated.
                aggregate.output.nullable |= keys.is_empty() && !counts;
                aggregates.push(aggregate);
                columns.push((name.text.clone(), aggregate.output));
            }
        }
        if columns.len() > LIST_LIMIT {
            let message = format!("a query has at most {LIST_LIMIT} keys and aggregates");
            return Err(self.source.error(query.offset, message));
        }
        let (stage, places) = self.shared_stage(table, filter, &keys, &aggregates);
        let base = (0..keys.len()).chain(places.iter().map(|place| keys.len() + place)).collect();
        Ok((stage, base, columns))
    }

    /// The stage, and the positions of the aggregates in it. Stages with aggregates that can fail
    /// for a row are not shared: the row would be rejected for the other query too.
    fn shared_stage(
        &mut self,
        table: usize,
        filter: Option<NodeId>,
        keys: &[NodeId],
        wanted: &[Aggregate],
    ) -> (usize, Vec<usize>) {
        let program = &self.programs[table];
        let fails = |a: &Aggregate| a.arg.is_some_and(|node| program.nodes[node].fallible);
        let same = |stage: &Stage| {
            let Shape::Groups { keys: other, aggregates } = &stage.shape else { return false };
            stage.table == table
                && stage.filter == filter
                && other == keys
                && !aggregates.iter().chain(wanted).any(fails)
        };
        let at = self.stages.iter().position(same).unwrap_or_else(|| {
            let shape = Shape::Groups { keys: keys.to_vec(), aggregates: Vec::new() };
            self.stages.push(Stage { table, filter, shape });
            self.stages.len() - 1
        });
        let Shape::Groups { aggregates, .. } = &mut self.stages[at].shape else {
            return (at, Vec::new());
        };
        let mut places = Vec::new();
        for aggregate in wanted {
            let place = aggregates.iter().position(|a| a == aggregate).unwrap_or_else(|| {
                aggregates.push(*aggregate);
                aggregates.len() - 1
            });
            places.push(place);
        }
        (at, places)
    }
}
