//! Which groups stand in which segment, and which segments may go.

use std::collections::{BTreeMap, HashSet};

/// The groups of every segment, and the forgotten ones among them.
///
/// A segment may be deleted when all its groups are forgotten **and** no older segment that stays
/// holds a record of one of them. Otherwise a start after the deletion would deliver the older
/// records of a group without the newer ones, such as the one that ended it.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    groups: BTreeMap<u32, HashSet<u128>>,
    forgotten: HashSet<u128>,
}

impl Segments {
    /// A segment exists.
    pub(crate) fn add(&mut self, segment: u32) {
        self.groups.entry(segment).or_default();
    }

    /// A record of this group stands in this segment. A forgotten group is alive again.
    pub(crate) fn note(&mut self, segment: u32, group: u128) {
        let groups = self.groups.entry(segment).or_default();
        if group != 0 {
            groups.insert(group);
            self.forgotten.remove(&group);
        }
    }

    /// The caller needs no record of this group any more.
    pub(crate) fn forget(&mut self, group: u128) {
        if self.groups.values().any(|groups| groups.contains(&group)) {
            self.forgotten.insert(group);
        }
    }

    /// Segments that may be deleted, oldest first: in this order no crash leaves a newer record of
    /// a group deleted and an older one there.
    pub(crate) fn deletable(&self, current: u32) -> Vec<u32> {
        let mut held = HashSet::new();
        let mut deletable = Vec::new();
        for (segment, groups) in &self.groups {
            let free = |group| self.forgotten.contains(group) && !held.contains(group);
            if *segment != current && groups.iter().all(free) {
                deletable.push(*segment);
            } else {
                held.extend(groups.iter().copied());
            }
        }
        deletable
    }

    /// Whether the segment holds records of groups, all of them forgotten.
    pub(crate) fn only_forgotten(&self, segment: u32) -> bool {
        self.groups.get(&segment).is_some_and(|groups| {
            !groups.is_empty() && groups.iter().all(|group| self.forgotten.contains(group))
        })
    }

    /// The segment is deleted.
    pub(crate) fn remove(&mut self, segment: u32) {
        self.groups.remove(&segment);
        let groups = &self.groups;
        self.forgotten.retain(|group| groups.values().any(|held| held.contains(group)));
    }

    /// Numbers of all segments, oldest first.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        self.groups.keys().copied()
    }
}
