//! What the log needs of a disk: a flat directory of named files.

use std::io;

/// One directory of files. All methods take `&self`: readers on other threads share the storage
/// with the writer.
///
/// Durability follows POSIX: bytes and lengths last after [`Storage::sync`] of the file; names last
/// after [`Storage::sync_dir`]. What was not synced may survive a crash wholly, partly or not at
/// all.
pub trait Storage: Send + Sync + 'static {
    /// Names and lengths in bytes of all files, in no particular order.
    ///
    /// # Errors
    /// If the directory can't be read.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;

    /// Creates an empty file.
    ///
    /// # Errors
    /// `AlreadyExists`, `StorageFull`, or another failure of the disk.
    fn create(&self, name: &str) -> io::Result<()>;

    /// Reads at `offset`; fewer bytes than asked for are no sign of the end unless there are none.
    ///
    /// # Errors
    /// `NotFound`, or a failure of the disk.
    fn read_at(&self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`. After an error any part of them may have been written.
    ///
    /// # Errors
    /// `NotFound`, `StorageFull`, or another failure of the disk.
    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the file, or grows it with zeros for which space is set aside.
    ///
    /// # Errors
    /// `NotFound`, `StorageFull`, or another failure of the disk.
    fn resize(&self, name: &str, len: u64) -> io::Result<()>;

    /// Makes the file's bytes and length durable.
    ///
    /// # Errors
    /// After a failure nothing unsynced can be trusted, and trying again may succeed falsely.
    fn sync(&self, name: &str) -> io::Result<()>;

    /// Makes creations, renames and deletions durable.
    ///
    /// # Errors
    /// If the disk fails.
    fn sync_dir(&self) -> io::Result<()>;

    /// Renames a file; one that has the name `to` is replaced.
    ///
    /// # Errors
    /// `NotFound`, or a failure of the disk.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Deletes a file.
    ///
    /// # Errors
    /// `NotFound`, or a failure of the disk.
    fn delete(&self, name: &str) -> io::Result<()>;

    /// Bytes that can still be allocated.
    ///
    /// # Errors
    /// If the file system does not say.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// Length of a file, if there is one with this name.
pub(crate) fn len_of(storage: &dyn Storage, name: &str) -> io::Result<Option<u64>> {
    let files = storage.list()?;
    Ok(files.into_iter().find(|(file, _)| file == name).map(|(_, len)| len))
}

/// Reads until `buffer` is full or the file ends; returns how many bytes were read.
pub(crate) fn read_full(
    storage: &dyn Storage,
    name: &str,
    offset: u64,
    buffer: &mut [u8],
) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match storage.read_at(name, offset + filled as u64, &mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
