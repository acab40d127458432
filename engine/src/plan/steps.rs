//! Parses the steps after a query's stage: top n, joins, orders, and the names in them.

use sqlparser::ast::{BinaryOperator, Expr};

use super::document::{Located, PlanError, Table};
use super::parser::{Columns, QueryParser};
use super::types::{Join, Keying, Order, Top};
use crate::expr::parse_sql;
use crate::types::ColumnType;

impl<'a> QueryParser<'a> {
    pub(super) fn column(&self, name: &Located, columns: &Columns) -> Result<usize, PlanError> {
        columns.iter().position(|(column, _)| *column == name.text).ok_or_else(|| {
            let names: Vec<_> = columns.iter().map(|(name, _)| name.as_str()).collect();
            let message = format!(
                "unknown column '{}'; the query's columns are: {}",
                name.text,
                names.join(", ")
            );
            self.source.error(name.offset, message)
        })
    }

    pub(super) fn orders(
        &self,
        items: &[Located],
        columns: &Columns,
    ) -> Result<Vec<Order>, PlanError> {
        split_list(items)
            .iter()
            .map(|item| {
                let mut words = item.text.split_whitespace();
                let name = words.next().unwrap_or_default().to_owned();
                let descending = match (words.next(), words.next()) {
                    (None | Some("asc"), None) => false,
                    (Some("desc"), None) => true,
                    _ => {
                        let message =
                            format!("'{}' is no order; expected 'column [asc|desc]'", item.text);
                        return Err(self.source.error(item.offset, message));
                    }
                };
                let column = self.column(&Located { text: name, offset: item.offset }, columns)?;
                Ok(Order { column, descending })
            })
            .collect()
    }

    pub(super) fn top(&self, top: &Table<'a>, columns: &Columns) -> Result<Top, PlanError> {
        top.only(&["n", "per", "by", "ties"])?;
        let per = match top.optional("per") {
            None => Vec::new(),
            Some(per) => split_list(&per.texts()?)
                .iter()
                .map(|name| self.column(name, columns))
                .collect::<Result<_, _>>()?,
        };
        let ties = top.optional("ties").map(|ties| ties.texts()).transpose()?.unwrap_or_default();
        let all_ties = matches!(&ties[..], [only] if only.text == "all");
        Ok(Top {
            n: top.required("n")?.count()?,
            per,
            by: self.orders(&top.required("by")?.texts()?, columns)?,
            all_ties,
            ties: if all_ties { Vec::new() } else { self.orders(&ties, columns)? },
        })
    }

    pub(super) fn join(
        &mut self,
        join: &Table<'a>,
        columns: &mut Columns,
    ) -> Result<Join, PlanError> {
        join.only(&["table", "on", "kind", "columns"])?;
        let table = self.table(&join.required("table")?.text()?)?;
        let on = join.required("on")?.text()?;
        let (left_name, right_name) = equality(&on.text).ok_or_else(|| {
            let message = format!(
                "'{}' is no join condition; expected 'column of the query = column of the table'",
                on.text
            );
            self.source.error(on.offset, message)
        })?;
        let left = self.column(&Located { text: left_name, offset: on.offset }, columns)?;
        let reference: Columns =
            self.tables[table].columns.iter().map(|c| (c.name.clone(), c.ty)).collect();
        let key = self.column(&Located { text: right_name, offset: on.offset }, &reference)?;
        let (left_ty, key_ty) = (columns[left].1.ty, reference[key].1.ty);
        if left_ty != key_ty {
            let message = format!("{left_ty} can't be joined with {key_ty}");
            return Err(self.source.error(on.offset, message));
        }
        let inner = match join.optional("kind").map(|kind| kind.text()).transpose()? {
            None => false,
            Some(kind) if kind.text == "left" => false,
            Some(kind) if kind.text == "inner" => true,
            Some(kind) => {
                let message = format!("'{}' is no kind of join; expected left or inner", kind.text);
                return Err(self.source.error(kind.offset, message));
            }
        };
        let keying = self.keyings.iter().position(|k| k.table == table && k.key == key);
        let keying = keying.unwrap_or_else(|| {
            self.keyings.push(Keying { table, key, columns: Vec::new() });
            self.keyings.len() - 1
        });
        let mut picks = Vec::new();
        for item in join.required("columns")?.texts()? {
            let (name, alias) = renamed(&item);
            let column = self.column(&name, &reference)?;
            if columns.iter().any(|(other, _)| *other == alias.text) {
                let message = format!(
                    "the query already has a column '{0}'; expected '{0} as …'",
                    alias.text
                );
                return Err(self.source.error(item.offset, message));
            }
            let ty = ColumnType { nullable: true, ..reference[column].1 };
            columns.push((alias.text, ty));
            let kept = &mut self.keyings[keying].columns;
            picks.push(kept.iter().position(|c| *c == column).unwrap_or_else(|| {
                kept.push(column);
                kept.len() - 1
            }));
        }
        Ok(Join { keying, left, picks, inner })
    }
}

/// Parses `name as alias`.
pub(super) fn renamed(item: &Located) -> (Located, Located) {
    let words: Vec<_> = item.text.split_whitespace().collect();
    let at = |text: &str| Located { text: text.to_owned(), offset: item.offset };
    match words[..] {
        [name, "as", alias] => (at(name), at(alias)),
        _ => (item.clone(), item.clone()),
    }
}

/// Splits `a, b desc` into its items.
fn split_list(items: &[Located]) -> Vec<Located> {
    let split = |item: &Located| {
        let offset = item.offset;
        let located = move |text: &str| Located { text: text.trim().to_owned(), offset };
        item.text.split(',').map(located).collect::<Vec<_>>()
    };
    items.iter().flat_map(split).collect()
}

/// The names on both sides of `a = b`.
fn equality(text: &str) -> Option<(String, String)> {
    let Ok(Expr::BinaryOp { left, op: BinaryOperator::Eq, right }) = parse_sql(text) else {
        return None;
    };
    match (*left, *right) {
        (Expr::Identifier(left), Expr::Identifier(right)) => Some((left.value, right.value)),
        _ => None,
    }
}

/// The names that a query without aggregation uses after `where`; none if it takes every column.
pub(super) fn mentioned_names(query: &Table<'_>) -> Result<Vec<String>, PlanError> {
    let Some(select) = query.optional("select") else { return Ok(Vec::new()) };
    let mut items = select.texts()?;
    items.extend(query.optional("order_by").map(|v| v.texts()).transpose()?.unwrap_or_default());
    if let Some(top) = query.optional("top") {
        let top = top.table()?;
        for key in ["per", "by", "ties"] {
            items.extend(top.optional(key).map(|v| v.texts()).transpose()?.unwrap_or_default());
        }
    }
    if let Some(joins) = query.optional("joins") {
        for join in joins.list()? {
            items.push(join.table()?.required("on")?.text()?);
        }
    }
    let word = |item: &Located| item.text.split([' ', '=']).next().unwrap_or_default().to_owned();
    Ok(split_list(&items).iter().map(word).collect())
}
