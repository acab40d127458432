//! Limits of the wire, checked before anything is allocated. Sizes are in bytes.

/// Largest frame (head and tail) on a connection between nodes.
pub const PEER_FRAME_BYTES: usize = 16 << 20;
/// Largest frame (head and tail) on a client connection. A batch is about 1 MiB and never more than
/// [`BATCH_BYTES`]; a job specification may name many files.
pub const CLIENT_FRAME_BYTES: usize = 4 << 20;
/// Largest payload of one batch.
pub const BATCH_BYTES: usize = 3 << 20;
/// Size a client aims at when it cuts batches.
pub const BATCH_TARGET_BYTES: usize = 1 << 20;
/// Longest record of a CSV file, its line break included. A longer one is rejected whole.
pub const RECORD_BYTES: usize = 1 << 20;
/// Largest membership datagram: fits a QUIC datagram at an MTU of 1200 bytes.
pub const GOSSIP_BYTES: usize = 1150;
/// Largest head of any frame.
pub const HEAD_BYTES: usize = 2 << 20;
/// Largest encoded entry: with its numbers around it, it fits a frame between nodes and a record.
pub const ENTRY_BYTES: usize = PEER_FRAME_BYTES - (4 << 10);
/// Jobs in one answer to a listing; the next ones are asked for by the last one's id.
pub const JOBS_PER_ANSWER: usize = 200;
/// Batches in one answer to [`crate::client::ClientRequest::Coverage`].
pub const BATCHES_PER_ANSWER: usize = 50_000;
/// Intervals in one page of coverages ([`crate::peer::pages`]).
pub const PAGE_INTERVALS: usize = 30_000;
/// Keys of one request for rows of a reference table.
pub const LOOKUP_KEYS_BYTES: usize = 4 << 20;
/// Size of the pieces in which results and large slot outputs travel and are logged.
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
/// Batches of an edge are numbered below this: more than any disk holds, and far from where sums of
/// numbers overflow.
pub const NUMBERS: u64 = 1 << 48;
/// Events a node keeps; older ones are forgotten.
pub const EVENTS_KEPT: usize = 1_000;
/// Events in one answer.
pub const EVENTS_PER_ANSWER: usize = 256;
/// Rejected rows kept per table for `cortado rejects`.
pub const REJECTS_KEPT: usize = 1_000;
