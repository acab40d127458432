//! Streams: jobs without an end, whose batches publishers send as long as they like.
//!
//! A stream is a job with a plan that has a `[stream]` table and no tables of files. Each publisher
//! numbers its batches on an edge of its own ([`crate::Edge::publisher`]). The stream's coordinator
//! publishes outputs on an edge of its own ([`crate::Edge::output`]).

use serde::{Deserialize, Serialize};

use crate::{Coverage, Edge, NodeId};

/// What the head of a batch of events says beyond that of a batch of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamHeader {
    /// The publisher's name.
    pub publisher: String,
    /// The generation of its edge.
    pub generation: u32,
    /// The schema set that the events are validated with.
    pub schema_set: u32,
    /// No later batch of this edge has an event older than this (milliseconds since the Unix
    /// epoch). A promise that may be broken: an older event is late.
    pub low_watermark_ms: i64,
    /// The publisher's clock, in milliseconds since the Unix epoch.
    pub sent_at_ms: i64,
    /// Whether this is the last batch of the edge.
    pub last: bool,
}

impl StreamHeader {
    /// The edge of the batch.
    #[must_use]
    pub fn edge(&self) -> Edge {
        Edge::publisher(&self.publisher, self.generation)
    }
}

/// One generation of a publisher, as an entry of the job log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publisher {
    /// Its name.
    pub name: String,
    /// Counts the times that it was opened after it had ended, from 0.
    pub generation: u32,
    /// When it was opened, by its own clock, in milliseconds since the Unix epoch.
    pub opened_ms: i64,
    /// Whether it imports old data: windows do not wait for it.
    pub backfill: bool,
}

impl Publisher {
    /// The edge of its batches.
    #[must_use]
    pub fn edge(&self) -> Edge {
        Edge::publisher(&self.name, self.generation)
    }
}

/// A file of a schema set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaFile {
    /// Its name, for example `envelope.json`.
    pub name: String,
    /// A JSON Schema.
    pub text: String,
}

/// A client's request about a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamRequest {
    /// Asks how the stream stands. Answered by [`StreamResponse::Status`].
    Status,
    /// Puts a schema set in force. Answered by the job's status once it is durable.
    PutSchemas {
        /// Its number: one more than the newest one's.
        set: u32,
        /// Its files.
        files: Vec<SchemaFile>,
    },
    /// Opens the edge of a publisher. Answered by the job's status once it is durable.
    Open(Publisher),
    /// Ends the stream once all publishers have ended. Answered by the job's status once that is
    /// durable.
    Stop,
    /// Asks which batches of an edge have arrived. Answered by
    /// [`crate::client::ClientResponse::Coverage`].
    Coverage {
        /// The edge of a publisher.
        edge: Edge,
        /// The first batch number of interest.
        from: u64,
        /// Whether only batches count of which all slots are there. A batch that was not acknowledged may
        /// be there in part, after a power cut everywhere.
        whole: bool,
    },
    /// Asks for published rows. Answered by [`StreamResponse::Rows`] with the rows as tail
    /// (postcard, `Vec<`[`Row`]`>`).
    Rows {
        /// The output's name.
        output: String,
        /// Where the client stands; empty for the beginning.
        after: Cursor,
    },
    /// Asks for an event that is not counted. Answered by [`StreamResponse::Dead`] with the line as
    /// tail.
    Dead(Place),
    /// Asks for the valid events of some batches, copies and contradictions among them. Answered by
    /// [`StreamResponse::Events`].
    Events {
        /// The edge of a publisher.
        edge: Edge,
        /// The first batch.
        from: u64,
        /// How many batches.
        batches: u16,
    },
    /// Asks which batches an output batch includes. Answered by [`StreamResponse::Cut`].
    Cut {
        /// The edge of the coordinator that published it.
        edge: Edge,
        /// Its number.
        batch: u64,
    },
    /// Sends a row to the webhook of its output once more. Answered by [`StreamResponse::Sending`].
    Deliver(Place),
    /// Asks where the newest rows begin. Answered by [`StreamResponse::Rows`] without rows.
    Latest {
        /// The newest windows whose rows are wanted.
        windows: u16,
    },
}

