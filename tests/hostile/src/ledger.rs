//! The contents of ledgers and the outputs of slots: deltas, summaries, rows, receipts.

use cortado_engine::{
    Durability, Final, FinalStep, LookupFold, Plan, Receipt, SlotFold, SummaryFold,
};
use cortado_protocol::{META_SLOT, Slot};

use crate::{Pieces, sample};

/// Input: a byte for the plan and the table, then a delta, an output, or another of these.
pub fn check(bytes: &[u8]) {
    let mut pieces = Pieces::new(bytes);
    let choice = pieces.byte();
    let plan = sample::plan(choice);
    let table = usize::from(choice >> 1) % (plan.tables().len() + 1);
    feed(plan, table, pieces.rest());
}

fn feed(plan: &Plan, table: usize, bytes: &[u8]) {
    let mut fold = SlotFold::new(plan);
    if fold.add(table, bytes).is_ok() {
        // The output of a slot must be accepted.
        let mut last = Final::new(plan, 1);
        last.add(Slot(0), &fold.finish()).unwrap();
        finish(&mut last, bytes);
    }
    let mut lookup = LookupFold::new(plan, table, vec![bytes.to_vec(), vec![0, 2], vec![14]]);
    if lookup.add(bytes).is_ok() {
        let _ = lookup.finish();
    }
    let mut summaries = SummaryFold::new(plan);
    if summaries.add(table, 0, bytes).is_ok() {
        let _ = summaries.rejects(table, &sample::spec());
        assert!(summaries.add(table, 0, bytes).is_err(), "a batch counts once");
    }
    let mut last = Final::new(plan, 1);
    if last.add(Slot(0), bytes).is_ok() {
        finish(&mut last, bytes);
    }
    if let Ok(receipt) = Receipt::parse(bytes) {
        let again = receipt.to_file();
        assert_eq!(Receipt::parse(&again.bytes).unwrap().to_file(), again);
    }
}

/// Finishes with these rows for all lookups, or without rows if they are refused.
fn finish(last: &mut Final, rows: &[u8]) {
    while let FinalStep::Lookup(requests) = last.next().unwrap() {
        for request in requests {
            for (slot, _) in request.keys {
                if last.add_rows(request.table, slot, rows).is_err() {
                    last.add_rows(request.table, slot, &[0]).unwrap();
                }
            }
        }
    }
}

/// Deltas and summaries of each table, outputs of slots, and a receipt.
#[must_use]
pub fn samples() -> Vec<Vec<u8>> {
    let plan = sample::plan(0);
    let (mut samples, mut summaries) = (Vec::new(), SummaryFold::new(plan));
    let mut folds: Vec<_> = (0..sample::SLOTS).map(|_| SlotFold::new(plan)).collect();
    for (table, deltas) in sample::deltas().into_iter().enumerate() {
        for (slot, delta) in deltas {
            samples.push([&[(table as u8) << 1], &delta[..]].concat());
            if slot == META_SLOT {
                summaries.add(table, 0, &delta).unwrap();
            } else {
                folds[usize::from(slot.0)].add(table, &delta).unwrap();
            }
        }
    }
    let mut last = Final::new(plan, usize::from(sample::SLOTS));
    for (slot, fold) in (0..sample::SLOTS).map(Slot).zip(folds) {
        let output = fold.finish();
        last.add(slot, &output).unwrap();
        samples.push([&[0], &output[..]].concat());
    }
    let durability = Durability { replicas: 3, min_copies: 2 };
    let receipt =
        summaries.receipt(&sample::spec(), &[1; 5], durability, &[], last.folded()).unwrap();
    samples.push([&[0], &receipt.to_file().bytes[..]].concat());
    samples
}
