//! Memory: the limits of everything that grows with its input. A job that needs more fails, and its
//! message says how much; nothing else fails. The configuration holds the limits.
//!
//! Folds get half of the node's memory, shared by those that run at once. A quarter is for the
//! outputs of slots at coordinators and for the results computed from them, an eighth for the plans
//! and file lists of all jobs. The rest is left to batches in progress, queues and the index.
//! Batches have a limit of their own ([`cortado_engine::MAP_BYTES`]), which must be the same on all
//! nodes.

/// Outputs become rows, rows become files, files become chunks: so many copies are in memory
/// together.
const FINISH_COPIES: usize = 4;
/// Limits in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// For one fold.
    pub fold: usize,
    /// For the outputs of slots at a coordinator, of all its jobs together.
    pub outputs: usize,
    /// For the plans and file lists of all jobs.
    pub jobs: usize,
}

impl Budget {
    /// Divides a node's memory if so many folds run at once.
    #[must_use]
    pub fn of(memory: usize, folds: usize) -> Self {
        Self {
            fold: memory / 2 / folds.max(1),
            outputs: memory / 4 / FINISH_COPIES,
            jobs: memory / 8,
        }
    }
}
