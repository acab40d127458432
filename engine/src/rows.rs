//! Rows between stages and results, as columns. Numbers have 128 bits here, since they may be sums.
//! Folds and the last stage use them.

use std::cmp::Ordering;

use cortado_protocol::content_hash;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::group::mix;
use crate::plan::{Order, Top};
use crate::types::ColumnType;
use crate::wire::{DeltaError, Reader, check_text, put_bytes, put_int};

/// With more rows per group than this, selecting the best is not cheaper than sorting all.
const MANY: u64 = 64;

#[derive(Clone, Debug, Default)]
struct RowColumn {
    nulls: Vec<bool>,
    numbers: Vec<i128>,
    texts: Vec<u8>,
    /// End of each text in `texts`; only used by text columns.
    ends: Vec<usize>,
}

impl RowColumn {
    fn text(&self, row: usize) -> &[u8] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.texts[start..self.ends[row]]
    }

    fn push_text(&mut self, text: &[u8]) {
        self.texts.extend_from_slice(text);
        self.ends.push(self.texts.len());
    }

    fn push_from(&mut self, other: &Self, row: usize, ty: ColumnType) {
        self.nulls.push(other.nulls[row]);
        if ty.ty.is_text() {
            self.push_text(other.text(row));
        } else {
            self.numbers.push(other.numbers[row]);
        }
    }
}

/// Rows of one type.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    types: Vec<ColumnType>,
    columns: Vec<RowColumn>,
    len: usize,
}

