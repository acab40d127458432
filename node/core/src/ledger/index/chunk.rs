//! Sixty-four numbers of an edge: the records of each, packed.

use std::ops::Range;

use cortado_protocol::SlotSet;
use cortado_protocol::entry::{EntryHead, Source};

use crate::record::{Group, RecordRef};

/// Numbers of a chunk.
pub(super) const NUMBERS: u64 = Group::BATCHES;
/// A segment that no log has: the record is on its way there.
const PENDING: u32 = u32::MAX;

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On its way into the log, under this ticket.
    Pending(u64),
    /// In the log, fsynced.
    Durable(RecordRef),
}

/// A record: an entry, or the part of it that this node was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    /// What the entry was made from.
    pub(super) source: Source,
    /// A sum over the deltas of all its slots; see [`check_of`].
    check: u64,
    /// Segment, offset and length, or [`PENDING`] and a ticket in two halves.
    place: [u32; 3],
    /// Its number in the chunk.
    low: u8,
    /// It spoke for more slots once: `check` can't be compared any more.
    reduced: bool,
    /// Which of the chunk's sets of slots it speaks for.
    set: u16,
}

/// A sum over the slots and hashes of an entry's deltas. Slots with empty deltas add nothing. Sums
/// of equal sets of slots are equal if, and but for chance only if, the deltas are.
fn check_of(head: &EntryHead, slots: SlotSet) -> u64 {
    let parts = head.parts.iter().filter(|part| slots.contains(part.slot));
    parts.fold(0, |sum, part| {
        // The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
        let mut mixed = part.hash.wrapping_add(u64::from(part.slot.0) << 56 | 1);
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        sum.wrapping_add(mixed ^ mixed >> 31)
    })
}

fn pack(place: Place) -> [u32; 3] {
    match place {
        Place::Durable(RecordRef { segment, offset, len }) => [segment, offset, len],
        Place::Pending(ticket) => [PENDING, (ticket >> 32) as u32, ticket as u32],
    }
}

impl Held {
    /// Where it is in the log, if it is durable.
    pub(super) fn durable(&self) -> Option<RecordRef> {
        let [segment, offset, len] = self.place;
        self.is_durable().then_some(RecordRef { segment, offset, len })
    }

    pub(super) fn is_durable(&self) -> bool {
        self.place[0] != PENDING
    }

    /// Whether the deltas of an entry are those of this record, as far as that can be compared;
    /// `slots` are those that the record speaks for.
    pub(super) fn agrees(&self, slots: SlotSet, head: &EntryHead) -> bool {
        let comparable = !self.reduced && head.slots.contains_all(slots);
        !comparable || check_of(head, slots) == self.check
    }
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    /// The sets of slots that records of the chunk speak for: as a rule one.
    sets: Vec<SlotSet>,
    /// In number order. Records of one number speak for each slot at most once.
    held: Vec<Held>,
}

impl Chunk {
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    fn set(&mut self, slots: SlotSet) -> u16 {
        let at = self.sets.iter().position(|set| *set == slots);
        let at = at.unwrap_or_else(|| {
            self.sets.push(slots);
            self.sets.len() - 1
        });
        // 64 numbers of 129 slots each need no more.
        at as u16
    }

    fn slots(&self, held: &Held) -> SlotSet {
        self.sets[usize::from(held.set)]
    }

    fn range(&self, number: u64) -> Range<usize> {
        let low = (number % NUMBERS) as u8;
        let start = self.held.partition_point(|held| held.low < low);
        let len = self.held[start..].iter().take_while(|held| held.low == low).count();
        start..start + len
    }

    /// The records of a number, and the slots they speak for.
    pub(super) fn of(&self, number: u64) -> impl Iterator<Item = (&Held, SlotSet)> {
        self.held[self.range(number)].iter().map(|held| (held, self.slots(held)))
    }

    /// All records with their numbers; `first` is the chunk's first number.
    pub(super) fn all(&self, first: u64) -> impl Iterator<Item = (u64, &Held, SlotSet)> {
        let held = self.held.iter();
        held.map(move |held| (first + u64::from(held.low), held, self.slots(held)))
    }

    /// Visits the numbers in runs of which the same slots are held.
    pub(super) fn runs(
        &self,
        first: u64,
        durable_only: bool,
        mut visit: impl FnMut(Range<u64>, SlotSet),
    ) {
        let mut run = (first..first, SlotSet::EMPTY);
        for held in self.held.chunk_by(|a, b| a.low == b.low) {
            let counted = held.iter().filter(|held| !durable_only || held.is_durable());
            let slots = counted.fold(SlotSet::EMPTY, |all, held| all.or(self.slots(held)));
            let number = first + u64::from(held[0].low);
            if run.0.end == number && run.1 == slots {
                run.0.end += 1;
            } else {
                visit(std::mem::replace(&mut run.0, number..number + 1), run.1);
                run.1 = slots;
            }
        }
        visit(run.0, run.1);
    }

    pub(super) fn insert(&mut self, head: &EntryHead, place: Place) {
        let held = Held {
            source: head.source,
            check: check_of(head, head.slots),
            place: pack(place),
            low: (head.key.number % NUMBERS) as u8,
            reduced: false,
            set: self.set(head.slots),
        };
        let at = self.range(head.key.number).end;
        self.held.insert(at, held);
    }

    /// Changes a record's place, or takes the record out. Returns whether it was here.
    pub(super) fn replace(&mut self, number: u64, from: Place, to: Option<Place>) -> bool {
        let (range, from) = (self.range(number), pack(from));
        let Some(at) = self.held[range.clone()].iter().position(|held| held.place == from) else {
            return false;
        };
        match to {
            Some(to) => self.held[range.start + at].place = pack(to),
            None => drop(self.held.remove(range.start + at)),
        }
        true
    }

    pub(super) fn all_slots(&self) -> SlotSet {
        self.held.iter().fold(SlotSet::EMPTY, |all, held| all.or(self.slots(held)))
    }

    /// The last number of which there is a record, counted from the chunk's first.
    pub(super) fn last(&self) -> Option<u8> {
        self.held.last().map(|held| held.low)
    }

    /// Drops the durable records below a number, counted from the chunk's first.
    pub(super) fn drop_below(&mut self, number: u64) {
        self.held.retain(|held| u64::from(held.low) >= number || !held.is_durable());
    }

    /// Durable records speak for these slots no more.
    pub(super) fn drop_slots(&mut self, slots: SlotSet) {
        let all = std::mem::take(&mut self.held);
        let sets = std::mem::take(&mut self.sets);
        for mut held in all {
            let mut of = sets[usize::from(held.set)];
            if held.is_durable() && !of.and(slots).is_empty() {
                of = of.minus(slots);
                held.reduced = true;
            }
            if !of.is_empty() {
                held.set = self.set(of);
                self.held.push(held);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use cortado_protocol::{Edge, EntryKey, JobId};

    use super::*;

    #[test]
    fn a_full_chunk_takes_some_forty_bytes_for_each_number() {
        let mut chunk = Chunk::default();
        for number in 0..NUMBERS {
            let key = EntryKey { job: JobId(1), edge: Edge::table(0), number };
            let (slots, parts) = (SlotSet::ALL, Vec::new());
            let head = EntryHead { key, source: Source::default(), slots, parts };
            chunk.insert(&head, Place::Pending(number));
        }
        let bytes = size_of::<Chunk>()
            + chunk.held.capacity() * size_of::<Held>()
            + chunk.sets.capacity() * size_of::<SlotSet>();
        assert!(bytes <= 46 * NUMBERS as usize, "{bytes}");
    }
}
