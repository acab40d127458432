//! Publishes events on a stream: numbers batches, sends them until they are durable, and goes on
//! under the publisher's name after an interruption.
//!
//! A publisher that starts again makes the same batches again, and sends those that did not arrive:
//! synthetic events depend on the time at which the publisher was opened, which the cluster keeps;
//! a file is cut in the same way. What comes through a pipe can't be made again. So it is sent batch
//! by batch, and a publisher that starts again gets the next generation of its edge.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use cortado_protocol::job::{BatchHeader, trace_id};
use cortado_protocol::limits::{EVENT_BYTES, EVENTS_BATCH_BYTES};
use cortado_protocol::stream::{Publisher, PublisherStatus, Seal, StreamHeader, StreamStatus};
use cortado_protocol::{JobId, content_hash};
use cortado_stream::{StreamPlan, parse_time};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::dataset::Batch;
use crate::generate::events::{Bursts, EventOptions};
use crate::upload::{InFlight, Known, Read, send};
use crate::{Cluster, Error, Observer, job, stream};

/// Most events of a synthetic batch, and of one of a file.
const BATCH_EVENTS: u64 = 1_000;
/// Batches in a second, if that makes at least one event each.
const BATCHES_PER_SECOND: f64 = 5.0;
/// Bytes after which a batch of a file ends.
const FILE_BATCH_BYTES: usize = 256 << 10;
/// Batches made ahead of the network.
const AHEAD: usize = 4;
/// Pause between two looks for a new schema set.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where events come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// They are made up.
    Synthetic(Synthetic),
    /// The lines of a file.
    File(PathBuf),
    /// The lines of standard input.
    Stdin,
    /// These lines.
    Lines(Bytes),
}

/// Synthetic events.
#[derive(Clone, Debug)]
pub struct Synthetic {
    /// Seed of the random numbers.
    pub seed: u64,
    /// Events in a second.
    pub rate: f64,
    /// How many events; `None` means until the publisher is stopped.
    pub count: Option<u64>,
    /// Chance that an event is a copy of an earlier one.
    pub duplicates: f64,
    /// Chance that an event is not valid.
    pub invalid: f64,
    /// Bursts.
    pub bursts: Bursts,
}

/// What to publish.
#[derive(Clone, Debug)]
pub struct Options {
    /// The publisher's name.
    pub publisher: String,
    /// Whether old data are imported: windows do not wait for them.
    pub backfill: bool,
    /// By how much an event may be older than one before it, in milliseconds.
    pub disorder_ms: i64,
    /// The events.
    pub source: Source,
}

/// Publishes until the source is at its end and every batch is durable; then the publisher has ended.
///
/// # Errors
/// [`Error::BadInput`] if the publisher has sent other events before, or a file can't be read;
/// otherwise like [`crate::upload`].
pub async fn publish(
    cluster: &Arc<Cluster>,
    job: JobId,
    options: &Options,
    observer: &dyn Observer,
) -> Result<(), Error> {
    let status = stream::status(cluster, job).await?;
    let set = status.schema_set.ok_or_else(|| {
        Error::BadInput("the stream has no schema set yet: cortado events reload".to_owned())
    })?;
    let (publisher, before) = match publisher(&status, options)? {
        Generation::This(publisher, before) => (publisher, before),
        Generation::After(before) => {
            end(cluster, job, &before, set, observer).await?;
            (next(Some(&before), options), Vec::new())
        }
    };
    let before = before.into_iter().map(|seal| (seal, 0)).collect();
    stream::open(cluster, job, publisher.clone()).await?;
    let (known, floor) = stream::known(cluster, job, (publisher.edge(), true)).await?;
    let plan = job::spec(cluster, job).await?.plan_toml;
    let plan = StreamPlan::parse(&plan).map_err(|error| Error::BadInput(error.to_string()))?;
    cluster.view().await?;
    let set = Arc::new(AtomicU32::new(set));
    let mut tasks = JoinSet::new();
    tasks.spawn(watch_set(Arc::clone(cluster), job, Arc::clone(&set)));
    let (sender, reads) = mpsc::channel(AHEAD);
    let newest = known.keys().max().copied().or(floor.checked_sub(1));
    let maker = Maker { job, publisher, before, known, floor, newest, set, sender, number: 0 };
    let in_flight = match &options.source {
        Source::Stdin => InFlight::One,
        Source::Synthetic(_) | Source::File(_) | Source::Lines(_) => InFlight::Many,
    };
    let options = options.clone();
    std::thread::spawn(move || maker.run(&options, &plan));
    send(cluster, job, (reads, in_flight), Vec::new(), observer).await
}

