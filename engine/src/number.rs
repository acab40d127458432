//! Exact numbers: reads, writes and divides them.

/// Why a field is not a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NumberError {
    /// The field is not spelled like a number.
    Malformed,
    /// There are digits other than zero beyond the scale.
    TooPrecise,
    /// The number is beyond 64 bits.
    OutOfRange,
}

/// Whether each byte is at most 9.
#[inline]
pub(crate) const fn are_digits(values: u64) -> bool {
    (values | values.wrapping_add(0x7676_7676_7676_7676)) & 0x8080_8080_8080_8080 == 0
}

/// Reads a decimal of digits and at most one point, as nearly every field is. The field is the last
/// `len` of these eight bytes, 1 to 8. It reads all digits at once, within a word, since loops over
/// a varying number of bytes are mispredicted (Lemire, "Quickly parsing eight digits", 2018).
/// `None` if only [`parse_decimal`] can tell what the field is.
#[inline]
pub(crate) fn parse_eight(eight: [u8; 8], len: usize, scale: u8) -> Option<i64> {
    const ZEROS: u64 = u64::from_le_bytes([b'0'; 8]);
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    const POINTS: u64 = u64::from_le_bytes([b'.' ^ b'0'; 8]);
    // Turns digits into their values, and the bytes before the field into zeros.
    let before = 64 - 8 * len as u32;
    let mut digits = ((u64::from_le_bytes(eight) ^ ZEROS) >> before) << before;
    let other = digits ^ POINTS;
    let points = !(((other & LOW) + LOW) | other | LOW);
    let mut fraction = 0;
    if points != 0 {
        // Removes the point: the digits before it move up, towards the last byte.
        let point = points.trailing_zeros() - 7;
        let below = digits & ((1 << point) - 1);
        let above = digits & (u64::MAX << point << 7 << 1);
        digits = below << 8 | above;
        fraction = (56 - point) / 8;
    }
    let alone = len as u32 == fraction + u32::from(points != 0);
    if !are_digits(digits) || alone {
        return None;
    }
    let pairs = digits * 10 + (digits >> 8);
    let value = ((pairs & 0x0000_00ff_0000_00ff).wrapping_mul(0x000f_4240_0000_0064))
        .wrapping_add((pairs >> 16 & 0x0000_00ff_0000_00ff).wrapping_mul(0x0000_2710_0000_0001))
        >> 32;
    let value = i64::from(value as u32);
    match u32::from(scale).checked_sub(fraction) {
        Some(missing) if missing <= 10 => Some(value * 10i64.pow(missing)),
        // A whole number exported as `1038745.0`.
        None if scale == 0 && fraction == 1 && value % 10 == 0 => Some(value / 10),
        _ => None,
    }
}

/// Reads a decimal with `scale` fractional digits as its mantissa. With scale 0 it reads whole
/// numbers, including those exported as `1038745.0`.
pub(crate) fn parse_decimal(field: &[u8], scale: u8) -> Result<i64, NumberError> {
    let (negative, digits) = match field {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let mut value = 0i64;
    let mut whole = 0;
    while let Some(digit) = digits.get(whole).map(|b| b.wrapping_sub(b'0'))
        && digit <= 9
    {
        value = push_digit(value, digit)?;
        whole += 1;
    }
    let fraction = match &digits[whole..] {
        [] => &[][..],
        [b'.', fraction @ ..] => fraction,
        _ => return Err(NumberError::Malformed),
    };
    if whole + fraction.len() == 0 {
        return Err(NumberError::Malformed);
    }
    let kept = fraction.len().min(usize::from(scale));
    for byte in &fraction[..kept] {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return Err(NumberError::Malformed);
        }
        value = push_digit(value, digit)?;
    }
    for _ in kept..usize::from(scale) {
        value = push_digit(value, 0)?;
    }
    if !fraction[kept..].iter().all(u8::is_ascii_digit) {
        return Err(NumberError::Malformed);
    }
    if fraction[kept..].iter().any(|b| *b != b'0') {
        return Err(NumberError::TooPrecise);
    }
    // The value was accumulated as a negative number, because their range is larger by one.
    if negative { Ok(value) } else { value.checked_neg().ok_or(NumberError::OutOfRange) }
}

fn push_digit(value: i64, digit: u8) -> Result<i64, NumberError> {
    value
        .checked_mul(10)
        .and_then(|v| v.checked_sub(i64::from(digit)))
        .ok_or(NumberError::OutOfRange)
}

