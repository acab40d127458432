//! Fills the log of a stopped node with batches of one job, for measurements: `scripts/bench.sh
//! --storage`.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use clap::Parser;
use cortado_core::Group;
use cortado_log::{FileStorage, Log, LogConfig};
use cortado_protocol::entry::{Entry, Source};
use cortado_protocol::{Edge, EntryKey, JobId, META_SLOT, Slot, SlotSet};

/// Append batches to the log of a node that does not run.
#[derive(Debug, Parser)]
struct Flags {
    /// The node's data folder.
    data: PathBuf,
    /// How many batches.
    #[arg(long)]
    batches: u64,
    /// Bytes of each batch's deltas.
    #[arg(long, default_value_t = 100)]
    bytes: usize,
    /// Slots among which a batch's deltas are divided.
    #[arg(long, default_value_t = 4)]
    slots: u8,
}

fn main() -> anyhow::Result<()> {
    let Flags { data, batches, bytes, slots } = Flags::parse();
    let storage = Arc::new(FileStorage::open(&data).context("the node's data folder")?);
    let (mut log, _) = Log::open(storage, LogConfig::default(), 1, &mut |_, _, _| ())?;
    let job = JobId::v7(1_700_000_000_000, 1);
    let delta = Bytes::from(vec![7; bytes / (usize::from(slots) + 1)]);
    let deltas: Vec<_> =
        (0..slots).map(Slot).chain([META_SLOT]).map(|slot| (slot, delta.clone())).collect();
    let all = SlotSet::first(64).or(SlotSet::META);
    for number in 0..batches {
        let key = EntryKey { job, edge: Edge::table(0), number };
        let source = Source { content: number, bytes: 1000, rows: 10 };
        let entry = Entry::new(key, source, all, &deltas).encode();
        let (head, rest) = entry.split_at(Entry::head_len(&entry));
        log.append(1, Group::of(&key).number(), 0, &[head, rest])?;
    }
    log.sync()?;
    Ok(())
}
