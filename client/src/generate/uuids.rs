//! Identifiers of what is generated.

use uuid::{Builder, Uuid};

/// 128 bits in the form of a random UUID (RFC 9562 §5.4).
pub(super) fn uuid_of(high: u64, low: u64) -> Uuid {
    let bits = u128::from(high) << 64 | u128::from(low);
    Builder::from_random_bytes(bits.to_be_bytes()).into_uuid()
}
