//! A disk that is full or hangs while a switch is on. [`super::Chaos`] makes it.

use std::io;
use std::sync::Arc;

use cortado_log::Storage;

use super::switch::Switch;

/// A disk that is full, or hangs, while a switch is on. It writes no data to become full.
pub(super) struct FaultyDisk {
    disk: Arc<dyn Storage>,
    full: Switch,
    hangs: Switch,
    /// Free bytes that it reports while it is full.
    left_bytes: u64,
}

impl FaultyDisk {
    pub(super) fn new(
        disk: Arc<dyn Storage>,
        full: Switch,
        hangs: Switch,
        left_bytes: u64,
    ) -> Self {
        Self { disk, full, hangs, left_bytes }
    }
}

impl Storage for FaultyDisk {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        self.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<()> {
        self.hangs.block();
        self.disk.create(name)
    }

    fn read_at(&self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.disk.read_at(name, offset, buffer)
    }

    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.hangs.block();
        self.disk.write_at(name, offset, bytes)
    }

    fn resize(&self, name: &str, len: u64) -> io::Result<()> {
        self.hangs.block();
        self.disk.resize(name, len)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.hangs.block();
        self.disk.sync(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.hangs.block();
        self.disk.sync_dir()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.hangs.block();
        self.disk.rename(from, to)
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        self.hangs.block();
        self.disk.delete(name)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let free = self.disk.free_bytes()?;
        Ok(if self.full.is_on() { free.min(self.left_bytes) } else { free })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use cortado_log::{AppendError, FileStorage, Log, LogConfig};

    use super::*;

    #[test]
    fn a_full_disk_takes_only_what_may_use_the_reserve() {
        let root = tempfile::tempdir().unwrap();
        let full = Switch::default();
        let reserve_bytes = 16 << 20;
        let inner = Arc::new(FileStorage::open(root.path()).unwrap());
        let disk = FaultyDisk::new(inner, full.clone(), Switch::default(), reserve_bytes / 2);
        full.set(Some(Instant::now() + Duration::from_secs(60)));
        let config = LogConfig { reserve_bytes, ..LogConfig::default() };
        let (mut log, _) = Log::open(Arc::new(disk), config, 1, &mut |_, _, _| {}).unwrap();
        let refused = log.append(1, 1, 0, &[b"batch"]).unwrap_err();
        assert!(matches!(refused, AppendError::Full), "{refused}");
        log.append_reserved(1, 1, 0, &[b"tombstone"]).unwrap();
        log.sync().unwrap();
        full.set(None);
        log.append(1, 1, 0, &[b"batch"]).unwrap();
    }

    #[test]
    fn a_disk_that_hangs_returns_from_nothing_until_it_goes_on() {
        let root = tempfile::tempdir().unwrap();
        let hangs = Switch::default();
        let inner = Arc::new(FileStorage::open(root.path()).unwrap());
        let disk = Arc::new(FaultyDisk::new(inner, Switch::default(), hangs.clone(), 0));
        disk.create("file").unwrap();
        hangs.set(Some(Instant::now() + Duration::from_secs(60)));
        let (done, synced) = std::sync::mpsc::channel();
        let thread = std::thread::spawn({
            let disk = Arc::clone(&disk);
            move || {
                disk.sync("file").unwrap();
                done.send(()).unwrap();
            }
        });
        assert!(synced.recv_timeout(Duration::from_millis(100)).is_err());
        assert!(disk.list().is_ok(), "it can still be read");
        hangs.set(None);
        synced.recv_timeout(Duration::from_secs(10)).unwrap();
        thread.join().unwrap();
    }
}
