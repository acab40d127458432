//! Reads a table's files and cuts them into numbered batches.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use cortado_engine::csv::{Cut, Cutter, HeaderRead, read_header};
use cortado_protocol::job::{BatchHeader, FileSpec, TableFiles, trace_id};
use cortado_protocol::{JobId, content_hash, limits};
use cortado_transport::{Buffer, BufferPool};

use crate::Error;

/// Most bytes read from a file at once.
const READ_BYTES: usize = 256 << 10;
/// Number of buffers kept for later batches.
const BUFFERS: usize = 16;

/// A batch to send.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Its place in the dataset, and its hashes.
    pub header: BatchHeader,
    /// Its bytes in the file.
    pub payload: Bytes,
    /// Line breaks in it, which is about its number of records.
    pub lines: u64,
}

/// Reads the batches of one table in the order of their numbers, in bounded memory.
pub struct TableReader {
    root: PathBuf,
    job: JobId,
    table: u16,
    files: Vec<FileSpec>,
    next_file: usize,
    number: u64,
    open: Option<OpenFile>,
    target: usize,
    buffers: BufferPool,
}

/// The file that is being read.
struct OpenFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    cutter: Cutter,
    buffers: BufferPool,
    buffer: Buffer,
    /// Where the bytes that are not cut yet start in the buffer.
    start: usize,
    /// Their offset in the file.
    offset: u64,
    /// Number of their first line, from 1.
    line: u64,
    eof: bool,
}

impl TableReader {
    /// Reads the table with index `table` of a job.
    #[must_use]
    pub fn new(root: &Path, job: JobId, table: u16, files: &TableFiles) -> Self {
        Self {
            root: root.to_owned(),
            job,
            table,
            files: files.files.clone(),
            next_file: 0,
            number: 0,
            open: None,
            target: limits::BATCH_TARGET_BYTES,
            buffers: BufferPool::new(BUFFERS),
        }
    }

    /// Batches returned so far; the table's number of batches once there are no more.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.number
    }

    /// The next batch; `None` after the last one.
    ///
    /// # Errors
    /// If a file can't be read, or is not the file that the job was submitted with.
    pub fn next_batch(&mut self) -> Result<Option<Batch>, Error> {
        loop {
            let Some(open) = &mut self.open else {
                let Some(spec) = self.files.get(self.next_file) else { return Ok(None) };
                self.open = Some(OpenFile::open(&self.root, spec, self.target, &self.buffers)?);
                self.next_file += 1;
                continue;
            };
            let Some(piece) = open.next_piece()? else {
                self.open = None;
                continue;
            };
            let header = BatchHeader {
                table: self.table,
                number: self.number,
                file: (self.next_file - 1) as u32,
                offset: piece.offset,
                first_line: piece.line,
                content: content_hash(&piece.payload),
                trace: trace_id(self.job, self.table, self.number),
                stream: None,
            };
            self.number += 1;
            return Ok(Some(Batch { header, payload: piece.payload, lines: piece.lines }));
        }
    }
}

/// A piece of a file, cut by the cutter.
struct Piece {
    payload: Bytes,
    offset: u64,
    line: u64,
    lines: u64,
}

impl OpenFile {
    /// Opens a file and skips its header.
    fn open(
        root: &Path,
        spec: &FileSpec,
        target: usize,
        buffers: &BufferPool,
    ) -> Result<Self, Error> {
        let path = root.join(&spec.name);
        let file = File::open(&path).map_err(|source| Error::io("open", &path, source))?;
        let cutter = Cutter::new(target);
        let buffer = buffers.take(cutter.window() + READ_BYTES);
        let mut open = Self {
            path,
            file,
            bytes: spec.bytes,
            cutter,
            buffer,
            buffers: buffers.clone(),
            start: 0,
            offset: 0,
            line: 1,
            eof: false,
        };
        loop {
            match read_header(&open.buffer, open.eof) {
                Ok(HeaderRead::Header { fields, bytes, lines }) if *fields == *spec.header => {
                    open.pass(bytes, lines);
                    return Ok(open);
                }
                Ok(HeaderRead::NeedMore)
                    if !open.eof && open.buffer.len() <= limits::RECORD_BYTES =>
                {
                    open.fill(open.buffer.len() + READ_BYTES)?;
                }
                _ => return Err(open.changed("its header is another one")),
            }
        }
    }

    fn next_piece(&mut self) -> Result<Option<Piece>, Error> {
        loop {
            match self.cutter.next(&self.buffer[self.start..], self.eof) {
                Cut::Batch { len, lines } => {
                    let (offset, line) = (self.offset, self.line);
                    let payload = self.take(len);
                    self.offset += len as u64;
                    self.line += lines;
                    return Ok(Some(Piece { payload, offset, line, lines }));
                }
                Cut::Skip { len, lines } => self.pass(len, lines),
                Cut::NeedMore if !self.eof => self.fill(self.cutter.window())?,
                Cut::NeedMore | Cut::End => {
                    if self.eof && self.offset == self.bytes {
                        return Ok(None);
                    }
                    return Err(self.changed("its length is another one"));
                }
            }
        }
    }

