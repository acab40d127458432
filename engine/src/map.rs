//! Turns a batch into deltas, one for each slot: a pure function of the batch and the plan. Mappers
//! call it.
//!
//! A delta is a list of sections: number, length, content. A section whose number is below the
//! number of stages holds rows or groups of that stage; the following ones hold rows of a reference
//! table with their keys. Each key has only one encoding, and its hash decides its slot.

use bytes::Bytes;
use cortado_protocol::job::BatchHeader;
use cortado_protocol::limits::ENTRY_BYTES;
use cortado_protocol::{META_SLOT, Slot};

use crate::accumulate::Accumulator;
use crate::batch::{Batch, Column, ERROR, VALUE, Values};
use crate::budget::{MAP_BYTES, MapError, map_bytes};
use crate::decode::{Decoded, Problem, decode};
use crate::expr::{Aggregate, Evaluation};
use crate::group::group_rows;
use crate::plan::{Keying, Layout, Plan, Shape, Stage, slot_of};
use crate::summary::{BatchSummary, StageCount};
use crate::tally::Tally;
use crate::types::ColumnType;
use crate::wire::{put_bytes, put_uint};

/// The result of mapping a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// The deltas that are not empty, in slot order. The last one belongs to the meta slot and
    /// holds the batch's summary.
    pub deltas: Vec<(Slot, Bytes)>,
    /// Records in the batch, rejected ones included.
    pub rows: u32,
    /// Records rejected for the whole table.
    pub rejected: u32,
}

/// Turns a batch into deltas for `slots` slots (at least 1, at most
/// [`SLOTS`](cortado_protocol::limits::SLOTS)).
///
/// # Errors
/// If the deltas are larger than an entry, or their evaluation would take more than [`MAP_BYTES`].
///
/// # Panics
/// If the plan has no table `header.table`.
pub fn map_batch(
    plan: &Plan,
    slots: usize,
    layout: &Layout,
    header: &BatchHeader,
    payload: &[u8],
) -> Result<Mapped, MapError> {
    let index = usize::from(header.table);
    let table = &plan.tables()[index];
    let program = plan.program(index);
    let Decoded { batch, starts, mut problems } = decode(table, &program.literals, layout, payload);
    let rejected = problems.len() as u32;
    let rows = batch.rows as u32 + rejected;
    let needed = map_bytes(plan, index, batch.rows);
    if needed > MAP_BYTES {
        return Err(MapError::Memory { bytes: needed, rows: batch.rows });
    }
    let too_much = |_: Full| MapError::Output(payload.len());
    let evaluation = Evaluation::new(program, &batch);
    let mut slices = Sections::new(slots);
    let mut counts = Vec::new();
    for (number, stage) in plan.stages().iter().enumerate().filter(|(_, s)| s.table == index) {
        let selection = select(stage, &evaluation, batch.rows);
        let problem = Problem::Arithmetic { stage: number };
        problems.extend(selection.errors.iter().map(|row| (starts[*row as usize], problem)));
        let types = plan.key_types(stage);
        match &stage.shape {
            Shape::Rows(nodes) => {
                let columns: Vec<_> = nodes.iter().map(|node| evaluation.column(*node)).collect();
                put_rows(&selection.rows, &columns, &types, &batch, &mut slices)
                    .map_err(too_much)?;
            }
            Shape::Groups { keys, aggregates } => {
                let keys: Vec<_> = keys.iter().map(|node| evaluation.column(*node)).collect();
                put_groups(&selection.rows, &keys, &types, aggregates, &evaluation, &mut slices)
                    .map_err(too_much)?;
            }
        }
        let made = slices.close(number);
        counts.push(StageCount {
            stage: number as u32,
            passed: selection.rows.len() as u64,
            filtered: selection.filtered,
            rejected: selection.errors.len() as u64,
            made,
        });
    }
    let keyings = plan.keyings().iter().enumerate();
    for (number, keying) in keyings.filter(|(_, keying)| keying.table == index) {
        put_keyed(plan, number, keying, &batch, &mut slices).map_err(too_much)?;
        slices.close(plan.stages().len() + number);
    }
    let summary = BatchSummary::new(plan, header, payload, rows, rejected, counts, &problems);
    let mut deltas = slices.finish();
    deltas.push((META_SLOT, summary.encode()));
    Ok(Mapped { deltas, rows, rejected })
}

/// The rows that a stage takes.
struct Selection {
    rows: Vec<u32>,
    errors: Vec<u32>,
    filtered: u64,
}

fn select(stage: &Stage, evaluation: &Evaluation<'_>, rows: usize) -> Selection {
    let mut selection = Selection { rows: Vec::new(), errors: vec![], filtered: 0 };
    match stage.filter.map(|filter| evaluation.column(filter)) {
        None => selection.rows = (0..rows as u32).collect(),
        Some(Column { values: Values::Numbers(values), states }) if states.is_empty() => {
            // Every row is written and kept only if it passes: a branch could not be predicted.
            selection.rows = vec![0; rows + 1];
            let mut passed = 0;
            for (row, value) in values.iter().enumerate() {
                selection.rows[passed] = row as u32;
                passed += usize::from(*value != 0);
            }
            selection.rows.truncate(passed);
        }
        Some(filter) => {
            for row in 0..rows {
                let holds = matches!(&filter.values, Values::Numbers(values) if values[row] != 0);
                match filter.state(row) {
                    VALUE if holds => selection.rows.push(row as u32),
                    ERROR => selection.errors.push(row as u32),
                    _ => {}
                }
            }
        }
    }
    selection.filtered = (rows - selection.rows.len() - selection.errors.len()) as u64;
    let arguments = match &stage.shape {
        Shape::Rows(nodes) => nodes.clone(),
        Shape::Groups { keys, aggregates } => {
            keys.iter().copied().chain(aggregates.iter().filter_map(|a| a.arg)).collect()
        }
    };
    for node in arguments {
        let column = evaluation.column(node);
        if column.states.contains(&ERROR) {
            let errors = &mut selection.errors;
            selection.rows.retain(|row| {
                let fine = column.state(*row as usize) != ERROR;
                if !fine {
                    errors.push(*row);
                }
                fine
            });
        }
    }
    selection
}

