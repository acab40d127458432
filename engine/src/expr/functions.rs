//! Compiles function calls: parts of dates, `coalesce`.

use sqlparser::ast::{Expr, Function};

use super::aggregate::AggregateKind;
use super::call::{FUNCTIONS, plain_arguments};
use super::compile::{Compiled, Compiler};
use super::program::{DatePart, Op};
use crate::types::{ColumnType, Type};

impl Compiler<'_> {
    /// Compiles a call.
    pub(super) fn function(&mut self, function: &Function) -> Compiled {
        let name = function.name.to_string().to_ascii_lowercase();
        let args = plain_arguments(function)?;
        if name == "coalesce" {
            return self.coalesce(&args);
        }
        let part = match name.as_str() {
            "year" => Some((DatePart::Year, Type::Int)),
            "month" => Some((DatePart::Month, Type::Int)),
            "half" => Some((DatePart::Half, Type::Int)),
            "year_month" => Some((DatePart::YearMonth, Type::YearMonth)),
            "year_half" => Some((DatePart::YearHalf, Type::YearHalf)),
            "date" | "time" => None,
            name if AggregateKind::named(name).is_some() => {
                return Err(format!("'{name}' belongs into 'aggregates'"));
            }
            _ => return Err(format!("unknown function '{name}'; expected one of: {FUNCTIONS}")),
        };
        let [arg] = args[..] else {
            return Err(format!("'{name}' takes 1 argument, found {}", args.len()));
        };
        let node = self.expression(arg)?;
        match (self.ty(node), part) {
            (Type::Date, Some((part, ty))) => {
                Ok(self.node(Op::DatePart(part, node), ty, &[node], false))
            }
            (Type::Timestamp, Some((part, ty))) => {
                let date = self.node(Op::DateOf(node), Type::Date, &[node], false);
                Ok(self.node(Op::DatePart(part, date), ty, &[date], false))
            }
            (Type::Timestamp, None) if name == "date" => {
                Ok(self.node(Op::DateOf(node), Type::Date, &[node], false))
            }
            (Type::Timestamp, None) => Ok(self.node(Op::TimeOf(node), Type::Time, &[node], false)),
            (ty, _) => Err(format!("'{name}' can't be applied to {ty}; expected a timestamp")),
        }
    }

    fn coalesce(&mut self, args: &[&Expr]) -> Compiled {
        let mut nodes = args.iter();
        let first = nodes.next().ok_or("'coalesce' takes at least 1 argument, found 0")?;
        let mut result = self.expression(first)?;
        for next in nodes {
            let next = self.expression(next)?;
            let (l, r) = self.unify(result, next, "coalesced")?;
            let nullable = self.program.ty(l).nullable && self.program.ty(r).nullable;
            let fallible = self.program.nodes[l].fallible || self.program.nodes[r].fallible;
            let ty = ColumnType { ty: self.ty(l), nullable };
            result = self.program.add(Op::Coalesce(l, r), ty, fallible);
        }
        Ok(result)
    }
}
