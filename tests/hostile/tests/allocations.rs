//! Decoding allocates at most a constant times the input, whatever lengths the input claims.
//!
//! This is the only test in its process, because the counter counts all allocations of the process.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::LazyLock;

use bytes::Bytes;
use cortado_engine::csv::read_header;
use cortado_engine::{COFFEE, Final, LookupFold, Plan, Receipt, SlotFold, SummaryFold, map_batch};
use cortado_protocol::client::{BatchReply, ClientRequest, ClientResponse};
use cortado_protocol::entry::Entry;
use cortado_protocol::frame::{PREFIX_BYTES, decode, from_postcard};
use cortado_protocol::job::{BatchHeader, JobEntry, JobSpec};
use cortado_protocol::peer::{Hello, LinkFrame};
use cortado_protocol::{Coverage, Slot};
use cortado_transport::Identity;
use hostile::{CHECKS, only_batch};
use peak_alloc::PeakAlloc;
use rustls_pki_types::CertificateDer;
use serde::de::DeserializeOwned;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

static PLAN: LazyLock<Plan> = LazyLock::new(|| Plan::parse(COFFEE).unwrap());

/// Bytes that a decoder may allocate in addition: a table, a buffer, an error message.
const BESIDES: usize = 64 << 10;

/// The most bytes allocated at one time while `run` runs.
fn peak(run: impl FnOnce()) -> usize {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    run();
    MEMORY.peak_usage().saturating_sub(before)
}

struct Decoder {
    name: &'static str,
    /// The check that has the samples.
    check: &'static str,
    /// Bytes to skip at the beginning of a sample.
    skip: usize,
    /// Bytes allocated per byte of input.
    factor: usize,
    run: fn(&Bytes),
}

/// Decodes a frame's head, without the lengths in front of it.
fn head<T: DeserializeOwned>(bytes: &Bytes) {
    let _ = from_postcard::<T>(bytes);
}

fn deltas(bytes: &Bytes) {
    for table in 0..PLAN.tables().len() {
        let _ = SlotFold::new(&PLAN).add(table, bytes);
        let _ = LookupFold::new(&PLAN, table, vec![vec![0, 2]]).add(bytes);
    }
    let _ = Final::new(&PLAN, 1).add(Slot(0), bytes);
}

fn summaries(bytes: &Bytes) {
    for table in 0..PLAN.tables().len() {
        let _ = SummaryFold::new(&PLAN).add(table, 0, bytes);
    }
}

fn rows(bytes: &Bytes) {
    for table in 0..PLAN.tables().len() {
        let names = PLAN.tables()[table].columns.iter().map(|column| column.name.clone());
        let layout = PLAN.bind_header(table, &names.collect::<Vec<_>>()).unwrap();
        drop(map_batch(&PLAN, 4, &layout, &only_batch(table), bytes));
    }
}

