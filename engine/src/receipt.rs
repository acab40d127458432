//! The receipt: what a job read, what it produced, and that nothing is missing or counted twice. It
//! holds no times, names of machines or job ids: the same input and plan give the same receipt. The
//! coordinator issues it; clients check it.

use cortado_protocol::content_hash;
use serde::{Deserialize, Serialize};

use crate::finish::{FinalError, ReportFile};
use crate::names::RECEIPT_FILE;

pub(crate) const FORMAT: u32 = 1;

/// How many copies of acknowledged data there were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Durability {
    /// Copies aimed at (R).
    pub replicas: u8,
    /// Fsynced copies on distinct nodes that an acknowledgement needed (W).
    pub min_copies: u8,
}

/// A result's receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// Version of this format.
    pub format: u32,
    /// The text of [`Receipt::sentence`].
    pub summary: String,
    /// The plan.
    pub plan: PlanReceipt,
    /// How many copies of acknowledged data there were.
    pub durability: Durability,
    /// Batches, or their parts for slots, that are missing in the result: those declared and made,
    /// less those folded. A result with a number other than 0 is not published.
    pub batches_lost: u64,
    /// Parts of batches that were folded more often than they were made. A result with a number
    /// other than 0 is not published.
    pub batches_twice: u64,
    /// The input, in the plan's order.
    pub tables: Vec<TableReceipt>,
    /// The queries and their input, in the plan's order.
    pub queries: Vec<QueryReceipt>,
    /// The result files, without the receipt itself.
    pub results: Vec<ResultReceipt>,
}

/// The plan in a receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanReceipt {
    /// Its name.
    pub name: String,
    /// Content hash of its text, 16 hexadecimal digits.
    pub hash: String,
}

/// Rows rejected for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReasonReceipt {
    /// The reason, for example `final_amount: not a decimal`.
    pub reason: String,
    /// Number of rows.
    pub rows: u64,
}

/// A table in a receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableReceipt {
    /// Its name.
    pub name: String,
    /// Number of files, empty ones included.
    pub files: u64,
    /// Bytes of its batches: its files without their headers.
    pub bytes: u64,
    /// Number of batches. They are numbered from 0, and none is missing.
    pub batches: u64,
    /// Wrapping sum of a hash of each batch's number and content, 16 hexadecimal digits.
    pub content_hash: String,
    /// Number of records.
    pub rows_in: u64,
    /// Records that could be read.
    pub rows_accepted: u64,
    /// Records that could not be read.
    pub rows_rejected: u64,
    /// The reasons, in alphabetical order.
    pub rejected: Vec<ReasonReceipt>,
}

/// A query in a receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryReceipt {
    /// Its result file.
    pub output: String,
    /// The table it reads.
    pub table: String,
    /// Rows of the table that could be read.
    pub rows_in: u64,
    /// Rows that are part of the result.
    pub rows_passed: u64,
    /// Rows that its condition excluded.
    pub rows_filtered: u64,
    /// Rows with an arithmetic error.
    pub rows_rejected: u64,
    /// The reasons.
    pub rejected: Vec<ReasonReceipt>,
}

/// A result file in a receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResultReceipt {
    /// Its name.
    pub name: String,
    /// Number of data rows.
    pub rows: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// Content hash, 16 hexadecimal digits.
    pub hash: String,
}

pub(crate) fn hex(hash: u64) -> String {
    format!("{hash:016x}")
}

impl Receipt {
    /// The receipt as a sentence:
    /// `complete: 1,240,000 rows, 0 rejected, 0 lost, 0 twice, acknowledged by fsync on 2 of 3`.
    #[must_use]
    pub fn sentence(&self) -> String {
        let sum =
            |of: fn(&TableReceipt) -> u64| self.tables.iter().map(of).fold(0, u64::saturating_add);
        let complete = self.batches_lost == 0 && self.batches_twice == 0;
        format!(
            "{}: {} rows, {} rejected, {} lost, {} twice, acknowledged by fsync on {} of {}",
            if complete { "complete" } else { "incomplete" },
            thousands(sum(|table| table.rows_in)),
            thousands(sum(|table| table.rows_rejected)),
            thousands(self.batches_lost),
            thousands(self.batches_twice),
            self.durability.min_copies,
            self.durability.replicas,
        )
    }

