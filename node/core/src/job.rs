//! One job, as far as this node has its log: specification, ends, cancellation, manifest, and when there
//! was a sign of life of it last.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cortado_engine::{Layout, Plan};
use cortado_protocol::client::{ClientError, ErrorKind};
use cortado_protocol::entry::Entry;
use cortado_protocol::job::{JobEntry, JobSpec, Manifest, TableFiles};
use cortado_protocol::{Coverage, Edge, EntryKey, JobId, META_SLOT, content_hash, frame, limits};
use cortado_stream::StreamPlan;

use crate::config::Config;
use crate::stream_log::StreamLog;

/// A specification with its plan compiled and its headers bound.
#[derive(Debug)]
pub struct BoundPlan {
    /// What was submitted.
    pub spec: JobSpec,
    /// The compiled plan; of a stream an empty one.
    pub plan: Plan,
    /// The compiled plan of a stream.
    pub stream: Option<Arc<StreamPlan>>,
    /// Where the needed columns stand, per table and file.
    pub layouts: Vec<Vec<Layout>>,
    /// About how many bytes of memory it takes.
    pub bytes: usize,
}

impl BoundPlan {
    /// Compiles and binds a specification.
    ///
    /// # Errors
    /// A sentence for the user if the plan is wrong or a header does not fit it.
    pub fn new(spec: JobSpec) -> Result<Self, ClientError> {
        let bad = |message: String| ClientError::new(ErrorKind::BadInput, message);
        let slots = usize::from(spec.slots);
        if slots == 0 || slots > limits::SLOTS {
            return Err(bad(format!("a job has 1 to {} slots, not {slots}", limits::SLOTS)));
        }
        if StreamPlan::is_stream(&spec.plan_toml) {
            return Self::of_stream(spec);
        }
        let plan = Plan::parse(&spec.plan_toml).map_err(|error| bad(format!("plan: {error}")))?;
        if plan.tables().len() != spec.tables.len() {
            return Err(bad("the file list does not name the plan's tables".to_owned()));
        }
        if spec.tables.iter().map(|table| table.files.len()).sum::<usize>() > limits::FILES {
            return Err(bad(format!("a job has at most {} files", limits::FILES)));
        }
        let mut layouts = Vec::with_capacity(spec.tables.len());
        for (index, table) in spec.tables.iter().enumerate() {
            if plan.tables()[index].name != table.name {
                return Err(bad(format!("table {index} of the file list is not the plan's")));
            }
            let bind = |file: &cortado_protocol::job::FileSpec| {
                plan.bind_header(index, &file.header)
                    .map_err(|error| bad(format!("{}: {error}", file.name)))
            };
            layouts.push(table.files.iter().map(bind).collect::<Result<_, _>>()?);
        }
        let bytes = spec_bytes(&spec);
        Ok(Self { spec, plan, stream: None, layouts, bytes })
    }

    fn of_stream(spec: JobSpec) -> Result<Self, ClientError> {
        let bad = |message: String| ClientError::new(ErrorKind::BadInput, message);
        let stream =
            StreamPlan::parse(&spec.plan_toml).map_err(|error| bad(format!("plan: {error}")))?;
        if !spec.tables.is_empty() {
            return Err(bad("a stream has no tables of files".to_owned()));
        }
        if spec.plan_name.is_empty() || spec.plan_name.len() > limits::NAME_BYTES {
            let message = format!("the name of a stream has 1 to {} bytes", limits::NAME_BYTES);
            return Err(bad(message));
        }
        let (plan, layouts, bytes) = (Plan::none(), Vec::new(), spec_bytes(&spec));
        Ok(Self { spec, plan, stream: Some(Arc::new(stream)), layouts, bytes })
    }
}

