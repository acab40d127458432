//! Plans that users write and clients submit.

use cortado_engine::csv::{HeaderRead, read_header};
use cortado_engine::{COFFEE, Final, FinalStep, Plan, SlotFold, SummaryFold, map_batch};
use cortado_protocol::{META_SLOT, Slot};

use crate::sample::{RIDES, only_batch};

/// Values of every kind and of none, for any column.
const VALUES: [&str; 8] =
    ["7", "-1.25", "2024-01-31 10:06:50", "2024-02-29", "true", "", "a", "9223372036854775807"];

/// Any text is either refused or a plan that can be run.
pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let plan = match Plan::parse(text) {
        Ok(plan) => plan,
        Err(complaint) => return assert!(!complaint.to_string().is_empty()),
    };
    assert_eq!(Plan::parse(text).unwrap().hash(), plan.hash());
    run(&plan);
}

/// Every column takes each value in turn; all rows go through one slot.
fn run(plan: &Plan) {
    let mut fold = SlotFold::new(plan);
    let mut summaries = SummaryFold::new(plan);
    for table in 0..plan.tables().len() {
        let names: Vec<_> =
            plan.tables()[table].columns.iter().map(|column| column.name.clone()).collect();
        let layout = plan.bind_header(table, &names).unwrap();
        let mut rows = String::new();
        for row in 0..VALUES.len() {
            let value = |column| VALUES[(row + column) % VALUES.len()];
            rows.push_str(&(0..names.len()).map(value).collect::<Vec<_>>().join(","));
            rows.push('\n');
        }
        let header = only_batch(table);
        for (slot, delta) in
            map_batch(plan, 1, &layout, &header, rows.as_bytes()).expect("few rows").deltas
        {
            if slot == META_SLOT {
                summaries.add(table, 0, &delta).unwrap();
            } else {
                fold.add(table, &delta).unwrap();
            }
        }
    }
    let mut last = Final::new(plan, 1);
    last.add(Slot(0), &fold.finish()).unwrap();
    let files = loop {
        match last.next().unwrap() {
            FinalStep::Done(files) => break files,
            FinalStep::Lookup(requests) => {
                for request in requests {
                    for (slot, _) in request.keys {
                        last.add_rows(request.table, slot, &[0]).unwrap();
                    }
                }
            }
        }
    };
    for file in files {
        assert!(matches!(read_header(&file.bytes, true), Ok(HeaderRead::Header { .. })));
    }
}

/// The built-in plan, its parts, and another one.
#[must_use]
pub fn samples() -> Vec<Vec<u8>> {
    let parts: Vec<_> = COFFEE.split("[[queries]]").collect();
    let tables = parts[0];
    let one = parts[1..].iter().map(|query| format!("{tables}[[queries]]{query}"));
    one.chain([COFFEE.to_owned(), RIDES.to_owned()]).map(String::into_bytes).collect()
}
