//! Shared by the tests of the engine: datasets, the path through a cluster, and an oracle.
#![allow(dead_code, reason = "each test file uses a part")]
#![expect(clippy::unwrap_used, reason = "only tests are built on this")]

pub(crate) mod coffee;
pub(crate) mod naive;
pub(crate) mod rides;

use cortado_engine::csv::{Cut, Cutter, HeaderRead, read_header};
use cortado_engine::{
    Durability, Final, FinalStep, LookupFold, Plan, Recompute, ReportFile, SlotFold, SummaryFold,
    map_batch,
};
use cortado_protocol::job::{BatchHeader, FileSpec, JobSpec, TableFiles};
use cortado_protocol::{JobId, META_SLOT, Slot, content_hash};

pub(crate) const DURABILITY: Durability = Durability { replicas: 3, min_copies: 2 };

/// The files of each table, in the plan's order.
pub(crate) type Dataset = Vec<Vec<(String, Vec<u8>)>>;
pub(crate) type Batch = (BatchHeader, Vec<u8>);

/// A small generator of random numbers: the same seed gives the same dataset.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators").
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len() as u64) as usize]
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at as u64 + 1) as usize);
        }
    }
}

/// A CSV file of these rows, with the peculiarities of real exports.
pub(crate) fn write_file(random: &mut Random, header: &str, rows: &[Vec<String>]) -> Vec<u8> {
    let mut out = Vec::new();
    if random.chance(5) {
        return out;
    }
    let end: &[u8] = if random.chance(30) { b"\r\n" } else { b"\n" };
    if random.chance(30) {
        out.extend_from_slice(b"\xef\xbb\xbf");
    }
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(end);
    let quotes = random.chance(50);
    for row in rows {
        if random.chance(3) {
            out.extend_from_slice(end);
        }
        let fields: Vec<_> = row
            .iter()
            .map(|field| {
                let must = field.contains([',', '"', '\n']);
                if must || (quotes && random.chance(20)) {
                    format!("\"{}\"", field.replace('"', "\"\""))
                } else {
                    field.clone()
                }
            })
            .collect();
        out.extend_from_slice(fields.join(",").as_bytes());
        out.extend_from_slice(end);
    }
    if random.chance(30) {
        out.truncate(out.len() - end.len());
    }
    out
}

/// Damages some rows: a missing or extra column, an unreadable value.
pub(crate) fn damage(random: &mut Random, row: &mut Vec<String>) {
    match random.below(40) {
        0 => drop(row.pop()),
        1 => row.push("extra".to_owned()),
        2 => {
            let at = random.below(row.len() as u64) as usize;
            row[at] = random.pick(&["", "x", "1.23456", "2024-02-30 10:00:00", "-", "9e9"]).into();
        }
        _ => {}
    }
}

/// Cuts a dataset like a client.
pub(crate) fn cut(
    plan: &Plan,
    slots: u8,
    dataset: &Dataset,
    target: usize,
) -> (JobSpec, Vec<Batch>) {
    let (mut tables, mut batches) = (Vec::new(), Vec::new());
    for (table, files) in dataset.iter().enumerate() {
        let mut specs = Vec::new();
        let mut number = 0;
        for (file, (name, bytes)) in files.iter().enumerate() {
            assert!(plan.tables()[table].matches(name), "{name}");
            let HeaderRead::Header { fields, bytes: mut at, lines } =
                read_header(bytes, true).unwrap()
            else {
                panic!("a whole file has a header");
            };
            let mut first_line = lines + 1;
            let mut cutter = Cutter::new(target);
            loop {
                match cutter.next(&bytes[at..], true) {
                    Cut::Batch { len, lines } => {
                        let payload = bytes[at..at + len].to_vec();
                        let header = BatchHeader {
                            table: table as u16,
                            number,
                            file: file as u32,
                            offset: at as u64,
                            first_line,
                            content: content_hash(&payload),
                            trace: 0,
                            stream: None,
                        };
                        batches.push((header, payload));
                        number += 1;
                        at += len;
                        first_line += lines;
                    }
                    Cut::Skip { len, lines } => {
                        at += len;
                        first_line += lines;
                    }
                    Cut::End => break,
                    Cut::NeedMore => panic!("the whole file is there"),
                }
            }
            specs.push(FileSpec {
                name: name.clone(),
                bytes: bytes.len() as u64,
                header: fields.into(),
            });
        }
        tables.push(TableFiles { name: plan.tables()[table].name.clone(), files: specs });
    }
    let spec = JobSpec {
        job: JobId(1),
        plan_name: plan.name().to_owned(),
        plan_toml: String::new(),
        slots,
        tables,
    };
    (spec, batches)
}