/// What a specification takes, decoded and bound: its texts, and a little for each file. Files share
/// their headers.
fn spec_bytes(spec: &JobSpec) -> usize {
    let files = spec.tables.iter().flat_map(|table| &table.files);
    let mut headers = BTreeSet::new();
    let mut bytes = 0;
    for file in files {
        bytes += file.name.len() + 256;
        if headers.insert(file.header.as_ptr()) {
            bytes += file.header.iter().map(|name| name.len() + size_of::<String>()).sum::<usize>();
        }
    }
    // The compiled plan is of the order of its text.
    2 * spec.plan_toml.len() + bytes + 4096
}

/// The job log's entry inside an entry of that edge.
pub(crate) fn job_entry(entry: &Entry) -> Option<JobEntry> {
    if entry.head.key.edge != Edge::JOB {
        return None;
    }
    let bytes = entry.delta(META_SLOT)?;
    let decoded: JobEntry = frame::from_postcard(&bytes).ok()?;
    (decoded.number() == entry.head.key.number).then_some(decoded)
}

/// The entry of the job log that says this; [`job_entry`] reads it.
pub(crate) fn job_log_entry(job: JobId, entry: &JobEntry) -> Entry {
    let key = EntryKey { job, edge: Edge::JOB, number: entry.number() };
    Entry::meta(key, frame::to_postcard(entry))
}

/// The batches of tables that have so many.
pub(crate) fn up_to(ends: &[u64]) -> Vec<(Edge, Coverage)> {
    let table = |(table, end): (usize, &u64)| (Edge::table(table), Coverage::range(0, *end));
    ends.iter().take(limits::TABLES).enumerate().map(table).collect()
}

/// Why no batch of a publisher is taken that was silent for long.
pub(crate) const SEALED: &str =
    "the publisher was silent for so long that it was ended: start it again under its name";

/// Why no batch of a job that is done is taken.
pub(crate) const DONE: &str = "the job is done";

/// A sign of life.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Life {
    /// When it was; the process's start if there was none in this process.
    pub(crate) seen_at: Option<Duration>,
    /// How long it was ago at that moment.
    pub(crate) before: Duration,
    /// Nobody has said yet when it was: an entry was moved here.
    pub(crate) guessed: bool,
}

impl Life {
    pub(crate) fn now(now: Duration) -> Self {
        Self { seen_at: Some(now), ..Self::default() }
    }
}

/// The parts of a specification that listings show. Of a job that is done, memory holds nothing else
/// of the specification.
pub(crate) struct Brief {
    pub(crate) plan_name: String,
    pub(crate) slots: u8,
    /// Name and bytes of each table's files.
    pub(crate) tables: Box<[(String, u64)]>,
    /// Content hash of the encoded specification.
    hash: u64,
}

impl Brief {
    fn new(spec: &JobSpec) -> Self {
        let bytes = |table: &TableFiles| table.files.iter().map(|file| file.bytes).sum();
        let tables = spec.tables.iter().map(|table| (table.name.clone(), bytes(table)));
        let (plan_name, slots, tables) = (spec.plan_name.clone(), spec.slots, tables.collect());
        Self { plan_name, slots, tables, hash: hash_of(spec) }
    }

    /// Whether it is a stream: only a stream has no tables.
    pub(crate) fn is_stream(&self) -> bool {
        self.tables.is_empty()
    }

    /// Whether it was made from this specification.
    pub(crate) fn is_of(&self, spec: &JobSpec) -> bool {
        self.hash == hash_of(spec)
    }

    /// Estimated memory of a job that is done, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let names = self.tables.iter().map(|(name, _)| name.len() + 64).sum::<usize>();
        1_024 + self.plan_name.len() + names
    }
}

fn hash_of(spec: &JobSpec) -> u64 {
    content_hash(&frame::to_postcard(spec))
}

