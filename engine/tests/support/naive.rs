//! A simple reader of CSV and values, one character at a time, that shares no code with the engine.

use std::collections::BTreeMap;

/// The data records of a file by column name; `None` for records with another number of fields.
pub(crate) fn read(file: &[u8]) -> Vec<Option<BTreeMap<String, String>>> {
    let text = std::str::from_utf8(file).unwrap();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut records: Vec<Vec<String>> = Vec::new();
    let mut record = vec![String::new()];
    let mut quoted_record = false;
    let mut inside = false;
    let mut chars = text.chars().peekable();
    let mut done = |record: &mut Vec<String>, quoted: &mut bool| {
        let fields = std::mem::replace(record, vec![String::new()]);
        if fields.len() > 1 || !fields[0].is_empty() || *quoted {
            records.push(fields);
        }
        *quoted = false;
    };
    while let Some(c) = chars.next() {
        let field = record.last_mut().unwrap();
        match c {
            '"' if inside && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if inside => inside = false,
            '"' if field.is_empty() => {
                inside = true;
                quoted_record = true;
            }
            _ if inside => field.push(c),
            ',' => record.push(String::new()),
            '\r' if matches!(chars.peek(), Some('\n') | None) => {}
            '\n' => done(&mut record, &mut quoted_record),
            _ => field.push(c),
        }
    }
    done(&mut record, &mut quoted_record);
    let mut records = records.into_iter();
    let Some(header) = records.next() else { return Vec::new() };
    records
        .map(|record| {
            (record.len() == header.len()).then(|| header.iter().cloned().zip(record).collect())
        })
        .collect()
}

/// A decimal as its mantissa with `scale` digits.
pub(crate) fn decimal(text: &str, scale: usize) -> Option<i128> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() || !(whole.to_owned() + fraction).chars().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > scale {
        return None;
    }
    let number: i128 = format!("{whole}{fraction:0<scale$}").parse().ok()?;
    i64::try_from(sign * number).ok().map(i128::from)
}

/// Checks `2024-01-31 10:06:50` and returns it.
pub(crate) fn timestamp(text: &str) -> Option<String> {
    let (day, time) = text.split_once(' ')?;
    date(day)?;
    let parts: Vec<u32> = time.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let [h, m, s] = parts[..] else { return None };
    (h < 24 && m < 60 && s < 60).then(|| text.to_owned())
}

pub(crate) fn date(text: &str) -> Option<String> {
    let parts: Vec<u32> = text.split('-').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let [y, m, d] = parts[..] else { return None };
    let february = if y % 4 == 0 && (y % 100 != 0 || y % 400 == 0) { 29 } else { 28 };
    let days = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    ((1..=12).contains(&m) && (1..=days[m as usize - 1]).contains(&d)).then(|| text.to_owned())
}

/// A mantissa with its decimal point; correct for the signs and sizes in the tests.
pub(crate) fn show(mantissa: i128, scale: usize) -> String {
    let digits = format!("{:0>width$}", mantissa.abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let sign = if mantissa < 0 { "-" } else { "" };
    if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

pub(crate) fn half_of(timestamp: &str) -> String {
    format!("{}-H{}", &timestamp[..4], if &timestamp[5..7] < "07" { 1 } else { 2 })
}

/// A field of a result file.
pub(crate) fn field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

pub(crate) fn file(header: &str, rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut out = format!("{header}\n");
    for row in rows {
        let fields: Vec<_> = row.iter().map(|text| field(text)).collect();
        out.push_str(&fields.join(","));
        out.push('\n');
    }
    out
}
