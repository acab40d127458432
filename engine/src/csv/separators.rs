//! Commas and line breaks of a text without quotes, a block of bytes at a time.
//!
//! Separators of exports stand a few bytes apart, where searching anew for each costs more than
//! comparing all bytes; a block's separators become the bits of one number. Within a word all bytes
//! are compared at once (Lamport, "Multiple Byte Processing with Full-Word Instructions", CACM 1975).

const BLOCK: usize = 64;
const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;

/// The places of commas and line breaks, in order.
pub(crate) struct Separators<'a> {
    text: &'a [u8],
    /// Where the block after the present one starts.
    next: usize,
    /// Where the present block starts.
    base: usize,
    /// The separators of the present block that are still to be told.
    open: u64,
}

impl<'a> Separators<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Self { text, next: 0, base: 0, open: 0 }
    }

    /// Goes to the next block with a separator; false if there is none.
    fn advance(&mut self) -> bool {
        while self.next < self.text.len() {
            self.base = self.next;
            let rest = &self.text[self.base..];
            self.open = if let Some(block) = rest.first_chunk::<BLOCK>() {
                separators(block)
            } else {
                // Zeros separate nothing.
                let mut block = [0; BLOCK];
                block[..rest.len()].copy_from_slice(rest);
                separators(&block)
            };
            self.next += BLOCK;
            if self.open != 0 {
                return true;
            }
        }
        false
    }
}

impl Iterator for Separators<'_> {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        if self.open == 0 && !self.advance() {
            return None;
        }
        let bit = self.open.trailing_zeros() as usize;
        self.open &= self.open - 1;
        Some(self.base + bit)
    }
}

/// A bit per byte of the block: whether it is a separator.
fn separators(block: &[u8; BLOCK]) -> u64 {
    let mut bits = 0;
    for (at, word) in block.as_chunks::<8>().0.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = equal(word, b',') | equal(word, b'\n');
        // Gathers the top bits of the eight bytes.
        let byte = (found >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        bits |= byte << (8 * at);
    }
    bits
}

/// The top bit of each byte that is `byte`, and no other.
const fn equal(word: u64, byte: u8) -> u64 {
    let zero = word ^ (0x0101_0101_0101_0101 * byte as u64);
    !(((zero & LOW) + LOW) | zero | LOW)
}

#[cfg(test)]
mod tests {
    use memchr::memchr2_iter;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn finds_what_a_search_for_each_finds(
            text in proptest::collection::vec(
                prop_oneof![Just(b','), Just(b'\n'), Just(b'-'), Just(b'\x0b'), Just(0xac), any::<u8>()],
                0..300,
            ),
        ) {
            let found: Vec<_> = Separators::new(&text).collect();
            prop_assert_eq!(found, memchr2_iter(b',', b'\n', &text).collect::<Vec<_>>());
        }
    }
}
