//! Finds the rows of a reference table for requested keys. Owners call it for the coordinator's
//! joins.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::fold::{Section, sections};
use crate::plan::Plan;
use crate::types::ColumnType;
use crate::wire::{DeltaError, Reader, put_bytes, put_uint};

/// Encoded rows by key.
pub(crate) type KeyedRows = BTreeMap<Vec<u8>, Vec<Vec<u8>>>;

/// Memory of a key beside its bytes: its entry in the map, and its list.
const KEY_BYTES: usize = 2 * size_of::<Vec<u8>>() + 32;
/// Memory of a row beside its bytes.
const ROW_BYTES: usize = size_of::<Vec<u8>>() + 16;

/// Collects the rows of some keys from the deltas of one slot of a reference table. A key that
/// occurs several times keeps all its rows. The order of deltas does not matter.
pub struct LookupFold {
    plan: Plan,
    table: usize,
    rows: KeyedRows,
    bytes: usize,
}

impl LookupFold {
    /// A fold that looks for the `keys` of a [`LookupRequest`](crate::LookupRequest).
    #[must_use]
    pub fn new(plan: &Plan, table: usize, keys: Vec<Vec<u8>>) -> Self {
        let bytes = keys.iter().map(|key| key.len() + KEY_BYTES).sum();
        let rows = keys.into_iter().map(|key| (key, Vec::new())).collect();
        Self { plan: plan.clone(), table, rows, bytes }
    }

    /// Adds a delta of the table.
    ///
    /// # Errors
    /// If the bytes are not a delta of this plan and table. After an error the fold can't be used
    /// any more.
    pub fn add(&mut self, delta: &[u8]) -> Result<(), DeltaError> {
        let stages = self.plan.stages().len();
        for section in sections(delta) {
            let Section { number, entries, mut content } = section?;
            let Some(number) = number.checked_sub(stages) else { continue };
            let keying = self.plan.keyings().get(number);
            let keying = keying.filter(|keying| keying.table == self.table);
            let keying = keying.ok_or(DeltaError::Malformed("section of another table"))?;
            let key_type = [self.plan.keying_key(keying)];
            let types = self.plan.keying_columns(keying);
            for _ in 0..entries {
                let key = keyed(&mut content, number, &key_type)?;
                let row = content.values(&types)?;
                if let Some(rows) = self.rows.get_mut(key) {
                    rows.push(row.to_vec());
                    self.bytes += row.len() + ROW_BYTES;
                }
            }
            if !content.is_empty() {
                return Err(DeltaError::Malformed("trailing bytes"));
            }
        }
        Ok(())
    }

    /// Approximate bytes of memory that the fold takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The rows found, in the order of keys.
    #[must_use]
    pub fn finish(mut self) -> Bytes {
        self.rows.retain(|_, rows| !rows.is_empty());
        let mut out = Vec::new();
        put_uint(&mut out, self.rows.len() as u64);
        for (key, rows) in &mut self.rows {
            rows.sort_unstable();
            put_bytes(&mut out, key);
            put_uint(&mut out, rows.len() as u64);
            rows.iter().for_each(|row| put_bytes(&mut out, row));
        }
        out.into()
    }
}

/// The bytes of a key: the number of its keying and its value.
fn keyed<'a>(
    reader: &mut Reader<'a>,
    number: usize,
    ty: &[ColumnType],
) -> Result<&'a [u8], DeltaError> {
    let before = reader.0;
    if reader.uint()? != number as u64 {
        return Err(DeltaError::Malformed("key of another keying"));
    }
    reader.values(ty)?;
    Ok(&before[..before.len() - reader.0.len()])
}

/// Reads what [`LookupFold::finish`] wrote and checks every row against the plan.
pub(crate) fn read_rows(plan: &Plan, table: usize, bytes: &[u8]) -> Result<KeyedRows, DeltaError> {
    let mut reader = Reader(bytes);
    let mut found = KeyedRows::new();
    for _ in 0..reader.uint()? {
        let key = reader.bytes()?;
        let number = Reader(key).uint()?;
        let keying = usize::try_from(number).ok().and_then(|at| plan.keyings().get(at));
        let keying = keying.filter(|keying| keying.table == table);
        let keying = keying.ok_or(DeltaError::Malformed("key of another table"))?;
        let types = plan.keying_columns(keying);
        let mut rows = Vec::new();
        for _ in 0..reader.uint()? {
            let row = reader.bytes()?;
            let mut rest = Reader(row);
            rest.values(&types)?;
            if !rest.is_empty() {
                return Err(DeltaError::Malformed("trailing bytes"));
            }
            rows.push(row.to_vec());
        }
        found.insert(key.to_vec(), rows);
    }
    if reader.is_empty() { Ok(found) } else { Err(DeltaError::Malformed("trailing bytes")) }
}
