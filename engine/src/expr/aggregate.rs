//! Aggregates: `sum(x)`, `count(*)`, `count(x)`, `min(x)`, `max(x)`, `avg(x)`.

use sqlparser::ast::{Expr, FunctionArg, FunctionArgExpr, FunctionArguments};

use super::call::plain_arguments;
use super::compile::{Compiler, parse_sql};
use super::program::{NodeId, average_type};
use crate::types::{ColumnType, Type};

/// The aggregates over the rows of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AggregateKind {
    Count,
    Sum,
    Min,
    Max,
    Average,
}

/// What is kept of a group's values, beside their number. Merging is commutative and associative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Nothing,
    Sum,
    Least,
    Greatest,
}

/// How the result follows from a group's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The number of values that are not null, or of rows.
    Count,
    /// The state itself.
    State,
    /// The state divided by the number of values, once, rounded half to even.
    Mean,
}

/// The properties of an aggregate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    /// Its name in plans.
    pub(crate) name: &'static str,
    /// Whether it accepts numbers only.
    pub(crate) numbers_only: bool,
    pub(crate) state: State,
    pub(crate) outcome: Outcome,
}

impl AggregateKind {
    /// All aggregates.
    pub(crate) const ALL: [Self; 5] = [Self::Sum, Self::Count, Self::Min, Self::Max, Self::Average];

    /// The table of aggregates. A new aggregate is a new line here; it may need a new state or
    /// outcome.
    pub(crate) fn rule(self) -> Rule {
        let rule = |name, numbers_only, state, outcome| Rule { name, numbers_only, state, outcome };
        match self {
            Self::Count => rule("count", false, State::Nothing, Outcome::Count),
            Self::Sum => rule("sum", true, State::Sum, Outcome::State),
            Self::Min => rule("min", false, State::Least, Outcome::State),
            Self::Max => rule("max", false, State::Greatest, Outcome::State),
            Self::Average => rule("avg", true, State::Sum, Outcome::Mean),
        }
    }

    /// The aggregate of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.rule().name == name)
    }

    /// The names of all aggregates, for error messages.
    fn names() -> String {
        let names: Vec<_> = Self::ALL.iter().map(|kind| kind.rule().name).collect();
        let (last, others) = names.split_last().expect("there are some");
        format!("{} or {last}", others.join(", "))
    }
}

/// An aggregate of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Aggregate {
    pub(crate) kind: AggregateKind,
    /// The argument; `None` for `count(*)`.
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
        || format!("'{text}' is no aggregate; expected {} of one value", AggregateKind::names());
    let Expr::Function(function) = parse_sql(text)? else { return Err(expected()) };
    let name = function.name.to_string().to_ascii_lowercase();
    let kind = AggregateKind::named(&name).ok_or_else(expected)?;
    let rule = kind.rule();
    let int = ColumnType { ty: Type::Int, nullable: false };
    if let FunctionArguments::List(list) = &function.args
        && rule.outcome == Outcome::Count
        && matches!(list.args[..], [FunctionArg::Unnamed(FunctionArgExpr::Wildcard)])
    {
        return Ok(Aggregate { kind, arg: None, input: int, output: int });
    }
    let args = plain_arguments(&function)?;
    let [arg] = args[..] else { return Err(expected()) };
    let node = compiler.value_of(arg)?;
    let input = compiler.program.ty(node);
    if rule.numbers_only && input.ty.scale().is_none() {
        return Err(format!("'{text}': {} can't be added up; expected a number", input.ty));
    }
    let ty = match rule.outcome {
        Outcome::Count => Type::Int,
        Outcome::State => input.ty,
        Outcome::Mean => average_type(input.ty),
    };
    let nullable = rule.outcome != Outcome::Count && input.nullable;
    Ok(Aggregate { kind, arg: Some(node), input, output: ColumnType { ty, nullable } })
}
