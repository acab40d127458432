//! Worker threads: they run the engine's tasks ([`Task`]) for the driver.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use cortado_core::RecordRef;
use cortado_core::task::{Records, Task, TaskOutput, execute};
use cortado_log::LogReader;
use tokio::sync::mpsc::UnboundedSender;

/// A task's number and its output.
pub type Done = (u64, TaskOutput);

/// A fixed number of threads with two queues (lanes).
///
/// Short tasks (batches, single records) go first, because clients wait for them. Long tasks
/// (folds, results) leave one thread free, and between its slices a long task runs the waiting
/// short ones. So a node with a single thread can acknowledge while it folds. The core bounds the
/// lanes: the short one by the batches in flight, the long one by jobs and slots.
pub struct Workers {
    lanes: Arc<Lanes>,
    threads: Vec<JoinHandle<()>>,
}

/// The number of long tasks that may run at once on so many threads.
#[must_use]
pub fn long_tasks(threads: usize) -> usize {
    threads.saturating_sub(1).max(1)
}

type Numbered = (u64, Task);

#[derive(Default)]
struct Queues {
    short: VecDeque<Numbered>,
    long: VecDeque<Numbered>,
    /// Number of long tasks that run.
    running: usize,
    closed: bool,
}

struct Lanes {
    queues: Mutex<Queues>,
    news: Condvar,
    /// Number of long tasks that may run at once.
    most_long: usize,
}

/// Reads records for tasks. A task reports a record that can't be read.
struct LogRecords {
    log: LogReader,
    lanes: Arc<Lanes>,
    done: UnboundedSender<Done>,
}

impl Records for LogRecords {
    fn read(&self, record: RecordRef) -> Option<Bytes> {
        let RecordRef { segment, offset, len } = record;
        match self.log.read(cortado_log::RecordRef { segment, offset, len }) {
            Ok((_, payload)) => Some(payload),
            Err(error) => {
                tracing::error!(%error, ?record, "can't read a record");
                None
            }
        }
    }

    fn between(&self) {
        while let Some((id, task)) = self.lanes.next_short() {
            // Fails only while the process ends.
            let _ = self.done.send((id, execute(task, self)));
        }
    }
}

impl Lanes {
    fn new(threads: usize) -> Self {
        let most_long = long_tasks(threads);
        Self { queues: Mutex::default(), news: Condvar::new(), most_long }
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, id: u64, task: Task) {
        let mut queues = self.queues();
        let lane = if task.is_short() { &mut queues.short } else { &mut queues.long };
        lane.push_back((id, task));
        drop(queues);
        self.news.notify_one();
    }

    fn next_short(&self) -> Option<Numbered> {
        self.queues().short.pop_front()
    }

    /// Waits for the next task. Returns it, and whether it is a long one; `None` once the lanes are
    /// closed and empty.
    fn next(&self) -> Option<(Numbered, bool)> {
        let mut queues = self.queues();
        loop {
            if let Some(task) = queues.short.pop_front() {
                return Some((task, false));
            }
            if queues.running < self.most_long
                && let Some(task) = queues.long.pop_front()
            {
                queues.running += 1;
                return Some((task, true));
            }
            if queues.closed {
                return None;
            }
            queues = self.news.wait(queues).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn long_done(&self) {
        self.queues().running -= 1;
        self.news.notify_one();
    }

    fn close(&self) {
        self.queues().closed = true;
        self.news.notify_all();
    }
}

impl Workers {
    /// Starts `count` threads, at least one.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn start(count: usize, log: &LogReader, done: &UnboundedSender<Done>) -> io::Result<Self> {
        let count = count.max(1);
        let lanes = Arc::new(Lanes::new(count));
        let mut workers = Self { lanes, threads: Vec::with_capacity(count) };
        for number in 0..count {
            let (lanes, done) = (Arc::clone(&workers.lanes), done.clone());
            let records = LogRecords { log: log.clone(), lanes, done };
            let thread = std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || run(&records))?;
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// Queues a task.
    pub fn run(&self, id: u64, task: Task) {
        self.lanes.push(id, task);
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.lanes.close();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn run(records: &LogRecords) {
    while let Some(((id, task), long)) = records.lanes.next() {
        let output = execute(task, records);
        if long {
            records.lanes.long_done();
        }
        if records.done.send((id, output)).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use cortado_protocol::{JobId, SlotSet};

    use super::*;

    fn short() -> Task {
        Task::Read(Vec::new())
    }

    fn long() -> Task {
        let spec = cortado_protocol::job::JobSpec {
            job: JobId::v7(1, 1),
            plan_name: "coffee".to_owned(),
            plan_toml: cortado_engine::COFFEE.to_owned(),
            slots: 1,
            tables: ["transactions", "transaction_items", "users", "stores", "menu_items"]
                .map(|name| cortado_protocol::job::TableFiles {
                    name: name.to_owned(),
                    files: Vec::new(),
                })
                .into(),
        };
        let plan = Arc::new(cortado_core::BoundPlan::new(spec).unwrap());
        Task::Fold {
            plan,
            slots: SlotSet::first(1),
            entries: Vec::new(),
            memory: 1 << 20,
            float_sums: false,
        }
    }

    #[test]
    fn short_tasks_go_first_and_long_ones_leave_a_thread_free() {
        let lanes = Lanes::new(2);
        lanes.push(1, long());
        lanes.push(2, long());
        lanes.push(3, short());
        let next = |lanes: &Lanes| lanes.next().map(|((id, _), long)| (id, long));
        assert_eq!(next(&lanes), Some((3, false)));
        assert_eq!(next(&lanes), Some((1, true)));
        // The other thread takes no second long task: it stays free for short ones.
        lanes.push(4, short());
        assert_eq!(next(&lanes), Some((4, false)));
        lanes.push(5, short());
        // A single thread runs it between two slices.
        assert_eq!(lanes.next_short().map(|(id, _)| id), Some(5));
        lanes.long_done();
        assert_eq!(next(&lanes), Some((2, true)));
        lanes.close();
        assert_eq!(next(&lanes), None);
    }
}
