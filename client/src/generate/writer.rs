//! Writes CSV fields that need no quotes: fast, since it writes digits directly into one large
//! buffer.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Bytes that are collected before they are written to the file.
const BUFFER_BYTES: usize = 1 << 20;

/// A CSV file being written. Each `put_*` appends a field's text without separator; [`Self::comma`]
/// and [`Self::end_row`] separate them.
pub struct CsvWriter {
    file: File,
    buffer: Vec<u8>,
    written: u64,
}

impl CsvWriter {
    /// Creates or truncates the file and writes the header line.
    ///
    /// # Errors
    /// If the file can't be created.
    pub fn create(path: &Path, header: &str) -> io::Result<Self> {
        let file = File::create(path)?;
        let mut writer = Self { file, buffer: Vec::with_capacity(BUFFER_BYTES + 4096), written: 0 };
        writer.buffer.extend_from_slice(header.as_bytes());
        writer.buffer.push(b'\n');
        Ok(writer)
    }

    /// Appends text as it is.
    pub fn put(&mut self, text: &str) {
        self.buffer.extend_from_slice(text.as_bytes());
    }

    /// Appends a number.
    pub fn put_number(&mut self, mut number: u64) {
        let mut digits = [0u8; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.buffer.extend_from_slice(&digits[at..]);
    }

    /// Appends a number of cents as an amount with one decimal place, or two if necessary.
    pub fn put_amount(&mut self, cents: u64) {
        self.put_number(cents / 100);
        let (tenths, rest) = (cents / 10 % 10, cents % 10);
        self.buffer.extend_from_slice(&[b'.', b'0' + tenths as u8]);
        if rest != 0 {
            self.buffer.push(b'0' + rest as u8);
        }
    }

    /// Appends 128 bits in the form of a random UUID (RFC 9562 §5.4).
    pub fn put_uuid(&mut self, high: u64, low: u64) {
        let uuid = super::uuids::uuid_of(high, low).hyphenated();
        self.buffer.extend_from_slice(uuid.encode_lower(&mut [0; 36]).as_bytes());
    }

    /// Appends a number below 100 with two digits.
    pub fn put_two_digits(&mut self, number: u64) {
        self.buffer
            .extend_from_slice(&[b'0' + (number / 10 % 10) as u8, b'0' + (number % 10) as u8]);
    }

    /// Ends a field.
    pub fn comma(&mut self) {
        self.buffer.push(b',');
    }

    /// Ends a row.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn end_row(&mut self) -> io::Result<()> {
        self.buffer.push(b'\n');
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    /// Writes what is left and returns the file's length in bytes.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn finish(mut self) -> io::Result<u64> {
        self.flush()?;
        Ok(self.written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&self.buffer)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_look_as_in_real_exports() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.csv");
        let mut writer = CsvWriter::create(&path, "a,b,c,d").unwrap();
        writer.put_number(1_038_745);
        writer.comma();
        writer.put_amount(2_850);
        writer.comma();
        writer.put_amount(1_275);
        writer.comma();
        writer.put_uuid(u64::MAX, 0);
        writer.end_row().unwrap();
        let bytes = writer.finish().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "a,b,c,d\n1038745,28.5,12.75,ffffffff-ffff-4fff-8000-000000000000\n");
        assert_eq!(bytes, text.len() as u64);
    }
}
