//! Months, days and times of day.

use std::fmt;
use std::str::FromStr;

use crate::generate::CsvWriter;

/// Seconds of a day.
pub(super) const DAY_SECONDS: u64 = 86_400;

/// A month of the Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month {
    year: u16,
    /// 1 to 12.
    month: u8,
}

impl Month {
    /// A month; `month` is 1 to 12.
    pub(super) const fn of(year: u16, month: u8) -> Self {
        Self { year, month }
    }

    /// The year.
    pub(super) const fn year(self) -> u16 {
        self.year
    }

    /// The month of the year, from 1.
    pub(super) const fn month(self) -> u8 {
        self.month
    }

    /// The month after this one.
    pub(super) const fn next(self) -> Self {
        if self.month == 12 {
            Self { year: self.year + 1, month: 1 }
        } else {
            Self { year: self.year, month: self.month + 1 }
        }
    }

    /// Days in it.
    pub(super) const fn days(self) -> u64 {
        match self.month {
            2 if self.year.is_multiple_of(4)
                && (!self.year.is_multiple_of(100) || self.year.is_multiple_of(400)) =>
            {
                29
            }
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }

    /// Seconds in it.
    pub(super) const fn seconds(self) -> u64 {
        self.days() * DAY_SECONDS
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}{:02}", self.year, self.month)
    }
}

impl FromStr for Month {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not a month: expected YYYYMM, for example 202401");
        if text.len() != 6 || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        let (year, month) = text.split_at(4);
        let (year, month) = (year.parse(), month.parse());
        match (year, month) {
            (Ok(year @ 1900..=9998), Ok(month @ 1..=12)) => Ok(Self { year, month }),
            _ => Err(wrong()),
        }
    }
}

impl CsvWriter {
    /// Appends a date such as `2024-01-31`; `day` counts from 1.
    pub(super) fn put_date(&mut self, month: Month, day: u64) {
        self.put_number(u64::from(month.year()));
        self.put("-");
        self.put_two_digits(u64::from(month.month()));
        self.put("-");
        self.put_two_digits(day);
    }

    /// Appends a timestamp such as `2024-01-31 23:59:59`, `second` seconds after the month began.
    pub(super) fn put_timestamp(&mut self, month: Month, second: u64) {
        self.put_date(month, second / DAY_SECONDS + 1);
        let time = second % DAY_SECONDS;
        self.put(" ");
        self.put_two_digits(time / 3600);
        self.put(":");
        self.put_two_digits(time / 60 % 60);
        self.put(":");
        self.put_two_digits(time % 60);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_are_read_and_have_their_days() {
        for (text, days) in [("202401", 31), ("202402", 29), ("202502", 28), ("190002", 28)] {
            let month: Month = text.parse().unwrap();
            assert_eq!((month.to_string().as_str(), month.days()), (text, days));
        }
        for wrong in ["", "2024", "202413", "202400", "2024-1", "+20241", "２024"] {
            assert!(wrong.parse::<Month>().is_err(), "{wrong}");
        }
        assert_eq!(Month::of(2024, 12).next(), Month::of(2025, 1));
    }
}
