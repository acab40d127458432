//! Times: RFC 3339 texts and milliseconds since the Unix epoch.

use jiff::Timestamp;

/// Reads an RFC 3339 time with `Z` or an offset, to the millisecond below.
#[must_use]
pub fn parse_time(text: &str) -> Option<i64> {
    // The parser also takes other forms of ISO 8601 and time zones in brackets.
    let bytes = text.as_bytes();
    let dated = bytes.len() >= 20 && bytes[4] == b'-' && matches!(bytes[10], b'T' | b't');
    if !dated || bytes.contains(&b'[') {
        return None;
    }
    let time: Timestamp = text.parse().ok()?;
    Some(time.as_nanosecond().div_euclid(1_000_000) as i64)
}

/// The time as RFC 3339 text, in UTC; with milliseconds only if there are any.
#[must_use]
pub fn time_text(unix_ms: i64) -> String {
    match Timestamp::from_millisecond(unix_ms) {
        Ok(time) => time.to_string(),
        Err(_) => format!("{unix_ms} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_with_any_offset() {
        let noon = 1_704_110_400_000;
        for text in [
            "2024-01-01T12:00:00Z",
            "2024-01-01T14:00:00+02:00",
            "2024-01-01T12:00:00.0009Z",
            "2024-01-01t12:00:00z",
        ] {
            assert_eq!(parse_time(text), Some(noon), "{text}");
        }
        assert_eq!(parse_time("1969-12-31T23:59:59.999Z"), Some(-1));
        for text in
            ["", "2024-01-01", "2024-01-01T12:00:00", "2024-02-30T12:00:00Z", "1704110400", "now"]
        {
            assert_eq!(parse_time(text), None, "{text}");
        }
        assert_eq!(time_text(noon), "2024-01-01T12:00:00Z");
        assert_eq!(time_text(noon + 5), "2024-01-01T12:00:00.005Z");
    }
}
