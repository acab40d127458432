//! Checks a result: its receipt must add up, and, if the dataset is given, a computation in this
//! process must give the same bytes. `cortado verify` uses it.

use std::hash::Hasher as _;
use std::path::Path;
use std::sync::Arc;

use cortado_engine::{Durability, FinalError, Plan, Receipt, Recompute, ReportFile, ResultReceipt};
use cortado_protocol::job::{JobSpec, ResultFile};
use cortado_protocol::{JobId, content_hash};
use twox_hash::XxHash3_64;

use crate::dataset::TableReader;
use crate::result::{self, Finished, Sink};
use crate::{Cluster, Error, job};

/// The outcome of a check.
#[derive(Clone, Debug)]
pub struct Verified {
    /// The fetched receipt.
    pub receipt: Receipt,
    /// Every problem, as a sentence; empty if there is none.
    pub problems: Vec<String>,
    /// Names of the files that were recomputed and compared.
    pub compared: Vec<String>,
}

/// Fetches and checks the receipt of a finished job; with `data`, recomputes all files and compares
/// them byte for byte.
///
/// # Errors
/// If the job is not done, the dataset is a different one, or the cluster can't be reached.
/// Problems of the result are not errors: they are in [`Verified::problems`].
pub async fn verify(
    cluster: &Arc<Cluster>,
    job: JobId,
    data: Option<&Path>,
) -> Result<Verified, Error> {
    let status = job::status(cluster, job, std::time::Duration::ZERO).await?;
    let finished = result::finished(&status)?;
    let mut hashes = Hashes::default();
    let receipt_bytes = result::fetch(cluster, job, &finished, &mut hashes).await?;
    let receipt = parse_receipt(&receipt_bytes)?;
    let mut problems = receipt.check().err().unwrap_or_default();
    problems.extend(hashes.compare(&receipt));
    let mut compared = Vec::new();
    if let Some(root) = data {
        let (spec, plan) = job::open(cluster, job, root).await?;
        let durability = receipt.durability;
        let root = root.to_owned();
        let files = tokio::task::spawn_blocking(move || recompute(&root, &spec, &plan, durability))
            .await
            .map_err(|error| Error::Incomplete(format!("recomputing failed: {error}")))??;
        problems.extend(compare(cluster, job, &finished, &files).await?);
        compared = files.into_iter().map(|file| file.name).collect();
    }
    Ok(Verified { receipt, problems, compared })
}

/// Parses a receipt.
///
/// # Errors
/// [`Error::Incomplete`] if it is not a receipt.
pub fn parse_receipt(bytes: &[u8]) -> Result<Receipt, Error> {
    Receipt::parse(bytes)
        .map_err(|error| Error::Incomplete(format!("{} can't be read: {error}", result::RECEIPT)))
}

/// Recomputes a job's files in this process, one batch at a time.
///
/// # Errors
/// If the dataset can't be read, or can't be computed.
pub fn recompute(
    root: &Path,
    spec: &JobSpec,
    plan: &Plan,
    durability: Durability,
) -> Result<Vec<ReportFile>, Error> {
    let failed = |error: FinalError| Error::Incomplete(error.to_string());
    let mut computed = Recompute::new(plan, spec).map_err(failed)?;
    for (index, table) in spec.tables.iter().enumerate() {
        let mut reader = TableReader::new(root, spec.job, index as u16, table);
        while let Some(batch) = reader.next_batch()? {
            computed.add(&batch.header, &batch.payload).map_err(failed)?;
        }
    }
    computed.finish(durability).map_err(failed)
}

/// Hashes files as they arrive, for the comparison with the receipt.
#[derive(Default)]
struct Hashes(Vec<(String, u64, XxHash3_64)>);

