//! Aggregates per group, a column of state each. The same states serve a batch (fed from columns)
//! and a ledger (fed from deltas); merging them is commutative and associative.

use crate::batch::{Column, Texts, VALUE, Values};
use crate::expr::{Aggregate, AggregateKind};
use crate::number;
use crate::types::{ColumnType, Type};
use crate::wire::{DeltaError, Reader, check_text, put_bytes, put_int, put_uint};

/// The states of one aggregate, indexed by group.
pub(crate) struct Accumulator {
    kind: AggregateKind,
    input: ColumnType,
    output: Type,
    /// Values that are not null.
    counts: Vec<u64>,
    /// Sums, or the extreme value so far.
    numbers: Vec<i128>,
    texts: Vec<Box<[u8]>>,
    /// Bytes of all texts.
    text_bytes: usize,
    /// Sums lose digits: a fault for the simulator to find.
    float_sums: bool,
}

impl Accumulator {
    pub(crate) fn new(aggregate: &Aggregate) -> Self {
        Self {
            kind: aggregate.kind,
            input: aggregate.input,
            output: aggregate.output.ty,
            counts: Vec::new(),
            numbers: Vec::new(),
            texts: Vec::new(),
            text_bytes: 0,
            float_sums: false,
        }
    }

    pub(crate) fn plant_float_sums(&mut self) {
        self.float_sums = true;
    }

    /// Bytes of memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        let texts = self.texts.capacity() * size_of::<Box<[u8]>>() + self.text_bytes;
        self.counts.capacity() * size_of::<u64>()
            + self.numbers.capacity() * size_of::<i128>()
            + texts
    }

    /// Makes room for so many groups.
    pub(crate) fn resize(&mut self, groups: usize) {
        self.counts.resize(groups, 0);
        if self.kind == AggregateKind::Count {
            return;
        }
        if self.input.ty.is_text() {
            self.texts.resize(groups, Box::default());
        } else {
            self.numbers.resize(groups, 0);
        }
    }

    /// Adds the rows of a batch: `rows[i]` belongs to `groups[i]`. No column means `count(*)`.
    pub(crate) fn update(
        &mut self,
        rows: &[u32],
        groups: &[u32],
        column: Option<&Column>,
        texts: Texts<'_>,
    ) {
        let Some(column) = column else {
            groups.iter().for_each(|group| self.counts[*group as usize] += 1);
            return;
        };
        let adds = matches!(self.kind, AggregateKind::Sum | AggregateKind::Average);
        if let (Values::Numbers(values), true, true) =
            (&column.values, column.states.is_empty(), adds)
        {
            for (row, group) in rows.iter().zip(groups) {
                self.numbers[*group as usize] += i128::from(values[*row as usize]);
                self.counts[*group as usize] += 1;
            }
            return;
        }
        for (&row, &group) in rows.iter().zip(groups) {
            let (row, group) = (row as usize, group as usize);
            if column.state(row) != VALUE {
                continue;
            }
            match &column.values {
                Values::Numbers(values) => self.number(group, i128::from(values[row])),
                Values::Texts(spans) => self.text(group, texts.get(spans[row])),
            }
            self.counts[group] += 1;
        }
    }

    /// Takes a number; sums of 64-bit values can't leave 128 bits.
    fn number(&mut self, group: usize, value: i128) {
        let first = self.counts[group] == 0;
        match self.kind {
            AggregateKind::Count => {}
            AggregateKind::Sum | AggregateKind::Average => self.numbers[group] += value,
            AggregateKind::Min if first || value < self.numbers[group] => {
                self.numbers[group] = value;
            }
            AggregateKind::Max if first || value > self.numbers[group] => {
                self.numbers[group] = value;
            }
            AggregateKind::Min | AggregateKind::Max => {}
        }
    }

    fn text(&mut self, group: usize, value: &[u8]) {
        let better = match self.kind {
            AggregateKind::Min => self.counts[group] == 0 || *value < *self.texts[group],
            AggregateKind::Max => self.counts[group] == 0 || *value > *self.texts[group],
            _ => false,
        };
        if better {
            self.text_bytes += value.len();
            self.text_bytes -= self.texts[group].len();
            self.texts[group] = value.into();
        }
    }

    /// Whether the number of values travels: it is needed, or tells null from a value.
    fn sends_count(&self) -> bool {
        self.input.nullable || matches!(self.kind, AggregateKind::Count | AggregateKind::Average)
    }

    /// Appends a group's state.
    pub(crate) fn encode(&self, group: usize, out: &mut Vec<u8>) {
        if self.sends_count() {
            put_uint(out, self.counts[group]);
        }
        if self.kind == AggregateKind::Count || self.counts[group] == 0 {
            return;
        }
        if self.input.ty.is_text() {
            put_bytes(out, &self.texts[group]);
        } else {
            put_int(out, self.numbers[group]);
        }
    }

    /// Merges a state written by [`Accumulator::encode`].
    pub(crate) fn merge(
        &mut self,
        group: usize,
        reader: &mut Reader<'_>,
    ) -> Result<(), DeltaError> {
        let count = if self.sends_count() { reader.uint()? } else { 1 };
        if count == 0 {
            return Ok(());
        }
        if self.kind != AggregateKind::Count {
            if self.input.ty.is_text() {
                let text = reader.bytes()?;
                check_text(text)?;
                self.text(group, text);
            } else if matches!(self.kind, AggregateKind::Sum | AggregateKind::Average) {
                let sum = self.numbers[group].checked_add(reader.int()?);
                self.numbers[group] = sum.ok_or(DeltaError::Malformed("sum beyond 128 bits"))?;
                if self.float_sums {
                    self.numbers[group] = self.numbers[group] as f64 as i128;
                }
            } else {
                let value = reader.int64()?;
                self.number(group, i128::from(value));
            }
        }
        let total = self.counts[group].checked_add(count);
        self.counts[group] = total.ok_or(DeltaError::Malformed("count beyond 64 bits"))?;
        Ok(())
    }

    /// Appends a group's result as a value of the aggregate's type.
    pub(crate) fn finish(&self, group: usize, ty: ColumnType, out: &mut Vec<u8>) {
        let count = self.counts[group];
        if self.kind == AggregateKind::Count {
            put_int(out, i128::from(count));
            return;
        }
        let result = match self.kind {
            AggregateKind::Average => self.average(group),
            _ => self.numbers.get(group).copied(),
        };
        let present = count > 0 && (self.input.ty.is_text() || result.is_some());
        if ty.nullable {
            out.push(u8::from(present));
            if !present {
                return;
            }
        }
        if self.input.ty.is_text() {
            put_bytes(out, &self.texts[group]);
        } else {
            put_int(out, result.unwrap_or(0));
        }
    }

    /// The quotient in the output's scale. Null if it is beyond 128 bits, which takes a sum of more
    /// than 10^32.
    fn average(&self, group: usize) -> Option<i128> {
        let shift = self.output.scale()?.saturating_sub(self.input.ty.scale()?);
        let scaled = self.numbers[group].checked_mul(number::power_of_ten(shift)?)?;
        number::divide_half_even(scaled, i128::from(self.counts[group]))
    }
}
