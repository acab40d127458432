//! The end of a job's life: an irreversible step, so a majority of the members has to agree. The
//! core exchanges these messages and keeps the proof as a tombstone.

use serde::{Deserialize, Serialize};

use crate::{JobId, NodeId};

/// A member's answer to the proposal to drop a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExpireAnswer {
    /// The member agrees and has written that down: until it knows the outcome, it takes nothing
    /// new of the job.
    Accepted {
        /// The members that it knows.
        known: Vec<NodeId>,
        /// The number of copies that its acknowledgements stand for.
        min_copies: u8,
    },
    /// The member refuses: it saw a sign of life of the job within the time to live.
    Active {
        /// How long ago that was, in milliseconds.
        idle_ms: u64,
    },
}

/// Why a job is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// It showed no sign of life for its time to live.
    Expired,
    /// A client deleted it after it had ended.
    Deleted,
}

impl Reason {
    /// A sentence about the job.
    #[must_use]
    pub fn tell(self, job: JobId) -> String {
        match self {
            Self::Expired => format!("job {job} is gone: its time to live is over"),
            Self::Deleted => format!("job {job} was deleted"),
        }
    }
}

/// The members that agreed to drop a job: the proof that it is gone for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgotten {
    /// The node that proposed it.
    pub by: NodeId,
    /// The proposal's number.
    pub number: u64,
    /// Members that have written down that they agree.
    pub accepted: Vec<NodeId>,
    /// The number of known members.
    pub known: u16,
    /// The smallest number of copies that an acknowledgement stood for.
    pub min_copies: u8,
    /// Why it was proposed.
    pub reason: Reason,
}

impl Forgotten {
    /// Whether enough members agreed.
    #[must_use]
    pub fn is_in_force(&self) -> bool {
        self.accepted.len() >= needed(usize::from(self.known), self.min_copies)
    }
}

/// How many of the known members must agree to an irreversible step: a majority, so that any two
/// such steps share a member, and so many that at least one of them holds each acknowledged entry,
/// which is on `min_copies` members.
#[must_use]
pub fn needed(known: usize, min_copies: u8) -> usize {
    let majority = known / 2 + 1;
    majority.max((known + 1).saturating_sub(usize::from(min_copies.max(1))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_and_one_holder_of_everything_acknowledged_must_agree() {
        for (known, min_copies, wanted) in
            [(1, 1, 1), (2, 2, 2), (3, 2, 2), (5, 2, 4), (5, 3, 3), (24, 2, 23), (3, 1, 3)]
        {
            assert_eq!(needed(known, min_copies), wanted, "{known} {min_copies}");
        }
        let node: NodeId = "a".parse().unwrap();
        let proof = |accepted| Forgotten {
            by: node,
            number: 1,
            accepted: vec![node; accepted],
            known: 5,
            min_copies: 2,
            reason: Reason::Expired,
        };
        assert!(proof(4).is_in_force() && !proof(3).is_in_force());
    }
}
