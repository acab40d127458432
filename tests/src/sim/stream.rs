//! Simulated streams: an owner that makes the stream, reads what is published and ends it;
//! publishers that die and come back; and a model that counts the same events in one set.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use cortado_membership::ring;
use cortado_protocol::client::{
    BatchOutcome, BatchReply, ClientRequest, ClientResponse, ErrorKind,
};
use cortado_protocol::job::{BatchHeader, JobSpec};
use cortado_protocol::stream::{
    Cursor, Publisher, Row, StreamHeader, StreamRequest, StreamResponse,
};
use cortado_protocol::{Edge, JobId, NodeId, content_hash, frame};
use cortado_stream::time_text;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

use super::client::Sent;

/// Batches of a publisher without an answer.
const WINDOW: usize = 4;
/// A request or batch without an answer is sent again after this.
const PATIENCE: Duration = Duration::from_secs(12);
const EVERY_MS: i64 = 1_000;
const START_MS: i64 = 1_700_000_000_000;
const PLAN: &str = r#"
name = "sim"
[stream]
id = "id"
time = "at"
lateness = "300ms"
idle = "4s"
skew = "30d"
[[windows]]
output = "rows"
every = "1s"
group_by = ["key"]
ids = true
"#;

/// The events of one publisher, cut into batches.
#[derive(Clone)]
pub(crate) struct Feed {
    publisher: Publisher,
    batches: Vec<(Vec<Line>, i64)>,
}

/// A line of a batch.
#[derive(Clone)]
enum Line {
    /// An event: its id and its content.
    Event(u64, u64),
    /// It can't be read.
    Bad,
}

/// An event's time depends on its id: equal copies have equal times.
fn time_of(id: u64) -> i64 {
    START_MS + id as i64 * 97
}

impl Line {
    fn text(&self) -> String {
        match self {
            Self::Event(id, content) => {
                let (at, key) = (time_text(time_of(*id)), content % 3);
                format!("{{\"id\":\"e{id}\",\"at\":\"{at}\",\"key\":\"k{key}\",\"n\":{content}}}")
            }
            Self::Bad => "{\"id\":".to_owned(),
        }
    }
}

impl Feed {
    /// Events drawn from a seed: copies of those of other publishers, contradictions, lines that can't
    /// be read, in disorder, with promises of which some are broken.
    pub(crate) fn drawn(seed: u64, number: usize) -> Self {
        let rng = &mut StdRng::seed_from_u64(seed ^ number as u64 ^ 0x5_7ea3);
        let count = rng.random_range(0..14);
        let disorder = rng.random_range(1..40);
        let mut batches: Vec<(Vec<Line>, i64)> = Vec::new();
        for batch in 0..count {
            let line = |rng: &mut StdRng| match rng.random_range(0..20) {
                0 => Line::Bad,
                kind => {
                    let id = batch * 6 + rng.random_range(0..disorder);
                    // Nearly all copies are equal.
                    Line::Event(id, if kind == 1 { rng.random_range(0..9) } else { id })
                }
            };
            let lines: Vec<_> = (0..rng.random_range(0..9)).map(|_| line(rng)).collect();
            let low = time_of(batch * 6 + rng.random_range(0..12));
            batches.push((lines, low));
        }
        let (name, backfill) = (format!("p{number}"), rng.random_range(0..5) == 0);
        let publisher = Publisher { name, generation: 0, opened_ms: START_MS, backfill };
        Self { publisher, batches }
    }

    /// The last number is that of the batch that ends it.
    fn end(&self) -> u64 {
        self.batches.len() as u64
    }

    fn batch(&self, number: u64) -> (BatchHeader, Bytes) {
        let mut text = String::new();
        let (mut low_watermark_ms, last) = (i64::MAX, number == self.end());
        if let Some((lines, low)) = self.batches.get(number as usize) {
            low_watermark_ms = *low;
            lines.iter().for_each(|line| writeln!(text, "{}", line.text()).expect("a text"));
        }
        let payload = Bytes::from(text);
        let Publisher { name, generation, .. } = &self.publisher;
        let stream = StreamHeader {
            publisher: name.clone(),
            generation: *generation,
            schema_set: 0,
            low_watermark_ms,
            sent_at_ms: START_MS + 3_600_000,
            last,
        };
        let header = BatchHeader {
            table: 0,
            number,
            file: 0,
            offset: 0,
            first_line: 0,
            content: content_hash(&payload),
            trace: number,
            stream: Some(stream),
        };
        (header, payload)
    }
}

