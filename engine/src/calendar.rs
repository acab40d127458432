//! Days and times of the proleptic Gregorian calendar, years 0000 to 9999, without zones.
//!
//! Day numbers follow Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".

use std::io::Write as _;

pub(crate) const MICROS_PER_SECOND: i64 = 1_000_000;
pub(crate) const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

/// Days since 1970-01-01.
pub(crate) const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
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

fn digits<const N: usize>(bytes: &[u8]) -> Option<i64> {
    let mut value = 0;
    for byte in bytes.get(..N)? {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + i64::from(digit);
    }
    Some(value)
}

const DAYS_IN_MONTH: [i64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

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
        *DAYS_IN_MONTH.get(usize::try_from(month - 1).ok()?)? + i64::from(leap && month == 2);
    (1..=last).contains(&day).then(|| days_from_civil(year, month, day))
}

/// Reads `06:00`, `06:00:30` or `06:00:30.25` as microseconds of the day.
pub(crate) fn parse_time(field: &[u8]) -> Option<i64> {
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
    Some(((hour * 60 + minute) * 60 + second) * MICROS_PER_SECOND + micros)
}

/// Reads `.25` as 250,000 microseconds; nothing as 0.
fn fraction(field: &[u8]) -> Option<i64> {
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

/// Reads `2024-01-01 10:06:50` (or with `T`, or with a fraction) as microseconds since 1970-01-01.
pub(crate) fn parse_timestamp(field: &[u8]) -> Option<i64> {
    if field.len() < 19 || !matches!(field[10], b' ' | b'T') {
        return None;
    }
    Some(parse_date(&field[..10])? * MICROS_PER_DAY + parse_time(&field[11..])?)
}

/// Reads `2024-01` as months since year 0.
pub(crate) fn parse_year_month(field: &[u8]) -> Option<i64> {
    if field.len() != 7 || field[4] != b'-' {
        return None;
    }
    let month = digits::<2>(&field[5..])?;
    (1..=12).contains(&month).then_some(digits::<4>(field)? * 12 + month - 1)
}

/// Reads `2024-H1` as halves since year 0.
pub(crate) fn parse_year_half(field: &[u8]) -> Option<i64> {
    if field.len() != 7 || &field[4..6] != b"-H" {
        return None;
    }
    let half = digits::<1>(&field[6..])?;
    (1..=2).contains(&half).then_some(digits::<4>(field)? * 2 + half - 1)
}

// Writing to a vector cannot fail, so the results of `write!` are dropped below.

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
