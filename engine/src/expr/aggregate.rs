//! Aggregates: `sum(x)`, `count(*)`, `count(x)`, `min(x)`, `max(x)`, `avg(x)`.

use sqlparser::ast::{Expr, FunctionArg, FunctionArgExpr, FunctionArguments};

use super::call::plain_arguments;
use super::compile::{Compiler, parse_sql};
use super::program::{NodeId, average_type};
use crate::types::{ColumnType, Type};

/// What is computed over the rows of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AggregateKind {
    /// Rows, or values that are not null.
    Count,
    Sum,
    Min,
    Max,
    /// Kept as sum and count, divided once at the end and rounded half to even.
    Average,
}

/// An aggregate of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Aggregate {
    pub(crate) kind: AggregateKind,
    /// What it is over; `None` for `count(*)`.
    pub(crate) arg: Option<NodeId>,
    /// The type of the argument.
    pub(crate) input: ColumnType,
    /// The type of the result.
    pub(crate) output: ColumnType,
}

/// Compiles an aggregate.
pub(crate) fn parse_aggregate(
    compiler: &mut Compiler<'_>,
    text: &str,
) -> Result<Aggregate, String> {
    let expected =
        || format!("'{text}' is no aggregate; expected sum, count, min, max or avg of one value");
    let Expr::Function(function) = parse_sql(text)? else { return Err(expected()) };
    let kind = match function.name.to_string().to_ascii_lowercase().as_str() {
        "count" => AggregateKind::Count,
        "sum" => AggregateKind::Sum,
        "min" => AggregateKind::Min,
        "max" => AggregateKind::Max,
        "avg" => AggregateKind::Average,
        _ => return Err(expected()),
    };
    let int = ColumnType { ty: Type::Int, nullable: false };
    if let FunctionArguments::List(list) = &function.args
        && kind == AggregateKind::Count
        && matches!(list.args[..], [FunctionArg::Unnamed(FunctionArgExpr::Wildcard)])
    {
        return Ok(Aggregate { kind, arg: None, input: int, output: int });
    }
    let args = plain_arguments(&function)?;
    let [arg] = args[..] else { return Err(expected()) };
    let node = compiler.value_of(arg)?;
    let input = compiler.program.ty(node);
    let numeric = input.ty.scale().is_some();
    let ty = match kind {
        AggregateKind::Count => Type::Int,
        AggregateKind::Min | AggregateKind::Max => input.ty,
        AggregateKind::Sum | AggregateKind::Average if !numeric => {
            return Err(format!("'{text}': {} can't be added up; expected a number", input.ty));
        }
        AggregateKind::Sum => input.ty,
        AggregateKind::Average => average_type(input.ty),
    };
    let nullable = kind != AggregateKind::Count && input.nullable;
    Ok(Aggregate { kind, arg: Some(node), input, output: ColumnType { ty, nullable } })
}
