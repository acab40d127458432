use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use cortado_protocol::entry::{Entry, Source};
use cortado_protocol::{EntryKey, JobId, META_SLOT};
use proptest::prelude::*;

use super::*;

const EDGE: Edge = Edge::table(0);

fn record(offset: u32) -> RecordRef {
    RecordRef { segment: 1, offset, len: 10 }
}

/// An entry of some slots. The delta of a slot depends on number and slot alone, as a mapper's does.
fn entry(number: u64, slots: u8) -> Entry {
    let all = (0..8).map(Slot).filter(|slot| slots >> slot.0 & 1 == 1);
    let delta = |slot: Slot| match (number + u64::from(slot.0)) % 3 {
        0 => Bytes::new(),
        _ => Bytes::from(format!("{number}/{}", slot.0)),
    };
    let deltas: Vec<_> = all.clone().map(|slot| (slot, delta(slot))).collect();
    let key = EntryKey { job: JobId(1), edge: EDGE, number };
    Entry::new(key, Source::default(), all.collect(), &deltas)
}

/// All numbers of some slots.
fn all_of(slots: SlotSet) -> EdgeCoverage {
    EdgeCoverage { edge: EDGE, slots, coverage: Coverage::range(0, u64::MAX) }
}

/// Inserts what is new of an entry, as the store does.
fn take(edge: &mut EdgeIndex, entry: &Entry, place: Place) {
    match edge.compare(&entry.head) {
        Comparison::New(fresh) => edge.insert(&entry.restrict(fresh).head, place),
        Comparison::Known => {}
        Comparison::Conflict(slot) => panic!("equal entries conflict in {slot:?}"),
    }
}

fn pairs(parts: &[EdgeCoverage]) -> BTreeSet<(u64, Slot)> {
    let each = |part: &EdgeCoverage| {
        let slots: Vec<_> = part.slots.iter().collect();
        let numbers: Vec<_> = part.coverage.iter().collect();
        numbers.into_iter().flat_map(move |n| slots.clone().into_iter().map(move |s| (n, s)))
    };
    let all: Vec<_> = parts.iter().flat_map(each).collect();
    let distinct: BTreeSet<_> = all.iter().copied().collect();
    assert_eq!(all.len(), distinct.len(), "nothing is said twice");
    distinct
}

proptest! {
    /// The index says of each number and slot what a plain set of pairs says, and names for each
    /// exactly one record.
    #[test]
    fn it_is_a_set_of_numbers_and_slots(
        entries in prop::collection::vec((0u64..6, any::<u8>(), any::<bool>()), 0..20),
        asked in any::<u8>(),
        dropped in any::<u8>(),
    ) {
        let mut held = JobIndex::default();
        let mut all = BTreeSet::new();
        let mut durable = BTreeSet::new();
        for (at, (number, slots, synced)) in entries.iter().enumerate() {
            let entry = entry(*number, *slots);
            let place = if *synced { Place::Durable(record(at as u32)) } else { Place::Pending(at as u64) };
            for slot in entry.head.slots.iter() {
                if all.insert((*number, slot)) && *synced {
                    durable.insert((*number, slot));
                }
            }
            take(held.edge_mut(EDGE), &entry, place);
        }
        let asked = SlotSet(u128::from(asked));
        let only = |set: &BTreeSet<(u64, Slot)>| -> BTreeSet<_> {
            set.iter().copied().filter(|(_, slot)| asked.contains(*slot)).collect()
        };
        let edge = held.edge_mut(EDGE);
        prop_assert_eq!(pairs(&edge.coverage(EDGE, asked, false)), only(&all));
        prop_assert_eq!(pairs(&edge.coverage(EDGE, asked, true)), only(&durable));
        let whole = [EdgeCoverage { edge: EDGE, slots: asked, coverage: Coverage::range(0, 6) }];
        let wanted: BTreeSet<_> =
            (0..6).flat_map(|n| asked.iter().map(move |slot| (n, slot))).collect();
        prop_assert_eq!(pairs(&edge.missing(&whole)), &wanted - &only(&all));
        let mut named = BTreeMap::new();
        for (number, record, slots) in edge.wanted(&all_of(asked)) {
            for slot in slots.iter() {
                prop_assert!(named.insert((number, slot), record).is_none(), "one record each");
            }
        }
        prop_assert_eq!(named.keys().copied().collect::<BTreeSet<_>>(), only(&durable));

        // What is dropped and fetched again is still counted once.
        held.drop_slots(SlotSet(u128::from(dropped)));
        for (at, (number, slots, _)) in entries.iter().enumerate() {
            take(held.edge_mut(EDGE), &entry(*number, *slots), Place::Durable(record(100 + at as u32)));
        }
        let mut seen = BTreeSet::new();
        for (number, _, slots) in held.edge_mut(EDGE).wanted(&all_of(SlotSet::ALL)) {
            for slot in slots.iter() {
                prop_assert!(seen.insert((number, slot)));
            }
        }
        let pending = &all - &durable;
        let kept = |pair: &&(u64, Slot)| pending.contains(pair);
        prop_assert_eq!(&seen | &pending.iter().filter(kept).copied().collect(), all);
    }
}

#[test]
fn another_content_is_a_conflict_even_for_one_slot() {
    let mut edge = EdgeIndex::default();
    take(&mut edge, &entry(1, 0b11), Place::Pending(1));
    let key = entry(1, 0).head.key;
    let other = Entry::new(
        key,
        Source::default(),
        SlotSet::first(3),
        &[(Slot(1), Bytes::from_static(b"other")), (Slot(2), Bytes::from_static(b"new"))],
    );
    assert!(matches!(edge.compare(&other.head), Comparison::Conflict(_)));
}

#[test]
fn an_append_becomes_durable_or_is_gone() {
    let mut edge = EdgeIndex::default();
    take(&mut edge, &entry(1, 0b1), Place::Pending(7));
    assert!(edge.has_pending(SlotSet::ALL));
    assert!(edge.wanted(&all_of(SlotSet::ALL)).next().is_none());
    edge.durable(1, 7, record(0));
    assert!(!edge.has_pending(SlotSet::ALL));
    assert_eq!(edge.wanted(&all_of(SlotSet::ALL)).count(), 1);
    edge.remove(1, Place::Durable(record(0)));
    assert!(edge.all_slots().is_empty());
}

#[test]
fn sources_are_told_of_the_meta_slot_only() {
    let mut edge = EdgeIndex::default();
    take(&mut edge, &entry(1, 0b1), Place::Durable(record(0)));
    assert_eq!(edge.sources(0).count(), 0);
    let key = EntryKey { job: JobId(1), edge: EDGE, number: 2 };
    let source = Source { content: 5, bytes: 6, rows: 7 };
    let meta = Entry::new(key, source, SlotSet::META, &[(META_SLOT, Bytes::from_static(b"m"))]);
    take(&mut edge, &meta, Place::Durable(record(1)));
    assert_eq!(edge.sources(0).collect::<Vec<_>>(), vec![(2, source)]);
}