/// Which generation a publisher goes on with.
enum Generation {
    /// This one, and which batches count of those before it that were sealed.
    This(Publisher, Vec<Seal>),
    /// The one after this, which has to be ended first.
    After(Publisher),
}

/// The generation to go on with: the newest one if it has not ended and its batches can be made
/// again.
fn publisher(status: &StreamStatus, options: &Options) -> Result<Generation, Error> {
    let Options { publisher: name, backfill, source, .. } = options;
    let of_name = status.publishers.iter().filter(|of| of.publisher.name == *name);
    let mut of_name: Vec<_> = of_name.collect();
    of_name.sort_by_key(|of| of.publisher.generation);
    let newest = of_name.last().copied();
    match newest {
        Some(PublisherStatus { sealed: Some(_), .. }) if !matches!(source, Source::Stdin) => {
            let (seals, first) = sealed(&of_name);
            let opened_ms = first.map_or_else(now_ms, |first| first.opened_ms);
            let next = next(newest.map(|of| &of.publisher), options);
            return Ok(Generation::This(Publisher { opened_ms, ..next }, seals));
        }
        Some(newest) if newest.ended => {
            return Ok(Generation::This(next(Some(&newest.publisher), options), Vec::new()));
        }
        Some(newest) if matches!(source, Source::Stdin) => {
            if newest.beyond_gap > 0 {
                let message = format!(
                    "publisher '{name}' has a gap in its batches: start it again with the same options as \
                     before, or use another name"
                );
                return Err(Error::BadInput(message));
            }
            return Ok(Generation::After(newest.publisher.clone()));
        }
        Some(newest) => {
            let publisher = newest.publisher.clone();
            if publisher.backfill != *backfill {
                let message = format!(
                    "publisher '{name}' was started {} --backfill before: use the same options, or another \
                     name",
                    if publisher.backfill { "with" } else { "without" }
                );
                return Err(Error::BadInput(message));
            }
            let (seals, _) = sealed(&of_name[..of_name.len() - 1]);
            return Ok(Generation::This(publisher, seals));
        }
        None => {}
    }
    Ok(Generation::This(next(None, options), Vec::new()))
}

/// The last generations of a publisher, as long as they were sealed: which batches count of each, and the
/// first of them. Each of them sent what did not count of those before it.
fn sealed<'p>(of_name: &[&'p PublisherStatus]) -> (Vec<Seal>, Option<&'p Publisher>) {
    let mut seals = Vec::new();
    let mut first = None;
    for of in of_name.iter().rev() {
        let Some(seal) = &of.sealed else { break };
        seals.insert(0, seal.clone());
        first = Some(&of.publisher);
    }
    (seals, first)
}

/// The generation after another one.
fn next(before: Option<&Publisher>, options: &Options) -> Publisher {
    let generation = before.map_or(0, |before| before.generation + 1);
    let (name, backfill) = (options.publisher.clone(), options.backfill);
    Publisher { name, generation, opened_ms: now_ms(), backfill }
}

