//! Grouping the rows of a batch: keys are compared where they are, nothing is encoded per row.

use cortado_protocol::content_hash;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::batch::{Column, Texts, VALUE, Values};

/// The groups of some rows.
pub(crate) struct Groups {
    /// The group of each row, in the order of the rows given.
    pub(crate) of_row: Vec<u32>,
    /// A row of each group: its first.
    pub(crate) first_row: Vec<u32>,
}

/// Groups `rows` by the key columns, in the order of first appearance.
pub(crate) fn group_rows(rows: &[u32], keys: &[&Column], texts: Texts<'_>) -> Groups {
    let hashes = hash_rows(rows, keys, texts);
    let mut table: HashTable<u32> = HashTable::new();
    let mut first_row: Vec<u32> = Vec::new();
    let mut first_hash: Vec<u64> = Vec::new();
    let mut of_row = Vec::with_capacity(rows.len());
    for (&row, &hash) in rows.iter().zip(&hashes) {
        let equal = |group: &u32| {
            let other = *group as usize;
            first_hash[other] == hash
                && keys.iter().all(|key| equal_values(key, first_row[other], row, texts))
        };
        let group = match table.entry(hash, equal, |group| first_hash[*group as usize]) {
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

/// A hash of each row's keys, column by column. It never leaves this batch.
fn hash_rows(rows: &[u32], keys: &[&Column], texts: Texts<'_>) -> Vec<u64> {
    let mut hashes = vec![0; rows.len()];
    for key in keys {
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
fn mix(value: u64) -> u64 {
    let product = u128::from(value ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93_u128;
    (product as u64) ^ (product >> 64) as u64
}
