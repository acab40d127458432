//! Group commit: one thread owns the log, drains its queue, appends everything and syncs once.
//!
//! The longer a sync takes, the more requests gather behind it and the more one sync serves (group
//! commit, Gray and Reuter 1992 §9.4). No timer: an idle log syncs a lone request at once.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::collect::Collected;
use crate::error::{AppendError, SyncError};
use crate::format::RecordRef;
use crate::log::Log;

/// Appended bytes after which a group is synced although more is waiting: bounds the delay of the
/// first one in it.
const GROUP_BYTES: usize = 16 << 20;

/// A record to append.
#[derive(Debug, Clone)]
pub struct Append<T> {
    /// The caller's kind of record.
    pub kind: u8,
    /// The garbage-collection group, or 0.
    pub group: u128,
    /// Milliseconds since the Unix epoch.
    pub wall_ms: u64,
    /// The payload, in parts that are written one after the other. The first is the record's head.
    pub payload: Vec<Bytes>,
    /// Whether it may use the disk's reserve ([`Log::append_reserved`]).
    pub reserved: bool,
    /// Handed back when it is done.
    pub tag: T,
}

/// What became of a request.
#[derive(Debug)]
pub enum Committed<T> {
    /// The record is durable.
    Stored {
        /// From the request.
        tag: T,
        /// Where it stands.
        record: RecordRef,
    },
    /// The record was not appended: full, or too large. The log goes on.
    Refused {
        /// From the request.
        tag: T,
        /// Why.
        error: AppendError,
    },
    /// Records of a segment were copied to the end of the log. The caller answers with
    /// [`CommitQueue::try_release`] when it does not read the segment any more.
    Collected(Collected),
    /// The log failed: the last report of this committer. Nothing that is unreported is durable;
    /// the process has to end.
    Poisoned(SyncError),
}

/// The committer has stopped; the request is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the log's queue is {}", if *full { "full" } else { "closed" })]
pub struct QueueClosed<R> {
    /// What was not queued.
    pub request: R,
    /// Whether it was only full (never from the blocking methods).
    pub full: bool,
}

enum Request<T> {
    Append(Append<T>),
    Forget(u128),
    Release(u32),
}

/// Since when the committer has been at the group of requests it writes now. Clones tell the same.
#[derive(Debug, Clone, Default)]
pub struct Busy(Arc<Mutex<Option<Instant>>>);

impl Busy {
    /// How long the present group has taken so far; `None` while there is none.
    #[must_use]
    pub fn elapsed(&self) -> Option<Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).map(|since| since.elapsed())
    }

    fn set(&self, since: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }
}

/// Upper bounds of the classes in which [`Meter`] counts syncs, in microseconds.
pub const SYNC_CLASSES: [u64; 12] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 2_000_000];

/// Counts what the committer writes.
#[derive(Debug, Default)]
pub struct Meter {
    /// Groups that were synced, by class of how long that took; longer ones come last.
    classes: [AtomicU64; SYNC_CLASSES.len() + 1],
    /// How long all of them took, in microseconds.
    micros: AtomicU64,
    /// Their records and bytes.
    records: AtomicU64,
    bytes: AtomicU64,
}

