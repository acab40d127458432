//! Tasks of streams: folds windows, reads summaries and outputs, and makes the rows of a round.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use cortado_engine::mebi;
use cortado_protocol::limits::ENTRY_BYTES;
use cortado_protocol::stream::{Cursor, Place, Row};
use cortado_protocol::{Coverage, Edge, EntryKey, META_SLOT, Slot, SlotSet, frame};
use cortado_stream::{
    Checkpoint, Cut, DeadLetter, Fresh, IdIndex, Known, Made, OutputBatch, OutputRow,
    PublishedWindow, StreamPlan, Summary, Touch, Wanted, WindowCount, WindowFold, publish,
    stored_events,
};

use crate::job::BoundPlan;
use crate::reading::{Records, Stop, for_each};
use crate::record::Located;

/// While so many dead letters wait to be published, no more summaries are read.
pub(crate) const DEAD_LETTERS: u64 = 1_000;
/// Bytes of rows after which an answer to a reader ends.
const ROWS_BYTES: usize = 1 << 20;

/// What to do.
#[derive(Debug)]
pub enum StreamTask {
    /// Read the summaries of batches.
    Summaries(Vec<Located>),
    /// Read what was published.
    Published(Vec<Located>),
    /// Make the rows of a round.
    Publish(Box<Making>),
    /// Read the rows of an output for a reader.
    Rows {
        /// The output's name.
        output: String,
        /// Where the reader stands, or the floors where those are higher.
        after: Cursor,
        /// Batches that it has not read and that are gone.
        gone: u64,
        /// Batches of outputs, of each edge in order.
        entries: Vec<Located>,
        /// Of a stream that has ended: the last batch of each edge, if no other batches are left.
        ends: Vec<Located>,
    },
    /// Read which batches an output batch includes.
    Cut(Located),
    /// Read an event that is not counted.
    Dead {
        /// Its batch.
        located: Located,
        /// Its line in the batch.
        position: u32,
    },
    /// Read a row, for a client or to deliver it once more.
    Row {
        /// Its batch.
        located: Located,
        /// Its number in the batch.
        row: u32,
    },
}

/// What the rows of a round are made of.
#[derive(Debug)]
pub struct Making {
    /// The stream.
    pub plan: Arc<StreamPlan>,
    /// The batches that the round includes.
    pub cut: Cut,
    /// The windows, in the order in which the slots folded them.
    pub wanted: Wanted,
    /// The part of each slot.
    pub parts: Vec<(Slot, Bytes)>,
    /// The batches with dead letters that are included for the first time.
    pub fresh: Vec<Located>,
    /// What else the coordinator knows.
    pub known: Known,
}

/// What came of it.
#[derive(Debug)]
pub enum StreamOutput {
    /// Of [`StreamTask::Summaries`]: those that were read, the first ones of those wanted.
    Summaries(Vec<Brief>),
    /// Of [`StreamTask::Published`].
    Published(Vec<PublishedBatch>),
    /// Of [`StreamTask::Publish`].
    Output(OutputBatch),
    /// Of [`StreamTask::Publish`], if windows that are not in the round may be touched: all that may be, of
    /// the round and others, and what the round is made of.
    Touched(Vec<Touch>, Box<Making>),
    /// Of [`StreamTask::Rows`].
    Rows {
        /// The rows.
        rows: Vec<Row>,
        /// Where the reader stands after them.
        cursor: Cursor,
        /// Whether no more rows will come.
        ended: bool,
        /// Batches that the reader has not read and that are gone.
        gone: u64,
    },
    /// Of [`StreamTask::Cut`].
    Cut(Cut),
    /// Of [`StreamTask::Dead`]: the event, if it is one that is not counted.
    Dead(Option<DeadLetter>),
    /// Of [`StreamTask::Row`]: the place, and the row if there is one.
    Row(Place, Option<OutputRow>),
}