/// The place of an event: its publisher's edge, its batch, its line in the batch. Or of a row: the edge of
/// the coordinator that published it, its batch, and its number in the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The edge.
    pub edge: Edge,
    /// The batch.
    pub batch: u64,
    /// The line, from 0.
    pub position: u32,
}

impl Place {
    /// The text form: `EDGE-BATCH-POSITION` in hexadecimal.
    #[must_use]
    pub fn to_text(self) -> String {
        format!("{:x}-{:x}-{:x}", self.edge.0, self.batch, self.position)
    }

    /// Reads what [`Place::to_text`] wrote; `None` if it is no place.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let mut numbers = text.split('-').map(|part| u64::from_str_radix(part, 16).ok());
        let mut next = || numbers.next().flatten();
        let (edge, batch, position) = (Edge(next()?), next()?, next()?.try_into().ok()?);
        let place = Self { edge, batch, position };
        let known = edge.is_publisher() || edge.is_output();
        (numbers.next().is_none() && known).then_some(place)
    }
}

/// A node's answer about a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamResponse {
    /// To [`StreamRequest::Status`].
    Status(Box<StreamStatus>),
    /// To [`StreamRequest::Rows`].
    Rows {
        /// Whether no more rows will come.
        ended: bool,
        /// Where the client stands after these rows, which may be further than the last of them.
        cursor: Cursor,
        /// Batches of outputs before these rows that the client has not read and that are gone, because
        /// their time of retention is over.
        gone: u64,
    },
    /// To [`StreamRequest::Dead`].
    Dead {
        /// Why it is not counted.
        reason: String,
        /// Where in the event the reason is: a JSON Pointer (RFC 6901), or nothing.
        path: String,
    },
    /// To [`StreamRequest::Events`], with one tail: for each slot the bytes (postcard,
    /// `Vec<`[`bytes::Bytes`]`>`) of its events (postcard, `Vec<`[`StoredEvent`]`>`).
    Events {
        /// The batch after those that the answer has. If it is the one that was asked for, although there are
        /// batches behind it, the events of so many do not fit one answer.
        next: u64,
        /// Batches of the edge that are durable without a gap.
        prefix: u64,
        /// Valid events of these batches that are on no disk any more, although no member is away: no more
        /// than a part of a batch that was never acknowledged.
        lost: u64,
        /// Batches from the first one that was asked for on that are gone, because their time of retention
        /// is over.
        gone: u64,
    },
    /// To [`StreamRequest::Cut`]: how many batches of each publisher's edge.
    Cut(Vec<(Edge, u64)>),
    /// To [`StreamRequest::Deliver`]: the row is being sent.
    Sending,
}

/// A valid event, as an owner of its slot keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredEvent {
    /// Its batch.
    pub batch: u64,
    /// Its line in the batch, from 0.
    pub position: u32,
    /// Its time, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// Its id: the same text for all spellings of a UUID.
    pub id: String,
    /// A hash of what it says; the order of its fields and the space between them do not count.
    pub content: u64,
    /// The line as it was sent.
    pub raw: bytes::Bytes,
}

/// Which batches of a publisher count that is gone: those below the end, without some. Nobody has the
/// others, or not all of them.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Seal {
    /// The number behind the last batch that counts.
    pub end: u64,
    /// Numbers below it that do not count.
    pub void: Coverage,
}

impl Seal {
    /// Whether a batch counts.
    #[must_use]
    pub fn counts(&self, number: u64) -> bool {
        number < self.end && !self.void.contains(number)
    }

    /// The first number from one on that is not void.
    #[must_use]
    pub fn next(&self, number: u64) -> u64 {
        let void =
            self.void.intervals().iter().find(|(start, end)| (*start..*end).contains(&number));
        void.map_or(number, |(_, end)| *end)
    }
}

