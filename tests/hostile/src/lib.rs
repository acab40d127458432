//! One check for each decoder of bytes from outside: properties that hold for any bytes.
//!
//! A check passes any bytes to the shipped code, and panics if a promise is broken. The fuzz
//! targets (`fuzz/`) call it, as do tests with generated input and a test that counts allocations
//! (`tests/`). Samples are valid input that the code itself has made; fuzzers start from them.
//!
//! | check | bytes of | decodes |
//! |---|---|---|
//! | [`frames::peer`] | a node | frames of links, their tails, entries |
//! | [`frames::client`] | a client, or a node that answers one | requests, answers, batch headers |
//! | [`dialogue::check`] | nodes and clients | the same; a node's core handles them |
//! | [`gossip::check`] | a node | membership datagrams; the detector handles them |
//! | [`log::check`] | a disk | segments, the synced mark, the log's id |
//! | [`csv::check`] | a user's files | headers, batch boundaries, rows |
//! | [`plan::check`] | a user, a client | plans |
//! | [`events::check`] | publishers, users, nodes | events, schemas and plans of streams, deltas, summaries, outputs |
//! | [`ledger::check`] | a node, a disk | deltas, summaries, outputs of slots, receipts |
//! | [`certificate::check`] | any program | the name in a certificate |
#![expect(clippy::unwrap_used, reason = "a check fails by panicking")]

pub mod certificate;
pub mod csv;
pub mod dialogue;
pub mod events;
pub mod frames;
pub mod gossip;
pub mod ledger;
pub mod log;
mod pieces;
pub mod plan;
mod sample;

pub use pieces::Pieces;
pub use sample::only_batch;

/// A check and its samples.
pub struct Check {
    /// Name of the fuzz target.
    pub name: &'static str,
    /// Panics if a promise is broken.
    pub run: fn(&[u8]),
    /// Valid input.
    pub samples: fn() -> Vec<Vec<u8>>,
}

/// All checks, ordered by name.
pub const CHECKS: &[Check] = &[
    Check { name: "certificate", run: certificate::check, samples: certificate::samples },
    Check { name: "client_frames", run: frames::client, samples: frames::client_samples },
    Check { name: "csv", run: csv::check, samples: csv::samples },
    Check { name: "dialogue", run: dialogue::check, samples: dialogue::samples },
    Check { name: "events", run: events::check, samples: events::samples },
    Check { name: "gossip", run: gossip::check, samples: gossip::samples },
    Check { name: "ledger", run: ledger::check, samples: ledger::samples },
    Check { name: "log", run: log::check, samples: log::samples },
    Check { name: "peer_frames", run: frames::peer, samples: frames::peer_samples },
    Check { name: "plan", run: plan::check, samples: plan::samples },
];