/// What a coordinator keeps of a summary.
#[derive(Clone, Debug)]
pub struct Brief {
    /// The edge of the batch.
    pub edge: Edge,
    /// Its number.
    pub number: u64,
    /// Its low watermark, in milliseconds since the Unix epoch.
    pub low_watermark_ms: i64,
    /// The publisher's clock when it was sent, in milliseconds since the Unix epoch.
    pub sent_at_ms: i64,
    /// Whether it is the last batch of its edge.
    pub last: bool,
    /// Events in it.
    pub received: u64,
    /// Dead letters in it.
    pub dead: u64,
    /// Valid events, by window.
    pub windows: Vec<WindowCount>,
}

/// What a coordinator keeps of an output batch.
#[derive(Clone, Debug)]
pub struct PublishedBatch {
    /// The edge of the coordinator that published it.
    pub edge: Edge,
    /// Its number.
    pub number: u64,
    /// The batches that it includes.
    pub cut: Cut,
    /// The windows in it.
    pub windows: Vec<PublishedWindow>,
    /// No event of the included batches is later, in milliseconds since the Unix epoch.
    pub until_ms: i64,
    /// What is left of windows that are retired with it.
    pub retired: Option<Box<Checkpoint>>,
    /// How many batches of each edge of outputs its coordinator had read.
    pub outputs: Vec<(Edge, u64)>,
    /// How far rows were delivered to webhooks.
    pub delivered: Vec<(String, Cursor)>,
}

impl PublishedBatch {
    /// What is kept of a batch with this place.
    pub(crate) fn new((edge, number): (Edge, u64), batch: OutputBatch) -> Self {
        let OutputBatch { cut, windows, until_ms, retired, outputs, delivered, .. } = batch;
        Self { edge, number, cut, windows, until_ms, retired, outputs, delivered }
    }
}

/// Folds of a stream after which the ids of a slot that none of them was for are dropped.
const UNUSED_FOLDS: u64 = 200;

/// The ids that a node knows of a stream, by slot.
#[derive(Debug, Default)]
pub struct SlotIds {
    /// With the number of the fold that used them last.
    all: BTreeMap<Slot, (u64, IdIndex)>,
    folds: u64,
}

impl SlotIds {
    /// A fold begins.
    fn begin(&mut self) {
        self.folds += 1;
        let folds = self.folds;
        self.all.retain(|_, (used, _)| *used + UNUSED_FOLDS > folds);
    }

    fn take(&mut self, slot: Slot) -> IdIndex {
        self.all.remove(&slot).unwrap_or_default().1
    }

    fn put(&mut self, slot: Slot, ids: IdIndex) {
        self.all.insert(slot, (self.folds, ids));
    }
}

/// A slot that is folded.
struct Folding<'f> {
    slot: Slot,
    fold: WindowFold<'f>,
    ids: IdIndex,
}

/// Folds windows of a stream. Batches of the windows are read once, and others only if their ids are not
/// known, or if they may have an event that comes before one of the windows.
pub(crate) fn windows(
    plan: &BoundPlan,
    slots: SlotSet,
    (wanted, known): (&Wanted, &Mutex<SlotIds>),
    entries: &[Located],
    records: &dyn Records,
    memory: usize,
) -> Result<Vec<(Slot, Bytes)>, Stop> {
    let Some(stream) = &plan.stream else {
        return Err(Stop::Failed("the job is no stream".to_owned()));
    };
    let known = || known.lock().unwrap_or_else(PoisonError::into_inner);
    known().begin();
    // Two folds of one slot at the same time are rare: the other one reads the ids again.
    let mut all: Vec<_> = slots
        .iter()
        .map(|slot| {
            let mut ids = known().take(slot);
            ids.begin(&wanted.near);
            Folding { slot, fold: WindowFold::new(stream, wanted), ids }
        })
        .collect();
    let done = fold(&mut all, (stream, wanted), entries, records, memory);
    let mut folds = Vec::with_capacity(all.len());
    for Folding { slot, fold, ids } in all {
        known().put(slot, ids);
        folds.push((slot, fold));
    }
    done?;
    Ok(folds.into_iter().map(|(slot, fold)| (slot, fold.finish())).collect())
}