    /// Takes the next `len` bytes out of the buffer. If they fill most of it, they keep the buffer
    /// and only the rest is copied; a small piece must not hold a whole buffer.
    fn take(&mut self, len: usize) -> Bytes {
        let cut = self.start..self.start + len;
        let rest = &self.buffer[cut.end..];
        if rest.len() > len / 8 || len < self.buffer.capacity() / 2 {
            self.start = cut.end;
            return Bytes::copy_from_slice(&self.buffer[cut]);
        }
        let mut fresh = self.buffers.take(self.cutter.window() + READ_BYTES);
        fresh.extend_from_slice(rest);
        self.start = 0;
        std::mem::replace(&mut self.buffer, fresh).freeze().slice(cut)
    }

    fn pass(&mut self, bytes: usize, lines: u64) {
        self.start += bytes;
        self.offset += bytes as u64;
        self.line += lines;
    }

    /// Reads until the buffer has `wanted` bytes that are not cut yet, or the file ends.
    fn fill(&mut self, wanted: usize) -> Result<(), Error> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let missing = (wanted.max(self.buffer.len() + 1) - self.buffer.len()) as u64;
        let read = (&mut self.file)
            .take(missing)
            .read_to_end(&mut self.buffer)
            .map_err(|source| Error::io("read", &self.path, source))?;
        self.eof = (read as u64) < missing;
        Ok(())
    }

    fn changed(&self, what: &str) -> Error {
        Error::BadInput(format!(
            "{} has changed since the job was submitted: {what}; the dataset must not change",
            self.path.display()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, text: &str) -> FileSpec {
        FileSpec {
            name: name.into(),
            bytes: text.len() as u64,
            header: text
                .lines()
                .next()
                .map_or_else(|| [].into(), |line| line.split(',').map(str::to_owned).collect()),
        }
    }

    fn reader(files: &[(&str, String)], root: &Path, target: usize) -> TableReader {
        let mut specs = Vec::new();
        for (name, text) in files {
            std::fs::write(root.join(name), text).unwrap();
            specs.push(spec(name, text));
        }
        let table = TableFiles { name: "t".into(), files: specs };
        TableReader { target, ..TableReader::new(root, JobId(1), 3, &table) }
    }

    #[test]
    fn batches_are_numbered_over_all_files_and_hold_every_row() {
        let rows = |from: u32| (from..from + 500).map(|n| format!("{n},x\n")).collect::<String>();
        let files =
            [("a.csv", format!("id,v\n{}", rows(0))), ("b.csv", format!("id,v\n{}", rows(500)))];
        let root = tempfile::tempdir().unwrap();
        let mut reader = reader(&files, root.path(), 1000);
        let mut texts = [String::new(), String::new()];
        let mut number = 0;
        while let Some(batch) = reader.next_batch().unwrap() {
            let text = &mut texts[batch.header.file as usize];
            assert_eq!(batch.header.number, number);
            assert_eq!(batch.header.content, content_hash(&batch.payload));
            assert_eq!(batch.header.offset, text.len() as u64 + 5);
            assert_eq!(batch.header.first_line, text.lines().count() as u64 + 2);
            text.push_str(std::str::from_utf8(&batch.payload).unwrap());
            number += 1;
        }
        assert!(number > 4, "{number}");
        assert_eq!((reader.count(), texts), (number, [rows(0), rows(500)]));
    }

    #[test]
    fn the_rest_of_a_record_beyond_the_limit_is_in_no_batch() {
        let root = tempfile::tempdir().unwrap();
        for long in ["x".repeat(2_000_000), format!("\"{}\"", "y\n".repeat(1_000_000))] {
            let file = ("a.csv", format!("k,v\n{long},1\na,1\n"));
            let mut reader = reader(&[file], root.path(), limits::BATCH_TARGET_BYTES);
            let first = reader.next_batch().unwrap().unwrap();
            assert_eq!(first.payload.len(), limits::RECORD_BYTES + 1);
            let second = reader.next_batch().unwrap().unwrap();
            assert_eq!(&second.payload[..], b"a,1\n");
            assert_eq!(second.header.first_line, 3 + long.matches('\n').count() as u64);
            assert!(reader.next_batch().unwrap().is_none());
        }
    }

    #[test]
    fn a_file_that_has_grown_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let mut reader = reader(&[("a.csv", "id\n1\n".into())], root.path(), 1000);
        std::fs::write(root.path().join("a.csv"), "id\n1\n2\n").unwrap();
        let error = std::iter::repeat_with(|| reader.next_batch()).find_map(Result::err).unwrap();
        assert!(error.to_string().contains("a.csv has changed"), "{error}");
    }
}
