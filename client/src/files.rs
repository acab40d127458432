//! Writing files so that nobody ever sees half of one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Writes a file under a temporary name, then renames it. A `secret` one is readable by its owner
/// alone from its first byte on.
///
/// # Errors
/// What the system says; the file of that name is then as it was.
pub(crate) fn write(path: &Path, bytes: &[u8], secret: bool) -> io::Result<()> {
    let temporary = temporary(path);
    let mode = if secret { 0o600 } else { 0o644 };
    let mut options = File::options();
    let written = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&temporary)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// The name a file has while it is written.
#[must_use]
pub(crate) fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    path.with_file_name(name)
}
