//! The synced mark: how far the log is known to be durable, for the next start.
//!
//! A torn tail looks like a damaged record. What tells them apart is whether the record was ever
//! synced: every record carries the mark of its time, and after each sync the current mark is
//! written to a file of its own. That file is never synced (it would double the cost): after the
//! death of the process it is exact, after a power cut it may be old, and an old mark is merely a
//! weaker proof.

use std::io;

use crate::format::{HIGHEST_SEQUENCE, payload_crc, u32_at, u64_at};
use crate::storage::{Storage, read_full};

pub(crate) const MARK_FILE: &str = "synced";
const MARK_BYTES: usize = 12;

/// Creates the file if it is not there, so that later writes never need space.
pub(crate) fn create(storage: &dyn Storage) -> io::Result<()> {
    match storage.create(MARK_FILE) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => {
            storage.write_at(MARK_FILE, 0, &[0; MARK_BYTES])?;
            storage.sync(MARK_FILE)
        }
    }
}

/// Notes that everything up to `sequence` is durable.
pub(crate) fn write(storage: &dyn Storage, log_id: u128, sequence: u64) -> io::Result<()> {
    let mut bytes = [0; MARK_BYTES];
    bytes[..8].copy_from_slice(&sequence.to_le_bytes());
    let crc = checksum(log_id, &sequence.to_le_bytes());
    bytes[8..].copy_from_slice(&crc.to_le_bytes());
    storage.write_at(MARK_FILE, 0, &bytes)
}

/// The mark; 0 if there is none that can be believed.
pub(crate) fn read(storage: &dyn Storage, log_id: u128) -> u64 {
    let mut bytes = [0; MARK_BYTES];
    match read_full(storage, MARK_FILE, 0, &mut bytes) {
        Ok(MARK_BYTES) if u32_at(&bytes, 8) == checksum(log_id, &bytes[..8]) => {
            Some(u64_at(&bytes, 0)).filter(|mark| *mark <= HIGHEST_SEQUENCE).unwrap_or(0)
        }
        _ => 0,
    }
}

fn checksum(log_id: u128, sequence: &[u8]) -> u32 {
    payload_crc(&[b"synced", &log_id.to_le_bytes(), sequence])
}
