//! The owner of a stream.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use cortado_protocol::client::{ClientRequest, ClientResponse};
use cortado_protocol::job::JobSpec;
use cortado_protocol::stream::{
    Cursor, Place, PublisherStatus, Row, Seal, StoredEvent, StreamRequest, StreamResponse,
    StreamStatus,
};
use cortado_protocol::{Edge, JobId, NodeId, frame};
use cortado_stream::parse_time;
use serde_json::Value;

use super::asking::Asking;
use super::feed::Feed;
use super::model::{Counted, HORIZON_MS, Model};
use crate::sim::client::Sent;

const PLAN: &str = r#"
name = "sim"
[stream]
id = "id"
time = "at"
lateness = "300ms"
idle = "4s"
skew = "30d"
seal = "6s"
horizon = "2100ms"
[[windows]]
output = "rows"
every = "1s"
group_by = ["key"]
ids = true
[[webhooks]]
output = "rows"
webhook = "http://webhook"
retry = "linear"
first = "200ms"
attempts = 3
"#;

const RETENTION: &str = "retention = \"2500ms\"\n[[windows]]";

const ALERTS: &str = r#"
[[alerts]]
output = "alerts"
window = "rows"
history = 4
least = 1
probability = 0.1
"#;

/// How long the owner of a stream that forgets waits for that before it ends the stream.
const LINGER: Duration = Duration::from_secs(5);

enum Owning {
    Submit,
    PutSchemas,
    /// Reads and waits for the publishers, then stops.
    Read,
    Look,
    /// Reads events of a publisher.
    Events,
    Stop,
    /// Reads to the end.
    Drain,
    /// Asks how the stream stood at its end.
    Last,
    Over,
}

/// A client that makes the stream, reads it and ends it.
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
    /// Events that were read, and the batch of each publisher up to which they were.
    events: BTreeMap<Place, (String, String)>,
    read: Vec<u64>,
    /// Events that are on no disk any more: of batches that were not acknowledged.
    lost: u64,
    /// Whether the stream keeps its events for a few seconds only, and then alerts have nothing to compare
    /// with.
    retention: bool,
    /// How many publishers go for good.
    leaving: usize,
    /// Batches of rows and of events that were gone before they were read.
    gone: [u64; 2],
    /// When all publishers were seen to have ended.
    ended_at: Option<Duration>,
    /// How the stream stood at its end.
    end: Option<StreamStatus>,
    /// The publisher whose events are read.
    reads: usize,
    pub(crate) failed: Option<String>,
}

const OUTPUTS: [&str; 2] = ["rows", "deadletter.validation"];