impl Hashes {
    fn compare(&self, receipt: &Receipt) -> Vec<String> {
        let arrived = |name: &str| self.0.iter().find(|(other, ..)| other == name);
        let problem = |expected: &ResultReceipt| match arrived(&expected.name) {
            None => Some(format!("{}: in the receipt, but not in the result", expected.name)),
            Some((_, bytes, hash)) => {
                let same =
                    *bytes == expected.bytes && format!("{:016x}", hash.finish()) == expected.hash;
                (!same).then(|| format!("{}: not the file of the receipt", expected.name))
            }
        };
        receipt.results.iter().filter_map(problem).collect()
    }
}

impl Sink for Hashes {
    fn begin(&mut self, file: &ResultFile) -> Result<(), Error> {
        self.0.push((file.name.clone(), 0, XxHash3_64::new()));
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if let Some((_, length, hash)) = self.0.last_mut() {
            *length += bytes.len() as u64;
            hash.write(bytes);
        }
        Ok(())
    }
}

/// Fetches the result again and compares it with the recomputed files.
async fn compare(
    cluster: &Arc<Cluster>,
    job: JobId,
    finished: &Finished,
    expected: &[ReportFile],
) -> Result<Vec<String>, Error> {
    let mut sink = Compare { expected, at: None, problems: Vec::new() };
    result::fetch(cluster, job, finished, &mut sink).await?;
    sink.end_file();
    let mut problems = sink.problems;
    for file in expected {
        if !finished.files.iter().any(|other| other.name == file.name) {
            problems.push(format!("{}: missing from the cluster's result", file.name));
        }
    }
    Ok(problems)
}

/// Compares files as they arrive.
struct Compare<'a> {
    expected: &'a [ReportFile],
    at: Option<Comparison<'a>>,
    problems: Vec<String>,
}

struct Comparison<'a> {
    file: &'a ReportFile,
    offset: usize,
    differs_at: Option<usize>,
}

impl Compare<'_> {
    fn end_file(&mut self) {
        let Some(Comparison { file, offset, differs_at }) = self.at.take() else { return };
        let differs = differs_at.or((offset != file.bytes.len()).then_some(offset));
        if let Some(byte) = differs {
            let line = file.bytes.iter().take(byte).filter(|b| **b == b'\n').count() + 1;
            self.problems.push(format!(
                "{}: differs from the recomputed one at byte {byte} (line {line}); recomputed hash \
                 {:016x}",
                file.name,
                content_hash(&file.bytes)
            ));
        }
    }
}

impl Sink for Compare<'_> {
    fn begin(&mut self, file: &ResultFile) -> Result<(), Error> {
        self.end_file();
        match self.expected.iter().find(|other| other.name == file.name) {
            Some(file) => self.at = Some(Comparison { file, offset: 0, differs_at: None }),
            None => self.problems.push(format!("{}: not among the recomputed files", file.name)),
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let Some(at) = &mut self.at else { return Ok(()) };
        if at.differs_at.is_none() {
            let rest = at.file.bytes.get(at.offset..).unwrap_or_default();
            let same = rest.iter().zip(bytes).take_while(|(a, b)| a == b).count();
            at.differs_at = (same < bytes.len()).then_some(at.offset + same);
        }
        at.offset += bytes.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(computed: &str, arrived: &[&str]) -> Vec<String> {
        let bytes = bytes::Bytes::copy_from_slice(computed.as_bytes());
        let expected = [ReportFile { name: "q.csv".into(), bytes, rows: 0 }];
        let mut sink = Compare { expected: &expected, at: None, problems: Vec::new() };
        sink.begin(&ResultFile { name: "q.csv".into(), bytes: 0, rows: 0 }).unwrap();
        arrived.iter().for_each(|piece| sink.write(piece.as_bytes()).unwrap());
        sink.end_file();
        sink.problems
    }

    #[test]
    fn the_first_difference_is_named() {
        assert!(problems("a\nb\n", &["a", "\nb\n"]).is_empty());
        assert!(problems("a\nb\n", &["a\n", "c\n"])[0].contains("byte 2 (line 2)"));
        assert!(problems("a\nb\n", &["a\n"])[0].contains("byte 2"));
        assert!(problems("a\n", &["a\n", "b"])[0].contains("byte 2"));
    }
}
