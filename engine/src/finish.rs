//! The last stage at the job's coordinator: makes result files from slot outputs by top n, joins,
//! order, limit and CSV.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use cortado_protocol::limits::LOOKUP_KEYS_BYTES;
use cortado_protocol::{Slot, SlotSet};

use crate::lookup::{KeyedRows, read_rows};
use crate::plan::{Join, Plan, Query, slot_of};
use crate::rows::Rows;
use crate::tally::Tally;
use crate::types::ColumnType;
use crate::wire::{DeltaError, Reader, put_uint};

/// Rows that are needed of a reference table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupRequest {
    /// The table's index in the plan.
    pub table: usize,
    /// The keys in order, by the slot that holds them; see [`crate::LookupFold`]. The keys of one
    /// slot may need several requests.
    pub keys: Vec<(Slot, Vec<Vec<u8>>)>,
}

/// A result file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportFile {
    /// Its name.
    pub name: String,
    /// Its content.
    pub bytes: Bytes,
    /// Data rows, the header line not counted; 0 for the receipt.
    pub rows: u64,
}

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FinalStep {
    /// Pass the answer of each slot of each request to [`Final::add_rows`], then call
    /// [`Final::next`] again.
    Lookup(Vec<LookupRequest>),
    /// The result files, without the receipt.
    Done(Vec<ReportFile>),
}

