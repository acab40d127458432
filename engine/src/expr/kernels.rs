//! The inner loops: one operation over whole columns.

use super::program::{Arithmetic, Comparison, DatePart};
use crate::batch::{Column, ERROR, NULL, Span, Texts, VALUE, Values};
use crate::{calendar, number};

/// A column, or one value for every row.
#[derive(Clone, Copy)]
pub(super) enum Operand<'a> {
    Number(i64),
    Text(Span),
    Column(&'a Column),
}

impl Operand<'_> {
    fn states(&self) -> &[u8] {
        match self {
            Self::Column(column) => &column.states,
            _ => &[],
        }
    }

    fn state(&self, row: usize) -> u8 {
        self.states().get(row).copied().unwrap_or(VALUE)
    }

    fn column(&self) -> Option<&[i64]> {
        match self {
            Self::Column(Column { values: Values::Numbers(values), .. }) => Some(values),
            _ => None,
        }
    }

    /// The number of a row; the compiler has checked that the operand has numbers.
    fn number(&self, row: usize) -> i64 {
        match self {
            Self::Number(value) => *value,
            Self::Column(Column { values: Values::Numbers(values), .. }) => values[row],
            _ => 0,
        }
    }

    fn span(&self, row: usize) -> Span {
        match self {
            Self::Text(span) => *span,
            Self::Column(Column { values: Values::Texts(spans), .. }) => spans[row],
            _ => (0, 0),
        }
    }

    fn is_text(&self) -> bool {
        matches!(self, Self::Text(_) | Self::Column(Column { values: Values::Texts(_), .. }))
    }
}

fn numbers(values: Vec<i64>, states: Vec<u8>) -> Column {
    Column { values: Values::Numbers(values), states }
}

/// For each row, the worse state of both sides.
fn combine(l: Operand<'_>, r: Operand<'_>) -> Vec<u8> {
    match (l.states(), r.states()) {
        ([], states) | (states, []) => states.to_vec(),
        (left, right) => left.iter().zip(right).map(|(l, r)| *l.max(r)).collect(),
    }
}

/// Applies `f` to every number, with a loop per shape so that the compiler can vectorise it.
fn zip(l: Operand<'_>, r: Operand<'_>, rows: usize, f: impl Fn(i64, i64) -> i64) -> Vec<i64> {
    match (l.column(), r.column()) {
        (Some(left), Some(right)) => left.iter().zip(right).map(|(l, r)| f(*l, *r)).collect(),
        (Some(left), None) => {
            let right = r.number(0);
            left.iter().map(|l| f(*l, right)).collect()
        }
        _ => (0..rows).map(|row| f(l.number(row), r.number(row))).collect(),
    }
}

pub(super) fn compare(
    op: Comparison,
    l: Operand<'_>,
    r: Operand<'_>,
    rows: usize,
    texts: Texts<'_>,
) -> Column {
    let states = combine(l, r);
    if l.is_text() {
        let compare = |row| {
            let ordering = texts.get(l.span(row)).cmp(texts.get(r.span(row)));
            i64::from(match op {
                Comparison::Less => ordering.is_lt(),
                Comparison::LessEqual => ordering.is_le(),
                Comparison::Equal => ordering.is_eq(),
                Comparison::NotEqual => ordering.is_ne(),
                Comparison::GreaterEqual => ordering.is_ge(),
                Comparison::Greater => ordering.is_gt(),
            })
        };
        let valid = |row: usize| states.get(row).is_none_or(|state| *state == VALUE);
        let values = (0..rows).map(|row| if valid(row) { compare(row) } else { 0 }).collect();
        return numbers(values, states);
    }
    let values = match op {
        Comparison::Less => zip(l, r, rows, |l, r| i64::from(l < r)),
        Comparison::LessEqual => zip(l, r, rows, |l, r| i64::from(l <= r)),
        Comparison::Equal => zip(l, r, rows, |l, r| i64::from(l == r)),
        Comparison::NotEqual => zip(l, r, rows, |l, r| i64::from(l != r)),
        Comparison::GreaterEqual => zip(l, r, rows, |l, r| i64::from(l >= r)),
        Comparison::Greater => zip(l, r, rows, |l, r| i64::from(l > r)),
    };
    numbers(values, states)
}

