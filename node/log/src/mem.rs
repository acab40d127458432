//! A storage in memory that can crash and fail.
//!
//! It keeps two views: what a running process sees, and what the disk would hold after a power cut.
//! Every write, resize and change of a name is pending until it is synced; [`MemStorage::crash`]
//! makes the storage a crash would leave, with a fate for each pending change.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::storage::Storage;

/// What a crash makes of a pending change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It never reached the disk.
    Lost,
    /// It reached the disk.
    Kept,
    /// Of a write only this many bytes reached the disk; other changes are kept.
    Torn(usize),
}

/// A change that a crash may lose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Name of the file when it was changed.
    pub name: String,
    /// Bytes of a write; 0 for other changes.
    pub len: usize,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    Resize(u64),
}

#[derive(Clone, Debug)]
enum NameChange {
    Link { name: String, file: usize },
    Rename { from: String, to: String, file: usize },
    Unlink(String),
}

#[derive(Clone, Debug, Default)]
struct File {
    seen: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<(String, Change)>,
}

#[derive(Clone, Debug, Default)]
struct State {
    files: Vec<File>,
    seen: BTreeMap<String, usize>,
    durable: BTreeMap<String, usize>,
    names: Vec<NameChange>,
    capacity: Option<u64>,
    failing_syncs: u32,
    short_reads: Option<usize>,
    syncs: u64,
}

/// A directory in memory.
#[derive(Debug, Default)]
pub struct MemStorage {
    state: Mutex<State>,
}

impl MemStorage {
    /// An empty directory on an endless disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panicking test thread must not hide what the others find.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Limits the disk to so many bytes, or lifts the limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// Bytes that files take, set aside or written.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.state().used()
    }

    /// Lets the next syncs of files fail. As on Linux, a failed sync drops what was pending: it
    /// stays visible, but no later sync makes it durable.
    pub fn fail_syncs(&self, count: u32) {
        self.state().failing_syncs = count;
    }

    /// Lets reads return at most so many bytes at a time.
    pub fn set_short_reads(&self, bytes: Option<usize>) {
        self.state().short_reads = bytes;
    }

    /// Successful syncs of files so far.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// Flips one bit, on the disk and in what is seen. Returns false if the file has no such byte.
    pub fn flip_bit(&self, name: &str, offset: usize, bit: u8) -> bool {
        let mut state = self.state();
        let Some(file) = state.seen.get(name).copied() else { return false };
        let file = &mut state.files[file];
        let mut flipped = false;
        for bytes in [&mut file.seen, &mut file.durable] {
            if let Some(byte) = bytes.get_mut(offset) {
                *byte ^= 1 << (bit % 8);
                flipped = true;
            }
        }
        flipped
    }

    /// The changes a crash may lose, in the order in which [`MemStorage::crash`] asks for their
    /// fates.
    #[must_use]
    pub fn pending(&self) -> Vec<Pending> {
        let mut pending = Vec::new();
        let _image = self.crash(|change| {
            pending.push(change.clone());
            Fate::Lost
        });
        pending
    }

    /// What the disk holds after a power cut now. Of this storage nothing changes.
    #[must_use]
    pub fn crash(&self, mut fate: impl FnMut(&Pending) -> Fate) -> Self {
        let mut state = self.state().clone();
        for file in &mut state.files {
            let mut bytes = std::mem::take(&mut file.durable);
            for (name, change) in file.pending.drain(..) {
                let len = if let Change::Write { bytes, .. } = &change { bytes.len() } else { 0 };
                match (fate(&Pending { name, len }), change) {
                    (Fate::Lost, _) => {}
                    (Fate::Torn(kept), Change::Write { offset, bytes: written }) => {
                        write(&mut bytes, offset, &written[..kept.min(len)]);
                    }
                    (_, change) => apply(&mut bytes, &change),
                }
            }
            file.seen = bytes.clone();
            file.durable = bytes;
        }
        for change in state.names.drain(..) {
            let name = match &change {
                NameChange::Link { name, .. } | NameChange::Unlink(name) => name,
                NameChange::Rename { from, .. } => from,
            };
            if fate(&Pending { name: name.clone(), len: 0 }) != Fate::Lost {
                match change {
                    NameChange::Link { name, file } => drop(state.durable.insert(name, file)),
                    NameChange::Unlink(name) => drop(state.durable.remove(&name)),
                    NameChange::Rename { from, to, file } => {
                        state.durable.remove(&from);
                        state.durable.insert(to, file);
                    }
                }
            }
        }
        state.seen = state.durable.clone();
        Self { state: Mutex::new(state) }
    }
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { offset, bytes: written } => write(bytes, *offset, written),
        Change::Resize(len) => bytes.resize(*len as usize, 0),
    }
}

fn write(bytes: &mut Vec<u8>, offset: u64, written: &[u8]) {
    let offset = offset as usize;
    if bytes.len() < offset + written.len() {
        bytes.resize(offset + written.len(), 0);
    }
    bytes[offset..offset + written.len()].copy_from_slice(written);
}

impl State {
    fn file(&mut self, name: &str) -> io::Result<&mut File> {
        let file = *self.seen.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(&mut self.files[file])
    }

    fn used(&self) -> u64 {
        self.seen.values().map(|file| self.files[*file].seen.len() as u64).sum()
    }

    fn free(&self) -> u64 {
        self.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(self.used()))
    }

    fn change(&mut self, name: &str, change: Change) -> io::Result<()> {
        let free = self.free();
        let file = self.file(name)?;
        let len = match &change {
            Change::Write { offset, bytes } => offset + bytes.len() as u64,
            Change::Resize(len) => *len,
        };
        if len.saturating_sub(file.seen.len() as u64) > free {
            return Err(io::ErrorKind::StorageFull.into());
        }
        apply(&mut file.seen, &change);
        file.pending.push((name.to_owned(), change));
        Ok(())
    }
}

impl Storage for MemStorage {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let state = self.state();
        let len = |file: &usize| state.files[*file].seen.len() as u64;
        Ok(state.seen.iter().map(|(name, file)| (name.clone(), len(file))).collect())
    }

    fn create(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        if state.seen.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = state.files.len();
        state.files.push(File::default());
        state.seen.insert(name.to_owned(), file);
        state.names.push(NameChange::Link { name: name.to_owned(), file });
        Ok(())
    }

    fn read_at(&self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state();
        let limit = state.short_reads.unwrap_or(usize::MAX);
        let file = state.file(name)?;
        let bytes = file.seen.get(offset as usize..).unwrap_or_default();
        let len = bytes.len().min(buffer.len()).min(limit);
        buffer[..len].copy_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.state().change(name, Change::Write { offset, bytes: bytes.to_vec() })
    }

    fn resize(&self, name: &str, len: u64) -> io::Result<()> {
        self.state().change(name, Change::Resize(len))
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        if state.failing_syncs > 0 {
            state.failing_syncs -= 1;
            state.file(name)?.pending.clear();
            return Err(io::Error::other("injected sync failure"));
        }
        let file = state.file(name)?;
        for (_, change) in std::mem::take(&mut file.pending) {
            apply(&mut file.durable, &change);
        }
        state.syncs += 1;
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.state();
        state.durable = state.seen.clone();
        state.names.clear();
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        let file = state.seen.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.seen.insert(to.to_owned(), file);
        let (from, to) = (from.to_owned(), to.to_owned());
        state.names.push(NameChange::Rename { from, to, file });
        Ok(())
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.seen.remove(name).ok_or(io::ErrorKind::NotFound)?;
        state.names.push(NameChange::Unlink(name.to_owned()));
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(self.state().free())
    }
}
