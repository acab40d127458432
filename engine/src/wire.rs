//! The encoding of deltas, slot outputs and lookups: varints (LEB128, zigzag when signed), and
//! values whose length follows from their type. Readers check every length and count.

use crate::types::ColumnType;

/// Why bytes of a ledger or of another node can't be used. Nothing was counted from them. The
/// caller treats this as damage, since the bytes have checksums of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeltaError {
    /// The bytes end before their content does.
    #[error("delta is truncated")]
    Truncated,
    /// The bytes contradict the plan or themselves.
    #[error("delta is malformed: {0}")]
    Malformed(&'static str),
    /// The batch or slot was already added; adding it again would count it twice.
    #[error("number {0} was added twice")]
    Twice(u64),
}

/// Appends an unsigned varint.
#[inline]
pub(crate) fn put_uint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed varint.
#[inline]
pub(crate) fn put_int(out: &mut Vec<u8>, value: i128) {
    match i64::try_from(value) {
        Ok(value) => put_int64(out, value),
        Err(_) => put_wide(out, value),
    }
}

/// Appends a signed varint, with the same bytes as [`put_int`].
#[inline]
pub(crate) fn put_int64(out: &mut Vec<u8>, value: i64) {
    put_uint(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

fn put_wide(out: &mut Vec<u8>, value: i128) {
    let mut rest = ((value << 1) ^ (value >> 127)) as u128;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Appends a length and the bytes.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_uint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads what the functions above wrote.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> Result<u8, DeltaError> {
        let (&first, rest) = self.0.split_first().ok_or(DeltaError::Truncated)?;
        self.0 = rest;
        Ok(first)
    }

    pub(crate) fn uint(&mut self) -> Result<u64, DeltaError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DeltaError::Malformed("number beyond 64 bits"))
    }

    pub(crate) fn int(&mut self) -> Result<i128, DeltaError> {
        let mut value = 0u128;
        for shift in (0..128).step_by(7) {
            let byte = self.byte()?;
            if shift == 126 && byte > 3 {
                break;
            }
            value |= u128::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok((value >> 1) as i128 ^ -((value & 1) as i128));
            }
        }
        Err(DeltaError::Malformed("number beyond 128 bits"))
    }

    pub(crate) fn int64(&mut self) -> Result<i64, DeltaError> {
        i64::try_from(self.int()?).map_err(|_| DeltaError::Malformed("number beyond 64 bits"))
    }

    pub(crate) fn take(&mut self, len: u64) -> Result<&'a [u8], DeltaError> {
        let len = usize::try_from(len).map_err(|_| DeltaError::Truncated)?;
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(DeltaError::Truncated)?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], DeltaError> {
        let len = self.uint()?;
        self.take(len)
    }

    /// The encoded bytes of the next values, which have these types. Bytes that this accepts can be
    /// read again without an error.
    pub(crate) fn values(&mut self, types: &[ColumnType]) -> Result<&'a [u8], DeltaError> {
        let before = self.0;
        for column in types {
            if column.nullable && !self.present()? {
                continue;
            }
            if column.ty.is_text() {
                check_text(self.bytes()?)?;
            } else {
                self.int()?;
            }
        }
        Ok(&before[..before.len() - self.0.len()])
    }

    /// The byte before a value that may be null.
    pub(crate) fn present(&mut self) -> Result<bool, DeltaError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DeltaError::Malformed("neither null nor a value")),
        }
    }
}

/// Checks that a text from elsewhere is UTF-8, as columns guarantee.
pub(crate) fn check_text(text: &[u8]) -> Result<(), DeltaError> {
    match simdutf8::basic::from_utf8(text) {
        Ok(_) => Ok(()),
        Err(_) => Err(DeltaError::Malformed("text is not UTF-8")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_round_trip(signed: i128, unsigned: u64, tail: Vec<u8>) {
            let mut out = Vec::new();
            put_int(&mut out, signed);
            put_uint(&mut out, unsigned);
            put_bytes(&mut out, &tail);
            let mut reader = Reader(&out);
            prop_assert_eq!(reader.int().unwrap(), signed);
            prop_assert_eq!(reader.uint().unwrap(), unsigned);
            prop_assert_eq!(reader.bytes().unwrap(), &tail[..]);
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let mut reader = Reader(&bytes);
            while reader.int().is_ok() && reader.uint().is_ok() && reader.bytes().is_ok() {}
        }
    }

    #[test]
    fn overlong_numbers_are_refused() {
        assert!(Reader(&[0xff; 30]).uint().is_err());
        assert!(Reader(&[0xff; 30]).int().is_err());
        assert_eq!(Reader(&[0x80]).uint(), Err(DeltaError::Truncated));
    }
}
