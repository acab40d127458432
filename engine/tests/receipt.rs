//! Rejects and receipts: receipts list rejected rows, and inconsistent receipts are detected.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use cortado_engine::{
    COFFEE, Final, FinalError, Plan, RECEIPT_FILE, Receipt, SlotFold, SummaryFold, map_batch,
};
use cortado_protocol::job::JobSpec;
use cortado_protocol::{META_SLOT, Slot};
use support::{Batch, DURABILITY, Dataset, Random, coffee, cut, ends, recompute};

fn folded(plan: &Plan, spec: &JobSpec, batches: &[Batch]) -> SummaryFold {
    let mut summaries = SummaryFold::new(plan);
    for (header, payload) in batches {
        let table = usize::from(header.table);
        let file = &spec.tables[table].files[header.file as usize];
        let layout = plan.bind_header(table, &file.header).unwrap();
        let mapped = map_batch(plan, 1, &layout, header, payload).unwrap();
        let (slot, delta) = mapped.deltas.last().unwrap();
        assert_eq!(*slot, META_SLOT);
        summaries.add(table, header.number, delta).unwrap();
    }
    summaries
}

fn stores(content: &str) -> (Plan, Dataset) {
    let mut dataset: Dataset = vec![Vec::new(); 5];
    let file = format!("store_id,store_name,street\r\n{content}").into_bytes();
    dataset[3] = vec![("stores/a.csv".to_owned(), file)];
    (Plan::parse(COFFEE).unwrap(), dataset)
}

#[test]
fn rejects_say_file_line_reason_and_row() {
    let (plan, dataset) = stores(
        "1,One,x\n\
         \n\
         2,Two\n\
         3,\"Three\nlines\",x\r\n\
         x4,Four,x\r\n\
         5,,x\n\
         99999999999999999999,Six,x\n\
         7,Seven,x,y\n\
         8,\"Eight,x",
    );
    for target in [1, 30, 1000] {
        let (spec, batches) = cut(&plan, 1, &dataset, target);
        let rejects = folded(&plan, &spec, &batches).rejects(3, &spec);
        let found: Vec<_> = rejects
            .iter()
            .map(|r| (r.file.as_str(), r.line, r.reason.as_str(), r.row.as_str()))
            .collect();
        let file = "stores/a.csv";
        assert_eq!(
            found,
            [
                (file, 4, "expected 3 columns, found 2", "2,Two"),
                (file, 7, "store_id: not an int", "x4,Four,x"),
                (file, 8, "store_name: empty", "5,,x"),
                (file, 9, "store_id: out of range", "99999999999999999999,Six,x"),
                (file, 10, "expected 3 columns, found 4", "7,Seven,x,y"),
                (file, 11, "a quote is never closed", "8,\"Eight,x"),
            ]
        );
        let files = recompute(&plan, &spec, &batches);
        let receipt = Receipt::parse(&files.last().unwrap().bytes).unwrap();
        let table = &receipt.tables[3];
        assert_eq!((table.rows_in, table.rows_accepted, table.rows_rejected), (8, 2, 6));
        assert_eq!(table.rejected.len(), 6);
        assert_eq!(
            receipt.summary,
            "complete: 8 rows, 6 rejected, 0 lost, 0 twice, acknowledged by fsync on 2 of 3"
        );
    }
}

#[test]
fn kept_rejects_are_bounded_and_the_first() {
    let (plan, dataset) = stores(&format!("{}{}", "1,\n".repeat(3000), "y".repeat(5000)));
    let (spec, batches) = cut(&plan, 1, &dataset, 300);
    let summaries = folded(&plan, &spec, &batches);
    let rejects = summaries.rejects(3, &spec);
    assert_eq!(rejects.len(), 1000);
    let lines: Vec<_> = rejects.iter().map(|reject| reject.line).collect();
    assert_eq!(lines, (2..1002).collect::<Vec<_>>());
    let mut backwards = batches.clone();
    backwards.reverse();
    assert_eq!(folded(&plan, &spec, &backwards).rejects(3, &spec), rejects);
    let (spec, batches) = cut(&plan, 1, &dataset, 1 << 20);
    assert_eq!(folded(&plan, &spec, &batches).rejects(3, &spec).len(), 250);
    let (plan, dataset) = stores(&"y".repeat(5000));
    let (spec, batches) = cut(&plan, 1, &dataset, 300);
    assert_eq!(folded(&plan, &spec, &batches).rejects(3, &spec)[0].row, "y".repeat(1000));
}

