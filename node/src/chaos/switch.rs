//! A switch that turns itself off after a time. The disturbances of a node use it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Pause between two looks at the switch.
const GO_ON_WITHIN: Duration = Duration::from_millis(20);

/// A switch that is on until a time. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Switch(Arc<Mutex<Option<Instant>>>);

impl Switch {
    /// Turns it on until this time, or off.
    pub fn set(&self, until: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    /// Whether it is on now.
    #[must_use]
    pub fn is_on(&self) -> bool {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    /// Blocks the thread while it is on.
    pub fn block(&self) {
        while self.is_on() {
            std::thread::sleep(GO_ON_WITHIN);
        }
    }
}
