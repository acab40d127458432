//! Exact numbers: reading, writing, dividing.

/// Why a field is not a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NumberError {
    /// Not the spelling of a number.
    Malformed,
    /// Digits other than zero beyond the scale.
    TooPrecise,
    /// Beyond 64 bits.
    OutOfRange,
}

/// Reads a decimal with `scale` fractional digits as its mantissa. With scale 0 this reads whole
/// numbers, also those exported as `1038745.0`.
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
    // Accumulated as a negative number, whose range is larger by one.
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
