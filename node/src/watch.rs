//! Watches this node's own loop and disk from a separate thread, which depends on neither.
//!
//! Owns two clocks: the time of the loop's last turn, and the time that the log's writer has spent
//! on one group of requests. Reports a loop or disk that takes 2 s within another second to the
//! membership, which decides when the node is well again. The node's start creates it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cortado_log::Busy;
use cortado_protocol::health::Illness;

use crate::gossip::HealthReporter;

/// A loop that has not turned, or a disk that has not finished, for this long is ill.
const LIMIT: Duration = Duration::from_secs(2);
/// Pause between two looks at both.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The time of a loop's last turn. Clones share it.
#[derive(Clone, Debug)]
pub struct Beat {
    start: Instant,
    turned_ms: Arc<AtomicU64>,
}

impl Beat {
    /// For a loop that has just turned.
    #[must_use]
    pub fn new() -> Self {
        Self { start: Instant::now(), turned_ms: Arc::default() }
    }

    /// Call it at each turn of the loop.
    pub fn turn(&self) {
        self.turned_ms.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn stalled_for(&self) -> Duration {
        let turned = Duration::from_millis(self.turned_ms.load(Ordering::Relaxed));
        self.start.elapsed().saturating_sub(turned)
    }
}

impl Default for Beat {
    fn default() -> Self {
        Self::new()
    }
}

/// The watching thread. Dropping it ends the thread.
#[derive(Debug)]
pub struct Watch {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn start(beat: Beat, disk: Busy, reporter: HealthReporter) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("health-watch".to_owned())
            .spawn(move || watch(&beat, &disk, &reporter, &stopped))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the health watch had failed");
        }
    }
}

fn watch(beat: &Beat, disk: &Busy, reporter: &HealthReporter, stopped: &mpsc::Receiver<()>) {
    let (mut was_stalled, mut was_hung) = (false, false);
    while stopped.recv_timeout(LOOK_EVERY) == Err(mpsc::RecvTimeoutError::Timeout) {
        let stalled = beat.stalled_for() >= LIMIT;
        let hung = disk.elapsed().is_some_and(|elapsed| elapsed >= LIMIT);
        if std::mem::replace(&mut was_stalled, stalled) != stalled {
            reporter.set_ill(Illness::Loop, stalled);
        }
        if std::mem::replace(&mut was_hung, hung) != hung {
            reporter.set_ill(Illness::Disk, hung);
        }
    }
}
