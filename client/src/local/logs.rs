//! The end of a node's log, for the message about a node that does not start.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Most bytes of a log that are read.
const TAIL_BYTES: u64 = 8 << 10;

/// The last lines of a file; empty if there is none.
pub(super) fn tail(path: &Path, lines: usize) -> String {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|mut file| {
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        file.take(TAIL_BYTES).read_to_end(&mut bytes)
    });
    if read.is_err() {
        return String::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_lines_are_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.log");
        assert_eq!(tail(&path, 2), "");
        std::fs::write(&path, format!("{}\none\ntwo\n", "x".repeat(20_000))).unwrap();
        assert_eq!(tail(&path, 2), "one\ntwo");
    }
}
