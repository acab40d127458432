//! Evaluates a table's program over a batch: each node once, in order.

use super::kernels::{self, Operand};
use super::program::{Node, NodeId, Op, Program};
use crate::batch::{Batch, Column, Span, Texts, Values};

/// The columns of all nodes for one batch.
pub(crate) struct Evaluation<'a> {
    batch: &'a Batch<'a>,
    program: &'a Program,
    results: Vec<Option<Column>>,
}

impl<'a> Evaluation<'a> {
    pub(crate) fn new(program: &'a Program, batch: &'a Batch<'a>) -> Self {
        let mut evaluation =
            Self { batch, program, results: Vec::with_capacity(program.nodes.len()) };
        for (id, node) in program.nodes.iter().enumerate() {
            let column = evaluation.evaluate(id, node);
            evaluation.results.push(column);
        }
        evaluation
    }

    /// The column of a node that is a table column, an operation or a marked constant.
    pub(crate) fn column(&self, node: NodeId) -> &Column {
        match self.program.nodes[node].op {
            Op::Column(index) => &self.batch.columns[index],
            _ => self.results[node].as_ref().expect("the program marks the nodes asked for"),
        }
    }

    pub(crate) fn texts(&self) -> Texts<'_> {
        self.batch.texts()
    }

    fn operand(&self, node: NodeId) -> Operand<'_> {
        match self.program.nodes[node].op {
            Op::Number(value) => Operand::Number(value),
            Op::Text(start, end) => Operand::Text(self.literal(start, end)),
            _ => Operand::Column(self.column(node)),
        }
    }

    /// Literals are the first bytes of the side buffer.
    fn literal(&self, start: u32, end: u32) -> Span {
        let base = self.batch.payload.len() as u32;
        (base + start, base + end)
    }

    fn evaluate(&self, id: NodeId, node: &Node) -> Option<Column> {
        let rows = self.batch.rows;
        Some(match node.op {
            Op::Column(_) => return None,
            Op::Number(_) | Op::Text(..) if !self.program.constants.contains(&id) => return None,
            Op::Number(value) => {
                Column { values: Values::Numbers(vec![value; rows]), states: Vec::new() }
            }
            Op::Text(start, end) => Column {
                values: Values::Texts(vec![self.literal(start, end); rows]),
                states: Vec::new(),
            },
            Op::Compare(op, l, r) => {
                kernels::compare(op, self.operand(l), self.operand(r), rows, self.texts())
            }
            Op::And(l, r) => kernels::logic(self.operand(l), self.operand(r), rows, 0),
            Op::Or(l, r) => kernels::logic(self.operand(l), self.operand(r), rows, 1),
            Op::Not(inner) => kernels::map(self.operand(inner), rows, |v| 1 - v),
            Op::IsNull(inner) => kernels::is_null(self.operand(inner), rows),
            Op::Arithmetic(op, l, r) => {
                let scale = |ty: crate::types::Type| ty.scale().unwrap_or(0);
                // For a quotient: the additional digits that the numerator's mantissa needs.
                let shift = (scale(node.ty.ty) + scale(self.program.ty(r).ty))
                    .saturating_sub(scale(self.program.ty(l).ty));
                kernels::arithmetic(op, self.operand(l), self.operand(r), rows, shift)
            }
            Op::Rescale(inner, factor) => kernels::rescale(self.operand(inner), rows, factor),
            Op::DatePart(part, inner) => kernels::date_part(part, self.operand(inner), rows),
            Op::DateOf(inner) => kernels::map(self.operand(inner), rows, |micros| {
                micros.div_euclid(crate::calendar::MICROS_PER_DAY)
            }),
            Op::TimeOf(inner) => kernels::map(self.operand(inner), rows, |micros| {
                micros.rem_euclid(crate::calendar::MICROS_PER_DAY)
            }),
            Op::Coalesce(l, r) => kernels::coalesce(self.operand(l), self.operand(r), rows),
        })
    }
}
