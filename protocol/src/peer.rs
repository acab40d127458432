//! Messages between nodes.
//!
//! Each node dials every peer once for the messages *it* sends: a bidirectional stream that carries
//! [`LinkFrame`]s forward and cumulative acknowledgements back. Messages carry per-sender sequence
//! numbers; the receiver handles each number once and in order, the sender keeps what is
//! unacknowledged and sends it again after a reconnect.

use serde::{Deserialize, Serialize};

use crate::client::{ClientError, ClientRequest, ClientResponse};
use crate::expiry::{ExpireAnswer, Forgotten, Reason};
use crate::limits::PAGE_INTERVALS;
use crate::{Coverage, Edge, EntryKey, JobId, LogId, NodeId, Slot, SlotSet};

/// First frame in both directions of a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`crate::PROTOCOL_VERSION`] of the speaker.
    pub version: u32,
    /// The cluster's name.
    pub cluster: String,
    /// The speaker; must be the node of its certificate.
    pub node: NodeId,
    /// Number of the speaker's process start: sequence numbers begin anew with each.
    pub boot: u64,
    /// The log it writes to.
    pub log: LogId,
    /// From the dialler: the lowest sequence number it still has. From the other side: the next
    /// number it expects.
    pub seq: u64,
}

/// A frame of a link; the tail belongs to the message.
#[expect(clippy::large_enum_variant, reason = "acknowledgements are few and short-lived")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkFrame {
    /// A message with its sequence number.
    Message {
        /// Grows by one with each message of this sender's boot to this receiver.
        seq: u64,
        /// What it says.
        message: PeerMessage,
    },
    /// Everything below this number has been handled.
    Ack {
        /// The next number expected.
        next: u64,
    },
}

/// Coverage of some slots of an edge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeCoverage {
    /// The edge.
    pub edge: Edge,
    /// The slots it is said of.
    pub slots: SlotSet,
    /// The numbers.
    pub coverage: Coverage,
}

/// Cuts coverages into pages, each of which fits a message.
#[must_use]
pub fn pages(parts: Vec<EdgeCoverage>) -> Vec<Vec<EdgeCoverage>> {
    let (mut pages, mut page, mut room) = (Vec::new(), Vec::new(), PAGE_INTERVALS);
    for mut part in parts {
        while !part.coverage.is_empty() {
            let rest = part.coverage.split_off(room);
            let next = EdgeCoverage { coverage: rest, ..part };
            room -= part.coverage.intervals().len();
            page.push(part);
            if room == 0 {
                pages.push(std::mem::take(&mut page));
                room = PAGE_INTERVALS;
            }
            part = next;
        }
    }
    if !page.is_empty() {
        pages.push(page);
    }
    pages
}

/// The first page of coverages: as much as fits a message.
#[must_use]
pub fn first_page(parts: Vec<EdgeCoverage>) -> Vec<EdgeCoverage> {
    pages(parts).into_iter().next().unwrap_or_default()
}

