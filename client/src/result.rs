//! Fetches results: requests several chunks at once from any node, splits them into files and
//! checks them.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::hash::Hasher as _;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use cortado_protocol::JobId;
use cortado_protocol::client::{ClientRequest, ClientResponse};
use cortado_protocol::job::{JobState, JobStatus, Manifest, ResultFile};
use tokio::task::JoinHandle;
use twox_hash::XxHash3_64;

use crate::cluster::unexpected;
use crate::{Cluster, Error, files, job};

/// Number of chunks requested at once.
const PIPELINE: usize = 8;
/// Name of the receipt's file.
pub const RECEIPT: &str = "receipt.json";

/// Receives a result, file by file.
pub trait Sink {
    /// Starts the next file.
    ///
    /// # Errors
    /// An error ends the fetch.
    fn begin(&mut self, file: &ResultFile) -> Result<(), Error>;
    /// Takes more bytes of the current file.
    ///
    /// # Errors
    /// An error ends the fetch.
    fn write(&mut self, bytes: &[u8]) -> Result<(), Error>;
}

/// The result of a finished job.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The files, including the receipt.
    pub files: Vec<ResultFile>,
    chunks: u64,
    hash: u64,
}

/// The result of a job that is done, by its manifest.
///
/// # Errors
/// [`Error::Ended`] if the job failed or was cancelled, [`Error::Incomplete`] with what it waits
/// for if it still runs.
pub fn finished(status: &JobStatus) -> Result<Finished, Error> {
    if let Some(error) = job::ended(status) {
        return Err(error);
    }
    match (&status.state, &status.manifest) {
        (JobState::Done, Some(Manifest::Done { files, chunks, hash, .. })) => {
            Ok(Finished { files: files.clone(), chunks: *chunks, hash: *hash })
        }
        _ => Err(Error::Incomplete(format!(
            "job {} has no result yet: {}",
            status.job,
            status.waits_for.as_deref().unwrap_or("it is running")
        ))),
    }
}

/// Fetches a result and passes its bytes to `sink`. Returns the receipt's bytes.
///
/// # Errors
/// [`Error::Incomplete`] if the bytes do not match the manifest: then discard what the sink has
/// received. Otherwise like [`Cluster::request`].
pub async fn fetch(
    cluster: &Arc<Cluster>,
    job: JobId,
    finished: &Finished,
    sink: &mut (dyn Sink + Send),
) -> Result<Vec<u8>, Error> {
    let mut splitter = Splitter::new(&finished.files, sink);
    let mut pending: VecDeque<JoinHandle<Result<Bytes, Error>>> = VecDeque::new();
    let mut next = 0;
    let result = async {
        while next < finished.chunks || !pending.is_empty() {
            while next < finished.chunks && pending.len() < PIPELINE {
                pending.push_back(tokio::spawn(chunk(Arc::clone(cluster), job, next)));
                next += 1;
            }
            let Some(first) = pending.pop_front() else { break };
            let bytes = first.await.map_err(|error| Error::Unreachable(error.to_string()))??;
            splitter.take(&bytes)?;
        }
        splitter.finish(finished.hash)
    }
    .await;
    for task in pending {
        task.abort();
    }
    result
}

async fn chunk(cluster: Arc<Cluster>, job: JobId, chunk: u64) -> Result<Bytes, Error> {
    match cluster.request(&ClientRequest::Result { job, chunk }).await? {
        (ClientResponse::Chunk, bytes) => Ok(bytes),
        (other, _) => Err(unexpected(&other)),
    }
}

/// Splits a stream of bytes into files and hashes it.
struct Splitter<'a> {
    files: std::slice::Iter<'a, ResultFile>,
    current: Option<&'a ResultFile>,
    left: u64,
    hash: XxHash3_64,
    receipt: Vec<u8>,
    sink: &'a mut (dyn Sink + Send),
}

impl<'a> Splitter<'a> {
    fn new(files: &'a [ResultFile], sink: &'a mut (dyn Sink + Send)) -> Self {
        Self {
            files: files.iter(),
            current: None,
            left: 0,
            hash: XxHash3_64::new(),
            receipt: Vec::new(),
            sink,
        }
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        self.hash.write(bytes);
        while !bytes.is_empty() {
            if self.left == 0 {
                self.begin_next()?;
                continue;
            }
            let (now, rest) = bytes.split_at(bytes.len().min(self.left as usize));
            self.sink.write(now)?;
            if self.current.is_some_and(|file| file.name == RECEIPT) {
                self.receipt.extend_from_slice(now);
            }
            self.left -= now.len() as u64;
            bytes = rest;
        }
        Ok(())
    }

    fn begin_next(&mut self) -> Result<(), Error> {
        let file = self.files.next().ok_or_else(|| mismatch("it is longer than announced"))?;
        self.sink.begin(file)?;
        self.left = file.bytes;
        self.current = Some(file);
        Ok(())
    }

