//! Groups the rows of a batch. Keys are compared in place; nothing is encoded per row. Mapping
//! calls it.

use cortado_protocol::content_hash;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::batch::{Column, Texts, VALUE, Values};

/// Most combinations of keys that are grouped without hashing.
const PLACES: i64 = 1 << 12;
/// Marks a place without a group.
const NONE: u32 = u32::MAX;

/// The groups of some rows.
pub(crate) struct Groups {
    /// The group of each row, in the order of `rows`.
    pub(crate) of_row: Vec<u32>,
    /// The first row of each group.
    pub(crate) first_row: Vec<u32>,
}

/// Groups `rows` by the key columns, in the order of first appearance.
pub(crate) fn group_rows(rows: &[u32], keys: &[&Column], texts: Texts<'_>) -> Groups {
    let numbers: Option<Vec<_>> = keys.iter().map(|key| plain_numbers(key, rows)).collect();
    if let Some(groups) = numbers.as_ref().and_then(|numbers| by_place(rows, numbers)) {
        return groups;
    }
    let hashes = hash_rows(rows, keys, texts);
    match numbers {
        Some(numbers) => by_hash(rows, &hashes, |a, b| {
            numbers.iter().all(|values| values[a as usize] == values[b as usize])
        }),
        None => {
            by_hash(rows, &hashes, |a, b| keys.iter().all(|key| equal_values(key, a, b, texts)))
        }
    }
}

/// The numbers of a key column, if it has one in each of these rows.
fn plain_numbers<'a>(key: &'a Column, rows: &[u32]) -> Option<&'a [i64]> {
    let Values::Numbers(values) = &key.values else { return None };
    let plain = key.states.is_empty() || rows.iter().all(|row| key.state(*row as usize) == VALUE);
    plain.then_some(values)
}

/// Groups by keys with few possible values, such as months and stores: an array has a place for
/// each combination of values. `None` if there are too many combinations.
fn by_place(rows: &[u32], keys: &[&[i64]]) -> Option<Groups> {
    let mut possible = 1;
    let mut ranges = Vec::with_capacity(keys.len());
    for values in keys {
        let of_rows = || rows.iter().map(|row| values[*row as usize]);
        let (least, most) = (of_rows().min()?, of_rows().max()?);
        let count = most.checked_sub(least)?.checked_add(1)?;
        possible = count.checked_mul(possible).filter(|possible| *possible <= PLACES)?;
        ranges.push((values, least, count as u32));
    }
    let mut places = vec![0u32; rows.len()];
    for (values, least, count) in ranges {
        for (place, row) in places.iter_mut().zip(rows) {
            *place = *place * count + (values[*row as usize] - least) as u32;
        }
    }
    let mut of_place = vec![NONE; possible as usize];
    let mut first_row = Vec::new();
    let mut of_row = places;
    for (place, row) in of_row.iter_mut().zip(rows) {
        let group = &mut of_place[*place as usize];
        if *group == NONE {
            *group = first_row.len() as u32;
            first_row.push(*row);
        }
        *place = *group;
    }
    Some(Groups { of_row, first_row })
}

/// Groups rows by the hashes of their keys and by `equal`, which tells whether two rows have equal
/// keys.
fn by_hash(rows: &[u32], hashes: &[u64], equal: impl Fn(u32, u32) -> bool) -> Groups {
    // Room for one group per row costs less than growing.
    let mut table: HashTable<u32> = HashTable::with_capacity(rows.len());
    let mut first_row: Vec<u32> = Vec::new();
    let mut first_hash: Vec<u64> = Vec::new();
    let mut of_row = Vec::with_capacity(rows.len());
    for (&row, &hash) in rows.iter().zip(hashes) {
        let same = |group: &u32| {
            let other = *group as usize;
            first_hash[other] == hash && equal(first_row[other], row)
        };
        let group = match table.entry(hash, same, |group| first_hash[*group as usize]) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                let group = first_row.len() as u32;
                entry.insert(group);
                first_row.push(row);
                first_hash.push(hash);
                group
            }
        };
        of_row.push(group);
    }
    Groups { of_row, first_row }
}

fn equal_values(key: &Column, a: u32, b: u32, texts: Texts<'_>) -> bool {
    let (a, b) = (a as usize, b as usize);
    if key.state(a) != key.state(b) {
        return false;
    }
    if key.state(a) != VALUE {
        return true;
    }
    match &key.values {
        Values::Numbers(values) => values[a] == values[b],
        Values::Texts(spans) => texts.get(spans[a]) == texts.get(spans[b]),
    }
}

/// A hash of each row's keys, column by column. It is used for this batch only.
fn hash_rows(rows: &[u32], keys: &[&Column], texts: Texts<'_>) -> Vec<u64> {
    let mut hashes = vec![0; rows.len()];
    for key in keys {
        if let Some(values) = plain_numbers(key, rows) {
            for (hash, row) in hashes.iter_mut().zip(rows) {
                *hash = mix(*hash ^ values[*row as usize] as u64);
            }
            continue;
        }
        for (hash, &row) in hashes.iter_mut().zip(rows) {
            let row = row as usize;
            let value = match (&key.values, key.state(row)) {
                (_, state) if state != VALUE => u64::from(state) << 62 | 0x5bd1,
                (Values::Numbers(values), _) => values[row] as u64,
                (Values::Texts(spans), _) => content_hash(texts.get(spans[row])),
            };
            *hash = mix(*hash ^ value);
        }
    }
    hashes
}

/// Folded multiplication: every bit of the product's halves depends on every bit of the value.
pub(crate) fn mix(value: u64) -> u64 {
    let product = u128::from(value ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93_u128;
    (product as u64) ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn all_ways_of_grouping_give_the_same_groups(
            keys in proptest::collection::vec((-3..4i64, 0..1_000_000_000i64), 1..200),
            near in any::<bool>(),
        ) {
            let count = keys.len() as u32;
            let second = |value: i64| if near { value % 5 } else { value };
            let column = |values| Column { values: Values::Numbers(values), states: Vec::new() };
            let columns = [
                column(keys.iter().map(|key| key.0).collect()),
                column(keys.iter().map(|key| second(key.1)).collect()),
            ];
            let keys: Vec<_> = columns.iter().collect();
            let rows: Vec<u32> = (0..count).filter(|row| row % 7 != 3).collect();
            let texts = Texts { payload: &[], side: &[] };
            let hashes = hash_rows(&rows, &keys, texts);
            let expected = by_hash(&rows, &hashes, |a, b| {
                keys.iter().all(|key| equal_values(key, a, b, texts))
            });
            let found = group_rows(&rows, &keys, texts);
            prop_assert_eq!(found.of_row, expected.of_row);
            prop_assert_eq!(found.first_row, expected.first_row);
        }
    }
}
