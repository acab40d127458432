//! Sends the batches of a dataset to the nodes until every batch is durable. Jobs and tests call
//! it.
//!
//! One loop moves batches from the readers to the links, as the [`schedule`] decides. If a node
//! dies or is slow, a batch is sent again until a node has answered that it is durable.

mod link;
mod pace;
mod readers;
mod schedule;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cortado_protocol::client::{BatchOutcome, BatchReply, ClientRequest, ErrorKind, MemberState};
use cortado_protocol::job::{JobSpec, JobState, JobStatus};
use cortado_protocol::{JobId, NodeId};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::dataset::Batch;
use crate::status::{ended, status, status_after};
use crate::{Cluster, Error, Observer, Progress};
use link::LinkEvent;
use pace::Pace;
pub use readers::TableWork;
pub(crate) use readers::{Known, Read};
use schedule::{Key, Schedule, WINDOW};

/// Pause between two requests for members and job while uploading.
const PULSE: Duration = Duration::from_secs(1);
/// The same pause while the job is queued.
const QUEUED_PULSE: Duration = Duration::from_millis(200);
/// Pause before a lost link is opened again.
const REDIAL_AFTER: Duration = Duration::from_millis(300);
/// Longest sleep of the loop, which checks deadlines at least this often.
const TICK: Duration = Duration::from_millis(250);
/// Most events that wait for the loop.
const EVENTS: usize = 256;

/// Uploads the batches in `work`, and declares the end of tables that were read completely. Returns
/// when every batch is durable and every declaration is accepted.
///
/// # Errors
/// [`Error::BadInput`] if a file changed, [`Error::Ended`] if the job ended meanwhile, and
/// [`Error::Unreachable`] if no node answered for the cluster's patience.
pub async fn upload(
    cluster: &Arc<Cluster>,
    root: &Path,
    spec: &Arc<JobSpec>,
    work: Vec<TableWork>,
    observer: &dyn Observer,
) -> Result<(), Error> {
    if work.is_empty() {
        return Ok(());
    }
    let partial = work.iter().filter(|work| work.only.is_some()).map(|work| work.table).collect();
    let reads = readers::start(root, spec, work);
    send(cluster, spec.job, (reads, InFlight::Many), partial, observer).await
}

/// How many batches may be under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InFlight {
    /// As many as the nodes take.
    Many,
    /// One: what was acknowledged stands behind no gap, whenever the sender dies.
    One,
}

/// Sends what is read until the channel is closed and every batch is durable, and declares the end of
/// tables that were read completely, except those in `partial`.
pub(crate) async fn send(
    cluster: &Arc<Cluster>,
    job: JobId,
    (mut reads, in_flight): (mpsc::Receiver<Read>, InFlight),
    partial: Vec<u16>,
    observer: &dyn Observer,
) -> Result<(), Error> {
    let (event_sender, mut events) = mpsc::channel(EVENTS);
    let (pulse_sender, mut pulses) = mpsc::channel(1);
    let mut tasks = JoinSet::new();
    tasks.spawn(pulse(Arc::clone(cluster), job, pulse_sender));
    let mut upload = Upload {
        cluster,
        job,
        partial,
        observer,
        schedule: Schedule::new(job),
        pace: Pace::new(cluster.upload_rate(), Instant::now()),
        payloads: HashMap::new(),
        links: BTreeMap::new(),
        tasks,
        ends: BTreeMap::new(),
        declarations: JoinSet::new(),
        event_sender,
        heard: Instant::now(),
        queued: false,
        done: false,
        ended: false,
        last_reason: String::from("no node was reached yet"),
    };
    upload.learn_members();
    let mut reading = true;
    loop {
        upload.connect();
        upload.send();
        if upload.done {
            return Ok(());
        }
        if upload.ended {
            let status = status(cluster, job, Duration::ZERO).await?;
            return ended(&status).map_or(Ok(()), Err);
        }
        let sent = !reading && upload.schedule.is_idle() && upload.ends.is_empty();
        if sent && upload.declarations.is_empty() {
            return Ok(());
        }
        upload.check_patience()?;
        let sleep = upload.sleep();
        tokio::select! {
            read = reads.recv(), if reading && upload.takes(in_flight) => match read {
                Some(read) => upload.on_read(read)?,
                None => reading = false,
            },
            Some(event) = events.recv() => upload.on_event(event)?,
            Some(status) = pulses.recv() => upload.on_pulse(&status)?,
            Some(declared) = upload.declarations.join_next() => {
                upload.heard = Instant::now();
                declared.map_err(|error| Error::Unreachable(error.to_string()))??;
            }
            () = tokio::time::sleep(sleep) => {}
        }
    }
}

