//! Folds the deltas of a slot into its state, by an operation that is commutative and associative.
//! Owners call it once a slot's ledger is complete.

use bytes::Bytes;
use cortado_protocol::content_hash;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::accumulate::Accumulator;
use crate::plan::{Plan, Query, Shape, Stage};
use crate::rows::Rows;
use crate::tally::Tally;
use crate::types::ColumnType;
use crate::wire::{DeltaError, Reader, put_bytes, put_uint};

/// Folds the deltas of one slot, of all tables, in any order.
pub struct SlotFold {
    plan: Plan,
    stages: Vec<StageFold>,
    /// What was folded, by stage.
    folded: Vec<Tally>,
}

/// Encoded rows or keys, one after the other.
#[derive(Default)]
struct Encoded {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

struct StageFold {
    key_types: Vec<ColumnType>,
    keys: Encoded,
    /// Hashes of the keys; empty for rows.
    hashes: Vec<u64>,
    /// Finds a group by its key; empty for rows.
    table: HashTable<u32>,
    states: Vec<Accumulator>,
    grouped: bool,
}

/// The sections of a delta: number, entries, content.
pub(crate) fn sections(delta: &[u8]) -> impl Iterator<Item = Result<Section<'_>, DeltaError>> {
    let mut reader = Reader(delta);
    std::iter::from_fn(move || {
        if reader.is_empty() {
            return None;
        }
        let section = section(&mut reader);
        if section.is_err() {
            reader = Reader(&[]);
        }
        Some(section)
    })
}

pub(crate) struct Section<'a> {
    pub(crate) number: usize,
    pub(crate) entries: u64,
    pub(crate) content: Reader<'a>,
}

fn section<'a>(reader: &mut Reader<'a>) -> Result<Section<'a>, DeltaError> {
    let number = usize::try_from(reader.uint()?).map_err(|_| UNKNOWN_SECTION)?;
    Ok(Section { number, entries: reader.uint()?, content: Reader(reader.bytes()?) })
}

const UNKNOWN_SECTION: DeltaError = DeltaError::Malformed("unknown section");
const TRAILING: DeltaError = DeltaError::Malformed("trailing bytes");

impl SlotFold {
    /// A fold without deltas.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let stages = plan.stages().iter().map(|stage| StageFold::new(plan, stage)).collect();
        let folded = vec![Tally::default(); plan.stages().len()];
        Self { plan: plan.clone(), stages, folded }
    }

    /// Sums in floating point from now on, which loses digits: a fault that the simulator must
    /// find.
    #[doc(hidden)]
    pub fn plant_float_sums(&mut self) {
        let states = self.stages.iter_mut().flat_map(|stage| &mut stage.states);
        states.for_each(Accumulator::plant_float_sums);
    }

    /// Adds a delta of the table. The ledger makes sure that each delta is added once.
    ///
    /// # Errors
    /// If the bytes are not a delta of this plan and table. After an error the fold can't be used
    /// any more.
    pub fn add(&mut self, table: usize, delta: &[u8]) -> Result<(), DeltaError> {
        let own = self.plan.stages().len();
        for section in sections(delta) {
            let Section { number, entries, mut content } = section?;
            let owner = match number.checked_sub(own) {
                None => self.plan.stages()[number].table,
                Some(keying) => self.plan.keyings().get(keying).ok_or(UNKNOWN_SECTION)?.table,
            };
            if owner != table {
                return Err(DeltaError::Malformed("section of another table"));
            }
            if number >= own {
                continue;
            }
            self.folded[number].add(entries, content.0);
            for _ in 0..entries {
                self.stages[number].add(&mut content)?;
            }
            if !content.is_empty() {
                return Err(TRAILING);
            }
        }
        Ok(())
    }

    /// Adds several deltas with their tables. Like [`SlotFold::add`] for each of them, but reserves
    /// room for all of them first.
    ///
    /// # Errors
    /// As [`SlotFold::add`].
    pub fn add_all(&mut self, deltas: &[(usize, Bytes)]) -> Result<(), DeltaError> {
        let mut groups = vec![0; self.stages.len()];
        for section in deltas.iter().flat_map(|(_, delta)| sections(delta)) {
            let Section { number, entries, content } = section?;
            if let Some(groups) = groups.get_mut(number) {
                // An entry has at least one byte, whatever number its section gives.
                *groups += entries.min(content.0.len() as u64) as usize;
            }
        }
        self.stages.iter_mut().zip(groups).for_each(|(stage, groups)| stage.reserve(groups));
        deltas.iter().try_for_each(|(table, delta)| self.add(*table, delta))
    }

    /// Bytes of memory that each stage takes.
    pub fn stage_bytes(&self) -> impl Iterator<Item = usize> + '_ {
        self.stages.iter().map(StageFold::bytes)
    }

    /// The slot's output: first what was folded of each stage, then for each query its rows,
    /// already limited to the slot's own top.
    #[must_use]
    pub fn finish(self) -> Bytes {
        let mut output = Vec::new();
        self.folded.iter().for_each(|tally| tally.encode(&mut output));
        self.put_rows(&mut output);
        output.into()
    }

    /// Only the rows of the output. They do not depend on how the table was cut into batches.
    #[must_use]
    pub fn rows(&self) -> Bytes {
        let mut output = Vec::new();
        self.put_rows(&mut output);
        output.into()
    }

    fn put_rows(&self, output: &mut Vec<u8>) {
        for query in self.plan.queries() {
            self.stages[query.stage].output(&self.plan, query, output);
        }
    }
}