/// What of a stream is gone: the batches below these numbers, of publishers and of outputs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Floors {
    /// Windows that end by then are retired, in milliseconds since the Unix epoch.
    pub before_ms: i64,
    /// The output batch that says what they held: edge and number.
    pub checkpoint: (Edge, u64),
    /// The first number that is kept, by edge.
    pub floors: Vec<(Edge, u64)>,
}

/// A published row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The edge of the coordinator that published it.
    pub edge: Edge,
    /// The number of its batch.
    pub batch: u64,
    /// Its place in the batch, rows of all outputs counted.
    pub row: u32,
    /// A JSON object.
    pub json: String,
}

/// How far a reader of a stream's outputs has come: on each edge of a coordinator the next batch,
/// and the next row in it. It is valid on every node.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cursor(Vec<(Edge, u64, u32)>);

/// Most edges in a cursor: as many coordinators a stream has had.
const CURSOR_EDGES: usize = 10_000;

impl Cursor {
    /// Moves on to where another one is, on all edges.
    pub fn join(&mut self, other: &Self) {
        other.0.iter().for_each(|(edge, batch, row)| self.advance(*edge, *batch, *row));
    }

    /// The next batch of an edge, and the next row in it.
    #[must_use]
    pub fn of(&self, edge: Edge) -> (u64, u32) {
        let at = self.0.binary_search_by_key(&edge, |(edge, ..)| *edge);
        at.map_or((0, 0), |at| (self.0[at].1, self.0[at].2))
    }

    /// Whether it is as far as another one on all edges.
    #[must_use]
    pub fn reaches(&self, other: &Self) -> bool {
        other.0.iter().all(|(edge, batch, row)| self.of(*edge) >= (*batch, *row))
    }

    /// Moves on to this batch and row of an edge, if it is not there yet.
    pub fn advance(&mut self, edge: Edge, batch: u64, row: u32) {
        match self.0.binary_search_by_key(&edge, |(edge, ..)| *edge) {
            Ok(at) if (self.0[at].1, self.0[at].2) >= (batch, row) => {}
            Ok(at) => (self.0[at].1, self.0[at].2) = (batch, row),
            Err(at) => self.0.insert(at, (edge, batch, row)),
        }
    }

    /// The text form: `EDGE.BATCH.ROW` in hexadecimal for each edge, joined by `_`; `0` if nothing
    /// was read yet.
    #[must_use]
    pub fn to_text(&self) -> String {
        if self.0.is_empty() {
            return "0".to_owned();
        }
        let part =
            |(edge, batch, row): &(Edge, u64, u32)| format!("{:x}.{batch:x}.{row:x}", edge.0);
        self.0.iter().map(part).collect::<Vec<_>>().join("_")
    }

    /// Reads what [`Cursor::to_text`] wrote; `None` if it is no cursor.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let mut cursor = Self::default();
        if text == "0" {
            return Some(cursor);
        }
        for part in text.split('_') {
            if cursor.0.len() == CURSOR_EDGES {
                return None;
            }
            let mut numbers = part.split('.');
            let edge = Edge(u64::from_str_radix(numbers.next()?, 16).ok()?);
            let batch = u64::from_str_radix(numbers.next()?, 16).ok()?;
            let row = u32::from_str_radix(numbers.next()?, 16).ok()?;
            if numbers.next().is_some() || !edge.is_output() {
                return None;
            }
            cursor.advance(edge, batch, row);
        }
        Some(cursor)
    }
}

