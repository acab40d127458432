//! A disk that is at its reserve while it is wanted so.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use cortado_log::Storage;

/// Until when the disk is full. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Filling(Arc<Mutex<Option<Instant>>>);

impl Filling {
    pub(super) fn fill(&self, until: Instant) {
        self.set(Some(until));
    }

    pub(super) fn heal(&self) {
        self.set(None);
    }

    fn set(&self, until: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    fn is_full(&self) -> bool {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }
}

/// A disk that says it has little space left. Nothing is written to make it so.
pub(super) struct FillableDisk {
    disk: Arc<dyn Storage>,
    filling: Filling,
    /// What is left then.
    left_bytes: u64,
}

impl FillableDisk {
    pub(super) fn new(disk: Arc<dyn Storage>, filling: Filling, left_bytes: u64) -> Self {
        Self { disk, filling, left_bytes }
    }
}

impl Storage for FillableDisk {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        self.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<()> {
        self.disk.create(name)
    }

    fn read_at(&self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.disk.read_at(name, offset, buffer)
    }

    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.write_at(name, offset, bytes)
    }

    fn resize(&self, name: &str, len: u64) -> io::Result<()> {
        self.disk.resize(name, len)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.disk.sync(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        self.disk.delete(name)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let free = self.disk.free_bytes()?;
        Ok(if self.filling.is_full() { free.min(self.left_bytes) } else { free })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cortado_log::{AppendError, FileStorage, Log, LogConfig};

    use super::*;

    #[test]
    fn a_full_disk_takes_only_what_may_use_the_reserve() {
        let root = tempfile::tempdir().unwrap();
        let filling = Filling::default();
        let reserve_bytes = 16 << 20;
        let inner = Arc::new(FileStorage::open(root.path()).unwrap());
        let disk = Arc::new(FillableDisk::new(inner, filling.clone(), reserve_bytes / 2));
        filling.fill(Instant::now() + Duration::from_secs(60));
        let config = LogConfig { reserve_bytes, ..LogConfig::default() };
        let (mut log, _) = Log::open(disk, config, 1, &mut |_, _, _| {}).unwrap();
        let refused = log.append(1, 1, 0, &[b"batch"]).unwrap_err();
        assert!(matches!(refused, AppendError::Full), "{refused}");
        log.append_reserved(1, 1, 0, &[b"tombstone"]).unwrap();
        log.sync().unwrap();
        filling.heal();
        log.append(1, 1, 0, &[b"batch"]).unwrap();
    }
}
