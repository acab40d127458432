//! Bytes from elsewhere are refused or harmless; nothing panics.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use cortado_engine::{
    COFFEE, DeltaError, Final, FinalError, FinalStep, LookupFold, Plan, Receipt, SlotFold,
    SummaryFold, map_batch,
};
use cortado_protocol::job::BatchHeader;
use cortado_protocol::{META_SLOT, Slot};
use proptest::prelude::*;
use support::{Random, coffee, cut, rides};

/// Passes the bytes to every decoder.
fn feed(plan: &Plan, bytes: &[u8]) {
    for table in 0..=plan.tables().len() {
        let mut fold = SlotFold::new(plan);
        if fold.add(table, bytes).is_ok() {
            let mut last = Final::new(plan, 1);
            last.add(Slot(0), &fold.finish()).unwrap();
            while let FinalStep::Lookup(requests) = last.next().unwrap() {
                for request in requests {
                    for (slot, _) in request.keys {
                        let rows = last.add_rows(request.table, slot, bytes);
                        if rows.is_err() {
                            last.add_rows(request.table, slot, &[0]).unwrap();
                        }
                    }
                }
            }
        }
        let mut lookup = LookupFold::new(plan, table, vec![bytes.to_vec(), vec![0, 2]]);
        if lookup.add(bytes).is_ok() {
            let _ = lookup.finish();
        }
        let mut summaries = SummaryFold::new(plan);
        let _ = summaries.add(table, 0, bytes);
    }
    if Final::new(plan, 1).add(Slot(0), bytes).is_ok() {
        let mut last = Final::new(plan, 1);
        last.add(Slot(0), bytes).unwrap();
        last.next().unwrap();
    }
    let _ = Receipt::parse(bytes);
}

fn plans() -> [Plan; 2] {
    [Plan::parse(COFFEE).unwrap(), Plan::parse(rides::PLAN).unwrap()]
}

fn header(table: u16) -> BatchHeader {
    BatchHeader {
        table,
        number: 0,
        file: 9,
        offset: 0,
        first_line: u64::MAX,
        content: 0,
        trace: 0,
        stream: None,
    }
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes: Vec<u8>) {
        for plan in plans() {
            feed(&plan, &bytes);
        }
    }

    #[test]
    fn damaged_deltas_are_survived(seed: u64, damage in prop::collection::vec((any::<u16>(), any::<u8>()), 1..4)) {
        for (plan, dataset) in plans().into_iter().zip([coffee::dataset, rides::dataset]) {
            let (spec, batches) = cut(&plan, 3, &dataset(&mut Random(seed), 20), 500);
            for (header, payload) in &batches {
                let table = usize::from(header.table);
                let fields = &spec.tables[table].files[header.file as usize].header;
                let layout = plan.bind_header(table, fields).unwrap();
                for (_, delta) in map_batch(&plan, 3, &layout, header, payload).unwrap().deltas {
                    let mut bytes = delta.to_vec();
                    for (at, byte) in &damage {
                        let at = usize::from(*at) % bytes.len();
                        bytes[at] = *byte;
                    }
                    feed(&plan, &bytes);
                    feed(&plan, &delta[..usize::from(damage[0].0) % delta.len()]);
                }
            }
        }
    }

    #[test]
    fn any_payload_is_mapped(payload: Vec<u8>, text in "[a1,.\"\n\r-]{0,80}", fields in 0usize..3) {
        for plan in plans() {
            for table in 0..plan.tables().len() {
                let names = plan.tables()[table].columns.iter().map(|c| c.name.clone());
                let names: Vec<_> = if fields == 0 { Vec::new() } else { names.collect() };
                let layout = plan.bind_header(table, &names).unwrap();
                for payload in [&payload[..], text.as_bytes()] {
                    let mapped = map_batch(&plan, 7, &layout, &header(table as u16), payload).unwrap();
                    prop_assert!(mapped.rejected <= mapped.rows);
                    prop_assert_eq!(mapped.deltas.last().unwrap().0, META_SLOT);
                    let mut fold = SlotFold::new(&plan);
                    let mut summaries = SummaryFold::new(&plan);
                    for (slot, delta) in &mapped.deltas {
                        if *slot == META_SLOT {
                            summaries.add(table, 0, delta).unwrap();
                        } else {
                            fold.add(table, delta).unwrap();
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn any_text_is_a_plan_or_a_complaint(text in "\\PC{0,200}", at in 0usize..3000, len in 0usize..40) {
        let _ = Plan::parse(&text);
        let start = (0..=at.min(COFFEE.len())).rev().find(|at| COFFEE.is_char_boundary(*at)).unwrap();
        let end = (start..=(start + len).min(COFFEE.len())).rev().find(|at| COFFEE.is_char_boundary(*at)).unwrap();
        let _ = Plan::parse(&format!("{}{}", &COFFEE[..start], &COFFEE[end..]));
        let _ = Plan::parse(&format!("{}{text}{}", &COFFEE[..start], &COFFEE[end..]));
    }
}

#[test]
fn nothing_counts_twice_and_nothing_is_finished_early() {
    let plan = Plan::parse(COFFEE).unwrap();
    let empty = SlotFold::new(&plan).finish();
    let mut last = Final::new(&plan, 2);
    assert_eq!(last.next(), Err(FinalError::MissingSlots(2)));
    last.add(Slot(1), &empty).unwrap();
    assert_eq!(last.add(Slot(1), &empty), Err(DeltaError::Twice(1)));
    assert!(last.add(Slot(2), &empty).is_err());
    assert_eq!(last.next(), Err(FinalError::MissingSlots(1)));
    last.add(Slot(0), &empty).unwrap();
    assert!(matches!(last.next(), Ok(FinalStep::Done(files)) if files.len() == 5));
    assert!(last.add_rows(3, Slot(0), &[0]).is_err());

    let layout = plan.bind_header(3, &[]).unwrap();
    let delta = map_batch(&plan, 1, &layout, &header(3), b"").unwrap().deltas.remove(0).1;
    let mut summaries = SummaryFold::new(&plan);
    summaries.add(3, 0, &delta).unwrap();
    assert_eq!(summaries.add(3, 0, &delta), Err(DeltaError::Twice(0)));
    assert!(summaries.add(0, 0, &delta).is_err(), "another table");
}