/// The job log of one job, as far as this node has it.
#[derive(Default)]
pub(crate) struct JobLog {
    /// Present when the specification is known.
    pub(crate) brief: Option<Box<Brief>>,
    /// Present when the specification is known and the job is not done.
    pub(crate) plan: Option<Arc<BoundPlan>>,
    /// A specification whose plan is not compiled yet.
    pub(crate) uncompiled: Option<Box<JobSpec>>,
    /// Declared number of batches per table.
    pub(crate) ends: Vec<Option<u64>>,
    pub(crate) cancelled: bool,
    pub(crate) manifest: Option<Manifest>,
    /// What a stream's own entries say.
    pub(crate) stream: StreamLog,
    /// The last sign of life.
    pub(crate) life: Life,
    /// Segment and offset of its newest record here.
    pub(crate) newest: (u32, u32),
    /// Wall clock of the record that holds the specification.
    pub(crate) submitted_ms: u64,
}

impl JobLog {
    /// Compiles the plan, if there is one to compile.
    pub(crate) fn compile(&mut self, job: JobId) {
        let Some(spec) = self.uncompiled.take() else { return };
        match BoundPlan::new(*spec) {
            Ok(bound) => self.plan = Some(Arc::new(bound)),
            // It was compiled before it was accepted; a node of another version may differ.
            Err(error) => tracing::error!(%job, %error, "can't read an accepted plan"),
        }
    }

    /// Takes an entry in; entries may come in any order and again. A plan is compiled by
    /// [`Self::compile`].
    pub(crate) fn apply(&mut self, entry: JobEntry, wall_ms: u64) {
        match entry {
            JobEntry::Spec(_) if self.brief.is_some() => {}
            JobEntry::Spec(spec) => {
                self.ends.resize(spec.tables.len().max(self.ends.len()), None);
                self.submitted_ms = wall_ms;
                self.brief = Some(Box::new(Brief::new(&spec)));
                self.uncompiled = (!self.is_done()).then(|| Box::new(spec));
            }
            JobEntry::Cancel => self.cancelled = true,
            JobEntry::Stop => self.stream.stopping = true,
            JobEntry::Schemas { set, files } => {
                self.stream.schemas.entry(set).or_insert(files);
            }
            JobEntry::Publisher(publisher) => {
                self.stream.publishers.entry(publisher.edge()).or_insert(publisher);
            }
            JobEntry::Seal { edge, seal } => {
                self.stream.seals.entry(edge).or_insert(seal);
            }
            JobEntry::Manifest(manifest) => {
                self.manifest = Some(manifest);
                if self.is_done() {
                    (self.plan, self.uncompiled) = (None, None);
                }
            }
            JobEntry::TableEnd { table, batches } => {
                let table = usize::from(table);
                if table < limits::TABLES {
                    self.ends.resize(self.ends.len().max(table + 1), None);
                    self.ends[table] = Some(batches);
                }
            }
        }
    }

    /// Declared number of batches of all tables, once all are declared.
    pub(crate) fn all_ends(&self) -> Option<Vec<u64>> {
        self.brief.as_ref()?;
        self.ends.iter().copied().collect()
    }

    /// Declared number of batches of each table; of a table whose end is not declared yet, more than
    /// any table can have.
    pub(crate) fn known_ends(&self) -> Vec<u64> {
        self.ends.iter().map(|end| end.unwrap_or(limits::NUMBERS)).collect()
    }

    /// Slots of the job.
    pub(crate) fn slots(&self, config: &Config) -> u8 {
        self.brief.as_ref().map_or(config.slots, |brief| brief.slots)
    }

    /// Whether its result is complete.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.manifest, Some(Manifest::Done { .. }))
    }

    /// Why no more batches are taken, if so.
    pub(crate) fn ended(&self) -> Option<ClientError> {
        let ended = |message: &str| Some(ClientError::new(ErrorKind::Ended, message));
        match &self.manifest {
            Some(Manifest::Done { .. }) => ended(DONE),
            Some(Manifest::Failed { message }) => ended(message),
            None if self.cancelled => ended("the job was cancelled"),
            None => None,
        }
    }
}