/// Every decoder, with its limit. Empty texts and lists cost most: each is encoded in one byte and
/// takes 24, and three times as much while the list that holds them grows. A job's status takes 300
/// bytes for an encoding of 9, and an answer may list any number of them.
const DECODERS: &[Decoder] = &[
    Decoder {
        name: "frame",
        check: "peer_frames",
        skip: PREFIX_BYTES,
        factor: 256,
        run: |bytes| drop(decode::<LinkFrame>(bytes)),
    },
    Decoder {
        name: "LinkFrame",
        check: "peer_frames",
        skip: 8,
        factor: 256,
        run: head::<LinkFrame>,
    },
    Decoder { name: "Hello", check: "peer_frames", skip: 8, factor: 100, run: head::<Hello> },
    Decoder {
        name: "ClientRequest",
        check: "client_frames",
        skip: 8,
        factor: 100,
        run: head::<ClientRequest>,
    },
    Decoder {
        name: "ClientResponse",
        check: "client_frames",
        skip: 8,
        factor: 256,
        run: head::<ClientResponse>,
    },
    Decoder {
        name: "BatchHeader",
        check: "client_frames",
        skip: 8,
        factor: 100,
        run: head::<BatchHeader>,
    },
    Decoder {
        name: "BatchReply",
        check: "client_frames",
        skip: 8,
        factor: 100,
        run: head::<BatchReply>,
    },
    Decoder { name: "JobSpec", check: "client_frames", skip: 9, factor: 100, run: head::<JobSpec> },
    Decoder {
        name: "JobEntry",
        check: "client_frames",
        skip: 8,
        factor: 100,
        run: head::<JobEntry>,
    },
    Decoder {
        name: "Coverage",
        check: "peer_frames",
        skip: 10,
        factor: 100,
        run: head::<Coverage>,
    },
    Decoder {
        name: "keys",
        check: "peer_frames",
        skip: 8,
        factor: 100,
        run: head::<Vec<(Slot, Vec<Vec<u8>>)>>,
    },
    Decoder {
        name: "Entry",
        check: "peer_frames",
        skip: 16,
        factor: 100,
        run: |bytes| drop(Entry::decode(bytes)),
    },
    Decoder { name: "deltas", check: "ledger", skip: 1, factor: 100, run: deltas },
    Decoder { name: "summaries", check: "ledger", skip: 1, factor: 100, run: summaries },
    Decoder {
        name: "receipt",
        check: "ledger",
        skip: 1,
        factor: 100,
        run: |bytes| drop(Receipt::parse(bytes)),
    },
    Decoder { name: "rows", check: "csv", skip: 6, factor: 100, run: rows },
    Decoder {
        name: "header line",
        check: "csv",
        skip: 6,
        factor: 100,
        run: |bytes| drop(read_header(bytes, true)),
    },
    Decoder {
        name: "plan",
        check: "plan",
        skip: 0,
        factor: 100,
        run: |bytes| drop(Plan::parse(&String::from_utf8_lossy(bytes))),
    },
    Decoder {
        name: "certificate",
        check: "certificate",
        skip: 0,
        factor: 100,
        run: |bytes| drop(Identity::of(&CertificateDer::from(&bytes[..]))),
    },
];

/// A length in postcard's encoding.
fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A sample in which each byte is replaced by a length: once with nothing after it, once with as
/// many small elements. In a long sample, only some places are tried.
fn hostile(sample: &[u8]) -> impl Iterator<Item = Bytes> + '_ {
    let step = sample.len().div_ceil(60).max(1);
    (0..=sample.len()).step_by(step).flat_map(move |at| {
        let (before, after) = (&sample[..at], sample.get(at + 1..).unwrap_or_default());
        let claim = |len: u64| [before, &varint(len), after].concat().into();
        let full = |byte: u8, len: usize| {
            [before, &varint(len as u64), &vec![byte; len], after].concat().into()
        };
        let claims = [1 << 16, 1 << 32, u64::MAX].map(claim);
        let fulls = [full(0, 5_000), full(1, 5_000), full(b'"', 2_000), full(b'\n', 2_000)];
        claims.into_iter().chain(fulls)
    })
}

/// Large inputs of one repeated byte, after each possible variant number of an enumeration.
fn uniform() -> impl Iterator<Item = Bytes> {
    [0, 1, 2, 3, 8, 16, 0x7f, 0xff, b'[', b'(', b'"', b',', b'\n', b'a'].into_iter().flat_map(
        |byte| {
            (0..20u8).step_by(3).map(move |variant| {
                let start = [&[0, variant, variant / 2][..], &varint(200_000)].concat();
                [start, vec![byte; 200_000]].concat().into()
            })
        },
    )
}

#[test]
fn decoders_allocate_at_most_a_constant_times_their_input() {
    assert_eq!(PLAN.tables().len(), 5, "compiled before anything is counted");
    let mut failed = Vec::new();
    for decoder in DECODERS {
        let check = CHECKS.iter().find(|check| check.name == decoder.check).unwrap();
        let samples = (check.samples)();
        let samples: Vec<_> =
            samples.iter().filter_map(|sample| sample.get(decoder.skip..)).collect();
        let inputs = samples.iter().flat_map(|sample| hostile(sample)).chain(uniform());
        let (mut worst, mut count) = (0.0_f64, 0);
        for input in inputs {
            count += 1;
            let bytes = peak(|| (decoder.run)(&input));
            let ratio = bytes.saturating_sub(BESIDES) as f64 / input.len().max(1) as f64;
            worst = worst.max(ratio);
        }
        println!("{:<16} {count:>6} inputs, at most {worst:>6.1} bytes per byte", decoder.name);
        if worst > decoder.factor as f64 {
            failed.push((decoder.name, worst));
        }
    }
    assert!(failed.is_empty(), "too much for their input: {failed:?}");
}
