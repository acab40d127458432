//! A limit on the work in progress, by number and by bytes. The client port uses two.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Gives room to callers, in the order in which they ask.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    places: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    all_places: usize,
    most_bytes: usize,
}

/// Room that was taken. Dropping it gives the room back.
#[derive(Debug)]
pub(super) struct Room {
    _place: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

impl Gate {
    pub(super) fn new(places: usize, bytes: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(places)),
            bytes: Arc::new(Semaphore::new(bytes)),
            all_places: places,
            most_bytes: bytes,
        }
    }

    /// Waits for room. A request for more bytes than the limit takes all of them.
    pub(super) async fn enter(&self, bytes: usize) -> Room {
        let bytes = u32::try_from(bytes.min(self.most_bytes)).unwrap_or(u32::MAX);
        let closed = "the semaphores are never closed";
        Room {
            _place: self.places.clone().acquire_owned().await.expect(closed),
            _bytes: self.bytes.clone().acquire_many_owned(bytes).await.expect(closed),
        }
    }

    /// Places that are taken.
    pub(super) fn taken(&self) -> usize {
        self.all_places - self.places.available_permits()
    }

    /// Free places and bytes.
    #[cfg(test)]
    pub(super) fn free(&self) -> (usize, usize) {
        (self.places.available_permits(), self.bytes.available_permits())
    }
}
