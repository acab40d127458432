//! Random operations against a model.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::{forget, open};
use crate::{Fate, MemStorage, RecordRef};

#[derive(Clone, Debug)]
enum Op {
    Append { group: u128, len: usize },
    Sync,
    Forget(u128),
    Reopen,
    Crash(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0u128..6, 0usize..900).prop_map(|(group, len)| Op::Append { group, len }),
        3 => Just(Op::Sync),
        2 => (1u128..6).prop_map(Op::Forget),
        1 => Just(Op::Reopen),
        1 => any::<u64>().prop_map(Op::Crash),
    ]
}

/// What may and must be in the log: group and length by sequence number.
#[derive(Default)]
struct Model {
    records: BTreeMap<u64, (u128, usize)>,
    forgotten: BTreeSet<u64>,
    synced: u64,
}

impl Model {
    /// Checks what was delivered, then knows no more than that.
    fn reopened(&mut self, delivered: Vec<(u64, Vec<u8>)>, crashed: bool) {
        let delivered: BTreeMap<_, _> = delivered.into_iter().collect();
        let last = delivered.keys().last().copied().unwrap_or(0);
        for (sequence, payload) in &delivered {
            assert_eq!(payload.len(), self.records[sequence].1, "sequence {sequence}");
        }
        for (sequence, (group, _)) in &self.records {
            let optional = *group == 0 || self.forgotten.contains(sequence);
            let lost = crashed && *sequence > self.synced && *sequence > last;
            assert!(
                delivered.contains_key(sequence) || optional || lost,
                "sequence {sequence} is missing"
            );
        }
        self.records.retain(|sequence, _| delivered.contains_key(sequence));
        // The restarted process may not know yet that they were forgotten.
        self.forgotten.clear();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn the_log_does_what_the_model_does(ops in prop::collection::vec(op(), 1..80)) {
        let mut storage = Arc::new(MemStorage::new());
        let (mut log, ..) = open(&storage);
        let mut model = Model::default();
        let mut refs = BTreeMap::new();
        for op in ops {
            match op {
                Op::Append { group, len } => {
                    let record = log.append(3, group, 0, &[&vec![8; len]]).unwrap();
                    let (meta, _) = log.reader().read(record).unwrap();
                    model.records.insert(meta.sequence, (group, len));
                    refs.insert(meta.sequence, record);
                    let records = &model.records;
                    // What is deleted stays so; what is still there lives again.
                    model.forgotten.retain(|old| {
                        records[old].0 != group || log.reader().read(refs[old]).is_err()
                    });
                    model.synced = log.synced_sequence();
                }
                Op::Sync => {
                    log.sync().unwrap();
                    model.synced = log.synced_sequence();
                }
                Op::Forget(group) => {
                    let mut moved_to = BTreeMap::new();
                    for moved in forget(&mut log, group) {
                        let of = |(_, record): &(&u64, &RecordRef)| **record == moved.from;
                        let old = refs.iter().find(of).map(|(sequence, _)| *sequence).unwrap();
                        refs.insert(old, moved.to);
                        moved_to.insert(old, moved.to);
                    }
                    for (old, record) in moved_to {
                        let (meta, _) = log.reader().read(record).unwrap();
                        let known = model.records.remove(&old).unwrap();
                        model.records.insert(meta.sequence, known);
                        refs.remove(&old);
                        refs.insert(meta.sequence, record);
                    }
                    let of_group = model.records.iter().filter(|(_, record)| record.0 == group);
                    model.forgotten.extend(of_group.map(|(sequence, _)| *sequence));
                    model.synced = log.synced_sequence();
                }
                Op::Reopen | Op::Crash(_) => {
                    let crashed = if let Op::Crash(seed) = op {
                        let mut random = seed;
                        storage = Arc::new(storage.crash(|change| {
                            // The constants of Knuth's MMIX generator.
                            random = random
                                .wrapping_mul(6_364_136_223_846_793_005)
                                .wrapping_add(1_442_695_040_888_963_407);
                            match random >> 61 {
                                0..3 => Fate::Lost,
                                3..5 => Fate::Torn((random >> 20) as usize % (change.len + 1)),
                                _ => Fate::Kept,
                            }
                        }));
                        true
                    } else {
                        false
                    };
                    let (reopened, recovery, delivered) = open(&storage);
                    prop_assert!(recovery.report.damage.is_empty(), "{:?}", recovery.report);
                    model.reopened(delivered, crashed);
                    log = reopened;
                    refs.retain(|sequence, _| model.records.contains_key(sequence));
                    model.synced = log.synced_sequence();
                }
            }
            for (sequence, record) in &refs {
                if let Some((group, len)) = model.records.get(sequence) {
                    match log.reader().read(*record) {
                        Ok((meta, bytes)) => prop_assert_eq!((meta.group, bytes.len()), (*group, *len)),
                        Err(_) => prop_assert!(*group == 0 || model.forgotten.contains(sequence)),
                    }
                }
            }
        }
    }
}
