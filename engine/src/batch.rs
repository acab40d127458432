//! A batch as typed columns: decoding fills it, expressions and groups read it. Texts stay in the
//! payload; only unescaped texts and the plan's literals are in a side buffer.

use crate::types::ColumnType;
use crate::wire::{put_bytes, put_int64};

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
    /// A column without rows.
    pub(crate) fn new(ty: ColumnType) -> Self {
        let values =
            if ty.ty.is_text() { Values::Texts(Vec::new()) } else { Values::Numbers(Vec::new()) };
        Self { values, states: Vec::new() }
    }

    pub(crate) fn state(&self, row: usize) -> u8 {
        self.states.get(row).copied().unwrap_or(VALUE)
    }

    /// Keeps the rows whose entry in `kept` is true.
    pub(crate) fn retain(&mut self, kept: &[bool]) {
        match &mut self.values {
            Values::Numbers(values) => retain(values, kept),
            Values::Texts(spans) => retain(spans, kept),
        }
        retain(&mut self.states, kept);
    }
}

/// Keeps the values whose entry in `kept` is true.
pub(crate) fn retain<T>(values: &mut Vec<T>, kept: &[bool]) {
    let mut kept = kept.iter();
    values.retain(|_| kept.next().copied().unwrap_or(false));
}

/// The buffers that spans refer to.
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

    /// The last eight bytes of the payload up to the end of a text of one to eight bytes, and the
    /// text's length. With `whole`, a final `.0` is left out, which many programs append to whole
    /// numbers.
    #[inline]
    pub(crate) fn last_eight(&self, (start, end): Span, whole: bool) -> Option<([u8; 8], usize)> {
        let text = match self.payload.get(..end as usize)? {
            [text @ .., b'.', b'0'] if whole => text,
            text => text,
        };
        let len = text.len().checked_sub(start as usize)?;
        (1..=8).contains(&len).then_some((*text.last_chunk()?, len))
    }

    /// Appends a row's value in the encoding of deltas.
    pub(crate) fn put(&self, out: &mut Vec<u8>, column: &Column, ty: ColumnType, row: usize) {
        if ty.nullable {
            let present = column.state(row) == VALUE;
            out.push(u8::from(present));
            if !present {
                return;
            }
        }
        match &column.values {
            Values::Numbers(values) => put_int64(out, values[row]),
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