impl StreamOwner {
    pub(crate) fn new(
        job: JobId,
        feeds: Vec<Feed>,
        slots: u8,
        retention: bool,
        leaving: usize,
    ) -> Self {
        Self {
            leaving: leaving.min(feeds.len()),
            retention,
            gone: [0; 2],
            ended_at: None,
            end: None,
            job,
            read: vec![0; feeds.len()],
            events: BTreeMap::new(),
            reads: 0,
            lost: 0,
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
            Owning::Events => "reading events",
            Owning::Stop => "stopping",
            Owning::Drain => "draining",
            Owning::Last => "asking for the end",
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
                let plan_toml = match self.retention {
                    true => PLAN.replace("[[windows]]", RETENTION),
                    false => format!("{PLAN}{ALERTS}"),
                };
                let plan_name = "sim".to_owned();
                let spec = JobSpec { job, plan_name, plan_toml, slots, tables };
                return self.asking.ask(now, ClientRequest::Submit(spec));
            }
            Owning::PutSchemas => StreamRequest::PutSchemas { set: 0, files: Vec::new() },
            Owning::Look | Owning::Last => StreamRequest::Status,
            Owning::Events => {
                let (edge, from) = (self.feeds[self.reads].publisher.edge(), self.read[self.reads]);
                StreamRequest::Events { edge, from, batches: 3 }
            }
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
                let found =
                    counts.counted + counts.duplicates + counts.dead + counts.open + counts.retired;
                if counts.received != found {
                    self.failed = Some(format!("events are lost: {counts:?}"));
                }
                // A stream that forgets is given a while to do so.
                let all_ended = ended >= self.feeds.len() - self.leaving;
                let lingers = self.retention && status.retired.is_none();
                let since = *self.ended_at.get_or_insert(now);
                if !all_ended {
                    self.ended_at = None;
                }
                self.step = match all_ended && !(lingers && now < since + LINGER) {
                    true => Owning::Stop,
                    false => Owning::Events,
                };
            }
            (
                Owning::Events,
                ClientResponse::Stream(StreamResponse::Events { next, prefix: _, lost, gone }),
            ) => {
                self.lost += lost;
                self.gone[1] += gone;
                if let Err(message) = self.take_events(next, tail) {
                    self.failed = Some(message);
                }
                self.step = match (self.stopping, self.ended) {
                    (false, _) => Owning::Read,
                    (true, [true, true]) if self.end.is_none() => Owning::Last,
                    (true, [true, true]) if self.has_all_events() => Owning::Over,
                    (true, [true, true]) => Owning::Events,
                    (true, _) => Owning::Drain,
                };
            }
            // A coordinator that has just begun may not know yet that the stream has ended, nor its publishers.
            (Owning::Last, ClientResponse::Stream(StreamResponse::Status(status)))
                if !status.ended =>
            {
                self.asking.rest_until = now + Duration::from_millis(150);
            }
            (Owning::Last, ClientResponse::Stream(StreamResponse::Status(status))) => {
                (self.end, self.step) = (Some(*status), Owning::Events);
                if self.has_all_events() {
                    self.step = Owning::Over;
                }
            }
            (Owning::Stop, ClientResponse::Status(_)) => {
                (self.stopping, self.step) = (true, Owning::Drain);
            }
            (
                Owning::Read | Owning::Drain,
                ClientResponse::Stream(StreamResponse::Rows { ended, cursor, gone }),
            ) => {
                self.gone[0] += gone;
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
                self.step = if self.stopping { Owning::Events } else { Owning::Look };
            }
            _ => {}
        }
    }

    /// Takes events in that were read, and turns to the next publisher of which some are missing.
    fn take_events(&mut self, next: u64, tail: &Bytes) -> Result<(), String> {
        let edge = self.feeds[self.reads].publisher.edge();
        let parts = if tail.is_empty() {
            Vec::new()
        } else {
            frame::from_postcard::<Vec<Bytes>>(tail).map_err(|error| error.to_string())?
        };
        for part in parts {
            let events: Vec<StoredEvent> =
                frame::from_postcard(&part).map_err(|error| error.to_string())?;
            for StoredEvent { batch, position, id, raw, .. } in events {
                let place = Place { edge, batch, position };
                let event = (id, String::from_utf8_lossy(&raw).into_owned());
                if self.events.insert(place, event).is_some() {
                    return Err("an event came twice".to_owned());
                }
            }
        }
        self.read[self.reads] = next;
        let count = self.feeds.len();
        let others = (1..=count).map(|turn| (self.reads + turn) % count);
        self.reads = others.into_iter().find(|of| !self.has_events(*of)).unwrap_or(self.reads);
        Ok(())
    }

    /// The rows of windows that were read.
    pub(crate) fn rows(&self) -> impl Iterator<Item = String> {
        self.rows[0].values().map(Value::to_string)
    }

    /// Which batches of a publisher count, if it was sealed.
    pub(crate) fn seal_of(&self, edge: Edge) -> Option<&Seal> {
        let publishers = self.end.iter().flat_map(|end| &end.publishers);
        let of = |of: &&PublisherStatus| of.publisher.edge() == edge;
        publishers.into_iter().find(of)?.sealed.as_ref()
    }

    /// How many batches there are of a publisher in the end: none if it never opened its edge.
    fn end_of(&self, of: usize) -> u64 {
        let edge = self.feeds[of].publisher.edge();
        match (&self.end, self.seal_of(edge)) {
            (_, Some(seal)) => seal.end,
            (Some(end), None) if end.publishers.iter().all(|of| of.publisher.edge() != edge) => 0,
            _ => self.feeds[of].end() + 1,
        }
    }

    fn has_events(&self, of: usize) -> bool {
        self.read[of] >= self.end_of(of)
    }

    fn has_all_events(&self) -> bool {
        (0..self.feeds.len()).all(|of| self.has_events(of))
    }

    /// Compares what was published of a stream that keeps its events for a few seconds only: what came too
    /// late is not counted, and what was not read in time is not known.
    fn compare_kept(
        &self,
        end: &StreamStatus,
        model: &Model,
        rows: &BTreeMap<String, Counted>,
    ) -> Result<(), String> {
        let counts = end.events;
        let valid = model.valid.len() as u64;
        let settled = counts.counted + counts.duplicates + counts.dead + counts.retired;
        let received = valid + model.bad.len() as u64;
        if counts.received != received || counts.open != 0 || settled != received {
            return Err(format!("of {received} events there are {counts:?} in the end"));
        }
        let sum = |window: &Counted| {
            window.stats.values().sum::<u64>() + window.copies.0 + window.copies.1
        };
        let mut missing = valid;
        for (start, window) in rows {
            let Some(expected) = model.windows.get(start) else {
                return Err(format!("there is no window {start}: {window:?}"));
            };
            missing -= sum(window);
            // What came too late is in no window, and yet contradicts what follows.
            let late = sum(expected) > sum(window);
            if !late && counts.retired == 0 && window != expected {
                return Err(format!("window {start}: expected {expected:?}, got {window:?}"));
            }
        }
        if self.gone[0] == 0 && missing != counts.retired {
            return Err(format!("{missing} events are in no window, and {counts:?} are told"));
        }
        Ok(())
    }

    /// Whether an id counts in two windows that are close, as they were published last. Its events in one
    /// window may all be at the end of it that is further away.
    fn count_once<'r>(&self, rows: impl Iterator<Item = &'r Value>) -> Result<(), String> {
        let mut counted: BTreeMap<&str, i64> = BTreeMap::new();
        for row in rows {
            let start = row["window_start"].as_str().and_then(parse_time).unwrap_or_default();
            for id in row["event_ids"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                let before = counted.insert(id, start);
                if before.is_some_and(|before| start + 1_000 - before <= HORIZON_MS) {
                    return Err(format!("{id} counts in the window before {row}, too"));
                }
            }
        }
        Ok(())
    }

    /// Compares what was published with the model.
    pub(crate) fn compare(&self) -> Result<(), String> {
        let counts = |feed: usize, batch: u64| {
            let seal = self.seal_of(self.feeds[feed].publisher.edge());
            batch < self.end_of(feed) && seal.is_none_or(|seal| seal.counts(batch))
        };
        let model = Model::of(&self.feeds, counts);
        // Whether acknowledged batches are on a disk is checked at every moment elsewhere.
        // Batches that do not count may have been read before that was known, as far as they are there.
        let all = Model::of(&self.feeds, |_, _| true);
        let known = self.events.iter().all(|(place, event)| all.valid.get(place) == Some(event));
        let got = self.events.keys().filter(|place| model.valid.contains_key(place)).count();
        let (expected, lost) = (model.valid.len(), self.lost as usize);
        let void = self.events.len() > got || lost > 0 && all.valid.len() > expected;
        let complete = got + lost == expected || void && got + lost >= expected;
        if !known || !(complete || self.gone[1] > 0) {
            return Err(format!("{got} events were read, or others than the {expected} expected"));
        }
        let mut last_rows: BTreeMap<&str, &Value> = BTreeMap::new();
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
            let newest = last_rows.entry(start).or_insert(row);
            if revision(row) > revision(newest) {
                *newest = row;
            }
        }
        let rows: BTreeMap<_, _> = last_rows
            .iter()
            .map(|(start, row)| {
                let stats = row["stats"].as_object().into_iter().flatten();
                let stats = stats.map(|(key, count)| (key.clone(), count.as_u64().unwrap_or(0)));
                let count = |field: &str| row[field].as_u64().unwrap_or_default();
                let copies = (count("duplicates"), count("conflicts"));
                ((*start).to_owned(), Counted { stats: stats.collect(), copies })
            })
            .collect();
        self.count_once(last_rows.values().copied())?;
        if let Some(end) = self.end.as_ref().filter(|_| self.retention) {
            return self.compare_kept(end, &model, &rows);
        }
        if rows != model.windows {
            return Err(format!("windows: expected {:?}, got {rows:?}", model.windows));
        }
        let is_conflict =
            |row: &&Value| row["reason"].as_str().is_some_and(|r| r.starts_with("conflict"));
        let id = |row: &Value| row["dead_id"].as_str().unwrap_or_default().to_owned();
        let letters = || self.rows[1].values();
        let bad: BTreeSet<_> = letters().filter(|row| !is_conflict(row)).map(id).collect();
        let conflicts: BTreeSet<_> = letters().filter(is_conflict).map(id).collect();
        // Lines of batches that do not count may have been told before that was known.
        if !bad.is_superset(&model.bad)
            || !all.bad.is_superset(&bad)
            || !conflicts.is_superset(&model.conflicts)
        {
            return Err(format!(
                "dead letters: expected {:?} and {:?}, got {bad:?} and {conflicts:?}",
                model.bad, model.conflicts
            ));
        }
        Ok(())
    }
}
