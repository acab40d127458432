//! Waiting for conditions, never for time to pass.

use std::time::{Duration, Instant};

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(15);

/// A moment after which a wait is given up.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// So many seconds from now.
    #[must_use]
    pub fn after(seconds: u64) -> Self {
        Self(Instant::now() + Duration::from_secs(seconds))
    }

    /// This moment.
    #[must_use]
    pub const fn at(moment: Instant) -> Self {
        Self(moment)
    }

    /// Pauses before the next look; false if it is too late for one.
    #[must_use]
    pub fn next_look(&self) -> bool {
        if Instant::now() >= self.0 {
            return false;
        }
        std::thread::sleep(LOOK_EVERY);
        true
    }
}

/// Looks until there is something, and returns it.
///
/// # Panics
/// If nothing is there after `seconds`, with `what` was waited for.
pub fn wait_for<T>(what: &str, seconds: u64, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Deadline::after(seconds);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(deadline.next_look(), "waited {seconds} s in vain for {what}");
    }
}