/// `and` (dominant value 0) and `or` (dominant value 1): the dominant value wins over null and
/// error, an error wins over null.
pub(super) fn logic(l: Operand<'_>, r: Operand<'_>, rows: usize, dominant: i64) -> Column {
    if l.states().is_empty() && r.states().is_empty() {
        let values = if dominant == 0 {
            zip(l, r, rows, |l, r| l & r)
        } else {
            zip(l, r, rows, |l, r| l | r)
        };
        return numbers(values, Vec::new());
    }
    let decided =
        |side: &Operand<'_>, row| side.state(row) == VALUE && side.number(row) == dominant;
    let (mut values, mut states) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
    for row in 0..rows {
        let won = decided(&l, row) || decided(&r, row);
        values.push(if won { dominant } else { 1 - dominant });
        states.push(if won { VALUE } else { l.state(row).max(r.state(row)) });
    }
    numbers(values, states)
}

pub(super) fn map(operand: Operand<'_>, rows: usize, f: impl Fn(i64) -> i64) -> Column {
    let values = zip(operand, Operand::Number(0), rows, |value, _| f(value));
    numbers(values, operand.states().to_vec())
}

pub(super) fn is_null(operand: Operand<'_>, rows: usize) -> Column {
    let states = operand.states();
    if states.is_empty() {
        return numbers(vec![0; rows], Vec::new());
    }
    let values = states.iter().map(|state| i64::from(*state == NULL)).collect();
    let errors = states.contains(&ERROR);
    let error = |state: &u8| if *state == ERROR { ERROR } else { VALUE };
    numbers(values, if errors { states.iter().map(error).collect() } else { Vec::new() })
}

pub(super) fn coalesce(l: Operand<'_>, r: Operand<'_>, rows: usize) -> Column {
    let pick = |row| if l.state(row) == NULL { r } else { l };
    let states = if l.states().is_empty() {
        Vec::new()
    } else {
        (0..rows).map(|row| pick(row).state(row)).collect()
    };
    let values = if l.is_text() {
        Values::Texts((0..rows).map(|row| pick(row).span(row)).collect())
    } else {
        Values::Numbers((0..rows).map(|row| pick(row).number(row)).collect())
    };
    Column { values, states }
}

/// Calculates in 128 bits; a result beyond 64 bits is an error. A quotient first multiplies its
/// numerator by `10^shift`.
pub(super) fn arithmetic(
    op: Arithmetic,
    l: Operand<'_>,
    r: Operand<'_>,
    rows: usize,
    shift: u8,
) -> Column {
    let factor = number::power_of_ten(shift);
    checked(combine(l, r), rows, |row| {
        let (l, r) = (i128::from(l.number(row)), i128::from(r.number(row)));
        match op {
            Arithmetic::Add => Some(l + r),
            Arithmetic::Subtract => Some(l - r),
            Arithmetic::Multiply => Some(l * r),
            Arithmetic::Divide => number::divide_half_even(l.checked_mul(factor?)?, r),
        }
    })
}

pub(super) fn rescale(operand: Operand<'_>, rows: usize, factor: i64) -> Column {
    checked(operand.states().to_vec(), rows, |row| {
        Some(i128::from(operand.number(row)) * i128::from(factor))
    })
}

fn checked(mut states: Vec<u8>, rows: usize, f: impl Fn(usize) -> Option<i128>) -> Column {
    let mut values = vec![0; rows];
    for (row, value) in values.iter_mut().enumerate() {
        if states.get(row).is_some_and(|state| *state != VALUE) {
            continue;
        }
        match f(row).and_then(|result| i64::try_from(result).ok()) {
            Some(result) => *value = result,
            None => {
                states.resize(rows, VALUE);
                states[row] = ERROR;
            }
        }
    }
    numbers(values, states)
}

/// Parts of dates. Neighbouring rows mostly have the same day, so it keeps the last one.
pub(super) fn date_part(part: DatePart, operand: Operand<'_>, rows: usize) -> Column {
    let mut last_day = 0;
    let mut last = part_of_day(part, last_day);
    let values = (0..rows).map(|row| {
        let day = operand.number(row);
        if day != last_day {
            last_day = day;
            last = part_of_day(part, day);
        }
        last
    });
    numbers(values.collect(), operand.states().to_vec())
}

fn part_of_day(part: DatePart, day: i64) -> i64 {
    let (year, month, _) = calendar::civil_from_days(day);
    match part {
        DatePart::Year => year,
        DatePart::Month => month,
        DatePart::Half => (month - 1) / 6 + 1,
        DatePart::YearMonth => year * 12 + month - 1,
        DatePart::YearHalf => year * 2 + (month - 1) / 6,
    }
}
