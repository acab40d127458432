//! Scans one record: finds its fields and its end.

use memchr::{memchr, memchr2};

/// The position of a field, in bytes of the scanned text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    /// First byte of the content, after an opening quote.
    pub(crate) start: usize,
    /// End of the content, before a closing quote.
    pub(crate) end: usize,
    /// Whether the content holds doubled quotes.
    pub(crate) doubled: bool,
    /// End of the text that follows a closing quote; equal to `end` if the field has no quotes and
    /// `end + 1` if nothing follows.
    pub(crate) tail_end: usize,
}

impl Field {
    /// The content, if it needs no unescaping; otherwise `None`, see [`Field::unescape`].
    pub(crate) fn plain(&self) -> Option<(usize, usize)> {
        let clean = !self.doubled && self.tail_end <= self.end + 1;
        clean.then_some((self.start, self.end))
    }

    /// Appends the content with doubled quotes made single, and the text after the closing quote.
    pub(crate) fn unescape(&self, text: &[u8], out: &mut Vec<u8>) {
        let mut rest = &text[self.start..self.end];
        while let Some(quote) = memchr(b'"', rest) {
            out.extend_from_slice(&rest[..=quote]);
            rest = rest.get(quote + 2..).unwrap_or_default();
        }
        out.extend_from_slice(rest);
        out.extend_from_slice(text.get(self.end + 1..self.tail_end).unwrap_or_default());
    }
}

/// What ended a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scan {
    /// A line break; the next record starts here.
    Record(usize),
    /// The text ended, outside quotes.
    TextEnd,
    /// The text ended inside quotes.
    Open,
}

/// Scans the record that starts at `start` and reports its fields in order.
pub(crate) fn scan_record(text: &[u8], start: usize, mut on_field: impl FnMut(Field)) -> Scan {
    let mut at = start;
    loop {
        let mut field = Field { start: at, end: at, doubled: false, tail_end: at };
        let mut from = at;
        let quoted = text.get(at) == Some(&b'"');
        if quoted {
            let Some((close, doubled)) = closing_quote(text, at + 1) else { return Scan::Open };
            field = Field { start: at + 1, end: close, doubled, tail_end: close + 1 };
            from = close + 1;
        }
        let separator = memchr2(b',', b'\n', &text[from..]).map(|offset| from + offset);
        let mut end = separator.unwrap_or(text.len());
        let last = separator.is_none_or(|at| text[at] == b'\n');
        if last && end > from && text[end - 1] == b'\r' {
            end -= 1;
        }
        field.tail_end = end;
        if !quoted {
            field.end = end;
        }
        on_field(field);
        match separator {
            None => return Scan::TextEnd,
            Some(separator) if last => return Scan::Record(separator + 1),
            Some(separator) => at = separator + 1,
        }
    }
}

/// The closing quote at or after `from`, and whether there are doubled quotes before it.
fn closing_quote(text: &[u8], mut from: usize) -> Option<(usize, bool)> {
    let mut doubled = false;
    loop {
        let quote = from + memchr(b'"', text.get(from..)?)?;
        if text.get(quote + 1) != Some(&b'"') {
            return Some((quote, doubled));
        }
        doubled = true;
        from = quote + 2;
    }
}
