//! Hashes for messages and logs, the same on every machine.

/// Hash of a client's name (the identity in its certificate), by which nodes tell clients apart.
/// Never 0, which means that the client is not known.
#[must_use]
pub fn client_key(identity: &str) -> u64 {
    content_hash(identity.as_bytes()).max(1)
}

/// Two content hashes side by side, where 64 bits are too few.
#[must_use]
pub fn wide_hash(bytes: &[u8]) -> u128 {
    let second = content_hash(&[b"second half", bytes].concat());
    u128::from(content_hash(bytes)) << 64 | u128::from(second)
}

/// Stable 64-bit content hash (XXH3, seed 0) used for batches, deltas and plans.
#[must_use]
pub fn content_hash(bytes: &[u8]) -> u64 {
    twox_hash::XxHash3_64::oneshot(bytes)
}
