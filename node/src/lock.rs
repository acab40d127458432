//! Locks that no panic makes unusable.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// For locks under which nothing that panics runs, and of which what they protect is whole between
/// statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
