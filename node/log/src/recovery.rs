//! What a log holds after whatever happened to it.
//!
//! A bad place is *damage* if something proves that the record there was once synced: a later
//! segment, a later record's synced mark, or the mark file. Damage is reported and stays as it is;
//! reading goes on at the next valid record. Without such proof, in the last segment, it is a *torn
//! tail*: it was never acknowledged, and is cut there (protocol-aware recovery: Alagappan et al.,
//! "Protocol-Aware Recovery for Consensus-Based Storage", FAST 2018). What is delivered is written
//! and synced again before the log is used, because a readable tail may only be in the page cache.
//!
//! Of a sealed segment with a valid footer nothing but the footer is read.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::Arc;

use crate::current::{discard_spare, is_full};
use crate::error::{OpenError, StateError};
use crate::footer::{Builder, Footer, Listed, Of};
use crate::format::{
    BadHeader, DATA_START, FORMAT_VERSION, RECORD_HEADER_BYTES, RecordMeta, RecordRef,
    SEGMENT_HEADER_BYTES, SegmentHeader, segment_number,
};
use crate::mark;
use crate::report::{Damage, Recovery, Report};
use crate::scan::{Found, Scanner};
use crate::segments::Segments;
use crate::state::StateFiles;
use crate::storage::{Storage, read_full};

const IDENTITY: &str = "log-id";
const QUARANTINE: &str = "quarantine-";

/// What the writer needs to go on.
pub(crate) struct Recovered {
    pub(crate) segments: Segments,
    /// Segments without a record, to be deleted once there is a new one.
    pub(crate) empty: Vec<u32>,
    pub(crate) next_segment: u32,
    pub(crate) next_sequence: u64,
}

type Deliver<'a> = &'a mut dyn FnMut(RecordRef, &RecordMeta, &[u8]);

/// Reads the log, repairs its tail and says what happened.
pub(crate) fn recover(
    storage: &Arc<dyn Storage>,
    new_id: u128,
    deliver: Deliver<'_>,
) -> Result<(Recovered, Recovery), OpenError> {
    let io = |what| move |source| OpenError::Io { what, source };
    discard_spare(&**storage).map_err(io("delete a spare segment"))?;
    let files = storage.list().map_err(io("list the directory"))?;
    let mut found = read_headers(&**storage, &files)?;
    let log_id = identify(storage, new_id, &found)?;
    let mut report = Report { fresh: log_id == new_id && found.is_empty(), ..Report::default() };
    for segment in &mut found {
        let ours =
            |header: &SegmentHeader| header.log_id == log_id && header.segment == segment.number;
        segment.header = segment.header.filter(ours);
    }
    distrust(&mut found);

    let mut replay = Replay {
        storage: &**storage,
        log_id,
        mark: mark::read(&**storage, log_id),
        expected: 1,
        previous: None,
        report: &mut report,
        segments: Segments::default(),
        empty: Vec::new(),
        deliver,
    };
    set_aside(&mut replay, &mut found).map_err(io("set a segment aside"))?;
    for (index, segment) in found.iter().enumerate() {
        let next = found.get(index + 1);
        replay.segment(segment, next).map_err(io("recover a segment"))?;
    }
    if let (true, Some(last)) = (replay.mark >= replay.expected, found.last()) {
        // The end of the log is gone, file and all.
        let end = last.len.try_into().unwrap_or(u32::MAX);
        replay.lost(last.number, end, end, Some(replay.mark + 1));
    }
    let next_sequence = replay.expected.max(replay.mark + 1);
    let Replay { segments, empty, .. } = replay;
    let next_segment = next_number(&files);
    let recovered = Recovered { segments, empty, next_segment, next_sequence };
    Ok((recovered, Recovery { log_id, report }))
}

/// A segment's file.
struct SegmentFile {
    number: u32,
    len: u64,
    header: Option<SegmentHeader>,
}