/// How a stream stands, as its coordinator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StreamStatus {
    /// The node that answers.
    pub coordinator: Option<NodeId>,
    /// The newest schema set, if there is one.
    pub schema_set: Option<u32>,
    /// Whether `stop` was asked for.
    pub stopping: bool,
    /// Whether it has ended.
    pub ended: bool,
    /// The publishers, ordered by name and generation.
    pub publishers: Vec<PublisherStatus>,
    /// No window that ends later is closed, in milliseconds since the Unix epoch; `None` if no
    /// publisher has sent anything, `i64::MAX` if all have ended.
    pub watermark_ms: Option<i64>,
    /// Events of the batches that are read.
    pub events: EventCounts,
    /// Windows that are not closed yet and have events.
    pub open_windows: u64,
    /// Windows that are closed.
    pub closed_windows: u64,
    /// Window rows published, revisions included.
    pub published: u64,
    /// What is retired, if anything is.
    pub retired: Option<Retirement>,
    /// The webhooks of the plan.
    pub webhooks: Vec<WebhookStatus>,
    /// What the stream waits for now, as a sentence.
    pub waits_for: Option<String>,
}

/// A webhook, as the stream's coordinator sees it. Counts are those since it has been the coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookStatus {
    /// The output whose rows it gets.
    pub output: String,
    /// Its URL.
    pub webhook: String,
    /// Rows that it has taken.
    pub delivered: u64,
    /// Rows that became dead letters after the last attempt.
    pub failed: u64,
    /// Rows that are being sent, or wait for the next attempt.
    pub waiting: u64,
    /// Why the last attempt failed, until one succeeds.
    pub error: Option<String>,
}

/// Counts of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EventCounts {
    /// Events received.
    pub received: u64,
    /// Counted in published windows.
    pub counted: u64,
    /// Copies of counted events, in published windows.
    pub duplicates: u64,
    /// Dead letters of the validation, and of conflicts in published windows.
    pub dead: u64,
    /// Valid events in windows that are not published yet, or published without them.
    pub open: u64,
    /// Valid events that came when their window was retired: they are not counted.
    pub retired: u64,
}

/// What of a stream is retired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retirement {
    /// Windows that end by then get no revision any more, in milliseconds since the Unix epoch.
    pub before_ms: i64,
    /// Events that count in them.
    pub counted: u64,
}

/// A publisher, as the stream's coordinator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublisherStatus {
    /// What its entry in the job log says.
    pub publisher: Publisher,
    /// Batches of its gap-free durable prefix.
    pub prefix: u64,
    /// Durable batches beyond a gap.
    pub beyond_gap: u64,
    /// Its low watermark, in milliseconds since the Unix epoch; `None` if it has sent nothing.
    pub watermark_ms: Option<i64>,
    /// Events of the prefix.
    pub events: u64,
    /// Dead letters of the prefix.
    pub dead: u64,
    /// Whether its last batch is in the prefix.
    pub ended: bool,
    /// Whether nothing came for so long that windows do not wait for it.
    pub idle: bool,
    /// Which of its batches count, if it was sealed.
    pub sealed: Option<Seal>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_only_move_on_and_round_trip() {
        let node = |name: &str| name.parse().unwrap();
        let (a, b) = (Edge::output(node("a"), 1), Edge::output(node("b"), 1));
        let mut cursor = Cursor::default();
        assert_eq!(Cursor::from_text(&cursor.to_text()), Some(Cursor::default()));
        cursor.advance(a, 3, 7);
        cursor.advance(b, 0, 1);
        cursor.advance(a, 2, 9);
        assert_eq!((cursor.of(a), cursor.of(b)), ((3, 7), (0, 1)));
        let mut other = Cursor::default();
        other.advance(a, 3, 8);
        assert!(cursor.reaches(&Cursor::default()) && !cursor.reaches(&other));
        assert!(!other.reaches(&cursor));
        assert_eq!(Cursor::from_text(&cursor.to_text()), Some(cursor));
        let place = Place { edge: Edge::publisher("p", 0), batch: 5, position: 17 };
        assert_eq!(Place::from_text(&place.to_text()), Some(place));
        assert!(
            ["", "1-2-3", "8000000000000001-1", "x-1-1"]
                .iter()
                .all(|bad| Place::from_text(bad).is_none())
        );
        for bad in ["", "x", "1.2.3", "c000000000000000.1", "4000000000000000.1.1.1"] {
            assert_eq!(Cursor::from_text(bad), None, "{bad}");
        }
    }
}
