//! Compiles SQL text into typed nodes. The plan's parser calls it.

use sqlparser::ast::{BinaryOperator, Expr, UnaryOperator, Value};
use sqlparser::dialect::GenericDialect;
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, Tokenizer};

use super::call::FUNCTIONS;
use super::program::{Arithmetic, Comparison, NodeId, Op, Program, quotient_scale};
use crate::types::{ColumnType, MAX_SCALE, Type};
use crate::{calendar, number};

/// Longest expression, in bytes.
const EXPRESSION_BYTES: usize = 4_096;
/// Most operators of an expression. A chain of operators is as deep as it is long, and the
/// compiler, messages and destructors walk the tree by recursion.
const OPERATORS: usize = 256;

/// Parses one expression.
pub(crate) fn parse_sql(text: &str) -> Result<Expr, String> {
    if text.len() > EXPRESSION_BYTES {
        return Err(format!("expression is longer than {EXPRESSION_BYTES} bytes"));
    }
    let message = |error: ParserError| match error {
        ParserError::TokenizerError(m) | ParserError::ParserError(m) => format!("bad SQL: {m}"),
        ParserError::RecursionLimitExceeded => "expression is nested too deeply".to_owned(),
    };
    let dialect = GenericDialect {};
    let tokens = Tokenizer::new(&dialect, text).tokenize().map_err(|e| message(e.into()))?;
    let operators = tokens.iter().filter(|token| is_operator(token)).count();
    if operators > OPERATORS {
        return Err(format!(
            "expression has {operators} operators, at most {OPERATORS} can be read"
        ));
    }
    let mut parser = Parser::new(&dialect).with_tokens(tokens);
    let expr = parser.parse_expr().map_err(message)?;
    match &parser.peek_token_ref().token {
        Token::EOF => Ok(expr),
        other => Err(format!("bad SQL: expected the end of the expression, found '{other}'")),
    }
}

/// Whether a token can make the tree deeper: all tokens except operands and separators.
fn is_operator(token: &Token) -> bool {
    match token {
        Token::Word(word) => word.keyword != Keyword::NoKeyword,
        Token::Number(..) | Token::SingleQuotedString(_) | Token::DoubleQuotedString(_) => false,
        Token::Comma | Token::Whitespace(_) | Token::RParen | Token::EOF => false,
        _ => true,
    }
}

/// Compiles expressions over one table's columns.
pub(crate) struct Compiler<'a> {
    pub(crate) table: &'a str,
    pub(crate) columns: &'a [(String, ColumnType)],
    pub(crate) program: &'a mut Program,
}

pub(super) type Compiled = Result<NodeId, String>;

