//! Limits of messages and logs, checked before any memory is allocated. Sizes are in bytes.

/// Largest frame (head and tail) on a connection between nodes.
pub const PEER_FRAME_BYTES: usize = 16 << 20;
/// Largest frame (head and tail) on a client connection. A batch is about 1 MiB and never more than
/// [`BATCH_BYTES`]; a job specification may name many files.
pub const CLIENT_FRAME_BYTES: usize = 4 << 20;
/// Largest payload of one batch.
pub const BATCH_BYTES: usize = 3 << 20;
/// Size of the batches that a client aims for.
pub const BATCH_TARGET_BYTES: usize = 1 << 20;
/// Longest record of a CSV file, its line break included. A longer one is rejected whole.
pub const RECORD_BYTES: usize = 1 << 20;
/// Largest membership datagram: fits a QUIC datagram at an MTU of 1200 bytes.
pub const GOSSIP_BYTES: usize = 1150;
/// Largest head of any frame.
pub const HEAD_BYTES: usize = 2 << 20;
/// Largest encoded entry. With the numbers around it, it fits a frame between nodes and a record.
pub const ENTRY_BYTES: usize = PEER_FRAME_BYTES - (4 << 10);
/// Most jobs in one answer to a listing; the client asks for the next ones by the last id.
pub const JOBS_PER_ANSWER: usize = 200;
/// Most batches in one answer to [`crate::client::ClientRequest::Coverage`].
pub const BATCHES_PER_ANSWER: usize = 50_000;
/// Most intervals in one page of coverages ([`crate::peer::pages`]).
pub const PAGE_INTERVALS: usize = 30_000;
/// Most bytes of keys in one request for rows of a reference table.
pub const LOOKUP_KEYS_BYTES: usize = 4 << 20;
/// Size of the pieces in which nodes send and log results and large slot outputs.
pub const CHUNK_BYTES: usize = 1 << 20;
/// Longest node name.
pub const NODE_ID_BYTES: usize = 24;
/// Most members of one cluster.
pub const MEMBERS: usize = 512;
/// Most tables of one plan.
pub const TABLES: usize = 64;
/// Most files of one job.
pub const FILES: usize = 20_000;
/// Most slots of a job (the meta slot not counted).
pub const SLOTS: usize = 64;
/// Batch numbers of an edge are below this: more than any disk holds, and small enough that sums of
/// numbers do not overflow.
pub const NUMBERS: u64 = 1 << 48;
/// Most events that a node keeps; it drops older ones.
pub const EVENTS_KEPT: usize = 1_000;
/// Most events in one answer.
pub const EVENTS_PER_ANSWER: usize = 256;
/// Longest event of a stream, a line of JSON.
pub const EVENT_BYTES: usize = 64 << 10;
/// Most bytes of a batch of events.
pub const EVENTS_BATCH_BYTES: usize = 1 << 20;
/// Most lines of a batch of events.
pub const EVENTS_PER_BATCH: usize = 4_096;
/// Longest name of a stream or a publisher, in bytes.
pub const NAME_BYTES: usize = 100;
/// Most rejected rows kept per table for `cortado rejects`.
pub const REJECTS_KEPT: usize = 1_000;
