//! Small checksummed files next to the log, replaced as a whole.

use std::io;
use std::sync::Arc;

use crate::error::StateError;
use crate::storage::{Storage, read_full};

const MAGIC: [u8; 4] = *b"CRST";
const HEADER_BYTES: usize = 12;
/// Largest content of a state file.
const STATE_BYTES: usize = 16 << 20;

/// State files of one directory: written to a temporary file, synced, renamed, directory synced.
/// A crash leaves the old content or the new one. Writers of the *same* name must take turns.
#[derive(Clone)]
pub struct StateFiles {
    storage: Arc<dyn Storage>,
}

impl StateFiles {
    /// The state files of this storage.
    #[must_use]
    pub fn new(storage: Arc<dyn Storage>) -> Self {
        Self { storage }
    }

    /// Replaces the content of `name` durably.
    ///
    /// # Errors
    /// If the name is not one, or the disk fails; then the old content or the new one is there.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<(), StateError> {
        let file = file_name(name)?;
        let temporary = format!("{file}.tmp");
        if content.len() > STATE_BYTES {
            return Err(StateError::Io(io::ErrorKind::FileTooLarge.into()));
        }
        match self.storage.delete(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => self.storage.create(&temporary)?,
        }
        let mut bytes = Vec::with_capacity(HEADER_BYTES + content.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&(content.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&checksum(name, content).to_le_bytes());
        bytes.extend_from_slice(content);
        self.storage.write_at(&temporary, 0, &bytes)?;
        self.storage.sync(&temporary)?;
        self.storage.rename(&temporary, &file)?;
        Ok(self.storage.sync_dir()?)
    }

    /// The content of `name`, or `None` if it was never written.
    ///
    /// # Errors
    /// If the name is not one, the disk fails, or the content is not what was written.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StateError> {
        let file = file_name(name)?;
        let damaged = || StateError::Damaged(name.to_owned());
        let mut header = [0; HEADER_BYTES];
        match read_full(&*self.storage, &file, 0, &mut header) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
            Ok(read) if read < HEADER_BYTES || header[..4] != MAGIC => return Err(damaged()),
            Ok(_) => {}
        }
        let len = crate::format::u32_at(&header, 4) as usize;
        if len > STATE_BYTES {
            return Err(damaged());
        }
        let mut content = vec![0; len];
        let read = read_full(&*self.storage, &file, HEADER_BYTES as u64, &mut content)?;
        let crc = crate::format::u32_at(&header, 8);
        if read < len || crc != checksum(name, &content) {
            return Err(damaged());
        }
        Ok(Some(content))
    }
}

fn checksum(name: &str, content: &[u8]) -> u32 {
    crate::format::payload_crc(&[name.as_bytes(), &(content.len() as u32).to_le_bytes(), content])
}

fn file_name(name: &str) -> Result<String, StateError> {
    let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if name.is_empty() || name.len() > 64 || !name.bytes().all(ok) {
        return Err(StateError::Name(name.chars().take(80).collect()));
    }
    Ok(format!("state-{name}"))
}