/// Ends a generation whose batches can't be made again. They were sent one by one, so no batch is
/// missing in the middle. One that was not acknowledged may be on some disk, though: then the
/// last number is taken, and the one after it ends the generation.
async fn end(
    cluster: &Arc<Cluster>,
    job: JobId,
    publisher: &Publisher,
    set: u32,
    observer: &dyn Observer,
) -> Result<(), Error> {
    let deadline = Instant::now() + cluster.patience();
    loop {
        let (known, floor) = stream::known(cluster, job, (publisher.edge(), false)).await?;
        let number = known.keys().max().map_or(floor, |last| last + 1);
        let batch = batch((job, publisher, number), Bytes::new(), i64::MAX, now_ms(), (set, true));
        let (sender, reads) = mpsc::channel(1);
        // Room for one is there.
        let _ = sender.try_send(Read::Batch(batch));
        drop(sender);
        cluster.view().await?;
        let sent = send(cluster, job, (reads, InFlight::One), Vec::new(), observer).await;
        let status = stream::status(cluster, job).await?;
        let mut of = status.publishers.iter().filter(|of| of.publisher == *publisher);
        match sent {
            _ if of.any(|of| of.ended) => return Ok(()),
            // Another batch has the number.
            Ok(()) | Err(Error::BadInput(_)) if Instant::now() < deadline => {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Ok(()) => return Err(cluster.unreachable("the publisher could not be ended")),
            Err(error) => return Err(error),
        }
    }
}

/// A batch of events.
fn batch(
    (job, publisher, number): (JobId, &Publisher, u64),
    payload: Bytes,
    low_watermark_ms: i64,
    sent_at_ms: i64,
    (schema_set, last): (u32, bool),
) -> Batch {
    let stream = StreamHeader {
        publisher: publisher.name.clone(),
        generation: publisher.generation,
        schema_set,
        low_watermark_ms,
        sent_at_ms,
        last,
    };
    let lines = payload.iter().filter(|byte| **byte == b'\n').count() as u64;
    let header =
        BatchHeader::of_events(stream, number, content_hash(&payload), trace_id(job, 0, number));
    Batch { header, payload, lines }
}

/// Keeps the number of the newest schema set.
async fn watch_set(cluster: Arc<Cluster>, job: JobId, set: Arc<AtomicU32>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        // After an error the batches name the set that they named before.
        if let Ok(status) = stream::status(&cluster, job).await
            && let Some(newest) = status.schema_set
        {
            set.fetch_max(newest, Ordering::Relaxed);
        }
    }
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |since| since.as_millis() as i64)
}

/// Makes the batches, on a thread of its own.
struct Maker {
    job: JobId,
    publisher: Publisher,
    /// Which batches count of the generations before that were sealed, and the number of the next batch that
    /// each of them would have sent.
    before: Vec<(Seal, u64)>,
    /// Batches that have arrived.
    known: Known,
    /// All batches below it have arrived and are gone.
    floor: u64,
    /// The last one of them.
    newest: Option<u64>,
    set: Arc<AtomicU32>,
    sender: mpsc::Sender<Read>,
    /// Of the next batch.
    number: u64,
}

/// Why the maker stops before the end.
enum Stop {
    /// Nobody takes batches any more.
    Unwanted,
    /// Something can't go on.
    Failed(Error),
}

impl Maker {
    fn run(mut self, options: &Options, plan: &StreamPlan) {
        let done = match &options.source {
            Source::Synthetic(synthetic) => self.synthetic(synthetic, options.disorder_ms),
            Source::File(path) => match File::open(path) {
                Ok(file) => self.lines(BufReader::new(file), options.disorder_ms, plan, false),
                Err(error) => Err(Stop::Failed(Error::io("read", path, error))),
            },
            Source::Lines(lines) => {
                let lines = BufReader::new(&lines[..]);
                self.lines(lines, options.disorder_ms, plan, false)
            }
            Source::Stdin => {
                let stdin = BufReader::new(std::io::stdin());
                self.lines(stdin, options.disorder_ms, plan, true)
            }
        };
        if let Err(Stop::Failed(error)) = done {
            // Fails only if the sender is not wanted any more.
            let _ = self.sender.blocking_send(Read::Failed(error));
        }
    }

    fn synthetic(&mut self, synthetic: &Synthetic, disorder_ms: i64) -> Result<(), Stop> {
        let Synthetic { seed, rate, count, duplicates, invalid, bursts } = *synthetic;
        let options = EventOptions {
            seed,
            publisher: self.publisher.name.clone(),
            start_ms: self.publisher.opened_ms,
            rate,
            duplicates,
            invalid,
            disorder_ms,
            bursts,
        };
        let per_batch = ((rate / BATCHES_PER_SECOND) as u64).clamp(1, BATCH_EVENTS);
        let end = count.unwrap_or(u64::MAX);
        let mut next = 0;
        while next < end {
            let from = next;
            next = end.min(next.saturating_add(per_batch));
            let due_ms = options.due_ms(next);
            if self.counts_already() {
                self.hand_over(Read::Known { bytes: 0 })?;
                continue;
            }
            if self.is_settled() {
                self.number += 1;
                self.hand_over(Read::Known { bytes: 0 })?;
                continue;
            }
            if let Ok(wait) = u64::try_from(due_ms - now_ms()) {
                std::thread::sleep(Duration::from_millis(wait));
            }
            let mut payload = String::new();
            for n in from..next {
                payload.push_str(&options.event(n).line);
                payload.push('\n');
            }
            let low = options.low_watermark_ms(next);
            self.send(payload.into(), low, due_ms, false)?;
        }
        self.last(options.due_ms(end))
    }

