//! Issues receipts: from the fold of all batch summaries, once nothing is missing.

use cortado_protocol::content_hash;
use cortado_protocol::job::JobSpec;

use crate::finish::{FinalError, ReportFile};
use crate::receipt::{
    Durability, FORMAT, PlanReceipt, QueryReceipt, ReasonReceipt, Receipt, ResultReceipt,
    TableReceipt, hex,
};
use crate::summary::{ReasonCount, SummaryFold, TableSummary};

impl SummaryFold {
    /// The receipt of a result. `ends` are the declared numbers of batches, per table.
    ///
    /// # Errors
    /// If a table's batches are not exactly `0..end`, or the specification does not fit the plan.
    pub fn receipt(
        &self,
        spec: &JobSpec,
        ends: &[u64],
        durability: Durability,
        results: &[ReportFile],
    ) -> Result<Receipt, FinalError> {
        let schemas = self.plan.tables();
        if spec.tables.len() != schemas.len() || ends.len() != schemas.len() {
            return Err(FinalError::Spec(format!("expected {} tables", schemas.len())));
        }
        let mut tables = Vec::with_capacity(schemas.len());
        for (at, summary) in self.tables.iter().enumerate() {
            let declared = ends[at];
            if !summary.coverage.is_complete(declared) || summary.coverage.count() != declared {
                let found = summary.coverage.intervals().to_vec();
                let table = schemas[at].name.clone();
                return Err(FinalError::Coverage { table, found, declared });
            }
            let files = spec.tables[at].files.len() as u64;
            tables.push(table_receipt(&schemas[at].name, files, declared, summary));
        }
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
            batches_lost: 0,
            batches_twice: 0,
            tables,
            queries: queries.collect(),
            results: results.iter().map(result).collect(),
        };
        receipt.summary = receipt.sentence();
        Ok(receipt)
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
