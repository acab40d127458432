//! A batch as typed columns. Texts stay where they are in the payload; only what had to be
//! unescaped, and the plan's literals, live in a side buffer.

use crate::types::ColumnType;
use crate::wire::{put_bytes, put_int};

/// State of a value in a column.
pub(crate) const VALUE: u8 = 0;
/// There is no value.
pub(crate) const NULL: u8 = 1;
/// There was an arithmetic error.
pub(crate) const ERROR: u8 = 2;

/// Start and end of a text: in the payload, or beyond its end in the side buffer.
pub(crate) type Span = (u32, u32);

/// The values of a column.
#[derive(Clone, Debug)]
pub(crate) enum Values {
    Numbers(Vec<i64>),
    Texts(Vec<Span>),
}

/// A column of a batch.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) values: Values,
    /// A state per row, or nothing if every row has a value.
    pub(crate) states: Vec<u8>,
}

impl Column {
    pub(crate) fn new(ty: ColumnType, rows: usize) -> Self {
        let values = if ty.ty.is_text() {
            Values::Texts(Vec::with_capacity(rows))
        } else {
            Values::Numbers(Vec::with_capacity(rows))
        };
        Self { values, states: Vec::new() }
    }

    pub(crate) fn state(&self, row: usize) -> u8 {
        self.states.get(row).copied().unwrap_or(VALUE)
    }

    /// Adds a null at position `row`, the next one.
    pub(crate) fn push_null(&mut self, row: usize) {
        match &mut self.values {
            Values::Numbers(values) => values.push(0),
            Values::Texts(spans) => spans.push((0, 0)),
        }
        self.states.resize(row, VALUE);
        self.states.push(NULL);
    }

    pub(crate) fn truncate(&mut self, rows: usize) {
        match &mut self.values {
            Values::Numbers(values) => values.truncate(rows),
            Values::Texts(spans) => spans.truncate(rows),
        }
        self.states.truncate(rows);
    }

    /// Fills up the states, once all rows are there.
    pub(crate) fn close(&mut self, rows: usize) {
        if !self.states.is_empty() {
            self.states.resize(rows, VALUE);
        }
    }
}

/// Where texts are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Texts<'a> {
    pub(crate) payload: &'a [u8],
    pub(crate) side: &'a [u8],
}

impl<'a> Texts<'a> {
    pub(crate) fn get(&self, (start, end): Span) -> &'a [u8] {
        let (start, end) = (start as usize, end as usize);
        let len = self.payload.len();
        if start < len { &self.payload[start..end] } else { &self.side[start - len..end - len] }
    }

    /// Appends a row's value as deltas carry it.
    pub(crate) fn put(&self, out: &mut Vec<u8>, column: &Column, ty: ColumnType, row: usize) {
        if ty.nullable {
            let present = column.state(row) == VALUE;
            out.push(u8::from(present));
            if !present {
                return;
            }
        }
        match &column.values {
            Values::Numbers(values) => put_int(out, i128::from(values[row])),
            Values::Texts(spans) => put_bytes(out, self.get(spans[row])),
        }
    }
}

/// Decoded rows of a batch.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    pub(crate) payload: &'a [u8],
    pub(crate) side: Vec<u8>,
    pub(crate) rows: usize,
    pub(crate) columns: Vec<Column>,
}

impl Batch<'_> {
    pub(crate) fn texts(&self) -> Texts<'_> {
        Texts { payload: self.payload, side: &self.side }
    }
}