impl Rows {
    pub(crate) fn new(types: Vec<ColumnType>) -> Self {
        let columns = vec![RowColumn::default(); types.len()];
        Self { types, columns, len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn width(&self) -> usize {
        self.types.len()
    }

    /// Adds a row that is encoded according to its types. After an error the rows can't be used any
    /// more.
    pub(crate) fn push_encoded(&mut self, reader: &mut Reader<'_>) -> Result<(), DeltaError> {
        for (column, ty) in self.columns.iter_mut().zip(&self.types) {
            let null = ty.nullable && !reader.present()?;
            column.nulls.push(null);
            if ty.ty.is_text() {
                let text = if null { &[] } else { reader.bytes()? };
                check_text(text)?;
                column.push_text(text);
            } else {
                column.numbers.push(if null { 0 } else { reader.int()? });
            }
        }
        self.len += 1;
        Ok(())
    }

    /// Adds a row of nulls; with `zero`, columns that can't be null get zero.
    pub(crate) fn push_nulls(&mut self, zero: bool) {
        for (column, ty) in self.columns.iter_mut().zip(&self.types) {
            column.nulls.push(!zero || ty.nullable);
            if ty.ty.is_text() {
                column.push_text(&[]);
            } else {
                column.numbers.push(0);
            }
        }
        self.len += 1;
    }

    pub(crate) fn encode(&self, row: usize, out: &mut Vec<u8>) {
        for (index, ty) in self.types.iter().enumerate() {
            if ty.nullable {
                out.push(u8::from(!self.is_null(index, row)));
            }
            if !self.is_null(index, row) {
                self.put_value(index, row, out);
            }
        }
    }

    /// Appends a value that is not null.
    pub(crate) fn put_value(&self, column: usize, row: usize, out: &mut Vec<u8>) {
        if self.types[column].ty.is_text() {
            put_bytes(out, self.columns[column].text(row));
        } else {
            put_int(out, self.columns[column].numbers[row]);
        }
    }

    pub(crate) fn is_null(&self, column: usize, row: usize) -> bool {
        self.columns[column].nulls[row]
    }

    /// Writes a text or a number in the format of results, without quotes; nothing for null.
    pub(crate) fn write(&self, column: usize, row: usize, out: &mut Vec<u8>) {
        let values = &self.columns[column];
        match self.types[column].ty {
            _ if values.nulls[row] => {}
            ty if ty.is_text() => out.extend_from_slice(values.text(row)),
            ty => ty.write(values.numbers[row], out),
        }
    }

    /// The rows at the given indices, in that order.
    pub(crate) fn take(&self, places: &[usize]) -> Self {
        let mut taken = Self::new(self.types.clone());
        for ((to, from), ty) in taken.columns.iter_mut().zip(&self.columns).zip(&self.types) {
            places.iter().for_each(|row| to.push_from(from, *row, *ty));
        }
        taken.len = places.len();
        taken
    }

    /// Adds columns of other rows; both must have the same number of rows.
    pub(crate) fn append_columns(&mut self, other: &Self, columns: &[usize]) {
        debug_assert_eq!(self.len, other.len);
        for column in columns {
            self.columns.push(other.columns[*column].clone());
            self.types.push(ColumnType { nullable: true, ..other.types[*column] });
        }
    }

    fn compare_column(&self, column: usize, a: usize, b: usize, descending: bool) -> Ordering {
        let values = &self.columns[column];
        match (values.nulls[a], values.nulls[b]) {
            (false, false) => {}
            (a, b) => return a.cmp(&b),
        }
        let ordering = if self.types[column].ty.is_text() {
            values.text(a).cmp(values.text(b))
        } else {
            values.numbers[a].cmp(&values.numbers[b])
        };
        if descending { ordering.reverse() } else { ordering }
    }

    fn compare(&self, order: &[Order], a: usize, b: usize) -> Ordering {
        let by = |o: &Order| self.compare_column(o.column, a, b, o.descending);
        order.iter().map(by).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
    }

    /// Compares two rows by all columns, from the first to the last.
    fn compare_all(&self, a: usize, b: usize) -> Ordering {
        let by = |column| self.compare_column(column, a, b, false);
        (0..self.types.len()).map(by).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
    }

    /// The indices of all rows in order; rows with equal order keys are ordered by all columns.
    pub(crate) fn sorted(&self, order: &[Order]) -> Vec<usize> {
        self.sort((0..self.len).collect(), order)
    }

    fn sort(&self, places: Vec<usize>, order: &[Order]) -> Vec<usize> {
        let rank = |row| order.first().map_or((false, 0), |first| self.rank(first, row));
        let mut places: Vec<_> = places.into_iter().map(|row| (rank(row), row)).collect();
        places.sort_unstable_by(|(rank_a, a), (rank_b, b)| {
            rank_a
                .cmp(rank_b)
                .then_with(|| self.compare(order, *a, *b))
                .then_with(|| self.compare_all(*a, *b))
        });
        places.into_iter().map(|(_, row)| row).collect()
    }

    /// A number that orders rows as the column does, wherever the numbers of two rows differ: then
    /// most comparisons of a sort need not read the rows.
    fn rank(&self, order: &Order, row: usize) -> (bool, u64) {
        let values = &self.columns[order.column];
        if values.nulls[row] {
            return (true, 0);
        }
        let rank = if self.types[order.column].ty.is_text() {
            let text = values.text(row);
            let mut first = [0; 8];
            let length = text.len().min(8);
            first[..length].copy_from_slice(&text[..length]);
            u64::from_be_bytes(first)
        } else {
            let number = values.numbers[row];
            let clamped = number.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64;
            clamped.cast_unsigned() ^ 1 << 63
        };
        (false, if order.descending { !rank } else { rank })
    }

    /// The indices of all rows that can be among the top: those with fewer than `n` better rows in
    /// their group. Few remain to be sorted.
    fn contenders(&self, top: &Top) -> Vec<usize> {
        if top.n == 0 || top.n > MANY {
            return (0..if top.n == 0 { 0 } else { self.len }).collect();
        }
        let n = top.n as usize;
        let mut table: HashTable<u32> = HashTable::new();
        // The best rows of each group, best first; for each group its first row, and that row's
        // hash.
        let mut best: Vec<Vec<usize>> = Vec::new();
        let mut firsts: Vec<(usize, u64)> = Vec::new();
        let mut contenders = Vec::new();
        for row in 0..self.len {
            let hash = self.hash(&top.per, row);
            let same = |group: &u32| {
                let (first, other) = firsts[*group as usize];
                let equal =
                    |column: &usize| self.compare_column(*column, first, row, false).is_eq();
                other == hash && top.per.iter().all(equal)
            };
            let group = match table.entry(hash, same, |group| firsts[*group as usize].1) {
                Entry::Occupied(entry) => *entry.get() as usize,
                Entry::Vacant(entry) => {
                    entry.insert(firsts.len() as u32);
                    firsts.push((row, hash));
                    best.push(Vec::with_capacity(n + 1));
                    firsts.len() - 1
                }
            };
            let best = &mut best[group];
            if best.len() == n && self.compare(&top.by, row, best[n - 1]).is_gt() {
                continue;
            }
            contenders.push((group, row));
            let at = best.partition_point(|other| self.compare(&top.by, *other, row).is_le());
            best.insert(at, row);
            best.truncate(n);
        }
        let remains = |&(group, row): &(usize, usize)| {
            best[group].last().is_none_or(|last| self.compare(&top.by, row, *last).is_le())
        };
        contenders.into_iter().filter(remains).map(|(_, row)| row).collect()
    }

    /// A hash of a row's values in these columns. It is used in this process only.
    fn hash(&self, columns: &[usize], row: usize) -> u64 {
        let value = |column: &usize| {
            let values = &self.columns[*column];
            if values.nulls[row] {
                0x5bd1
            } else if self.types[*column].ty.is_text() {
                content_hash(values.text(row))
            } else {
                values.numbers[row] as u64
            }
        };
        columns.iter().fold(0, |hash, column| mix(hash ^ value(column)))
    }

    /// The indices of the top rows. The top of the tops of several parts is the top of the whole.
    pub(crate) fn top(&self, top: &Top) -> Vec<usize> {
        let per: Vec<_> =
            top.per.iter().map(|&column| Order { column, descending: false }).collect();
        let order: Vec<_> = per.iter().chain(&top.by).chain(&top.ties).copied().collect();
        let mut taken = Vec::new();
        let mut first = None;
        let mut last = None;
        let mut rank = 0;
        for row in self.sort(self.contenders(top), &order) {
            if first.is_none_or(|first| self.compare(&per, first, row).is_ne()) {
                first = Some(row);
                rank = 0;
            }
            let level = || last.is_some_and(|last| self.compare(&top.by, last, row).is_eq());
            if rank < top.n || (top.all_ties && level()) {
                taken.push(row);
                last = Some(row);
            }
            rank += 1;
        }
        taken
    }
}
