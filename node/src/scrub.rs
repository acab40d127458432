//! The search for damage: reads what is seldom read, so that a record that has rotted on this disk is
//! fetched from another node before the others rot, too.
//!
//! Of sealed segments a start reads footers only. This thread reads all their records, slowly, and
//! tells of those whose checksums are wrong.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use cortado_log::{LogReader, ReadError, RecordRef};

/// How fast it goes.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Pause before the first pass.
    pub first: Duration,
    /// Pause between two passes.
    pub between: Duration,
    /// Bytes per second.
    pub bytes: u32,
}

impl Default for Pace {
    /// A minute after the start and once a day, 16 MiB a second.
    fn default() -> Self {
        let (first, between) = (Duration::from_secs(60), Duration::from_secs(86_400));
        Self { first, between, bytes: 16 << 20 }
    }
}

/// Ends the thread when it is dropped.
pub struct Scrub {
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Scrub {
    /// Starts the thread. `found` is called on it with each damaged record and its head.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn start(
        reader: LogReader,
        pace: Pace,
        found: impl Fn(RecordRef, Bytes) + Send + 'static,
    ) -> io::Result<Self> {
        let (stop, stopped) = sync_channel(0);
        let thread = std::thread::Builder::new().name("log-scrub".to_owned()).spawn(move || {
            let mut pause = pace.first;
            while sleep(&stopped, pause) && pass(&reader, pace, &stopped, &found) {
                pause = pace.between;
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Scrub {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It has nothing to clean up, and what it found is told already.
            let _ = thread.join();
        }
    }
}

/// Waits; returns whether to go on.
fn sleep(stopped: &Receiver<()>, pause: Duration) -> bool {
    matches!(stopped.recv_timeout(pause), Err(RecvTimeoutError::Timeout))
}

/// Reads every record of every sealed segment once; returns whether to go on.
fn pass(
    reader: &LogReader,
    pace: Pace,
    stopped: &Receiver<()>,
    found: &impl Fn(RecordRef, Bytes),
) -> bool {
    let segments = reader.segments().unwrap_or_default();
    let (mut records, mut damaged) = (0_u64, 0_u64);
    for segment in segments {
        let listed = match reader.listed(segment) {
            Ok(listed) => listed,
            Err(error) => {
                tracing::error!(segment, %error, "a segment can't be read");
                continue;
            }
        };
        for (record, head) in listed {
            records += 1;
            if let Err(ReadError::Damaged { .. } | ReadError::Io(_)) = reader.read(record) {
                damaged += 1;
                found(record, head);
            }
            let pause =
                Duration::from_secs(1).mul_f64(f64::from(record.len) / f64::from(pace.bytes));
            if !sleep(stopped, pause) {
                return false;
            }
        }
    }
    tracing::debug!(records, damaged, "read all sealed segments");
    true
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    use cortado_log::{Log, LogConfig, MemStorage, Storage};

    use super::*;

    #[test]
    fn a_record_that_rots_in_a_sealed_segment_is_found_and_no_other() {
        let storage = Arc::new(MemStorage::new());
        let config = LogConfig { first_segment_bytes: 8192, segment_bytes: 8192, reserve_bytes: 0 };
        let shared: Arc<dyn Storage> = storage.clone();
        let (mut log, _) = Log::open(shared, config, 1, &mut |_, _, _| ()).unwrap();
        let records: Vec<_> =
            (0..20u8).map(|n| log.append(1, 1, 0, &[&[n; 9], &[n; 900]]).unwrap()).collect();
        log.sync().unwrap();
        let (name, range) = records[3].file_range();
        assert!(storage.flip_bit(&name, range.end as usize - 1, 3));
        let (told, heard) = channel();
        let pace = Pace { first: Duration::ZERO, between: Duration::ZERO, bytes: 1 << 30 };
        let scrub = Scrub::start(log.reader(), pace, move |record, head| {
            drop(told.send((record, head)));
        });
        // It is found in every pass until its segment goes.
        for _ in 0..2 {
            let found = heard.recv_timeout(Duration::from_secs(10)).unwrap();
            assert_eq!(found, (records[3], Bytes::from(vec![3; 9])));
        }
        drop(scrub);
        while heard.try_recv().is_ok() {}
        assert!(heard.recv().is_err(), "the thread has ended");
    }
}