/// Appends a mantissa as a decimal with exactly `scale` fractional digits.
pub(crate) fn write_decimal(value: i128, scale: u8, out: &mut Vec<u8>) {
    let mut digits = [b'0'; 64];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    let least = usize::from(scale) + 1;
    while rest > 0 || digits.len() - at < least {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    if value < 0 {
        out.push(b'-');
    }
    let point = digits.len() - usize::from(scale);
    out.extend_from_slice(&digits[at..point]);
    if scale > 0 {
        out.push(b'.');
        out.extend_from_slice(&digits[point..]);
    }
}

/// `10^exponent`, if it fits.
pub(crate) fn power_of_ten(exponent: u8) -> Option<i128> {
    10i128.checked_pow(u32::from(exponent))
}

/// Quotient rounded half to even; `None` if the divisor is 0 or the result does not fit.
pub(crate) fn divide_half_even(numerator: i128, divisor: i128) -> Option<i128> {
    let quotient = numerator.checked_div(divisor)?;
    let remainder = numerator.checked_rem(divisor)?.unsigned_abs();
    let rest = divisor.unsigned_abs() - remainder;
    let up = remainder > rest || (remainder == rest && quotient % 2 != 0);
    if !up {
        Some(quotient)
    } else if (numerator < 0) == (divisor < 0) {
        quotient.checked_add(1)
    } else {
        quotient.checked_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(value: i128, scale: u8) -> String {
        let mut out = Vec::new();
        write_decimal(value, scale, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn decimals_are_read_exactly() {
        for (field, scale, expected) in [
            ("75", 2, Ok(7500)),
            ("75.5", 2, Ok(7550)),
            ("-0.05", 2, Ok(-5)),
            ("+1.250", 2, Ok(125)),
            ("1038745.0", 0, Ok(1_038_745)),
            (".5", 1, Ok(5)),
            ("5.", 1, Ok(50)),
            ("-9223372036854775808", 0, Ok(i64::MIN)),
            ("9223372036854775808", 0, Err(NumberError::OutOfRange)),
            ("1.255", 2, Err(NumberError::TooPrecise)),
            ("1.5", 0, Err(NumberError::TooPrecise)),
            ("", 2, Err(NumberError::Malformed)),
            (".", 2, Err(NumberError::Malformed)),
            ("-", 2, Err(NumberError::Malformed)),
            ("1,5", 2, Err(NumberError::Malformed)),
            ("1.2x", 1, Err(NumberError::Malformed)),
            ("1e3", 2, Err(NumberError::Malformed)),
            ("nan", 2, Err(NumberError::Malformed)),
            (" 1", 2, Err(NumberError::Malformed)),
        ] {
            assert_eq!(parse_decimal(field.as_bytes(), scale), expected, "{field}");
        }
    }

    proptest! {
        #[test]
        fn eight_bytes_are_read_as_all_others(
            before in proptest::array::uniform8(any::<u8>()),
            field in prop_oneof!["[0-9]{1,8}", "[0-9]{0,4}[.][0-9]{0,3}", "[0-9.+x,-]{1,8}"],
            scale in 0..19u8,
        ) {
            let text = [&before, field.as_bytes()].concat();
            if let Some(value) = parse_eight(*text.last_chunk().unwrap(), field.len(), scale) {
                prop_assert_eq!(parse_decimal(field.as_bytes(), scale), Ok(value));
            }
        }
    }

    #[test]
    fn usual_fields_are_read_within_a_word() {
        for (field, scale, value) in
            [("75.5", 2, 7550), ("8", 0, 8), ("12345678", 0, 12_345_678), ("103874.0", 0, 103_874)]
        {
            let text = format!("transact{field}");
            let eight = *text.as_bytes().last_chunk().unwrap();
            assert_eq!(parse_eight(eight, field.len(), scale), Some(value), "{field}");
        }
    }

    #[test]
    fn decimals_are_written_with_their_scale() {
        assert_eq!(text(7500, 2), "75.00");
        assert_eq!(text(-5, 2), "-0.05");
        assert_eq!(text(0, 0), "0");
        assert_eq!(text(i128::MIN, 0), i128::MIN.to_string());
        assert_eq!(text(12, 18), "0.000000000000000012");
    }

    #[test]
    fn division_rounds_half_to_even() {
        for (n, d, q) in
            [(5, 2, 2), (7, 2, 4), (-5, 2, -2), (-7, 2, -4), (7, -2, -4), (8, 3, 3), (7, 3, 2)]
        {
            assert_eq!(divide_half_even(n, d), Some(q), "{n}/{d}");
        }
        assert_eq!(divide_half_even(1, 0), None);
        assert_eq!(divide_half_even(i128::MIN, -1), None);
    }
}
