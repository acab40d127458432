//! Tasks: the heavy, pure work of the engine, carried out of the state machine's way.
//!
//! A shell runs [`execute`] on its worker threads, a simulator in place; the outcome comes back as
//! [`crate::Input::TaskDone`]. A task reads this node's own log and nothing else.

use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use cortado_engine::{
    Durability, Final, FinalError, FinalStep, LookupFold, LookupRequest, MapError, Mapped,
    ReportFile, SlotFold, SummaryFold, largest_of_stages, map_batch, mebi,
};
use cortado_protocol::client::Reject;
use cortado_protocol::entry::Entry;
use cortado_protocol::job::{BatchHeader, Manifest, ResultFile, TableTotal};
use cortado_protocol::stream::StreamHeader;
use cortado_protocol::{EntryKey, META_SLOT, Slot, SlotSet, content_hash, frame, limits};
use cortado_stream::{SchemaSet, StreamPlan, map_events};

use crate::job::BoundPlan;
pub use crate::reading::Records;
use crate::reading::{Stop, for_each};
use crate::record::Located;
use crate::stream_task::{self, SlotIds, StreamOutput, StreamTask};

/// Bytes of entries that are held until they are added.
const FOLD_BYTES: usize = 16 << 20;

/// What to do.
#[derive(Debug)]
pub enum Task {
    /// Turn a batch into deltas.
    Map {
        /// The job.
        plan: Arc<BoundPlan>,
        /// What the payload is.
        header: BatchHeader,
        /// The records.
        payload: Bytes,
    },
    /// Turn a batch of events into deltas.
    MapEvents {
        /// The stream.
        plan: Arc<StreamPlan>,
        /// Slots of the stream.
        slots: usize,
        /// The schema set that the batch names.
        schemas: Arc<SchemaSet>,
        /// The batch's head.
        header: StreamHeader,
        /// The events, one a line.
        payload: Bytes,
    },
    /// Fold the ledgers of some slots.
    Fold {
        /// The job.
        plan: Arc<BoundPlan>,
        /// The slots.
        slots: SlotSet,
        /// All entries of all tables that speak for any of them.
        entries: Vec<Located>,
        /// Bytes of memory it may take.
        memory: usize,
        /// A fault for the simulator to find: see [`crate::PlantedBug::FloatSums`].
        float_sums: bool,
    },
    /// Find the rows of a reference table with the given keys.
    Lookup {
        /// The job.
        plan: Arc<BoundPlan>,
        /// The table's index.
        table: usize,
        /// The keys, per slot.
        keys: Vec<(Slot, Vec<Vec<u8>>)>,
        /// The table's entries that speak for any of the slots.
        entries: Vec<Located>,
        /// Bytes of memory it may take.
        memory: usize,
    },
    /// Merge the slots' outputs and the batch summaries.
    Finish {
        /// The job.
        plan: Arc<BoundPlan>,
        /// Declared number of batches per table.
        ends: Vec<u64>,
        /// What the acknowledgements stood for.
        durability: Durability,
        /// The output of every slot.
        outputs: Vec<(Slot, Bytes)>,
        /// All entries of all tables that speak for the meta slot.
        summaries: Vec<Located>,
    },
    /// Go on with rows that were looked up.
    Join {
        /// Where [`Task::Finish`] stopped.
        state: Box<Finishing>,
        /// Rows by table and slot.
        rows: Vec<(usize, Slot, Bytes)>,
    },
    /// Fold windows of a stream.
    Windows {
        /// The stream.
        plan: Arc<BoundPlan>,
        /// The slots.
        slots: SlotSet,
        /// The windows, and the batches that have events in them.
        wanted: Arc<cortado_stream::Wanted>,
        /// The ids that are known of the slots.
        ids: Arc<Mutex<SlotIds>>,
        /// All entries of these batches that speak for any of the slots.
        entries: Vec<Located>,
        /// Bytes of memory it may take.
        memory: usize,
    },
    /// Read the events of some batches of a stream.
    ReadEvents {
        /// The slots.
        slots: SlotSet,
        /// All entries of these batches that speak for any of the slots.
        entries: Vec<Located>,
        /// Bytes of memory it may take.
        memory: usize,
    },
    /// Other work of a stream.
    Stream(StreamTask),
    /// Read entries, restricted to some slots each.
    Read(Vec<Located>),
    /// Read the rejected rows of a table of a job that is done: all their chunks, in order.
    KeptRejects(Vec<Located>),
    /// Collect a table's rejected rows.
    Rejects {
        /// The job.
        plan: Arc<BoundPlan>,
        /// The table's index.
        table: usize,
        /// Its entries that speak for the meta slot.
        summaries: Vec<Located>,
    },
}