    fn finish(mut self, hash: u64) -> Result<Vec<u8>, Error> {
        while self.left == 0 && !self.files.as_slice().is_empty() {
            self.begin_next()?;
        }
        if self.left > 0 {
            return Err(mismatch("it is shorter than announced"));
        }
        if self.hash.finish() != hash {
            return Err(mismatch("its content hash is another one"));
        }
        Ok(self.receipt)
    }
}

fn mismatch(what: &str) -> Error {
    Error::Incomplete(format!("the result that arrived is not the one of the manifest: {what}"))
}

/// Writes the files of a result into a folder. The files get their names once all are complete and
/// checked; if this is dropped before that, it deletes them.
pub struct FolderSink {
    folder: PathBuf,
    files: Vec<(PathBuf, PathBuf)>,
    open: Option<BufWriter<File>>,
}

impl FolderSink {
    /// Makes the folder if it does not exist.
    ///
    /// # Errors
    /// If it can't be made.
    pub fn new(folder: &Path) -> Result<Self, Error> {
        fs::create_dir_all(folder).map_err(|source| Error::io("create", folder, source))?;
        Ok(Self { folder: folder.to_owned(), files: Vec::new(), open: None })
    }

    /// Renames the files to their names.
    ///
    /// # Errors
    /// If a file can't be renamed.
    pub fn commit(mut self) -> Result<(), Error> {
        self.close()?;
        for (temporary, path) in std::mem::take(&mut self.files) {
            fs::rename(&temporary, &path).map_err(|source| Error::io("write", &path, source))?;
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), Error> {
        let path = self.files.last().map(|(_, path)| path.clone()).unwrap_or_default();
        match self.open.take().map(|mut file| file.flush()) {
            Some(Err(source)) => Err(Error::io("write", &path, source)),
            _ => Ok(()),
        }
    }
}

impl Sink for FolderSink {
    fn begin(&mut self, file: &ResultFile) -> Result<(), Error> {
        self.close()?;
        // The name comes from a node and must not lead out of the folder.
        let plain = Path::new(&file.name).file_name() == Some(file.name.as_ref());
        if !plain {
            return Err(Error::Incomplete(format!("'{}' is no name for a result file", file.name)));
        }
        let path = self.folder.join(&file.name);
        let temporary = files::temporary(&path);
        let open =
            File::create(&temporary).map_err(|source| Error::io("create", &temporary, source))?;
        self.files.push((temporary, path));
        self.open = Some(BufWriter::new(open));
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let Some(file) = &mut self.open else { return Ok(()) };
        let path = self.files.last().map(|(_, path)| path.clone()).unwrap_or_default();
        file.write_all(bytes).map_err(|source| Error::io("write", &path, source))
    }
}

impl Drop for FolderSink {
    fn drop(&mut self) {
        for (temporary, _) in &self.files {
            let _ = fs::remove_file(temporary);
        }
    }
}

/// Discards the files, for callers that need only the receipt.
pub struct NoSink;

impl Sink for NoSink {
    fn begin(&mut self, _: &ResultFile) -> Result<(), Error> {
        Ok(())
    }

    fn write(&mut self, _: &[u8]) -> Result<(), Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, bytes: u64) -> ResultFile {
        ResultFile { name: name.into(), bytes, rows: 0 }
    }

    fn split(
        files: &[ResultFile],
        chunks: &[&str],
        sink: &mut (dyn Sink + Send),
    ) -> Result<Vec<u8>, Error> {
        let hash = cortado_protocol::content_hash(chunks.concat().as_bytes());
        let mut splitter = Splitter::new(files, sink);
        chunks.iter().try_for_each(|chunk| splitter.take(chunk.as_bytes()))?;
        splitter.finish(hash)
    }

    #[test]
    fn chunks_are_cut_into_files_that_appear_together() {
        let folder = tempfile::tempdir().unwrap();
        let files =
            [file("q1.csv", 5), file("empty.csv", 0), file(RECEIPT, 4), file("last.csv", 0)];
        let mut sink = FolderSink::new(folder.path()).unwrap();
        assert_eq!(split(&files, &["ab", "cdewx", "yz"], &mut sink).unwrap(), b"wxyz");
        assert!(!folder.path().join("q1.csv").exists());
        sink.commit().unwrap();
        let text = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!([text("q1.csv"), text("empty.csv"), text(RECEIPT)], ["abcde", "", "wxyz"]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4);
    }

    #[test]
    fn wrong_bytes_leave_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        for (files, chunks) in [
            (vec![file("a", 3)], vec!["ab"]),
            (vec![file("a", 1)], vec!["ab"]),
            (vec![file("../a", 2)], vec!["ab"]),
            (vec![file("..", 2)], vec!["ab"]),
        ] {
            let mut sink = FolderSink::new(folder.path()).unwrap();
            let error = split(&files, &chunks, &mut sink).unwrap_err();
            assert_eq!(error.exit_code(), 4, "{error}");
        }
        let mut sink = NoSink;
        let mut splitter = Splitter::new(&[], &mut sink);
        assert!(splitter.take(b"").is_ok() && splitter.finish(0).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
