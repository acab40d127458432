//! Memory: what each thing that grows with its input may take. What needs more fails its own job, with
//! the number, and nothing else.
//!
//! Half of the node's memory is for folds, shared by those that run at once; a quarter for the outputs
//! of slots at homes and what becomes of them; an eighth for what is kept of all jobs. The rest is left
//! to batches on their way, queues and the index. Batches have a limit of their own
//! ([`cortado_engine::MAP_BYTES`]), which may not differ between nodes.

use cortado_engine::mebi;
use cortado_protocol::JobId;
use cortado_protocol::job::Manifest;

use crate::Core;

/// Outputs become rows, rows become files, files become chunks: so often they are in memory together.
const FINISH_COPIES: usize = 4;
/// Jobs kept at most, ended ones included.
const JOBS: usize = 10_000;

/// Bytes of memory for each thing that grows with its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// What one fold may take.
    pub fold: usize,
    /// What the outputs of slots may take at a home, of all its jobs together.
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

impl Core {
    /// Whether one more job can be kept, or what to say.
    pub(crate) fn room_for_a_job(&self, bytes: usize) -> Result<(), String> {
        let kept = self.facts.jobs.values().filter_map(|log| log.plan.as_ref());
        let (mut jobs, mut all) = (0, bytes);
        for plan in kept {
            jobs += 1;
            all += plan.bytes;
        }
        if jobs >= JOBS {
            return Err(format!(
                "{jobs} jobs are kept, and no more can be: wait until some are past their time to live"
            ));
        }
        let limit = self.facts.config.memory.jobs;
        if all > limit {
            return Err(format!(
                "the plans and file lists of {jobs} jobs and of this one take {}, and {} are for them: \
                 name fewer files, or wait until some jobs are past their time to live",
                mebi(all),
                mebi(limit)
            ));
        }
        Ok(())
    }

    /// Outputs have arrived at this home. If they are too large together, the job with the highest id
    /// (the youngest) gives its own back and starts over when the others are done; one that is too
    /// large alone fails.
    pub(crate) fn check_outputs(&mut self, job: JobId) {
        let limit = self.facts.config.memory.outputs;
        let mut all = 0;
        let mut youngest = job;
        for (other, home) in &self.homes {
            let held = home.output_bytes();
            all += held;
            if held > 0 {
                youngest = youngest.max(*other);
            }
        }
        if all <= limit {
            return;
        }
        let own = self.homes.get(&job).map_or(0, super::home::Home::output_bytes);
        if own > limit {
            let query = self.largest_output(job);
            let message = format!(
                "query '{query}' has a result that does not fit: the outputs of its slots are more \
                 than {}, which is what a job's home takes (see memory_mib); let it keep fewer rows, or \
                 give the nodes more memory",
                mebi(limit)
            );
            tracing::warn!(%job, %message, "failed a job");
            return self.close(job, Manifest::Failed { message });
        }
        tracing::info!(job = %youngest, "gives its outputs back: there is no room for all of them");
        self.start_over(youngest);
    }
}
