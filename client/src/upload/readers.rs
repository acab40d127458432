//! Threads that read tables, a few batches ahead of the network. The upload owns them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use cortado_protocol::Coverage;
use cortado_protocol::job::JobSpec;
use tokio::sync::mpsc;

use crate::Error;
use crate::dataset::{Batch, TableReader};

/// Number of threads. Reading is mostly waiting for a disk and hashing; more threads would only
/// compete for the processor.
const READERS: usize = 2;
/// Number of batches read ahead.
const AHEAD: usize = 4;

/// Batches that have arrived, with the hashes of their content.
pub(crate) type Known = HashMap<u64, u64>;

/// The work for one table.
#[derive(Clone, Debug, Default)]
pub struct TableWork {
    /// The table's index in the plan.
    pub table: u16,
    /// Batches that have arrived: they are compared, not sent.
    pub known: Known,
    /// Only these batches; `None` means all.
    pub only: Option<Coverage>,
}

/// An event of a reader.
pub(crate) enum Read {
    /// A batch to send.
    Batch(Batch),
    /// A batch that has arrived before, with the same content.
    Known {
        /// Its length in bytes.
        bytes: u64,
    },
    /// The table was read completely.
    End { table: u16, batches: u64 },
    /// The reader has failed.
    Failed(Error),
}

/// Starts the readers. The channel closes when everything is read; if it is dropped, the threads
/// end.
pub(super) fn start(
    root: &Path,
    spec: &Arc<JobSpec>,
    work: Vec<TableWork>,
) -> mpsc::Receiver<Read> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let threads = READERS.min(work.len());
    let queue = Arc::new(Mutex::new(work.into_iter()));
    for _ in 0..threads {
        let (root, spec) = (root.to_owned(), Arc::clone(spec));
        let (queue, sender) = (Arc::clone(&queue), sender.clone());
        std::thread::spawn(move || read_tables(&root, &spec, &queue, &sender));
    }
    receiver
}

type Queue = Mutex<std::vec::IntoIter<TableWork>>;

fn read_tables(root: &Path, spec: &JobSpec, queue: &Queue, sender: &mpsc::Sender<Read>) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        let Some(work) = next else { return };
        let end = match read_table(root, spec, &work, sender) {
            Ok(Some(batches)) => Read::End { table: work.table, batches },
            Ok(None) => return,
            Err(error) => Read::Failed(error),
        };
        if sender.blocking_send(end).is_err() {
            return;
        }
    }
}

/// Reads a table; `None` if the upload has ended.
fn read_table(
    root: &Path,
    spec: &JobSpec,
    work: &TableWork,
    sender: &mpsc::Sender<Read>,
) -> Result<Option<u64>, Error> {
    let table = &spec.tables[usize::from(work.table)];
    let mut reader = TableReader::new(root, spec.job, work.table, table);
    while let Some(batch) = reader.next_batch()? {
        let number = batch.header.number;
        if work.only.as_ref().is_some_and(|only| !only.contains(number)) {
            continue;
        }
        let read = match work.known.get(&number) {
            None => Read::Batch(batch),
            Some(content) if *content == batch.header.content => {
                Read::Known { bytes: batch.payload.len() as u64 }
            }
            Some(_) => {
                let file = &table.files[batch.header.file as usize].name;
                return Err(Error::BadInput(format!(
                    "{file} has other content than what was uploaded before (at byte {}, line {}); \
                     the dataset must not change while a job runs",
                    batch.header.offset, batch.header.first_line
                )));
            }
        };
        if sender.blocking_send(read).is_err() {
            return Ok(None);
        }
    }
    if let Some(number) = work.known.keys().find(|number| **number >= reader.count()) {
        return Err(Error::BadInput(format!(
            "table {}: batch {number} was uploaded before, but the files have only {}; the dataset \
             must not change while a job runs",
            table.name,
            reader.count()
        )));
    }
    Ok(Some(reader.count()))
}