/// One question at a time, and a rest after "not now".
#[derive(Default)]
struct Asking {
    asked_at: Option<Duration>,
    rest_until: Duration,
}

impl Asking {
    fn may_ask(&self, now: Duration) -> bool {
        now >= self.rest_until && self.asked_at.is_none_or(|at| now >= at + PATIENCE)
    }

    fn ask(&mut self, now: Duration, request: ClientRequest) -> Vec<(Option<NodeId>, Sent)> {
        self.asked_at = Some(now);
        vec![(None, Sent::Request(request))]
    }

    /// Whether the answer is one to act on; an error is given back.
    fn answered(&mut self, now: Duration, response: &ClientResponse) -> Result<bool, String> {
        if self.asked_at.take().is_none() {
            return Ok(false);
        }
        match response {
            ClientResponse::Error(error)
                if matches!(error.kind, ErrorKind::Unavailable | ErrorKind::NotFound) =>
            {
                self.rest_until = now + Duration::from_millis(200);
                Ok(false)
            }
            ClientResponse::Error(error) => Err(error.message.clone()),
            _ => Ok(true),
        }
    }
}

enum Publishing {
    /// The stream is not there yet.
    Look,
    Open,
    Compare {
        from: u64,
    },
    Send,
    Over,
}

/// A publisher.
pub(crate) struct SimPublisher {
    job: JobId,
    feed: Feed,
    step: Publishing,
    asking: Asking,
    todo: BTreeSet<u64>,
    in_flight: BTreeMap<u64, Duration>,
    tries: BTreeMap<u64, usize>,
    pub(crate) failed: Option<String>,
    pub(crate) life: u64,
    pub(crate) acknowledged: BTreeSet<u64>,
}

impl SimPublisher {
    pub(crate) fn new(job: JobId, feed: Feed) -> Self {
        Self {
            job,
            feed,
            step: Publishing::Look,
            asking: Asking::default(),
            todo: BTreeSet::new(),
            in_flight: BTreeMap::new(),
            tries: BTreeMap::new(),
            failed: None,
            life: 0,
            acknowledged: BTreeSet::new(),
        }
    }

    pub(crate) fn job(&self) -> JobId {
        self.job
    }

    pub(crate) fn edge(&self) -> Edge {
        self.feed.publisher.edge()
    }

