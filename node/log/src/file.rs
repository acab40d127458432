//! The real storage: a directory, locked against a second process.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::FallocateFlags;

use crate::storage::Storage;

const LOCK_FILE: &str = "lock";
/// Open files kept for reading; more segments than this are opened anew when they are read.
const OPEN_FILES: usize = 128;

/// Why a directory could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("{0} is in use by another process")]
    InUse(PathBuf),
    /// The directory can't be made or opened.
    #[error("{path}: {source}")]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Files of one directory, for this process alone while the value lives.
pub struct FileStorage {
    path: PathBuf,
    directory: File,
    open: Mutex<HashMap<String, OpenFile>>,
    _lock: File,
}

struct OpenFile {
    file: Arc<File>,
    /// Written and not synced. Such a file is kept open: once every descriptor is closed, the
    /// kernel may forget a failed write-back before anyone was told of it.
    dirty: bool,
}

impl FileStorage {
    /// Takes the directory, which is made if it is not there.
    ///
    /// # Errors
    /// If another process holds it, or the system refuses.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, LockError> {
        let path = path.into();
        let failed = |source| LockError::Io { path: path.clone(), source };
        create_dir_durably(&path).map_err(failed)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join(LOCK_FILE))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LockError::InUse(path)),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let directory = File::open(&path).map_err(failed)?;
        Ok(Self { path, directory, open: Mutex::default(), _lock: lock })
    }

    fn file(&self, name: &str, will_write: bool) -> io::Result<Arc<File>> {
        // The map is whole whatever panicked while holding it: every change is one call.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = open.get_mut(name) {
            entry.dirty |= will_write;
            return Ok(Arc::clone(&entry.file));
        }
        let file = OpenOptions::new().read(true).write(true).open(self.path.join(name))?;
        if open.len() >= OPEN_FILES {
            open.retain(|_, entry| entry.dirty);
        }
        let file = Arc::new(file);
        open.insert(name.to_owned(), OpenFile { file: Arc::clone(&file), dirty: will_write });
        Ok(file)
    }

    fn close(&self, name: &str) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

/// Makes the directory and syncs its parent, or a power cut could take it with everything in it.
fn create_dir_durably(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path)?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

impl Storage for FileStorage {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let metadata = match entry.metadata() {
                // Another thread has renamed or deleted it meanwhile, for example a state file.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata?,
            };
            // A name that is no text is none of ours.
            if let (true, Ok(name)) = (metadata.is_file(), entry.file_name().into_string()) {
                files.push((name, metadata.len()));
            }
        }
        Ok(files)
    }

    fn create(&self, name: &str) -> io::Result<()> {
        let path = self.path.join(name);
        OpenOptions::new().create_new(true).write(true).open(path).map(|_| ())
    }

    fn read_at(&self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file(name, false)?.read_at(buffer, offset)
    }

    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file(name, true)?.write_all_at(bytes, offset)
    }

    fn resize(&self, name: &str, len: u64) -> io::Result<()> {
        let file = self.file(name, true)?;
        let old = file.metadata()?.len();
        if len <= old {
            return file.set_len(len);
        }
        match rustix::fs::fallocate(&*file, FallocateFlags::empty(), old, len - old) {
            // Not every file system can set space aside; then running full shows while appending.
            Err(rustix::io::Errno::OPNOTSUPP) => file.set_len(len),
            other => other.map_err(io::Error::from),
        }
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.file(name, true)?.sync_data()?;
        if let Some(entry) = self.open.lock().unwrap_or_else(PoisonError::into_inner).get_mut(name)
        {
            entry.dirty = false;
        }
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.directory.sync_all()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))?;
        self.close(from);
        self.close(to);
        Ok(())
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        self.close(name);
        fs::remove_file(self.path.join(name))
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstatvfs(&self.directory)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}