    /// Whether the next batch counts already, sent by a generation before that was sealed.
    fn counts_already(&mut self) -> bool {
        self.before.iter_mut().any(|(seal, number)| {
            *number += 1;
            seal.counts(*number - 1)
        })
    }

    /// Whether the next batch has arrived and need not be compared with what is made now: the first
    /// and the last one that have arrived are enough.
    fn is_settled(&self) -> bool {
        let is_end = self.number == 0 || self.newest == Some(self.number);
        !is_end && (self.number < self.floor || self.known.contains_key(&self.number))
    }

    fn lines(
        &mut self,
        mut from: BufReader<impl std::io::Read>,
        disorder_ms: i64,
        plan: &StreamPlan,
        live: bool,
    ) -> Result<(), Stop> {
        let mut newest_ms = i64::MIN;
        let (mut payload, mut lines) = (Vec::new(), 0);
        loop {
            let before = payload.len();
            let read = match read_line(&mut from, &mut payload) {
                Ok(read) => read,
                Err(error) => {
                    return Err(Stop::Failed(Error::io("read", "the events".as_ref(), error)));
                }
            };
            if let Some(at) = time_of(&payload[before..], plan) {
                newest_ms = newest_ms.max(at);
            }
            lines += u64::from(read);
            let full = lines >= BATCH_EVENTS || payload.len() >= FILE_BATCH_BYTES;
            if (full || !read || (live && from.buffer().is_empty())) && lines > 0 {
                let low = newest_ms.saturating_sub(disorder_ms);
                let sent_at = if live { now_ms() } else { self.publisher.opened_ms };
                let payload = std::mem::take(&mut payload);
                lines = 0;
                if self.counts_already() {
                    self.hand_over(Read::Known { bytes: payload.len() as u64 })?;
                } else {
                    self.send(payload.into(), low, sent_at, false)?;
                }
            }
            if !read {
                return self.last(self.publisher.opened_ms);
            }
        }
    }

    /// Ends the publisher, unless a batch behind its end has arrived: then it had more events before.
    fn last(&mut self, sent_at_ms: i64) -> Result<(), Stop> {
        if let Some(number) = self.newest.filter(|newest| *newest > self.number) {
            let (name, batches) = (&self.publisher.name, self.number + 1);
            let message = format!(
                "publisher '{name}' has sent batch {number} before, and now it has only {batches}: use the \
                 same options as before, or another name"
            );
            return Err(Stop::Failed(Error::BadInput(message)));
        }
        self.send(Bytes::new(), i64::MAX, sent_at_ms, true)
    }

    fn send(
        &mut self,
        payload: Bytes,
        low_watermark_ms: i64,
        sent_at_ms: i64,
        last: bool,
    ) -> Result<(), Stop> {
        let (number, content) = (self.number, content_hash(&payload));
        self.number += 1;
        let read = match self.known.get(&number) {
            Some(known) if *known == content => Read::Known { bytes: payload.len() as u64 },
            Some(_) => {
                let message = format!(
                    "publisher '{}' has sent other events before: use the same options as before, or another \
                     name",
                    self.publisher.name
                );
                return Err(Stop::Failed(Error::BadInput(message)));
            }
            None if number < self.floor => Read::Known { bytes: payload.len() as u64 },
            None => {
                let set = self.set.load(Ordering::Relaxed);
                let of = (self.job, &self.publisher, number);
                Read::Batch(batch(of, payload, low_watermark_ms, sent_at_ms, (set, last)))
            }
        };
        self.hand_over(read)
    }

    fn hand_over(&self, read: Read) -> Result<(), Stop> {
        self.sender.blocking_send(read).map_err(|_| Stop::Unwanted)
    }
}