    pub(crate) fn batch(&self, number: u64) -> (BatchHeader, Bytes) {
        self.feed.batch(number)
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.step, Publishing::Over)
    }

    /// The process dies; the next one knows its name, and makes the same batches again.
    pub(crate) fn resume(&mut self) -> bool {
        if self.is_over() {
            return false;
        }
        let acknowledged = std::mem::take(&mut self.acknowledged);
        let fresh = Self::new(self.job, self.feed.clone());
        *self = Self { life: self.life + 1, acknowledged, ..fresh };
        true
    }

    pub(crate) fn describe(&self) -> String {
        let step = match self.step {
            Publishing::Look => "looking",
            Publishing::Open => "opening",
            Publishing::Compare { .. } => "comparing",
            Publishing::Send => "sending",
            Publishing::Over => "over",
        };
        let name = &self.feed.publisher.name;
        format!("publisher {name} {step}, {} to send", self.todo.len() + self.in_flight.len())
    }

    pub(crate) fn poll(&mut self, now: Duration, live: &[NodeId]) -> Vec<(Option<NodeId>, Sent)> {
        if matches!(self.step, Publishing::Send) {
            return self.send(now, live);
        }
        if self.is_over() || !self.asking.may_ask(now) {
            return Vec::new();
        }
        let request = match &self.step {
            Publishing::Open => StreamRequest::Open(self.feed.publisher.clone()),
            Publishing::Compare { from } => {
                StreamRequest::Coverage { edge: self.edge(), from: *from }
            }
            _ => StreamRequest::Status,
        };
        self.asking.ask(now, ClientRequest::Stream(self.job, request))
    }

    fn send(&mut self, now: Duration, live: &[NodeId]) -> Vec<(Option<NodeId>, Sent)> {
        let late = self.in_flight.extract_if(.., |_, at| now >= *at + PATIENCE);
        self.todo.extend(late.map(|(number, _)| number));
        let mut out = Vec::new();
        while now >= self.asking.rest_until && self.in_flight.len() < WINDOW {
            let Some(number) = self.todo.pop_first() else { break };
            self.in_flight.insert(number, now);
            let tries = self.tries.entry(number).or_default();
            let owners = ring::owners(ring::batch_key(self.job, 0, number), live);
            let to = owners.get(*tries % owners.len().max(1)).copied();
            *tries += 1;
            out.push((to, Sent::Batch { table: 0, number }));
        }
        out
    }

    pub(crate) fn on_batch_reply(&mut self, now: Duration, reply: BatchReply) {
        if self.in_flight.remove(&reply.number).is_none() {
            return;
        }
        match reply.outcome {
            BatchOutcome::Durable { .. } => {
                self.acknowledged.insert(reply.number);
            }
            BatchOutcome::Retry { .. } => {
                self.todo.insert(reply.number);
                self.asking.rest_until = now + Duration::from_millis(100);
            }
            // A stream that has ended has had the batch.
            BatchOutcome::Refused(error) if error.kind == ErrorKind::Ended => {}
            BatchOutcome::Refused(error) => self.failed = Some(error.message),
        }
        if self.todo.is_empty() && self.in_flight.is_empty() {
            self.step = Publishing::Over;
        }
    }

    pub(crate) fn on_response(&mut self, now: Duration, response: ClientResponse) {
        match self.asking.answered(now, &response) {
            Ok(true) => {}
            Ok(false) => return,
            // It had ended, and whoever resumed it did not know.
            Err(message) if message.contains("done") || message.contains("is to end") => {
                self.step = Publishing::Over;
                return;
            }
            Err(message) => {
                self.failed = Some(message);
                return;
            }
        }
        match (&mut self.step, response) {
            (Publishing::Look, ClientResponse::Stream(StreamResponse::Status(status))) => {
                if status.schema_set.is_some() {
                    self.step = Publishing::Open;
                } else {
                    self.asking.rest_until = now + Duration::from_millis(100);
                }
            }
            (Publishing::Open, ClientResponse::Status(_)) => {
                self.todo = (0..=self.feed.end()).collect();
                self.step = Publishing::Compare { from: 0 };
            }
            (Publishing::Compare { from }, ClientResponse::Coverage(there)) => {
                there.batches.iter().for_each(|(number, _)| {
                    self.todo.remove(number);
                });
                match there.next {
                    Some(next) => *from = next,
                    None if self.todo.is_empty() => self.step = Publishing::Over,
                    None => self.step = Publishing::Send,
                }
            }
            _ => {}
        }
    }
}

enum Owning {
    Submit,
    PutSchemas,
    /// Reads and waits for the publishers, then stops.
    Read,
    Look,
    Stop,
    /// Reads to the end.
    Drain,
    Over,
}

/// Whoever makes the stream, reads it and ends it.
pub(crate) struct StreamOwner {
    job: JobId,
    feeds: Vec<Feed>,
    slots: u8,
    step: Owning,
    asking: Asking,
    stopping: bool,
    /// Which output is read, and how far each was.
    reads_rows: bool,
    cursors: [Cursor; 2],
    /// Rows by their place, of both outputs.
    rows: [BTreeMap<(Edge, u64, u32), Value>; 2],
    ended: [bool; 2],
    pub(crate) failed: Option<String>,
    pub(crate) life: u64,
}

const OUTPUTS: [&str; 2] = ["rows", "deadletter.validation"];