/// What one node says to another. The table in docs/protocol.md tells who answers what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerMessage {
    /// Log this entry (encoded in the tail) and answer [`PeerMessage::Stored`] when it is fsynced.
    Store,
    /// The same for an entry that is only moved or copied: it is no sign of life of its job.
    Moved,
    /// These entries are fsynced in this log, for these slots.
    Stored {
        /// The log that has them.
        log: LogId,
        /// What is stored.
        entries: Vec<(EntryKey, SlotSet)>,
    },
    /// The entry was not taken; the sender may try again later.
    NotStored {
        /// Which one.
        key: EntryKey,
        /// Why.
        reason: NotStored,
    },
    /// The sender holds this of a job; the receiver, an owner of these slots, asks for what it misses.
    /// A large offer comes in [`pages`].
    Offer {
        /// The job.
        job: JobId,
        /// Given back in the answers; the same for all pages.
        round: u64,
        /// What the sender holds.
        held: Vec<EdgeCoverage>,
    },
    /// Answer to a page of an offer: what the receiver holds durably of what is offered there. It may
    /// need several pages itself, and is said again when more of it is durable.
    Have {
        /// The job.
        job: JobId,
        /// From the offer.
        round: u64,
        /// Whether this is the end of the first answer to a page.
        done: bool,
        /// The log that has them.
        log: LogId,
        /// What it holds.
        held: Vec<EdgeCoverage>,
    },
    /// Send these entries if you have them, as [`PeerMessage::Moved`], then [`PeerMessage::Fetched`].
    Fetch {
        /// The job.
        job: JobId,
        /// Given back in the answer.
        round: u64,
        /// What is wanted.
        wanted: Vec<EdgeCoverage>,
    },
    /// All that could be sent of a fetch has been sent.
    Fetched {
        /// The job.
        job: JobId,
        /// From the fetch.
        round: u64,
        /// For how long the sender has seen no sign of life of the job, in milliseconds; nothing if it
        /// does not know the job.
        idle_ms: Option<u64>,
    },
    /// From the coordinator to every known member: the job is to be forgotten. Answer
    /// [`PeerMessage::Expiring`], after having written down that you agree.
    Expire {
        /// The job.
        job: JobId,
        /// Names the proposal; the sender never gives the number out again.
        number: u64,
        /// Why: what a client wants deleted may have shown signs of life a moment ago.
        reason: Reason,
    },
    /// Answer to it, repeated until the outcome is known.
    Expiring {
        /// The job.
        job: JobId,
        /// From the proposal.
        number: u64,
        /// Whether the receiver agrees.
        answer: ExpireAnswer,
    },
    /// The proposal is given up and will never come into force.
    Withdrawn {
        /// The job.
        job: JobId,
        /// From the proposal.
        number: u64,
    },
    /// The job is gone for good: drop every trace of it.
    Forgotten {
        /// The job.
        job: JobId,
        /// Why that is so.
        proof: Forgotten,
    },
    /// The job is done; the tail is the entry of its log that says so. Whoever holds batches of the job
    /// writes the entry down and drops them.
    Ended {
        /// The job.
        job: JobId,
    },
    /// The sender holds batches of these jobs, which the receiver coordinates: are they done? Answered with
    /// [`PeerMessage::Ended`] or [`PeerMessage::Forgotten`] for those that are.
    HaveEnded {
        /// The jobs.
        jobs: Vec<JobId>,
    },
    /// These members handed everything over and left, or were forgotten: they count no more until they
    /// are seen with a higher generation.
    Departed {
        /// Members, each with the generation it left with.
        members: Vec<(NodeId, u64)>,
        /// Hashes of certificates that must not come back.
        barred: Vec<u64>,
    },
    /// From the coordinator to the first live replica of some slots: do this once they are complete.
    Work {
        /// The job.
        job: JobId,
        /// Given back in the answer.
        attempt: u64,
        /// The slots to do.
        slots: SlotSet,
        /// Declared number of batches per table.
        ends: Vec<u64>,
        /// What to do. For lookups the keys are the tail (postcard, `Vec<(Slot, Vec<Vec<u8>>)>`).
        work: Work,
    },
    /// A part of a slot's output; the bytes are the tail.
    Output {
        /// The job.
        job: JobId,
        /// From the request.
        attempt: u64,
        /// The slot.
        slot: Slot,
        /// Which part.
        part: u32,
        /// Parts in all.
        parts: u32,
    },
    /// Some slots can't be done yet: these batches are missing, and no live node has them.
    Incomplete {
        /// The job.
        job: JobId,
        /// From the request.
        attempt: u64,
        /// What is missing.
        missing: Vec<EdgeCoverage>,
    },
    /// The work failed for a reason that trying again does not change.
    WorkFailed {
        /// The job.
        job: JobId,
        /// From the request.
        attempt: u64,
        /// What went wrong.
        message: String,
    },
    /// A client's request on its way to the job's coordinator (or to any member, for listings).
    Ask {
        /// Given back in the answer.
        id: u64,
        /// What the client asks.
        request: ClientRequest,
    },
    /// The answer to it; a result chunk is the tail.
    Answer {
        /// From the question.
        id: u64,
        /// The answer.
        response: ClientResponse,
    },
    /// From a mapper to the job's coordinator: what is the job, and may it run? A client has sent batches.
    JobWanted {
        /// The job.
        job: JobId,
        /// Hash of the client's name ([`crate::client_key`]).
        client: u64,
    },
    /// Answer: the specification (postcard [`crate::job::JobSpec`] in the tail) if `admission` says so.
    JobIs {
        /// The job.
        job: JobId,
        /// Whether batches are taken.
        admission: Admission,
    },
    /// From coordinators to the admission node, once a second: these jobs hold a place or want one.
    Admit {
        /// All of them.
        jobs: Vec<PlaceWish>,
    },
    /// Answer: which of them may run, and the places of the others in the queue (1 is next, 0 runs).
    Admitted {
        /// Job and place.
        jobs: Vec<(JobId, u32)>,
    },
    /// Nothing. Its acknowledgement shows that the receiver's data link and loop work.
    Ping,
}

