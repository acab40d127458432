//! Reads one column of a batch: from texts to values.

use super::value::ValueProblem;
use crate::batch::{Column, NULL, Span, Texts, VALUE, Values};
use crate::calendar::{Days, parse_date};
use crate::number::{parse_decimal, parse_eight};
use crate::types::{ColumnType, Type};

/// Reads a column. Rows whose value can't be read get any value, and are reported to `on_problem`.
pub(super) fn read(
    ty: ColumnType,
    spans: Vec<Span>,
    texts: Texts<'_>,
    valid_utf8: bool,
    on_problem: impl FnMut(usize, ValueProblem),
) -> Column {
    let nullable = ty.nullable;
    match ty.ty {
        Type::Text => read_texts(nullable, spans, texts, valid_utf8, on_problem),
        Type::Timestamp => {
            let mut days = Days::default();
            let read = |span| days.timestamp(texts.get(span)).ok_or(ValueProblem::Malformed);
            read_numbers(nullable, &spans, read, on_problem)
        }
        Type::Date => {
            let read = |span| parse_date(texts.get(span)).ok_or(ValueProblem::Malformed);
            read_numbers(nullable, &spans, read, on_problem)
        }
        other => {
            let scale = other.scale().unwrap_or(0);
            let read = |span| {
                let short = texts.last_eight(span, scale == 0);
                match short.and_then(|(eight, len)| parse_eight(eight, len, scale)) {
                    Some(value) => Ok(value),
                    None => Ok(parse_decimal(texts.get(span), scale)?),
                }
            };
            read_numbers(nullable, &spans, read, on_problem)
        }
    }
}

fn read_numbers(
    nullable: bool,
    spans: &[Span],
    mut read: impl FnMut(Span) -> Result<i64, ValueProblem>,
    mut on_problem: impl FnMut(usize, ValueProblem),
) -> Column {
    let mut nulls = Nulls::new(nullable);
    let mut values = Vec::with_capacity(spans.len());
    for (row, span) in spans.iter().enumerate() {
        let value = if span.0 == span.1 { nulls.add(row).map(|()| 0) } else { read(*span) };
        values.push(value.unwrap_or_else(|problem| {
            on_problem(row, problem);
            0
        }));
    }
    Column { values: Values::Numbers(values), states: nulls.close(spans.len()) }
}

fn read_texts(
    nullable: bool,
    spans: Vec<Span>,
    texts: Texts<'_>,
    valid_utf8: bool,
    mut on_problem: impl FnMut(usize, ValueProblem),
) -> Column {
    let mut nulls = Nulls::new(nullable);
    for (row, span) in spans.iter().enumerate() {
        let checked = if span.0 == span.1 {
            nulls.add(row)
        } else if !valid_utf8 && simdutf8::basic::from_utf8(texts.get(*span)).is_err() {
            Err(ValueProblem::NotUtf8)
        } else {
            Ok(())
        };
        if let Err(problem) = checked {
            on_problem(row, problem);
        }
    }
    let states = nulls.close(spans.len());
    Column { values: Values::Texts(spans), states }
}

/// The rows of a column without a value.
struct Nulls {
    allowed: bool,
    states: Vec<u8>,
}

impl Nulls {
    fn new(allowed: bool) -> Self {
        Self { allowed, states: Vec::new() }
    }

    fn add(&mut self, row: usize) -> Result<(), ValueProblem> {
        if !self.allowed {
            return Err(ValueProblem::Empty);
        }
        self.states.resize(row, VALUE);
        self.states.push(NULL);
        Ok(())
    }

    fn close(mut self, rows: usize) -> Vec<u8> {
        if !self.states.is_empty() {
            self.states.resize(rows, VALUE);
        }
        self.states
    }
}
