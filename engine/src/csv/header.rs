//! Reads the header line of a file. The client does so before it cuts the file.

use cortado_protocol::limits::RECORD_BYTES;

use super::scan::{Scan, scan_record};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The outcome of reading the first bytes of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderRead {
    /// The header line.
    Header {
        /// Its fields, without surrounding blanks; none for a file without a record.
        fields: Vec<String>,
        /// Bytes up to the first record after it: the offset of the first batch.
        bytes: usize,
        /// Line breaks in those bytes: the first batch starts at line `lines + 1`.
        lines: u64,
    },
    /// The header line does not end in these bytes; call again with more.
    NeedMore,
}

/// Why a file has no usable header line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderReadError {
    /// A quote is never closed.
    #[error("the header line has a quote that is never closed")]
    Unclosed,
    /// It is too long for a header line.
    #[error("the header line is longer than {RECORD_BYTES} bytes")]
    TooLong,
    /// It is not UTF-8.
    #[error("the header line is not valid UTF-8")]
    NotUtf8,
}

/// Reads the header from the first bytes of a file. `eof` says that the file ends with them. A
/// byte-order mark and blank lines before the header are skipped.
///
/// # Errors
/// If the bytes can't begin with a header line, whatever follows.
pub fn read_header(buffer: &[u8], eof: bool) -> Result<HeaderRead, HeaderReadError> {
    let more = |open: bool| match (eof, buffer.len() > RECORD_BYTES) {
        (true, _) if open => Err(HeaderReadError::Unclosed),
        (_, true) => Err(HeaderReadError::TooLong),
        _ => Ok(HeaderRead::NeedMore),
    };
    if !eof && buffer.len() < BYTE_ORDER_MARK.len() {
        return Ok(HeaderRead::NeedMore);
    }
    let mut start = if buffer.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
    loop {
        let mut spans = Vec::new();
        let end = match scan_record(buffer, start, |field| spans.push(field)) {
            Scan::Record(end) => end,
            Scan::TextEnd if eof => buffer.len(),
            Scan::TextEnd => return more(false),
            Scan::Open => return more(true),
        };
        let blank = spans.len() == 1 && spans[0].start == spans[0].tail_end;
        if blank && end < buffer.len() {
            start = end;
            continue;
        }
        if blank && !eof {
            return more(false);
        }
        let fields = if blank { Ok(Vec::new()) } else { texts(buffer, &spans) };
        let lines = memchr::memchr_iter(b'\n', &buffer[..end]).count() as u64;
        return Ok(HeaderRead::Header { fields: fields?, bytes: end, lines });
    }
}

fn texts(buffer: &[u8], spans: &[super::Field]) -> Result<Vec<String>, HeaderReadError> {
    let text = |field: &super::Field| {
        let mut content = Vec::new();
        match field.plain() {
            Some((start, end)) => content.extend_from_slice(&buffer[start..end]),
            None => field.unescape(buffer, &mut content),
        }
        let text = String::from_utf8(content).map_err(|_| HeaderReadError::NotUtf8)?;
        Ok(text.trim().to_owned())
    };
    spans.iter().map(text).collect()
}
