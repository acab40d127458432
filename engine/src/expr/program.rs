//! Typed nodes, and a table's list of them.

use crate::types::{ColumnType, Type};

/// A node's index in [`Program::nodes`].
pub(crate) type NodeId = usize;

/// Comparison operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Less,
    LessEqual,
    Equal,
    NotEqual,
    GreaterEqual,
    Greater,
}

/// Arithmetic operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
}

/// Functions of a date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DatePart {
    Year,
    Month,
    Half,
    YearMonth,
    YearHalf,
}

/// What a node computes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// A column of the table.
    Column(usize),
    /// A number, or another value that is stored as one.
    Number(i64),
    /// Start and end in [`Program::literals`].
    Text(u32, u32),
    Compare(Comparison, NodeId, NodeId),
    And(NodeId, NodeId),
    Or(NodeId, NodeId),
    Not(NodeId),
    IsNull(NodeId),
    /// Operands of equal scale, except for multiplication and division.
    Arithmetic(Arithmetic, NodeId, NodeId),
    /// Multiplies a mantissa by a power of ten.
    Rescale(NodeId, i64),
    DatePart(DatePart, NodeId),
    DateOf(NodeId),
    TimeOf(NodeId),
    Coalesce(NodeId, NodeId),
}

/// A typed node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) op: Op,
    pub(crate) ty: ColumnType,
    /// Whether this node or one below it may give an arithmetic error.
    pub(crate) fallible: bool,
}

/// All expressions over one table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Program {
    pub(crate) nodes: Vec<Node>,
    /// Bytes of the text literals.
    pub(crate) literals: Vec<u8>,
    /// Literals that need a column of their own, because a condition or value consists of nothing
    /// else.
    pub(crate) constants: Vec<NodeId>,
}

impl Program {
    /// The index of the node; an equal node is reused.
    pub(super) fn add(&mut self, op: Op, ty: ColumnType, fallible: bool) -> NodeId {
        let node = Node { op, ty, fallible };
        if let Some(at) = self.nodes.iter().position(|n| *n == node) {
            return at;
        }
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// Marks a node whose column will be read.
    pub(crate) fn root(&mut self, node: NodeId) -> NodeId {
        if matches!(self.nodes[node].op, Op::Number(_) | Op::Text(..)) {
            self.constants.push(node);
        }
        node
    }

    /// The node of a table's column.
    pub(crate) fn column(&mut self, index: usize, ty: ColumnType) -> NodeId {
        self.add(Op::Column(index), ty, false)
    }

    pub(crate) fn ty(&self, node: NodeId) -> ColumnType {
        self.nodes[node].ty
    }
}

/// Fractional digits of a quotient of numbers with these scales: at least 6.
pub(crate) fn quotient_scale(left: u8, right: u8) -> u8 {
    left.max(right).max(6)
}

/// The type of an average: six fractional digits more than its values, 18 at most.
pub(crate) fn average_type(ty: Type) -> Type {
    Type::Decimal((ty.scale().unwrap_or(0) + 6).min(crate::types::MAX_SCALE))
}
