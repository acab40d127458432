//! The cost of a batch: decoding it with filters and groups, and folding its deltas.

use std::fmt::Write;
use std::hint::black_box;

use cortado_engine::csv::read_header;
use cortado_engine::{COFFEE, Plan, SlotFold, map_batch};
use cortado_protocol::JobId;
use cortado_protocol::job::{BatchHeader, trace_id};
use cortado_protocol::{META_SLOT, content_hash};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const SLOTS: usize = 64;
/// Rows of a batch of about 1 MiB.
const ROWS: u64 = 12_000;

/// Numbers that look random but are the same in every run (SplitMix64, Steele et al., OOPSLA 2014).
fn drawn(at: u64) -> u64 {
    let state = (at + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn transactions() -> String {
    let mut text = "transaction_id,store_id,payment_method_id,voucher_id,user_id,original_amount,\
        discount_applied,final_amount,created_at\n"
        .to_owned();
    for row in 0..ROWS {
        let random = drawn(row);
        let (store, user) = (random % 10 + 1, random % 1_000_000);
        let (whole, cents) = (random >> 20 & 127, random >> 30 & 63);
        let (day, hour, minute) = (random >> 40 & 15, random >> 45 & 15, random >> 50 & 31);
        let _ = writeln!(
            text,
            "{random:016x}-{row:08x},{store},{},,{user}.0,{whole}.{cents:02},0.0,{whole}.\
             {cents:02},2024-07-{:02} {hour:02}:{minute:02}:07",
            random % 5,
            day + 1,
        );
    }
    text
}

fn items() -> String {
    let mut text = "transaction_id,item_id,quantity,unit_price,subtotal,created_at\n".to_owned();
    for row in 0..ROWS {
        let random = drawn(row);
        let (item, quantity) = (random % 8 + 1, random >> 8 & 3);
        let _ = writeln!(
            text,
            "{random:016x}-{row:08x},{item},{quantity},9.5,{}.5,2024-08-{:02} 12:30:00",
            quantity * 9,
            (random >> 40 & 15) + 1,
        );
    }
    text
}

fn batches(criterion: &mut Criterion) {
    let plan = Plan::parse(COFFEE).expect("the plan is valid");
    for (table, text) in [(0, transactions()), (1, items())] {
        let name = &plan.tables()[table].name;
        let header = read_header(text.as_bytes(), true).expect("a header");
        let cortado_engine::csv::HeaderRead::Header { fields, bytes, .. } = header else {
            panic!("the header is whole")
        };
        let layout = plan.bind_header(table, &fields).expect("the header fits");
        let payload = &text.as_bytes()[bytes..];
        let header = BatchHeader {
            table: table as u16,
            number: 0,
            file: 0,
            offset: bytes as u64,
            first_line: 2,
            content: content_hash(payload),
            trace: trace_id(JobId(0), table as u16, 0),
            stream: None,
        };
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(payload.len() as u64));
        let map = || {
            map_batch(&plan, SLOTS, &layout, &header, payload).expect("a batch of coffee is small")
        };
        group.bench_function("map", |bencher| bencher.iter(|| black_box(map())));
        let mapped = map();
        let deltas: Vec<_> = mapped.deltas.iter().filter(|(slot, _)| *slot != META_SLOT).collect();
        group.throughput(Throughput::Bytes(deltas.iter().map(|(_, d)| d.len() as u64).sum()));
        group.bench_function("fold", |bencher| {
            bencher.iter(|| {
                let mut fold = SlotFold::new(&plan);
                for (_, delta) in &deltas {
                    fold.add(table, delta).expect("a delta of this plan");
                }
                black_box(fold.finish())
            });
        });
        group.finish();
    }
}

criterion_group!(engine, batches);
criterion_main!(engine);