fn read_headers(
    storage: &dyn Storage,
    files: &[(String, u64)],
) -> Result<Vec<SegmentFile>, OpenError> {
    let mut found = Vec::new();
    for (name, len) in files {
        let Some(number) = segment_number(name) else { continue };
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        read_full(storage, name, 0, &mut bytes)
            .map_err(|source| OpenError::Io { what: "read a segment", source })?;
        let header = match SegmentHeader::decode(&bytes) {
            Ok(header) => Some(header),
            Err(BadHeader::Damaged) => None,
            Err(BadHeader::Version(found)) => {
                let supported = FORMAT_VERSION;
                return Err(OpenError::Version { segment: number, found, supported });
            }
        };
        found.push(SegmentFile { number, len: *len, header });
    }
    found.sort_by_key(|segment| segment.number);
    Ok(found)
}

/// Numbers grow from segment to segment. A header that says that its segment begins behind a later one
/// would hide the records of all that follow: nothing it says counts.
fn distrust(found: &mut [SegmentFile]) {
    let mut least = u64::MAX;
    for segment in found.iter_mut().rev() {
        segment.header = segment.header.filter(|header| header.first_sequence <= least);
        least = segment.header.map_or(least, |header| header.first_sequence);
    }
}

/// The log's id stands in a file of its own and in every segment; either will do.
fn identify(
    storage: &Arc<dyn Storage>,
    new_id: u128,
    found: &[SegmentFile],
) -> Result<u128, OpenError> {
    let state = StateFiles::new(Arc::clone(storage));
    let failed = |error| OpenError::Io {
        what: "read or write the log's id",
        source: match error {
            StateError::Io(source) => source,
            other => io::Error::other(other),
        },
    };
    match state.read(IDENTITY) {
        Ok(Some(bytes)) => {
            if let Ok(bytes) = bytes.try_into() {
                return Ok(u128::from_le_bytes(bytes));
            }
        }
        Ok(None) | Err(StateError::Damaged(_)) => {}
        Err(error) => return Err(failed(error)),
    }
    let header = found.iter().rev().find_map(|segment| segment.header);
    let log_id = header.map_or(new_id, |header| header.log_id);
    state.write(IDENTITY, &log_id.to_le_bytes()).map_err(failed)?;
    Ok(log_id)
}

/// Renames segments in which nothing is ours; never deletes.
fn set_aside(replay: &mut Replay<'_, '_>, found: &mut Vec<SegmentFile>) -> io::Result<()> {
    let mut aside = HashSet::new();
    for segment in found.iter().filter(|segment| segment.header.is_none()) {
        let mut scanner = Scanner::new(replay.storage, replay.log_id, segment.number, segment.len);
        if scanner.search(0, |_| true)?.is_none() {
            let name = format!("{QUARANTINE}{}", scanner.name);
            replay.storage.rename(&scanner.name, &name)?;
            replay.report.quarantined.push(name);
            aside.insert(segment.number);
        }
    }
    if !aside.is_empty() {
        replay.storage.sync_dir()?;
        found.retain(|segment| !aside.contains(&segment.number));
    }
    Ok(())
}

/// Numbers are never used twice, not even those of segments that were set aside.
fn next_number(files: &[(String, u64)]) -> u32 {
    let number = |name: &String| segment_number(name.strip_prefix(QUARANTINE).unwrap_or(name));
    let last = files.iter().filter_map(|(name, _)| number(name)).max();
    last.unwrap_or(0).saturating_add(1)
}

/// Reading the whole log, segment by segment.
struct Replay<'a, 'd> {
    storage: &'a dyn Storage,
    log_id: u128,
    /// Highest sequence proven synced so far; 0 if nothing is.
    mark: u64,
    /// Sequence number of the next record.
    expected: u64,
    /// Header checksum of the last record; `None` where the chain is broken.
    previous: Option<u32>,
    report: &'a mut Report,
    segments: Segments,
    empty: Vec<u32>,
    deliver: Deliver<'d>,
}