impl StreamOwner {
    pub(crate) fn new(job: JobId, feeds: Vec<Feed>, slots: u8) -> Self {
        Self {
            job,
            feeds,
            slots,
            step: Owning::Submit,
            asking: Asking::default(),
            stopping: false,
            reads_rows: true,
            cursors: [Cursor::default(), Cursor::default()],
            rows: [BTreeMap::new(), BTreeMap::new()],
            ended: [false; 2],
            failed: None,
            life: 0,
        }
    }

    pub(crate) fn job(&self) -> JobId {
        self.job
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.step, Owning::Over)
    }

    pub(crate) fn describe(&self) -> String {
        let step = match self.step {
            Owning::Submit => "submitting",
            Owning::PutSchemas => "putting schemas",
            Owning::Read => "reading",
            Owning::Look => "looking",
            Owning::Stop => "stopping",
            Owning::Drain => "draining",
            Owning::Over => "over",
        };
        format!("owner of the stream {step}, {} rows", self.rows[0].len())
    }

    pub(crate) fn poll(&mut self, now: Duration) -> Vec<(Option<NodeId>, Sent)> {
        if self.is_over() || !self.asking.may_ask(now) {
            return Vec::new();
        }
        let request = match &self.step {
            Owning::Submit => {
                let (job, slots, tables) = (self.job, self.slots, Vec::new());
                let (plan_name, plan_toml) = ("sim".to_owned(), PLAN.to_owned());
                let spec = JobSpec { job, plan_name, plan_toml, slots, tables };
                return self.asking.ask(now, ClientRequest::Submit(spec));
            }
            Owning::PutSchemas => StreamRequest::PutSchemas { set: 0, files: Vec::new() },
            Owning::Look => StreamRequest::Status,
            Owning::Stop => StreamRequest::Stop,
            Owning::Read | Owning::Drain | Owning::Over => {
                let which = usize::from(!self.reads_rows);
                let (output, after) = (OUTPUTS[which].to_owned(), self.cursors[which].clone());
                StreamRequest::Rows { output, after }
            }
        };
        self.asking.ask(now, ClientRequest::Stream(self.job, request))
    }

    pub(crate) fn on_response(&mut self, now: Duration, response: ClientResponse, tail: &Bytes) {
        match self.asking.answered(now, &response) {
            Ok(true) => {}
            Ok(false) => return,
            Err(message) => {
                self.failed = Some(message);
                return;
            }
        }
        match (&self.step, response) {
            (Owning::Submit, ClientResponse::Status(_)) => self.step = Owning::PutSchemas,
            (Owning::PutSchemas, ClientResponse::Status(_)) => self.step = Owning::Read,
            (Owning::Look, ClientResponse::Stream(StreamResponse::Status(status))) => {
                let ended = status.publishers.iter().filter(|publisher| publisher.ended).count();
                let counts = status.events;
                let found = counts.counted + counts.duplicates + counts.dead + counts.open;
                if counts.received != found {
                    self.failed = Some(format!("events are lost: {counts:?}"));
                }
                self.step = match ended == self.feeds.len() {
                    true => Owning::Stop,
                    false => Owning::Read,
                };
            }
            (Owning::Stop, ClientResponse::Status(_)) => {
                (self.stopping, self.step) = (true, Owning::Drain);
            }
            (
                Owning::Read | Owning::Drain,
                ClientResponse::Stream(StreamResponse::Rows { ended, cursor }),
            ) => {
                let Ok(rows) = frame::from_postcard::<Vec<Row>>(tail) else {
                    self.failed = Some("rows that can't be read".to_owned());
                    return;
                };
                let which = usize::from(!self.reads_rows);
                for row in rows {
                    let json = serde_json::from_str(&row.json).unwrap_or_default();
                    if self.rows[which].insert((row.edge, row.batch, row.row), json).is_some() {
                        self.failed = Some("a row came twice".to_owned());
                    }
                }
                (self.cursors[which], self.ended[which]) = (cursor, ended);
                self.reads_rows = !self.reads_rows;
                self.asking.rest_until = now + Duration::from_millis(150);
                if self.ended == [true; 2] {
                    self.step = Owning::Over;
                } else if !self.stopping {
                    self.step = Owning::Look;
                }
            }
            _ => {}
        }
    }

    /// Compares what was published with the model.
    pub(crate) fn compare(&self) -> Result<(), String> {
        let model = Model::of(&self.feeds);
        let mut last: BTreeMap<&str, &Value> = BTreeMap::new();
        let mut by_cut: BTreeMap<(&str, &str), &Value> = BTreeMap::new();
        for row in self.rows[0].values() {
            let text = |field: &str| row[field].as_str().unwrap_or_default();
            let (start, cut) = (text("window_start"), text("cut"));
            if by_cut.insert((start, cut), row).is_some_and(|other| other != row) {
                return Err(format!("two rows of one window and cut differ: {row}"));
            }
            let counts = row["stats"].as_object().into_iter().flatten();
            if counts.filter_map(|(_, count)| count.as_u64()).sum::<u64>() != row["total"] {
                return Err(format!("a row does not add up: {row}"));
            }
            let revision = |row: &Value| row["revision"].as_u64().unwrap_or_default();
            let newest = last.entry(start).or_insert(row);
            if revision(row) > revision(newest) {
                *newest = row;
            }
        }
        let rows: BTreeMap<_, _> = last
            .into_iter()
            .map(|(start, row)| {
                let stats = row["stats"].as_object().into_iter().flatten();
                let stats = stats.map(|(key, count)| (key.clone(), count.as_u64().unwrap_or(0)));
                let count = |field: &str| row[field].as_u64().unwrap_or_default();
                let copies = (count("duplicates"), count("conflicts"));
                (start.to_owned(), Counted { stats: stats.collect(), copies })
            })
            .collect();
        if rows != model.windows {
            return Err(format!("windows: expected {:?}, got {rows:?}", model.windows));
        }
        let is_conflict =
            |row: &&Value| row["reason"].as_str().is_some_and(|r| r.starts_with("conflict"));
        let id = |row: &Value| row["dead_id"].as_str().unwrap_or_default().to_owned();
        let letters = || self.rows[1].values();
        let bad: BTreeSet<_> = letters().filter(|row| !is_conflict(row)).map(id).collect();
        let conflicts: BTreeSet<_> = letters().filter(is_conflict).map(id).collect();
        if bad != model.bad || !conflicts.is_superset(&model.conflicts) {
            return Err(format!(
                "dead letters: expected {:?} and {:?}, got {bad:?} and {conflicts:?}",
                model.bad, model.conflicts
            ));
        }
        Ok(())
    }
}

