//! Worker threads: they run the engine's tasks and nothing else.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use cortado_core::RecordRef;
use cortado_core::task::{Records, Task, TaskOutput, execute};
use cortado_log::LogReader;
use tokio::sync::mpsc::UnboundedSender;

/// A task's number and what came of it.
pub type Done = (u64, TaskOutput);

/// A fixed number of threads behind one queue. The queue is bounded by the core: mapping tasks by
/// the batches in flight, all others by jobs and slots.
pub struct Workers {
    queue: Option<Sender<(u64, Task)>>,
    threads: Vec<JoinHandle<()>>,
}

/// Reads records for tasks; what can't be read is reported by the task.
struct LogRecords(LogReader);

impl Records for LogRecords {
    fn read(&self, record: RecordRef) -> Option<Bytes> {
        let RecordRef { segment, offset, len } = record;
        match self.0.read(cortado_log::RecordRef { segment, offset, len }) {
            Ok((_, payload)) => Some(payload),
            Err(error) => {
                tracing::error!(%error, ?record, "can't read a record");
                None
            }
        }
    }
}

impl Workers {
    /// Starts `count` threads, at least one.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn start(count: usize, log: &LogReader, done: &UnboundedSender<Done>) -> io::Result<Self> {
        let (queue, tasks) = channel();
        let tasks = Arc::new(Mutex::new(tasks));
        let mut threads = Vec::with_capacity(count);
        for number in 0..count.max(1) {
            let (tasks, done) = (Arc::clone(&tasks), done.clone());
            let records = LogRecords(log.clone());
            let thread = std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || run(&tasks, &records, &done))?;
            threads.push(thread);
        }
        Ok(Self { queue: Some(queue), threads })
    }

    /// Queues a task.
    pub fn run(&self, id: u64, task: Task) {
        if let Some(queue) = &self.queue {
            // Fails only while the process ends.
            let _ = queue.send((id, task));
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.queue = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn run(tasks: &Mutex<Receiver<(u64, Task)>>, records: &LogRecords, done: &UnboundedSender<Done>) {
    loop {
        let next = tasks.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((id, task)) = next else { return };
        if done.send((id, execute(task, records))).is_err() {
            return;
        }
    }
}
