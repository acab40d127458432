//! Retention: what this node has promised of the windows of streams, and what of a stream is gone.
//!
//! A window whose time of retention is over is to have one last revision, the same for everybody, and
//! then its events go. No single node decides that: a coordinator that others do not see may be about to
//! publish a revision. So the coordinator asks all known members to *promise* that they store no
//! revision of windows that end by a time. A member writes the promise down and says which outputs it
//! holds. Once all have promised, no other revision can reach W members any more, and the coordinator
//! knows all that were stored. It reads these and publishes a checkpoint: what is left of the windows. As
//! soon as that is durable, all members drop the batches below the checkpoint's floors.
//!
//! ```text
//! coordinator                          member
//!  │ Retire {before} ──────────────────▶ │ write the promise down; take no revision from here on
//!  │ ◀──────── Retiring {before, outputs} │
//!  │ all members? read their outputs,    │
//!  │ write the checkpoint on W nodes     │
//!  │ Retired {floors} ─────────────────▶ │ write the floors down, drop what is below them
//! ```
//!
//! A publisher that is gone is *sealed* in the same way: members promise to take no new batch of it, and
//! then nothing changes any more in what is on their disks. A batch of which all slots are there is brought
//! to W members and counts; any other one never does ([`crate::streams`]).
//!
//! Promises only grow: a member keeps the latest time that it was asked for (lattice agreement on a
//! chain; Faleiro et al., PODC 2012). So nothing has to be withdrawn or ordered, two coordinators do
//! not disturb each other, and a new one goes on where another stopped. A member that is away delays
//! retirement and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use cortado_protocol::stream::Floors;
use cortado_protocol::{Edge, JobId, frame};
use serde::{Deserialize, Serialize};

/// What this node keeps to of one stream.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Kept {
    /// Windows that end by then get no revision any more.
    promised_ms: Option<i64>,
    /// What is gone.
    floors: Option<Floors>,
    /// Publishers of which no new batch is taken.
    frozen: BTreeSet<Edge>,
}

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct Retention(BTreeMap<JobId, Kept>);

impl Retention {
    /// Windows that end by then get no revision any more.
    pub(crate) fn promised(&self, job: JobId) -> Option<i64> {
        self.0.get(&job)?.promised_ms
    }

    /// Promises that, unless a later time was promised already.
    pub(crate) fn promise(&mut self, job: JobId, before_ms: i64) {
        let kept = self.0.entry(job).or_default();
        kept.promised_ms = kept.promised_ms.max(Some(before_ms));
    }

    /// No new batch of a publisher is taken from now on.
    pub(crate) fn freeze(&mut self, job: JobId, edge: Edge) {
        self.0.entry(job).or_default().frozen.insert(edge);
    }

    /// Whether no new batch of a publisher is taken.
    pub(crate) fn is_frozen(&self, job: JobId, edge: Edge) -> bool {
        self.0.get(&job).is_some_and(|kept| kept.frozen.contains(&edge))
    }

    /// What of a stream is gone.
    pub(crate) fn floors(&self, job: JobId) -> Option<&Floors> {
        self.0.get(&job)?.floors.as_ref()
    }

    /// What of streams is gone.
    pub(crate) fn all_floors(&self) -> impl Iterator<Item = (JobId, &Floors)> {
        self.0.iter().filter_map(|(job, kept)| Some((*job, kept.floors.as_ref()?)))
    }

    /// Takes floors that are later than those known; returns whether they are. They are a promise, too.
    pub(crate) fn retire(&mut self, job: JobId, floors: Floors) -> bool {
        let kept = self.0.entry(job).or_default();
        if kept.floors.as_ref().is_some_and(|known| known.before_ms >= floors.before_ms) {
            return false;
        }
        kept.promised_ms = kept.promised_ms.max(Some(floors.before_ms));
        kept.floors = Some(floors);
        true
    }

    /// The job was dropped; returns whether anything was known.
    pub(crate) fn forget(&mut self, job: JobId) -> bool {
        self.0.remove(&job).is_some()
    }

    /// The file that says all this.
    pub(crate) fn encode(&self) -> Bytes {
        frame::to_postcard(&self.0)
    }

    /// Reads the file.
    ///
    /// # Errors
    /// If it is not what [`Self::encode`] wrote.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, frame::FrameError> {
        frame::from_postcard(bytes).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use cortado_protocol::Edge;

    use super::*;

    const JOB: JobId = JobId(1);

    #[test]
    fn promises_and_floors_only_grow_and_survive_a_restart() {
        let mut retention = Retention::default();
        assert_eq!(retention.promised(JOB), None);
        retention.promise(JOB, 20);
        retention.promise(JOB, 10);
        let floors = |before_ms| {
            let checkpoint = (Edge::output("a".parse().unwrap(), 1), 7);
            Floors { before_ms, checkpoint, floors: vec![(Edge::publisher("p", 0), 3)] }
        };
        assert!(retention.retire(JOB, floors(30)));
        assert!(!retention.retire(JOB, floors(30)) && !retention.retire(JOB, floors(5)));
        let retention = Retention::decode(&retention.encode()).unwrap();
        assert_eq!(retention.promised(JOB), Some(30), "what is gone gets no revision either");
        assert_eq!(retention.floors(JOB), Some(&floors(30)));
        assert_eq!(retention.all_floors().count(), 1);
    }
}
