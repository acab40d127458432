//! What an earlier process left: files beside the log, and the log's records.

use std::time::Duration;

use bytes::Bytes;
use cortado_protocol::entry::{Entry, EntryHead};
use cortado_protocol::expiry::Forgotten;
use cortado_protocol::job::Manifest;
use cortado_protocol::{Edge, JobId, frame};

use super::Core;
use super::restoring::{ExpiryFile, IdleJob, Restoring};
use crate::effect::{Effect, StateFile};
use crate::job::{JobLog, job_entry};
use crate::record::{Group, RecordRef};
use crate::retention::Retention;

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
            StateFile::Tombstones => {
                let forgotten: Vec<(JobId, Forgotten)> = frame::from_postcard(bytes)?;
                for (job, proof) in forgotten {
                    self.facts.ledger.forget(job, proof);
                }
            }
            StateFile::Expiry => {
                let ExpiryFile { agreed, idle } = frame::from_postcard(bytes)?;
                for (job, by, number) in agreed {
                    self.facts.jobs.agree(job, by, number, true);
                }
                self.restoring.idle = idle.into_iter().map(|idle| (idle.job, idle)).collect();
            }
            StateFile::Members => self.facts.roster = frame::from_postcard(bytes)?,
            StateFile::Retention => {
                self.facts.retention = Retention::decode(bytes)?;
                for (job, floors) in self.facts.retention.all_floors() {
                    self.facts.ledger.restore_floors(job, &floors.floors);
                }
            }
        }
        Ok(())
    }

    /// Takes in a record of this node's own log, in log order, before the first input: its first
    /// bytes, as many as [`crate::Effect::Append`] said.
    ///
    /// # Errors
    /// If they are no entry's; the record is then not indexed, and peers refill what it was.
    pub fn restore(
        &mut self,
        record: RecordRef,
        wall_ms: u64,
        bytes: &Bytes,
    ) -> Result<(), frame::FrameError> {
        let head = EntryHead::decode(bytes)?;
        let job = head.key.job;
        let says = match head.key.edge {
            Edge::JOB => job_entry(&Entry::decode(bytes)?),
            _ => None,
        };
        if self.facts.ledger.is_forgotten(job) {
            self.restored_in_vain(Group::of(&head.key));
            return Ok(());
        }
        if let Some(group) = self.facts.ledger.restore(&head, record) {
            self.restored_in_vain(group);
        }
        // A record counts as a sign of life if it is newer than what was written down of the job.
        let at = (record.segment, record.offset);
        let known = self.restoring.idle.get(&job).filter(|idle| at <= idle.newest);
        let before = known.map_or(Duration::ZERO, |idle| Duration::from_millis(idle.idle_ms));
        self.facts.jobs.restore(job, at, before, wall_ms, says);
        Ok(())
    }

    /// A record was found of a group that nobody needs: the log may drop it.
    fn restored_in_vain(&mut self, group: Group) {
        if self.restoring.dropped.insert(group) {
            self.out.effect(Effect::Forget(group));
        }
    }

    /// Everything was restored. Batches of jobs that are done were read before it was known.
    pub(super) fn restored(&mut self) {
        self.restoring = Restoring::default();
        self.facts.jobs.restored();
        let drops = |log: &JobLog| log.manifest.as_ref().is_some_and(Manifest::drops_batches);
        let done = self.facts.jobs.iter().filter(|(_, log)| drops(log));
        let done: Vec<_> = done.map(|(job, _)| job).collect();
        for job in done {
            self.drop_batches(job);
        }
    }

    /// Hands the files that have changed to the shell.
    pub(super) fn flush_state(&mut self) {
        let (facts, expiry) = (&self.facts, &self.expiry);
        let (coordination, streams) = (&self.coordination, &self.streams);
        let works = |job| coordination.works(job) || streams.works(job);
        let bytes = |file| match file {
            StateFile::Tombstones => {
                let forgotten = facts.ledger.tombstones().chain(expiry.decided());
                frame::to_postcard(&forgotten.collect::<Vec<_>>())
            }
            StateFile::Expiry => {
                let agreed = facts.jobs.agreements();
                let agreed = agreed.map(|agreed| (agreed.job, agreed.by, agreed.number)).collect();
                let idle = facts.jobs.iter().map(|(job, log)| {
                    let idle = facts.idle(job, works(job)).unwrap_or_default();
                    IdleJob { job, idle_ms: idle.as_millis() as u64, newest: log.newest }
                });
                frame::to_postcard(&ExpiryFile { agreed, idle: idle.collect() })
            }
            StateFile::Members => frame::to_postcard(&facts.roster),
            StateFile::Retention => facts.retention.encode(),
        };
        self.saving.flush(&mut self.out, bytes);
    }
}
