//! Writes small state files on its own thread. A sync may take long, and neither the driver nor the
//! failure detector may wait for it.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use cortado_log::StateError;
use tokio::sync::mpsc::UnboundedSender;

/// Pause before a failed write is repeated. Each failure doubles it, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Storage for the files.
pub trait Files: Send + 'static {
    /// Writes a file whole and syncs it.
    ///
    /// # Errors
    /// If the disk fails or is full.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StateError>;
}

/// Files that wait to be written.
#[derive(Default)]
struct Slots {
    /// By name: the newest content, and its ticket.
    files: BTreeMap<&'static str, (Option<u64>, Bytes)>,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    slots: Mutex<Slots>,
    news: Condvar,
}

impl Shared {
    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handle to the thread. Clones use the same thread.
#[derive(Clone)]
pub struct Keeper(Arc<Shared>);

/// The thread. Dropping it writes all waiting files and ends the thread.
pub struct KeeperThread {
    keeper: Keeper,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts the thread. It sends the ticket of each file that is on disk to `saved`.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn start(files: impl Files, saved: UnboundedSender<u64>) -> io::Result<KeeperThread> {
        let keeper = Self(Arc::default());
        let shared = Arc::clone(&keeper.0);
        let run = move || run(&shared, &files, &saved);
        let thread = std::thread::Builder::new().name("keeper".into()).spawn(run)?;
        Ok(KeeperThread { keeper, thread: Some(thread) })
    }

    /// Queues a file. It replaces a waiting file of the same name; then the newer ticket stands for
    /// both.
    pub fn write(&self, name: &'static str, ticket: Option<u64>, bytes: Bytes) {
        self.0.slots().files.insert(name, (ticket, bytes));
        self.0.news.notify_one();
    }
}

impl KeeperThread {
    /// A handle to the thread.
    #[must_use]
    pub fn keeper(&self) -> Keeper {
        self.keeper.clone()
    }
}

impl Drop for KeeperThread {
    fn drop(&mut self) {
        self.keeper.0.slots().closed = true;
        self.keeper.0.news.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared, files: &impl Files, saved: &UnboundedSender<u64>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let mut slots = shared.slots();
        let (name, (ticket, bytes)) = loop {
            if let Some(next) = slots.files.pop_first() {
                break next;
            }
            if slots.closed {
                return;
            }
            slots = shared.news.wait(slots).unwrap_or_else(PoisonError::into_inner);
        };
        drop(slots);
        match files.write(name, &bytes) {
            Ok(()) => {
                pause = FIRST_PAUSE;
                if let Some(ticket) = ticket {
                    // Fails only while the process ends.
                    let _ = saved.send(ticket);
                }
            }
            Err(error) => {
                tracing::error!(%error, file = name, "can't write a state file; trying again");
                let mut slots = shared.slots();
                if slots.closed {
                    return;
                }
                slots.files.entry(name).or_insert((ticket, bytes));
                // A newer content waits as well, because it goes to the same disk.
                let end = |slots: &mut Slots| !slots.closed;
                drop(shared.news.wait_timeout_while(slots, pause, end));
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    /// For each write, the test sends whether it succeeds.
    struct Stubborn {
        words: Mutex<mpsc::Receiver<bool>>,
        written: mpsc::Sender<(String, Vec<u8>)>,
    }

    impl Files for Stubborn {
        fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
            if self.words.lock().unwrap().recv().unwrap() {
                self.written.send((name.to_owned(), bytes.to_vec())).unwrap();
                return Ok(());
            }
            Err(StateError::Io(io::Error::other("no")))
        }
    }

    #[test]
    fn the_newest_content_is_written_and_a_failure_loses_nothing() {
        let (word, words) = mpsc::channel();
        let (written, writes) = mpsc::channel();
        let (saved, mut tickets) = unbounded_channel();
        let files = Stubborn { words: Mutex::new(words), written };
        let thread = Keeper::start(files, saved).unwrap();
        let keeper = thread.keeper();
        keeper.write("a", Some(1), Bytes::from_static(b"one"));
        word.send(false).unwrap();
        // The first write has failed or not begun. In both cases the newer content replaces it.
        keeper.write("a", Some(2), Bytes::from_static(b"two"));
        for _ in 0..3 {
            word.send(true).unwrap();
        }
        let mut seen = Vec::new();
        while seen.last() != Some(&2) {
            seen.extend(tickets.blocking_recv());
        }
        drop(thread);
        let last = writes.try_iter().last();
        assert_eq!(last, Some(("a".to_owned(), b"two".to_vec())));
    }

    #[test]
    fn what_waits_is_written_before_the_end() {
        let (word, words) = mpsc::channel();
        let (written, writes) = mpsc::channel();
        let (saved, _tickets) = unbounded_channel();
        let thread = Keeper::start(Stubborn { words: Mutex::new(words), written }, saved).unwrap();
        let keeper = thread.keeper();
        for name in ["a", "b"] {
            keeper.write(name, None, Bytes::from_static(b"x"));
            word.send(true).unwrap();
        }
        drop(thread);
        assert_eq!(writes.try_iter().count(), 2);
    }
}