/// What is counted in a window.
#[derive(Debug, Default, PartialEq)]
struct Counted {
    stats: BTreeMap<String, u64>,
    /// Equal copies, and contradictions.
    copies: (u64, u64),
}

/// What one process counts.
#[derive(Default)]
struct Model {
    windows: BTreeMap<String, Counted>,
    bad: BTreeSet<String>,
    conflicts: BTreeSet<String>,
}

impl Model {
    fn of(feeds: &[Feed]) -> Self {
        let mut model = Self::default();
        let mut events: BTreeMap<u64, BTreeMap<(Edge, u64, u64), u64>> = BTreeMap::new();
        let name =
            |(edge, batch, line): (Edge, u64, u64)| format!("{:x}-{batch:x}-{line:x}", edge.0);
        for feed in feeds {
            let edge = feed.publisher.edge();
            for (batch, (lines, _)) in (0..).zip(&feed.batches) {
                for (place, line) in (0..).zip(lines) {
                    let origin = (edge, batch, place);
                    match line {
                        Line::Bad => drop(model.bad.insert(name(origin))),
                        Line::Event(id, content) => {
                            events.entry(*id).or_default().insert(origin, *content);
                        }
                    }
                }
            }
        }
        for (id, copies) in events {
            let start = time_of(id).div_euclid(EVERY_MS) * EVERY_MS;
            let window = model.windows.entry(time_text(start)).or_default();
            let mut copies = copies.into_iter();
            let Some((_, counts)) = copies.next() else { continue };
            *window.stats.entry(format!("k{}", counts % 3)).or_default() += 1;
            for (origin, content) in copies {
                if content == counts {
                    window.copies.0 += 1;
                } else {
                    window.copies.1 += 1;
                    model.conflicts.insert(name(origin));
                }
            }
        }
        model
    }
}