/// A finish that waits for rows of reference tables.
pub struct Finishing {
    plan: Arc<BoundPlan>,
    ends: Vec<u64>,
    durability: Durability,
    last: Final,
    summary: SummaryFold,
}

impl Task {
    /// Whether somebody waits for it now and it is done soon: a batch, a few records. All others grow
    /// with what was uploaded.
    #[must_use]
    pub fn is_short(&self) -> bool {
        let maps = matches!(self, Self::Map { .. } | Self::MapEvents { .. });
        maps || matches!(self, Self::Stream(_) | Self::Read(_) | Self::KeptRejects(_))
    }
}

impl std::fmt::Debug for Finishing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Finishing").field("job", &self.plan.spec.job).finish_non_exhaustive()
    }
}

/// What came of it.
pub enum TaskOutput {
    /// Of [`Task::Map`] and [`Task::MapEvents`].
    Mapped(Result<Mapped, MapError>),
    /// Of [`Task::Fold`], [`Task::Lookup`], [`Task::Windows`] and [`Task::ReadEvents`]: the output of
    /// each slot.
    Outputs(Vec<(Slot, Bytes)>),
    /// Of [`Task::Finish`] and [`Task::Join`]: rows are needed.
    Lookups(Box<Finishing>, Vec<LookupRequest>),
    /// Of [`Task::Finish`] and [`Task::Join`]: the result, cut into chunks.
    Results(Manifest, Vec<Bytes>),
    /// Of [`Task::Stream`].
    Stream(StreamOutput),
    /// Of [`Task::Read`].
    Entries(Vec<Entry>),
    /// Of [`Task::Rejects`] and [`Task::KeptRejects`].
    Rejects(Vec<Reject>),
    /// These records can't be read; nothing else was done.
    Unreadable(Vec<Located>),
    /// Of [`Task::Finish`], [`Task::Join`] and [`Task::Stream`]: the slots did not fold what was made of
    /// the batches.
    Mismatch(String),
    /// It can't be done, and trying again would not change that.
    Failed(String),
}

impl std::fmt::Debug for TaskOutput {
    /// Only the kind: outputs are large.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Mapped(_) => "Mapped",
            Self::Outputs(_) => "Outputs",
            Self::Lookups(..) => "Lookups",
            Self::Results(..) => "Results",
            Self::Stream(_) => "Stream",
            Self::Entries(_) => "Entries",
            Self::Rejects(_) => "Rejects",
            Self::Unreadable(_) => "Unreadable",
            Self::Mismatch(_) => "Mismatch",
            Self::Failed(_) => "Failed",
        })
    }
}

impl From<FinalError> for Stop {
    fn from(error: FinalError) -> Self {
        match error {
            FinalError::Tally { .. } => Self::Mismatch(error.to_string()),
            error => Self::Failed(error.to_string()),
        }
    }
}

/// Does a task.
pub fn execute(task: Task, records: &dyn Records) -> TaskOutput {
    let done = match task {
        Task::Map { plan, header, payload } => Ok(map(&plan, &header, &payload)),
        Task::Fold { plan, slots, entries, memory, float_sums } => {
            fold(&plan, slots, &entries, records, memory, float_sums)
        }
        Task::Lookup { plan, table, keys, entries, memory } => {
            lookup(&plan, table, keys, &entries, records, memory)
        }
        Task::Finish { plan, ends, durability, outputs, summaries } => {
            finish(plan, ends, durability, &outputs, &summaries, records)
        }
        Task::Join { state, rows } => join(state, &rows),
        Task::Windows { plan, slots, wanted, ids, entries, memory } => {
            stream_task::windows(&plan, slots, (&wanted, &ids), &entries, records, memory)
                .map(TaskOutput::Outputs)
        }
        Task::ReadEvents { slots, entries, memory } => {
            stream_task::events(slots, &entries, records, memory).map(TaskOutput::Outputs)
        }
        Task::MapEvents { plan, slots, schemas, header, payload } => {
            Ok(TaskOutput::Mapped(map_events(&plan, &schemas, slots, &header, &payload)))
        }
        Task::Stream(task) => stream_task::execute(task, records).map(TaskOutput::Stream),
        Task::Read(wanted) => read(&wanted, records),
        Task::KeptRejects(chunks) => kept_rejects(&chunks, records),
        Task::Rejects { plan, table, summaries } => summarise(&plan, &summaries, records)
            .map(|fold| TaskOutput::Rejects(fold.rejects(table, &plan.spec))),
    };
    match done {
        Ok(output) => output,
        Err(Stop::Unreadable(entries)) => TaskOutput::Unreadable(entries),
        Err(Stop::Mismatch(message)) => TaskOutput::Mismatch(message),
        Err(Stop::Failed(message)) => TaskOutput::Failed(message),
    }
}

