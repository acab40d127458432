//! Function calls: the names of all functions, and the arguments of a call.

use sqlparser::ast::{Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments};

/// The functions, for error messages.
pub(super) const FUNCTIONS: &str = "year, month, half, year_month, year_half, date, time, coalesce";

/// The arguments of a plain call, without filters and the like.
pub(crate) fn plain_arguments(function: &Function) -> Result<Vec<&Expr>, String> {
    let bad = || format!("'{function}' is not a plain function call");
    let extras = function.filter.is_some()
        || function.over.is_some()
        || function.null_treatment.is_some()
        || !function.within_group.is_empty()
        || !matches!(function.parameters, FunctionArguments::None);
    let FunctionArguments::List(list) = &function.args else { return Err(bad()) };
    if extras || list.duplicate_treatment.is_some() || !list.clauses.is_empty() {
        return Err(bad());
    }
    let plain = |arg| match arg {
        &FunctionArg::Unnamed(FunctionArgExpr::Expr(ref expr)) => Ok(expr),
        _ => Err(bad()),
    };
    list.args.iter().map(plain).collect()
}