impl Compiler<'_> {
    /// Compiles a condition.
    pub(crate) fn condition(&mut self, text: &str) -> Compiled {
        let node = self.expression(&parse_sql(text)?)?;
        self.expect_bool(node, text)?;
        Ok(self.program.root(node))
    }

    /// Compiles a value: anything but a condition.
    pub(crate) fn value(&mut self, text: &str) -> Compiled {
        let expr = parse_sql(text)?;
        self.value_of(&expr)
    }

    pub(crate) fn value_of(&mut self, expr: &Expr) -> Compiled {
        let node = self.expression(expr)?;
        match self.ty(node) {
            Type::Bool => Err(format!("'{expr}' is a condition; expected a value")),
            _ => Ok(self.program.root(node)),
        }
    }

    pub(super) fn ty(&self, node: NodeId) -> Type {
        self.program.ty(node).ty
    }

    /// Adds a node whose nullability and fallibility follow from its operands.
    pub(super) fn node(&mut self, op: Op, ty: Type, operands: &[NodeId], fails: bool) -> NodeId {
        let nullable = operands.iter().any(|id| self.program.ty(*id).nullable);
        let fallible = fails || operands.iter().any(|id| self.program.nodes[*id].fallible);
        self.program.add(op, ColumnType { ty, nullable }, fallible)
    }

    fn expect_bool(&self, node: NodeId, text: impl std::fmt::Display) -> Result<(), String> {
        match self.ty(node) {
            Type::Bool => Ok(()),
            ty => Err(format!("'{text}' is {ty}; expected a condition")),
        }
    }

    pub(super) fn expression(&mut self, expr: &Expr) -> Compiled {
        match expr {
            Expr::Identifier(name) => self.column(&name.value),
            Expr::Nested(inner) => self.expression(inner),
            Expr::Value(value) => self.literal(&value.value),
            Expr::UnaryOp { op, expr: inner } => self.unary(*op, inner),
            Expr::BinaryOp { left, op, right } => self.binary(left, op, right),
            Expr::IsNull(inner) => self.is_null(inner),
            Expr::IsNotNull(inner) => {
                let node = self.is_null(inner)?;
                Ok(self.node(Op::Not(node), Type::Bool, &[node], false))
            }
            Expr::Between { expr: inner, negated, low, high } => {
                let value = self.expression(inner)?;
                let low = self.expression(low)?;
                let high = self.expression(high)?;
                let above = self.compare(Comparison::GreaterEqual, value, low)?;
                let below = self.compare(Comparison::LessEqual, value, high)?;
                let both = self.node(Op::And(above, below), Type::Bool, &[above, below], false);
                Ok(self.negate_if(*negated, both))
            }
            Expr::InList { expr: inner, list, negated } => {
                let value = self.expression(inner)?;
                let mut any = None;
                for item in list {
                    let item = self.expression(item)?;
                    let equal = self.compare(Comparison::Equal, value, item)?;
                    any = Some(match any {
                        None => equal,
                        Some(any) => {
                            self.node(Op::Or(any, equal), Type::Bool, &[any, equal], false)
                        }
                    });
                }
                let any = any.ok_or_else(|| format!("'{expr}' has an empty list"))?;
                Ok(self.negate_if(*negated, any))
            }
            Expr::Function(function) => self.function(function),
            other => Err(format!(
                "'{other}' is not supported; expected columns, literals, comparisons, and, or, not, \
                 in, between, is null, + - * / and the functions {FUNCTIONS}"
            )),
        }
    }

    fn negate_if(&mut self, negated: bool, node: NodeId) -> NodeId {
        if negated { self.node(Op::Not(node), Type::Bool, &[node], false) } else { node }
    }

    fn column(&mut self, name: &str) -> Compiled {
        match self.columns.iter().position(|(column, _)| column == name) {
            Some(index) => Ok(self.program.column(index, self.columns[index].1)),
            None => {
                let names: Vec<_> = self.columns.iter().map(|(name, _)| name.as_str()).collect();
                Err(format!(
                    "unknown column '{name}'; the columns of '{}' are: {}",
                    self.table,
                    names.join(", ")
                ))
            }
        }
    }

    fn literal(&mut self, value: &Value) -> Compiled {
        match value {
            Value::Number(text, _) => {
                let fraction = text.split_once('.').map_or("", |(_, digits)| digits);
                let scale = u8::try_from(fraction.len()).unwrap_or(u8::MAX);
                if scale > MAX_SCALE {
                    return Err(format!("{text} has more than {MAX_SCALE} fractional digits"));
                }
                let number = number::parse_decimal(text.as_bytes(), scale)
                    .map_err(|_| format!("{text} is not a number of at most 64 bits"))?;
                let ty = if scale == 0 { Type::Int } else { Type::Decimal(scale) };
                Ok(self.node(Op::Number(number), ty, &[], false))
            }
            Value::SingleQuotedString(text) => {
                let start = self.program.literals.len() as u32;
                let found = memchr::memmem::find(&self.program.literals, text.as_bytes());
                let start = found.map_or(start, |at| at as u32);
                if found.is_none() {
                    self.program.literals.extend_from_slice(text.as_bytes());
                }
                let end = start + text.len() as u32;
                Ok(self.node(Op::Text(start, end), Type::Text, &[], false))
            }
            Value::Boolean(value) => {
                Ok(self.node(Op::Number(i64::from(*value)), Type::Bool, &[], false))
            }
            Value::Null => Err("a bare null has no type; expected 'is null' or a value".to_owned()),
            other => Err(format!("{other} is no literal; expected a number or a 'text'")),
        }
    }

    fn unary(&mut self, op: UnaryOperator, inner: &Expr) -> Compiled {
        let node = self.expression(inner)?;
        match op {
            UnaryOperator::Not => {
                self.expect_bool(node, inner)?;
                Ok(self.node(Op::Not(node), Type::Bool, &[node], false))
            }
            UnaryOperator::Plus if self.ty(node).scale().is_some() => Ok(node),
            UnaryOperator::Minus if self.ty(node).scale().is_some() => {
                let ty = self.ty(node);
                if let Op::Number(value) = self.program.nodes[node].op
                    && let Some(negative) = value.checked_neg()
                {
                    return Ok(self.node(Op::Number(negative), ty, &[], false));
                }
                let zero = self.node(Op::Number(0), ty, &[], false);
                let op = Op::Arithmetic(Arithmetic::Subtract, zero, node);
                Ok(self.node(op, ty, &[node], true))
            }
            _ => Err(format!("'{op}' can't be applied to {}", self.ty(node))),
        }
    }

    fn binary(&mut self, left: &Expr, op: &BinaryOperator, right: &Expr) -> Compiled {
        let l = self.expression(left)?;
        let r = self.expression(right)?;
        let comparison = match op {
            BinaryOperator::And | BinaryOperator::Or => {
                self.expect_bool(l, left)?;
                self.expect_bool(r, right)?;
                let and = *op == BinaryOperator::And;
                let op = if and { Op::And(l, r) } else { Op::Or(l, r) };
                return Ok(self.node(op, Type::Bool, &[l, r], false));
            }
            BinaryOperator::Plus => return self.arithmetic(Arithmetic::Add, l, r),
            BinaryOperator::Minus => return self.arithmetic(Arithmetic::Subtract, l, r),
            BinaryOperator::Multiply => return self.arithmetic(Arithmetic::Multiply, l, r),
            BinaryOperator::Divide => return self.arithmetic(Arithmetic::Divide, l, r),
            BinaryOperator::Lt => Comparison::Less,
            BinaryOperator::LtEq => Comparison::LessEqual,
            BinaryOperator::Eq => Comparison::Equal,
            BinaryOperator::NotEq => Comparison::NotEqual,
            BinaryOperator::GtEq => Comparison::GreaterEqual,
            BinaryOperator::Gt => Comparison::Greater,
            other => {
                return Err(format!(
                    "operator '{other}' is not supported; expected and, or, = <> < <= > >= + - * /"
                ));
            }
        };
        self.compare(comparison, l, r)
    }

    fn compare(&mut self, op: Comparison, left: NodeId, right: NodeId) -> Compiled {
        let (left, right) = self.unify(left, right, "compared")?;
        Ok(self.node(Op::Compare(op, left, right), Type::Bool, &[left, right], false))
    }

    /// Gives two values one type: the same scale to numbers, and to a text literal the type of the
    /// other side.
    pub(super) fn unify(
        &mut self,
        l: NodeId,
        r: NodeId,
        verb: &str,
    ) -> Result<(NodeId, NodeId), String> {
        let (lt, rt) = (self.ty(l), self.ty(r));
        if lt == rt {
            return Ok((l, r));
        }
        if let (Some(ls), Some(rs)) = (lt.scale(), rt.scale()) {
            let scale = ls.max(rs);
            return Ok((self.rescale(l, scale)?, self.rescale(r, scale)?));
        }
        if let Some(r) = self.literal_as(r, lt)? {
            return Ok((l, r));
        }
        if let Some(l) = self.literal_as(l, rt)? {
            return Ok((l, r));
        }
        Err(format!("{lt} can't be {verb} with {rt}"))
    }

    /// A text literal as a value of the wanted type; `None` if the node is not a text literal.
    fn literal_as(&mut self, node: NodeId, wanted: Type) -> Result<Option<NodeId>, String> {
        let Op::Text(start, end) = self.program.nodes[node].op else { return Ok(None) };
        let text = self.program.literals[start as usize..end as usize].to_vec();
        let (value, example) = match wanted {
            Type::Date => (calendar::parse_date(&text), "2024-01-31"),
            Type::Timestamp => (
                calendar::parse_timestamp(&text).or_else(|| {
                    calendar::parse_date(&text).map(|days| days * calendar::MICROS_PER_DAY)
                }),
                "2024-01-31 10:06:50",
            ),
            Type::Time => (calendar::parse_time(&text), "06:00:00"),
            Type::YearMonth => (calendar::parse_year_month(&text), "2024-01"),
            Type::YearHalf => (calendar::parse_year_half(&text), "2024-H1"),
            _ => return Ok(None),
        };
        let value = value.ok_or_else(|| {
            let text = String::from_utf8_lossy(&text);
            format!("'{text}' is not a {wanted}; expected for example '{example}'")
        })?;
        Ok(Some(self.node(Op::Number(value), wanted, &[], false)))
    }

    fn rescale(&mut self, node: NodeId, scale: u8) -> Compiled {
        let ty = self.program.ty(node);
        let by = scale - ty.ty.scale().unwrap_or(scale);
        if by == 0 {
            return Ok(node);
        }
        let factor = number::power_of_ten(by)
            .and_then(|factor| i64::try_from(factor).ok())
            .ok_or("scale is out of range")?;
        if let Op::Number(value) = self.program.nodes[node].op {
            let value = value.checked_mul(factor).ok_or("literal is out of range")?;
            return Ok(self.node(Op::Number(value), Type::Decimal(scale), &[], false));
        }
        Ok(self.node(Op::Rescale(node, factor), Type::Decimal(scale), &[node], true))
    }

    fn arithmetic(&mut self, op: Arithmetic, l: NodeId, r: NodeId) -> Compiled {
        let (Some(ls), Some(rs)) = (self.ty(l).scale(), self.ty(r).scale()) else {
            return Err(format!(
                "{} and {} can't be calculated with; expected numbers",
                self.ty(l),
                self.ty(r)
            ));
        };
        let typed = |scale: u8| if scale == 0 { Type::Int } else { Type::Decimal(scale) };
        let (l, r, ty) = match op {
            Arithmetic::Add | Arithmetic::Subtract => {
                let scale = ls.max(rs);
                (self.rescale(l, scale)?, self.rescale(r, scale)?, typed(scale))
            }
            Arithmetic::Multiply if ls + rs > MAX_SCALE => {
                return Err(format!("product has more than {MAX_SCALE} fractional digits"));
            }
            Arithmetic::Multiply => (l, r, typed(ls + rs)),
            Arithmetic::Divide => (l, r, Type::Decimal(quotient_scale(ls, rs))),
        };
        Ok(self.node(Op::Arithmetic(op, l, r), ty, &[l, r], true))
    }

    fn is_null(&mut self, inner: &Expr) -> Compiled {
        let node = self.expression(inner)?;
        let fallible = self.program.nodes[node].fallible;
        Ok(self.node(Op::IsNull(node), Type::Bool, &[], fallible))
    }
}
