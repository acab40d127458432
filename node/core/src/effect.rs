//! What a core wants done.

use bytes::Bytes;
use cortado_protocol::client::{BatchReply, ClientResponse};
use cortado_protocol::{JobId, NodeId};

use crate::record::Group;
use crate::task::Task;

/// What a core wants done. Effects are to be carried out in order; none of them answers at once.
#[derive(Debug)]
pub enum Effect {
    /// Write this frame on the link to the peer.
    Send(NodeId, Bytes),
    /// Answer the inbound hello of this connection: this number is expected next.
    Welcome(u64, u64),
    /// Tell the peer on this connection that everything below the number is handled.
    Ack(u64, u64),
    /// Append to the log and answer [`crate::Input::Appended`] after the fsync.
    Append {
        /// For the answer.
        ticket: u64,
        /// The records with which it is dropped.
        group: Group,
        /// Whether it may use the disk's reserve: everything but batches.
        reserved: bool,
        /// The record.
        bytes: Bytes,
        /// Length of its head, which [`crate::Core::restore`] needs at the next start.
        head: usize,
    },
    /// The log may drop the group's records.
    Forget(Group),
    /// The log may delete this segment: the core uses the copies of its records.
    Release(u32),
    /// Write this file and sync it, then answer [`crate::Input::Saved`]. A newer one for the same file takes
    /// the place of one that waits.
    Save {
        /// For the answer.
        ticket: u64,
        /// Which file.
        file: StateFile,
        /// All of it.
        bytes: Bytes,
    },
    /// Send a row to a webhook, and answer [`crate::Input::Delivered`].
    Deliver {
        /// For the answer.
        ticket: u64,
        /// The stream.
        job: JobId,
        /// Where.
        url: String,
        /// By which the receiver tells repetitions.
        key: String,
        /// A JSON object.
        body: String,
    },
    /// Run this and answer [`crate::Input::TaskDone`].
    Run(u64, Box<Task>),
    /// Answer a client; the tail belongs to it.
    Reply(u64, Box<ClientResponse>, Bytes),
    /// Answer a batch.
    BatchReply(u64, BatchReply),
    /// Everything this node held is elsewhere: it may leave.
    Drained,
    /// This node takes no new roles from now on: tell the members so.
    Draining,
    /// These are no members any more, each up to a generation, and these certificates open nothing.
    Departed {
        /// Members.
        members: Vec<(NodeId, u64)>,
        /// Hashes of certificates.
        barred: Vec<u64>,
    },
    /// Tell the members which of them this node does not reach with data, and whether that makes it
    /// ill itself: it does not reach most of them.
    Unreached {
        /// Whom.
        nodes: Vec<NodeId>,
        /// Whether this node is the one that is cut off.
        cut_off: bool,
    },
}

/// A file beside the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StateFile {
    /// Jobs that are forgotten for good, with the proofs.
    Tombstones,
    /// What this node agreed to, and for how long jobs have shown no sign of life.
    Expiry,
    /// The roster.
    Members,
    /// What was promised of the windows of streams, and what of them is gone.
    Retention,
}

impl StateFile {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Tombstones, Self::Expiry, Self::Members, Self::Retention];

    /// Its name in the data folder.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tombstones => "tombstones",
            Self::Expiry => "expiry",
            Self::Members => "members",
            Self::Retention => "retention",
        }
    }
}
