//! The newest rows of one output of a stream, kept for all who read it here: whoever is up to date
//! costs no request. Who falls behind reads for itself (`reader.rs`).

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cortado_protocol::client::{ClientError, ClientRequest, ClientResponse, ErrorKind};
use cortado_protocol::stream::{Cursor, Place, Row, StreamRequest, StreamResponse};
use cortado_protocol::{JobId, frame};
use cortado_report::{Line, News, text_of};
use serde_json::{Map, Value};
use tokio::sync::watch;

use crate::clients::Inside;
use crate::lock::lock;

/// Rows that are kept, and their bytes.
const ROWS: usize = 2_000;
const BYTES: usize = 2 << 20;
/// Windows that `/data` shows, and with which a feed begins.
pub(super) const WINDOWS: u16 = 120;
/// Pause between two requests for rows.
const EVERY: Duration = Duration::from_millis(200);
/// Pause after a request that failed.
const RETRY: Duration = Duration::from_secs(1);
/// A feed that nobody used for so long ends.
const IDLE: Duration = Duration::from_secs(60);

/// A row as it is sent.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) place: Place,
    pub(super) cursor: String,
    pub(super) json: String,
    /// The row without its lists of events, if it has one.
    brief: Option<String>,
}

/// Lists of events, which may be long.
const LISTS: [&str; 2] = ["event_ids", "input_event_ids"];

impl Sent {
    pub(super) fn new(line: Line) -> Self {
        let Line { place, cursor, mut row } = line;
        let has_list = LISTS.iter().any(|list| row.contains_key(*list));
        let json = if has_list { serde_json::to_string(&row) } else { Ok(String::new()) };
        LISTS.iter().for_each(|list| drop(row.remove(*list)));
        let brief = Value::Object(row).to_string();
        match json {
            Ok(json) if has_list => Self { place, cursor, json, brief: Some(brief) },
            _ => Self { place, cursor, json: brief, brief: None },
        }
    }

    /// The row, with or without its lists of events.
    pub(super) fn text(&self, is_brief: bool) -> &str {
        self.brief.as_deref().filter(|_| is_brief).unwrap_or(&self.json)
    }

    fn bytes(&self) -> usize {
        self.json.len() + self.brief.as_ref().map_or(0, String::len)
    }
}

/// Rows of an answer.
pub(super) struct Answered {
    pub(super) rows: Vec<Row>,
    pub(super) cursor: Cursor,
    pub(super) ended: bool,
}

/// The rows of an output after a cursor.
pub(super) async fn rows(
    inside: &Inside,
    job: JobId,
    output: &str,
    after: Cursor,
) -> Result<Answered, ClientError> {
    let request = StreamRequest::Rows { output: output.to_owned(), after };
    let wrong = |message: &str| ClientError::new(ErrorKind::Unavailable, message);
    match inside.ask(ClientRequest::Stream(job, request)).await? {
        (ClientResponse::Stream(StreamResponse::Rows { ended, cursor, .. }), tail) => {
            let rows = frame::from_postcard(&tail).map_err(|_| wrong("rows can't be read"))?;
            Ok(Answered { rows, cursor, ended })
        }
        _ => Err(wrong("the node answered something else")),
    }
}

/// Where the rows of the newest windows begin.
pub(super) async fn latest(inside: &Inside, job: JobId) -> Result<Cursor, ClientError> {
    let request = StreamRequest::Latest { windows: WINDOWS };
    match inside.ask(ClientRequest::Stream(job, request)).await? {
        (ClientResponse::Stream(StreamResponse::Rows { cursor, .. }), _) => Ok(cursor),
        _ => Err(ClientError::new(ErrorKind::Unavailable, "the node answered something else")),
    }
}

/// What is kept.
#[derive(Default)]
struct Kept {
    /// The number of the first row.
    first: u64,
    rows: VecDeque<Arc<Sent>>,
    bytes: usize,
    /// The last revision of the newest windows, without the ids of their events, by their starts.
    windows: BTreeMap<String, Map<String, Value>>,
    /// Whether no more rows will come.
    ended: bool,
    /// Why the last request failed, if it did.
    error: Option<ClientError>,
}

/// See the module's description.
pub(super) struct Feed {
    kept: Mutex<Kept>,
    /// Counts what is new: rows, the end, an error, and the first answer.
    news: watch::Sender<u64>,
    used: Mutex<Instant>,
}

/// A row of a feed, or why there is none.
pub(super) enum Next {
    Row(Arc<Sent>),
    /// It is not there yet.
    Later,
    /// It is not kept any more.
    Gone,
    /// No more will come.
    Ended,
}

