//! Finds commas and line breaks in a text without quotes, a block of bytes at a time.
//!
//! In exports separators are only a few bytes apart. A new search for each one costs more than a
//! comparison of all bytes; a block's separators become the bits of one number (as in Langdale and
//! Lemire, "Parsing Gigabytes of JSON per Second", VLDB Journal 2019).

use wide::u8x16;

const BLOCK: usize = 64;
const LANES: usize = 16;

/// Set in the position of a line break.
pub(crate) const BREAK: u32 = 1 << 31;

/// The positions of all commas and line breaks in order; those of line breaks have [`BREAK`] set.
/// The text must have less than 2 GiB, and should be in the processor's caches.
pub(crate) fn separators(text: &[u8]) -> Vec<u32> {
    let mut places = Vec::with_capacity(text.len() / 8 + BLOCK);
    let (blocks, rest) = text.as_chunks::<BLOCK>();
    let mut base = 0;
    for block in blocks {
        Masks::new(block).append_to(&mut places, base);
        base += BLOCK as u32;
    }
    // The zeros at the end are not separators.
    let mut block = [0; BLOCK];
    block[..rest.len()].copy_from_slice(rest);
    Masks::new(&block).append_to(&mut places, base);
    places
}

/// A bit per byte of a block.
struct Masks {
    separators: u64,
    breaks: u64,
}

impl Masks {
    #[inline]
    fn new(block: &[u8; BLOCK]) -> Self {
        let (mut separators, mut breaks) = (0, 0);
        for (at, lanes) in block.as_chunks::<LANES>().0.iter().enumerate() {
            let lanes = u8x16::new(*lanes);
            let broken = lanes.simd_eq(u8x16::splat(b'\n'));
            let separated = broken | lanes.simd_eq(u8x16::splat(b','));
            separators |= u64::from(separated.to_bitmask()) << (LANES * at);
            breaks |= u64::from(broken.to_bitmask()) << (LANES * at);
        }
        Self { separators, breaks }
    }

    /// Appends the positions of the separators. It always writes twelve, even if there are fewer:
    /// their number can't be predicted, and a wrong prediction costs more than the rest.
    #[inline]
    fn append_to(mut self, places: &mut Vec<u32>, base: u32) {
        let end = places.len() + self.separators.count_ones() as usize;
        while places.len() < end {
            places.extend_from_slice(&std::array::from_fn::<u32, 12, _>(|_| {
                let bit = self.separators.trailing_zeros();
                self.separators &= self.separators.wrapping_sub(1);
                (base + bit) | (self.breaks.wrapping_shr(bit) as u32) << 31
            }));
        }
        places.truncate(end);
    }
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
            let place = |at: usize| at as u32 | if text[at] == b'\n' { BREAK } else { 0 };
            let expected: Vec<_> = memchr2_iter(b',', b'\n', &text).map(place).collect();
            prop_assert_eq!(separators(&text), expected);
        }
    }
}