impl Replay<'_, '_> {
    fn segment(&mut self, file: &SegmentFile, next: Option<&SegmentFile>) -> io::Result<()> {
        let mut scanner = Scanner::new(self.storage, self.log_id, file.number, file.len);
        self.segments.add(file.number);
        self.previous = None;
        match file.header {
            Some(header) => self.expected = self.expected.max(header.first_sequence),
            None => self.lost(file.number, 0, DATA_START, Some(self.expected)),
        }
        // Footers number records from the header's number on: it must be the one that is expected.
        let numbered = file.header.filter(|header| header.first_sequence == self.expected);
        let of = numbered.map(|header| Of {
            log_id: self.log_id,
            segment: file.number,
            first_sequence: header.first_sequence,
        });
        let (records, damage) = (self.report.records, self.report.damage.len());
        match next {
            Some(next) => {
                // Deleted segments leave gaps in the numbers, which are no loss.
                let adjacent = next.number == file.number + 1;
                let end = next.header.filter(|_| adjacent).map(|header| header.first_sequence);
                match self.footer(file, of, end)? {
                    Some(footer) => self.listed(&footer, end),
                    None => self.sealed(&mut scanner, end)?,
                }
            }
            None => self.last(&mut scanner, file, of)?,
        }
        if (records, damage) == (self.report.records, self.report.damage.len())
            && file.header.is_some()
        {
            self.empty.push(file.number);
        }
        Ok(())
    }

    /// The footer of a segment behind which another one begins.
    fn footer(
        &self,
        file: &SegmentFile,
        of: Option<Of>,
        end: Option<u64>,
    ) -> io::Result<Option<Footer>> {
        let Some(of) = of else { return Ok(None) };
        let footer = Footer::read(self.storage, of, file.len)?;
        // One that says more than the next segment's header is not to be trusted.
        Ok(footer.filter(|f| end.is_none_or(|end| of.first_sequence + f.count() <= end)))
    }

    /// Delivers what a footer lists.
    fn listed(&mut self, footer: &Footer, end: Option<u64>) {
        for Listed { record, meta, head } in footer.records() {
            self.note(record, &meta);
            (self.deliver)(record, &meta, head);
            self.expected = meta.sequence + 1;
        }
        if end.is_some_and(|end| end > self.expected) {
            self.lost(footer.segment(), footer.start, footer.start, end);
        }
    }

    fn note(&mut self, record: RecordRef, meta: &RecordMeta) {
        let bytes = RECORD_HEADER_BYTES as u64 + u64::from(record.len);
        self.segments.note(record.segment, meta.group, bytes);
        self.report.records += 1;
    }

    /// A segment that was synced as a whole before the next one began: every bad place is damage.
    fn sealed(&mut self, scanner: &mut Scanner<'_>, end: Option<u64>) -> io::Result<()> {
        let mut offset = DATA_START;
        loop {
            offset = self.run(scanner, offset, |_, _| ())?;
            if let Some(found) = self.search(scanner, offset)? {
                self.lost(scanner.segment, offset, found.offset, Some(found.header.meta.sequence));
                offset = found.offset;
            } else {
                let lost = end.is_some_and(|end| end > self.expected);
                if offset < scanner.len || lost {
                    self.lost(scanner.segment, offset, scanner.len.max(offset), end);
                }
                return Ok(());
            }
        }
    }

    /// The segment that was being written: only what is proven synced can be damaged.
    fn last(
        &mut self,
        scanner: &mut Scanner<'_>,
        file: &SegmentFile,
        of: Option<Of>,
    ) -> io::Result<()> {
        self.cut_footer(scanner, file, of)?;
        let mut offset = DATA_START;
        let mut footer = Some(Builder::default());
        let mut proven = self.mark;
        let mut unproven = VecDeque::new();
        loop {
            offset = self.run(scanner, offset, |found, head| {
                if let Some(footer) = &mut footer {
                    footer.add(found.record(file.number), &found.header.meta, head);
                }
                proven = proven.max(found.header.synced);
                unproven.push_back((found.header.meta.sequence, found.offset));
                while unproven.front().is_some_and(|(sequence, _)| *sequence <= proven) {
                    unproven.pop_front();
                }
            })?;
            let next = self.search(scanner, offset)?;
            if let Some(found) = next {
                proven = proven.max(self.highest_mark(scanner, found)?);
            }
            self.mark = self.mark.max(proven);
            if self.expected > proven {
                break;
            }
            // What is damaged stays as it is.
            footer = None;
            if let Some(found) = next {
                self.lost(scanner.segment, offset, found.offset, Some(found.header.meta.sequence));
                offset = found.offset;
            } else {
                self.lost(scanner.segment, offset, scanner.len.max(offset), Some(proven + 1));
                if let Some((_, first)) = unproven.front() {
                    scanner.rewrite(*first, offset)?;
                }
                return self.storage.sync(&scanner.name);
            }
        }
        let written = scanner.written_end(offset)?;
        self.report.torn_bytes += u64::from(written - offset);
        if let Some((_, first)) = unproven.front() {
            scanner.rewrite(*first, offset)?;
        }
        self.storage.resize(&scanner.name, offset.into())?;
        self.storage.sync(&scanner.name)?;
        match of.zip(footer) {
            Some((of, footer)) => self.add_footer(scanner, footer.finish(of, offset), offset),
            None => Ok(()),
        }
    }

