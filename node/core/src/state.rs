//! What a core keeps beside its log: small files, each written whole, of which only the newest counts.
//!
//! What follows from a change waits until it is on disk. A file is handed to the shell once for all
//! changes of one input, so a burst of them costs one write.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use cortado_protocol::expiry::Expired;
use cortado_protocol::{JobId, NodeId, frame};
use serde::{Deserialize, Serialize};

use crate::{Core, Effect};

/// A file beside the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StateFile {
    /// Jobs that are gone for good, with the proofs.
    Gone,
    /// What this node agreed to, and for how long jobs have shown no sign of life.
    Expiry,
    /// The roster.
    Members,
}

impl StateFile {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Gone, Self::Expiry, Self::Members];

    /// Its name in the data folder.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Expiry => "expiry",
            Self::Members => "members",
        }
    }
}

/// What waits for a file to be on disk.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// Tell who proposed it that this node agrees.
    Accept { job: JobId, to: NodeId, number: u64 },
    /// The job is gone by this node's own count: drop it, and tell everyone.
    Bury { job: JobId, proof: Expired },
    /// The log may drop the job's records.
    Forget(JobId),
    /// Tell everyone who left, and answer the client that wanted it.
    TellDeparted { ticket: u64 },
}

/// Changes that are not on disk yet.
#[derive(Default)]
pub(crate) struct Saving {
    dirty: BTreeSet<StateFile>,
    next: BTreeMap<StateFile, Vec<Then>>,
    under_way: BTreeMap<u64, (StateFile, Vec<Then>)>,
}

/// [`StateFile::Expiry`].
#[derive(Default, Serialize, Deserialize)]
struct ExpiryFile {
    accepted: Vec<(JobId, NodeId, u64)>,
    idle: Vec<IdleJob>,
}

/// What is known only while the log is read, before the first input.
#[derive(Default)]
pub(crate) struct Restoring {
    /// What an earlier process wrote down of jobs.
    pub(crate) idle: BTreeMap<JobId, IdleJob>,
    /// Jobs of which records were found although they are gone.
    pub(crate) gone: BTreeSet<JobId>,
}

/// For how long a job has shown no sign of life, and how far its records went at that moment.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct IdleJob {
    pub(crate) job: JobId,
    pub(crate) idle_ms: u64,
    pub(crate) newest: (u32, u32),
}

impl Core {
    /// Takes in a file as it was saved last, before [`Core::restore`].
    ///
    /// # Errors
    /// If it can't be read.
    pub fn restore_state(
        &mut self,
        file: StateFile,
        bytes: &[u8],
    ) -> Result<(), frame::FrameError> {
        match file {
            StateFile::Gone => {
                let gone: Vec<(JobId, Expired)> = frame::from_postcard(bytes)?;
                gone.into_iter().for_each(|(job, proof)| {
                    self.facts.holdings.bury(job, proof);
                });
            }
            StateFile::Expiry => {
                let ExpiryFile { accepted, idle } = frame::from_postcard(bytes)?;
                self.expiry.restore(&accepted);
                self.restoring.idle = idle.into_iter().map(|idle| (idle.job, idle)).collect();
            }
            StateFile::Members => self.facts.roster = frame::from_postcard(bytes)?,
        }
        Ok(())
    }

    /// A file has changed: it is saved, and then this is done.
    pub(crate) fn save(&mut self, file: StateFile, then: Option<Then>) {
        self.saving.dirty.insert(file);
        self.saving.next.entry(file).or_default().extend(then);
    }

    /// Hands the files that have changed to the shell.
    pub(crate) fn flush_state(&mut self) {
        for file in std::mem::take(&mut self.saving.dirty) {
            let bytes = self.state_bytes(file);
            let ticket = self.out.fresh_id();
            let thens = self.saving.next.remove(&file).unwrap_or_default();
            self.saving.under_way.insert(ticket, (file, thens));
            self.out.effect(Effect::Save { ticket, file, bytes });
        }
    }

    fn state_bytes(&self, file: StateFile) -> Bytes {
        match file {
            StateFile::Gone => {
                let gone = self.facts.holdings.tombstones().chain(self.saving.decided());
                frame::to_postcard(&gone.collect::<Vec<_>>())
            }
            StateFile::Expiry => {
                let (accepted, idle) = (self.expiry.accepted(), self.idle_jobs());
                frame::to_postcard(&ExpiryFile { accepted, idle })
            }
            StateFile::Members => frame::to_postcard(&self.facts.roster),
        }
    }

    /// A file is on disk as it was handed over with this ticket, or newer.
    pub(crate) fn on_saved(&mut self, ticket: u64) {
        let Some((file, _)) = self.saving.under_way.get(&ticket) else { return };
        let file = *file;
        let mut done = Vec::new();
        self.saving.under_way.retain(|of, (other, thens)| {
            let over = *other == file && *of <= ticket;
            if over {
                done.append(thens);
            }
            !over
        });
        for then in done {
            self.expiry_saved(then);
        }
    }
}

impl Saving {
    /// Jobs that are gone by this node's own count, once that is on disk.
    fn decided(&self) -> impl Iterator<Item = (JobId, &Expired)> {
        let next = self.next.values().flatten();
        let under_way = self.under_way.values().flat_map(|(_, thens)| thens);
        next.chain(under_way).filter_map(|then| match then {
            Then::Bury { job, proof } => Some((*job, proof)),
            _ => None,
        })
    }

    /// Whether the job is about to be gone by this node's own count.
    pub(crate) fn buries(&self, job: JobId) -> bool {
        self.decided().any(|(other, _)| other == job)
    }
}