fn fold(
    all: &mut [Folding<'_>],
    (plan, wanted): (&StreamPlan, &Wanted),
    entries: &[Located],
    records: &dyn Records,
    memory: usize,
) -> Result<(), Stop> {
    let batches = wanted.batches();
    let has = |batches: &BTreeMap<Edge, Coverage>, key: &EntryKey| {
        batches.get(&key.edge).is_some_and(|numbers| numbers.contains(key.number))
    };
    let of_windows = entries.iter().filter(|(key, ..)| has(&batches, key));
    for_each(of_windows, records, |entry, of| {
        let key = entry.head.key;
        for of in all.iter_mut().filter(|folding| of.contains(folding.slot)) {
            let delta = entry.delta(of.slot).unwrap_or_default();
            of.fold.add(&mut of.ids, (key.edge, key.number), &delta)?;
        }
        let taken = all.iter().map(|of| of.fold.bytes()).sum::<usize>();
        if taken > memory {
            return Err(Stop::Failed(format!(
                "the windows of a round take {} at one node, and a fold gets {} (see memory_mib): \
                 give the nodes more memory, or let windows be shorter",
                mebi(taken),
                mebi(memory)
            )));
        }
        records.between();
        Ok(())
    })?;
    for span in &wanted.near {
        let mut missing: BTreeMap<Edge, Coverage> = BTreeMap::new();
        for (edge, numbers) in all.iter().flat_map(|of| of.ids.missing(span)) {
            missing.entry(edge).or_default().union(&numbers);
        }
        let missing = entries.iter().filter(|(key, ..)| has(&missing, key));
        for_each(missing, records, |entry, of| {
            let key = entry.head.key;
            for of in all.iter_mut().filter(|folding| of.contains(folding.slot)) {
                let delta = entry.delta(of.slot).unwrap_or_default();
                of.ids.learn(plan, span.start_ms, (key.edge, key.number), &delta)?;
            }
            records.between();
            Ok(())
        })?;
        all.iter_mut().for_each(|of| of.fold.look_up(&of.ids, span));
        // They are read again when they are wanted again.
        if all.iter().map(|of| of.ids.bytes()).sum::<usize>() > memory / 2 {
            all.iter_mut().for_each(|of| of.ids.drop_span(span.start_ms));
        }
    }
    loop {
        let unsure: BTreeSet<_> = all.iter().flat_map(|of| of.fold.unsure()).collect();
        if unsure.is_empty() {
            return Ok(());
        }
        let again = entries.iter().filter(|(key, ..)| unsure.contains(&(key.edge, key.number)));
        for_each(again, records, |entry, of| {
            let key = entry.head.key;
            for of in all.iter_mut().filter(|folding| of.contains(folding.slot)) {
                let delta = entry.delta(of.slot).unwrap_or_default();
                of.fold.check((key.edge, key.number), &delta)?;
            }
            Ok(())
        })?;
        all.iter_mut().for_each(|of| of.fold.checked());
    }
}

/// Reads the events of batches, in the order of their batches; of the meta slot how many each batch has.
pub(crate) fn events(
    slots: SlotSet,
    entries: &[Located],
    records: &dyn Records,
    memory: usize,
) -> Result<Vec<(Slot, Bytes)>, Stop> {
    let of_events = slots.minus(SlotSet::META);
    let mut all: Vec<_> = of_events.iter().map(|slot| (slot, Vec::new())).collect();
    let mut counts: Vec<(u64, u32)> = Vec::new();
    let mut taken = 0;
    for_each(entries, records, |entry, of| {
        let number = entry.head.key.number;
        for (slot, events) in all.iter_mut().filter(|(slot, _)| of.contains(*slot)) {
            let delta = entry.delta(*slot).unwrap_or_default();
            taken += delta.len();
            events.extend(stored_events(number, &delta)?);
        }
        if slots.contains(META_SLOT) && of.contains(META_SLOT) {
            let summary = summary_of(&entry.delta(META_SLOT).unwrap_or_default())?;
            counts.push((number, summary.valid));
        }
        // Twice: once more as output.
        if 2 * taken > memory {
            return Err(Stop::Failed(format!(
                "the events of {} batches take {} at one node: ask for fewer",
                entries.len(),
                mebi(taken)
            )));
        }
        Ok(())
    })?;
    let events = all.into_iter().map(|(slot, events)| (slot, frame::to_postcard(&events)));
    let counts = slots.contains(META_SLOT).then(|| (META_SLOT, frame::to_postcard(&counts)));
    Ok(events.chain(counts).collect())
}

/// Does other work of a stream.
pub(crate) fn execute(task: StreamTask, records: &dyn Records) -> Result<StreamOutput, Stop> {
    match task {
        StreamTask::Summaries(wanted) => summaries(&wanted, records),
        StreamTask::Published(wanted) => published(&wanted, records),
        StreamTask::Publish(making) => {
            let Making { plan, cut, wanted, parts, fresh, known } = &*making;
            let fresh = read_fresh(fresh, records)?;
            match publish(plan, cut, wanted, parts, (&fresh, known)) {
                Ok(Made::Batch(batch)) => fits(batch),
                Ok(Made::Touched(touches)) => Ok(StreamOutput::Touched(touches, making)),
                Err(mismatch) => Err(Stop::Mismatch(mismatch.to_string())),
            }
        }
        StreamTask::Cut(located) => cut(located, records),
        StreamTask::Dead { located, position } => dead(located, position, records),
        StreamTask::Row { located, row } => row_at(located, row, records),
        StreamTask::Rows { output, after, gone, entries, ends } => {
            rows(&output, (after, gone), (&entries, &ends), records)
        }
    }
}

fn fits(batch: OutputBatch) -> Result<StreamOutput, Stop> {
    let bytes = batch.rows.iter().map(|row| row.json.len() + row.output.len() + 16).sum::<usize>();
    if bytes > ENTRY_BYTES / 2 {
        return Err(Stop::Failed(format!(
            "the rows of one round take {}, and {} fit: let windows be shorter, group by fewer fields, \
             or leave ids out",
            mebi(bytes),
            mebi(ENTRY_BYTES / 2)
        )));
    }
    Ok(StreamOutput::Output(batch))
}

fn read_fresh(fresh: &[Located], records: &dyn Records) -> Result<Vec<Fresh>, Stop> {
    let mut all = Vec::with_capacity(fresh.len());
    for_each(fresh, records, |entry, _| {
        let summary = summary_of(&entry.delta(META_SLOT).unwrap_or_default())?;
        let key = entry.head.key;
        all.push(Fresh { edge: key.edge, number: key.number, summary });
        Ok(())
    })?;
    Ok(all)
}

fn summary_of(delta: &[u8]) -> Result<Summary, Stop> {
    Summary::decode(delta)
        .map_err(|error| Stop::Failed(format!("the summary of a batch can't be read: {error}")))
}

fn summaries(wanted: &[Located], records: &dyn Records) -> Result<StreamOutput, Stop> {
    let (mut all, mut dead) = (Vec::with_capacity(wanted.len()), 0);
    for located in wanted {
        for_each([located], records, |entry, _| {
            let summary = summary_of(&entry.delta(META_SLOT).unwrap_or_default())?;
            dead += summary.dead.len() as u64;
            let key = entry.head.key;
            all.push(Brief {
                edge: key.edge,
                number: key.number,
                low_watermark_ms: summary.header.low_watermark_ms,
                sent_at_ms: summary.header.sent_at_ms,
                last: summary.header.last,
                received: u64::from(summary.received),
                dead: summary.dead.len() as u64,
                windows: summary.windows,
            });
            Ok(())
        })?;
        if dead >= DEAD_LETTERS {
            break;
        }
    }
    Ok(StreamOutput::Summaries(all))
}

fn published(wanted: &[Located], records: &dyn Records) -> Result<StreamOutput, Stop> {
    let mut all = Vec::with_capacity(wanted.len());
    for_each(wanted, records, |entry, _| {
        let batch = output_of(&entry.delta(META_SLOT).unwrap_or_default())?;
        let key = entry.head.key;
        all.push(PublishedBatch::new((key.edge, key.number), batch));
        Ok(())
    })?;
    Ok(StreamOutput::Published(all))
}

fn output_of(delta: &[u8]) -> Result<OutputBatch, Stop> {
    OutputBatch::decode(delta)
        .map_err(|error| Stop::Failed(format!("what was published can't be read: {error}")))
}

fn cut(located: Located, records: &dyn Records) -> Result<StreamOutput, Stop> {
    let mut found = Cut::default();
    for_each([&located], records, |entry, _| {
        found = output_of(&entry.delta(META_SLOT).unwrap_or_default())?.cut;
        Ok(())
    })?;
    Ok(StreamOutput::Cut(found))
}

fn dead(located: Located, position: u32, records: &dyn Records) -> Result<StreamOutput, Stop> {
    let mut found = None;
    for_each([&located], records, |entry, _| {
        let summary = summary_of(&entry.delta(META_SLOT).unwrap_or_default())?;
        found = summary.dead.into_iter().find(|letter| letter.position == position);
        Ok(())
    })?;
    Ok(StreamOutput::Dead(found))
}

fn row_at(located: Located, row: u32, records: &dyn Records) -> Result<StreamOutput, Stop> {
    let mut found = None;
    for_each([&located], records, |entry, _| {
        let batch = output_of(&entry.delta(META_SLOT).unwrap_or_default())?;
        found = batch.rows.into_iter().nth(row as usize);
        Ok(())
    })?;
    let EntryKey { edge, number, .. } = located.0;
    Ok(StreamOutput::Row(Place { edge, batch: number, position: row }, found))
}

fn rows(
    output: &str,
    (after, gone): (Cursor, u64),
    (entries, ends): (&[Located], &[Located]),
    records: &dyn Records,
) -> Result<StreamOutput, Stop> {
    let (mut rows, mut bytes, mut cursor, mut read) = (Vec::new(), 0, after, 0);
    for located in entries {
        for_each([located], records, |entry, _| {
            let batch = output_of(&entry.delta(META_SLOT).unwrap_or_default())?;
            let key = entry.head.key;
            let (_, from) = match cursor.of(key.edge) {
                at @ (number, _) if number == key.number => at,
                _ => (key.number, 0),
            };
            let of_output = (0..).zip(batch.rows).filter(|(row, _)| *row >= from);
            for (row, json) in of_output.filter(|(_, row)| row.output == output) {
                bytes += json.json.len();
                rows.push(Row { edge: key.edge, batch: key.number, row, json: json.json });
            }
            cursor.advance(key.edge, key.number + 1, 0);
            Ok(())
        })?;
        read += 1;
        if bytes > ROWS_BYTES {
            break;
        }
    }
    // Which edges there are is known by the batch that ends the stream: some may not be here yet.
    let mut ended = false;
    if read == entries.len() {
        for_each(ends, records, |entry, _| {
            let batch = output_of(&entry.delta(META_SLOT).unwrap_or_default())?;
            let had = |(edge, batches): &(Edge, u64)| cursor.of(*edge).0 >= *batches;
            ended |= batch.end.is_some_and(|edges| edges.iter().all(had));
            Ok(())
        })?;
    }
    Ok(StreamOutput::Rows { rows, cursor, ended, gone })
}