/// Appends a line with its line break; returns whether there was one. A line that is longer than
/// any event is cut: what is left of it is no event either.
fn read_line(from: &mut impl BufRead, to: &mut Vec<u8>) -> std::io::Result<bool> {
    let before = to.len();
    loop {
        let buffer = from.fill_buf()?;
        if buffer.is_empty() {
            if to.len() > before {
                to.push(b'\n');
                return Ok(true);
            }
            return Ok(false);
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(buffer.len(), |end| end + 1);
        let room = (EVENT_BYTES + 1).saturating_sub(to.len() - before);
        to.extend_from_slice(&buffer[..taken.min(room)]);
        from.consume(taken);
        if end.is_some() {
            if to.last() != Some(&b'\n') {
                to.push(b'\n');
            }
            debug_assert!(to.len() <= EVENTS_BATCH_BYTES);
            return Ok(true);
        }
    }
}

/// The time of an event, if it can be read.
fn time_of(line: &[u8], plan: &StreamPlan) -> Option<i64> {
    let event: serde_json::Value = serde_json::from_slice(line).ok()?;
    parse_time(event.get(plan.time())?.as_str()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A publisher of which nothing has arrived.
    fn maker(publisher: Publisher, sender: mpsc::Sender<Read>) -> Maker {
        let (before, known, set) = (Vec::new(), Known::new(), Arc::new(AtomicU32::new(0)));
        let (job, floor, newest, number) = (JobId(1), 0, None, 0);
        Maker { job, publisher, before, known, floor, newest, set, sender, number }
    }

    #[test]
    fn a_publisher_with_fewer_events_than_before_does_not_end() {
        let (sender, mut reads) = mpsc::channel(AHEAD);
        let publisher =
            Publisher { name: "p".into(), generation: 0, opened_ms: 0, backfill: false };
        // Batch 1 arrived, and batch 0 did not.
        let (known, newest) = (Known::from([(1, 7)]), Some(1));
        let maker = Maker { known, newest, ..maker(publisher, sender) };
        let source = Source::Lines(Bytes::new());
        let options = Options { publisher: "p".into(), backfill: false, disorder_ms: 0, source };
        maker.run(&options, &StreamPlan::parse(cortado_stream::EVENTS).unwrap());
        let first = reads.blocking_recv();
        assert!(matches!(first, Some(Read::Failed(Error::BadInput(_)))), "it sends its end");
        assert!(reads.blocking_recv().is_none());
    }

    #[test]
    fn a_generation_after_sealed_ones_sends_only_what_does_not_count() {
        // Of 7 batches the first generation got 0, 2 and 3 through, and the second one sent 1, 4, 5 and 6 as
        // its own 0 to 3, and got the first two of them through.
        let seal = |end: u64, void: &[u64]| Seal { end, void: void.iter().copied().collect() };
        let status = |generation, sealed| PublisherStatus {
            publisher: Publisher { name: "p".into(), generation, opened_ms: 70, backfill: false },
            prefix: 0,
            beyond_gap: 0,
            watermark_ms: None,
            events: 0,
            dead: 0,
            ended: true,
            idle: true,
            sealed,
        };
        let publishers =
            vec![status(0, None), status(1, Some(seal(4, &[1]))), status(2, Some(seal(2, &[])))];
        let stream = StreamStatus { publishers, ..StreamStatus::default() };
        let lines = "{}\n".repeat(6_500);
        let source = Source::Lines(Bytes::from(lines));
        let options = Options { publisher: "p".into(), backfill: false, disorder_ms: 0, source };
        let Ok(Generation::This(publisher, seals)) = publisher(&stream, &options) else {
            panic!("the next generation is opened")
        };
        assert_eq!((publisher.generation, publisher.opened_ms, seals.len()), (3, 70, 2));
        let (sender, mut reads) = mpsc::channel(64);
        let before = seals.into_iter().map(|seal| (seal, 0)).collect();
        let maker = Maker { before, ..maker(publisher, sender) };
        maker.run(&options, &StreamPlan::parse(cortado_stream::EVENTS).unwrap());
        let sent = std::iter::from_fn(|| reads.blocking_recv()).map(|read| match read {
            Read::Known { .. } => None,
            Read::Batch(batch) => Some((batch.header.number, batch.lines)),
            _ => panic!("it does not fail"),
        });
        let sent: Vec<_> = sent.collect();
        let last = [Some((0, 1_000)), Some((1, 500)), Some((2, 0))];
        assert_eq!((&sent[..5], &sent[5..]), (&[None; 5][..], &last[..]));
    }

    #[test]
    fn long_lines_are_cut_and_the_last_one_needs_no_line_break() {
        let long = "x".repeat(3 * EVENT_BYTES);
        let text = format!("a\n{long}\nb");
        let (mut from, mut to) = (BufReader::new(text.as_bytes()), Vec::new());
        let mut lens = Vec::new();
        while read_line(&mut from, &mut to).unwrap() {
            lens.push(to.len());
            to.clear();
        }
        assert_eq!(lens, [2, EVENT_BYTES + 2, 2]);
    }
}
