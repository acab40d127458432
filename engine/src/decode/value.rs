//! Why a value can't be read.

use crate::number::NumberError;

/// Why a value can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ValueProblem {
    Empty,
    NotUtf8,
    Malformed,
    TooPrecise,
    OutOfRange,
}

impl From<NumberError> for ValueProblem {
    fn from(error: NumberError) -> Self {
        match error {
            NumberError::Malformed => Self::Malformed,
            NumberError::TooPrecise => Self::TooPrecise,
            NumberError::OutOfRange => Self::OutOfRange,
        }
    }
}