fn map(plan: &BoundPlan, header: &BatchHeader, payload: &[u8]) -> TaskOutput {
    let slots = usize::from(plan.spec.slots);
    let layout = &plan.layouts[usize::from(header.table)][header.file as usize];
    TaskOutput::Mapped(map_batch(&plan.plan, slots, layout, header, payload))
}

fn fold(
    plan: &BoundPlan,
    slots: SlotSet,
    entries: &[Located],
    records: &dyn Records,
    memory: usize,
    float_sums: bool,
) -> Result<TaskOutput, Stop> {
    let mut folds: Vec<_> = slots.iter().map(|slot| (slot, SlotFold::new(&plan.plan))).collect();
    if float_sums {
        folds.iter_mut().for_each(|(_, fold)| fold.plant_float_sums());
    }
    let counted: Vec<_> = (0..plan.plan.tables().len()).map(|t| plan.plan.counts(t)).collect();
    let table =
        |key: &EntryKey| key.edge.as_table().filter(|table| counted.get(*table) == Some(&true));
    let mut waiting = 0;
    let mut deltas = vec![Vec::new(); limits::SLOTS];
    let wanted = entries.iter().filter(|(key, ..)| table(key).is_some());
    for_each(wanted, records, |entry, of| {
        let Some(table) = table(&entry.head.key) else { return Ok(()) };
        for (slot, delta) in entry.deltas().filter(|(slot, _)| of.and(slots).contains(*slot)) {
            deltas[usize::from(slot.0)].push((table, delta));
        }
        waiting += entry.data.len();
        if waiting < FOLD_BYTES.min(memory / 4) {
            return Ok(());
        }
        waiting = 0;
        add_all(&mut folds, &mut deltas)?;
        check_memory(plan, &folds, memory)?;
        records.between();
        Ok(())
    })?;
    add_all(&mut folds, &mut deltas)?;
    check_memory(plan, &folds, memory)?;
    Ok(TaskOutput::Outputs(folds.into_iter().map(|(slot, fold)| (slot, fold.finish())).collect()))
}

/// Ends a fold that takes more than it may, or would when its outputs are written beside it.
fn check_memory(plan: &BoundPlan, folds: &[(Slot, SlotFold)], memory: usize) -> Result<(), Stop> {
    let mut stages: Vec<usize> = Vec::new();
    let mut largest = 0;
    for (_, fold) in folds {
        let mut slot = 0;
        for (at, bytes) in fold.stage_bytes().enumerate() {
            stages.resize(stages.len().max(at + 1), 0);
            stages[at] += bytes;
            slot += bytes;
        }
        largest = largest.max(slot);
    }
    // Slot by slot a fold becomes its output: in between one slot is there more than once.
    let needed = stages.iter().sum::<usize>() + 3 * largest;
    if needed <= memory {
        return Ok(());
    }
    let query = largest_of_stages(&plan.plan, &stages);
    Err(Stop::Failed(format!(
        "query '{query}' has more groups or rows than fit: its slots at one node need {}, and a fold \
         gets {} (see memory_mib); let it keep less, or give the nodes more memory",
        mebi(needed),
        mebi(memory)
    )))
}

/// Adds what waits, slot by slot: a slot's state fits the processor's caches, that of all does not.
fn add_all(folds: &mut [(Slot, SlotFold)], deltas: &mut [Vec<(usize, Bytes)>]) -> Result<(), Stop> {
    for (slot, fold) in folds {
        fold.add_all(&std::mem::take(&mut deltas[usize::from(slot.0)]))?;
    }
    Ok(())
}

fn lookup(
    plan: &BoundPlan,
    table: usize,
    keys: Vec<(Slot, Vec<Vec<u8>>)>,
    entries: &[Located],
    records: &dyn Records,
    memory: usize,
) -> Result<TaskOutput, Stop> {
    let mut folds: Vec<_> = keys
        .into_iter()
        .map(|(slot, keys)| (slot, LookupFold::new(&plan.plan, table, keys)))
        .collect();
    for_each(entries, records, |entry, of| {
        for (slot, fold) in &mut folds {
            let delta = entry.delta(*slot).filter(|_| of.contains(*slot));
            if let Some(delta) = delta.filter(|delta| !delta.is_empty()) {
                fold.add(&delta)?;
            }
        }
        // The rows are written out beside what was found.
        let needed = 2 * folds.iter().map(|(_, fold)| fold.bytes()).sum::<usize>();
        if needed > memory {
            let name = plan.plan.tables().get(table).map_or("", |table| &table.name);
            return Err(Stop::Failed(format!(
                "the rows of table '{name}' that a join needs do not fit: those at one node need {}, and \
                 a lookup gets {} (see memory_mib); let fewer rows be joined, or give the nodes more \
                 memory",
                mebi(needed),
                mebi(memory)
            )));
        }
        records.between();
        Ok(())
    })?;
    Ok(TaskOutput::Outputs(folds.into_iter().map(|(slot, fold)| (slot, fold.finish())).collect()))
}