#[test]
fn gaps_are_no_receipt() {
    let plan = Plan::parse(COFFEE).unwrap();
    let dataset = coffee::dataset(&mut Random(4), 100);
    let (spec, mut batches) = cut(&plan, 4, &dataset, 300);
    let declared = ends(&plan, &batches);
    assert!(declared[0] > 3, "{declared:?}");
    let at = batches.iter().position(|(h, _)| h.table == 0 && h.number == 1).unwrap();
    batches.remove(at);
    let error = folded(&plan, &spec, &batches).receipt(&spec, &declared, DURABILITY, &[], &[]);
    let Err(FinalError::Coverage { table, found, .. }) = error else { panic!("{error:?}") };
    assert_eq!((table.as_str(), &found[..]), ("transactions", &[(0, 1), (2, declared[0])][..]));
}

/// A slot, a table and the slot's delta of it.
type Delta = (Slot, usize, bytes::Bytes);

/// The slots must have folded exactly what was made of the batches, or there is no receipt.
#[test]
fn what_a_slot_left_out_or_counted_twice_is_no_receipt() {
    const SLOTS: usize = 4;
    let plan = Plan::parse(COFFEE).unwrap();
    let dataset = coffee::dataset(&mut Random(5), 100);
    let (spec, batches) = cut(&plan, SLOTS as u8, &dataset, 300);
    let mut deltas = Vec::new();
    let mut summaries = SummaryFold::new(&plan);
    for (header, payload) in &batches {
        let table = usize::from(header.table);
        let layout =
            plan.bind_header(table, &spec.tables[table].files[header.file as usize].header);
        for (slot, delta) in
            map_batch(&plan, SLOTS, &layout.unwrap(), header, payload).unwrap().deltas
        {
            if slot == META_SLOT {
                summaries.add(table, header.number, &delta).unwrap();
            } else if plan.counts(table) {
                deltas.push((slot, table, delta));
            }
        }
    }
    let receipt = |deltas: &[Delta]| {
        let mut last = Final::new(&plan, SLOTS);
        for slot in (0..SLOTS as u8).map(Slot) {
            let mut fold = SlotFold::new(&plan);
            for (_, table, delta) in deltas.iter().filter(|(of, ..)| *of == slot) {
                fold.add(*table, delta).unwrap();
            }
            last.add(slot, &fold.finish()).unwrap();
        }
        summaries.receipt(&spec, &ends(&plan, &batches), DURABILITY, &[], last.folded())
    };
    let right = receipt(&deltas).unwrap();
    assert_eq!((right.batches_lost, right.batches_twice), (0, 0));
    let complaint = |deltas: &[Delta]| {
        let Err(error @ FinalError::Tally { .. }) = receipt(deltas) else { panic!("a receipt") };
        error.to_string()
    };
    for at in [0, deltas.len() / 2, deltas.len() - 1] {
        let mut less = deltas.clone();
        let one = less.remove(at);
        assert!(complaint(&less).contains("pieces were made of the batches"));
        let mut more = deltas.clone();
        more.push(one);
        complaint(&more);
    }
    // The number of deltas is right, but one is there twice and another one is missing.
    let same = |a: &Delta, b: &Delta| a.1 == b.1;
    let other = deltas.iter().rposition(|other| same(other, &deltas[0])).unwrap();
    let mut swapped = deltas.clone();
    swapped[other] = deltas[0].clone();
    complaint(&swapped);
}

#[test]
fn tampering_is_found() {
    let plan = Plan::parse(COFFEE).unwrap();
    let (spec, batches) = cut(&plan, 4, &coffee::dataset(&mut Random(8), 150), 2000);
    let mut files = recompute(&plan, &spec, &batches);
    let file = files.pop().unwrap();
    assert_eq!(file.name, RECEIPT_FILE);
    let receipt = Receipt::parse(&file.bytes).unwrap();
    receipt.check().unwrap();
    receipt.check_results(&files).unwrap();
    assert_eq!(receipt.to_file(), file);
    let tampered = |change: fn(&mut Receipt)| {
        let mut copy = receipt.clone();
        change(&mut copy);
        assert_ne!(copy, receipt);
        copy.check().unwrap_err()
    };
    tampered(|r| r.tables[0].rows_in += 1);
    tampered(|r| r.tables[0].rows_rejected += 1);
    tampered(|r| r.queries[1].rows_passed += 1);
    tampered(|r| r.queries[4].rows_in += 1);
    tampered(|r| r.batches_lost = 1);
    tampered(|r| r.durability.min_copies = 4);
    tampered(|r| r.summary.push('!'));
    tampered(|r| drop(r.results.pop()));
    files[0].bytes = [&files[0].bytes[..], b"x"].concat().into();
    assert_eq!(
        receipt.check_results(&files),
        Err(vec!["'q1.csv' is not what was computed".into()])
    );
    let unknown =
        String::from_utf8(file.bytes.to_vec()).unwrap().replacen("\"format\"", "\"former\"", 1);
    assert!(Receipt::parse(unknown.as_bytes()).is_err());
}