/// Initial capacity of a section; most grow beyond it.
const SECTION_BYTES: usize = 256;

/// All deltas together are larger than an entry.
struct Full;

/// An open section for every slot.
struct Sections {
    slots: Vec<(Vec<u8>, Vec<u8>, u64)>,
    /// Bytes in all sections.
    bytes: usize,
}

impl Sections {
    fn new(slots: usize) -> Self {
        let slots = slots.clamp(1, cortado_protocol::limits::SLOTS);
        let slot = |_| (Vec::new(), Vec::with_capacity(SECTION_BYTES), 0);
        Self { slots: (0..slots).map(slot).collect(), bytes: 0 }
    }

    /// Appends an entry with its key to the open section of the key's slot.
    fn put(&mut self, key: &[u8], rest: impl FnOnce(&mut Vec<u8>)) -> Result<(), Full> {
        let slot = slot_of(key, self.slots.len());
        let (_, section, entries) = &mut self.slots[usize::from(slot.0)];
        *entries += 1;
        let before = section.len();
        section.extend_from_slice(key);
        rest(section);
        self.bytes += section.len() - before;
        if self.bytes > ENTRY_BYTES { Err(Full) } else { Ok(()) }
    }

    /// Closes the section of each slot, and returns what they contain.
    fn close(&mut self, number: usize) -> Tally {
        let mut made = Tally::default();
        for (delta, section, entries) in &mut self.slots {
            if *entries > 0 {
                put_uint(delta, number as u64);
                put_uint(delta, *entries);
                put_bytes(delta, section);
                made.add(*entries, section);
            }
            section.clear();
            *entries = 0;
        }
        made
    }

    fn finish(self) -> Vec<(Slot, Bytes)> {
        let slots = self.slots.into_iter().enumerate();
        slots
            .filter(|(_, (delta, ..))| !delta.is_empty())
            .map(|(slot, (delta, ..))| (Slot(slot as u8), Bytes::from(delta)))
            .collect()
    }
}

fn put_rows(
    rows: &[u32],
    columns: &[&Column],
    types: &[ColumnType],
    batch: &Batch<'_>,
    sections: &mut Sections,
) -> Result<(), Full> {
    let texts = batch.texts();
    let mut row_bytes = Vec::new();
    for &row in rows {
        row_bytes.clear();
        for (column, ty) in columns.iter().zip(types) {
            texts.put(&mut row_bytes, column, *ty, row as usize);
            if row_bytes.len() > ENTRY_BYTES {
                return Err(Full);
            }
        }
        sections.put(&row_bytes, |_| ())?;
    }
    Ok(())
}

fn put_groups(
    rows: &[u32],
    keys: &[&Column],
    types: &[ColumnType],
    aggregates: &[Aggregate],
    evaluation: &Evaluation<'_>,
    sections: &mut Sections,
) -> Result<(), Full> {
    let texts = evaluation.texts();
    let groups = group_rows(rows, keys, texts);
    let mut states: Vec<_> = aggregates.iter().map(Accumulator::new).collect();
    for (state, aggregate) in states.iter_mut().zip(aggregates) {
        state.resize(groups.first_row.len());
        let column = aggregate.arg.map(|node| evaluation.column(node));
        state.update(rows, &groups.of_row, column, texts);
    }
    let mut key_bytes = Vec::new();
    for (group, &row) in groups.first_row.iter().enumerate() {
        key_bytes.clear();
        for (key, ty) in keys.iter().zip(types) {
            texts.put(&mut key_bytes, key, *ty, row as usize);
        }
        sections.put(&key_bytes, |section| {
            states.iter().for_each(|state| state.encode(group, section));
        })?;
    }
    Ok(())
}

fn put_keyed(
    plan: &Plan,
    number: usize,
    keying: &Keying,
    batch: &Batch<'_>,
    sections: &mut Sections,
) -> Result<(), Full> {
    let texts = batch.texts();
    let key_type = plan.keying_key(keying);
    let types = plan.keying_columns(keying);
    let key = &batch.columns[keying.key];
    let mut key_bytes = Vec::new();
    for row in (0..batch.rows).filter(|row| key.state(*row) == VALUE) {
        key_bytes.clear();
        put_uint(&mut key_bytes, number as u64);
        texts.put(&mut key_bytes, key, key_type, row);
        sections.put(&key_bytes, |section| {
            for (column, ty) in keying.columns.iter().zip(&types) {
                texts.put(section, &batch.columns[*column], *ty, row);
            }
        })?;
    }
    Ok(())
}
