//! Days and times of the proleptic Gregorian calendar, years 0000 to 9999, without zones.
//!
//! Day numbers follow Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".

use std::io::Write as _;

use crate::number::are_digits;

pub(crate) const MICROS_PER_SECOND: i64 = 1_000_000;
pub(crate) const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

/// Days since 1970-01-01 of a date in the years 0 to 9999. The count starts one era of 400 years
/// early, so that no number is negative and the compiler can turn divisions into multiplications.
const fn days_from_civil(year: u32, month: u32, day: u32) -> i64 {
    let year = year + 400 - if month <= 2 { 1 } else { 0 };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + day_of_year;
    days as i64 - (719_468 + 146_097)
}

/// Year, month and day of a day number.
pub(crate) const fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days.saturating_add(719_468);
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

/// Reads a number of exactly `N` digits.
#[inline]
fn digits<const N: usize>(bytes: &[u8]) -> Option<u32> {
    let mut value = 0;
    let mut valid = true;
    for byte in bytes.first_chunk::<N>()? {
        let digit = byte.wrapping_sub(b'0');
        valid &= digit <= 9;
        value = value * 10 + u32::from(digit);
    }
    valid.then_some(value)
}

const DAYS_IN_MONTH: [u32; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/// Reads `2024-02-29` as days since 1970-01-01.
pub(crate) fn parse_date(field: &[u8]) -> Option<i64> {
    if field.len() != 10 || field[4] != b'-' || field[7] != b'-' {
        return None;
    }
    let year = digits::<4>(field)?;
    let month = digits::<2>(&field[5..])?;
    let day = digits::<2>(&field[8..])?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last =
        *DAYS_IN_MONTH.get((month as usize).wrapping_sub(1))? + u32::from(leap && month == 2);
    (1..=last).contains(&day).then(|| days_from_civil(year, month, day))
}

/// Reads `06:00`, `06:00:30` or `06:00:30.25` as microseconds of the day.
pub(crate) fn parse_time(field: &[u8]) -> Option<i64> {
    if let Ok(usual) = field.try_into() {
        return parse_clock(usual);
    }
    if field.len() < 5 || field[2] != b':' {
        return None;
    }
    let hour = digits::<2>(field)?;
    let minute = digits::<2>(&field[3..])?;
    let (second, micros) = match &field[5..] {
        [] => (0, 0),
        [b':', rest @ ..] => (digits::<2>(rest)?, fraction(rest.get(2..).unwrap_or_default())?),
        _ => return None,
    };
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    Some(i64::from((hour * 60 + minute) * 60 + second) * MICROS_PER_SECOND + i64::from(micros))
}

/// Reads `06:00:30`, all digits at once.
#[inline]
fn parse_clock(field: [u8; 8]) -> Option<i64> {
    let values = u64::from_le_bytes(field) ^ u64::from_le_bytes(*b"00:00:00");
    let digits = values & 0xffff_00ff_ff00_ffff;
    // The digits must be 0 to 9, and there must be a colon at each place of a colon.
    if !are_digits(digits) || digits != values {
        return None;
    }
    let pairs = digits * 10 + (digits >> 8);
    let (hour, minute, second) = (pairs & 0xff, pairs >> 24 & 0xff, pairs >> 48 & 0xff);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    Some(((hour * 60 + minute) * 60 + second) as i64 * MICROS_PER_SECOND)
}

/// Reads `.25` as 250,000 microseconds; an empty field as 0.
fn fraction(field: &[u8]) -> Option<u32> {
    match field {
        [] => Some(0),
        [b'.', rest @ ..] if (1..=6).contains(&rest.len()) => {
            let mut value = 0;
            for at in 0..6 {
                value = value * 10
                    + digits::<1>(rest.get(at..).filter(|r| !r.is_empty()).unwrap_or(b"0"))?;
            }
            Some(value)
        }
        _ => None,
    }
}

/// Reads timestamps one after the other. Neighbouring rows mostly have the same day, so it keeps
/// the last one.
pub(crate) struct Days {
    text: [u8; 10],
    micros: i64,
}

impl Default for Days {
    fn default() -> Self {
        Self { text: *b"1970-01-01", micros: 0 }
    }
}

impl Days {
    /// Like [`parse_timestamp`].
    #[inline]
    pub(crate) fn timestamp(&mut self, field: &[u8]) -> Option<i64> {
        let (date, rest) = field.split_first_chunk()?;
        let (b' ' | b'T', time) = rest.split_first()? else { return None };
        if *date != self.text {
            self.micros = parse_date(date)? * MICROS_PER_DAY;
            self.text = *date;
        }
        // A timestamp needs seconds; `06:00` alone is only a time.
        if time.len() < 8 { None } else { Some(self.micros + parse_time(time)?) }
    }
}

/// Reads `2024-01-01 10:06:50` (or with `T`, or with a fraction) as microseconds since 1970-01-01.
pub(crate) fn parse_timestamp(field: &[u8]) -> Option<i64> {
    Days::default().timestamp(field)
}

/// Reads `2024-01` as months since year 0.
pub(crate) fn parse_year_month(field: &[u8]) -> Option<i64> {
    if field.len() != 7 || field[4] != b'-' {
        return None;
    }
    let month = digits::<2>(&field[5..])?;
    (1..=12).contains(&month).then_some(i64::from(digits::<4>(field)? * 12 + month - 1))
}

/// Reads `2024-H1` as halves since year 0.
pub(crate) fn parse_year_half(field: &[u8]) -> Option<i64> {
    if field.len() != 7 || &field[4..6] != b"-H" {
        return None;
    }
    let half = digits::<1>(&field[6..])?;
    (1..=2).contains(&half).then_some(i64::from(digits::<4>(field)? * 2 + half - 1))
}

// Writing to a vector can't fail, so the results of `write!` are dropped below.

pub(crate) fn write_date(days: i64, out: &mut Vec<u8>) {
    let (year, month, day) = civil_from_days(days);
    let _ = write!(out, "{year:04}-{month:02}-{day:02}");
}

pub(crate) fn write_time(micros: i64, out: &mut Vec<u8>) {
    let seconds = micros.div_euclid(MICROS_PER_SECOND);
    let _ = write!(out, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    let mut rest = micros.rem_euclid(MICROS_PER_SECOND);
    if rest > 0 {
        let mut width = 6;
        while rest % 10 == 0 {
            rest /= 10;
            width -= 1;
        }
        let _ = write!(out, ".{rest:0width$}");
    }
}

pub(crate) fn write_timestamp(micros: i64, out: &mut Vec<u8>) {
    write_date(micros.div_euclid(MICROS_PER_DAY), out);
    out.push(b' ');
    write_time(micros.rem_euclid(MICROS_PER_DAY), out);
}

pub(crate) fn write_year_month(months: i64, out: &mut Vec<u8>) {
    let _ = write!(out, "{:04}-{:02}", months.div_euclid(12), months.rem_euclid(12) + 1);
}

pub(crate) fn write_year_half(halves: i64, out: &mut Vec<u8>) {
    let _ = write!(out, "{:04}-H{}", halves.div_euclid(2), halves.rem_euclid(2) + 1);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: fn(i64, &mut Vec<u8>), value: i64) -> String {
        let mut out = Vec::new();
        write(value, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_day_of_the_calendar_round_trips() {
        let days_from_civil = |year: i64, month: i64, day: i64| {
            days_from_civil(year as u32, month as u32, day as u32)
        };
        let first = days_from_civil(0, 1, 1);
        let last = days_from_civil(9999, 12, 31);
        assert_eq!(days_from_civil(1970, 1, 1), 0);
        assert_eq!(days_from_civil(2024, 2, 29), 19_782);
        let mut previous = (-1, 12, 31);
        for days in first..=last {
            let date = civil_from_days(days);
            assert!(date > previous);
            assert_eq!(days_from_civil(date.0, date.1, date.2), days);
            previous = date;
        }
        assert_eq!(previous, (9999, 12, 31));
    }

    #[test]
    fn impossible_dates_and_times_are_refused() {
        for bad in [
            "2023-02-29",
            "1900-02-29",
            "2024-13-01",
            "2024-00-01",
            "2024-01-00",
            "2024-1-01",
            "2024-04-31",
            "20240101",
            "",
            "2024-01-1x",
        ] {
            assert_eq!(parse_date(bad.as_bytes()), None, "{bad}");
        }
        for bad in [
            "24:00:00",
            "06:60:00",
            "06:00:60",
            "06:00:",
            "6:00",
            "06:00:00.",
            "06:00:1",
            "06:00:00.1234567",
            "06:00:00.1x",
        ] {
            assert_eq!(parse_time(bad.as_bytes()), None, "{bad}");
        }
        for bad in ["2024-01-01", "2024-01-01x10:00:00", "2024-01-01 10:00:0", "2024-01-01 10:00"] {
            assert_eq!(parse_timestamp(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn values_are_written_as_they_are_read() {
        let timestamp = parse_timestamp(b"2024-01-01T10:06:50.250").unwrap();
        assert_eq!(written(write_timestamp, timestamp), "2024-01-01 10:06:50.25");
        let before = parse_timestamp(b"1969-12-31 23:59:59").unwrap();
        assert_eq!(before, -MICROS_PER_SECOND);
        assert_eq!(written(write_timestamp, before), "1969-12-31 23:59:59");
        assert_eq!(written(write_date, parse_date(b"0000-02-29").unwrap()), "0000-02-29");
        assert_eq!(written(write_year_month, parse_year_month(b"2024-12").unwrap()), "2024-12");
        assert_eq!(written(write_year_half, parse_year_half(b"2025-H2").unwrap()), "2025-H2");
        assert_eq!(written(write_time, parse_time(b"23:00").unwrap()), "23:00:00");
    }
}
