//! Issues receipts from the fold of all batch summaries, once no batch is missing. The coordinator
//! and `verify --recompute` call it.

use cortado_protocol::content_hash;
use cortado_protocol::job::JobSpec;

use crate::finish::{FinalError, ReportFile};
use crate::receipt::{
    Durability, FORMAT, PlanReceipt, QueryReceipt, ReasonReceipt, Receipt, ResultReceipt,
    TableReceipt, hex,
};
use crate::summary::{ReasonCount, SummaryFold, TableSummary};
use crate::tally::Tally;

impl SummaryFold {
    /// The receipt of a result. `ends` are the declared numbers of batches by table; `folded` is
    /// what the slots report to have folded ([`crate::Final::folded`]).
    ///
    /// # Errors
    /// If a table's batches are not exactly `0..end`, if the slots did not fold exactly what was
    /// made of them, or if the specification does not fit the plan.
    pub fn receipt(
        &self,
        spec: &JobSpec,
        ends: &[u64],
        durability: Durability,
        results: &[ReportFile],
        folded: &[Tally],
    ) -> Result<Receipt, FinalError> {
        let schemas = self.plan.tables();
        if spec.tables.len() != schemas.len() || ends.len() != schemas.len() {
            return Err(FinalError::Spec(format!("expected {} tables", schemas.len())));
        }
        let mut tables = Vec::with_capacity(schemas.len());
        let mut lost = 0;
        for (at, summary) in self.tables.iter().enumerate() {
            let declared = ends[at];
            if !summary.coverage.is_complete(declared) || summary.coverage.count() != declared {
                let found = summary.coverage.intervals().to_vec();
                let table = schemas[at].name.clone();
                return Err(FinalError::Coverage { table, found, declared });
            }
            lost += declared - summary.coverage.count();
            let files = spec.tables[at].files.len() as u64;
            tables.push(table_receipt(&schemas[at].name, files, declared, summary));
        }
        let (missing, twice) = self.compare(folded)?;
        let queries = self.plan.queries().iter().map(|query| {
            let table = self.plan.stages()[query.stage].table;
            self.query_receipt(&query.output, query.stage, table)
        });
        let result = |file: &ReportFile| ResultReceipt {
            name: file.name.clone(),
            rows: file.rows,
            bytes: file.bytes.len() as u64,
            hash: hex(content_hash(&file.bytes)),
        };
        let mut receipt = Receipt {
            format: FORMAT,
            summary: String::new(),
            plan: PlanReceipt { name: self.plan.name().to_owned(), hash: hex(self.plan.hash()) },
            durability,
            batches_lost: lost + missing,
            batches_twice: twice,
            tables,
            queries: queries.collect(),
            results: results.iter().map(result).collect(),
        };
        receipt.summary = receipt.sentence();
        Ok(receipt)
    }

    /// Compares what the slots folded with what was made of the batches; returns how many sections
    /// are missing and how many were folded too often.
    fn compare(&self, folded: &[Tally]) -> Result<(u64, u64), FinalError> {
        let (mut missing, mut twice) = (0, 0);
        for count in self.tables.iter().flat_map(|table| &table.stages) {
            let stage = count.stage as usize;
            let (made, folded) = (count.made, folded.get(stage).copied().unwrap_or_default());
            if made != folded {
                let mut queries = self.plan.queries().iter().filter(|query| query.stage == stage);
                let query = queries.next().map(|query| query.output.clone()).unwrap_or_default();
                let (made, folded) = (made.sections, folded.sections);
                return Err(FinalError::Tally { query, made, folded });
            }
            missing += made.sections.saturating_sub(folded.sections);
            twice += folded.sections.saturating_sub(made.sections);
        }
        Ok((missing, twice))
    }

    fn query_receipt(&self, output: &str, stage: usize, table: usize) -> QueryReceipt {
        let summary = &self.tables[table];
        let count = summary.stages.iter().find(|count| count.stage as usize == stage);
        let (passed, filtered, rejected) =
            count.map_or((0, 0, 0), |count| (count.passed, count.filtered, count.rejected));
        QueryReceipt {
            output: output.to_owned(),
            table: self.plan.tables()[table].name.clone(),
            rows_in: summary.rows.saturating_sub(summary.rejected),
            rows_passed: passed,
            rows_filtered: filtered,
            rows_rejected: rejected,
            rejected: reasons(summary, Some(stage as u32)),
        }
    }
}

fn table_receipt(name: &str, files: u64, batches: u64, summary: &TableSummary) -> TableReceipt {
    TableReceipt {
        name: name.to_owned(),
        files,
        bytes: summary.bytes,
        batches,
        content_hash: hex(summary.content),
        rows_in: summary.rows,
        rows_accepted: summary.rows.saturating_sub(summary.rejected),
        rows_rejected: summary.rejected,
        rejected: reasons(summary, None),
    }
}

fn reasons(summary: &TableSummary, stage: Option<u32>) -> Vec<ReasonReceipt> {
    let of_stage = summary.reasons.iter().filter(|reason| reason.stage == stage);
    of_stage
        .map(|ReasonCount { reason, rows, .. }| ReasonReceipt {
            reason: reason.clone(),
            rows: *rows,
        })
        .collect()
}