fn summarise(
    plan: &BoundPlan,
    summaries: &[Located],
    records: &dyn Records,
) -> Result<SummaryFold, Stop> {
    let mut fold = SummaryFold::new(&plan.plan);
    for_each(summaries, records, |entry, _| {
        let (table, delta) = (entry.head.key.edge.as_table(), entry.delta(META_SLOT));
        if let (Some(table), Some(delta)) = (table, delta) {
            fold.add(table, entry.head.key.number, &delta)?;
        }
        Ok(())
    })?;
    Ok(fold)
}

fn finish(
    plan: Arc<BoundPlan>,
    ends: Vec<u64>,
    durability: Durability,
    outputs: &[(Slot, Bytes)],
    summaries: &[Located],
    records: &dyn Records,
) -> Result<TaskOutput, Stop> {
    let summary = summarise(&plan, summaries, records)?;
    let mut last = Final::new(&plan.plan, usize::from(plan.spec.slots));
    for (slot, output) in outputs {
        last.add(*slot, output)?;
    }
    step(Box::new(Finishing { plan, ends, durability, last, summary }))
}

fn join(mut state: Box<Finishing>, rows: &[(usize, Slot, Bytes)]) -> Result<TaskOutput, Stop> {
    for (table, slot, rows) in rows {
        state.last.add_rows(*table, *slot, rows)?;
    }
    step(state)
}

fn step(mut state: Box<Finishing>) -> Result<TaskOutput, Stop> {
    match state.last.next()? {
        FinalStep::Lookup(requests) => Ok(TaskOutput::Lookups(state, requests)),
        FinalStep::Done(mut files) => {
            let Finishing { plan, ends, durability, summary, last } = &*state;
            let receipt = summary.receipt(&plan.spec, ends, *durability, &files, last.folded())?;
            files.push(receipt.to_file());
            let tables = (0..ends.len())
                .map(|table| (summary.total(table), summary.rejects(table, &plan.spec)));
            let (manifest, chunks) = package(&files, tables);
            Ok(TaskOutput::Results(manifest, chunks))
        }
    }
}

/// Puts result files one after the other and cuts them into chunks; rejected rows follow.
fn package(
    files: &[ReportFile],
    tables: impl Iterator<Item = (TableTotal, Vec<Reject>)>,
) -> (Manifest, Vec<Bytes>) {
    let mut all = BytesMut::with_capacity(files.iter().map(|file| file.bytes.len()).sum());
    for file in files {
        all.extend_from_slice(&file.bytes);
    }
    let all = all.freeze();
    let mut chunks = cut(&all);
    let of_files = chunks.len() as u64;
    let tables = tables.map(|(total, rejects)| {
        let encoded = (!rejects.is_empty()).then(|| frame::to_postcard(&rejects));
        let rejects = cut(&encoded.unwrap_or_default());
        let total = TableTotal { rejects: rejects.len() as u64, ..total };
        chunks.extend(rejects);
        total
    });
    let tables = tables.collect();
    let named = |file: &ReportFile| ResultFile {
        name: file.name.clone(),
        bytes: file.bytes.len() as u64,
        rows: file.rows,
    };
    let files = files.iter().map(named).collect();
    (Manifest::Done { files, chunks: of_files, hash: content_hash(&all), tables }, chunks)
}

fn cut(bytes: &Bytes) -> Vec<Bytes> {
    let starts = (0..bytes.len()).step_by(limits::CHUNK_BYTES);
    starts.map(|at| bytes.slice(at..bytes.len().min(at + limits::CHUNK_BYTES))).collect()
}

/// Puts the rejected rows of a job that is done together again.
fn kept_rejects(chunks: &[Located], records: &dyn Records) -> Result<TaskOutput, Stop> {
    let mut bytes = BytesMut::new();
    for_each(chunks, records, |entry, _| {
        bytes.extend_from_slice(&entry.delta(META_SLOT).unwrap_or_default());
        Ok(())
    })?;
    if bytes.is_empty() {
        return Ok(TaskOutput::Rejects(Vec::new()));
    }
    let rejects = frame::from_postcard(&bytes);
    let rejects = rejects.map_err(|_| Stop::Failed("the rejected rows can't be read".to_owned()));
    rejects.map(TaskOutput::Rejects)
}

fn read(wanted: &[Located], records: &dyn Records) -> Result<TaskOutput, Stop> {
    let mut entries = Vec::with_capacity(wanted.len());
    for_each(wanted, records, |entry, slots| {
        entries.push(entry.restrict(slots));
        Ok(())
    })?;
    Ok(TaskOutput::Entries(entries))
}
