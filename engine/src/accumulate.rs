//! Aggregates per group: each aggregate keeps a column of states. Batches update states from
//! columns, and folds merge states from deltas; merging is commutative and associative.

use crate::batch::{Column, Texts, VALUE, Values};
use crate::expr::{Aggregate, Outcome, State};
use crate::number;
use crate::types::{ColumnType, Type};
use crate::wire::{DeltaError, Reader, check_text, put_bytes, put_int, put_uint};

/// The states of one aggregate, indexed by group.
pub(crate) struct Accumulator {
    state: State,
    outcome: Outcome,
    input: ColumnType,
    output: Type,
    /// Values that are not null.
    counts: Vec<u64>,
    /// Sums, or the extreme value so far.
    numbers: Vec<i128>,
    texts: Vec<Box<[u8]>>,
    /// Bytes of all texts.
    text_bytes: usize,
    /// A fault that the simulator must find: sums in floating point, which lose digits.
    float_sums: bool,
}

impl Accumulator {
    pub(crate) fn new(aggregate: &Aggregate) -> Self {
        let rule = aggregate.kind.rule();
        Self {
            state: rule.state,
            outcome: rule.outcome,
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

    /// Bytes of memory that the states take.
    pub(crate) fn bytes(&self) -> usize {
        let texts = self.texts.capacity() * size_of::<Box<[u8]>>() + self.text_bytes;
        self.counts.capacity() * size_of::<u64>()
            + self.numbers.capacity() * size_of::<i128>()
            + texts
    }

    /// Makes room for `groups` groups.
    pub(crate) fn resize(&mut self, groups: usize) {
        self.counts.resize(groups, 0);
        if self.state == State::Nothing {
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
        let adds = self.state == State::Sum;
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

    /// Adds a number to a group. Sums of 64-bit values can't leave 128 bits.
    fn number(&mut self, group: usize, value: i128) {
        let first = self.counts[group] == 0;
        match self.state {
            State::Nothing => {}
            State::Sum => self.numbers[group] += value,
            State::Least => {
                if first || value < self.numbers[group] {
                    self.numbers[group] = value;
                }
            }
            State::Greatest => {
                if first || value > self.numbers[group] {
                    self.numbers[group] = value;
                }
            }
        }
    }

    fn text(&mut self, group: usize, value: &[u8]) {
        let first = self.counts[group] == 0;
        let better = match self.state {
            State::Least => first || *value < *self.texts[group],
            State::Greatest => first || *value > *self.texts[group],
            // A plan that sums texts is refused.
            State::Nothing | State::Sum => false,
        };
        if better {
            self.text_bytes += value.len();
            self.text_bytes -= self.texts[group].len();
            self.texts[group] = value.into();
        }
    }

    /// Whether the encoded state has the number of values: it is needed for the result, or to tell
    /// null from a value.
    fn sends_count(&self) -> bool {
        let needed = match self.outcome {
            Outcome::Count | Outcome::Mean => true,
            Outcome::State => false,
        };
        needed || self.input.nullable
    }

    /// Appends the state of a group.
    pub(crate) fn encode(&self, group: usize, out: &mut Vec<u8>) {
        if self.sends_count() {
            put_uint(out, self.counts[group]);
        }
        if self.state == State::Nothing || self.counts[group] == 0 {
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
        match self.state {
            State::Nothing => {}
            State::Least | State::Greatest if self.input.ty.is_text() => {
                let text = reader.bytes()?;
                check_text(text)?;
                self.text(group, text);
            }
            State::Least | State::Greatest => self.number(group, i128::from(reader.int64()?)),
            State::Sum => {
                let sum = self.numbers[group].checked_add(reader.int()?);
                self.numbers[group] = sum.ok_or(DeltaError::Malformed("sum beyond 128 bits"))?;
                if self.float_sums {
                    self.numbers[group] = self.numbers[group] as f64 as i128;
                }
            }
        }
        let total = self.counts[group].checked_add(count);
        self.counts[group] = total.ok_or(DeltaError::Malformed("count beyond 64 bits"))?;
        Ok(())
    }

    /// Appends the result of a group as a value of the aggregate's type.
    pub(crate) fn finish(&self, group: usize, ty: ColumnType, out: &mut Vec<u8>) {
        let count = self.counts[group];
        let result = match self.outcome {
            Outcome::Count => return put_int(out, i128::from(count)),
            Outcome::Mean => self.average(group),
            Outcome::State => self.numbers.get(group).copied(),
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

    /// The quotient in the output's scale; null if it is beyond 128 bits, which needs a sum of more
    /// than 10^32.
    fn average(&self, group: usize) -> Option<i128> {
        let shift = self.output.scale()?.saturating_sub(self.input.ty.scale()?);
        let scaled = self.numbers[group].checked_mul(number::power_of_ten(shift)?)?;
        number::divide_half_even(scaled, i128::from(self.counts[group]))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::expr::AggregateKind;

    fn of(kind: AggregateKind, values: &[i64]) -> Accumulator {
        let ty = ColumnType { ty: Type::Int, nullable: false };
        let output = match kind.rule().outcome {
            Outcome::Mean => ColumnType { ty: Type::Decimal(6), nullable: false },
            Outcome::Count | Outcome::State => ty,
        };
        let aggregate = Aggregate { kind, arg: Some(0), input: ty, output };
        let mut accumulator = Accumulator::new(&aggregate);
        accumulator.resize(1);
        let rows: Vec<u32> = (0..values.len() as u32).collect();
        let (groups, column) = (
            vec![0; values.len()],
            Column { values: Values::Numbers(values.to_vec()), states: Vec::new() },
        );
        accumulator.update(&rows, &groups, Some(&column), Texts { payload: b"", side: b"" });
        accumulator
    }

    fn result(accumulator: &Accumulator) -> Vec<u8> {
        let mut out = Vec::new();
        let ty = ColumnType { ty: accumulator.output, nullable: false };
        accumulator.finish(0, ty, &mut out);
        out
    }

    proptest! {
        /// Checks every aggregate in the table of aggregates.
        #[test]
        fn parts_merged_in_any_order_are_the_whole(
            values in prop::collection::vec(any::<i64>(), 1..20), cut in 0_usize..20,
        ) {
            let (left, right) = values.split_at(cut.min(values.len() - 1));
            for kind in AggregateKind::ALL {
                let whole = result(&of(kind, &values));
                for parts in [[left, right], [right, left]] {
                    let mut merged = of(kind, &[]);
                    for part in parts.into_iter().filter(|part| !part.is_empty()) {
                        let mut bytes = Vec::new();
                        of(kind, part).encode(0, &mut bytes);
                        merged.merge(0, &mut Reader(&bytes)).unwrap();
                    }
                    prop_assert_eq!(&result(&merged), &whole, "{:?}", kind);
                }
            }
        }
    }
}