    /// Cuts off a footer that the segment already has. It proves nothing: a power cut while the
    /// segment was sealed may have left the footer and not the records before it.
    fn cut_footer(
        &self,
        scanner: &mut Scanner<'_>,
        file: &SegmentFile,
        of: Option<Of>,
    ) -> io::Result<()> {
        let Some(of) = of else { return Ok(()) };
        if let Some(footer) = Footer::read(self.storage, of, file.len)? {
            self.storage.resize(&scanner.name, footer.start.into())?;
            scanner.len = footer.start;
        }
        Ok(())
    }

    /// Writes the footer of a segment that ends at `offset`: later starts need not read it again.
    fn add_footer(&self, scanner: &Scanner<'_>, footer: Vec<u8>, offset: u32) -> io::Result<()> {
        match self.storage.write_at(&scanner.name, offset.into(), &footer) {
            Err(error) if is_full(&error) => self.storage.resize(&scanner.name, offset.into())?,
            written => written?,
        }
        self.storage.sync(&scanner.name)
    }

    /// Delivers records from `offset` on while they follow each other; returns where that ends.
    fn run(
        &mut self,
        scanner: &mut Scanner<'_>,
        mut offset: u32,
        mut seen: impl FnMut(&Found, &[u8]),
    ) -> io::Result<u32> {
        while let Some(found) = scanner.record_at(offset)? {
            let meta = found.header.meta;
            let chained = self.previous.is_none_or(|crc| crc == found.header.previous);
            if meta.sequence != self.expected || !chained {
                break;
            }
            let record = found.record(scanner.segment);
            self.note(record, &meta);
            (self.deliver)(record, &meta, scanner.head(&found));
            seen(&found, scanner.head(&found));
            self.expected += 1;
            self.previous = Some(found.crc);
            offset = found.end();
        }
        Ok(offset)
    }

    /// The next record that may follow a bad place.
    fn search(&self, scanner: &mut Scanner<'_>, from: u32) -> io::Result<Option<Found>> {
        let (expected, previous) = (self.expected, self.previous);
        scanner.search(from, |found| match found.header.meta.sequence {
            sequence if sequence == expected => {
                previous.is_none_or(|crc| crc == found.header.previous)
            }
            sequence => sequence > expected,
        })
    }

    /// The highest synced mark of this record and all behind it.
    fn highest_mark(&self, scanner: &mut Scanner<'_>, first: Found) -> io::Result<u64> {
        let mut highest = first.header.synced;
        let mut from = first.end();
        loop {
            let sequence = self.expected;
            let next = match scanner.record_at(from)? {
                Some(found) => Some(found),
                None => scanner.search(from, |found| found.header.meta.sequence > sequence)?,
            };
            let Some(found) = next else { return Ok(highest) };
            highest = highest.max(found.header.synced);
            from = found.end();
        }
    }

    /// Notes damage and goes on behind it.
    fn lost(&mut self, segment: u32, from: u32, to: u32, end_lost: Option<u64>) {
        let first_lost = self.expected;
        let end_lost = end_lost.map(|end| end.max(first_lost));
        self.report.damage.push(Damage { segment, from, to, first_lost, end_lost });
        if let Some(end) = end_lost {
            self.expected = end;
        }
        self.previous = None;
    }
}