/// A job that holds a place in the queue or wants one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceWish {
    /// The job.
    pub job: JobId,
    /// Hash of the name of the client that sent batches of it last; 0 if none is known.
    pub client: u64,
    /// Time of submission, in milliseconds since the Unix epoch.
    pub submitted_ms: u64,
    /// Whether it holds a place.
    pub running: bool,
}

/// Why an entry was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NotStored {
    /// The disk is at its reserve.
    Full,
    /// The job is gone for good.
    Forgotten,
    /// Another entry with other content is already there: a bug or a changed dataset.
    Conflict,
    /// The job's time to live was over here; whether it is gone is being decided.
    Expiring,
    /// The job is done, and its batches were dropped.
    Ended,
}

/// What a replica does with its complete slots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// Fold the ledger of every query and send each slot's output.
    Fold,
    /// Send the rows of a reference table with the given keys.
    Lookup {
        /// The table's index in the plan.
        table: u16,
    },
}

/// Whether a job's batches are taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Admission {
    /// Yes.
    Running,
    /// Not yet.
    Queued {
        /// Place in the queue.
        position: u32,
    },
    /// No: it ended.
    Ended(ClientError),
    /// Not known here.
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::HEAD_BYTES;

    /// Every second number up to `numbers`, at the far end of what numbers can be.
    fn gaps(numbers: u64) -> Coverage {
        let mut coverage = Coverage::default();
        let first = crate::limits::NUMBERS - 2 * numbers;
        (0..numbers).for_each(|n| coverage.insert_range(first + 2 * n, first + 2 * n + 1));
        coverage
    }

    #[test]
    fn pages_fit_a_message_and_say_all() {
        let part = |table: usize, coverage: &Coverage| {
            let edge = Edge::table(table);
            EdgeCoverage { edge, slots: SlotSet::ALL, coverage: coverage.clone() }
        };
        assert!(pages(Vec::new()).is_empty());
        let coverage = gaps(70_000);
        let all: Vec<_> = (0..3).map(|table| part(table, &coverage)).collect();
        let pages = pages(all);
        assert_eq!(pages.len(), 7);
        let mut heard = vec![Coverage::default(); 3];
        for held in pages {
            for part in &held {
                heard[part.edge.as_table().unwrap()].union(&part.coverage);
            }
            let offer = PeerMessage::Offer { job: JobId(u128::MAX), round: u64::MAX, held };
            let bytes = postcard::to_stdvec(&LinkFrame::Message { seq: u64::MAX, message: offer });
            assert!(bytes.unwrap().len() < HEAD_BYTES);
        }
        assert!(heard.iter().all(|heard| *heard == coverage));
        // As many parts as there can be in one page.
        let many = (0..PAGE_INTERVALS).map(|_| part(63, &gaps(1))).collect();
        let pages = super::pages(many);
        assert_eq!(pages.len(), 1);
        assert!(postcard::to_stdvec(&pages[0]).unwrap().len() < HEAD_BYTES);
    }
}
