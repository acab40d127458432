//! From the bytes of a batch to typed columns: one pass, only the needed columns, nothing allocated
//! per row. A row that can't be read is left out, counted and remembered; it never stops the batch.

use cortado_protocol::limits::RECORD_BYTES;
use memchr::memchr;

use crate::batch::{Batch, Column, Values};
use crate::calendar;
use crate::csv::{Field, Scan, Separators, scan_record};
use crate::number::{self, NumberError};
use crate::plan::{ColumnSchema, Layout, TableSchema};
use crate::types::Type;

/// Above this many columns the exact number is not told, which bounds the number of reasons.
const MOST_FIELDS_TOLD: usize = 100;

/// Why a row is not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// Another number of columns than the header has.
    Fields { expected: usize, found: usize },
    /// A quote that is never closed.
    Unclosed,
    /// More than [`RECORD_BYTES`].
    TooLong,
    /// A needed value.
    Value { column: usize, problem: ValueProblem },
    /// An arithmetic error in a stage.
    Arithmetic { stage: usize },
}

/// Why a value can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ValueProblem {
    Empty,
    NotUtf8,
    Malformed,
    TooPrecise,
    OutOfRange,
}

impl From<NumberError> for ValueProblem {
    fn from(error: NumberError) -> Self {
        match error {
            NumberError::Malformed => Self::Malformed,
            NumberError::TooPrecise => Self::TooPrecise,
            NumberError::OutOfRange => Self::OutOfRange,
        }
    }
}

impl Problem {
    /// The reason as receipts and `cortado rejects` tell it.
    pub(crate) fn reason(self, table: &TableSchema, outputs: impl Fn(usize) -> String) -> String {
        match self {
            Self::Fields { expected, found } if found > MOST_FIELDS_TOLD => {
                format!("expected {expected} columns, found more than {MOST_FIELDS_TOLD}")
            }
            Self::Fields { expected, found } => {
                format!("expected {expected} columns, found {found}")
            }
            Self::Unclosed => "a quote is never closed".to_owned(),
            Self::TooLong => format!("longer than {RECORD_BYTES} bytes"),
            Self::Value { column, problem } => {
                let ColumnSchema { name, ty } = &table.columns[column];
                let article = if ty.ty == Type::Int { "an" } else { "a" };
                match (problem, ty.ty) {
                    (ValueProblem::Empty, _) => format!("{name}: empty"),
                    (ValueProblem::NotUtf8, _) => format!("{name}: not valid UTF-8"),
                    (ValueProblem::OutOfRange, _) => format!("{name}: out of range"),
                    (ValueProblem::TooPrecise, Type::Decimal(scale)) => {
                        format!("{name}: more than {scale} fractional digits")
                    }
                    (_, Type::Decimal(_)) => format!("{name}: not a decimal"),
                    (_, ty) => format!("{name}: not {article} {ty}"),
                }
            }
            Self::Arithmetic { stage } => format!("{}: arithmetic error", outputs(stage)),
        }
    }
}

/// A decoded batch.
pub(crate) struct Decoded<'a> {
    pub(crate) batch: Batch<'a>,
    /// Where each decoded row starts in the payload.
    pub(crate) starts: Vec<u32>,
    /// Start of each row that was left out, and why, in order.
    pub(crate) problems: Vec<(u32, Problem)>,
}

/// Decodes a batch. The side buffer starts with `literals`.
pub(crate) fn decode<'a>(
    table: &TableSchema,
    literals: &[u8],
    layout: &Layout,
    payload: &'a [u8],
) -> Decoded<'a> {
    let expected_rows = payload.len() / 48;
    let columns = table.columns.iter().map(|c| Column::new(c.ty, expected_rows)).collect();
    let batch = Batch { payload, side: literals.to_vec(), rows: 0, columns };
    let mut decoder = Decoder {
        table,
        layout,
        valid_utf8: simdutf8::basic::from_utf8(payload).is_ok(),
        decoded: Decoded { batch, starts: Vec::with_capacity(expected_rows), problems: Vec::new() },
        fields: Vec::with_capacity(layout.fields),
    };
    if memchr(b'"', payload).is_none() {
        decoder.without_quotes();
    } else {
        decoder.with_quotes();
    }
    let mut decoded = decoder.decoded;
    let rows = decoded.batch.rows;
    decoded.batch.columns.iter_mut().for_each(|column| column.close(rows));
    decoded
}

struct Decoder<'p, 'a> {
    table: &'p TableSchema,
    layout: &'p Layout,
    valid_utf8: bool,
    decoded: Decoded<'a>,
    /// The fields of the current record, as spans of the batch's texts.
    fields: Vec<(u32, u32)>,
}

