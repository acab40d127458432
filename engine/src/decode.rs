//! Decodes the bytes of a batch into typed columns: first it finds the rows by their separators
//! alone, then it reads the needed columns one after the other. It allocates nothing per row. A row
//! that can't be read is left out, counted and remembered; it never stops the batch. Mapping calls
//! it.

mod columns;
mod value;

use cortado_protocol::limits::RECORD_BYTES;
use memchr::memchr;

use crate::batch::{Batch, Column, Span, Texts, retain};
use crate::csv::{BREAK, Field, Scan, scan_record, separators};
use crate::plan::{ColumnSchema, Layout, TableSchema};
use crate::types::Type;
use value::ValueProblem;

/// Above this many columns the reason does not name the exact number, which limits the number of
/// different reasons.
const MOST_FIELDS_TOLD: usize = 100;

/// Why a row is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// The row has another number of columns than the header.
    Fields { expected: usize, found: usize },
    /// A quote that is never closed.
    Unclosed,
    /// The row is longer than [`RECORD_BYTES`].
    TooLong,
    /// A needed value can't be read.
    Value { column: usize, problem: ValueProblem },
    /// An arithmetic error in a stage.
    Arithmetic { stage: usize },
}

impl Problem {
    /// The reason as it appears in receipts and in `cortado rejects`.
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
    /// Start of each decoded row in the payload.
    pub(crate) starts: Vec<u32>,
    /// Start of each rejected row and the reason, in order.
    pub(crate) problems: Vec<(u32, Problem)>,
}

/// Decodes a batch. The side buffer starts with `literals`.
pub(crate) fn decode<'a>(
    table: &TableSchema,
    literals: &[u8],
    layout: &Layout,
    payload: &'a [u8],
) -> Decoded<'a> {
    let mut side = literals.to_vec();
    let mut rows = RowSpans::new(layout, payload.len());
    // These passes also bring the batch into the processor's caches, at the speed of memory.
    let valid_utf8 = simdutf8::basic::from_utf8(payload).is_ok();
    if is_too_long(payload) {
        rows.reject(0, Problem::TooLong);
    } else if memchr(b'"', payload).is_some() {
        rows.with_quotes(payload, &mut side);
    } else {
        rows.without_quotes(payload, separators(payload));
    }
    let RowSpans { mut starts, mut problems, spans, .. } = rows;
    let texts = Texts { payload, side: &side };
    let mut columns: Vec<_> = table.columns.iter().map(|c| Column::new(c.ty)).collect();
    let mut bad = Vec::new();
    for (&(_, index), spans) in layout.wanted.iter().zip(spans) {
        let ty = table.columns[index].ty;
        columns[index] = columns::read(ty, spans, texts, valid_utf8, |row, problem| {
            bad.push((row as u32, Problem::Value { column: index, problem }));
        });
    }
    if !bad.is_empty() {
        // Only the first problem of a row is reported.
        bad.sort_by_key(|(row, _)| *row);
        bad.dedup_by_key(|(row, _)| *row);
        problems.extend(bad.iter().map(|(row, problem)| (starts[*row as usize], *problem)));
        problems.sort_unstable_by_key(|(start, _)| *start);
        let mut kept = vec![true; starts.len()];
        bad.iter().for_each(|(row, _)| kept[*row as usize] = false);
        columns.iter_mut().for_each(|column| column.retain(&kept));
        retain(&mut starts, &kept);
    }
    let batch = Batch { payload, side, rows: starts.len(), columns };
    Decoded { batch, starts, problems }
}

/// Whether the batch is the first part of a record that is longer than the limit.
fn is_too_long(payload: &[u8]) -> bool {
    payload.get(..RECORD_BYTES).is_some_and(|within| {
        payload.len() > RECORD_BYTES && !matches!(scan_record(within, 0, |_| ()), Scan::Record(_))
    })
}

/// The positions of the rows and of their needed fields.
struct RowSpans<'p> {
    layout: &'p Layout,
    starts: Vec<u32>,
    /// A column of spans for each needed field.
    spans: Vec<Vec<Span>>,
    problems: Vec<(u32, Problem)>,
}

