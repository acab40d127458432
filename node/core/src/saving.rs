//! Saving: files beside the log that have changed. Each is written whole, and a newer version
//! replaces an older one. The router calls it.
//!
//! The consequences of a change wait until the file is on disk. The shell gets a file once for all
//! changes of one input, so a burst of changes costs one write.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use cortado_protocol::{Edge, JobId, NodeId};

use crate::effect::{Effect, StateFile};
use crate::outbox::Outbox;

/// An action that waits until a file is on disk.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// Send this node's agreement to the proposer.
    Agree { job: JobId, by: NodeId, number: u64 },
    /// Drop the job, which enough members agreed to, and send the proof to all members.
    Forget(JobId),
    /// The log may drop the job's records.
    DropRecords(JobId),
    /// Tell a stream's coordinator what this node has promised.
    SayRetiring { job: JobId, to: NodeId },
    /// Tell a stream's coordinator that this node takes no new batch of a publisher.
    SayFrozen { job: JobId, to: NodeId, question: Question },
    /// Drop the retired batches of a stream.
    DropRetired(JobId),
    /// Send all members the names of those that left, and answer the client that asked for it.
    TellDeparted { ticket: u64 },
}

/// What a coordinator asks of a publisher that it wants to seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    /// The publisher's edge.
    pub(crate) edge: Edge,
    /// The first batch of interest.
    pub(crate) from: u64,
    /// The answer repeats it.
    pub(crate) round: u64,
}

/// The changed files, and the actions that wait for them.
#[derive(Default)]
pub(crate) struct Saving {
    dirty: BTreeSet<StateFile>,
    next: BTreeMap<StateFile, Vec<Then>>,
    under_way: BTreeMap<u64, (StateFile, Vec<Then>)>,
}

impl Saving {
    /// Marks a file as changed; `then` follows once it is on disk.
    pub(crate) fn save(&mut self, file: StateFile, then: Option<Then>) {
        self.dirty.insert(file);
        self.next.entry(file).or_default().extend(then);
    }

    /// Passes the changed files to the shell.
    pub(crate) fn flush(&mut self, out: &mut Outbox, bytes: impl Fn(StateFile) -> Bytes) {
        for file in std::mem::take(&mut self.dirty) {
            let bytes = bytes(file);
            let ticket = out.fresh_id();
            let thens = self.next.remove(&file).unwrap_or_default();
            self.under_way.insert(ticket, (file, thens));
            out.effect(Effect::Save { ticket, file, bytes });
        }
    }

    /// The version of a file with this ticket, or a newer one, is on disk: returns the actions that
    /// waited for it.
    pub(crate) fn saved(&mut self, ticket: u64) -> Vec<Then> {
        let Some((file, _)) = self.under_way.get(&ticket) else { return Vec::new() };
        let file = *file;
        let mut done = Vec::new();
        self.under_way.retain(|of, (other, thens)| {
            let over = *other == file && *of <= ticket;
            if over {
                done.append(thens);
            }
            !over
        });
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::Out;

    fn flush(saving: &mut Saving, out: &mut Outbox) -> Vec<(u64, StateFile)> {
        saving.flush(out, |_| Bytes::new());
        let saved = |out| match out {
            Out::Effect(Effect::Save { ticket, file, .. }) => Some((ticket, file)),
            _ => None,
        };
        std::iter::from_fn(|| out.next()).filter_map(saved).collect()
    }

    #[test]
    fn a_newer_file_on_disk_stands_for_those_before_and_for_no_other() {
        let (mut saving, mut out) = (Saving::default(), Outbox::new(1));
        let drop_records = |job| Some(Then::DropRecords(JobId(job)));
        saving.save(StateFile::Tombstones, drop_records(1));
        saving.save(StateFile::Tombstones, drop_records(2));
        let first = flush(&mut saving, &mut out);
        assert_eq!(first.len(), 1, "one write for a burst");
        saving.save(StateFile::Tombstones, drop_records(3));
        saving.save(StateFile::Members, Some(Then::TellDeparted { ticket: 4 }));
        let second = flush(&mut saving, &mut out);
        let (gone, members) = (second[0], second[1]);
        assert_eq!((gone.1, members.1), (StateFile::Tombstones, StateFile::Members));
        assert_eq!(saving.saved(members.0), [Then::TellDeparted { ticket: 4 }]);
        let all: Vec<_> = (1..4).filter_map(drop_records).collect();
        assert_eq!(saving.saved(gone.0), all, "the first write is worth nothing by itself");
        assert_eq!(saving.saved(first[0].0), []);
        assert_eq!(flush(&mut saving, &mut out), []);
    }
}
