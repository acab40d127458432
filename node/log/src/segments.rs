//! The bytes of each group in each segment, and the segments that can be deleted.

use std::collections::{BTreeMap, HashMap, HashSet};

/// The bytes of every group in every segment, and the forgotten groups among them.
///
/// A segment's bytes are *live* if they belong to a group that is not forgotten. A segment without
/// live bytes can be deleted. A segment is *sparse* if less than a quarter of it is live; its live
/// records are copied to the end of the log before it is deleted.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    all: BTreeMap<u32, Held>,
    forgotten: HashSet<u128>,
}

/// What stands in a segment.
#[derive(Debug, Default)]
struct Held {
    /// Bytes by group, group 0 left out.
    groups: HashMap<u128, u64>,
    bytes: u64,
    live: u64,
    /// Its live records have copies in a later segment.
    copied: bool,
}

impl Held {
    /// Whether less than a quarter of it lives.
    fn is_sparse(&self) -> bool {
        self.live < self.bytes.div_ceil(4)
    }
}

impl Segments {
    /// A segment exists.
    pub(crate) fn add(&mut self, segment: u32) {
        self.all.entry(segment).or_default();
    }

    /// A record of this group stands in this segment. A forgotten group is alive again.
    pub(crate) fn note(&mut self, segment: u32, group: u128, bytes: u64) {
        if group != 0 && self.forgotten.remove(&group) {
            for held in self.all.values_mut() {
                held.live += held.groups.get(&group).copied().unwrap_or_default();
            }
        }
        let held = self.all.entry(segment).or_default();
        held.bytes += bytes;
        if group != 0 {
            *held.groups.entry(group).or_default() += bytes;
            held.live += bytes;
        }
    }

    /// The caller needs no record of this group any more.
    pub(crate) fn forget(&mut self, group: u128) {
        if self.forgotten.contains(&group) {
            return;
        }
        let mut found = false;
        for held in self.all.values_mut() {
            if let Some(bytes) = held.groups.get(&group) {
                held.live -= bytes;
                found = true;
            }
        }
        if found {
            self.forgotten.insert(group);
        }
    }

    /// Whether records of this group are needed.
    pub(crate) fn is_live(&self, group: u128) -> bool {
        group != 0 && !self.forgotten.contains(&group)
    }

    /// Segments without live bytes, oldest first.
    pub(crate) fn deletable(&self, current: u32) -> Vec<u32> {
        let free = |(segment, held): (&u32, &Held)| {
            (*segment != current && held.live == 0).then_some(*segment)
        };
        self.all.iter().filter_map(free).collect()
    }

    /// The oldest sparse segment that was not copied yet.
    pub(crate) fn sparse(&self, current: u32) -> Option<u32> {
        let sparse = |(segment, held): (&u32, &Held)| {
            let sparse = held.live > 0 && held.is_sparse() && !held.copied;
            (*segment != current && sparse).then_some(*segment)
        };
        self.all.iter().find_map(sparse)
    }

    /// The live records of the segment have copies now.
    pub(crate) fn copied(&mut self, segment: u32) {
        if let Some(held) = self.all.get_mut(&segment) {
            held.copied = true;
        }
    }

    /// Whether the live records of the segment were copied.
    pub(crate) fn is_copied(&self, segment: u32) -> bool {
        self.all.get(&segment).is_some_and(|held| held.copied)
    }

    /// Whether the segment is sparse.
    pub(crate) fn is_sparse(&self, segment: u32) -> bool {
        self.all.get(&segment).is_some_and(|held| !held.groups.is_empty() && held.is_sparse())
    }

    /// The segment is deleted.
    pub(crate) fn remove(&mut self, segment: u32) {
        let Some(removed) = self.all.remove(&segment) else { return };
        for group in removed.groups.into_keys() {
            if !self.all.values().any(|held| held.groups.contains_key(&group)) {
                self.forgotten.remove(&group);
            }
        }
    }

    /// Numbers of all segments, oldest first.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        self.all.keys().copied()
    }
}