    /// Checks that all numbers add up.
    ///
    /// # Errors
    /// One sentence for each number that does not add up.
    pub fn check(&self) -> Result<(), Vec<String>> {
        let mut problems = Vec::new();
        let mut expect = |holds: bool, problem: &dyn Fn() -> String| {
            if !holds {
                problems.push(problem());
            }
        };
        expect(self.format == FORMAT, &|| format!("format {} is not {FORMAT}", self.format));
        expect(self.batches_lost == 0, &|| format!("{} batches are lost", self.batches_lost));
        expect(self.batches_twice == 0, &|| {
            format!("{} batches are counted twice", self.batches_twice)
        });
        let Durability { replicas, min_copies } = self.durability;
        expect((1..=replicas).contains(&min_copies), &|| {
            format!("acknowledgements by {min_copies} of {replicas} are impossible")
        });
        for table in &self.tables {
            let name = &table.name;
            expect(adds_up(table.rows_in, &[table.rows_accepted, table.rows_rejected]), &|| {
                format!("table '{name}': rows in are not accepted + rejected")
            });
            expect(total(&table.rejected) == Some(table.rows_rejected), &|| {
                format!("table '{name}': the reasons do not add up to the rejected rows")
            });
            expect((table.batches == 0) == (table.bytes == 0), &|| {
                format!("table '{name}': {} batches of {} bytes", table.batches, table.bytes)
            });
        }
        for query in &self.queries {
            let name = &query.output;
            let parts = [query.rows_passed, query.rows_filtered, query.rows_rejected];
            expect(adds_up(query.rows_in, &parts), &|| {
                format!("query '{name}': rows in are not passed + filtered + rejected")
            });
            expect(total(&query.rejected) == Some(query.rows_rejected), &|| {
                format!("query '{name}': the reasons do not add up to the rejected rows")
            });
            let table = self.tables.iter().find(|table| table.name == query.table);
            expect(table.is_some_and(|table| table.rows_accepted == query.rows_in), &|| {
                format!("query '{name}': rows in are not the rows of table '{}'", query.table)
            });
        }
        let outputs = self.queries.iter().map(|query| &query.output);
        expect(outputs.eq(self.results.iter().map(|result| &result.name)), &|| {
            "the results are not those of the queries".to_owned()
        });
        expect(self.summary == self.sentence(), &|| "the summary says something else".to_owned());
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// Compares result files, without the receipt, with the entries of the receipt.
    ///
    /// # Errors
    /// One sentence for each difference.
    pub fn check_results(&self, files: &[ReportFile]) -> Result<(), Vec<String>> {
        let mut problems = Vec::new();
        for result in &self.results {
            match files.iter().find(|file| file.name == result.name) {
                None => problems.push(format!("'{}' is missing", result.name)),
                Some(file) if hex(content_hash(&file.bytes)) != result.hash => {
                    problems.push(format!("'{}' is not what was computed", result.name));
                }
                Some(_) => {}
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// The result file `receipt.json`.
    #[must_use]
    pub fn to_file(&self) -> ReportFile {
        let mut bytes =
            serde_json::to_vec_pretty(self).expect("a receipt has only texts and numbers");
        bytes.push(b'\n');
        ReportFile { name: RECEIPT_FILE.to_owned(), bytes: bytes.into(), rows: 0 }
    }

    /// Reads the result file.
    ///
    /// # Errors
    /// [`FinalError::Receipt`] if the bytes are not a receipt of this version.
    pub fn parse(json: &[u8]) -> Result<Self, FinalError> {
        serde_json::from_slice(json).map_err(|error| FinalError::Receipt(error.to_string()))
    }
}

fn adds_up(whole: u64, parts: &[u64]) -> bool {
    let sum = parts.iter().try_fold(0u64, |sum, part| sum.checked_add(*part));
    sum == Some(whole)
}

fn total(reasons: &[ReasonReceipt]) -> Option<u64> {
    reasons.iter().try_fold(0u64, |sum, reason| sum.checked_add(reason.rows))
}

/// Writes `1240000` as `1,240,000`.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
