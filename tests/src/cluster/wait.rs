//! Waits for conditions with a time limit, never for time to pass.

use std::time::{Duration, Instant};

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(15);

/// A moment at which a wait ends.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// A deadline in so many seconds.
    #[must_use]
    pub fn after(seconds: u64) -> Self {
        Self(Instant::now() + Duration::from_secs(seconds))
    }

    /// A deadline at this moment.
    #[must_use]
    pub const fn at(moment: Instant) -> Self {
        Self(moment)
    }

    /// Pauses before the next look; returns false after the deadline.
    #[must_use]
    pub fn next_look(&self) -> bool {
        if Instant::now() >= self.0 {
            return false;
        }
        std::thread::sleep(LOOK_EVERY);
        true
    }
}

/// Calls `look` until it returns a value, and returns the value.
///
/// # Panics
/// If there is no value after `seconds`; the message names `what` was awaited.
pub fn wait_for<T>(what: &str, seconds: u64, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Deadline::after(seconds);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(deadline.next_look(), "waited {seconds} s in vain for {what}");
    }
}