pub(crate) fn ends(plan: &Plan, batches: &[Batch]) -> Vec<u64> {
    let count = |table| batches.iter().filter(|(h, _)| usize::from(h.table) == table).count();
    (0..plan.tables().len()).map(|table| count(table) as u64).collect()
}

/// The path through a cluster: deltas per slot in any order, slot outputs in any order, lookups.
pub(crate) fn cluster(
    plan: &Plan,
    spec: &JobSpec,
    batches: &[Batch],
    random: &mut Random,
) -> Vec<ReportFile> {
    let slots = usize::from(spec.slots);
    let mut ledger = Vec::new();
    for (header, payload) in batches {
        let table = usize::from(header.table);
        let file = &spec.tables[table].files[header.file as usize];
        let layout = plan.bind_header(table, &file.header).unwrap();
        let mapped = map_batch(plan, slots, &layout, header, payload).unwrap();
        assert_eq!(mapped, map_batch(plan, slots, &layout, header, payload).unwrap());
        assert!(mapped.deltas.windows(2).all(|pair| pair[0].0 < pair[1].0));
        ledger.extend(mapped.deltas.into_iter().map(|(slot, d)| (slot, table, header.number, d)));
    }
    random.shuffle(&mut ledger);
    let of_slot = |wanted: Slot| ledger.iter().filter(move |(slot, ..)| *slot == wanted);
    let mut order: Vec<_> = (0..slots).map(|slot| Slot(slot as u8)).collect();
    random.shuffle(&mut order);
    let mut last = Final::new(plan, slots);
    for slot in order {
        let mut fold = SlotFold::new(plan);
        for (_, table, _, delta) in of_slot(slot) {
            fold.add(*table, delta).unwrap();
        }
        last.add(slot, &fold.finish()).unwrap();
    }
    let mut files = loop {
        match last.next().unwrap() {
            FinalStep::Done(files) => break files,
            FinalStep::Lookup(requests) => {
                for request in requests {
                    for (slot, keys) in request.keys {
                        for key in &keys {
                            assert_eq!(cortado_engine::slot_of(key, slots), slot);
                        }
                        let mut lookup = LookupFold::new(plan, request.table, keys);
                        for (_, table, _, delta) in of_slot(slot) {
                            if *table == request.table {
                                lookup.add(delta).unwrap();
                            }
                        }
                        last.add_rows(request.table, slot, &lookup.finish()).unwrap();
                    }
                }
            }
        }
    };
    let mut summaries = SummaryFold::new(plan);
    for (_, table, number, delta) in of_slot(META_SLOT) {
        summaries.add(*table, *number, delta).unwrap();
    }
    let receipt =
        summaries.receipt(spec, &ends(plan, batches), DURABILITY, &files, last.folded()).unwrap();
    receipt.check().unwrap();
    receipt.check_results(&files).unwrap();
    files.push(receipt.to_file());
    files
}

pub(crate) fn recompute(plan: &Plan, spec: &JobSpec, batches: &[Batch]) -> Vec<ReportFile> {
    let mut recompute = Recompute::new(plan, spec).unwrap();
    for (header, payload) in batches {
        recompute.add(header, payload).unwrap();
    }
    recompute.finish(DURABILITY).unwrap()
}

pub(crate) fn text(file: &ReportFile) -> &str {
    std::str::from_utf8(&file.bytes).unwrap()
}
