//! CSV files: the rows do not depend on how the bytes arrive and where the file is cut into
//! batches.

use bytes::Bytes;
use cortado_engine::csv::{Cut, Cutter, HeaderRead, read_header};
use cortado_engine::{Layout, Plan, SlotFold, SummaryFold, map_batch};
use cortado_protocol::META_SLOT;
use cortado_protocol::job::BatchHeader;
use cortado_protocol::limits::{BATCH_TARGET_BYTES, RECORD_BYTES};

use crate::{Pieces, sample};

/// A batch: its start and end in the file, and the number of its first line.
type Batch = (usize, usize, u64);

/// Input: a byte for the plan and the table, a batch size, a chunk size, a byte that asks for a
/// record that is too long; then a file.
pub fn check(bytes: &[u8]) {
    let mut pieces = Pieces::new(bytes);
    let choice = pieces.byte();
    let target = usize::from(pieces.short()).max(1);
    let chunk = usize::from(pieces.short()).max(1);
    let long = pieces.byte() == 0xff;
    let mut file = pieces.rest().to_vec();
    if long {
        // A fuzzer would not find this alone: a record around the size limit in the middle of the
        // file.
        let at = (target % (file.len() + 1)).min(file.len());
        let len = RECORD_BYTES - 600 + chunk % 1200;
        file.splice(at..at, std::iter::repeat_n(b'x', len));
    }
    let plan = sample::plan(choice);
    let table = usize::from(choice >> 1) % plan.tables().len();
    let (layout, start, line) = header(plan, table, &file);

    let whole = batches(&file, start, line, BATCH_TARGET_BYTES, usize::MAX);
    let pieces = batches(&file, start, line, BATCH_TARGET_BYTES, chunk.max(file.len() / 50));
    assert_eq!(whole, pieces, "batches do not depend on how the bytes arrive");
    let target = target.max(file.len() / 500);
    let small = batches(&file, start, line, target, usize::MAX);
    let one = Counted::of(plan, table, &layout, &file, &whole);
    let two = Counted::of(plan, table, &layout, &file, &small);
    assert_eq!(one, two, "what is counted does not depend on the size of batches");
}

/// The columns in the header; the plan's columns if the header is useless.
fn header(plan: &Plan, table: usize, file: &[u8]) -> (Layout, usize, u64) {
    if let Ok(HeaderRead::Header { fields, bytes, lines }) = read_header(file, true)
        && let Ok(layout) = plan.bind_header(table, &fields)
    {
        return (layout, bytes, lines + 1);
    }
    let names: Vec<_> = plan.tables()[table].columns.iter().map(|c| c.name.clone()).collect();
    (plan.bind_header(table, &names).unwrap(), 0, 1)
}

/// Cuts a file that arrives in chunks of this size into batches.
fn batches(file: &[u8], start: usize, line: u64, target: usize, chunk: usize) -> Vec<Batch> {
    let mut cutter = Cutter::new(target);
    let (mut at, mut line, mut end) = (start, line, start);
    let mut found = Vec::new();
    loop {
        match cutter.next(&file[at..end], end == file.len()) {
            Cut::End => break,
            Cut::NeedMore => {
                assert!(end < file.len() && end - at < cutter.window(), "it asks for too much");
                end = end.saturating_add(chunk).min(file.len());
            }
            Cut::Batch { len, lines } => {
                assert!(len > 0 && len <= (RECORD_BYTES + 1).max(target));
                found.push((at, at + len, line));
                (at, line) = (at + len, line + lines);
            }
            Cut::Skip { len, lines } => {
                assert!(len > 0);
                (at, line) = (at + len, line + lines);
            }
        }
    }
    assert_eq!(at, file.len(), "nothing is left");
    found
}

/// The results that must not depend on the batches.
#[derive(Debug, PartialEq, Eq)]
struct Counted {
    rows: u64,
    rejected: u64,
    output: Bytes,
}

impl Counted {
    fn of(plan: &Plan, table: usize, layout: &Layout, file: &[u8], batches: &[Batch]) -> Self {
        let mut fold = SlotFold::new(plan);
        let mut summaries = SummaryFold::new(plan);
        let (mut rows, mut rejected) = (0, 0);
        for (number, (start, end, line)) in batches.iter().enumerate() {
            let header = BatchHeader {
                number: number as u64,
                offset: *start as u64,
                first_line: *line,
                ..sample::only_batch(table)
            };
            let mapped = map_batch(plan, 1, layout, &header, &file[*start..*end]).unwrap();
            assert!(mapped.rejected <= mapped.rows);
            rows += u64::from(mapped.rows);
            rejected += u64::from(mapped.rejected);
            for (slot, delta) in &mapped.deltas {
                if *slot == META_SLOT {
                    summaries.add(table, number as u64, delta).unwrap();
                } else {
                    fold.add(table, delta).unwrap();
                }
            }
        }
        Self { rows, rejected, output: fold.rows() }
    }
}

/// Files for each table.
#[must_use]
pub fn samples() -> Vec<Vec<u8>> {
    let mut samples = Vec::new();
    for (table, (_, header, rows)) in sample::FILES.into_iter().enumerate() {
        for long in [0, 0xff] {
            let head = [(table as u8) << 1, 40, 0, 7, 0, long];
            let file = format!("\u{feff}{header}\r\n{rows}{}", rows.replace('\n', "\r\n"));
            samples.push([&head[..], file.as_bytes()].concat());
        }
    }
    let rides = "started,fare,metres,note,bike,ride_id\n2023-01-02 05:30:00,-1.5,5000,\"a, b\",b1,r1\n\"x\n\",\"\"\"\"\n\n2023-07-02 17:00:00,,9,,,r2";
    samples.push([&[1, 9, 0, 9, 0, 0], rides.as_bytes()].concat());
    samples
}