impl Meter {
    fn note(&self, took: Duration, records: usize, bytes: usize) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let class = SYNC_CLASSES.partition_point(|bound| *bound < micros);
        let add = |to: &AtomicU64, n| to.fetch_add(n, Ordering::Relaxed);
        add(&self.classes[class], 1);
        add(&self.micros, micros);
        add(&self.records, records as u64);
        add(&self.bytes, bytes as u64);
    }

    /// Groups by class of how long their sync took ([`SYNC_CLASSES`], longer ones last), and how long all of
    /// them took.
    #[must_use]
    pub fn syncs(&self) -> ([u64; SYNC_CLASSES.len() + 1], Duration) {
        let micros = self.micros.load(Ordering::Relaxed);
        let counts = std::array::from_fn(|class| self.classes[class].load(Ordering::Relaxed));
        (counts, Duration::from_micros(micros))
    }

    /// Records and bytes that were written.
    #[must_use]
    pub fn written(&self) -> (u64, u64) {
        (self.records.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

/// Sends requests to a [`Committer`]. Cheap to clone.
pub struct CommitQueue<T>(SyncSender<Request<T>>);

impl<T> Clone for CommitQueue<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> CommitQueue<T> {
    /// Queues a record; waits while the queue is full.
    ///
    /// # Errors
    /// If the committer has stopped.
    pub fn append(&self, append: Append<T>) -> Result<(), QueueClosed<Append<T>>> {
        self.0.send(Request::Append(append)).map_err(|error| closed(error.0, false))
    }

    /// Queues a record if there is room.
    ///
    /// # Errors
    /// If the queue is full or the committer has stopped.
    pub fn try_append(&self, append: Append<T>) -> Result<(), QueueClosed<Append<T>>> {
        self.0.try_send(Request::Append(append)).map_err(|error| match error {
            TrySendError::Full(request) => closed(request, true),
            TrySendError::Disconnected(request) => closed(request, false),
        })
    }

    /// Queues [`Log::forget`] if there is room; it happens after everything queued before is durable.
    ///
    /// # Errors
    /// If the queue is full or the committer has stopped.
    pub fn try_forget(&self, group: u128) -> Result<(), QueueClosed<u128>> {
        self.0.try_send(Request::Forget(group)).map_err(|error| {
            let full = matches!(error, TrySendError::Full(_));
            QueueClosed { request: group, full }
        })
    }

    /// Queues [`Log::release`] if there is room.
    ///
    /// # Errors
    /// If the queue is full or the committer has stopped.
    pub fn try_release(&self, segment: u32) -> Result<(), QueueClosed<u32>> {
        self.0.try_send(Request::Release(segment)).map_err(|error| {
            let full = matches!(error, TrySendError::Full(_));
            QueueClosed { request: segment, full }
        })
    }

    /// Queues [`Log::forget`]; it happens after everything queued before is durable.
    ///
    /// # Errors
    /// If the committer has stopped.
    pub fn forget(&self, group: u128) -> Result<(), QueueClosed<u128>> {
        self.0.send(Request::Forget(group)).map_err(|_| QueueClosed { request: group, full: false })
    }
}

fn closed<T>(request: Request<T>, full: bool) -> QueueClosed<Append<T>> {
    match request {
        Request::Append(request) => QueueClosed { request, full },
        Request::Forget(_) | Request::Release(_) => {
            unreachable!("only appends are given back through here")
        }
    }
}

/// The thread that owns the log.
pub struct Committer<T> {
    queue: CommitQueue<T>,
    busy: Busy,
    meter: Arc<Meter>,
    thread: JoinHandle<Log>,
}

impl<T: Send + 'static> Committer<T> {
    /// Starts the thread. `queued` bounds the queue (at least 1); `on_done` is called on the thread
    /// once for every request that was queued, in order, and must not block for long.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn spawn(
        log: Log,
        queued: usize,
        on_done: impl FnMut(Committed<T>) + Send + 'static,
    ) -> io::Result<Self> {
        let (sender, receiver) = mpsc::sync_channel(queued.max(1));
        let (busy, meter) = (Busy::default(), Arc::new(Meter::default()));
        let thread = std::thread::Builder::new().name("log-committer".to_owned()).spawn({
            let (busy, meter) = (busy.clone(), Arc::clone(&meter));
            move || run(log, receiver, (&busy, &meter), on_done)
        })?;
        Ok(Self { queue: CommitQueue(sender), busy, meter, thread })
    }

    /// Tells for how long the disk has been at the present group.
    #[must_use]
    pub fn busy(&self) -> Busy {
        self.busy.clone()
    }

    /// Counts what is written.
    #[must_use]
    pub fn meter(&self) -> Arc<Meter> {
        Arc::clone(&self.meter)
    }

    /// A sender of requests.
    #[must_use]
    pub fn queue(&self) -> CommitQueue<T> {
        self.queue.clone()
    }

    /// Waits until every other sender is dropped and everything queued is done; gives the log back.
    ///
    /// # Errors
    /// The panic of `on_done`, if it panicked.
    pub fn close(self) -> std::thread::Result<Log> {
        drop(self.queue);
        self.thread.join()
    }
}

fn run<T>(
    mut log: Log,
    receiver: Receiver<Request<T>>,
    (busy, meter): (&Busy, &Meter),
    mut on_done: impl FnMut(Committed<T>),
) -> Log {
    let mut group = Vec::new();
    while let Some(first) = next_request(&log, &receiver) {
        busy.set(Some(Instant::now()));
        let mut next = first;
        let mut bytes = 0;
        let (mut forgotten, mut released) = (Vec::new(), Vec::new());
        while let Some(request) = next.take() {
            match request {
                Request::Append(append) => {
                    bytes += append.payload.iter().map(Bytes::len).sum::<usize>();
                    group.push(append_one(&mut log, append));
                }
                Request::Forget(group) => forgotten.push(group),
                Request::Release(segment) => released.push(segment),
            }
            // A record after a forget may belong to the same group: keep their order.
            if bytes < GROUP_BYTES && forgotten.is_empty() {
                next = receiver.try_recv().ok();
            }
        }
        // A poisoned append shows here too: syncing a poisoned log fails.
        let began = Instant::now();
        let result = log.sync().and_then(|()| {
            meter.note(began.elapsed(), group.len(), bytes);
            group.drain(..).for_each(&mut on_done);
            forgotten.drain(..).try_for_each(|group| log.forget(group))?;
            released.drain(..).try_for_each(|segment| log.release(segment))?;
            if let Some(collected) = log.collect()? {
                on_done(Committed::Collected(collected));
            }
            Ok(())
        });
        if let Err(error) = result {
            // First, so that who reads the report finds the queue closed.
            drop(receiver);
            on_done(Committed::Poisoned(error));
            return log;
        }
        busy.set(None);
    }
    log
}

/// The next request, or none at once if there is space to give back; `None` when all senders are gone.
fn next_request<T>(log: &Log, receiver: &Receiver<Request<T>>) -> Option<Option<Request<T>>> {
    if !log.has_garbage() {
        return receiver.recv().ok().map(Some);
    }
    match receiver.try_recv() {
        Err(TryRecvError::Disconnected) => None,
        request => Some(request.ok()),
    }
}

fn append_one<T>(log: &mut Log, append: Append<T>) -> Committed<T> {
    let Append { kind, group, wall_ms, payload, reserved, tag } = append;
    let parts: Vec<&[u8]> = payload.iter().map(|part| &part[..]).collect();
    let result = if reserved {
        log.append_reserved(kind, group, wall_ms, &parts)
    } else {
        log.append(kind, group, wall_ms, &parts)
    };
    match result {
        Ok(record) => Committed::Stored { tag, record },
        Err(error) => Committed::Refused { tag, error },
    }
}