/// The state of the loop.
struct Upload<'a> {
    cluster: &'a Arc<Cluster>,
    job: JobId,
    /// Tables of which only some batches are sent; their end is declared already.
    partial: Vec<u16>,
    observer: &'a dyn Observer,
    schedule: Schedule,
    pace: Pace,
    payloads: HashMap<Key, Batch>,
    links: BTreeMap<NodeId, Link>,
    /// Links and the pulse; aborted when the upload ends.
    tasks: JoinSet<()>,
    /// Completely read tables with their numbers of batches, not declared yet.
    ends: BTreeMap<u16, u64>,
    declarations: JoinSet<Result<(), Error>>,
    event_sender: mpsc::Sender<LinkEvent>,
    /// When a node last answered.
    heard: Instant,
    /// Whether the job waits in the queue.
    queued: bool,
    /// Whether the job is done because another client has sent the rest.
    done: bool,
    /// Whether a batch was refused because the job has ended. The job's state says how.
    ended: bool,
    last_reason: String,
}

enum Link {
    /// Being opened, or open.
    Open(mpsc::Sender<Batch>),
    /// Lost at this time; to be opened again.
    Lost(Instant),
}

impl Upload<'_> {
    /// Opens links to all live members that have none.
    fn connect(&mut self) {
        let now = Instant::now();
        for (node, addr) in self.cluster.live_members() {
            match self.links.get(&node) {
                Some(Link::Open(_)) => continue,
                Some(Link::Lost(since)) if now < *since + REDIAL_AFTER => continue,
                _ => {}
            }
            let (sender, batches) = mpsc::channel(WINDOW);
            self.links.insert(node, Link::Open(sender));
            self.tasks.spawn(link::run(
                Arc::clone(self.cluster),
                self.job,
                node,
                addr,
                batches,
                self.event_sender.clone(),
            ));
        }
    }

    /// Whether another batch may be read.
    fn takes(&self, in_flight: InFlight) -> bool {
        match in_flight {
            InFlight::Many => self.schedule.has_room(),
            InFlight::One => self.schedule.is_idle(),
        }
    }

    /// Sends all batches that the schedule allows.
    fn send(&mut self) {
        if self.queued {
            return;
        }
        loop {
            let now = Instant::now();
            if self.pace.wait(now).is_some() {
                return;
            }
            let Some((key, node)) = self.schedule.next(now) else { return };
            let batch = self.payloads.get(&key);
            self.pace.sent(now, batch.map_or(0, |batch| batch.payload.len()));
            let sent = match (batch, self.links.get(&node)) {
                (Some(batch), Some(Link::Open(link))) => link.try_send(batch.clone()).is_ok(),
                _ => false,
            };
            if !sent {
                // The link has ended; its last event is still in the queue.
                self.schedule.node_down(node);
            }
        }
    }

    fn sleep(&self) -> Duration {
        let now = Instant::now();
        let wake = self.schedule.wake_at(now).map(|at| at.saturating_duration_since(now));
        [wake, self.pace.wait(now)].into_iter().flatten().fold(TICK, Duration::min)
    }

    fn check_patience(&self) -> Result<(), Error> {
        if self.heard.elapsed() < self.cluster.patience() {
            return Ok(());
        }
        Err(self.cluster.unreachable(&self.last_reason))
    }

    fn on_read(&mut self, read: Read) -> Result<(), Error> {
        match read {
            Read::Batch(batch) => {
                let key = (batch.header.table, batch.header.number);
                self.schedule.add(key, batch.payload.len());
                self.payloads.insert(key, batch);
            }
            Read::Known { bytes } => self.observer.note(Progress::Known { bytes }),
            Read::End { table, batches } if !self.partial.contains(&table) => {
                self.ends.insert(table, batches);
                self.declare_durable();
            }
            Read::End { .. } => {}
            Read::Failed(error) => return Err(error),
        }
        Ok(())
    }

    /// Declares the tables that were read completely and whose batches are all durable. A job
    /// counts as uploading until all tables are declared.
    fn declare_durable(&mut self) {
        let open = |table: u16| self.payloads.keys().any(|key| key.0 == table);
        let whole: Vec<_> = self.ends.extract_if(.., |table, _| !open(*table)).collect();
        for (table, batches) in whole {
            let (cluster, job) = (Arc::clone(self.cluster), self.job);
            self.declarations.spawn(declare(cluster, job, table, batches));
        }
    }

    fn on_event(&mut self, event: LinkEvent) -> Result<(), Error> {
        match event {
            LinkEvent::Up(node) => {
                self.heard = Instant::now();
                self.schedule.node_up(node);
            }
            LinkEvent::Down(node, reason) => {
                self.schedule.node_down(node);
                self.links.insert(node, Link::Lost(Instant::now()));
                self.last_reason = format!("{node}: {reason}");
            }
            LinkEvent::Reply(node, reply) => {
                self.heard = Instant::now();
                self.on_reply(node, reply)?;
            }
        }
        Ok(())
    }

    fn on_reply(&mut self, node: NodeId, reply: BatchReply) -> Result<(), Error> {
        let key = (reply.table, reply.number);
        match reply.outcome {
            BatchOutcome::Durable { copies, replicas, rejected } => {
                if let Some(took) = self.schedule.durable(Instant::now(), node, key)
                    && let Some(batch) = self.payloads.remove(&key)
                {
                    self.observer.note(Progress::Durable {
                        bytes: batch.payload.len() as u64,
                        rows: batch.lines,
                        rejected: u64::from(rejected),
                        copies,
                        replicas,
                        took,
                    });
                    self.declare_durable();
                }
            }
            BatchOutcome::Retry { reason } => self.not_now(node, key, &reason),
            BatchOutcome::Refused(error) if error.kind == ErrorKind::Unavailable => {
                self.not_now(node, key, &error.message);
            }
            BatchOutcome::Refused(error) if error.kind == ErrorKind::Ended => self.ended = true,
            BatchOutcome::Refused(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn not_now(&mut self, node: NodeId, key: Key, reason: &str) {
        self.schedule.retry(Instant::now(), node, key);
        self.last_reason = format!("{node}: {reason}");
        self.observer.note(Progress::Waiting(reason));
    }

    fn learn_members(&mut self) {
        let members = self.cluster.live_members();
        self.schedule.set_members(members.into_iter().map(|(node, _)| node).collect());
        // The members notice a dead node sooner than the connection does.
        for (node, addr) in self.cluster.members(MemberState::Down) {
            if matches!(self.links.get(&node), Some(Link::Open(_))) {
                self.links.insert(node, Link::Lost(Instant::now()));
                self.schedule.node_down(node);
                self.cluster.disconnect(addr);
            }
        }
    }

    /// Takes in changed members and the new state of the job.
    fn on_pulse(&mut self, status: &JobStatus) -> Result<(), Error> {
        self.heard = Instant::now();
        self.learn_members();
        self.done = status.state == JobState::Done;
        self.queued = matches!(status.state, JobState::Queued { .. });
        if self.queued {
            self.observer.note(Progress::Status(status));
        }
        match ended(status) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

/// Asks for members and job, again and again.
async fn pulse(cluster: Arc<Cluster>, job: JobId, pulses: mpsc::Sender<JobStatus>) {
    loop {
        let mut rest = PULSE;
        // After an error nothing is sent to the loop, which notices the silence.
        if cluster.view().await.is_ok()
            && let Ok(status) = status(&cluster, job, Duration::ZERO).await
        {
            if matches!(status.state, JobState::Queued { .. }) {
                rest = QUEUED_PULSE;
            }
            if pulses.send(status).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(rest).await;
    }
}

/// Declares a table's number of batches.
async fn declare(cluster: Arc<Cluster>, job: JobId, table: u16, batches: u64) -> Result<(), Error> {
    status_after(&cluster, &ClientRequest::EndTable { job, table, batches }).await.map(drop)
}
