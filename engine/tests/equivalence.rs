//! The result does not depend on batches, slots and orders: the path through a cluster, the
//! recomputation in one process and a naive oracle agree.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use bytes::Bytes;
use cortado_engine::{COFFEE, Plan, SlotFold, map_batch};
use cortado_protocol::META_SLOT;
use proptest::prelude::*;
use support::{Batch, Dataset, Random, cluster, coffee, cut, recompute, rides, text};

type Oracle = fn(&Dataset) -> Vec<(&'static str, String)>;

fn agree(plan: &str, dataset: &Dataset, oracle: Oracle, slots: u8, target: usize, seed: u64) {
    let plan = Plan::parse(plan).unwrap();
    let (spec, batches) = cut(&plan, slots, dataset, target);
    let files = cluster(&plan, &spec, &batches, &mut Random(seed));
    assert_eq!(files, recompute(&plan, &spec, &batches));
    let expected = oracle(dataset);
    assert_eq!(files.len(), expected.len() + 1);
    for (file, (name, content)) in files.iter().zip(&expected) {
        assert_eq!(file.name, *name);
        assert_eq!(text(file), content, "{name}");
    }
    assert_eq!(files.last().unwrap().name, "receipt.json");
    // Other batches and another number of slots give the same results, except the receipt.
    let (spec, batches) = cut(&plan, 1, dataset, 1 << 20);
    let once = recompute(&plan, &spec, &batches);
    assert_eq!(files[..expected.len()], once[..expected.len()]);
}

/// The output of every slot, folded from its deltas in this order.
fn outputs(plan: &Plan, dataset: &Dataset, order: impl Fn(&mut Vec<Batch>)) -> Vec<Bytes> {
    let (spec, mut batches) = cut(plan, 3, dataset, 300);
    order(&mut batches);
    let mut folds: Vec<_> = (0..3).map(|_| SlotFold::new(plan)).collect();
    for (header, payload) in &batches {
        let table = usize::from(header.table);
        let file = &spec.tables[table].files[header.file as usize];
        let layout = plan.bind_header(table, &file.header).unwrap();
        for (slot, delta) in map_batch(plan, 3, &layout, header, payload).unwrap().deltas {
            if slot != META_SLOT {
                folds[usize::from(slot.0)].add(table, &delta).unwrap();
            }
        }
    }
    folds.into_iter().map(SlotFold::finish).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn coffee_reports_agree(seed: u64, rows in 0u64..150, slots in 1u8..=64, target in 1usize..4000) {
        let dataset = coffee::dataset(&mut Random(seed), rows);
        agree(COFFEE, &dataset, coffee::reports, slots, target, seed);
    }

    #[test]
    fn the_order_of_deltas_does_not_matter(seed: u64) {
        for (plan, dataset) in
            [(COFFEE, coffee::dataset as fn(&mut Random, u64) -> Dataset), (rides::PLAN, rides::dataset)]
        {
            let plan = Plan::parse(plan).unwrap();
            let dataset = dataset(&mut Random(seed), 100);
            let in_order = outputs(&plan, &dataset, |_| ());
            let shuffled = outputs(&plan, &dataset, |batches| Random(seed).shuffle(batches));
            prop_assert_eq!(in_order, shuffled);
        }
    }

    #[test]
    fn ride_reports_agree(seed: u64, rows in 0u64..150, slots in 1u8..=64, target in 1usize..4000) {
        let dataset = rides::dataset(&mut Random(seed), rows);
        agree(rides::PLAN, &dataset, rides::reports, slots, target, seed);
    }
}
