//! Runs two actions at the same time.

use std::sync::atomic::{AtomicBool, Ordering};

/// Sets the flag when it is dropped, also by a panic.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `during`, and `beside` in another thread. The flag that `beside` gets is set when `during`
/// is over. Returns the results of both.
///
/// # Panics
/// If one of them panics.
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
