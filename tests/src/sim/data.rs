//! A small dataset, cut into batches, and the answer a reference model gives.

use std::fmt::Write;

use bytes::Bytes;
use cortado_engine::csv::{Cut, Cutter, HeaderRead, read_header};
use cortado_engine::{Durability, Plan, Recompute, ReportFile};
use cortado_protocol::job::{BatchHeader, FileSpec, JobSpec, TableFiles, trace_id};
use cortado_protocol::{JobId, content_hash};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// A job's specification and its batches, table by table.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// What to submit.
    pub spec: JobSpec,
    /// The batches of each table, in order.
    pub tables: Vec<Vec<(BatchHeader, Bytes)>>,
}

impl Dataset {
    /// A batch of a table. Beyond the table's end it is the first one under another number: what a
    /// broken client may send.
    pub(super) fn batch(&self, table: usize, number: u64) -> (BatchHeader, Bytes) {
        let batches = &self.tables[table];
        let known = batches.get(number as usize).cloned();
        known.unwrap_or_else(|| {
            let (header, payload) = batches[0].clone();
            (BatchHeader { number, ..header }, payload)
        })
    }

    /// A coffee dataset drawn from a seed: fewer than so many transactions in small batches, with
    /// ties, anonymous users and rows that can't be read.
    #[must_use]
    pub fn coffee(job: JobId, seed: u64, slots: u8, rows: usize) -> Self {
        let rng = &mut StdRng::seed_from_u64(seed);
        let count = rng.random_range(0..rows);
        let target = rng.random_range(200..2_000);
        let text = cortado_engine::COFFEE;
        let plan = Plan::parse(text).expect("the coffee plan is valid");
        let texts = [
            vec![transactions(rng, count), transactions(rng, count / 3)],
            vec![items(rng, count)],
            vec![users(rng)],
            vec![stores()],
            vec![menu()],
        ];
        let mut spec = JobSpec {
            job,
            plan_name: plan.name().to_owned(),
            plan_toml: text.to_owned(),
            slots,
            tables: Vec::new(),
        };
        let mut tables = Vec::new();
        for (table, files) in texts.into_iter().enumerate() {
            let name = plan.tables()[table].name.clone();
            let mut batches = Vec::new();
            let mut specs = Vec::new();
            for (file, text) in files.iter().enumerate() {
                let header = cut(job, table as u16, file as u32, text, target, &mut batches);
                let (bytes, header) = (text.len() as u64, header.into());
                specs.push(FileSpec { name: format!("{name}/{file}.csv"), bytes, header });
            }
            spec.tables.push(TableFiles { name, files: specs });
            tables.push(batches);
        }
        Self { spec, tables }
    }

    /// What one process computes from all batches.
    ///
    /// # Panics
    /// If the engine can't compute its own plan: nothing can be simulated then.
    #[must_use]
    pub fn answer(&self, durability: Durability) -> Vec<ReportFile> {
        let plan = Plan::parse(&self.spec.plan_toml).expect("the plan is valid");
        let mut model = Recompute::new(&plan, &self.spec).expect("the dataset fits the plan");
        for (header, payload) in self.tables.iter().flatten() {
            model.add(header, payload).expect("a batch of the dataset");
        }
        model.finish(durability).expect("all batches are there")
    }
}

fn cut(
    job: JobId,
    table: u16,
    file: u32,
    text: &str,
    target: usize,
    batches: &mut Vec<(BatchHeader, Bytes)>,
) -> Vec<String> {
    let bytes = Bytes::copy_from_slice(text.as_bytes());
    let Ok(HeaderRead::Header { fields, bytes: mut at, lines }) = read_header(&bytes, true) else {
        unreachable!("the generated header is a line");
    };
    let mut line = lines + 1;
    let mut cutter = Cutter::new(target);
    loop {
        let (len, breaks, keep) = match cutter.next(&bytes[at..], true) {
            Cut::Batch { len, lines } => (len, lines, true),
            Cut::Skip { len, lines } => (len, lines, false),
            Cut::NeedMore | Cut::End => return fields,
        };
        if keep {
            let payload = bytes.slice(at..at + len);
            let number = batches.len() as u64;
            let header = BatchHeader {
                table,
                number,
                file,
                offset: at as u64,
                first_line: line,
                content: content_hash(&payload),
                trace: trace_id(job, table, number),
                stream: None,
            };
            batches.push((header, payload));
        }
        at += len;
        line += breaks;
    }
}

fn time(rng: &mut StdRng) -> String {
    let year = rng.random_range(2023..2027);
    let (month, day) = (rng.random_range(1..13), rng.random_range(1..29));
    let (hour, minute) = (rng.random_range(0..24), rng.random_range(0..60));
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:00")
}

fn transactions(rng: &mut StdRng, count: usize) -> String {
    let mut text = "transaction_id,store_id,payment_method_id,voucher_id,user_id,\
        original_amount,discount_applied,final_amount,created_at\n"
        .to_owned();
    for _ in 0..count {
        let id: u64 = rng.random();
        let store = rng.random_range(1..4);
        let user = match rng.random_range(0..4) {
            0 => String::new(),
            1 => format!("{}.0", rng.random_range(1..9)),
            _ => rng.random_range(1..9).to_string(),
        };
        let amount = match rng.random_range(0..30) {
            0 => "oops".to_owned(),
            1 => "12.5".to_owned(),
            // Cents that no floating-point number holds.
            2 => "9007199254740993.07".to_owned(),
            _ => format!("{}.{:02}", rng.random_range(1..150), rng.random_range(0..100)),
        };
        let at = time(rng);
        let _ = writeln!(text, "{id:016x},{store},1,,{user},{amount},0.0,{amount},{at}");
    }
    text
}

fn items(rng: &mut StdRng, count: usize) -> String {
    let mut text = "transaction_id,item_id,quantity,unit_price,subtotal,created_at\n".to_owned();
    for _ in 0..count {
        let (item, quantity) = (rng.random_range(1..5), rng.random_range(1..4));
        let at = time(rng);
        let _ = writeln!(text, "t,{item},{quantity},2.5,{}.0,{at}", quantity * 2);
    }
    text
}

fn users(rng: &mut StdRng) -> String {
    let mut text = "user_id,gender,birthdate,registered_at\n".to_owned();
    for user in 1..9 {
        let year = rng.random_range(1950..2005);
        let _ = writeln!(text, "{user},f,{year}-02-03,2023-01-01 00:00:00");
    }
    text
}

fn stores() -> String {
    let mut text =
        "store_id,store_name,street,postal_code,city,state,latitude,longitude\n".to_owned();
    for (store, name) in [(1, "North"), (2, "\"South, Hill\""), (3, "Quay")] {
        let _ = writeln!(text, "{store},{name},s,1,c,st,0.0,0.0");
    }
    text
}

fn menu() -> String {
    let mut text =
        "item_id,item_name,category,price,is_seasonal,available_from,available_to\n".to_owned();
    for (item, name) in [(1, "Espresso"), (2, "Mocha"), (3, "Latte"), (4, "Tea")] {
        let _ = writeln!(text, "{item},{name},c,2.5,False,,");
    }
    text
}