impl Encoded {
    fn len(&self) -> usize {
        self.ends.len()
    }

    fn get(&self, at: usize) -> &[u8] {
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.bytes[start..self.ends[at]]
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len());
    }
}

impl StageFold {
    fn new(plan: &Plan, stage: &Stage) -> Self {
        let (states, grouped) = match &stage.shape {
            Shape::Rows(_) => (Vec::new(), false),
            Shape::Groups { aggregates, .. } => {
                (aggregates.iter().map(Accumulator::new).collect(), true)
            }
        };
        let key_types = plan.key_types(stage);
        let (keys, hashes, table) = (Encoded::default(), Vec::new(), HashTable::new());
        Self { key_types, keys, hashes, table, states, grouped }
    }

    fn bytes(&self) -> usize {
        let keys = self.keys.bytes.capacity() + self.keys.ends.capacity() * size_of::<usize>();
        // A group's number and a byte of its hash, plus the free room of a hash table.
        let table = self.table.capacity() * (size_of::<u32>() + 1) * 8 / 7;
        let states: usize = self.states.iter().map(Accumulator::bytes).sum();
        keys + self.hashes.capacity() * size_of::<u64>() + table + states
    }

    fn reserve(&mut self, groups: usize) {
        if self.grouped {
            let hashes = &self.hashes;
            self.table.reserve(groups, |group| hashes[*group as usize]);
            self.hashes.reserve(groups);
            self.keys.ends.reserve(groups);
        }
    }

    fn add(&mut self, reader: &mut Reader<'_>) -> Result<(), DeltaError> {
        if !self.grouped && reader.is_empty() {
            return Err(DeltaError::Truncated);
        }
        let key = reader.values(&self.key_types)?;
        if !self.grouped {
            self.keys.push(key);
            return Ok(());
        }
        let (keys, hashes, hash) = (&self.keys, &self.hashes, content_hash(key));
        let equal =
            |group: &u32| hashes[*group as usize] == hash && keys.get(*group as usize) == key;
        let group = match self.table.entry(hash, equal, |group| hashes[*group as usize]) {
            Entry::Occupied(entry) => *entry.get() as usize,
            Entry::Vacant(entry) => {
                let group = keys.len();
                entry.insert(group as u32);
                self.keys.push(key);
                self.hashes.push(hash);
                self.states.iter_mut().for_each(|state| state.resize(group + 1));
                group
            }
        };
        for state in &mut self.states {
            state.merge(group, reader)?;
        }
        if self.states.is_empty() && self.key_types.is_empty() {
            return Err(DeltaError::Malformed("entry of nothing"));
        }
        Ok(())
    }

    /// Appends the rows of a query, in an order that does not depend on the order of deltas.
    fn output(&self, plan: &Plan, query: &Query, output: &mut Vec<u8>) {
        let mut row = Vec::new();
        let mut content = Vec::new();
        let count = if let Some(top) = &query.top {
            let mut rows = Rows::new(query.base_types());
            for at in 0..self.keys.len() {
                row.clear();
                self.query_row(query, at, &mut row);
                // The row was encoded from checked keys, so it can be read again; see `query_row`.
                if rows.push_encoded(&mut Reader(&row)).is_err() {
                    debug_assert!(false, "own rows are readable: {}", plan.name());
                }
            }
            let places = rows.top(top);
            places.iter().for_each(|place| rows.encode(*place, &mut content));
            places.len()
        } else {
            let mut encoded = Encoded::default();
            for at in 0..self.keys.len() {
                row.clear();
                self.query_row(query, at, &mut row);
                encoded.push(&row);
            }
            let mut order: Vec<_> = (0..encoded.len()).collect();
            order.sort_unstable_by(|a, b| encoded.get(*a).cmp(encoded.get(*b)));
            order.iter().for_each(|at| content.extend_from_slice(encoded.get(*at)));
            encoded.len()
        };
        put_uint(output, count as u64);
        put_bytes(output, &content);
    }

    /// The query's columns of a group or row: all keys, then its aggregates.
    fn query_row(&self, query: &Query, at: usize, row: &mut Vec<u8>) {
        row.extend_from_slice(self.keys.get(at));
        let keys = self.key_types.len();
        for (place, (_, ty)) in query.base.iter().zip(&query.columns).skip(keys) {
            self.states[place - keys].finish(at, *ty, row);
        }
    }
}
