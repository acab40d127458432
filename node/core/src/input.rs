//! What happens to a core.

use bytes::Bytes;
use cortado_protocol::client::ClientRequest;
use cortado_protocol::job::BatchHeader;
use cortado_protocol::peer::{Hello, PeerMessage};
use cortado_protocol::{JobId, NodeId};

use crate::placement::Members;
use crate::record::{MovedRecord, RecordRef};
use crate::task::TaskOutput;

/// What happens to a core.
#[derive(Debug)]
pub enum Input {
    /// Time passes; see [`crate::Core::tick_interval`].
    Tick,
    /// The membership changed.
    Members(Members),
    /// The link this node dialled is ready, with the peer's hello.
    LinkUp(Hello),
    /// The link this node dialled broke.
    LinkDown {
        /// To whom.
        peer: NodeId,
        /// The peer closed it, and said that what it was sent is misbehaviour.
        refused: bool,
    },
    /// The peer has handled everything below this number.
    LinkAck(NodeId, u64),
    /// A peer dialled; the answer is [`crate::Effect::Welcome`], once the peer is a member that can be reached.
    Inbound(u64, Hello),
    /// A message arrived on a connection that was welcomed.
    Message {
        /// The connection.
        conn: u64,
        /// The node of its certificate.
        from: NodeId,
        /// The message's number.
        seq: u64,
        /// The message.
        message: PeerMessage,
        /// Its tail.
        tail: Bytes,
    },
    /// A connection that a peer had dialled is gone.
    InboundClosed(u64),
    /// A client asks; the answer is [`crate::Effect::Reply`] with the ticket.
    Request(u64, ClientRequest),
    /// A client sends a batch; the answer is [`crate::Effect::BatchReply`] with the ticket.
    Batch {
        /// For the answer.
        ticket: u64,
        /// The job.
        job: JobId,
        /// Hash of the client's name ([`cortado_protocol::client_key`]).
        client: u64,
        /// What the payload is.
        header: BatchHeader,
        /// The records.
        payload: Bytes,
    },
    /// The client of this ticket is gone; no answer is wanted.
    ClientLeft(u64),
    /// These appends are fsynced.
    Appended(Vec<(u64, RecordRef)>),
    /// The log has copied these records of a segment to its end. The core answers with
    /// [`crate::Effect::Release`].
    Moved {
        /// The segment.
        segment: u32,
        /// Its records.
        records: Vec<MovedRecord>,
    },
    /// This record, given with its head, is damaged.
    Damaged(RecordRef, Bytes),
    /// This append was refused: the disk is at its reserve.
    AppendRefused(u64),
    /// A member has shown these certificates (hashes of them).
    Certified(NodeId, Vec<u64>),
    /// A file is on disk as it was with this ticket, or newer.
    Saved(u64),
    /// A webhook has taken a row of a stream, or not, and why not.
    Delivered {
        /// The number of the attempt.
        ticket: u64,
        /// The stream.
        job: JobId,
        /// What came of it.
        result: Result<(), String>,
    },
    /// A task has ended.
    TaskDone(u64, TaskOutput),
    /// The operator wants this node to hand over and leave.
    Drain,
}
