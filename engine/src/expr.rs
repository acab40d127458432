//! Expressions: compiled once per plan into typed nodes, evaluated a batch at a time.
//!
//! The expressions of all queries over a table share one list of nodes, without duplicates of equal
//! subexpressions; a node comes after its operands. SQL's three-valued logic holds. An arithmetic
//! error (a result beyond 64 bits, a division by zero) is a fourth state of a row's value: it
//! passes through every operation, except an `and` with a false operand or an `or` with a true one.

mod aggregate;
mod call;
mod compile;
mod eval;
mod functions;
mod kernels;
mod program;

#[cfg(test)]
pub(crate) use aggregate::AggregateKind;
pub(crate) use aggregate::{Aggregate, Outcome, State, parse_aggregate};
pub(crate) use compile::{Compiler, parse_sql};
pub(crate) use eval::Evaluation;
pub(crate) use program::{NodeId, Program};
