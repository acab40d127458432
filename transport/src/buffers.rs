//! Large buffers that are used again. Frame readers and the client's uploads take them from a pool.
//!
//! The system hands out fresh memory page by page, at the first write to each page. For the buffer
//! of a batch that is hundreds of page faults, and as many pages to give back: it took a tenth of
//! the processor time of an upload before buffers were kept.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Smaller buffers stay with the allocator, which keeps them itself.
const SMALLEST_KEPT: usize = 128 << 10;
/// Larger buffers are rare, and would hold too much memory.
const LARGEST_KEPT: usize = 2 << 20;

/// Lets the C library's allocator keep up to twice this much freed memory at the end of each of its
/// heaps, instead of 128 KiB; see [`keep_freed_memory`].
const KEPT_BYTES: usize = 16 << 20;

/// Makes glibc's allocator keep freed memory instead of giving it back to the system at once. Call
/// it when a process starts. Datagrams are allocated and freed all the time; to give their memory
/// back and ask for it again took 4 % of an upload's processor time.
///
/// glibc sets its limits by the size of the largest separately mapped block that was freed
/// (mallopt(3), `M_MMAP_THRESHOLD`, `M_TRIM_THRESHOLD`), so this function only allocates and frees
/// one such block. With other allocators it has no effect.
pub fn keep_freed_memory() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(KEPT_BYTES)));
}

/// Keeps buffers that are not in use.
#[derive(Clone, Debug)]
pub struct BufferPool(Arc<Shelf>);

#[derive(Debug)]
struct Shelf {
    free: Mutex<Vec<Vec<u8>>>,
    most: usize,
}

impl BufferPool {
    /// A pool that keeps at most `most` unused buffers, each of at most 2 MiB.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Shelf { free: Mutex::default(), most }))
    }

    /// An empty buffer with room for `capacity` bytes.
    #[must_use]
    pub fn take(&self, capacity: usize) -> Buffer {
        if capacity < SMALLEST_KEPT {
            return Buffer { bytes: Vec::with_capacity(capacity), shelf: None };
        }
        // The buffer used last is likely still in the processor's caches.
        let mut bytes = self.0.free().pop().unwrap_or_default();
        bytes.reserve_exact(capacity);
        Buffer { bytes, shelf: Some(Arc::clone(&self.0)) }
    }
}

impl Shelf {
    fn free(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A buffer that goes back to its pool when it is dropped.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    shelf: Option<Arc<Shelf>>,
}

impl Buffer {
    /// Its bytes, for sharing. The buffer goes back to its pool when the last part of them is
    /// dropped.
    #[must_use]
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some(shelf) = &self.shelf else { return };
        if !(SMALLEST_KEPT..=LARGEST_KEPT).contains(&self.bytes.capacity()) {
            return;
        }
        let mut free = shelf.free();
        if free.len() < shelf.most {
            self.bytes.clear();
            free.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_when_nobody_reads_it_any_more() {
        let pool = BufferPool::new(1);
        let mut buffer = pool.take(1 << 20);
        buffer.extend_from_slice(b"some batch");
        let place = buffer.as_ptr();
        let bytes = buffer.freeze();
        let part = bytes.slice(5..);
        drop(bytes);
        assert_ne!(pool.take(1 << 20).as_ptr(), place, "somebody still reads it");
        assert_eq!(&part[..], b"batch");
        drop(pool.take(1 << 20));

        let pool = BufferPool::new(1);
        let first = pool.take(1 << 20);
        let (place, capacity) = (first.as_ptr(), first.capacity());
        drop(first.freeze());
        let again = pool.take(SMALLEST_KEPT);
        assert_eq!((again.as_ptr(), again.capacity(), again.len()), (place, capacity, 0));
    }

    #[test]
    fn no_more_is_kept_than_was_said() {
        let pool = BufferPool::new(2);
        let sizes = [1, SMALLEST_KEPT, SMALLEST_KEPT, SMALLEST_KEPT, LARGEST_KEPT + 1];
        let taken: Vec<_> = sizes.iter().map(|size| pool.take(*size)).collect();
        assert!(taken.iter().zip(sizes).all(|(buffer, size)| buffer.capacity() >= size));
        drop(taken);
        let kept: Vec<_> = pool.0.free().iter().map(Vec::capacity).collect();
        assert_eq!(kept, [SMALLEST_KEPT; 2]);
    }
}
