//! Memory: what each thing that grows with its input may take. What needs more fails its own job, with
//! the number, and nothing else.
//!
//! Half of the node's memory is for folds, shared by those that run at once; a quarter for the outputs
//! of slots at coordinators and what becomes of them; an eighth for what is kept of all jobs. The rest is left
//! to batches on their way, queues and the index. Batches have a limit of their own
//! ([`cortado_engine::MAP_BYTES`]), which may not differ between nodes.

/// Outputs become rows, rows become files, files become chunks: so often they are in memory together.
const FINISH_COPIES: usize = 4;
/// Bytes of memory for each thing that grows with its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// What one fold may take.
    pub fold: usize,
    /// What the outputs of slots may take at a coordinator, of all its jobs together.
    pub outputs: usize,
    /// What the plans and file lists of all jobs may take.
    pub jobs: usize,
}

impl Budget {
    /// How a node divides its memory, if so many folds run at once.
    #[must_use]
    pub fn of(memory: usize, folds: usize) -> Self {
        Self {
            fold: memory / 2 / folds.max(1),
            outputs: memory / 4 / FINISH_COPIES,
            jobs: memory / 8,
        }
    }
}
