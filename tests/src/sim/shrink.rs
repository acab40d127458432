//! Shrinking: the fewest faults with which a run still fails.

use std::time::Duration;

use super::dials::Dials;
use super::world::World;

/// What is left of a failing run.
#[derive(Debug)]
pub struct Shrunk {
    /// Which of the drawn faults are needed, by their place in the list.
    pub kept: Vec<usize>,
    /// What goes wrong with these alone.
    pub message: String,
}

/// Drops faults from a run that fails as long as it still fails, halves first ("delta debugging":
/// Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", IEEE TSE 2002).
/// Returns `None` if the run does not fail.
#[must_use]
pub fn shrink(seed: u64, dials: &Dials, limit: Duration) -> Option<Shrunk> {
    let failure = |kept: &[usize]| {
        let dials =
            Dials { faults: kept.iter().map(|at| dials.faults[*at]).collect(), ..dials.clone() };
        let run = std::panic::AssertUnwindSafe(|| World::new(seed, dials).run(limit).err());
        std::panic::catch_unwind(run).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Some(format!("panicked: {}", text.unwrap_or("without a message")))
        })
    };
    let mut kept: Vec<usize> = (0..dials.faults.len()).collect();
    let mut message = failure(&kept)?;
    let mut size = kept.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < kept.len() {
            let mut fewer = kept.clone();
            fewer.drain(at..fewer.len().min(at + size));
            match failure(&fewer) {
                Some(text) => (kept, message) = (fewer, text),
                None => at += size,
            }
        }
        size = if size == 1 { 0 } else { size.div_ceil(2) };
    }
    Some(Shrunk { kept, message })
}
