//! Types of values. While rows are processed, every value except a text is a 64-bit number (128-bit
//! once summed): a decimal is its mantissa, a date is days and a timestamp microseconds since
//! 1970-01-01.

use std::fmt;

use crate::{calendar, number};

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// Whole number, 64 bits.
    Int,
    /// Exact decimal with this many fractional digits, as a 64-bit mantissa.
    Decimal(u8),
    /// UTF-8 text.
    Text,
    /// Calendar day.
    Date,
    /// Day and time of day, without a zone, to the microsecond.
    Timestamp,
    /// Time of day.
    Time,
    /// Month of a year, written `2024-01`.
    YearMonth,
    /// Half of a year, written `2024-H1`.
    YearHalf,
    /// Truth value; exists only inside expressions.
    Bool,
}

/// Most fractional digits of a decimal.
pub(crate) const MAX_SCALE: u8 = 18;

/// A type, and whether values may be null.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ColumnType {
    /// The type.
    pub ty: Type,
    /// Whether an empty field is read as null.
    pub nullable: bool,
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int => f.write_str("int"),
            Self::Decimal(scale) => write!(f, "decimal({scale})"),
            Self::Text => f.write_str("text"),
            Self::Date => f.write_str("date"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Time => f.write_str("time"),
            Self::YearMonth => f.write_str("year_month"),
            Self::YearHalf => f.write_str("year_half"),
            Self::Bool => f.write_str("bool"),
        }
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.ty, if self.nullable { "?" } else { "" })
    }
}

impl ColumnType {
    /// Parses the spelling in a plan: `int`, `decimal(3)?`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (name, nullable) = match text.strip_suffix('?') {
            Some(name) => (name, true),
            None => (text, false),
        };
        let ty = match name {
            "int" => Type::Int,
            "decimal" => Type::Decimal(2),
            "text" => Type::Text,
            "date" => Type::Date,
            "timestamp" => Type::Timestamp,
            _ => {
                let scale = name.strip_prefix("decimal(")?.strip_suffix(')')?.parse().ok()?;
                if scale > MAX_SCALE {
                    return None;
                }
                Type::Decimal(scale)
            }
        };
        Some(Self { ty, nullable })
    }
}

impl Type {
    /// Fractional digits, for numbers.
    pub(crate) const fn scale(self) -> Option<u8> {
        match self {
            Self::Int => Some(0),
            Self::Decimal(scale) => Some(scale),
            _ => None,
        }
    }

    /// Whether values are stored as texts, not as numbers.
    pub(crate) const fn is_text(self) -> bool {
        matches!(self, Self::Text)
    }

    /// Appends a value that is not a text in the format of results.
    pub(crate) fn write(self, value: i128, out: &mut Vec<u8>) {
        let small = i64::try_from(value).unwrap_or(i64::MAX);
        match self {
            Self::Int | Self::Text => number::write_decimal(value, 0, out),
            Self::Decimal(scale) => number::write_decimal(value, scale, out),
            Self::Date => calendar::write_date(small, out),
            Self::Timestamp => calendar::write_timestamp(small, out),
            Self::Time => calendar::write_time(small, out),
            Self::YearMonth => calendar::write_year_month(small, out),
            Self::YearHalf => calendar::write_year_half(small, out),
            Self::Bool => out.extend_from_slice(if value == 0 { b"false" } else { b"true" }),
        }
    }
}