impl<'p> RowSpans<'p> {
    fn new(layout: &'p Layout, payload_len: usize) -> Self {
        let expected_rows = payload_len / 48;
        Self {
            layout,
            starts: Vec::with_capacity(expected_rows),
            spans: layout.wanted.iter().map(|_| Vec::with_capacity(expected_rows)).collect(),
            problems: Vec::new(),
        }
    }

    /// Finds rows in a payload without quotes: every comma and line break separates.
    fn without_quotes(&mut self, payload: &[u8], mut places: Vec<u32>) {
        if !payload.is_empty() && payload.last() != Some(&b'\n') {
            places.push(payload.len() as u32 | BREAK);
        }
        let fields = self.layout.fields;
        let mut rest = &places[..];
        let mut start = 0;
        while !rest.is_empty() {
            // Nearly always the next line break ends the last field.
            let row = match rest.split_at_checked(fields) {
                Some((row, after)) if whole(row) => {
                    rest = after;
                    row
                }
                _ => {
                    let end = rest.iter().position(|place| place & BREAK != 0);
                    let (row, after) = rest.split_at(end.map_or(rest.len(), |end| end + 1));
                    rest = after;
                    row
                }
            };
            start = self.row(payload, start, row);
        }
    }

    /// Takes the row that starts at `start` and has these separators; returns where the next row
    /// starts.
    #[inline]
    fn row(&mut self, payload: &[u8], start: u32, separators: &[u32]) -> u32 {
        let Some(last) = separators.last() else { return start };
        let end = last & !BREAK;
        let from = |field: usize| match field {
            0 => start,
            _ => separators[field - 1] + 1,
        };
        let cut = u32::from(end > from(separators.len() - 1) && payload[end as usize - 1] == b'\r');
        if separators.len() == 1 && end - cut == start {
            return end + 1;
        }
        self.record(start as usize, end as usize, separators.len(), |field| {
            let last = field + 1 == separators.len();
            (from(field), if last { end - cut } else { separators[field] })
        });
        end + 1
    }

    fn with_quotes(&mut self, payload: &[u8], side: &mut Vec<u8>) {
        let mut fields = Vec::with_capacity(self.layout.fields);
        let mut record = 0;
        while record < payload.len() {
            let mut blank = true;
            fields.clear();
            let scan = scan_record(payload, record, |field| {
                blank &= fields.is_empty() && field.start == record && field.tail_end == record;
                fields.push(place(&field, payload, side));
            });
            let (next, end) = match scan {
                Scan::Record(next) => (next, next - 1),
                Scan::TextEnd | Scan::Open => (payload.len(), payload.len()),
            };
            if scan == Scan::Open {
                self.reject(record, Problem::Unclosed);
            } else if !blank {
                self.record(record, end, fields.len(), |field| fields[field]);
            }
            record = next;
        }
    }

    fn reject(&mut self, start: usize, problem: Problem) {
        self.problems.push((start as u32, problem));
    }

    /// Takes a record of `found` fields, each at `span`, unless it must be rejected.
    #[inline]
    fn record(&mut self, start: usize, end: usize, found: usize, span: impl Fn(usize) -> Span) {
        if end - start >= RECORD_BYTES {
            self.reject(start, Problem::TooLong);
        } else if found != self.layout.fields {
            let found = found.min(MOST_FIELDS_TOLD + 1);
            self.reject(start, Problem::Fields { expected: self.layout.fields, found });
        } else {
            for (spans, &(field, _)) in self.spans.iter_mut().zip(&self.layout.wanted) {
                spans.push(span(field));
            }
            self.starts.push(start as u32);
        }
    }
}

/// Whether the last separator is a line break and no other one is.
#[inline]
fn whole(row: &[u32]) -> bool {
    let Some((last, others)) = row.split_last() else { return false };
    others.iter().fold(!last, |breaks, place| breaks | place) & BREAK == 0
}

/// The span of a field's content; unescaped content goes to the side buffer.
fn place(field: &Field, payload: &[u8], side: &mut Vec<u8>) -> Span {
    if let Some((start, end)) = field.plain() {
        return (start as u32, end as u32);
    }
    let start = payload.len() + side.len();
    field.unescape(payload, side);
    (start as u32, (payload.len() + side.len()) as u32)
}
