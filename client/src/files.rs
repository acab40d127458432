//! Writes files so that no reader ever sees half of one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::Error;

/// Writes a file under a temporary name, then renames it. Only its owner can ever read a `secret`
/// file.
///
/// # Errors
/// The error of the system; then the file with this name is unchanged.
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

/// Checks that a file can be written in a folder, or that the folder can be made. Leaves no file
/// behind.
///
/// # Errors
/// [`Error::BadInput`] with advice, if not.
pub(crate) fn check_folder(folder: &Path) -> Result<(), Error> {
    let there = folder.ancestors().find(|part| part.as_os_str().is_empty() || part.exists());
    let there = there.filter(|part| !part.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let probe = temporary(&there.join("probe"));
    let written = File::create(&probe).and_then(|mut file| file.write_all(b"probe"));
    let _ = fs::remove_file(&probe);
    written.map_err(|source| {
        let folder = folder.display();
        Error::BadInput(format!("can't write results to {folder}: {source}; choose another --out"))
    })
}

/// The name of a file while it is being written.
#[must_use]
pub(crate) fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_for_results_is_tried_without_a_trace_and_a_file_is_refused() {
        let root = tempfile::tempdir().unwrap();
        check_folder(&root.path().join("new/folder")).unwrap();
        check_folder(root.path()).unwrap();
        check_folder("surely-not-there".as_ref()).unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        let file = root.path().join("file");
        fs::write(&file, "x").unwrap();
        check_folder(&file.join("below")).unwrap_err();
        let error = check_folder(&file).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("choose another --out"), "{error}");
    }
}
