//! Slots, the fixed partitions of the key space, and sets of slots. All crates that place or fold
//! data use them.

use serde::{Deserialize, Serialize};

use crate::limits::SLOTS;

/// One partition of a job's keys. Slots below the job's slot count hold rows; [`META_SLOT`] holds
/// records *about* batches and jobs.
///
/// Decoding refuses numbers above [`META_SLOT`], which no set of slots can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8")]
pub struct Slot(pub u8);

impl TryFrom<u8> for Slot {
    type Error = &'static str;

    fn try_from(number: u8) -> Result<Self, Self::Error> {
        if number <= META_SLOT.0 { Ok(Self(number)) } else { Err("there is no such slot") }
    }
}

/// The slot of everything that is not a row: batch summaries, the job log, results. Its owners are
/// the owners of the job; the first live one is the job's coordinator.
pub const META_SLOT: Slot = Slot(SLOTS as u8);

/// A set of slots, the meta slot included. Decoding refuses sets of more than [`SlotSet::ALL`].
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(try_from = "u128")]
pub struct SlotSet(pub u128);

impl TryFrom<u128> for SlotSet {
    type Error = &'static str;

    fn try_from(bits: u128) -> Result<Self, Self::Error> {
        let set = Self(bits);
        if Self::ALL.contains_all(set) { Ok(set) } else { Err("there are no such slots") }
    }
}

impl SlotSet {
    /// No slot.
    pub const EMPTY: Self = Self(0);
    /// Only the meta slot.
    pub const META: Self = Self(1 << SLOTS);
    /// All possible slots.
    pub const ALL: Self = Self((1 << (SLOTS + 1)) - 1);

    /// Slots 0 to `count - 1`.
    #[must_use]
    pub const fn first(count: usize) -> Self {
        assert!(count <= SLOTS);
        Self((1 << count) - 1)
    }

    /// A set of one slot.
    #[must_use]
    pub const fn one(slot: Slot) -> Self {
        Self(1 << slot.0)
    }

    /// Adds a slot.
    pub const fn insert(&mut self, slot: Slot) {
        self.0 |= 1 << slot.0;
    }

    /// Whether the slot is in the set.
    #[must_use]
    pub const fn contains(self, slot: Slot) -> bool {
        self.0 >> slot.0 & 1 == 1
    }

    /// Whether every slot of `other` is in this set.
    #[must_use]
    pub const fn contains_all(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// Slots in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Slots in either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Slots of this set that are not in `other`.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether there is no slot in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many slots are in it.
    #[must_use]
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// The position of `slot` among the members of the set, which must contain it.
    #[must_use]
    pub const fn rank(self, slot: Slot) -> usize {
        (self.0 & ((1 << slot.0) - 1)).count_ones() as usize
    }

    /// Its slots in ascending order.
    pub fn iter(self) -> impl Iterator<Item = Slot> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            if rest == 0 {
                return None;
            }
            let slot = rest.trailing_zeros() as u8;
            rest &= rest - 1;
            Some(Slot(slot))
        })
    }
}

impl FromIterator<Slot> for SlotSet {
    fn from_iter<I: IntoIterator<Item = Slot>>(slots: I) -> Self {
        let mut set = Self::EMPTY;
        for slot in slots {
            set.insert(slot);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rank_is_the_position_in_iteration_order() {
        let set: SlotSet = [Slot(3), Slot(0), META_SLOT, Slot(63)].into_iter().collect();
        assert_eq!(set.len(), 4);
        for (position, slot) in set.iter().enumerate() {
            assert_eq!(set.rank(slot), position);
        }
        assert!(SlotSet::ALL.contains(META_SLOT));
        assert!(!SlotSet::first(64).contains(META_SLOT));
    }

    #[test]
    fn slots_that_do_not_exist_are_refused() {
        let slot = |number: u8| crate::frame::from_postcard::<Slot>(&[number]);
        assert_eq!(slot(META_SLOT.0), Ok(META_SLOT));
        // From 128 on a shift by the number would overflow.
        assert!(slot(META_SLOT.0 + 1).is_err() && slot(128).is_err() && slot(255).is_err());
        let set = |set: SlotSet| crate::frame::from_postcard(&crate::frame::to_postcard(&set));
        assert_eq!(set(SlotSet::ALL), Ok(SlotSet::ALL));
        assert!(set(SlotSet(1 << (SLOTS + 1))).is_err());
    }
}
