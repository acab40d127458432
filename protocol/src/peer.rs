//! Messages between nodes. The node's links carry them; the core decides what to send.
//!
//! Each node dials every peer once for the messages that it sends: a bidirectional stream that
//! carries [`LinkFrame`]s forward and cumulative acknowledgements back. Messages have sequence
//! numbers per sender. The receiver handles each number once and in order; the sender keeps
//! unacknowledged messages and sends them again after a reconnect.

use serde::{Deserialize, Serialize};

use crate::client::{ClientError, ClientRequest, ClientResponse};
use crate::expiry::{ExpireAnswer, Forgotten, Reason};
use crate::limits::PAGE_INTERVALS;
use crate::stream::Floors;
use crate::{Coverage, Edge, EntryKey, JobId, LogId, NodeId, Slot, SlotSet};

/// First frame in both directions of a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`crate::PROTOCOL_VERSION`] of the sender.
    pub version: u32,
    /// The cluster's name.
    pub cluster: String,
    /// The sender; must be the node of its certificate.
    pub node: NodeId,
    /// The sender's boot: sequence numbers start again with each boot.
    pub boot: u64,
    /// The log that the sender writes to.
    pub log: LogId,
    /// From the dialler: the lowest sequence number that it still has. From the other side: the
    /// next number that it expects.
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
        /// The message.
        message: PeerMessage,
    },
    /// All messages with lower numbers have been handled.
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
    /// The slots that it is about.
    pub slots: SlotSet,
    /// The numbers.
    pub coverage: Coverage,
}

/// Cuts coverages into pages, so that each page fits a message.
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

/// A message of one node to another. The table in docs/protocol.md says which message answers
/// which.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerMessage {
    /// Log this entry (encoded in the tail) and answer [`PeerMessage::Stored`] when it is fsynced.
    Store,
    /// Like [`PeerMessage::Store`], for an entry that is only moved or copied: it is no sign of
    /// life of its job.
    Moved,
    /// The entries are fsynced in this log, for these slots.
    Stored {
        /// The log that has them.
        log: LogId,
        /// The stored entries.
        entries: Vec<(EntryKey, SlotSet)>,
    },
    /// The entry was not stored; the sender may try again later.
    NotStored {
        /// The entry.
        key: EntryKey,
        /// The reason.
        reason: NotStored,
    },
    /// The sender holds these entries of a job. The receiver, an owner of these slots, asks for
    /// those it lacks. A large offer comes in [`pages`].
    Offer {
        /// The job.
        job: JobId,
        /// The answers repeat it; the same for all pages.
        round: u64,
        /// What the sender holds.
        held: Vec<EdgeCoverage>,
    },
    /// Answer to a page of an offer: the offered entries that the receiver holds durably. The
    /// answer may need several pages itself, and is repeated when more entries are durable.
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
    /// Send these entries if you have them, as [`PeerMessage::Moved`], then
    /// [`PeerMessage::Fetched`].
    Fetch {
        /// The job.
        job: JobId,
        /// The answer repeats it.
        round: u64,
        /// The wanted entries.
        wanted: Vec<EdgeCoverage>,
    },
    /// The sender has sent all it could for a fetch.
    Fetched {
        /// The job.
        job: JobId,
        /// From the fetch.
        round: u64,
        /// How long ago the sender saw a sign of life of the job, in milliseconds; `None` if it
        /// does not know the job.
        idle_ms: Option<u64>,
    },
    /// From the coordinator to every known member: proposes to drop the job. The receiver answers
    /// with [`PeerMessage::Expiring`]; to agree, it first writes that down.
    Expire {
        /// The job.
        job: JobId,
        /// Number of the proposal; the sender never uses it again.
        number: u64,
        /// The reason: a job that a client deletes may have shown signs of life a moment ago.
        reason: Reason,
    },
    /// Answer to [`PeerMessage::Expire`], repeated until the outcome is known.
    Expiring {
        /// The job.
        job: JobId,
        /// From the proposal.
        number: u64,
        /// Whether the receiver agrees.
        answer: ExpireAnswer,
    },
    /// The proposal is withdrawn and will never come into force.
    Withdrawn {
        /// The job.
        job: JobId,
        /// From the proposal.
        number: u64,
    },
    /// The job is gone for good: the receiver drops everything of it.
    Forgotten {
        /// The job.
        job: JobId,
        /// The proof that enough members agreed.
        proof: Forgotten,
    },
    /// The job is done; the tail is the manifest, an entry of the job's log. A node that holds
    /// batches of the job appends the entry to its log and then drops the batches.
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
    /// From a stream's coordinator to every known member: windows that end by then are to get no revision
    /// any more. The receiver writes that down, takes no such revision from then on, and answers with
    /// [`PeerMessage::Retiring`].
    Retire {
        /// The stream.
        job: JobId,
        /// The time, in milliseconds since the Unix epoch.
        before_ms: i64,
    },
    /// Answer to [`PeerMessage::Retire`].
    Retiring {
        /// The stream.
        job: JobId,
        /// The time that the receiver keeps to: the one proposed, or a later one.
        before_ms: i64,
        /// What it holds of outputs: of each edge the number behind the last batch.
        outputs: Vec<(Edge, u64)>,
    },
    /// From a stream's coordinator to every known member: a publisher is gone, and is to be sealed. The
    /// receiver writes that down, takes no new batch of it from then on, and answers with
    /// [`PeerMessage::Frozen`].
    Freeze {
        /// The stream.
        job: JobId,
        /// The publisher's edge.
        edge: Edge,
        /// The first batch of interest.
        from: u64,
        /// The answer repeats it.
        round: u64,
    },
    /// Answer to [`PeerMessage::Freeze`].
    Frozen {
        /// The stream.
        job: JobId,
        /// The publisher's edge.
        edge: Edge,
        /// From the question.
        round: u64,
        /// What the receiver holds of it.
        held: Vec<EdgeCoverage>,
    },
    /// Windows of a stream are retired: the receiver writes that down and drops the batches below the
    /// floors.
    Retired {
        /// The stream.
        job: JobId,
        /// What is gone.
        floors: Floors,
    },
    /// These members have handed everything over and left, or were forgotten. They do not count
    /// until they are seen with a higher generation.
    Departed {
        /// The members, each with the generation with which it left.
        members: Vec<(NodeId, u64)>,
        /// Hashes of certificates that must not be accepted again.
        barred: Vec<u64>,
    },
    /// From the coordinator to an owner of some slots: do this work once the slots are complete.
    Work {
        /// The job.
        job: JobId,
        /// The answers repeat it.
        attempt: u64,
        /// The slots.
        slots: SlotSet,
        /// Declared number of batches per table.
        ends: Vec<u64>,
        /// The work. For lookups the keys are the tail (postcard, `Vec<(Slot, Vec<Vec<u8>>)>`), for
        /// windows what is wanted.
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
        /// Number of this part.
        part: u32,
        /// Number of all parts.
        parts: u32,
    },
    /// Some slots can't be finished yet: no live node has these batches.
    Incomplete {
        /// The job.
        job: JobId,
        /// From the request.
        attempt: u64,
        /// The missing batches.
        missing: Vec<EdgeCoverage>,
    },
    /// The work failed, and would fail again.
    WorkFailed {
        /// The job.
        job: JobId,
        /// From the request.
        attempt: u64,
        /// What went wrong.
        message: String,
    },
    /// A client's request, forwarded to the job's coordinator (or to any member, for listings).
    Ask {
        /// The answer repeats it.
        id: u64,
        /// The request.
        request: ClientRequest,
    },
    /// Answer to [`PeerMessage::Ask`]; a result chunk is the tail.
    Answer {
        /// From the question.
        id: u64,
        /// The answer.
        response: ClientResponse,
    },
    /// From a mapper to the job's coordinator: asks for the job's specification and admission,
    /// because a client has sent batches.
    JobWanted {
        /// The job.
        job: JobId,
        /// Hash of the client's name ([`crate::client_key`]).
        client: u64,
    },
    /// Answer to [`PeerMessage::JobWanted`]: the specification and the schema sets (postcard
    /// ([`crate::job::JobSpec`], `Vec<(u32, Vec<`[`crate::stream::SchemaFile`]`>)>`) in the tail) if
    /// `admission` says so.
    JobIs {
        /// The job.
        job: JobId,
        /// Whether batches are taken.
        admission: Admission,
    },
    /// From coordinators to the admission node, once a second: jobs that hold a place or want one.
    Admit {
        /// All such jobs of the sender.
        jobs: Vec<PlaceWish>,
    },
    /// Answer to [`PeerMessage::Admit`]: the places of these jobs (0 runs, 1 is next).
    Admitted {
        /// Job and place.
        jobs: Vec<(JobId, u32)>,
    },
    /// An empty message. Its acknowledgement shows that the receiver's data link and loop work.
    Ping,
}

