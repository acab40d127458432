//! Something that goes on beside something else.

use std::sync::atomic::{AtomicBool, Ordering};

/// Says that it is over, also if that is by a panic.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does `during`, and `beside` in a thread of its own, which is told by its flag when `during` is over.
/// Returns what both return.
///
/// # Panics
/// If one of them does.
pub fn alongside<T, B: Send>(
    beside: impl FnOnce(&AtomicBool) -> B + Send,
    during: impl FnOnce() -> T,
) -> (T, B) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let beside = scope.spawn(|| beside(&over));
        let done = {
            let _over = Over(&over);
            during()
        };
        let beside = beside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (done, beside)
    })
}
