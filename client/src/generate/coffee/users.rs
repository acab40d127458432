//! Customers, in one file per month of registration. Their numbers grow with time, so each month's
//! file has a range of them, and a month's sales contain only customers registered by its end.

use std::path::Path;

use super::calendar::{DAY_SECONDS, Month};
use super::{CoffeeOptions, WrittenFile, at, path_of};
use crate::Error;
use crate::generate::{CsvWriter, Random};

/// First month of registration, unless the sales begin earlier.
const FIRST_MONTH: Month = Month::of(2023, 7);
/// With more months than this there would be many small files.
const MOST_MONTHS: usize = 120;

/// Which customers registered in which month.
pub(super) struct Registrations {
    months: Vec<Month>,
    users: u64,
}

/// The customers of one month.
pub(super) struct Part {
    month: Month,
    first: u64,
    count: u64,
}

impl Registrations {
    /// Spreads the customers evenly from [`FIRST_MONTH`] to the last month of sales.
    pub(super) fn new(options: &CoffeeOptions) -> Self {
        let first = options.months.iter().copied().min().unwrap_or(FIRST_MONTH).min(FIRST_MONTH);
        let last = options.months.iter().copied().max().unwrap_or(FIRST_MONTH).max(first);
        let months = std::iter::successors(Some(first), |month| Some(month.next()))
            .take_while(|month| *month <= last)
            .take(MOST_MONTHS)
            .collect();
        Self { months, users: options.users }
    }

    /// Customers registered by the end of a month; at least one.
    pub(super) fn registered_by(&self, month: Month) -> u64 {
        let months = self.months.partition_point(|other| *other <= month);
        self.up_to(months).max(1)
    }

    /// Customers registered in the first `months` months.
    fn up_to(&self, months: usize) -> u64 {
        self.users * months as u64 / self.months.len() as u64
    }

    /// Names of the files.
    pub(super) fn names(&self) -> Vec<String> {
        self.months.iter().map(|month| name(*month)).collect()
    }

    /// The months' shares.
    pub(super) fn parts(&self) -> impl Iterator<Item = Part> + '_ {
        self.months.iter().enumerate().map(|(index, month)| {
            let (before, after) = (self.up_to(index), self.up_to(index + 1));
            Part { month: *month, first: before + 1, count: after - before }
        })
    }
}

fn name(month: Month) -> String {
    format!("users/users_{month}.csv")
}

/// Writes one month's customers.
pub(super) fn write(
    out: &Path,
    options: &CoffeeOptions,
    part: &Part,
) -> Result<WrittenFile, Error> {
    let name = name(part.month);
    let path = path_of(out, &name);
    let mut random = Random::new(options.seed, &name);
    let mut csv = at(&path, CsvWriter::create(&path, "user_id,gender,birthdate,registered_at"))?;
    for index in 0..part.count {
        csv.put_number(part.first + index);
        csv.put(if random.percent(50) { ",male," } else { ",female," });
        let born = Month::of(1945 + random.below(60) as u16, 1 + random.below(12) as u8);
        csv.put_date(born, 1 + random.below(born.days()));
        csv.comma();
        let second = part.month.seconds() * index / part.count;
        csv.put_timestamp(part.month, second + random.below(DAY_SECONDS - second % DAY_SECONDS));
        at(&path, csv.end_row())?;
    }
    let bytes = at(&path, csv.finish())?;
    Ok(WrittenFile { name, rows: part.count, bytes })
}