/// A job that holds a place in the queue or wants one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceWish {
    /// The job.
    pub job: JobId,
    /// Hash of the name of the client that sent the job's batches last; 0 if it is not known.
    pub client: u64,
    /// Time of submission, in milliseconds since the Unix epoch.
    pub submitted_ms: u64,
    /// Whether it holds a place.
    pub running: bool,
}

/// Why an entry was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NotStored {
    /// The disk is at its reserve.
    Full,
    /// The job is gone for good.
    Forgotten,
    /// The ledger holds the same entry with other content: a bug or a changed dataset.
    Conflict,
    /// The job's time to live is over at this node, and the members are deciding about it.
    Expiring,
    /// The job is done, and its batches were dropped.
    Ended,
    /// A revision of a window that is to get none any more.
    Retired,
    /// A batch of a publisher that is sealed, or is to be.
    Frozen,
}

/// The work of an owner on its complete slots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// Fold the ledger of every query and send the output of each slot.
    Fold,
    /// Send the rows of a reference table with the given keys.
    Lookup {
        /// The table's index in the plan.
        table: u16,
    },
    /// Fold some windows of a stream; the tail says which, and which batches have events in them.
    Windows,
    /// Only be complete for some batches of a stream; the tail says which (postcard, edge and coverage).
    Complete,
    /// Send the events of some batches of a stream; the tail says which (postcard, edge and coverage).
    Events,
}

/// Whether a job's batches are accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Admission {
    /// Yes.
    Running,
    /// Not yet.
    Queued {
        /// Place in the queue.
        position: u32,
    },
    /// No: the job has ended.
    Ended(ClientError),
    /// The coordinator does not know the job.
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::HEAD_BYTES;

    /// Every second number, `numbers` in all, near the highest possible number.
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
        // The most parts that one page can have.
        let many = (0..PAGE_INTERVALS).map(|_| part(63, &gaps(1))).collect();
        let pages = super::pages(many);
        assert_eq!(pages.len(), 1);
        assert!(postcard::to_stdvec(&pages[0]).unwrap().len() < HEAD_BYTES);
    }
}