/// Why there is no result. Nothing was published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FinalError {
    /// Outputs of slots are missing.
    #[error("the outputs of {0} slots are missing")]
    MissingSlots(usize),
    /// Requested rows of reference tables are missing.
    #[error("the rows of {0} lookups are missing")]
    MissingRows(usize),
    /// The batches of a table are not exactly those declared.
    #[error("table '{table}' has batches {found:?} instead of 0..{declared}")]
    Coverage {
        /// The table's name.
        table: String,
        /// The half-open intervals of its batches that are present.
        found: Vec<(u64, u64)>,
        /// The declared number of batches.
        declared: u64,
    },
    /// The slots did not fold exactly what was made of the batches.
    #[error(
        "query '{query}': {made} pieces were made of the batches, and {folded} were folded{}",
        if made == folded { ", but other ones" } else { "" }
    )]
    Tally {
        /// A query's output.
        query: String,
        /// Sections of deltas that were made of the batches.
        made: u64,
        /// Sections of deltas that the slots folded.
        folded: u64,
    },
    /// The job's specification does not fit the plan.
    #[error("the job does not fit the plan: {0}")]
    Spec(String),
    /// A delta or output is damaged.
    #[error(transparent)]
    Delta(#[from] DeltaError),
    /// A batch can't be turned into deltas.
    #[error(transparent)]
    Map(#[from] crate::MapError),
    /// The receipt can't be read.
    #[error("the receipt can't be read: {0}")]
    Receipt(String),
}

/// The last stage, at the job's coordinator.
pub struct Final {
    plan: Plan,
    slots: usize,
    seen: SlotSet,
    queries: Vec<Progress>,
    /// What all slots folded, by stage.
    folded: Vec<Tally>,
    started: bool,
    found: KeyedRows,
    /// Number of expected answers, by table and slot.
    pending: BTreeMap<(usize, Slot), usize>,
}

/// The progress of a query.
struct Progress {
    rows: Rows,
    joined: usize,
    /// Whether the rows of each join were requested.
    requested: Vec<bool>,
}

impl Query {
    /// The types of the query's rows before its joins.
    pub(crate) fn base_types(&self) -> Vec<ColumnType> {
        self.columns[..self.base.len()].iter().map(|(_, ty)| *ty).collect()
    }
}

impl Final {
    /// A last stage that expects the outputs of slots 0 to `slots - 1`.
    #[must_use]
    pub fn new(plan: &Plan, slots: usize) -> Self {
        let progress = |query: &Query| Progress {
            rows: Rows::new(query.base_types()),
            joined: 0,
            requested: vec![false; query.joins.len()],
        };
        Self {
            plan: plan.clone(),
            slots: slots.clamp(1, cortado_protocol::limits::SLOTS),
            seen: SlotSet::EMPTY,
            queries: plan.queries().iter().map(progress).collect(),
            folded: vec![Tally::default(); plan.stages().len()],
            started: false,
            found: BTreeMap::new(),
            pending: BTreeMap::new(),
        }
    }

    /// Adds a slot's output, in any order.
    ///
    /// # Errors
    /// If the bytes are not an output of this plan, or the slot is unknown or was added before.
    /// After damage this value can't be used any more.
    pub fn add(&mut self, slot: Slot, output: &[u8]) -> Result<(), DeltaError> {
        if usize::from(slot.0) >= self.slots {
            return Err(DeltaError::Malformed("output of an unknown slot"));
        }
        if self.seen.contains(slot) {
            return Err(DeltaError::Twice(u64::from(slot.0)));
        }
        let mut reader = Reader(output);
        for folded in &mut self.folded {
            folded.merge(Tally::decode(&mut reader)?);
        }
        for query in &mut self.queries {
            let count = reader.uint()?;
            let mut content = Reader(reader.bytes()?);
            for _ in 0..count {
                if content.is_empty() {
                    return Err(DeltaError::Truncated);
                }
                query.rows.push_encoded(&mut content)?;
            }
            if !content.is_empty() {
                return Err(DeltaError::Malformed("trailing bytes"));
            }
        }
        if !reader.is_empty() {
            return Err(DeltaError::Malformed("trailing bytes"));
        }
        self.seen.insert(slot);
        Ok(())
    }

    /// What the slots folded, by stage. The receipt needs it.
    #[must_use]
    pub fn folded(&self) -> &[Tally] {
        &self.folded
    }

    /// Adds the rows that a [`crate::LookupFold`] found in a slot of the table.
    ///
    /// # Errors
    /// If they were not requested, or the bytes are not such rows.
    pub fn add_rows(&mut self, table: usize, slot: Slot, rows: &[u8]) -> Result<(), DeltaError> {
        if !self.pending.contains_key(&(table, slot)) {
            return Err(DeltaError::Malformed("rows that were not asked for"));
        }
        let rows = read_rows(&self.plan, table, rows)?;
        if rows.keys().any(|key| slot_of(key, self.slots) != slot) {
            return Err(DeltaError::Malformed("rows of another slot"));
        }
        self.found.extend(rows);
        if let Entry::Occupied(mut open) = self.pending.entry((table, slot)) {
            *open.get_mut() -= 1;
            if *open.get() == 0 {
                open.remove();
            }
        }
        Ok(())
    }

    /// Continues as far as possible. It requests the rows of several joins of a query at once where
    /// it can.
    ///
    /// # Errors
    /// If outputs or requested rows are missing: no partial result is published.
    #[expect(clippy::should_implement_trait, reason = "steps, not items")]
    pub fn next(&mut self) -> Result<FinalStep, FinalError> {
        let missing = SlotSet::first(self.slots).minus(self.seen).len();
        if missing > 0 {
            return Err(FinalError::MissingSlots(missing));
        }
        if !self.pending.is_empty() {
            return Err(FinalError::MissingRows(self.pending.values().sum()));
        }
        if !self.started {
            self.start();
        }
        let mut wanted: BTreeMap<usize, BTreeMap<Slot, BTreeSet<Vec<u8>>>> = BTreeMap::new();
        for (query, progress) in self.plan.queries().iter().zip(&mut self.queries) {
            while progress.requested.get(progress.joined) == Some(&true) {
                let join = &query.joins[progress.joined];
                progress.rows = apply_join(&self.plan, join, &progress.rows, &self.found);
                progress.joined += 1;
            }
            for (join, requested) in query.joins.iter().zip(&mut progress.requested) {
                if *requested || join.left >= progress.rows.width() {
                    continue;
                }
                *requested = true;
                let table = self.plan.keyings()[join.keying].table;
                for key in join_keys(join, &progress.rows) {
                    let slot = slot_of(&key, self.slots);
                    wanted.entry(table).or_default().entry(slot).or_default().insert(key);
                }
            }
        }
        if wanted.is_empty() && self.queries.iter().all(|p| p.joined == p.requested.len()) {
            return Ok(FinalStep::Done(self.files()));
        }
        if wanted.is_empty() {
            // Rows were needed, but no row has a key: continue without any.
            return self.next();
        }
        let mut requests = Vec::new();
        for (table, slots) in wanted {
            for keys in key_parts(slots, LOOKUP_KEYS_BYTES) {
                for (slot, _) in &keys {
                    *self.pending.entry((table, *slot)).or_default() += 1;
                }
                requests.push(LookupRequest { table, keys });
            }
        }
        Ok(FinalStep::Lookup(requests))
    }

    /// All outputs are present: adds the row of an aggregate over nothing, and takes the top of all
    /// slots.
    fn start(&mut self) {
        self.started = true;
        for (query, progress) in self.plan.queries().iter().zip(&mut self.queries) {
            if query.global && progress.rows.len() == 0 {
                progress.rows.push_nulls(true);
            }
            if let Some(top) = &query.top {
                progress.rows = progress.rows.take(&progress.rows.top(top));
            }
        }
    }

    fn files(&self) -> Vec<ReportFile> {
        let queries = self.plan.queries().iter().zip(&self.queries);
        queries.map(|(query, progress)| write_csv(query, &progress.rows)).collect()
    }
}

/// Cuts keys into parts of at most `most` bytes each.
fn key_parts(
    slots: BTreeMap<Slot, BTreeSet<Vec<u8>>>,
    most: usize,
) -> Vec<Vec<(Slot, Vec<Vec<u8>>)>> {
    /// Length before each key on the wire.
    const KEY_OVERHEAD: usize = 5;
    let (mut parts, mut part, mut bytes) = (Vec::new(), Vec::new(), 0);
    for (slot, keys) in slots {
        let mut of_slot = Vec::new();
        for key in keys {
            let more = key.len() + KEY_OVERHEAD;
            if bytes + more > most && bytes > 0 {
                if !of_slot.is_empty() {
                    part.push((slot, std::mem::take(&mut of_slot)));
                }
                parts.push(std::mem::take(&mut part));
                bytes = 0;
            }
            bytes += more;
            of_slot.push(key);
        }
        if !of_slot.is_empty() {
            part.push((slot, of_slot));
        }
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

fn join_keys<'a>(join: &'a Join, rows: &'a Rows) -> impl Iterator<Item = Vec<u8>> + 'a {
    (0..rows.len()).filter_map(move |row| join_key(join, rows, row))
}

fn join_key(join: &Join, rows: &Rows, row: usize) -> Option<Vec<u8>> {
    if rows.is_null(join.left, row) {
        return None;
    }
    let mut key = Vec::new();
    put_uint(&mut key, join.keying as u64);
    rows.put_value(join.left, row, &mut key);
    Some(key)
}

/// Repeats each row for each match, in the order of matches. A row without a match stays once with
/// nulls, or is dropped.
fn apply_join(plan: &Plan, join: &Join, rows: &Rows, found: &KeyedRows) -> Rows {
    let mut matched = Rows::new(plan.keying_columns(&plan.keyings()[join.keying]));
    let mut places = Vec::new();
    for row in 0..rows.len() {
        let matches = join_key(join, rows, row).and_then(|key| found.get(&key));
        let before = places.len();
        for encoded in matches.into_iter().flatten() {
            if matched.push_encoded(&mut Reader(encoded)).is_ok() {
                places.push(row);
            }
        }
        if places.len() == before && !join.inner {
            matched.push_nulls(false);
            places.push(row);
        }
    }
    let mut joined = rows.take(&places);
    joined.append_columns(&matched, &join.picks);
    joined
}

fn write_csv(query: &Query, rows: &Rows) -> ReportFile {
    let mut places = rows.sorted(&query.order);
    if let Some(limit) = query.limit {
        places.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    }
    let mut out = Vec::new();
    let alone = query.select.len() == 1;
    for (at, (name, _)) in query.select.iter().enumerate() {
        write_field(name.as_bytes(), alone, at, &mut out);
    }
    out.push(b'\n');
    let mut field = Vec::new();
    for row in &places {
        for (at, (_, column)) in query.select.iter().enumerate() {
            field.clear();
            rows.write(*column, *row, &mut field);
            write_field(&field, alone, at, &mut out);
        }
        out.push(b'\n');
    }
    ReportFile { name: query.output.clone(), bytes: out.into(), rows: places.len() as u64 }
}

/// Quotes a field only where necessary: with separators, quotes, line breaks, and an empty field
/// that would be the only one of its line.
fn write_field(field: &[u8], alone: bool, at: usize, out: &mut Vec<u8>) {
    if at > 0 {
        out.push(b',');
    }
    let special = |b: &u8| matches!(b, b',' | b'"' | b'\n' | b'\r');
    let quoted = field.iter().any(special) || (alone && field.is_empty());
    if !quoted {
        out.extend_from_slice(field);
        return;
    }
    out.push(b'"');
    for byte in field {
        if *byte == b'"' {
            out.push(b'"');
        }
        out.push(*byte);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_cut_into_parts_that_fit() {
        let keys = |slot: u8| (0..10u8).map(|n| vec![slot, n, 0, 0, 0]).collect::<BTreeSet<_>>();
        let slots: BTreeMap<_, _> = [1, 2].map(|slot| (Slot(slot), keys(slot))).into();
        let parts = key_parts(slots.clone(), 60);
        assert_eq!(parts.len(), 4);
        let mut all: BTreeMap<Slot, BTreeSet<Vec<u8>>> = BTreeMap::new();
        for part in parts {
            assert!(part.iter().map(|(_, keys)| keys.len() * 10).sum::<usize>() <= 60);
            for (slot, keys) in part {
                all.entry(slot).or_default().extend(keys);
            }
        }
        assert_eq!(all, slots);
        // A key that is too long is a part of its own.
        assert_eq!(key_parts(slots, 1).len(), 20);
    }
}
