//! Limits on what a plan makes of a batch, and the memory that a fold reports.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fmt::Write;

use cortado_engine::{
    MAP_BYTES, MapError, Mapped, Plan, SlotFold, largest_of_stages, largest_query, map_batch,
};
use cortado_protocol::META_SLOT;
use cortado_protocol::job::BatchHeader;

/// A plan over a table with a number and a text.
fn plan(queries: &str) -> Plan {
    let table = "name = 'x'\n[tables.x]\nfiles = 'x.csv'\n\
                 [tables.x.columns]\nn = 'int'\nt = 'text'\n";
    Plan::parse(&format!("{table}{queries}")).unwrap()
}

fn map(plan: &Plan, payload: &str) -> Result<Mapped, MapError> {
    let layout = plan.bind_header(0, &["n".to_owned(), "t".to_owned()]).unwrap();
    let content = cortado_protocol::content_hash(payload.as_bytes());
    let header = BatchHeader {
        table: 0,
        number: 0,
        file: 0,
        offset: 0,
        first_line: 1,
        content,
        trace: 1,
        stream: None,
    };
    map_batch(plan, 4, &layout, &header, payload.as_bytes())
}

fn columns(count: usize, expression: impl Fn(usize) -> String) -> String {
    let columns: Vec<_> = (0..count).map(|c| format!("c{c} = \"{}\"", expression(c))).collect();
    let columns = columns.join(", ");
    format!("[[queries]]\noutput = 'q.csv'\nfrom = 'x'\ncolumns = {{ {columns} }}\n")
}

#[test]
fn what_no_entry_can_hold_is_not_made() {
    let plan = plan(&columns(60, |_| "t".to_owned()));
    let row = format!("1,{}\n", "x".repeat(1000));
    assert!(map(&plan, &row.repeat(200)).is_ok());
    let payload = row.repeat(1000);
    let error = map(&plan, &payload).unwrap_err();
    assert_eq!(error, MapError::Output(payload.len()));
    let message = error.to_string();
    assert!(
        message.starts_with("this plan makes more than 16.0 MiB of a batch of 1.0 MiB"),
        "{message}"
    );
    // One long row is enough.
    let wide = format!("1,{}\n", "x".repeat(1_000_000));
    assert_eq!(map(&plan, &wide).unwrap_err(), MapError::Output(wide.len()));
}

#[test]
fn what_takes_too_much_memory_is_not_begun() {
    let plan = plan(&columns(64, |c| format!("n + {c}")));
    let rows = "1,a\n".repeat(500_000);
    let Err(MapError::Memory { bytes, rows: 500_000 }) = map(&plan, &rows) else {
        panic!("it was taken")
    };
    assert!(bytes > MAP_BYTES);
    assert!(map(&plan, &"1,a\n".repeat(100_000)).is_ok());
}

#[test]
fn a_fold_knows_what_it_takes_and_which_query_it_is() {
    let plan = plan(
        "[[queries]]\noutput = 'few.csv'\nfrom = 'x'\ngroup_by = { t = 't' }\naggregates = { s = 'sum(n)' }\n\
         [[queries]]\noutput = 'many.csv'\nfrom = 'x'\ngroup_by = { n = 'n' }\naggregates = { c = 'count(*)' }\n",
    );
    const GROUPS: usize = 50_000;
    let mut rows = String::new();
    (0..GROUPS).for_each(|n| writeln!(rows, "{n},a").unwrap());
    let mut fold = SlotFold::new(&plan);
    let sum = |fold: &SlotFold| fold.stage_bytes().sum::<usize>();
    assert!(sum(&fold) < 1000);
    for (slot, delta) in map(&plan, &rows).unwrap().deltas {
        if slot != META_SLOT {
            fold.add(0, &delta).unwrap();
        }
    }
    // A key of 3 bytes with its end, a hash, an entry of the table, a count; vectors may be half
    // empty.
    let least = GROUPS * (3 + 8 + 8 + 5 + 8);
    let bytes = sum(&fold);
    assert!((least..4 * least).contains(&bytes), "{bytes}");
    let stages: Vec<_> = fold.stage_bytes().collect();
    assert_eq!(largest_of_stages(&plan, &stages), "many.csv");
    let output = fold.finish();
    assert_eq!(largest_query(&plan, [&output].into_iter()), "many.csv");
}