impl Decoder<'_, '_> {
    /// Every comma and line break separates.
    fn without_quotes(&mut self) {
        let payload = self.decoded.batch.payload;
        let (mut record, mut field) = (0, 0);
        for at in Separators::new(payload) {
            if payload[at] == b',' {
                self.fields.push((field as u32, at as u32));
            } else {
                self.last_field(record, field, at);
                record = at + 1;
            }
            field = at + 1;
        }
        if record < payload.len() {
            self.last_field(record, field, payload.len());
        }
    }

    fn last_field(&mut self, record: usize, field: usize, end: usize) {
        let payload = self.decoded.batch.payload;
        let content = if end > field && payload[end - 1] == b'\r' { end - 1 } else { end };
        if self.fields.is_empty() && content == record {
            return;
        }
        self.fields.push((field as u32, content as u32));
        self.record(record, end);
    }

    fn with_quotes(&mut self) {
        let payload = self.decoded.batch.payload;
        let mut record = 0;
        while record < payload.len() {
            let mut blank = true;
            let side = &mut self.decoded.batch.side;
            let fields = &mut self.fields;
            let scan = scan_record(payload, record, |field| {
                blank &= fields.is_empty() && field.start == record && field.tail_end == record;
                fields.push(place(&field, payload, side));
            });
            let next = match scan {
                Scan::Record(next) => next,
                Scan::TextEnd | Scan::Open => payload.len(),
            };
            if scan == Scan::Open {
                self.fields.clear();
                self.reject(record, Problem::Unclosed);
            } else if blank {
                self.fields.clear();
            } else {
                let end = if matches!(scan, Scan::Record(_)) { next - 1 } else { next };
                self.record(record, end);
            }
            record = next;
        }
    }

    fn reject(&mut self, start: usize, problem: Problem) {
        self.decoded.problems.push((start as u32, problem));
    }

    /// Takes the record whose fields have been collected.
    fn record(&mut self, start: usize, end: usize) {
        let found = self.fields.len();
        if end - start >= RECORD_BYTES {
            self.reject(start, Problem::TooLong);
        } else if found != self.layout.fields {
            let found = found.min(MOST_FIELDS_TOLD + 1);
            self.reject(start, Problem::Fields { expected: self.layout.fields, found });
        } else if let Err(problem) = self.values() {
            let batch = &mut self.decoded.batch;
            batch.columns.iter_mut().for_each(|column| column.truncate(batch.rows));
            self.reject(start, problem);
        } else {
            self.decoded.batch.rows += 1;
            self.decoded.starts.push(start as u32);
        }
        self.fields.clear();
    }

    fn values(&mut self) -> Result<(), Problem> {
        let Batch { payload, side, rows, columns } = &mut self.decoded.batch;
        for &(field, index) in &self.layout.wanted {
            let span = self.fields[field];
            let text = crate::batch::Texts { payload, side }.get(span);
            let ColumnSchema { ty, .. } = &self.table.columns[index];
            let column = &mut columns[index];
            let problem = |problem| Problem::Value { column: index, problem };
            if text.is_empty() {
                if !ty.nullable {
                    return Err(problem(ValueProblem::Empty));
                }
                column.push_null(*rows);
                continue;
            }
            match &mut column.values {
                Values::Texts(spans) => {
                    if !self.valid_utf8 && simdutf8::basic::from_utf8(text).is_err() {
                        return Err(problem(ValueProblem::NotUtf8));
                    }
                    spans.push(span);
                }
                Values::Numbers(values) => values.push(read(ty.ty, text).map_err(problem)?),
            }
        }
        Ok(())
    }
}

fn read(ty: Type, text: &[u8]) -> Result<i64, ValueProblem> {
    match ty {
        Type::Timestamp => calendar::parse_timestamp(text).ok_or(ValueProblem::Malformed),
        Type::Date => calendar::parse_date(text).ok_or(ValueProblem::Malformed),
        other => Ok(number::parse_decimal(text, other.scale().unwrap_or(0))?),
    }
}

/// Where the content of a field is; what must be unescaped goes to the side buffer.
fn place(field: &Field, payload: &[u8], side: &mut Vec<u8>) -> (u32, u32) {
    if let Some((start, end)) = field.plain() {
        return (start as u32, end as u32);
    }
    let start = payload.len() + side.len();
    field.unescape(payload, side);
    (start as u32, (payload.len() + side.len()) as u32)
}