impl Feed {
    /// Begins to follow an output.
    pub(super) fn start(inside: Inside, job: JobId, output: String) -> Arc<Self> {
        let feed = Arc::new(Self {
            kept: Mutex::default(),
            news: watch::Sender::new(0),
            used: Mutex::new(Instant::now()),
        });
        let filled = Arc::clone(&feed);
        tokio::spawn(async move { follow(&inside, job, &output, &filled).await });
        feed
    }

    /// Somebody reads it.
    pub(super) fn touch(&self) {
        *lock(&self.used) = Instant::now();
    }

    /// Whether nobody has it but who fills it, for a while.
    fn is_idle(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1 && lock(&self.used).elapsed() >= IDLE
    }

    pub(super) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// The numbers of the first row and of the one that comes next.
    pub(super) fn range(&self) -> (u64, u64) {
        let kept = lock(&self.kept);
        (kept.first, kept.first + kept.rows.len() as u64)
    }

    pub(super) fn next(&self, number: u64) -> Next {
        let kept = lock(&self.kept);
        let Some(at) = number.checked_sub(kept.first) else { return Next::Gone };
        match usize::try_from(at).ok().and_then(|at| kept.rows.get(at)) {
            Some(row) => Next::Row(Arc::clone(row)),
            None if kept.ended => Next::Ended,
            None => Next::Later,
        }
    }

    /// The newest windows, oldest first, once an answer was read.
    pub(super) async fn windows(&self) -> Result<Vec<Map<String, Value>>, ClientError> {
        let mut news = self.news();
        // The sender lives as long as the feed.
        let _ = news.wait_for(|news| *news > 0).await;
        let kept = lock(&self.kept);
        match &kept.error {
            Some(error) if kept.windows.is_empty() => Err(error.clone()),
            _ => Ok(kept.windows.values().cloned().collect()),
        }
    }

    fn take(&self, lines: Vec<Line>, ended: bool) {
        let mut kept = lock(&self.kept);
        for line in lines {
            let start = text_of(&line.row, "window_start");
            if !start.is_empty() {
                let mut window = line.row.clone();
                LISTS.iter().for_each(|list| drop(window.remove(*list)));
                window.remove("cursor");
                kept.windows.insert(start.to_owned(), window);
                if kept.windows.len() > usize::from(WINDOWS) {
                    kept.windows.pop_first();
                }
            }
            let row = Arc::new(Sent::new(line));
            kept.bytes += row.bytes();
            kept.rows.push_back(row);
        }
        while kept.rows.len() > 1 && (kept.rows.len() > ROWS || kept.bytes > BYTES) {
            let gone = kept.rows.pop_front();
            kept.bytes -= gone.map_or(0, |row| row.bytes());
            kept.first += 1;
        }
        kept.ended = ended;
        kept.error = None;
        drop(kept);
        self.news.send_modify(|news| *news += 1);
    }

    fn failed(&self, error: ClientError) {
        lock(&self.kept).error = Some(error);
        self.news.send_modify(|news| *news += 1);
    }
}

/// Reads an output until nobody wants it any more.
async fn follow(inside: &Inside, job: JobId, output: &str, feed: &Arc<Feed>) {
    let mut state: Option<(Cursor, News)> = None;
    let mut has_ended = false;
    while !feed.is_idle() {
        let pause = if has_ended {
            RETRY
        } else {
            match step(inside, job, output, &mut state, feed).await {
                Ok((_, true)) => {
                    has_ended = true;
                    RETRY
                }
                Ok((true, false)) => Duration::ZERO,
                Ok((false, false)) => EVERY,
                Err(error) => {
                    feed.failed(error);
                    RETRY
                }
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Reads what follows; returns whether there may be more, and whether the stream has ended.
async fn step(
    inside: &Inside,
    job: JobId,
    output: &str,
    state: &mut Option<(Cursor, News)>,
    feed: &Feed,
) -> Result<(bool, bool), ClientError> {
    let (cursor, news) = match state {
        Some(state) => state,
        None => {
            let cursor = latest(inside, job).await?;
            state.insert((cursor.clone(), News::after(cursor)))
        }
    };
    let Answered { rows, cursor: next, ended } = rows(inside, job, output, cursor.clone()).await?;
    let lines = news.take(rows, &next);
    let more = next != *cursor;
    // Whoever waits for the first answer wants all rows that there are.
    if !lines.is_empty() || ended || (!more && *feed.news.borrow() == 0) {
        feed.take(lines, ended);
    }
    *cursor = next;
    Ok((more, ended))
}

#[cfg(test)]
impl Feed {
    /// A feed that nobody fills.
    pub(super) fn empty() -> Arc<Self> {
        Arc::new(Self {
            kept: Mutex::default(),
            news: watch::Sender::new(0),
            used: Mutex::new(Instant::now()),
        })
    }

    pub(super) fn fill(&self, lines: Vec<Line>, ended: bool) {
        self.take(lines, ended);
    }
}
