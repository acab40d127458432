//! Coverage: the batch numbers that a ledger holds, as disjoint half-open intervals. Nodes and
//! clients use it wherever they say which batches they have.

use serde::{Deserialize, Deserializer, Serialize};

/// A set of batch numbers, kept as sorted, disjoint, non-adjacent half-open intervals. Its size
/// grows with the number of gaps, not with the number of batches.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Hash)]
pub struct Coverage(Vec<(u64, u64)>);

impl Coverage {
    /// The numbers from `start` to `end - 1`.
    #[must_use]
    pub fn range(start: u64, end: u64) -> Self {
        let mut coverage = Self::default();
        coverage.insert_range(start, end);
        coverage
    }

    /// Adds one number; returns whether it was new.
    pub fn insert(&mut self, number: u64) -> bool {
        let at = self.0.partition_point(|&(_, end)| end < number);
        match self.0.get_mut(at) {
            Some(&mut (start, end)) if start <= number && number < end => return false,
            Some(interval) if interval.1 == number => {
                interval.1 += 1;
                if self.0.get(at + 1).is_some_and(|next| next.0 == number + 1) {
                    self.0[at].1 = self.0.remove(at + 1).1;
                }
            }
            Some(interval) if interval.0 == number + 1 => interval.0 = number,
            _ => self.0.insert(at, (number, number + 1)),
        }
        true
    }

    /// Adds the numbers from `start` to `end - 1`.
    pub fn insert_range(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let first = self.0.partition_point(|&(_, e)| e < start);
        let last = self.0.partition_point(|&(s, _)| s <= end);
        let merged =
            self.0[first..last].iter().fold((start, end), |(s, e), &(a, b)| (s.min(a), e.max(b)));
        self.0.splice(first..last, [merged]);
    }

    /// Removes one number.
    pub fn remove(&mut self, number: u64) {
        let at = self.0.partition_point(|&(_, end)| end <= number);
        if let Some(&(start, end)) = self.0.get(at)
            && start <= number
        {
            let rest = [(start, number), (number + 1, end)];
            self.0.splice(at..=at, rest.into_iter().filter(|(s, e)| s < e));
        }
    }

    /// Keeps the first `intervals` of its intervals and returns the others.
    #[must_use]
    pub fn split_off(&mut self, intervals: usize) -> Self {
        Self(self.0.split_off(intervals.min(self.0.len())))
    }

    /// The numbers that are in both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        self.minus(&self.minus(other))
    }

    /// Adds all of `other`.
    pub fn union(&mut self, other: &Self) {
        for &(start, end) in &other.0 {
            self.insert_range(start, end);
        }
    }

    /// Whether the number is in it.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        let at = self.0.partition_point(|&(_, end)| end <= number);
        self.0.get(at).is_some_and(|&(start, _)| start <= number)
    }

    /// How many numbers are in it.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Its intervals `[start, end)` in ascending order.
    #[must_use]
    pub fn intervals(&self) -> &[(u64, u64)] {
        &self.0
    }

    /// The intervals below `end` that are not in it.
    #[must_use]
    pub fn gaps(&self, end: u64) -> Vec<(u64, u64)> {
        Self::range(0, end).minus(self).0
    }

    /// Whether every number below `end` is in it.
    #[must_use]
    pub fn is_complete(&self, end: u64) -> bool {
        end == 0 || self.0.first().is_some_and(|&(s, e)| s == 0 && e >= end)
    }

    /// The numbers of this set that are not in `other`.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        let mut rest = Vec::new();
        let mut others = other.0.iter().peekable();
        for &(mut start, end) in &self.0 {
            while let Some(&&(s, e)) = others.peek() {
                if e <= start {
                    others.next();
                } else if s >= end {
                    break;
                } else {
                    if s > start {
                        rest.push((start, s));
                    }
                    start = e;
                    if e >= end {
                        break;
                    }
                    others.next();
                }
            }
            if start < end {
                rest.push((start, end));
            }
        }
        Self(rest)
    }

    /// Whether every number of `other` is in this set.
    #[must_use]
    pub fn contains_all(&self, other: &Self) -> bool {
        other.minus(self).is_empty()
    }

    /// Its numbers in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().flat_map(|&(start, end)| start..end)
    }
}

impl<'de> Deserialize<'de> for Coverage {
    /// Rejects intervals that are empty, touching or out of order, so that every value on the wire
    /// has one form.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let intervals = Vec::<(u64, u64)>::deserialize(deserializer)?;
        let mut previous = None;
        for &(start, end) in &intervals {
            if start >= end || previous.is_some_and(|p| start <= p) {
                return Err(serde::de::Error::custom("coverage intervals out of order"));
            }
            previous = Some(end);
        }
        Ok(Self(intervals))
    }
}

impl FromIterator<u64> for Coverage {
    fn from_iter<I: IntoIterator<Item = u64>>(numbers: I) -> Self {
        let mut coverage = Self::default();
        for number in numbers {
            coverage.insert(number);
        }
        coverage
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn canonical(coverage: &Coverage) -> bool {
        coverage.0.iter().all(|(s, e)| s < e) && coverage.0.windows(2).all(|w| w[0].1 < w[1].0)
    }

    proptest! {
        #[test]
        fn behaves_like_a_set(a in prop::collection::vec(0u64..40, 0..40),
                              b in prop::collection::vec(0u64..40, 0..40),
                              ranges in prop::collection::vec((0u64..40, 0u64..40), 0..4)) {
            let mut coverage: Coverage = a.iter().copied().collect();
            let mut set: BTreeSet<u64> = a.iter().copied().collect();
            for (start, end) in ranges {
                coverage.insert_range(start, end);
                set.extend(start..end);
            }
            prop_assert!(canonical(&coverage));
            prop_assert_eq!(coverage.iter().collect::<BTreeSet<_>>(), set.clone());
            let other: Coverage = b.iter().copied().collect();
            let others: BTreeSet<u64> = b.iter().copied().collect();
            let rest = coverage.minus(&other);
            prop_assert!(canonical(&rest));
            prop_assert_eq!(rest.iter().collect::<BTreeSet<_>>(), &set - &others);
            let mut removed = coverage.clone();
            for number in &b {
                removed.remove(*number);
            }
            prop_assert_eq!(removed, rest);
            prop_assert_eq!(coverage.and(&other).iter().collect::<BTreeSet<_>>(), &set & &others);
            let mut first = coverage.clone();
            let rest = first.split_off(2);
            prop_assert!(first.intervals().len() <= 2 && canonical(&rest));
            first.union(&rest);
            prop_assert_eq!(&first, &coverage);
            let mut both = coverage.clone();
            both.union(&other);
            prop_assert_eq!(both.iter().collect::<BTreeSet<_>>(), &set | &others);
            prop_assert_eq!(coverage.count(), set.len() as u64);
            for number in 0..41 {
                prop_assert_eq!(coverage.contains(number), set.contains(&number));
                prop_assert_eq!(coverage.is_complete(number), (0..number).all(|n| set.contains(&n)));
            }
            let bytes = postcard::to_stdvec(&coverage).unwrap();
            prop_assert_eq!(postcard::from_bytes::<Coverage>(&bytes).unwrap(), coverage);
        }
    }

    #[test]
    fn other_forms_are_refused_on_the_wire() {
        for bad in [vec![(1u64, 1u64)], vec![(0, 2), (2, 3)], vec![(4, 5), (0, 1)]] {
            let bytes = postcard::to_stdvec(&bad).unwrap();
            assert!(postcard::from_bytes::<Coverage>(&bytes).is_err());
        }
    }
}
