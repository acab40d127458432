//! Computes a whole job in one process, without replicas, with the same result.
//! `cortado verify --recompute` uses it.

use bytes::Bytes;
use cortado_protocol::job::{BatchHeader, JobSpec};
use cortado_protocol::{META_SLOT, Slot};

use crate::finish::{Final, FinalError, FinalStep, ReportFile};
use crate::fold::SlotFold;
use crate::lookup::LookupFold;
use crate::map::map_batch;
use crate::plan::{Layout, Plan};
use crate::receipt::Durability;
use crate::summary::SummaryFold;

/// Computes a job from its batches, in any order. Its memory grows with the number of groups and
/// with the needed columns of reference tables, which stay encoded until it is known which rows are
/// needed.
pub struct Recompute {
    plan: Plan,
    spec: JobSpec,
    layouts: Vec<Vec<Layout>>,
    fold: SlotFold,
    references: Vec<Vec<Bytes>>,
    summaries: SummaryFold,
    ends: Vec<u64>,
}

const ONLY_SLOT: Slot = Slot(0);

impl Recompute {
    /// A job without batches.
    ///
    /// # Errors
    /// If the specification's tables or headers do not fit the plan.
    pub fn new(plan: &Plan, spec: &JobSpec) -> Result<Self, FinalError> {
        let tables = plan.tables();
        if spec.tables.len() != tables.len() {
            return Err(FinalError::Spec(format!("expected {} tables", tables.len())));
        }
        let mut layouts = Vec::with_capacity(tables.len());
        for (at, table) in spec.tables.iter().enumerate() {
            let bind = |file: &cortado_protocol::job::FileSpec| {
                let bound = plan.bind_header(at, &file.header);
                bound.map_err(|error| FinalError::Spec(format!("{}: {error}", file.name)))
            };
            layouts.push(table.files.iter().map(bind).collect::<Result<Vec<_>, _>>()?);
        }
        Ok(Self {
            plan: plan.clone(),
            spec: spec.clone(),
            layouts,
            fold: SlotFold::new(plan),
            references: vec![Vec::new(); tables.len()],
            summaries: SummaryFold::new(plan),
            ends: vec![0; tables.len()],
        })
    }

    /// Adds a batch.
    ///
    /// # Errors
    /// If the batch names a table or file that is not in the specification, or was added before.
    pub fn add(&mut self, header: &BatchHeader, payload: &[u8]) -> Result<(), FinalError> {
        let table = usize::from(header.table);
        let layout = self.layouts.get(table).and_then(|files| files.get(header.file as usize));
        let layout = layout.ok_or_else(|| FinalError::Spec("batch of an unknown file".into()))?;
        let mapped = map_batch(&self.plan, 1, layout, header, payload)?;
        for (slot, delta) in mapped.deltas {
            if slot == META_SLOT {
                self.summaries.add(table, header.number, &delta)?;
                continue;
            }
            self.fold.add(table, &delta)?;
            if self.plan.keyings().iter().any(|keying| keying.table == table) {
                self.references[table].push(delta);
            }
        }
        self.ends[table] += 1;
        Ok(())
    }

    /// The result files, the receipt last: the same bytes as those of a cluster with this
    /// durability.
    ///
    /// # Errors
    /// If a table's batches have a gap.
    pub fn finish(self, durability: Durability) -> Result<Vec<ReportFile>, FinalError> {
        let mut last = Final::new(&self.plan, 1);
        last.add(ONLY_SLOT, &self.fold.finish())?;
        let mut files = loop {
            let requests = match last.next()? {
                FinalStep::Done(files) => break files,
                FinalStep::Lookup(requests) => requests,
            };
            for request in requests {
                for (slot, keys) in request.keys {
                    let mut lookup = LookupFold::new(&self.plan, request.table, keys);
                    for delta in &self.references[request.table] {
                        lookup.add(delta)?;
                    }
                    last.add_rows(request.table, slot, &lookup.finish())?;
                }
            }
        };
        let receipt =
            self.summaries.receipt(&self.spec, &self.ends, durability, &files, last.folded())?;
        files.push(receipt.to_file());
        Ok(files)
    }
}
